package calicomesos

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// task appends the records of a running task, and what it claims.
func (r *rules) task(in cluster.Instance, out *recordSet) {
	visibility := visibilityOf(in.Task)
	switch {
	case r.excludes(in.Framework.Framework):
		r.skipTask(in.Task, filtered, out)
		if out.explains {
			out.note("frameworks %s excludes %q", join(r.frameworks), in.Framework.Name)
		}
	case visibility < r.visibility:
		r.skipTask(in.Task, invisible, out)
		if out.explains {
			out.note("visibility %s excludes a task whose visibility is %s", nameOf(visibilityNames, r.visibility), nameOf(visibilityNames, visibility))
		}
	default:
		r.names(in, out)
		r.claims(in, out)
	}
}

// hides reports whether nothing of a task is published, whatever its names and addresses are.
func (r *rules) hides(in cluster.Instance) bool {
	return r.excludes(in.Framework.Framework) || visibilityOf(in.Task) < r.visibility
}

func visibilityOf(t *mesos.Task) mesos.Visibility {
	if t.Discovery == nil {
		return mesos.VisibilityFramework
	}
	return t.Discovery.Visibility
}

// skipTask counts a task of which nothing is published.
func (r *rules) skipTask(t *mesos.Task, why reason, out *recordSet) {
	out.skip(why)
	if r.claimsAny(t) {
		out.skipped[vhost][why]++
	}
}

// names appends the records of the names that a task has in the naming schemes.
func (r *rules) names(in cluster.Instance, out *recordSet) {
	n, ok := r.naming(in, out)
	if !ok {
		return
	}
	var last spelling
	for _, s := range n.spellings() {
		same := s.t == last.t && s.f == last.f
		if s.t == "" || !same && !n.spell(s.t, s.f) {
			continue
		}
		last = s
		switch s.scheme {
		case dcos:
			n.dcos()
		default:
			n.mesosDNS()
			if r.pointTo != "" && !s.dotted {
				n.pointers(r.pointTo)
			}
		}
	}
}

// naming returns what makes the records of a task's names: the addresses, the ports, and its
// name. It returns false if the task has no names.
func (r *rules) naming(in cluster.Instance, out *recordSet) (n naming, ok bool) {
	n = newNaming(in, out)
	n.backup = r.health && in.Task.Status.Health == mesos.Unhealthy
	switch {
	case n.t == "", n.f == "":
		out.skip(badName)
		if out.explains {
			out.note("the name %q of the task, or %q of its framework, has no letter or digit that a label may have", n.task, n.tenant)
		}
		return n, false
	case slices.Contains(allSubdomains, lastLabel(n.f)):
		out.skip(reserved)
		if out.explains {
			out.note("the last label of the framework's name %q is reserved for names of other tasks", n.tenant)
		}
		return n, false
	}
	disc := in.Task.Discovery
	if !n.mayDot {
		disc = nil
	}
	n.suffix = canonicalSuffix(in.Task.ID, in.Task.AgentID)
	n.ports = portsOf(in.Task, disc, out)
	n.addrs = r.addrsOf(in, n.ports, out)
	return n, true
}

// newNaming returns the name of a task and its framework's. Mesos-DNS ignores a DiscoveryInfo
// without a name.
func newNaming(in cluster.Instance, out *recordSet) naming {
	disc := in.Task.Discovery
	n := naming{
		out: out, task: in.Task.Name, tenant: in.Framework.Name, mayDot: disc != nil && disc.Name != "",
		fixed: in.Task.Container.Named,
	}
	if n.mayDot {
		n.task = disc.Name
	}
	n.t, n.f = label(n.task, maxLabel), labels(n.tenant)
	return n
}

// kin has for each scheme the function that finds what the names of an app have in common. Where it is
// wrong, a name is not kept beside others of its app.
var kin = [schemes]func(rel string) string{mesosDNS: appOf, dcos: appOf}

// appOf returns the first label of T, of the names T.F, C.F, _T._PROTO.F and _PORT._T._PROTO.F. A T that
// looks like a C, as prod-nginx-1 does, is cut as one.
func appOf(rel string) string {
	label, rest, _ := strings.Cut(rel, ".")
	for strings.HasPrefix(rest, "_") {
		next, after, _ := strings.Cut(rest, ".")
		if next == "_tcp" || next == "_udp" {
			break
		}
		label, rest = next, after
	}
	if service, ok := strings.CutPrefix(label, "_"); ok {
		return service
	}
	if agent := strings.LastIndexByte(label, '-'); agent > hashLength && label[agent-hashLength-1] == '-' {
		return label[:agent-hashLength-1]
	}
	return label
}

// spelling is a way to write the names of a task and its framework in a scheme.
type spelling struct {
	scheme scheme
	t, f   string
	dotted bool // t has dots, in addition to a spelling without
}

// spellings returns the ways to write the task's names. One without t is none.
func (n *naming) spellings() [3]spelling {
	all := [3]spelling{{mesosDNS, n.t, n.f, false}, {dcos, n.t, label(n.tenant, maxLabel), false}}
	if n.mayDot && strings.Contains(n.task, ".") {
		if dotted := labels(n.task); strings.Contains(dotted, ".") {
			all[2] = spelling{mesosDNS, dotted, n.f, true}
		}
	}
	return all
}

// naming appends the records of one task under one spelling of its name.
type naming struct {
	out    *recordSet
	task   string // the task's name, as it is
	tenant string // its framework's
	t, f   string // their labels; f may have dots
	mayDot bool   // dots in the task's name stay, in another spelling
	suffix string // of the canonical name
	backup bool   // in the names that it shares with other instances
	fixed  bool   // it was launched on a named network
	addrs  taskAddrs
	ports  taskPorts

	framework string // F
	app       string // T.F
	canonical string // C.F: C is T with the suffix on its last label
	service   string // _T: the underscore is on the first label
}

// spell sets the names for T, which may be dotted, and F. It returns false if they are too
// long for a name, before they are repeated for each port.
func (n *naming) spell(t, f string) bool {
	if len(t)+1+len(f) > maxRelative {
		n.out.skipped[mesosDNS][longName]++
		if n.out.explains {
			n.out.note("%s.%s has more than 255 octets with a zone's name", t, f)
		}
		return false
	}
	last := strings.LastIndexByte(t, '.') + 1
	first, rest, _ := strings.Cut(t, ".")
	n.service = "_" + shorten(first, 1)
	if rest != "" {
		n.service += "." + rest
	}
	n.framework = f
	n.app = t + "." + f
	n.canonical = t[:last] + shorten(t[last:], len(n.suffix)) + n.suffix + "." + f
	return true
}

// mesosDNS appends the task's records in the Mesos-DNS scheme.
func (n *naming) mesosDNS() {
	n.addresses(mesosDNS, addrsAt{0, n.addrs.published}, addrsAt{slave, n.addrs.agent})

	onAgent := len(n.addrs.agent) > 0
	inside := n.addrs.inside()
	inContainer := false // a service leads there
	for _, p := range n.ports.discovered {
		at := make([]serviceAt, 0, 2)
		switch {
		case p.host || inside == atAgent:
			if onAgent {
				at = append(at, serviceAt{0, slave})
			}
		case inside == atContainer:
			at = append(at, serviceAt{0, container})
			inContainer = true
		case inside == atPublished:
			at = append(at, serviceAt{0, 0})
		}
		if onAgent {
			at = append(at, serviceAt{slave, slave})
		}
		n.services(mesosDNS, n.serviceName(p), p, at...)
	}
	if inContainer {
		for _, a := range n.addrs.own {
			n.out.add(mesosDNS, zone.Name{Rel: n.canonical, Sub: container}, zone.Address(a))
		}
	}
	if !onAgent {
		return
	}
	for _, protocol := range []string{"_tcp", "_udp"} {
		name := ""
		for _, number := range n.ports.resources {
			p := servicePort{protocol: protocol, number: number, host: true}
			if name == "" {
				name = n.serviceName(p)
			}
			n.services(mesosDNS, name, p, serviceAt{slave, slave})
			if n.ports.anonymous {
				n.services(mesosDNS, name, p, serviceAt{0, slave})
			}
		}
	}
}

// dcos appends the task's records in the DC/OS scheme.
func (n *naming) dcos() {
	n.addresses(dcos, addrsAt{containerip, n.addrs.network}, addrsAt{agentip, n.addrs.agent})
	for _, a := range n.addrs.auto {
		n.shared(dcos, n.app, autoip, zone.Address(a))
	}
	if len(n.addrs.network) > 0 {
		for _, p := range n.ports.container {
			n.services(dcos, n.serviceName(p), p, serviceAt{containerip, containerip})
		}
		if n.addrs.onHost {
			for _, p := range n.ports.host {
				n.services(dcos, n.serviceName(p), p, serviceAt{containerip, containerip})
			}
		}
	}
	if len(n.addrs.agent) > 0 {
		for _, p := range n.ports.host {
			n.services(dcos, n.serviceName(p), p, serviceAt{agentip, agentip})
		}
	}
}

// addrsAt are the addresses of a name below a subdomain.
type addrsAt struct {
	sub   zone.Sub
	addrs []netip.Addr
}

// addresses appends address records under T.F and C.F. Records of one name come one after the
// other, here as below: that is faster to publish.
func (n *naming) addresses(sch scheme, all ...addrsAt) {
	for _, at := range all {
		for _, a := range at.addrs {
			n.shared(sch, n.app, at.sub, zone.Address(a))
		}
	}
	for _, at := range all {
		for _, a := range at.addrs {
			n.out.add(sch, zone.Name{Rel: n.canonical, Sub: at.sub}, zone.Address(a))
		}
	}
}

// serviceAt is the subdomain of a service's name, and that of its target.
type serviceAt struct{ sub, target zone.Sub }

// serviceName returns the name of a port's service: _T._PROTO.F, or _PORT._T._PROTO.F for a
// port with a name.
func (n *naming) serviceName(p servicePort) string {
	name := n.service + "." + p.protocol + "." + n.framework
	if p.name != "" {
		name = p.name + "." + name
	}
	return name
}

// services appends the SRV records of a port under its service's name, and for a port with
// a name also under that without it. They point to the task's canonical name.
func (n *naming) services(sch scheme, name string, p servicePort, all ...serviceAt) {
	for {
		for _, at := range all {
			n.shared(sch, name, at.sub, zone.Service(zone.Name{Rel: n.canonical, Sub: at.target}, p.number))
		}
		if p.name == "" {
			return
		}
		name, p.name = name[len(p.name)+1:], ""
	}
}

// shared appends a record of a name that instances of an app share.
func (n *naming) shared(sch scheme, rel string, sub zone.Sub, r zone.Record) {
	if n.backup {
		r = r.Backup()
	}
	n.out.add(sch, zone.Name{Rel: rel, Sub: sub}, r)
}

// pointers appends the PTR records of the task's addresses, which point to T.F. Those of the
// container of a task that was launched on a named network go before those of one that says in
// a status alone that it has the address.
func (n *naming) pointers(zoneName string) {
	target := zone.Join(n.app, zoneName)
	if !zone.FitsName(len(target)) {
		n.out.skipped[reverse][longName]++
		return
	}
	for _, a := range n.addrs.published {
		r := zone.Pointer(target)
		if !n.fixed || slices.Contains(n.addrs.agent, a) {
			r = r.Backup()
		}
		if name, err := dns.ReverseAddr(a.String()); err == nil {
			n.out.add(reverse, zone.Rel(name), r)
		}
	}
}
