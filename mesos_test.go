package calicomesos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func parseMaster(tb testing.TB, endpoint string) *url.URL {
	tb.Helper()
	u, err := leader.Parse(endpoint)
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

// randomCluster drives a cluster with random events: tasks that run, move, fall
// ill and end, agents and frameworks that come, go and change.
type randomCluster struct {
	r       *rand.Rand
	current *cluster.Cluster
}

var oddNames = []string{"nginx", "db.prod", "Up_Case", "a.b", "leader", "slave", "*", "", "x.slave", strings.Repeat("l", 70), "naïve", "nginx"}

func (rc *randomCluster) id(kind string, n int) string {
	return fmt.Sprintf("m-%s%d", kind, rc.r.IntN(n))
}

func (rc *randomCluster) addr() netip.Addr {
	switch rc.r.IntN(8) {
	case 0:
		return netip.AddrFrom16([16]byte{0xfd, 15: byte(rc.r.IntN(20))})
	case 1:
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{10, 0, 0, byte(rc.r.IntN(30))})
}

func (rc *randomCluster) status() mesos.Status {
	s := mesos.Status{Health: mesos.Health(rc.r.IntN(3))}
	for range rc.r.IntN(3) {
		s.Networks = append(s.Networks, mesos.Network{Name: rc.id("net", 2), Addrs: []netip.Addr{rc.addr()}})
	}
	return s
}

func (rc *randomCluster) task() *mesos.Task {
	t := &mesos.Task{
		ID: rc.id("t", 40), FrameworkID: rc.id("f", 4), AgentID: rc.id("S", 4),
		Name: oddNames[rc.r.IntN(len(oddNames))], State: mesos.TaskState(rc.r.IntN(3)), Status: rc.status(),
	}
	if rc.r.IntN(2) == 0 {
		t.Discovery = &mesos.Discovery{Name: oddNames[rc.r.IntN(len(oddNames))]}
		for range rc.r.IntN(3) {
			t.Discovery.Ports = append(t.Discovery.Ports, mesos.Port{
				Number: uint32(rc.r.IntN(3)), Name: oddNames[rc.r.IntN(len(oddNames))], Protocol: []string{"tcp", "udp", "", "x"}[rc.r.IntN(4)], Host: rc.r.IntN(3) == 0,
			})
		}
	}
	if rc.r.IntN(3) == 0 {
		t.Ports = []mesos.PortRange{{Begin: 31000, End: uint64(31000 + rc.r.IntN(3))}}
	}
	return t
}

func (rc *randomCluster) agent() *mesos.Agent {
	return &mesos.Agent{ID: rc.id("S", 4), Port: uint32(5050 + rc.r.IntN(2)), Addr: rc.addr()}
}

func (rc *randomCluster) framework() *mesos.Framework {
	return &mesos.Framework{ID: rc.id("f", 4), Name: oddNames[rc.r.IntN(len(oddNames))], Hostname: rc.addr().String(), WebUIURL: "http://x:8080"}
}

func (rc *randomCluster) event() mesos.Event {
	switch n := rc.r.IntN(100); {
	case n < 40:
		return mesos.TaskAdded{Task: rc.task()}
	case n < 75:
		return mesos.TaskUpdated{TaskID: rc.id("t", 40), FrameworkID: rc.id("f", 4), State: []mesos.TaskState{1, 1, 1, 4, 8, 10}[rc.r.IntN(6)], Status: rc.status()}
	case n < 85:
		return mesos.AgentAdded{Agent: rc.agent()}
	case n < 88:
		return mesos.AgentRemoved{AgentID: rc.id("S", 4)}
	case n < 96:
		return mesos.FrameworkUpdated{Framework: rc.framework()}
	case n < 98:
		return mesos.FrameworkRemoved{FrameworkID: rc.id("f", 4)}
	case n < 99:
		rc.current.SetMasters(&cluster.Masters{Leader: []netip.Addr{rc.addr()}, Port: 5050, All: [][]netip.Addr{{rc.addr()}, {rc.addr()}}})
		return mesos.Heartbeat{}
	}
	s := &mesos.State{}
	for range rc.r.IntN(30) {
		s.Tasks = append(s.Tasks, rc.task())
	}
	for range rc.r.IntN(6) {
		s.Agents = append(s.Agents, rc.agent())
		s.Frameworks = append(s.Frameworks, rc.framework())
	}
	return mesos.Subscribed{State: s}
}

// TestSameTruthTwice drives thousands of random events, and compares the zones
// kept incrementally with zones made from the cluster as it is then.
func TestSameTruthTwice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for name, r := range map[string]rules{
		"default": {sources: []source{netinfo, host}},
		"all":     {sources: []source{auto, netinfo, host}, networks: []string{"m-net1"}, health: true, allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := newTestPublisher(&r)
			rc := &randomCluster{rand.New(rand.NewPCG(seed, 1)), cluster.New(nil)}
			for step := range 4000 {
				rc.current.Apply(rc.event())
				if rc.r.IntN(3) > 0 {
					continue // let some gather
				}
				ch := rc.current.Take()
				kept.publish(&ch, zone.Status{Complete: true})
				if step%10 != 0 {
					continue
				}
				scratch := newTestPublisher(&r)
				all := rc.current.All()
				scratch.publish(&all, zone.Status{Complete: true})
				compareZones(t, kept, scratch)
			}
		})
	}
}

func newTestPublisher(r *rules) *publisher {
	o := &options{ttl: defaultTTL, rules: *r}
	o.zones = [schemes][]string{{"mesos.", "second.example."}, {"dcos.thisdcos.directory."}, {"10.in-addr.arpa.", "0.10.in-addr.arpa."}}
	o.rules.pointTo = "mesos."
	zones := o.newZones([]netip.Addr{netip.MustParseAddr("127.0.0.1")})
	return newPublisher(&o.rules, zones, func(string) {})
}

func compareZones(t *testing.T, kept, scratch *publisher) {
	t.Helper()
	want := make(map[string]*publishedZone)
	for z := range scratch.all {
		want[z.Origin] = z
	}
	for z := range kept.all {
		got, fresh := z.Current(), want[z.Origin].Current()
		if diff := difference(zoneLines(got), zoneLines(fresh)); diff != "" {
			t.Fatalf("%s:\n%s", z.Origin, diff)
		}
		if got.Records() != fresh.Records() {
			t.Fatalf("%s: %d records counted, want %d", z.Origin, got.Records(), fresh.Records())
		}
		if *z.skipped.Load() != *want[z.Origin].skipped.Load() {
			t.Fatalf("%s: skipped %v, want %v", z.Origin, *z.skipped.Load(), *want[z.Origin].skipped.Load())
		}
	}
}

func zoneLines(g *zone.Generation) lines {
	var all []dns.RR
	for rrs := range g.All() {
		all = append(all, rrs...)
	}
	return served(all)
}

// pipeListener is a listener in memory, for time that is not real.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5050} }

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, srv := net.Pipe()
	select {
	case l.conns <- srv:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// inMemory runs a watcher of a master that h plays, in a bubble of synctest.
func inMemory(t *testing.T, h http.Handler, publishers ...*publisher) *watcher {
	t.Helper()
	l := &pipeListener{make(chan net.Conn), make(chan struct{})}
	srv := &http.Server{Handler: h}
	go srv.Serve(l) //nolint:errcheck // ends with Close
	client := mesos.NewClientDialing(l.dial)
	w := newWatcher("test", leader.List{parseMaster(t, "127.0.0.1:5050")}, client, resolve.New(func(context.Context, string) ([]netip.Addr, error) { return nil, io.EOF }))
	w.publishers = publishers
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		srv.Close()
		forgetCluster("test")
	})
	return w
}

// attempts is a master that notes when it is asked to subscribe.
type attempts struct {
	times  []time.Time
	answer http.HandlerFunc
}

func (a *attempts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && strings.HasSuffix(string(body), "\x12") { // SUBSCRIBE
		a.times = append(a.times, time.Now())
		a.answer(w, r)
		return
	}
	http.Error(w, "no", http.StatusForbidden)
}

// pass lets time pass in a bubble of synctest, and all that is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestBackOff counts how often a master is asked that has no leader.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }}
		inMemory(t, a)
		pass(2 * time.Minute)
		for i := 1; i < len(a.times); i++ {
			wait := a.times[i].Sub(a.times[i-1])
			most := min(minBackOff<<(i-1), maxBackOff)
			if wait < most/2 || wait > most {
				t.Errorf("attempt %d came after %v, not %v to %v", i, wait, most/2, most)
			}
		}
		if len(a.times) < 15 || len(a.times) > 40 {
			t.Errorf("%d attempts", len(a.times))
		}
	})
}

// TestBackOffWithoutHeartbeat lets streams end at once that announce no interval.
func TestBackOffWithoutHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}}}))
		a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(record)
		}}
		inMemory(t, a)
		pass(10 * time.Minute)
		if n := len(a.times); n > 140 {
			t.Errorf("%d subscriptions in ten minutes", n)
		}
	})
}

// TestBackOffStartsOver lets streams end before and after they have settled.
func TestBackOffStartsOver(t *testing.T) {
	for name, tc := range map[string]struct {
		lives time.Duration
		most  time.Duration // between the end of a stream and the next attempt, in the end
	}{
		"short": {time.Second, maxBackOff},
		"long":  {50 * time.Second, minBackOff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}, Heartbeat: 15}}))
				beat := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9}))
				a := &attempts{}
				a.answer = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/x-protobuf")
					for lived := time.Duration(0); lived < tc.lives; lived += time.Second {
						_, _ = w.Write(append(slices.Clone(first), beat...))
						_ = http.NewResponseController(w).Flush()
						select {
						case <-time.After(time.Second):
						case <-r.Context().Done():
							return
						}
					}
				}
				inMemory(t, a)
				pass(10 * time.Minute)
				last := len(a.times) - 1
				gap := a.times[last].Sub(a.times[last-1]) - tc.lives
				if gap > tc.most || gap < tc.most/2 {
					t.Errorf("the next attempt came %v after the end, want %v to %v", gap, tc.most/2, tc.most)
				}
			})
		})
	}
}

// TestLostStream lets the watchdog end a stream: it must be known as lost.
func TestLostStream(t *testing.T) {
	for range 10 { // what ends a stream may also end the telling of it
		synctest.Test(t, func(t *testing.T) {
			record := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}, Heartbeat: 15}}))
			a := &attempts{}
			a.answer = func(w http.ResponseWriter, r *http.Request) {
				if len(a.times) > 1 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.Header().Set("Content-Type", "application/x-protobuf")
				_, _ = w.Write(record)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
			w := inMemory(t, a)
			pass(10 * time.Second)
			if !w.stats.Load().synced {
				t.Fatal("not synced")
			}
			pass(time.Minute)
			if w.stats.Load().synced {
				t.Fatal("synced with a stream that has ended")
			}
		})
	}
}

// TestWatchdog leaves streams that are silent.
func TestWatchdog(t *testing.T) {
	for name, tc := range map[string]struct {
		heartbeat float64
		first     bool
		leftAfter time.Duration // 0: not left
	}{
		"three intervals":             {15, true, 45 * time.Second},
		"short intervals":             {0.01, true, 3 * time.Second},
		"long intervals":              {3600, true, 15 * time.Minute},
		"no heartbeat announced":      {0, true, 0},
		"no state, nothing at all":    {0, false, firstSilence},
		"half of a state and no more": {15, false, firstSilence},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				record := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}, Heartbeat: tc.heartbeat}}))
				if !tc.first {
					record = record[:len(record)/2]
				}
				var left atomic.Pointer[time.Time]
				a := &attempts{answer: func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/x-protobuf")
					_, _ = w.Write(record)
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					now := time.Now()
					left.CompareAndSwap(nil, &now)
				}}
				inMemory(t, a)
				pass(time.Hour)
				at := left.Load()
				switch {
				case at == nil && tc.leftAfter != 0:
					t.Error("the stream was not left")
				case at != nil && at.Sub(a.times[0]).Round(time.Millisecond) != tc.leftAfter:
					t.Errorf("the stream was left after %v, not %v", at.Sub(a.times[0]), tc.leftAfter)
				}
			})
		})
	}
}

// TestGather publishes a lone event at once, and those of a burst together.
func TestGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		var published []time.Time
		p.changed = func(origin string) {
			if origin == "mesos." {
				published = append(published, time.Now())
			}
		}
		w := inMemory(t, m, p)
		<-w.ready
		synctest.Wait()
		pass(time.Second)

		published = nil
		start := time.Now()
		m.AddAgent(tut.Agent(7, "172.24.197.107"))
		synctest.Wait()
		if len(published) != 1 || !published[0].Equal(start) {
			t.Errorf("a lone event was published after %v", published)
		}
		pass(time.Second)
		published = nil
		for i := range 50 {
			m.AddAgent(tut.Agent(10+i, fmt.Sprintf("172.24.198.%d", i)))
			pass(time.Millisecond)
		}
		pass(time.Second)
		if n := len(published); n < 5 || n > 6 {
			t.Errorf("50 events in 50 ms made %d publications", n)
		}
		for i := 1; i < len(published); i++ {
			if d := published[i].Sub(published[i-1]); d < gather {
				t.Errorf("publications %v apart", d)
			}
		}
	})
}

// BenchmarkPublish moves tasks of a cluster of 100,000: from the event to the
// published answer.
func BenchmarkPublish(b *testing.B) {
	p := newTestPublisher(&rules{sources: []source{netinfo, host}})
	c := cluster.New(nil)
	state := bigState(b, 100_000)
	c.Apply(mesos.Subscribed{State: state})
	ch := c.Take()
	p.publish(&ch, zone.Status{Complete: true})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		t := *state.Tasks[i%len(state.Tasks)]
		t.Status.Networks = []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})}}}
		c.Apply(mesos.TaskAdded{Task: &t})
		ch := c.Take()
		p.publish(&ch, zone.Status{Complete: true})
		i++
	}
}

// BenchmarkLoad takes in and publishes the state of a cluster of 10,000 tasks.
func BenchmarkLoad(b *testing.B) {
	state := bigState(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		c := cluster.New(nil)
		c.Apply(mesos.Subscribed{State: state})
		ch := c.Take()
		p.publish(&ch, zone.Status{Complete: true})
	}
}

// BenchmarkHeap reports what a task of a cluster of 100,000 keeps of the heap:
// its model and its records in both schemes and a reverse zone.
func BenchmarkHeap(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		p.zones[mesosDNS] = p.zones[mesosDNS][:1]
		p.zones[reverse] = p.zones[reverse][:1]
		c := cluster.New(nil)
		c.Apply(mesos.Subscribed{State: bigState(b, 100_000)})
		b.StartTimer()
		ch := c.Take()
		p.publish(&ch, zone.Status{Complete: true})
		ch = cluster.Changes{}
		b.StopTimer()
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100_000, "heap-B/task")
		runtime.KeepAlive(p)
		runtime.KeepAlive(c)
		b.StartTimer()
	}
}

// TestSilentAgents lets an agent leave and another come without an event.
func TestSilentAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		w := inMemory(t, m, p)
		<-w.ready
		state := m.State()
		state.Agents.Agents = []*mesostest.Agent{tut.Agent(0, "172.24.197.101"), tut.Agent(2, "172.24.197.103")}
		m.Load(state)
		pass(6 * time.Minute)
		zone := p.zones[mesosDNS][0].Current()
		got := zone.Lookup("slave", "slave.mesos.", dns.TypeA, 0).Answer
		if len(got) != 2 || rdata(got[1]) != "172.24.197.103" || zone.Lookup("db-prod.marathon", "", dns.TypeA, 0).Exists {
			t.Errorf("agents are %v, a task of the one that left exists: %v", got, zone.Lookup("db-prod.marathon", "", dns.TypeA, 0).Exists)
		}
		pass(10 * time.Minute)
		if n := testutil.ToFloat64(differencesTotal.WithLabelValues("test")); n != 2 {
			t.Errorf("%v differences", n)
		}
	})
}

// switching is a master of which another may take the place.
type switching struct {
	atomic.Pointer[mesostest.Replay]
}

func (s *switching) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Load().ServeHTTP(w, r) }

// TestRecordedFailover replays the stream of a leader that crashed and then that
// of the next one, which knows no agent at first: no name of the first may lose
// its answer, at no event of the second.
func TestRecordedFailover(t *testing.T) {
	first, firstIndex := readStream(t, "testdata/mesos/failover/old_leader.pb")
	second, secondIndex := readStream(t, "testdata/mesos/failover/new_leader.pb")
	var leading switching
	leading.Store(first)
	master := mesostest.Start(&leading)
	defer master.Close()
	first.SendTo(firstIndex[len(firstIndex)-1].End())
	s := startServer(t, transferBlock(master.URL))
	rrs, err := s.axfr("mesos.")
	if err != nil {
		t.Fatal(err)
	}
	before := served(rrs)
	if len(before) < 50 {
		t.Fatalf("only %d records", len(before))
	}
	var w *watcher
	for i := range running.instances {
		w = i.watcher
	}
	// seen waits until so many events have been applied; heartbeats are none.
	seen := func(mark uint64) {
		eventually(t, func() string {
			if got := w.mark.Load(); got != mark {
				return fmt.Sprintf("%d events, not %d", got, mark)
			}
			return ""
		})
	}
	seen(1)
	leading.Store(second)
	master.Drop()
	mark := uint64(1)
	for i, r := range secondIndex {
		second.SendTo(r.End())
		if r.Type == "HEARTBEAT" {
			continue
		}
		mark++
		seen(mark)
		rrs, err := s.axfr("mesos.")
		if err != nil {
			t.Fatalf("event %d, %s: %v", i, r.Type, err)
		}
		if diff := difference(served(rrs), before); diff != "" {
			t.Errorf("event %d, %s:\n%s", i, r.Type, diff)
		}
	}
}

// readStream returns a replay of a recorded stream, and its index.
func readStream(t *testing.T, file string) (*mesostest.Replay, []mesostest.Recorded) {
	t.Helper()
	stream, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file + ".index")
	if err != nil {
		t.Fatal(err)
	}
	index, err := mesostest.ParseIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	return mesostest.NewReplay(stream, "application/x-protobuf"), index
}
