package calicomesos

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/follow"
	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
	"github.com/calicomesos/calicomesos/plugin/zone"
)

// gather is how long the events of a burst wait for each other. It is also the
// step of a zone's serial, which so never runs ahead of the clock.
const gather = 10 * time.Millisecond

// gatherNothing is the same where an event has changed nothing: that of a task that
// is launched comes just before that of the task that runs.
const gatherNothing = time.Millisecond

// watcher keeps the model of a cluster from what its masters tell, and gives its
// changes to the publishers of the stanzas that share it. It owns every
// goroutine that watching takes, from start to stop.
type watcher struct {
	name     string // label "cluster" of the metrics: the masters as configured
	follower *follow.Follower
	resolver *resolve.Resolver
	store    *store // nil without a snapshot

	messages chan message
	stats    atomic.Pointer[watchStats]
	heard    atomic.Int64    // when a master last spoke, or watching began, Unix nanoseconds
	watching context.Context // until stop
	cancel   context.CancelFunc
	done     chan struct{} // closed when every goroutine has ended

	// The rest belongs to the goroutine of publishLoop.
	cluster    *cluster.Cluster
	publishers []*publisher
	masters    leader.View
	leader     follow.Leader // the last that has told a state
	reign      leader.Reign  // of it
	known      bool          // a state is there, of a master or a snapshot
	restored   bool          // it is of a snapshot
	connected  bool          // a master that has told the state is listened to
	published  bool          // a state has been published
	status     zone.Status   // as last published
	oldest     time.Time     // when the oldest event that is not published came in
	unsaved    bool          // the snapshot is older than what is published
}

// message is what other goroutines tell the publishing one: a follow.Message, a
// join, a settle or a leave.
type message struct {
	at      time.Time
	heard   time.Time // when a master had last spoken then
	content any
}

// message returns content as one that comes now.
func (w *watcher) message(content any) message {
	return message{time.Now(), time.Unix(0, w.heard.Load()), content}
}

// join adds a publisher, settle says that what its zones took the place of is
// gone, and leave removes it; done is closed then.
type (
	join struct {
		*publisher
		done chan struct{}
	}
	settle struct {
		*publisher
		done chan struct{}
	}
	leave struct {
		*publisher
		done chan struct{}
	}
)

// watchStats is what the metrics say of a watcher.
type watchStats struct {
	counts   cluster.Counts
	synced   bool
	awaiting bool
	leader   string
}

func newWatcher(name string, finder leader.Finder, client *mesos.Client, resolver *resolve.Resolver) *watcher {
	w := &watcher{
		name:     name,
		follower: follow.New(name, finder, client),
		resolver: resolver,
		messages: make(chan message, 64),
		done:     make(chan struct{}),
		cluster:  cluster.New(resolver.Addrs),
	}
	w.follower.Tell = w.tell
	w.follower.Awaiting = func() bool { return w.stats.Load().awaiting }
	w.stats.Store(&watchStats{})
	return w
}

// start begins to watch.
func (w *watcher) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.watching, w.cancel = ctx, cancel
	began := time.Now().UnixNano()
	w.heard.Store(began)
	showCounters(w.name)
	go func() {
		defer close(w.done)
		var wg sync.WaitGroup
		wg.Go(func() { w.follower.Run(ctx) })
		wg.Go(func() { w.resolver.Run(ctx) })
		if w.store != nil {
			wg.Go(func() { w.store.Run(ctx) })
		}
		w.restore(began)
		w.publishLoop(ctx)
		wg.Wait()
		if w.store != nil && w.status.Complete && w.cluster.Complete() {
			w.store.save(w.takeSnapshot())
		}
	}()
}

// stop ends what start began.
func (w *watcher) stop() {
	w.cancel()
	<-w.done
}

// number says in which order the masters are counted.
func (w *watcher) number(masters []*url.URL) { w.follower.SetMasters(w.watching, masters) }

// tell hands m to the publishing goroutine.
func (w *watcher) tell(ctx context.Context, m follow.Message) {
	w.count(m)
	switch m := m.(type) {
	case follow.Connect:
		if m.Err == nil {
			return
		}
	case follow.Event:
		if _, ok := m.Event.(mesos.Heartbeat); ok {
			return
		}
	}
	select {
	case w.messages <- w.message(m):
	case <-ctx.Done():
	}
}

// count notes m for the metrics.
func (w *watcher) count(m follow.Message) {
	var typ string
	switch m := m.(type) {
	case follow.Connect:
		countConnect(w.name, m.Err)
		return
	case follow.State:
		if typ = "SUBSCRIBED"; m.Polled {
			typ = "GET_STATE"
		}
		malformedTotal.WithLabelValues(w.name).Add(float64(m.State.Malformed))
	case follow.Event:
		typ = mesos.EventType(m.Event)
	default:
		return
	}
	w.heard.Store(time.Now().UnixNano())
	eventsTotal.WithLabelValues(w.name, typ).Inc()
}

// add has p publish the cluster, now if there is a state and whenever it
// changes. It returns once p is up to date.
func (w *watcher) add(p *publisher) {
	m := join{p, make(chan struct{})}
	w.send(m, m.done)
}

// settle tells p that what its zones took the place of is gone.
func (w *watcher) settle(p *publisher) {
	m := settle{p, make(chan struct{})}
	w.send(m, m.done)
}

// remove has p publish no more.
func (w *watcher) remove(p *publisher) {
	m := leave{p, make(chan struct{})}
	w.send(m, m.done)
}

func (w *watcher) send(content any, done <-chan struct{}) {
	select {
	case w.messages <- w.message(content):
	case <-w.done:
		return
	}
	select {
	case <-done:
	case <-w.done:
	}
}

// publishLoop takes in what the other goroutines tell, and publishes it: an
// event that comes alone at once, those of a burst together.
func (w *watcher) publishLoop(ctx context.Context) {
	timer, holds := stoppedTimer(), stoppedTimer()
	defer timer.Stop()
	defer holds.Stop()
	var (
		next  time.Time // when to publish at the earliest
		armed bool
	)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-w.messages:
			w.handle(m)
		case <-w.resolver.Changed():
			w.rename()
		case <-timer.C:
			armed = false
		case <-holds.C:
			w.expire()
		case <-w.savable():
			w.unsaved = false
			w.store.Put(w.takeSnapshot())
		case <-w.unwritten():
			w.unsaved = true
		}
		if at := w.cluster.Deadline(); !at.IsZero() {
			holds.Reset(time.Until(at))
		}
		if armed || !w.known || w.oldest.IsZero() {
			continue
		}
		if wait := time.Until(next); wait > 0 {
			timer.Reset(wait)
			armed = true
			continue
		}
		pause := gatherNothing
		if w.publish() {
			pause = gather
		}
		next = time.Now().Add(pause)
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(gather)
	t.Stop()
	return t
}

func (w *watcher) handle(m message) {
	switch c := m.content.(type) {
	case join:
		if w.published { // All is as of the last publication, and the next one goes on from it
			w.publish()
		}
		w.publishers = append(w.publishers, c.publisher)
		if w.published {
			all := w.cluster.All()
			c.publish(&all, w.status)
		}
		close(c.done)
		return
	case settle:
		c.settle()
		close(c.done)
		return
	case leave:
		w.publishers = slices.DeleteFunc(w.publishers, func(p *publisher) bool { return p == c.publisher })
		close(c.done)
		return
	case follow.Masters:
		if len(c.Line) > 0 {
			w.reign.Succeed(w.masters.Line, c.Line, m.at)
		} else {
			c.Line = w.masters.Line
		}
		w.masters = c.View
		w.setMasters()
	case follow.State:
		w.succeed(c, m.at)
		w.cluster.Apply(c.Subscribed)
		w.leader = c.Leader
		w.known, w.connected, w.restored = true, true, false
		w.setMasters()
	case follow.Event:
		w.cluster.Apply(c.Event)
	case follow.Asked:
		w.cluster.BeginCompare()
		return
	case follow.Answered:
		w.compare(c)
	case follow.Connect:
		if mesos.HasSteppedDown(c.Err, w.leader.Endpoint) {
			w.reign.Depart(m.at)
		}
		return
	case follow.Lost:
		w.connected = false
		w.reign.End(m.heard, m.at)
		w.updateStats()
		return
	}
	w.due(m.at)
}

// succeed prepares the cluster for the state of the leader that is listened to now.
func (w *watcher) succeed(s follow.State, at time.Time) {
	next := w.process(s.Leader)
	same := next == w.reign.Leader && (s.Leader.ID != "" || !w.reign.Ended())
	if w.known && !same {
		w.cluster.Succeed()
		if w.reign.Missed(next, at) {
			w.cluster.Outdate()
		}
	}
	w.reign = leader.Reign{Leader: next, Polled: s.Polled}
}

// process returns which process of a master l is. Where it does not say itself,
// ZooKeeper does.
func (w *watcher) process(l follow.Leader) leader.Process {
	named := w.masters.Leader
	if l.ID == "" && named != nil && named.Host == l.Endpoint && len(w.masters.Line) > 0 {
		return w.masters.Line[0]
	}
	return leader.Process(cmp.Or(l.ID, l.Endpoint))
}

// compare applies what differs in the answer of a master that was asked.
func (w *watcher) compare(a follow.Answered) {
	if a.State == nil {
		w.cluster.EndCompare()
		return
	}
	if n := w.cluster.Compare(a.State, a.Whole); n > 0 {
		differencesTotal.WithLabelValues(w.name).Add(float64(n))
		log.Infof("%d agents, frameworks or tasks of %s have changed without an event", n, w.name)
	}
	w.doubt()
}

// doubt has the whole state asked for, if the cluster lacks something.
func (w *watcher) doubt() {
	if w.cluster.TakeDoubt() {
		w.follower.Doubt()
	}
}

// expire lets go what the cluster has held long enough.
func (w *watcher) expire() {
	w.cluster.Expire()
	w.doubt()
	w.due(time.Now())
}

// due says that there may be something to publish since at.
func (w *watcher) due(at time.Time) {
	if w.known && w.oldest.IsZero() {
		w.oldest = at
	}
}

// rename takes in hostnames that were looked up.
func (w *watcher) rename() {
	for _, host := range w.resolver.Take() {
		w.cluster.HostChanged(host)
	}
	w.setMasters()
	w.due(time.Now())
}

// setMasters tells the cluster the addresses of the masters.
func (w *watcher) setMasters() {
	if !w.known {
		return
	}
	m := &cluster.Masters{Leader: w.addrs(w.leader.Addr, w.leader.Hostname)}
	if port, ok := validPort(uint64(w.leader.Port)); ok {
		m.Port = port
	}
	for _, u := range w.masters.Masters {
		m.All = append(m.All, w.addrs(mesos.ParseAddr(u.Hostname()), u.Hostname()))
	}
	w.cluster.SetMasters(m)
}

func (w *watcher) addrs(addr netip.Addr, hostname string) []netip.Addr {
	if addr.IsValid() {
		return []netip.Addr{addr}
	}
	if hostname == "" {
		return nil
	}
	return w.resolver.Addrs(hostname)
}

// publish gives what has changed to the publishers, and reports whether there was
// anything, if only a task's status of which no record is made.
func (w *watcher) publish() bool {
	changes := w.cluster.Take()
	status := zone.Status{Complete: w.cluster.Complete(), Stale: w.restored}
	changed := !w.published || !changes.Empty() || status != w.status
	if changed {
		for _, p := range w.publishers {
			p.publish(&changes, status)
		}
		w.published, w.status = true, status
		w.unsaved = w.store != nil
		if !w.oldest.IsZero() {
			publishDuration.WithLabelValues(w.name).Observe(time.Since(w.oldest).Seconds())
		}
	}
	w.oldest = time.Time{}
	w.updateStats()
	return changed
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (w *watcher) updateStats() {
	w.stats.Store(&watchStats{
		counts:   w.cluster.Counts(),
		synced:   w.connected && w.cluster.Complete(),
		awaiting: w.cluster.Awaiting(),
		leader:   w.leader.Endpoint,
	})
}

// store keeps the snapshot of a watcher.
type store struct {
	*snapshot.Keeper
	file      string
	endpoints []string // of the cluster, without secrets
	cluster   string   // its name in logs and metrics
	owned     func() bool
	failed    string // the error that was logged
}

// newStore returns the store of file. It writes as long as owned.
func newStore(file, cluster string, endpoints []string, owned func() bool) *store {
	s := &store{file: file, cluster: cluster, endpoints: endpoints, owned: owned}
	s.Keeper = snapshot.NewKeeper(s.save)
	return s
}

// save writes a snapshot, and logs where it begins or ceases to fail. It reports
// whether the file is written.
func (s *store) save(snap *snapshot.Snapshot) bool {
	if !s.owned() {
		return false
	}
	err := snapshot.Write(s.file, snap)
	countSave(s.cluster, err)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.failed {
		s.failed = text
		if err != nil {
			log.Warningf("No snapshot of %s is written to %s: %v", s.cluster, s.file, err)
		} else {
			log.Infof("The snapshot of %s is written again to %s", s.cluster, s.file)
		}
	}
	return err == nil
}

// load returns the snapshot of the cluster; nil without one, of which the log
// says why.
func (s *store) load() *snapshot.Snapshot {
	snap, err := snapshot.Read(s.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Infof("There is no snapshot %s of %s yet", s.file, s.cluster)
	case err != nil:
		log.Warningf("The snapshot %s is ignored: %v", s.file, err)
	case !slices.ContainsFunc(snap.Endpoints, func(e string) bool { return slices.Contains(s.endpoints, e) }):
		log.Warningf("The snapshot %s is ignored: it is of another cluster", s.file)
	default:
		return snap
	}
	return nil
}

// restore publishes the snapshot, if there is one. Watching began at began.
func (w *watcher) restore(began int64) {
	if w.store == nil {
		return
	}
	snap := w.store.load()
	if snap == nil {
		return
	}
	log.Infof("Answering from the snapshot of %s of %s until a master speaks: %d tasks, %d agents", w.name, snap.Heard.Format(time.RFC3339), len(snap.State.Tasks), len(snap.State.Agents))
	w.resolver.Seed(snap.Hosts)
	w.heard.CompareAndSwap(began, snap.Heard.UnixNano()) // unless a master has spoken meanwhile
	w.leader = follow.Leader{Endpoint: snap.Endpoint, Master: snap.Leader}
	w.reign.Leader = w.process(w.leader)
	for _, m := range snap.Masters {
		if u, err := url.Parse(m); err == nil {
			w.masters.Masters = append(w.masters.Masters, u)
		}
	}
	w.known, w.restored = true, true
	w.cluster.Restore(snap.State)
	w.setMasters()
	w.oldest = time.Now()
	w.publish()
}

// savable is received from when a snapshot is to be taken.
func (w *watcher) savable() <-chan struct{} {
	if !w.unsaved || !w.cluster.Complete() {
		return nil
	}
	return w.store.Ready()
}

// unwritten is received from when a snapshot was not written, and is to be taken
// again.
func (w *watcher) unwritten() <-chan struct{} {
	if w.store == nil {
		return nil
	}
	return w.store.Failed()
}

// takeSnapshot returns what is to be saved.
func (w *watcher) takeSnapshot() *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Header: snapshot.Header{
			Endpoints: w.store.endpoints,
			Heard:     time.Unix(0, w.heard.Load()),
			Endpoint:  w.leader.Endpoint,
			Leader:    w.leader.Master,
			Hosts:     w.resolver.Known(),
		},
		State: w.cluster.State(),
	}
	for _, u := range w.masters.Masters {
		s.Masters = append(s.Masters, u.String())
	}
	return s
}

// publisher keeps the zones of one stanza. After newPublisher it is used by the
// publishing goroutine of its watcher; the metrics read skipped.
type publisher struct {
	rules   *rules
	zones   [schemes][]*publishedZone
	changed func(origin string) // told of every zone that secondaries should fetch

	ready chan struct{} // closed once a first state is published

	before, after recordSet // kept for their memory
}

// publishedZone is a zone and what is not in it.
type publishedZone struct {
	*zone.Zone
	tx      *zone.Tx    // nil until something changes
	status  zone.Status // as last published
	counts  [reasons]int
	skipped atomic.Pointer[[reasons]int] // counts as last published
}

func newPublisher(r *rules, zones [schemes][]*zone.Zone, changed func(origin string), ready chan struct{}) *publisher {
	p := &publisher{rules: r, changed: changed, ready: ready}
	for sch, zs := range zones {
		for _, z := range zs {
			pz := &publishedZone{Zone: z}
			pz.skipped.Store(new([reasons]int))
			p.zones[sch] = append(p.zones[sch], pz)
		}
	}
	return p
}

// publish brings the zones from what they were to what the cluster is now.
func (p *publisher) publish(ch *cluster.Changes, status zone.Status) {
	for _, c := range ch.Frameworks {
		replace(p, c.Old, c.New, c.Old != nil, c.New != nil, p.rules.framework)
	}
	for _, c := range ch.Agents {
		replace(p, c.Old, c.New, c.Old != nil, c.New != nil, p.rules.agent)
	}
	if c := ch.Masters; c.Old != c.New {
		replace(p, c.Old, c.New, c.Old != nil, true, p.rules.masters)
	}
	for _, c := range ch.Instances {
		replace(p, c.Old, c.New, c.Old.Valid(), c.New.Valid(), p.rules.task)
	}
	now := time.Now()
	for z := range p.all {
		if z.publish(now, status) {
			p.changed(z.Origin)
		}
	}
	if !isClosed(p.ready) {
		close(p.ready)
	}
}

// settle ends what TakeOver of its zones began.
func (p *publisher) settle() {
	now := time.Now()
	for z := range p.all {
		if z.Confirm(now) && z.status.Complete {
			p.changed(z.Origin)
		}
	}
}

// all yields every zone of p.
func (p *publisher) all(yield func(*publishedZone) bool) {
	for _, zs := range p.zones {
		for _, z := range zs {
			if !yield(z) {
				return
			}
		}
	}
}

// replace takes back what the rule made of before, and adds what it makes of after.
func replace[T any](p *publisher, before, after T, hadBefore, hasAfter bool, rule func(T, *recordSet)) {
	p.before.reset()
	p.after.reset()
	if hadBefore {
		rule(before, &p.before)
	}
	if hasAfter {
		rule(after, &p.after)
	}
	if p.before.skipped == p.after.skipped && slices.Equal(p.before.records, p.after.records) {
		return
	}
	p.apply(&p.before, -1)
	p.apply(&p.after, 1)
}

// apply adds the records of set, or removes them if sign is -1.
func (p *publisher) apply(set *recordSet, sign int) {
	for sch := range schemes {
		for _, z := range p.zones[sch] {
			for why, n := range set.skipped[sch] {
				z.counts[why] += sign * n
			}
		}
	}
	for i := range set.records {
		r := &set.records[i]
		if r.scheme == reverse {
			if z, owner := p.reverseZone(r.owner.Rel); z != nil {
				z.apply(zone.Rel(strings.Clone(owner)), r.Record, sign) // without the zone's name
			}
			continue
		}
		for _, z := range p.zones[r.scheme] {
			z.apply(r.owner, r.Record, sign)
		}
	}
}

// publish publishes what has changed in z, and reports whether secondaries are
// to be told: an answer has changed, or the zone may be transferred now.
func (z *publishedZone) publish(now time.Time, status zone.Status) bool {
	if counts := z.counts; counts != *z.skipped.Load() {
		z.skipped.Store(&counts)
	}
	if z.tx == nil && z.Current() != nil && z.status == status {
		return false
	}
	changed := z.change().Publish(now, status)
	completed := status.Complete && !z.status.Complete
	z.tx, z.status = nil, status
	return status.Complete && (changed || completed)
}

// change returns the transaction of what is being published.
func (z *publishedZone) change() *zone.Tx {
	if z.tx == nil {
		z.tx = z.Begin()
	}
	return z.tx
}

// apply adds r, or removes it if sign is -1.
func (z *publishedZone) apply(owner zone.Name, r zone.Record, sign int) {
	apply := z.change().Add
	if sign < 0 {
		apply = z.change().Remove
	}
	if !apply(owner, r) {
		z.counts[longName] += sign
	}
}

// reverseZone returns the closest reverse zone around name, and name relative to it.
func (p *publisher) reverseZone(name string) (*publishedZone, string) {
	var (
		closest *publishedZone
		rel     string
	)
	for _, z := range p.zones[reverse] {
		if owner, ok := z.Relative(name); ok && (closest == nil || len(owner) < len(rel)) {
			closest, rel = z, owner
		}
	}
	return closest, rel
}
