package calicomesos

import (
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
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
		"Counter of attempts to subscribe to a master or to poll it, by result: ok, failed, or how the master answered: unauthorized (401, 403), not_found (404), unavailable (503), refused (another error)."), []string{"cluster", "result"})
	leadersTotal = promauto.NewCounterVec(counter("leader_changes_total",
		"Counter of times that another master led than before."), []string{"cluster"})
	loginFailuresTotal = promauto.NewCounterVec(counter("login_failures_total",
		"Counter of attempts of a service account to log in that have failed."), []string{"cluster"})
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

// Gauges that watchers set through an observer.
var (
	reconciledTime = promauto.NewGaugeVec(gauge("last_reconciliation_timestamp_seconds",
		"When the cluster was last as a master has listed it, in seconds since 1970."), []string{"cluster"})
	savedTime = promauto.NewGaugeVec(gauge("snapshot_last_success_timestamp_seconds",
		"When a snapshot was last written, in seconds since 1970."), []string{"cluster"})
	savedSize = promauto.NewGaugeVec(gauge("snapshot_size_bytes",
		"Size of the snapshot that was written last."), []string{"cluster"})
)

// ofClusters are the metrics that are kept for a cluster until nobody watches it.
var ofClusters = []interface {
	DeletePartialMatch(labels prometheus.Labels) int
}{
	eventsTotal, connectsTotal, malformedTotal, differencesTotal, leadersTotal, loginFailuresTotal, savesTotal, publishDuration,
	reconciledTime, savedTime, savedSize,
}

func gauge(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts{Namespace: plugin.Namespace, Subsystem: pluginName, Name: name, Help: help}
}

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
	connectsTotal.WithLabelValues(string(o), connectResult(err)).Inc()
}

// connectResults are the results of attempts to connect.
var connectResults = []string{"ok", "failed", "unauthorized", "not_found", "unavailable", "refused"}

// connectResult returns the result of an attempt, one of connectResults.
func connectResult(err error) string {
	var status *mesos.StatusError
	switch {
	case err == nil:
		return "ok"
	case !errors.As(err, &status):
		return "failed"
	}
	switch status.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "unauthorized"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusServiceUnavailable:
		return "unavailable"
	}
	return "refused"
}

// Received implements watch.Observer.
func (o observer) Received(eventType string) {
	eventsTotal.WithLabelValues(string(o), eventType).Inc()
}

// Malformed implements watch.Observer.
func (o observer) Malformed(n int) { malformedTotal.WithLabelValues(string(o)).Add(float64(n)) }

// Led implements watch.Observer.
func (o observer) Led() { leadersTotal.WithLabelValues(string(o)).Inc() }

// loginFailed counts an attempt of a service account to log in.
func (o observer) loginFailed() { loginFailuresTotal.WithLabelValues(string(o)).Inc() }

// Reconciled implements watch.Observer.
func (o observer) Reconciled(differences int) {
	reconciledTime.WithLabelValues(string(o)).SetToCurrentTime()
	differencesTotal.WithLabelValues(string(o)).Add(float64(differences))
}

// Published implements watch.Observer.
func (o observer) Published(delay time.Duration) {
	publishDuration.WithLabelValues(string(o)).Observe(delay.Seconds())
}

// SnapshotWritten implements watch.Observer.
func (o observer) SnapshotWritten(size int64, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	} else {
		savedTime.WithLabelValues(string(o)).SetToCurrentTime()
		savedSize.WithLabelValues(string(o)).Set(float64(size))
	}
	savesTotal.WithLabelValues(string(o), result).Inc()
}

// showCluster exposes the counters of a cluster before there is anything to count.
func showCluster(cluster string) {
	for _, result := range connectResults {
		connectsTotal.WithLabelValues(cluster, result)
	}
	leadersTotal.WithLabelValues(cluster)
	loginFailuresTotal.WithLabelValues(cluster)
	malformedTotal.WithLabelValues(cluster)
	differencesTotal.WithLabelValues(cluster)
	for _, result := range []string{"ok", "failed"} {
		savesTotal.WithLabelValues(cluster, result)
	}
}

// forgetCluster drops the counters of a cluster that nobody watches any more.
func forgetCluster(cluster string) {
	for _, m := range ofClusters {
		m.DeletePartialMatch(prometheus.Labels{"cluster": cluster})
	}
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
	connectedDesc  = gaugeDesc("connected", "1 while the leading master tells the cluster by a stream or by polls, else 0.", "cluster", "mode")
	sessionDesc    = gaugeDesc("zookeeper_session", "1 while there is a session with ZooKeeper, else 0.", "cluster")
	heardDesc      = gaugeDesc("last_contact_timestamp_seconds", "When a master last spoke, or the start if none has, in seconds since 1970.", "cluster")
	ageDesc        = gaugeDesc("state_age_seconds", "Deprecated: time since last_contact_timestamp_seconds.", "cluster")
	dirtyDesc      = gaugeDesc("unpublished_age_seconds", "Time since the oldest change that is not published, 0 for none.", "cluster")
	leaderDesc     = gaugeDesc("leader_info", "1 for the leading master as last known.", "cluster", "master")
	recordsDesc    = gaugeDesc("records", "Number of records in a zone.", "server", "zone", "view")
	serialDesc     = gaugeDesc("zone_serial", "Serial of a zone's SOA.", "server", "zone", "view")
	skippedDesc    = gaugeDesc("skipped", "Number of names, addresses and ports of the present state that are not published, by reason.", "server", "zone", "view", "reason")
	responsesDesc  = gaugeDesc("responses_total", "Counter of responses from a zone, by rcode.", "server", "zone", "view", "rcode")
	staleDesc      = gaugeDesc("stale_responses_total", "Counter of responses from a snapshot that no master had confirmed.", "server", "zone", "view")
	transfersDesc  = gaugeDesc("transfers_total", "Counter of zone transfers, by result: ok, refused or failed.", "server", "zone", "view", "result")
	notifiesDesc   = gaugeDesc("notifies_total", "Counter of NOTIFYs, by result: ok, refused or failed.", "server", "zone", "view", "secondary", "result")
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
	for _, d := range []*prometheus.Desc{
		tasksDesc, agentsDesc, frameworksDesc, retainedDesc, syncedDesc, connectedDesc, sessionDesc, heardDesc, ageDesc, dirtyDesc, leaderDesc,
		recordsDesc, serialDesc, skippedDesc, targetsDesc, responsesDesc, staleDesc, transfersDesc, notifiesDesc,
	} {
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
				collectCounts(ch, id[:], s.plugin.counts[z.Zone])
				collectNotifies(ch, id[:], s.notifier, z.Origin)
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
	gauge(syncedDesc, oneIf(s.Synced))
	gauge(connectedDesc, oneIf(s.Connected && !s.Polled), "stream")
	gauge(connectedDesc, oneIf(s.Connected && s.Polled), "poll")
	if c.zookeeper != nil {
		gauge(sessionDesc, oneIf(c.zookeeper.HasSession()))
	}
	gauge(heardDesc, float64(s.Heard.UnixMilli())/1000)
	gauge(ageDesc, max(time.Since(s.Heard).Seconds(), 0)) // clocks are set back
	dirty := 0.0
	if !s.Dirty.IsZero() {
		dirty = max(time.Since(s.Dirty).Seconds(), 0)
	}
	gauge(dirtyDesc, dirty)
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

// oneIf returns 1 for true and 0 for false, as Prometheus has it.
func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// result is how a transfer or a NOTIFY has ended.
type result int

const (
	done result = iota
	refused
	failed
	results
)

var resultNames = [results]string{"ok", "refused", "failed"}

// zoneCounts are the numbers of what a zone has answered. A nil one counts nothing.
type zoneCounts struct {
	responses [dns.RcodeNameError + 1]atomic.Uint64 // by rcode: others are not given
	stale     atomic.Uint64                         // responses from a snapshot that no master has confirmed
	transfers [results]atomic.Uint64
}

// response counts a response.
func (c *zoneCounts) response(rcode int, stale bool) {
	if c == nil {
		return
	}
	c.responses[rcode].Add(1)
	if stale {
		c.stale.Add(1)
	}
}

// transfer counts a transfer.
func (c *zoneCounts) transfer(r result) {
	if c != nil {
		c.transfers[r].Add(1)
	}
}

// collectCounts collects what a zone has answered. labels are server, zone and view. There are no
// series for what never was.
func collectCounts(ch chan<- prometheus.Metric, labels []string, c *zoneCounts) {
	counter := func(d *prometheus.Desc, n uint64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), append(labels[:3:3], more...)...)
	}
	answers := false
	for rcode := range c.responses {
		if n := c.responses[rcode].Load(); n > 0 {
			answers = true
			counter(responsesDesc, n, dns.RcodeToString[rcode])
		}
	}
	if answers {
		counter(staleDesc, c.stale.Load())
	}
	for r := range c.transfers {
		if n := c.transfers[r].Load(); n > 0 {
			counter(transfersDesc, n, resultNames[r])
		}
	}
}

// collectNotifies collects what a zone's secondaries were told. labels are server, zone and view.
func collectNotifies(ch chan<- prometheus.Metric, labels []string, n *notifier, origin string) {
	type series struct {
		secondary string
		result    int
	}
	sent := make(map[series]uint64) // an address may be told from several
	for _, s := range n.all {
		for r := range s.results {
			if n := s.results[r].Load(); n > 0 && s.origin == origin {
				sent[series{s.to.addr, r}] += n
			}
		}
	}
	for s, n := range sent {
		ch <- prometheus.MustNewConstMetric(notifiesDesc, prometheus.CounterValue, float64(n), append(labels[:3:3], s.secondary, resultNames[s.result])...)
	}
}

// apexRecords is the number of records in an empty zone: SOA and NS.
const apexRecords = 2
