package calicomesos

import (
	"crypto/sha1" //nolint:gosec // for names, as in Mesos-DNS
	"encoding/base32"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"
)

// scheme is a way to name a cluster. Each zone has one.
type scheme int

const (
	mesosDNS scheme = iota // T.F, as in Mesos-DNS
	dcos                   // T.F.containerip, as in DC/OS's Navstar and Spartan
	reverse                // addresses, which point to names in the first Mesos-DNS zone
	vhost                  // names that tasks claim, in the zones of "vhosts"
	schemes
)

// subdomains are the labels that many names in a scheme's zones end in.
var subdomains = [schemes][]string{mesosDNS: {"slave", "containerip"}, dcos: {"containerip", "agentip", "autoip"}}

// The subdomains by number.
const (
	slave       zone.Sub = 1 // of mesosDNS
	container   zone.Sub = 2 // of mesosDNS
	containerip zone.Sub = 1 // of dcos
	agentip     zone.Sub = 2
	autoip      zone.Sub = 3
)

// reason is why something of the cluster is not published.
type reason int

const (
	badName    reason = iota // no legal character in a name
	longName                 // a name of more than 255 octets
	reserved                 // a framework with a name that belongs to the cluster
	badAddress               // unspecified, multicast, or not an address
	filtered                 // excluded by "network", "allow" or "frameworks"
	badPort                  // outside of 1 to 65535
	invisible                // DiscoveryInfo.visibility below "visibility"
	excess                   // beyond maxAddrs, maxPorts or maxClaims
	outside                  // a claimed name in no zone of "vhosts"
	wildcard                 // a claimed name that stands for many
	reasons
)

var reasonNames = [reasons]string{"name", "name_too_long", "reserved", "address", "filtered", "port", "visibility", "excess", "outside", "wildcard"}

// rules are the naming rules of a stanza: its methods append the records of an object to a
// recordSet. They are pure, so that the records of an object can be taken back by applying
// the rules to it again.
type rules struct {
	sources    []source
	networks   []string       // empty: any
	allow      []netip.Prefix // empty: any
	health     bool           // an unhealthy task answers only if no other instance does
	visibility mesos.Visibility
	frameworks []tenant // empty: any
	pointTo    string   // forward zone of PTR records, "" without reverse zones
	nsNames    []string // of the name server, relative to the zones that it is in
	vhosts     []*vhostLine
	nsHosts    []string // of the name servers of the zones of "vhosts"
	origins    []string // of all zones, the longest first
}

// record is a record in all zones of a scheme. Its name is relative to the zones' origins,
// except that of a reverse record, which is fully qualified.
type record struct {
	scheme scheme
	name   zone.Name
	zone.Record
}

// recordSet collects the records of one object, and counts what is skipped.
type recordSet struct {
	records   []record
	claims    []claim
	badClaims []badClaim
	skipped   [schemes][reasons]int
	seen      seen

	explains bool     // notes are wanted: not while publishing
	notes    []string // why something is skipped
}

// note notes why something is skipped.
func (s *recordSet) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

func (s *recordSet) reset() {
	s.records, s.claims, s.badClaims = s.records[:0], s.claims[:0], s.badClaims[:0]
	s.skipped = [schemes][reasons]int{}
	s.seen = seen{}
}

func (s *recordSet) add(sch scheme, name zone.Name, r zone.Record) {
	s.records = append(s.records, record{sch, name, r})
}

// skip counts something that is published in neither naming scheme.
func (s *recordSet) skip(why reason) { s.skipMany(why, 1) }

func (s *recordSet) skipMany(why reason, n int) {
	s.skipped[mesosDNS][why] += n
	s.skipped[dcos][why] += n
}

// maxLabel is the limit of a label in octets (RFC 1035, section 2.3.4).
const maxLabel = 63

// label makes a DNS label of x (RFC 1123), as Mesos-DNS does: it lowers capitals, turns `-`,
// `.` and `_` into `-`, drops other characters, and trims dashes. It has at most limit
// bytes, and may be empty.
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
	return strings.TrimRight(string(b), "-")
}

// isLabel reports whether label would return x as it is.
func isLabel(x string, limit int) bool {
	for i := range len(x) {
		if c := x[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return len(x) <= limit && !strings.HasSuffix(x, "-")
}

// labels makes labels of the parts of x between dots, and drops empty ones. It leaves out
// what follows once they are too long for a name.
func labels(x string) string {
	if !strings.Contains(x, ".") {
		return label(x, maxLabel)
	}
	var all []string
	length := 0
	for part := range strings.SplitSeq(x, ".") {
		if l := label(part, maxLabel); l != "" {
			all = append(all, l)
			length += len(l) + 1
		}
		if length > maxRelative+1 {
			break
		}
	}
	return strings.Join(all, ".")
}

// maxRelative is the length of the longest name below a zone, with its dots: a whole name
// has 255 octets (RFC 1035, section 2.3.4), and a zone at least two.
const maxRelative = 255 - 2

// lastLabel returns the last label of a name without a final dot.
func lastLabel(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// shorten cuts a label so that extra more bytes fit.
func shorten(l string, extra int) string {
	if len(l)+extra <= maxLabel {
		return l
	}
	return strings.TrimRight(l[:maxLabel-extra], "-")
}

const (
	hashLength  = 5  // characters of a task id's hash in its canonical name
	agentLength = 20 // bytes of an agent's part, at most
)

var zbase32 = base32.NewEncoding("ybndrfg8ejkmcpqxot1uwisza345h769").WithPadding(base32.NoPadding)

// canonicalSuffix returns `-HASH-AGENT`, which tells the instances of an app apart, as in
// Mesos-DNS. HASH is from the SHA-1 of the task's id, AGENT the end of the agent's.
func canonicalSuffix(taskID, agentID string) string {
	sum := sha1.Sum([]byte(taskID)) //nolint:gosec // see the import
	var hash [32]byte               // zbase32.EncodedLen(sha1.Size)
	zbase32.Encode(hash[:], sum[:])
	suffix := "-" + string(hash[:hashLength])
	if agent := label(agentID[strings.LastIndexByte(agentID, '-')+1:], agentLength); agent != "" {
		suffix += "-" + agent
	}
	return suffix
}

// allSubdomains are the last labels with which a framework would write into other tasks'
// names.
var allSubdomains = slices.Concat(subdomains[:]...)

// isReserved reports whether a name relative to a zone belongs to the cluster.
func (r *rules) isReserved(name string) bool {
	return name == "ns1" || isMasterOrAgentName(name) || slices.Contains(r.nsNames, name)
}

// isMasterOrAgentName reports whether masters or agents have records at a name.
func isMasterOrAgentName(name string) bool {
	switch name {
	case "leader", "master", "slave":
		return true
	}
	n, ok := strings.CutPrefix(name, "master")
	_, err := strconv.ParseUint(n, 10, 64)
	return ok && err == nil
}

// framework appends the records of a framework: F, and _framework._tcp.F. It has none if its
// name is below another framework's.
func (r *rules) framework(f *cluster.Framework, below bool, out *recordSet) {
	name := labels(f.Name)
	out.seen.framework = true
	matches(r.frameworks, &out.seen.frameworks, func(t tenant) bool { return t.names(f.Framework) })
	switch {
	case r.excludes(f.Framework):
		out.skipped[mesosDNS][filtered]++
		if out.explains {
			out.note("frameworks %s excludes %q", join(r.frameworks), f.Name)
		}
		return
	case name == "":
		out.skipped[mesosDNS][badName]++
		return
	case len(name) > maxRelative:
		out.skipped[mesosDNS][longName]++
		return
	case below, slices.Contains(allSubdomains, lastLabel(name)), r.isReserved(name):
		out.skipped[mesosDNS][reserved]++
		if out.explains {
			out.note("the framework has no records: its name is below another framework's, or reserved")
		}
		return
	}
	addrs := usable(f.Addrs, out, mesosDNS)
	if slices.ContainsFunc(addrs, isLocal) { // on the scheduler's host it means itself, elsewhere another
		out.skipped[mesosDNS][badAddress]++
		if out.explains {
			out.note("a local address of the scheduler is not published")
		}
		addrs = slices.DeleteFunc(addrs, isLocal)
	}
	addAddresses(out, mesosDNS, name, addrs)
	if port := webUIPort(f.WebUIURL); port != 0 && len(addrs) > 0 {
		out.add(mesosDNS, zone.Rel("_framework._tcp."+name), zone.Service(zone.Rel(name), port))
	}
}

// webUIPort returns the port of a framework's webui_url, or 0.
func webUIPort(webUIURL string) uint16 {
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

// agent appends the records of an agent: slave, and _slave._tcp.
func (r *rules) agent(a *cluster.Agent, out *recordSet) {
	addrs := usable(a.Addrs, out, mesosDNS)
	if i := slices.IndexFunc(addrs, netip.Addr.IsLoopback); i >= 0 {
		out.seen.loopback = addrs[i]
	}
	addAddresses(out, mesosDNS, "slave", addrs)
	if port, ok := validPort(uint64(a.Port)); ok && len(addrs) > 0 {
		out.add(mesosDNS, zone.Rel("_slave._tcp"), zone.Service(zone.Rel("slave"), port))
	}
}

// masters appends the records of the masters: leader, master, and in the Mesos-DNS scheme
// masterN, _leader._tcp and _leader._udp.
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

func addAddresses(out *recordSet, sch scheme, name string, addrs []netip.Addr) {
	for _, a := range addrs {
		out.add(sch, zone.Rel(name), zone.Address(a))
	}
}
