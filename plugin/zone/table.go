package zone

import "slices"

// A table maps the Rels of a zone to their nodes. It is immutable, and hashes in two
// steps (extendible hashing): the highest bits of a tag index the directory, which names a
// page; the page finds the node by the whole tag. A page that fills up is split in two by
// one more bit, and the directory doubles if it has too few bits for that.
//
// Generations share what a transaction leaves alone. It copies the list of sheets once,
// and for each name that it changes a sheet of the directory and the page's overlay. Only
// when an overlay is full, one name in eleven, does it copy a page's body. That is 9 KB
// for a change in a zone of a million names. The directory never shrinks.
type table struct {
	tx     uint32   // the transaction that may change sheets
	depth  uint8    // number of bits of a tag that index the directory
	sheets []*sheet // the directory: 1<<depth pages
}

const (
	// slots is the size of a body. It makes a body fill a size class of Go's allocator,
	// 1536 bytes.
	slots = 126
	// full is the number of names at which a body is split. A body with fewer names, and
	// its overlay, have fewer than slots together, so that every search finds an empty slot.
	full = slots * 7 / 8
	// sparse is the number of names up to which two bodies are merged into one.
	sparse = slots / 4
	// room is the size of an overlay, which so fills a size class of 128 bytes.
	room = 10
	// entries is the number of pages in a sheet, which so fills a size class of 256 bytes.
	entries = 15
)

// page holds the nodes whose tags begin with the same bits: a body, and an overlay with
// what has changed since the body was made. Most changes copy the overlay alone.
type page struct {
	body    *body
	overlay *overlay // nil if nothing has changed
}

// body is a hash table with open addressing.
type body struct {
	tx    uint32 // the transaction that made it and may change it
	depth uint8  // number of bits that the tags have in common
	used  uint8
	tags  [slots]uint32 // 0 for an empty slot
	nodes [slots]*node
}

// overlay holds nodes that take precedence over those of the same Rel in the body. An
// empty node stands for one that has gone.
type overlay struct {
	tx    uint32 // the transaction that made it and may change it
	used  uint8
	tags  [room]uint32
	nodes [room]*node
}

// sheet is a part of the directory. Pages with fewer bits than the directory are listed
// several times.
type sheet struct {
	tx    uint32 // the transaction that made it and may change it
	pages [entries]page
}

// find returns the node of rel, whose tag is given, or nil.
func (t *table) find(tag uint32, rel string) *node {
	if len(t.sheets) == 0 {
		return nil
	}
	p := t.page(t.index(tag))
	if i, found := p.overlay.find(tag, rel); found {
		return p.overlay.nodes[i]
	}
	if i, found := p.body.find(tag, rel); found {
		return p.body.nodes[i]
	}
	return nil
}

func (t *table) index(tag uint32) int { return int(tag >> (32 - t.depth)) }

// page returns the page at an index of the directory.
func (t *table) page(i int) page { return t.sheets[i/entries].pages[i%entries] }

// size returns the length of the directory.
func (t *table) size() int {
	if len(t.sheets) == 0 {
		return 0
	}
	return 1 << t.depth
}

// find returns the index of rel, or that after the last node. o may be nil.
func (o *overlay) find(tag uint32, rel string) (int, bool) {
	if o == nil {
		return 0, false
	}
	used := int(o.used)
	for i, other := range o.tags[:used] {
		if other == tag && o.nodes[i].rel == rel {
			return i, true
		}
	}
	return used, false
}

// find returns the slot of rel, or the empty one where it belongs.
func (b *body) find(tag uint32, rel string) (int, bool) {
	i := home(tag)
	for b.tags[i] != 0 {
		if b.tags[i] == tag && b.nodes[i].rel == rel {
			return i, true
		}
		i = after(i)
	}
	return i, false
}

// home returns the slot where the search for a tag begins.
func home(tag uint32) int { return int(tag % slots) }

func after(slot int) int {
	if slot++; slot < slots {
		return slot
	}
	return 0
}

// all yields every node. Nodes that have gone may be yielded as empty ones.
func (t *table) all(yield func(*node) bool) {
	for p := range t.distinct {
		for i, n := range p.body.nodes {
			if n == nil {
				continue
			}
			if _, changed := p.overlay.find(p.body.tags[i], n.rel); !changed && !yield(n) {
				return
			}
		}
		if p.overlay == nil {
			continue
		}
		for _, n := range p.overlay.nodes[:p.overlay.used] {
			if !yield(n) {
				return
			}
		}
	}
}

// distinct yields each page once.
func (t *table) distinct(yield func(page) bool) {
	for i := 0; i < t.size(); {
		p := t.page(i)
		if !yield(p) {
			return
		}
		i += 1 << (t.depth - p.body.depth)
	}
}

// disown makes everything immutable, whichever transaction made it. It is called when the
// numbers of transactions start again, since a new one would own what an old one made.
func (t *table) disown() {
	t.tx = 0
	for _, s := range t.sheets {
		s.tx = 0
	}
	for p := range t.distinct {
		p.body.tx = 0
		if p.overlay != nil {
			p.overlay.tx = 0
		}
	}
	for n := range t.all {
		n.tx = 0
	}
}

// put stores n in place of the node of the same Rel, if there is one.
func (t *table) put(tag uint32, n *node, tx uint32) {
	t.own(tx)
	p := t.page(t.index(tag))
	if p.body.tx != tx {
		if p.body.used < full {
			if o := p.overlay.with(tag, n, tx); o != nil {
				t.place(page{p.body, o}, tag)
				return
			}
		}
		p = page{body: p.fold(tx)}
		t.place(p, tag)
	}
	if p.body.used >= full {
		t.split(tag)
		t.put(tag, n, tx)
		return
	}
	i, _ := p.body.find(tag, n.rel)
	p.body.set(i, tag, n)
}

// with returns an overlay that the transaction tx owns, with n added. It returns nil if
// there is no room. o may be nil.
func (o *overlay) with(tag uint32, n *node, tx uint32) *overlay {
	i, found := o.find(tag, n.rel)
	switch {
	case i == room:
		return nil
	case o == nil:
		o = &overlay{tx: tx}
	case o.tx != tx:
		o = new(*o)
		o.tx = tx
	}
	o.tags[i], o.nodes[i] = tag, n
	if !found {
		o.used++
	}
	return o
}

// set stores n in a slot that find returned.
func (b *body) set(slot int, tag uint32, n *node) {
	if b.tags[slot] == 0 {
		b.used++
	}
	b.tags[slot], b.nodes[slot] = tag, n
}

// fold returns a body that the transaction tx owns, with the overlay applied. It drops
// empty nodes, except those of tx, which may still be filled.
func (p page) fold(tx uint32) *body {
	b := new(*p.body)
	b.tx = tx
	if p.overlay == nil {
		return b
	}
	for i, n := range p.overlay.nodes[:p.overlay.used] {
		slot, found := b.find(p.overlay.tags[i], n.rel)
		switch {
		case !n.empty() || n.tx == tx:
			b.set(slot, p.overlay.tags[i], n)
		case found:
			b.remove(slot)
		}
	}
	return b
}

// own makes the list of sheets the transaction's own.
func (t *table) own(tx uint32) {
	if t.tx != tx {
		t.sheets, t.tx = slices.Clone(t.sheets), tx
	}
	if len(t.sheets) == 0 {
		t.sheets = []*sheet{{tx: tx, pages: [entries]page{{body: &body{tx: tx}}}}}
	}
}

// place enters p in the directory, at every index that shares p's bits of the tag.
func (t *table) place(p page, tag uint32) {
	span := 1 << (t.depth - p.body.depth)
	first := t.index(tag) &^ (span - 1)
	for i := first; i < first+span; i++ {
		s := t.sheets[i/entries]
		if s.tx != t.tx {
			s = new(*s)
			s.tx = t.tx
			t.sheets[i/entries] = s
		}
		s.pages[i%entries] = p
	}
}

// double adds a bit to the directory, which lists every page twice as often.
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

// split divides the page of a tag, whose body belongs to the transaction, by one more bit.
// A page whose tags agree in all bits would never divide; with a secret seed nobody can
// make that happen.
func (t *table) split(tag uint32) {
	old := t.page(t.index(tag)).body
	if old.depth == t.depth {
		t.double()
	}
	bit := uint32(1) << (31 - old.depth)
	low, high := &body{tx: t.tx, depth: old.depth + 1}, &body{tx: t.tx, depth: old.depth + 1}
	for i, tag := range old.tags {
		switch {
		case tag == 0:
		case tag&bit == 0:
			low.add(tag, old.nodes[i])
		default:
			high.add(tag, old.nodes[i])
		}
	}
	t.place(page{body: low}, tag&^bit)
	t.place(page{body: high}, tag|bit)
}

// add stores a node whose Rel the body does not have.
func (b *body) add(tag uint32, n *node) {
	i := home(tag)
	for b.tags[i] != 0 {
		i = after(i)
	}
	b.set(i, tag, n)
}

// remove drops n, an empty node that the transaction tx has put.
func (t *table) remove(tag uint32, n *node, tx uint32) {
	n.tx = 0 // it stays empty: fold may drop it
	p := t.page(t.index(tag))
	if p.body.tx != tx {
		if p.body.used > sparse {
			return
		}
		p = page{body: p.fold(tx)}
		t.place(p, tag)
	}
	if slot, found := p.body.find(tag, n.rel); found {
		p.body.remove(slot)
	}
	t.merge(p.body, tag)
}

// remove empties a slot, and moves up the nodes that a search would now miss.
func (b *body) remove(empty int) {
	b.used--
	for i := after(empty); b.tags[i] != 0; i = after(i) {
		if distance(home(b.tags[i]), i) >= distance(empty, i) {
			b.tags[empty], b.nodes[empty] = b.tags[i], b.nodes[i]
			empty = i
		}
	}
	b.tags[empty], b.nodes[empty] = 0, nil
}

// distance returns the number of steps from one slot to another.
func distance(from, to int) int { return (to - from + slots) % slots }

// merge unites the page of b, a body that belongs to the transaction, with the page that it
// was once split from, if both have few names.
func (t *table) merge(b *body, tag uint32) {
	if b.depth == 0 {
		return
	}
	bit := uint32(1) << (32 - b.depth)
	p := t.page(t.index(tag ^ bit))
	if p.body.depth != b.depth || int(b.used)+int(p.body.used) > sparse {
		return
	}
	other := p.fold(t.tx)
	for i, tag := range other.tags {
		if tag != 0 {
			b.add(tag, other.nodes[i])
		}
	}
	b.depth--
	t.place(page{body: b}, tag)
}
