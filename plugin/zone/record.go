package zone

import (
	"cmp"
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// kind is the type of a record, with standbyBit. The records of an owner are in the
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
	added uint32 // how often it was added, times addedOne; the Tail of its owner, times tailOne; and its kind
}

// What stands for one in rr.added.
const (
	tailOne  = 2 * uint32(standbyBit)
	addedOne = tailOne * tails
)

func (r *rr) kind() kind { return kind(r.added % tailOne) }

func (r *rr) tail() Tail { return Tail(r.added / tailOne % tails) }

func (r *rr) times() uint32 { return r.added / addedOne }

func (r *rr) port() uint16 { return uint16(r.value >> 16) }

// target returns the owner that an SRV record points to.
func (r *rr) target() Owner { return Owner{*r.text, Tail(r.value)} }

// compareRR orders records by the tails of their owners, and by what they are; how
// often they were added does not matter.
func compareRR(a, b rr) int {
	if c := cmp.Compare(a.added%addedOne, b.added%addedOne); c != 0 {
		return c
	}
	return compareData(a, b)
}

// compareServed compares records of one owner as they are answered, standby or not.
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
