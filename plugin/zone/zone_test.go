package zone

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"

	"github.com/miekg/dns"
)

var (
	now  = time.Unix(1_800_000_000, 0)
	addr = netip.MustParseAddr
)

func newZone(origin string) *Zone {
	return New(Config{Origin: origin, TTL: 5, NS: Join("ns1", origin), Addrs: []netip.Addr{addr("127.0.0.1")}, Subs: []string{"f", "a", "b"}})
}

// text is the zone as sorted lines, without its SOA.
func text(g *Generation) []string {
	var all []string
	for rrs := range g.All() {
		for _, rr := range rrs {
			all = append(all, rr.String())
		}
	}
	slices.Sort(all)
	return all
}

func TestLookup(t *testing.T) {
	z := newZone("mesos.")
	tx := z.Begin()
	tx.Add(Rel("nginx.marathon"), Address(addr("192.0.2.1")))
	tx.Add(Rel("nginx.marathon"), Address(addr("192.0.2.2")))
	tx.Add(Rel("nginx.marathon"), Address(addr("2001:db8::1")))
	tx.Add(Rel("_nginx._tcp.marathon"), Service(Rel("nginx.marathon"), 80))
	tx.Add(Rel("_nginx._tcp.marathon"), Service(Rel("nginx.marathon"), 81))
	tx.Publish(now, Status{Complete: true})

	for _, tc := range []struct {
		owner      string
		qtype      uint16
		exists     bool
		answer     string
		additional string
	}{
		{"nginx.marathon", dns.TypeA, true, "192.0.2.1 192.0.2.2", ""},
		{"nginx.marathon", dns.TypeAAAA, true, "2001:db8::1", ""},
		{"nginx.marathon", dns.TypeSRV, true, "", ""},
		{"nginx.marathon", dns.TypeTXT, true, "", ""},
		{"nginx.marathon", dns.TypeANY, true, `"RFC8482" ""`, ""},
		{"_nginx._tcp.marathon", dns.TypeSRV, true, "0 1 80 nginx.marathon.mesos. 0 1 81 nginx.marathon.mesos.", "192.0.2.1 192.0.2.2 2001:db8::1"},
		{"_tcp.marathon", dns.TypeA, true, "", ""},
		{"marathon", dns.TypeA, true, "", ""},
		{"other", dns.TypeA, false, "", ""},
		{"x.nginx.marathon", dns.TypeA, false, "", ""},
		{"ginx.marathon", dns.TypeA, false, "", ""},
		{"ns1", dns.TypeA, true, "127.0.0.1", ""},
		{"", dns.TypeNS, true, "ns1.mesos.", "127.0.0.1"},
		{"", dns.TypeSOA, true, fmt.Sprintf("ns1.mesos. hostmaster.mesos. %d 60 10 86400 5", z.Current().Serial()), ""},
		{"", dns.TypeA, true, "", ""},
	} {
		r := z.Current().Lookup(tc.owner, tc.owner+".mesos.", tc.qtype, 0, maxAnswer)
		if r.Exists != tc.exists || data(r.Answer) != tc.answer || data(r.Additional) != tc.additional {
			t.Errorf("%q %s: exists %v, answer %q, additional %q", tc.owner, dns.TypeToString[tc.qtype], r.Exists, data(r.Answer), data(r.Additional))
		}
	}
}

func data(rrs []dns.RR) string {
	var all []string
	for _, rr := range rrs {
		all = append(all, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return strings.Join(all, " ")
}

func TestServicesRotate(t *testing.T) {
	z := newZone("mesos.")
	tx := z.Begin()
	for i := range 3 {
		owner := fmt.Sprintf("t%d.f", i)
		tx.Add(Rel(owner), Address(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
		tx.Add(Rel("_t._tcp.f"), Service(Rel(owner), 80))
	}
	tx.Publish(now, Status{Complete: true})
	firsts := make(map[string]bool)
	for rotate := range uint32(3) {
		r := z.Current().Lookup("_t._tcp.f", "_t._tcp.f.mesos.", dns.TypeSRV, rotate, maxAnswer)
		first := r.Answer[0].(*dns.SRV).Target
		firsts[first] = true
		if len(r.Answer) != 3 || len(r.Additional) != 3 || r.Additional[0].Header().Name != first {
			t.Errorf("rotated by %d: %v, additional %v", rotate, r.Answer, r.Additional)
		}
	}
	if len(firsts) != 3 {
		t.Errorf("first targets are %v", firsts)
	}
}

// TestShared covers records that several tasks add, backups, and pointers.
func TestShared(t *testing.T) {
	a, b := Address(addr("192.0.2.1")), Address(addr("192.0.2.2"))
	ptr := Pointer("a.mesos.")
	type op struct {
		add   bool
		owner string
		r     Record
	}
	for name, tc := range map[string]struct {
		ops  []op
		want string // of A and PTR at "x"
	}{
		"added twice, removed once":  {[]op{{true, "x", a}, {true, "x", a}, {false, "x", a}}, "192.0.2.1"},
		"added twice, removed twice": {[]op{{true, "x", a}, {true, "x", a}, {false, "x", a}, {false, "x", a}}, ""},
		"never added":                {[]op{{false, "x", a}}, ""},
		"standby alone":              {[]op{{true, "x", a.Backup()}}, "192.0.2.1"},
		"standby beside another":     {[]op{{true, "x", a.Backup()}, {true, "x", b}}, "192.0.2.2"},
		"standby when the other goes": {
			[]op{{true, "x", a.Backup()}, {true, "x", b}, {false, "x", b}}, "192.0.2.1",
		},
		"standby beside its equal":          {[]op{{true, "x", a.Backup()}, {true, "x", a}}, "192.0.2.1"},
		"one pointer":                       {[]op{{true, "x", ptr}}, "a.mesos."},
		"two equal pointers":                {[]op{{true, "x", ptr}, {true, "x", ptr}}, ""},
		"two pointers":                      {[]op{{true, "x", ptr}, {true, "x", Pointer("b.mesos.")}}, ""},
		"a pointer beside a standby":        {[]op{{true, "x", Pointer("b.mesos.").Backup()}, {true, "x", ptr}}, "a.mesos."},
		"a standby pointer":                 {[]op{{true, "x", ptr.Backup()}}, "a.mesos."},
		"two pointers beside a standby":     {[]op{{true, "x", Pointer("c.mesos.").Backup()}, {true, "x", ptr}, {true, "x", Pointer("b.mesos.")}}, ""},
		"two standby pointers":              {[]op{{true, "x", ptr.Backup()}, {true, "x", Pointer("b.mesos.").Backup()}}, ""},
		"one of two pointers removed again": {[]op{{true, "x", ptr}, {true, "x", ptr}, {false, "x", ptr}}, "a.mesos."},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone("mesos.")
			for _, o := range tc.ops {
				tx := z.Begin()
				if o.add {
					tx.Add(Rel(o.owner), o.r)
				} else {
					tx.Remove(Rel(o.owner), o.r)
				}
				tx.Publish(now, Status{Complete: true})
			}
			got := data(z.Current().Lookup("x", "x.mesos.", dns.TypeA, 0, maxAnswer).Answer) + data(z.Current().Lookup("x", "x.mesos.", dns.TypePTR, 0, maxAnswer).Answer)
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if exists := z.Current().Lookup("x", "x.mesos.", dns.TypeTXT, 0, maxAnswer).Exists; exists != (tc.want != "") {
				t.Errorf("exists is %v", exists)
			}
		})
	}
}

func TestSerial(t *testing.T) {
	for _, tc := range []struct {
		last uint32
		at   time.Time
		want uint32
	}{
		{0, time.UnixMilli(12345), 1234},
		{1234, time.UnixMilli(12345), 1235},
		{1000, time.UnixMilli(12345), 1234},
		{2000, time.UnixMilli(12345), 2001},
		{1<<32 - 1, time.UnixMilli(1), 1},
		{1<<32 - 5, time.UnixMilli(100), 10},
		{0, time.UnixMilli(10 << 32), 1},
		{1234, time.UnixMilli(12345 + 10<<31 + 10), 1235}, // half of the circle away is not "greater"
	} {
		if got := nextSerial(tc.last, tc.at); got != tc.want {
			t.Errorf("after %d at %v: %d, want %d", tc.last, tc.at.UnixMilli(), got, tc.want)
		}
	}
}

// TestSerialMovesWithAnswers publishes changes, and changes that change nothing.
func TestSerialMovesWithAnswers(t *testing.T) {
	z := newZone("mesos.")
	a := Address(addr("192.0.2.1"))
	for _, step := range []struct {
		name   string
		change func(tx *Tx)
		moves  bool
	}{
		{"first, empty", func(*Tx) {}, true},
		{"nothing", func(*Tx) {}, false},
		{"a record", func(tx *Tx) { tx.Add(Rel("x"), a) }, true},
		{"the same record again", func(tx *Tx) { tx.Add(Rel("x"), a) }, false},
		{"one of two removed", func(tx *Tx) { tx.Remove(Rel("x"), a) }, false},
		{"replaced by its equal", func(tx *Tx) { tx.Remove(Rel("x"), a); tx.Add(Rel("x"), a) }, false},
		{"replaced by a standby", func(tx *Tx) { tx.Remove(Rel("x"), a); tx.Add(Rel("x"), a.Backup()) }, false},
		{"removed", func(tx *Tx) { tx.Remove(Rel("x"), a.Backup()) }, true},
		{"added and removed", func(tx *Tx) { tx.Add(Rel("y"), a); tx.Remove(Rel("y"), a) }, false},
	} {
		var before uint32
		if g := z.Current(); g != nil {
			before = g.Serial()
		}
		tx := z.Begin()
		step.change(tx)
		moved := tx.Publish(now, Status{Complete: true})
		if moved != step.moves || (z.Current().Serial() != before) != step.moves {
			t.Errorf("%s: moved %v, serial %d to %d", step.name, moved, before, z.Current().Serial())
		}
	}
}

// TestKin keeps names of a kin side by side.
func TestKin(t *testing.T) {
	config := newZone("mesos.").Config
	config.Kin = func(rel string) string { return strings.TrimRight(rel, "0123456789") }
	z := New(config)
	place := func(rel string) uint32 { return z.tag(rel) >> (bits - kinBits) }
	if place("a1") != place("a2") || place("a1") == place("b1") || z.tag("a1") == z.tag("a2") {
		t.Errorf("tags %x %x %x", z.tag("a1"), z.tag("a2"), z.tag("b1"))
	}
}

// TestSerial_Batches takes records back and adds them again, more than are applied at once.
func TestSerial_Batches(t *testing.T) {
	z := newZone("mesos.")
	all := func(apply func(Name, Record) bool) {
		for i := range batch {
			apply(Rel(fmt.Sprintf("t%d", i)), Address(addr("192.0.2.1")))
		}
	}
	tx := z.Begin()
	all(tx.Add)
	tx.Publish(now, Status{Complete: true})
	tx = z.Begin()
	all(tx.Remove)
	all(tx.Add)
	if tx.Publish(now, Status{Complete: true}) {
		t.Error("the serial has moved, though nothing has changed")
	}
	tx = z.Begin()
	all(tx.Remove)
	all(tx.Add)
	tx.Add(Rel("more"), Address(addr("192.0.2.1")))
	if !tx.Publish(now, Status{Complete: true}) || z.Current().Records() != batch+4 {
		t.Errorf("the serial has not moved, %d records", z.Current().Records())
	}
}

func TestNamesThatDoNotFit(t *testing.T) {
	z := newZone("mesos.")
	long := strings.Repeat("a.", 121) + "bbbbb" // with .mesos. 254 characters: 255 octets
	tx := z.Begin()
	if !tx.Add(Rel(long), Address(addr("192.0.2.1"))) || tx.Add(Rel(long+"b"), Address(addr("192.0.2.1"))) {
		t.Error("the limit is not 255 octets")
	}
	if tx.Add(Rel("x"), Service(Rel(long+"b"), 80)) {
		t.Error("a target that is too long was taken")
	}
	tx.Publish(now, Status{Complete: true})
	for rrs := range z.Current().All() {
		for _, rr := range rrs {
			if _, err := dns.PackRR(rr, make([]byte, 512), 0, nil, false); err != nil {
				t.Errorf("%s: %v", rr, err)
			}
		}
	}
}

// TestSubs asks for names that end with a label that is kept once, and for those
// labels' own names.
func TestSubs(t *testing.T) {
	z := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Subs: []string{"slave"}})
	tx := z.Begin()
	tx.Add(Name{Rel: "a.f", Sub: 1}, Address(addr("192.0.2.1")))
	tx.Add(Rel("b.f.slave"), Address(addr("192.0.2.2")))
	tx.Add(Name{Sub: 1}, Address(addr("192.0.2.3")))
	tx.Add(Rel("slave"), Address(addr("192.0.2.4")))
	tx.Add(Rel("s"), Service(Rel("a.f.slave"), 80))
	tx.Add(Rel("s"), Service(Name{Rel: "a.f", Sub: 1}, 80))
	tx.Publish(now, Status{Complete: true})
	for owner, want := range map[string]string{
		"a.f.slave": "192.0.2.1", "b.f.slave": "192.0.2.2", "slave": "192.0.2.3 192.0.2.4", "f.slave": "", "a.f": "nope", "x.slave": "nope",
	} {
		r := z.Current().Lookup(owner, owner+".mesos.", dns.TypeA, 0, maxAnswer)
		if r.Exists != (want != "nope") || r.Exists && data(r.Answer) != want {
			t.Errorf("%s: exists: %v, %q", owner, r.Exists, data(r.Answer))
		}
	}
	if r := z.Current().Lookup("s", "s.mesos.", dns.TypeSRV, 0, maxAnswer); data(r.Answer) != "0 1 80 a.f.slave.mesos." || data(r.Additional) != "192.0.2.1" {
		t.Errorf("SRV: %q, %q", data(r.Answer), data(r.Additional))
	}
	z = New(Config{Origin: "mesos.", NS: "ns1.slave.mesos.", Addrs: []netip.Addr{addr("192.0.2.5")}, Subs: []string{"slave"}})
	z.Begin().Publish(now, Status{Complete: true})
	if r := z.Current().Lookup("", "mesos.", dns.TypeNS, 0, maxAnswer); data(r.Answer) != "ns1.slave.mesos." || data(r.Additional) != "192.0.2.5" {
		t.Errorf("NS: %q, %q", data(r.Answer), data(r.Additional))
	}
}

// TestNew_TooManySubs makes a zone with more tails than records have room to tell.
func TestNew_TooManySubs(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a zone of four tails")
		}
	}()
	New(Config{Origin: "mesos.", NS: "ns1.mesos.", Subs: []string{"a", "b", "c", "d"}})
}

// TestAddressAndService has both at one name, and they differ only in what they
// are: 10.0.0.1 is the same number as port 2560 and the first Tail.
func TestAddressAndService(t *testing.T) {
	z := newZone("mesos.")
	tx := z.Begin()
	tx.Add(Rel("x"), Service(Rel("t.marathon"), 2560))
	tx.Add(Rel("x"), Address(addr("10.0.0.1")))
	tx.Publish(now, Status{Complete: true})
	for qtype, want := range map[uint16]string{dns.TypeA: "10.0.0.1", dns.TypeSRV: "0 1 2560 t.marathon.mesos."} {
		if got := data(z.Current().Lookup("x", "x.mesos.", qtype, 0, maxAnswer).Answer); got != want {
			t.Errorf("%s: %q", dns.TypeToString[qtype], got)
		}
	}
}

// TestRoot keeps the root zone.
func TestRoot(t *testing.T) {
	z := newZone(".")
	long := strings.Repeat("a.", 124) + "bbbbb" // and a dot: 254 characters
	tx := z.Begin()
	if !tx.Add(Rel(long), Address(addr("192.0.2.1"))) || tx.Add(Rel(long+"b"), Address(addr("192.0.2.1"))) {
		t.Error("the limit is not 255 octets")
	}
	tx.Add(Rel("x"), Service(Rel("y"), 80))
	tx.Publish(now, Status{Complete: true})
	for _, name := range []string{".", "x.", long + "."} {
		if _, ok := z.Relative(name); !ok {
			t.Errorf("%s is not in the root zone", name)
		}
	}
	for rrs := range z.Current().All() {
		for _, rr := range rrs {
			if _, ok := dns.IsDomainName(rr.Header().Name); !ok || strings.Contains(rr.String(), "..") {
				t.Errorf("odd name in %s", rr)
			}
		}
	}
	if r := z.Current().Lookup("x", "x.", dns.TypeSRV, 0, maxAnswer); data(r.Answer) != "0 1 80 y." {
		t.Errorf("answer %s", data(r.Answer))
	}
}

// TestRelative finds names in a zone, and not those that only look like it.
func TestRelative(t *testing.T) {
	z := newZone("mesos.")
	for name, want := range map[string]string{
		"mesos.": "", "a.mesos.": "a", "a.b.mesos.": "a.b", `a\\.mesos.`: `a\\`,
		`a\.mesos.`: "-", "amesos.": "-", ".": "-", "mesos.example.": "-", "sos.": "-",
	} {
		owner, ok := z.Relative(name)
		if ok != (want != "-") || ok && owner != want {
			t.Errorf("%s: %q, %v", name, owner, ok)
		}
	}
}

// TestRecordsOfTheApex gives the zone's own name records, as a reverse zone of
// one address has.
func TestRecordsOfTheApex(t *testing.T) {
	z := newZone("5.2.0.192.in-addr.arpa.")
	tx := z.Begin()
	tx.Add(Rel(""), Pointer("a.mesos."))
	tx.Publish(now, Status{Complete: true})
	if r := z.Current().Lookup("", z.Origin, dns.TypePTR, 0, maxAnswer); data(r.Answer) != "a.mesos." {
		t.Errorf("answer %s", data(r.Answer))
	}
	tx = z.Begin()
	tx.Remove(Rel(""), Pointer("a.mesos."))
	tx.Publish(now, Status{Complete: true})
	if r := z.Current().Lookup("", z.Origin, dns.TypePTR, 0, maxAnswer); data(r.Answer) != "" || !r.Exists {
		t.Errorf("answer %s, exists %v", data(r.Answer), r.Exists)
	}
}

// TestNested puts a zone into another: the names between them exist.
func TestNested(t *testing.T) {
	z := New(Config{Origin: "mesos.", NS: "ns1.mesos.", Nested: []string{"dc.eu.mesos.", "eu2.mesos.", "example.", "x.dc.slave.mesos."}, Subs: []string{"slave"}})
	z.Begin().Publish(now, Status{Complete: true})
	for owner, want := range map[string]bool{"eu": true, "x.eu": false, "eu2": false, "example": false, "dc.slave": true, "slave": true, "dc": false} {
		if got := z.Current().Lookup(owner, "", dns.TypeA, 0, maxAnswer).Exists; got != want {
			t.Errorf("%s exists: %v", owner, got)
		}
	}
	tx := z.Begin()
	tx.Add(Rel("a.eu"), Address(addr("192.0.2.1")))
	tx.Publish(now, Status{Complete: true})
	tx = z.Begin()
	tx.Remove(Rel("a.eu"), Address(addr("192.0.2.1")))
	tx.Publish(now, Status{Complete: true})
	if !z.Current().Lookup("eu", "", dns.TypeA, 0, maxAnswer).Exists {
		t.Error("eu went with a name below it")
	}
}

// TestAdditionalOnce asks for many services on few targets.
func TestAdditionalOnce(t *testing.T) {
	z := newZone("mesos.")
	tx := z.Begin()
	for i := range 40 {
		owner := fmt.Sprintf("t%d.f", i)
		tx.Add(Rel(owner), Address(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
		for port := range uint16(3) {
			tx.Add(Rel("_t._tcp.f"), Service(Rel(owner), 80+port))
		}
	}
	tx.Publish(now, Status{Complete: true})
	if r := z.Current().Lookup("_t._tcp.f", "", dns.TypeSRV, 7, maxAnswer); len(r.Answer) != 120 || len(r.Additional) != 40 {
		t.Errorf("%d services, %d addresses", len(r.Answer), len(r.Additional))
	}
}

// maxAnswer is more than the tests' sets have.
const maxAnswer = 4096

// TestLookup_Dashes asks for names with underscores: those inside labels are dashes, and the
// answer has the name as it was asked.
func TestLookup_Dashes(t *testing.T) {
	config := newZone("mesos.").Config
	for _, config.Dashes = range []bool{false, true} {
		z := New(config)
		tx := z.Begin()
		tx.Add(Rel("my-app.f"), Address(addr("192.0.2.1")))
		tx.Add(Rel("_my-app._tcp.f"), Service(Rel("my-app.f"), 80))
		tx.Publish(now, Status{Complete: true})
		for name, exists := range map[string]bool{
			"my_app.f": config.Dashes, "_my_app._tcp.f": config.Dashes, "my-app.f": true, "_my-app._tcp.f": true,
			"_my-app._tcp_f": false, "my-app_f": false, "-my-app._tcp.f": false, "my-app-.f": false, "_": false, "": true,
		} {
			r := z.Current().Lookup(name, name+".mesos.", dns.TypeANY, 0, maxAnswer)
			if r.Exists != exists || exists && r.Answer[0].Header().Name != name+".mesos." {
				t.Errorf("dashes %v: %q exists %v, %v", config.Dashes, name, r.Exists, r.Answer)
			}
		}
	}
}

// TestLookup_Most asks for a part of a set: each record must come about as often.
func TestLookup_Most(t *testing.T) {
	z := newZone("mesos.")
	tx := z.Begin()
	for i := range 10 {
		tx.Add(Rel("x"), Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})))
		tx.Add(Rel("x"), Service(Rel(fmt.Sprintf("t%d", i)), 80))
		tx.Add(Rel(fmt.Sprintf("t%d", i)), Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})))
	}
	tx.Publish(now, Status{Complete: true})
	for _, qtype := range []uint16{dns.TypeA, dns.TypeSRV} {
		times := make(map[string]int)
		octets := 3 * minRecord
		if qtype == dns.TypeSRV {
			octets = 3 * (minService + len("t0.mesos."))
		}
		for rotate := range uint32(100) {
			r := z.Current().Lookup("x", "x.mesos.", qtype, rotate, octets)
			if len(r.Answer) != 4 || len(r.Additional) != 0 { // for which there is no room
				t.Fatalf("%d records, and %d", len(r.Answer), len(r.Additional))
			}
			for _, rr := range r.Answer {
				times[rr.String()]++
			}
		}
		for rr, n := range times {
			if n != 40 {
				t.Errorf("%s comes %d times of 100, want 40", rr, n)
			}
		}
	}
}

// TestLargeSets adds and removes so many records that an RRset is several sets.
func TestLargeSets(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	kept, scratch := newZone("mesos."), newZone("mesos.")
	added := make(map[Record]int)
	for range 20 {
		tx := kept.Begin()
		for range 200 {
			rec := Service(Rel(fmt.Sprintf("t%d", r.IntN(900))), 80)
			if added[rec] > 0 && r.IntN(3) == 0 {
				tx.Remove(Rel("x"), rec)
				added[rec]--
			} else {
				tx.Add(Rel("x"), rec)
				added[rec]++
			}
		}
		tx.Publish(now, Status{Complete: true})
	}
	tx := scratch.Begin()
	for rec, n := range added {
		for range n {
			tx.Add(Rel("x"), rec)
		}
	}
	tx.Publish(now, Status{Complete: true})
	if got, want := text(kept.Current()), text(scratch.Current()); !slices.Equal(got, want) || len(got) < 500 {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

// TestGenerations looks at an old generation after many changes, some of them not
// published, and reads the newest meanwhile.
func TestGenerations(t *testing.T) {
	z := newZone("mesos.")
	r := rand.New(rand.NewPCG(1, 2))
	w := newWorld(r)
	for range 20 {
		tx := z.Begin()
		for range 50 {
			w.step(tx)
		}
		tx.Publish(now, Status{Complete: true})
	}
	old, before := z.Current(), text(z.Current())
	ctx, stop := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	reader.Go(func() {
		for ctx.Err() == nil {
			text(z.Current())
		}
	})
	for range 200 {
		newWorld(r).step(z.Begin())
		tx := z.Begin()
		w.step(tx)
		tx.Publish(now, Status{Complete: true})
	}
	stop()
	reader.Wait()
	if after := text(old); !slices.Equal(before, after) {
		t.Error("a published generation has changed")
	}
}

// world is a random set of records, and of each how often it was added.
type world struct {
	r     *rand.Rand
	added map[place]int
}

type place struct {
	owner string
	r     Record
}

func newWorld(r *rand.Rand) *world { return &world{r, make(map[place]int)} }

func (w *world) owner() string {
	labels := make([]string, 1+w.r.IntN(4))
	for i := range labels {
		labels[i] = string(rune('a' + w.r.IntN(4)))
	}
	return strings.Join(labels, ".")
}

func (w *world) record() Record {
	r := Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(w.r.IntN(4))}))
	switch w.r.IntN(5) {
	case 0:
		r = Address(netip.AddrFrom16([16]byte{0xfd, 15: byte(w.r.IntN(4))}))
	case 1:
		r = Service(Rel(w.owner()), uint16(1+w.r.IntN(3)))
	}
	if w.r.IntN(4) == 0 {
		r = r.Backup()
	}
	return r
}

// step adds a random record, or removes one that is there.
func (w *world) step(tx *Tx) {
	if len(w.added) > 0 && w.r.IntN(2) == 0 {
		places := slices.SortedFunc(maps.Keys(w.added), func(a, b place) int {
			return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
		})
		p := places[w.r.IntN(len(places))]
		tx.Remove(Rel(p.owner), p.r)
		if w.added[p]--; w.added[p] == 0 {
			delete(w.added, p)
		}
		return
	}
	p := place{w.owner(), w.record()}
	tx.Add(Rel(p.owner), p.r)
	w.added[p]++
}

// TestOracle compares, under random changes, the zone with one built from
// nothing, and its answers with those of the plugin file for the same records.
func TestOracle(t *testing.T) {
	seed := rand.Uint64()
	w := newWorld(rand.New(rand.NewPCG(seed, 0)))
	t.Logf("seed %d", seed)
	z := newZone("mesos.")
	for range 300 {
		tx := z.Begin()
		for range 1 + w.r.IntN(20) {
			w.step(tx)
		}
		tx.Publish(now, Status{Complete: true})

		scratch := newZone("mesos.")
		tx = scratch.Begin()
		for p, n := range w.added {
			for range n {
				tx.Add(Rel(p.owner), p.r)
			}
		}
		tx.Publish(now, Status{Complete: true})
		if got, want := text(z.Current()), text(scratch.Current()); !slices.Equal(got, want) {
			t.Fatalf("incrementally %q, from nothing %q", got, want)
		}
		if got, want := z.Current().Records(), len(text(scratch.Current()))+1; got != want {
			t.Fatalf("%d records are counted, there are %d", got, want)
		}
		compareWithFile(t, w, z)
	}
}

func compareWithFile(t *testing.T, w *world, z *Zone) {
	t.Helper()
	oracle := file.NewZone("mesos.", "")
	if err := oracle.Insert(z.Current().SOA()); err != nil {
		t.Fatal(err)
	}
	for rrs := range z.Current().All() {
		for _, rr := range rrs {
			if err := oracle.Insert(rr); err != nil {
				t.Fatal(err)
			}
		}
	}
	handler := file.File{Zones: file.Zones{Z: map[string]*file.Zone{"mesos.": oracle}, Names: []string{"mesos."}}}
	for range 20 {
		owner := w.owner()
		if w.r.IntN(20) == 0 {
			owner = ""
		}
		name := strings.TrimPrefix(owner+".mesos.", ".")
		qtype := []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV, dns.TypeTXT, dns.TypeSOA, dns.TypeNS}[w.r.IntN(6)]
		m := new(dns.Msg)
		m.SetQuestion(name, qtype)
		rec := dnstest.NewRecorder(&test.ResponseWriter{})
		if _, err := handler.ServeDNS(t.Context(), rec, m); err != nil {
			t.Fatal(err)
		}
		got := z.Current().Lookup(owner, name, qtype, w.r.Uint32(), maxAnswer)
		if exists := rec.Msg.Rcode == dns.RcodeSuccess; got.Exists != exists || set(got.Answer) != set(rec.Msg.Answer) {
			t.Fatalf("%s %s: exists %v %v, file has %v %v", name, dns.TypeToString[qtype], got.Exists, got.Answer, exists, rec.Msg.Answer)
		}
	}
}

// set is rrs as one sorted text.
func set(rrs []dns.RR) string {
	var all []string
	for _, rr := range rrs {
		all = append(all, rr.String())
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// TestClaim has a name exist, without records, as long as it is claimed.
func TestClaim(t *testing.T) {
	z := New(Config{Origin: "acme.org.", NS: "ns1.mesos.", Subs: []string{"slave"}})
	publish := func(change func(*Tx)) (moved bool) {
		tx := z.Begin()
		change(tx)
		return tx.Publish(time.Now(), Status{Complete: true})
	}
	exists := func(rel string) bool { return z.Current().Lookup(rel, "x.", dns.TypeA, 0, 1).Exists }
	publish(func(tx *Tx) {
		tx.Add(Rel("a.b"), Claim())
		tx.Add(Rel("a.b"), Claim())
		tx.Add(Rel("x.slave"), Claim())
	})
	for _, name := range []string{"a.b", "b", "x.slave", "slave"} {
		if r := z.Current().Lookup(name, "x.", dns.TypeA, 0, 1); !r.Exists || r.Records {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if publish(func(tx *Tx) { tx.Remove(Rel("a.b"), Claim()); tx.Remove(Rel("x.slave"), Claim()) }) {
		t.Error("the serial moves without a record")
	}
	if !exists("a.b") || exists("x.slave") || exists("slave") {
		t.Errorf("claimed once more: %v, no more: %v, above it: %v", exists("a.b"), exists("x.slave"), exists("slave"))
	}
	publish(func(tx *Tx) { tx.Remove(Rel("a.b"), Claim()) })
	if exists("a.b") || exists("b") || z.Current().Records() != 2 {
		t.Errorf("a name that nobody claims: %v, above it: %v, %d records", exists("a.b"), exists("b"), z.Current().Records())
	}
	if tx := z.Begin(); tx.Add(Rel(strings.Repeat("l.", 130)), Claim()) {
		t.Error("a name that is too long is claimed")
	}
	if rr := z.RR(Rel("a.b"), Claim()); rr != nil {
		t.Errorf("a claim is answered with %v", rr)
	}
}
