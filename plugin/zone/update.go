package zone

import (
	"strings"
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
}

// touch is a name that a transaction changed, and what it was before; nil for
// a new one.
type touch struct{ before, now *node }

// Begin starts a change of the zone.
func (z *Zone) Begin() *Tx {
	next := *z.last
	table := *z.last.table
	next.table = &table
	z.txs++
	if z.txs == 0 {
		table.disown()
		z.txs = 1
	}
	return &Tx{zone: z, next: &next, id: z.txs, loose: make(map[*node]bool)}
}

// Add adds r to owner, a name relative to the origin. It reports whether the
// name fits into this zone; nothing is added if not.
func (tx *Tx) Add(owner string, r Record) bool {
	if !tx.zone.fits(owner, r) {
		return false
	}
	n := tx.own(owner)
	if len(n.rrs) < largeSet {
		n.add(r.rr())
		return true
	}
	n.rrs = append(n.rrs, r.rr())
	tx.loose[n] = true
	return true
}

// Remove takes back one Add of the same record. It reports what Add did.
func (tx *Tx) Remove(owner string, r Record) bool {
	if !tx.zone.fits(owner, r) {
		return false
	}
	n := tx.own(owner)
	if tx.loose[n] {
		n.merge()
		delete(tx.loose, n)
	}
	if n.drop(r.rr()) {
		tx.loose[n] = false
	}
	return true
}

func (z *Zone) fits(owner string, r Record) bool {
	return z.Fits(owner) && z.Fits(r.Target())
}

// own returns the node of owner, to be changed by this transaction.
func (tx *Tx) own(owner string) *node {
	t, seed := tx.next.table, tx.zone.seed
	before := t.find(seed, owner)
	if before != nil && before.tx == tx.id {
		return before
	}
	n := &node{owner: owner, tx: tx.id}
	if before != nil {
		n.owner = before.owner
		n.below = before.below
		n.rrs = append(make([]rr, 0, len(before.rrs)+1), before.rrs...)
	}
	t.put(seed, n, tx.id)
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
	changed := false
	for n := range tx.loose {
		n.merge()
	}
	for _, t := range tx.touched {
		before, now := t.before.served(), t.now.served()
		tx.next.records += len(now) - len(before)
		changed = changed || !sameRecords(before, now)
	}
	for i := 0; i < len(tx.touched); i++ { //nolint:intrange // grows by the names above
		tx.settleAbove(tx.touched[i].now)
	}
	for _, t := range tx.touched {
		if len(t.now.rrs) == 0 && t.now.children() == 0 {
			tx.next.table.remove(tx.zone.seed, t.now.owner, tx.id)
		}
	}
	return changed
}

// settleAbove carries the appearance or disappearance of n up.
func (tx *Tx) settleAbove(n *node) {
	for n.owner != "" && n.exists() != n.counted() {
		_, above, _ := strings.Cut(n.owner, ".")
		parent := tx.own(above)
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
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].data != b[i].data || a[i].port != b[i].port || (a[i].typ^b[i].typ)&^standbyBit != 0 {
			return false
		}
	}
	return true
}
