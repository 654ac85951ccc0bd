package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnstest"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// tutorial starts a master of the tutorial's cluster and a CoreDNS that watches it.
func tutorial(t *testing.T, properties string) (*server, *mesostest.Master) {
	t.Helper()
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	t.Cleanup(master.Close)
	return startServer(t, fmt.Sprintf("loadbalance\ncache\ntransfer {\n to *\n}\n%s mesos 192.168.0.0/16 {\n master %s\n%s\n}", pluginName, master.URL, properties)), m
}

// TestAnswers asks a CoreDNS for the tutorial's names.
func TestAnswers(t *testing.T) {
	s, _ := tutorial(t, "")
	for _, tc := range []struct {
		name   string
		qtype  uint16
		rcode  int
		answer string
		extra  int // records in ADDITIONAL besides OPT
	}{
		{"nginx.marathon.mesos.", dns.TypeA, 0, "192.168.50.65 192.168.50.66 192.168.84.192", 0},
		{"NGINX.Marathon.MESOS.", dns.TypeA, 0, "192.168.50.65 192.168.50.66 192.168.84.192", 0},
		{"nginx.marathon.slave.mesos.", dns.TypeA, 0, "172.24.197.101 172.24.197.102", 0},
		{"nginx-41ke3-s0.marathon.mesos.", dns.TypeA, 0, "192.168.84.192", 0},
		{"nginx.marathon.mesos.", dns.TypeAAAA, 0, "", 0},
		{"v6.marathon.mesos.", dns.TypeAAAA, 0, "fd00:192:168::10", 0},
		{"marathon-lb.marathon.mesos.", dns.TypeA, 0, "172.24.197.101", 0},
		{"db-prod.marathon.mesos.", dns.TypeA, 0, "192.168.50.67", 0},
		{"db.prod.marathon.mesos.", dns.TypeA, 0, "192.168.50.67", 0},
		{"db_prod.marathon.mesos.", dns.TypeA, 0, "192.168.50.67", 0},
		{"db_prod.marathon.containerip.dcos.thisdcos.directory.", dns.TypeA, dns.RcodeNameError, "", 0},
		{"_db.prod._tcp.marathon.mesos.", dns.TypeSRV, 0, "db.prod-7yxaw-s1.marathon.mesos.:5432", 1},
		{"_http._nginx._tcp.marathon.mesos.", dns.TypeSRV, 0, "nginx-41ke3-s0.marathon.mesos.:80 nginx-tbi96-s1.marathon.mesos.:80 nginx-xhdf8-s1.marathon.mesos.:80", 3},
		{"_web._tcp.marathon.mesos.", dns.TypeSRV, 0, "web-9jb4f-s1.marathon.slave.mesos.:31080", 1},
		{"marathon.mesos.", dns.TypeA, 0, "172.24.197.100", 0},
		{"_framework._tcp.marathon.mesos.", dns.TypeSRV, 0, "marathon.mesos.:8080", 1},
		{"slave.mesos.", dns.TypeA, 0, "172.24.197.101 172.24.197.102", 0},
		{"_slave._tcp.mesos.", dns.TypeSRV, 0, "slave.mesos.:5051", 2},
		{"leader.mesos.", dns.TypeA, 0, "127.0.0.1", 0},
		{"master0.mesos.", dns.TypeA, 0, "127.0.0.1", 0},
		{"_leader._udp.mesos.", dns.TypeSRV, 0, "leader.mesos.:5050", 1},
		{"ns1.mesos.", dns.TypeA, 0, "127.0.0.1", 0},
		{"mesos.", dns.TypeNS, 0, "ns1.mesos.", 1},
		{"mesos.", dns.TypeA, 0, "", 0},
		{"_tcp.marathon.mesos.", dns.TypeA, 0, "", 0},
		{"tcp.marathon.mesos.", dns.TypeA, dns.RcodeNameError, "", 0},
		{"*.marathon.mesos.", dns.TypeA, dns.RcodeNameError, "", 0},
		{"nginx.marathon.containerip.dcos.thisdcos.directory.", dns.TypeA, 0, "192.168.50.65 192.168.50.66 192.168.84.192", 0},
		{"nginx.marathon.agentip.dcos.thisdcos.directory.", dns.TypeA, 0, "172.24.197.101 172.24.197.102", 0},
		{"web.marathon.autoip.dcos.thisdcos.directory.", dns.TypeA, 0, "172.24.197.102", 0},
		{"_web._tcp.marathon.agentip.dcos.thisdcos.directory.", dns.TypeSRV, 0, "web-9jb4f-s1.marathon.agentip.dcos.thisdcos.directory.:31080", 1},
		{"leader.dcos.thisdcos.directory.", dns.TypeA, 0, "127.0.0.1", 0},
		{"containerip.dcos.thisdcos.directory.", dns.TypeA, 0, "", 0},
		{"192.84.168.192.in-addr.arpa.", dns.TypePTR, 0, "nginx.marathon.mesos.", 0},
		{"69.50.168.192.in-addr.arpa.", dns.TypePTR, dns.RcodeNameError, "", 0}, // a pod's two tasks share it
		{"84.168.192.in-addr.arpa.", dns.TypePTR, 0, "", 0},
		{"168.192.in-addr.arpa.", dns.TypeNS, 0, "ns1.mesos.", 0},
		{"example.org.", dns.TypeA, dns.RcodeServerFailure, "", 0}, // no plugin after ours
	} {
		m := s.ask(tc.name, tc.qtype)
		what := tc.name + " " + dns.TypeToString[tc.qtype]
		if m.Rcode != tc.rcode || answers(m) != tc.answer || len(m.Extra)-1 != tc.extra {
			t.Errorf("%s: %s %q and %v", what, dns.RcodeToString[m.Rcode], answers(m), m.Extra)
		}
		if tc.name == "example.org." {
			continue
		}
		if !m.Authoritative || m.RecursionAvailable {
			t.Errorf("%s: flags %s", what, m.MsgHdr.String())
		}
		negative := len(m.Ns) == 1 && m.Ns[0].Header().Rrtype == dns.TypeSOA
		if negative != (tc.answer == "") || !negative && len(m.Ns) != 0 {
			t.Errorf("%s: authority %v", what, m.Ns)
		}
		for _, rr := range m.Answer {
			if rr.Header().Name != tc.name || rr.Header().Ttl != 5 {
				t.Errorf("%s: answered with %v", what, rr)
			}
		}
	}
	if m := s.ask("mesos.", dns.TypeSOA); len(m.Answer) != 1 || m.Answer[0].(*dns.SOA).Mbox != "hostmaster.mesos." {
		t.Errorf("SOA is %v", m.Answer)
	}
}

// TestChangesAreSeen lets the master change, and waits for the answers.
func TestChangesAreSeen(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	s := startServer(t, fmt.Sprintf("cache\n%s {\n master %s\n}", pluginName, master.URL))
	expect := func(name, want string) {
		t.Helper()
		loopback.Eventually(t, func() string {
			if got := answers(s.ask(name, dns.TypeA)); got != want {
				return fmt.Sprintf("%s is %q, not %q", name, got, want)
			}
			return ""
		})
	}
	expect("wanderer.marathon.mesos.", "192.168.84.200")
	serial := s.ask("mesos.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial
	tut.Wander(m)
	expect("wanderer.marathon.mesos.", "192.168.50.201")
	expect("wanderer.marathon.slave.mesos.", "172.24.197.102")
	if now := s.ask("mesos.", dns.TypeSOA).Answer[0].(*dns.SOA).Serial; int32(now-serial) <= 0 {
		t.Errorf("serial went from %d to %d", serial, now)
	}
	renamed := tut.Framework(0, "Marathon.two", "172.24.197.100", "http://172.24.197.100:8080")
	m.UpdateFramework(renamed)
	expect("wanderer.marathon.two.mesos.", "192.168.50.201")
	expect("wanderer.marathon.mesos.", "")
	m.RemoveAgent(tut.AgentID(1))
	expect("wanderer.marathon.two.mesos.", "")
	m.AddAgent(tut.Agent(1, "172.24.197.109"))
	expect("wanderer.marathon.two.slave.mesos.", "172.24.197.109")
	m.RemoveFramework(tut.FrameworkID(0))
	expect("nginx.marathon.two.mesos.", "")
	m.AddFramework(renamed)
	expect("db.prod.marathon.two.mesos.", "192.168.50.67")
	m.Drop()
	tut.Wander(m)
	expect("wanderer.marathon.two.mesos.", "192.168.84.202")
}

// TestNoState asks before a first state, and of an incomplete one.
func TestNoState(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")
	master := mesostest.Start(m)
	defer master.Close()
	s := startServer(t, fmt.Sprintf("cache\n%s {\n master %s\n startup_timeout 1ms\n fallthrough\n}\nhosts {\n 192.0.2.99 other.mesos\n}", pluginName, master.URL))
	for _, name := range []string{"nginx.marathon.mesos.", "other.mesos.", "mesos.", "x.dcos.thisdcos.directory."} {
		r := s.ask(name, dns.TypeA)
		if r.Rcode != dns.RcodeServerFailure || extended(r) != dns.ExtendedErrorCodeNotReady {
			t.Errorf("%s before a state: %v", name, r)
		}
	}
	plain := new(dns.Msg)
	plain.SetQuestion("nginx.marathon.mesos.", dns.TypeA)
	if r := s.exchange(plain); r.Rcode != dns.RcodeServerFailure || len(r.Extra) != 0 {
		t.Errorf("without EDNS before a state: %v", r)
	}

	state := m.State()
	state.Agents = &mesostest.GetAgents{
		Agents:    []*mesostest.Agent{tut.Agent(0, "172.24.197.101")},
		Recovered: []*mesostest.AgentInfo{{Hostname: "a2", ID: &mesostest.ID{Value: tut.AgentID(1)}}},
	}
	m.Load(state)
	m.Lead()
	loopback.Eventually(t, func() string {
		if got := answers(s.ask("nginx.marathon.mesos.", dns.TypeA)); got != "192.168.84.192" {
			return "nginx is " + got
		}
		return ""
	})
	for _, tc := range []struct {
		name  string
		qtype uint16
	}{{"db-prod.marathon.mesos.", dns.TypeA}, {"other.mesos.", dns.TypeA}, {"_tcp.marathon.mesos.", dns.TypeA}} {
		if r := s.ask(tc.name, tc.qtype); r.Rcode != dns.RcodeServerFailure || extended(r) != dns.ExtendedErrorCodeNotReady {
			t.Errorf("%s %s of an incomplete state: %v", tc.name, dns.TypeToString[tc.qtype], r)
		}
	}
	if r := s.ask("nginx.marathon.mesos.", dns.TypeAAAA); r.Rcode != dns.RcodeSuccess || len(r.Answer) != 0 || len(r.Ns) != 1 {
		t.Errorf("another type of a name that is known: %v", r)
	}
	if r := s.ask("mesos.", dns.TypeSOA); len(r.Answer) != 1 {
		t.Errorf("SOA of an incomplete state: %v", r)
	}

	m.AddAgent(tut.Agent(1, "172.24.197.102"))
	loopback.Eventually(t, func() string {
		if got := answers(s.ask("other.mesos.", dns.TypeA)); got != "192.0.2.99" {
			return "no fallthrough: " + got
		}
		return ""
	})
	if r := s.ask("nope.mesos.", dns.TypeA); r.Rcode != dns.RcodeServerFailure { // hosts has no next
		t.Errorf("a name of no plugin: %v", r)
	}
	if r := s.ask("nginx.marathon.mesos.", dns.TypeAAAA); r.Rcode != dns.RcodeSuccess || len(r.Ns) != 1 {
		t.Errorf("NODATA fell through: %v", r)
	}
}

// TestStale asks a zone that is from a snapshot: a large one, whose answers do not all
// fit, too.
func TestStale(t *testing.T) {
	z := zone.New(zone.Config{Origin: "mesos.", TTL: 5, NS: "ns1.mesos."})
	tx := z.Begin()
	for i := range byte(20) {
		a := zone.Address(netip.AddrFrom4([4]byte{192, 0, 2, i}))
		tx.Add(zone.Rel("a.marathon"), a)
		tx.Add(zone.Rel(fmt.Sprintf("a-%d.marathon", i)), a)
		tx.Add(zone.Rel("_a._tcp.marathon"), zone.Service(zone.Rel(fmt.Sprintf("a-%d.marathon", i)), 80))
	}
	tx.Publish(time.Now(), zone.Status{Stale: true})
	c := &CalicoMesos{zones: []*zone.Zone{z}}
	for _, tc := range []struct {
		name   string
		qtype  uint16
		size   uint16
		code   uint16
		answer int
	}{
		{"a.marathon.mesos.", dns.TypeA, 1232, dns.ExtendedErrorCodeStaleAnswer, 20},
		{"a.marathon.mesos.", dns.TypeAAAA, 1232, dns.ExtendedErrorCodeStaleAnswer, 0},
		{"b.marathon.mesos.", dns.TypeA, 1232, dns.ExtendedErrorCodeNotReady, 0},
		{"_a._tcp.marathon.mesos.", dns.TypeSRV, 4096, dns.ExtendedErrorCodeStaleAnswer, 20},
		{"_a._tcp.marathon.mesos.", dns.TypeSRV, 1000, dns.ExtendedErrorCodeStaleAnswer, 20},
		{"_a._tcp.marathon.mesos.", dns.TypeSRV, 1010, dns.ExtendedErrorCodeStaleAnswer, 20},
		{"_a._tcp.marathon.mesos.", dns.TypeSRV, 1020, dns.ExtendedErrorCodeStaleAnswer, 20},
	} {
		m := new(dns.Msg)
		m.SetQuestion(tc.name, tc.qtype)
		m.SetEdns0(tc.size, false)
		rec := dnstest.NewRecorder(&test.ResponseWriter{})
		_, err := c.ServeDNS(t.Context(), request.NewScrubWriter(m, rec), m)
		if err != nil || extended(rec.Msg) != tc.code || rec.Msg.Truncated || len(rec.Msg.Answer) != tc.answer {
			t.Errorf("%s %d octets: %v, %v", tc.name, tc.size, rec.Msg, err)
		}
	}
}

// extended returns the code of a message's extended error.
func extended(m *dns.Msg) uint16 {
	if o := m.IsEdns0(); o != nil {
		for _, opt := range o.Option {
			if e, ok := opt.(*dns.EDNS0_EDE); ok {
				return e.InfoCode
			}
		}
	}
	return 0
}

// largeApp starts a server with an app of n tasks.
func largeApp(t *testing.T, n int) *server {
	t.Helper()
	m := mesostest.NewMaster(15 * time.Second)
	script := mesostest.NewScript("x")
	state := &mesostest.GetState{
		Agents:     &mesostest.GetAgents{Agents: []*mesostest.Agent{script.Agent(0, "10.0.0.1")}},
		Frameworks: &mesostest.GetFrameworks{Frameworks: []*mesostest.Framework{script.Framework(0, "marathon", "", "")}},
		Tasks:      &mesostest.GetTasks{},
	}
	app := mesostest.App{Name: "app", Network: "calico", Ports: []mesostest.Port{{Number: 80, Protocol: "tcp"}}}
	for i := range n {
		state.Tasks.Tasks = append(state.Tasks.Tasks, script.Task(app, fmt.Sprintf("app.%d", i), 0, fmt.Sprintf("192.168.%d.%d", i/250, 1+i%250)))
	}
	m.Load(state)
	master := mesostest.Start(m)
	t.Cleanup(master.Close)
	return startServer(t, fmt.Sprintf("%s {\n master %s\n}", pluginName, master.URL))
}

// TestTruncation asks for services whose targets' addresses, or which
// themselves, do not fit.
func TestTruncation(t *testing.T) {
	for _, tc := range []struct {
		tasks     int
		size      uint16 // of EDNS; 0: none
		truncated bool
		extra     bool // all addresses
	}{
		{3, 1232, false, true}, {20, 1232, false, false}, {20, 4096, false, true}, {200, 1232, true, false}, {9, 0, false, false}, {50, 0, true, false},
	} {
		s := largeApp(t, tc.tasks)
		m := new(dns.Msg)
		m.SetQuestion("_app._tcp.marathon.mesos.", dns.TypeSRV)
		want := tc.tasks
		if tc.size > 0 {
			m.SetEdns0(tc.size, false)
			want++
		}
		r := s.exchange(m)
		if r.Truncated != tc.truncated || (len(r.Extra) == want) != tc.extra || !tc.truncated && len(r.Answer) != tc.tasks {
			t.Errorf("%d tasks, %d octets: truncated %v, %d in ANSWER, %d in ADDITIONAL", tc.tasks, tc.size, r.Truncated, len(r.Answer), len(r.Extra))
		}
		limit := max(int(tc.size), dns.MinMsgSize)
		r.Compress = true
		if r.Len() > limit {
			t.Errorf("%d tasks: %d octets of %d", tc.tasks, r.Len(), limit)
		}
		if !tc.extra && !tc.truncated && len(r.Extra) > 0 && limit-r.Len() > 60+optionRoom {
			t.Errorf("%d tasks: %d octets are left empty", tc.tasks, limit-r.Len())
		}
	}
}

// TestLargestMessage asks for more than UDP carries, as a client that says it can receive it.
func TestLargestMessage(t *testing.T) {
	s := largeApp(t, 4200)
	for _, size := range []uint16{maxUDP - 1, maxUDP, maxUDP + 1, 65535} {
		m := new(dns.Msg)
		m.SetQuestion("app.marathon.mesos.", dns.TypeA)
		m.SetEdns0(size, false)
		r := s.exchange(m)
		if r.Compress = true; !r.Truncated || r.Len() > maxUDP || r.Len() < maxUDP-200 {
			t.Errorf("%d octets: %d, truncated %v", size, r.Len(), r.Truncated)
		}
	}
}

// TestRoomForOthers answers queries whose answers other plugins add to: options by *nsid*,
// signatures by *dnssec*, TSIG by *tsig*. ANSWER fits, so that TC must not be set for what
// they add.
func TestRoomForOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		instances  int
		do, signed bool
		least      int // records in ADDITIONAL, and octets
		most       int // octets
		truncated  bool
	}{
		"options":                {20, false, false, 1, 1232 - optionRoom, false},
		"signatures":             {8, true, false, 1, 1232 / 2, false},
		"signatures, no room":    {15, true, false, 0, 1232, false},
		"TSIG":                   {8, false, true, 0, 1232 - tsigRoom, false},
		"TSIG, ANSWER beyond it": {20, false, true, 0, 1232 - tsigRoom, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := directState(t, bigState(t, tc.instances, tc.instances))
			m := new(dns.Msg)
			m.SetQuestion("_app-0._tcp.marathon.mesos.", dns.TypeSRV)
			m.SetEdns0(1232, tc.do)
			if tc.signed {
				m.SetTsig("key.", dns.HmacSHA256, 300, time.Now().Unix())
			}
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			if _, err := p.ServeDNS(t.Context(), w, m); err != nil {
				t.Fatal(err)
			}
			r := w.Msg
			r.Compress = true
			if r.Truncated != tc.truncated || r.Len() > tc.most || len(r.Extra) < tc.least || tc.least == 0 && len(r.Extra) > 0 {
				t.Errorf("%d octets, want at most %d; truncated %v; %d in ANSWER, %d in ADDITIONAL", r.Len(), tc.most, r.Truncated, len(r.Answer), len(r.Extra))
			}
		})
	}
}

func TestServicesRotateEvenly(t *testing.T) {
	s, _ := tutorial(t, "")
	first := make(map[string]int)
	for range 60 {
		first[s.ask("_nginx._tcp.marathon.mesos.", dns.TypeSRV).Answer[0].(*dns.SRV).Target]++
	}
	if len(first) != 3 {
		t.Errorf("first targets are %v", first)
	}
}

// direct is the plugin with a published cluster, without a server around it.
func direct(tb testing.TB, tasks int) *CalicoMesos {
	tb.Helper()
	return directState(tb, bigState(tb, tasks, 3))
}

func directState(tb testing.TB, state *mesos.State) *CalicoMesos {
	tb.Helper()
	o := &options{ttl: defaultTTL, rules: rules{sources: []source{netinfo, host}, pointTo: "mesos."}}
	o.zones = [schemes][]string{{"mesos."}, {"dcos.thisdcos.directory."}, {"10.in-addr.arpa."}}
	zones := o.newZones(nil, false)
	p := newPublisher(&o.rules, zones, func(string) {}, make(chan struct{}))
	c := cluster.New(nil)
	c.State(state, cluster.Leader{ID: "m"}, time.Now())
	ch := c.Flush()
	p.Publish(&ch, watch.Status{Complete: true})
	return &CalicoMesos{zones: zones.all()}
}

// bigState is the state of a large cluster, through the client's decoder.
func bigState(tb testing.TB, tasks, instances int) *mesos.State {
	tb.Helper()
	m := mesostest.NewMaster(0)
	mesostest.NewLarge(m, tasks, max(tasks/20, 1), instances)
	srv := mesostest.Start(m)
	defer srv.Close()
	client := mesos.NewClient(mesos.Config{})
	defer client.Close()
	s, _, err := client.State(tb.Context(), mesos.Target{URL: mesostest.API(srv.Host)}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// FuzzServeDNS sends anything to the plugin.
func FuzzServeDNS(f *testing.F) {
	c := direct(f, 100)
	for _, name := range []string{"app-1.marathon.mesos.", "_app-1._tcp.marathon.mesos.", "mesos.", "nope.dcos.thisdcos.directory.", "1.0.0.10.in-addr.arpa.", "."} {
		m := new(dns.Msg)
		m.SetQuestion(name, dns.TypeSRV)
		m.SetEdns0(512, true)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil || len(m.Question) != 1 {
			return
		}
		w := &packer{t: t}
		if _, err := c.ServeDNS(t.Context(), w, m); err != nil && w.sent > 0 {
			t.Fatal(err)
		}
	})
}

// packer is a client that packs what it gets.
type packer struct {
	test.ResponseWriter
	t    *testing.T
	sent int
}

func (p *packer) WriteMsg(m *dns.Msg) error {
	p.sent++
	if _, err := m.Pack(); err != nil && !strings.Contains(err.Error(), "bad rdata") {
		p.t.Errorf("%v: %v", m, err)
	}
	return nil
}

// nobody is a client that throws its answers away.
type nobody struct{ test.ResponseWriter }

func (*nobody) WriteMsg(*dns.Msg) error { return nil }

func (*nobody) RemoteAddr() net.Addr { return nobodyAddr }

var nobodyAddr net.Addr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}

// popular are questions that a large cluster is asked most, for an app of it.
var popular = []struct {
	name, question string
	qtype          uint16
}{
	{"A3", "app-%d.marathon.mesos.", dns.TypeA},
	{"SRV3", "_http._app-%d._tcp.marathon.mesos.", dns.TypeSRV},
	{"NXDOMAIN", "nope-%d.marathon.mesos.", dns.TypeA},
	{"NODATA", "app-%d.marathon.mesos.", dns.TypeTXT},
}

// TestAllocations holds answers to a few allocations each, without packing.
func TestAllocations(t *testing.T) {
	c := direct(t, 300)
	for _, tc := range popular {
		m := new(dns.Msg)
		m.SetQuestion(fmt.Sprintf(tc.question, 42), tc.qtype)
		client := &nobody{}
		got := testing.AllocsPerRun(100, func() {
			if _, err := c.ServeDNS(t.Context(), client, m); err != nil {
				t.Fatal(err)
			}
		})
		if got > 5 {
			t.Errorf("%s takes %v allocations", tc.name, got)
		}
	}
}

// TestShortStack looks at what of the plugin is on the stack as an answer is written.
func TestShortStack(t *testing.T) {
	c := direct(t, 3)
	for _, tc := range popular {
		w := &callers{}
		m := new(dns.Msg).SetQuestion(fmt.Sprintf(tc.question, 0), tc.qtype)
		if _, err := c.ServeDNS(t.Context(), w, m); err != nil {
			t.Fatal(err)
		}
		if len(w.names) != 1 || !strings.HasSuffix(w.names[0], ".ServeDNS") {
			t.Errorf("%s is written by %v", tc.name, w.names)
		}
	}
}

// callers is a client that notes which functions write to it, down to ServeDNS.
type callers struct {
	nobody
	names []string
}

func (c *callers) WriteMsg(*dns.Msg) error {
	pcs := make([]uintptr, 20)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)]) // 2: who called WriteMsg
	for more := true; more && (len(c.names) == 0 || !strings.HasSuffix(c.names[len(c.names)-1], ".ServeDNS")); {
		var f runtime.Frame
		f, more = frames.Next()
		c.names = append(c.names, f.Function)
	}
	return nil
}

// TestTransferWithoutPlugin asks for a transfer where *transfer* does not take it.
func TestTransferWithoutPlugin(t *testing.T) {
	c := direct(t, 3)
	for _, qtype := range []uint16{dns.TypeAXFR, dns.TypeIXFR} {
		rcode, err := c.ServeDNS(t.Context(), &nobody{}, new(dns.Msg).SetQuestion("mesos.", qtype))
		if rcode != dns.RcodeRefused || err != nil {
			t.Errorf("%s: %s, %v", dns.TypeToString[qtype], dns.RcodeToString[rcode], err)
		}
	}
}

// TestNoQuestion leaves a message that asks nothing to the next plugin.
// TestOtherOpcodes sends what a client has no business to send, for our zone and another.
func TestOtherOpcodes(t *testing.T) {
	c := direct(t, 3)
	c.Next = test.NextHandler(dns.RcodeFormatError, nil)
	for _, opcode := range []int{dns.OpcodeNotify, dns.OpcodeUpdate, dns.OpcodeStatus} {
		for name, want := range map[string]int{"mesos.": dns.RcodeRefused, "app-0.marathon.mesos.": dns.RcodeRefused, "example.org.": dns.RcodeFormatError} {
			m := new(dns.Msg).SetQuestion(name, dns.TypeSOA)
			m.Opcode = opcode
			if rcode, err := c.ServeDNS(t.Context(), &nobody{}, m); rcode != want || err != nil {
				t.Errorf("%s of %s: %s, %v", dns.OpcodeToString[opcode], name, dns.RcodeToString[rcode], err)
			}
		}
	}
}

// TestFallthrough_Nobody lets names fall through where no plugin follows that answers: they
// are denied, as without fallthrough.
func TestFallthrough_Nobody(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		next  plugin.Handler
		name  string
		rcode int // of the message, or -1 for none
		err   error
	}{
		"nobody":                      {nil, "nope.mesos.", dns.RcodeNameError, nil},
		"one that passes it on":       {passOn{}, "nope.mesos.", dns.RcodeNameError, nil},
		"another name, nobody":        {nil, "example.org.", -1, errors.New("plugin/calicomesos: no next plugin found")},
		"one that fails":              {test.NextHandler(dns.RcodeServerFailure, broken), "nope.mesos.", -1, broken},
		"one that denies it and errs": {test.NextHandler(dns.RcodeNameError, errors.New("no next plugin found")), "nope.mesos.", -1, errors.New("no next plugin found")},
	} {
		t.Run(name, func(t *testing.T) {
			c := direct(t, 3)
			c.Next = tc.next
			c.Fall.SetZonesFromArgs(nil)
			w := dnstest.NewRecorder(&test.ResponseWriter{})
			_, err := c.ServeDNS(t.Context(), w, new(dns.Msg).SetQuestion(tc.name, dns.TypeA))
			rcode := -1
			if w.Msg != nil {
				rcode = w.Msg.Rcode
			}
			if rcode != tc.rcode || fmt.Sprint(err) != fmt.Sprint(tc.err) {
				t.Errorf("%d, %v", rcode, err)
			}
			if rcode == dns.RcodeNameError && (len(w.Msg.Ns) != 1 || !w.Msg.Authoritative) {
				t.Errorf("answered %v", w.Msg)
			}
		})
	}
}

// passOn is a last plugin with fallthrough, such as *hosts*.
type passOn struct{}

func (passOn) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	return plugin.NextOrFailure("hosts", nil, ctx, w, r)
}

func (passOn) Name() string { return "hosts" }

func TestNoQuestion(t *testing.T) {
	c := direct(t, 3)
	c.Next = test.NextHandler(dns.RcodeFormatError, nil)
	if rcode, err := c.ServeDNS(t.Context(), &nobody{}, new(dns.Msg)); rcode != dns.RcodeFormatError || err != nil {
		t.Errorf("%s, %v", dns.RcodeToString[rcode], err)
	}
}

// BenchmarkServeDNS answers without packing, for one after another of the apps of a zone
// of about a million names, so that no cache of the processor holds what it looks up.
func BenchmarkServeDNS(b *testing.B) {
	const tasks = 110_000
	c := direct(b, tasks)
	for _, bc := range popular {
		b.Run(bc.name, func(b *testing.B) {
			names := make([]string, 1<<15)
			for i := range names {
				names[i] = fmt.Sprintf(bc.question, i*7919%(tasks/3))
			}
			ctx, client, msg := b.Context(), &nobody{}, new(dns.Msg).SetQuestion(names[0], bc.qtype)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				msg.Question[0].Name = names[i&(1<<15-1)]
				if _, err := c.ServeDNS(ctx, client, msg); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkServeDNS_Large answers for an app of 5,000 instances over UDP, to a client that can
// receive 1232 octets: a part of them, in turn, as CoreDNS fits it into the message.
func BenchmarkServeDNS_Large(b *testing.B) {
	c := directState(b, bigState(b, 5_000, 5_000))
	for _, bc := range popular[:2] {
		b.Run(strings.TrimSuffix(bc.name, "3"), func(b *testing.B) {
			msg := new(dns.Msg).SetQuestion(fmt.Sprintf(bc.question, 0), bc.qtype)
			msg.SetEdns0(1232, false)
			ctx, client := b.Context(), request.NewScrubWriter(msg, &nobody{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.ServeDNS(ctx, client, msg); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
