package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/zone"
)

const (
	// gather is how long the events of a burst wait for each other. It is also the
	// step of a zone's serial, which so never runs ahead of the clock.
	gather = 10 * time.Millisecond

	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second

	// A stream that is silent for this many heartbeat intervals is dead.
	missedHeartbeats = 3
	minHeartbeat     = time.Second
	maxHeartbeat     = 300 * time.Second
	// firstSilence is how long a stream may be silent before it has announced its
	// heartbeat.
	firstSilence = 30 * time.Second

	leaderTimeout = 2 * time.Second // of GET_MASTER

	// GET_AGENTS is asked this often, and once in every so many turns while no
	// agent is awaited.
	agentsInterval = 30 * time.Second
	agentsTurns    = 10
	agentsTimeout  = 10 * time.Second
)

var errSilent = errors.New("no heartbeat")

// watcher follows the leading master of a cluster, keeps the model of the
// cluster, and gives its changes to publishers. It owns every goroutine that
// watching takes: run starts them and returns when they have ended.
type watcher struct {
	name       string // label "cluster" of the metrics: the masters as configured
	finder     leader.Finder
	client     *mesos.Client
	resolver   *resolve.Resolver
	publishers []*publisher

	messages chan message
	found    chan struct{} // signals a first view
	view     atomic.Pointer[leader.View]
	ready    chan struct{} // closed when a first state is published
	stats    atomic.Pointer[watchStats]
	heard    atomic.Int64  // when a master last spoke, or watching began, Unix nanoseconds
	mark     atomic.Uint64 // cluster.Mark after the last event
	untold   string        // of follow: the master of which it was logged that it does not name itself

	// The rest belongs to the goroutine of publishLoop.
	cluster   *cluster.Cluster
	masters   leader.View
	leader    leaderInfo
	known     bool        // a state has been received
	connected bool        // a stream is open and has told the state
	status    zone.Status // as last published
	oldest    time.Time   // when the oldest event that is not published came in
}

// leaderInfo is the leading master as it names itself, or as it was reached.
type leaderInfo struct {
	endpoint string // host:port of its API, for metrics and logs
	addr     netip.Addr
	hostname string
	port     uint32
}

// message is what the goroutines that talk to masters tell the publishing one.
type message struct {
	at     time.Time
	event  mesos.Event
	leader *leaderInfo  // of the stream that event is the first of
	view   *leader.View // new masters
	lost   bool         // the stream has ended
	agents *mesos.State // the answer to a GET_AGENTS
	mark   uint64       // when that was asked
}

// watchStats is what the metrics say of a watcher.
type watchStats struct {
	counts cluster.Counts
	synced bool
	leader string
}

func newWatcher(name string, finder leader.Finder, client *mesos.Client, resolver *resolve.Resolver) *watcher {
	w := &watcher{
		name:     name,
		finder:   finder,
		client:   client,
		resolver: resolver,
		messages: make(chan message, 64),
		found:    make(chan struct{}, 1),
		ready:    make(chan struct{}),
		cluster:  cluster.New(resolver.Addrs),
	}
	w.stats.Store(&watchStats{})
	return w
}

// run watches until ctx is done.
func (w *watcher) run(ctx context.Context) {
	w.heard.Store(time.Now().UnixNano())
	showCounters(w.name)
	var wg sync.WaitGroup
	wg.Go(func() { w.finder.Run(ctx, func(v leader.View) { w.setView(ctx, v) }) })
	wg.Go(func() { w.follow(ctx) })
	wg.Go(func() { w.resolver.Run(ctx) })
	wg.Go(func() { w.publishLoop(ctx) })
	wg.Wait()
	w.client.Close()
}

func (w *watcher) setView(ctx context.Context, v leader.View) {
	w.view.Store(&v)
	select {
	case w.found <- struct{}{}:
	default:
	}
	w.tell(ctx, message{view: &v})
}

// tell hands m to the publishing goroutine.
func (w *watcher) tell(ctx context.Context, m message) {
	m.at = time.Now()
	select {
	case w.messages <- m:
	case <-ctx.Done():
	}
}

// localAddress is what differs between the errors of two equal failures.
var localAddress = regexp.MustCompile(`\S+->`)

// follow keeps a stream open to whichever master leads.
func (w *watcher) follow(ctx context.Context) {
	select {
	case <-w.found:
	case <-ctx.Done():
		return
	}
	var (
		last *url.URL // the master that led to a stream
		back backOff
		said string // the failure that was logged
	)
	for ctx.Err() == nil {
		var errs []error
		for _, u := range candidates(w.view.Load(), last) {
			s, err := w.stream(ctx, u)
			if ctx.Err() != nil {
				return
			}
			if s.subscribed {
				last, errs, said = u, nil, ""
				log.Warningf("Lost the leading master %s: %v", s.leader, err)
				if s.settled {
					back.reset()
				}
				break
			}
			errs = append(errs, err)
		}
		if err := errors.Join(errs...); err != nil {
			if text := localAddress.ReplaceAllString(err.Error(), ""); text != said {
				said = text
				log.Warningf("No master of %s can be watched: %v", w.name, err)
			}
		}
		back.wait(ctx)
	}
}

// candidates returns the masters to try, the likeliest leader first.
func candidates(v *leader.View, last *url.URL) []*url.URL {
	order := make([]*url.URL, 0, len(v.Masters)+1)
	if v.Leader != nil {
		order = append(order, v.Leader)
	}
	if i := slices.Index(v.Masters, last); i >= 0 {
		order = append(order, v.Masters[i:]...)
		return append(order, v.Masters[:i]...)
	}
	return append(order, v.Masters...)
}

// outcome is what became of a stream.
type outcome struct {
	leader     string
	subscribed bool // it told a whole state
	settled    bool // it lived long enough for the next one not to wait
}

// stream follows one event stream to its end.
func (w *watcher) stream(watching context.Context, u *url.URL) (outcome, error) {
	ctx, cancel := context.WithCancelCause(watching)
	defer cancel(nil)
	watchdog := newWatchdog(firstSilence, func() { cancel(errSilent) })
	defer watchdog.stop()

	s, err := w.client.Subscribe(ctx, u, watchdog.feed)
	if err != nil {
		countConnect(w.name, err)
		return outcome{}, cause(ctx, err)
	}
	defer s.Close()
	var comparing sync.WaitGroup
	defer comparing.Wait()
	defer cancel(nil)
	who := w.askLeader(ctx, s)
	result := outcome{leader: who.endpoint}
	start := time.Now()
	complained := false
	for {
		ev, err := s.Next()
		if err != nil {
			if !result.subscribed {
				countConnect(w.name, err)
			}
			result.settled = result.subscribed && time.Since(start) >= max(watchdog.limit, missedHeartbeats*minHeartbeat)
			w.tell(watching, message{lost: true}) // ctx may have been cancelled
			return result, fmt.Errorf("stream of %s: %w", s.Leader.Host, cause(ctx, err))
		}
		m := message{event: ev}
		if first, ok := ev.(mesos.Subscribed); ok {
			watchdog.expect(first.Heartbeat)
			m.leader = &who
			w.greet(who, first.State)
			if !result.subscribed {
				result.subscribed = true
				countConnect(w.name, nil)
				comparing.Go(func() { w.compareAgents(ctx, s.Leader) })
			}
		}
		w.count(ev)
		if _, odd := ev.(mesos.Unknown); odd && !complained {
			complained = true
			log.Warningf("The leading master %s sends events that are malformed or of an unknown type; they are counted and left out", who.endpoint)
		}
		w.tell(ctx, m)
	}
}

// greet logs what a master has told of its cluster.
func (w *watcher) greet(who leaderInfo, s *mesos.State) {
	log.Infof("Watching the leading master %s: %d tasks, %d agents, %d frameworks",
		who.endpoint, len(s.Tasks), len(s.Agents), len(s.Frameworks))
	if s.Malformed > 0 {
		malformedTotal.WithLabelValues(w.name).Add(float64(s.Malformed))
		log.Warningf("%d tasks, agents or frameworks of %s are malformed, and left out", s.Malformed, w.name)
	}
}

// cause returns why ctx was cancelled, if it was, instead of what that led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// askLeader asks who leads (GET_MASTER). Where the master does not say, it is
// the address that the stream goes to.
func (w *watcher) askLeader(ctx context.Context, s *mesos.Stream) leaderInfo {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	who := leaderInfo{endpoint: s.Leader.Host}
	m, err := w.client.Master(ctx, s.Leader)
	if err == nil && (m.Addr.IsValid() || m.Hostname != "") {
		who.addr, who.hostname, who.port = m.Addr, m.Hostname, m.Port
		return who
	}
	if err != nil && w.untold != s.Leader.Host {
		w.untold = s.Leader.Host
		log.Infof("The leading master %s does not tell its address, it is taken from the connection: %v", s.Leader.Host, err)
	}
	who.addr, who.port = s.Remote.Addr(), uint32(s.Remote.Port())
	return who
}

// compareAgents asks now and then which agents there are (GET_AGENTS): some
// leave without an event.
func (w *watcher) compareAgents(ctx context.Context, u *url.URL) {
	refused := false
	for turn := rand.IntN(agentsTurns); ; turn++ {
		timer := time.NewTimer(agentsInterval - rand.N(agentsInterval/10))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if turn%agentsTurns != 0 && w.stats.Load().counts.Recovered == 0 {
			continue
		}
		mark := w.mark.Load()
		asked, cancel := context.WithTimeout(ctx, agentsTimeout)
		s, err := w.client.Agents(asked, u)
		cancel()
		if err == nil {
			w.tell(ctx, message{agents: s, mark: mark})
		} else if !refused && ctx.Err() == nil {
			refused = true
			log.Warningf("The leading master %s does not tell its agents; those that leave silently keep their records: %v", u.Host, err)
		}
	}
}

// count notes ev for the metrics.
func (w *watcher) count(ev mesos.Event) {
	w.heard.Store(time.Now().UnixNano())
	eventsTotal.WithLabelValues(w.name, ev.EventType()).Inc()
}

// watchdog calls expired once nothing has fed it for its limit.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	limit time.Duration // 0: no limit
}

func newWatchdog(limit time.Duration, expired func()) *watchdog {
	return &watchdog{limit: limit, timer: time.AfterFunc(limit, expired)}
}

func (d *watchdog) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limit > 0 {
		d.timer.Reset(d.limit)
	}
}

// expect sets the limit by the heartbeat interval that a master announced.
// Without one, TCP keep-alive decides.
func (d *watchdog) expect(heartbeat time.Duration) {
	d.mu.Lock()
	d.limit = 0
	if heartbeat > 0 {
		d.limit = missedHeartbeats * min(max(heartbeat, minHeartbeat), maxHeartbeat)
	} else {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.feed()
}

func (d *watchdog) stop() { d.timer.Stop() }

// backOff waits longer each time, with jitter.
type backOff struct{ next time.Duration }

func (b *backOff) reset() { b.next = 0 }

func (b *backOff) wait(ctx context.Context) {
	b.next = min(max(2*b.next, minBackOff), maxBackOff)
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// publishLoop takes in what the other goroutines tell, and publishes it: an
// event that comes alone at once, those of a burst together.
func (w *watcher) publishLoop(ctx context.Context) {
	timer := time.NewTimer(gather)
	timer.Stop()
	holds := time.NewTimer(gather)
	holds.Stop()
	var (
		last  time.Time // of the last publication
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
			w.cluster.Expire()
			w.due(time.Now())
		}
		if at := w.cluster.Deadline(); !at.IsZero() {
			holds.Reset(time.Until(at))
		}
		if armed || !w.known || w.oldest.IsZero() {
			continue
		}
		if wait := gather - time.Since(last); wait > 0 {
			timer.Reset(wait)
			armed = true
			continue
		}
		w.publish()
		last = time.Now()
	}
}

func (w *watcher) handle(m message) {
	switch {
	case m.view != nil:
		w.masters = *m.view
		w.setMasters()
	case m.lost:
		w.connected = false
		w.updateStats()
		return
	case m.event == mesos.Heartbeat{}:
		return
	case m.agents != nil:
		if n := w.cluster.Compare(m.agents, m.mark); n > 0 {
			differencesTotal.WithLabelValues(w.name).Add(float64(n))
			log.Infof("%d agents of %s have come or gone without an event", n, w.name)
		}
	default:
		w.cluster.Apply(m.event)
		w.mark.Store(w.cluster.Mark())
	}
	if m.leader != nil {
		w.leader = *m.leader
		w.known, w.connected = true, true
		w.setMasters()
	}
	w.due(m.at)
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
	m := &cluster.Masters{Leader: w.addrs(w.leader.addr, w.leader.hostname)}
	if port, ok := validPort(uint64(w.leader.port)); ok {
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

// publish gives what has changed to the publishers.
func (w *watcher) publish() {
	changes := w.cluster.Take()
	status := zone.Status{Complete: w.cluster.Complete()}
	first := !isClosed(w.ready)
	if first || !changes.Empty() || status != w.status {
		for _, p := range w.publishers {
			p.publish(&changes, status)
		}
		w.status = status
		publishDuration.WithLabelValues(w.name).Observe(time.Since(w.oldest).Seconds())
	}
	w.oldest = time.Time{}
	w.updateStats()
	if first {
		close(w.ready)
	}
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
		counts: w.cluster.Counts(),
		synced: w.connected && w.cluster.Complete(),
		leader: w.leader.endpoint,
	})
}

// publisher keeps the zones of one stanza. After newPublisher it is used by the
// publishing goroutine of its watcher; the metrics read skipped.
type publisher struct {
	rules   *rules
	zones   [schemes][]*publishedZone
	changed func(origin string) // told of every zone that secondaries should fetch

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

func newPublisher(r *rules, zones [schemes][]*zone.Zone, changed func(origin string)) *publisher {
	p := &publisher{rules: r, changed: changed}
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
			if z, owner := p.reverseZone(r.owner); z != nil {
				z.apply(owner, r.Record, sign)
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
func (z *publishedZone) apply(owner string, r zone.Record, sign int) {
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

// clusterName names a cluster by its masters, for metrics and logs.
func clusterName(masters []*url.URL) string {
	name := ""
	for i, u := range masters {
		if i > 0 {
			name += ","
		}
		name += u.Scheme + "://" + u.Host
	}
	return name
}
