package calicomesos

import (
	"net/netip"
	"slices"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// balancer is a "vhosts" line as it runs: the names that are claimed for it, and the addresses
// that its targets have now. The publisher's loop owns it.
type balancer struct {
	line    *vhostLine
	zone    *publishedZone
	targets []target
	claimed map[string]claimCount // by name relative to the zone
	addrs   []netip.Addr          // of all targets: what each claimed name answers
}

// claimCount is the number of tasks that claim a name, in health and as backups.
type claimCount struct{ active, backup int }

// answers reports whether the name has the balancer's addresses, and whether as backups.
func (c claimCount) answers() (has, backup bool) { return c != claimCount{}, c.active == 0 }

// target is a name whose addresses a balancer answers.
type target struct {
	name  string
	zone  *zone.Zone // of the stanza that it is in, or nil: it is looked up
	seen  *zone.Generation
	addrs []netip.Addr
	known bool // addrs are the addresses, or there are none
}

// newBalancers makes the balancers of the rules' lines, and gives them to their zones.
func (p *publisher) newBalancers() {
	for _, line := range p.rules.vhosts {
		b := &balancer{line: line, claimed: make(map[string]claimCount), addrs: bounded(line.addrs)}
		b.zone = p.zoneOf(line.origin)
		for _, name := range line.names {
			t := target{name: name}
			if z := p.zoneOf(p.rules.zoneOf(name)); z != nil {
				t.zone = z.Zone
			}
			b.targets = append(b.targets, t)
		}
		p.balancers = append(p.balancers, b)
		b.zone.balancers = append(b.zone.balancers, b)
	}
}

// zoneOf returns the zone with an origin, or nil.
func (p *publisher) zoneOf(origin string) *publishedZone {
	for z := range p.all {
		if z.Origin == origin {
			return z
		}
	}
	return nil
}

// claim takes in a claim, or takes it back if sign is -1.
func (b *balancer) claim(c claim, sign int) {
	tx := b.zone.transaction()
	claim := tx.Claim
	if sign < 0 {
		claim = tx.Unclaim
	}
	if !claim(zone.Rel(c.name)) {
		b.zone.counts[longName] += sign
		return
	}
	before := b.claimed[c.name]
	now := before
	if c.backup {
		now.backup += sign
	} else {
		now.active += sign
	}
	b.claimed[c.name] = now
	had, hadBackup := before.answers()
	has, isBackup := now.answers()
	if !has {
		delete(b.claimed, c.name)
	}
	if had == has && hadBackup == isBackup {
		return
	}
	if had {
		b.apply(c.name, b.addrs, hadBackup, -1)
	}
	if has {
		b.apply(c.name, b.addrs, isBackup, 1)
	}
}

// apply adds addresses to a name, or removes them if sign is -1.
func (b *balancer) apply(name string, addrs []netip.Addr, backup bool, sign int) {
	for _, a := range addrs {
		r := zone.Address(a)
		if backup {
			r = r.Backup()
		}
		b.zone.apply(zone.Rel(name), r, sign)
	}
}

// follow has each claimed name answer the addresses that the targets have now.
func (b *balancer) follow(hosts cluster.Hosts) {
	addrs := slices.Clone(b.line.addrs)
	for i := range b.targets {
		b.targets[i].look(hosts)
		addrs = append(addrs, b.targets[i].addrs...)
	}
	if addrs = bounded(addrs); slices.Equal(addrs, b.addrs) {
		return
	}
	for name, count := range b.claimed {
		_, backup := count.answers()
		b.apply(name, b.addrs, backup, -1)
		b.apply(name, addrs, backup, 1)
	}
	b.addrs = addrs
}

// bounded returns addresses each once, in order, and at most maxAddrs of them: an answer has to
// fit, and each claimed name keeps them all.
func bounded(addrs []netip.Addr) []netip.Addr {
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), maxAddrs)]
}

// look finds out the target's addresses. What is not known now stays as it was.
func (t *target) look(hosts cluster.Hosts) {
	if t.zone == nil {
		if addrs := hosts.Addrs(t.name); len(addrs) > 0 {
			t.addrs, t.known = addrs, true
		}
		return
	}
	gen := t.zone.Current()
	if gen == nil || gen == t.seen {
		return
	}
	t.seen = gen
	rel, _ := t.zone.Relative(t.name)
	addrs := addressesOf(gen, rel, t.name)
	if len(addrs) > 0 || gen.Complete() {
		t.addrs, t.known = addrs, true
	}
}

// addressesOf returns the addresses of a name in a zone.
func addressesOf(gen *zone.Generation, rel, name string) []netip.Addr {
	var addrs []netip.Addr
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rr := range gen.Lookup(rel, name, typ, 0, maxAddrs).Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addr, _ := netip.AddrFromSlice(rr.A.To4())
				addrs = append(addrs, addr)
			case *dns.AAAA:
				addr, _ := netip.AddrFromSlice(rr.AAAA)
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// HostsChanged implements watch.Sink: hosts have been looked up.
func (p *publisher) HostsChanged(hosts []string) {
	for _, b := range p.balancers {
		for i := range b.targets {
			if t := &b.targets[i]; t.zone == nil && slices.Contains(hosts, t.name) {
				t.known = true // there may be none
			}
		}
	}
	if isClosed(p.ready) {
		p.publishVHosts()
	}
}

// publishVHosts publishes the zones of "vhosts", after the zones that their targets are in.
// While it is not known where a target is, a name without an address may have one.
func (p *publisher) publishVHosts() {
	for _, z := range p.zones[vhost] {
		addrs, known, needed := 0, true, false
		for _, b := range z.balancers {
			b.follow(p.hosts)
			addrs += len(b.addrs)
			known = known && !slices.ContainsFunc(b.targets, func(t target) bool { return !t.known })
			needed = needed || len(b.targets) > 0 && len(b.claimed) > 0
		}
		z.targets.Store(int64(addrs))
		p.publishZone(z, watch.Status{Complete: p.status.Complete && known, Stale: p.status.Stale})
		switch {
		case addrs > 0:
			z.lost.Recovered("The targets of \"vhosts %s\" have addresses again", z.Origin)
		case needed && known && p.status.Complete:
			z.lost.Failed("No target of \"vhosts %s\" has an address: names that tasks claim have none", z.Origin)
		}
	}
}
