package calicomesos

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

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
	t.Container.Named = rc.r.IntN(2) == 0
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
	for range rc.r.IntN(4) {
		key := []string{"GROUP", "0_GROUP", "0_VHOST", "1_VHOST", "1_ENABLED"}[rc.r.IntN(5)]
		value := []string{"a", "b", "a.acme.org", "a.acme.org,x.a.acme.org", "apps.acme.org", "*.acme.org", "yes"}[rc.r.IntN(7)]
		t.HAProxy = append(t.HAProxy, mesos.Label{Key: "HAPROXY_" + key, Value: value})
	}
	t.Container.Bridged = rc.r.IntN(4) == 0
	return t
}

func (rc *randomCluster) agent() *mesos.Agent {
	return &mesos.Agent{ID: rc.id("S", 4), Port: uint32(5050 + rc.r.IntN(2)), Addr: rc.addr()}
}

func (rc *randomCluster) framework() *mesos.Framework {
	return &mesos.Framework{ID: rc.id("f", 4), Name: oddNames[rc.r.IntN(len(oddNames))], Hostname: rc.addr().String(), WebUIURL: "http://x:8080"}
}

// step tells the cluster something.
func (rc *randomCluster) step() {
	switch ev := rc.event().(type) {
	case *mesos.State:
		rc.current.State(ev, cluster.Leader{ID: "m", Certain: true}, time.Now())
	case nil:
	default:
		rc.current.Event(ev)
	}
}

// event returns an event, a whole state, or nil for other masters.
func (rc *randomCluster) event() any {
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
		return nil
	}
	s := &mesos.State{}
	for range rc.r.IntN(30) {
		s.Tasks = append(s.Tasks, rc.task().Pack())
	}
	for range rc.r.IntN(6) {
		s.Agents = append(s.Agents, rc.agent())
		s.Frameworks = append(s.Frameworks, rc.framework())
	}
	return s
}

// TestSameTruthTwice drives thousands of random events, and compares the zones
// kept incrementally with zones made from the cluster as it is then.
func TestSameTruthTwice(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for name, r := range map[string]rules{
		"default": {sources: []source{netinfo, host}},
		"agents":  {sources: []source{host, netinfo}},
		"all":     {sources: []source{auto, netinfo, host}, networks: []string{"m-net1"}, health: true, allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/28")}},
	} {
		t.Run(name, func(t *testing.T) {
			kept := newTestPublisher(&r, claimedZones...)
			rc := &randomCluster{rand.New(rand.NewPCG(seed, 1)), cluster.New(nil)}
			for step := range 4000 {
				rc.step()
				if rc.r.IntN(3) > 0 {
					continue // let some gather
				}
				ch := rc.current.Flush()
				kept.Publish(&ch, watch.Status{Complete: true})
				if step%10 != 0 {
					continue
				}
				scratch := newTestPublisher(&r, claimedZones...)
				all := rc.current.Full()
				scratch.Publish(&all, watch.Status{Complete: true})
				compareZones(t, kept, scratch)
			}
		})
	}
}

// claimedZones are zones of "vhosts" with all kinds of targets.
var claimedZones = []string{
	"acme.org to 192.0.2.1 master.mesos for a", "acme.org to tasks for b", "apps.acme.org to slave.mesos lb.example tasks for *", "x.a.acme.org to nginx.f.second.example for *",
}

func newTestPublisher(r *rules, vhosts ...string) *publisher {
	o := &options{ttl: defaultTTL, rules: *r}
	o.zones = [schemes][]string{{"mesos.", "second.example."}, {"dcos.thisdcos.directory."}, {"10.in-addr.arpa.", "0.10.in-addr.arpa."}}
	o.rules.pointTo = "mesos."
	for _, args := range vhosts {
		if err := parseVHosts(o, strings.Fields(args)); err != nil {
			panic(err)
		}
	}
	if err := o.completeVHosts(); err != nil {
		panic(err)
	}
	zones := o.newZones([]netip.Addr{netip.MustParseAddr("127.0.0.1")}, false)
	p := newPublisher(&o.rules, zones, func(string) {}, make(chan struct{}))
	p.hosts = knownHosts{"lb.example": {netip.MustParseAddr("192.0.2.9")}}
	return p
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
		for _, name := range []string{"", "a", "x.a", "x", "apps"} {
			if got, want := got.Lookup(name, ".", dns.TypeA, 0, 1).Exists, fresh.Lookup(name, ".", dns.TypeA, 0, 1).Exists; got != want {
				t.Fatalf("%q exists in %s: %v, want %v", name, z.Origin, got, want)
			}
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

// BenchmarkPublish moves tasks of a cluster of 100,000: from the event to the
// published answer.
func BenchmarkPublish(b *testing.B) {
	p := newLargePublisher()
	c := cluster.New(nil)
	state := bigState(b, 100_000, 3)
	c.State(state, cluster.Leader{ID: "m"}, time.Now())
	ch := c.Flush()
	p.Publish(&ch, watch.Status{Complete: true})
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		var t mesos.Task
		state.Tasks[i%len(state.Tasks)].Unpack(&t)
		t.Status.Networks = []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})}}}
		c.Event(mesos.TaskAdded{Task: &t})
		ch := c.Flush()
		p.Publish(&ch, watch.Status{Complete: true})
		i++
	}
}

// newLargePublisher returns a publisher of a zone of each naming scheme, and a reverse one.
func newLargePublisher() *publisher {
	p := newTestPublisher(&rules{sources: []source{netinfo, host}})
	for sch := range vhost {
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
		c.State(state, cluster.Leader{ID: "m"}, time.Now())
		ch := c.Flush()
		p.Publish(&ch, watch.Status{Complete: true})
	}
}

// BenchmarkHeap reports what a task of a cluster of 100,000 keeps of the heap.
func BenchmarkHeap(b *testing.B) {
	for _, instances := range []int{1, 3} {
		b.Run(fmt.Sprintf("instances%d", instances), func(b *testing.B) {
			for b.Loop() {
				octets, objects := heapOfTask(b, 100_000, instances)
				b.ReportMetric(octets, "heap-B/task")
				b.ReportMetric(objects, "objects/task")
			}
		})
	}
}

// TestHeap holds the memory of a task, and the objects that the collector has to look at, to
// what it is known to take, with some room.
func TestHeap(t *testing.T) {
	const mostOctets, mostObjects = 800, 4
	if octets, objects := heapOfTask(t, 30_000, 3); octets > mostOctets || objects > mostObjects {
		t.Errorf("%.0f octets and %.1f objects a task", octets, objects)
	}
}

// heapOfTask returns what each task of a cluster keeps of the heap, in octets and objects: its
// model and its records in both schemes and a reverse zone.
func heapOfTask(tb testing.TB, tasks, instances int) (octets, objects float64) {
	tb.Helper()
	before := liveHeap()
	p := newLargePublisher()
	c := cluster.New(nil)
	c.State(bigState(tb, tasks, instances), cluster.Leader{ID: "m"}, time.Now())
	ch := c.Flush()
	p.Publish(&ch, watch.Status{Complete: true})
	ch = cluster.Changes{}
	after := liveHeap()
	runtime.KeepAlive(p)
	runtime.KeepAlive(c)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(tasks), float64(after.HeapObjects-before.HeapObjects) / float64(tasks)
}

// liveHeap is what of the heap is in use.
func liveHeap() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// TestFrameworkBelow_Excluded lets a framework come and go that has the name of another, but
// not its principal: that changes nothing for others.
func TestFrameworkBelow_Excluded(t *testing.T) {
	framework := func(id, name, principal string) *cluster.Framework {
		return &cluster.Framework{Framework: &mesos.Framework{ID: id, Name: name, Principal: principal}, Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.6")}}
	}
	o := &options{ttl: defaultTTL, rules: rules{frameworks: []tenant{{"marathon", "me"}, {"a.marathon", ""}}}}
	o.zones[mesosDNS] = []string{"mesos."}
	zones := o.newZones(nil, false)
	p := newPublisher(&o.rules, zones, func(string) {}, make(chan struct{}))
	mine, other := framework("1", "marathon", "me"), framework("2", "marathon", "you")
	for i, c := range []cluster.Change[*cluster.Framework]{{New: mine}, {New: other}, {Old: other}, {New: framework("3", "a.marathon", "")}} {
		p.Publish(&cluster.Changes{Frameworks: []cluster.Change[*cluster.Framework]{c}}, watch.Status{Complete: true})
		for name, want := range map[string]int{"marathon": 1, "a.marathon": 0} {
			if got := len(zones[mesosDNS][0].Current().Lookup(name, "x.", dns.TypeA, 0, dns.MaxMsgSize).Answer); got != want {
				t.Errorf("after change %d %s has %d addresses", i, name, got)
			}
		}
	}
}

// TestFrameworkBelow registers and removes frameworks in each order: one whose name is below
// another's must not join its tasks' names.
func TestFrameworkBelow(t *testing.T) {
	addr := netip.MustParseAddr("198.51.100.6")
	names := []string{"marathon", "nginx.marathon", "a.nginx.marathon", "notmarathon"}
	all := make([]*cluster.Framework, len(names))
	for i, name := range names {
		all[i] = &cluster.Framework{Framework: &mesos.Framework{ID: name, Name: name}, Addrs: []netip.Addr{addr}}
	}
	o := &options{ttl: defaultTTL}
	o.zones[mesosDNS] = []string{"mesos."}
	zones := o.newZones(nil, false)
	p := newPublisher(&o.rules, zones, func(string) {}, make(chan struct{}))
	present := make(map[int]bool)
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		i := r.IntN(len(names))
		c := cluster.Change[*cluster.Framework]{Old: all[i]}
		if !present[i] {
			c = cluster.Change[*cluster.Framework]{New: all[i]}
		} else if r.IntN(3) == 0 { // an update
			all[i] = &cluster.Framework{Framework: all[i].Framework, Addrs: all[i].Addrs}
			c.New = all[i]
		}
		present[i] = c.New != nil
		p.Publish(&cluster.Changes{Frameworks: []cluster.Change[*cluster.Framework]{c}}, watch.Status{Complete: true})
		for j, name := range names {
			want := present[j] && (j == 0 || j == 3 || j == 1 && !present[0] || j == 2 && !present[0] && !present[1])
			got := len(zones[mesosDNS][0].Current().Lookup(name, "x.", dns.TypeA, 0, dns.MaxMsgSize).Answer) == 1
			if got != want {
				t.Fatalf("with %v: %s has an address: %v", present, name, got)
			}
		}
	}
	if len(p.names.hidden) > len(names) || len(p.names.owners) > len(names) {
		t.Errorf("%d names are remembered", len(p.names.owners))
	}
}

// TestPublish_AfterAnEarlierProcess publishes with a clock that was put back since an earlier
// process has: serials go on from there.
func TestPublish_AfterAnEarlierProcess(t *testing.T) {
	p := newTestPublisher(&rules{})
	z := p.zones[mesosDNS][0]
	after := time.Now().Add(time.Hour)
	p.Publish(&cluster.Changes{}, watch.Status{Complete: true, After: after})
	first := z.Current().Serial()
	if want := uint32(after.UnixMilli() / 10); first != want {
		t.Errorf("the first serial is %d, want %d", first, want)
	}
	agent := &cluster.Agent{Agent: &mesos.Agent{ID: "s"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	p.Publish(&cluster.Changes{Agents: []cluster.Change[*cluster.Agent]{{New: agent}}}, watch.Status{Complete: true, After: after})
	if got := z.Current().Serial(); got != first+1 {
		t.Errorf("the next serial is %d after %d", got, first)
	}
}
