package zone

import "slices"

// node holds the names of a zone that share one Rel: their records, and how many names
// stand below each.
type node struct {
	rel      string
	rrs      []rr         // sorted by compareRR
	children [subs]uint32 // for each Sub, the number of names that exist directly below, and of claims
	counted  [subs]bool   // for each Sub, whether the parent counts this name in its children
	tx       uint32       // the transaction that made the node and may change it; only the writer reads it
}

// newNode returns a copy of before, which may be nil, for the transaction tx to change.
func newNode(rel string, before *node, tx uint32) *node {
	n := &node{rel: rel, tx: tx}
	if before == nil {
		return n
	}
	n.rel = before.rel // share the string
	n.children, n.counted = before.children, before.counted
	n.rrs = append(make([]rr, 0, len(before.rrs)+1), before.rrs...)
	return n
}

// empty reports whether the zone needs n for nothing: no records, no name below, and no
// parent that counts it.
func (n *node) empty() bool {
	return len(n.rrs) == 0 && n.children == [subs]uint32{} && n.counted == [subs]bool{}
}

// largeSet is the number of records from which a node sorts what a transaction adds once,
// at its end, instead of inserting record by record.
const largeSet = 256

// merge sorts the records, unites equal ones, and drops those with no additions left.
func (n *node) merge() {
	slices.SortFunc(n.rrs, compareRR)
	kept := n.rrs[:0]
	for _, r := range n.rrs {
		last := len(kept) - 1
		switch {
		case last >= 0 && compareRR(kept[last], r) == 0:
			kept[last].added += r.times() * timesUnit
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

// add adds r once. The node must belong to the transaction.
func (n *node) add(r rr) {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if found {
		n.rrs[i].added += timesUnit
		return
	}
	if len(n.rrs) == cap(n.rrs) { // most sets stay small: leave little room
		n.rrs = append(make([]rr, 0, len(n.rrs)+len(n.rrs)/4+2), n.rrs...)
	}
	n.rrs = slices.Insert(n.rrs, i, r)
}

// drop takes back one addition of r. It reports whether the node must be merged, to drop
// a record with no additions left.
func (n *node) drop(r rr) bool {
	i, found := slices.BinarySearchFunc(n.rrs, r, compareRR)
	if !found || n.rrs[i].times() == 0 {
		return false
	}
	n.rrs[i].added -= timesUnit
	switch {
	case n.rrs[i].times() > 0:
		return false
	case len(n.rrs) >= largeSet:
		return true
	}
	n.rrs = slices.Delete(n.rrs, i, i+1)
	return false
}

// served returns the records that are answered for the name with the given Sub: all of
// them are backups, or none is. n may be nil.
func (n *node) served(s Sub) []rr {
	if n == nil {
		return nil
	}
	rrs := n.rrs[n.start(s):n.start(s+1)]
	active := len(rrs)
	for active > 0 && rrs[active-1].kind()&backupBit != 0 {
		active--
	}
	if active > 0 {
		rrs = rrs[:active]
	}
	if len(rrs) > 0 && rrs[0].kind().typ() == kindPTR && (len(rrs) > 1 || rrs[0].times() > 1) {
		return nil
	}
	return rrs
}

// start returns the index of the first record whose name has the given Sub, or a later one.
func (n *node) start(s Sub) int {
	from, to := 0, len(n.rrs)
	for from < to {
		if middle := (from + to) / 2; n.rrs[middle].sub() < s {
			from = middle + 1
		} else {
			to = middle
		}
	}
	return from
}

// addresses returns the A and AAAA records of the name with the given Sub.
func (n *node) addresses(s Sub) []rr {
	rrs := n.served(s)
	end := 0
	for end < len(rrs) && rrs[end].kind().typ() <= kindAAAA {
		end++
	}
	return rrs[:end]
}

// exists reports whether the name with the given Sub is in the zone, for its records or
// as an empty non-terminal (RFC 4592, section 2.2.2).
func (n *node) exists(s Sub) bool {
	return n != nil && (n.children[s] > 0 || len(n.served(s)) > 0)
}
