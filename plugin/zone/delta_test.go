package zone

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestHistory holds what is remembered of changes to its bounds, and offers no
// changes that are more than the zone.
func TestHistory(t *testing.T) {
	addr := func(i int) Record {
		return Address(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	z := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
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
			tx.Add(fmt.Sprintf("t%d", i), addr(i))
		}
	})
	if len(g.history) != 0 {
		t.Error("the first publication is a change")
	}
	serial := g.Serial()
	g = publish(func(tx *Tx) { tx.Add("t0", addr(0)) }) // nothing to see
	if g.Serial() != serial || len(g.history) != 0 {
		t.Error("a change of no answer is remembered")
	}
	for i := range 2 * maxDeltas {
		g = publish(func(tx *Tx) { tx.Add("t1", addr(i%200)); tx.Add(fmt.Sprintf("u%d", i), addr(i)) })
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
			tx.Add(fmt.Sprintf("v%d", i), addr(i))
		}
	})
	if n := size(g); len(g.history) < 2 || len(g.history) > 101 || n > maxDeltaRecords {
		t.Errorf("%d publications of %d records are remembered", len(g.history), n)
	}
	g = publish(func(tx *Tx) {
		for i := range maxDeltaRecords + 1 {
			tx.Add(fmt.Sprintf("w%d", i), addr(i))
		}
	})
	if len(g.history) != 0 {
		t.Errorf("a change of %d records is remembered", size(g))
	}

	small := New(Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
	for i := range 20 {
		tx := small.Begin()
		tx.Add("t", addr(i))
		tx.Remove("t", addr(i-1))
		tx.Publish(time.Now(), Status{Complete: true})
	}
	g = small.Current()
	if _, ok := g.Since(g.history[0].from); ok {
		t.Error("the changes are more than the zone")
	}
}
