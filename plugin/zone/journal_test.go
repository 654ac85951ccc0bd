package zone

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestReplaces lets a zone replace another while both change at the same moments.
func TestReplaces(t *testing.T) {
	now := time.Now()
	publish := func(z *Zone, more ...string) *Generation {
		tx := z.Begin()
		for _, owner := range more {
			tx.Add(Rel(owner), Address(netip.MustParseAddr("10.0.0.1")))
		}
		now = now.Add(10 * time.Millisecond)
		tx.Publish(now, Status{Complete: true})
		return z.Current()
	}
	for name, tc := range map[string]struct {
		old, own  []string // records
		ttl       uint32
		moved     bool // the serial, at first
		confirmed bool // it moves again once the old zone is gone
	}{
		"nothing changes": {[]string{"a"}, []string{"a"}, 5, false, false},
		"another record":  {[]string{"a"}, []string{"b"}, 5, true, true},
		"another TTL":     {[]string{"a"}, []string{"a"}, 7, true, true},
	} {
		config := Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true}
		old := New(config)
		first := publish(old, tc.old...)
		config.TTL = tc.ttl
		z := New(config)
		z.Replaces(old)
		g := publish(z, tc.own...)
		if (g.Serial() != first.Serial()) != tc.moved || int32(g.Serial()-first.Serial()) < 0 {
			t.Errorf("%s: serial %d after %d", name, g.Serial(), first.Serial())
		}
		last := publish(old, "c")
		now = now.Add(-10 * time.Millisecond) // in the same moment
		both := publish(z, "c")
		if z.Confirm(old, now) != tc.confirmed {
			t.Errorf("%s: confirmed: %v", name, !tc.confirmed)
		}
		g = z.Current()
		if moved := g.Serial() != both.Serial(); moved != tc.confirmed || int32(g.Serial()-last.Serial()) < 0 {
			t.Errorf("%s: serial %d after %d and %d", name, g.Serial(), last.Serial(), both.Serial())
		}
		if _, ok := publish(z, "d").ChangesSince(last.Serial()); ok && tc.confirmed {
			t.Errorf("%s: there are changes since what the old zone held", name)
		}
		if _, ok := z.Current().ChangesSince(g.Serial()); !ok {
			t.Errorf("%s: no changes since it was confirmed", name)
		}
	}
}

// TestConfirm_OldIsAhead replaces a zone that goes on changing, and ends with the same
// records: a secondary that has its serial must see a later one.
func TestConfirm_OldIsAhead(t *testing.T) {
	now := time.Now()
	a := Address(netip.MustParseAddr("10.0.0.1"))
	publish := func(z *Zone, change func(tx *Tx)) uint32 {
		tx := z.Begin()
		change(tx)
		tx.Publish(now, Status{Complete: true})
		return z.Current().Serial()
	}
	config := Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true}
	old, z := New(config), New(config)
	first := publish(old, func(tx *Tx) { tx.Add(Rel("a"), a) })
	z.Replaces(old)
	if serial := publish(z, func(tx *Tx) { tx.Add(Rel("a"), a) }); serial != first {
		t.Fatalf("serial %d after %d", serial, first)
	}
	publish(old, func(tx *Tx) { tx.Add(Rel("b"), a) })
	last := publish(old, func(tx *Tx) { tx.Remove(Rel("b"), a) })
	if !z.Confirm(old, now) || int32(z.Current().Serial()-last) <= 0 {
		t.Errorf("serial %d after %d", z.Current().Serial(), last)
	}
}

// TestConfirm_BeforeFirstPublication replaces a zone whose serial is ahead of the clock, and has
// nothing to publish before that is gone.
func TestConfirm_BeforeFirstPublication(t *testing.T) {
	now := time.Now()
	config := Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."}
	old, z := New(config), New(config)
	old.Begin().Publish(now.Add(time.Hour), Status{Complete: true})
	z.Replaces(old)
	if z.Confirm(old, now) {
		t.Error("published nothing")
	}
	z.Begin().Publish(now, Status{Complete: true})
	if before, serial := old.Current().Serial(), z.Current().Serial(); int32(serial-before) <= 0 {
		t.Errorf("serial %d after %d", serial, before)
	}
}

// TestJournal holds the journal to its bounds, and to no more records than the zone has.
func TestJournal(t *testing.T) {
	addr := func(i int) Record {
		return Address(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	z := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true})
	publish := func(change func(tx *Tx)) *Generation {
		tx := z.Begin()
		change(tx)
		tx.Publish(time.Now(), Status{Complete: true})
		return z.Current()
	}
	size := func(g *Generation) (records int) {
		for _, d := range g.journal {
			records += d.records
		}
		return records
	}
	g := publish(func(tx *Tx) {
		for i := range 1000 {
			tx.Add(Rel(fmt.Sprintf("t%d", i)), addr(i))
		}
	})
	if len(g.journal) != 0 {
		t.Error("the first publication is a change")
	}
	serial := g.Serial()
	g = publish(func(tx *Tx) { tx.Add(Rel("t0"), addr(0)) }) // nothing to see
	if g.Serial() != serial || len(g.journal) != 0 {
		t.Error("a change of no answer is remembered")
	}
	for i := range 2 * maxChangesets {
		g = publish(func(tx *Tx) { tx.Add(Rel("t1"), addr(i%200)); tx.Add(Rel(fmt.Sprintf("u%d", i)), addr(i)) })
	}
	if len(g.journal) != maxChangesets {
		t.Errorf("%d publications are remembered", len(g.journal))
	}
	for _, at := range []int{0, len(g.journal) - 1} {
		if _, ok := g.ChangesSince(g.journal[at].from); !ok {
			t.Errorf("no changes since publication %d", at)
		}
	}
	if _, ok := g.ChangesSince(g.journal[0].from - 1); ok {
		t.Error("changes since one that is forgotten")
	}
	g = publish(func(tx *Tx) {
		for i := range maxJournalRecords - 100 {
			tx.Add(Rel(fmt.Sprintf("v%d", i)), addr(i))
		}
	})
	if n := size(g); len(g.journal) < 2 || len(g.journal) > 101 || n > maxJournalRecords {
		t.Errorf("%d publications of %d records are remembered", len(g.journal), n)
	}
	g = publish(func(tx *Tx) {
		for i := range maxJournalRecords + 1 {
			tx.Add(Rel(fmt.Sprintf("w%d", i)), addr(i))
		}
	})
	if len(g.journal) != 0 {
		t.Errorf("a change of %d records is remembered", size(g))
	}

	small := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true})
	for i := range 20 {
		tx := small.Begin()
		tx.Add(Rel("t"), addr(i))
		tx.Remove(Rel("t"), addr(i-1))
		tx.Publish(time.Now(), Status{Complete: true})
	}
	if n := size(small.Current()); n > small.Current().Records() {
		t.Errorf("changes of %d records are kept of a zone of %d", n, small.Current().Records())
	}
}

// TestFollows has zones whose serials are ahead of the clock: the next zone of their name goes
// on from the latest.
func TestFollows(t *testing.T) {
	zoneAt := func(at time.Time) *Zone {
		z := newZone("mesos.")
		z.Begin().Publish(at, Status{Complete: true})
		return z
	}
	for name, tc := range map[string]struct {
		old  []*Zone
		want uint32
	}{
		"nothing published": {[]*Zone{newZone("mesos.")}, nextSerial(0, now)},
		"behind the clock":  {[]*Zone{zoneAt(now.Add(-time.Hour))}, nextSerial(0, now)},
		"ahead of it":       {[]*Zone{zoneAt(now.Add(time.Hour)), zoneAt(now.Add(2 * time.Hour)), zoneAt(now)}, nextSerial(0, now.Add(2*time.Hour)) + 1},
	} {
		t.Run(name, func(t *testing.T) {
			z := newZone("mesos.")
			for _, old := range tc.old {
				z.Follows(old)
			}
			z.Begin().Publish(now, Status{Complete: true})
			if got := z.Current().Serial(); got != tc.want {
				t.Errorf("serial %d, want %d", got, tc.want)
			}
		})
	}
}

// TestFollows_OldGoesOn follows a zone that is still published, and moves its serial.
func TestFollows_OldGoesOn(t *testing.T) {
	add := func(z *Zone, name string, at time.Time) {
		tx := z.Begin()
		tx.Add(Rel(name), Address(addr("192.0.2.1")))
		tx.Publish(at, Status{Complete: true})
	}
	for name, steps := range map[string]func(old, z *Zone) (moved bool){
		"before the first publication": func(old, z *Zone) bool {
			add(old, "b", now)
			add(old, "c", now)
			add(z, "a", now)
			return !z.Confirm(old, now)
		},
		"after it": func(old, z *Zone) bool {
			add(z, "a", now.Add(time.Second))
			add(old, "hidden", now.Add(2*time.Second))
			return z.Confirm(old, now.Add(3*time.Second))
		},
		"after it, with the old clock": func(old, z *Zone) bool {
			add(z, "a", now)
			add(old, "hidden", now)
			add(old, "more", now)
			return z.Confirm(old, now)
		},
		"and nothing is published yet": func(old, z *Zone) bool {
			moved := z.Confirm(old, now)
			add(z, "a", now)
			return !moved
		},
	} {
		t.Run(name, func(t *testing.T) {
			old, z := newZone("mesos."), newZone("mesos.")
			add(old, "a", now.Add(time.Hour/2))
			z.Follows(old)
			if !steps(old, z) {
				t.Error("Confirm reports the opposite")
			}
			if o, n := old.Current().Serial(), z.Current().Serial(); int32(n-o) <= 0 {
				t.Errorf("serial %d after %d", n, o)
			}
			if len(z.Current().journal) > 0 && z.Current().journal[0].to != z.Current().Serial() {
				t.Error("the journal does not lead to the serial")
			}
		})
	}
}

// TestJournal_Batches adds a record and removes it again so many changes later that they are
// applied apart: no secondary may be sent that it was added.
func TestJournal_Batches(t *testing.T) {
	z := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true})
	z.Begin().Publish(now, Status{Complete: true})
	serial, a := z.Current().Serial(), Address(addr("192.0.2.1"))
	tx := z.Begin()
	tx.Add(Rel("gone"), a)
	for range maxJournalRecords / 2 {
		tx.Add(Rel("x"), a)
		tx.Remove(Rel("x"), a)
	}
	tx.Remove(Rel("gone"), a)
	tx.Add(Rel("here"), a)
	if !tx.Publish(now, Status{Complete: true}) {
		t.Error("the serial has not moved")
	}
	if _, ok := z.Current().ChangesSince(serial); ok {
		t.Error("the journal has what was applied in several lists")
	}
}
