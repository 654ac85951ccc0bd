package calicomesos

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
)

// zoneSet is the zones of a stanza by scheme.
type zoneSet [schemes][]*zone.Zone

// all returns the zones, the most specific first.
func (s *zoneSet) all() []*zone.Zone {
	all := slices.Concat(s[:]...)
	slices.SortStableFunc(all, func(a, b *zone.Zone) int { return len(b.Origin) - len(a.Origin) })
	return all
}

// isZoneName reports whether name is a domain name that a zone may have: of letters, digits,
// dashes and underscores, and with room for names below it.
func isZoneName(name string) bool {
	_, ok := dns.IsDomainName(name)
	illegal := strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
	return ok && !illegal && zone.FitsName(len("hostmaster.")+len(name))
}

// isReverse reports whether a zone is one of addresses.
func isReverse(origin string) bool {
	return dns.IsSubDomain("in-addr.arpa.", origin) || dns.IsSubDomain("ip6.arpa.", origin)
}

// completeZones checks the zones and the name of the name server against each other, and
// tells the rules about them.
func (o *options) completeZones() error {
	for _, origin := range o.zones[dcos] {
		if slices.Contains(o.zones[mesosDNS], origin) {
			return fmt.Errorf("zone %q is in both lists, the plugin's and that of \"containerip\"", origin)
		}
	}
	for _, origin := range o.zones[vhost] {
		if slices.Contains(o.zones[mesosDNS], origin) || slices.Contains(o.zones[dcos], origin) {
			return fmt.Errorf("zone %q of \"vhosts\" is also the plugin's or one of \"containerip\"", origin)
		}
	}
	if err := o.completeNS(); err != nil {
		return &propertyError{"ns", err}
	}
	if len(o.zones[reverse]) > 0 {
		if len(o.zones[mesosDNS]) == 0 {
			return fmt.Errorf("reverse zone %q needs a forward zone to point to", o.zones[reverse][0])
		}
		o.rules.pointTo = o.zones[mesosDNS][0]
	}
	for _, z := range o.fall.Zones {
		if !slices.ContainsFunc(o.allOrigins(), func(origin string) bool { return related(z, origin) }) {
			return &propertyError{"fallthrough", fmt.Errorf("no name of %q is in a zone of the stanza", z)}
		}
	}
	return o.completeVHosts()
}

// completeNS checks that the name server has its name for itself, and reserves that.
func (o *options) completeNS() error {
	for _, origin := range o.zones[mesosDNS] {
		rel, ok := zone.Relative(o.nsName, origin)
		switch {
		case !ok:
		case isMasterOrAgentName(rel):
			return fmt.Errorf("%q is a name of the masters or the agents", o.nsName)
		case strings.Contains(rel, "."):
			return fmt.Errorf("%q may be the name of a task: must have one label before %q", o.nsName, origin)
		default:
			o.rules.nsNames = append(o.rules.nsNames, rel)
		}
	}
	for _, origin := range o.zones[dcos] {
		if rel, ok := zone.Relative(o.nsName, origin); ok && slices.Contains(subdomains[dcos], rel[strings.LastIndexByte(rel, '.')+1:]) {
			return fmt.Errorf("%q may be the name of a task", o.nsName)
		}
	}
	return nil
}

// allOrigins returns the origins of all zones.
func (o *options) allOrigins() []string { return slices.Concat(o.zones[:]...) }

// bypassZones returns the zones that *cache* must leave alone. A reverse zone is one of them
// only if no other plugin answers for a part of it.
func (o *options) bypassZones() []string {
	zones := slices.Concat(o.zones[mesosDNS], o.zones[dcos], o.zones[vhost])
	for _, origin := range o.zones[reverse] {
		inside := func(zone string) bool { return dns.IsSubDomain(origin, zone) }
		if !o.fall.Through(origin) && !slices.ContainsFunc(o.fall.Zones, inside) {
			zones = append(zones, origin)
		}
	}
	return zones
}

// outside returns the zones that no query reaches.
func (o *options) outside(served plugin.Zones) []string {
	return slices.DeleteFunc(o.allOrigins(), func(origin string) bool { return reaches(served, origin) })
}

// unreached says that no query reaches a zone, and for the default one what to write instead.
func (o *options) unreached(origin string, served plugin.Zones) string {
	text := fmt.Sprintf("No query reaches the zone %s: it is outside of the server block's %s", origin, strings.Join(served, " "))
	if origin == defaultZone {
		text += fmt.Sprintf("; write \"%s %s\" to serve those", pluginName, strings.Join(served, " "))
	}
	return text
}

// reaches reports whether queries for names in a zone reach a server block, which serves some
// zones: one of them is the zone, above or below it.
func reaches(served plugin.Zones, origin string) bool {
	return slices.ContainsFunc(served, func(z string) bool { return related(z, origin) })
}

// related reports whether one of two zones is in the other.
func related(a, b string) bool { return dns.IsSubDomain(a, b) || dns.IsSubDomain(b, a) }

// nested returns the stanza's other zones below origin.
func (o *options) nested(origin string) []string {
	return slices.DeleteFunc(o.allOrigins(), func(other string) bool {
		return other == origin || !dns.IsSubDomain(origin, other)
	})
}

// newZones returns the zones, empty. listening are the addresses of the name server, unless
// "ns" names others. With journal, zones keep changesets for incremental transfers.
func (o *options) newZones(listening []netip.Addr, journal bool) zoneSet {
	addrs := o.nsAddrs
	if len(addrs) == 0 {
		addrs = listening
	}
	var zones zoneSet
	for sch, origins := range o.zones {
		for _, origin := range origins {
			zones[sch] = append(zones[sch], zone.New(zone.Config{
				Origin: origin, TTL: o.ttl, NS: o.nameServer(scheme(sch), origin), Addrs: addrs,
				Nested: o.nested(origin), Subs: subdomains[sch], Journal: journal,
				Dashes: scheme(sch) == mesosDNS, // which serves underscores of undotted names as they are
				Kin:    kin[sch],
			}))
		}
	}
	return zones
}

// nameServer returns the name of a zone's name server: what "ns" says, or else ns1 in the
// zone, for a reverse zone and one of "vhosts" in the first Mesos-DNS zone.
func (o *options) nameServer(sch scheme, origin string) string {
	switch {
	case o.nsName != "":
		return o.nsName
	case (sch == reverse || sch == vhost) && len(o.zones[mesosDNS]) > 0:
		return zone.Join("ns1", o.zones[mesosDNS][0])
	}
	return zone.Join("ns1", origin)
}

// listeningAddrs returns the addresses of a server that listens on hosts, the arguments of
// *bind*: explicit addresses as they are, for a wildcard those of the interfaces.
func listeningAddrs(hosts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, h := range hosts {
		addr := mesos.ParseAddr(h)
		if addr.IsValid() && !addr.IsUnspecified() {
			addrs = append(addrs, addr)
			continue
		}
		if !addr.IsValid() && h != "" {
			continue // with a zone, and so only valid on its link
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("list the addresses of the interfaces: %w", err)
		}
		addrs = append(addrs, interfaceAddrs(all, addr)...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// interfaceAddrs returns the addresses of all at which a server on a wildcard address
// answers. Link-local ones are left out, and loopback ones if there are others.
func interfaceAddrs(all []net.Addr, wildcard netip.Addr) []netip.Addr {
	var addrs, loopback []netip.Addr
	for _, a := range all {
		addr := mesos.ParseAddr(a.String())
		switch {
		case !addr.IsValid() || addr.IsLinkLocalUnicast() || wildcard.Is4() && !addr.Is4():
		case addr.IsLoopback():
			loopback = append(loopback, addr)
		default:
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return loopback
	}
	return addrs
}
