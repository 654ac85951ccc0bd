package zone

import (
	"strings"
	"time"
)

// Tx is a change of a zone. One goroutine uses it, until Publish or until it is dropped. It lists
// additions and removals, and applies the list when it is full and in Publish.
type Tx struct {
	zone    *Zone
	next    *Generation
	changes []change
	above   map[Name]int    // how many names more, or fewer, there are below others
	data    strings.Builder // of the records in changes
	changed bool            // some applied change has changed an answer
	batches int             // number of lists applied
	diff    *changeset      // for the journal; nil without one, and if there are too many changes for it
}

// Begin starts a change of the zone. One that was begun before must not be used any more.
func (z *Zone) Begin() *Tx {
	next := *z.last
	tx := &Tx{zone: z, next: &next, changes: z.changes[:0], above: make(map[Name]int)}
	if z.Journal && z.gen.Load() != nil {
		tx.diff = new(changeset)
	}
	return tx
}

// Add adds r to name. It adds nothing, and returns false, if the name or r's target does
// not fit into this zone.
func (tx *Tx) Add(name Name, r Record) bool { return tx.add(name, r, 1) }

// Remove takes back one earlier Add of the same record. It returns false if that Add did.
func (tx *Tx) Remove(name Name, r Record) bool { return tx.add(name, r, -1) }

func (tx *Tx) add(name Name, r Record, times int32) bool {
	z := tx.zone
	if !z.Fits(name, r) {
		return false
	}
	name = z.split(name)
	if r.class&typeMask == typeSRV {
		target := z.split(r.Target())
		r.class, r.text = r.class&^targetMask|class(target.Sub), target.Rel
	}
	var buffer [srvHead + maxName + srvTail]byte
	data := appendData(buffer[:0], name.Rel, r)
	if tx.data.Cap()-tx.data.Len() < len(data) {
		tx.data.Reset() // to let it grow would copy it
		tx.data.Grow(len(buffer) + len(tx.changes))
	}
	start := tx.data.Len()
	tx.data.Write(data)
	tx.change(name, rr{tx.data.String()[start:], times, r.class.of(name.Sub)})
	return true
}

func (tx *Tx) change(name Name, r rr) {
	c := change{rel: name.Rel, rr: r}
	if last := len(tx.changes) - 1; last >= 0 && tx.changes[last].rel == c.rel {
		c.tag = tx.changes[last].tag
	} else {
		c.tag = tx.zone.tag(c.rel)
	}
	tx.changes = append(tx.changes, c)
	if tx.diff != nil && len(tx.changes) <= maxJournalRecords {
		return // the journal needs all of them applied at once
	}
	tx.diff = nil
	if len(tx.changes) >= batch {
		tx.apply()
	}
}

// batch bounds the list of changes: a longer one would take more memory than what it makes.
const batch = 1 << 14

// Status tells how far a generation can be trusted.
type Status struct {
	Complete bool // a name that is not in the zone does not exist
	Stale    bool // loaded from a snapshot: no master has confirmed it
	Doubtful bool // a name that exists without records may have some
}

// Whole reports whether all records are there, so that they can be transferred.
func (s Status) Whole() bool { return s.Complete && !s.Doubtful }

// Publish makes the changes visible to readers. It returns whether the serial has moved: it
// does when an answer has changed, and with the first publication, unless that continues a
// zone that answers the same (see Replaces).
func (tx *Tx) Publish(now time.Time, s Status) bool {
	z := tx.zone
	published := z.gen.Load() != nil
	tx.apply()
	if tx.batches > 1 && published { // one may have taken back what another did
		tx.changed = !z.last.same(tx.next)
	}
	changed := tx.changed || !published
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
			tx.next.journal = tx.journal(before)
		}
	}
	tx.next.Status = s
	z.reuse(tx.changes)
	z.last = tx.next
	z.gen.Store(tx.next)
	return changed
}

// apply applies the changes to the next generation, and then what follows for the names above
// those that have come or gone.
func (tx *Tx) apply() {
	if len(tx.changes) > 0 {
		tx.batches++
	}
	for len(tx.changes) > 0 {
		tx.next.table = tx.zone.rewriter.apply(tx.next.table, tx.changes, tx.note)
		clear(tx.changes) // the strings
		tx.changes = tx.changes[:0]
		for name, n := range tx.above {
			if n != 0 {
				tx.changes = append(tx.changes, change{name.Rel, rr{"", int32(n), below.of(name.Sub)}, tx.zone.tag(name.Rel)})
			}
		}
		clear(tx.above)
	}
	tx.data.Reset()
}

// reuse keeps the room of a transaction for the next, unless it is large.
func (z *Zone) reuse(changes []change) {
	if z.changes = changes; changes == nil || cap(changes) > maxChanges || cap(z.rewriter.nodes) > maxNodes {
		z.changes, z.rewriter = nil, rewriter{}
	}
}

// Bounds of the room that a zone keeps: for changes, and for the octets of a page, of 20,000 records.
const maxChanges, maxNodes = 4096, 1 << 20

// note notes what has changed in the answers for the names of rel, and counts those that have come or
// gone in the names above them.
func (tx *Tx) note(rel string, before, now sets) {
	for s := range Sub(subs) {
		was, is, name := before.of(s), now.of(s), Name{rel, s}
		if was == is {
			continue
		}
		if was, is := was.served(), is.served(); was != is {
			tx.next.records += is.count() - was.count()
			tx.changed = tx.changed || !was.sameAs(is)
			tx.diff.add(name, was, is)
		}
		switch existed, exists := was.exists(), is.exists(); {
		case existed == exists || name == (Name{}):
		case exists:
			tx.above[tx.zone.parent(name)]++
		default:
			tx.above[tx.zone.parent(name)]--
		}
	}
}
