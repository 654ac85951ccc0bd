package calicomesos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/api"
	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/zone"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

// freeAddress returns an address to listen on.
func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// get asks the API, and returns the answer with its body.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(b)
}

// getJSON asks the API for JSON.
func getJSON[T any](t *testing.T, url string) T {
	t.Helper()
	r, body := get(t, url)
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil || r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%s: %s, %v:\n%s", url, r.Status, err, body)
	}
	return v
}

// recordedAnswer is what Mesos-DNS answered to a request.
type recordedAnswer struct {
	Path        string          `json:"path"`
	Status      int             `json:"status"`
	ContentType string          `json:"content_type"`
	Body        json.RawMessage `json:"body"`
}

func recordedAnswers(t *testing.T, file string) []recordedAnswer {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []recordedAnswer
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var a recordedAnswer
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		all = append(all, a)
	}
	if lines.Err() != nil || len(all) < 10 {
		t.Fatalf("%s: %d lines, %v", file, len(all), lines.Err())
	}
	return all
}

// TestMesosDNSAPI asks for all that was recorded of Mesos-DNS's API.
func TestMesosDNSAPI(t *testing.T) {
	for _, dir := range dataDirs() {
		files, err := filepath.Glob(filepath.Join(dir, "mesos-dns", "*.http.jsonl"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no recordings in %s: %v", dir, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".http.jsonl")
			t.Run(filepath.Base(dir)+"/"+name, func(t *testing.T) {
				m := mesostest.NewMaster(0)
				state := readState(t, filepath.Join(dir, "clusters", name+".json"))
				m.Load(state)
				master := mesostest.Start(m)
				defer master.Close()
				addr := freeAddress(t)
				startServer(t, fmt.Sprintf("%s {\n master %s\n http %s\n}", pluginName, master.URL, addr))
				mo := &moment{state, "5050"}
				c := &apiComparison{moment: mo, dns: expected(mo, mesosDNSLines(t, filepath.Join(dir, "mesos-dns", name+".txt")))}
				for _, a := range recordedAnswers(t, file) {
					r, body := get(t, "http://"+addr+strings.ReplaceAll(a.Path, " ", "%20"))
					c.compare(t, a, r, body)
				}
			})
		}
	}
}

// apiComparison compares answers with recorded ones. What is expected of records follows from
// the deviations of conformance_test.go; the rules here are for what only HTTP has.
type apiComparison struct {
	*moment
	dns lines // all that is served
}

func (c *apiComparison) compare(t *testing.T, a recordedAnswer, r *http.Response, body string) {
	t.Helper()
	switch {
	case a.Path == "/": // deviation: it is the page
		if r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/html") {
			t.Errorf("/: %s, %s", r.Status, r.Header.Get("Content-Type"))
		}
		return
	case r.StatusCode != a.Status || r.Header.Get("Content-Type") != a.ContentType:
		t.Errorf("%s: %s %s, recorded %d %s", a.Path, r.Status, r.Header.Get("Content-Type"), a.Status, a.ContentType)
		return
	case a.Status != http.StatusOK:
		var text string
		if json.Unmarshal(a.Body, &text) != nil || body != text {
			t.Errorf("%s: %q, recorded %s", a.Path, body, a.Body)
		}
		return
	}
	var got, want lines
	kind, name, _ := strings.Cut(strings.TrimPrefix(a.Path, "/v1/"), "/")
	switch kind {
	case "version": // deviation: the values are ours
		got, want = keysOf(t, []byte(body)), keysOf(t, a.Body)
	case "hosts":
		got, want = hostRows(t, []byte(body)), c.wantHosts(name, hostRows(t, a.Body))
	case "services":
		got, want = serviceRows(t, []byte(body)), c.wantServices(name, serviceRows(t, a.Body))
	case "axfr":
		got, want = c.transferred(t, []byte(body)), c.wantRecords(c.transferred(t, a.Body))
	case "enumerate":
		got, want = enumeratedRows(t, []byte(body)), c.wantEnumerated(enumeratedRows(t, a.Body))
	default:
		t.Fatalf("unknown path %s", a.Path)
	}
	if diff := difference(got, want); diff != "" {
		t.Errorf("%s:\n%s", a.Path, diff)
	}
}

func decode(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%v in %.200s", err, b)
	}
}

func keysOf(t *testing.T, b []byte) lines {
	var v map[string]string
	decode(t, b, &v)
	l := make(lines)
	for k, value := range v {
		if value != "" {
			l[k] = true
		}
	}
	return l
}

// hostRows returns rows as `A host ip`, and the row of empty strings as none.
func hostRows(t *testing.T, b []byte) lines {
	var rows []struct{ Host, IP string }
	decode(t, b, &rows)
	l := make(lines)
	for _, r := range rows {
		l[fmt.Sprintf("%s %s %s", typeOf(r.IP), r.Host, r.IP)] = true
	}
	if len(rows) == 1 && rows[0].Host == "" {
		return lines{}
	}
	return l
}

func typeOf(ip string) string {
	if strings.Contains(ip, ":") {
		return "AAAA"
	}
	return "A"
}

// wantRecords applies the deviations of DNS to records, of which those that no task has (extras
// that the recorded answer is not about) are left out.
func (c *apiComparison) wantRecords(from lines) lines {
	var all []recorded
	for line := range from {
		fields := mesosDNSLine.FindStringSubmatch(line)
		all = append(all, recorded{fields[1], fields[2], fields[3]})
	}
	return expected(c.moment, all)
}

// isLegal reports whether a name is found: deviation: raw spellings are not, but for underscores.
func isLegal(name string) bool { return zone.Dashed(name) == legal(name) }

// wantHosts returns what is answered to /v1/hosts/NAME.
func (c *apiComparison) wantHosts(asked string, from lines) lines {
	want := make(lines)
	name := strings.ToLower(dns.Fqdn(asked))
	if !isLegal(name) {
		return want
	}
	for line := range c.wantRecords(from) {
		words := strings.SplitN(line, " ", 3)
		if legal(name) == words[1] && words[0] != "SRV" {
			want[words[0]+" "+name+" "+words[2]] = true
		}
	}
	return want
}

// serviceRows returns rows as `SRV service host:port ip`.
func serviceRows(t *testing.T, b []byte) lines {
	var rows []struct{ Service, Host, IP, Port string }
	decode(t, b, &rows)
	l := make(lines)
	for _, r := range rows {
		l[fmt.Sprintf("SRV %s %s:%s %s", r.Service, r.Host, r.Port, r.IP)] = true
	}
	if len(rows) == 1 && rows[0].Host == "" {
		return lines{}
	}
	return l
}

// wantServices returns what is answered to /v1/services/NAME: deviation: a row for each address
// of the target, of which Mesos-DNS has the first.
func (c *apiComparison) wantServices(asked string, from lines) lines {
	name := strings.ToLower(dns.Fqdn(asked))
	records := make(lines)
	for line := range from {
		cut := strings.LastIndexByte(line, ' ')
		data := line[:cut]
		records["SRV "+name+data[strings.LastIndexByte(data, ' '):]] = true
	}
	want := make(lines)
	if !isLegal(name) {
		return want
	}
	for line := range c.wantRecords(records) {
		words := strings.SplitN(line, " ", 3)
		if words[0] != "SRV" || words[1] != legal(name) {
			continue
		}
		target, _, _ := strings.Cut(words[2], ":")
		for address := range c.dns {
			of := strings.SplitN(address, " ", 3)
			if (of[0] == "A" || of[0] == "AAAA") && of[1] == target {
				want[fmt.Sprintf("SRV %s %s %s", asked, words[2], of[2])] = true
			}
		}
	}
	return want
}

// transferred reads /v1/axfr as dcos-net does: it cuts names by the length of Domain, and
// `host:port` at the colon.
func (c *apiComparison) transferred(t *testing.T, b []byte) lines {
	var zone struct {
		TTL, Serial, RefreshSeconds int
		Mname, Rname, Domain        string
		Records                     struct{ As, AAAAs, SRVs map[string][]string }
	}
	decode(t, b, &zone)
	if zone.TTL < 1 || zone.Serial == 0 || zone.RefreshSeconds < 1 || zone.Mname != "ns1.mesos." || zone.Rname == "" || zone.Domain != "mesos" {
		t.Errorf("%+v", zone)
	}
	cut := func(name string) string {
		if !strings.HasSuffix(name, "."+zone.Domain+".") {
			t.Errorf("%q is not in %q", name, zone.Domain)
		}
		return name[:len(name)-len(zone.Domain)-2]
	}
	l := make(lines)
	for typ, sets := range map[string]map[string][]string{"A": zone.Records.As, "AAAA": zone.Records.AAAAs, "SRV": zone.Records.SRVs} {
		for owner, all := range sets {
			for _, data := range all {
				if typ == "SRV" {
					host := strings.Split(data, ":")
					if len(host) != 2 {
						t.Errorf("%q has several colons", data)
					}
					data = cut(host[0]) + ".mesos.:" + host[1]
				}
				l[fmt.Sprintf("%s %s.mesos. %s", typ, cut(owner), data)] = true
			}
		}
	}
	return l
}

// enumeratedRows returns the records of all tasks, and the tasks as `TASK framework name id`.
func enumeratedRows(t *testing.T, b []byte) lines {
	var all struct {
		Frameworks []struct {
			Name  string
			Tasks []struct {
				Name, ID string
				Records  []struct{ Name, Host, Rtype string }
			}
		}
	}
	decode(t, b, &all)
	l := make(lines)
	for _, f := range all.Frameworks {
		for _, task := range f.Tasks {
			l[fmt.Sprintf("TASK %s|%s %s", f.Name, task.Name, task.ID)] = true
			for _, r := range task.Records {
				l[fmt.Sprintf("%s %s %s", r.Rtype, r.Name, r.Host)] = true
			}
		}
	}
	return l
}

// wantEnumerated applies the deviations to the records of /v1/enumerate.
func (c *apiComparison) wantEnumerated(from lines) lines {
	records, want := make(lines), make(lines)
	for line := range from {
		typ, _, _ := strings.Cut(line, " ")
		switch typ {
		case "TASK":
			want[line] = true
		case "PTR": // deviation: an address points to the spelling without dots alone
			fields := mesosDNSLine.FindStringSubmatch(line)
			dotted := slices.ContainsFunc(c.running(), func(t *mesostest.Task) bool {
				return t.Discovery != nil && strings.Contains(t.Discovery.Name, ".") && strings.HasPrefix(fields[2], t.Discovery.Name+".")
			})
			if !dotted {
				want["PTR "+legal(fields[2])+" "+fields[3]] = true
			}
		default:
			records[line] = true
		}
	}
	for line := range c.wantRecords(records) {
		if !strings.HasPrefix(line, "SRV _framework.") { // it is of no task
			want[line] = true
		}
	}
	return want
}

// TestHTTP_Reload keeps the listener over reloads, one of which fails, and tells of the stanza
// that serves.
func TestHTTP_Reload(t *testing.T) {
	_, srv := countedTutorial(t)
	addr := freeAddress(t)
	stanza := fmt.Sprintf("%s ZONE {\n master %s\n http %s\n}", pluginName, srv.URL, addr)
	with := func(zone string) string { return strings.Replace(stanza, "ZONE", zone, 1) }
	s := startServer(t, with("mesos"))
	domain := func() string {
		return getJSON[struct{ Domain string }](t, "http://"+addr+"/v1/config").Domain
	}
	server := running.web[addr].Server
	if got := domain(); got != "mesos" {
		t.Errorf("domain %q", got)
	}
	if err := s.restart(with("example"), ""); err != nil {
		t.Fatal(err)
	}
	if got := domain(); got != "example" || running.web[addr].Server != server || len(running.web[addr].stanzas) != 1 {
		t.Errorf("domain %q after a reload, the listener is kept: %v, %d stanzas", got, running.web[addr].Server == server, len(running.web[addr].stanzas))
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := s.restart(with("other"), fmt.Sprintf("other.:%d {\n bind 127.0.0.1\n errors\n}\n", taken.Addr().(*net.TCPAddr).Port)); err == nil {
		t.Fatal("started on a port in use")
	}
	if got := domain(); got != "example" {
		t.Errorf("domain %q after a reload that failed", got)
	}
	other := strings.Replace(with("mesos"), addr, taken.Addr().String(), 1)
	if err := s.restart(other, ""); err == nil {
		t.Fatal("started with the API's port in use")
	}
	if got := domain(); got != "example" {
		t.Errorf("domain %q after the API could not listen", got)
	}
	if err := s.restart(strings.Replace(with("mesos"), " http "+addr+"\n", "", 1), ""); err != nil {
		t.Fatal(err)
	}
	if len(running.web) != 0 {
		t.Errorf("%d servers are left without http", len(running.web))
	}
	if l, err := net.Listen("tcp", addr); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

// TestHTTP_Starting tells of the stanza before while a new one has no state yet.
func TestHTTP_Starting(t *testing.T) {
	_, srv := countedTutorial(t)
	addr := freeAddress(t)
	startServer(t, fmt.Sprintf("%s {\n master %s\n http %s\n}", pluginName, srv.URL, addr))
	next := &stanza{plugin: &CalicoMesos{ready: make(chan struct{})}}
	if err := running.listen(addr, next, &insight{}); err != nil {
		t.Fatal(err)
	}
	if running.toldAt(addr) == api.Stanza(running.web[addr].stanzas[1].insight) {
		t.Error("it tells of a stanza without a state")
	}
	close(next.plugin.ready)
	if running.toldAt(addr) != api.Stanza(running.web[addr].stanzas[1].insight) {
		t.Error("it does not tell of the new stanza")
	}
	running.leave(addr, next)
}

// TestHTTP_NotReady answers 503 before there is a state, and tells how it stands.
func TestHTTP_NotReady(t *testing.T) {
	m := mesostest.NewMaster(0)
	master := mesostest.Start(m)
	defer master.Close()
	m.Refuse(http.StatusServiceUnavailable, "")
	addr := freeAddress(t)
	startServer(t, fmt.Sprintf("%s {\n master %s\n http %s\n startup_timeout 0s\n}", pluginName, master.URL, addr))
	for _, path := range []string{"hosts/a.mesos", "services/_a._tcp.mesos", "axfr", "enumerate"} {
		if r, _ := get(t, "http://"+addr+"/v1/"+path); r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	s := getJSON[api.Status](t, "http://"+addr+"/v1/status")
	if s.Ready || s.Synced || s.Connected || s.Heard != "" || len(s.Masters) != 1 || s.Zones[0].Serial != 0 || s.Zones[0].Complete {
		t.Errorf("%+v", s)
	}
	if e := getJSON[api.Explanation](t, "http://"+addr+"/v1/explain/a.mesos"); e.Rcode != "SERVFAIL" || !slices.Contains(e.Reasons, "no state of the cluster is known yet") {
		t.Errorf("%+v", e)
	}
}

// TestHTTP_Stale marks answers from a snapshot.
func TestHTTP_Stale(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	stanza := fmt.Sprintf("%s {\n master %s\n snapshot %s\n", pluginName, master.URL, filepath.Join(t.TempDir(), "snapshot"))
	s := startServer(t, stanza+"}")
	s.stop()
	m.Refuse(http.StatusServiceUnavailable, "")
	addr := freeAddress(t)
	startServer(t, stanza+"http "+addr+"\n}")
	r, body := get(t, "http://"+addr+"/v1/hosts/v6.marathon.mesos")
	if r.Header.Get("Warning") == "" || !strings.Contains(body, "fd00:192:168::10") {
		t.Errorf("%v\n%s", r.Header, body)
	}
	if r, _ := get(t, "http://"+addr+"/v1/hosts/nope.marathon.mesos"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("an unknown name: %s", r.Status)
	}
	if r, _ := get(t, "http://"+addr+"/v1/axfr"); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the whole zone: %s", r.Status)
	}
	if s := getJSON[api.Status](t, "http://"+addr+"/v1/status"); !s.Stale || s.Synced {
		t.Errorf("%+v", s)
	}
}

// TestHTTP_Two refuses two stanzas at one address, and one at an address that is taken.
func TestHTTP_Two(t *testing.T) {
	_, srv := countedTutorial(t)
	addr := freeAddress(t)
	stanza := func(zone, host string) string {
		return fmt.Sprintf("%s:0 {\n bind 127.0.0.1\n %s %s {\n master %s\n containerip\n http %s\n}\n}\n", zone, pluginName, zone, srv.URL, host+addr[strings.LastIndexByte(addr, ':'):])
	}
	_, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(stanza("a", "127.0.0.1") + stanza("b", "localhost"))})
	if err == nil || !strings.Contains(err.Error(), "belongs to another stanza") {
		t.Errorf("two stanzas: %v", err)
	}
	taken, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := tryServer(t, fmt.Sprintf("%s {\n master %s\n http %s\n}", pluginName, srv.URL, addr)); err == nil || !strings.Contains(err.Error(), `property "http"`) {
		t.Errorf("a port in use: %v", err)
	}
	if len(running.all()) != 0 || len(running.web) != 0 {
		t.Errorf("%d stanzas and %d servers are left", len(running.all()), len(running.web))
	}
}

// TestHTTP_Status describes a cluster with an agent that has yet to re-register.
func TestHTTP_Status(t *testing.T) {
	m := mesostest.NewMaster(0)
	tut := mesostest.NewTutorial(m)
	state := m.State()
	state.Agents.Recovered = append(state.Agents.Recovered, &tut.Agent(7, "172.24.197.107").AgentInfo)
	m.Load(state)
	master := mesostest.Start(m)
	defer master.Close()
	addr := freeAddress(t)
	startServer(t, fmt.Sprintf("%s mesos 192.168.0.0/16 {\n master %s\n http %s\n vhosts acme.org to tasks for *\n poll 1s\n}", pluginName, master.URL, addr))
	s := getJSON[api.Status](t, "http://"+addr+"/v1/status")
	var zones []string
	for _, z := range s.Zones {
		zones = append(zones, fmt.Sprintf("%s %s %v", z.Name, z.Scheme, z.Complete))
		if z.Serial == 0 || z.Records < 2 {
			t.Errorf("%+v", z)
		}
	}
	want := []string{"mesos. mesos-dns false", "dcos.thisdcos.directory. dcos false", "168.192.in-addr.arpa. reverse false", "acme.org. vhosts false"}
	if !slices.Equal(zones, want) {
		t.Errorf("zones %v, want %v", zones, want)
	}
	if s.Mode != "poll" || !s.Connected || s.Synced || !s.Ready || s.Tasks != 10 || s.Agents != 2 || s.AwayCount != 1 || len(s.Away) != 1 || s.Away[0].ID != tut.AgentID(7) || s.Leader == "" || s.Version == "" || s.CoreDNS == "" {
		t.Errorf("%+v", s)
	}
}

// TestHTTP_Tasks lists and finds tasks.
func TestHTTP_Tasks(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	m.AddTask(tut.Task(mesostest.App{Name: "!!!", Network: "calico"}, "odd.1", 0, "192.168.84.250"))
	m.AddTask(tut.Task(mesostest.App{Name: "zz", Network: "calico", Ports: []mesostest.Port{{Number: 70000}}}, "zz.1", 1, "192.168.50.251"))
	master := mesostest.Start(m)
	defer master.Close()
	addr := freeAddress(t)
	startServer(t, fmt.Sprintf("%s {\n master %s\n http %s\n}", pluginName, master.URL, addr))
	for query, want := range map[string]string{
		"":                          "12/12: !!! api.pod db.prod marathon-lb nginx nginx nginx sidecar.pod v6 wanderer web zz",
		"?limit=2&offset=1":         "12/12: api.pod db.prod",
		"?limit=0":                  "12/12: ",
		"?offset=99":                "12/12: ",
		"?q=NGINX":                  "3/12: nginx nginx nginx",
		"?q=78e51061":               "1/12: nginx",
		"?q=192.168.84.192":         "1/12: nginx",
		"?q=fd00:192:168::10":       "1/12: v6",
		"?q=172.24.197.101":         "5/12: !!! marathon-lb nginx v6 wanderer",
		"?q=prod_db":                "1/12: db.prod",
		"?q=marathon&limit=1":       "12/12: !!!",
		"?skipped=true":             "2/12: !!! zz",
		"?q=nginx&skipped=true":     "0/12: ",
		"?q=nothing":                "0/12: ",
		"?q=nginx.marathon.mesos":   "3/12: nginx nginx nginx",
		"?q=db-prod.marathon":       "1/12: db.prod",
		"?q=mytask.acme":            "3/12: nginx nginx nginx",
		"?q=%3Cscript%3E":           "0/12: ",
		"?q=wanderer&skipped=false": "1/12: wanderer",
	} {
		found := getJSON[api.Tasks](t, "http://"+addr+"/v1/tasks"+query)
		var names []string
		for _, task := range found.Tasks {
			names = append(names, task.Name)
		}
		got := fmt.Sprintf("%d/%d: %s", found.Total, found.Known, strings.Join(names, " "))
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

// BenchmarkTasks lists the first of 100,000 tasks, finds some, and those of which something is not
// published, each with a new view of the cluster.
func BenchmarkTasks(b *testing.B) {
	o, err := parseStanza("calicomesos")
	if err != nil {
		b.Fatal(err)
	}
	model := cluster.New(nil)
	model.State(bigState(b, 100_000, 3), cluster.Leader{ID: "m"}, time.Now())
	p := newPublisher(&o.rules, o.newZones(nil, false), func(string) {}, make(chan struct{}))
	i := &insight{options: o, zones: p.zones, take: func(context.Context) (*cluster.View, error) { return viewOf(model), nil }}
	for name, q := range map[string]api.Query{"first": {Limit: 100}, "found": {Text: "app-333.", Limit: 100}, "skipped": {Skipped: true, Limit: 100}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				i.at = time.Time{}
				if _, err := i.Tasks(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// viewOf returns a view of a cluster.
func viewOf(c *cluster.Cluster) *cluster.View {
	v := c.Collect()
	defer v.End()
	for done := false; !done; {
		done = v.Step()
	}
	return v.View()
}

// TestInsight_Look takes a new view of the cluster when the last one is old.
func TestInsight_Look(t *testing.T) {
	taken := 0
	i := &insight{take: func(context.Context) (*cluster.View, error) {
		taken++
		return &cluster.View{}, nil
	}}
	synctest.Test(t, func(t *testing.T) {
		for _, want := range []int{1, 1, 2} {
			if _, err := i.look(t.Context()); err != nil || taken != want {
				t.Errorf("%d views, want %d; %v", taken, want, err)
			}
			time.Sleep(viewAge * 2 / 3)
		}
	})
}

// TestInsight_Bounds names some of many tasks in an explanation, and none of a framework that is
// not published in an enumeration.
func TestInsight_Bounds(t *testing.T) {
	c := &ruleCase{t: t}
	c.state("framework marathon")
	c.state("framework other")
	c.state("options frameworks marathon")
	for range maxExplained + 1 {
		c.state("task app")
	}
	c.state("task app framework=x-0001")
	i := c.insight()
	e, err := i.Explain(t.Context(), "app.marathon.mesos")
	if err != nil || len(e.Tasks) != maxExplained || e.Total != maxExplained+1 {
		t.Errorf("%d of %d tasks are explained: %v", len(e.Tasks), e.Total, err)
	}
	if texts := some(make([]string, maxExplained+7)); len(texts) != maxExplained+1 || texts[maxExplained] != "… and 7 more" {
		t.Errorf("%d texts of many: %q", len(texts), texts[len(texts)-1])
	}
	long := &ruleCase{t: t}
	long.state("framework f*63.f*63.f*63.f*50")
	if found, err := long.insight().Tasks(t.Context(), api.Query{Skipped: true, Limit: 1}); err != nil || found.Total != 1 {
		t.Errorf("a task whose names are too long is not found among those that are skipped: %+v, %v", found, err)
	}
	frameworks, err := i.Enumerate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for f := range frameworks {
		if f.Name != "marathon" {
			t.Errorf("framework %s is enumerated", f.Name)
		}
	}
}
