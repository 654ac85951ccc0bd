package calicomesos

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"
)

// publisher keeps the zones of one stanza. It is a sink of its watcher, whose loop is the
// only one to call it.
type publisher struct {
	rules   *rules
	zones   [schemes][]*publishedZone
	changed func(origin string) // tells secondaries that a zone has changed
	ready   chan struct{}       // closed when a first state is published

	lines         []*claimedNames // of the zones of the "vhosts" lines, by the lines' numbers
	hosts         hosts           // knows targets of those outside of the zones
	status        watch.Status    // as last published
	tasks         *taskIndex      // nil: nobody asks
	names         frameworkNames
	floor         time.Time // serials come after this time
	warner        warner
	before, after recordSet // reused
	task          mesos.Task
}

// publishedZone is a zone and what is not in it.
type publishedZone struct {
	*zone.Zone
	tx      *zone.Tx // nil until something changes
	status  zone.Status
	counts  [reasons]int                 // skipped names, addresses and ports
	skipped atomic.Pointer[[reasons]int] // counts as last published, for the metrics
	ever    atomic.Uint32                // bit i: something was skipped for reason i since the start

	// Only a zone of "vhosts" has these.
	claimed *claimedNames
	targets atomic.Int64 // fewest addresses of a line with targets, -1 for none and before a first state
}

func newPublisher(r *rules, zones zoneSet, changed func(origin string), ready chan struct{}) *publisher {
	p := &publisher{rules: r, changed: changed, ready: ready, names: newFrameworkNames()}
	for sch, zs := range zones {
		for _, z := range zs {
			pz := &publishedZone{Zone: z}
			pz.skipped.Store(new([reasons]int))
			p.zones[sch] = append(p.zones[sch], pz)
		}
	}
	p.newClaimedNames()
	return p
}

// Publish implements watch.Sink. It takes the records of the objects as they were from the
// zones, and adds those of the objects as they are.
func (p *publisher) Publish(ch *cluster.Changes, status watch.Status) {
	for _, c := range ch.Frameworks {
		p.replaceFramework(c)
	}
	for _, c := range ch.Agents {
		replace(p, c, c.Old != nil, c.New != nil, p.rules.agent)
	}
	if c := ch.Masters; c.Old != c.New {
		replace(p, c, c.Old != nil, true, p.rules.masters)
	}
	if ch.Instances != nil {
		for c := range ch.Instances {
			replace(p, c, c.Old.Valid(), c.New.Valid(), p.kept)
			p.tasks.replace(c, p.rules, &p.before, &p.after)
		}
	}
	p.floor, p.status = status.After, status
	for _, zs := range p.zones[:vhost] {
		for _, z := range zs {
			p.publishZone(z, status, false)
		}
	}
	p.publishVHosts()
	for _, warning := range p.warner.warnings(p.rules, status.Complete) {
		log.Warning(warning)
	}
	if !isClosed(p.ready) {
		close(p.ready)
	}
}

// kept appends the records of a running task.
func (p *publisher) kept(k cluster.Kept, out *recordSet) { p.rules.task(k.Instance(&p.task), out) }

// publishZone publishes a zone, and tells secondaries if they must know. In a doubtful one names
// without records may have some.
func (p *publisher) publishZone(z *publishedZone, status watch.Status, doubtful bool) {
	if z.publish(p.now(), zone.Status{Complete: status.Complete, Stale: status.Stale, Doubtful: doubtful}) {
		p.changed(z.Origin)
	}
}

// confirm ends the overlap of the zones with some that they may have replaced, or follow.
func (p *publisher) confirm(ended []*zone.Zone) {
	now := p.now()
	for z := range p.all {
		for _, old := range ended {
			if z.Confirm(old, now) && z.status.Complete {
				p.changed(z.Origin)
			}
		}
	}
}

// now returns the time to make serials of.
func (p *publisher) now() time.Time {
	if now := time.Now(); now.After(p.floor) {
		return now
	}
	return p.floor
}

// all yields every zone.
func (p *publisher) all(yield func(*publishedZone) bool) {
	for _, zs := range p.zones {
		for _, z := range zs {
			if !yield(z) {
				return
			}
		}
	}
}

// replace replaces the records that a rule makes of the old object by those of the new one.
func replace[T any](p *publisher, c cluster.Change[T], hasOld, hasNew bool, rule func(T, *recordSet)) {
	p.swap(func(out *recordSet) {
		if hasOld {
			rule(c.Old, out)
		}
	}, func(out *recordSet) {
		if hasNew {
			rule(c.New, out)
		}
	})
}

// swap replaces the records that before appends by those that after appends.
func (p *publisher) swap(before, after func(*recordSet)) {
	p.before.reset()
	p.after.reset()
	before(&p.before)
	after(&p.after)
	p.warner.seen.add(&p.after.seen)
	if p.before.skipped == p.after.skipped && slices.Equal(p.before.records, p.after.records) && slices.Equal(p.before.claims, p.after.claims) &&
		slices.Equal(p.before.badClaims, p.after.badClaims) {
		return
	}
	first, last := sharedEnds(p.before.records, p.after.records)
	p.apply(&p.before, p.before.records[first:len(p.before.records)-last], -1)
	p.apply(&p.after, p.after.records[first:len(p.after.records)-last], 1)
}

// sharedEnds returns how many records two lists have in common, at the beginning and at the end.
func sharedEnds(a, b []record) (first, last int) {
	most := min(len(a), len(b))
	for first < most && a[first] == b[first] {
		first++
	}
	for last < most-first && a[len(a)-1-last] == b[len(b)-1-last] {
		last++
	}
	return first, last
}

// apply adds records of set, and what else it has, or removes them if sign is -1.
func (p *publisher) apply(set *recordSet, records []record, sign int) {
	for sch := range schemes {
		for _, z := range p.zones[sch] {
			for why, n := range set.skipped[sch] {
				z.counts[why] += sign * n
			}
		}
	}
	for i := range records {
		r := &records[i]
		if r.scheme == reverse {
			if z, rel := p.reverseZone(r.name.Rel); z != nil {
				z.apply(zone.Rel(rel), r.Record, sign)
			}
			continue
		}
		for _, z := range p.zones[r.scheme] {
			z.apply(r.name, r.Record, sign)
		}
	}
	for _, c := range set.claims {
		p.lines[c.line].claim(c, sign)
	}
	for _, bad := range set.badClaims {
		p.zoneOf(bad.origin).counts[bad.why] += sign
	}
}

// reverseZone returns the most specific reverse zone of name, and name relative to its
// origin. It returns nil if there is none.
func (p *publisher) reverseZone(name string) (*publishedZone, string) {
	var (
		closest *publishedZone
		rel     string
	)
	for _, z := range p.zones[reverse] {
		if r, ok := z.Relative(name); ok && (closest == nil || len(r) < len(rel)) {
			closest, rel = z, r
		}
	}
	return closest, rel
}

// publish publishes what has changed, and reports whether secondaries must be told: an answer
// has changed, or the zone can be transferred now.
func (z *publishedZone) publish(now time.Time, status zone.Status) bool {
	if counts := z.counts; counts != *z.skipped.Load() {
		z.skipped.Store(&counts)
		for why, n := range counts {
			if n != 0 {
				z.ever.Or(1 << why)
			}
		}
	}
	if z.tx == nil && z.Current() != nil && z.status == status {
		return false
	}
	changed := z.transaction().Publish(now, status)
	completed := status.Whole() && !z.status.Whole()
	z.tx, z.status = nil, status
	return status.Whole() && (changed || completed)
}

// transaction returns the transaction of the next publication.
func (z *publishedZone) transaction() *zone.Tx {
	if z.tx == nil {
		z.tx = z.Begin()
	}
	return z.tx
}

// apply adds a record, or removes it if sign is -1. It counts a record that does not fit.
func (z *publishedZone) apply(name zone.Name, r zone.Record, sign int) {
	apply := z.transaction().Add
	if sign < 0 {
		apply = z.transaction().Remove
	}
	if !apply(name, r) {
		z.counts[longName] += sign
	}
}
