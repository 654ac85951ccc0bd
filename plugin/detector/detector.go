// Package detector finds the masters of a Mesos cluster, and which of them leads.
//
// As in Mesos, a detector is either standalone, with a fixed list of masters, or follows
// the election in ZooKeeper. A Static list does not know who leads: any master redirects
// to the leader. ZooKeeper lists the contenders, whose first leads, and watches the list for
// changes; what it listed last holds while the ensemble cannot be reached. Fallback has both.
package detector

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/mesos"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

var log = clog.NewWithPlugin("calicomesos")

// APIPath is where a master serves the Operator API v1.
const APIPath = "/api/v1"

// Masters are the masters of a cluster as a detector knows them.
type Masters struct {
	Leader     *url.URL         // API of the leading master; nil if each of All must be asked
	Live       bool             // ZooKeeper names Leader now; if not, it did so last
	All        []*url.URL       // APIs, in the order of their numbers
	Contenders []mesos.MasterID // the leader and those that would succeed it, in order; nil if unknown
}

// Detector finds masters.
type Detector interface {
	// Run calls found with the masters, first as soon as they are known and then when they
	// change. It returns when ctx is done.
	Run(ctx context.Context, found func(Masters))
}

// Static is a fixed list of masters.
type Static []*url.URL

// Run calls found once, with the list.
func (s Static) Run(ctx context.Context, found func(Masters)) {
	found(Masters{All: s})
	<-ctx.Done()
}

// Equal reports whether m and o name the same masters, and the same leader.
func (m *Masters) Equal(o *Masters) bool {
	return sameURL(m.Leader, o.Leader) && slices.EqualFunc(m.All, o.All, sameURL) && slices.Equal(m.Contenders, o.Contenders)
}

// IsElected reports whether ZooKeeper names the master at u as the leader now.
func (m *Masters) IsElected(u *url.URL) bool { return m.Live && sameURL(m.Leader, u) }

// Elects reports whether m names a leader, other than o's if that is not nil.
func (m *Masters) Elects(o *Masters) bool {
	return m.Leader != nil && (o == nil || !sameURL(m.Leader, o.Leader))
}

func sameURL(a, b *url.URL) bool { return a == b || a != nil && b != nil && *a == *b }

// ParseMaster returns the API of the master at endpoint: `http[s]://host:port[/path]` or
// `host:port`, which is asked by scheme. Errors do not quote the endpoint, which may hold a
// secret.
func ParseMaster(endpoint, scheme string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = scheme + "://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return nil, errors.New("malformed URL") // the error may quote a secret
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("unknown scheme %q: must be one of http, https, zk, file", u.Scheme)
	case u.User != nil:
		return nil, errors.New("must not hold a principal and its secret: use credentials")
	case u.Hostname() == "":
		return nil, errors.New("must have a host")
	case u.Port() == "":
		return nil, errors.New("must have a port")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must not have a query or fragment")
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("invalid port %q", u.Port())
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if last := path.Base(u.Path); last == "state" || last == "state.json" {
		return nil, fmt.Errorf("the path must be that of the operator API, by default %s, not %s", APIPath, u.Path)
	}
	if u.Path == "" {
		u.Path = APIPath
	}
	return u, nil
}
