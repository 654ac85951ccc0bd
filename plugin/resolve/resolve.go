// Package resolve looks up hostnames in the background, for callers that must not wait:
// the resolver may be the very server that waits for the answer.
//
// Addrs returns at once with what is known, and registers the host. Run looks it up,
// repeats that every minute, and signals Changed after each lookup. Hosts of the cluster come
// before those that tenants name, new ones before others, and neither those of tenants nor
// those whose last lookup failed can take all lookups. A host that nobody has asked for since
// its last lookup is forgotten.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/wake"
)

const (
	timeout = 5 * time.Second
	// firstTimeout is that of the first lookup of a tenant's host: anybody can name many that are
	// never answered for.
	firstTimeout = 2 * time.Second
	refresh      = time.Minute // after a lookup that succeeded
	minBackOff   = time.Second // after one that failed
	maxBackOff   = time.Minute

	parallel        = 32 // lookups at a time
	parallelTenants = 24 // of them, of hosts that tenants name
	parallelFailing = 8  // of tenants' hosts whose last lookup failed; as many of others
	// maxTenants is the number of tenants' hosts that are looked up at a time. A cluster has some
	// frameworks; of whoever registers thousands those are forgotten that cannot be looked up.
	maxTenants = 1024
)

// Resolver knows the addresses of hostnames. While lookups of a host fail it keeps the last
// answer.
type Resolver struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	work    wake.Signal
	changed wake.Signal

	mu       sync.Mutex
	hosts    map[string]*entry
	lookedUp []string // since the last LookedUp

	tenants           int    // entries that are
	busy, busyTenants int    // lookups under way
	busyFailing       [2]int // of the cluster's hosts, and of tenants'
}

// class orders hosts: those that matter most are looked up first.
type class int

const (
	unknown class = iota // not looked up yet
	found
	failing // the last lookup failed
)

type entry struct {
	addrs    []netip.Addr
	due      time.Time
	backOff  *backoff.BackOff
	class    class
	tenant   bool // only tenants name it
	wanted   bool // asked for since the last lookup
	busy     bool // being looked up
	answered bool // a lookup has found addresses, or that there are none
}

// New returns a resolver that calls lookup, or the system's resolver if lookup is nil.
func New(lookup func(ctx context.Context, host string) ([]netip.Addr, error)) *Resolver {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &Resolver{
		lookup:  lookup,
		work:    wake.New(),
		changed: wake.New(),
		hosts:   make(map[string]*entry),
	}
}

func newEntry(tenant bool) *entry {
	return &entry{due: time.Now(), tenant: tenant, backOff: backoff.New(minBackOff, maxBackOff)}
}

// Addrs returns the known addresses of a host of the cluster, and has it looked up.
func (r *Resolver) Addrs(host string) []netip.Addr { return r.addrs(host, false) }

// TenantAddrs does so for a host that a tenant names.
func (r *Resolver) TenantAddrs(host string) []netip.Addr { return r.addrs(host, true) }

func (r *Resolver) addrs(host string, tenant bool) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	if e == nil {
		if tenant && r.tenants >= maxTenants && !r.makeRoom() {
			return nil
		}
		e = newEntry(tenant)
		r.put(host, e)
		r.work.Set()
	}
	e.wanted = true
	if e.tenant && !tenant && !e.busy { // a lookup under way counts as what it began as
		e.tenant = false
		r.tenants--
	}
	return e.addrs
}

// makeRoom forgets a tenant's host that cannot be looked up, and reports whether there was one.
func (r *Resolver) makeRoom() bool {
	for host, e := range r.hosts {
		if e.tenant && e.class == failing && !e.busy {
			r.forget(host, e)
			return true
		}
	}
	return false
}

func (r *Resolver) put(host string, e *entry) {
	r.hosts[host] = e
	if e.tenant {
		r.tenants++
	}
}

func (r *Resolver) forget(host string, e *entry) {
	delete(r.hosts, host)
	if e.tenant {
		r.tenants--
	}
}

// Seed sets addresses that hosts had before, until they are looked up.
func (r *Resolver) Seed(hosts map[string][]netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, addrs := range hosts {
		if r.hosts[host] == nil {
			e := newEntry(true) // until it is asked for as one of the cluster's
			e.addrs, e.wanted = normalize(addrs), true
			r.put(host, e)
		}
	}
	r.work.Set()
}

// Answered reports whether a lookup of a host has ended with an answer: its addresses, or that it
// has none. One that failed otherwise has not.
func (r *Resolver) Answered(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	return e != nil && e.answered
}

// Known returns the hosts with known addresses.
func (r *Resolver) Known() map[string][]netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make(map[string][]netip.Addr)
	for host, e := range r.hosts {
		if len(e.addrs) > 0 {
			known[host] = e.addrs
		}
	}
	return known
}

// Changed is signalled when LookedUp has hosts.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

// LookedUp returns the hosts that were looked up since the last call. Whoever still needs
// one must call Addrs again.
func (r *Resolver) LookedUp() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	hosts := r.lookedUp
	r.lookedUp = nil
	return hosts
}

// Run looks hosts up until ctx is done.
func (r *Resolver) Run(ctx context.Context) {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.work:
		case <-timer.C:
		}
		for _, host := range r.takeDue() {
			lookups.Go(func() {
				r.look(ctx, host)
				r.work.Set()
			})
		}
		timer.Reset(r.untilDue())
	}
}

// takeDue returns the hosts to look up now, as many as may be under way, and forgets those
// that nobody wants.
func (r *Resolver) takeDue() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var due []string
	for host, e := range r.hosts {
		switch {
		case e.busy || e.due.After(now):
		case !e.wanted && !slices.Contains(r.lookedUp, host): // someone may still want what LookedUp returns
			r.forget(host, e)
		default:
			due = append(due, host)
		}
	}
	slices.SortFunc(due, func(a, b string) int { return r.hosts[a].compare(r.hosts[b], now) })
	return slices.DeleteFunc(due, func(host string) bool {
		e := r.hosts[host]
		if !r.hasRoom(e) {
			return true
		}
		e.busy, e.wanted = true, false
		r.count(e, 1)
		return false
	})
}

// compare orders entries by who matters more, and then by who has waited longer. An entry that
// is overdue by more than refresh comes before new ones, which tenants can add without end.
func (e *entry) compare(o *entry, now time.Time) int {
	if e.tenant != o.tenant {
		if o.tenant {
			return -1
		}
		return 1
	}
	if long := now.Add(-refresh); e.due.Before(long) || o.due.Before(long) {
		return e.due.Compare(o.due)
	}
	return cmp.Or(cmp.Compare(e.class, o.class), e.due.Compare(o.due))
}

// kind is the index of an entry's kind in busyFailing.
func (e *entry) kind() int {
	if e.tenant {
		return 1
	}
	return 0
}

// hasRoom reports whether a lookup may begin. r.mu is held.
func (r *Resolver) hasRoom(e *entry) bool {
	return r.busy < parallel && (!e.tenant || r.busyTenants < parallelTenants) && (e.class != failing || r.busyFailing[e.kind()] < parallelFailing)
}

// count counts a lookup that begins, or that ends if n is -1.
func (r *Resolver) count(e *entry, n int) {
	r.busy += n
	if e.tenant {
		r.busyTenants += n
	}
	if e.class == failing {
		r.busyFailing[e.kind()] += n
	}
}

// untilDue returns when a lookup can begin at the earliest. One that has no room begins when
// another ends.
func (r *Resolver) untilDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := refresh
	for _, e := range r.hosts {
		if !e.busy && r.hasRoom(e) {
			next = min(next, time.Until(e.due))
		}
	}
	return max(next, 0)
}

func (r *Resolver) look(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, r.patience(host))
	defer cancel()
	addrs, err := r.lookup(ctx, host)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	r.count(e, -1)
	e.busy, e.class = false, found
	e.answered = e.answered || err == nil || isNotFound(err)
	wait := backoff.Jitter(refresh)
	if err != nil || len(addrs) == 0 {
		e.class = failing
		wait = e.backOff.Next()
	} else {
		e.backOff.Reset()
		e.addrs = normalize(addrs)
	}
	e.due = time.Now().Add(wait)
	r.lookedUp = append(r.lookedUp, host)
	r.changed.Set()
}

// isNotFound reports whether a name server, or the file of hosts, has said that there is no such
// host.
func isNotFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}

// patience returns how long a lookup of host may take.
func (r *Resolver) patience(host string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.hosts[host]; e.tenant && e.class == unknown {
		return firstTimeout
	}
	return timeout
}

// normalize brings answers into one form and order, so that equal answers compare equal.
func normalize(addrs []netip.Addr) []netip.Addr {
	normalized := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		normalized = append(normalized, a.Unmap().WithZone(""))
	}
	slices.SortFunc(normalized, netip.Addr.Compare)
	return slices.Compact(normalized)
}
