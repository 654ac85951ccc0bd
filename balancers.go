package calicomesos

import (
	"net"
	"net/netip"
	"slices"

	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/miekg/dns"
)

// hosts knows the addresses of hostnames, as resolve.Resolver does.
type hosts interface {
	Addrs(host string) []netip.Addr // without waiting
	Answered(host string) bool      // a lookup has found its addresses, or that it has none
}

// claimedNames are the names that tasks claim in a zone of "vhosts", and what they answer. The
// publisher's loop owns them.
type claimedNames struct {
	zone  *publishedZone
	lines []*balancer
	names map[string]*claimedName // relative to the zone
	dirty map[string]bool         // names whose answer may have changed
}

// claimedName is a name with its claims, and the addresses that it answers.
type claimedName struct {
	claims map[claimKey]int // number of tasks
	addrs  []netip.Addr     // in order, each once
}

// claimKey is what a claim says besides the name.
type claimKey struct {
	line   int
	addr   netip.Addr // an address of the claiming task, or the zero Addr for the claim itself
	backup bool
}

// balancer is a "vhosts" line as it runs.
type balancer struct {
	line    *vhostLine
	targets []target
	addrs   []netip.Addr // of all targets: what each name that is claimed for the line answers
	excess  int          // addresses that are left out
	lost    logstate.State
}

// target is a name whose addresses a balancer answers.
type target struct {
	targetName
	zone  *zone.Zone // of the stanza that it is in, or nil: it is looked up
	seen  *zone.Generation
	addrs []netip.Addr
	known bool // addrs are its addresses, or it has none
}

// newClaimedNames makes the claimed names of each zone of "vhosts".
func (p *publisher) newClaimedNames() {
	for _, z := range p.zones[vhost] {
		z.targets.Store(-1) // until it is known
		z.claimed = &claimedNames{zone: z, names: make(map[string]*claimedName), dirty: make(map[string]bool)}
	}
	for _, line := range p.rules.vhosts {
		b := &balancer{line: line, lost: logstate.State{Log: log}}
		for _, name := range line.names {
			t := target{targetName: name}
			if z := p.zoneOf(p.rules.zoneOf(name.fqdn)); z != nil {
				t.zone = z.Zone
			}
			b.targets = append(b.targets, t)
		}
		b.setAddrs()
		c := p.zoneOf(line.origin).claimed
		c.lines = append(c.lines, b)
		p.lines = append(p.lines, c)
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
func (c *claimedNames) claim(cl claim, sign int) {
	n := c.names[cl.name]
	if n == nil {
		if !c.zone.transaction().Add(zone.Rel(cl.name), zone.Claim()) {
			c.zone.counts[longName] += sign
			return
		}
		n = &claimedName{claims: make(map[claimKey]int)}
		c.names[cl.name] = n
	}
	if n.claims[cl.claimKey] += sign; n.claims[cl.claimKey] == 0 {
		delete(n.claims, cl.claimKey)
	}
	c.dirty[cl.name] = true
}

// answer returns what a name answers: the addresses of the lines that it is claimed for, and of
// the claiming tasks for "tasks". Claims of unhealthy tasks count only where there are no others.
func (c *claimedNames) answer(n *claimedName, lines map[int]*balancer) []netip.Addr {
	backup := true
	for k := range n.claims {
		backup = backup && k.backup
	}
	var addrs []netip.Addr
	for k := range n.claims {
		switch {
		case k.backup != backup:
		case k.addr.IsValid():
			addrs = append(addrs, k.addr)
		default:
			addrs = append(addrs, lines[k.line].addrs...)
		}
	}
	return ordered(addrs)
}

// apply brings the records of the names that have changed into the zone's transaction.
func (c *claimedNames) apply() {
	lines := make(map[int]*balancer, len(c.lines))
	for _, b := range c.lines {
		lines[b.line.number] = b
	}
	for name := range c.dirty {
		n := c.names[name]
		addrs := c.answer(n, lines)
		for _, a := range n.addrs {
			if _, stays := slices.BinarySearchFunc(addrs, a, netip.Addr.Compare); !stays {
				c.zone.apply(zone.Rel(name), zone.Address(a), -1)
			}
		}
		for _, a := range addrs {
			if _, was := slices.BinarySearchFunc(n.addrs, a, netip.Addr.Compare); !was {
				c.zone.apply(zone.Rel(name), zone.Address(a), 1)
			}
		}
		if n.addrs = addrs; len(n.claims) == 0 {
			delete(c.names, name)
			c.zone.transaction().Remove(zone.Rel(name), zone.Claim())
		}
	}
	clear(c.dirty)
}

// follow finds out where the targets are now. It marks the names that answer their addresses.
func (c *claimedNames) follow(h hosts) {
	for _, b := range c.lines {
		for i := range b.targets {
			b.targets[i].look(h)
		}
		before := b.excess
		changed := b.setAddrs()
		c.zone.counts[excess] += b.excess - before
		if !changed {
			continue
		}
		for name, n := range c.names {
			if n.claims[claimKey{line: b.line.number}]+n.claims[claimKey{line: b.line.number, backup: true}] > 0 {
				c.dirty[name] = true
			}
		}
	}
}

// isClaimed reports whether any name is claimed for a line.
func (c *claimedNames) isClaimed(b *balancer) bool {
	for _, n := range c.names {
		if n.claims[claimKey{line: b.line.number}]+n.claims[claimKey{line: b.line.number, backup: true}] > 0 {
			return true
		}
	}
	return false
}

// setAddrs collects the addresses of the targets, and reports whether they have changed. There
// are at most maxAddrs: an answer has to fit, and each claimed name keeps them all. Those that
// the line names come first.
func (b *balancer) setAddrs() (changed bool) {
	var found []netip.Addr
	for _, t := range b.targets {
		found = append(found, t.addrs...)
	}
	found = slices.DeleteFunc(ordered(found), func(a netip.Addr) bool { return !isUsable(a) || slices.Contains(b.line.addrs, a) })
	room := max(maxAddrs-len(b.line.addrs), 0)
	b.excess = max(len(found)-room, 0)
	addrs := ordered(slices.Concat(b.line.addrs, found[:min(len(found), room)]))
	changed = !slices.Equal(addrs, b.addrs)
	b.addrs = addrs
	return changed
}

// ordered sorts addresses, and leaves each once.
func ordered(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// isKnown reports whether it is known where all targets are.
func (b *balancer) isKnown() bool {
	return !slices.ContainsFunc(b.targets, func(t target) bool { return !t.known })
}

// hasTargets reports whether a line should have addresses, whoever claims a name.
func (b *balancer) hasTargets() bool { return len(b.targets)+len(b.line.addrs) > 0 }

// tell logs that a line for which names are claimed has no address, and that it has one again.
func (b *balancer) tell(needed bool) {
	switch {
	case len(b.addrs) > 0:
		b.lost.Recovered("The targets of \"%s\" have addresses again", b.line)
	case needed:
		b.lost.Failed("No target of \"%s\" has an address: names that tasks claim have none", b.line)
	}
}

// look finds out the target's addresses. What is not known now stays as it was.
func (t *target) look(h hosts) {
	if t.zone == nil {
		if addrs := h.Addrs(t.host); len(addrs) > 0 || h.Answered(t.host) {
			t.addrs, t.known = addrs, true
		}
		return
	}
	gen := t.zone.Current()
	if gen == nil || gen == t.seen {
		return
	}
	t.seen = gen
	rel, _ := t.zone.Relative(t.fqdn)
	addrs := addressesOf(gen, rel, t.fqdn)
	if len(addrs) > 0 || gen.Complete {
		t.addrs, t.known = addrs, true
	}
}

// addressesOf returns the addresses of a name in a zone.
func addressesOf(gen *zone.Generation, rel, name string) []netip.Addr {
	const octets = maxAddrs * net.IPv6len // of so many addresses, and more is not needed
	var addrs []netip.Addr
	for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA} {
		for _, rr := range gen.Lookup(rel, name, typ, 0, octets).Answer {
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
func (p *publisher) HostsChanged([]string) {
	if isClosed(p.ready) {
		p.publishVHosts()
	}
}

// publishVHosts publishes the zones of "vhosts", after the zones that their targets are in.
func (p *publisher) publishVHosts() {
	for _, z := range p.zones[vhost] {
		c := z.claimed
		c.follow(p.hosts)
		c.apply()
		doubtful, fewest := false, -1
		for _, b := range c.lines {
			claimed := b.hasTargets() && len(b.addrs) == 0 && c.isClaimed(b)
			doubtful = doubtful || claimed && !b.isKnown()
			b.tell(claimed && b.isKnown() && p.status.Complete)
			if b.hasTargets() && (fewest < 0 || len(b.addrs) < fewest) {
				fewest = len(b.addrs)
			}
		}
		z.targets.Store(int64(fewest))
		p.publishZone(z, watch.Status{Complete: p.status.Complete, Stale: p.status.Stale}, doubtful)
	}
}
