package calicomesos

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"
)

func init() {
	plugin.Register(pluginName, setup)
	// Caddy runs this while it reads any Corefile, even one without the plugin.
	caddy.RegisterParsingCallback("dns", pluginName, func(caddy.Context) error {
		running.reap()
		return nil
	})
}

// setup parses a stanza, and registers what starts and stops it. Nothing starts before all
// server blocks are set up.
func setup(c *caddy.Controller) error {
	o, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	served := servedBy(c)
	for _, origin := range o.outside(served) {
		log.Warning(o.unreached(origin, served))
	}
	if o.cluster.tellsSecretToZooKeeper() {
		log.Warningf("Whoever can write to %s receives the secret in %s: use ACLs in ZooKeeper, or tls", o.cluster.zookeeper, o.cluster.credentials.File())
	}
	if o.httpOpen {
		log.Warningf("Anybody who reaches %s can read what the cluster runs: nothing is authenticated there", o.http)
	}
	p := &CalicoMesos{Fall: o.fall, bypass: o.bypassZones(), ready: make(chan struct{})}
	config := dnsserver.GetConfig(c)
	config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		p.Next = next
		return p
	})
	su := startupOf(c)
	if err := su.checkName(&o.cluster); err != nil {
		return plugin.Error(pluginName, c.Err(err.Error()))
	}
	if err := su.claimSnapshot(&o.cluster); err != nil {
		return plugin.Error(pluginName, c.Err(err.Error()))
	}
	if err := su.claimAddress(o.http); err != nil {
		return plugin.Error(pluginName, c.Err(err.Error()))
	}
	s := &stanza{plugin: p, options: o, config: config, startup: su, block: c.ServerBlockIndex, served: served}
	su.stanzas = append(su.stanzas, s)
	c.OnShutdown(s.stop)
	return nil
}

// servedBy returns the zones of the server block that c is a part of.
func servedBy(c *caddy.Controller) plugin.Zones {
	return plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)
}

// stanza is a stanza of a Corefile, from setup to shutdown.
type stanza struct {
	plugin  *CalicoMesos
	options *options
	config  *dnsserver.Config
	startup *startup
	block   int      // index of its server block in the Corefile
	served  []string // zones of that
	id      blockID

	mu        sync.Mutex // held by start and stop: a signal may stop a stanza that is starting
	stopped   bool
	cluster   *watchedCluster // nil unless the stanza runs
	publisher *publisher
	notifier  *notifier
	notifying chan struct{} // closed when the notifier has ended
	cancel    context.CancelFunc
}

// blockID identifies a server block across a reload.
type blockID struct {
	server string // as CoreDNS's metrics have it
	zone   string
	view   string // of *view*, or ""
}

// start makes the zones, which continue those of the same server block before a reload, and
// has them published. It fails if the API cannot listen.
func (s *stanza) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	c := s.config
	s.id = blockID{c.Transport + "://" + net.JoinHostPort(slices.Concat(c.ListenHosts, []string{""})[0], c.Port), c.Zone, c.ViewName}
	listening, err := listeningAddrs(c.ListenHosts)
	if err != nil {
		log.Warningf("Finding the addresses of this host for the zones' name server failed: %v", err)
	}
	xfer, _ := c.Handler("transfer").(*transfer.Transfer)
	zones := s.options.newZones(listening, xfer != nil)
	s.plugin.zones = zones.all()
	s.plugin.counts = make(map[*zone.Zone]*zoneCounts, len(s.plugin.zones))
	for _, z := range s.plugin.zones {
		s.plugin.counts[z] = new(zoneCounts)
		running.continues(s.id, z)
	}
	s.notifier = newNotifier(s.secondaries(xfer), s.plugin.sendNotify, &s.plugin.transfers)
	s.publisher = newPublisher(&s.options.rules, zones, s.notifier.zoneChanged, s.plugin.ready)
	if c.Handler("metadata") != nil {
		s.plugin.tasks = newTaskIndex(zones)
		s.publisher.tasks = s.plugin.tasks
	}

	ctx, cancel := context.WithCancel(context.Background())
	s.cancel, s.notifying = cancel, make(chan struct{})
	go func() {
		defer close(s.notifying)
		s.notifier.run(ctx)
	}()
	s.cluster = running.acquire(&s.options.cluster, s.startup)
	log.Infof("Watching %s for %s", s.cluster.Name, strings.Join(s.options.allOrigins(), " "))
	s.publisher.hosts = s.cluster.Resolver
	running.add(s)
	if err := s.listen(); err != nil {
		return err
	}
	s.cluster.Add(s.publisher)
	return nil
}

// listen begins to serve the API, if the stanza has one.
func (s *stanza) listen() error {
	if s.options.http == "" {
		return nil
	}
	return running.listen(s.options.http, s, &insight{plugin: s.plugin, options: s.options, zones: s.publisher.zones, watcher: s.cluster.Watcher, take: s.cluster.View})
}

// secondaries returns to whom NOTIFYs are sent: to nobody without *transfer*.
func (s *stanza) secondaries(xfer *transfer.Transfer) map[string][]secondary {
	if xfer == nil {
		return nil
	}
	all, err := secondariesOf(s.startup.instance.Caddyfile(), s.block, s.served, s.options.allOrigins())
	if err != nil {
		log.Warningf("Finding the secondaries in the Corefile failed, no NOTIFY is sent: %v", err)
	}
	return all
}

// stop ends what start began, or keeps it from beginning.
func (s *stanza) stop() error {
	s.mu.Lock()
	s.stopped = true
	if s.cluster == nil {
		s.mu.Unlock()
		return nil
	}
	running.leave(s.options.http, s)
	s.cluster.Remove(s.publisher)
	s.cancel()
	running.remove(s)
	running.release(s.cluster)
	<-s.notifying
	s.cluster, s.publisher = nil, nil
	s.mu.Unlock()
	// After a reload, the new stanzas with these zones have them for themselves now.
	for _, other := range running.all() {
		other.confirm(s.plugin.zones)
	}
	s.retire()
	return nil
}

// retire lets go of the records once the servers have stopped, since *reload* may keep Caddy's
// instance, and so the stanza, for ever. On SIGTERM the servers still answer: Caddy stops them
// last, and goes on listing the instance until then.
func (s *stanza) retire() {
	if slices.Contains(caddy.Instances(), s.startup.instance) {
		return
	}
	for _, z := range s.plugin.zones {
		z.Retire()
	}
}

// confirm ends the overlap of the zones with those of a stanza that has ended.
func (s *stanza) confirm(ended []*zone.Zone) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil {
		s.cluster.Do(func() { s.publisher.confirm(ended) })
	}
}

// startup starts the stanzas of a Corefile, and waits for all of them together.
type startup struct {
	instance  *caddy.Instance
	stanzas   []*stanza
	snapshots map[string]string // by file: the key of the cluster whose snapshot it has
	addresses map[string]bool   // of the API
	starting  atomic.Bool       // run has begun, and not ended
}

type startupKey struct{}

// startupOf returns the startup of the Corefile that c is a part of.
func startupOf(c *caddy.Controller) *startup {
	if su, ok := c.Get(startupKey{}).(*startup); ok {
		return su
	}
	su := &startup{snapshots: make(map[string]string), addresses: make(map[string]bool)}
	c.Set(startupKey{}, su)
	for _, i := range slices.Backward(caddy.Instances()) { // ours is the last that Caddy has begun
		i.StorageMu.RLock()
		ours := i.Storage[startupKey{}] == su
		i.StorageMu.RUnlock()
		if ours {
			su.instance = i
			break
		}
	}
	c.OnStartup(su.run)
	c.OnRestartFailed(func() error {
		running.reap()
		running.reapPanicked()
		return nil
	})
	return su
}

// checkName refuses two names of one cluster, and one name of two.
func (su *startup) checkName(o *clusterOptions) error {
	for _, s := range su.stanzas {
		other := &s.options.cluster
		switch same := other.key() == o.key(); {
		case other.watches(o) && other.label != o.label:
			return fmt.Errorf("property \"cluster\": %q and %q are names of one cluster", other.name(), o.name())
		case !same && o.label != "" && other.label == o.label:
			return fmt.Errorf("property \"cluster\": %q is the name of a cluster with other masters, or other settings for them", o.label)
		}
	}
	return nil
}

// claimSnapshot notes whose snapshot a file is, and refuses two owners.
func (su *startup) claimSnapshot(o *clusterOptions) error {
	if o.snapshot == "" {
		return nil
	}
	key := o.key()
	if other, ok := su.snapshots[o.snapshot]; ok && other != key {
		return fmt.Errorf("property %q: the file %q belongs to a stanza with other masters, or other settings for them", "snapshot", o.snapshot)
	}
	su.snapshots[o.snapshot] = key
	return nil
}

// run starts the stanzas, and waits for their first states, each for its startup_timeout.
func (su *startup) run() error {
	su.starting.Store(true)
	defer su.starting.Store(false)
	began := time.Now()
	for _, s := range su.stanzas {
		if err := s.start(); err != nil {
			su.stop()
			return plugin.Error(pluginName, err)
		}
	}
	for _, s := range su.stanzas {
		timeout := s.options.startupTimeout
		timer := time.NewTimer(timeout - time.Since(began))
		select {
		case <-s.plugin.ready:
		case <-timer.C:
			if !s.plugin.Ready() {
				log.Warningf("Received no state of %s within %v: answering SERVFAIL until there is one", s.options.cluster.name(), timeout)
			}
		}
		timer.Stop()
	}
	return nil
}

// stop stops all stanzas.
func (su *startup) stop() {
	for _, s := range su.stanzas {
		_ = s.stop() // it returns no error
	}
}

// add registers a stanza that runs.
func (r *registry) add(s *stanza) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stanzas = append(r.stanzas, s)
}

func (r *registry) remove(s *stanza) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stanzas = slices.DeleteFunc(r.stanzas, func(other *stanza) bool { return other == s })
}

// all returns the running stanzas.
func (r *registry) all() []*stanza {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.stanzas)
}

// continues makes a zone replace that of the same server block. If there is none, its serial is
// later than that of any zone of the same name, so that a secondary does not see it go back.
func (r *registry) continues(id blockID, z *zone.Zone) {
	for _, s := range r.all() {
		for _, old := range s.plugin.zones {
			if old.Origin != z.Origin {
				continue
			}
			if s.id == id {
				z.Replaces(old)
				return
			}
			z.Follows(old)
		}
	}
}

// reap stops the stanzas of starts that have failed, for example since a port was in use.
// Caddy calls no callback of their instance, but drops it from its list.
func (r *registry) reap() {
	instances := caddy.Instances()
	for _, s := range r.all() {
		if !slices.Contains(instances, s.startup.instance) {
			s.startup.stop()
		}
	}
}

// reapPanicked stops the stanzas of a restart that has panicked. Caddy goes on listing its
// instance, which has no servers. Neither has one that is still starting.
func (r *registry) reapPanicked() {
	for _, s := range r.all() {
		if su := s.startup; !su.starting.Load() && len(su.instance.Servers()) == 0 {
			su.stop()
		}
	}
}
