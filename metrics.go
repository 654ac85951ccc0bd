package calicomesos

import (
	"errors"
	"strconv"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"

	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Counters, which watchers count through an observer. README.md, "Metrics", lists them.
var (
	eventsTotal = promauto.NewCounterVec(counter("events_total",
		"Counter of events received from masters, by type."), []string{"cluster", "type"})
	connectsTotal = promauto.NewCounterVec(counter("connects_total",
		"Counter of attempts to subscribe to a master or to poll it, by result: ok, refused (the master answered with an error) or failed."), []string{"cluster", "result"})
	malformedTotal = promauto.NewCounterVec(counter("malformed_total",
		"Counter of tasks, agents and frameworks in the states of masters that could not be decoded."), []string{"cluster"})
	differencesTotal = promauto.NewCounterVec(counter("reconcile_differences_total",
		"Counter of agents, frameworks and tasks that had changed without an event when they were compared with the master."), []string{"cluster"})
	savesTotal = promauto.NewCounterVec(counter("snapshot_writes_total",
		"Counter of snapshots written to the file, by result: ok or failed."), []string{"cluster", "result"})
	requestsTotal = promauto.NewCounterVec(counter("http_requests_total",
		"Counter of requests to the HTTP API, by the pattern of the path and the status."), []string{"path", "code"})
	publishDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "publish_duration_seconds",
		Help:    "Histogram of the time from the arrival of an event to the changed answers.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"cluster"})
)

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Namespace: plugin.Namespace, Subsystem: pluginName, Name: name, Help: help}
}

// countRequest counts a request to the HTTP API.
func countRequest(path string, status int) {
	requestsTotal.WithLabelValues(path, strconv.Itoa(status)).Inc()
}

// observer counts what the watcher of a cluster does. Its value is the label "cluster".
type observer string

var _ watch.Observer = observer("")

// Connected implements watch.Observer.
func (o observer) Connected(err error) {
	result := "ok"
	if errors.As(err, new(*mesos.StatusError)) {
		result = "refused"
	} else if err != nil {
		result = "failed"
	}
	connectsTotal.WithLabelValues(string(o), result).Inc()
}

// Received implements watch.Observer.
func (o observer) Received(eventType string) {
	eventsTotal.WithLabelValues(string(o), eventType).Inc()
}

// Malformed implements watch.Observer.
func (o observer) Malformed(n int) { malformedTotal.WithLabelValues(string(o)).Add(float64(n)) }

// Reconciled implements watch.Observer.
func (o observer) Reconciled(differences int) {
	differencesTotal.WithLabelValues(string(o)).Add(float64(differences))
}

// Published implements watch.Observer.
func (o observer) Published(delay time.Duration) {
	publishDuration.WithLabelValues(string(o)).Observe(delay.Seconds())
}

// SnapshotWritten implements watch.Observer.
func (o observer) SnapshotWritten(err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	savesTotal.WithLabelValues(string(o), result).Inc()
}

// showCluster exposes the counters of a cluster before there is anything to count.
func showCluster(cluster string) {
	for _, result := range []string{"ok", "refused", "failed"} {
		connectsTotal.WithLabelValues(cluster, result)
	}
	malformedTotal.WithLabelValues(cluster)
	differencesTotal.WithLabelValues(cluster)
	for _, result := range []string{"ok", "failed"} {
		savesTotal.WithLabelValues(cluster, result)
	}
}

// forgetCluster drops the counters of a cluster that nobody watches any more.
func forgetCluster(cluster string) {
	label := prometheus.Labels{"cluster": cluster}
	eventsTotal.DeletePartialMatch(label)
	connectsTotal.DeletePartialMatch(label)
	malformedTotal.DeletePartialMatch(label)
	differencesTotal.DeletePartialMatch(label)
	savesTotal.DeletePartialMatch(label)
	publishDuration.DeletePartialMatch(label)
}

func gaugeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(plugin.Namespace, pluginName, name), help, labels, nil)
}

// Gauges, which are collected from the running stanzas.
var (
	tasksDesc      = gaugeDesc("tasks", "Number of known tasks, running or not.", "cluster")
	agentsDesc     = gaugeDesc("agents", "Number of known agents.", "cluster")
	frameworksDesc = gaugeDesc("frameworks", "Number of known frameworks.", "cluster")
	retainedDesc   = gaugeDesc("held_tasks", "Number of tasks retained from before a failover, which the new leader has not named yet.", "cluster")
	syncedDesc     = gaugeDesc("synced", "1 while connected to the leading master with a complete state, else 0.", "cluster")
	ageDesc        = gaugeDesc("state_age_seconds", "Time since a master last spoke, or since the start if none has.", "cluster")
	leaderDesc     = gaugeDesc("leader_info", "1 for the leading master as last known.", "cluster", "master")
	recordsDesc    = gaugeDesc("records", "Number of records in a zone.", "server", "zone", "view")
	serialDesc     = gaugeDesc("zone_serial", "Serial of a zone's SOA.", "server", "zone", "view")
	skippedDesc    = gaugeDesc("skipped", "Number of names, addresses and ports of the present state that are not published, by reason.", "server", "zone", "view", "reason")
	responsesDesc  = gaugeDesc("responses_total", "Counter of responses from a zone, by rcode.", "server", "zone", "view", "rcode")
	staleDesc      = gaugeDesc("stale_responses_total", "Counter of responses from a snapshot that no master had confirmed.", "server", "zone", "view")
	targetsDesc    = gaugeDesc("vhosts_target_addresses", "Number of addresses of the targets of a \"vhosts\" line, of a zone's lines with targets the one with the fewest.", "server", "zone", "view")
)

func init() {
	prometheus.MustRegister(&running)
	promauto.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "build_info",
		Help: "1 for the versions of the plugin and of CoreDNS.",
	}, []string{"version", "coredns"}).WithLabelValues(version(), coremain.CoreVersion).Set(1)
}

// Describe implements prometheus.Collector.
func (r *registry) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tasksDesc, agentsDesc, frameworksDesc, retainedDesc, syncedDesc, ageDesc, leaderDesc, recordsDesc, serialDesc, skippedDesc, targetsDesc, responsesDesc, staleDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Of watchers with the same masters, and of zones
// with the same labels, it exposes the one that has run longest.
func (r *registry) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[any]bool)
	for _, c := range r.clusters {
		if !seen[c.Name] {
			seen[c.Name] = true
			collectCluster(ch, c)
		}
	}
	for _, s := range r.stanzas {
		for z := range s.publisher.all {
			if id := [3]string{s.id.server, z.Origin, s.id.view}; !seen[id] {
				seen[id] = true
				collectZone(ch, id[:], z)
				collectResponses(ch, id[:], s.plugin.responses[z.Zone])
			}
		}
	}
}

func collectCluster(ch chan<- prometheus.Metric, c *watchedCluster) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{c.Name}, labels...)...)
	}
	s := c.Stats()
	gauge(tasksDesc, float64(s.Tasks))
	gauge(agentsDesc, float64(s.Agents))
	gauge(frameworksDesc, float64(s.Frameworks))
	gauge(retainedDesc, float64(s.Retained))
	synced := 0.0
	if s.Synced {
		synced = 1
	}
	gauge(syncedDesc, synced)
	gauge(ageDesc, max(time.Since(s.Heard).Seconds(), 0)) // clocks are set back
	if s.Leader != "" {
		gauge(leaderDesc, 1, s.Leader)
	}
}

// collectZone collects the gauges of a zone. labels are server, zone and view. There are none for
// what never was: a prefix of a few bits is hundreds of reverse zones, most of which stay empty.
func collectZone(ch chan<- prometheus.Metric, labels []string, z *publishedZone) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if gen := z.Current(); gen != nil && (gen.Records() > apexRecords || !isReverse(z.Origin)) {
		gauge(recordsDesc, float64(gen.Records()), labels...)
		gauge(serialDesc, float64(gen.Serial()), labels...)
	}
	if fewest := z.targets.Load(); z.claimed != nil && fewest >= 0 {
		gauge(targetsDesc, float64(fewest), labels...)
	}
	for why, n := range z.skipped.Load() {
		if z.ever.Load()&(1<<why) != 0 {
			gauge(skippedDesc, float64(n), append(labels[:3:3], reasonNames[why])...)
		}
	}
}

// collectResponses collects what a zone has answered. labels are server, zone and view.
func collectResponses(ch chan<- prometheus.Metric, labels []string, r *responses) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	answers := false
	for rcode := range r.by {
		if n := r.by[rcode].Load(); n > 0 {
			answers = true
			counter(responsesDesc, n, append(labels[:3:3], dns.RcodeToString[rcode])...)
		}
	}
	if answers {
		counter(staleDesc, r.stale.Load(), labels...)
	}
}

// apexRecords is the number of records in an empty zone: SOA and NS.
const apexRecords = 2
