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
	maxExplained = 100 // tasks, and of each task names, ports and notes
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
	var task mesos.Task
	for n, kept := range view.Tasks {
		if n%1000 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		k := unpack(kept, &task)
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
func (i *insight) couldBe(q question, k unpacked) bool {
	if q.zone == nil || k.Framework == nil {
		return false
	}
	switch q.scheme {
	case reverse:
		addr, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(q.name))
		return err == nil && mayHave(k, addr)
	case vhost:
		return slices.ContainsFunc(k.Task.HAProxy, func(l mesos.Label) bool {
			return strings.HasSuffix(l.Key, "_VHOST") && slices.ContainsFunc(hostsIn(l.Value), func(host string) bool { return hostOrigin(host) == q.name })
		})
	}
	n := newNaming(k.Instance, &recordSet{})
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

// mayHave reports whether a source may know an address of a task.
func mayHave(k unpacked, addr netip.Addr) bool {
	if labels := k.Task.Status.Labels; labels != nil && (slices.Contains(labels.Docker, addr) || slices.Contains(labels.Mesos, addr)) {
		return true
	}
	return k.Agent != nil && slices.Contains(k.Agent.Addrs, addr) ||
		slices.ContainsFunc(k.Task.Status.Networks, func(n mesos.Network) bool { return slices.Contains(n.Addrs, addr) })
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

// reasonsFor says in words why a name answers what it answers.
func (i *insight) reasonsFor(q question, view *cluster.View, e *api.Explanation) []string {
	var all []string
	say := func(reason string) { all = append(all, reason) }
	if q.zone == nil {
		return append(all, fmt.Sprintf("it is in none of the zones %s, and not the id of a task", strings.Join(i.options.allOrigins(), " ")))
	}
	denied := e.Rcode == dns.RcodeToString[dns.RcodeNameError]
	switch {
	case e.Zone.Serial == 0:
		return append(all, "no state of the cluster is known yet")
	case q.rel == "":
		say("it is the zone itself")
	case e.Zone.Stale:
		say("what is known is from a snapshot, which no master has confirmed: a name that it lacks may exist")
	case !e.Zone.Complete:
		say("the state of the cluster is not complete: a name that it lacks may exist")
	}
	if denied && i.plugin.Fall.Through(q.name) {
		say("fallthrough: the next plugin is asked")
	}
	named := slices.ContainsFunc(e.Tasks, func(t api.TaskDetail) bool { return slices.Contains(t.Names, q.name) })
	switch {
	case q.scheme == reverse && e.Total > 1:
		say("an address that several tasks have points to none of them, unless one alone was launched on a network with a name")
	case q.scheme == reverse && e.Total == 0:
		say("no task has this address")
	case q.scheme == reverse && !named:
		say("it is not an address that the task is published with")
	case q.scheme == vhost:
		all = append(all, i.claimReasons(q, e)...)
	case (q.scheme == mesosDNS || q.scheme == dcos) && q.rel != "":
		all = append(all, i.hints(q, view, e)...)
	}
	if denied && (q.scheme == mesosDNS || q.scheme == dcos) && e.Total > 0 && !named && publishesAll(e.Tasks) {
		say("the tasks have other names: none has a port, a protocol or a subdomain that is called so")
	}
	return all
}

// publishesAll reports whether all of the tasks is published.
func publishesAll(tasks []api.TaskDetail) bool {
	return !slices.ContainsFunc(tasks, func(t api.TaskDetail) bool { return !t.Published || len(t.Skipped) > 0 })
}

// claimReasons says why a name in a zone of "vhosts" answers what it answers.
func (i *insight) claimReasons(q question, e *api.Explanation) []string {
	why, legal := illegalHost(q.name)
	switch {
	case q.rel == "ns1", slices.Contains(i.options.rules.nsHosts, q.name):
		return []string{"it cannot be claimed: it is the name server's"}
	case !legal:
		return []string{"it cannot be claimed: " + unclaimable[why]}
	case len(e.Answer) > 0 || q.rel == "":
		return nil
	case e.Rcode == dns.RcodeToString[dns.RcodeServerFailure] && e.Total > 0:
		return []string{"it is claimed, and it is not known yet where the targets of its line of vhosts are"}
	case e.Rcode == dns.RcodeToString[dns.RcodeSuccess] && e.Total > 0:
		return []string{"it is claimed, and no target of its line of vhosts has an address"}
	case e.Rcode == dns.RcodeToString[dns.RcodeSuccess]:
		return []string{"no task claims it: it exists for the names below it"}
	case e.Total == 0:
		return []string{"no task claims it by a label HAPROXY_n_VHOST"}
	}
	return nil
}

// hints says what else a name of a naming scheme is, or could have been meant to be.
func (i *insight) hints(q question, view *cluster.View, e *api.Explanation) []string {
	switch {
	case isClusterName(q):
		if len(e.Answer) == 0 {
			return []string{"it is a name of the masters or of the agents, of which none with an address is known"}
		}
		return []string{"it is a name of the masters or of the agents"}
	case q.rel == "ns1" || q.scheme == mesosDNS && i.options.rules.isReserved(q.rel):
		return []string{"it is the name server's"}
	}
	all := i.frameworkHints(q, view)
	if e.Total > 0 || len(all) > 0 {
		return all
	}
	tenant, app := "", "" // F and T, if there is such a framework
	var tenants []string
	for _, f := range view.Frameworks {
		name := labels(f.Name)
		if q.scheme == dcos {
			name = label(f.Name, maxLabel)
		}
		tenants = append(tenants, f.Name)
		if rest, below := strings.CutSuffix(q.base, "."+name); name != "" && below && len(name) > len(tenant) {
			tenant, app = name, rest
		}
	}
	switch {
	case tenant == "":
		return []string{missingTenant(q.base, tenants)}
	case strings.HasPrefix(app, "_") && !strings.Contains(app, "."):
		return []string{"the name of a service has a protocol: _T._tcp.F or _T._udp.F"}
	}
	return missingApp(view, tenant, app)
}

// isClusterName reports whether a name is one of the masters or the agents in its scheme.
func isClusterName(q question) bool {
	if q.scheme == dcos {
		return q.rel == "leader" || q.rel == "master"
	}
	return isMasterOrAgentName(q.rel) || q.rel == "_leader._tcp" || q.rel == "_leader._udp" || q.rel == "_slave._tcp"
}

// frameworkHints says which frameworks a name is of, and why they have no records.
func (i *insight) frameworkHints(q question, view *cluster.View) []string {
	var all []string
	for _, f := range view.Frameworks {
		name := labels(f.Name)
		if q.scheme == dcos && q.base == label(f.Name, maxLabel) {
			return []string{"a framework has no name in this scheme"}
		}
		if q.scheme != mesosDNS || name == "" || q.rel != name && q.rel != "_framework._tcp."+name {
			continue
		}
		below := slices.ContainsFunc(view.Frameworks, func(o *cluster.Framework) bool {
			return !i.options.rules.excludes(o.Framework) && labels(o.Name) != "" && strings.HasSuffix(name, "."+labels(o.Name))
		})
		out := recordSet{explains: true}
		i.options.rules.framework(f, below, &out)
		all = append(all, fmt.Sprintf("it is the name of framework %q, whose scheduler is at %q", f.Name, f.Hostname))
		if len(f.Addrs) == 0 {
			all = append(all, fmt.Sprintf("the address of %q is not known", f.Hostname))
		}
		all = append(all, out.notes...)
	}
	return all
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
	var task mesos.Task
	for _, k := range view.Tasks {
		if k.Framework == nil || len(seen) >= maxHints {
			continue
		}
		n := newNaming(k.Instance(&task), &recordSet{})
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
