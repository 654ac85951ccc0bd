package zone

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// ownedRecord is a record with its owner.
type ownedRecord struct {
	name Name
	r    Record
}

// TestSets adds random records to the names of a Rel, at once, and in a random order among others
// that go again: every record comes back, and the octets are the same.
func TestSets(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	random := func(rel string) ownedRecord { return ownedRecord{Name{rel, Sub(r.IntN(subs))}, randomRecord(r)} }
	for range 100 {
		rel := []string{"x", "_nginx._tcp.marathon", "_http._nginx._tcp.marathon", "_"}[r.IntN(4)]
		added := make(map[ownedRecord]int32)
		for range 1 + r.IntN(400) {
			added[random(rel)]++
		}
		once, often := newZone("mesos."), newZone("mesos.")
		tx := once.Begin()
		for o, n := range added {
			for range n {
				tx.Add(o.name, o.r)
			}
		}
		tx.Publish(now, Status{})
		all := slices.Collect(maps.Keys(added))
		for _, i := range r.Perm(len(all)) {
			other := random(rel)
			tx := often.Begin()
			for range added[all[i]] {
				tx.Add(all[i].name, all[i].r)
			}
			tx.Add(other.name, other.r)
			tx.Publish(now, Status{})
			tx = often.Begin()
			tx.Remove(other.name, other.r)
			tx.Publish(now, Status{})
		}
		of := once.Current().find(rel)
		if got := often.Current().find(rel); got.sets != of.sets {
			t.Fatalf("seed %d: octets\n%q\nin another order\n%q", seed, of.sets, got.sets)
		}
		checkSets(t, once, of, added)
	}
}

// checkSets compares the records of a Rel with those that were added.
func checkSets(t *testing.T, z *Zone, of node, added map[ownedRecord]int32) {
	t.Helper()
	got, want := make(map[string]int32), make(map[string]int32)
	text := func(class class, rr dns.RR) string { return fmt.Sprint(class&backup != 0, rr) }
	for i := range of.count() {
		c := of.from(i)
		r, _ := c.next()
		name := z.absolute(Name{of.rel, Sub(r.class >> subShift)})
		got[text(r.class, z.rr(of.rel, r, name, nil))] = r.times
	}
	for o, n := range added {
		want[text(o.r.class, z.RR(o.name, o.r))] += n
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%d records are\n%v\nwant\n%v", len(got), got, want)
	}
}

func randomRecord(r *rand.Rand) Record {
	rec := Address(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(2)), byte(r.IntN(100))}))
	switch r.IntN(6) {
	case 0:
		rec = Address(netip.AddrFrom16([16]byte{0xfd, 15: byte(r.IntN(100))}))
	case 1:
		target := []string{"nginx-%d.marathon", "_nginx%d", "%d", ""}[r.IntN(4)]
		if target != "" {
			target = fmt.Sprintf(target, r.IntN(100))
		}
		rec = Service(Name{target, Sub(r.IntN(subs))}, uint16(r.IntN(1<<16)))
	case 2:
		rec = Pointer(strings.Repeat("a", r.IntN(248)) + ".mesos.")
	}
	if r.IntN(4) == 0 {
		rec = rec.Backup()
	}
	return rec
}

// FuzzService reads the target of an SRV record again, whatever it has in common with the owner.
func FuzzService(f *testing.F) {
	f.Add("_nginx._tcp.marathon", "nginx-abcde-s1.marathon", uint16(80))
	f.Add("_a._a_a", "a_a", uint16(1))
	f.Add("aaaa", "aaa", uint16(0))
	f.Add("", "", uint16(1<<16-1))
	f.Fuzz(func(t *testing.T, owner, target string, port uint16) {
		if len(owner) > maxName || len(target) > maxName {
			return
		}
		data := string(appendData(nil, owner, Service(Rel(target), port)))
		r := rr{class: typeSRV, data: data[:typeSRV.size(data+"more")]}
		prefix, text, suffix := r.target(owner)
		if got := prefix + text + suffix; got != target || r.port() != port || r.targetLength() != len(target) || r.data != data {
			t.Errorf("target %q, port %d, data %q of %q", got, r.port(), r.data, data)
		}
	})
}

// TestSets_Full has several full sets of one RRset. Records come and go at the front and at random.
func TestSets_Full(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var all []change
	for i := range uint32(3 * maxSet) {
		all = append(all, change{"x", rr{string(appendData(nil, "", Record{class: typeA, value: i})), 1, typeA}, 0})
	}
	var once, often writer
	at := slices.Clone(all[100:])
	s := sets(once.merge("", at))
	for _, i := range append([]int{99, 98, 97}, r.Perm(97)...) {
		s = sets(often.merge(s, all[i:i+1]))
	}
	for range 50 {
		gone := all[r.IntN(len(all))]
		gone.times = -1
		s = sets(often.merge(s, []change{gone}))
		gone.times = 1
		s = sets(often.merge(s, []change{gone}))
	}
	if want := sets(once.merge("", all)); s != want || s.count() != len(all) {
		t.Errorf("%d records of %d, or other octets", s.count(), len(all))
	}
}
