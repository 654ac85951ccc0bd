package calicomesos

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// inMemory runs a watcher of a master that h plays, in a bubble of synctest.
func inMemory(t *testing.T, h http.Handler, publishers ...*publisher) *watch.Watcher {
	t.Helper()
	return inMemoryWith(t, h, func(*watch.Config) {}, publishers...)
}

// inMemoryWith is inMemory with another configuration.
func inMemoryWith(t *testing.T, h http.Handler, change func(c *watch.Config), publishers ...*publisher) *watch.Watcher {
	t.Helper()
	srv := mesostest.StartInMemory(h)
	c := watch.Config{
		Name:     "test",
		Detector: detector.Static{mesostest.API("127.0.0.1:5050")},
		Client:   mesos.NewClient(mesos.Config{Dial: srv.Dial}),
		Resolver: resolve.New(func(context.Context, string) ([]netip.Addr, error) { return nil, io.EOF }),
		Observer: observer("test"),
	}
	change(&c)
	w := watch.New(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	for _, p := range publishers {
		w.Add(p)
	}
	t.Cleanup(func() {
		cancel()
		<-done
		srv.Close()
		forgetCluster("test")
	})
	return w
}

// pass lets time pass in a bubble of synctest, and all that is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestSilentAgents lets an agent leave and another register without an event.
func TestSilentAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		inMemory(t, m, p)
		<-p.ready
		state := m.State()
		state.Agents.Agents = []*mesostest.Agent{tut.Agent(0, "172.24.197.101"), tut.Agent(2, "172.24.197.103")}
		m.Load(state)
		pass(6 * time.Minute)
		zone := p.zones[mesosDNS][0].Current()
		got := zone.Lookup("slave", "slave.mesos.", dns.TypeA, 0, dns.MaxMsgSize).Answer
		if len(got) != 2 || rdata(got[1]) != "172.24.197.103" || zone.Lookup("db-prod.marathon", "", dns.TypeA, 0, dns.MaxMsgSize).Exists {
			t.Errorf("agents are %v, a task of the one that left exists: %v", got, zone.Lookup("db-prod.marathon", "", dns.TypeA, 0, dns.MaxMsgSize).Exists)
		}
		pass(10 * time.Minute)
		if n := testutil.ToFloat64(differencesTotal.WithLabelValues("test")); n != 2 {
			t.Errorf("%v differences", n)
		}
	})
}

// switching is a master that another can replace.
type switching struct {
	atomic.Pointer[mesostest.Replay]
}

func (s *switching) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.Load().ServeHTTP(w, r) }

// TestRecordedFailover replays the stream of a leader that crashed, and then that of the next one,
// which knows no agent at first: no name may lose its answer at any event.
func TestRecordedFailover(t *testing.T) {
	first, firstIndex := readStream(t, "testdata/mesos/failover/old_leader.pb")
	second, secondIndex := readStream(t, "testdata/mesos/failover/new_leader.pb")
	var leading switching
	leading.Store(first)
	master := mesostest.Start(&leading)
	defer master.Close()
	first.SendTo(firstIndex[len(firstIndex)-1].End())
	s := startServer(t, transferBlock(master.URL))
	rrs, err := s.axfr("mesos.")
	if err != nil {
		t.Fatal(err)
	}
	before := served(rrs)
	if len(before) < 50 {
		t.Fatalf("only %d records", len(before))
	}
	// seen waits until so many events have come; heartbeats are none.
	seen := func(events int) {
		loopback.Eventually(t, func() string {
			_, values := gathered(t)
			got := 0
			for name, v := range values {
				if strings.HasPrefix(name, "events_total") && !strings.Contains(name, "HEARTBEAT") {
					got += int(v)
				}
			}
			if got != events {
				return fmt.Sprintf("%d events, not %d", got, events)
			}
			return ""
		})
	}
	seen(1)
	leading.Store(second)
	master.Drop()
	mark := 1
	for i, r := range secondIndex {
		second.SendTo(r.End())
		if r.Type == "HEARTBEAT" {
			continue
		}
		mark++
		seen(mark)
		rrs, err := s.axfr("mesos.")
		if err != nil {
			t.Fatalf("event %d, %s: %v", i, r.Type, err)
		}
		if diff := difference(served(rrs), before); diff != "" {
			t.Errorf("event %d, %s:\n%s", i, r.Type, diff)
		}
	}
}

// readStream returns a replay of a recorded stream, and its index.
func readStream(t *testing.T, file string) (*mesostest.Replay, []mesostest.Recorded) {
	t.Helper()
	stream, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file + ".index")
	if err != nil {
		t.Fatal(err)
	}
	index, err := mesostest.ParseIndex(b)
	if err != nil {
		t.Fatal(err)
	}
	return mesostest.NewReplay(stream, "application/x-protobuf"), index
}

// TestSnapshot restarts while the masters are away.
func TestSnapshot(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	m.AddFramework(&mesostest.Framework{FrameworkInfo: mesostest.FrameworkInfo{Name: "chronos", ID: &mesostest.ID{Value: "c"}, Hostname: "chronos.example", WebUIURL: "http://chronos.example:4400"}})
	master := mesostest.Start(m)
	defer master.Close()
	file := filepath.Join(t.TempDir(), "snapshot")
	block := fmt.Sprintf("transfer {\n to *\n}\n%s mesos 192.168.0.0/16 {\n master %s\n snapshot %s\n startup_timeout 10s\n}", pluginName, master.URL, file)

	s := startServer(t, block)
	before := make(map[string]lines)
	for _, origin := range []string{"mesos.", "dcos.thisdcos.directory.", "168.192.in-addr.arpa."} {
		rrs, err := s.axfr(origin)
		if err != nil {
			t.Fatal(err)
		}
		before[origin] = served(rrs)
	}
	serial := s.serial("mesos.")
	s.stop()
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")

	s = startServer(t, block)
	for origin, want := range before {
		for _, i := range running.stanzas {
			for z := range i.publisher.all {
				if z.Origin != origin {
					continue
				}
				if diff := difference(zoneLines(z.Current()), want); diff != "" {
					t.Errorf("restored %s:\n%s", origin, diff)
				}
			}
		}
	}
	r := s.ask("nginx.marathon.mesos.", dns.TypeA)
	if len(r.Answer) != 3 || !r.Authoritative || extended(r) != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("a known name: %s", r)
	}
	if r := s.ask("nope.mesos.", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("an unknown name: %s", r)
	}
	if _, err := s.axfr("mesos."); err == nil {
		t.Error("a stale zone is transferred")
	}
	if now := s.serial("mesos."); int32(now-serial) < 0 {
		t.Errorf("serial %d after %d", now, serial)
	}
	_, values := gathered(t)
	for _, gauge := range []struct {
		name        string
		least, most float64
	}{{"synced{", 0, 0}, {"tasks{", 10, 10}, {"state_age_seconds{", 1e-9, 60}} {
		found := 0
		for name, v := range values {
			if strings.HasPrefix(name, gauge.name) {
				found++
				if v < gauge.least || v > gauge.most {
					t.Errorf("%s is %v", name, v)
				}
			}
		}
		if found == 0 {
			t.Errorf("there is no %s…}", gauge.name)
		}
	}
	if err := s.restart(block, ""); err != nil { // a reload, meanwhile
		t.Fatal(err)
	}
	if r := s.ask("nginx.marathon.mesos.", dns.TypeA); len(r.Answer) != 3 || extended(r) != dns.ExtendedErrorCodeStaleAnswer {
		t.Errorf("a known name: %s", r)
	}

	m.Lead()
	loopback.Eventually(t, func() string {
		r := s.ask("nope.mesos.", dns.TypeA)
		if r.Rcode != dns.RcodeNameError || extended(r) != 0 {
			return r.String()
		}
		return ""
	})
}

// TestSnapshotIsKept lets nothing worse replace a good snapshot.
func TestSnapshotIsKept(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	run := func(zone, masters string) *dns.Msg {
		t.Helper()
		s := startServer(t, fmt.Sprintf("%s {\n master %s\n snapshot %s\n startup_timeout 1s\n}", pluginName, masters, file))
		r := s.ask(zone, dns.TypeAAAA)
		s.stop()
		return r
	}
	read := func() string {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const v6 = "v6.marathon.mesos."
	if r := run(v6, master.URL); len(r.Answer) != 1 {
		t.Fatal(r)
	}
	good := read()

	// A new leader: the names are retained, and the zone is incomplete.
	whole := m.State()
	info := tut.Agent(7, "172.24.197.109").AgentInfo
	m.Load(&mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{&info}}})
	if r := run("nope.mesos.", master.URL); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("an incomplete state: %s", r)
	}
	if read() != good {
		t.Error("an incomplete state was written")
	}
	// No master at all.
	m.Refuse(http.StatusServiceUnavailable, "No leader elected")
	if r := run(v6, master.URL); len(r.Answer) != 1 {
		t.Errorf("from the snapshot: %s", r)
	}
	if read() != good {
		t.Error("what was restored was written")
	}
	// Another cluster, and one with a master more.
	if r := run(v6, "http://192.0.2.1:1"); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("from the snapshot of another cluster: %s", r)
	}
	if r := run(v6, "http://192.0.2.1:1 "+master.URL); len(r.Answer) != 1 {
		t.Errorf("with a master more: %s", r)
	}
	// A torn one, and none of ours.
	m.Load(whole)
	for _, tc := range []struct {
		content string
		written bool
	}{{good[:len(good)/2], true}, {"", true}, {"precious", false}} {
		if err := os.WriteFile(file, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		m.Refuse(http.StatusServiceUnavailable, "No leader elected")
		if r := run(v6, master.URL); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("from %.10q: %s", tc.content, r)
		}
		m.Lead()
		if r := run(v6, master.URL); len(r.Answer) != 1 {
			t.Errorf("after %.10q: %s", tc.content, r)
		}
		if written := read() != tc.content; written != tc.written {
			t.Errorf("%.10q was written over: %v", tc.content, written)
		}
	}
}

// TestUnknownReference has events name what was never announced: the whole state is asked
// for, and tells.
func TestUnknownReference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		inMemory(t, m, p)
		<-p.ready
		pass(time.Second)
		state := m.State()
		state.Agents.Agents = append(state.Agents.Agents, tut.Agent(2, "172.24.197.103"))
		m.Load(state) // without an event
		m.AddTask(tut.Task(mesostest.App{Name: "late", Network: "calico"}, "late.1", 2, "192.168.1.1"))
		exists := func() bool {
			return p.zones[mesosDNS][0].Current().Lookup("late.marathon", "", dns.TypeA, 0, dns.MaxMsgSize).Exists
		}
		pass(4 * time.Second)
		if exists() {
			t.Error("a task of an unknown agent is published")
		}
		pass(2 * time.Second)
		if !exists() {
			t.Error("the agent is not asked for")
		}
		if n := testutil.ToFloat64(differencesTotal.WithLabelValues("test")); n != 1 {
			t.Errorf("%v differences", n)
		}
	})
}

// TestPolled polls a cluster that changes, and then one that does not.
func TestPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		p := newTestPublisher(&rules{sources: []source{netinfo, host}})
		published := 0
		p.changed = func(string) { published++ }
		w := inMemoryWith(t, m, func(c *watch.Config) { c.Poll = 10 * time.Second }, p)
		<-p.ready
		pass(time.Second)
		tut.Wander(m)
		pass(10 * time.Second)
		if got := p.zones[mesosDNS][0].Current().Lookup("wanderer.marathon", "x.", dns.TypeA, 0, dns.MaxMsgSize).Answer; len(got) != 1 || rdata(got[0]) != "192.168.50.201" {
			t.Errorf("wanderer is at %v", got)
		}
		published = 0
		pass(time.Hour)
		if published != 0 {
			t.Errorf("%d publications without a change", published)
		}
		if s := w.Stats(); !s.Synced || m.Subscribers() != 0 {
			t.Errorf("synced: %v, %d subscribers", s.Synced, m.Subscribers())
		}
	})
}

// sick is a master that works at first, and then answers as the test wants.
type sick struct {
	well     http.Handler
	ill      atomic.Pointer[http.HandlerFunc]
	attempts atomic.Int32
}

func (s *sick) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if ill := s.ill.Load(); ill != nil {
		s.attempts.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // or it does not see that the client goes
		(*ill)(w, r)
		return
	}
	s.well.ServeHTTP(w, r)
}

// TestSickMasters lets a master fail in many ways for an hour: the last good answers stay, it is
// asked in moderation, nothing accumulates, and once it works again its events count.
func TestSickMasters(t *testing.T) {
	const protobuf = "application/x-protobuf"
	answer := func(code int, header, value, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	silence := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	begin := func(w http.ResponseWriter, body string) {
		w.Header().Set("Content-Type", protobuf)
		_, _ = io.WriteString(w, body)
		_ = http.NewResponseController(w).Flush()
	}
	then := func(body string, next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			begin(w, body)
			next(w, r)
		}
	}
	crash := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	state := string(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: m.State(), Heartbeat: 15}})))
	beat := string(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9})))
	for name, ill := range map[string]http.HandlerFunc{
		"says nothing":               silence,
		"half a record, and silence": then(state[:len(state)/2], silence),
		"half a record, and gone":    then(state[:len(state)/2], crash),
		"a record of 10^18 octets":   then("1000000000000000000\n", silence),
		"a record of 2 GiB, that trickles": then("2147483647\n", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				begin(w, "\x12")
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		}),
		"no number":                then("GET / HTTP/1.1\n", silence),
		"HTML":                     answer(200, "Content-Type", "text/html", "<html>"),
		"JSON":                     answer(200, "Content-Type", "application/json", "{}"),
		"401":                      answer(401, "WWW-Authenticate", "Basic", "401 Unauthorized."),
		"403":                      answer(403, "X", "y", ""),
		"404":                      answer(404, "X", "y", "Not found"),
		"500":                      answer(500, "X", "y", strings.Repeat("x", 1<<20)),
		"503":                      answer(503, "X", "y", "No leader elected"),
		"redirects to itself":      answer(307, "Location", "/api/v1", ""),
		"redirects to nowhere":     answer(307, "Location", "mailto:root", ""),
		"compresses":               answer(200, "Content-Encoding", "gzip", "\x1f\x8b"),
		"garbage":                  then("4\n\xff\xff\xff\xff", silence),
		"heartbeats and no state":  then(strings.Repeat(beat, 1000), silence),
		"a flood of heartbeats":    then(state+strings.Repeat(beat, 50_000), silence),
		"SUBSCRIBED without state": then("2\n\x08\x01", silence),
		"drops after each state":   then(state, crash),
		"ends after each state":    then(state, func(http.ResponseWriter, *http.Request) {}),
		"unknown events":           then(state+strings.Repeat("2\n\x08\x63", 1000), silence),
		"goes":                     crash,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mesostest.NewMaster(15 * time.Second)
				tut := mesostest.NewTutorial(m)
				s := &sick{well: m}
				p := newTestPublisher(&rules{sources: []source{netinfo, host}})
				w := inMemory(t, s, p)
				<-p.ready
				pass(time.Minute)
				at := func(name string) string {
					var all []string
					for _, rr := range p.zones[mesosDNS][0].Current().Lookup(name, "x.", dns.TypeA, 0, dns.MaxMsgSize).Answer {
						all = append(all, rdata(rr))
					}
					return strings.Join(all, " ")
				}
				goroutines := runtime.NumGoroutine()
				s.ill.Store(&ill)
				m.Drop()
				for range 60 {
					pass(time.Minute)
					if got := at("nginx.marathon"); got != "192.168.50.65 192.168.50.66 192.168.84.192" {
						t.Fatalf("nginx is at %q", got)
					}
				}
				// Every 7.5 seconds in the mean, and more often in the first minute, with up to four
				// requests each time.
				if n := s.attempts.Load(); n < 20 || n > 3000 {
					t.Errorf("asked %d times in an hour", n)
				}
				if n := runtime.NumGoroutine(); n > goroutines+10 {
					t.Errorf("%d goroutines, %d before", n, goroutines)
				}
				if name != "ends after each state" && name != "drops after each state" && w.Stats().Synced && !strings.Contains(name, "unknown") && !strings.Contains(name, "flood") {
					t.Error("synced")
				}
				s.ill.Store(nil)
				m.Drop()
				tut.Wander(m)
				pass(5 * time.Minute)
				if got := at("wanderer.marathon"); got != "192.168.50.201" {
					t.Errorf("once the master is well, wanderer is at %q", got)
				}
			})
		})
	}
}
