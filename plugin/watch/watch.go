// Package watch keeps the model of a Mesos cluster up to date from its masters, and tells
// its sinks what changes. It knows no DNS.
//
// A Watcher's loop owns the model: one goroutine, in Run, which runs functions that the
// others send to it. Those are the detector, which finds the masters; the connection, which
// subscribes to the leading master (stream.go) or polls it (poll.go) and starts over when
// that ends; beside a stream the reconciliation (reconcile.go), which asks for what no event
// tells, and the question whether another master leads (rival.go); the resolver of hostnames; and the writer of the snapshot (snapshot.go). All of them
// end before Run returns.
//
// An event takes this way: the stream decodes it and sends it to the loop, which applies it
// to the model (package cluster). A lone event is published at once: the loop flushes the
// model's changes to every sink. Events that follow within publishInterval are published
// together.
package watch

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/wake"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

var log = clog.NewWithPlugin("calicomesos")

const (
	// publishInterval is the minimum time between two publications.
	publishInterval = 10 * time.Millisecond
	// unchangedInterval is the same after a publication without a change. It is shorter, since
	// the launch of a task, which changes nothing, just precedes that the task runs.
	unchangedInterval = time.Millisecond
	// maxQueued is the number of functions that may wait for the loop.
	maxQueued = 64
)

// Config is what a Watcher needs.
type Config struct {
	Name     string // of the cluster, in logs
	Detector detector.Detector
	Client   *mesos.Client
	Resolver *resolve.Resolver
	Poll     time.Duration   // interval at which to poll the state; 0: subscribe
	Snapshot *SnapshotConfig // nil: none
	Observer Observer
	// Advice returns what an operator can do about an error of a master, or "". It may be nil.
	Advice func(error) string
}

// Observer is told what a watcher does, for metrics. Any goroutine may call it.
type Observer interface {
	// Connected tells how an attempt to subscribe, or to poll, has ended.
	Connected(err error)
	// Received tells the type of an event, or GET_STATE for the answer to a poll.
	Received(eventType string)
	// Malformed counts objects of a state that could not be decoded, beyond those of the state
	// before.
	Malformed(n int)
	// Led tells that another master leads than before.
	Led()
	// Reconciled tells that the cluster is as a master has listed it, and how many objects had
	// changed without an event.
	Reconciled(differences int)
	// Published tells how long a change has waited until all sinks had it.
	Published(delay time.Duration)
	// SnapshotWritten tells whether a snapshot could be written, and the size of the file in bytes.
	SnapshotWritten(size int64, err error)
}

// Sink takes what a watcher publishes. The loop calls it: it must not block.
type Sink interface {
	// Publish takes changes; the first are the whole cluster. What they point to never changes.
	Publish(changes *cluster.Changes, status Status)
	// HostsChanged tells which hosts the Resolver has looked up. Whoever still needs one must ask
	// the Resolver for it again.
	HostsChanged(hosts []string)
}

// Status tells how far the published records can be trusted.
type Status struct {
	Complete bool // a task that was not published does not run
	Stale    bool // loaded from a snapshot: no master has confirmed it
	// After is when all that an earlier process has published, as its snapshot says, was published.
	// The clock may have been put back since.
	After time.Time
}

// Stats describe a watcher.
type Stats struct {
	cluster.Counts
	Connected bool      // to a leader that has told its state
	Polled    bool      // it has told it to a poll, not in a stream
	Synced    bool      // connected to a leader whose state is complete
	Leader    string    // host:port of the leader's API as last known, or ""
	Heard     time.Time // when a master last spoke, or the watcher began
	Dirty     time.Time // when the oldest change came that is not published; zero for none
}

// Watcher watches a cluster.
type Watcher struct {
	Config

	calls chan func()
	done  chan struct{} // closed when Run returns
	stats atomic.Pointer[Stats]
	heard atomic.Int64                  // when a master last spoke, or Run began, in Unix nanoseconds
	dirty atomic.Int64                  // dirtySince for Stats, in Unix nanoseconds, or 0
	wants atomic.Pointer[cluster.Wants] // of the model

	connection connection

	// The rest belongs to the loop.
	model       *cluster.Cluster
	sinks       []Sink
	masters     detector.Masters
	leader      leaderInfo
	connected   bool // to leader, which has told its state
	polled      bool // leader has told it to a poll
	doubted     bool // leader's heartbeat is late, and another may lead
	malformed   int  // objects of the last state
	published   bool // anything yet
	status      Status
	dirtySince  time.Time // when the oldest change that is not published came; zero for none
	publishNext time.Time // when to publish at the earliest
	snapshots   snapshotWriter
}

// leaderInfo is the leading master as it names itself, or else as it was reached.
type leaderInfo struct {
	Endpoint string // host:port of its API
	mesos.Master
}

// New returns a watcher. It does nothing before Run.
func New(c Config) *Watcher {
	w := &Watcher{
		Config:     c,
		calls:      make(chan func(), maxQueued),
		done:       make(chan struct{}),
		connection: connection{changed: wake.New(), resync: wake.New(), rivals: wake.New()},
		model:      cluster.New(c.Resolver),
		snapshots:  snapshotWriter{written: make(chan written, 1), failing: logstate.State{Log: log}},
	}
	w.heard.Store(time.Now().UnixNano())
	w.stats.Store(&Stats{})
	w.wants.Store(&cluster.Wants{})
	return w
}

// Run watches until ctx is done. It may be called once.
func (w *Watcher) Run(ctx context.Context) {
	defer close(w.done)
	began := time.Now().UnixNano()
	w.heard.Store(began)
	var goroutines sync.WaitGroup
	goroutines.Go(func() { w.Detector.Run(ctx, func(m detector.Masters) { w.found(ctx, m) }) })
	goroutines.Go(func() { w.connect(ctx) })
	goroutines.Go(func() { w.Resolver.Run(ctx) })
	w.loadSnapshot(began)
	w.loop(ctx)
	goroutines.Wait()
	w.Client.Close()
	w.saveLast()
}

// Add adds a sink. It returns when the sink has the whole cluster, if there is one.
func (w *Watcher) Add(s Sink) {
	w.Do(func() {
		if w.published { // first: Full lacks what is not flushed
			w.publish()
		}
		w.sinks = append(w.sinks, s)
		if w.published {
			full := w.model.Full()
			s.Publish(&full, w.status)
		}
	})
}

// Remove removes a sink. It is not called any more when Remove returns.
func (w *Watcher) Remove(s Sink) {
	w.Do(func() {
		w.sinks = slices.DeleteFunc(w.sinks, func(other Sink) bool { return other == s })
	})
}

// Do runs f on the loop, so that no sink is called meanwhile, and waits for it. It does
// nothing once Run has returned.
func (w *Watcher) Do(f func()) {
	done := make(chan struct{})
	select {
	case w.calls <- func() { defer close(done); f() }:
	case <-w.done:
		return
	}
	select {
	case <-done:
	case <-w.done:
	}
}

// Stats describes the watcher.
func (w *Watcher) Stats() Stats {
	s := *w.stats.Load()
	s.Heard = time.Unix(0, w.heard.Load())
	if dirty := w.dirty.Load(); dirty != 0 {
		s.Dirty = time.Unix(0, dirty)
	}
	return s
}

// emit has the loop run f, after all that the same goroutine has emitted before. It waits
// while the loop is busy, unless ctx is done.
func (w *Watcher) emit(ctx context.Context, f func()) {
	select {
	case w.calls <- f:
	case <-ctx.Done():
	}
}

// heardNow notes that a master speaks.
func (w *Watcher) heardNow() { w.heard.Store(time.Now().UnixNano()) }

// loop runs what the other goroutines emit, and publishes what that changes.
func (w *Watcher) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case call := <-w.calls:
			call()
		case <-w.Resolver.Changed():
			w.hostsChanged()
		case result := <-w.snapshots.written:
			w.snapshots.saved(result)
		case <-timer.C:
		}
		if next := w.doDue(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// doDue does what is due, and returns when there is more, or the zero time.
func (w *Watcher) doDue(now time.Time) (next time.Time) {
	// An agent's time does not end while what it has told waits to be applied.
	if at := w.model.Deadline(); !at.IsZero() && !at.After(now) && len(w.calls) == 0 {
		w.model.Expire()
		w.markDirty(now)
	}
	w.tellWants()
	next = earlier(w.model.Deadline(), w.publishIfDue(now))
	return earlier(next, w.saveIfDue(now))
}

// publishIfDue publishes what has changed, and returns when that may be due, or the zero time.
func (w *Watcher) publishIfDue(now time.Time) time.Time {
	switch {
	case w.dirtySince.IsZero():
		return time.Time{}
	case now.Before(w.publishNext):
		return w.publishNext
	case w.publish():
		w.publishNext = time.Now().Add(publishInterval)
	default:
		w.publishNext = time.Now().Add(unchangedInterval)
	}
	return time.Time{}
}

// earlier returns the earlier of two times. The zero time does not count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// tellWants tells the reconciliation what the model wants to be told.
func (w *Watcher) tellWants() {
	wants := w.model.Wants()
	if before := w.wants.Load(); wants != *before {
		w.wants.Store(&wants)
		if wants.State && !before.State {
			w.connection.resync.Set()
		}
	}
}

// markDirty notes that there may be something to publish since at.
func (w *Watcher) markDirty(at time.Time) {
	if w.model.Known() && w.dirtySince.IsZero() {
		w.setDirty(at)
	}
}

// setDirty notes when the oldest change came that is not published; the zero time for none.
func (w *Watcher) setDirty(since time.Time) {
	w.dirtySince = since
	if since.IsZero() {
		w.dirty.Store(0)
	} else {
		w.dirty.Store(since.UnixNano())
	}
}

// publish gives the sinks what has changed, and reports whether there was anything.
func (w *Watcher) publish() bool {
	changes := w.model.Flush()
	status := Status{Complete: w.model.Complete() && !w.doubted, Stale: w.model.Stale(), After: w.snapshots.after}
	changed := !w.published || !changes.Empty() || status != w.status
	if changed {
		for _, s := range w.sinks {
			s.Publish(&changes, status)
		}
		w.published, w.status = true, status
		w.snapshots.outdated = true
		if !w.dirtySince.IsZero() {
			w.Observer.Published(time.Since(w.dirtySince))
		}
	}
	log.Debugf("Published %s: %s, complete=%v stale=%v", w.Name, logstate.Count(changes.Tasks, "changed task"), status.Complete, status.Stale)
	w.setDirty(time.Time{})
	w.updateStats()
	return changed
}

func (w *Watcher) updateStats() {
	w.stats.Store(&Stats{
		Counts:    w.model.Counts(),
		Connected: w.connected,
		Polled:    w.polled,
		Synced:    w.connected && w.model.Complete() && !w.doubted,
		Leader:    w.leader.Endpoint,
	})
}

// applyMasters applies what the detector has found.
func (w *Watcher) applyMasters(m detector.Masters, at time.Time) {
	log.Debugf("Found %s of %s: leader %v", logstate.Count(len(m.All), "master"), w.Name, m.Leader)
	w.model.Elected(m.Contenders, at)
	w.masters = m
	w.resolveMasters()
	w.markDirty(at)
}

// applyState applies a whole state of a leader.
func (w *Watcher) applyState(s *mesos.State, who leaderInfo, polled bool, at time.Time) {
	w.model.State(s, cluster.Leader{ID: w.masterID(who), Certain: who.ID != "", Polled: polled}, at)
	if w.leader.Endpoint != "" && who.isOther(w.leader) {
		w.Observer.Led()
	}
	w.leader, w.connected, w.polled, w.doubted = who, true, polled, false
	w.Observer.Reconciled(0)
	w.countMalformed(s)
	w.resolveMasters()
	w.markDirty(at)
}

// countMalformed counts the malformed objects of a whole state. They have no id to be
// recognised by: those of the last state are not counted again.
func (w *Watcher) countMalformed(s *mesos.State) {
	if n := s.Malformed - w.malformed; n > 0 {
		w.Observer.Malformed(n)
		log.Warningf("Ignored %s in the state of %s: tasks, agents or frameworks", logstate.Count(s.Malformed, "malformed object"), w.Name)
	}
	w.malformed = s.Malformed
}

// masterID returns the ID of a master. If it does not tell that itself, ZooKeeper does.
func (w *Watcher) masterID(l leaderInfo) mesos.MasterID {
	named := w.masters.Leader
	if l.ID == "" && named != nil && named.Host == l.Endpoint && len(w.masters.Contenders) > 0 {
		return w.masters.Contenders[0]
	}
	return mesos.MasterID(cmp.Or(l.ID, l.Endpoint))
}

// applyDisconnect notes that the leader is not connected any more. A master was last heard at
// lastHeard. If another takes over at once, doubts stay until its state.
func (w *Watcher) applyDisconnect(lastHeard, at time.Time, takenOver bool) {
	w.connected, w.doubted = false, w.doubted && takenOver
	w.model.Disconnected(lastHeard, at)
	w.markDirty(at)
	w.updateStats()
}

// applyFailure notes that an attempt to connect has failed.
func (w *Watcher) applyFailure(err error, at time.Time) {
	if mesos.HasSteppedDown(err, w.leader.Endpoint) {
		w.model.SteppedDown(at)
	}
}

// hostsChanged applies the addresses of hostnames that were looked up.
func (w *Watcher) hostsChanged() {
	hosts := w.Resolver.LookedUp()
	for _, host := range hosts {
		w.model.HostChanged(host)
	}
	for _, s := range w.sinks {
		s.HostsChanged(hosts)
	}
	w.resolveMasters()
	w.markDirty(time.Now())
}

// resolveMasters tells the model the addresses of the masters.
func (w *Watcher) resolveMasters() {
	if !w.model.Known() {
		return
	}
	m := &cluster.Masters{Leader: w.addrs(w.leader.Addr, w.leader.Hostname)}
	if p := w.leader.Port; p <= 65535 {
		m.Port = uint16(p)
	}
	for _, u := range w.masters.All {
		m.All = append(m.All, w.addrs(mesos.ParseAddr(u.Hostname()), u.Hostname()))
	}
	w.model.SetMasters(m)
}

func (w *Watcher) addrs(addr netip.Addr, hostname string) []netip.Addr {
	if addr.IsValid() {
		return []netip.Addr{addr}
	}
	if hostname == "" {
		return nil
	}
	return w.Resolver.Addrs(hostname)
}
