package zone

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// A table holds the names of a zone. It is a trie over the bits of their tags, whose leaves
// are pages: one string each, of a few names with their sets. A page never changes; a change
// makes new ones, and copies the branches above them, some KB for a moved task. Nothing but
// the branches has pointers that the collector must follow.
//
// The form of a table depends on what it holds alone, not on the order of changes: a page is
// divided if it has more than maxPage octets.

// node has the sets of the names that share a Rel. In a page it is the tag (4 octets), the
// length of the Rel (1), the Rel, the length of the sets as a uvarint, and the sets. The nodes of
// a page, and of a branch, come in the order of their tags, and then of their Rels.
type node struct {
	tag uint32
	rel string
	sets
}

// page is a leaf, or a branch. The zero page is an empty leaf.
type page struct {
	nodes string  // of a leaf
	below *branch // nil for a leaf
}

// branch divides names by some bits of their tags.
type branch [1 << fanout]page

const (
	// maxPage is the number of octets up to which a page is not divided: a dozen names. A
	// search reads half of them, and a change writes all.
	maxPage = 1536
	fanout  = 4  // bits of a tag that a branch divides by
	bits    = 32 // of a tag
)

// cut returns the first node of a page, and those after it.
func cut(nodes string) (n node, rest string) {
	n.tag = tagAt(nodes)
	end := tagSize + 1 + int(nodes[tagSize])
	n.rel = nodes[tagSize+1 : end]
	size, octets := uvarint(nodes[end:])
	end += octets
	n.sets = sets(nodes[end : end+size])
	return n, nodes[end+size:]
}

const tagSize = 4 // octets

// tagAt returns the tag of the first node.
func tagAt(nodes string) uint32 {
	return uint32(nodes[0])<<24 | uint32(nodes[1])<<16 | uint32(nodes[2])<<8 | uint32(nodes[3])
}

func appendNode(to []byte, tag uint32, rel string, sets []byte) []byte {
	to = append(append(binary.BigEndian.AppendUint32(to, tag), byte(len(rel))), rel...)
	return append(binary.AppendUvarint(to, uint64(len(sets))), sets...)
}

// find returns the node of rel, whose tag is given. It has no sets if there is none.
func (p page) find(tag uint32, rel string) node {
	for at := tag; p.below != nil; at <<= fanout {
		p = p.below[at>>(bits-fanout)]
	}
	for rest := p.nodes; rest != "" && tagAt(rest) <= tag; {
		var n node
		if n, rest = cut(rest); n.tag == tag && n.rel == rel {
			return n
		}
	}
	return node{}
}

// all yields every node.
func (p page) all(yield func(node) bool) { p.each(yield) }

// each passes nodes to yield until that returns false, as each then does.
func (p page) each(yield func(node) bool) bool {
	for rest := p.nodes; rest != ""; {
		var n node
		if n, rest = cut(rest); !yield(n) {
			return false
		}
	}
	return p.below == nil || !slices.ContainsFunc(p.below[:], func(p page) bool { return !p.each(yield) })
}

// change adds a record to a Rel or takes additions back, where rr.times is negative.
type change struct {
	rel string
	rr
	tag uint32
}

// compare orders changes as tables do nodes and records.
func (c change) compare(o change) int {
	if by := compareNodes(c.tag, c.rel, o.tag, o.rel); by != 0 {
		return by
	}
	return c.rr.compare(o.rr)
}

func compareNodes(tag uint32, rel string, oTag uint32, oRel string) int {
	switch {
	case tag != oTag:
		return cmp.Compare(tag, oTag)
	case rel == oRel: // is faster
		return 0
	}
	return strings.Compare(rel, oRel)
}

// unite sorts changes, and makes one of those of a record, or none if they cancel out.
func unite(changes []change) []change {
	slices.SortFunc(changes, change.compare)
	kept := 0
	for i, c := range changes {
		switch {
		case kept > 0 && changes[kept-1].compare(c) == 0:
			changes[kept-1].times += c.times
			continue
		case kept > 0 && changes[kept-1].times == 0:
			kept--
		}
		changes[kept] = changes[i]
		kept++
	}
	if kept > 0 && changes[kept-1].times == 0 {
		kept--
	}
	return changes[:kept]
}

// rewriter applies changes to a table. Its buffers are used again.
type rewriter struct {
	note  func(rel string, before, now sets)
	keys  []uint64 // of changes, to sort and divide them: tags, and the indexes of the first of each Rel in a row
	of    []change // of a leaf
	nodes []byte   // of a leaf
	sets  writer
	noted []noted // of a leaf
}

// noted is a Rel that has changed: what its sets were, and where in a page they are.
type noted struct {
	rel      string
	before   sets
	from, to int
}

// apply returns table with changes. It tells note what becomes of each Rel that has changed.
func (w *rewriter) apply(table page, changes []change, note func(rel string, before, now sets)) page {
	w.note = note
	w.keys = slices.Grow(w.keys[:0], len(changes))
	for i, c := range changes {
		if i == 0 || changes[i-1].rel != c.rel {
			w.keys = append(w.keys, uint64(c.tag)<<bits|uint64(i))
		}
	}
	slices.Sort(w.keys)
	after := w.page(table, changes, w.keys, 0)
	w.note = nil // it may keep an old table
	return after
}

// page returns p with the changes that keys name. depth is the number of bits that lead to p.
func (w *rewriter) page(p page, changes []change, keys []uint64, depth int) page {
	if p.below == nil {
		return w.leaf(p, changes, keys, depth)
	}
	b := *p.below
	for len(keys) > 0 {
		i := index(uint32(keys[0]>>bits), depth)
		n := 1
		for n < len(keys) && index(uint32(keys[n]>>bits), depth) == i {
			n++
		}
		b[i] = w.page(b[i], changes, keys[:n], depth+fanout)
		keys = keys[n:]
	}
	if b == *p.below {
		return p
	}
	return b.page()
}

// index returns the place of a tag in a branch, which depth bits lead to.
func index(tag uint32, depth int) int { return int(tag << depth >> (bits - fanout)) }

// page returns the page of b: a leaf, if there is little left below b.
func (b branch) page() page {
	size := 0
	for _, p := range b {
		if size += len(p.nodes); p.below != nil || size > maxPage {
			return page{below: &b}
		}
	}
	var nodes strings.Builder
	nodes.Grow(size)
	for _, p := range b {
		nodes.WriteString(p.nodes)
	}
	return page{nodes: nodes.String()}
}

// divide returns the page of nodes: a branch, if they are too many.
func divide(nodes string, depth int) page {
	if len(nodes) <= maxPage || depth+fanout > bits {
		return page{nodes: nodes}
	}
	if _, more := cut(nodes); more == "" {
		return page{nodes: nodes}
	}
	b := new(branch)
	for i := range b {
		rest := nodes
		for rest != "" && index(tagAt(rest), depth) == i {
			_, rest = cut(rest)
		}
		part := strings.Clone(nodes[:len(nodes)-len(rest)])
		b[i], nodes = divide(part, depth+fanout), rest
	}
	return page{below: b}
}

// leaf is page for a leaf.
func (w *rewriter) leaf(p page, changes []change, keys []uint64, depth int) page {
	w.of = w.of[:0]
	for _, k := range keys {
		first := uint32(k)
		rel := changes[first].rel
		if last := len(w.of) - 1; last >= 0 && w.of[last].rel == rel {
			rel = w.of[last].rel // the same string is found equal faster
		}
		for _, c := range changes[first:] {
			if c.rel != changes[first].rel {
				break
			}
			c.rel = rel
			w.of = append(w.of, c)
		}
	}
	w.nodes, w.noted = w.nodes[:0], w.noted[:0]
	of, nodes := unite(w.of), p.nodes
	if len(of) == 0 {
		return p
	}
	for nodes != "" || len(of) > 0 {
		var n node
		rest := nodes
		order := 1 // of the first node and the first change
		if nodes != "" {
			n, rest = cut(nodes)
			order = -1
			if len(of) > 0 {
				order = compareNodes(n.tag, n.rel, of[0].tag, of[0].rel)
			}
		}
		if order < 0 {
			w.nodes = append(w.nodes, nodes[:len(nodes)-len(rest)]...)
			nodes = rest
			continue
		}
		if order > 0 {
			n = node{tag: of[0].tag, rel: of[0].rel}
		} else {
			nodes = rest
		}
		count := 1
		for count < len(of) && of[count].rel == n.rel {
			count++
		}
		w.node(n, of[:count])
		of = of[count:]
	}
	after := string(w.nodes)
	for _, n := range w.noted {
		w.note(n.rel, n.before, sets(after[n.from:n.to]))
	}
	clear(w.of) // what they refer to is not kept for them
	clear(w.noted)
	return divide(after, depth)
}

// node appends n with changes.
func (w *rewriter) node(n node, changes []change) {
	w.sets.reset()
	w.sets.merge(n.sets, changes)
	now := w.sets.sets()
	if len(now) > 0 {
		w.nodes = appendNode(w.nodes, n.tag, n.rel, now)
	}
	w.noted = append(w.noted, noted{n.rel, n.sets, len(w.nodes) - len(now), len(w.nodes)})
}
