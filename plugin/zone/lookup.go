package zone

import (
	"iter"
	"math"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// Result is the answer to a question.
type Result struct {
	Exists     bool // the name is in the zone, with records or above a name with records
	Records    bool // the name has records of some type
	Answer     []dns.RR
	Additional []dns.RR // addresses of the targets in Answer
}

// Lookup answers a question for rel, a name relative to the origin in lower case. The records in Answer
// are owned by qname, the name as it was asked. SRV records are rotated: rotate, modulo their number, is
// the index of the first. Their addresses follow in the same order. Of a set too large for a message of
// these octets, a part is returned, which is too large as well; rotate chooses it.
func (g *Generation) Lookup(rel, qname string, qtype uint16, rotate uint32, octets int) Result {
	if g.zone.Dashes {
		rel = Dashed(rel)
	}
	name := g.zone.split(Rel(rel))
	n := g.find(name.Rel)
	of := n.of(name.Sub)
	rrs := of.served()
	r := Result{Records: rel == "" || rrs != ""}
	r.Exists = r.Records || of.exists()
	if !r.Records {
		return r
	}
	c := classOf(qtype)
	switch qtype {
	case dns.TypeSOA, dns.TypeNS:
		if rel == "" {
			r.Answer, r.Additional = g.apex(qtype)
		}
	case dns.TypeA, dns.TypeAAAA, dns.TypePTR:
		r.Answer = g.zone.rrs(node{rel: n.rel, sets: rrs.types(c, c)}, qname, rotate, octets/minRecord+1)
	case dns.TypeSRV:
		r.Answer, r.Additional = g.services(node{rel: n.rel, sets: rrs.types(c, c)}, qname, rotate, octets)
	case dns.TypeANY:
		// RFC 8482, section 4.2.
		r.Answer = []dns.RR{&dns.HINFO{Hdr: g.zone.header(qname, dns.TypeHINFO), Cpu: "RFC8482"}}
	}
	return r
}

// Dashed returns a name with "-" for each "_" that does not begin a label.
func Dashed(rel string) string {
	var b []byte
	for i := 1; i < len(rel); i++ {
		if rel[i] == '_' && rel[i-1] != '.' {
			if b == nil {
				b = []byte(rel)
			}
			b[i] = '-'
		}
	}
	if b == nil {
		return rel
	}
	return string(b)
}

// apex answers SOA and NS queries, for records that only the apex has.
func (g *Generation) apex(qtype uint16) (answer, additional []dns.RR) {
	if qtype == dns.TypeSOA {
		return []dns.RR{g.SOA()}, nil
	}
	if rel, ok := g.zone.Relative(g.zone.NS); ok {
		name := g.zone.split(Rel(rel))
		additional = g.zone.allRRs(node{sets: g.find(name.Rel).of(name.Sub).served().types(typeA, typeAAAA)}, g.zone.NS)
	}
	return []dns.RR{g.NS()}, additional
}

// serviceRR is an SRV record with the first address of its target. Most targets have one
// address, so that an answer needs one allocation for all of its records.
type serviceRR struct {
	srv     dns.SRV
	address addressRR
	length  uint8 // of the target's Rel
	sub     Sub   // of the target
}

// addressRR is an A record with its octets.
type addressRR struct {
	a      dns.A
	octets [net.IPv4len]byte
}

// Octets of a record in a message, with its owner compressed.
const (
	minRecord  = 16 // of the smallest, an address
	minService = 19 // of an SRV record, without the text of its target, which is not compressed (RFC 2782)
)

// services returns SRV records and the addresses of their targets, in few allocations,
// since every question makes its answer anew.
func (g *Generation) services(of node, qname string, rotate uint32, octets int) (answer, additional []dns.RR) {
	count := of.count()
	if count == 0 {
		return nil, nil
	}
	first := int(rotate % uint32(count))
	n, length := 0, 0
	for r := range of.around(first) {
		if n*minService+length > octets {
			break
		}
		length += g.zone.length(Name{Sub: r.class.targetSub()}) + r.targetLength()
		n++
	}
	// One record more: CoreDNS appends the OPT record.
	all := make([]dns.RR, 0, 2*n+1)
	services := make([]serviceRR, n)
	var names strings.Builder
	names.Grow(length)
	for r := range of.around(first) {
		s := &services[len(all)]
		s.length, s.sub = uint8(r.targetLength()), r.class.targetSub()
		s.srv = dns.SRV{Hdr: g.zone.header(qname, dns.TypeSRV), Weight: 1, Port: r.port(), Target: g.zone.writeTarget(&names, of.rel, r)}
		if all = append(all, &s.srv); len(all) == n {
			break
		}
	}
	if n == count { // else they do not fit
		all = g.appendTargets(all, services)
	}
	return all[:n:n], all[n:]
}

// appendTargets appends the addresses of the services' targets, each target once. Services of one target
// are neighbours, but for those of the first target, which may also be the last.
func (g *Generation) appendTargets(to []dns.RR, services []serviceRR) []dns.RR {
	for i := range services {
		s := &services[i]
		target := s.srv.Target
		if i > 0 && (target == services[i-1].srv.Target || target == services[0].srv.Target) {
			continue
		}
		place := &s.address
		for r := range g.find(target[:s.length]).of(s.sub).served().types(typeA, typeAAAA).around(0) {
			to = append(to, g.zone.rr("", r, target, place))
			place = nil
		}
	}
	return to
}

// allRRs returns the records of a node, owned by name, or nil for none.
func (z *Zone) allRRs(of node, name string) []dns.RR { return z.rrs(of, name, 0, math.MaxInt) }

// rrs returns the records of a node, owned by name, or most of them from the index rotate on,
// modulo their number.
func (z *Zone) rrs(of node, name string, rotate uint32, most int) []dns.RR {
	n, first := of.count(), 0
	if n > most {
		first, n = int(rotate%uint32(n)), most
	}
	if n == 0 {
		return nil
	}
	to := make([]dns.RR, 0, n)
	var v4 []addressRR
	if of.class()&typeMask == typeA {
		v4 = make([]addressRR, n)
	}
	for r := range of.around(first) {
		var place *addressRR
		if v4 != nil {
			place = &v4[len(to)]
		}
		if to = append(to, z.rr(of.rel, r, name, place)); len(to) == n {
			break
		}
	}
	return to
}

// rr returns r, a record of a node with the Rel owner, as it is owned by name. An A record is built
// in place, if that is not nil.
func (z *Zone) rr(owner string, r rr, name string, place *addressRR) dns.RR {
	hdr := z.header(name, r.class.qtype())
	switch hdr.Rrtype {
	case dns.TypeA:
		if place == nil {
			place = new(addressRR)
		}
		copy(place.octets[:], r.data)
		place.a = dns.A{Hdr: hdr, A: place.octets[:]}
		return &place.a
	case dns.TypeAAAA:
		return &dns.AAAA{Hdr: hdr, AAAA: net.IP(r.data)}
	case dns.TypeSRV:
		return &dns.SRV{Hdr: hdr, Weight: 1, Port: r.port(), Target: z.writeTarget(new(strings.Builder), owner, r)}
	}
	return &dns.PTR{Hdr: hdr, Ptr: strings.Clone(r.data[1:])} // without its page
}

// OfType yields the records of a type that is A, AAAA, SRV or PTR, name by name, in no order.
func (g *Generation) OfType(qtype uint16) iter.Seq2[string, []dns.RR] {
	return func(yield func(string, []dns.RR) bool) {
		c := classOf(qtype)
		for name, rrs := range g.sets {
			if of := (node{rel: name.Rel, sets: rrs.types(c, c)}); of.sets != "" {
				if owner := g.zone.absolute(name); !yield(owner, g.zone.allRRs(of, owner)) {
					return
				}
			}
		}
	}
}

// All yields every record of the zone except the SOA: first the NS, then name by name, in
// no order.
func (g *Generation) All() iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		if !yield([]dns.RR{g.NS()}) {
			return
		}
		for name, rrs := range g.sets {
			if !yield(g.zone.allRRs(node{rel: name.Rel, sets: rrs}, g.zone.absolute(name))) {
				return
			}
		}
	}
}
