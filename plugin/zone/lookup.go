package zone

import (
	"encoding/binary"
	"iter"
	"net"
	"slices"
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

// Lookup answers a question for rel, a name relative to the origin in lower case. The
// records in Answer are owned by qname, the name as it was asked. SRV records are rotated:
// rotate, modulo their number, is the index of the first. Their addresses follow in the
// same order. Of a set that is larger than a message of these octets, a part is returned that does
// not fit either, in turn by rotate.
func (g *Generation) Lookup(rel, qname string, qtype uint16, rotate uint32, octets int) Result {
	if g.zone.Dashes {
		rel = Dashed(rel)
	}
	name := g.zone.split(Rel(rel))
	n := g.find(name.Rel)
	rrs := n.served(name.Sub)
	r := Result{Records: rel == "" || len(rrs) > 0}
	r.Exists = r.Records || n != nil && n.children[name.Sub] > 0
	if !r.Records {
		return r
	}
	switch qtype {
	case dns.TypeSOA, dns.TypeNS:
		if rel == "" {
			r.Answer, r.Additional = g.apex(qtype)
		}
	case dns.TypeA, dns.TypeAAAA, dns.TypePTR:
		r.Answer = g.makeRRs(window(ofType(rrs, qtype), rotate, octets/minRecord+1), qname)
	case dns.TypeSRV:
		r.Answer, r.Additional = g.services(ofType(rrs, qtype), qname, rotate, octets)
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
		additional = g.makeRRs(g.find(name.Rel).addresses(name.Sub), g.zone.NS)
	}
	return []dns.RR{g.NS()}, additional
}

// serviceRR is an SRV record with the first address of its target. Most targets have one
// address, so that an answer needs one allocation for all of its records.
type serviceRR struct {
	srv     dns.SRV
	address addressRR
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

// window returns rrs, or most of them from the index rotate on, modulo their number.
func window(rrs []rr, rotate uint32, most int) []rr {
	if len(rrs) <= most {
		return rrs
	}
	first := int(rotate % uint32(len(rrs)))
	if first+most <= len(rrs) {
		return rrs[first : first+most]
	}
	return slices.Concat(rrs[first:], rrs[:first+most-len(rrs)])
}

// services returns SRV records and the addresses of their targets, in few allocations,
// since every question makes its answer anew.
func (g *Generation) services(rrs []rr, qname string, rotate uint32, octets int) (answer, additional []dns.RR) {
	if len(rrs) == 0 {
		return nil, nil
	}
	first := int(rotate % uint32(len(rrs)))
	n, length := 0, 0
	for n < len(rrs) && n*minService+length <= octets {
		length += g.zone.length(rrs[(first+n)%len(rrs)].target())
		n++
	}
	// One record more: CoreDNS appends the OPT record.
	all := make([]dns.RR, 0, 2*n+1)
	services := make([]serviceRR, n)
	var names strings.Builder
	names.Grow(length)
	for i := range services {
		r := &rrs[(first+i)%len(rrs)]
		start := names.Len()
		g.zone.write(&names, r.target())
		services[i].srv = dns.SRV{Hdr: g.zone.header(qname, dns.TypeSRV), Weight: 1, Port: r.port(), Target: names.String()[start:]}
		all = append(all, &services[i].srv)
	}
	if n == len(rrs) { // else they do not fit
		all = g.appendTargets(all, services, rrs, first)
	}
	return all[:n:n], all[n:]
}

// appendTargets appends the addresses of the services' targets, each target once.
func (g *Generation) appendTargets(to []dns.RR, services []serviceRR, rrs []rr, first int) []dns.RR {
	var many map[string]bool // targets so far, if they are too many to compare
	if len(services) > fewTargets {
		many = make(map[string]bool, len(services))
	}
	for i := range services {
		target := services[i].srv.Target
		if many[target] || many == nil && seen(services[:i], target) {
			continue
		} else if many != nil {
			many[target] = true
		}
		name := rrs[(first+i)%len(rrs)].target()
		for j, a := range g.find(name.Rel).addresses(name.Sub) {
			place := &services[i].address
			if j > 0 && a.text == nil {
				place = new(addressRR)
			}
			to = append(to, g.zone.address(a, target, place))
		}
	}
	return to
}

// fewTargets is the number of targets up to which comparing them all is faster than a map.
const fewTargets = 16

// seen reports whether one of the services has the target.
func seen(before []serviceRR, target string) bool {
	for i := range before {
		if before[i].srv.Target == target {
			return true
		}
	}
	return false
}

// makeRRs returns rrs as records owned by name, or nil for none. They must be of one type,
// except that A and AAAA may be mixed.
func (g *Generation) makeRRs(rrs []rr, name string) []dns.RR {
	if len(rrs) == 0 {
		return nil
	}
	to := make([]dns.RR, 0, len(rrs))
	var v4 []addressRR
	if rrs[0].text == nil {
		v4 = make([]addressRR, len(rrs))
	}
	for i, r := range rrs {
		switch r.kind().typ() {
		case kindPTR:
			to = append(to, &dns.PTR{Hdr: g.zone.header(name, dns.TypePTR), Ptr: *r.text})
		case kindSRV:
			to = append(to, &dns.SRV{Hdr: g.zone.header(name, dns.TypeSRV), Weight: 1, Port: r.port(), Target: g.zone.absolute(r.target())})
		case kindA:
			to = append(to, g.zone.address(r, name, &v4[i]))
		default:
			to = append(to, g.zone.address(r, name, nil))
		}
	}
	return to
}

// address returns r, an A or AAAA record, owned by name. An A record is built in place.
func (z *Zone) address(r rr, name string, place *addressRR) dns.RR {
	if r.text != nil {
		return &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: net.IP(*r.text)}
	}
	binary.BigEndian.PutUint32(place.octets[:], r.value)
	place.a = dns.A{Hdr: z.header(name, dns.TypeA), A: place.octets[:]}
	return &place.a
}

// OfType yields the records of a type that is A, AAAA, SRV or PTR, name by name, in no order.
func (g *Generation) OfType(qtype uint16) iter.Seq2[string, []dns.RR] {
	return func(yield func(string, []dns.RR) bool) {
		for name, rrs := range g.sets {
			if of := ofType(rrs, qtype); len(of) > 0 {
				if owner := g.zone.absolute(name); !yield(owner, g.makeRRs(of, owner)) {
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
			if !yield(g.makeRRs(rrs, g.zone.absolute(name))) {
				return
			}
		}
	}
}
