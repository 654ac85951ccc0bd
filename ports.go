package calicomesos

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// source is where a task's addresses are taken from, as in Mesos-DNS's IPSources.
type source int

const (
	netinfo     source = iota // container_status.network_infos
	host                      // the agent
	auto                      // whatever autoip answers
	dockerLabel               // status label Docker.NetworkSettings.IPAddress
	mesosLabel                // status label MesosContainerizer.NetworkSettings.IPAddress
)

// What is published of one task, agent or framework at most. A container has an address or
// two on each of its networks, and an agent offers about a thousand ports to all its tasks.
// Each port is up to sixteen records.
const (
	maxAddrs = 64   // of one source
	maxPorts = 1024 // of one list
)

// taskAddrs are the addresses of a task that may be published.
type taskAddrs struct {
	published []netip.Addr // of the first source that has any: T.F in the Mesos-DNS scheme
	network   []netip.Addr // of the container, as its status says
	own       []netip.Addr // of them, those that are not the agent's
	agent     []netip.Addr
	auto      []netip.Addr // network, or agent for a task with a port there
	onHost    bool         // the container's addresses are the agent's
	hidden    bool         // the container has addresses, all of which are filtered
	labelled  bool         // published is from a status's labels
}

// place is where a port of a container can be connected to, in the Mesos-DNS scheme.
type place int

const (
	nowhere     place = iota // its addresses are filtered
	atPublished              // T.F, C.F
	atContainer              // C.F.containerip
	atAgent                  // C.F.slave: the container has no address of its own
)

// inside returns where the ports of the container are.
func (a *taskAddrs) inside() place {
	switch {
	case a.labelled, len(a.own) > 0 && slices.Equal(a.published, a.own):
		return atPublished
	case len(a.own) > 0:
		return atContainer
	case a.hidden:
		return nowhere
	}
	return atAgent
}

// addrsOf chooses the addresses of a task.
func (r *rules) addrsOf(in cluster.Instance, ports taskPorts, out *recordSet) taskAddrs {
	a := taskAddrs{agent: usable(in.Agent.Addrs, &recordSet{}, mesosDNS)} // the agent's rule counts what is skipped
	f := filter{rules: r, agent: a.agent, out: out}
	for _, n := range in.Task.Status.Networks {
		f.add(n.Addrs, r.onNetwork(n.Name, &out.seen))
	}
	a.network, a.own = f.kept, without(f.kept, a.agent)
	if a.hidden = f.hides && len(a.own) == 0; a.hidden {
		a.network = nil
	}
	a.onHost = len(a.network) > 0 && len(a.own) == 0
	switch {
	case a.hidden:
	case len(a.network) == 0 || ports.onAgent:
		a.auto = a.agent
	default:
		a.auto = a.network
	}
	for _, s := range r.sources {
		a.published = r.addrsFrom(s, in, &a, out)
		a.labelled = len(a.published) > 0 && (s == dockerLabel || s == mesosLabel)
		// Whoever filters wants no other address instead.
		if len(a.published) > 0 || s == netinfo && a.hidden {
			break
		}
	}
	return a
}

// without returns the addresses that are not among others. It returns addrs itself if all are.
func without(addrs, others []netip.Addr) []netip.Addr {
	among := func(a netip.Addr) bool { return slices.Contains(others, a) }
	if !slices.ContainsFunc(addrs, among) {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), among)
}

// addrsFrom returns the addresses that a source has for a task.
func (r *rules) addrsFrom(s source, in cluster.Instance, a *taskAddrs, out *recordSet) []netip.Addr {
	switch s {
	case netinfo:
		return a.network
	case host:
		return a.agent
	case auto:
		return a.auto
	}
	labels := in.Task.Status.Labels
	f := filter{rules: r, agent: a.agent, out: out}
	switch {
	case labels == nil:
	case s == dockerLabel:
		f.add(labels.Docker, true)
	default:
		f.add(labels.Mesos, true)
	}
	return f.kept
}

// filter keeps the addresses of a container that may be published, each once, and counts the
// others. One that is the agent's is not the container's, and is always kept.
type filter struct {
	rules *rules
	agent []netip.Addr
	out   *recordSet

	kept  []netip.Addr
	hides bool // an address is not kept that could be a host's
}

// add adds addresses. wanted is false if "network" excludes them all.
func (f *filter) add(addrs []netip.Addr, wanted bool) {
	for _, addr := range addrs {
		ofAgent := slices.Contains(f.agent, addr)
		f.out.seen.container = f.out.seen.container || !ofAgent
		switch {
		case !isUsable(addr):
			f.out.skip(badAddress)
			if f.out.explains {
				f.out.note("an address of the container, %v, is none of a host", addr)
			}
		case !ofAgent && !f.rules.allows(addr, &f.out.seen):
			f.hides = true
			why := filtered
			if isLocal(addr) {
				why = badAddress
			}
			f.out.skip(why)
			if f.out.explains {
				f.out.note("%s excludes %v", cmp.Or(join(f.rules.allow, "allow"), "without allow, a local address"), addr)
			}
		case !ofAgent && !wanted:
			f.hides = true
			f.out.skip(filtered)
			if f.out.explains {
				f.out.note("network %s excludes %v", strings.Join(f.rules.networks, " "), addr)
			}
		case slices.Contains(f.kept, addr):
		case len(f.kept) == maxAddrs:
			f.out.skip(excess)
			if f.out.explains {
				f.out.note("%v is beyond the %d addresses that a task may have", addr, maxAddrs)
			}
		default:
			f.kept = append(f.kept, addr)
		}
	}
}

// isLocal reports whether an address means another host, or all, on each host.
func isLocal(a netip.Addr) bool {
	return a.IsLoopback() || a.IsLinkLocalUnicast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isUsable reports whether an address can be that of a host.
func isUsable(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() }

// usable returns the usable addresses, each once, and counts the others.
func usable(addrs []netip.Addr, out *recordSet, sch scheme) []netip.Addr {
	kept := addrs[:0:0]
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case !isUsable(a):
			out.skipped[sch][badAddress]++
		case slices.Contains(kept, a):
		case len(kept) == maxAddrs:
			out.skipped[sch][excess]++
		default:
			kept = append(kept, a)
		}
	}
	return kept
}

// taskPorts are the ports of a task.
type taskPorts struct {
	discovered []servicePort // of the DiscoveryInfo
	resources  []uint16      // of the resource "ports"
	anonymous  bool          // the task has no DiscoveryInfo
	container  []servicePort // tcp and udp ports of the container, for the DC/OS scheme
	host       []servicePort // tcp and udp ports of the agent, likewise
	onAgent    bool          // there is a port of the agent, which autoip asks for
}

// servicePort is a port with its parts of a service's name.
type servicePort struct {
	name     string // `_http`, or "" for a port without a name
	protocol string // `_tcp`
	number   uint16
	host     bool // of the agent
}

// inDCOS reports whether the DC/OS scheme has ports of this protocol.
func (p servicePort) inDCOS() bool { return p.protocol == "_tcp" || p.protocol == "_udp" }

// portsOf collects the ports of t. disc is its DiscoveryInfo, unless that has no name.
func portsOf(t *mesos.Task, disc *mesos.Discovery, out *recordSet) taskPorts {
	p := taskPorts{resources: expand(t.Ports, out), anonymous: disc == nil}
	if disc != nil {
		p.discovered = discoveryPorts(disc.Ports, out)
	} else if t.Discovery != nil {
		// Of a DiscoveryInfo without a name only autoip sees the ports.
		for _, sp := range discoveryPorts(t.Discovery.Ports, &recordSet{}) {
			p.onAgent = p.onAgent || sp.host && sp.inDCOS()
		}
	}
	for _, sp := range p.discovered {
		switch {
		case !sp.inDCOS():
		case sp.host:
			p.host = append(p.host, sp)
		default:
			p.container = append(p.container, sp)
		}
	}
	for _, m := range atMost(portMappings(t), out) {
		p.addMapping(m)
	}
	for _, v := range atMost(t.VIPPorts, out) {
		if v.Index >= len(p.resources) {
			continue
		}
		sp := servicePort{protocol: "_" + strings.ToLower(v.Protocol), number: p.resources[v.Index], host: true}
		if sp.inDCOS() {
			p.host = append(p.host, sp)
		}
	}
	p.onAgent = p.onAgent || len(p.host) > 0
	return p
}

// atMost returns the first maxPorts of a list, and counts the others.
func atMost[T any](list []T, out *recordSet) []T {
	if len(list) <= maxPorts {
		return list
	}
	out.skipMany(excess, len(list)-maxPorts)
	if out.explains {
		out.note("%d ports are beyond the %d that a task may have", len(list)-maxPorts, maxPorts)
	}
	return list[:maxPorts]
}

// portMappings returns the port mappings of t: the container's, or for a container without
// network_infos (of a pod) the status's.
func portMappings(t *mesos.Task) []mesos.PortMapping {
	if t.Container.Docker || t.Container.Networks > 0 {
		return t.Container.PortMappings
	}
	var all []mesos.PortMapping
	for _, n := range t.Status.Networks {
		all = append(all, n.PortMappings...)
	}
	return all
}

// addMapping adds both ends of m. Without a protocol it is tcp, as for Docker and CNI.
func (p *taskPorts) addMapping(m mesos.PortMapping) {
	sp := servicePort{protocol: "_tcp"}
	if m.Protocol != "" {
		sp.protocol = "_" + strings.ToLower(m.Protocol)
	}
	if !sp.inDCOS() {
		return
	}
	var ok bool
	if sp.number, ok = validPort(uint64(m.ContainerPort)); ok {
		p.container = append(p.container, sp)
	}
	if sp.number, ok = validPort(uint64(m.HostPort)); ok {
		sp.host = true
		p.host = append(p.host, sp)
	}
}

// discoveryPorts converts the ports of a DiscoveryInfo. One without a protocol is both a tcp
// and a udp port.
func discoveryPorts(ports []mesos.Port, out *recordSet) []servicePort {
	ports = atMost(ports, out)
	services := make([]servicePort, 0, len(ports))
	for _, p := range ports {
		number, ok := validPort(uint64(p.Number))
		if !ok {
			out.skip(badPort)
			if out.explains {
				out.note("the port %d is not one from 1 to 65535", p.Number)
			}
			continue
		}
		sp := servicePort{number: number, host: p.Host}
		if p.Name != "" {
			if sp.name = serviceLabel(p.Name); sp.name == "" {
				out.skip(badName)
				if out.explains {
					out.note("the name %q of port %d has no letter or digit that a label may have", p.Name, number)
				}
			}
		}
		if p.Protocol == "" {
			sp.protocol = "_tcp"
			services = append(services, sp)
			sp.protocol = "_udp"
		} else if sp.protocol = serviceLabel(p.Protocol); sp.protocol == "" {
			out.skip(badName)
			if out.explains {
				out.note("the protocol %q of port %d has no letter or digit that a label may have", p.Protocol, number)
			}
			continue
		}
		services = append(services, sp)
	}
	return services
}

// serviceLabel makes a label with an underscore of x: `_http`. It is empty if x has no legal
// character.
func serviceLabel(x string) string {
	switch x {
	case "tcp":
		return "_tcp"
	case "udp":
		return "_udp"
	}
	if l := label(x, maxLabel-1); l != "" {
		return "_" + l
	}
	return ""
}

// validPort returns port, and whether it can be connected to.
func validPort(port uint64) (uint16, bool) { return uint16(port), port >= 1 && port <= 65535 }

// expand lists the ports in ranges, at most maxPorts.
func expand(ranges []mesos.PortRange, out *recordSet) []uint16 {
	var ports []uint16
	for _, r := range ranges {
		if r.Begin < 1 || r.End > 65535 || r.Begin > r.End {
			out.skip(badPort)
			if out.explains {
				out.note("ports %d to %d are not all from 1 to 65535", r.Begin, r.End)
			}
		}
		first, end := max(r.Begin, 1), min(r.End, 65535)+1
		if first >= end {
			continue
		}
		kept := min(end-first, uint64(maxPorts-len(ports)))
		for p := first; p < first+kept; p++ {
			ports = append(ports, uint16(p))
		}
		out.skipMany(excess, int(end-first-kept))
		if out.explains && end-first > kept {
			out.note("%d ports are beyond the %d that a task may have", end-first-kept, maxPorts)
		}
	}
	return ports
}
