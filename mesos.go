package calicomesos

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/watch"
)

// running is what runs in this process. It is the only mutable state of the package besides
// the counters of metrics.go: a stanza must find what an earlier Corefile has started.
var running registry

// registry has the running stanzas, and the watchers that they share.
type registry struct {
	mu       sync.Mutex
	stanzas  []*stanza             // in the order of their starts
	clusters []*watchedCluster     // in the order of their starts
	web      map[string]*webServer // by address
}

// watchedCluster is a watcher and the number of stanzas that use it.
type watchedCluster struct {
	*watch.Watcher
	key    string   // of the options: equal stanzas share the watcher
	file   string   // of the snapshot, or ""
	begun  *startup // that has started the watcher
	users  int
	cancel context.CancelFunc
	done   chan struct{} // closed when the watcher has ended
}

// acquire returns the watcher of a cluster, and starts it, as a part of su, if there is none.
// The caller must release it.
func (r *registry) acquire(o *clusterOptions, su *startup) *watchedCluster {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := o.key()
	i := slices.IndexFunc(r.clusters, func(c *watchedCluster) bool { return c.key == key })
	if i >= 0 {
		r.clusters[i].users++
		return r.clusters[i]
	}
	c := &watchedCluster{key: key, file: o.snapshot, begun: su, users: 1, done: make(chan struct{})}
	c.Watcher = o.newWatcher(func() bool { return r.ownsSnapshot(c) })
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	r.clusters = append(r.clusters, c)
	showCluster(c.Name)
	go func() {
		defer close(c.done)
		c.Run(ctx)
	}()
	return c
}

// release ends a watcher that no other stanza uses, and waits for it.
func (r *registry) release(c *watchedCluster) {
	r.mu.Lock()
	c.users--
	last := c.users == 0
	if last {
		c.key = "" // whoever acquires an equal one from now on starts another
	}
	r.mu.Unlock()
	if !last {
		return
	}
	c.cancel()
	<-c.done
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clusters = slices.DeleteFunc(r.clusters, func(other *watchedCluster) bool { return other == c })
	if !slices.ContainsFunc(r.clusters, func(other *watchedCluster) bool { return other.Name == c.Name }) {
		forgetCluster(c.Name)
	}
}

// ownsSnapshot reports whether c may write its snapshot. Until the start that has begun c is
// over, it may fail; and an older watcher keeps a file until it ends.
func (r *registry) ownsSnapshot(c *watchedCluster) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.clusters, func(other *watchedCluster) bool { return other.file == c.file })
	return i >= 0 && r.clusters[i] == c && !c.begun.starting.Load()
}

// name names the cluster by its masters, for metrics and logs.
func (o *clusterOptions) name() string {
	var names []string
	if o.zookeeper != nil {
		names = append(names, o.zookeeper.String())
	}
	for _, u := range o.masters {
		names = append(names, u.Scheme+"://"+hostAndPath(u))
	}
	return strings.Join(names, ",")
}

// tellsSecretToZooKeeper reports whether the secret is sent to any master that ZooKeeper
// names: without ACLs, as far as can be told, and without certificates.
func (o *clusterOptions) tellsSecretToZooKeeper() bool {
	return o.zookeeper != nil && o.credentials != nil && o.tls == nil && o.zookeeper.Auth == ""
}

// endpoints returns the members of the ensemble, and the masters: a snapshot with none of
// them is of another cluster.
func (o *clusterOptions) endpoints() []string {
	var all []string
	if z := o.zookeeper; z != nil {
		for _, server := range z.Servers {
			all = append(all, "zk://"+server+z.Path)
		}
	}
	for _, u := range o.masters {
		all = append(all, hostAndPath(u))
	}
	return all
}

// hostAndPath returns the host of a master's API, with its path unless that is the usual one.
func hostAndPath(u *url.URL) string {
	if u.Path == detector.APIPath {
		return u.Host
	}
	return u.Host + u.Path
}

// key returns a text that is equal for equal options.
func (o *clusterOptions) key() string {
	var zookeeper detector.ZooKeeper
	if o.zookeeper != nil {
		zookeeper = *o.zookeeper
	}
	tls := "none"
	if o.tls != nil {
		tls = fmt.Sprintf("%q", append([]string{o.tls.ServerName}, o.tls.Files...))
	}
	credentials := ""
	if o.credentials != nil {
		credentials = o.credentials.File()
	}
	return fmt.Sprintf("%q %q %q %q %q %q %v %q", o.masters, zookeeper.Servers, zookeeper.Path, zookeeper.Auth, credentials, tls, o.poll, o.snapshot)
}

// newWatcher returns a watcher of the cluster. It writes the snapshot only while owned
// returns true.
func (o *clusterOptions) newWatcher(owned func() bool) *watch.Watcher {
	c := watch.Config{
		Name:     o.name(),
		Detector: o.detector(),
		Client:   mesos.NewClient(mesos.Config{Credentials: o.credentials, TLS: o.tls}),
		Resolver: resolve.New(nil),
		Poll:     o.poll,
		Observer: observer(o.name()),
	}
	if o.snapshot != "" {
		c.Snapshot = &watch.SnapshotConfig{File: o.snapshot, Endpoints: o.endpoints(), Owned: owned}
	}
	return watch.New(c)
}

// detector returns what finds the masters.
func (o *clusterOptions) detector() detector.Detector {
	switch {
	case o.zookeeper == nil:
		return detector.Static(o.masters)
	case len(o.masters) == 0:
		return o.zookeeper
	}
	return detector.Fallback{ZooKeeper: o.zookeeper, List: o.masters}
}
