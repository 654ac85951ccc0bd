package zone

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/miekg/dns"
)

// kind is the type of a record, with standbyBit. The records of a name are in the
// order of their kinds.
type kind uint8

const (
	kindA kind = iota
	kindAAAA
	kindSRV
	kindPTR
)

// standbyBit is set in the kind of a standby record.
const standbyBit kind = 1 << 2

// Record is what a name has: an address, a service or a pointer.
type Record struct {
	kind  kind
	value uint32 // A: the address; SRV: the port, and the Tail of the target
	text  string // AAAA: the address's octets; SRV: the head of the target; PTR: its full name
}

// Address returns an A record, or an AAAA record for an IPv6 address.
func Address(a netip.Addr) Record {
	if a.Is4() {
		octets := a.As4()
		return Record{kind: kindA, value: binary.BigEndian.Uint32(octets[:])}
	}
	return Record{kind: kindAAAA, text: string(a.AsSlice())}
}

// Service returns an SRV record of priority 0 and weight 1 (RFC 2782), whose
// target is a name of the same zone.
func Service(target Owner, port uint16) Record {
	return Record{kind: kindSRV, value: uint32(port)<<16 | uint32(target.Tail), text: target.Head}
}

// Pointer returns a PTR record. A name has its pointer only as long as exactly
// one is added to it: an address that several share has no name.
func Pointer(target string) Record { return Record{kind: kindPTR, text: target} }

// Standby returns r as a record that is served only while no other record of
// its name is.
func (r Record) Standby() Record {
	r.kind |= standbyBit
	return r
}

// Target returns the owner that an SRV record points to, and the apex for any
// other record.
func (r Record) Target() Owner {
	if r.kind&^standbyBit != kindSRV {
		return Owner{}
	}
	return Owner{r.text, Tail(r.value)}
}

// rr is a Record in a node, and how many have added it: equal records of
// several tasks are one, and go when the last of them goes.
type rr struct {
	text  *string // nil for an A record
	value uint32
	added uint32 // how often it was added, times addedOne; and its kind
}

// addedOne is one in rr.added.
const addedOne = 1 << 3

func (r *rr) kind() kind { return kind(r.added % addedOne) }

func (r *rr) times() uint32 { return r.added / addedOne }

func (r *rr) port() uint16 { return uint16(r.value >> 16) }

// target returns the owner that an SRV record points to.
func (r *rr) target() Owner { return Owner{*r.text, Tail(r.value)} }

// compareRR orders records by what they are; how often they were added does not
// matter.
func compareRR(a, b rr) int {
	if c := cmp.Compare(a.kind(), b.kind()); c != 0 {
		return c
	}
	return compareData(a, b)
}

// compareServed compares records as they are answered, standby or not.
func compareServed(a, b rr) int {
	if c := cmp.Compare(a.kind()&^standbyBit, b.kind()&^standbyBit); c != 0 {
		return c
	}
	return compareData(a, b)
}

// compareData compares records of one type: all have a text, or none has.
func compareData(a, b rr) int {
	if c := cmp.Compare(a.value, b.value); c != 0 || a.text == b.text {
		return c
	}
	return cmp.Compare(*a.text, *b.text)
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
			kept[last].added += r.times() * addedOne
		case last >= 0 && kept[last].times() == 0:
			kept[last] = r
		default:
			kept = append(kept, r)
		}
	}
	if last := len(kept) - 1; last >= 0 && kept[last].times() == 0 {
		kept = kept[:last]
	}
	clear(n.rrs[len(kept):])
	n.rrs = kept
}

// add counts r in n, which belongs to the writer's transaction.
func (n *node) add(r rr) {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if found {
		n.rrs[i].added += addedOne
		return
	}
	if len(n.rrs) == cap(n.rrs) { // most sets are small and do not grow: leave little room
		n.rrs = append(make([]rr, 0, len(n.rrs)+len(n.rrs)/8+1), n.rrs...)
	}
	n.rrs = slices.Insert(n.rrs, i, r)
}

// drop takes back one add of r. It reports whether n is to be merged, to leave
// out a record that nobody adds any more.
func (n *node) drop(r rr) bool {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if !found || n.rrs[i].times() == 0 {
		return false
	}
	n.rrs[i].added -= addedOne
	switch {
	case n.rrs[i].times() > 0:
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
	if len(n.rrs) > 0 && n.rrs[0].kind() == kindPTR {
		if len(n.rrs) > 1 || n.rrs[0].times() > 1 {
			return nil
		}
		return n.rrs
	}
	active := len(n.rrs)
	for active > 0 && n.rrs[active-1].kind()&standbyBit != 0 {
		active--
	}
	if active > 0 {
		return n.rrs[:active]
	}
	return n.rrs
}

// ofType returns the records of the type, one of those that there are, in rrs,
// which served returned.
func ofType(rrs []rr, typ uint16) []rr {
	if len(rrs) == 0 {
		return nil
	}
	k := rrs[0].kind() & standbyBit
	switch typ {
	case dns.TypeA:
		k |= kindA
	case dns.TypeAAAA:
		k |= kindAAAA
	case dns.TypeSRV:
		k |= kindSRV
	case dns.TypePTR:
		k |= kindPTR
	}
	start := 0
	for start < len(rrs) && rrs[start].kind() < k {
		start++
	}
	end := start
	for end < len(rrs) && rrs[end].kind() == k {
		end++
	}
	return rrs[start:end]
}

// addresses returns the A and AAAA records of n, which may be nil.
func (n *node) addresses() []rr {
	rrs := n.served()
	end := 0
	for end < len(rrs) && rrs[end].kind()&^standbyBit <= kindAAAA {
		end++
	}
	return rrs[:end]
}

// exists reports whether the name of n is in the zone: by its records, or as an
// empty non-terminal (RFC 4592, section 2.2.2).
func (n *node) exists() bool {
	return n != nil && (n.children() > 0 || len(n.served()) > 0)
}
