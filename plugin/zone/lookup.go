package zone

import (
	"iter"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// maxAnswer is how many records of a set are looked at for an answer. More never
// fit: an address takes 16 octets of the 65535 that a message has.
const maxAnswer = 4096

// Result is the answer to a question.
type Result struct {
	Exists     bool // the name is in the zone, if only above others
	Answer     []dns.RR
	Additional []dns.RR // the addresses of the targets in Answer
}

// Lookup answers a question for owner, which is relative to the origin. The
// records in Answer carry qname, as it was asked. SRV records begin with the
// one that rotate names, modulo their number, and their addresses follow in
// the same order.
func (g *Generation) Lookup(owner, qname string, qtype uint16, rotate uint32) Result {
	n := g.table.find(g.zone.seed, owner)
	r := Result{Exists: owner == "" || n.exists()}
	if !r.Exists {
		return r
	}
	switch qtype {
	case dns.TypeSOA, dns.TypeNS:
		if owner == "" {
			r.Answer, r.Additional = g.apex(qtype)
		}
	case dns.TypeA, dns.TypeAAAA, dns.TypePTR:
		rrs := ofType(n.served(), qtype)
		r.Answer = g.makeRRs(rrs[:min(len(rrs), maxAnswer)], qname)
	case dns.TypeSRV:
		r.Answer, r.Additional = g.services(ofType(n.served(), qtype), qname, rotate)
	case dns.TypeANY:
		// RFC 8482, section 4.2.
		r.Answer = []dns.RR{&dns.HINFO{Hdr: g.zone.header(qname, dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	return r
}

// apex answers for the records that only a zone's own name has.
func (g *Generation) apex(qtype uint16) (answer, additional []dns.RR) {
	if qtype == dns.TypeSOA {
		return []dns.RR{g.SOA()}, nil
	}
	if owner, ok := g.zone.Relative(g.zone.NS); ok {
		n := g.table.find(g.zone.seed, owner)
		additional = g.makeRRs(n.addresses(), g.zone.NS)
	}
	return []dns.RR{g.NS()}, additional
}

// addresses returns the A and AAAA records of n, which may be nil.
func (n *node) addresses() []rr {
	rrs := n.served()
	end := 0
	for end < len(rrs) && isAddress(rrs[end].typ) {
		end++
	}
	return rrs[:end]
}

func isAddress(typ uint16) bool {
	typ &^= standbyBit
	return typ == dns.TypeA || typ == dns.TypeAAAA
}

// services returns the SRV records and the addresses of their targets. They
// share a few allocations, since a server makes this answer for every question.
func (g *Generation) services(rrs []rr, qname string, rotate uint32) (answer, additional []dns.RR) {
	if len(rrs) == 0 {
		return nil, nil
	}
	first := int(rotate % uint32(len(rrs)))
	if len(rrs) > maxAnswer {
		first = min(first, len(rrs)-maxAnswer)
		rrs, first = rrs[first:first+maxAnswer], 0
	}
	length, addresses := 0, 0
	for _, r := range rrs {
		length += len(r.data) + 1 + len(g.zone.Origin)
		addresses += len(g.target(r).addresses())
	}
	// A place more: CoreDNS appends the OPT record.
	all := make([]dns.RR, 0, len(rrs)+addresses+1)
	services := make([]dns.SRV, len(rrs))
	var names strings.Builder
	names.Grow(length)
	for i := range rrs {
		r := rrs[(first+i)%len(rrs)]
		start := names.Len()
		g.writeName(&names, r.data)
		services[i] = dns.SRV{Hdr: g.zone.header(qname, dns.TypeSRV), Weight: 1, Port: r.port, Target: names.String()[start:]}
		all = append(all, &services[i])
	}
	all = g.appendTargets(all, services, rrs, first, addresses)
	return all[:len(rrs):len(rrs)], all[len(rrs):]
}

// appendTargets appends the addresses of the targets, each target once.
func (g *Generation) appendTargets(to []dns.RR, services []dns.SRV, rrs []rr, first, addresses int) []dns.RR {
	b := newAddressBuilder(addresses)
	var many map[string]bool // the targets before, if they are too many to compare
	if len(services) > fewTargets {
		many = make(map[string]bool, len(services))
	}
	for i := range services {
		if target := services[i].Target; many[target] || many == nil && seen(services[:i], target) {
			continue
		} else if many != nil {
			many[target] = true
		}
		for _, a := range g.target(rrs[(first+i)%len(rrs)]).addresses() {
			to = append(to, b.build(g.zone, a, services[i].Target))
		}
	}
	return to
}

// fewTargets is up to how many targets are compared with each other.
const fewTargets = 16

// seen reports whether a service before has the target.
func seen(before []dns.SRV, target string) bool {
	for i := range before {
		if before[i].Target == target {
			return true
		}
	}
	return false
}

func (g *Generation) target(r rr) *node { return g.table.find(g.zone.seed, r.data) }

func (g *Generation) writeName(to *strings.Builder, owner string) {
	to.WriteString(owner)
	to.WriteByte('.')
	if g.zone.Origin != "." {
		to.WriteString(g.zone.Origin)
	}
}

// makeRRs returns rrs as records of the name; nil for none.
func (g *Generation) makeRRs(rrs []rr, name string) []dns.RR {
	if len(rrs) == 0 {
		return nil
	}
	to := make([]dns.RR, 0, len(rrs))
	b := newAddressBuilder(len(rrs))
	for _, r := range rrs {
		switch r.typ &^ standbyBit {
		case dns.TypePTR:
			to = append(to, &dns.PTR{Hdr: g.zone.header(name, dns.TypePTR), Ptr: r.data})
		case dns.TypeSRV:
			to = append(to, &dns.SRV{Hdr: g.zone.header(name, dns.TypeSRV), Weight: 1, Port: r.port, Target: g.zone.absolute(r.data)})
		default:
			to = append(to, b.build(g.zone, r, name))
		}
	}
	return to
}

// addressBuilder makes address records out of one allocation for the IPv4
// records and one for the octets.
type addressBuilder struct {
	size   int
	v4     []dns.A
	octets []byte
}

func newAddressBuilder(n int) addressBuilder { return addressBuilder{size: n} }

func (b *addressBuilder) build(z *Zone, r rr, name string) dns.RR {
	if b.octets == nil {
		b.octets = make([]byte, 0, b.size*len(r.data))
	}
	start := len(b.octets)
	b.octets = append(b.octets, r.data...)
	ip := net.IP(b.octets[start:len(b.octets):len(b.octets)])
	if len(r.data) != net.IPv4len {
		return &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: ip}
	}
	if b.v4 == nil {
		b.v4 = make([]dns.A, 0, b.size)
	}
	b.v4 = append(b.v4, dns.A{Hdr: z.header(name, dns.TypeA), A: ip})
	return &b.v4[len(b.v4)-1]
}

// All yields every record of the zone but the SOA, the records of one name at
// a time and the apex's NS first. Names are yielded in no order.
func (g *Generation) All() iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		if !yield([]dns.RR{g.NS()}) {
			return
		}
		for n := range g.table.all {
			rrs := n.served()
			if len(rrs) > 0 && !yield(g.makeRRs(rrs, g.zone.absolute(n.owner))) {
				return
			}
		}
	}
}
