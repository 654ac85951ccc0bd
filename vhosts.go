package calicomesos

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// Tasks claim host names by the labels HAPROXY_n_VHOST, as Marathon-LB reads them. The names are
// in the zones of "vhosts". What each line of a zone answers for them, balancers.go knows.

// vhostLine is one "vhosts" line.
type vhostLine struct {
	number int          // among all lines
	origin string       // of the zone
	groups []string     // whose claims count; "*" for all, with a group or without
	tasks  bool         // the addresses of the claiming tasks are answered
	addrs  []netip.Addr // answered as they are
	names  []string     // whose addresses are answered, fully qualified
}

// takes reports whether claims for these groups count.
func (l *vhostLine) takes(groups []string) bool {
	return slices.ContainsFunc(l.groups, func(g string) bool { return g == "*" || slices.Contains(groups, g) })
}

// maxClaims is the number of names that are taken of one task: as many as ports, since each is
// claimed for one.
const maxClaims = maxPorts

// claim is a name in a zone of "vhosts" that a task claims, for a line of that zone.
type claim struct {
	line   int    // number
	name   string // relative to the zone
	backup bool   // by an unhealthy task: it counts only where no healthy one claims the name
}

// claims appends what a task claims.
func (r *rules) claims(in cluster.Instance, out *recordSet) {
	if len(r.vhosts) == 0 || len(in.Task.HAProxy) == 0 {
		return
	}
	labels := make(map[string]string, len(in.Task.HAProxy))
	for _, l := range in.Task.HAProxy {
		labels[l.Key] = l.Value
	}
	t := claiming{rules: r, in: in, out: out, backup: r.health && in.Task.Status.Health == mesos.Unhealthy}
	for n := range portCount(in.Task) {
		prefix := "HAPROXY_" + strconv.Itoa(n) + "_"
		names, ok := labels[prefix+"VHOST"]
		if enabled, ok := labels[prefix+"ENABLED"]; ok && !isTrue(enabled) {
			continue
		}
		group, one := labels[prefix+"GROUP"]
		if !one {
			group = labels["HAPROXY_GROUP"]
		}
		if ok {
			t.claimAll(names, strings.Split(group, ","))
		}
	}
	if t.count > maxClaims {
		out.skipped[vhost][excess] += t.count - maxClaims
		if out.explains {
			out.note("%d claimed names are beyond the %d that a task may have", t.count-maxClaims, maxClaims)
		}
	}
}

// claimsAny reports whether a task claims names of a stanza that answers such.
func (r *rules) claimsAny(t *mesos.Task) bool {
	return len(r.vhosts) > 0 && slices.ContainsFunc(t.HAProxy, func(l mesos.Label) bool { return strings.HasSuffix(l.Key, "_VHOST") })
}

// isTrue reports what Marathon-LB takes for true.
func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "t", "yes", "y":
		return true
	}
	return false
}

// portCount returns the number of ports that Marathon knows of a task, by which labels are
// numbered: neighbours in a DiscoveryInfo that differ in their protocol alone are one.
func portCount(t *mesos.Task) int {
	if t.Discovery == nil {
		return len(expand(t.Ports, &recordSet{}))
	}
	n := 0
	for i, p := range t.Discovery.Ports {
		if i > 0 {
			before := t.Discovery.Ports[i-1]
			if p.Number == before.Number && p.Name == before.Name && p.Protocol != before.Protocol {
				continue
			}
		}
		n++
	}
	return min(n, maxPorts)
}

// claiming collects the claims of one task.
type claiming struct {
	rules  *rules
	in     cluster.Instance
	out    *recordSet
	backup bool
	count  int          // names so far
	addrs  []netip.Addr // of the task, once they are needed
	chosen bool         // addrs are
}

// claimAll claims the names in a label's value for groups.
func (t *claiming) claimAll(value string, groups []string) {
	for _, name := range hostsIn(value) {
		if t.count++; t.count <= maxClaims {
			t.claim(name, groups)
		}
	}
}

// hostsIn returns the hosts in a label's value, in lower case.
func hostsIn(value string) []string {
	separates := func(c rune) bool { return strings.ContainsRune(", \t\n\v\f\r", c) }
	return strings.FieldsFunc(strings.ToLower(value), separates)
}

// claim claims a name, unless it cannot be in a zone.
func (t *claiming) claim(name string, groups []string) {
	origin := hostOrigin(name)
	zoneOf, rel := t.rules.claimable(origin)
	why, legal := illegalHost(origin)
	switch {
	case !legal:
	case zoneOf == "":
		why, legal = outside, false
	case rel == "ns1" || slices.Contains(t.rules.nsHosts, origin):
		why, legal = reserved, false
	}
	if !legal {
		t.out.skipped[vhost][why]++
		if t.out.explains {
			t.out.note("the claimed name %q is not answered: %s", name, unclaimable[why])
		}
		return
	}
	taken := len(t.out.claims)
	for _, line := range t.rules.vhosts {
		if line.origin != zoneOf || !line.takes(groups) {
			continue
		}
		t.out.claims = append(t.out.claims, claim{line.number, rel, t.backup})
		if !line.tasks {
			continue
		}
		for _, a := range t.addresses() {
			r := zone.Address(a)
			if t.backup {
				r = r.Backup()
			}
			t.out.add(vhost, zone.Rel(origin), r)
		}
	}
	if t.out.explains && len(t.out.claims) == taken {
		t.out.note("the name %q is claimed for %q, which no line of vhosts takes", name, groups)
	}
}

// unclaimable says why a name cannot be claimed.
var unclaimable = map[reason]string{
	wildcard: "it is a wildcard",
	longName: "it has more than 255 octets",
	badName:  "a label of it is empty, longer than 63 octets, or has other characters than letters, digits, - and _",
	outside:  "it is in no zone of vhosts",
	reserved: "it is the name server's",
}

// addresses returns where the task can be reached: at its agent, if the agent maps its ports or
// it has no network of its own, else at its addresses on networks that may be published.
func (t *claiming) addresses() []netip.Addr {
	if t.chosen {
		return t.addrs
	}
	t.chosen = true
	var unseen recordSet // the names of the task count what is skipped
	a := t.rules.addrsOf(t.in, taskPorts{}, &unseen)
	bridged := t.in.Task.Container.Bridged || slices.ContainsFunc(t.in.Task.Status.Networks, func(n mesos.Network) bool { return n.Name == "mesos-bridge" })
	switch {
	case bridged, len(a.network) == 0 && !a.hidden:
		t.addrs = a.agent
	default:
		t.addrs = a.network
	}
	return t.addrs
}

// hostOrigin returns a claimed host as a fully qualified name: without its port and, as DNS has
// it, with one final dot.
func hostOrigin(host string) string {
	if name, port, ok := strings.Cut(host, ":"); ok && !strings.ContainsFunc(port, func(c rune) bool { return c < '0' || c > '9' }) {
		host = name
	}
	return strings.TrimSuffix(host, ".") + "."
}

// illegalHost returns why a claimed name cannot be answered, and whether it can be.
func illegalHost(origin string) (reason, bool) {
	if strings.HasPrefix(origin, "*.") {
		return wildcard, false
	}
	if !zone.FitsName(len(origin)) {
		return longName, false
	}
	for l := range strings.SplitSeq(strings.TrimSuffix(origin, "."), ".") {
		illegal := func(c rune) bool { return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' }
		if l == "" || len(l) > maxLabel || strings.ContainsFunc(l, illegal) {
			return badName, false
		}
	}
	return 0, true
}

// zoneOf returns the origin of the zone that a name is in, or "".
func (r *rules) zoneOf(name string) string {
	for _, origin := range r.origins {
		if _, ok := zone.Relative(name, origin); ok {
			return origin
		}
	}
	return ""
}

// claimable returns the zone of "vhosts" that a name is in, and the name relative to it. It
// returns "" for a name in no zone, or in one of another kind.
func (r *rules) claimable(name string) (origin, rel string) {
	origin = r.zoneOf(name)
	if !slices.ContainsFunc(r.vhosts, func(l *vhostLine) bool { return l.origin == origin }) {
		return "", ""
	}
	rel, _ = zone.Relative(name, origin)
	return origin, rel
}

// parseVHosts parses ZONE to TARGET... for GROUP...
func parseVHosts(o *options, args []string) error {
	origins, isReverse, err := parseZone(args[0])
	to := slices.Index(args, "for")
	switch {
	case err != nil:
		return err
	case isReverse:
		return fmt.Errorf("zone %q must not be a reverse zone", args[0])
	case args[1] != "to" || to < 0:
		return errors.New(`must be "ZONE to TARGET... for GROUP..."`)
	case to == 2:
		return errors.New("has no target")
	case to == len(args)-1:
		return errors.New(`has no group: "*" is for all`)
	}
	line := &vhostLine{number: len(o.rules.vhosts), origin: origins[0]}
	for _, target := range args[2:to] {
		if err := line.addTarget(target); err != nil {
			return err
		}
	}
	for _, group := range args[to+1:] {
		if slices.Contains(line.groups, group) {
			return fmt.Errorf("group %q is repeated", group)
		}
		line.groups = append(line.groups, group)
	}
	if !slices.Contains(o.zones[vhost], line.origin) {
		o.zones[vhost] = append(o.zones[vhost], line.origin)
	}
	o.rules.vhosts = append(o.rules.vhosts, line)
	return nil
}

// addTarget adds an address, a name, or the word tasks.
func (l *vhostLine) addTarget(target string) error {
	addr, err := netip.ParseAddr(target)
	name := dns.Fqdn(strings.ToLower(target))
	var known bool
	switch {
	case target == "tasks":
		known, l.tasks = l.tasks, true
	case err == nil:
		addr = addr.Unmap()
		if !isUsable(addr) || addr.Zone() != "" {
			return fmt.Errorf("invalid address %q of a target", target)
		}
		known, l.addrs = slices.Contains(l.addrs, addr), append(l.addrs, addr)
	case !isZoneName(name) || name == "." || mesos.ParseAddr(target).IsValid():
		return fmt.Errorf("invalid target %q: must be an address, a name or tasks", target)
	default:
		known, l.names = slices.Contains(l.names, name), append(l.names, name)
	}
	if known {
		return fmt.Errorf("target %q is repeated", target)
	}
	return nil
}

// completeVHosts checks the targets of "vhosts" against the zones, and tells the rules about
// those.
func (o *options) completeVHosts() error {
	o.rules.origins = o.allOrigins()
	slices.SortStableFunc(o.rules.origins, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, origin := range o.zones[vhost] {
		o.rules.nsHosts = append(o.rules.nsHosts, o.nameServer(vhost, origin))
	}
	for _, line := range o.rules.vhosts {
		for _, name := range line.names {
			if origin, _ := o.rules.claimable(name); origin != "" {
				return fmt.Errorf("property \"vhosts\": the target %q is in the zone %q of \"vhosts\" itself", name, origin)
			}
		}
	}
	return nil
}
