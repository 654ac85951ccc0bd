package calicomesos

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"
)

func TestLabel(t *testing.T) {
	for x, want := range map[string]string{
		"nginx":                         "nginx",
		"Up-Case":                       "up-case",
		"under_score":                   "under-score",
		"app.group":                     "app-group",
		"x--y":                          "x--y",
		"-lead":                         "lead",
		"trail-":                        "trail",
		"._-":                           "",
		"":                              "",
		"sp ace":                        "space",
		"ünïcode":                       "ncode",
		"*":                             "",
		"nul\x00led":                    "nulled",
		"a:b/c":                         "abc",
		strings.Repeat("a", 80):         strings.Repeat("a", 63),
		strings.Repeat("a", 62) + "--b": strings.Repeat("a", 62),
		"--" + strings.Repeat("b", 63):  strings.Repeat("b", 63),
	} {
		if got := label(x, maxLabel); got != want {
			t.Errorf("label of %q is %q, want %q", x, got, want)
		}
	}
}

func TestLabels(t *testing.T) {
	for x, want := range map[string]string{
		"marathon":                      "marathon",
		"Chronos.v2":                    "chronos.v2",
		"..a..b..":                      "a.b",
		"path/to/Cassandra_1":           "pathtocassandra-1",
		"a.*.b":                         "a.b",
		"...":                           "",
		strings.Repeat("c", 70) + ".d_": strings.Repeat("c", 63) + ".d",
	} {
		if got := labels(x); got != want {
			t.Errorf("labels of %q is %q, want %q", x, got, want)
		}
	}
	if n := len(labels(strings.Repeat("a.", 150_000))); n <= maxRelative || n > 2*maxRelative {
		t.Errorf("labels that are too long for a name have %d octets", n)
	}
}

func TestSubdomains(t *testing.T) {
	for _, tc := range []struct {
		scheme scheme
		sub    zone.Sub
		label  string
	}{{mesosDNS, slave, "slave"}, {dcos, containerip, "containerip"}, {dcos, agentip, "agentip"}, {dcos, autoip, "autoip"}} {
		if got := subdomains[tc.scheme][tc.sub-1]; got != tc.label {
			t.Errorf("%s is %s", tc.label, got)
		}
	}
}

func TestSpell(t *testing.T) {
	long := strings.Repeat("c", 63)
	for _, tc := range []struct{ name, canonical, service string }{
		{"nginx", "nginx-hash5-s0", "_nginx"},
		{"app.group", "app.group-hash5-s0", "_app.group"},
		{long, strings.Repeat("c", 54) + "-hash5-s0", "_" + strings.Repeat("c", 62)},
		{"a." + long, "a." + strings.Repeat("c", 54) + "-hash5-s0", "_a." + long},
		{strings.Repeat("c", 53) + "-dddddd", strings.Repeat("c", 53) + "-hash5-s0", "_" + strings.Repeat("c", 53) + "-dddddd"},
	} {
		n := naming{suffix: "-hash5-s0"}
		n.spell(tc.name, "f")
		if n.app != tc.name+".f" || n.canonical != tc.canonical+".f" || n.service != tc.service {
			t.Errorf("%s: %s, %s, %s", tc.name, n.app, n.canonical, n.service)
		}
		for l := range strings.SplitSeq(n.canonical+"."+n.service, ".") {
			if len(l) > maxLabel {
				t.Errorf("%s: label %s has %d bytes", tc.name, l, len(l))
			}
		}
	}
}

// TestAppOf finds what the names of an app have in common.
func TestAppOf(t *testing.T) {
	o := &options{ttl: defaultTTL}
	o.zones = [schemes][]string{mesosDNS: {"mesos."}, dcos: {"dcos.thisdcos.directory."}}
	zones := o.newZones(nil, false)
	for _, z := range zones.all() {
		if z.Kin == nil || z.Kin("_nginx._tcp.marathon") != "nginx" {
			t.Errorf("%s does not keep the names of an app together", z.Origin)
		}
	}
	canonical := "nginx" + canonicalSuffix("nginx.1", "20a1-S7") + ".marathon"
	for rel, want := range map[string]string{
		"nginx.marathon": "nginx", canonical: "nginx", "_nginx._tcp.marathon": "nginx", "_http._nginx._udp.marathon": "nginx",
		"a-b.marathon": "a-b", "my-big-app.f": "my-big-app", "b.a.marathon": "b", "_b.a._tcp.marathon": "b", "_leader._tcp": "leader",
		"my-great-app.f": "my", // as if it were canonical
		"slave":          "slave", "": "", "_": "", "-": "-", "-abcde-s1": "", "_tcp.marathon": "tcp", "_a._b._c": "c",
	} {
		if got := appOf(rel); got != want {
			t.Errorf("%q is of %q, want %q", rel, got, want)
		}
	}
}

func TestCanonicalSuffix(t *testing.T) {
	for _, tc := range []struct{ task, agent, want string }{
		{"names-0", "d95bafc8-f2a4-d27b-dcf4-bb99f4bea973-S0", "-egi49-s0"}, // as Mesos-DNS
		{"names-0", "nodash", "-egi49-nodash"},
		{"names-0", "", "-egi49"},
		{"names-0", "x-***", "-egi49"},
		{"names-0", "x-" + strings.Repeat("9", 30), "-egi49-" + strings.Repeat("9", 20)},
	} {
		if got := canonicalSuffix(tc.task, tc.agent); got != tc.want {
			t.Errorf("%s on %s: %s, want %s", tc.task, tc.agent, got, tc.want)
		}
	}
}

// fixture is a running task `app` of marathon at 192.0.2.1, on the agent x-S0 at 10.0.0.1.
type fixture struct {
	rules     rules
	task      mesos.Task
	framework mesos.Framework
	agent     cluster.Agent
}

func newFixture() *fixture {
	return &fixture{
		rules: rules{sources: []source{netinfo, host}, pointTo: "mesos."},
		task: mesos.Task{
			ID: "app.1", FrameworkID: "x-0000", AgentID: "x-S0", Name: "app", State: mesos.TaskRunning,
			Status: mesos.Status{Networks: []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}},
		},
		framework: mesos.Framework{ID: "x-0000", Name: "marathon"},
		agent:     cluster.Agent{Agent: &mesos.Agent{ID: "x-S0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	}
}

func (f *fixture) instance() cluster.Instance {
	return cluster.Instance{Task: &f.task, Framework: &cluster.Framework{Framework: &f.framework}, Agent: &f.agent}
}

// TestPointers_LongName gives a task a name that a PTR record cannot point to.
func TestPointers_LongName(t *testing.T) {
	f := newFixture()
	f.framework.Name = strings.Repeat("x.", 125)
	var out recordSet
	f.rules.task(f.instance(), &out)
	if slices.ContainsFunc(out.records, func(r record) bool { return r.scheme == reverse }) || out.skipped[reverse][longName] != 1 {
		t.Errorf("%d skipped", out.skipped[reverse][longName])
	}
}

func TestExpand(t *testing.T) {
	var out recordSet
	if got := expand([]mesos.PortRange{{Begin: 0, End: 1 << 62}, {Begin: 5, End: 4}, {Begin: 1, End: 3}}, &out); len(got) != maxPorts || got[0] != 1 {
		t.Errorf("%d ports from %d on", len(got), got[0])
	}
	if skipped := out.skipped[mesosDNS]; skipped[badPort] != 2 || skipped[excess] != 65535-maxPorts+3 {
		t.Errorf("%d ranges and %d ports are skipped", skipped[badPort], skipped[excess])
	}
}

// TestTask_Bounded launches tasks that would take the server's memory, or its time.
func TestTask_Bounded(t *testing.T) {
	long := strings.Repeat("a.", 150_000)
	ports := make([]mesos.Port, 30_000)
	for i := range ports {
		ports[i] = mesos.Port{Number: uint32(i + 1), Name: "p" + strconv.Itoa(i)}
	}
	mappings := make([]mesos.PortMapping, 30_000)
	for i := range mappings {
		mappings[i] = mesos.PortMapping{HostPort: uint32(i + 1), ContainerPort: uint32(i + 1)}
	}
	addrs := make([]netip.Addr, 200_000)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for name, tc := range map[string]struct {
		change func(f *fixture)
		why    reason
		counts int // of skipped in zones of Mesos-DNS
	}{
		"a dotted name with ports": {func(f *fixture) { f.task.Discovery = &mesos.Discovery{Name: long, Ports: ports} }, longName, 1},
		"ports":                    {func(f *fixture) { f.task.Discovery = &mesos.Discovery{Name: "a.b", Ports: ports} }, excess, 30_000 - maxPorts},
		"ports that lead to addresses elsewhere": {func(f *fixture) {
			f.rules.sources = []source{host, netinfo}
			f.task.Discovery = &mesos.Discovery{Name: "a.b", Ports: ports}
			f.task.Status.Networks[0].Addrs = addrs[:maxAddrs]
		}, excess, 30_000 - maxPorts},
		"a name":      {func(f *fixture) { f.task.Name = strings.Repeat("a", 1<<20) }, excess, 0},
		"a framework": {func(f *fixture) { f.framework.Name = long; f.task.Ports = []mesos.PortRange{{Begin: 1, End: 9}} }, longName, 1},
		"a resource": {func(f *fixture) {
			f.task.Ports = slices.Repeat([]mesos.PortRange{{Begin: 1, End: 65535}}, 10_000)
		}, excess, 10_000*65535 - maxPorts},
		"mappings":              {func(f *fixture) { f.task.Container = mesos.Container{Docker: true, PortMappings: mappings} }, excess, 30_000 - maxPorts},
		"VIPs":                  {func(f *fixture) { f.task.VIPPorts = make([]mesos.VIPPort, 30_000) }, excess, 30_000 - maxPorts},
		"addresses":             {func(f *fixture) { f.task.Status.Networks[0].Addrs = addrs }, excess, 200_000 - maxAddrs},
		"addresses of an agent": {func(f *fixture) { f.agent.Addrs = addrs }, excess, 0}, // counted for the agent
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			tc.change(f)
			var out recordSet
			f.rules.task(f.instance(), &out)
			size := 0
			for _, r := range out.records {
				size += len(r.name.Rel)
			}
			if most := 32 * maxPorts; len(out.records) > most || size > most*64 {
				t.Errorf("%d records with %d bytes of names", len(out.records), size)
			}
			if got := out.skipped[mesosDNS][tc.why]; got != tc.counts {
				t.Errorf("%d skipped for %s, want %d", got, reasonNames[tc.why], tc.counts)
			}
		})
	}
}

// TestFramework_Bounded registers frameworks with more than fits.
func TestFramework_Bounded(t *testing.T) {
	f := newFixture()
	var out recordSet
	f.rules.framework(&cluster.Framework{Framework: &mesos.Framework{Name: strings.Repeat("a.", 150_000)}, Addrs: f.agent.Addrs}, false, &out)
	if len(out.records) != 0 || out.skipped[mesosDNS][longName] != 1 {
		t.Errorf("%d records, %d skipped", len(out.records), out.skipped[mesosDNS][longName])
	}
	out.reset()
	addrs := make([]netip.Addr, 1000)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	}
	f.rules.framework(&cluster.Framework{Framework: &f.framework, Addrs: addrs}, false, &out)
	if len(out.records) != maxAddrs || out.skipped[mesosDNS][excess] != 1000-maxAddrs {
		t.Errorf("%d records, %d skipped", len(out.records), out.skipped[mesosDNS][excess])
	}
}

var legalLabel = regexp.MustCompile(`^_?[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// FuzzNames makes names of anything, and looks whether they are legal.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"nginx", "a.b", "*", "leader", "x\x00y", "ünï", strings.Repeat("a.", 200), strings.Repeat("b", 300), "-", "_tcp"} {
		f.Add(s, s, s)
	}
	f.Fuzz(func(t *testing.T, name, framework, port string) {
		fx := newFixture()
		fx.task.Discovery = &mesos.Discovery{Name: name, Ports: []mesos.Port{{Number: 80, Name: port, Protocol: port}}}
		fx.framework.Name = framework
		var out recordSet
		fx.rules.task(fx.instance(), &out)
		for _, r := range out.records {
			for _, owner := range []string{r.name.Rel, r.Target().Rel} {
				for l := range strings.SplitSeq(strings.TrimSuffix(owner, "."), ".") {
					if owner != "" && (!legalLabel.MatchString(l) || len(l) > maxLabel) {
						t.Fatalf("label %q of %q is not legal", l, owner)
					}
				}
			}
		}
	})
}

// BenchmarkTask makes the records of a task with one named port and one host
// port, in both schemes and with a PTR.
func BenchmarkTask(b *testing.B) {
	f := newFixture()
	f.task.Discovery = &mesos.Discovery{Name: "app", Ports: []mesos.Port{{Number: 8080, Name: "http", Protocol: "tcp"}}}
	f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}}
	in := f.instance()
	var out recordSet
	b.ReportAllocs()
	for b.Loop() {
		out.reset()
		f.rules.task(in, &out)
	}
}
