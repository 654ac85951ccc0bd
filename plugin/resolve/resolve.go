// Package resolve looks hostnames up in the background, for callers that must
// not wait: the resolver asked may be the server that the answers are for.
package resolve

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	timeout    = 5 * time.Second
	refresh    = time.Minute // of a name that resolved
	minBackOff = time.Second
	maxBackOff = time.Minute
	parallel   = 8
)

// Resolver knows the addresses of hostnames. The last answer is kept while
// later lookups fail.
type Resolver struct {
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	wake    chan struct{}
	changed chan struct{}

	mu    sync.Mutex
	hosts map[string]*entry
	done  []string // looked up since the last Take
}

type entry struct {
	addrs   []netip.Addr
	due     time.Time
	backOff time.Duration
	wanted  bool // asked for since the last lookup
	busy    bool
}

// New returns a resolver that asks lookup; nil stands for the system's.
func New(lookup func(ctx context.Context, host string) ([]netip.Addr, error)) *Resolver {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &Resolver{
		lookup:  lookup,
		wake:    make(chan struct{}, 1),
		changed: make(chan struct{}, 1),
		hosts:   make(map[string]*entry),
	}
}

// Addrs returns the known addresses of host, and has it looked up from now on
// as long as somebody asks for it after each of its lookups.
func (r *Resolver) Addrs(host string) []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	if e == nil {
		e = &entry{backOff: minBackOff}
		r.hosts[host] = e
		signal(r.wake)
	}
	e.wanted = true
	return e.addrs
}

// Seed makes addresses known that hosts had before, until they are looked up.
func (r *Resolver) Seed(hosts map[string][]netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for host, addrs := range hosts {
		if r.hosts[host] == nil {
			r.hosts[host] = &entry{addrs: clean(addrs), backOff: minBackOff, wanted: true}
		}
	}
	signal(r.wake)
}

// Known returns the hosts that resolved, with their addresses.
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

// Changed is signalled when Take has hosts.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

// Take returns the hosts that were looked up since the last call. Whoever still
// needs them is to ask for their addresses again.
func (r *Resolver) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.done
	r.done = nil
	return done
}

// Run looks hosts up until ctx is done.
func (r *Resolver) Run(ctx context.Context) {
	var lookups sync.WaitGroup
	defer lookups.Wait()
	slots := make(chan struct{}, parallel)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-timer.C:
		}
		for _, host := range r.takeDue() {
			select {
			case <-ctx.Done():
				return
			case slots <- struct{}{}:
			}
			lookups.Go(func() {
				r.look(ctx, host)
				<-slots
				signal(r.wake)
			})
		}
		timer.Reset(r.nextDue())
	}
}

// takeDue returns the hosts to look up now, and forgets those nobody wants.
func (r *Resolver) takeDue() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	var due []string
	for host, e := range r.hosts {
		switch {
		case e.busy || e.due.After(now):
		case !e.wanted && !slices.Contains(r.done, host): // nobody who knows the answer
			delete(r.hosts, host)
		default:
			e.busy, e.wanted = true, false
			due = append(due, host)
		}
	}
	return due
}

func (r *Resolver) nextDue() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := refresh
	for _, e := range r.hosts {
		if !e.busy {
			next = min(next, time.Until(e.due))
		}
	}
	return max(next, 0)
}

func (r *Resolver) look(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	addrs, err := r.lookup(ctx, host)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.hosts[host]
	e.busy = false
	wait := refresh
	if err != nil || len(addrs) == 0 {
		wait = e.backOff
		e.backOff = min(2*e.backOff, maxBackOff)
	} else {
		e.backOff = minBackOff
		e.addrs = clean(addrs)
	}
	e.due = time.Now().Add(wait/2 + rand.N(wait/2))
	r.done = append(r.done, host)
	signal(r.changed)
}

// clean brings answers into one order and form, so that equal ones are equal.
func clean(addrs []netip.Addr) []netip.Addr {
	cleaned := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		cleaned = append(cleaned, a.Unmap().WithZone(""))
	}
	slices.SortFunc(cleaned, netip.Addr.Compare)
	return slices.Compact(cleaned)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
