package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// measureChanges moves tasks of a cluster, and measures how long it takes until the server
// answers with a new address, and how long other queries take meanwhile.
func measureChanges(ctx context.Context, o *options, r *report) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	echo, err := startEcho(dir)
	if err != nil {
		return err
	}
	defer echo.stop()
	c := churn{dir: dir, echo: echo.addr, tasks: o.tasks, length: 3 * o.length}
	if err := c.measure(ctx, r, 0); err != nil {
		return err
	}
	for _, rate := range o.changes {
		if err := c.measure(ctx, r, rate); err != nil {
			return err
		}
	}
	c.env = []string{"GOGC=400"}
	if err := c.measure(ctx, r, 0, slices.Max(o.changes)); err != nil {
		return err
	}
	if largest := slices.Max(o.sizes); largest > o.tasks {
		c.env, c.tasks = nil, largest
		return c.measure(ctx, r, 0, o.changes[len(o.changes)/2])
	}
	return nil
}

// churn measures a CoreDNS while tasks move.
type churn struct {
	dir    string
	echo   string // address of the echo
	tasks  int
	length time.Duration
	env    []string // added to the environment of CoreDNS

	rest    [][]float64 // as queries, while nothing moves
	changes seen
	queries [][]float64 // how long CoreDNS and the echo took to answer, ms
	used    float64     // part of a processor
	peak    float64     // octets
}

// told is the number of moves a second whose answers are looked for.
const told = 40

// measure measures a new CoreDNS for each rate, in moves a second.
func (c *churn) measure(ctx context.Context, r *report, rates ...int) error {
	for _, rate := range rates {
		if err := c.run(ctx, rate); err != nil {
			return err
		}
		if rate == 0 {
			c.rest = c.queries
			r.add(fmt.Sprintf("latency of queries, %d tasks, at rest%s", c.tasks, c.as()), "", "%s ms; of a bare echo %s ms",
				percentiles(c.rest[0]), percentiles(c.rest[1]))
			continue
		}
		c.report(r, rate)
	}
	return nil
}

// run starts a CoreDNS and measures it.
func (c *churn) run(ctx context.Context, rate int) error {
	master, err := startMoving(c.dir, c.tasks, rate, told)
	if err != nil {
		return err
	}
	defer master.stop()
	s, err := startCoreDNS(c.dir, "calicomesos mesos 10.0.0.0/8 {\nmaster "+master.addr+"\n}", c.env...)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := answers(ctx, s.addr); err != nil {
		return err
	}
	if _, err := usage(ctx, s.process, c.length/3); err != nil { // until the load has settled
		return err
	}
	var wg sync.WaitGroup
	var errAsking, errCPU, errPeak error
	wg.Go(func() { c.queries, errAsking = c.latencies(ctx, s.addr, c.echo) })
	wg.Go(func() { c.used, errCPU = usage(ctx, s.process, c.length) })
	c.changes = master.watch(ctx, s.addr, c.length)
	wg.Wait()
	c.peak, errPeak = s.status("VmHWM")
	return errors.Join(errAsking, errCPU, errPeak)
}

// as returns how the CoreDNS differs from the usual one.
func (c *churn) as() string {
	if len(c.env) == 0 {
		return ""
	}
	return ", " + strings.Join(c.env, " ")
}

func (c *churn) report(r *report, rate int) {
	r.add(fmt.Sprintf("event to answer, %d tasks, %d changes a second%s", c.tasks, rate, c.as()), "p50 10 ms, p99 50 ms",
		"%s ms (%d samples, and %d that were not seen in %s); CPU %.0f %% of one processor, with 200 queries a second and those that wait for changes; peak %.0f MB",
		percentiles(c.changes.after), len(c.changes.after), c.changes.never, seenLimit, c.used*100, c.peak/1e6)
	at99 := func(all [][]float64, i int) float64 { return quantile(all[i], 0.99) }
	r.add(fmt.Sprintf("latency of queries, %d tasks, %d changes a second%s", c.tasks, rate, c.as()), "that of the echo, and 0.1",
		"%s ms: the p99 is %.1f of at rest; of a bare echo on the same busy machine %s ms: %.1f of at rest",
		percentiles(c.queries[0]), at99(c.queries, 0)/at99(c.rest, 0), percentiles(c.queries[1]), at99(c.queries, 1)/at99(c.rest, 1))
}

// percentiles formats the p50, p99 and maximum of v.
func percentiles(v []float64) string {
	return fmt.Sprintf("p50 %.1f, p99 %.1f, at most %.1f", quantile(v, 0.5), quantile(v, 0.99), quantile(v, 1))
}

// latencies asks each server from a process of its own, and returns how long the answers took,
// in milliseconds.
func (c *churn) latencies(ctx context.Context, servers ...string) ([][]float64, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	all := make([][]float64, len(servers))
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, server := range servers {
		wg.Go(func() {
			out, err := exec.CommandContext(ctx, self, "ask", server, strconv.Itoa(c.tasks/instances), c.length.String()).Output()
			if err != nil {
				errs[i] = err
				return
			}
			all[i], errs[i] = parseFloats(string(out))
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

func parseFloats(text string) (all []float64, err error) {
	for field := range strings.FieldsSeq(text) {
		v, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// askMany asks a server every 5 ms for one of so many apps, and prints for each query after how
// many milliseconds its answer came, if it did. A query does not wait for the last answer.
func askMany(args []string) error {
	apps, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	length, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	const every = 5 * time.Millisecond
	took := make([]time.Duration, length/every)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range took {
		due := began.Add(time.Duration(i) * every)
		time.Sleep(time.Until(due))
		wg.Go(func() {
			ask(args[0], fmt.Sprintf("app-%d.marathon.mesos.", i*7919%apps), dns.TypeA)
			took[i] = time.Since(due)
		})
	}
	wg.Wait()
	for _, t := range took {
		fmt.Println(float64(t.Microseconds()) / 1000)
	}
	return nil
}
