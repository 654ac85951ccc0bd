package calicomesos

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/follow"
	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
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
		App: &mesos.App{Name: oddNames[rc.r.IntN(len(oddNames))]}, State: mesos.TaskState(rc.r.IntN(3)), Status: rc.status(),
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
	zones := o.newZones([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, false)
	return newPublisher(&o.rules, zones, func(string) {}, make(chan struct{}))
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

// inMemory runs a watcher of a master that h plays, in a bubble of synctest.
func inMemory(t *testing.T, h http.Handler, publishers ...*publisher) *watcher {
	t.Helper()
	return inMemoryWith(t, h, func(*watcher) {}, publishers...)
}

// inMemoryWith is inMemory with a watcher that is prepared before it starts.
func inMemoryWith(t *testing.T, h http.Handler, prepare func(w *watcher), publishers ...*publisher) *watcher {
	t.Helper()
	srv := mesostest.StartInMemory(h)
	client := mesos.NewClient(mesos.Config{Dial: srv.Dial})
	w := newWatcher("test", leader.List{parseMaster(t, "127.0.0.1:5050")}, client, resolve.New(func(context.Context, string) ([]netip.Addr, error) { return nil, io.EOF }))
	prepare(w)
	w.start()
	for _, p := range publishers {
		w.add(p)
	}
	t.Cleanup(func() {
		w.stop()
		srv.Close()
		forgetCluster("test")
	})
	return w
}

// pass lets time pass in a bubble of synctest, and all that is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
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
		inMemory(t, m, p)
		<-p.ready
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
		start = time.Now()
		tut.Wander(m) // a task that is launched and not to be seen yet comes first
		pass(time.Second)
		if len(published) != 1 || published[0].Sub(start) > gatherNothing {
			t.Errorf("a task that moves was published after %v", published)
		}
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
	p := newLargePublisher()
	c := cluster.New(nil)
	state := bigState(b, 100_000, 3)
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

// newLargePublisher returns a publisher of a zone of each scheme.
func newLargePublisher() *publisher {
	p := newTestPublisher(&rules{sources: []source{netinfo, host}})
	for sch := range p.zones {
		p.zones[sch] = p.zones[sch][:1]
	}
	return p
}

// BenchmarkLoad takes in and publishes the state of a cluster of 100,000 tasks.
func BenchmarkLoad(b *testing.B) {
	state := bigState(b, 100_000, 3)
	b.ReportAllocs()
	for b.Loop() {
		p := newLargePublisher()
		c := cluster.New(nil)
		c.Apply(mesos.Subscribed{State: state})
		ch := c.Take()
		p.publish(&ch, zone.Status{Complete: true})
	}
}

// BenchmarkHeap reports what a task of a cluster of 100,000 keeps of the heap.
func BenchmarkHeap(b *testing.B) {
	for _, instances := range []int{1, 3} {
		b.Run(fmt.Sprintf("instances%d", instances), func(b *testing.B) {
			for b.Loop() {
				b.ReportMetric(float64(heapOfTask(b, 100_000, instances)), "heap-B/task")
			}
		})
	}
}

// TestHeap holds the memory of a task to what it is known to take, with some room.
func TestHeap(t *testing.T) {
	const most = 1536 // octets
	if got := heapOfTask(t, 30_000, 3); got > most {
		t.Errorf("%d octets a task", got)
	}
}

// heapOfTask returns what each task of a cluster keeps of the heap, in octets: its
// model and its records in both schemes and a reverse zone.
func heapOfTask(tb testing.TB, tasks, instances int) uint64 {
	tb.Helper()
	before := liveHeap()
	p := newLargePublisher()
	c := cluster.New(nil)
	c.Apply(mesos.Subscribed{State: bigState(tb, tasks, instances)})
	ch := c.Take()
	p.publish(&ch, zone.Status{Complete: true})
	ch = cluster.Changes{}
	after := liveHeap()
	runtime.KeepAlive(p)
	runtime.KeepAlive(c)
	return (after - before) / uint64(tasks)
}

// liveHeap is how many octets of the heap are in use.
func liveHeap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestSilentAgents lets an agent leave and another come without an event.
func TestSilentAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		inMemory(t, m, p)
		<-p.ready
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
	// seen waits until so many events have come; heartbeats are none.
	seen := func(events int) {
		eventually(t, func() string {
			_, values := gathered(t)
			got := 0
			for name, v := range values {
				if strings.HasPrefix(name, "events_total") && !strings.Contains(name, "HEARTBEAT") {
					got += int(v)
				}
			}
			if got != events {
				return fmt.Sprintf("%d events, not %d", got, events)
			}
			return ""
		})
	}
	seen(1)
	leading.Store(second)
	master.Drop()
	mark := 1
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

// TestSnapshot restarts while the masters are away.
func TestSnapshot(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	m.AddFramework(&mesostest.Framework{FrameworkInfo: mesostest.FrameworkInfo{Name: "chronos", ID: &mesostest.ID{Value: "c"}, Hostname: "chronos.example", WebUIURL: "http://chronos.example:4400"}})
	master := mesostest.Start(m)
	defer master.Close()
	file := filepath.Join(t.TempDir(), "snapshot")
	block := fmt.Sprintf("transfer {\n to *\n}\n%s mesos 192.168.0.0/16 {\n master %s\n snapshot %s\n startup_timeout 10s\n}", pluginName, master.URL, file)

	s := startServer(t, block)
	before := make(map[string]lines)
	for _, origin := range []string{"mesos.", "dcos.thisdcos.directory.", "168.192.in-addr.arpa."} {
		rrs, err := s.axfr(origin)
		if err != nil {
			t.Fatal(err)
		}
		before[origin] = served(rrs)
	}
	serial := s.serial("mesos.")
	s.stop()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")

	s = startServer(t, block)
	for origin, want := range before {
		for _, i := range running.instances {
			for z := range i.publisher.all {
				if z.Origin != origin {
					continue
				}
				if diff := difference(zoneLines(z.Current()), want); diff != "" {
					t.Errorf("restored %s:\n%s", origin, diff)
				}
			}
		}
	}
	r := s.ask("nginx.marathon.mesos.", dns.TypeA)
	if len(r.Answer) != 3 || !r.Authoritative || extended(r) != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("a known name: %s", r)
	}
	if r := s.ask("nope.mesos.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("an unknown name: %s", r)
	}
	if _, err := s.axfr("mesos."); err == nil {
		t.Error("a stale zone is transferred")
	}
	if now := s.serial("mesos."); int32(now-serial) < 0 {
		t.Errorf("serial %d after %d", now, serial)
	}
	_, values := gathered(t)
	for _, gauge := range []struct {
		name        string
		least, most float64
	}{{"synced{", 0, 0}, {"tasks{", 10, 10}, {"state_age_seconds{", 1e-9, 60}} {
		found := 0
		for name, v := range values {
			if strings.HasPrefix(name, gauge.name) {
				found++
				if v < gauge.least || v > gauge.most {
					t.Errorf("%s is %v", name, v)
				}
			}
		}
		if found == 0 {
			t.Errorf("there is no %s…}", gauge.name)
		}
	}
	if err := s.restart(block, ""); err != nil { // a reload, meanwhile
		t.Fatal(err)
	}
	if r := s.ask("nginx.marathon.mesos.", dns.TypeA); len(r.Answer) != 3 || extended(r) != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("a known name: %s", r)
	}

	m.Lead()
	eventually(t, func() string {
		r := s.ask("nope.mesos.", dns.TypeA)
		if r.Rcode != dns.RcodeNameError || extended(r) != 0 {
			return r.String()
		}
		return ""
	})
}

// TestSnapshotIsKept lets nothing replace a good snapshot that is worse.
func TestSnapshotIsKept(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	run := func(zone, masters string) *dns.Msg {
		t.Helper()
		s := startServer(t, fmt.Sprintf("%s {\n master %s\n snapshot %s\n startup_timeout 1s\n}", pluginName, masters, file))
		r := s.ask(zone, dns.TypeAAAA)
		s.stop()
		return r
	}
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const v6 = "v6.marathon.mesos."
	if r := run(v6, master.URL); len(r.Answer) != 1 {
		t.Fatal(r)
	}
	good := read()

	// A leader of which nothing is known: the names are held, and the zone incomplete.
	whole := m.State()
	info := tut.Agent(7, "172.24.197.109").AgentInfo
	m.Load(&mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{&info}}})
	if r := run("nope.mesos.", master.URL); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("an incomplete state: %s", r)
	}
	if read() != good {
		t.Error("an incomplete state was written")
	}
	// No master at all.
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")
	if r := run(v6, master.URL); len(r.Answer) != 1 {
		t.Errorf("from the snapshot: %s", r)
	}
	if read() != good {
		t.Error("what was restored was written")
	}
	// Another cluster, and one with a master more.
	if r := run(v6, "http://192.0.2.1:1"); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("from the snapshot of another cluster: %s", r)
	}
	if r := run(v6, "http://192.0.2.1:1 "+master.URL); len(r.Answer) != 1 {
		t.Errorf("with a master more: %s", r)
	}
	// A torn one, and none of ours.
	m.Load(whole)
	for _, tc := range []struct {
		content string
		written bool
	}{{good[:len(good)/2], true}, {"", true}, {"precious", false}} {
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Refuse(http.StatusServiceUnavailable, "No leader elected")
		if r := run(v6, master.URL); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("from %.10q: %s", tc.content, r)
		}
		m.Lead()
		if r := run(v6, master.URL); len(r.Answer) != 1 {
			t.Errorf("after %.10q: %s", tc.content, r)
		}
		if written := read() != tc.content; written != tc.written {
			t.Errorf("%.10q was written over: %v", tc.content, written)
		}
	}
}

// TestSnapshotRate changes a cluster all the time.
func TestSnapshotRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		file := filepath.Join(t.TempDir(), "snapshot")
		inMemoryWith(t, m, func(w *watcher) {
			w.store = newStore(file, "test", []string{"x"}, func() bool { return true })
		}, p)
		<-p.ready
		for range 600 {
			pass(100 * time.Millisecond)
			tut.Wander(m)
		}
		if n := testutil.ToFloat64(savesTotal.WithLabelValues("test", "ok")); n < 5 || n > 7 {
			t.Errorf("%v snapshots in a minute", n)
		}
		pass(time.Minute)
		before := testutil.ToFloat64(savesTotal.WithLabelValues("test", "ok"))
		pass(time.Hour)
		if n := testutil.ToFloat64(savesTotal.WithLabelValues("test", "ok")) - before; n != 0 {
			t.Errorf("%v snapshots in an hour without a change", n)
		}
	})
}

// TestDoubt has events name what was never announced: the whole state is asked
// for, and tells.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		inMemory(t, m, p)
		<-p.ready
		pass(time.Second)
		state := m.State()
		state.Agents.Agents = append(state.Agents.Agents, tut.Agent(2, "172.24.197.103"))
		m.Load(state) // without an event
		m.AddTask(tut.Task(mesostest.App{Name: "late", Network: "calico"}, "late.1", 2, "192.168.1.1"))
		exists := func() bool { return p.zones[mesosDNS][0].Current().Lookup("late.marathon", "", dns.TypeA, 0).Exists }
		pass(4 * time.Second)
		if exists() {
			t.Error("a task of an unknown agent is published")
		}
		pass(2 * time.Second)
		if !exists() {
			t.Error("the agent is not asked for")
		}
		if n := testutil.ToFloat64(differencesTotal.WithLabelValues("test")); n != 1 {
			t.Errorf("%v differences", n)
		}
	})
}

// TestPolled polls a cluster that changes, and then does not.
func TestPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		published := 0
		p.changed = func(string) { published++ }
		w := inMemoryWith(t, m, func(w *watcher) { w.follower.Poll = 10 * time.Second }, p)
		<-p.ready
		pass(time.Second)
		tut.Wander(m)
		pass(10 * time.Second)
		if got := p.zones[mesosDNS][0].Current().Lookup("wanderer.marathon", "x.", dns.TypeA, 0).Answer; len(got) != 1 || rdata(got[0]) != "192.168.50.201" {
			t.Errorf("wanderer is at %v", got)
		}
		published = 0
		pass(time.Hour)
		if published != 0 {
			t.Errorf("%d publications without a change", published)
		}
		if s := w.stats.Load(); !s.synced || m.Subscribers() != 0 {
			t.Errorf("synced: %v, %d subscribers", s.synced, m.Subscribers())
		}
	})
}

// sick is a master that is well at first, and then answers as the test wants.
type sick struct {
	well     http.Handler
	ill      atomic.Pointer[http.HandlerFunc]
	attempts atomic.Int32
}

func (s *sick) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ill := s.ill.Load(); ill != nil {
		s.attempts.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // or it does not see that the client goes
		(*ill)(w, r)
		return
	}
	s.well.ServeHTTP(w, r)
}

// TestSickMasters lets a master fall ill in every way that we could think of, for
// an hour: the last good answers stay, it is asked in moderation, nothing piles
// up, and once it is well again it is heard.
func TestSickMasters(t *testing.T) {
	const protobuf = "application/x-protobuf"
	answer := func(code int, header, value, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	silence := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	begin := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", protobuf)
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
	}
	then := func(body string, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			begin(w, body)
			next(w, r)
		}
	}
	crash := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	state := string(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: m.State(), Heartbeat: 15}})))
	beat := string(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9})))
	for name, ill := range map[string]http.HandlerFunc{
		"says nothing":               silence,
		"half a record, and silence": then(state[:len(state)/2], silence),
		"half a record, and gone":    then(state[:len(state)/2], crash),
		"a record of 10^18 octets":   then("1000000000000000000\n", silence),
		"a record of 2 GiB, that trickles": then("2147483647\n", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				begin(w, "\x12")
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		}),
		"no number":                then("GET / HTTP/1.1\n", silence),
		"HTML":                     answer(200, "Content-Type", "text/html", "<html>"),
		"JSON":                     answer(200, "Content-Type", "application/json", "{}"),
		"401":                      answer(401, "WWW-Authenticate", "Basic", "401 Unauthorized."),
		"403":                      answer(403, "X", "y", ""),
		"404":                      answer(404, "X", "y", "Not found"),
		"500":                      answer(500, "X", "y", strings.Repeat("x", 1<<20)),
		"503":                      answer(503, "X", "y", "No leader elected"),
		"redirects to itself":      answer(307, "Location", "/api/v1", ""),
		"redirects to nowhere":     answer(307, "Location", "mailto:root", ""),
		"compresses":               answer(200, "Content-Encoding", "gzip", "\x1f\x8b"),
		"garbage":                  then("4\n\xff\xff\xff\xff", silence),
		"heartbeats and no state":  then(strings.Repeat(beat, 1000), silence),
		"a flood of heartbeats":    then(state+strings.Repeat(beat, 50_000), silence),
		"SUBSCRIBED without state": then("2\n\x08\x01", silence),
		"drops after each state":   then(state, crash),
		"ends after each state":    then(state, func(http.ResponseWriter, *http.Request) {}),
		"unknown events":           then(state+strings.Repeat("2\n\x08\x63", 1000), silence),
		"goes":                     crash,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mesostest.NewMaster(15 * time.Second)
				tut := mesostest.NewTutorial(m)
				s := &sick{well: m}
				p := newTestPublisher(&rules{sources: []source{netinfo, host}})
				w := inMemory(t, s, p)
				<-p.ready
				pass(time.Minute)
				at := func(name string) string {
					var all []string
					for _, rr := range p.zones[mesosDNS][0].Current().Lookup(name, "x.", dns.TypeA, 0).Answer {
						all = append(all, rdata(rr))
					}
					return strings.Join(all, " ")
				}
				goroutines := runtime.NumGoroutine()
				s.ill.Store(&ill)
				m.Drop()
				for range 60 {
					pass(time.Minute)
					if got := at("nginx.marathon"); got != "192.168.50.65 192.168.50.66 192.168.84.192" {
						t.Fatalf("nginx is at %q", got)
					}
				}
				// Every 7.5 seconds in the mean, with up to four requests each time.
				if n := s.attempts.Load(); n < 20 || n > 2200 {
					t.Errorf("asked %d times in an hour", n)
				}
				if n := runtime.NumGoroutine(); n > goroutines+10 {
					t.Errorf("%d goroutines, %d before", n, goroutines)
				}
				if name != "ends after each state" && name != "drops after each state" && w.stats.Load().synced && !strings.Contains(name, "unknown") && !strings.Contains(name, "flood") {
					t.Error("synced")
				}
				s.ill.Store(nil)
				m.Drop()
				tut.Wander(m)
				pass(5 * time.Minute)
				if got := at("wanderer.marathon"); got != "192.168.50.201" {
					t.Errorf("once the master is well, wanderer is at %q", got)
				}
			})
		})
	}
}

// TestSnapshotIsComplete lets a state become incomplete: it is not written, at
// no time.
func TestSnapshotIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		file := filepath.Join(t.TempDir(), "snapshot")
		inMemoryWith(t, m, func(w *watcher) {
			w.store = newStore(file, "test", []string{"x"}, func() bool { return true })
		}, p)
		<-p.ready
		pass(time.Minute)
		whole := m.State()
		info := tut.Agent(7, "172.24.197.109").AgentInfo
		whole.Agents.Recovered = []*mesostest.AgentInfo{&info} // of which nothing is known
		m.Load(whole)
		m.Drop()
		pass(time.Minute)
		for range 100 {
			tut.Wander(m)
			pass(100 * time.Millisecond)
		}
		pass(time.Minute)
		snap, err := snapshot.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range snap.State.Tasks {
			if task.Name == "wanderer" && task.ID != "wanderer.0" {
				t.Errorf("%s was written while the state was incomplete", task.ID)
			}
		}
	})
}

// TestJoin has a stanza join while a change waits to be published: the task that
// has ended was the twin of another one.
func TestJoin(t *testing.T) {
	w := newWatcher("test", leader.List{}, mesos.NewClient(mesos.Config{}), resolve.New(nil))
	defer forgetCluster("test")
	twin := func(id string) *mesos.Task {
		return &mesos.Task{ID: id, FrameworkID: "f", AgentID: "s", App: &mesos.App{Name: "web"}, State: mesos.TaskRunning}
	}
	w.handle(w.message(follow.State{Subscribed: mesos.Subscribed{State: &mesos.State{
		Tasks: []*mesos.Task{twin("1"), twin("2")}, Frameworks: []*mesos.Framework{{ID: "f", Name: "marathon"}},
		Agents: []*mesos.Agent{{ID: "s", Addr: netip.MustParseAddr("10.0.0.1")}},
	}}}))
	w.publish()
	w.handle(w.message(follow.Event{Event: mesos.TaskUpdated{TaskID: "1", FrameworkID: "f", State: 4}}))
	p := newTestPublisher(&rules{sources: []source{host}})
	w.handle(w.message(join{p, make(chan struct{})}))
	w.publish()
	if got := p.zones[mesosDNS][0].Current().Lookup("web.marathon", "x.", dns.TypeA, 0).Answer; len(got) != 1 {
		t.Errorf("web is at %v", got)
	}
}

// TestForgetful has masters start again that keep their registry in memory, and
// looks at how many agents are known, and whether names can be denied.
func TestForgetful(t *testing.T) {
	var agents []*mesos.Agent
	for _, id := range []string{"s1", "s2"} {
		agents = append(agents, &mesos.Agent{ID: id, Port: 5051})
	}
	all, one := &mesos.State{Agents: agents}, &mesos.State{Agents: agents[:1]}
	recovered := &mesos.State{RecoveredAgents: agents}
	lost, refused := follow.Lost{}, refusedBy("x:5050")
	for name, tc := range map[string]struct {
		messages []any // and how long to wait
		agents   int
		denied   bool
	}{
		"the stream breaks":                        {[]any{stateOf("A", all), lost, stateOf("A", one)}, 1, true},
		"it starts again":                          {[]any{stateOf("A", all), lost, refused, stateOf("B", one)}, 2, true},
		"it does not say which it is":              {[]any{stateOf("", all), lost, refused, stateOf("", one)}, 2, true},
		"the same, with a registry, after long":    {[]any{stateOf("", all), lost, refused, 5 * time.Minute, stateOf("", recovered)}, 2, false},
		"an agent may have come meanwhile":         {[]any{stateOf("A", one), lost, refused, 5 * time.Minute, stateOf("B", one)}, 1, false},
		"it has not":                               {[]any{stateOf("A", one), lost, refused, 5 * time.Minute, stateOf("B", one), cluster.HoldTime}, 1, true},
		"and the master is asked":                  {[]any{stateOf("A", one), lost, refused, 5 * time.Minute, stateOf("B", one), follow.Asked{}, follow.Answered{State: one}}, 1, false},
		"it starts again and again":                {[]any{stateOf("A", all), lost, refused, stateOf("B", one), 9 * time.Second, lost, refused, stateOf("C", one), 5 * time.Second}, 2, true},
		"it is polled, and does not say who it is": {[]any{polled(stateOf("", all)), polled(stateOf("", one))}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher("test", leader.List{}, mesos.NewClient(mesos.Config{}), resolve.New(nil))
				for _, m := range tc.messages {
					switch m := m.(type) {
					case time.Duration:
						time.Sleep(m)
						w.cluster.Expire()
						continue
					case follow.State:
						w.heard.Store(time.Now().UnixNano())
					}
					w.handle(w.message(m))
				}
				if n := w.cluster.Counts().Agents; n != tc.agents || w.cluster.Complete() != tc.denied {
					t.Errorf("%d agents, complete: %v", n, w.cluster.Complete())
				}
			})
		})
	}
}

// stateOf is what the master at x:5050 tells, one of its processes at a time.
func stateOf(process string, s *mesos.State) follow.State {
	return follow.State{Subscribed: mesos.Subscribed{State: s}, Leader: follow.Leader{Endpoint: "x:5050", Master: mesos.Master{ID: process}}}
}

func polled(s follow.State) follow.State {
	s.Polled = true
	return s
}

// refusedBy is an attempt to connect to a master at an address where nothing listens.
func refusedBy(host string) follow.Connect {
	return follow.Connect{Err: &url.Error{Op: "Post", URL: "http://" + host + "/api/v1", Err: syscall.ECONNREFUSED}}
}

// TestNamedByZooKeeper fails over between masters that do not tell who they are, so that
// only ZooKeeper does.
func TestNamedByZooKeeper(t *testing.T) {
	agents := []*mesos.Agent{{ID: "s", Port: 5051}}
	w := newWatcher("test", leader.List{}, mesos.NewClient(mesos.Config{}), resolve.New(nil))
	w.heard.Store(time.Now().UnixNano())
	for _, m := range []any{
		follow.Masters{View: leader.View{Leader: parseMaster(t, "a:5050"), Line: []leader.Process{"A", "B"}}},
		follow.State{Subscribed: mesos.Subscribed{State: &mesos.State{Agents: agents}}, Leader: follow.Leader{Endpoint: "a:5050"}},
		follow.Lost{},
		refusedBy("a:5050"),
		follow.Masters{View: leader.View{Leader: parseMaster(t, "b:5050"), Line: []leader.Process{"B"}}},
		follow.State{Subscribed: mesos.Subscribed{State: &mesos.State{RecoveredAgents: agents}}, Leader: follow.Leader{Endpoint: "b:5050"}},
	} {
		w.handle(w.message(m))
	}
	if !w.cluster.Complete() {
		t.Error("incomplete, though no other can have led")
	}
}

// TestMissed lets leaders come and go, of which not all are listened to, and asks
// whether names can be denied while the last one awaits an agent.
func TestMissed(t *testing.T) {
	agent := &mesos.Agent{ID: "s", Port: 5051}
	line := func(names string) follow.Masters {
		v := leader.View{Leader: parseMaster(t, names[:1]+":5050")}
		for _, p := range names {
			v.Line = append(v.Line, leader.Process(p))
		}
		return follow.Masters{View: v}
	}
	asked := polled(stateOf("B", &mesos.State{Agents: []*mesos.Agent{agent}}))
	lost, refused := follow.Lost{}, refusedBy("x:5050")
	answered := func(host string, code int) follow.Connect {
		return follow.Connect{Err: &mesos.StatusError{URL: "http://" + host + "/api/v1", Code: code}}
	}
	for name, tc := range map[string]struct {
		between []any // messages, and how long to wait
		next    string
		denied  bool
	}{
		"the old one refuses":              {[]any{lost, answered("x:5050", 403), 15 * time.Second}, "B", false},
		"none is elected":                  {[]any{lost, answered("x:5050", 503), 15 * time.Second}, "B", true},
		"another one is down":              {[]any{lost, refusedBy("y:5050"), 15 * time.Second}, "B", false},
		"another one starts":               {[]any{lost, answered("y:5050", 503), 15 * time.Second}, "B", false},
		"the first in line is not known":   {[]any{lost, refused, follow.Masters{}, line("C")}, "C", false},
		"a failover":                       {[]any{lost, refused, 15 * time.Second, line("BC")}, "B", true},
		"the old one is named again":       {[]any{lost, refused, line("ABC"), line("BC"), 15 * time.Second}, "B", true},
		"the next is named before the end": {[]any{line("BC"), lost, 15 * time.Second}, "B", true},
		"no one is named":                  {[]any{lost, refused, 15 * time.Second}, "B", true},
		"one in line has gone before":      {[]any{line("AC"), lost, refused, 15 * time.Second, line("C")}, "C", true},
		"one in line is back":              {[]any{line("ACB"), lost, refused, 15 * time.Second, line("CB")}, "C", true},
		"another one led":                  {[]any{lost, refused, 15 * time.Second, line("BC"), line("C")}, "C", false},
		"another one led, and lost it":     {[]any{lost, refused, line("B")}, "C", false},
		"others go, and it led on":         {[]any{line("AC"), lost, time.Second, refused}, "C", false},
		"another one may have led":         {[]any{lost, refused, 15 * time.Second, line("C")}, "C", false},
		"all have restarted":               {[]any{lost, refused, 15 * time.Second, line("DE")}, "D", false},
		"the leader itself led again":      {[]any{lost, refused, line("D"), line("E")}, "E", false},
		"the leader led on":                {[]any{lost, time.Second, refused, line("BC")}, "B", false},
		"the leader may have led on":       {[]any{lost, time.Second, line("BC")}, "B", false},
		"it is not known how it ended":     {[]any{lost, time.Second}, "B", false},
		"the next one answers at once":     {[]any{lost}, "B", true},
		"it takes too long":                {[]any{lost, refused, line("BC"), 2 * time.Minute}, "B", false},
		"the same after long":              {[]any{lost, time.Second, refused, 2 * time.Minute}, "A", true},
		"it was polled":                    {[]any{lost, refused, asked, lost, refused}, "C", false},
		"it is polled":                     {[]any{lost, refused, asked}, "C", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatcher("test", leader.List{}, mesos.NewClient(mesos.Config{}), resolve.New(nil))
				handle := func(content any) { w.handle(w.message(content)) }
				handle(line("ABC"))
				handle(stateOf("A", &mesos.State{Agents: []*mesos.Agent{agent}}))
				w.heard.Store(time.Now().UnixNano())
				for _, m := range tc.between {
					if d, ok := m.(time.Duration); ok {
						time.Sleep(d)
						continue
					}
					handle(m)
				}
				handle(stateOf(tc.next, &mesos.State{RecoveredAgents: []*mesos.Agent{agent}}))
				if w.cluster.Complete() != tc.denied {
					t.Errorf("complete: %v", !tc.denied)
				}
				// The next failover is as any other.
				handle(follow.Event{Event: mesos.AgentAdded{Agent: agent}})
				time.Sleep(5 * time.Second)
				w.heard.Store(time.Now().UnixNano())
				w.cluster.Expire()
				handle(lost)
				handle(refused)
				handle(stateOf("F", &mesos.State{RecoveredAgents: []*mesos.Agent{agent}}))
				if !w.cluster.Complete() {
					t.Error("incomplete after the next failover")
				}
			})
		})
	}
}

// TestMissedLater has the watcher hear of the end of a leader when the next one, which
// came after minutes, has spoken already.
func TestMissedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatcher("test", leader.List{}, mesos.NewClient(mesos.Config{}), resolve.New(nil))
		agents := []*mesos.Agent{{ID: "s", Port: 5051}}
		w.heard.Store(time.Now().UnixNano())
		messages := []message{w.message(stateOf("A", &mesos.State{Agents: agents})), w.message(follow.Lost{}), w.message(refusedBy("x:5050"))}
		time.Sleep(2 * time.Minute)
		w.heard.Store(time.Now().UnixNano())
		messages = append(messages, w.message(stateOf("B", &mesos.State{RecoveredAgents: agents})))
		for _, m := range messages {
			w.handle(m)
		}
		if w.cluster.Complete() {
			t.Error("names are denied, though masters may have come and gone unheard")
		}
	})
}
