package zone

// A table is an immutable hash table of nodes. Its pages are split as they fill
// (extendible hashing: a page is found by as many of the highest bits of a name's
// tag as it takes), and those that a transaction does not touch are shared with
// the generation before. What a transaction copies is a page for each name that it
// changes, and the directory of pages once: 64 KB of it for a million names.
type table struct {
	tx    uint32  // the transaction that may change pages
	depth uint8   // how many bits of a tag are an index of pages
	pages []*page // the directory; it never shrinks
}

const (
	// slots is how many names a page has room for; with it a page fills a size
	// class of Go's allocator, 3072 octets.
	slots = 254
	// full is how many it holds at most, since a search ends at an empty slot.
	full = slots * 7 / 8
	// sparse is how many names two pages have that become one.
	sparse = slots / 4
)

// page is an open-addressed hash table of the names whose tags begin alike.
type page struct {
	tx    uint32 // the transaction that made it, and may change it
	depth uint8  // how many bits the tags have in common
	used  uint8
	tags  [slots]uint32 // 0 for an empty slot
	nodes [slots]*node
}

// find returns the node of head, whose tag is given; or nil.
func (t *table) find(tag uint32, head string) *node {
	if t.pages == nil {
		return nil
	}
	p := t.pages[t.index(tag)]
	if i, found := p.find(tag, head); found {
		return p.nodes[i]
	}
	return nil
}

func (t *table) index(tag uint32) int { return int(tag >> (32 - t.depth)) }

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
	for i := 0; i < len(t.pages); i += 1 << (t.depth - t.pages[i].depth) {
		if !yield(t.pages[i]) {
			return
		}
	}
}

// disown takes all nodes and pages from the transactions that made them, for
// when their numbers start again.
func (t *table) disown() {
	t.tx = 0
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
		pages := make([]*page, max(len(t.pages), 1))
		copy(pages, t.pages)
		t.pages, t.tx = pages, tx
	}
	switch p := t.pages[t.index(tag)]; {
	case p == nil:
		t.pages[0] = &page{tx: tx}
	case p.tx != tx:
		own := *p
		own.tx = tx
		t.place(&own, tag)
	}
	return t.pages[t.index(tag)]
}

// place puts p where pages of its depth with the tag are.
func (t *table) place(p *page, tag uint32) {
	span := 1 << (t.depth - p.depth)
	first := t.index(tag) &^ (span - 1)
	for i := range span {
		t.pages[first+i] = p
	}
}

// split makes two of the transaction's own page of a tag. That more names than fit
// a page have all bits in common is not to be expected of a hash with a secret seed.
func (t *table) split(tag uint32) {
	old := t.pages[t.index(tag)]
	if old.depth == t.depth {
		pages := make([]*page, 0, 2*len(t.pages))
		for _, p := range t.pages {
			pages = append(pages, p, p)
		}
		t.pages = pages
		t.depth++
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
	other := t.pages[t.index(tag^bit)]
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
