package calicomesos

import (
	"fmt"
	"net/netip"
)

// seen is what the rules have come across that tells whether a stanza's filters are right: a
// typo in "network", "allow" or "frameworks" hides all tasks.
type seen struct {
	container  bool   // an address of a container
	framework  bool   // a framework
	networks   uint64 // bit i: networks[i] has matched one; likewise the others
	allow      uint64
	frameworks uint64
	loopback   netip.Addr // an agent's
}

// note notes that the filter i has matched. Those from 64 on are not judged.
func note(bits *uint64, i int) {
	if i < 64 {
		*bits |= 1 << i
	}
}

// add takes in what else was seen.
func (s *seen) add(o *seen) {
	s.container = s.container || o.container
	s.networks |= o.networks
	s.allow |= o.allow
	s.framework = s.framework || o.framework
	s.frameworks |= o.frameworks
	if o.loopback.IsValid() {
		s.loopback = o.loopback
	}
}

// warner warns once of what cannot be meant.
type warner struct {
	seen                           seen
	ofAgent, ofAddrs, ofFrameworks bool // were warned of
}

// warnings returns what to warn of now: an agent that is on each host another, and, once the
// cluster is known and has something to match, filters that match nothing.
func (w *warner) warnings(r *rules, complete bool) []string {
	var all []string
	if w.seen.loopback.IsValid() && !w.ofAgent {
		w.ofAgent = true
		all = append(all, fmt.Sprintf("An agent has the address %s, which is each client's own: set --ip or --advertise_ip of Mesos's agents", w.seen.loopback))
	}
	unmatched := func(bits uint64, i int) bool { return i < 64 && bits&(1<<i) == 0 }
	if complete && w.seen.container && !w.ofAddrs {
		w.ofAddrs = true
		for i, network := range r.networks {
			if unmatched(w.seen.networks, i) {
				all = append(all, fmt.Sprintf("No task is on the network %q of property \"network\"; addresses on networks that it lacks are not published", network))
			}
		}
		for i, prefix := range r.allow {
			if unmatched(w.seen.allow, i) {
				all = append(all, fmt.Sprintf("No task has an address in %s of property \"allow\"; addresses outside of its prefixes are not published", prefix))
			}
		}
	}
	if complete && w.seen.framework && !w.ofFrameworks {
		w.ofFrameworks = true
		for i, t := range r.frameworks {
			if unmatched(w.seen.frameworks, i) {
				all = append(all, fmt.Sprintf("No framework is %q of property \"frameworks\"; others are not published", t))
			}
		}
	}
	return all
}

// onNetwork reports whether "network" has a network.
func (r *rules) onNetwork(name string, s *seen) bool {
	return matches(r.networks, &s.networks, func(network string) bool { return network == name }) || len(r.networks) == 0
}

// allows reports whether "allow" has an address of a container. A local one must be named: a
// client would reach itself by it, or its own network's other services.
func (r *rules) allows(addr netip.Addr, s *seen) bool {
	return matches(r.allow, &s.allow, func(p netip.Prefix) bool { return p.Contains(addr) }) || len(r.allow) == 0 && !isLocal(addr)
}

// matches reports whether any filter matches, and notes all that do.
func matches[T any](filters []T, bits *uint64, match func(T) bool) bool {
	matched := false
	for i, f := range filters {
		if match(f) {
			matched = true
			note(bits, i)
		}
	}
	return matched
}
