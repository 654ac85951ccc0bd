package zone

import "hash/maphash"

// A table is an immutable hash table of nodes with a fixed geometry: 1024 pages
// of 64 buckets. A change copies the page and the bucket it touches, which
// costs the same at a thousand names and at a million; a bucket has 15 names
// at a million.
type table [1 << pageBits]*page

const (
	pageBits   = 10
	bucketBits = 6
)

type page struct {
	tx      uint32 // the transaction that made it, and may change it
	buckets [1 << bucketBits][]entry
}

// entry holds a part of the hash beside the node, so that a search looks into
// no other node than the one it wants.
type entry struct {
	tag  uint32
	node *node
}

// node is a name of the zone: one that has records, or one that stands above
// such names.
type node struct {
	owner string // relative to the origin, "" for the apex
	rrs   []rr   // in the order of compareRR
	below uint32 // twice the names that exist directly below, plus 1 if the name above counts this one
	tx    uint32 // the transaction that made it, and may change it; read by the writer alone
}

func (n *node) children() uint32 { return n.below >> 1 }

func (n *node) counted() bool { return n.below&1 != 0 }

func split(h uint64) (pageIndex, bucketIndex, tag uint32) {
	return uint32(h >> (64 - pageBits)), uint32(h>>32) & (1<<bucketBits - 1), uint32(h)
}

// find returns the node of owner, or nil.
func (t *table) find(seed maphash.Seed, owner string) *node {
	p, b, tag := split(maphash.String(seed, owner))
	if t[p] == nil {
		return nil
	}
	for _, e := range t[p].buckets[b] {
		if e.tag == tag && e.node.owner == owner {
			return e.node
		}
	}
	return nil
}

// all yields every node.
func (t *table) all(yield func(*node) bool) {
	for _, p := range t {
		if p == nil {
			continue
		}
		for _, bucket := range p.buckets {
			for _, e := range bucket {
				if !yield(e.node) {
					return
				}
			}
		}
	}
}

// disown takes all nodes and pages from the transactions that made them, for
// when their numbers start again.
func (t *table) disown() {
	for n := range t.all {
		n.tx = 0
	}
	for _, p := range t {
		if p != nil {
			p.tx = 0
		}
	}
}

// put stores n, in place of the node of the same owner if there is one, in a
// table that belongs to the transaction tx.
func (t *table) put(seed maphash.Seed, n *node, tx uint32) {
	bucket, tag := t.bucket(seed, n.owner, tx)
	old := *bucket
	for i, e := range old {
		if e.node.owner == n.owner {
			*bucket = append(make([]entry, 0, len(old)), old...)
			(*bucket)[i].node = n
			return
		}
	}
	*bucket = append(append(make([]entry, 0, len(old)+1), old...), entry{tag, n})
}

// remove drops the node of owner.
func (t *table) remove(seed maphash.Seed, owner string, tx uint32) {
	bucket, _ := t.bucket(seed, owner, tx)
	old := *bucket
	for i, e := range old {
		if e.node.owner == owner {
			rest := make([]entry, 0, len(old)-1)
			*bucket = append(append(rest, old[:i]...), old[i+1:]...)
			return
		}
	}
}

// bucket returns the bucket of owner in a page that belongs to tx.
func (t *table) bucket(seed maphash.Seed, owner string, tx uint32) (*[]entry, uint32) {
	p, b, tag := split(maphash.String(seed, owner))
	switch old := t[p]; {
	case old == nil:
		t[p] = &page{tx: tx}
	case old.tx != tx:
		t[p] = &page{tx: tx, buckets: old.buckets}
	}
	return &t[p].buckets[b], tag
}
