package calicomesos

import (
	"bytes"
	"fmt"
	golog "log"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/test/loopback"

	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
)

// marathonLBDeviation returns what is answered for a name that Marathon-LB routes, and false if
// that is nothing, by design.
func marathonLBDeviation(host string, state *mesostest.GetState) (name string, answered bool) {
	name, _, _ = strings.Cut(host, ":") // Marathon-LB matches the whole Host header
	name = strings.TrimSuffix(name, ".")
	for _, r := range name {
		if r == '*' || r >= 0x80 { // wildcards, and names that DNS knows in their ASCII form
			return "", false
		}
	}
	for _, t := range state.Tasks.Tasks { // Marathon-LB goes on with tasks that are unreachable
		for _, l := range t.Labels.Labels {
			if t.State == mesostest.TaskRunning && strings.HasSuffix(l.Key, "_VHOST") && strings.Contains(strings.ToLower(l.Value), host) {
				return name, true
			}
		}
	}
	return "", false
}

// TestMarathonLB compares the names that tasks claim with those that Marathon-LB routes, for each
// group, and the tasks' addresses with its servers.
func TestMarathonLB(t *testing.T) {
	for _, dir := range dataDirs() {
		files, err := filepath.Glob(filepath.Join(dir, "marathon-lb", "*.vhosts.txt"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no recordings in %s: %v", dir, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(file, ".vhosts.txt")
			t.Run(filepath.Base(dir)+"/"+filepath.Base(name), func(t *testing.T) { compareMarathonLB(t, file, readState(t, name+".json")) })
		}
	}
}

func compareMarathonLB(t *testing.T, file string, state *mesostest.GetState) {
	master := mesostest.NewMaster(0)
	master.Load(state)
	server := mesostest.Start(master)
	defer server.Close()
	for group, want := range routed(t, file, state) {
		s := startServer(t, fmt.Sprintf("transfer {\n to *\n}\n%s {\n master %s\n vhosts acme.org to tasks for %[3]s\n vhosts example.com to tasks for %[3]s\n}", pluginName, server.URL, group))
		got := make(lines)
		for _, origin := range []string{"acme.org.", "example.com."} {
			rrs, err := s.axfr(origin)
			if err != nil {
				t.Fatal(err)
			}
			for line := range served(rrs) {
				got[line] = true
			}
		}
		if diff := difference(got, want); diff != "" {
			t.Errorf("group %s:\n%s", group, diff)
		}
		s.stop()
	}
}

// routed reads what Marathon-LB routes, by group: GROUP HOST SERVER…, with the deviations.
func routed(t *testing.T, file string, state *mesostest.GetState) map[string]lines {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]lines)
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		group := words[0]
		if all[group] == nil {
			all[group] = make(lines)
		}
		name, ok := marathonLBDeviation(words[1], state)
		if !ok {
			continue
		}
		for _, server := range words[2:] {
			all[group][fmt.Sprintf("A %s. %s", name, netip.MustParseAddrPort(server).Addr())] = true
		}
	}
	if len(all) < 2 {
		t.Fatalf("%s has only %d groups", file, len(all))
	}
	return all
}

// claimsOf is a publisher of claims, and a task that claims mytask.acme.org.
type claimsOf struct {
	*publisher
	task *mesos.Task
}

func newClaims(t *testing.T, properties string) *claimsOf {
	t.Helper()
	o, err := parseStanza(fmt.Sprintf("calicomesos {\n%s\n}", properties))
	if err != nil {
		t.Fatal(err)
	}
	c := &claimsOf{publisher: newPublisher(&o.rules, o.newZones(nil, true), func(string) {}, make(chan struct{}))}
	c.hosts = knownHosts{}
	c.task = &mesos.Task{
		ID: "app.1", FrameworkID: "x-0000", AgentID: "x-S0", State: mesos.TaskRunning,
		Name: "app", Discovery: &mesos.Discovery{Ports: []mesos.Port{{Number: 80}}},
		HAProxy: []mesos.Label{{Key: "HAPROXY_0_VHOST", Value: "mytask.acme.org"}, {Key: "HAPROXY_GROUP", Value: "external"}},
	}
	return c
}

// kept returns a task as it is published.
func kept(task *mesos.Task) cluster.Kept {
	return cluster.Kept{
		Task: task.Pack(), Framework: &cluster.Framework{Framework: &mesos.Framework{ID: "x-0000", Name: "marathon"}},
		Agent: &cluster.Agent{Agent: &mesos.Agent{ID: "x-S0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	}
}

// publish publishes that a task runs, or has ended.
func (c *claimsOf) publish(status watch.Status, running bool) {
	change := cluster.Change[cluster.Kept]{New: kept(c.task)}
	if !running {
		change.Old, change.New = change.New, change.Old
	}
	c.Publish(&cluster.Changes{Instances: slices.Values([]cluster.Change[cluster.Kept]{change})}, status)
}

// look answers for a name in the zone acme.org.
func (c *claimsOf) look(rel string) (addrs []netip.Addr, exists bool) {
	gen := c.zones[vhost][0].Current()
	return addressesOf(gen, rel, rel+".acme.org."), gen.Lookup(rel, rel+".acme.org.", dns.TypeA, 0, dns.MaxMsgSize).Exists
}

// knownHosts are hosts that were looked up, with their addresses.
type knownHosts map[string][]netip.Addr

func (h knownHosts) Addrs(host string) []netip.Addr { return h[host] }

func (h knownHosts) Answered(host string) bool {
	_, ok := h[host]
	return ok
}

// TestClaims_LookedUp follows a target that is looked up: a claimed name is not denied before
// there is an answer, exists without addresses, and has those that the target has. Names that
// nobody claims do not wait for it.
func TestClaims_LookedUp(t *testing.T) {
	hosts := knownHosts{}
	c := newClaims(t, "vhosts acme.org to 192.0.2.9 for internal\nvhosts acme.org to lb.example for external")
	c.hosts = hosts
	told := 0
	c.changed = func(origin string) {
		if origin == "acme.org." {
			told++
		}
	}
	c.publish(watch.Status{Complete: true}, true)
	certain := func(name string) bool {
		gen := c.zones[vhost][0].Current()
		r := gen.Lookup(name, name+".acme.org.", dns.TypeA, 0, dns.MaxMsgSize)
		return gen.Certain(&r)
	}
	if certain("mytask") || !certain("nobody") || c.zones[vhost][0].Current().Whole() {
		t.Errorf("before the target is looked up: certain of the name: %v, of another: %v, whole: %v", certain("mytask"), certain("nobody"), c.zones[vhost][0].Current().Whole())
	}
	if got := newClaims(t, "vhosts acme.org to lb.example for external").zones[vhost][0].targets.Load(); got != -1 {
		t.Errorf("%d addresses are told before there is a state", got)
	}
	if told > 0 {
		t.Error("secondaries are told of a zone that cannot be transferred")
	}
	hosts["lb.example"] = nil // it has none
	c.HostsChanged(nil)
	if told != 1 {
		t.Errorf("secondaries are told %d times that it can be", told)
	}
	if addrs, exists := c.look("mytask"); len(addrs) != 0 || !exists || !certain("mytask") || !c.zones[vhost][0].Current().Whole() {
		t.Errorf("without an address: %v, exists: %v, certain: %v", addrs, exists, certain("mytask"))
	}
	serial := c.zones[vhost][0].Current().Serial()
	for _, want := range [][]netip.Addr{{netip.MustParseAddr("192.0.2.1")}, {netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fd00::2")}} {
		hosts["lb.example"] = slices.Concat(want, []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("224.0.0.1")})
		c.HostsChanged(nil)
		if addrs, _ := c.look("mytask"); !slices.Equal(addrs, want) {
			t.Errorf("got %v, want %v", addrs, want)
		}
		if now := c.zones[vhost][0].Current().Serial(); now == serial {
			t.Error("the serial has not moved")
		}
	}
	delete(hosts, "lb.example") // it is looked up anew, and fails: the last answer is kept
	c.HostsChanged(nil)
	if addrs, _ := c.look("mytask"); len(addrs) != 2 {
		t.Errorf("got %v after a lookup that failed", addrs)
	}
	if got := c.zones[vhost][0].targets.Load(); got != 1 {
		t.Errorf("the line with the fewest addresses has %d", got)
	}
	c.publish(watch.Status{Complete: true}, false)
	if addrs, exists := c.look("mytask"); len(addrs) != 0 || exists {
		t.Errorf("a name that nobody claims any more: %v, exists: %v", addrs, exists)
	}
	if got, want := c.zones[vhost][0].Current().Records(), 2; got != want {
		t.Errorf("%d records are left", got)
	}
}

// TestClaims_Unclaimed does not wait for a target that nothing depends on.
func TestClaims_Unclaimed(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to lb.example for internal\nvhosts acme.org to 192.0.2.9 for external")
	c.publish(watch.Status{Complete: true}, true)
	if !c.zones[vhost][0].Current().Whole() {
		t.Error("the zone waits for a target of a line for which no name is claimed")
	}
}

// TestClaims_BeforeAnyState has a lookup end before there is a state to publish.
func TestClaims_BeforeAnyState(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to lb.example for external")
	c.hosts = knownHosts{"lb.example": nil}
	c.HostsChanged(nil)
	if c.zones[vhost][0].Current() != nil {
		t.Error("a zone is published before there is a state")
	}
	c.publish(watch.Status{Complete: true}, true)
	if !c.zones[vhost][0].Current().Whole() {
		t.Error("the lookup is forgotten")
	}
}

// TestClaims_Incomplete keeps the address of a target in a zone of the stanza while that does
// not know it, and answers what it knows.
func TestClaims_Incomplete(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to slave.mesos for external")
	agent := &cluster.Agent{Agent: &mesos.Agent{ID: "x-S0", Port: 5051}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	gone := cluster.Change[*cluster.Agent]{Old: agent}
	c.Publish(&cluster.Changes{Agents: []cluster.Change[*cluster.Agent]{{New: agent}}}, watch.Status{Complete: true})
	c.publish(watch.Status{Complete: true}, true)
	for _, step := range []struct {
		what   string
		change cluster.Change[*cluster.Agent]
		status watch.Status
		addrs  int
	}{
		{"as it is", cluster.Change[*cluster.Agent]{}, watch.Status{Complete: true}, 1},
		{"the agent is away, and may return", gone, watch.Status{}, 1},
		{"the agent is gone", cluster.Change[*cluster.Agent]{}, watch.Status{Complete: true}, 0},
	} {
		ch := &cluster.Changes{}
		if step.change.Old != nil {
			ch.Agents = append(ch.Agents, step.change)
		}
		c.Publish(ch, step.status)
		if addrs, exists := c.look("mytask"); len(addrs) != step.addrs || !exists {
			t.Errorf("%s: %v, exists: %v", step.what, addrs, exists)
		}
	}
}

// TestClaims_Excess takes a bounded number of names, of ports, and of targets' addresses. Those
// that the line names come first.
func TestClaims_Excess(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to 203.0.113.1 lb.example for external")
	hosts := knownHosts{}
	for i := range 100 {
		hosts["lb.example"] = append(hosts["lb.example"], netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	c.hosts = hosts
	value := "a.acme.org"
	for i := range maxClaims + 5 {
		value += fmt.Sprintf(",%d.acme.org", i)
	}
	c.task.HAProxy[0].Value = value
	c.publish(watch.Status{Complete: true}, true)
	z := c.zones[vhost][0]
	if got := len(z.claimed.names); got != maxClaims || z.skipped.Load()[excess] != 6+37 {
		t.Errorf("%d names are claimed, %d names and addresses are in excess", got, z.skipped.Load()[excess])
	}
	if addrs, _ := c.look("a"); len(addrs) != maxAddrs || !slices.Contains(addrs, netip.MustParseAddr("203.0.113.1")) {
		t.Errorf("%d addresses: %v", len(addrs), addrs)
	}
	hosts["lb.example"] = hosts["lb.example"][:1]
	c.HostsChanged(nil)
	if got := z.skipped.Load()[excess]; got != 6 {
		t.Errorf("%d are in excess", got)
	}
	c = newClaims(t, "vhosts acme.org to 192.0.2.1 for *")
	c.task.Discovery.Ports = nil
	for i := range maxPorts + 10 {
		c.task.Discovery.Ports = append(c.task.Discovery.Ports, mesos.Port{Number: uint32(i + 1)})
		c.task.HAProxy = append(c.task.HAProxy, mesos.Label{Key: fmt.Sprintf("HAPROXY_%d_VHOST", i), Value: fmt.Sprintf("p%d.acme.org", i)})
	}
	c.publish(watch.Status{Complete: true}, true)
	if got := len(c.zones[vhost][0].claimed.names); got != maxPorts {
		t.Errorf("names are claimed for %d ports", got)
	}
}

// BenchmarkBalancerMoves has 10,000 names follow one of 64 addresses that changes.
func BenchmarkBalancerMoves(b *testing.B) {
	o, err := parseStanza("calicomesos {\nvhosts acme.org to lb.example for *\n}")
	if err != nil {
		b.Fatal(err)
	}
	p := newPublisher(&o.rules, o.newZones(nil, false), func(string) {}, make(chan struct{}))
	hosts := knownHosts{}
	for i := range maxAddrs {
		hosts["lb.example"] = append(hosts["lb.example"], netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
	}
	p.hosts = hosts
	var claiming []cluster.Change[cluster.Kept]
	for i := range 10_000 {
		task := &mesos.Task{ID: fmt.Sprint(i), Name: "app", Discovery: &mesos.Discovery{Ports: []mesos.Port{{Number: 80}}}, HAProxy: []mesos.Label{{Key: "HAPROXY_0_VHOST", Value: fmt.Sprintf("n%d.acme.org", i)}}}
		claiming = append(claiming, cluster.Change[cluster.Kept]{New: kept(task)})
	}
	p.Publish(&cluster.Changes{Instances: slices.Values(claiming)}, watch.Status{Complete: true})
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		hosts["lb.example"][0] = netip.AddrFrom4([4]byte{203, 0, 113, byte(n)})
		p.HostsChanged(nil)
	}
}

// TestClaims_Stale answers from a snapshot, and says so.
func TestClaims_Stale(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to 192.0.2.1 for external")
	c.publish(watch.Status{Stale: true}, true)
	if gen := c.zones[vhost][0].Current(); !gen.Stale || gen.Complete {
		t.Errorf("stale: %v, complete: %v", gen.Stale, gen.Complete)
	}
}

// TestClaims_TooLong has a claim that fits a name, and not the zone's records.
func TestClaims_TooLong(t *testing.T) {
	c := newClaims(t, "vhosts acme.org to 192.0.2.1 for external")
	long := strings.Repeat(strings.Repeat("l", 60)+".", 4)
	c.task.HAProxy[0].Value = long + "acme.org," + long + "xx.acme.org"
	c.publish(watch.Status{Complete: true}, true)
	if got := c.zones[vhost][0].skipped.Load()[longName]; got != 1 {
		t.Errorf("%d names are too long, want 1", got)
	}
}

// TestClaims_Served asks a server for claimed names while the balancer that they lead to moves.
func TestClaims_Served(t *testing.T) {
	m := mesostest.NewMaster(0)
	m.Load(readState(t, "testdata/marathon-lb/tutorial.json"))
	master := mesostest.Start(m)
	defer master.Close()
	s := startServer(t, fmt.Sprintf("cache\nmetadata\n%s {\n master %s\n vhosts acme.org to nginx.marathon.slave.mesos for external\n}", pluginName, master.URL))
	want := answers(s.ask("nginx.marathon.slave.mesos.", dns.TypeA))
	if got := answers(s.ask("MyTask.acme.org.", dns.TypeA)); got != want || got == "" {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := s.ask("mytask.acme.org.", dns.TypeAAAA); r.Rcode != dns.RcodeSuccess || len(r.Ns) != 1 || r.Ns[0].Header().Name != "acme.org." {
		t.Errorf("AAAA of a claimed name:\n%v", r)
	}
	if r := s.ask("nobody.acme.org.", dns.TypeA); r.Rcode != dns.RcodeNameError {
		t.Errorf("a name that nobody claims:\n%v", r)
	}
	if r := s.ask("acme.org.", dns.TypeNS); len(r.Answer) != 1 || r.Answer[0].(*dns.NS).Ns != "ns1.mesos." {
		t.Errorf("NS:\n%v", r)
	}
}

// TestHostsChanged_Watched has a watcher tell a stanza that a target's name was looked up, which
// is one without a dot, in the file of hosts.
func TestHostsChanged_Watched(t *testing.T) {
	m := mesostest.NewMaster(0)
	m.Load(readState(t, "testdata/marathon-lb/tutorial.json"))
	master := mesostest.Start(m)
	defer master.Close()
	s := startServer(t, fmt.Sprintf("%s {\n master %s\n vhosts acme.org to localhost for external\n vhosts example.org to nowhere.invalid for *\n}", pluginName, master.URL))
	loopback.Eventually(t, func() string {
		r := s.ask("mytask.acme.org.", dns.TypeA)
		if answers(r) == "127.0.0.1" {
			return ""
		}
		return r.String()
	})
	if r := s.ask("nobody.example.org.", dns.TypeA); r.Rcode != dns.RcodeNameError { // though nobody knows where the target is
		t.Errorf("a name that nobody claims:\n%v", r)
	}
}

var _ hosts = knownHosts{}

// TestClaims_Lost says once that no target has an address, and once that one has again.
func TestClaims_Lost(t *testing.T) {
	var logged bytes.Buffer
	golog.SetOutput(&logged)
	t.Cleanup(func() {
		if testing.Verbose() {
			golog.SetOutput(os.Stderr)
		} else {
			clog.Discard()
		}
	})
	hosts := knownHosts{}
	c := newClaims(t, "vhosts acme.org to lb.example slave.mesos for external\nvhosts acme.org to 192.0.2.9 for internal")
	c.hosts = hosts
	for _, step := range []struct {
		what  string
		do    func()
		after string // what is logged
	}{
		{"nothing is claimed", func() { c.Publish(&cluster.Changes{}, watch.Status{Complete: true}) }, ""},
		{"a name is claimed, and the target is not looked up", func() { c.publish(watch.Status{Complete: true}, true) }, ""},
		{"it is not claimed", func() { c.publish(watch.Status{Complete: true}, false) }, ""},
		{"the target is looked up", func() {
			hosts["lb.example"] = nil
			c.HostsChanged(nil)
		}, ""},
		{"a name is claimed, by an incomplete state", func() { c.publish(watch.Status{}, true) }, ""},
		{"the state is complete", func() { c.Publish(&cluster.Changes{}, watch.Status{Complete: true}) }, `No target of "vhosts acme.org. to lb.example slave.mesos for external" has an address`},
		{"nothing is new", func() { c.HostsChanged([]string{"lb.example"}) }, ""},
		{"the target has an address", func() {
			hosts["lb.example"] = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
			c.HostsChanged([]string{"lb.example"})
		}, "have addresses again"},
	} {
		logged.Reset()
		step.do()
		if got := logged.String(); step.after == "" && got != "" || !strings.Contains(got, step.after) {
			t.Errorf("%s: logged %q, want %q", step.what, got, step.after)
		}
	}
}
