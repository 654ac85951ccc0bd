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
// it concerns. Only branches have pointers that the collector must follow. A page depends on what it
// holds, and not on the order of changes.
type page struct {
	nodes  string  // of a leaf, in the order of their tags, and then of their Rels
	branch *branch // nil for a leaf
}

// branch divides names by some bits of their tags.
type branch [1 << fanout]page

const (
	// maxPage is the number of octets up to which a page is not divided: a dozen names. A
	// search reads half of them, and a change writes all. Only a page of nodes with the same tag
	// has more.
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
func (p page) all(yield func(node) bool) {
	for rest := p.nodes; rest != ""; {
		var n node
		if n, rest = cut(rest); !yield(n) {
			return
		}
	}
	for i := 0; p.branch != nil && i < len(p.branch); i++ {
		for n := range p.branch[i].all {
			if !yield(n) {
				return
			}
		}
	}
}

// change adds a record to a Rel or takes additions back, where rr.times is negative.
type change struct {
	rel string
	rr
	tag uint32
}

// compare orders the changes of a tag as tables do nodes and records.
func (c change) compare(o change) int {
	if c.rel != o.rel {
		return strings.Compare(c.rel, o.rel)
	}
	return c.rr.compare(o.rr)
}

// rewriter applies changes to a table. Its buffers are used again.
type rewriter struct {
	note   func(rel string, before, now sets)
	keys   []uint64 // the tag of each row of changes, and the index of its first
	sorted []change
	nodes  []byte // of a leaf
	done   []rewritten
	write  writer
}

// rewritten is a node as it was, and where in the new leaf its sets are.
type rewritten struct {
	node
	start, end int
}

// apply returns table with changes. It tells note what becomes of each Rel that has changed.
func (w *rewriter) apply(table page, changes []change, note func(rel string, before, now sets)) page {
	w.note = note
	w.sort(changes)
	table = w.page(table, w.sorted, 0)
	clear(w.sorted) // the strings
	return table
}

// sort fills w.sorted. Changes of one Rel that come in a row are moved as one.
func (w *rewriter) sort(changes []change) {
	w.keys, w.sorted = w.keys[:0], slices.Grow(w.sorted[:0], len(changes))
	for i, c := range changes {
		if i == 0 || changes[i-1].rel != c.rel {
			w.keys = append(w.keys, uint64(c.tag)<<bits|uint64(i))
		}
	}
	slices.Sort(w.keys)
	start := 0 // of the changes with the same tag
	for i, k := range w.keys {
		w.sorted = append(w.sorted, inRow(changes[uint32(k):])...)
		if i+1 == len(w.keys) || w.keys[i+1]>>bits != k>>bits {
			slices.SortFunc(w.sorted[start:], change.compare)
			start = len(w.sorted)
		}
	}
}

// inRow returns the first changes of one Rel.
func inRow(changes []change) []change {
	n := 1
	for n < len(changes) && changes[n].rel == changes[0].rel {
		n++
	}
	return changes[:n]
}

// page returns p, which depth bits lead to, with changes.
func (w *rewriter) page(p page, changes []change, depth int) page {
	if p.branch == nil {
		return w.leaf(p, changes, depth)
	}
	b := new(branch)
	*b = *p.branch
	for len(changes) > 0 {
		i := index(changes[0].tag, depth)
		n := 1
		for n < len(changes) && index(changes[n].tag, depth) == i {
			n++
		}
		b[i] = w.page(b[i], changes[:n], depth+fanout)
		changes = changes[n:]
	}
	return b.page()
}

// index returns the place of a tag in a branch, which depth bits lead to.
func index(tag uint32, depth int) int { return int(tag << depth >> (bits - fanout)) }

// page returns the page of b: a leaf, if there is little left.
func (b *branch) page() page {
	size := 0
	for _, p := range b {
		if size += len(p.nodes); p.branch != nil || size > maxPage {
			return page{branch: b}
		}
	}
	var nodes strings.Builder
	nodes.Grow(size)
	for _, p := range b {
		nodes.WriteString(p.nodes)
	}
	return page{nodes: nodes.String()}
}

// divide returns the page of nodes, which depth bits lead to.
func divide(nodes string, depth int) page {
	if len(nodes) <= maxPage || depth == bits {
		return page{nodes: nodes}
	}
	b := new(branch)
	for i := range b {
		rest := nodes
		for rest != "" && index(tagAt(rest), depth) == i {
			_, rest = cut(rest)
		}
		b[i], nodes = divide(strings.Clone(nodes[:len(nodes)-len(rest)]), depth+fanout), rest
	}
	return page{branch: b}
}

// leaf is page for a leaf.
func (w *rewriter) leaf(p page, changes []change, depth int) page {
	w.nodes, w.done = w.nodes[:0], w.done[:0]
	rest := p.nodes
	for len(changes) > 0 {
		row := inRow(changes)
		changes = changes[len(row):]
		n := node{tag: row[0].tag, rel: row[0].rel}
		for order := -1; rest != "" && order < 0; {
			old, after := cut(rest)
			switch order = cmp.Or(cmp.Compare(old.tag, n.tag), strings.Compare(old.rel, n.rel)); {
			case order < 0:
				w.nodes = append(w.nodes, rest[:len(rest)-len(after)]...)
				rest = after
			case order == 0:
				n, rest = old, after
			}
		}
		now := w.write.merge(n.sets, row)
		if len(now) > 0 {
			w.nodes = appendNode(w.nodes, n.tag, n.rel, now)
		}
		w.done = append(w.done, rewritten{n, len(w.nodes) - len(now), len(w.nodes)})
	}
	w.nodes = append(w.nodes, rest...)
	nodes := string(w.nodes)
	for _, r := range w.done {
		w.note(r.rel, r.sets, sets(nodes[r.start:r.end]))
	}
	clear(w.done) // the strings
	return divide(nodes, depth)
}
