package zone

import (
	"cmp"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// class is what the records of a set have in common. From the low bits up: the Sub of an SRV
// record's target (two bits), the type (two), backup, below, and the Sub of the owner (two).
type class uint8

const (
	typeA class = iota << 2
	typeAAAA
	typeSRV
	typePTR
)

const (
	typeMask         = typePTR
	targetMask       = subs - 1
	backup     class = 1 << 4 // a record that is served only while all records of its name are backups
	below      class = 1 << 5 // a claim; each name that stands directly below counts as one
	subShift         = 6
	anyClass   class = 1<<subShift - 1 // all but the Sub of the owner
)

// of returns the class that c has at a name with the given Sub.
func (c class) of(s Sub) class { return c | class(s)<<subShift }

// targetSub returns the Sub of an SRV record's target.
func (c class) targetSub() Sub { return Sub(c & targetMask) }

// qtypes are the types in DNS, in the order of classes.
var qtypes = [...]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypePTR}

func (c class) qtype() uint16 { return qtypes[c&typeMask/typeAAAA] }

// classOf returns the class of the records of one of qtypes.
func classOf(qtype uint16) class { return class(slices.Index(qtypes[:], qtype)) * typeAAAA }

// Record is the data of a resource record: an address, a service or a pointer.
type Record struct {
	class class
	value uint32 // A: the address; SRV: the port
	text  string // AAAA: the 16 octets of the address; SRV: the target's Rel; PTR: the fully qualified target
}

// Address returns an A record, or an AAAA record for an IPv6 address.
func Address(a netip.Addr) Record {
	if a.Is4() {
		octets := a.As4()
		return Record{class: typeA, value: binary.BigEndian.Uint32(octets[:])}
	}
	return Record{class: typeAAAA, text: string(a.AsSlice())}
}

// Service returns an SRV record of priority 0 and weight 1 (RFC 2782). Its target is a
// name of the same zone.
func Service(target Name, port uint16) Record {
	return Record{class: typeSRV | class(target.Sub), value: uint32(port), text: target.Rel}
}

// Pointer returns a PTR record. A name answers with its pointer only while exactly one of its
// pointers is served: an address that several tasks share has no name.
func Pointer(target string) Record { return Record{class: typePTR, text: target} }

// Claim returns a record that only makes its name exist.
func Claim() Record { return Record{class: below} }

// Backup returns r as a record that is served only while all records of its name are
// backups.
func (r Record) Backup() Record {
	r.class |= backup
	return r
}

// IsBackup reports whether r is a backup record.
func (r Record) IsBackup() bool { return r.class&backup != 0 }

// Target returns the name that an SRV record points to. Of any other record it is the
// apex.
func (r Record) Target() Name {
	if r.class&typeMask != typeSRV {
		return Name{}
	}
	return Name{r.text, r.class.targetSub()}
}

// Pointed returns the fully qualified name that a PTR record points to.
func (r Record) Pointed() string { return r.text }

// Fits reports whether a record of a name fits into the zone: names have at most 255 octets.
func (z *Zone) Fits(name Name, r Record) bool {
	return z.fits(name) && z.fits(r.Target()) && (r.class&typeMask != typePTR || FitsName(len(r.text)))
}

// RR returns a record of a name in the zone, or nil if it does not fit or is a claim.
func (z *Zone) RR(name Name, r Record) dns.RR {
	if r.class&below != 0 || !z.Fits(name, r) {
		return nil
	}
	return z.rr("", rr{string(appendData(nil, "", r)), 1, r.class}, z.absolute(name), nil)
}

// appendData appends the data of r in the form in which a zone keeps it. Equal records of a name
// have equal data: the address, or the length (1 octet) and the target of a pointer. A service is start,
// prefix, suffix and length (1 each), a text, and the port (2): the target's Rel is prefix octets of the
// owner's from start on, the text, and the last suffix octets of the owner's. Of
// nginx-abcde-s1.marathon, the target of _nginx._tcp.marathon, that leaves -abcde-s1.
func appendData(to []byte, owner string, r Record) []byte {
	switch r.class & (typeMask | below) {
	case below:
		return to
	case typeA:
		return binary.BigEndian.AppendUint32(to, r.value)
	case typeSRV:
		start, prefix, suffix := common(owner, r.text)
		text := r.text[prefix : len(r.text)-suffix]
		to = append(append(to, byte(start), byte(prefix), byte(suffix), byte(len(text))), text...)
		return binary.BigEndian.AppendUint16(to, uint16(r.value))
	case typePTR:
		to = append(to, byte(len(r.text)))
	}
	return append(to, r.text...)
}

// size returns the number of octets of the data that s begins with.
func (c class) size(s string) int {
	switch {
	case c&below != 0:
		return 0
	case c&typeMask == typeA:
		return net.IPv4len
	case c&typeMask == typeAAAA:
		return net.IPv6len
	case c&typeMask == typeSRV:
		return srvHead + int(s[srvHead-1]) + srvTail
	}
	return 1 + int(s[0])
}

const srvHead, srvTail = 4, 2 // octets of an SRV record before the text, and after

// common returns how much the target of an SRV record shares with its owner: at the end, and with what
// the owner has from start on, which is its beginning or follows an underscore.
func common(owner, target string) (start, prefix, suffix int) {
	for suffix < min(len(owner), len(target)) && owner[len(owner)-1-suffix] == target[len(target)-1-suffix] {
		suffix++
	}
	rest := target[:len(target)-suffix]
	for i := range owner {
		if i > 0 && owner[i-1] != '_' {
			continue
		}
		n := 0
		for n < min(len(owner)-i, len(rest)) && owner[i+n] == rest[n] {
			n++
		}
		if n > prefix {
			start, prefix = i, n
		}
	}
	return start, prefix, suffix
}

// rr is a record as a zone keeps it, with the number of times that it was added: tasks that
// add equal records share one, and it goes when the last of them removes it.
type rr struct {
	data  string
	times int32
	class class
}

func (r rr) port() uint16 {
	end := len(r.data)
	return uint16(r.data[end-2])<<8 | uint16(r.data[end-1])
}

// target returns the parts of the Rel of an SRV record's target.
func (r rr) target(owner string) (prefix, text, suffix string) {
	start := int(r.data[0])
	return owner[start : start+int(r.data[1])], r.data[srvHead : len(r.data)-srvTail], owner[len(owner)-int(r.data[2]):]
}

// targetLength returns the number of characters in the Rel of an SRV record's target.
func (r rr) targetLength() int {
	return int(r.data[1]) + int(r.data[2]) + len(r.data) - srvHead - srvTail
}

// compare orders the records of a Rel. The number of additions does not matter.
func (r rr) compare(o rr) int {
	if r.class != o.class {
		return cmp.Compare(r.class, o.class)
	}
	return strings.Compare(r.data, o.data)
}

// compareServed orders the records of one name as they are answered, backups or not.
func (r rr) compareServed(o rr) int {
	r.class, o.class = r.class&^backup, o.class&^backup
	return r.compare(o)
}
