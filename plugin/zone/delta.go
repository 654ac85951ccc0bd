package zone

import (
	"iter"
	"slices"

	"github.com/miekg/dns"
)

// Secondaries that follow a zone ask for what has changed since the serial they
// have (RFC 1995). The last changes are kept as the nodes that were changed,
// before and after: these are immutable anyway.

const (
	// maxDeltas is how many publications are kept: those of ten seconds at the
	// most that there can be, ten times the time between two NOTIFYs.
	maxDeltas = 1000
	// maxDeltaRecords bounds what they are of.
	maxDeltaRecords = 1 << 16
)

// delta is what one publication changed.
type delta struct {
	from, to uint32  // serials
	touched  []touch // the names whose records changed
	records  int     // of these names, before and after
}

// newDelta returns the change from a serial to another; touched is what a
// transaction touched.
func newDelta(from, to uint32, touched []touch) *delta {
	d := &delta{from: from, to: to}
	for _, t := range touched {
		if before, now := t.before.served(), t.now.served(); !sameRecords(before, now) {
			d.touched = append(d.touched, t)
			d.records += len(before) + len(now)
		}
	}
	return d
}

// keep returns the history with d, and without what is too old then.
func keep(history []*delta, d *delta) []*delta {
	records, from := d.records, len(history)
	for from > 0 && len(history)-from+1 < maxDeltas && records+history[from-1].records <= maxDeltaRecords {
		from--
		records += history[from].records
	}
	if records > maxDeltaRecords {
		return nil
	}
	kept := make([]*delta, 0, len(history)-from+1)
	return append(append(kept, history[from:]...), d)
}

// Since yields what has changed since the zone had the serial, as RFC 1995,
// section 4, has it between the first and the last SOA: for each publication the
// SOA of before and the records removed, and the SOA of after and the records
// added. It reports false where that is not known any more, or is more than the
// zone itself.
func (g *Generation) Since(serial uint32) (iter.Seq[[]dns.RR], bool) {
	first := slices.IndexFunc(g.history, func(d *delta) bool { return d.from == serial })
	if first < 0 {
		return nil, false
	}
	records := 0
	for _, d := range g.history[first:] {
		for _, t := range d.touched {
			records += len(removed(t)) + len(added(t))
		}
		records += 2
	}
	if records > g.Records() {
		return nil, false
	}
	return func(yield func([]dns.RR) bool) {
		for _, d := range g.history[first:] {
			if !g.changes(d.from, d.touched, removed, yield) || !g.changes(d.to, d.touched, added, yield) {
				return
			}
		}
	}, true
}

func removed(t touch) []rr { return without(t.before.served(), t.now.served()) }

func added(t touch) []rr { return without(t.now.served(), t.before.served()) }

// without returns the records of a that are not in b; both are as served returned
// them.
func without(a, b []rr) []rr {
	var only []rr
	for _, r := range a {
		for len(b) > 0 && compareServed(b[0], r) < 0 {
			b = b[1:]
		}
		if len(b) == 0 || compareServed(b[0], r) != 0 {
			only = append(only, r)
		}
	}
	return only
}

// compareServed compares records as they are answered, standby or not.
func compareServed(a, b rr) int {
	a.typ &^= standbyBit
	b.typ &^= standbyBit
	return compareRR(a, b)
}

// changes yields the SOA of a serial, and the records that part returns of each
// name.
func (g *Generation) changes(serial uint32, touched []touch, part func(touch) []rr, yield func([]dns.RR) bool) bool {
	soa := g.SOA().(*dns.SOA)
	soa.Serial = serial
	if !yield([]dns.RR{soa}) {
		return false
	}
	for _, t := range touched {
		if rrs := part(t); len(rrs) > 0 && !yield(g.makeRRs(rrs, g.zone.absolute(t.now.owner))) {
			return false
		}
	}
	return true
}
