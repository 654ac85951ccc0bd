package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// names is a resolver that can be told what to answer.
type names struct {
	mu    sync.Mutex
	addrs map[string][]netip.Addr
	asked int
}

func (n *names) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked++
	if a := n.addrs[host]; a != nil {
		return a, nil
	}
	return nil, errors.New("no such host")
}

func (n *names) set(host string, addrs ...netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addrs[host] = addrs
}

func start(t *testing.T, n *names) *Resolver {
	r := New(n.lookup)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return r
}

func TestResolver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("::ffff:10.0.0.2")
		n := &names{addrs: make(map[string][]netip.Addr)}
		r := start(t, n)
		if got := r.Addrs("x"); got != nil {
			t.Errorf("before a lookup: %v", got)
		}
		// It fails at first, is tried again with back-off, and found.
		time.Sleep(4 * time.Second)
		n.set("x", b, a, a)
		keepAsking(r, 2*time.Minute)
		if got := r.Addrs("x"); len(got) != 2 || got[0] != a || got[1] != b.Unmap() {
			t.Errorf("after the lookup: %v", got)
		}
		// The last answer stays while lookups fail.
		n.set("x")
		keepAsking(r, 5*time.Minute)
		if got := r.Addrs("x"); len(got) != 2 {
			t.Errorf("while lookups fail: %v", got)
		}
	})
}

// keepAsking asks for every host again that was looked up, for so long.
func keepAsking(r *Resolver, d time.Duration) {
	end := time.After(d)
	for {
		select {
		case <-end:
			return
		case <-r.Changed():
			for _, host := range r.LookedUp() {
				r.Addrs(host)
			}
		}
	}
}

// TestResolverWaits keeps an answer that nobody has had the time to look at.
func TestResolverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{addrs: map[string][]netip.Addr{"x": {netip.MustParseAddr("10.0.0.1")}}}
		r := start(t, n)
		r.Addrs("x")
		time.Sleep(time.Second)
		n.set("x")
		time.Sleep(10 * time.Minute)
		if got := r.Addrs("x"); len(got) != 1 {
			t.Errorf("after ten busy minutes: %v", got)
		}
	})
}

func TestResolverForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &names{addrs: map[string][]netip.Addr{"x": {netip.MustParseAddr("10.0.0.1")}}}
		r := start(t, n)
		r.Addrs("x")
		<-r.Changed()
		r.LookedUp()
		time.Sleep(10 * time.Minute) // nobody asks again
		n.mu.Lock()
		defer n.mu.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		if n.asked != 1 || len(r.hosts) != 0 {
			t.Errorf("asked %d times, %d hosts are left", n.asked, len(r.hosts))
		}
	})
}

// TestDeadHosts asks for many hosts that cannot be looked up, and take long to find that out:
// others, new ones and those that are known, must not wait for them.
func TestDeadHosts(t *testing.T) {
	good := netip.MustParseAddr("10.0.0.1")
	for name, tc := range map[string]struct {
		dead  int
		ask   func(r *Resolver, host string) []netip.Addr // for dead hosts
		new   func(r *Resolver, host string) []netip.Addr
		takes time.Duration // for a new host, beside dead ones that are new, too
	}{
		"of tenants, and an agent":   {1000, (*Resolver).TenantAddrs, (*Resolver).Addrs, time.Millisecond},
		"of tenants, and a tenant's": {150, (*Resolver).TenantAddrs, (*Resolver).TenantAddrs, 13 * time.Second}, // 24 every two seconds
		"agents, and an agent":       {64, (*Resolver).Addrs, (*Resolver).Addrs, 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				busy, asked := 0, make(map[string]int)
				r := New(func(ctx context.Context, host string) ([]netip.Addr, error) {
					mu.Lock()
					busy++
					asked[host]++
					if busy > parallel {
						t.Errorf("%d lookups at a time", busy)
					}
					mu.Unlock()
					defer func() {
						mu.Lock()
						busy--
						mu.Unlock()
					}()
					if !strings.HasPrefix(host, "dead") {
						return []netip.Addr{good}, nil
					}
					<-ctx.Done()
					return nil, ctx.Err()
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					r.Run(ctx)
				}()
				want := func() {
					tc.new(r, "known")
					for i := range tc.dead {
						tc.ask(r, fmt.Sprint("dead", i))
					}
				}
				is := func(host string) bool { return len(tc.new(r, host)) == 1 }
				want()
				time.Sleep(100 * time.Millisecond) // and all that can are being looked up
				is("new")
				time.Sleep(tc.takes)
				if !is("new") {
					t.Errorf("a new host waits for %d dead ones that are new, too", tc.dead)
				}
				for range 900 { // all have failed, again and again
					time.Sleep(time.Second)
					want()
				}
				mu.Lock()
				before := asked["known"]
				mu.Unlock()
				for range 5 * 60 {
					time.Sleep(time.Second)
					want()
				}
				mu.Lock()
				if n := asked["known"] - before; n < 4 {
					t.Errorf("a known host is looked up %d times in five minutes", n)
				}
				for host, n := range asked { // eight at a time fail, after five seconds each
					if least := min(4, 1200/5*8/tc.dead-1); n < least {
						t.Errorf("%s is looked up %d times in twenty minutes", host, n)
					}
				}
				mu.Unlock()
				is("newer")
				time.Sleep(time.Millisecond)
				if !is("newer") {
					t.Error("a new host waits for dead ones")
				}
				cancel()
				<-done
			})
		})
	}
}

// TestTenantBecomesAgent asks for a tenant's host that is an agent's, too: it comes first then.
func TestTenantBecomesAgent(t *testing.T) {
	r := New(nil)
	r.TenantAddrs("x")
	if e := r.hosts["x"]; !e.tenant {
		t.Error("it is not a tenant's")
	}
	r.Addrs("x")
	r.TenantAddrs("x")
	if e := r.hosts["x"]; e.tenant {
		t.Error("it is a tenant's alone")
	}
}

// TestTenantsDoNotStarveOthers has tenants name hosts that fail, and new ones without end.
func TestTenantsDoNotStarveOthers(t *testing.T) {
	entry := func(r *Resolver, host string, class class, due time.Time) {
		r.hosts[host].class, r.hosts[host].due = class, due
	}
	t.Run("a master's host that has failed", func(t *testing.T) {
		r := New(nil)
		for i := range parallelFailing {
			r.TenantAddrs(fmt.Sprint("dead", i))
			entry(r, fmt.Sprint("dead", i), failing, time.Now())
		}
		r.takeDue()
		r.Addrs("master")
		entry(r, "master", failing, time.Now())
		if got := r.takeDue(); len(got) != 1 {
			t.Errorf("looked up %q", got)
		}
	})
	t.Run("a host to be looked up again", func(t *testing.T) {
		r := New(nil)
		r.TenantAddrs("honest")
		entry(r, "honest", found, time.Now().Add(-2*refresh))
		for n := range 2 * parallelTenants {
			r.TenantAddrs(fmt.Sprint("new", n))
		}
		if got := r.takeDue(); len(got) != parallelTenants || !slices.Contains(got, "honest") {
			t.Errorf("looked up %q", got)
		}
	})
	t.Run("a host beyond the most", func(t *testing.T) {
		r := New(nil)
		for n := range maxTenants {
			r.TenantAddrs(fmt.Sprint("new", n))
		}
		r.TenantAddrs("one more")
		r.Addrs("agent")
		if len(r.hosts) != maxTenants+1 || r.hosts["agent"] == nil {
			t.Errorf("%d hosts", len(r.hosts))
		}
		entry(r, "new7", failing, time.Now())
		r.TenantAddrs("honest")
		if len(r.hosts) != maxTenants+1 || r.hosts["honest"] == nil || r.hosts["new7"] != nil || r.tenants != maxTenants {
			t.Errorf("%d hosts, %d of tenants", len(r.hosts), r.tenants)
		}
	})
}

// TestAnswered tells an answer, be it that there is no such host, from a lookup that has failed.
func TestAnswered(t *testing.T) {
	for what, tc := range map[string]struct {
		addrs    []netip.Addr
		err      error
		answered bool
	}{
		"addresses":    {[]netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil, true},
		"none":         {nil, nil, true},
		"no such host": {nil, &net.DNSError{Err: "no such host", IsNotFound: true}, true},
		"time-out":     {nil, context.DeadlineExceeded, false},
		"SERVFAIL":     {nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := New(func(context.Context, string) ([]netip.Addr, error) { return tc.addrs, tc.err })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if r.Answered("a") {
				t.Error("a host is answered for that nobody has asked for")
			}
			r.Addrs("a")
			go r.Run(ctx)
			synctest.Wait()
			if got := r.Answered("a"); got != tc.answered {
				t.Errorf("%s: answered: %v", what, got)
			}
		})
	}
}
