package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// measureChanges moves tasks of a cluster, and looks how long it takes until the
// server answers with a new address; and how long questions take meanwhile. The
// master is in this process, which knows when a task moved.
func measureChanges(ctx context.Context, o *options, r *report) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	m := mesostest.NewMaster(15 * time.Second)
	large := mesostest.NewLarge(m, o.tasks, o.tasks/20, instances)
	m.Prepare()
	master := mesostest.Start(m)
	defer master.Close()
	defer m.Drop()
	echo, err := startEcho(dir)
	if err != nil {
		return err
	}
	defer echo.stop()
	c := churn{master: m, large: large}
	block := "calicomesos mesos 10.0.0.0/8 {\nmaster " + master.Host + "\n}"
	for _, env := range [][]string{nil, {"GOGC=400"}} {
		s, err := startCoreDNS(dir, block, env...)
		if err != nil {
			return err
		}
		err = c.report(ctx, o, r, s, echo.addr, env)
		s.stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// report measures a CoreDNS beside a bare echo; with something in its environment only
// at the highest rate.
func (c *churn) report(ctx context.Context, o *options, r *report, s *server, echo string, env []string) error {
	if err := answers(ctx, s.addr, "app-0.marathon.mesos."); err != nil {
		return err
	}
	as, rates := "", o.changes
	if len(env) > 0 {
		as, rates = ", "+strings.Join(env, " "), rates[len(rates)-1:]
	}
	servers := []string{s.addr, echo}
	rest, err := allLatencies(ctx, servers, o)
	if err != nil {
		return err
	}
	r.add("latency of queries at rest"+as, "", "p50 %.2f ms, p99 %.2f ms; of a bare echo %.2f and %.2f ms", median(rest[0]), quantile(rest[0], 0.99), median(rest[1]), quantile(rest[1], 0.99))
	var p50, p99 series
	p50.name, p99.name = "p50", "p99"
	for _, rate := range rates {
		c.server, c.rate = s.addr, rate
		seen, queries, used, err := c.measure(ctx, o, s, servers)
		if err != nil {
			return err
		}
		p50.add(float64(rate), median(seen))
		p99.add(float64(rate), quantile(seen, 0.99))
		r.add(fmt.Sprintf("event to answer, %d tasks, %d changes a second%s", o.tasks, rate, as), "p50 10 ms, p99 50 ms",
			"p50 %.1f ms, p99 %.1f ms (%d samples, and %d that were not seen in %s); CPU %.0f %% of one processor, with 200 queries a second and those that wait for changes",
			median(seen), quantile(seen, 0.99), len(seen), c.unseen, seenLimit, used*100)
		r.add(fmt.Sprintf("latency of queries, %d changes a second%s", rate, as), "p99 within 1.5 of at rest",
			"p50 %.2f ms, p99 %.2f ms (%.1f of at rest); of a bare echo on the same busy machine %.2f and %.2f ms (%.1f of at rest)",
			median(queries[0]), quantile(queries[0], 0.99), quantile(queries[0], 0.99)/quantile(rest[0], 0.99),
			median(queries[1]), quantile(queries[1], 0.99), quantile(queries[1], 0.99)/quantile(rest[1], 0.99))
	}
	peak, err := s.status("VmHWM")
	if err != nil {
		return err
	}
	r.add("memory with these changes"+as, "", "peak %.0f MB", peak/1e6)
	if len(env) == 0 {
		r.plot("changes", plot{title: fmt.Sprintf("From an event to the answer, %d tasks", o.tasks), x: "changes a second", y: "ms", lines: []series{p50, p99}})
	}
	return nil
}

// measure moves tasks for three rounds. It returns how long some of the changes took to
// be seen and the latencies of the servers meanwhile, ms, and what part of a processor s
// used.
func (c *churn) measure(ctx context.Context, o *options, s *server, servers []string) (seen []float64, queries [][]float64, used float64, err error) {
	before, err := s.cpu()
	if err != nil {
		return nil, nil, 0, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { queries, err = allLatencies(ctx, servers, o) })
	seen = c.run(ctx, o)
	wg.Wait()
	if err != nil {
		return nil, nil, 0, err
	}
	after, err := s.cpu()
	return seen, queries, (after - before).Seconds() / (3 * o.length.Seconds()), err
}

// allLatencies asks several servers at once.
func allLatencies(ctx context.Context, servers []string, o *options) ([][]float64, error) {
	all := make([][]float64, len(servers))
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() { all[i], errs[i] = latencies(ctx, server, o) })
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// latencies has a process of its own ask questions for three rounds, and returns how
// long the answers took; ms.
func latencies(ctx context.Context, server string, o *options) ([]float64, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, self, "ask", server, strconv.Itoa(o.tasks/instances), (3 * o.length).String()).Output()
	if err != nil {
		return nil, err
	}
	var all []float64
	for field := range strings.FieldsSeq(string(out)) {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// askMany asks a server for one of so many apps every 5 ms, for some time, and prints
// how many milliseconds each answer took.
func askMany(args []string) error {
	apps, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	length, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i, end := 0, time.Now().Add(length); time.Now().Before(end); i++ {
		<-tick.C
		began := time.Now()
		ask(args[0], fmt.Sprintf("app-%d.marathon.mesos.", i*7919%apps))
		fmt.Println(float64(time.Since(began).Microseconds()) / 1000)
	}
	return nil
}

// churn moves tasks.
type churn struct {
	master *mesostest.Master
	large  *mesostest.Large
	server string
	rate   int // a second
	unseen int // changes that were not seen within seenLimit
}

// seenLimit is how long a change is waited for.
const seenLimit = 10 * time.Second

// run moves tasks for three rounds, and returns how long some of the changes took to be
// seen; ms. Those that never were are counted.
func (c *churn) run(ctx context.Context, o *options) (seen []float64) {
	c.unseen = 0
	ctx, cancel := context.WithTimeout(ctx, 3*o.length)
	defer cancel()
	var wg sync.WaitGroup
	moved := make(chan *mesostest.Task)
	wg.Go(func() {
		for t := range moved {
			if took, ok := c.await(t, time.Now()); ok {
				seen = append(seen, float64(took.Microseconds())/1000)
			} else {
				c.unseen++
			}
		}
	})
	c.large.Run(ctx, c.master, c.rate, func(t *mesostest.Task) {
		select {
		case moved <- t: // whenever the last one has been seen
		default:
		}
	})
	close(moved)
	wg.Wait()
	return seen
}

// await asks for the app of a task until its address is in the answer, and returns how
// long that took; false if it never was.
func (c *churn) await(t *mesostest.Task, began time.Time) (time.Duration, bool) {
	addr := t.Statuses[0].ContainerStatus.NetworkInfos[0].IPAddresses[0].IPAddress
	name := strings.ToLower(t.Name) + ".marathon.mesos."
	for time.Since(began) < seenLimit {
		if slices.Contains(ask(c.server, name), netip.MustParseAddr(addr).String()) {
			return time.Since(began), true
		}
		time.Sleep(time.Millisecond) // the next question; the server is not to be busy with ours
	}
	return 0, false
}
