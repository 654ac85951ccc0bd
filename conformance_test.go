package calicomesos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// lines are the records of a zone as `TYPE owner data`.
type lines map[string]bool

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// rdata is the data of a record, in the form of mesos-dns.txt.
func rdata(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	case *dns.SRV:
		return fmt.Sprintf("%s:%d", rr.Target, rr.Port)
	case *dns.PTR:
		return rr.Ptr
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// served returns the zone as lines, without its apex.
func served(rrs []dns.RR) lines {
	l := make(lines)
	for _, rr := range rrs {
		switch rr.(type) {
		case *dns.SOA, *dns.NS:
			continue
		}
		l[fmt.Sprintf("%s %s %s", dns.TypeToString[rr.Header().Rrtype], rr.Header().Name, rdata(rr))] = true
	}
	return l
}

var (
	mesosDNSLine = regexp.MustCompile(`^(A|AAAA|SRV|PTR) (.*?\.(?:mesos|arpa)\.) (.*)$`)
	mesosDNSSRV  = regexp.MustCompile(`(\S.*?\.mesos\.:\d+)(?: |$)`)
)

// mesosDNSLines reads what Mesos-DNS served, a line for each record.
func mesosDNSLines(t *testing.T, file string) []recorded {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	for line := range strings.Lines(string(b)) {
		m := mesosDNSLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("%s: line %q", file, line)
		}
		data := strings.Fields(m[3])
		if m[1] == "SRV" {
			data = nil
			for _, srv := range mesosDNSSRV.FindAllStringSubmatch(m[3], -1) {
				data = append(data, srv[1])
			}
		}
		for _, d := range data {
			all = append(all, recorded{typ: m[1], owner: m[2], data: d})
		}
	}
	return all
}

// recorded is a record that Mesos-DNS served.
type recorded struct{ typ, owner, data string }

// target splits the data of an SRV record.
func (r recorded) target() (name, port string) {
	i := strings.LastIndexByte(r.data, ':')
	return r.data[:i], r.data[i+1:]
}

// moment is what a deviation may look at: the state of the cluster, and where
// the test's master is.
type moment struct {
	state *mesostest.GetState
	port  string // of the leader
}

// deviation is a difference from Mesos-DNS that is meant. It returns what we
// serve instead of r, and what we serve besides.
type deviation struct {
	name  string
	apply func(m *moment, r recorded) []recorded
	extra func(m *moment) []recorded
}

var canonicalLabel = regexp.MustCompile(`-[a-z0-9]{5}-s\d+$`)

// legal makes a name of Mesos-DNS, stored as the scheduler sent it, a legal one.
func legal(name string) string {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	kept := labels[:0]
	for i, l := range labels {
		prefix := ""
		if strings.HasPrefix(l, "_") && (i == 0 || strings.HasPrefix(labels[i-1], "_") || l == "_tcp" || l == "_udp") {
			prefix = "_"
		}
		suffix := canonicalLabel.FindString(l)
		body := label(strings.TrimSuffix(l[len(prefix):], suffix), 63)
		body = strings.TrimRight(body[:min(len(body), 63-len(prefix)-len(suffix))], "-")
		if l = prefix + body + suffix; l != "" && l != "_" {
			kept = append(kept, l)
		}
	}
	return strings.Join(kept, ".") + "."
}

// deviations are all differences from Mesos-DNS. A difference that none of
// them explains fails the test.
var deviations = []deviation{
	{
		name: "dotted names are sanitised, and no label is over 63 bytes",
		apply: func(_ *moment, r recorded) []recorded {
			r.owner = legal(r.owner)
			if r.typ == "SRV" {
				name, port := r.target()
				r.data = legal(name) + ":" + port
			}
			return []recorded{r}
		},
	},
	{
		name: "a port of the agent, or of a task without an address of its own, is on the task's slave name",
		apply: func(m *moment, r recorded) []recorded {
			if r.typ != "SRV" || strings.HasSuffix(r.owner, ".slave.mesos.") {
				return []recorded{r}
			}
			name, port := r.target()
			if m.isAgentPort(name, port) {
				r.data = strings.TrimSuffix(strings.TrimSuffix(name, "mesos."), "slave.") + "slave.mesos.:" + port
			}
			return []recorded{r}
		},
	},
	{
		name: "_framework is the port of webui_url",
		apply: func(_ *moment, r recorded) []recorded {
			if strings.HasPrefix(r.owner, "_framework.") {
				return nil
			}
			return []recorded{r}
		},
		extra: func(m *moment) []recorded {
			var all []recorded
			for _, f := range m.state.Frameworks.Frameworks {
				u, err := url.Parse(f.FrameworkInfo.WebUIURL)
				if err == nil && u.Port() != "" && net.ParseIP(f.FrameworkInfo.Hostname) != nil {
					name := labels(f.FrameworkInfo.Name) + ".mesos."
					all = append(all, recorded{"SRV", "_framework._tcp." + name, name + ":" + u.Port()})
				}
			}
			return all
		},
	},
	{
		name: "IPv6 addresses with a prefix length are addresses",
		extra: func(m *moment) []recorded {
			var all []recorded
			for _, t := range m.running() {
				for _, addr := range cniAddresses(t) {
					for _, owner := range m.owners(t) {
						all = append(all, recorded{"AAAA", owner, addr})
					}
				}
			}
			return all
		},
	},
	{
		name: "the leader is where the test's master is",
		apply: func(m *moment, r recorded) []recorded {
			switch r.owner {
			case "_leader._tcp.mesos.", "_leader._udp.mesos.":
				r.data = "leader.mesos.:" + m.port
			case "leader.mesos.", "master.mesos.", "master0.mesos.":
				r.data = "127.0.0.1"
			}
			return []recorded{r}
		},
	},
}

// isAgentPort reports whether a canonical name is that of a task which declares the port with
// the label network-scope: host, or which has no address of its own.
func (m *moment) isAgentPort(name, port string) bool {
	for _, t := range m.running() {
		if t.Discovery == nil || t.Discovery.Ports == nil || !strings.Contains(name, canonicalSuffix(t.TaskID.Value, t.AgentID.Value)) {
			continue
		}
		for _, p := range t.Discovery.Ports.Ports {
			if fmt.Sprint(p.Number) != port {
				continue
			}
			if !m.isOnNetwork(t) || p.Labels != nil && slices.Contains(p.Labels.Labels, mesostest.Label{Key: "network-scope", Value: "host"}) {
				return true
			}
		}
	}
	return false
}

// isOnNetwork reports whether a status of a task says that it has an address which is not its
// agent's.
func (m *moment) isOnNetwork(t *mesostest.Task) bool {
	var agent string
	for _, a := range m.state.Agents.Agents {
		if a.AgentInfo.ID.Value == t.AgentID.Value {
			agent = a.PID
		}
	}
	for _, s := range t.Statuses {
		if s.ContainerStatus == nil {
			continue
		}
		for _, n := range s.ContainerStatus.NetworkInfos {
			for _, a := range n.IPAddresses {
				if !strings.Contains(agent, "@"+a.IPAddress+":") {
					return true
				}
			}
		}
	}
	return false
}

func (m *moment) running() []*mesostest.Task {
	return slices.DeleteFunc(slices.Clone(m.state.Tasks.Tasks), func(t *mesostest.Task) bool { return t.State != mesostest.TaskRunning })
}

// owners are the names of a task with undotted name that have its addresses.
func (m *moment) owners(t *mesostest.Task) []string {
	var framework string
	for _, f := range m.state.Frameworks.Frameworks {
		if f.FrameworkInfo.ID.Value == t.FrameworkID.Value {
			framework = labels(f.FrameworkInfo.Name)
		}
	}
	suffix := canonicalSuffix(t.TaskID.Value, t.AgentID.Value)
	return []string{t.Name + "." + framework + ".mesos.", t.Name + suffix + "." + framework + ".mesos."}
}

// cniAddresses are the addresses of a task that carry a prefix length.
func cniAddresses(t *mesostest.Task) []string {
	var all []string
	for _, s := range t.Statuses {
		if s.ContainerStatus == nil {
			continue
		}
		for _, n := range s.ContainerStatus.NetworkInfos {
			for _, a := range n.IPAddresses {
				if addr, _, ok := strings.Cut(a.IPAddress, "/"); ok && !slices.Contains(all, addr) {
					all = append(all, addr)
				}
			}
		}
	}
	return all
}

// expected is what we serve where Mesos-DNS served all.
func expected(m *moment, all []recorded) lines {
	for _, d := range deviations {
		var next []recorded
		for _, r := range all {
			if d.apply == nil {
				next = append(next, r)
			} else {
				next = append(next, d.apply(m, r)...)
			}
		}
		if d.extra != nil {
			next = append(next, d.extra(m)...)
		}
		all = next
	}
	l := make(lines)
	for _, r := range all {
		l[fmt.Sprintf("%s %s %s", r.typ, r.owner, r.data)] = true
	}
	return l
}

// difference lists what got lacks of want, and what it has besides.
func difference(got, want lines) string {
	var diff []string
	for l := range maps.Keys(want) {
		if !got[l] {
			diff = append(diff, "missing    "+l)
		}
	}
	for l := range maps.Keys(got) {
		if !want[l] {
			diff = append(diff, "unexpected "+l)
		}
	}
	return strings.Join(sorted(diff), "\n")
}

func readState(t *testing.T, file string) *mesostest.GetState {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := mesostest.ParseState(b)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return s
}

// dataDirs are the directories with recorded data: the project's, and a wider set that the
// environment variable RECORDINGS names.
func dataDirs() []string {
	dirs := []string{"testdata"}
	if wider := os.Getenv("RECORDINGS"); wider != "" {
		dirs = append(dirs, wider)
	}
	return dirs
}

func transferBlock(master string) string {
	return fmt.Sprintf("transfer {\n to *\n}\n%s {\n master %s\n containerip\n}", pluginName, master)
}

// TestSyntheticClusters serves each cluster file from a simulated master, and
// compares the zone with what Mesos-DNS served for it.
func TestSyntheticClusters(t *testing.T) {
	for _, dir := range dataDirs() {
		files, err := filepath.Glob(filepath.Join(dir, "clusters", "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no clusters in %s: %v", dir, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".json")
			t.Run(filepath.Base(dir)+"/"+name, func(t *testing.T) {
				m := mesostest.NewMaster(0)
				state := readState(t, file)
				m.Load(state)
				master := mesostest.Start(m)
				defer master.Close()
				s := startServer(t, transferBlock(master.URL))
				rrs, err := s.axfr("mesos.")
				if err != nil {
					t.Fatal(err)
				}
				want := expected(&moment{state, "5050"}, mesosDNSLines(t, filepath.Join(dir, "mesos-dns", name+".txt")))
				if diff := difference(served(rrs), want); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// recordedMoment is one of a recorded run.
type recordedMoment struct {
	name string
	Time float64 `json:"t"`
	dir  string
}

func snapshots(t *testing.T, dir string) []recordedMoment {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(dir, "snapshots", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no snapshots in %s: %v", dir, err)
	}
	var all []recordedMoment
	for _, d := range dirs {
		s := recordedMoment{name: filepath.Base(d), dir: d}
		b, err := os.ReadFile(filepath.Join(d, "when.json"))
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b recordedMoment) int {
		if a.Time < b.Time {
			return -1
		}
		return 1
	})
	return all
}

// TestRecordedStreams replays every recorded stream through the whole plugin,
// and compares the zone at each snapshot with what Mesos-DNS served then.
func TestRecordedStreams(t *testing.T) {
	for _, dir := range dataDirs() {
		streams, err := filepath.Glob(filepath.Join(dir, "mesos", "*", "*.pb"))
		if err != nil || len(streams) == 0 {
			t.Fatalf("no streams in %s: %v", dir, err)
		}
		for _, file := range streams {
			t.Run(filepath.Base(dir)+"/"+filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) { replayStream(t, file) })
		}
	}
}

func replayStream(t *testing.T, file string) {
	replay, index := readStream(t, file)
	replay.SendTo(index[0].End())
	master := mesostest.Start(replay)
	defer master.Close()
	s := startServer(t, transferBlock(master.URL))
	_, port, err := net.SplitHostPort(master.Host)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, snap := range snapshots(t, filepath.Dir(file)) {
		last := slices.IndexFunc(index, func(r mesostest.Recorded) bool { return r.Time > snap.Time }) - 1
		if last < -1 { // the snapshot is after the last record
			last = len(index) - 1
		}
		if last = max(last, 0); belongsToAnotherStream(file, snap) {
			continue
		}
		compared++
		replay.SendTo(index[last].End())
		state := readState(t, filepath.Join(snap.dir, "get_state.json"))
		want := expected(&moment{state, port}, mesosDNSLines(t, filepath.Join(snap.dir, "mesos-dns.txt")))
		loopback.Eventually(t, func() string { return s.compare(snap.name, state, want) })
	}
	if compared == 0 {
		t.Error("no snapshot falls into the stream")
	}
}

// belongsToAnotherStream tells the streams of a run with several leaders apart:
// each snapshot of those is named after its stream, or "before" the failover.
func belongsToAnotherStream(file string, snap recordedMoment) bool {
	stream := strings.TrimSuffix(filepath.Base(file), ".pb")
	switch stream {
	case "old_leader":
		return snap.name != "before"
	case "new_leader", "after_zk":
		return !strings.HasPrefix(snap.name, stream)
	}
	return false
}

// compare compares the zone with want. While agents are recovered and unknown,
// the zone is not transferred: what it has is asked for, name by name.
func (s *server) compare(name string, state *mesostest.GetState, want lines) string {
	if len(state.Agents.Recovered) > 0 {
		return s.compareIncomplete(name, want)
	}
	rrs, err := s.axfr("mesos.")
	if err != nil {
		return err.Error()
	}
	if diff := difference(served(rrs), want); diff != "" {
		return name + ":\n" + diff
	}
	return ""
}

func (s *server) compareIncomplete(name string, want lines) string {
	if _, err := s.axfr("mesos."); err == nil {
		return name + ": an incomplete zone was transferred"
	}
	if m := s.ask("not-known-yet.marathon.mesos.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		return name + ": an unknown name of an incomplete state is " + dns.RcodeToString[m.Rcode]
	}
	for l := range want {
		f := strings.SplitN(l, " ", 3)
		if !strings.Contains(answers(s.ask(f[1], dns.StringToType[f[0]])), f[2]) {
			return name + ": missing " + l
		}
	}
	return ""
}

// TestRecordedStates compares, at each snapshot of the recorded streams, what the
// events have told with what the master answers: agents that have become
// unreachable or were marked gone have left without an AGENT_REMOVED.
func TestRecordedStates(t *testing.T) {
	for _, dir := range dataDirs() {
		streams, err := filepath.Glob(filepath.Join(dir, "mesos", "*", "*.pb"))
		if err != nil || len(streams) == 0 {
			t.Fatalf("no streams in %s: %v", dir, err)
		}
		for _, file := range streams {
			t.Run(filepath.Base(dir)+"/"+filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) { compareStates(t, file) })
		}
	}
}

func compareStates(t *testing.T, file string) {
	replay, index := readStream(t, file)
	replay.SendTo(index[len(index)-1].End())
	var answer []byte // of GET_STATE
	master := mesostest.Start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call, err := io.ReadAll(r.Body)
		if err != nil || bytes.Equal(call, []byte{8, 18}) { // SUBSCRIBE
			r.Body = io.NopCloser(bytes.NewReader(call))
			replay.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", replay.ContentType)
		_, _ = w.Write(answer)
	}))
	defer master.Close()
	client := mesos.NewClient(mesos.Config{})
	defer client.Close()
	stream, err := client.Subscribe(t.Context(), mesos.Target{URL: mesostest.API(master.Host)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	c := cluster.New(nil)
	at := 0
	for _, snap := range snapshots(t, filepath.Dir(file)) {
		if belongsToAnotherStream(file, snap) {
			continue
		}
		for ; at < len(index) && (at == 0 || index[at].Time <= snap.Time); at++ {
			ev, err := stream.Next()
			if err != nil {
				t.Fatal(err)
			}
			if first, ok := ev.(mesos.Subscribed); ok {
				c.State(first.State, cluster.Leader{ID: "m", Certain: true}, time.Now())
				continue
			}
			c.Event(ev)
		}
		c.Flush()
		if answer, err = os.ReadFile(filepath.Join(snap.dir, "get_state.pb")); err != nil {
			t.Fatal(err)
		}
		state, err := stream.Conn.State(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // an empty answer is believed the second time
			c.BeginReconcile()
			n := c.Listed(state, true)
			if ch := c.Flush(); n != 0 || !ch.Empty() {
				t.Errorf("%s: %d differences: %+v", snap.name, n, ch)
			}
		}
	}
}
