package calicomesos

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
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

func TestFrag(t *testing.T) {
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
			t.Errorf("frag of %q is %q, want %q", x, got, want)
		}
	}
}

func TestTails(t *testing.T) {
	for _, tc := range []struct {
		scheme scheme
		tail   zone.Sub
		label  string
	}{{mesosDNS, slave, "slave"}, {dcos, containerip, "containerip"}, {dcos, agentip, "agentip"}, {dcos, autoip, "autoip"}} {
		if got := subdomains[tc.scheme][tc.tail-1]; got != tc.label {
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

// fixture is a running task `app` of marathon with the address 192.0.2.1, on
// the agent x-S0 at 10.0.0.1, and rules as by default. Its canonical name is
// app-wn5mc-s0.
type fixture struct {
	rules     rules
	task      mesos.Task
	framework mesos.Framework
	agent     cluster.Agent
}

const canonical = "app-wn5mc-s0"

func newFixture() *fixture {
	return &fixture{
		rules: rules{sources: []source{netinfo, host}},
		task: mesos.Task{
			ID: "app.1", FrameworkID: "x-0000", AgentID: "x-S0", App: &mesos.App{Name: "app"}, State: mesos.TaskRunning,
			Status: mesos.Status{Networks: []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}},
		},
		framework: mesos.Framework{ID: "x-0000", Name: "marathon"},
		agent:     cluster.Agent{Agent: &mesos.Agent{ID: "x-S0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}},
	}
}

// records are the fixture's records of a scheme, as `TYPE owner data`.
func (f *fixture) records(sch scheme) ([]string, [reasons]int) {
	var out recordSet
	f.rules.task(cluster.Instance{Task: &f.task, Framework: &cluster.Framework{Framework: &f.framework}, Agent: &f.agent}, &out)
	return out.text(sch), out.skipped[sch]
}

func (s *recordSet) text(sch scheme) []string {
	z := zone.New(zone.Config{Origin: ".", NS: "ns.", Subs: subdomains[sch]})
	tx := z.Begin()
	for _, r := range s.records {
		if r.scheme == sch {
			r.name.Rel = strings.TrimSuffix(r.name.Rel, ".")
			tx.Add(r.name, r.Record)
		}
	}
	tx.Publish(time.Now(), zone.Status{Complete: true})
	var all []string
	for rrs := range z.Current().All() {
		for _, rr := range rrs {
			if rr.Header().Rrtype != dns.TypeNS {
				all = append(all, fmt.Sprintf("%s %s %s", dns.TypeToString[rr.Header().Rrtype], strings.TrimSuffix(rr.Header().Name, "."), rdata(rr)))
			}
		}
	}
	return sorted(all)
}

func ports(p ...mesos.Port) *mesos.Discovery { return &mesos.Discovery{Name: "app", Ports: p} }

// TestTaskRules asks of each rule what it adds to, or takes from, the records
// of the fixture; HASH stands for the canonical name.
func TestTaskRules(t *testing.T) {
	base := []string{
		"A app.marathon 192.0.2.1", "A HASH.marathon 192.0.2.1",
		"A app.marathon.slave 10.0.0.1", "A HASH.marathon.slave 10.0.0.1",
	}
	baseDCOS := []string{
		"A app.marathon.containerip 192.0.2.1", "A HASH.marathon.containerip 192.0.2.1",
		"A app.marathon.agentip 10.0.0.1", "A HASH.marathon.agentip 10.0.0.1",
		"A app.marathon.autoip 192.0.2.1",
	}
	v6 := netip.MustParseAddr("fd00::1")
	networks := func(addrs ...string) []mesos.Network {
		n := mesos.Network{Name: "calico"}
		for _, a := range addrs {
			n.Addrs = append(n.Addrs, mesos.ParseAddr(a))
		}
		return []mesos.Network{n}
	}
	// onAgent is what a task is answered with by autoip once it has a host port.
	onAgent := func(extra ...string) []string {
		return append(extra, "-A app.marathon.autoip 192.0.2.1", "A app.marathon.autoip 10.0.0.1")
	}
	for name, tc := range map[string]struct {
		change  func(f *fixture)
		mesos   []string // besides base; with a "-", what is missing of it
		dcos    []string
		skipped map[reason]int
	}{
		"as it is": {change: func(*fixture) {}},
		"a name of capitals and dots, not from discovery": {
			change: func(f *fixture) { f.task.Name = "A.pp" },
			mesos:  renamed(base, "app", "a-pp"), dcos: renamed(baseDCOS, "app", "a-pp"),
		},
		"a discovery name": {
			change: func(f *fixture) { f.task.Discovery = &mesos.Discovery{Name: "other"} },
			mesos:  renamed(base, "app", "other"), dcos: renamed(baseDCOS, "app", "other"),
		},
		"a dotted discovery name": {
			change: func(f *fixture) {
				f.task.Discovery = &mesos.Discovery{Name: "app.Group", Ports: []mesos.Port{{Number: 80, Protocol: "tcp"}}}
			},
			mesos: slices.Concat(renamed(base, "app", "app-group"), renamed(base, "app", "app.group"),
				[]string{
					"SRV _app-group._tcp.marathon app-group-wn5mc-s0.marathon.:80", "SRV _app-group._tcp.marathon.slave app-group-wn5mc-s0.marathon.slave.:80",
					"SRV _app.group._tcp.marathon app.group-wn5mc-s0.marathon.:80", "SRV _app.group._tcp.marathon.slave app.group-wn5mc-s0.marathon.slave.:80",
				}),
			dcos: append(renamed(baseDCOS, "app", "app-group"), "SRV _app-group._tcp.marathon.containerip app-group-wn5mc-s0.marathon.containerip.:80"),
		},
		"an empty discovery name": {change: func(f *fixture) {
			f.task.Discovery = &mesos.Discovery{Ports: []mesos.Port{{Number: 80, Protocol: "tcp"}}}
		}},
		"an empty discovery name, with a host port": {
			change: func(f *fixture) {
				f.task.Discovery = &mesos.Discovery{Ports: []mesos.Port{{Number: 80, Protocol: "tcp", Host: true}}}
			},
			dcos: onAgent(),
		},
		"a framework with dots": {
			change: func(f *fixture) { f.framework.Name = "Chronos.v2" },
			mesos:  renamed(base, ".marathon", ".chronos.v2"), dcos: renamed(baseDCOS, ".marathon", ".chronos-v2"),
		},
		"no name": {
			change: func(f *fixture) { f.task.Name = "***" },
			mesos:  minus(base), dcos: minus(baseDCOS), skipped: map[reason]int{badName: 1},
		},
		"no framework name": {
			change: func(f *fixture) { f.framework.Name = "" },
			mesos:  minus(base), dcos: minus(baseDCOS), skipped: map[reason]int{badName: 1},
		},
		"a framework named slave": {
			change: func(f *fixture) { f.framework.Name = "slave" },
			mesos:  minus(base), dcos: minus(baseDCOS), skipped: map[reason]int{reserved: 1},
		},
		"a framework ending in autoip": {
			change: func(f *fixture) { f.framework.Name = "x.AutoIP" },
			mesos:  minus(base), dcos: minus(baseDCOS), skipped: map[reason]int{reserved: 1},
		},
		"a port": {
			change: func(f *fixture) { f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp"}) },
			mesos:  []string{"SRV _app._tcp.marathon HASH.marathon.:80", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:80"},
			dcos:   []string{"SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80"},
		},
		"a port with a name and no protocol": {
			change: func(f *fixture) { f.task.Discovery = ports(mesos.Port{Number: 53, Name: "D.ns"}) },
			mesos: []string{
				"SRV _app._tcp.marathon HASH.marathon.:53", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:53",
				"SRV _app._udp.marathon HASH.marathon.:53", "SRV _app._udp.marathon.slave HASH.marathon.slave.:53",
				"SRV _d-ns._app._tcp.marathon HASH.marathon.:53", "SRV _d-ns._app._tcp.marathon.slave HASH.marathon.slave.:53",
				"SRV _d-ns._app._udp.marathon HASH.marathon.:53", "SRV _d-ns._app._udp.marathon.slave HASH.marathon.slave.:53",
			},
			dcos: []string{
				"SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:53", "SRV _app._udp.marathon.containerip HASH.marathon.containerip.:53",
				"SRV _d-ns._app._tcp.marathon.containerip HASH.marathon.containerip.:53", "SRV _d-ns._app._udp.marathon.containerip HASH.marathon.containerip.:53",
			},
		},
		"a port of another protocol": {
			change: func(f *fixture) { f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "SCTP"}) },
			mesos:  []string{"SRV _app._sctp.marathon HASH.marathon.:80", "SRV _app._sctp.marathon.slave HASH.marathon.slave.:80"},
		},
		"a port of the agent": {
			change: func(f *fixture) { f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp", Host: true}) },
			mesos:  []string{"SRV _app._tcp.marathon HASH.marathon.slave.:80", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:80"},
			dcos:   onAgent("SRV _app._tcp.marathon.agentip HASH.marathon.agentip.:80"),
		},
		"ports that are none": {
			change: func(f *fixture) {
				f.task.Discovery = ports(mesos.Port{Number: 0, Protocol: "tcp"}, mesos.Port{Number: 65536, Protocol: "tcp"}, mesos.Port{Number: 80, Protocol: "***"})
			},
			skipped: map[reason]int{badPort: 2, badName: 1},
		},
		"a long port name": {
			change: func(f *fixture) {
				f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp", Name: strings.Repeat("p", 70)})
			},
			mesos: []string{
				"SRV _app._tcp.marathon HASH.marathon.:80", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:80",
				"SRV _" + strings.Repeat("p", 62) + "._app._tcp.marathon HASH.marathon.:80", "SRV _" + strings.Repeat("p", 62) + "._app._tcp.marathon.slave HASH.marathon.slave.:80",
			},
			dcos: []string{
				"SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80",
				"SRV _" + strings.Repeat("p", 62) + "._app._tcp.marathon.containerip HASH.marathon.containerip.:80",
			},
		},
		"ports of the resource, without discovery": {
			change: func(f *fixture) { f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31001}} },
			mesos: []string{
				"SRV _app._tcp.marathon HASH.marathon.slave.:31000", "SRV _app._tcp.marathon HASH.marathon.slave.:31001",
				"SRV _app._udp.marathon HASH.marathon.slave.:31000", "SRV _app._udp.marathon HASH.marathon.slave.:31001",
				"SRV _app._tcp.marathon.slave HASH.marathon.slave.:31000", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:31001",
				"SRV _app._udp.marathon.slave HASH.marathon.slave.:31000", "SRV _app._udp.marathon.slave HASH.marathon.slave.:31001",
			},
		},
		"ports of the resource, with discovery": {
			change: func(f *fixture) {
				f.task.Discovery = ports()
				f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}}
			},
			mesos: []string{"SRV _app._tcp.marathon.slave HASH.marathon.slave.:31000", "SRV _app._udp.marathon.slave HASH.marathon.slave.:31000"},
		},
		"a label VIP_PORT1": {
			change: func(f *fixture) {
				f.task.Discovery = ports()
				f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}, {Begin: 31005, End: 31005}}
				f.task.VIPPorts = []mesos.VIPPort{{Index: 1, Protocol: "UDP"}, {Index: 2, Protocol: "tcp"}, {Index: 0, Protocol: "http"}}
			},
			mesos: []string{
				"SRV _app._tcp.marathon.slave HASH.marathon.slave.:31000", "SRV _app._udp.marathon.slave HASH.marathon.slave.:31000",
				"SRV _app._tcp.marathon.slave HASH.marathon.slave.:31005", "SRV _app._udp.marathon.slave HASH.marathon.slave.:31005",
			},
			dcos: onAgent("SRV _app._udp.marathon.agentip HASH.marathon.agentip.:31005"),
		},
		"a port mapping of the container": {
			change: func(f *fixture) {
				f.task.Container = mesos.Container{Networks: 1, PortMappings: []mesos.PortMapping{{HostPort: 31000, ContainerPort: 80, Protocol: "TCP"}}}
				f.task.Status.Networks[0].PortMappings = []mesos.PortMapping{{HostPort: 1, ContainerPort: 1}}
			},
			dcos: onAgent("SRV _app._tcp.marathon.agentip HASH.marathon.agentip.:31000", "SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80"),
		},
		"a port mapping of a pod": {
			change: func(f *fixture) {
				f.task.Status.Networks[0].PortMappings = []mesos.PortMapping{{HostPort: 31000, ContainerPort: 80, Protocol: "udp"}, {HostPort: 9, ContainerPort: 9, Protocol: "sctp"}}
			},
			dcos: onAgent("SRV _app._udp.marathon.agentip HASH.marathon.agentip.:31000", "SRV _app._udp.marathon.containerip HASH.marathon.containerip.:80"),
		},
		"a port mapping of Docker": {
			change: func(f *fixture) {
				f.task.Container = mesos.Container{Docker: true, PortMappings: []mesos.PortMapping{{HostPort: 31000, ContainerPort: 80}}}
				f.task.Status.Networks[0].PortMappings = []mesos.PortMapping{{HostPort: 1, ContainerPort: 1}}
			},
			dcos: onAgent("SRV _app._tcp.marathon.agentip HASH.marathon.agentip.:31000", "SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80"),
		},
		"on the host's network": {
			change: func(f *fixture) {
				f.task.Status.Networks = networks("10.0.0.1")
				f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp", Host: true})
			},
			mesos: append(renamed(base, "192.0.2.1", "10.0.0.1"),
				"SRV _app._tcp.marathon HASH.marathon.slave.:80", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:80"),
			dcos: append(renamed(baseDCOS, "192.0.2.1", "10.0.0.1"),
				"SRV _app._tcp.marathon.agentip HASH.marathon.agentip.:80", "SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80"),
		},
		"without a network": {
			change: func(f *fixture) { f.task.Status.Networks = nil },
			mesos:  renamed(base, "192.0.2.1", "10.0.0.1"),
			dcos: append(minus([]string{"A app.marathon.containerip 192.0.2.1", "A HASH.marathon.containerip 192.0.2.1"}),
				onAgent()...),
		},
		"two addresses, one twice, and some that are none": {
			change: func(f *fixture) {
				f.task.Status.Networks = networks("192.0.2.1", "fd00::1/64", "192.0.2.1", "::", "224.0.0.1", "nonsense", "::ffff:192.0.2.9")
			},
			mesos: []string{
				"AAAA app.marathon fd00::1", "AAAA HASH.marathon fd00::1", "A app.marathon 192.0.2.9", "A HASH.marathon 192.0.2.9",
			},
			dcos: []string{
				"AAAA app.marathon.containerip fd00::1", "AAAA HASH.marathon.containerip fd00::1", "AAAA app.marathon.autoip fd00::1",
				"A app.marathon.containerip 192.0.2.9", "A HASH.marathon.containerip 192.0.2.9", "A app.marathon.autoip 192.0.2.9",
			},
			skipped: map[reason]int{badAddress: 3},
		},
		"another network": {
			change: func(f *fixture) { f.rules.networks = []string{"storage"} },
			mesos:  renamed(base, "192.0.2.1", "10.0.0.1"),
			dcos: append(minus([]string{"A app.marathon.containerip 192.0.2.1", "A HASH.marathon.containerip 192.0.2.1"}),
				onAgent()...),
			skipped: map[reason]int{filtered: 1},
		},
		"this network": {change: func(f *fixture) { f.rules.networks = []string{"storage", "calico"} }},
		"another pool": {
			change: func(f *fixture) {
				f.rules.allow = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
				f.rules.sources = []source{netinfo}
			},
			mesos: minus([]string{"A app.marathon 192.0.2.1", "A HASH.marathon 192.0.2.1"}),
			dcos: append(minus([]string{"A app.marathon.containerip 192.0.2.1", "A HASH.marathon.containerip 192.0.2.1"}),
				onAgent()...),
			skipped: map[reason]int{filtered: 1},
		},
		"source host": {
			change: func(f *fixture) { f.rules.sources = []source{host, netinfo} },
			mesos:  renamed(base, "192.0.2.1", "10.0.0.1"),
		},
		"source auto": {
			change: func(f *fixture) {
				f.rules.sources = []source{auto}
				f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp", Host: true})
			},
			mesos: append(renamed(base, "192.0.2.1", "10.0.0.1"),
				"SRV _app._tcp.marathon HASH.marathon.slave.:80", "SRV _app._tcp.marathon.slave HASH.marathon.slave.:80"),
			dcos: onAgent("SRV _app._tcp.marathon.agentip HASH.marathon.agentip.:80"),
		},
		"source docker": {
			change: func(f *fixture) {
				f.rules.sources = []source{mesosLabel, dockerLabel}
				f.task.Status.Labels = &mesos.StatusLabels{Docker: []netip.Addr{v6}}
			},
			mesos: append(minus([]string{"A app.marathon 192.0.2.1", "A HASH.marathon 192.0.2.1"}), "AAAA app.marathon fd00::1", "AAAA HASH.marathon fd00::1"),
		},
		"an agent without address": {
			change: func(f *fixture) {
				f.agent.Addrs = nil
				f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp"}, mesos.Port{Number: 81, Protocol: "tcp", Host: true})
				f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}}
			},
			mesos: append(minus([]string{"A app.marathon.slave 10.0.0.1", "A HASH.marathon.slave 10.0.0.1"}), "SRV _app._tcp.marathon HASH.marathon.:80"),
			dcos: append(minus([]string{"A app.marathon.agentip 10.0.0.1", "A HASH.marathon.agentip 10.0.0.1", "A app.marathon.autoip 192.0.2.1"}),
				"SRV _app._tcp.marathon.containerip HASH.marathon.containerip.:80"),
		},
		"visibility without discovery": {
			change: func(f *fixture) { f.rules.visibility = mesos.VisibilityCluster },
			mesos:  minus(base), dcos: minus(baseDCOS), skipped: map[reason]int{invisible: 1},
		},
		"visible enough": {change: func(f *fixture) {
			f.rules.visibility = mesos.VisibilityCluster
			f.task.Discovery = &mesos.Discovery{Name: "app", Visibility: mesos.VisibilityExternal}
		}},
		"visible enough without a name": {change: func(f *fixture) {
			f.rules.visibility = mesos.VisibilityCluster
			f.task.Discovery = &mesos.Discovery{Visibility: mesos.VisibilityExternal}
		}},
		"unhealthy alone": {change: func(f *fixture) {
			f.rules.health = true
			f.task.Status.Health = mesos.Unhealthy
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture()
			tc.change(f)
			for sch, want := range map[scheme][]string{mesosDNS: merge(base, tc.mesos), dcos: merge(baseDCOS, tc.dcos)} {
				got, skipped := f.records(sch)
				for i := range want {
					want[i] = strings.ReplaceAll(want[i], "HASH", canonical)
				}
				if !slices.Equal(got, sorted(want)) {
					t.Errorf("scheme %d:\n%s\nwant\n%s", sch, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				for why, n := range skipped {
					if n != tc.skipped[reason(why)] {
						t.Errorf("scheme %d: %d skipped for %s, want %d", sch, n, reasonNames[why], tc.skipped[reason(why)])
					}
				}
			}
		})
	}
}

// merge adds more to base, and takes from it what more has with a "-".
func merge(base, more []string) []string {
	all := slices.Clone(base)
	for _, m := range more {
		if rest, ok := strings.CutPrefix(m, "-"); ok {
			all = slices.DeleteFunc(all, func(s string) bool { return s == rest })
		} else if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	return all
}

// minus takes lines away.
func minus(lines []string) []string {
	var all []string
	for _, l := range lines {
		all = append(all, "-"+l)
	}
	return all
}

// renamed takes lines away, and adds them with another name or address.
func renamed(lines []string, from, to string) []string {
	all := minus(lines)
	for _, l := range lines {
		l = strings.Replace(l, "HASH", "app-wn5mc-s0", 1)
		all = append(all, strings.Replace(l, from, to, 1))
	}
	return all
}

func TestPointers(t *testing.T) {
	f := newFixture()
	f.rules.pointTo = "mesos."
	f.task.Status.Networks[0].Addrs = append(f.task.Status.Networks[0].Addrs, netip.MustParseAddr("fd00::1"))
	got, _ := f.records(reverse)
	want := []string{
		"PTR 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa app.marathon.mesos.",
		"PTR 1.2.0.192.in-addr.arpa app.marathon.mesos.",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	f.framework.Name = strings.Repeat("x.", 125)
	if got, skipped := f.records(reverse); len(got) != 0 || skipped[longName] != 1 {
		t.Errorf("to a long name: %q, %d skipped", got, skipped[longName])
	}
}

func TestUnhealthyStandsBy(t *testing.T) {
	f := newFixture()
	f.rules.health = true
	f.task.Discovery = ports(mesos.Port{Number: 80, Protocol: "tcp"})
	var out recordSet
	framework := &cluster.Framework{Framework: &f.framework}
	sick := f.task
	sick.ID, sick.Status.Health = "app.2", mesos.Unhealthy
	sick.Status.Networks = []mesos.Network{{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}}
	f.rules.task(cluster.Instance{Task: &f.task, Framework: framework, Agent: &f.agent}, &out)
	f.rules.task(cluster.Instance{Task: &sick, Framework: framework, Agent: &f.agent}, &out)
	all := strings.Join(append(out.text(mesosDNS), out.text(dcos)...), "\n")
	suffix := canonicalSuffix(sick.ID, sick.AgentID)
	for _, want := range []string{"A app" + suffix + ".marathon 192.0.2.2", "A app" + suffix + ".marathon.containerip 192.0.2.2"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, unwanted := range []string{"A app.marathon 192.0.2.2", "A app.marathon.containerip 192.0.2.2", "_app._tcp.marathon app" + suffix} {
		if strings.Contains(all, unwanted) {
			t.Errorf("%s is there", unwanted)
		}
	}
}

func TestFrameworkRules(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")}
	for _, tc := range []struct {
		name, webui string
		addrs       []netip.Addr
		want        string
		skipped     reason
	}{
		{"marathon", "http://x:8080/ui", addrs, "A marathon 10.0.0.9; AAAA marathon fd00::9; SRV _framework._tcp.marathon marathon.:8080", -1},
		{"Chronos.v2", "https://x/", addrs[:1], "A chronos.v2 10.0.0.9; SRV _framework._tcp.chronos.v2 chronos.v2.:443", -1},
		{"plain", "http://x", addrs[:1], "A plain 10.0.0.9; SRV _framework._tcp.plain plain.:80", -1},
		{"no-ui", "", addrs[:1], "A no-ui 10.0.0.9", -1},
		{"bad-ui", "http://x:99999", addrs[:1], "A bad-ui 10.0.0.9", -1},
		{"odd-ui", "::", addrs[:1], "A odd-ui 10.0.0.9", -1},
		{"no-address", "http://x:8080", nil, "", -1},
		{"leader", "http://x:8080", addrs, "", reserved},
		{"Master", "", addrs, "", reserved},
		{"master7", "", addrs, "", reserved},
		{"master-x", "", addrs[:1], "A master-x 10.0.0.9", -1},
		{"ns1", "", addrs, "", reserved},
		{"x.slave", "", addrs, "", reserved},
		{"foo.leader", "", addrs[:1], "A foo.leader 10.0.0.9", -1},
		{"***", "", addrs, "", badName},
	} {
		r := rules{nsNames: []string{"ns1"}}
		var out recordSet
		r.framework(&cluster.Framework{Framework: &mesos.Framework{Name: tc.name, WebUIURL: tc.webui}, Addrs: tc.addrs}, &out)
		if got := strings.Join(out.text(mesosDNS), "; "); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		for why, n := range out.skipped[mesosDNS] {
			if (n == 1) != (reason(why) == tc.skipped) {
				t.Errorf("%s: %d skipped for %s", tc.name, n, reasonNames[why])
			}
		}
	}
}

func TestMasterRules(t *testing.T) {
	a, b := []netip.Addr{netip.MustParseAddr("10.0.0.1")}, []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	var out recordSet
	new(rules).masters(&cluster.Masters{Leader: b, Port: 5050, All: [][]netip.Addr{a, b, nil}}, &out)
	want := "A leader 10.0.0.2; A master 10.0.0.1; A master 10.0.0.2; A master0 10.0.0.1; A master1 10.0.0.2; " +
		"SRV _leader._tcp leader.:5050; SRV _leader._udp leader.:5050"
	if got := strings.Join(out.text(mesosDNS), "; "); got != want {
		t.Errorf("Mesos-DNS: %s", got)
	}
	if got := strings.Join(out.text(dcos), "; "); got != "A leader 10.0.0.2; A master 10.0.0.1; A master 10.0.0.2" {
		t.Errorf("DC/OS: %s", got)
	}
}

func TestAgentRules(t *testing.T) {
	var out recordSet
	r := new(rules)
	r.agent(&cluster.Agent{Agent: &mesos.Agent{Port: 5051}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}, &out)
	r.agent(&cluster.Agent{Agent: &mesos.Agent{Port: 5052}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}, &out)
	r.agent(&cluster.Agent{Agent: &mesos.Agent{Port: 5053}}, &out)
	want := "A slave 10.0.0.1; A slave 10.0.0.2; SRV _slave._tcp slave.:5051; SRV _slave._tcp slave.:5052"
	if got := strings.Join(out.text(mesosDNS), "; "); got != want {
		t.Errorf("got %s", got)
	}
}

func TestExpand(t *testing.T) {
	var out recordSet
	if got := expand([]mesos.PortRange{{Begin: 0, End: 1 << 62}, {Begin: 5, End: 4}, {Begin: 1, End: 3}}, &out); len(got) != 65535 || got[0] != 1 {
		t.Errorf("%d ports from %d on", len(got), got[0])
	}
	if out.skipped[mesosDNS][badPort] != 2 {
		t.Errorf("%d ranges are skipped", out.skipped[mesosDNS][badPort])
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
		fx.rules.pointTo = "mesos."
		fx.task.Discovery = &mesos.Discovery{Name: name, Ports: []mesos.Port{{Number: 80, Name: port, Protocol: port}}}
		fx.framework.Name = framework
		var out recordSet
		fx.rules.task(cluster.Instance{Task: &fx.task, Framework: &cluster.Framework{Framework: &fx.framework}, Agent: &fx.agent}, &out)
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
	f.rules.pointTo = "mesos."
	f.task.Discovery = ports(mesos.Port{Number: 8080, Name: "http", Protocol: "tcp"})
	f.task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}}
	in := cluster.Instance{Task: &f.task, Framework: &cluster.Framework{Framework: &f.framework}, Agent: &f.agent}
	var out recordSet
	b.ReportAllocs()
	for b.Loop() {
		out.reset()
		f.rules.task(in, &out)
	}
}
