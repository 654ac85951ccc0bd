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
	names  []targetName // whose addresses are answered
}

// targetName is a name that is a target.
type targetName struct {
	host string // as it is written, to be looked up: without a dot it may be in a file of hosts
	fqdn string // in lower case
}

// String returns what the line says.
func (l *vhostLine) String() string {
	words := []string{"vhosts", l.origin, "to"}
	for _, a := range l.addrs {
		words = append(words, a.String())
	}
	for _, n := range l.names {
		words = append(words, n.host)
	}
	if l.tasks {
		words = append(words, "tasks")
	}
	return strings.Join(append(append(words, "for"), l.groups...), " ")
}

// takes reports whether claims for these groups count.
func (l *vhostLine) takes(groups []string) bool {
	return slices.ContainsFunc(l.groups, func(g string) bool { return g == "*" || slices.Contains(groups, g) })
}

// maxClaims is the number of names that are taken of one task: as many as ports, since each is
// claimed for one.
const maxClaims = maxPorts

// claim is a name in a zone of "vhosts" that a task claims, for a line of that zone. For a line to
// "tasks" there is another one for each address of the task. One of an unhealthy task is a backup.
type claim struct {
	name string // relative to the zone
	claimKey
}

// badClaim is a claimed name that is not answered.
type badClaim struct {
	origin string // of the zone that it is counted in
	why    reason
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
		if enabled, off := labels[prefix+"ENABLED"]; off && !isTrue(enabled) {
			if ok && out.explains {
				out.note("%sENABLED is %q: the names of %[1]sVHOST are not claimed", prefix, enabled)
			}
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
	if out.explains {
		t.noteOthers()
	}
	if t.count > maxClaims {
		for range t.count - maxClaims {
			out.badClaims = append(out.badClaims, badClaim{r.vhosts[0].origin, excess})
		}
		if out.explains {
			out.note("%d claimed names are beyond the %d that a task may have", t.count-maxClaims, maxClaims)
		}
	}
}

// noteOthers notes the labels that name a port which the task does not have.
func (t *claiming) noteOthers() {
	ports := portCount(t.in.Task)
	for _, l := range t.in.Task.HAProxy {
		number, isVHost := strings.CutSuffix(strings.TrimPrefix(l.Key, "HAPROXY_"), "_VHOST")
		if n, err := strconv.Atoi(number); isVHost && (err != nil || n >= ports || strconv.Itoa(n) != number) {
			t.out.note("%s claims nothing: the task has %d ports, which are counted from 0", l.Key, ports)
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
// numbered: neighbours in a DiscoveryInfo with one number and name are one for as long as each
// has another protocol.
func portCount(t *mesos.Task) int {
	if t.Discovery == nil {
		return len(expand(t.Ports, &recordSet{}))
	}
	n := 0
	var protocols []string // of the port so far
	for i, p := range t.Discovery.Ports {
		if i > 0 && p.Number == t.Discovery.Ports[i-1].Number && p.Name == t.Discovery.Ports[i-1].Name && !slices.Contains(protocols, p.Protocol) {
			protocols = append(protocols, p.Protocol)
			continue
		}
		protocols = append(protocols[:0], p.Protocol)
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
	r := t.rules
	fqdn := hostOrigin(name)
	origin, rel := r.claimable(fqdn)
	var lines []*vhostLine
	for _, l := range r.vhosts {
		if (origin == "" || l.origin == origin) && l.takes(groups) {
			lines = append(lines, l)
		}
	}
	if len(lines) == 0 {
		if t.out.explains {
			t.out.note("the name %q is claimed for %q, which no line of vhosts takes", name, groups)
		}
		return
	}
	why, legal := illegalHost(fqdn)
	switch {
	case !legal:
	case origin == "":
		why, legal = outside, false
	case rel == "ns1", slices.Contains(r.nsHosts, fqdn):
		why, legal = reserved, false
	}
	if !legal {
		t.out.badClaims = append(t.out.badClaims, badClaim{lines[0].origin, why})
		if t.out.explains {
			t.out.note("the claimed name %q is not answered: %s", name, unclaimable[why])
		}
		return
	}
	for _, line := range lines {
		key := claimKey{line: line.number, backup: t.backup}
		t.out.claims = append(t.out.claims, claim{rel, key})
		if !line.tasks {
			continue
		}
		for _, key.addr = range t.addresses() {
			t.out.claims = append(t.out.claims, claim{rel, key})
		}
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
	origins, isAddrs, err := parseZone(args[0])
	to := slices.Index(args[2:], "for") + 2 // 1 if there is none
	switch {
	case err != nil:
		return err
	case isAddrs:
		return fmt.Errorf("zone %q must not be a reverse zone", args[0])
	case args[1] != "to" || to < 2:
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
	name := targetName{target, dns.Fqdn(strings.ToLower(target))}
	var known bool
	switch {
	case strings.EqualFold(target, "tasks"):
		known, l.tasks = l.tasks, true
	case err == nil:
		addr = addr.Unmap()
		if !isUsable(addr) || addr.Zone() != "" {
			return fmt.Errorf("invalid address %q of a target", target)
		}
		known, l.addrs = slices.Contains(l.addrs, addr), append(l.addrs, addr)
	case !isZoneName(name.fqdn) || isNumeric(name.fqdn) || mesos.ParseAddr(target).IsValid():
		return fmt.Errorf("invalid target %q: must be an address, a name or tasks", target)
	default:
		known = slices.ContainsFunc(l.names, func(n targetName) bool { return n.fqdn == name.fqdn })
		l.names = append(l.names, name)
	}
	switch {
	case known:
		return fmt.Errorf("target %q is repeated", target)
	case len(l.addrs) > maxAddrs:
		return fmt.Errorf("target %q is beyond the %d addresses that a line may have", target, maxAddrs)
	}
	return nil
}

// isNumeric reports whether the last label of a name is a number: then an address was meant.
func isNumeric(fqdn string) bool {
	return strings.Trim(lastLabel(strings.TrimSuffix(fqdn, ".")), "0123456789") == ""
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
			if origin, _ := o.rules.claimable(name.fqdn); origin != "" {
				return &propertyError{"vhosts", fmt.Errorf("the target %q is in the zone %q of \"vhosts\" itself", name.host, origin)}
			}
		}
	}
	return nil
}
