// Package leader finds the masters of a Mesos cluster, and the one that leads.
package leader

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// APIPath is where a master serves the Operator API v1.
const APIPath = "/api/v1"

// View is what is known of the masters.
type View struct {
	Leader  *url.URL   // the leading master's API; nil where each of Masters is to be asked
	Masters []*url.URL // the API of each, in the order of their numbers
	Line    []Process  // the leader's and those that are to succeed it, in this order; nil where that is not known
}

// Process is a process of a master: the id of its MasterInfo, else the host:port of
// its API.
type Process string

// Finder finds the masters.
type Finder interface {
	// Run calls found with a first view and with every change of it, and returns
	// when ctx is done.
	Run(ctx context.Context, found func(View))
}

// List is a Finder of masters that are configured: a redirect of any of them
// leads to the leader.
type List []*url.URL

// Run tells of the list, once.
func (l List) Run(ctx context.Context, found func(View)) {
	found(View{Masters: l})
	<-ctx.Done()
}

func (v *View) equal(o *View) bool {
	same := func(a, b *url.URL) bool { return a == b || a != nil && b != nil && *a == *b }
	return same(v.Leader, o.Leader) && slices.EqualFunc(v.Masters, o.Masters, same) && slices.Equal(v.Line, o.Line)
}

// Parse returns the API of the master at endpoint: `http[s]://host:port[/path]`
// or `host:port`. Errors do not name the endpoint, which may hold a secret.
func Parse(endpoint string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return nil, errors.New("malformed URL") // its errors may quote a secret
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("scheme %q is none of http, https, zk, file", u.Scheme)
	case u.User != nil:
		return nil, errors.New("a principal and its secret do not belong here")
	case u.Hostname() == "":
		return nil, errors.New("no host")
	case u.Port() == "":
		return nil, errors.New("no port")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("a query or fragment has no meaning here")
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		return nil, fmt.Errorf("port %q is not one", u.Port())
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if u.Path == "" {
		u.Path = APIPath
	}
	return u, nil
}
