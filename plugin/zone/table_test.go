package zone

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTable grows and shrinks a table over many transactions, beside a map; what a
// transaction began with is not to change.
func TestTable(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var (
		kept tableAndMap
		old  []tableAndMap
	)
	kept.names = make(map[string]*node)
	tx := uint32(0)
	for ; tx < 90; tx++ {
		if tx%10 == 0 {
			kept.check(t, seed)
			old = append(old, tableAndMap{kept.table, maps.Clone(kept.names)})
		}
		adds, removals := 1000, 100 // it grows, and then shrinks
		if tx >= 60 {
			adds, removals = 100, 1000
		}
		for range adds {
			name := fmt.Sprint(r.IntN(100_000))
			kept.put(name, tx+1)
		}
		for name := range kept.names {
			if removals--; removals < 0 {
				break
			}
			kept.remove(name, tx+1)
		}
	}
	for len(kept.names) > 0 {
		for name := range kept.names {
			tx++
			kept.remove(name, tx)
			if tx%4 == 0 {
				kept.put(fmt.Sprint(r.IntN(100_000)), tx+1)
			}
			if tx%1000 == 0 {
				kept.check(t, seed)
			}
		}
	}
	kept.check(t, seed)
	for i := range old {
		old[i].check(t, seed)
	}
	pages := 0
	for range kept.table.distinct {
		pages++
	}
	if pages != 1 {
		t.Errorf("seed %d: an empty table has %d pages", seed, pages)
	}
}

// TestDisown changes a table by transactions of the same numbers as those which made it.
func TestDisown(t *testing.T) {
	var now table
	now.put(tagOf("a"), &node{rel: "a", tx: 1}, 1)
	now.put(tagOf("b"), &node{rel: "b", tx: 2}, 2)
	for _, tx := range []uint32{2, 1} {
		before := now
		now.disown()
		name := fmt.Sprint(tx)
		now.put(tagOf(name), &node{rel: name, tx: tx}, tx)
		if before.find(tagOf(name), name) != nil || now.find(tagOf(name), name) == nil {
			t.Errorf("transaction %d: what was there before has changed, or what is now has not", tx)
		}
	}
	for _, name := range []string{"a", "b", "2"} {
		if n := now.find(tagOf(name), name); n.tx != 0 {
			t.Errorf("the node of %s is of transaction %d", name, n.tx)
		}
	}
}

// TestUneven splits a body with its overlay, all of whose names but one are on one side, and
// goes on with that side.
func TestUneven(t *testing.T) {
	var now table
	tx, tag := uint32(1), uint32(0)
	put := func(tag uint32) { now.put(tag, &node{rel: fmt.Sprint(tag), tx: tx, rrs: make([]rr, 1)}, tx) }
	add := func() {
		tag += 1 << 16
		put(tag)
	}
	for range full - 1 {
		add()
	}
	for range room {
		tx++
		add()
	}
	tx++
	put(1 << 31)
	for range 2 * room {
		tx++
		add()
	}
	for tag := tag; tag > 0; tag -= 1 << 16 {
		if now.find(tag, fmt.Sprint(tag)) == nil {
			t.Errorf("%x is not found", tag)
		}
	}
}

type tableAndMap struct {
	table table
	names map[string]*node
}

func (b *tableAndMap) put(name string, tx uint32) {
	n := &node{rel: name, tx: tx, rrs: make([]rr, 1)}
	b.table.put(tagOf(name), n, tx)
	b.names[name] = n
}

// remove does what a transaction does, once it finds that a name has nothing any more.
func (b *tableAndMap) remove(name string, tx uint32) {
	n := &node{rel: name, tx: tx}
	b.table.put(tagOf(name), n, tx)
	b.table.remove(tagOf(name), n, tx)
	delete(b.names, name)
}

func (b *tableAndMap) check(t *testing.T, seed uint64) {
	t.Helper()
	all := make(map[string]*node)
	for n := range b.table.all {
		if all[n.rel] != nil {
			t.Fatalf("seed %d: %s is there twice", seed, n.rel)
		}
		if !n.empty() {
			all[n.rel] = n
		}
	}
	if !maps.Equal(all, b.names) {
		t.Fatalf("seed %d: %d names, not %d", seed, len(all), len(b.names))
	}
	for name, n := range b.names {
		if b.table.find(tagOf(name), name) != n {
			t.Fatalf("seed %d: %s is not found", seed, name)
		}
	}
	if n := b.table.find(tagOf("nope"), "nope"); n != nil && !n.empty() {
		t.Fatalf("seed %d: what is not there is found", seed)
	}
	used := make(map[*body]bool)
	for p := range b.table.distinct {
		count := len(slices.DeleteFunc(slices.Clone(p.body.nodes[:]), func(n *node) bool { return n == nil }))
		if used[p.body] || int(p.body.used) != count || count > full {
			t.Fatalf("seed %d: a page of %d says that it has %d", seed, count, p.body.used)
		}
		used[p.body] = true
	}
}

// tagOf gives names tags, some of which are the same.
func tagOf(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return max(h*2654435761&^7, 1)
}
