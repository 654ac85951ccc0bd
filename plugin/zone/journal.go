package zone

import (
	"iter"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// The journal answers incremental transfers (RFC 1995): a secondary names the serial that
// it has, and is sent the changesets since.

const (
	// maxChangesets is how many publications the journal keeps. At the highest rate, a
	// hundred a second, that is ten seconds: ten times the interval of NOTIFY.
	maxChangesets = 1000
	// maxJournalRecords bounds the records in the journal, to what a thousand moves a second
	// change in ten seconds, and the changes of a publication that is kept. It never keeps more
	// records than the zone has: the whole zone would be the shorter answer.
	maxJournalRecords = 1 << 18
)

// changeset is what one publication removed and added.
type changeset struct {
	from, to       uint32 // serials
	removed, added []recordsOf
	records        int // in both
}

// recordsOf are records of one name.
type recordsOf struct {
	name Name
	sets
}

// add adds the difference between two answers for a name.
func (c *changeset) add(name Name, before, now sets) {
	if c == nil {
		return
	}
	name.Rel = strings.Clone(name.Rel) // without its page
	c.removed = c.append(c.removed, name, before.without(now))
	c.added = c.append(c.added, name, now.without(before))
}

func (c *changeset) append(to []recordsOf, name Name, s sets) []recordsOf {
	if s == "" {
		return to
	}
	c.records += s.count()
	return append(to, recordsOf{name, s})
}

// journal returns the journal of the next generation. before is the serial of the last one.
func (tx *Tx) journal(before uint32) []*changeset {
	if tx.diff == nil {
		return nil
	}
	tx.diff.from, tx.diff.to = before, tx.next.serial
	return trim(tx.next.journal, tx.diff, min(maxJournalRecords, tx.next.Records()))
}

// trim appends c to the journal, and drops the oldest changesets until it keeps both
// bounds: maxChangesets and maxRecords.
func trim(journal []*changeset, c *changeset, maxRecords int) []*changeset {
	records, from := c.records, len(journal)
	for from > 0 && len(journal)-from+1 < maxChangesets && records+journal[from-1].records <= maxRecords {
		from--
		records += journal[from].records
	}
	if records > maxRecords {
		return nil
	}
	kept := make([]*changeset, 0, len(journal)-from+1)
	return append(append(kept, journal[from:]...), c)
}

// ChangesSince yields the changes since serial in the form of RFC 1995, section 4, without
// the first and the last SOA: for each publication the old SOA and the records removed,
// then the new SOA and the records added. It returns false if the journal does not reach
// back to serial.
func (g *Generation) ChangesSince(serial uint32) (iter.Seq[[]dns.RR], bool) {
	first := slices.IndexFunc(g.journal, func(c *changeset) bool { return c.from == serial })
	if first < 0 {
		return nil, false
	}
	return func(yield func([]dns.RR) bool) {
		for _, c := range g.journal[first:] {
			if !g.yieldChanges(c.from, c.removed, yield) || !g.yieldChanges(c.to, c.added, yield) {
				return
			}
		}
	}, true
}

// yieldChanges yields the SOA with serial, and records.
func (g *Generation) yieldChanges(serial uint32, records []recordsOf, yield func([]dns.RR) bool) bool {
	soa := g.SOA().(*dns.SOA)
	soa.Serial = serial
	if !yield([]dns.RR{soa}) {
		return false
	}
	for _, r := range records {
		if !yield(g.zone.allRRs(node{rel: r.name.Rel, sets: r.sets}, g.zone.absolute(r.name))) {
			return false
		}
	}
	return true
}
