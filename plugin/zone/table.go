package zone

import "slices"

// A table is an immutable hash table of nodes. Its pages are split as they fill
// (extendible hashing: a page is found by as many of the highest bits of a name's
// tag as it takes), and those that a transaction does not touch are shared with
// the generation before; so are the sheets of the directory, which tells where the
// pages are. What a transaction copies is a page and a sheet for each name that it
// changes, and the list of sheets once: 4 KB of it for a million names.
type table struct {
	tx     uint32 // the transaction that may change sheets and pages
	depth  uint8  // how many bits of a tag are an index of the directory
	sheets []*sheet
}

const (
	// slots is how many names a page has room for; with it a page fills a size
	// class of Go's allocator, 1536 octets.
	slots = 126
	// full is how many it holds at most, since a search ends at an empty slot.
	full = slots * 7 / 8
	// sparse is how many names two pages have that become one.
	sparse = slots / 4
	// entries is how many pages a sheet of the directory lists; with it a sheet fills
	// a size class too, 256 octets.
	entries = 31
)

// page is an open-addressed hash table of the names whose tags begin alike.
type page struct {
	tx    uint32 // the transaction that made it, and may change it
	depth uint8  // how many bits the tags have in common
	used  uint8
	tags  [slots]uint32 // 0 for an empty slot
	nodes [slots]*node
}

// sheet is a part of a directory.
type sheet struct {
	tx    uint32 // the transaction that made it, and may change it
	pages [entries]*page
}

// find returns the node of head, whose tag is given; or nil.
func (t *table) find(tag uint32, head string) *node {
	if len(t.sheets) == 0 {
		return nil
	}
	p := t.page(t.index(tag))
	if i, found := p.find(tag, head); found {
		return p.nodes[i]
	}
	return nil
}

func (t *table) index(tag uint32) int { return int(tag >> (32 - t.depth)) }

// page returns the page of an index of the directory.
func (t *table) page(i int) *page { return t.sheets[i/entries].pages[i%entries] }

// size is how many pages the directory lists, some of them several times.
func (t *table) size() int {
	if len(t.sheets) == 0 {
		return 0
	}
	return 1 << t.depth
}

// find returns the slot of head, or that where it belongs.
func (p *page) find(tag uint32, head string) (int, bool) {
	i := home(tag)
	for p.tags[i] != 0 {
		if p.tags[i] == tag && p.nodes[i].head == head {
			return i, true
		}
		i = after(i)
	}
	return i, false
}

// home returns the slot where a search begins.
func home(tag uint32) int { return int(tag % slots) }

func after(slot int) int {
	if slot++; slot < slots {
		return slot
	}
	return 0
}

// all yields every node.
func (t *table) all(yield func(*node) bool) {
	for p := range t.distinct {
		for _, n := range p.nodes {
			if n != nil && !yield(n) {
				return
			}
		}
	}
}

// distinct yields every page once.
func (t *table) distinct(yield func(*page) bool) {
	for i := 0; i < t.size(); {
		p := t.page(i)
		if !yield(p) {
			return
		}
		i += 1 << (t.depth - p.depth)
	}
}

// disown takes all there is from the transactions that made it, for when their
// numbers start again.
func (t *table) disown() {
	t.tx = 0
	for _, s := range t.sheets {
		s.tx = 0
	}
	for p := range t.distinct {
		p.tx = 0
		for _, n := range p.nodes {
			if n != nil {
				n.tx = 0
			}
		}
	}
}

// put stores n, in place of the node of the same name if there is one.
func (t *table) put(tag uint32, n *node, tx uint32) {
	p := t.own(tag, tx)
	i, found := p.find(tag, n.head)
	if !found && p.used == full {
		t.split(tag)
		t.put(tag, n, tx)
		return
	}
	p.tags[i], p.nodes[i] = tag, n
	if !found {
		p.used++
	}
}

// own returns the page of a tag, to be changed by the transaction tx.
func (t *table) own(tag, tx uint32) *page {
	if t.tx != tx {
		t.sheets, t.tx = slices.Clone(t.sheets), tx
	}
	if len(t.sheets) == 0 {
		t.sheets = []*sheet{{tx: tx, pages: [entries]*page{{tx: tx}}}}
	}
	p := t.page(t.index(tag))
	if p.tx != tx {
		own := *p
		own.tx = tx
		t.place(&own, tag)
		return &own
	}
	return p
}

// place puts p where pages of its depth with the tag are.
func (t *table) place(p *page, tag uint32) {
	span := 1 << (t.depth - p.depth)
	first := t.index(tag) &^ (span - 1)
	for i := first; i < first+span; i++ {
		s := t.sheets[i/entries]
		if s.tx != t.tx {
			own := *s
			own.tx = t.tx
			s = &own
			t.sheets[i/entries] = s
		}
		s.pages[i%entries] = p
	}
}

// double lists every page of the directory twice as often.
func (t *table) double() {
	size := 2 * t.size()
	sheets := make([]*sheet, (size+entries-1)/entries)
	for i := range sheets {
		sheets[i] = &sheet{tx: t.tx}
	}
	for i := range size {
		sheets[i/entries].pages[i%entries] = t.page(i / 2)
	}
	t.sheets = sheets
	t.depth++
}

// split makes two of the transaction's own page of a tag. That more names than fit
// a page have all bits in common is not to be expected of a hash with a secret seed.
func (t *table) split(tag uint32) {
	old := t.page(t.index(tag))
	if old.depth == t.depth {
		t.double()
	}
	bit := uint32(1) << (31 - old.depth)
	low, high := &page{tx: t.tx, depth: old.depth + 1}, &page{tx: t.tx, depth: old.depth + 1}
	for i, tag := range old.tags {
		switch {
		case tag == 0:
		case tag&bit == 0:
			low.add(tag, old.nodes[i])
		default:
			high.add(tag, old.nodes[i])
		}
	}
	t.place(low, tag&^bit)
	t.place(high, tag|bit)
}

// add stores a node that the page does not have.
func (p *page) add(tag uint32, n *node) {
	i := home(tag)
	for p.tags[i] != 0 {
		i = after(i)
	}
	p.tags[i], p.nodes[i] = tag, n
	p.used++
}

// remove drops the node of head.
func (t *table) remove(tag uint32, head string, tx uint32) {
	p := t.own(tag, tx)
	empty, found := p.find(tag, head)
	if !found {
		return
	}
	p.used--
	// A search must not end here for a name that is further on.
	for i := after(empty); p.tags[i] != 0; i = after(i) {
		if distance(home(p.tags[i]), i) >= distance(empty, i) {
			p.tags[empty], p.nodes[empty] = p.tags[i], p.nodes[i]
			empty = i
		}
	}
	p.tags[empty], p.nodes[empty] = 0, nil
	t.merge(p, tag)
}

// distance is how many slots to lies after from.
func distance(from, to int) int { return (to - from + slots) % slots }

// merge makes one of p, which the transaction may change, and the page that it was
// once split from, if they have few names.
func (t *table) merge(p *page, tag uint32) {
	if p.depth == 0 {
		return
	}
	bit := uint32(1) << (32 - p.depth)
	other := t.page(t.index(tag ^ bit))
	if other.depth != p.depth || int(p.used)+int(other.used) > sparse {
		return
	}
	for i, tag := range other.tags {
		if tag != 0 {
			p.add(tag, other.nodes[i])
		}
	}
	p.depth--
	t.place(p, tag)
}
