package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Journal: true})
	c := &CalicoMesos{zones: []*zone.Zone{z}}
	if _, err := c.Transfer("mesos.", 0); !errors.Is(err, errIncomplete) {
		t.Errorf("before a state: %v", err)
	}
	publish := func(n int, s zone.Status) {
		tx := z.Begin()
		for i := range 2000 {
			tx.Add(zone.Rel(fmt.Sprintf("t%d.f", i)), zone.Address(netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)})))
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
	if !c.transfers.underWay("mesos.") {
		t.Error("no transfer is under way")
	}
	rrs := received(t, ch, err)
	if c.transfers.underWay("mesos.") {
		t.Error("a transfer is still under way")
	}
	first, last := rrs[0].(*dns.SOA), rrs[len(rrs)-1].(*dns.SOA)
	if len(rrs) != 2+1+4000 || first.Serial != serial || last.Serial != serial {
		t.Errorf("%d records from serial %d to %d, want 4003 of %d", len(rrs), first.Serial, last.Serial, serial)
	}
	now := z.Current().Serial()
	for _, tc := range []struct {
		serial uint32
		want   int
	}{{now, 1}, {now + 1, 1}, {serial, 2 + 2 + 2000}, {now - 1<<30, 2 + 1 + 6000}} {
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
		}, new(transfers))
		n.changed("b.")
		n.changed("a.")
		stop := runNotifier(t, n)
		for range 150 {
			pass(10 * time.Millisecond)
			n.changed("a.")
		}
		pass(time.Minute)
		if want := []string{"a. 0.00", "b. 0.01", "a. 1.02", "a. 2.03"}; !slices.Equal(sent, want) {
			t.Errorf("sent %q", sent)
		}
		stop()
	})
}

// runNotifier runs n until stop.
func runNotifier(t *testing.T, n *notifier) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestNotifyWaits lets a zone change while it is being transferred: secondaries are told
// when that has ended, or has taken too long, and of other zones meanwhile.
func TestNotifyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		began := time.Now()
		underWay := new(transfers)
		n := newNotifier(func(origin string) error {
			sent = append(sent, fmt.Sprintf("%s %v", origin, time.Since(began)))
			return nil
		}, underWay)
		stop := runNotifier(t, n)
		n.changed("a.")
		pass(1500 * time.Millisecond)
		underWay.begin("a.")
		underWay.begin("a.")
		n.changed("a.")
		n.changed("b.")
		pass(1500 * time.Millisecond)
		underWay.end("a.")
		pass(1400 * time.Millisecond)
		underWay.end("a.")
		pass(500 * time.Millisecond)
		underWay.begin("a.") // and does not end
		n.changed("a.")
		pass(time.Minute)
		if want := []string{"a. 0s", "b. 1.5s", "a. 4.5s", "a. 14.5s"}; !slices.Equal(sent, want) {
			t.Errorf("sent %q", sent)
		}
		stop()
	})
}

// TestIncremental changes a zone at random, and brings each version of it that
// is remembered up to date with what has changed since.
func TestIncremental(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos.", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Subs: []string{"f"}, Journal: true})
	c := &CalicoMesos{zones: []*zone.Zone{z}}
	record := func() (string, zone.Record) {
		owner := fmt.Sprintf("t%d.f", r.IntN(40))
		switch r.IntN(4) {
		case 0:
			return "_x._tcp." + owner, zone.Service(zone.Rel(owner), uint16(1+r.IntN(3)))
		case 1:
			return owner, zone.Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))})).Backup()
		case 2:
			return fmt.Sprint(r.IntN(10)), zone.Pointer(owner) // none, where several share it
		}
		return owner, zone.Address(netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(4))}))
	}
	type added struct {
		owner string
		zone.Record
	}
	var all []added
	versions := make(map[uint32]lines)
	incremental := 0
	for step := range 3000 {
		tx := z.Begin()
		for range 1 + r.IntN(5) {
			if len(all) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(all))
				tx.Remove(zone.Rel(all[i].owner), all[i].Record)
				all = slices.Delete(all, i, i+1)
				continue
			}
			owner, rec := record()
			tx.Add(zone.Rel(owner), rec)
			all = append(all, added{owner, rec})
		}
		tx.Publish(time.Now(), zone.Status{Complete: true})
		now := z.Current()
		versions[now.Serial()] = zoneLines(now)
		if step%50 != 0 {
			continue
		}
		for serial, old := range versions {
			ch, err := c.Transfer("mesos.", serial)
			rrs := received(t, ch, err)
			switch {
			case serial == now.Serial():
				if len(rrs) != 1 {
					t.Fatalf("%d records for who has the zone", len(rrs))
				}
			case len(rrs) > 1 && rrs[1].Header().Rrtype == dns.TypeSOA:
				incremental++
				apply(t, old, rrs, serial, now.Serial())
				if diff := difference(old, versions[now.Serial()]); diff != "" {
					t.Fatalf("from %d to %d:\n%s", serial, now.Serial(), diff)
				}
			default:
				if diff := difference(served(rrs), versions[now.Serial()]); diff != "" {
					t.Fatalf("the whole zone:\n%s", diff)
				}
			}
			if serial != now.Serial() {
				delete(versions, serial)
			}
		}
	}
	if incremental < 500 {
		t.Errorf("only %d transfers were incremental", incremental)
	}
}

// apply brings l, of the serial from, up to date with an incremental transfer, as
// RFC 1995, section 4, says.
func apply(t *testing.T, l lines, rrs []dns.RR, from, to uint32) {
	t.Helper()
	first, last := rrs[0].(*dns.SOA), rrs[len(rrs)-1].(*dns.SOA)
	if first.Serial != to || last.Serial != to {
		t.Fatalf("from %d to %d", first.Serial, last.Serial)
	}
	at, adding := from, true
	for _, rr := range rrs[1 : len(rrs)-1] {
		if soa, ok := rr.(*dns.SOA); ok {
			adding = !adding
			if !adding && soa.Serial != at || adding && int32(soa.Serial-at) <= 0 {
				t.Fatalf("serial %d after %d", soa.Serial, at)
			}
			at = soa.Serial
			continue
		}
		for line := range served([]dns.RR{rr}) {
			if l[line] == adding {
				t.Fatalf("%q is there: %v, adding: %v", line, l[line], adding)
			}
			if l[line] = true; !adding {
				delete(l, line)
			}
		}
	}
	if at != to {
		t.Fatalf("the last serial is %d", at)
	}
}
