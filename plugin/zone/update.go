package zone

import (
	"slices"
	"time"
)

// Tx changes a zone. It is used by one goroutine, and ends with Publish or by
// being left alone; what is published before is never touched.
type Tx struct {
	zone    *Zone
	next    *Generation
	id      uint32
	touched []touch
	loose   map[*node]bool // names whose records are yet to be merged; true if they are out of order
	text    *string        // of the last record that was added
}

// touch is a node that a transaction changed, and what it was before; nil for
// a new one.
type touch struct{ before, now *node }

// Begin starts a change of the zone.
func (z *Zone) Begin() *Tx {
	z.txs++
	if z.txs == 0 {
		z.last.table.disown()
		z.txs = 1
	}
	next := *z.last
	return &Tx{zone: z, next: &next, id: z.txs, loose: make(map[*node]bool)}
}

// Add adds r to owner. It reports whether the name fits into this zone; nothing is
// added if not.
func (tx *Tx) Add(owner Owner, r Record) bool {
	if !tx.fits(owner, r) {
		return false
	}
	owner = tx.zone.cut(owner)
	n := tx.own(owner.Head)
	if len(n.rrs) < largeSet {
		n.add(tx.rr(owner.Tail, r))
		return true
	}
	n.rrs = append(n.rrs, tx.rr(owner.Tail, r))
	tx.loose[n] = true
	return true
}

// Remove takes back one Add of the same record. It reports what Add did.
func (tx *Tx) Remove(owner Owner, r Record) bool {
	if !tx.fits(owner, r) {
		return false
	}
	owner = tx.zone.cut(owner)
	n := tx.own(owner.Head)
	if tx.loose[n] {
		n.merge()
		delete(tx.loose, n)
	}
	if n.drop(tx.rr(owner.Tail, r)) {
		tx.loose[n] = false
	}
	return true
}

func (tx *Tx) fits(owner Owner, r Record) bool {
	return tx.zone.fits(owner) && tx.zone.fits(r.Target())
}

// rr returns r as it is kept below a tail, added once. Records that are added one
// after the other share their text if it is the same, as those of a task's services
// do.
func (tx *Tx) rr(tail Tail, r Record) rr {
	if r.kind&^standbyBit == kindSRV {
		target := tx.zone.cut(r.Target())
		r.text, r.value = target.Head, r.value&^0xff|uint32(target.Tail)
	}
	kept := rr{value: r.value, added: addedOne | uint32(tail)*tailOne | uint32(r.kind)}
	if r.kind&^standbyBit == kindA {
		return kept
	}
	if text := r.text; tx.text == nil || *tx.text != text {
		tx.text = &text
	}
	kept.text = tx.text
	return kept
}

// own returns the node of a head, to be changed by this transaction.
func (tx *Tx) own(head string) *node {
	tag := tx.zone.tag(head)
	before := tx.next.table.find(tag, head)
	if before != nil && before.tx == tx.id {
		return before
	}
	n := newNode(head, before, tx.id)
	tx.next.table.put(tag, n, tx.id)
	if len(tx.touched) == cap(tx.touched) { // append would copy millions several times
		tx.touched = slices.Grow(tx.touched, len(tx.touched)+8)
	}
	tx.touched = append(tx.touched, touch{before, n})
	return n
}

// Status says how much a generation knows.
type Status struct {
	Complete bool // what is not in it does not exist
	Stale    bool // from a snapshot, or otherwise not the masters' own word
}

// Publish makes the changes visible. The serial moves if an answer changed,
// which is returned; so does the first call.
func (tx *Tx) Publish(now time.Time, s Status) bool {
	z := tx.zone
	published := z.gen.Load() != nil
	changed := tx.settle() || !published
	if z.old != nil && !published {
		if before := z.old.Current(); before != nil {
			tx.next.serial = before.serial
			changed = !before.same(tx.next)
		}
	}
	if changed {
		before := tx.next.serial
		tx.next.serial = nextSerial(before, now)
		if published && z.Deltas && z.old == nil {
			d := newDelta(before, tx.next.serial, tx.touched)
			tx.next.history = keep(tx.next.history, d, min(maxDeltaRecords, tx.next.Records()))
		}
	}
	tx.next.complete, tx.next.stale = s.Complete, s.Stale
	z.last = tx.next
	z.gen.Store(tx.next)
	return changed
}

// settle lets the names above appear and disappear with those below, drops
// nodes that hold nothing, and reports whether an answer changed.
func (tx *Tx) settle() bool {
	for n := range tx.loose {
		n.merge()
	}
	changed := false
	var without []*node                    // records
	for i := 0; i < len(tx.touched); i++ { //nolint:intrange // grows by the names above
		t := tx.touched[i]
		for tail := range Tail(tails) {
			before, now := t.before.served(tail), t.now.served(tail)
			tx.next.records += len(now) - len(before)
			changed = changed || !sameRecords(before, now)
			if (len(now) > 0 || t.now.children(tail) > 0) != t.now.counted(tail) {
				tx.settleAbove(t.now, tail)
			}
		}
		if len(t.now.rrs) == 0 {
			without = append(without, t.now)
		}
	}
	for _, n := range without {
		if n.empty() {
			tx.next.table.remove(tx.zone.tag(n.head), n, tx.id)
		}
	}
	return changed
}

// settleAbove carries the appearance or disappearance of n below a tail up.
func (tx *Tx) settleAbove(n *node, tail Tail) {
	owner := Owner{n.head, tail}
	for owner != (Owner{}) && n.exists(owner.Tail) != n.counted(owner.Tail) {
		above := tx.zone.above(owner)
		parent := tx.own(above.Head)
		if n.counted(owner.Tail) {
			parent.below[above.Tail] -= 2
		} else {
			parent.below[above.Tail] += 2
		}
		n.below[owner.Tail] ^= 1
		n, owner = parent, above
	}
}

// sameRecords compares what is published, not how many added it.
func sameRecords(a, b []rr) bool {
	return slices.EqualFunc(a, b, func(a, b rr) bool { return compareServed(a, b) == 0 })
}
