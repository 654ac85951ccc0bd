package calicomesos

import (
	"crypto/sha1" //nolint:gosec // names, not secrets: Mesos-DNS made them so
	"encoding/base32"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// scheme is a way to name a cluster. Every zone is of one scheme.
type scheme int

const (
	mesosDNS scheme = iota // T.F, as Mesos-DNS
	dcos                   // T.F.containerip, as DC/OS's Navstar and Spartan
	reverse                // addresses, with names in the first Mesos-DNS zone
	schemes
)

// tails are the labels that names of a scheme's zones end with, and that are kept
// once.
var tails = [schemes][]string{mesosDNS: {"slave"}, dcos: {"containerip", "agentip", "autoip"}}

// The tails by their numbers, each of the zones of one scheme.
const (
	slave       zone.Sub = 1 // of mesosDNS
	containerip zone.Sub = 1 // of dcos, and the others
	agentip     zone.Sub = 2
	autoip      zone.Sub = 3
)

// reason is why a name or an address of the cluster is not published.
type reason int

const (
	badName    reason = iota // nothing is left of a name once illegal characters are gone
	longName                 // a whole name of more than 255 octets
	reserved                 // a framework with a name that belongs to the cluster
	badAddress               // unspecified, multicast, or no address at all
	filtered                 // outside of the networks or prefixes that the user allows
	badPort                  // a port outside of 1 to 65535
	invisible                // DiscoveryInfo.visibility below what the user asks for
	reasons
)

var reasonNames = [reasons]string{"name", "name_too_long", "reserved", "address", "filtered", "port", "visibility"}

// source is where the addresses of a task are taken from, as Mesos-DNS's IPSources.
type source int

const (
	netinfo source = iota // container_status.network_infos
	host                  // the agent's
	auto                  // what autoip answers
	dockerLabel
	mesosLabel
)

var sourceNames = map[string]source{
	"netinfo": netinfo, "host": host, "auto": auto, "docker": dockerLabel, "mesos": mesosLabel,
}

// rules say how a cluster is named. Their methods are pure: they read what they
// are given and append to a recordSet.
type rules struct {
	sources    []source
	networks   []string       // empty: any
	allow      []netip.Prefix // empty: any
	health     bool           // unhealthy tasks stand by
	visibility mesos.Visibility
	pointTo    string   // forward zone of PTR records, "" without reverse zones
	nsOwners   []string // of the name server, in the zones it is in
}

// record is a record of the cluster, in all zones of a scheme. Its owner is
// relative to the zones' origins; a reverse one is absolute.
type record struct {
	scheme scheme
	owner  zone.Name
	zone.Record
}

// recordSet collects what the rules make of one object.
type recordSet struct {
	records []record
	skipped [schemes][reasons]int
}

func (s *recordSet) reset() {
	s.records = s.records[:0]
	s.skipped = [schemes][reasons]int{}
}

func (s *recordSet) add(sch scheme, owner zone.Name, r zone.Record) {
	s.records = append(s.records, record{sch, owner, r})
}

// skip counts something that neither naming scheme publishes.
func (s *recordSet) skip(why reason) {
	s.skipped[mesosDNS][why]++
	s.skipped[dcos][why]++
}

// label makes a DNS label of at most limit bytes of x (RFC 1123, as Mesos-DNS):
// lower case, `-`, `.` and `_` become `-`, other characters go, and so do
// leading and trailing dashes. It may be empty.
func label(x string, limit int) string {
	if isLabel(x, limit) {
		return x
	}
	b := make([]byte, 0, min(len(x), limit))
	for i := 0; i < len(x) && len(b) < limit; i++ {
		switch c := x[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			b = append(b, c)
		case 'A' <= c && c <= 'Z':
			b = append(b, c+'a'-'A')
		case (c == '-' || c == '.' || c == '_') && len(b) > 0:
			b = append(b, '-')
		}
	}
	return trimDashes(b)
}

// isLabel reports whether x is as label returns it.
func isLabel(x string, limit int) bool {
	for i := range len(x) {
		if c := x[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return len(x) <= limit && !strings.HasSuffix(x, "-")
}

func trimDashes(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == '-' {
		b = b[:len(b)-1]
	}
	return string(b)
}

// maxLabel is how many bytes a label has at most (RFC 1035, section 2.3.4).
const maxLabel = 63

// frag makes labels of the parts of x between dots, and drops the empty ones.
func frag(x string) string {
	if !strings.Contains(x, ".") {
		return label(x, maxLabel)
	}
	var labels []string
	for part := range strings.SplitSeq(x, ".") {
		if l := label(part, maxLabel); l != "" {
			labels = append(labels, l)
		}
	}
	return strings.Join(labels, ".")
}

// shorten cuts a label so that it and extra more bytes fit into one.
func shorten(l string, extra int) string {
	if len(l)+extra <= maxLabel {
		return l
	}
	return strings.TrimRight(l[:maxLabel-extra], "-")
}

// hashLength is how many characters of the hash of a task's id are in its
// canonical name.
const hashLength = 5

var zbase32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

// canonicalSuffix returns `-HASH-AGENT`, what tells the instances of an app apart.
func canonicalSuffix(taskID, agentID string) string {
	sum := sha1.Sum([]byte(taskID)) //nolint:gosec // see the import
	var hash [32]byte               // zbase32.EncodedLen(sha1.Size)
	zbase32.Encode(hash[:], sum[:])
	suffix := "-" + string(hash[:hashLength])
	if agent := label(agentID[strings.LastIndexByte(agentID, '-')+1:], 20); agent != "" {
		suffix += "-" + agent
	}
	return suffix
}

// restricted are last labels of framework names that would write into other
// tasks' names.
var restricted = slices.Concat(tails[:]...)

// lastLabel returns the last label of a relative name.
func lastLabel(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// belongsToCluster reports whether the label stands directly below the apex for
// something else than a framework.
func (r *rules) belongsToCluster(l string) bool {
	return l == "ns1" || namesMasterOrAgents(l) || slices.Contains(r.nsOwners, l)
}

// namesMasterOrAgents reports whether the label is one that masters and agents have
// their records at.
func namesMasterOrAgents(l string) bool {
	switch l {
	case "leader", "master", "slave":
		return true
	}
	n, ok := strings.CutPrefix(l, "master")
	_, err := strconv.ParseUint(n, 10, 64)
	return ok && err == nil
}

// framework appends the records of a framework itself.
func (r *rules) framework(f *cluster.Framework, out *recordSet) {
	name := frag(f.Name)
	switch {
	case name == "":
		out.skipped[mesosDNS][badName]++
		return
	case slices.Contains(restricted, lastLabel(name)), r.belongsToCluster(name):
		out.skipped[mesosDNS][reserved]++
		return
	}
	addrs := usable(f.Addrs, out, mesosDNS)
	for _, a := range addrs {
		out.add(mesosDNS, zone.Rel(name), zone.Address(a))
	}
	if port := webPort(f.WebUIURL); port != 0 && len(addrs) > 0 {
		out.add(mesosDNS, zone.Rel("_framework._tcp."+name), zone.Service(zone.Rel(name), port))
	}
}

// webPort returns the port of a framework's webui_url; 0 without one.
func webPort(webUIURL string) uint16 {
	u, err := url.Parse(webUIURL)
	if err != nil || u.Host == "" {
		return 0
	}
	if u.Port() == "" {
		switch u.Scheme {
		case "http":
			return 80
		case "https":
			return 443
		}
		return 0
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}

// agent appends the records of an agent itself.
func (r *rules) agent(a *cluster.Agent, out *recordSet) {
	addrs := usable(a.Addrs, out, mesosDNS)
	for _, addr := range addrs {
		out.add(mesosDNS, zone.Rel("slave"), zone.Address(addr))
	}
	if port, ok := validPort(uint64(a.Port)); ok && len(addrs) > 0 {
		out.add(mesosDNS, zone.Rel("_slave._tcp"), zone.Service(zone.Rel("slave"), port))
	}
}

// masters appends the records of the masters.
func (r *rules) masters(m *cluster.Masters, out *recordSet) {
	for _, sch := range []scheme{mesosDNS, dcos} {
		leader := usable(m.Leader, out, sch)
		all := slices.Clone(leader)
		for i, addrs := range m.All {
			addrs = usable(addrs, out, sch)
			all = append(all, addrs...)
			if sch == mesosDNS {
				addAddresses(out, sch, "master"+strconv.Itoa(i), addrs)
			}
		}
		slices.SortFunc(all, netip.Addr.Compare)
		addAddresses(out, sch, "leader", leader)
		addAddresses(out, sch, "master", slices.Compact(all))
		if sch == mesosDNS && len(leader) > 0 && m.Port != 0 {
			out.add(sch, zone.Rel("_leader._tcp"), zone.Service(zone.Rel("leader"), m.Port))
			out.add(sch, zone.Rel("_leader._udp"), zone.Service(zone.Rel("leader"), m.Port))
		}
	}
}

func addAddresses(out *recordSet, sch scheme, owner string, addrs []netip.Addr) {
	for _, a := range addrs {
		out.add(sch, zone.Rel(owner), zone.Address(a))
	}
}

// validPort returns a port that can be connected to.
func validPort(port uint64) (uint16, bool) { return uint16(port), port >= 1 && port <= 65535 }

// usable returns the addresses that a name can have, each once, and counts the
// others.
func usable(addrs []netip.Addr, out *recordSet, sch scheme) []netip.Addr {
	kept := addrs[:0:0]
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case !a.IsValid() || a.IsUnspecified() || a.IsMulticast():
			out.skipped[sch][badAddress]++
		case !slices.Contains(kept, a):
			kept = append(kept, a)
		}
	}
	return kept
}

// task appends the records of a running task.
func (r *rules) task(in cluster.Instance, out *recordSet) {
	framework := frag(in.Framework.Name)
	disc, visibility := in.Task.Discovery, mesos.VisibilityFramework
	if disc != nil {
		visibility = disc.Visibility
	}
	if disc != nil && disc.Name == "" {
		disc = nil // as in Mesos-DNS
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
	case slices.Contains(restricted, lastLabel(framework)):
		out.skip(reserved)
		return
	case visibility < r.visibility:
		out.skip(invisible)
		return
	}
	n := naming{
		out:     out,
		suffix:  canonicalSuffix(in.Task.ID, in.Task.AgentID),
		standby: r.health && in.Task.Status.Health == mesos.Unhealthy,
		ports:   portsOf(in.Task, disc, out),
	}
	n.addrs = r.addresses(in, n.ports, out)
	n.spell(app, framework)
	n.mesosDNS()
	if r.pointTo != "" {
		n.pointers(r.pointTo)
	}
	if l := label(in.Framework.Name, maxLabel); l != framework {
		n.spell(app, l)
	}
	n.dcos()
	if disc == nil {
		return
	}
	if dotted := frag(name); strings.Contains(dotted, ".") {
		n.spell(dotted, framework)
		n.mesosDNS()
	}
}

// taskPorts are the ports of a task, each with what it is a port of.
type taskPorts struct {
	discovered []servicePort // of the DiscoveryInfo, as Mesos-DNS publishes them
	resources  []uint16      // of the resource "ports", expanded
	anonymous  bool          // the task has no DiscoveryInfo
	container  []servicePort // tcp and udp ports of the container, for DC/OS's names
	host       []servicePort // tcp and udp ports of the agent, likewise
	onAgent    bool          // any port is the agent's, as autoip sees it
}

// servicePort is a port with the parts of a service's name.
type servicePort struct {
	name     string // `_http`, or "" for a port without a name
	protocol string // `_tcp`
	number   uint16
	host     bool // of the agent
}

// known reports whether the DC/OS scheme knows the protocol.
func (p servicePort) known() bool { return p.protocol == "_tcp" || p.protocol == "_udp" }

// portsOf collects the ports of t; disc is its DiscoveryInfo, if it counts.
func portsOf(t *mesos.Task, disc *mesos.Discovery, out *recordSet) taskPorts {
	p := taskPorts{resources: expand(t.Ports, out), anonymous: disc == nil}
	if disc != nil {
		p.discovered = discoveredPorts(disc.Ports, out)
	} else if t.Discovery != nil {
		// A DiscoveryInfo without a name: only autoip looks at its ports.
		for _, sp := range discoveredPorts(t.Discovery.Ports, &recordSet{}) {
			p.onAgent = p.onAgent || sp.host && sp.known()
		}
	}
	for _, sp := range p.discovered {
		switch {
		case !sp.known():
		case sp.host:
			p.host = append(p.host, sp)
		default:
			p.container = append(p.container, sp)
		}
	}
	for _, m := range portMappings(t) {
		p.addMapping(m)
	}
	for _, v := range t.VIPPorts {
		if v.Index >= len(p.resources) {
			continue
		}
		sp := servicePort{protocol: "_" + strings.ToLower(v.Protocol), number: p.resources[v.Index], host: true}
		if sp.known() {
			p.host = append(p.host, sp)
		}
	}
	p.onAgent = p.onAgent || len(p.host) > 0
	return p
}

// portMappings returns the mappings that apply to t: the container's, or for a
// container without network_infos (a pod's) those of the status.
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

// addMapping adds both ends of m. Without a protocol it is tcp, the default of
// Docker and of CNI's port mapper.
func (p *taskPorts) addMapping(m mesos.PortMapping) {
	sp := servicePort{protocol: "_tcp"}
	if m.Protocol != "" {
		sp.protocol = "_" + strings.ToLower(m.Protocol)
	}
	if !sp.known() {
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

// discoveredPorts turns the ports of a DiscoveryInfo into services. One without
// a protocol is both a tcp and a udp port.
func discoveredPorts(ports []mesos.Port, out *recordSet) []servicePort {
	services := make([]servicePort, 0, len(ports))
	for _, p := range ports {
		number, ok := validPort(uint64(p.Number))
		if !ok {
			out.skip(badPort)
			continue
		}
		sp := servicePort{number: number, host: p.Host}
		if p.Name != "" {
			if sp.name = underscored(p.Name); sp.name == "" {
				out.skip(badName)
			}
		}
		if p.Protocol == "" {
			sp.protocol = "_tcp"
			services = append(services, sp)
			sp.protocol = "_udp"
		} else if sp.protocol = underscored(p.Protocol); sp.protocol == "" {
			out.skip(badName)
			continue
		}
		services = append(services, sp)
	}
	return services
}

// underscored makes a service label, `_http`; "" where nothing is left of x.
func underscored(x string) string {
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

// expand lists the ports of ranges, at most as many as there are ports.
func expand(ranges []mesos.PortRange, out *recordSet) []uint16 {
	var ports []uint16
	for _, r := range ranges {
		if r.Begin < 1 || r.End > 65535 || r.Begin > r.End {
			out.skip(badPort)
		}
		for p := max(r.Begin, 1); p <= min(r.End, 65535) && len(ports) < 65535; p++ {
			ports = append(ports, uint16(p))
		}
	}
	return ports
}

// taskAddrs are the addresses of a task, ready to be published.
type taskAddrs struct {
	published []netip.Addr // of the first source that has any
	network   []netip.Addr
	agent     []netip.Addr
	auto      []netip.Addr
	onHost    bool // the network addresses are the agent's
}

// addresses finds the addresses of a task.
func (r *rules) addresses(in cluster.Instance, ports taskPorts, out *recordSet) taskAddrs {
	a := taskAddrs{agent: usable(in.Agent.Addrs, &recordSet{}, mesosDNS)} // counted with the agent
	for _, n := range in.Task.Status.Networks {
		a.network = r.admit(a.network, n.Addrs, len(r.networks) == 0 || slices.Contains(r.networks, n.Name), out)
	}
	a.onHost = len(a.network) > 0
	for _, addr := range a.network {
		a.onHost = a.onHost && slices.Contains(a.agent, addr)
	}
	a.auto = a.network
	if len(a.network) == 0 || ports.onAgent {
		a.auto = a.agent
	}
	for _, s := range r.sources {
		if a.published = r.from(s, in, &a, out); len(a.published) > 0 {
			break
		}
	}
	return a
}

// from returns what a source knows of a task's addresses.
func (r *rules) from(s source, in cluster.Instance, a *taskAddrs, out *recordSet) []netip.Addr {
	switch s {
	case netinfo:
		return a.network
	case host:
		return a.agent
	case auto:
		return a.auto
	}
	labels := in.Task.Status.Labels
	switch {
	case labels == nil:
		return nil
	case s == dockerLabel:
		return r.admit(nil, labels.Docker, true, out)
	default:
		return r.admit(nil, labels.Mesos, true, out)
	}
}

// admit appends those of addrs that may be published, each once. All are
// filtered if their network is not wanted.
func (r *rules) admit(to, addrs []netip.Addr, wanted bool, out *recordSet) []netip.Addr {
	for _, addr := range addrs {
		switch {
		case !addr.IsValid() || addr.IsUnspecified() || addr.IsMulticast():
			out.skip(badAddress)
		case !wanted || !r.allowed(addr):
			out.skip(filtered)
		case !slices.Contains(to, addr):
			to = append(to, addr)
		}
	}
	return to
}

func (r *rules) allowed(addr netip.Addr) bool {
	return len(r.allow) == 0 || slices.ContainsFunc(r.allow, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// naming writes the records of one task under one spelling of its name.
type naming struct {
	out     *recordSet
	suffix  string // of the canonical name
	standby bool   // stands by in what its app shares
	addrs   taskAddrs
	ports   taskPorts

	framework string // F
	app       string // T.F
	task      string // C.F: T with the hash and the agent on its last label
	service   string // `_T`, the underscore on the first label
}

// spell has what follows written under a name: T, `nginx` or a dotted `app.group`,
// and F.
func (n *naming) spell(name, framework string) {
	cut := strings.LastIndexByte(name, '.') + 1
	first, rest, _ := strings.Cut(name, ".")
	n.service = "_" + shorten(first, 1)
	if rest != "" {
		n.service += "." + rest
	}
	n.framework = framework
	n.app = name + "." + framework
	n.task = name[:cut] + shorten(name[cut:], len(n.suffix)) + n.suffix + "." + framework
}

// mesosDNS writes the task's names in the Mesos-DNS scheme.
func (n *naming) mesosDNS() {
	n.names(mesosDNS, 0, n.addrs.published)
	n.names(mesosDNS, slave, n.addrs.agent)

	onAgent := len(n.addrs.agent) > 0
	for _, p := range n.ports.discovered {
		target, reachable := zone.Sub(0), len(n.addrs.published) > 0
		if p.host {
			target, reachable = slave, onAgent
		}
		owner := n.owner(p)
		if reachable {
			n.services(mesosDNS, owner, 0, target, p)
		}
		if onAgent {
			n.services(mesosDNS, owner, slave, slave, p)
		}
	}
	if !onAgent {
		return
	}
	for _, protocol := range []string{"_tcp", "_udp"} {
		owner := ""
		for _, number := range n.ports.resources {
			p := servicePort{protocol: protocol, number: number, host: true}
			if owner == "" {
				owner = n.owner(p)
			}
			n.services(mesosDNS, owner, slave, slave, p)
			if n.ports.anonymous {
				n.services(mesosDNS, owner, 0, slave, p)
			}
		}
	}
}

// dcos writes the task's names in the DC/OS scheme.
func (n *naming) dcos() {
	n.names(dcos, containerip, n.addrs.network)
	n.names(dcos, agentip, n.addrs.agent)
	for _, a := range n.addrs.auto {
		n.add(dcos, n.app, autoip, zone.Address(a))
	}
	if len(n.addrs.network) > 0 {
		for _, p := range n.ports.container {
			n.services(dcos, n.owner(p), containerip, containerip, p)
		}
		if n.addrs.onHost {
			for _, p := range n.ports.host {
				n.services(dcos, n.owner(p), containerip, containerip, p)
			}
		}
	}
	if len(n.addrs.agent) > 0 {
		for _, p := range n.ports.host {
			n.services(dcos, n.owner(p), agentip, agentip, p)
		}
	}
}

// names writes the addresses under the name that the app's tasks share and
// under the task's own.
func (n *naming) names(sch scheme, tail zone.Sub, addrs []netip.Addr) {
	for _, a := range addrs {
		r := zone.Address(a)
		n.add(sch, n.app, tail, r)
		n.out.add(sch, zone.Name{Rel: n.task, Sub: tail}, r)
	}
}

// owner returns the name of a port's service: with the port's name, if it has one.
func (n *naming) owner(p servicePort) string {
	owner := n.service + "." + p.protocol + "." + n.framework
	if p.name != "" {
		owner = p.name + "." + owner
	}
	return owner
}

// services writes the SRV records of a port, whose owner is given, below a tail.
// They point to the task's own name below another.
func (n *naming) services(sch scheme, owner string, tail, target zone.Sub, p servicePort) {
	r := zone.Service(zone.Name{Rel: n.task, Sub: target}, p.number)
	n.add(sch, owner, tail, r)
	if p.name != "" {
		n.add(sch, owner[len(p.name)+1:], tail, r)
	}
}

// add writes a record of a name that the app's tasks share.
func (n *naming) add(sch scheme, head string, tail zone.Sub, r zone.Record) {
	if n.standby {
		r = r.Backup()
	}
	n.out.add(sch, zone.Name{Rel: head, Sub: tail}, r)
}

// pointers writes the PTR records of the task's addresses.
func (n *naming) pointers(zoneName string) {
	target := zone.Join(n.app, zoneName)
	if !zone.FitsName(len(target)) {
		n.out.skipped[reverse][longName]++
		return
	}
	for _, a := range n.addrs.published {
		if owner, err := dns.ReverseAddr(a.String()); err == nil {
			n.out.add(reverse, zone.Rel(owner), zone.Pointer(target))
		}
	}
}
