package calicomesos

import (
	"context"
	"slices"
	"sync"

	"github.com/calicomesos/calicomesos/plugin/detector"
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
	key       string              // of the options: equal stanzas share the watcher
	zookeeper *detector.ZooKeeper // nil without
	file      string              // of the snapshot, or ""
	begun     *startup            // that has started the watcher
	users     int
	cancel    context.CancelFunc
	done      chan struct{} // closed when the watcher has ended
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
	c := &watchedCluster{key: key, zookeeper: o.zookeeper, file: o.snapshot, begun: su, users: 1, done: make(chan struct{})}
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
