package zone

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// kind is the type of a record, and backupBit. The records of a name are sorted by kind.
// There is room for eight types.
type kind uint8

const (
	kindA kind = iota
	kindAAAA
	kindSRV
	kindPTR
)

// backupBit is set in the kind of a backup record.
const backupBit kind = 1 << 3

// typ returns k without backupBit.
func (k kind) typ() kind { return k &^ backupBit }

// Record is the data of a resource record: an address, a service or a pointer.
type Record struct {
	kind  kind
	value uint32 // A: the address; SRV: the port and the target's Sub
	text  string // AAAA: the 16 octets of the address; SRV: the target's Rel; PTR: the fully qualified target
}

// Address returns an A record, or an AAAA record for an IPv6 address.
func Address(a netip.Addr) Record {
	if a.Is4() {
		octets := a.As4()
		return Record{kind: kindA, value: binary.BigEndian.Uint32(octets[:])}
	}
	return Record{kind: kindAAAA, text: string(a.AsSlice())}
}

// Service returns an SRV record of priority 0 and weight 1 (RFC 2782). Its target is a
// name of the same zone.
func Service(target Name, port uint16) Record {
	return Record{kind: kindSRV, value: uint32(port)<<16 | uint32(target.Sub), text: target.Rel}
}

// Pointer returns a PTR record. A name answers with its pointer only while exactly one of its
// pointers is served: an address that several tasks share has no name.
func Pointer(target string) Record { return Record{kind: kindPTR, text: target} }

// Backup returns r as a record that is served only while all records of its name are
// backups.
func (r Record) Backup() Record {
	r.kind |= backupBit
	return r
}

// IsBackup reports whether r is a backup record.
func (r Record) IsBackup() bool { return r.kind&backupBit != 0 }

// Target returns the name that an SRV record points to. Of any other record it is the
// apex.
func (r Record) Target() Name {
	if r.kind.typ() != kindSRV {
		return Name{}
	}
	return Name{r.text, Sub(r.value)}
}

// Pointed returns the fully qualified name that a PTR record points to.
func (r Record) Pointed() string { return r.text }

// rr is a Record as a node keeps it, with the number of times that it was added: tasks
// that add equal records share one, and it goes when the last of them removes it.
type rr struct {
	text  *string // nil for an A record
	value uint32
	added uint32 // from the low bits up: kind, Sub of the record's name, number of additions
}

// The units of the fields packed into rr.added.
const (
	subUnit   = 2 * uint32(backupBit)
	timesUnit = subUnit * subs
)

func (r *rr) kind() kind { return kind(r.added % subUnit) }

func (r *rr) sub() Sub { return Sub(r.added / subUnit % subs) }

func (r *rr) times() uint32 { return r.added / timesUnit }

func (r *rr) port() uint16 { return uint16(r.value >> 16) }

// target returns the name that an SRV record points to.
func (r *rr) target() Name { return Name{*r.text, Sub(r.value)} }

// compareRR orders the records of a node: by the Sub of their names, then by kind and
// data. The number of additions does not matter.
func compareRR(a, b rr) int {
	if c := cmp.Compare(a.added%timesUnit, b.added%timesUnit); c != 0 {
		return c
	}
	return compareData(a, b)
}

// compareServed orders the records of one name as they are answered, backup or not.
func compareServed(a, b rr) int {
	if c := cmp.Compare(a.kind().typ(), b.kind().typ()); c != 0 {
		return c
	}
	return compareData(a, b)
}

// compareData compares records of one type. Either both have a text, or neither has.
func compareData(a, b rr) int {
	if c := cmp.Compare(a.value, b.value); c != 0 || a.text == b.text {
		return c
	}
	return cmp.Compare(*a.text, *b.text)
}

// ofType returns the records of an A, AAAA, SRV or PTR query from rrs, a result of served.
func ofType(rrs []rr, typ uint16) []rr {
	if len(rrs) == 0 {
		return nil
	}
	k := rrs[0].kind() & backupBit
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

// Fits reports whether a record of a name fits into the zone: names have at most 255 octets.
func (z *Zone) Fits(name Name, r Record) bool { return z.fits(name) && z.fits(r.Target()) }

// RR returns a record of a name in the zone, or nil if it does not fit.
func (z *Zone) RR(name Name, r Record) dns.RR {
	if !z.Fits(name, r) {
		return nil
	}
	hdr := z.header(z.absolute(name), r.kind.typ().qtype())
	switch r.kind.typ() {
	case kindA:
		return &dns.A{Hdr: hdr, A: binary.BigEndian.AppendUint32(nil, r.value)}
	case kindAAAA:
		return &dns.AAAA{Hdr: hdr, AAAA: net.IP(r.text)}
	case kindSRV:
		return &dns.SRV{Hdr: hdr, Weight: 1, Port: uint16(r.value >> 16), Target: z.absolute(r.Target())}
	}
	return &dns.PTR{Hdr: hdr, Ptr: r.text}
}

// qtype returns the type of a record in DNS.
func (k kind) qtype() uint16 {
	return [...]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR}[k]
}
