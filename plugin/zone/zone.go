// Package zone keeps the records of a DNS zone. Readers see one immutable
// Generation behind an atomic pointer and take no lock; a writer changes the
// names it touches and publishes the next one.
package zone

import (
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Values of the SOA (RFC 1035, section 3.3.13), in seconds. Secondaries follow
// NOTIFY; the refresh is for those that missed one.
const (
	refresh = 60
	retry   = 10
	expire  = 86400
)

// maxName is how many octets a domain name has at most on the wire (RFC 1035,
// section 2.3.4).
const maxName = 255

// Config is what is fixed in a zone.
type Config struct {
	Origin string       // fully qualified, lower case
	TTL    uint32       // of every record, and MINIMUM of the SOA; seconds
	NS     string       // the name server, fully qualified
	Addrs  []netip.Addr // its addresses, published if NS is in this zone
	Nested []string     // origins of other zones that are inside of this one
	Tails  []string     // labels that many names end with, three at the most; see Owner
	Deltas bool         // changes are kept, for Since
}

// Zone is one zone. Its methods may be called by many readers and one writer.
type Zone struct {
	Config
	mbox string // who is responsible for it, in the SOA
	seed maphash.Seed
	gen  atomic.Pointer[Generation]
	last *Generation // of the writer; what gen points to, once published
	txs  uint32      // of the writer: the number of the last transaction
	old  *Zone       // that this one takes the place of, until Settle
}

// New returns a zone in which nothing is published yet: Current returns nil.
func New(c Config) *Zone {
	if len(c.Tails) >= tails {
		panic("zone: too many tails")
	}
	z := &Zone{Config: c, mbox: Join("hostmaster", c.Origin), seed: maphash.MakeSeed()}
	z.last = &Generation{zone: z}
	tx := z.Begin()
	if owner, ok := z.Relative(c.NS); ok {
		for _, a := range c.Addrs {
			tx.Add(Name(owner), Address(a))
		}
	}
	for _, origin := range c.Nested {
		if owner, ok := z.Relative(origin); ok {
			// The names between the two exist, as if the other zone were records.
			o := z.above(z.cut(Name(owner)))
			tx.own(o.Head).below[o.Tail] += 2
		}
	}
	tx.settle()
	z.last = tx.next
	return z
}

// TakeOver makes z go on where old, which may be nil, is when z is first
// published: with a later serial, or with the same if they hold the same.
func (z *Zone) TakeOver(old *Zone) { z.old = old }

// Settle says that the zone that z takes the place of is gone. Until then both
// were published, and a serial may have stood for what either of them held: if
// they differ, z is published once more, with one that old never had. It reports
// whether it was.
func (z *Zone) Settle(now time.Time) bool {
	old := z.old
	z.old = nil
	if old == nil || old.Current() == nil || z.Current() == nil {
		return false
	}
	before := old.Current()
	behind := int32(before.serial-z.last.serial) > 0
	if before.same(z.last) && !behind {
		return false
	}
	next := *z.last
	if behind {
		next.serial = before.serial
	}
	next.serial = nextSerial(next.serial, now)
	next.history = nil
	z.last = &next
	z.gen.Store(&next)
	return true
}

// Current returns the published generation; nil before the first.
func (z *Zone) Current() *Generation { return z.gen.Load() }

// Relative returns name, which is fully qualified and lower case, without the
// zone's origin ("" is the apex), and whether it is in the zone.
func (z *Zone) Relative(name string) (string, bool) {
	cut := len(name) - len(z.Origin)
	switch {
	case z.Origin == ".":
		return strings.TrimSuffix(name, "."), true
	case cut == 0 && name == z.Origin:
		return "", true
	case cut > 0 && name[cut-1] == '.' && name[cut:] == z.Origin && !endsInEscape(name[:cut-1]):
		return name[:cut-1], true
	}
	return "", false
}

// endsInEscape reports whether what follows s, part of a name in presentation
// form, is escaped (RFC 1035, section 5.1): `foo\.mesos` is one label.
func endsInEscape(s string) bool {
	slashes := len(s) - len(strings.TrimRight(s, "\\"))
	return slashes%2 == 1
}

// FitsName reports whether a fully qualified name of n characters, without
// escapes, has at most 255 octets: its dots stand for the octets of length but
// the first.
func FitsName(n int) bool { return n+1 <= maxName }

// Join returns the full name of owner below origin, which is fully qualified.
func Join(owner, origin string) string {
	switch {
	case owner == "":
		return origin
	case origin == ".":
		return owner + "."
	}
	return owner + "." + origin
}

// Generation is a zone as it was published once. It never changes.
type Generation struct {
	zone     *Zone
	table    table
	serial   uint32
	complete bool
	stale    bool
	records  int
	history  []*delta // the last changes, the oldest first
}

// same reports whether g and o, of another zone, answer the same.
func (g *Generation) same(o *Generation) bool {
	if !slices.Equal(g.zone.Tails, o.zone.Tails) || g.zone.TTL != o.zone.TTL || g.zone.NS != o.zone.NS || g.records != o.records {
		return false
	}
	for owner, rrs := range g.sets {
		if !sameRecords(rrs, o.find(owner.Head).served(owner.Tail)) {
			return false
		}
	}
	return true
}

// sets yields every owner that has records, and these.
func (g *Generation) sets(yield func(Owner, []rr) bool) {
	for n := range g.table.all {
		for t := range Tail(tails) {
			if rrs := n.served(t); len(rrs) > 0 && !yield(Owner{n.head, t}, rrs) {
				return
			}
		}
	}
}

// Serial returns the serial of the SOA.
func (g *Generation) Serial() uint32 { return g.serial }

// Complete reports whether a name that is not in the zone does not exist; in an
// incomplete generation nothing can be said of it.
func (g *Generation) Complete() bool { return g.complete }

// Stale reports whether the generation is not the masters' own word.
func (g *Generation) Stale() bool { return g.stale }

// Records returns how many records the zone has, SOA and NS included.
func (g *Generation) Records() int { return g.records + 2 }

// SOA returns the zone's SOA record.
func (g *Generation) SOA() dns.RR {
	z := g.zone
	return &dns.SOA{
		Hdr:    z.header(z.Origin, dns.TypeSOA),
		Ns:     z.NS,
		Mbox:   z.mbox,
		Serial: g.serial, Refresh: refresh, Retry: retry, Expire: expire, Minttl: z.TTL,
	}
}

// NS returns the zone's NS record.
func (g *Generation) NS() dns.RR {
	z := g.zone
	return &dns.NS{Hdr: z.header(z.Origin, dns.TypeNS), Ns: z.NS}
}

func (z *Zone) header(owner string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: typ, Class: dns.ClassINET, Ttl: z.TTL}
}

// nextSerial returns the serial after last: hundredths of a second since 1970,
// so that it survives a restart, but more than last in the arithmetic of
// RFC 1982, and never 0, which stands for "none" in many programs.
func nextSerial(last uint32, now time.Time) uint32 {
	serial := uint32(now.UnixMilli() / 10)
	if last != 0 && int32(serial-last) <= 0 {
		serial = last + 1
	}
	if serial == 0 {
		serial = 1
	}
	return serial
}
