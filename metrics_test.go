package calicomesos

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

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

// inReadme holds the README to listing the metrics exactly.
func inReadme(t *testing.T, names map[string]string) {
	t.Helper()
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
