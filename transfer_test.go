package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/plugin/transfer"
	"github.com/miekg/dns"
)

func received(t *testing.T, ch <-chan []dns.RR, err error) []dns.RR {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var all []dns.RR
	for rrs := range ch {
		all = append(all, rrs...)
	}
	return all
}

// TestTransfer asks for a zone while it changes: it is one generation, from
// its SOA to its SOA.
func TestTransfer(t *testing.T) {
	z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
	c := &CalicoMesos{zones: []*zone.Zone{z}}
	if _, err := c.Transfer("mesos.", 0); !errors.Is(err, errIncomplete) {
		t.Errorf("before a state: %v", err)
	}
	publish := func(n int, s zone.Status) {
		tx := z.Begin()
		for i := range 2000 {
			tx.Add(fmt.Sprintf("t%d.f", i), zone.Address(netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)})))
		}
		tx.Publish(time.Now(), s)
	}
	publish(0, zone.Status{})
	if _, err := c.Transfer("mesos.", 0); !errors.Is(err, errIncomplete) {
		t.Errorf("of an incomplete state: %v", err)
	}
	for _, name := range []string{"example.", "x.mesos.", "."} {
		if _, err := c.Transfer(name, 0); !errors.Is(err, transfer.ErrNotAuthoritative) {
			t.Errorf("of %s: %v", name, err)
		}
	}
	publish(1, zone.Status{Complete: true})
	serial := z.Current().Serial()
	ch, err := c.Transfer("MESOS.", 0)
	publish(2, zone.Status{Complete: true})
	rrs := received(t, ch, err)
	first, last := rrs[0].(*dns.SOA), rrs[len(rrs)-1].(*dns.SOA)
	if len(rrs) != 2+1+4000 || first.Serial != serial || last.Serial != serial {
		t.Errorf("%d records from serial %d to %d, want 4003 of %d", len(rrs), first.Serial, last.Serial, serial)
	}
	now := z.Current().Serial()
	for _, tc := range []struct {
		serial uint32
		want   int
	}{{now, 1}, {now + 1, 1}, {now - 1, 2 + 1 + 6000}, {now - 1<<30, 2 + 1 + 6000}} {
		ch, err := c.Transfer("mesos.", tc.serial)
		if rrs := received(t, ch, err); len(rrs) != tc.want {
			t.Errorf("IXFR from %d at %d: %d records, want %d", tc.serial, now, len(rrs), tc.want)
		}
	}
}

// TestNotifyCoalesces lets zones change often: each is told at most once a
// second, and of the last change too.
func TestNotifyCoalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		n := newNotifier(func(origin string) error {
			sent = append(sent, fmt.Sprintf("%s %.2f", origin, float64(time.Now().UnixMilli()%60_000)/1000))
			time.Sleep(10 * time.Millisecond)
			return errors.New("nobody listens")
		})
		n.changed("b.")
		n.changed("a.")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.run(ctx)
		}()
		for range 150 {
			pass(10 * time.Millisecond)
			n.changed("a.")
		}
		pass(time.Minute)
		if want := []string{"a. 0.00", "b. 0.01", "a. 1.02", "a. 2.03"}; !slices.Equal(sent, want) {
			t.Errorf("sent %q", sent)
		}
		cancel()
		<-done
	})
}
