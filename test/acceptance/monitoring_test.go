package acceptance

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/miekg/dns"
)

const (
	alertsFile    = "../../deploy/alerts.yaml"
	dashboardFile = "../../deploy/grafana.json"
)

// TestAlerts has promtool check the alerts and run their tests. Each must be tested both ways, and
// be documented.
func TestAlerts(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", alertsFile}, {"test", "rules", "../../deploy/alerts_test.yaml"}} {
		if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", args, err, out)
		}
	}
	tests, manual := read(t, "../../deploy/alerts_test.yaml"), read(t, "../../docs/operating.md")
	alerts := regexp.MustCompile(`(?m)- alert: (\w+)$`).FindAllStringSubmatch(read(t, alertsFile), -1)
	for _, a := range alerts {
		for _, text := range []string{"- name: " + a[1] + " fires\n", "- name: " + a[1] + " does not fire\n"} {
			if !strings.Contains(tests, text) {
				t.Errorf("alerts_test.yaml lacks %q", text)
			}
		}
		if !strings.Contains(manual, "\n### "+a[1]+"\n") {
			t.Errorf("docs/operating.md lacks %s", a[1])
		}
	}
	if sections := strings.Count(manual, "\n### Calicomesos"); sections != len(alerts) || sections == 0 {
		t.Errorf("docs/operating.md has %d alerts, and there are %d", sections, len(alerts))
	}
}

// TestDashboard holds the dashboard against Grafana's schema, and has Prometheus run its queries,
// and look up all that the alerts select, at a CoreDNS that runs.
func TestDashboard(t *testing.T) {
	plugins.RegisterDefaultPlugins() // which decode the options of panels, and targets
	var board dashboard.Dashboard    //nolint:staticcheck // the newer format is for the newest versions of Grafana alone
	for _, err := range []error{board.UnmarshalJSONStrict([]byte(read(t, dashboardFile))), board.Validate()} {
		if err != nil && err.Error() != "" { // without errors it is an empty list of them
			t.Fatalf("against the schema: %v", err)
		}
	}
	queries := make(map[string]string) // by what has them
	for expr := range exprs(t) {
		queries["dashboard: "+expr] = expr
	}
	if len(queries) < 30 {
		t.Fatalf("the dashboard has %d queries", len(queries))
	}
	selector := regexp.MustCompile(`coredns_\w+(\{[^}]*\})?`)
	for _, line := range regexp.MustCompile(`(?m)^ +(?:expr: )?.*coredns_.*$`).FindAllString(read(t, alertsFile), -1) {
		if !strings.Contains(line, "_url:") {
			for _, s := range selector.FindAllString(line, -1) {
				queries["alerts: "+s] = s
			}
		}
	}
	prometheus := monitored(t)
	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health string }
		}
	}
	loopback.Eventually(t, func() string {
		prometheus.get(t, "rules", nil, &rules)
		for _, r := range rules.Groups[0].Rules {
			if r.Health != "ok" {
				return fmt.Sprintf("%s is %s", r.Name, r.Health)
			}
		}
		return ""
	})
	loopback.Eventually(t, func() string {
		var empty []string
		for _, name := range slices.Sorted(maps.Keys(queries)) {
			if prometheus.count(t, queries[name]) == 0 {
				empty = append(empty, name)
			}
		}
		return strings.Join(empty, "\n")
	})
}

// exprs yields the queries of the dashboard, with values for its variables.
func exprs(t *testing.T) func(yield func(string) bool) {
	var board struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &board); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5s", "[5m]", "[5s]", "$cluster", ".*", "$instance", ".*", "$job", ".*")
	return func(yield func(string) bool) {
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				if !yield(fill.Replace(target.Expr)) {
					return
				}
			}
		}
	}
}

// prometheusServer is the address of a Prometheus.
type prometheusServer string

// monitored runs a CoreDNS that has every metric of the plugin, and a Prometheus that reads it.
func monitored(t *testing.T) prometheusServer {
	dir := t.TempDir()
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	t.Cleanup(master.Close)
	m.Refuse(http.StatusServiceUnavailable, "")
	port, web, metrics, dead, server := freePort(t), freePort(t), freePort(t), freePort(t), freePort(t)
	corefile := fmt.Sprintf(`.:%d {
	bind 127.0.0.1
	prometheus 127.0.0.1:%d
	transfer {
		to * 127.0.0.1:%d %s
	}
	calicomesos {
		master zk://127.0.0.1:%d/mesos %s
		snapshot %s/snapshot
		startup_timeout 0s
		http 127.0.0.1:%d
		allow 192.168.0.0/20
		vhosts acme.org to 192.0.2.1 for *
	}
}
`, port, metrics, dead, secondary(t), dead, master.URL, dir, web)
	program := loopback.Start(t, exec.Command("../../bin/coredns", "-conf", write(t, dir, "Corefile", corefile)))
	program.WaitFor(`CoreDNS-`)
	rules, err := filepath.Abs(alertsFile)
	if err != nil {
		t.Fatal(err)
	}
	config := write(t, dir, "prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs: [{job_name: coredns, static_configs: [{targets: ["127.0.0.1:%d"]}]}]
`, rules, metrics))
	loopback.Start(t, exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "tsdb"), fmt.Sprintf("--web.listen-address=127.0.0.1:%d", server))).
		WaitFor(`Server is ready`)

	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ask(t, addr, "leader.mesos.", dns.RcodeServerFailure)
	if n := axfr(t, addr); n > 0 {
		t.Fatalf("%d messages are transferred of a zone of which nothing is known", n)
	}
	m.Lead()
	program.WaitFor(`Subscribed to`)
	m.Inject([]byte("2\n\x08\x63")) // an event of an unknown type
	ask(t, addr, "leader.mesos.", dns.RcodeSuccess)
	ask(t, addr, "nope.mesos.", dns.RcodeNameError)
	if axfr(t, addr) == 0 {
		t.Fatal("nothing is transferred")
	}
	if resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", web)); err != nil || resp.Body.Close() != nil {
		t.Fatal(err)
	}
	checkMetrics(t, fmt.Sprintf("http://127.0.0.1:%d/metrics", metrics))
	return prometheusServer(fmt.Sprintf("http://127.0.0.1:%d/api/v1/", server))
}

// secondary starts a name server that answers NOTIFYs, and returns its address.
func secondary(t *testing.T) string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetReply(r)) })}
	go func() { _ = server.ActivateAndServe() }()
	t.Cleanup(func() { _ = server.Shutdown() })
	return pc.LocalAddr().String()
}

// ask asks for the A records of a name until the response code is as wanted: the state may be subscribed
// to and not published yet.
func ask(t *testing.T, addr, name string, want int) {
	t.Helper()
	loopback.Eventually(t, func() string {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), addr)
		if err != nil || r.Rcode != want {
			return fmt.Sprintf("%s: %v, %v", name, r, err)
		}
		return ""
	})
}

// axfr transfers a zone, and returns the number of messages that it takes.
func axfr(t *testing.T, addr string) int {
	ch, err := new(dns.Transfer).In(new(dns.Msg).SetAxfr("mesos."), addr)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for e := range ch {
		if e.Error == nil {
			n++
		}
	}
	return n
}

// checkMetrics has promtool check what the plugin exposes.
func checkMetrics(t *testing.T, metricsURL string) {
	resp, err := http.Get(metricsURL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var ours strings.Builder
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "coredns_calicomesos_") {
			ours.WriteString(line)
		}
	}
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(ours.String())
	if out, err := check.CombinedOutput(); err != nil || len(out) > 0 || ours.Len() < 1000 {
		t.Errorf("promtool check metrics of %d octets: %v\n%s", ours.Len(), err, out)
	}
}

// get asks the API of Prometheus.
func (p prometheusServer) get(t *testing.T, path string, values url.Values, data any) {
	resp, err := http.Get(string(p) + path + "?" + values.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %v: %v %s", path, values, err, answer.Error)
	}
}

// count returns how many series a query has.
func (p prometheusServer) count(t *testing.T, query string) int {
	var data struct{ Result []any }
	p.get(t, "query", url.Values{"query": {query}}, &data)
	return len(data.Result)
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
