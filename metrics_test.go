package calicomesos

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// gathered are the plugin's metrics: names with their labels, and values.
func gathered(t *testing.T) (names map[string]string, values map[string]float64) {
	t.Helper()
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names, values = make(map[string]string), make(map[string]float64)
	for _, f := range families {
		name, ours := strings.CutPrefix(f.GetName(), "coredns_calicomesos_")
		if !ours {
			continue
		}
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			if p.Metric == f.GetName() {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
		for _, m := range f.GetMetric() {
			var labels, pairs []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
				pairs = append(pairs, l.GetName()+"="+l.GetValue())
			}
			names[name] = strings.Join(sorted(labels), ", ")
			v := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[name+"{"+strings.Join(sorted(pairs), ",")+"}"] = v
		}
	}
	return names, values
}

func TestMetrics(t *testing.T) {
	addr := freeAddress(t)
	s, master := tutorial(t, "vhosts acme.org to 192.0.2.1 nginx.marathon.mesos for external\nvhosts tasks.acme.org to tasks for *\nhttp "+addr)
	cluster := ""
	for _, c := range running.clusters {
		cluster = c.Name
	}
	master.Inject([]byte("2\n\x08\x63")) // an event of an unknown type
	unknown := fmt.Sprintf("events_total{cluster=%s,type=UNKNOWN}", cluster)
	loopback.Eventually(t, func() string {
		if _, values := gathered(t); values[unknown] != 1 {
			return fmt.Sprint(values)
		}
		return ""
	})
	get(t, "http://"+addr+"/v1/hosts/nginx.marathon.mesos")
	const skipped = "skipped{reason=name,server=dns://127.0.0.1:0,view=,zone=mesos.}"
	if _, values := gathered(t); slices.ContainsFunc(slices.Collect(maps.Keys(values)), func(m string) bool { return strings.HasPrefix(m, "skipped") }) {
		t.Error("things are counted that never were")
	}
	script := mesostest.NewScript("cd613e30-d8f1-6adf-91b7-584a2265b1f5")
	odd := script.Task(mesostest.App{Name: "!!!", Network: "calico"}, "odd.1", 0, "192.168.84.9")
	count := func(want float64) {
		t.Helper()
		loopback.Eventually(t, func() string {
			if _, values := gathered(t); values[skipped] != want {
				return fmt.Sprint(values)
			}
			return ""
		})
	}
	master.AddTask(odd)
	count(1)
	for _, name := range []string{"nginx.marathon.mesos.", "nginx.marathon.mesos.", "nope.mesos."} {
		s.ask(name, dns.TypeA)
	}
	names, values := gathered(t)
	for metric, want := range map[string]float64{
		"tasks{cluster=%s}":                                                      11,
		"agents{cluster=%s}":                                                     2,
		"frameworks{cluster=%s}":                                                 1,
		"synced{cluster=%s}":                                                     1,
		"leader_info{cluster=%s,master=%s}":                                      1,
		"connects_total{cluster=%s,result=ok}":                                   1,
		"connected{cluster=%s,mode=stream}":                                      1,
		"connected{cluster=%s,mode=poll}":                                        0,
		"leader_changes_total{cluster=%s}":                                       0,
		"unpublished_age_seconds{cluster=%s}":                                    0,
		"events_total{cluster=%s,type=SUBSCRIBED}":                               1,
		"publish_duration_seconds{cluster=%s}":                                   2,
		"records{server=dns://127.0.0.1:0,view=,zone=168.192.in-addr.arpa.}":     7,
		"vhosts_target_addresses{server=dns://127.0.0.1:0,view=,zone=acme.org.}": 4,
		"http_requests_total{code=200,path=/v1/hosts/{name}}":                    1,
		skipped: 1,
		"responses_total{rcode=NOERROR,server=dns://127.0.0.1:0,view=,zone=mesos.}":  2,
		"responses_total{rcode=NXDOMAIN,server=dns://127.0.0.1:0,view=,zone=mesos.}": 1,
	} {
		metric = strings.Replace(metric, "master=%s", "master="+strings.TrimPrefix(cluster, "http://"), 1)
		metric = strings.Replace(metric, "%s", cluster, 1)
		if got, ok := values[metric]; !ok || got != want {
			t.Errorf("%s is %v (%v), want %v", metric, got, ok, want)
		}
	}
	for _, metric := range []string{"last_contact_timestamp_seconds", "last_reconciliation_timestamp_seconds"} {
		if age := float64(time.Now().Unix()) - values[metric+"{cluster="+cluster+"}"]; age < -2 || age > 60 {
			t.Errorf("%s is %v s ago", metric, age)
		}
	}
	if age := values["state_age_seconds{cluster="+cluster+"}"]; age < 0 || age > 60 {
		t.Errorf("the state is %v s old", age)
	}
	inReadme(t, names)
	master.UpdateTask(odd.FrameworkID.Value, script.Status(odd, mesostest.TaskKilled), mesostest.TaskKilled)
	count(0)
	if _, values := gathered(t); fmt.Sprint(values[skipped]) != "0" || !slices.Contains(slices.Collect(maps.Keys(values)), skipped) {
		t.Error("what was counted is not, once it is none")
	}

	s.stop()
	if left, _ := gathered(t); len(left) != 1 || left["build_info"] == "" {
		t.Errorf("left at the end: %v", left)
	}
	if n := testutil.CollectAndCount(&running); n != 0 {
		t.Errorf("%d gauges are left at the end", n)
	}
}

// described returns all metrics of the plugin with their labels, also those without a value yet.
func described() map[string]string {
	ch := make(chan *prometheus.Desc, 1000)
	running.Describe(ch)
	requestsTotal.Describe(ch)
	for _, m := range ofClusters {
		m.(prometheus.Collector).Describe(ch)
	}
	close(ch)
	all := map[string]string{"build_info": "coredns, version"}
	for d := range ch {
		m := regexp.MustCompile(`fqName: "coredns_calicomesos_([a-z_]+)".*variableLabels: \{([a-z,]*)\}`).FindStringSubmatch(d.String())
		all[m[1]] = strings.Join(sorted(strings.Split(m[2], ",")), ", ")
	}
	return all
}

// inReadme holds the README to listing the metrics exactly. exposed are some of them.
func inReadme(t *testing.T, exposed map[string]string) {
	t.Helper()
	names := described()
	for name, labels := range exposed {
		if names[name] != labels {
			t.Errorf("%s{%s} is exposed, and described are its labels %q", name, labels, names[name])
		}
	}
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, there []string
	for _, m := range regexp.MustCompile("(?m)^\\* `coredns_calicomesos_([a-z_]+)\\{([a-z, ]+)\\}`").FindAllStringSubmatch(string(b), -1) {
		listed = append(listed, m[1]+" "+strings.Join(sorted(strings.Split(m[2], ", ")), ", "))
	}
	for name, labels := range names {
		there = append(there, name+" "+labels)
	}
	if !slices.Equal(sorted(listed), sorted(there)) {
		t.Errorf("README lists %q, there are %q", listed, there)
	}
}

// TestMetrics_EmptyZones exposes no zone of the many that a prefix of a few bits is, unless it has
// records.
func TestMetrics_EmptyZones(t *testing.T) {
	_, srv := countedTutorial(t)
	startServer(t, fmt.Sprintf("%s mesos 192.128.0.0/9 {\n master %s\n}", pluginName, srv.URL))
	_, values := gathered(t)
	var reverse []string
	for m := range values {
		if strings.Contains(m, "arpa") {
			reverse = append(reverse, m)
		}
	}
	want := []string{"records{server=dns://127.0.0.1:0,view=,zone=168.192.in-addr.arpa.}", "zone_serial{server=dns://127.0.0.1:0,view=,zone=168.192.in-addr.arpa.}"}
	if !slices.Equal(sorted(reverse), want) {
		t.Errorf("exposed are %v", reverse)
	}
}

// TestMetrics_Responses counts what is answered from a snapshot, and SERVFAIL.
func TestMetrics_Responses(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	stanza := fmt.Sprintf("%s {\n master %s\n snapshot %s\n fallthrough\n}", pluginName, master.URL, filepath.Join(t.TempDir(), "snapshot"))
	s := startServer(t, stanza)
	s.ask("nope.mesos.", dns.TypeA) // falls through, to nobody
	_, values := gathered(t)
	if got := values["responses_total{rcode=NXDOMAIN,server=dns://127.0.0.1:0,view=,zone=mesos.}"]; got != 1 {
		t.Errorf("%v responses are NXDOMAIN", got)
	}
	s.stop()
	m.Refuse(503, "")
	s = startServer(t, stanza)
	s.ask("nginx.marathon.mesos.", dns.TypeA)
	s.ask("nope.mesos.", dns.TypeA)
	_, values = gathered(t)
	for metric, want := range map[string]float64{
		"responses_total{rcode=NOERROR,server=dns://127.0.0.1:0,view=,zone=mesos.}":  1,
		"responses_total{rcode=SERVFAIL,server=dns://127.0.0.1:0,view=,zone=mesos.}": 1,
		"stale_responses_total{server=dns://127.0.0.1:0,view=,zone=mesos.}":          2,
	} {
		if values[metric] != want {
			t.Errorf("%s is %v, want %v", metric, values[metric], want)
		}
	}
}

// TestMetrics_Connects counts how attempts to connect end.
func TestMetrics_Connects(t *testing.T) {
	for want, err := range map[string]error{
		"ok": nil, "failed": errors.New("reset"), "unauthorized": &mesos.StatusError{Code: 401}, "not_found": &mesos.StatusError{Code: 404},
		"unavailable": fmt.Errorf("subscribe: %w", &mesos.StatusError{Code: 503}), "refused": &mesos.StatusError{Code: 500},
	} {
		if got := connectResult(err); got != want || !slices.Contains(connectResults, got) {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
	if got := connectResult(&mesos.StatusError{Code: 403}); got != "unauthorized" {
		t.Error(got)
	}
}

// TestMetrics_Secondaries counts transfers and NOTIFYs, to one secondary that answers, and to one
// that does not, at an address that is named twice.
func TestMetrics_Secondaries(t *testing.T) {
	to := notifiable(t)
	dead := freeAddress(t)
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	s := startServer(t, fmt.Sprintf("transfer mesos {\n to * %s %s %s\n}\n%s {\n master %s\n cluster graz\n snapshot %s\n}", to, dead, dead, pluginName, master.URL, filepath.Join(t.TempDir(), "snapshot")))
	if _, err := s.axfr("mesos."); err != nil {
		t.Fatal(err)
	}
	const labels = "server=dns://127.0.0.1:0,view=,zone=mesos.}"
	loopback.Eventually(t, func() string {
		_, values := gathered(t)
		if values["transfers_total{result=ok,"+labels] == 1 && values["notifies_total{result=ok,secondary="+to+","+labels] == 1 &&
			values["notifies_total{result=failed,secondary="+dead+","+labels] >= 2 && values["snapshot_size_bytes{cluster=graz}"] > 100 &&
			values["snapshot_last_success_timestamp_seconds{cluster=graz}"] > 1e9 {
			return ""
		}
		return fmt.Sprint(values)
	})
}

// notifiable starts a secondary that answers NOTIFYs, and returns its address.
func notifiable(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetReply(r)) })}
	go func() { _ = srv.ActivateAndServe() }()
	t.Cleanup(func() { _ = srv.Shutdown() })
	return pc.LocalAddr().String()
}

// TestMetrics_Logins counts logins that fail.
func TestMetrics_Logins(t *testing.T) {
	var o clusterOptions
	o.label = "logins"
	client := mesos.NewClient(mesos.Config{Credentials: serviceAccount(t), LoginFailed: observer(o.name()).loginFailed})
	defer forgetCluster(o.name())
	defer client.Close()
	master := mesostest.API("127.0.0.1:1")
	client.Trust([]*url.URL{master})
	if _, _, err := client.Master(t.Context(), mesos.Target{URL: master}); err == nil {
		t.Fatal("logged in at nobody")
	}
	if got := testutil.ToFloat64(loginFailuresTotal.WithLabelValues("logins")); got != 1 {
		t.Errorf("%v logins have failed", got)
	}
}

// serviceAccount returns credentials whose login endpoint is away.
func serviceAccount(t *testing.T) *mesos.Credentials {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "account")
	b, err := json.Marshal(map[string]string{
		"uid": "dns", "login_endpoint": "http://127.0.0.1:1/login",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
	})
	if err != nil || os.WriteFile(file, b, 0o600) != nil {
		t.Fatal(err)
	}
	c, err := mesos.LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
