package zone

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// node has the sets of the names that share a Rel. In a page it is the tag (4 octets), the
// length of the Rel (1), the Rel, the length of the sets as a uvarint, and the sets.
type node struct {
	tag uint32 // the hash of rel
	rel string
	sets
}

// page is a part of a table, the trie of the names of a zone over the bits of their tags: a leaf with
// a few nodes in one string, or a branch. Pages never change; a change makes new ones on the way to what
// it concerns, some KB for a moved task. Only branches have pointers that the collector must follow.
// What a page looks like depends on what it holds, and not on the order of changes.
type page struct {
	nodes  string  // of a leaf, in the order of their tags, and then of their Rels
	branch *branch // nil for a leaf
}

// branch divides names by some bits of their tags.
type branch [1 << fanout]page

const (
	// maxPage is the number of octets up to which a page is not divided: a dozen names. A
	// search reads half of them, and a change writes all. Only a page of one node, or of nodes with
	// the same tag, has more.
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

func appendNode(to []byte, tag uint32, rel string, sets sets) []byte {
	to = append(append(binary.BigEndian.AppendUint32(to, tag), byte(len(rel))), rel...)
	return append(binary.AppendUvarint(to, uint64(len(sets))), sets...)
}

// find returns the node of rel, whose tag is given. It has no sets if there is none.
func (p page) find(tag uint32, rel string) node {
	for at := tag; p.branch != nil; at <<= fanout {
		p = p.branch[at>>(bits-fanout)]
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
	return p.branch == nil || !slices.ContainsFunc(p.branch[:], func(p page) bool { return !p.each(yield) })
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

// rewriter applies changes to a table. Its buffers are used again.
type rewriter struct {
	note  func(rel string, before, now sets)
	keys  []uint64 // of changes: the tag of each row of one Rel, and the index of its first
	of    []change // of a leaf
	nodes []byte   // of a leaf
	write writer
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
	return w.page(table, changes, w.keys, 0)
}

// page returns p, which depth bits lead to, with the changes that keys name.
func (w *rewriter) page(p page, changes []change, keys []uint64, depth int) page {
	if p.branch == nil {
		return w.leaf(p, changes, keys, depth)
	}
	b := *p.branch
	for len(keys) > 0 {
		i := index(uint32(keys[0]>>bits), depth)
		n := 1
		for n < len(keys) && index(uint32(keys[n]>>bits), depth) == i {
			n++
		}
		b[i] = w.page(b[i], changes, keys[:n], depth+fanout)
		keys = keys[n:]
	}
	if b == *p.branch {
		return p
	}
	return b.page()
}

// index returns the place of a tag in a branch, which depth bits lead to.
func index(tag uint32, depth int) int { return int(tag << depth >> (bits - fanout)) }

// page returns the page of b: a leaf, if there is little left, or a single node.
func (b branch) page() page {
	size := 0
	var largest page
	for _, p := range b {
		if p.branch != nil {
			return page{branch: &b}
		}
		if size += len(p.nodes); len(p.nodes) > len(largest.nodes) {
			largest = p
		}
	}
	switch {
	case size == len(largest.nodes) && isSingle(largest.nodes):
		return largest
	case size > maxPage:
		return page{branch: &b}
	}
	var nodes strings.Builder
	nodes.Grow(size)
	for _, p := range b {
		nodes.WriteString(p.nodes)
	}
	return page{nodes: nodes.String()}
}

// isSingle reports whether there is no more than one node.
func isSingle(nodes string) bool {
	if nodes == "" {
		return true
	}
	_, more := cut(nodes)
	return more == ""
}

// divide returns the page of nodes: a branch, if they are too many.
func divide(nodes string, depth int) page {
	if len(nodes) <= maxPage || depth+fanout > bits || isSingle(nodes) {
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
	return page{branch: b}
}

// leaf is page for a leaf.
func (w *rewriter) leaf(p page, changes []change, keys []uint64, depth int) page {
	w.of = w.of[:0]
	for _, k := range keys {
		w.of = append(w.of, inRow(changes[uint32(k):])...)
	}
	slices.SortFunc(w.of, change.compare)
	w.nodes = w.nodes[:0]
	rest := p.nodes
	for of := w.of; len(of) > 0; {
		row := inRow(of)
		of = of[len(row):]
		n := node{tag: row[0].tag, rel: row[0].rel}
		for order := -1; rest != "" && order < 0; {
			old, after := cut(rest)
			switch order = compareNodes(old.tag, old.rel, n.tag, n.rel); {
			case order < 0:
				w.nodes = append(w.nodes, rest[:len(rest)-len(after)]...)
				rest = after
			case order == 0:
				n, rest = old, after
			}
		}
		w.node(n, row)
	}
	w.nodes = append(w.nodes, rest...)
	clear(w.of) // the strings
	return divide(string(w.nodes), depth)
}

// inRow returns the first changes of one Rel.
func inRow(changes []change) []change {
	n := 1
	for n < len(changes) && changes[n].rel == changes[0].rel {
		n++
	}
	return changes[:n]
}

// node appends n with changes.
func (w *rewriter) node(n node, changes []change) {
	now := sets(w.write.merge(n.sets, changes))
	if now != "" {
		w.nodes = appendNode(w.nodes, n.tag, n.rel, now)
	}
	w.note(n.rel, n.sets, now)
}
