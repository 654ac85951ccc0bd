//go:build e2e

package test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

var chaosTime = flag.Duration("chaos", 45*time.Second, "how long TestChaos runs")

// The principals of two watchers: steady is only reloaded, restarted is also ended and started
// again.
var principals = []string{"steady", "restarted"}

// watching is a running CoreDNS, and how it has answered.
type watching struct {
	t         *testing.T
	principal string
	zk        *ensemble
	dir       string
	port      int
	metrics   int
	cmd       *exec.Cmd
	log       *stampedLog

	mu         sync.Mutex
	asked      int
	unanswered int
	wrong      int
	last       map[string]time.Time // when an app was last answered wrongly
	since      map[string]time.Time // since when an app has no answer
	why        map[string]string    // it had none
	longest    time.Duration        // without an answer
	example    string               // of that
	atRestart  time.Duration        // the same, while the process restarted
	restarting time.Time            // the last restart
	reloads    int
	samples    []sample
}

// sample is what the metrics of a process say.
type sample struct{ goroutines, heap, resident, open float64 }

// stampedLog is a file to which whole lines are written with their time.
type stampedLog struct {
	file *os.File
	rest []byte // of a line
}

func (l *stampedLog) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		if _, err := fmt.Fprintf(l.file, "%s %s\n", clock(), line); err != nil {
			return 0, err
		}
		l.rest = append(l.rest[:0], rest...)
	}
}

// clock returns the time of day.
func clock() string { return time.Now().Format("15:04:05.000") }

const variants = 4 // of the Corefile

// corefile writes the n-th variant of the Corefile. Some have other zones, and the last cannot
// start.
func (w *watching) corefile(n int) {
	masters := strings.Join(w.zk.addresses(), ",")
	ttl, more := 5, ""
	switch n % variants {
	case 1:
		ttl = 0
	case 2:
		more = fmt.Sprintf("example.org:%d {\n bind 127.0.0.1\n calicomesos example.org {\n  containerip\n  master zk://%s/mesos\n  credentials credentials\n  snapshot snapshot\n }\n}\n", w.port, masters)
	case 3:
		more = "example.com:1 {\n bind 192.0.2.1\n errors\n}\n" // not an address of this machine
	}
	write(w.t, filepath.Join(w.dir, "Corefile"), fmt.Sprintf(`.:%d {
 bind 127.0.0.1
 root %s
 errors
 prometheus 127.0.0.1:%d
 calicomesos mesos 10.0.0.0/8 {
  master zk://%s/mesos
  credentials credentials
  snapshot snapshot
  ttl %d
  startup_timeout 2s
 }
}
%s`, w.port, w.dir, w.metrics, masters, ttl, strings.ReplaceAll(more, " snapshot snapshot", " snapshot "+filepath.Join(w.dir, "snapshot"))))
}

func startWatching(t *testing.T, principal string, zk *ensemble) *watching {
	t.Helper()
	w := &watching{t: t, principal: principal, zk: zk, dir: t.TempDir(), port: freePort(t), metrics: freePort(t), last: make(map[string]time.Time), since: make(map[string]time.Time), why: make(map[string]string)}
	write(t, filepath.Join(w.dir, "credentials"), principal+" hunter2\n")
	f, err := os.Create(filepath.Join(w.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	w.log = &stampedLog{file: f}
	w.corefile(0)
	w.start()
	t.Cleanup(func() { w.end(syscall.SIGTERM) })
	return w
}

func (w *watching) start() {
	w.cmd = exec.Command("../bin/coredns", "-conf", filepath.Join(w.dir, "Corefile"))
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	if err := w.cmd.Start(); err != nil {
		w.t.Error(err)
	}
}

func (w *watching) end(sig syscall.Signal) {
	_ = w.cmd.Process.Signal(sig) // it may have ended
	ended := make(chan error, 1)
	go func() { ended <- w.cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		w.t.Errorf("CoreDNS does not end at %v", sig)
		_ = w.cmd.Process.Kill()
		<-ended
	}
}

func (w *watching) restart(sig syscall.Signal) {
	w.mu.Lock()
	w.restarting = time.Now()
	w.mu.Unlock()
	w.end(sig)
	w.corefile(0) // the last one may be unable to start
	w.start()
}

// ask asks for every app, again and again.
func (w *watching) ask(ctx context.Context, s *simulation) {
	client := &dns.Client{Timeout: time.Second}
	for ctx.Err() == nil {
		for _, a := range s.apps {
			m := new(dns.Msg)
			m.SetQuestion(a.name+".marathon.mesos.", dns.TypeA)
			m.SetEdns0(1232, false)
			asked := time.Now()
			r, _, err := client.ExchangeContext(ctx, m, fmt.Sprintf("127.0.0.1:%d", w.port))
			if ctx.Err() != nil {
				return
			}
			w.note(s, a, asked, r, err)
			pause(ctx, 3*time.Millisecond)
		}
	}
}

// note judges an answer.
func (w *watching) note(s *simulation, a *simApp, asked time.Time, r *dns.Msg, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if err != nil || r.Rcode == dns.RcodeServerFailure {
		w.unanswered++
		if w.since[a.name].IsZero() {
			w.since[a.name] = asked
			if w.why[a.name] = "SERVFAIL"; err != nil {
				w.why[a.name] = err.Error()
			}
		}
		return
	}
	if since := w.since[a.name]; !since.IsZero() {
		delete(w.since, a.name)
		took := time.Since(since)
		if since.Sub(w.restarting) < 2*time.Second {
			w.atRestart = max(w.atRestart, took)
		} else if took > w.longest {
			w.longest = took
			w.example = fmt.Sprintf("%s at %s: %s", a.name, since.Format("15:04:05.000"), w.why[a.name])
		}
	}
	var addrs []string
	for _, rr := range r.Answer {
		if a, ok := rr.(*dns.A); ok {
			addrs = append(addrs, a.A.String())
		}
	}
	text := s.judge(w.principal, a, asked, len(addrs) == 0, addrs)
	if text == "" {
		return
	}
	w.wrong++
	if time.Since(w.last[a.name]) > 5*time.Second { // the first of several
		w.t.Errorf("%s %s: %s", clock(), w.principal, text)
	}
	w.last[a.name] = time.Now()
}

// measure takes a sample.
func (w *watching) measure() {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", w.metrics))
	if err != nil {
		return // it is reloading
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	value := func(name string) float64 {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(b)
		if m == nil {
			return 0
		}
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return 0
		}
		return v
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.samples = append(w.samples, sample{value("go_goroutines"), value("go_memstats_heap_inuse_bytes") / 1e6, value("process_resident_memory_bytes") / 1e6, value("process_open_fds")})
}

// chaos injects faults into a simulation.
type chaos struct {
	*simulation
	steady, restarted *watching
	elections         sync.WaitGroup
	injected          map[string]int
}

// TestChaos runs two CoreDNS for a cluster in which everything fails now and then, and asks them
// for every running task all the time.
func TestChaos(t *testing.T) {
	zk := startEnsemble(t, 3)
	c := &chaos{simulation: newSimulation(t, zk), injected: make(map[string]int)}
	ctx, cancel := context.WithTimeout(t.Context(), *chaosTime)
	defer cancel()
	c.elect(ctx, election{})
	c.steady, c.restarted = startWatching(t, "steady", zk), startWatching(t, "restarted", zk)

	var wg sync.WaitGroup
	for _, w := range []*watching{c.steady, c.restarted} {
		loopback.Eventually(t, func() string { // the first state
			r, err := dns.Exchange(new(dns.Msg).SetQuestion("app-0.marathon.mesos.", dns.TypeA), fmt.Sprintf("127.0.0.1:%d", w.port))
			if err != nil || len(r.Answer) == 0 {
				return fmt.Sprint(err, r)
			}
			return ""
		})
		wg.Go(func() { w.ask(ctx, c.simulation) })
	}
	wg.Go(func() {
		for ctx.Err() == nil {
			c.churn()
			pause(ctx, 20*time.Millisecond)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, 5*time.Second)
			c.forget()
			c.steady.measure()
		}
	})
	for ctx.Err() == nil {
		pause(ctx, time.Duration(500+rand.IntN(2500))*time.Millisecond)
		if ctx.Err() == nil {
			c.inject(ctx)
		}
	}
	wg.Wait()
	c.elections.Wait()
	c.report(t)
}

// inject injects one fault.
func (c *chaos) inject(ctx context.Context) {
	faults := map[string]func(ctx context.Context){
		"the leader crashes":         c.crashLeader,
		"the leader hangs":           c.freezeLeader,
		"the leader forgets all":     c.forgetAll,
		"streams break":              func(context.Context) { c.onLeader(func(m *simMaster) { m.master.Drop() }) },
		"a follower crashes":         c.crashFollower,
		"a ZooKeeper member crashes": c.crashMember,
		"ZooKeeper restarts":         c.restartZooKeeper,
		"a reload": func(context.Context) {
			c.reload(c.steady, rand.IntN(variants))
			c.reload(c.restarted, rand.IntN(variants))
		},
		"CoreDNS is terminated":        func(context.Context) { c.restart(syscall.SIGTERM) },
		"CoreDNS is killed":            func(context.Context) { c.restart(syscall.SIGKILL) },
		"CoreDNS restarts, no leader":  c.restartWithoutLeader,
		"a reload while there is none": c.reloadWithoutLeader,
	}
	name := slices.Sorted(maps.Keys(faults))[rand.IntN(len(faults))]
	c.injected[name]++
	c.t.Log(clock(), name)
	faults[name](ctx)
}

func (c *chaos) onLeader(f func(m *simMaster)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader != nil {
		f(c.leader)
	}
}

// succeed elects the next leader, and restarts crashed masters in the background.
func (c *chaos) succeed(ctx context.Context, e election) {
	pause(ctx, time.Duration(100+rand.IntN(2000))*time.Millisecond)
	c.mu.Lock()
	for _, m := range c.masters { // never all of them are down
		if m.srv == nil {
			c.startMaster(m)
		}
	}
	c.mu.Unlock()
	if ctx.Err() == nil {
		c.elections.Go(func() { c.elect(ctx, e) })
	}
	loopback.Eventually(c.t, func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.leader == nil && ctx.Err() == nil {
			return "no leader"
		}
		return ""
	})
}

func (c *chaos) usual() election {
	return election{late: []time.Duration{0, time.Second, 5 * time.Second, 15 * time.Second}[rand.IntN(4)]}
}

func (c *chaos) crashLeader(ctx context.Context) {
	c.onLeader(c.stopMaster)
	c.succeed(ctx, c.usual())
}

// freezeLeader lets the leader hang with its streams open, and lose its session.
func (c *chaos) freezeLeader(ctx context.Context) {
	var hung *simMaster
	c.onLeader(func(m *simMaster) {
		hung = m
		m.frozen = make(chan struct{})
		m.master.Stall(true)
		m.announced.withdraw()
		c.depose()
	})
	c.succeed(ctx, c.usual())
	pause(ctx, time.Duration(rand.IntN(3000))*time.Millisecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	if hung != nil {
		c.stopMaster(hung) // it has lost its session, and exits
		c.startMaster(hung)
		if c.leader != nil {
			hung.master.Follow(c.leader.address)
		}
	}
}

// forgetAll elects a leader with a registry in memory, and waits until its agents are back.
func (c *chaos) forgetAll(ctx context.Context) {
	c.onLeader(c.stopMaster)
	c.succeed(ctx, election{nothing: true, late: time.Second})
	c.elections.Wait()
	pause(ctx, grace)
}

func (c *chaos) crashFollower(ctx context.Context) {
	c.mu.Lock()
	var m *simMaster
	for _, other := range c.masters {
		if other != c.leader && other.srv != nil && other.frozen == nil {
			m = other
		}
	}
	leader := c.leader
	if m != nil {
		c.stopMaster(m)
	}
	c.mu.Unlock()
	pause(ctx, time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	if m != nil {
		c.startMaster(m)
		if leader != nil {
			m.master.Follow(leader.address)
		}
	}
}

func (c *chaos) crashMember(ctx context.Context) {
	i := rand.IntN(len(c.zk.members))
	c.zk.kill(i)
	pause(ctx, time.Duration(rand.IntN(4000))*time.Millisecond)
	c.zk.start(i)
}

// restartZooKeeper ends all members for longer than sessions last, so that the leader exits.
func (c *chaos) restartZooKeeper(ctx context.Context) {
	for i := range c.zk.members {
		c.zk.kill(i)
	}
	pause(ctx, 5*time.Second)
	c.onLeader(c.stopMaster)
	for i := range c.zk.members {
		c.zk.start(i)
	}
	c.mu.Lock()
	for _, m := range c.masters {
		if m.srv != nil {
			c.stopMaster(m)
		}
	}
	c.mu.Unlock()
	c.succeed(ctx, c.usual())
}

// reload reloads a CoreDNS with another variant of its Corefile, and then with the first.
func (c *chaos) reload(w *watching, n int) {
	w.corefile(n)
	w.mu.Lock()
	w.reloads++
	w.mu.Unlock()
	_ = w.cmd.Process.Signal(syscall.SIGUSR1)
}

func (c *chaos) restart(sig syscall.Signal) {
	c.restarted.restart(sig)
	c.forgotten(c.restarted.principal)
}

func (c *chaos) restartWithoutLeader(ctx context.Context) {
	c.onLeader(c.stopMaster)
	pause(ctx, 200*time.Millisecond)
	c.restart(syscall.SIGTERM)
	c.succeed(ctx, c.usual())
}

func (c *chaos) reloadWithoutLeader(ctx context.Context) {
	c.onLeader(c.stopMaster)
	pause(ctx, 200*time.Millisecond)
	c.reload(c.steady, rand.IntN(variants-1))
	c.reload(c.restarted, rand.IntN(variants-1))
	pause(ctx, time.Second)
	c.succeed(ctx, c.usual())
}

// report prints the result, and fails the test if an answer was wrong.
func (c *chaos) report(t *testing.T) {
	var out bytes.Buffer
	total := 0
	for _, name := range slices.Sorted(maps.Keys(c.injected)) {
		fmt.Fprintf(&out, "%5d × %s\n", c.injected[name], name)
		total += c.injected[name]
	}
	for _, w := range []*watching{c.steady, c.restarted} {
		w.mu.Lock()
		fmt.Fprintf(&out, "%s: %d questions, %d unanswered, %d wrong answers; longest unanswered %v (%s), %v while it restarted; %d reloads\n",
			w.principal, w.asked, w.unanswered, w.wrong, w.longest.Round(time.Millisecond), w.example, w.atRestart.Round(time.Millisecond), w.reloads)
		if w.asked < 100 {
			t.Errorf("%s was asked only %d times", w.principal, w.asked)
		}
		w.mu.Unlock()
		c.checkLog(t, w)
	}
	if n := len(c.steady.samples); n > 0 {
		for _, at := range []int{0, n / 4, n / 2, 3 * n / 4, n - 1} {
			s := c.steady.samples[at]
			fmt.Fprintf(&out, "steady, sample %d of %d: %.0f goroutines, heap %.1f MB, resident %.1f MB, %.0f open files\n", at+1, n, s.goroutines, s.heap, s.resident, s.open)
		}
	}
	t.Logf("%d faults in %v:\n%s", total, *chaosTime, out.String())
}

// checkLog looks for what a CoreDNS must never log.
func (c *chaos) checkLog(t *testing.T, w *watching) {
	b, err := os.ReadFile(w.log.file.Name())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, never := range []string{"panic", "PANIC", "DATA RACE", "hunter2", "fatal error"} {
		if bytes.Contains(b, []byte(never)) {
			t.Errorf("%s said %q:\n%.20000s", w.principal, never, b)
		}
	}
	if t.Failed() {
		t.Logf("%s said:\n%s", w.principal, b[max(0, len(b)-1e6):])
	}
}
