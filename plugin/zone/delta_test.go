package zone

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestTakeOver has a zone take the place of another, while both change in the
// same moments.
func TestTakeOver(t *testing.T) {
	now := time.Now()
	publish := func(z *Zone, more ...string) *Generation {
		tx := z.Begin()
		for _, owner := range more {
			tx.Add(Name(owner), Address(netip.MustParseAddr("10.0.0.1")))
		}
		now = now.Add(10 * time.Millisecond)
		tx.Publish(now, Status{Complete: true})
		return z.Current()
	}
	for name, tc := range map[string]struct {
		old, own []string // records
		ttl      uint32
		moved    bool // the serial, at first
		settled  bool // it moves again, once the old zone is gone
	}{
		"nothing changes": {[]string{"a"}, []string{"a"}, 5, false, false},
		"another record":  {[]string{"a"}, []string{"b"}, 5, true, true},
		"another TTL":     {[]string{"a"}, []string{"a"}, 7, true, true},
	} {
		config := Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Deltas: true}
		old := New(config)
		first := publish(old, tc.old...)
		config.TTL = tc.ttl
		z := New(config)
		z.TakeOver(old)
		g := publish(z, tc.own...)
		if (g.Serial() != first.Serial()) != tc.moved || int32(g.Serial()-first.Serial()) < 0 {
			t.Errorf("%s: serial %d after %d", name, g.Serial(), first.Serial())
		}
		last := publish(old, "c")
		now = now.Add(-10 * time.Millisecond) // in the same moment
		both := publish(z, "c")
		if z.Settle(now) != tc.settled {
			t.Errorf("%s: settled: %v", name, !tc.settled)
		}
		g = z.Current()
		if moved := g.Serial() != both.Serial(); moved != tc.settled || int32(g.Serial()-last.Serial()) < 0 {
			t.Errorf("%s: serial %d after %d and %d", name, g.Serial(), last.Serial(), both.Serial())
		}
		if _, ok := publish(z, "d").Since(last.Serial()); ok && tc.settled {
			t.Errorf("%s: there are changes since what the old zone held", name)
		}
		if _, ok := z.Current().Since(g.Serial()); !ok {
			t.Errorf("%s: no changes since it is settled", name)
		}
	}
}

// TestHistory holds what is remembered of changes to its bounds, and offers no
// changes that are more than the zone.
func TestHistory(t *testing.T) {
	addr := func(i int) Record {
		return Address(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	z := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Deltas: true})
	publish := func(change func(tx *Tx)) *Generation {
		tx := z.Begin()
		change(tx)
		tx.Publish(time.Now(), Status{Complete: true})
		return z.Current()
	}
	size := func(g *Generation) (records int) {
		for _, d := range g.history {
			records += d.records
		}
		return records
	}
	g := publish(func(tx *Tx) {
		for i := range 1000 {
			tx.Add(Name(fmt.Sprintf("t%d", i)), addr(i))
		}
	})
	if len(g.history) != 0 {
		t.Error("the first publication is a change")
	}
	serial := g.Serial()
	g = publish(func(tx *Tx) { tx.Add(Name("t0"), addr(0)) }) // nothing to see
	if g.Serial() != serial || len(g.history) != 0 {
		t.Error("a change of no answer is remembered")
	}
	for i := range 2 * maxDeltas {
		g = publish(func(tx *Tx) { tx.Add(Name("t1"), addr(i%200)); tx.Add(Name(fmt.Sprintf("u%d", i)), addr(i)) })
	}
	if len(g.history) != maxDeltas {
		t.Errorf("%d publications are remembered", len(g.history))
	}
	for _, at := range []int{0, len(g.history) - 1} {
		if _, ok := g.Since(g.history[at].from); !ok {
			t.Errorf("no changes since publication %d", at)
		}
	}
	if _, ok := g.Since(g.history[0].from - 1); ok {
		t.Error("changes since one that is forgotten")
	}
	g = publish(func(tx *Tx) {
		for i := range maxDeltaRecords - 100 {
			tx.Add(Name(fmt.Sprintf("v%d", i)), addr(i))
		}
	})
	if n := size(g); len(g.history) < 2 || len(g.history) > 101 || n > maxDeltaRecords {
		t.Errorf("%d publications of %d records are remembered", len(g.history), n)
	}
	g = publish(func(tx *Tx) {
		for i := range maxDeltaRecords + 1 {
			tx.Add(Name(fmt.Sprintf("w%d", i)), addr(i))
		}
	})
	if len(g.history) != 0 {
		t.Errorf("a change of %d records is remembered", size(g))
	}

	small := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Deltas: true})
	for i := range 20 {
		tx := small.Begin()
		tx.Add(Name("t"), addr(i))
		tx.Remove(Name("t"), addr(i-1))
		tx.Publish(time.Now(), Status{Complete: true})
	}
	if n := size(small.Current()); n > small.Current().Records() {
		t.Errorf("changes of %d records are kept of a zone of %d", n, small.Current().Records())
	}
}
