package calicomesos

import (
	"errors"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"

	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var (
	// eventsTotal counts the events received from masters.
	eventsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "events_total",
		Help: "Counter of events received from masters, by type.",
	}, []string{"cluster", "type"})
	// connectsTotal counts the attempts to subscribe to a master.
	connectsTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "connects_total",
		Help: "Counter of attempts to subscribe to a master, or to ask for its state, by result: ok, refused (the master said why) or failed.",
	}, []string{"cluster", "result"})
	// malformedTotal counts what masters sent and could not be decoded.
	malformedTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "malformed_total",
		Help: "Counter of tasks, agents and frameworks in states of masters that could not be decoded.",
	}, []string{"cluster"})
	// differencesTotal counts what a comparison with the master found.
	differencesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "reconcile_differences_total",
		Help: "Counter of agents, frameworks and tasks that changed without an event, as a comparison with the master found.",
	}, []string{"cluster"})
	// savesTotal counts the snapshots written.
	savesTotal = promauto.NewCounterVec(prometheus.CounterOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "snapshot_writes_total",
		Help: "Counter of snapshots written to the file, by result: ok or failed.",
	}, []string{"cluster", "result"})
	// publishDuration measures how long a change takes to be answered.
	publishDuration = promauto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: plugin.Namespace, Subsystem: pluginName, Name: "publish_duration_seconds",
		Help:    "Histogram of the time from an event's arrival to the changed answer.",
		Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"cluster"})
)

// countConnect notes the result of an attempt to subscribe.
func countConnect(cluster string, err error) {
	var refused *mesos.StatusError
	result := "failed"
	switch {
	case err == nil:
		result = "ok"
	case errors.As(err, &refused):
		result = "refused"
	}
	connectsTotal.WithLabelValues(cluster, result).Inc()
}

// countSave notes the result of writing a snapshot.
func countSave(cluster string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	savesTotal.WithLabelValues(cluster, result).Inc()
}

// showCounters exposes the counters of a cluster before there is anything to count.
func showCounters(cluster string) {
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

var (
	tasksDesc      = gaugeDesc("tasks", "Number of tasks known, running or not.", "cluster")
	agentsDesc     = gaugeDesc("agents", "Number of agents known.", "cluster")
	frameworksDesc = gaugeDesc("frameworks", "Number of frameworks known.", "cluster")
	heldDesc       = gaugeDesc("held_tasks", "Number of tasks kept from before a failover, until their agents have re-registered.", "cluster")
	syncedDesc     = gaugeDesc("synced", "1 while connected to the leading master with a complete state, else 0.", "cluster")
	ageDesc        = gaugeDesc("state_age_seconds", "Time since a master last spoke, or since the start if none has.", "cluster")
	leaderDesc     = gaugeDesc("leader_info", "1 for the leading master as last known.", "cluster", "master")
	recordsDesc    = gaugeDesc("records", "Number of records in a zone.", "server", "zone")
	serialDesc     = gaugeDesc("zone_serial", "Serial of a zone's SOA.", "server", "zone")
	skippedDesc    = gaugeDesc("skipped", "Number of names and addresses of the present state that are not published, by reason.", "server", "zone", "reason")
)

func init() { prometheus.MustRegister(&running) }

// Describe implements prometheus.Collector.
func (r *registry) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{tasksDesc, agentsDesc, frameworksDesc, heldDesc, syncedDesc, ageDesc, leaderDesc, recordsDesc, serialDesc, skippedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Of several instances that watch one
// cluster, or serve one zone on one address, the first is exposed.
func (r *registry) Collect(ch chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := make(map[[2]string]bool)
	for _, i := range r.instances {
		if id := [2]string{"cluster", i.watcher.name}; !seen[id] {
			seen[id] = true
			collectWatcher(ch, i.watcher.watcher)
		}
		for z := range i.publisher.all {
			if id := [2]string{i.server, z.Origin}; !seen[id] {
				seen[id] = true
				collectZone(ch, i.server, z)
			}
		}
	}
}

func collectWatcher(ch chan<- prometheus.Metric, w *watcher) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{w.name}, labels...)...)
	}
	s := w.stats.Load()
	gauge(tasksDesc, float64(s.counts.Tasks))
	gauge(agentsDesc, float64(s.counts.Agents))
	gauge(frameworksDesc, float64(s.counts.Frameworks))
	gauge(heldDesc, float64(s.counts.Held))
	synced := 0.0
	if s.synced {
		synced = 1
	}
	gauge(syncedDesc, synced)
	gauge(ageDesc, max(time.Since(time.Unix(0, w.heard.Load())).Seconds(), 0)) // clocks are set back
	if s.leader != "" {
		gauge(leaderDesc, 1, s.leader)
	}
}

func collectZone(ch chan<- prometheus.Metric, server string, z *publishedZone) {
	if gen := z.Current(); gen != nil {
		ch <- prometheus.MustNewConstMetric(recordsDesc, prometheus.GaugeValue, float64(gen.Records()), server, z.Origin)
		ch <- prometheus.MustNewConstMetric(serialDesc, prometheus.GaugeValue, float64(gen.Serial()), server, z.Origin)
	}
	for why, n := range z.skipped.Load() {
		ch <- prometheus.MustNewConstMetric(skippedDesc, prometheus.GaugeValue, float64(n), server, z.Origin, reasonNames[why])
	}
}
