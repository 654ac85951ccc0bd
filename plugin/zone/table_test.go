package zone

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestTable grows and shrinks a table over many transactions, beside a map; what a
// transaction began with is not to change, and the form of a table is that of one made at once.
func TestTable(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var w rewriter
	var (
		kept tableAndMap
		old  []tableAndMap
	)
	kept.names = make(map[string]int32)
	for round := range 120 {
		if round%10 == 0 {
			kept.check(t, seed)
			old = append(old, tableAndMap{kept.table, maps.Clone(kept.names)})
		}
		adds, removals := 1000, 100 // it grows, and then shrinks
		if round >= 60 {
			adds, removals = 100, 1200
		}
		var changes []change
		for range adds {
			changes = append(changes, kept.change(fmt.Sprint(r.IntN(100_000)), 1))
		}
		for name, n := range kept.names {
			if removals--; removals < 0 {
				break
			}
			changes = append(changes, kept.change(name, -n))
		}
		kept.table = w.apply(kept.table, changes, ignore)
	}
	kept.check(t, seed)
	for i := range old {
		old[i].check(t, seed)
	}
	var last []change
	for name, n := range maps.Clone(kept.names) {
		last = append(last, kept.change(name, -n))
	}
	if p := w.apply(kept.table, last, ignore); p != (page{}) {
		t.Errorf("seed %d: an empty table is %s", seed, form(p))
	}
}

// TestTable_LargeSet has names come and go beside one whose records are more than a page.
func TestTable_LargeSet(t *testing.T) {
	var w rewriter
	var p page
	var large []change
	for i := range 300 {
		large = append(large, change{"large", rr{dataOf(fmt.Sprintf("target-%d.", i)), 1, typePTR}, tagOf("large")})
		changes := slices.Clone(large[i:])
		if i < 100 {
			name := fmt.Sprint(i)
			changes = append(changes, change{name, rr{dataOf("x."), 1, typePTR}, tagOf(name)})
		}
		p = w.apply(p, changes, ignore)
	}
	if n := p.find(tagOf("large"), "large").count(); n != 300 {
		t.Errorf("%d records", n)
	}
	var changes []change
	for i := range 100 {
		name := fmt.Sprint(i)
		if p.find(tagOf(name), name).count() != 1 {
			t.Errorf("%s has gone", name)
		}
		changes = append(changes, change{name, rr{dataOf("x."), -1, typePTR}, tagOf(name)})
	}
	p = w.apply(p, changes, ignore)
	if want := w.apply(page{}, large, ignore); form(p) != form(want) {
		t.Errorf("one name is %s, and made at once %s", form(p), form(want))
	}
}

// TestTable_EqualTags has more names of one tag than a page has room for. A part comes first, and some
// that go again.
func TestTable_EqualTags(t *testing.T) {
	var w rewriter
	add := func(times int32, from, to int) (changes []change) {
		for i := from; i < to; i++ {
			changes = append(changes, change{fmt.Sprint(i), rr{dataOf(fmt.Sprintf("x%d.", i)), times, typePTR}, 7})
		}
		return changes
	}
	p := w.apply(page{}, add(1, 300, 800), ignore)
	p = w.apply(p, add(1, 0, 300), ignore)
	p = w.apply(p, append(add(1, 800, 1000), add(-1, 700, 900)...), ignore)
	for i := range 1000 {
		n := p.find(7, fmt.Sprint(i))
		if gone := i >= 700 && i < 900; gone != (n.sets == "") || !gone && n.record().data != dataOf(fmt.Sprintf("x%d.", i)) {
			t.Fatalf("%d has %q", i, n.sets)
		}
	}
	if want := w.apply(page{}, append(add(1, 0, 700), add(1, 900, 1000)...), ignore); form(p) != form(want) {
		t.Errorf("the table is\n%s\nwhere one made at once is\n%s", form(p), form(want))
	}
}

// TestTable_FullPage has names come and go beside nodes of as many octets as a page may have, or one more
// or less: a table made at once is the same.
func TestTable_FullPage(t *testing.T) {
	var w rewriter
	named := func(name, target string, times int32) change {
		return change{name, rr{dataOf(target), times, typePTR}, tagOf(name)}
	}
	for octets := maxPage - 1; octets <= maxPage+1; octets++ {
		var changes []change
		for i := range 7 {
			changes = append(changes, named(fmt.Sprint(i), strings.Repeat("x", 180), 1))
		}
		rest := octets - len(w.apply(page{}, append(changes, named("last", "", 1)), ignore).nodes)
		changes = append(changes, named("last", strings.Repeat("x", rest-2), 1)) // two lengths take an octet more
		once := w.apply(page{}, changes, ignore)
		if once.branch == nil && len(once.nodes) != octets || (once.branch == nil) != (octets <= maxPage) {
			t.Fatalf("%d octets are %s", octets, form(once))
		}
		p := w.apply(once, []change{named("other", "y.", 1)}, ignore)
		if p = w.apply(p, []change{named("other", "y.", -1)}, ignore); form(p) != form(once) {
			t.Errorf("%d octets are\n%s\nwhere a table made at once is\n%s", octets, form(p), form(once))
		}
	}
}

// ignore is for tests that look at the table alone.
func ignore(string, sets, sets) {}

// dataOf is the data of a PTR record.
func dataOf(target string) string { return string(appendData(nil, "", Pointer(target))) }

type tableAndMap struct {
	table page
	names map[string]int32 // how often each was added
}

// change is a change of the table, and makes it in the map.
func (b *tableAndMap) change(name string, n int32) change {
	if b.names[name] += n; b.names[name] == 0 {
		delete(b.names, name)
	}
	return change{name, rr{dataOf(name + ".mesos."), n, typePTR}, tagOf(name)}
}

func (b *tableAndMap) check(t *testing.T, seed uint64) {
	t.Helper()
	all := make(map[string]int32)
	for n := range b.table.all {
		if _, twice := all[n.rel]; twice {
			t.Fatalf("seed %d: %s is there twice", seed, n.rel)
		}
		all[n.rel] = n.record().times
	}
	if !maps.Equal(all, b.names) {
		t.Fatalf("seed %d: %d names, not %d", seed, len(all), len(b.names))
	}
	var changes []change
	for name, n := range b.names {
		if found := b.table.find(tagOf(name), name); found.rel != name || found.record().data[1:] != name+".mesos." {
			t.Fatalf("seed %d: %s is %v", seed, name, found)
		}
		changes = append(changes, change{name, rr{dataOf(name + ".mesos."), n, typePTR}, tagOf(name)})
	}
	if n := b.table.find(tagOf("nope"), "nope"); n.sets != "" {
		t.Fatalf("seed %d: what is not there is found", seed)
	}
	var w rewriter
	if one, want := form(b.table), form(w.apply(page{}, changes, ignore)); one != want {
		t.Fatalf("seed %d: the table is\n%s\nwhere one made at once is\n%s", seed, one, want)
	}
}

// form is the shape of a table, with its pages.
func form(p page) string {
	if p.branch == nil {
		return fmt.Sprintf("%q", p.nodes)
	}
	var parts []string
	for _, child := range p.branch {
		parts = append(parts, form(child))
	}
	return "(" + strings.Join(parts, " ") + ")"
}

// tagOf gives names tags, some of which are the same.
func tagOf(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h * 2654435761 &^ 7
}
