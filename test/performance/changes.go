package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// measureChanges moves tasks of a cluster, and looks how long it takes until the
// server answers with a new address; and how long questions take meanwhile. The
// master is in this process, which knows when a task moved.
func measureChanges(ctx context.Context, o *options, r *report) error {
	dir, err := os.MkdirTemp("", "performance")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	m := mesostest.NewMaster(15 * time.Second)
	large := mesostest.NewLarge(m, o.tasks, o.tasks/20, instances)
	m.Prepare()
	master := mesostest.Start(m)
	defer master.Close()
	defer m.Drop()
	s, err := startCoreDNS(dir, "calicomesos mesos 10.0.0.0/8 {\nmaster "+master.Host+"\n}")
	if err != nil {
		return err
	}
	defer s.stop()
	if err := answers(ctx, s.addr, "app-0.marathon.mesos."); err != nil {
		return err
	}
	rest := latencies(ctx, s.addr, o)
	slowest := quantile(rest, 0.99)
	r.add("latency of queries at rest", "", "p50 %.2f ms, p99 %.2f ms", median(rest), slowest)
	var p50, p99 series
	p50.name, p99.name = "p50", "p99"
	for _, rate := range o.changes {
		before, err := s.cpu()
		if err != nil {
			return err
		}
		c := churn{master: m, large: large, server: s.addr, rate: rate}
		seen, queries := c.run(ctx, o)
		after, err := s.cpu()
		if err != nil {
			return err
		}
		took := float64(rate) * 3 * o.length.Seconds()
		p50.add(float64(rate), median(seen))
		p99.add(float64(rate), quantile(seen, 0.99))
		r.add(fmt.Sprintf("event to answer, %d tasks, %d changes a second", o.tasks, rate), "p50 10 ms, p99 50 ms",
			"p50 %.1f ms, p99 %.1f ms (%d samples); CPU %.2f ms a change", median(seen), quantile(seen, 0.99), len(seen), float64((after-before).Milliseconds())/took)
		r.add(fmt.Sprintf("latency of queries, %d changes a second", rate), "p99 within 1.5 of at rest",
			"p50 %.2f ms, p99 %.2f ms (%.1f of at rest)", median(queries), quantile(queries, 0.99), quantile(queries, 0.99)/slowest)
	}
	r.plot("changes", plot{title: fmt.Sprintf("From an event to the answer, %d tasks", o.tasks), x: "changes a second", y: "ms", lines: []series{p50, p99}})
	return nil
}

// latencies asks a question every 5 ms for three rounds and returns how long the
// answers took; ms.
func latencies(ctx context.Context, server string, o *options) []float64 {
	ctx, cancel := context.WithTimeout(ctx, 3*o.length)
	defer cancel()
	var all []float64
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return all
		case <-tick.C:
		}
		began := time.Now()
		ask(server, fmt.Sprintf("app-%d.marathon.mesos.", i*7919%(o.tasks/instances)))
		all = append(all, float64(time.Since(began).Microseconds())/1000)
	}
}

// churn moves tasks.
type churn struct {
	master *mesostest.Master
	large  *mesostest.Large
	server string
	rate   int // a second
}

// run moves tasks for three rounds, and returns how long some of the changes took to be
// seen, and how long questions took; ms.
func (c *churn) run(ctx context.Context, o *options) (seen, queries []float64) {
	ctx, cancel := context.WithTimeout(ctx, 3*o.length)
	defer cancel()
	var wg sync.WaitGroup
	moved := make(chan *mesostest.Task)
	wg.Go(func() {
		for t := range moved {
			if took, ok := c.await(t, time.Now()); ok {
				seen = append(seen, float64(took.Microseconds())/1000)
			}
		}
	})
	wg.Go(func() { queries = latencies(ctx, c.server, o) })
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	owed := 0
	for ctx.Err() == nil {
		<-tick.C
		for owed += c.rate; owed >= int(time.Second/step); owed -= int(time.Second / step) {
			t := c.large.Churn(c.master)
			select {
			case moved <- t: // whenever the last one has been seen
			default:
			}
		}
	}
	close(moved)
	wg.Wait()
	return seen, queries
}

// await asks for the app of a task until its address is in the answer.
func (c *churn) await(t *mesostest.Task, began time.Time) (time.Duration, bool) {
	addr := t.Statuses[0].ContainerStatus.NetworkInfos[0].IPAddresses[0].IPAddress
	name := strings.ToLower(t.Name) + ".marathon.mesos."
	for time.Since(began) < 10*time.Second {
		if slices.Contains(ask(c.server, name), netip.MustParseAddr(addr).String()) {
			return time.Since(began), true
		}
		time.Sleep(time.Millisecond) // the next question; the server is not to be busy with ours
	}
	return 10 * time.Second, true
}
