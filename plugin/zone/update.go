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

// touch is a name that a transaction changed, and what it was before; nil for
// a new one.
type touch struct {
	before, now *node
	tail        Tail
}

func (t touch) owner() Owner { return Owner{t.now.head, t.tail} }

// Begin starts a change of the zone.
func (z *Zone) Begin() *Tx {
	next := *z.last
	next.tables = slices.Clone(z.last.tables)
	z.txs++
	if z.txs == 0 {
		for i := range next.tables {
			next.tables[i].disown()
		}
		z.txs = 1
	}
	return &Tx{zone: z, next: &next, id: z.txs, loose: make(map[*node]bool)}
}

// Add adds r to owner. It reports whether the name fits into this zone; nothing is
// added if not.
func (tx *Tx) Add(owner Owner, r Record) bool {
	if !tx.fits(owner, r) {
		return false
	}
	n := tx.own(tx.zone.cut(owner))
	if len(n.rrs) < largeSet {
		n.add(tx.rr(r))
		return true
	}
	n.rrs = append(n.rrs, tx.rr(r))
	tx.loose[n] = true
	return true
}

// Remove takes back one Add of the same record. It reports what Add did.
func (tx *Tx) Remove(owner Owner, r Record) bool {
	if !tx.fits(owner, r) {
		return false
	}
	n := tx.own(tx.zone.cut(owner))
	if tx.loose[n] {
		n.merge()
		delete(tx.loose, n)
	}
	if n.drop(tx.rr(r)) {
		tx.loose[n] = false
	}
	return true
}

func (tx *Tx) fits(owner Owner, r Record) bool {
	return tx.zone.fits(owner) && tx.zone.fits(r.Target())
}

// rr returns r as it is kept, added once. Records that are added one after the
// other share their text if it is the same, as those of a task's services do.
func (tx *Tx) rr(r Record) rr {
	if r.kind&^standbyBit == kindSRV {
		target := tx.zone.cut(r.Target())
		r.text, r.value = target.Head, r.value&^0xff|uint32(target.Tail)
	}
	kept := rr{value: r.value, added: addedOne | uint32(r.kind)}
	if r.kind&^standbyBit == kindA {
		return kept
	}
	if text := r.text; tx.text == nil || *tx.text != text {
		tx.text = &text
	}
	kept.text = tx.text
	return kept
}

// own returns the node of owner, which is as cut returns it, to be changed by this
// transaction.
func (tx *Tx) own(owner Owner) *node {
	before := tx.next.find(owner)
	if before != nil && before.tx == tx.id {
		return before
	}
	n := &node{head: owner.Head, tx: tx.id}
	if before != nil {
		n.head = before.head
		n.below = before.below
		n.rrs = append(make([]rr, 0, len(before.rrs)+1), before.rrs...)
	}
	tx.next.tables[owner.Tail].put(tx.zone.tag(n.head), n, tx.id)
	if len(tx.touched) == cap(tx.touched) { // append would copy millions several times
		tx.touched = slices.Grow(tx.touched, len(tx.touched)+8)
	}
	tx.touched = append(tx.touched, touch{before, n, owner.Tail})
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
	var without []touch                    // records
	for i := 0; i < len(tx.touched); i++ { //nolint:intrange // grows by the names above
		t := tx.touched[i]
		before, now := t.before.served(), t.now.served()
		tx.next.records += len(now) - len(before)
		changed = changed || !sameRecords(before, now)
		tx.settleAbove(t)
		if len(t.now.rrs) == 0 {
			without = append(without, t)
		}
	}
	for _, t := range without {
		if t.now.children() == 0 {
			tx.next.tables[t.tail].remove(tx.zone.tag(t.now.head), t.now.head, tx.id)
		}
	}
	return changed
}

// settleAbove carries the appearance or disappearance of a name up.
func (tx *Tx) settleAbove(t touch) {
	owner, n := t.owner(), t.now
	for owner != (Owner{}) && n.exists() != n.counted() {
		owner = tx.zone.above(owner)
		parent := tx.own(owner)
		if n.counted() {
			parent.below -= 2
		} else {
			parent.below += 2
		}
		n.below ^= 1
		n = parent
	}
}

// sameRecords compares what is published, not how many added it.
func sameRecords(a, b []rr) bool {
	return slices.EqualFunc(a, b, func(a, b rr) bool { return compareServed(a, b) == 0 })
}
