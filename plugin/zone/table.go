package zone

import "slices"

// A table is an immutable hash table of nodes. Its pages are split as they fill
// (extendible hashing: a page is found by as many of the highest bits of a name's
// tag as it takes), and those that a transaction does not touch are shared with
// the generation before; so are the sheets of the directory, which tells where the
// pages are. What a transaction copies is the news of a page and a sheet for each name
// that it changes, a body for one in eleven, and the list of sheets once: 9 KB of it for
// a million names. The directory never shrinks.
type table struct {
	tx     uint32 // the transaction that may change sheets and pages
	depth  uint8  // how many bits of a tag are an index of the directory
	sheets []*sheet
}

const (
	// slots is how many names a body has room for; with it a body fills a size
	// class of Go's allocator, 1536 octets.
	slots = 126
	// full is how many names a body has that gets no more of them, nor news, but is split.
	// One that has less, and its news, are fewer than slots: a search ends at an empty one.
	full = slots * 7 / 8
	// sparse is how many names two bodies have that become one.
	sparse = slots / 4
	// room is how many names a page has beside its body; with them news fill a size
	// class too, 128 octets.
	room = 10
	// entries is how many pages a sheet of the directory lists; with it a sheet fills
	// a size class too, 256 octets.
	entries = 15
)

// page is the names whose tags begin alike: those of a body, and what was changed since
// the body was made. So most changes copy a few names, and a body only when there is no
// more room beside it.
type page struct {
	body *body
	news *news // nil for none
}

// body is an open-addressed hash table.
type body struct {
	tx    uint32 // the transaction that made it, and may change it
	depth uint8  // how many bits the tags have in common
	used  uint8
	tags  [slots]uint32 // 0 for an empty slot
	nodes [slots]*node
}

// news is what was changed in a page: nodes that are there in place of those of the same
// name in the body. An empty one stands for a name that has gone.
type news struct {
	tx    uint32 // the transaction that made it, and may change it
	used  uint8
	tags  [room]uint32
	nodes [room]*node
}

// sheet is a part of a directory.
type sheet struct {
	tx    uint32 // the transaction that made it, and may change it
	pages [entries]page
}

// find returns the node of head, whose tag is given; or nil.
func (t *table) find(tag uint32, head string) *node {
	if len(t.sheets) == 0 {
		return nil
	}
	p := t.page(t.index(tag))
	if i, found := p.news.find(tag, head); found {
		return p.news.nodes[i]
	}
	if i, found := p.body.find(tag, head); found {
		return p.body.nodes[i]
	}
	return nil
}

func (t *table) index(tag uint32) int { return int(tag >> (32 - t.depth)) }

// page returns the page of an index of the directory.
func (t *table) page(i int) page { return t.sheets[i/entries].pages[i%entries] }

// size is how many pages the directory lists, some of them several times.
func (t *table) size() int {
	if len(t.sheets) == 0 {
		return 0
	}
	return 1 << t.depth
}

// find returns the place of head among the news, which may be nil, or that after the
// last.
func (w *news) find(tag uint32, head string) (int, bool) {
	if w == nil {
		return 0, false
	}
	used := int(w.used)
	for i, other := range w.tags[:used] {
		if other == tag && w.nodes[i].head == head {
			return i, true
		}
	}
	return used, false
}

// find returns the slot of head, or that where it belongs.
func (b *body) find(tag uint32, head string) (int, bool) {
	i := home(tag)
	for b.tags[i] != 0 {
		if b.tags[i] == tag && b.nodes[i].head == head {
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

// all yields every node, and of names that have gone lately empty ones.
func (t *table) all(yield func(*node) bool) {
	for p := range t.distinct {
		for i, n := range p.body.nodes {
			if n == nil {
				continue
			}
			if _, changed := p.news.find(p.body.tags[i], n.head); !changed && !yield(n) {
				return
			}
		}
		if p.news == nil {
			continue
		}
		for _, n := range p.news.nodes[:p.news.used] {
			if !yield(n) {
				return
			}
		}
	}
}

// distinct yields every page once.
func (t *table) distinct(yield func(page) bool) {
	for i := 0; i < t.size(); {
		p := t.page(i)
		if !yield(p) {
			return
		}
		i += 1 << (t.depth - p.body.depth)
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
		p.body.tx = 0
		if p.news != nil {
			p.news.tx = 0
		}
	}
	for n := range t.all {
		n.tx = 0
	}
}

// put stores n, in place of the node of the same name if there is one.
func (t *table) put(tag uint32, n *node, tx uint32) {
	t.own(tx)
	p := t.page(t.index(tag))
	if p.body.tx != tx {
		if p.body.used < full {
			if w := p.news.with(tag, n, tx); w != nil {
				t.place(page{p.body, w}, tag)
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
	i, _ := p.body.find(tag, n.head)
	p.body.set(i, tag, n)
}

// with returns the news, changed by the transaction tx, with n; nil if there is no room
// for it.
func (w *news) with(tag uint32, n *node, tx uint32) *news {
	i, found := w.find(tag, n.head)
	switch {
	case i == room:
		return nil
	case w == nil:
		w = &news{tx: tx}
	case w.tx != tx:
		w = new(*w)
		w.tx = tx
	}
	w.tags[i], w.nodes[i] = tag, n
	if !found {
		w.used++
	}
	return w
}

// set stores n in the slot, which find returned.
func (b *body) set(slot int, tag uint32, n *node) {
	if b.tags[slot] == 0 {
		b.used++
	}
	b.tags[slot], b.nodes[slot] = tag, n
}

// fold returns p's body as the news say it is, for the transaction to change. Empty
// nodes that the transaction made may yet be filled; others are dropped.
func (p page) fold(tx uint32) *body {
	b := new(*p.body)
	b.tx = tx
	if p.news == nil {
		return b
	}
	for i, n := range p.news.nodes[:p.news.used] {
		slot, found := b.find(p.news.tags[i], n.head)
		switch {
		case !n.empty() || n.tx == tx:
			b.set(slot, p.news.tags[i], n)
		case found:
			b.remove(slot)
		}
	}
	return b
}

// own makes the directory one that the transaction tx may change.
func (t *table) own(tx uint32) {
	if t.tx != tx {
		t.sheets, t.tx = slices.Clone(t.sheets), tx
	}
	if len(t.sheets) == 0 {
		t.sheets = []*sheet{{tx: tx, pages: [entries]page{{body: &body{tx: tx}}}}}
	}
}

// place puts p where the pages of its depth with the tag are.
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

// split makes two of the page of a tag, whose body is the transaction's own. That more
// names than fit a body have all bits in common is not to be expected of a hash with a
// secret seed.
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

// add stores a node that the body does not have.
func (b *body) add(tag uint32, n *node) {
	i := home(tag)
	for b.tags[i] != 0 {
		i = after(i)
	}
	b.set(i, tag, n)
}

// remove drops n, which is empty and was put by the transaction tx.
func (t *table) remove(tag uint32, n *node, tx uint32) {
	n.tx = 0 // it stays empty: whoever folds its page may drop it
	p := t.page(t.index(tag))
	if p.body.tx != tx {
		if p.body.used > sparse {
			return
		}
		p = page{body: p.fold(tx)}
		t.place(p, tag)
	}
	if slot, found := p.body.find(tag, n.head); found {
		p.body.remove(slot)
	}
	t.merge(p.body, tag)
}

// remove empties a slot.
func (b *body) remove(empty int) {
	b.used--
	// A search must not end here for a name that is further on.
	for i := after(empty); b.tags[i] != 0; i = after(i) {
		if distance(home(b.tags[i]), i) >= distance(empty, i) {
			b.tags[empty], b.nodes[empty] = b.tags[i], b.nodes[i]
			empty = i
		}
	}
	b.tags[empty], b.nodes[empty] = 0, nil
}

// distance is how many slots to lies after from.
func distance(from, to int) int { return (to - from + slots) % slots }

// merge makes one of the page of a body, which the transaction may change, and the page
// that it was once split from, if their bodies have few names.
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
