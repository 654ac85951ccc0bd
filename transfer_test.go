package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/caddy"
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

// of says that one secondary has zones.
func of(origins ...string) map[string][]secondary {
	all := make(map[string][]secondary)
	for _, origin := range origins {
		all[origin] = []secondary{{addr: "192.0.2.1:53"}}
	}
	return all
}

// TestNotify_Coalesces lets zones change often: each is told at most once a second, and of the
// last change too.
func TestNotify_Coalesces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := sentNotifies{began: time.Now()}
		n := newNotifier(of("a.", "b."), sent.send, new(transfers))
		n.zoneChanged("b.")
		n.zoneChanged("a.")
		n.zoneChanged("c.") // which it does not have
		stop := runNotifier(t, n)
		for range 150 {
			pass(10 * time.Millisecond)
			n.zoneChanged("a.")
		}
		pass(time.Minute)
		if !sent.equal([]string{"0s a.", "0s b.", "1s a.", "2s a."}) {
			t.Errorf("sent %q", sent.all)
		}
		stop()
	})
}

// TestNotify_EachOnItsOwn has secondaries that answer, that are dead, and that refuse, while a
// zone changes all the time for two minutes, and then one last time.
func TestNotify_EachOnItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		sent := make(map[string][]time.Duration)
		all := []secondary{{addr: "dead"}, {addr: "well"}, {addr: "refuses"}, {addr: "well", source: net.IPv4(192, 0, 2, 9)}}
		n := newNotifier(map[string][]secondary{"a.": append(all, secondary{addr: "mixed"}), "b.": {all[0], {addr: "mixed"}}}, func(ctx context.Context, to secondary, origin string) error {
			mu.Lock()
			name := to.addr + " " + origin
			if to.source != nil {
				name += " elsewhere"
			}
			sent[name] = append(sent[name], time.Since(began))
			mu.Unlock()
			switch to.addr {
			case "mixed":
				if origin == "a." {
					return errors.New("no answer")
				}
			case "dead":
				if time.Since(began) > 10*time.Minute {
					return nil
				}
				select {
				case <-time.After(notifyTimeout):
				case <-ctx.Done():
				}
				return errors.New("no answer")
			case "refuses":
				return errRefused(dns.RcodeNotAuth)
			}
			return nil
		}, new(transfers))
		stop := runNotifier(t, n)
		n.zoneChanged("b.")
		for range 1200 {
			n.zoneChanged("a.")
			pass(100 * time.Millisecond)
		}
		pass(13 * time.Minute)
		stop()
		for name, want := range map[string][2]int{
			"well a.": {119, 122}, "well a. elsewhere": {119, 122}, "refuses a.": {119, 122},
			"dead a.":  {12, 26}, // after 1, 2, 4, … 60 seconds; at last once more
			"dead b.":  {8, 26},  // likewise, though it does not change
			"mixed b.": {1, 1},   // while it does not answer for another zone
		} {
			if n := len(sent[name]); n < want[0] || n > want[1] {
				t.Errorf("%s: %d times, want %d to %d", name, n, want[0], want[1])
			}
		}
		if last := sent["dead a."]; len(last) > 0 && last[len(last)-1] < 10*time.Minute {
			t.Errorf("one that answers again was not told: %v", last)
		}
	})
}

// sentNotifies is what a test's notifier sends.
type sentNotifies struct {
	mu    sync.Mutex
	began time.Time
	all   []string
}

func (s *sentNotifies) send(_ context.Context, _ secondary, origin string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, fmt.Sprintf("%v %s", time.Since(s.began), origin))
	return nil
}

// equal reports whether what was sent is want, in any order.
func (s *sentNotifies) equal(want []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Equal(sorted(s.all), sorted(want))
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

// TestNotify_Waits lets a zone change while it is being transferred: secondaries are told when
// that has ended, does not move, or has taken too long, and of other zones meanwhile.
func TestNotify_Waits(t *testing.T) {
	for name, tc := range map[string]struct {
		moves time.Duration
		want  []string
	}{
		"moves, and ends":    {500 * time.Millisecond, []string{"0s a.", "1.5s b.", "3.5s a."}},
		"moves for ever":     {time.Hour, []string{"0s a.", "1.5s b.", "5.5s a."}},
		"is read no further": {0, []string{"0s a.", "1.5s b.", "2.5s a."}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sent := sentNotifies{began: time.Now()}
				underWay := new(transfers)
				n := newNotifier(of("a.", "b."), sent.send, underWay)
				stop := runNotifier(t, n)
				n.zoneChanged("a.")
				pass(1500 * time.Millisecond)
				one, err := underWay.begin("a.")
				if err != nil {
					t.Fatal(err)
				}
				n.zoneChanged("a.")
				n.zoneChanged("b.")
				for moved := time.Duration(0); moved < min(tc.moves, time.Minute); moved += 100 * time.Millisecond {
					underWay.send(one, make(chan []dns.RR, 1), nil)
					pass(100 * time.Millisecond)
				}
				pass(time.Minute)
				if !sent.equal(tc.want) {
					t.Errorf("sent %q", sent.all)
				}
				stop()
			})
		})
	}
}

// TestSendNotify sends NOTIFYs to a secondary on loopback.
func TestSendNotify(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // closed by the server
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *dns.Msg, 1)
	from := make(chan string, 1)
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		switch m.Question[0].Name {
		case "silent.":
			return
		case "refused.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNotAuth))
			return
		}
		got <- m
		from <- w.RemoteAddr().(*net.UDPAddr).IP.String()
		_ = w.WriteMsg(new(dns.Msg).SetReply(m))
	})}
	go srv.ActivateAndServe() //nolint:errcheck // ends with Shutdown
	defer srv.Shutdown()      //nolint:errcheck // at the end
	z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
	z.Begin().Publish(time.Now(), zone.Status{Complete: true})
	c := &CalicoMesos{zones: []*zone.Zone{z}}
	to := secondary{addr: conn.LocalAddr().String(), source: net.IPv4(127, 0, 0, 7)}
	if err := c.sendNotify(t.Context(), to, "mesos."); err != nil {
		t.Fatal(err)
	}
	m := <-got
	if soa, ok := m.Answer[0].(*dns.SOA); m.Opcode != dns.OpcodeNotify || !m.Authoritative || !ok || soa.Serial != z.Current().Serial() {
		t.Errorf("sent %v", m)
	}
	if ip := <-from; ip != "127.0.0.7" {
		t.Errorf("sent from %s", ip)
	}
	if err := c.sendNotify(t.Context(), to, "refused."); !errors.Is(err, errRefused(dns.RcodeNotAuth)) {
		t.Errorf("refused: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	began := time.Now()
	if err := c.sendNotify(ctx, to, "silent."); err == nil || time.Since(began) > notifyTimeout/2 {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// TestNotify_Server starts a server whose *transfer* names a secondary.
func TestNotify_Server(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0") //nolint:noctx // closed by the server
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	srv := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetReply(m))
		told <- m.Question[0].Name
	})}
	go srv.ActivateAndServe() //nolint:errcheck // ends with Shutdown
	defer srv.Shutdown()      //nolint:errcheck // at the end
	_, master := countedTutorial(t)
	startServer(t, fmt.Sprintf("transfer mesos {\n to %s\n}\n%s mesos example.org {\n master %s\n}", conn.LocalAddr(), pluginName, master.URL))
	if got := <-told; got != "mesos." {
		t.Errorf("told of %s", got)
	}
}

// TestTransfer_Bounds asks for more transfers than may be under way, and reads none of them:
// after a while they end, each without the SOA at its end.
func TestTransfer_Bounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
		tx := z.Begin()
		for i := range 3 * transferChunk {
			tx.Add(zone.Rel(fmt.Sprintf("t%d.f", i)), zone.Address(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})))
		}
		tx.Publish(time.Now(), zone.Status{Complete: true})
		c := &CalicoMesos{zones: []*zone.Zone{z}}
		var all []<-chan []dns.RR
		for range maxTransfers {
			ch, err := c.Transfer("mesos.", 0)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, ch)
		}
		if _, err := c.Transfer("mesos.", 0); !errors.Is(err, errBusy) {
			t.Errorf("one more: %v", err)
		}
		if ch, err := c.Transfer("mesos.", z.Current().Serial()); err != nil || len(<-ch) != 1 {
			t.Errorf("one that has nothing to send: %v", err)
		}
		pass(transferPatience + time.Second)
		if len(c.transfers.all) > 0 {
			t.Errorf("%d transfers are under way", len(c.transfers.all))
		}
		for _, ch := range all {
			rrs := received(t, ch, nil)
			if _, err := dns.PackRR(rrs[len(rrs)-1], make([]byte, 4096), 0, nil, false); err == nil {
				t.Fatalf("%d records, the last of which can be sent: the client may take them for all", len(rrs))
			}
		}
		ch, err := c.Transfer("mesos.", 0)
		if rrs := received(t, ch, err); len(rrs) != 3*transferChunk+3 {
			t.Errorf("%d records afterwards", len(rrs))
		}
	})
}

// TestSecondariesOf reads *transfer* in Corefiles.
func TestSecondariesOf(t *testing.T) {
	const mesos, reverse = "mesos.", "10.in-addr.arpa."
	for name, tc := range map[string]struct {
		corefile string
		block    int
		want     map[string]string // the secondaries of mesos. and 10.in-addr.arpa.
	}{
		"none":                   {"mesos {\n calicomesos\n}", 0, nil},
		"anybody may transfer":   {"mesos {\n transfer {\n to *\n}\n}", 0, map[string]string{mesos: ""}},
		"two, one with its port": {"mesos {\n transfer {\n to 192.0.2.1 * [2001:db8::1]:5353\n}\n}", 0, map[string]string{mesos: "192.0.2.1:53 [2001:db8::1]:5353"}},
		"from an address":        {"mesos {\n transfer {\n to 192.0.2.1\n source 192.0.2.9\n}\n}", 0, map[string]string{mesos: "192.0.2.1:53 from 192.0.2.9"}},
		"the closest zone": {
			". {\n transfer {\n to 192.0.2.1\n}\n transfer mesos x.mesos {\n to 192.0.2.2\n to 192.0.2.3\n}\n}", 0,
			map[string]string{mesos: "192.0.2.2:53 192.0.2.3:53", reverse: "192.0.2.1:53"},
		},
		"of another block": {"example {\n transfer {\n to 192.0.2.1\n}\n}\n. {\n transfer {\n to 192.0.2.2\n}\n}", 1, map[string]string{mesos: "192.0.2.2:53", reverse: "192.0.2.2:53"}},
		"by a snippet":     {"(x) {\n transfer {\n to 192.0.2.1\n}\n}\nmesos {\n import x\n}", 0, map[string]string{mesos: "192.0.2.1:53"}},
	} {
		t.Run(name, func(t *testing.T) {
			served := []string{"mesos."}
			if strings.Contains(tc.corefile, ". {") {
				served = []string{"."}
			}
			input := caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(tc.corefile), ServerTypeName: "dns"}
			all, err := secondariesOf(input, tc.block, served, []string{mesos, reverse})
			if err != nil {
				t.Fatal(err)
			}
			for _, origin := range []string{mesos, reverse} {
				var got []string
				for _, s := range all[origin] {
					got = append(got, s.addr)
					if s.source != nil {
						got = append(got, "from", s.source.String())
					}
				}
				if strings.Join(got, " ") != tc.want[origin] {
					t.Errorf("%s: %q, want %q", origin, got, tc.want[origin])
				}
			}
		})
	}
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

// TestIncremental_AcrossReload reloads a Corefile, so that what is published changes or not,
// while the cluster goes on changing. A secondary asks for what has changed since before.
func TestIncremental_AcrossReload(t *testing.T) {
	for name, after := range map[string]string{
		"nothing changes":    "ttl 5",
		"other addresses":    "ipsources host",
		"other TTLs":         "ttl 60",
		"another apex":       "ns ns9.mesos 192.0.2.9",
		"fewer names":        "visibility cluster",
		"another cluster":    "poll 1s", // and so another watcher
		"records of its own": "containerip none.example",
	} {
		t.Run(name, func(t *testing.T) {
			m := mesostest.NewMaster(15 * time.Second)
			tut := mesostest.NewTutorial(m)
			srv := mesostest.Start(m)
			defer srv.Close()
			block := func(property string) string {
				return fmt.Sprintf("transfer mesos {\n to *\n}\n%s mesos {\n master %s\n %s\n}", pluginName, srv.URL, property)
			}
			s := startServer(t, block("ttl 5"))
			zoneNow := func() (lines, uint32) {
				rrs, err := s.axfr("mesos.")
				if err != nil {
					t.Fatal(err)
				}
				return served(append(rrs, rrs[0])), rrs[0].(*dns.SOA).Serial
			}
			old, serial := zoneNow()
			tut.Wander(m)
			if err := s.restart(block(after), ""); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				tut.Wander(m)
				request := new(dns.Msg).SetIxfr("mesos.", serial, "ns1.mesos.", "hostmaster.mesos.")
				ch, err := new(dns.Transfer).In(request, s.instance.Servers()[0].Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				var rrs []dns.RR
				for e := range ch {
					if e.Error != nil {
						t.Fatal(e.Error)
					}
					rrs = append(rrs, e.RR...)
				}
				last := rrs[0].(*dns.SOA).Serial
				switch {
				case len(rrs) == 1:
					if last != serial {
						t.Fatalf("nothing between %d and %d", serial, last)
					}
				case rrs[1].Header().Rrtype == dns.TypeSOA:
					apply(t, old, rrs, serial, last)
				default:
					old = served(rrs)
				}
				now, current := zoneNow()
				if int32(current-serial) < 0 {
					t.Fatalf("the serial goes back from %d to %d", serial, current)
				}
				if diff := difference(old, now); last == current && diff != "" {
					t.Fatalf("from %d to %d:\n%s", serial, last, diff)
				}
				serial = last
			}
		})
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
