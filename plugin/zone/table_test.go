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
	for tx := range uint32(120) {
		if tx%10 == 0 {
			kept.check(t, seed)
			old = append(old, tableAndMap{kept.table, maps.Clone(kept.names)})
		}
		adds, removals := 1000, 100 // it grows, and then shrinks to nothing
		if tx >= 60 {
			adds, removals = 100, 1000
		}
		for range adds {
			name := fmt.Sprint(r.IntN(100_000))
			n := &node{head: name}
			kept.table.put(tagOf(name), n, tx+1)
			kept.names[name] = n
		}
		for name := range kept.names {
			if removals--; removals < 0 && tx < 115 {
				break
			}
			kept.table.remove(tagOf(name), name, tx+1)
			delete(kept.names, name)
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

// TestDisown changes a table by a transaction of the same number as that which made it.
func TestDisown(t *testing.T) {
	var now table
	now.put(tagOf("a"), &node{head: "a"}, 1)
	before := now
	now.disown()
	now.put(tagOf("b"), &node{head: "b"}, 1)
	if before.find(tagOf("b"), "b") != nil || now.find(tagOf("b"), "b") == nil {
		t.Error("what was there before has changed, or what is now has not")
	}
}

type tableAndMap struct {
	table table
	names map[string]*node
}

func (b *tableAndMap) check(t *testing.T, seed uint64) {
	t.Helper()
	all := make(map[string]*node)
	for n := range b.table.all {
		if all[n.head] != nil {
			t.Fatalf("seed %d: %s is there twice", seed, n.head)
		}
		all[n.head] = n
	}
	if !maps.Equal(all, b.names) {
		t.Fatalf("seed %d: %d names, not %d", seed, len(all), len(b.names))
	}
	for name, n := range b.names {
		if b.table.find(tagOf(name), name) != n {
			t.Fatalf("seed %d: %s is not found", seed, name)
		}
	}
	if b.table.find(tagOf("nope"), "nope") != nil {
		t.Fatalf("seed %d: what is not there is found", seed)
	}
	used := make(map[*page]bool)
	for p := range b.table.distinct {
		count := len(slices.DeleteFunc(slices.Clone(p.nodes[:]), func(n *node) bool { return n == nil }))
		if used[p] || int(p.used) != count || count > full {
			t.Fatalf("seed %d: a page of %d says that it has %d", seed, count, p.used)
		}
		used[p] = true
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
