package zone

import (
	"slices"
	"time"
)

// Tx is a change of a zone. One goroutine uses it, until Publish or until it is dropped;
// published generations never change.
type Tx struct {
	zone     *Zone
	next     *Generation
	id       uint32
	touched  []touch
	unmerged map[*node]bool // nodes to merge at the end; true if their records are out of order
	text     *string        // of the last record added or removed
}

// touch is a node that a transaction has changed, and the node before it; nil if there
// was none.
type touch struct{ before, now *node }

// Begin starts a change of the zone.
func (z *Zone) Begin() *Tx {
	z.txs++
	if z.txs == 0 {
		z.last.table.disown()
		z.txs = 1
	}
	next := *z.last
	return &Tx{zone: z, next: &next, id: z.txs, unmerged: make(map[*node]bool)}
}

// Add adds r to name. It adds nothing, and returns false, if the name or r's target does
// not fit into this zone.
func (tx *Tx) Add(name Name, r Record) bool {
	if !tx.zone.Fits(name, r) {
		return false
	}
	name = tx.zone.split(name)
	n := tx.own(name.Rel)
	if len(n.rrs) < largeSet {
		n.add(tx.rr(name.Sub, r))
		return true
	}
	n.rrs = append(n.rrs, tx.rr(name.Sub, r))
	tx.unmerged[n] = true
	return true
}

// Remove takes back one Add of the same record. It returns false if that Add did.
func (tx *Tx) Remove(name Name, r Record) bool {
	if !tx.zone.Fits(name, r) {
		return false
	}
	name = tx.zone.split(name)
	n := tx.own(name.Rel)
	if tx.unmerged[n] {
		n.merge()
		delete(tx.unmerged, n)
	}
	if n.drop(tx.rr(name.Sub, r)) {
		tx.unmerged[n] = false
	}
	return true
}

// Claim makes name exist, with or without records, until Unclaim takes it back. It does
// nothing, and returns false, if name does not fit into this zone.
func (tx *Tx) Claim(name Name) bool { return tx.claim(name, 1) }

// Unclaim takes back one Claim of the same name.
func (tx *Tx) Unclaim(name Name) bool { return tx.claim(name, -1) }

func (tx *Tx) claim(name Name, n int) bool {
	if !tx.zone.fits(name) {
		return false
	}
	name = tx.zone.split(name)
	tx.own(name.Rel).children[name.Sub] += uint32(n)
	return true
}

// rr returns r as a node keeps it, added once to a name with the given Sub. Consecutive
// records with the same text share it, as the SRV records of a task do.
func (tx *Tx) rr(s Sub, r Record) rr {
	if r.kind.typ() == kindSRV {
		target := tx.zone.split(r.Target())
		r.text, r.value = target.Rel, r.value&^0xff|uint32(target.Sub)
	}
	kept := rr{value: r.value, added: timesUnit | uint32(s)*subUnit | uint32(r.kind)}
	if r.kind.typ() == kindA {
		return kept
	}
	if text := r.text; tx.text == nil || *tx.text != text {
		tx.text = &text
	}
	kept.text = tx.text
	return kept
}

// own returns the node of rel for this transaction to change.
func (tx *Tx) own(rel string) *node {
	tag := tx.zone.tag(rel)
	before := tx.next.table.find(tag, rel)
	if before != nil && before.tx == tx.id {
		return before
	}
	n := newNode(rel, before, tx.id)
	tx.next.table.put(tag, n, tx.id)
	if len(tx.touched) == cap(tx.touched) { // append would copy millions several times
		tx.touched = slices.Grow(tx.touched, len(tx.touched)+8)
	}
	tx.touched = append(tx.touched, touch{before, n})
	return n
}

// Status tells how far a generation can be trusted.
type Status struct {
	Complete bool // a name that is not in the zone does not exist
	Stale    bool // loaded from a snapshot: no master has confirmed it
	Doubtful bool // a name that exists without records may have some
}

// Whole reports whether all records are there.
func (s Status) Whole() bool { return s.Complete && !s.Doubtful }

// Publish makes the changes visible to readers. It returns whether the serial has moved: it
// does when an answer has changed, and with the first publication, unless that continues a
// zone that answers the same (see Replaces).
func (tx *Tx) Publish(now time.Time, s Status) bool {
	z := tx.zone
	published := z.gen.Load() != nil
	changed := tx.finish() || !published
	if !published {
		tx.next.serial = z.follow(tx.next.serial)
		if z.replaced != nil && z.replaced.Current() != nil {
			before := z.replaced.Current()
			tx.next.serial = before.serial
			changed = !before.same(tx.next)
		}
	}
	if changed {
		before := tx.next.serial
		tx.next.serial = nextSerial(before, now)
		if published && z.Journal && z.replaced == nil {
			c := newChangeset(before, tx.next.serial, tx.touched)
			tx.next.journal = trim(tx.next.journal, c, min(maxJournalRecords, tx.next.Records()))
		}
	}
	tx.next.status = s
	z.last = tx.next
	z.gen.Store(tx.next)
	return changed
}

// finish merges large sets, propagates empty non-terminals, drops empty nodes, and returns
// whether an answer has changed.
func (tx *Tx) finish() bool {
	for n := range tx.unmerged {
		n.merge()
	}
	changed := false
	var bare []*node                       // without records
	for i := 0; i < len(tx.touched); i++ { //nolint:intrange // propagate appends parents
		t := tx.touched[i]
		for s := range Sub(subs) {
			before, now := t.before.served(s), t.now.served(s)
			tx.next.records += len(now) - len(before)
			changed = changed || !sameRecords(before, now)
			if t.now.exists(s) != t.now.counted[s] {
				tx.propagate(t.now, s)
			}
		}
		if len(t.now.rrs) == 0 {
			bare = append(bare, t.now)
		}
	}
	for _, n := range bare {
		if n.empty() {
			tx.next.table.remove(tx.zone.tag(n.rel), n, tx.id)
		}
	}
	return changed
}

// propagate counts the appearance or disappearance of a name in its parent, and goes on
// upwards as long as that makes the parent appear or disappear.
func (tx *Tx) propagate(n *node, s Sub) {
	name := Name{n.rel, s}
	for name != (Name{}) && n.exists(name.Sub) != n.counted[name.Sub] {
		above := tx.zone.parent(name)
		parent := tx.own(above.Rel)
		if n.counted[name.Sub] {
			parent.children[above.Sub]--
		} else {
			parent.children[above.Sub]++
		}
		n.counted[name.Sub] = !n.counted[name.Sub]
		n, name = parent, above
	}
}

// sameRecords compares what is served. The number of additions does not matter.
func sameRecords(a, b []rr) bool {
	return slices.EqualFunc(a, b, func(a, b rr) bool { return compareServed(a, b) == 0 })
}
