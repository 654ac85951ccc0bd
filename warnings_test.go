package calicomesos

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"
)

// TestWarnings warns of filters that match nothing, once, and not before there is something
// to match.
func TestWarnings(t *testing.T) {
	prefix := netip.MustParsePrefix
	filters := rules{
		sources: []source{netinfo}, networks: []string{"typo", "calico"}, allow: []netip.Prefix{prefix("192.0.2.0/24"), prefix("192.0.20.0/24")},
		frameworks: []tenant{{name: "marathn"}, {name: "marathon", principal: "me"}, {name: "marathon"}},
	}
	const network, allow, framework = `network "typo"`, "in 192.0.20.0/24", `framework is "marathn"`
	agent := func(addr string) *cluster.Agent {
		return &cluster.Agent{Agent: &mesos.Agent{ID: "s"}, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	marathon := &cluster.Framework{Framework: &mesos.Framework{ID: "f", Name: "marathon"}}
	task := func(addr string) cluster.Kept {
		return cluster.Kept{Framework: marathon, Agent: agent("10.0.0.1"), Task: (&mesos.Task{
			ID: "a", Name: "a", State: mesos.TaskRunning,
			Status: mesos.Status{Networks: []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}},
		}).Pack()}
	}
	principal := `framework is "marathon:me"`
	for name, tc := range map[string]struct {
		rules    rules
		agent    string
		task     string // its address; "": there is none
		complete bool
		want     []string
	}{
		"all are wrong, but for one each": {filters, "10.0.0.1", "192.0.2.1", true, []string{network, allow, framework, principal}},
		"one inside the other": {rules{
			sources: []source{netinfo}, networks: []string{"calico", "calico"}, allow: []netip.Prefix{prefix("192.0.0.0/16"), prefix("192.0.2.0/24")},
			frameworks: []tenant{{name: "marathon"}, {name: "marathon", principal: ""}},
		}, "10.0.0.1", "192.0.2.1", true, nil},
		"not yet complete":              {filters, "10.0.0.1", "192.0.2.1", false, nil},
		"no task yet":                   {filters, "10.0.0.1", "", true, []string{framework, principal}},
		"a task on its agent's network": {filters, "10.0.0.1", "10.0.0.1", true, []string{framework, principal}},
		"no filters":                    {rules{sources: []source{netinfo}}, "10.0.0.1", "192.0.2.1", true, nil},
		"an agent that is everywhere":   {rules{sources: []source{netinfo}}, "127.0.1.1", "", false, []string{"An agent has the address 127.0.1.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newTestPublisher(&tc.rules)
			changes := cluster.Changes{
				Frameworks: []cluster.Change[*cluster.Framework]{{New: marathon}},
				Agents:     []cluster.Change[*cluster.Agent]{{New: agent(tc.agent)}},
			}
			if tc.task != "" {
				changes.Instances = slices.Values([]cluster.Change[cluster.Kept]{{New: task(tc.task)}})
			}
			p.swap(func(*recordSet) {}, func(*recordSet) {}) // nothing is seen
			if got := p.warner.warnings(p.rules, true); got != nil {
				t.Errorf("before all: %q", got)
			}
			p.Publish(&changes, watch.Status{})
			p.warner.ofAgent = false // Publish has logged that
			got := p.warner.warnings(p.rules, tc.complete)
			if len(got) != len(tc.want) || !slices.EqualFunc(got, tc.want, strings.Contains) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if again := p.warner.warnings(p.rules, tc.complete); again != nil {
				t.Errorf("again: %q", again)
			}
		})
	}
}
