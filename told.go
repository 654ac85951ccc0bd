package calicomesos

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/api"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// told is what can be said of a task. It is valid as long as what it is told of.
type told struct {
	api.Task
	known   unpacked
	insight *insight
	out     recordSet
	addrs   taskAddrs
	source  string // of addrs.published
}

// tell applies the rules to a task, and takes note of what they skip.
func (i *insight) tell(k unpacked) *told {
	t := &told{known: k, insight: i, out: recordSet{explains: true}}
	t.Task = api.Task{
		ID: k.Task.ID, Name: k.Task.Name, Framework: tenantOf(k.kept), Agent: k.Task.AgentID, State: k.Task.State.String(),
		Retained: k.kept.Retained, Addresses: []string{}, Skipped: []string{},
	}
	switch k.Task.Status.Health {
	case mesos.Healthy:
		t.Health = "healthy"
	case mesos.Unhealthy:
		t.Health = "unhealthy"
	}
	if k.Agent != nil && k.Agent.Hostname != "" {
		t.Agent = k.Agent.Hostname
	}
	if k.Task.State != mesos.TaskRunning {
		t.out.note("its state is %s: only running tasks are published", k.Task.State)
	}
	if k.Framework == nil {
		t.out.note("its framework %s is not known, or has ended", k.Task.FrameworkID)
	}
	if k.Agent == nil {
		t.out.note("its agent %s is not known, or gone", k.Task.AgentID)
	}
	if published(k.kept) {
		t.apply()
	}
	t.Skipped = some(append(t.Skipped, t.out.notes...))
	return t
}

// some returns the first of many texts, and how many more there are.
func some(all []string) []string {
	if len(all) <= maxExplained {
		return all
	}
	return append(all[:maxExplained:maxExplained], fmt.Sprintf("… and %d more", len(all)-maxExplained))
}

// apply applies the rules.
func (t *told) apply() {
	rules, in := &t.insight.options.rules, t.known.Instance
	rules.task(in, &t.out)
	t.Published = len(t.out.claims) > 0
	unfit := 0
	for _, r := range t.out.records {
		for _, z := range t.insight.zones[r.scheme] {
			if r.scheme == reverse || z.Fits(r.name, r.Record) {
				t.Published = true
			} else {
				unfit++
			}
		}
	}
	if unfit > 0 {
		t.out.note("%d records have names that are longer than 255 octets", unfit)
	}
	if len(t.known.Agent.Addrs) == 0 {
		t.out.note("its agent %s has no address: its hostname cannot be looked up", t.Agent)
	}
	if n, ok := rules.naming(in, &recordSet{}); ok && !rules.hides(in) {
		t.addressed(&n)
	}
}

// addressed notes where the task's addresses are from, and the name that has them.
func (t *told) addressed(n *naming) {
	rules := &t.insight.options.rules
	t.addrs = n.addrs
	for _, s := range rules.sources {
		if len(rules.addrsFrom(s, t.known.Instance, &t.addrs, &recordSet{})) > 0 {
			t.source = nameOf(sourceNames, s)
			break
		}
		if s == netinfo && t.addrs.hidden {
			break
		}
	}
	switch {
	case n.backup:
		t.out.note("health: it is unhealthy, and answers to names that it shares only where no healthy instance does")
	case len(n.addrs.published) > 0:
	case n.addrs.hidden:
		t.out.note("the addresses of its container are all excluded: no other source is asked instead")
	default:
		t.out.note("no source of ipsources %s knows an address of it", strings.Join(rules.sourceList(), " "))
	}
	addrs := n.addrs.published
	for _, s := range n.spellings() {
		zones := t.insight.zones[s.scheme]
		if s.scheme == dcos {
			addrs = n.addrs.network
		}
		if s.t == "" || len(zones) == 0 || len(addrs) == 0 || !n.spell(s.t, s.f) {
			continue
		}
		t.DNSName = zone.Join(n.app, zones[0].Origin)
		if s.scheme == dcos {
			t.DNSName = zone.Join(n.app+".containerip", zones[0].Origin)
		}
		for _, a := range addrs {
			t.Addresses = append(t.Addresses, a.String())
		}
		return
	}
}

// detail adds what an explanation tells of a task.
func (t *told) detail() api.TaskDetail {
	d := api.TaskDetail{Task: t.Task, AgentID: t.known.Task.AgentID, FrameworkID: t.known.Task.FrameworkID, Source: t.source, Names: []string{}, Sources: make(map[string][]string), Ports: []api.Port{}}
	if published(t.known.kept) {
		for name, s := range sourceNames {
			for _, a := range t.insight.options.rules.addrsFrom(s, t.known.Instance, &t.addrs, &recordSet{}) {
				d.Sources[name] = append(d.Sources[name], a.String())
			}
		}
	}
	names := make(map[string]bool)
	for _, r := range t.out.records {
		for _, z := range t.insight.zones[r.scheme] {
			if r.scheme == reverse {
				if _, ok := z.Relative(r.name.Rel); ok {
					names[r.name.Rel] = true
				}
				continue
			}
			rr := z.RR(r.name, r.Record)
			if rr == nil {
				continue
			}
			names[rr.Header().Name] = true
			if srv, ok := rr.(*dns.SRV); ok && len(d.Ports) < maxExplained {
				d.Ports = append(d.Ports, api.Port{Service: srv.Hdr.Name, Target: srv.Target, Port: srv.Port})
			}
		}
	}
	for _, c := range t.out.claims {
		names[zone.Join(c.name, t.insight.options.rules.vhosts[c.line].origin)] = true
	}
	d.Names = some(slices.AppendSeq(d.Names, maps.Keys(names)))
	slices.Sort(d.Names)
	return d
}
