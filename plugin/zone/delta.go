package zone

import (
	"iter"
	"slices"

	"github.com/miekg/dns"
)

// Secondaries that follow a zone ask for what has changed since the serial they
// have (RFC 1995).

const (
	// maxDeltas is how many publications are kept: those of ten seconds at the
	// most that there can be, ten times the time between two NOTIFYs.
	maxDeltas = 1000
	// maxDeltaRecords bounds how many records they removed and added, so many as a
	// thousand moves a second do in ten seconds; more than the zone has are of no use.
	maxDeltaRecords = 1 << 18
)

// delta is what one publication changed.
type delta struct {
	from, to       uint32 // serials
	removed, added []change
	records        int
}

// change is records of one name.
type change struct {
	owner Owner
	rrs   []rr
}

// newDelta returns the change from a serial to another; touched is what a
// transaction touched.
func newDelta(from, to uint32, touched []touch) *delta {
	d := &delta{from: from, to: to}
	for _, t := range touched {
		for tail := range Tail(tails) {
			before, now, owner := t.before.served(tail), t.now.served(tail), Owner{t.now.head, tail}
			d.removed = d.append(d.removed, owner, without(before, now))
			d.added = d.append(d.added, owner, without(now, before))
		}
	}
	return d
}

func (d *delta) append(to []change, owner Owner, rrs []rr) []change {
	if len(rrs) == 0 {
		return to
	}
	d.records += len(rrs)
	return append(to, change{owner, rrs})
}

// keep returns the history with d, and without what is too old then: what is left
// is of so many records at the most.
func keep(history []*delta, d *delta, most int) []*delta {
	records, from := d.records, len(history)
	for from > 0 && len(history)-from+1 < maxDeltas && records+history[from-1].records <= most {
		from--
		records += history[from].records
	}
	if records > most {
		return nil
	}
	kept := make([]*delta, 0, len(history)-from+1)
	return append(append(kept, history[from:]...), d)
}

// Since yields what has changed since the zone had the serial, as RFC 1995,
// section 4, has it between the first and the last SOA: for each publication the
// SOA of before and the records removed, and the SOA of after and the records
// added. It reports false where that is not known any more.
func (g *Generation) Since(serial uint32) (iter.Seq[[]dns.RR], bool) {
	first := slices.IndexFunc(g.history, func(d *delta) bool { return d.from == serial })
	if first < 0 {
		return nil, false
	}
	return func(yield func([]dns.RR) bool) {
		for _, d := range g.history[first:] {
			if !g.changes(d.from, d.removed, yield) || !g.changes(d.to, d.added, yield) {
				return
			}
		}
	}, true
}

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

// changes yields the SOA of a serial, and records.
func (g *Generation) changes(serial uint32, records []change, yield func([]dns.RR) bool) bool {
	soa := g.SOA().(*dns.SOA)
	soa.Serial = serial
	if !yield([]dns.RR{soa}) {
		return false
	}
	for _, c := range records {
		if !yield(g.makeRRs(c.rrs, g.zone.absolute(c.owner))) {
			return false
		}
	}
	return true
}
