package calicomesos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/api"
	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/plugin/pkg/dnsutil"

	"github.com/miekg/dns"
)

// Bounds of an explanation.
const (
	maxExplained = 100 // tasks
	maxHints     = 5   // similar names
)

// Explain implements api.Stanza. The name may also be a task's id.
func (i *insight) Explain(ctx context.Context, asked string) (*api.Explanation, error) {
	view, err := i.look(ctx)
	if err != nil {
		return nil, err
	}
	q := i.question(asked)
	e := &api.Explanation{Name: q.name, Answer: []string{}, Reasons: []string{}, Tasks: []api.TaskDetail{}}
	if q.zone != nil {
		e.Zone = statusOf(q.scheme, q.zone)
		i.answerOf(q, e)
	}
	for _, k := range view.Tasks {
		if k.Task.ID != asked && !i.couldBe(q, k) {
			continue
		}
		if e.Total++; e.Total <= maxExplained {
			e.Tasks = append(e.Tasks, i.tell(k).detail())
		}
	}
	if e.Total == 0 || q.zone != nil {
		e.Reasons = append(e.Reasons, i.reasonsFor(q, view, e)...)
	}
	return e, nil
}

// question is a name, and where it is.
type question struct {
	name   string         // fully qualified, in lower case
	zone   *publishedZone // nil: in none
	scheme scheme
	rel    string // relative to the zone, as that looks it up
	base   string // rel without the subdomain
	sub    zone.Sub
}

func (i *insight) question(asked string) question {
	q := question{name: strings.ToLower(dns.Fqdn(asked))}
	z, rel := i.plugin.match(q.name)
	if z == nil {
		return q
	}
	for sch, zs := range i.zones {
		for _, pz := range zs {
			if pz.Zone == z {
				q.zone, q.scheme = pz, scheme(sch)
			}
		}
	}
	if z.Dashes {
		rel = zone.Dashed(rel)
	}
	q.rel, q.base = rel, rel
	for n, label := range subdomains[q.scheme] {
		if base, ok := strings.CutSuffix(rel, "."+label); ok {
			q.base, q.sub = base, zone.Sub(n+1)
		}
	}
	return q
}

// answerOf sets what DNS answers.
func (i *insight) answerOf(q question, e *api.Explanation) {
	e.Rcode = dns.RcodeToString[dns.RcodeNameError]
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR} {
		a, err := i.Lookup(q.name, qtype)
		if err != nil {
			e.Rcode = dns.RcodeToString[dns.RcodeServerFailure]
			return
		}
		if a.Exists {
			e.Rcode = dns.RcodeToString[dns.RcodeSuccess]
		}
		for _, rr := range a.Records {
			if len(e.Answer) < maxExplained {
				e.Answer = append(e.Answer, strings.ReplaceAll(rr.String(), "\t", " "))
			}
		}
	}
}

// couldBe reports whether a name is, or would be, one of a task's, if that were published.
func (i *insight) couldBe(q question, k cluster.Known) bool {
	if q.zone == nil || k.Framework == nil {
		return false
	}
	switch q.scheme {
	case reverse:
		addr, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(q.name))
		has := func(n mesos.Network) bool { return slices.Contains(n.Addrs, addr) }
		return err == nil && (slices.ContainsFunc(k.Task.Status.Networks, has) || slices.Contains(i.tell(k).publishedAddrs, addr))
	case vhost:
		return slices.ContainsFunc(k.Task.HAProxy, func(l mesos.Label) bool {
			return strings.HasSuffix(l.Key, "_VHOST") && slices.ContainsFunc(hostsIn(l.Value), func(host string) bool { return hostOrigin(host) == q.name })
		})
	}
	n := newNaming(k.Instance(), &recordSet{})
	if first, _, _ := strings.Cut(n.t[:min(len(n.t), shortest)], "-"); !strings.Contains(q.base, first) {
		return false
	}
	n.suffix = canonicalSuffix(k.Task.ID, k.Task.AgentID)
	for _, s := range n.spellings() {
		if s.t != "" && s.scheme == q.scheme && n.spell(s.t, s.f) && n.answersTo(q.base) {
			return true
		}
	}
	return false
}

// shortest is the length to which no name of a task is shortened.
const shortest = maxLabel - (1 + hashLength) - (1 + agentLength)

// answersTo reports whether a name without its subdomain is one of the task's names or services.
func (n *naming) answersTo(base string) bool {
	if base == n.app || base == n.canonical {
		return true
	}
	service, ok := strings.CutSuffix(base, "."+n.framework)
	dot := strings.LastIndexByte(service, '.')
	if !ok || dot < 0 || !strings.HasPrefix(service[dot+1:], "_") {
		return false
	}
	service = service[:dot]
	return service == n.service || strings.HasSuffix(service, "."+n.service)
}

// told is what can be said of a task.
type told struct {
	api.Task
	known          cluster.Known
	insight        *insight
	out            recordSet
	addrs          taskAddrs
	publishedAddrs []netip.Addr
	source         string
}

// tell applies the rules to a task, and takes note of what they skip.
func (i *insight) tell(k cluster.Known) *told {
	t := &told{known: k, insight: i, out: recordSet{explains: true}}
	t.Task = api.Task{
		ID: k.Task.ID, Name: k.Task.Name, Framework: tenantOf(k), Agent: k.Task.AgentID, State: k.Task.State.String(),
		Retained: k.Retained, Addresses: []string{}, Skipped: []string{},
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
	if published(k) {
		t.apply()
	}
	t.Skipped = append(t.Skipped, t.out.notes...)
	return t
}

// apply applies the rules.
func (t *told) apply() {
	rules, in := &t.insight.options.rules, t.known.Instance()
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
	n, ok := rules.naming(in, &recordSet{})
	if !ok {
		return
	}
	t.addrs, t.publishedAddrs = n.addrs, n.addrs.published
	for _, s := range rules.sources {
		if len(rules.addrsFrom(s, in, &t.addrs, &recordSet{})) > 0 {
			t.source = nameOf(sourceNames, s)
			break
		}
		if s == netinfo && t.addrs.hidden {
			break
		}
	}
	for _, a := range n.addrs.published {
		t.Addresses = append(t.Addresses, a.String())
	}
	if n.backup {
		t.out.note("health: it is unhealthy, and answers to names that it shares only where no healthy instance does")
	}
	if len(n.addrs.published) == 0 && t.Published {
		t.out.note("no source of ipsources %s knows an address of it", strings.Join(rules.sourceList(), " "))
	}
	for _, s := range n.spellings() {
		if zones := t.insight.zones[s.scheme]; t.DNSName == "" && s.t != "" && len(zones) > 0 && n.spell(s.t, s.f) {
			t.DNSName = zone.Join(n.app, zones[0].Origin)
			if s.scheme == dcos {
				t.DNSName = zone.Join(n.app+".containerip", zones[0].Origin)
			}
		}
	}
}

// detail adds what an explanation tells of a task.
func (t *told) detail() api.TaskDetail {
	d := api.TaskDetail{Task: t.Task, AgentID: t.known.Task.AgentID, FrameworkID: t.known.Task.FrameworkID, Source: t.source, Names: []string{}, Sources: make(map[string][]string), Ports: []api.Port{}}
	if published(t.known) {
		for name, s := range sourceNames {
			for _, a := range t.insight.options.rules.addrsFrom(s, t.known.Instance(), &t.addrs, &recordSet{}) {
				d.Sources[name] = append(d.Sources[name], a.String())
			}
		}
	}
	owner := func(name string) {
		if !slices.Contains(d.Names, name) {
			d.Names = append(d.Names, name)
		}
	}
	for _, r := range t.out.records {
		for _, z := range t.insight.zones[r.scheme] {
			if r.scheme == reverse {
				if _, ok := z.Relative(r.name.Rel); ok {
					owner(r.name.Rel)
				}
				continue
			}
			rr := z.RR(r.name, r.Record)
			if rr == nil {
				continue
			}
			owner(rr.Header().Name)
			if srv, ok := rr.(*dns.SRV); ok {
				d.Ports = append(d.Ports, api.Port{Service: srv.Hdr.Name, Target: srv.Target, Port: srv.Port})
			}
		}
	}
	for _, c := range t.out.claims {
		owner(zone.Join(c.name, t.insight.options.rules.vhosts[c.line].origin))
	}
	slices.Sort(d.Names)
	return d
}

// reasonsFor says in words why a name answers what it answers.
func (i *insight) reasonsFor(q question, view *cluster.View, e *api.Explanation) []string {
	var all []string
	say := func(reason string) { all = append(all, reason) }
	if q.zone == nil {
		return append(all, fmt.Sprintf("it is in none of the zones %s, and not the id of a task", strings.Join(i.options.allOrigins(), " ")))
	}
	switch {
	case e.Zone.Serial == 0:
		say("no state of the cluster is known yet")
	case e.Zone.Stale:
		say("what is known is from a snapshot, which no master has confirmed: a name that it lacks may exist")
	case !e.Zone.Complete:
		say("the state of the cluster is not complete: a name that it lacks may exist")
	}
	if e.Rcode == dns.RcodeToString[dns.RcodeNameError] && i.plugin.Fall.Through(q.name) {
		say("fallthrough: the next plugin is asked")
	}
	switch {
	case q.scheme == reverse && e.Total > 1:
		say("an address that several tasks have points to none of them, unless one alone was launched on a network with a name")
	case q.scheme == reverse && e.Total == 0:
		say("no task has this address")
	case q.scheme == vhost && e.Total == 0:
		say("no task claims it by a label HAPROXY_n_VHOST")
	case q.scheme == vhost && len(e.Answer) == 0 && e.Rcode == dns.RcodeToString[dns.RcodeSuccess]:
		say("it is claimed, and no target of its line of vhosts has an address")
	case q.scheme == mesosDNS, q.scheme == dcos:
		all = append(all, i.hints(q, view, e.Total)...)
	}
	return all
}

// hints says what else a name of a naming scheme is, or could have been meant to be.
func (i *insight) hints(q question, view *cluster.View, tasks int) []string {
	rules := &i.options.rules
	switch {
	case q.rel == "":
		return []string{"it is the zone itself"}
	case isMasterOrAgentName(q.rel), strings.HasPrefix(q.rel, "_leader."), strings.HasPrefix(q.rel, "_slave."):
		return []string{"it is a name of the masters or of the agents"}
	case rules.isReserved(q.rel):
		return []string{"it is the name server's"}
	}
	var all []string
	tenant, app := "", "" // F and T, if there is such a framework
	var tenants []string
	for _, f := range view.Frameworks {
		name := labels(f.Name)
		if q.scheme == dcos {
			name = label(f.Name, maxLabel)
		}
		tenants = append(tenants, f.Name)
		switch rest, below := strings.CutSuffix(q.base, "."+name); {
		case name == "":
		case q.base == name || rest == "_framework._tcp":
			var out recordSet
			out.explains = true
			rules.framework(f, false, &out)
			all = append(all, fmt.Sprintf("it is the name of framework %q, whose scheduler is at %q", f.Name, f.Hostname))
			all = append(all, out.notes...)
		case below && len(name) > len(tenant):
			tenant, app = name, rest
		}
	}
	if tasks > 0 || len(all) > 0 {
		return all
	}
	if tenant == "" {
		return append(all, missingTenant(q.base, tenants))
	}
	return append(all, missingApp(view, tenant, app)...)
}

// missingTenant says that the framework in a name does not run.
func missingTenant(base string, tenants []string) string {
	wanted := base
	if dot := strings.LastIndexByte(base, '.'); dot >= 0 {
		wanted = base[dot+1:]
	}
	slices.Sort(tenants)
	tenants = slices.Compact(tenants)
	for _, name := range tenants {
		if similar(label(name, maxLabel), wanted) {
			return fmt.Sprintf("framework %q is running, %q is not", name, wanted)
		}
	}
	return fmt.Sprintf("no framework %q is running", wanted)
}

// missingApp says that a framework runs no such app, and what is like it.
func missingApp(view *cluster.View, tenant, app string) []string {
	wanted := app[strings.LastIndexByte(app, '.')+1:]
	if strings.HasPrefix(wanted, "_") && strings.Contains(app, "._") { // _PORT._T._PROTO
		service := strings.Split(strings.TrimSuffix(app, "."+wanted), ".")
		wanted = strings.TrimPrefix(service[len(service)-1], "_")
	} else {
		wanted = strings.TrimPrefix(app, "_")
	}
	all := []string{fmt.Sprintf("no task %q of framework %q is known", wanted, tenant)}
	seen := make(map[string]bool)
	for _, k := range view.Tasks {
		if k.Framework == nil || len(seen) >= maxHints {
			continue
		}
		n := newNaming(k.Instance(), &recordSet{})
		hint := ""
		switch {
		case n.t == wanted && n.f != tenant:
			hint = fmt.Sprintf("framework %q has a task %q", k.Framework.Name, wanted)
		case n.f == tenant && n.t != wanted && similar(n.t, wanted):
			hint = fmt.Sprintf("an app is named %s", n.t)
		}
		if hint != "" && !seen[hint] {
			seen[hint] = true
			all = append(all, hint)
		}
	}
	return all
}

// similar reports whether one name may have been meant by the other: it begins with it, contains
// it, or has most of its beginning or end in common.
func similar(a, b string) bool {
	if a == "" || b == "" {
		return false
	}
	if strings.Contains(a, b) || strings.Contains(b, a) {
		return true
	}
	prefix, suffix, shorter := 0, 0, min(len(a), len(b))
	for prefix < shorter && a[prefix] == b[prefix] {
		prefix++
	}
	for suffix < shorter-prefix && a[len(a)-1-suffix] == b[len(b)-1-suffix] {
		suffix++
	}
	return 2*(prefix+suffix) > max(len(a), len(b)) && prefix+suffix >= 3
}

// join returns values with blanks between them, after a word. Without values it is "".
func join[T any](values []T, word ...string) string {
	if len(values) == 0 {
		return ""
	}
	for _, v := range values {
		word = append(word, fmt.Sprint(v))
	}
	return strings.Join(word, " ")
}

// nameOf returns the name of a value.
func nameOf[T comparable](names map[string]T, value T) string {
	for name, v := range names {
		if v == value {
			return name
		}
	}
	return fmt.Sprint(value)
}
