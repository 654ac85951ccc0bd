package calicomesos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
	"github.com/calicomesos/calicomesos/plugin/zone"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/miekg/dns"
)

func parseStanza(stanza string) (*options, error) {
	return parse(caddy.NewTestController("dns", stanza))
}

// TestParse_Twice refuses a second stanza in a server block.
func TestParse_Twice(t *testing.T) {
	if _, err := parseStanza("calicomesos\ncalicomesos"); err == nil || !strings.Contains(err.Error(), "more than once") {
		t.Error(err)
	}
}

func TestInterfaceAddrs(t *testing.T) {
	addrs := func(s ...string) []net.Addr {
		var all []net.Addr
		for _, a := range s {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return all
	}
	for _, tc := range []struct {
		all      []net.Addr
		wildcard string
		want     string
	}{
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fe80::1/64", "fd00::1/64"), "", "[10.0.0.1 fd00::1]"},
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fd00::1/64"), "0.0.0.0", "[10.0.0.1]"},
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fd00::1/64"), "::", "[10.0.0.1 fd00::1]"},
		{addrs("127.0.0.1/8", "::1/128", "fe80::1/64"), "", "[127.0.0.1 ::1]"},
		{nil, "", "[]"},
	} {
		if got := fmt.Sprint(interfaceAddrs(tc.all, mesos.ParseAddr(tc.wildcard))); got != tc.want {
			t.Errorf("wildcard %q: %s, want %s", tc.wildcard, got, tc.want)
		}
	}
	explicit, err := listeningAddrs([]string{"127.0.0.1", "::1", "127.0.0.1", "fe80::1%eth0"})
	if want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}; err != nil || !slices.Equal(explicit, want) {
		t.Errorf("explicit addresses are %v, %v", explicit, err)
	}
}

// TestStartupWaitsTogether starts two stanzas whose masters do not answer.
func TestStartupWaitsTogether(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stanza := fmt.Sprintf("%s {\n master %s\n startup_timeout 1500ms\n}", pluginName, silent.Addr())
	start := time.Now()
	s := startServer(t, stanza+"\n}\nexample.:0 {\n bind 127.0.0.1\n"+strings.Replace(stanza, "{", "example {", 1))
	if took := time.Since(start); took < 1500*time.Millisecond || took >= 3*time.Second {
		t.Errorf("start took %v", took)
	}
	s.stop()
}

// TestReload reloads a Corefile: once to another zone, and once to one that
// cannot start because of a port in use.
func TestReload(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	stanza := fmt.Sprintf("bind 127.0.0.1\n%s ZONE {\n master %s\n}", pluginName, master.URL)
	corefile := func(zone, more string) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns",
			Contents: []byte(".:0 {\n" + strings.Replace(stanza, "ZONE", zone, 1) + "\n}\n" + more)}
	}
	s := startServer(t, strings.Replace(strings.TrimPrefix(stanza, "bind 127.0.0.1\n"), "ZONE", "mesos", 1))
	expect := func(zone string) {
		t.Helper()
		s.addr = s.instance.Servers()[0].LocalAddr().String()
		if got := answers(s.ask("v6.marathon."+zone+".", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Errorf("answered %q", got)
		}
		if len(running.stanzas) != 1 {
			t.Errorf("%d stanzas run", len(running.stanzas))
		}
		loopback.Eventually(t, func() string {
			if n := m.Subscribers(); n != 1 {
				return fmt.Sprintf("%d subscriptions", n)
			}
			return ""
		})
	}
	expect("mesos")
	next, err := s.instance.Restart(corefile("example", ""))
	if err != nil {
		t.Fatal(err)
	}
	s.instance = next
	expect("example")
	if _, err := s.instance.Restart(corefile("other", fmt.Sprintf("other.:%d {\n bind 127.0.0.1\n errors\n}\n", taken.Addr().(*net.TCPAddr).Port))); err == nil {
		t.Fatal("started on a port in use")
	}
	expect("example")
	if _, err := s.instance.Restart(corefile("a..b", "")); err == nil {
		t.Fatal("started with a bad zone")
	}
	expect("example")
}

// counted is a master that counts its subscriptions.
type counted struct {
	*mesostest.Master
	subscriptions atomic.Int32
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if bytes.Equal(body, []byte{8, 18}) { // SUBSCRIBE
		c.subscriptions.Add(1)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c.Master.ServeHTTP(w, r)
}

// countedTutorial serves the tutorial's cluster.
func countedTutorial(t *testing.T) (*counted, *mesostest.Server) {
	t.Helper()
	c := &counted{Master: mesostest.NewMaster(15 * time.Second)}
	mesostest.NewTutorial(c.Master)
	srv := mesostest.Start(c)
	t.Cleanup(srv.Close)
	return c, srv
}

// restart reloads the server with a server block for all names that has the
// given lines, and more server blocks.
func (s *server) restart(block, more string) error {
	corefile := fmt.Sprintf(".:0 {\n\tbind 127.0.0.1\n\terrors\n%s\n}\n%s", block, more)
	next, err := s.instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	if next == nil {
		return errors.New("panic")
	}
	s.instance = next
	if err != nil {
		return err
	}
	return s.await()
}

func (s *server) serial(zone string) uint32 {
	s.t.Helper()
	m := s.ask(zone, dns.TypeSOA)
	if len(m.Answer) != 1 {
		s.t.Fatalf("no SOA of %s: %s", zone, m)
	}
	return m.Answer[0].(*dns.SOA).Serial
}

// TestSharing reloads a Corefile in several ways: one watcher serves all stanzas
// that watch the cluster in the same way, and is kept, and with it the serials of
// the zones that do not change.
func TestSharing(t *testing.T) {
	m, srv := countedTutorial(t)
	stanza := func(zones, more string) string {
		return fmt.Sprintf("%s %s {\n master %s\n%s\n}", pluginName, zones, srv.URL, more)
	}
	goroutines := runtime.NumGoroutine()
	s := startServer(t, stanza("mesos 192.168.0.0/16", ""))
	first := s.serial("mesos.")
	for _, step := range []struct {
		name          string
		zones, more   string
		block         string // another server block
		subscriptions int32
		watchers      int
		moved         bool // the serial
	}{
		{"nothing changes", "mesos 192.168.0.0/16", "", "", 1, 1, false},
		{"another TTL", "mesos 192.168.0.0/16", "ttl 7", "", 1, 1, true},
		{"other addresses", "mesos 192.168.0.0/16", "ttl 7\n ipsources host", "", 1, 1, true},
		{"another stanza", "mesos 192.168.0.0/16", "ttl 7\n ipsources host", "example.:0 {\n bind 127.0.0.1\n" + stanza("example", "containerip") + "\n}\n", 1, 1, false},
		{"another way to watch", "mesos 192.168.0.0/16", "ttl 7\n ipsources host\n poll 1h", "", 1, 1, false},
		{"the first again", "mesos 192.168.0.0/16", "", "", 2, 1, true},
	} {
		if err := s.restart(stanza(step.zones, step.more), step.block); err != nil {
			t.Fatal(err)
		}
		if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" && step.more == "" {
			t.Errorf("%s: answered %q", step.name, got)
		}
		serial := s.serial("mesos.")
		if n := m.subscriptions.Load(); n != step.subscriptions || len(running.clusters) != step.watchers || int32(serial-first) < 0 || (serial != first) != step.moved {
			t.Errorf("%s: %d subscriptions, %d watchers, serial %d after %d", step.name, n, len(running.clusters), serial, first)
		}
		first = serial
	}
	s.stop()
	loopback.Eventually(t, func() string { // what the standard library leaves ends by itself
		if n := runtime.NumGoroutine(); n > goroutines || m.Subscribers() != 0 {
			return fmt.Sprintf("%d goroutines, %d before; %d subscribers", n, goroutines, m.Subscribers())
		}
		return ""
	})
}

// TestReloadWithoutMasters reloads while no master can be reached.
func TestReloadWithoutMasters(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := fmt.Sprintf("%s {\n master %s\n startup_timeout 0s\n}", pluginName, srv.URL)
	s := startServer(t, strings.Replace(stanza, "0s", "5s", 1))
	srv.Close()
	for range 3 {
		if err := s.restart(strings.Replace(stanza, "0s", "5s", 1), ""); err != nil {
			t.Fatal(err)
		}
		if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Fatalf("answered %q", got)
		}
		if m := s.ask("nope.mesos.", dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("unknown name: %s", dns.RcodeToString[m.Rcode])
		}
		if err := s.restart(stanza, ""); err != nil { // without a wait, at that
			t.Fatal(err)
		}
		if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Fatalf("answered %q", got)
		}
	}
}

// TestReload_OtherServerBlock moves a zone whose serial is ahead of the clock to another server
// block: a secondary must not see the serial go back.
func TestReload_OtherServerBlock(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := fmt.Sprintf("%s mesos {\n master %s\n}", pluginName, srv.URL)
	s := startServer(t, stanza)
	stanzas := running.all()
	now := stanzas[len(stanzas)-1]
	z := now.plugin.zones[slices.IndexFunc(now.plugin.zones, func(z *zone.Zone) bool { return z.Origin == "mesos." })]
	var serial uint32
	now.cluster.Do(func() {
		tx := z.Begin()
		tx.Add(zone.Rel("x"), zone.Address(netip.MustParseAddr("10.0.0.1")))
		tx.Publish(time.Now().Add(time.Hour), zone.Status{Complete: true})
		serial = z.Current().Serial()
	})
	next, err := s.instance.Restart(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: fmt.Appendf(nil, "mesos:0 {\n bind 127.0.0.1\n%s\n}\n", stanza)})
	if err != nil {
		t.Fatal(err)
	}
	s.instance = next
	soa, ok := s.ask("mesos.", dns.TypeSOA).Answer[0].(*dns.SOA)
	if !ok || int32(soa.Serial-serial) <= 0 {
		t.Errorf("serial %d after %d", soa.Serial, serial)
	}
}

// TestReloadUnderLoad asks all the while.
func TestReloadUnderLoad(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := func(ttl int) string { return fmt.Sprintf("%s {\n master %s\n ttl %d\n}", pluginName, srv.URL, ttl) }
	corefile := func(port, ttl int) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: fmt.Appendf(nil, ".:%d {\n bind 127.0.0.1\n%s\n}\n", port, stanza(ttl))}
	}
	s := startServer(t, stanza(5))
	port := s.instance.Servers()[0].Addr().(*net.TCPAddr).Port
	next, err := s.instance.Restart(corefile(port, 5)) // a port that lasts
	if err != nil {
		t.Skip("the port is taken meanwhile")
	}
	s.instance = next
	addr := s.instance.Servers()[0].LocalAddr().String()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var asked atomic.Int64
	wg.Go(func() {
		client := &dns.Client{Timeout: 5 * time.Second}
		for ctx.Err() == nil {
			r, _, err := client.Exchange(new(dns.Msg).SetQuestion("v6.marathon.mesos.", dns.TypeAAAA), addr)
			if err != nil || answers(r) != "fd00:192:168::10" {
				t.Errorf("%v, %v", err, r)
				return
			}
			asked.Add(1)
		}
	})
	for i := range 10 {
		before := asked.Load()
		next, err := s.instance.Restart(corefile(port, i))
		if err != nil {
			t.Fatal(err)
		}
		s.instance = next
		loopback.Eventually(t, func() string {
			if asked.Load() < before+20 && !t.Failed() {
				return "no answers"
			}
			return ""
		})
	}
	cancel()
	wg.Wait()
}

// TestFailedStart fails a start in ways in which caddy calls none of its
// callbacks: nothing must be left of it.
func TestFailedStart(t *testing.T) {
	_, srv := countedTutorial(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fails := fmt.Sprintf("other.:%d {\n bind 127.0.0.1\n errors\n}\n", taken.Addr().(*net.TCPAddr).Port)
	stanza := fmt.Sprintf("%s {\n master %s\n}", pluginName, srv.URL)
	left := func() (stanzas, clusters int) {
		running.mu.Lock()
		defer running.mu.Unlock()
		return len(running.stanzas), len(running.clusters)
	}
	expect := func(when string, n int) {
		t.Helper()
		if stanzas, clusters := left(); stanzas != n || clusters != n {
			t.Errorf("%s: %d stanzas and %d watchers run, want %d", when, stanzas, clusters, n)
		}
	}
	s := startServer(t, "") // without the plugin
	if err := s.restart(stanza, fails); err == nil {
		t.Fatal("started on a port in use")
	}
	if err := s.restart("", ""); err != nil { // the next start, without the plugin
		t.Fatal(err)
	}
	expect("after a start without the plugin", 0)
	if err := s.restart(stanza, fails); err == nil {
		t.Fatal("started on a port in use")
	}
	if err := s.restart(stanza, ""); err != nil {
		t.Fatal(err)
	}
	expect("after a start that succeeded", 1)
	if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
		t.Errorf("answered %q", got)
	}
	if err := s.restart(stanza, fails); err == nil {
		t.Fatal("started on a port in use")
	}
	expect("after a failed reload", 1)
	s.stop()
	expect("in the end", 0)
}

// TestShutdown_StillAnswers asks while a process shuts down: Caddy stops the servers after all
// shutdown callbacks, and that of *health* may wait for long.
func TestShutdown_StillAnswers(t *testing.T) {
	_, srv := countedTutorial(t)
	s := startServer(t, fmt.Sprintf("%s {\n master %s\n}", pluginName, srv.URL))
	asked := false
	s.instance.OnFinalShutdown = append(s.instance.OnFinalShutdown, func() error {
		asked = true
		if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Errorf("answered %q", got)
		}
		return nil
	})
	s.stop()
	if !asked {
		t.Error("nothing was asked")
	}
}

// TestRestart_Panics restarts with a plugin that panics at the start: Caddy recovers from that,
// and goes on listing the instance. What it has started must be stopped.
func TestRestart_Panics(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := fmt.Sprintf("%s {\n master %s\n}", pluginName, srv.URL)
	s := startServer(t, stanza)
	if err := s.restart(stanza, "panic.:0 {\n panics_at_start\n}\n"); err == nil {
		t.Fatal("a restart that panics succeeded")
	}
	if n := len(running.all()); n != 1 {
		t.Errorf("%d stanzas run", n)
	}
	if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
		t.Errorf("answered %q", got)
	}
}

// TestStart_WhileAnotherWaits starts a second CoreDNS in the process while the first waits for
// its state: the second must not take the first for one that has failed.
func TestStart_WhileAnotherWaits(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")
	slow := mesostest.Start(m)
	defer slow.Close()
	_, quick := countedTutorial(t)
	stanza := func(master string) string {
		return fmt.Sprintf("%s {\n master %s\n startup_timeout 1m\n}", pluginName, master)
	}
	first := make(chan *server)
	go func() {
		s, err := tryServer(t, stanza(slow.URL))
		if err != nil {
			t.Error(err)
		}
		first <- s
	}()
	loopback.Eventually(t, func() string {
		if len(running.all()) == 0 {
			return "the first does not wait"
		}
		return ""
	})
	second := startServer(t, stanza(quick.URL))
	if err := second.restart(stanza(quick.URL), "panic.:0 {\n panics_at_start\n}\n"); err == nil {
		t.Error("a restart that panics succeeded")
	}
	if got := answers(second.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
		t.Errorf("the second answered %q", got)
	}
	m.Lead()
	if s := <-first; s != nil {
		if got := answers(s.ask("v6.marathon.mesos.", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Errorf("the first answered %q", got)
		}
	}
}

// TestStop_WhileStarting stops a stanza, as a signal does, at any point of its start.
func TestStop_WhileStarting(t *testing.T) {
	_, srv := countedTutorial(t)
	for range 50 {
		c := caddy.NewTestController("dns", fmt.Sprintf("%s {\n master %s\n}", pluginName, srv.URL))
		o, err := parse(c)
		if err != nil {
			t.Fatal(err)
		}
		su := &startup{}
		s := &stanza{plugin: &CalicoMesos{ready: make(chan struct{})}, options: o, config: dnsserver.GetConfig(c), startup: su}
		var both sync.WaitGroup
		both.Go(func() { _ = s.start() })
		both.Go(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if n := len(running.all()); n != 0 {
			t.Fatalf("%d stanzas run", n)
		}
	}
}

// TestSnapshotProperty has stanzas name files for snapshots.
func TestSnapshotProperty(t *testing.T) {
	_, srv := countedTutorial(t)
	dir := t.TempDir()
	block := func(zone, snapshot, more string) string {
		return fmt.Sprintf("%s:0 {\n bind 127.0.0.1\n root %s\n %s %s {\n  containerip\n  master %s\n  snapshot %s\n%s\n }\n}\n", zone, dir, pluginName, zone, srv.URL, snapshot, more)
	}
	start := func(corefile string) error {
		instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
		if err != nil {
			return err
		}
		for _, err := range instance.ShutdownCallbacks() {
			t.Error(err)
		}
		return instance.Stop()
	}
	if err := start(block("a", "file", "") + block("b", filepath.Join(dir, "x", "..", "file"), "")); err != nil {
		t.Errorf("two stanzas that share a watcher: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
		t.Errorf("the snapshot does not follow root: %v", err)
	}
	err := start(block("a", "file", "") + block("b", "file", "poll 10s"))
	if err == nil || !strings.Contains(err.Error(), `"snapshot"`) || !strings.Contains(err.Error(), filepath.Join(dir, "file")) {
		t.Errorf("two watchers with one file: %v", err)
	}
}

// TestTellsSecretToZooKeeper warns where whoever writes to ZooKeeper receives the secret.
func TestTellsSecretToZooKeeper(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("dns hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for stanza, want := range map[string]bool{
		"master zk://a:1/m\ncredentials " + file:                   true,
		"master zk://me:pw@a:1/m\ncredentials " + file:             false,
		"master zk://a:1/m\ntls_servername m\ncredentials " + file: false,
		"master zk://a:1/m":                                        false,
		"master a:1\ncredentials " + file:                          false,
	} {
		o, err := parseStanza(pluginName + " {\n" + stanza + "\n}")
		if err != nil || o.cluster.tellsSecretToZooKeeper() != want {
			t.Errorf("%q: %v, want %v", stanza, err, want)
		}
	}
}

// TestSnapshotOwner reloads to another cluster with the same file for a snapshot:
// a reload that fails leaves it alone, and one that does not has it written once the snapshot
// of the first is out of the way.
func TestSnapshotOwner(t *testing.T) {
	_, first := countedTutorial(t)
	m := mesostest.NewMaster(15 * time.Second)
	m.AddAgent(mesostest.NewScript("other").Agent(0, "10.0.0.1"))
	second := mesostest.Start(m)
	defer second.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	fails := fmt.Sprintf("other.:%d {\n bind 127.0.0.1\n errors\n}\n", taken.Addr().(*net.TCPAddr).Port)
	file := filepath.Join(t.TempDir(), "snapshot")
	stanza := func(master string) string {
		return fmt.Sprintf("%s {\n master %s\n snapshot %s\n}", pluginName, master, file)
	}
	written := func(by string) {
		t.Helper()
		loopback.Eventually(t, func() string {
			s, err := snapshot.Read(file)
			if err != nil || !slices.Equal(s.Endpoints, []string{strings.TrimPrefix(by, "http://")}) {
				return fmt.Sprint(s, err)
			}
			return ""
		})
	}
	s := startServer(t, stanza(first.URL))
	written(first.URL)
	if err := s.restart(stanza(second.URL), fails); err == nil {
		t.Fatal("started on a port in use")
	}
	written(first.URL)
	if err := s.restart(stanza(second.URL), ""); err != nil {
		t.Fatal(err)
	}
	s.stop()
	written(first.URL)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, stanza(second.URL))
	s.stop()
	written(second.URL)
}

// TestOwnsSnapshot lets a watcher write its snapshot when its start is over, and no older one
// has the file.
func TestOwnsSnapshot(t *testing.T) {
	var r registry
	older, newer := &watchedCluster{file: "x", begun: &startup{}}, &watchedCluster{file: "x", begun: &startup{}}
	other := &watchedCluster{file: "y", begun: &startup{}}
	r.clusters = []*watchedCluster{older, other, newer}
	expect := func(when string, want ...bool) {
		t.Helper()
		if got := []bool{r.ownsSnapshot(older), r.ownsSnapshot(newer), r.ownsSnapshot(other)}; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	newer.begun.starting.Store(true)
	expect("while the newer starts", true, false, true)
	r.clusters = r.clusters[1:]
	expect("when the older is gone", false, false, true)
	newer.begun.starting.Store(false)
	expect("when the newer has started", false, true, true)
}

// TestOrderOfMasters reloads with the masters in another order.
func TestOrderOfMasters(t *testing.T) {
	m, srv := countedTutorial(t)
	_, port, _ := net.SplitHostPort(srv.Host)
	stanza := func(masters string) string { return fmt.Sprintf("%s {\n master %s\n}", pluginName, masters) }
	s := startServer(t, stanza("192.0.2.1:5050 127.0.0.1:"+port))
	for _, step := range []struct{ masters, zero, one string }{
		{"127.0.0.1:" + port + " 192.0.2.1:5050", "127.0.0.1", "192.0.2.1"},
		{"192.0.2.1:5050 127.0.0.1:" + port, "192.0.2.1", "127.0.0.1"},
	} {
		if err := s.restart(stanza(step.masters), ""); err != nil {
			t.Fatal(err)
		}
		loopback.Eventually(t, func() string {
			zero, one := answers(s.ask("master0.mesos.", dns.TypeA)), answers(s.ask("master1.mesos.", dns.TypeA))
			if zero != step.zero || one != step.one {
				return fmt.Sprintf("master0 is %s, master1 %s", zero, one)
			}
			return ""
		})
	}
	if n := m.subscriptions.Load(); n != 3 { // another order is another watcher
		t.Errorf("%d subscriptions", n)
	}
}

// TestViews has two views of one zone on one listener: each has metrics and a serial of its
// own, which a reload keeps.
func TestViews(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := func(ttl int) string {
		return fmt.Sprintf("%s mesos {\n master %s\n ttl %d\n}", pluginName, srv.URL, ttl)
	}
	both := "view inside {\n expr client_ip() == '127.0.0.1'\n}\n" + stanza(7) + "\n}\n.:0 {\n bind 127.0.0.1\n" + stanza(5)
	s := startServer(t, both)
	serials := func() (inside, others float64) {
		t.Helper()
		_, values := gathered(t)
		const name = "zone_serial{server=dns://127.0.0.1:0,view=%s,zone=mesos.}"
		return values[fmt.Sprintf(name, "inside")], values[fmt.Sprintf(name, "")]
	}
	inside, others := serials()
	if inside == 0 || others == 0 {
		t.Fatalf("serials are %v and %v", inside, others)
	}
	if m := s.ask("v6.marathon.mesos.", dns.TypeAAAA); len(m.Answer) != 1 || m.Answer[0].Header().Ttl != 7 {
		t.Errorf("the view answered %s", m)
	}
	for range 3 {
		if err := s.restart(both, ""); err != nil {
			t.Fatal(err)
		}
		if now, nowOthers := serials(); now != inside || nowOthers != others {
			t.Errorf("serials are %v and %v after a reload, were %v and %v", now, nowOthers, inside, others)
		}
	}
}

// TestForgetCluster keeps the counters of a cluster while another stanza watches the same
// masters in another way.
func TestForgetCluster(t *testing.T) {
	_, srv := countedTutorial(t)
	stanza := func(zone, more string) string {
		return fmt.Sprintf("%s %s {\n master %s\n containerip\n%s\n}", pluginName, zone, srv.URL, more)
	}
	other := "example.:0 {\n bind 127.0.0.1\n" + stanza("example", "poll 1h") + "\n}\n"
	s := startServer(t, stanza("mesos", "")+"\n}\n"+strings.TrimSuffix(other, "}\n"))
	counted := func() float64 {
		_, values := gathered(t)
		return values[fmt.Sprintf("events_total{cluster=%s,type=GET_STATE}", srv.URL)]
	}
	if counted() == 0 {
		t.Fatal("no poll is counted")
	}
	if err := s.restart("", other); err != nil { // without the stanza that subscribes
		t.Fatal(err)
	}
	if counted() == 0 {
		t.Error("the counters are gone, though a stanza watches these masters")
	}
}

// TestServerBlock leaves the default zone of "containerip" out where no query reaches it, and
// finds the zones that none reaches.
func TestServerBlock(t *testing.T) {
	for _, tc := range []struct{ keys, stanza, zones, outside string }{
		{".:53", "calicomesos", "mesos. dcos.thisdcos.directory.", ""},
		{"mesos.:53", "calicomesos", "mesos.", ""},
		{"mesos.:53 thisdcos.directory.:53", "calicomesos", "mesos. dcos.thisdcos.directory.", ""},
		{"containerip.dcos.thisdcos.directory.:53", "calicomesos", "mesos. dcos.thisdcos.directory.", "mesos."},
		{"example.org.:53", "calicomesos", "mesos.", "mesos."},
		{"example.org.:53", "calicomesos example.org mesos {\n containerip dcos.example\n}", "example.org. mesos. dcos.example.", "mesos. dcos.example."},
	} {
		c := caddy.NewTestController("dns", tc.stanza)
		for key := range strings.FieldsSeq(tc.keys) {
			c.ServerBlockKeys = append(c.ServerBlockKeys, key)
		}
		o, err := parse(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(o.allOrigins(), " "); got != tc.zones {
			t.Errorf("%s: zones %s, want %s", tc.keys, got, tc.zones)
		}
		if got := strings.Join(o.outside(servedBy(c)), " "); got != tc.outside {
			t.Errorf("%s: outside are %s, want %s", tc.keys, got, tc.outside)
		}
		for _, origin := range o.outside(servedBy(c)) {
			if text := o.unreached(origin, servedBy(c)); strings.Contains(text, "; write ") != (origin == "mesos.") {
				t.Errorf("%s: %s", tc.keys, text)
			}
		}
	}
}
