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
	visibility := mesos.VisibilityFramework
	if in.Task.Discovery != nil {
		visibility = in.Task.Discovery.Visibility
	}
	switch {
	case r.excludes(in.Framework.Framework):
		r.skipTask(in.Task, filtered, out)
	case visibility < r.visibility:
		r.skipTask(in.Task, invisible, out)
	default:
		r.names(in, out)
		r.claims(in, out)
	}
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
	framework := labels(in.Framework.Name)
	disc := in.Task.Discovery
	if disc != nil && disc.Name == "" {
		disc = nil // Mesos-DNS ignores a DiscoveryInfo without a name
	}
	name := in.Task.Name
	if disc != nil {
		name = disc.Name
	}
	app := label(name, maxLabel)
	switch {
	case app == "", framework == "":
		out.skip(badName)
		return
	case slices.Contains(allSubdomains, lastLabel(framework)):
		out.skip(reserved)
		return
	}
	n := naming{
		out:    out,
		suffix: canonicalSuffix(in.Task.ID, in.Task.AgentID),
		backup: r.health && in.Task.Status.Health == mesos.Unhealthy,
		fixed:  in.Task.Container.Named,
		ports:  portsOf(in.Task, disc, out),
	}
	n.addrs = r.addrsOf(in, n.ports, out)
	if n.spell(app, framework) {
		n.mesosDNS()
		if r.pointTo != "" {
			n.pointers(r.pointTo)
		}
	}
	if l := label(in.Framework.Name, maxLabel); l != framework {
		n.spell(app, l)
	}
	n.dcos()
	if disc == nil {
		return
	}
	if dotted := labels(name); strings.Contains(dotted, ".") && n.spell(dotted, framework) {
		n.mesosDNS()
	}
}

// naming appends the records of one task under one spelling of its name.
type naming struct {
	out    *recordSet
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
	n.addresses(mesosDNS, 0, n.addrs.published)
	n.addresses(mesosDNS, slave, n.addrs.agent)

	onAgent := len(n.addrs.agent) > 0
	inside := n.addrs.inside()
	inContainer := false // a service leads there
	for _, p := range n.ports.discovered {
		name := n.serviceName(p)
		switch {
		case p.host || inside == atAgent:
			if onAgent {
				n.services(mesosDNS, name, 0, slave, p)
			}
		case inside == atContainer:
			n.services(mesosDNS, name, 0, container, p)
			inContainer = true
		case inside == atPublished:
			n.services(mesosDNS, name, 0, 0, p)
		}
		if onAgent {
			n.services(mesosDNS, name, slave, slave, p)
		}
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
			n.services(mesosDNS, name, slave, slave, p)
			if n.ports.anonymous {
				n.services(mesosDNS, name, 0, slave, p)
			}
		}
	}
}

// dcos appends the task's records in the DC/OS scheme.
func (n *naming) dcos() {
	n.addresses(dcos, containerip, n.addrs.network)
	n.addresses(dcos, agentip, n.addrs.agent)
	for _, a := range n.addrs.auto {
		n.shared(dcos, n.app, autoip, zone.Address(a))
	}
	if len(n.addrs.network) > 0 {
		for _, p := range n.ports.container {
			n.services(dcos, n.serviceName(p), containerip, containerip, p)
		}
		if n.addrs.onHost {
			for _, p := range n.ports.host {
				n.services(dcos, n.serviceName(p), containerip, containerip, p)
			}
		}
	}
	if len(n.addrs.agent) > 0 {
		for _, p := range n.ports.host {
			n.services(dcos, n.serviceName(p), agentip, agentip, p)
		}
	}
}

// addresses appends address records under T.F and C.F, below a subdomain.
func (n *naming) addresses(sch scheme, sub zone.Sub, addrs []netip.Addr) {
	for _, a := range addrs {
		r := zone.Address(a)
		n.shared(sch, n.app, sub, r)
		n.out.add(sch, zone.Name{Rel: n.canonical, Sub: sub}, r)
	}
}

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
// a name also under that without it. They point to the task's canonical name below target.
func (n *naming) services(sch scheme, name string, sub, target zone.Sub, p servicePort) {
	r := zone.Service(zone.Name{Rel: n.canonical, Sub: target}, p.number)
	n.shared(sch, name, sub, r)
	if p.name != "" {
		n.shared(sch, name[len(p.name)+1:], sub, r)
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
