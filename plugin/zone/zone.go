// Package zone stores the records of a DNS zone.
//
// Readers call Zone.Current and see one Generation, which never changes: its table of
// names, serial and journal all belong to one moment. They take no lock. One writer begins
// a Tx, adds and removes records, and publishes the next Generation by storing one atomic
// pointer. A Tx writes only the pages with names that it changes, and the path to them;
// generations share the rest.
//
// A record that several tasks add is stored once, with the number of additions, so that
// the rules that make records need not know each other. Names above others exist as empty
// non-terminals, which the transaction counts. The serial moves only if an answer has
// changed. With Config.Journal set, each publication leaves a changeset for incremental
// transfers.
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

// Timers of the SOA (RFC 1035, section 3.3.13), in seconds. Secondaries follow NOTIFY; the
// refresh is for those that missed one.
const (
	refresh = 60
	retry   = 10
	expire  = 86400
)

// maxName is the limit of a domain name on the wire, in octets (RFC 1035, section 2.3.4).
const maxName = 255

// Config is what never changes in a zone.
type Config struct {
	Origin  string       // fully qualified, lower case
	TTL     uint32       // of every record, and MINIMUM of the SOA, in seconds
	NS      string       // the name server, fully qualified
	Addrs   []netip.Addr // addresses of NS, published if NS is in this zone
	Nested  []string     // origins of other zones below this one
	Subs    []string     // labels that many names end in, at most three; see Name
	Journal bool         // keep changesets, for ChangesSince
	Dashes  bool         // names are looked up with "-" for each "_" inside a label
	// Kin returns a part of a Rel, which it shares with those that change and are asked for
	// together: they are kept side by side. nil: there are none.
	Kin func(rel string) string
}

// Zone is one zone, for many readers and one writer.
type Zone struct {
	Config
	mbox string // RNAME of the SOA
	seed maphash.Seed
	gen  atomic.Pointer[Generation]

	// Only the writer uses these.
	last     *Generation // what gen points to, once published
	rewriter rewriter
	changes  []change // room for those of the next transaction
	replaced *Zone    // the zone whose place this one takes, until Confirm
	followed []*Zone  // zones whose serials this one must not be behind, until Confirm
}

// New returns a zone with nothing published: Current returns nil.
func New(c Config) *Zone {
	if len(c.Subs) >= subs {
		panic("zone: too many subdomains")
	}
	z := &Zone{Config: c, mbox: Join("hostmaster", c.Origin), seed: maphash.MakeSeed()}
	z.last = &Generation{zone: z}
	tx := z.Begin()
	if rel, ok := z.Relative(c.NS); ok {
		for _, a := range c.Addrs {
			tx.Add(Rel(rel), Address(a))
		}
	}
	for _, origin := range c.Nested {
		if rel, ok := z.Relative(origin); ok {
			// The names between the two origins exist, as they do above records.
			tx.Add(z.parent(z.split(Rel(rel))), Claim())
		}
	}
	tx.apply()
	z.last = tx.next
	return z
}

// Replaces makes z continue old, which may be nil: the first publication of z has a later
// serial than old, or the same if both answer the same. It must be called before that.
func (z *Zone) Replaces(old *Zone) { z.replaced = old }

// Follows makes z have later serials than old, which it does not replace. It must be called
// before the first publication.
func (z *Zone) Follows(old *Zone) { z.followed = append(z.followed, old) }

// follow returns serial, or the latest one of the zones that z follows if that is later.
func (z *Zone) follow(serial uint32) uint32 {
	for _, old := range z.followed {
		if g := old.Current(); g != nil && (serial == 0 || int32(g.serial-serial) > 0) {
			serial = g.serial
		}
	}
	return serial
}

// Confirm tells z that old is gone. If z replaces or follows it, a secondary may have seen one
// serial with either content, or a later one, while both were published. Then z is published
// once more with a serial that old never had. Confirm reports whether that happened.
func (z *Zone) Confirm(old *Zone, now time.Time) bool {
	replaced := z.replaced == old
	if !replaced && !slices.Contains(z.followed, old) {
		return false
	}
	if replaced {
		z.replaced = nil
	}
	z.followed = slices.DeleteFunc(z.followed, func(o *Zone) bool { return o == old })
	before := old.Current()
	if before == nil {
		return false
	}
	next := *z.last
	ahead := int32(before.serial - z.last.serial)
	if z.last.serial == 0 || ahead > 0 {
		next.serial = before.serial
	}
	switch {
	case z.Current() == nil: // the first publication goes on from here
		z.last = &next
		return false
	case ahead < 0 && !replaced, ahead <= 0 && replaced && before.same(z.last):
		return false
	}
	next.serial = nextSerial(next.serial, now)
	next.journal = nil // it starts from here
	z.last = &next
	z.gen.Store(&next)
	return true
}

// Retire drops all records. It is for a zone that is not served any more, and is not used by
// a writer.
func (z *Zone) Retire() {
	z.gen.Store(nil)
	z.last, z.replaced, z.followed = nil, nil, nil
	z.reuse(nil)
}

// Current returns the published generation. It is nil before the first publication, and after
// Retire.
func (z *Zone) Current() *Generation { return z.gen.Load() }

// Relative returns name without the zone's origin, and whether it is in the zone: see the
// function Relative.
func (z *Zone) Relative(name string) (string, bool) { return Relative(name, z.Origin) }

// Relative returns name without origin, and whether it is origin or below it. For origin
// itself that is "". Both names must be fully qualified and in lower case.
func Relative(name, origin string) (string, bool) {
	cut := len(name) - len(origin)
	switch {
	case origin == ".":
		return strings.TrimSuffix(name, "."), true
	case cut == 0 && name == origin:
		return "", true
	case cut > 0 && name[cut-1] == '.' && name[cut:] == origin && !endsInEscape(name[:cut-1]):
		return name[:cut-1], true
	}
	return "", false
}

// endsInEscape reports whether the dot after s is escaped, and so part of a label, in a
// name in presentation form (RFC 1035, section 5.1): `foo\.mesos` is one label.
func endsInEscape(s string) bool {
	slashes := len(s) - len(strings.TrimRight(s, "\\"))
	return slashes%2 == 1
}

// FitsName reports whether a fully qualified name of n characters, without escapes, has at
// most 255 octets on the wire. Each dot stands for the length octet of a label, but the
// first label has one more.
func FitsName(n int) bool { return n+1 <= maxName }

// Join returns rel below origin, a fully qualified name.
func Join(rel, origin string) string {
	switch {
	case rel == "":
		return origin
	case origin == ".":
		return rel + "."
	}
	return rel + "." + origin
}

// Generation is a zone as it was published at one moment. It never changes.
type Generation struct {
	Status
	zone    *Zone
	table   page
	serial  uint32
	records int
	journal []*changeset // the oldest first
}

// same reports whether g and o, a generation of another zone, answer the same.
func (g *Generation) same(o *Generation) bool {
	if !slices.Equal(g.zone.Subs, o.zone.Subs) || g.zone.TTL != o.zone.TTL || g.zone.NS != o.zone.NS || g.records != o.records {
		return false
	}
	for name, rrs := range g.sets {
		if !rrs.sameAs(o.find(name.Rel).of(name.Sub).served()) {
			return false
		}
	}
	return true
}

// sets yields every name that has records, with its records.
func (g *Generation) sets(yield func(Name, sets) bool) {
	for n := range g.table.all {
		for s := range Sub(subs) {
			if rrs := n.of(s).served(); rrs != "" && !yield(Name{n.rel, s}, rrs) {
				return
			}
		}
	}
}

// Serial returns the serial of the SOA.
func (g *Generation) Serial() uint32 { return g.serial }

// Certain reports whether a result is true. A name with records has no others, even in an
// incomplete zone: clients give up on a name if the query for one of its two address types fails.
func (g *Generation) Certain(r *Result) bool {
	if r.Exists && g.Doubtful {
		return r.Records
	}
	return r.Records || g.Complete
}

// Records returns the number of records, SOA and NS included.
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

// nextSerial returns the serial after last. It is the time in hundredths of a second since
// 1970, so that serials grow across restarts, but always later than last in the arithmetic
// of RFC 1982. It is never 0, which many programs take for no serial.
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
