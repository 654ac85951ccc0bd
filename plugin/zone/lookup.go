package zone

import (
	"encoding/binary"
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
	Records    bool // the name has records, of whatever type
	Answer     []dns.RR
	Additional []dns.RR // the addresses of the targets in Answer
}

// Lookup answers a question for owner, which is relative to the origin. The
// records in Answer carry qname, as it was asked. SRV records begin with the
// one that rotate names, modulo their number, and their addresses follow in
// the same order.
func (g *Generation) Lookup(owner, qname string, qtype uint16, rotate uint32) Result {
	o := g.zone.cut(Name(owner))
	n := g.find(o.Head)
	rrs := n.served(o.Tail)
	r := Result{Records: owner == "" || len(rrs) > 0}
	r.Exists = r.Records || n != nil && n.children(o.Tail) > 0
	if !r.Records {
		return r
	}
	switch qtype {
	case dns.TypeSOA, dns.TypeNS:
		if owner == "" {
			r.Answer, r.Additional = g.apex(qtype)
		}
	case dns.TypeA, dns.TypeAAAA, dns.TypePTR:
		rrs = ofType(rrs, qtype)
		r.Answer = g.makeRRs(rrs[:min(len(rrs), maxAnswer)], qname)
	case dns.TypeSRV:
		r.Answer, r.Additional = g.services(ofType(rrs, qtype), qname, rotate)
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
		o := g.zone.cut(Name(owner))
		additional = g.makeRRs(g.find(o.Head).addresses(o.Tail), g.zone.NS)
	}
	return []dns.RR{g.NS()}, additional
}

// serviceRR is an SRV record and the first address of its target, of which most
// have just one: one allocation for all of an answer's.
type serviceRR struct {
	srv     dns.SRV
	address addressRR
}

// addressRR is an A record and its octets.
type addressRR struct {
	a      dns.A
	octets [net.IPv4len]byte
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
	length := 0
	for i := range rrs {
		length += g.zone.length(rrs[i].target())
	}
	// Most targets have one address. A place more: CoreDNS appends the OPT record.
	all := make([]dns.RR, 0, 2*len(rrs)+1)
	services := make([]serviceRR, len(rrs))
	var names strings.Builder
	names.Grow(length)
	for i := range rrs {
		r := &rrs[(first+i)%len(rrs)]
		start := names.Len()
		g.zone.write(&names, r.target())
		services[i].srv = dns.SRV{Hdr: g.zone.header(qname, dns.TypeSRV), Weight: 1, Port: r.port(), Target: names.String()[start:]}
		all = append(all, &services[i].srv)
	}
	all = g.appendTargets(all, services, rrs, first)
	return all[:len(rrs):len(rrs)], all[len(rrs):]
}

// appendTargets appends the addresses of the targets, each target once.
func (g *Generation) appendTargets(to []dns.RR, services []serviceRR, rrs []rr, first int) []dns.RR {
	var many map[string]bool // the targets before, if they are too many to compare
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
		o := rrs[(first+i)%len(rrs)].target()
		for j, a := range g.find(o.Head).addresses(o.Tail) {
			place := &services[i].address
			if j > 0 && a.text == nil {
				place = new(addressRR)
			}
			to = append(to, g.zone.address(a, target, place))
		}
	}
	return to
}

// fewTargets is up to how many targets are compared with each other.
const fewTargets = 16

// seen reports whether a service before has the target.
func seen(before []serviceRR, target string) bool {
	for i := range before {
		if before[i].srv.Target == target {
			return true
		}
	}
	return false
}

// makeRRs returns rrs, which are of one type but for addresses, as records of the
// name; nil for none.
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
		switch r.kind() &^ standbyBit {
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

// address returns r, an A or AAAA record, as one of the name; an A record in place.
func (z *Zone) address(r rr, name string, place *addressRR) dns.RR {
	if r.text != nil {
		return &dns.AAAA{Hdr: z.header(name, dns.TypeAAAA), AAAA: net.IP(*r.text)}
	}
	binary.BigEndian.PutUint32(place.octets[:], r.value)
	place.a = dns.A{Hdr: z.header(name, dns.TypeA), A: place.octets[:]}
	return &place.a
}

// All yields every record of the zone but the SOA, the records of one name at
// a time and the apex's NS first. Names are yielded in no order.
func (g *Generation) All() iter.Seq[[]dns.RR] {
	return func(yield func([]dns.RR) bool) {
		if !yield([]dns.RR{g.NS()}) {
			return
		}
		for owner, rrs := range g.sets {
			if !yield(g.makeRRs(rrs, g.zone.absolute(owner))) {
				return
			}
		}
	}
}
