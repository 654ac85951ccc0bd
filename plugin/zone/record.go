package zone

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// Record is what a name has: an address, a service or a pointer.
type Record struct {
	typ     uint16
	port    uint16
	data    string // A, AAAA: the address's octets; SRV: owner of the target; PTR: its full name
	standby bool
}

// Address returns an A record, or an AAAA record for an IPv6 address.
func Address(a netip.Addr) Record {
	r := Record{typ: dns.TypeAAAA, data: string(a.AsSlice())}
	if a.Is4() {
		r.typ = dns.TypeA
	}
	return r
}

// Service returns an SRV record of priority 0 and weight 1 (RFC 2782), whose
// target is a name of the same zone, relative to its origin.
func Service(target string, port uint16) Record {
	return Record{typ: dns.TypeSRV, port: port, data: target}
}

// Pointer returns a PTR record. A name has its pointer only as long as exactly
// one is added to it: an address that several share has no name.
func Pointer(target string) Record { return Record{typ: dns.TypePTR, data: target} }

// Standby returns r as a record that is served only while no other record of
// its name is.
func (r Record) Standby() Record {
	r.standby = true
	return r
}

// Target returns the owner that an SRV record points to, relative to the
// origin, and "" for any other record.
func (r Record) Target() string {
	if r.typ != dns.TypeSRV {
		return ""
	}
	return r.data
}

// rr is a Record in a node, and how many have added it: equal records of
// several tasks are one, and go when the last of them goes.
type rr struct {
	data string
	port uint16
	typ  uint16 // with standbyBit
	n    uint32
}

// standbyBit marks a standby record; no type published here has it.
const standbyBit = 1 << 15

func (r Record) rr() rr {
	typ := r.typ
	if r.standby {
		typ |= standbyBit
	}
	return rr{data: r.data, port: r.port, typ: typ, n: 1}
}

func compareRR(a, b rr) int {
	if c := cmp.Compare(a.typ, b.typ); c != 0 {
		return c
	}
	if c := cmp.Compare(a.port, b.port); c != 0 {
		return c
	}
	return cmp.Compare(a.data, b.data)
}

// largeSet is from how many records on a name's records are brought into order
// together, at the end of a transaction, and not one by one.
const largeSet = 256

// merge sorts n's records, makes one of those that are equal, and leaves out
// those that nobody adds any more.
func (n *node) merge() {
	slices.SortFunc(n.rrs, compareRR)
	kept := n.rrs[:0]
	for _, r := range n.rrs {
		last := len(kept) - 1
		switch {
		case last >= 0 && compareRR(kept[last], r) == 0:
			kept[last].n += r.n
		case last >= 0 && kept[last].n == 0:
			kept[last] = r
		default:
			kept = append(kept, r)
		}
	}
	if last := len(kept) - 1; last >= 0 && kept[last].n == 0 {
		kept = kept[:last]
	}
	clear(n.rrs[len(kept):])
	n.rrs = kept
}

// add counts r in n, which belongs to the writer's transaction.
func (n *node) add(r rr) {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if found {
		n.rrs[i].n++
		return
	}
	n.rrs = slices.Insert(n.rrs, i, r)
}

// drop takes back one add of r. It reports whether n is to be merged, to leave
// out a record that nobody adds any more.
func (n *node) drop(r rr) bool {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if !found || n.rrs[i].n == 0 {
		return false
	}
	n.rrs[i].n--
	switch {
	case n.rrs[i].n > 0:
		return false
	case len(n.rrs) >= largeSet:
		return true
	}
	n.rrs = slices.Delete(n.rrs, i, i+1)
	return false
}

// served returns the part of n's records that is published. All of a part are
// standby, or none is.
func (n *node) served() []rr {
	if n == nil {
		return nil
	}
	if len(n.rrs) > 0 && n.rrs[0].typ == dns.TypePTR {
		if len(n.rrs) > 1 || n.rrs[0].n > 1 {
			return nil
		}
		return n.rrs
	}
	active := len(n.rrs)
	for active > 0 && n.rrs[active-1].typ&standbyBit != 0 {
		active--
	}
	if active > 0 {
		return n.rrs[:active]
	}
	return n.rrs
}

// ofType returns the records of the type in rrs, which served returned.
func ofType(rrs []rr, typ uint16) []rr {
	if len(rrs) > 0 {
		typ |= rrs[0].typ & standbyBit
	}
	start := 0
	for start < len(rrs) && rrs[start].typ < typ {
		start++
	}
	end := start
	for end < len(rrs) && rrs[end].typ == typ {
		end++
	}
	return rrs[start:end]
}

// exists reports whether the name of n is in the zone: by its records, or as an
// empty non-terminal (RFC 4592, section 2.2.2).
func (n *node) exists() bool {
	return n != nil && (n.children() > 0 || len(n.served()) > 0)
}
