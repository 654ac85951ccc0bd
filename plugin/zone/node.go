package zone

import "slices"

// node is the owners of one Head that the zone has, each for its records, or for
// names below it that have records.
type node struct {
	head  string
	rrs   []rr          // in the order of compareRR
	below [tails]uint32 // of each Tail: twice the owners that exist directly below, plus 1 if the name above counts this one
	tx    uint32        // the transaction that made it, and may change it; read by the writer alone
}

// newNode returns a node of head as before, which may be nil, is, to be changed by
// the transaction tx.
func newNode(head string, before *node, tx uint32) *node {
	n := &node{head: head, tx: tx}
	if before == nil {
		return n
	}
	n.head = before.head // and not a copy of it
	n.below = before.below
	n.rrs = append(make([]rr, 0, len(before.rrs)+1), before.rrs...)
	return n
}

func (n *node) children(t Tail) uint32 { return n.below[t] >> 1 }

func (n *node) counted(t Tail) bool { return n.below[t]&1 != 0 }

// empty reports whether the zone has nothing of n, not even names below it.
func (n *node) empty() bool { return len(n.rrs) == 0 && n.below == [tails]uint32{} }

// largeSet is from how many records on a node's records are brought into order
// together, at the end of a transaction, and not one by one.
const largeSet = 256

// merge sorts n's records, makes one of those that are equal, and leaves out
// those that nobody adds any more.
func (n *node) merge() {
	slices.SortFunc(n.rrs, compareRR)
	kept := n.rrs[:0]
	for _, r := range n.rrs {
		last := len(kept) - 1
		switch {
		case last >= 0 && compareRR(kept[last], r) == 0:
			kept[last].added += r.times() * addedOne
		case last >= 0 && kept[last].times() == 0:
			kept[last] = r
		default:
			kept = append(kept, r)
		}
	}
	if last := len(kept) - 1; last >= 0 && kept[last].times() == 0 {
		kept = kept[:last]
	}
	clear(n.rrs[len(kept):])
	n.rrs = kept
}

// add counts r in n, which belongs to the writer's transaction.
func (n *node) add(r rr) {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if found {
		n.rrs[i].added += addedOne
		return
	}
	if len(n.rrs) == cap(n.rrs) { // most sets are small and do not grow: leave little room
		n.rrs = append(make([]rr, 0, len(n.rrs)+len(n.rrs)/4+2), n.rrs...)
	}
	n.rrs = slices.Insert(n.rrs, i, r)
}

// drop takes back one add of r. It reports whether n is to be merged, to leave
// out a record that nobody adds any more.
func (n *node) drop(r rr) bool {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if !found || n.rrs[i].times() == 0 {
		return false
	}
	n.rrs[i].added -= addedOne
	switch {
	case n.rrs[i].times() > 0:
		return false
	case len(n.rrs) >= largeSet:
		return true
	}
	n.rrs = slices.Delete(n.rrs, i, i+1)
	return false
}

// served returns the records below a tail that are published; n may be nil. All of
// them are standby, or none is.
func (n *node) served(t Tail) []rr {
	if n == nil {
		return nil
	}
	rrs := n.rrs[n.start(t):n.start(t+1)]
	if len(rrs) > 0 && rrs[0].kind() == kindPTR {
		if len(rrs) > 1 || rrs[0].times() > 1 {
			return nil
		}
		return rrs
	}
	active := len(rrs)
	for active > 0 && rrs[active-1].kind()&standbyBit != 0 {
		active--
	}
	if active > 0 {
		return rrs[:active]
	}
	return rrs
}

// start returns where in n's records those of the tail begin.
func (n *node) start(t Tail) int {
	from, to := 0, len(n.rrs)
	for from < to {
		if middle := (from + to) / 2; n.rrs[middle].tail() < t {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return from
}

// addresses returns the A and AAAA records below a tail.
func (n *node) addresses(t Tail) []rr {
	rrs := n.served(t)
	end := 0
	for end < len(rrs) && rrs[end].kind()&^standbyBit <= kindAAAA {
		end++
	}
	return rrs[:end]
}

// exists reports whether the owner of the tail is in the zone: by its records, or as
// an empty non-terminal (RFC 4592, section 2.2.2).
func (n *node) exists(t Tail) bool {
	return n != nil && (n.children(t) > 0 || len(n.served(t)) > 0)
}
