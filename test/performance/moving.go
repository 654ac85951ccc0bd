package main

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// moving is a simulated master, in a process of its own, whose tasks move.
type moving struct {
	*process
	addr  string    // host:port
	moves chan move // the latest ones
}

// move is a task that has gone to another place.
type move struct {
	name string // of its app
	addr string // the new one
	at   time.Time
}

// startMoving starts a master whose tasks move at the rate given, in moves a second. It reports
// told of them a second.
func startMoving(dir string, tasks, rate, told int) (*moving, error) {
	p, err := prepareSelf(dir, "move", strconv.Itoa(tasks), strconv.Itoa(rate), strconv.Itoa(told))
	if err != nil {
		return nil, err
	}
	p.cmd.Env = append(p.cmd.Env, "GOGC=off", "GOMEMLIMIT=8GiB") // a collection would delay what is measured
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.start(); err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	host, err := lines.ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("a master of moving tasks: %w", err)
	}
	m := &moving{process: p, addr: strings.TrimSpace(host), moves: make(chan move, 1000)}
	go m.read(lines) // until the process ends
	return m, nil
}

// read reads the moves that a process reports, and drops those that nobody receives.
func (m *moving) read(lines *bufio.Reader) {
	for {
		var to move
		var at int64
		if _, err := fmt.Fscanln(lines, &to.name, &to.addr, &at); err != nil {
			return
		}
		to.at = time.Unix(0, at)
		select {
		case m.moves <- to:
		default:
		}
	}
}

// moveTasks runs a master whose tasks move.
func moveTasks(args []string) error {
	var numbers [3]int
	for i, arg := range args {
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	tasks, rate, told := numbers[0], numbers[1], numbers[2]
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	m := mesostest.NewMaster(15 * time.Second)
	large := mesostest.NewLarge(m, tasks, tasks/20, instances)
	m.Prepare()
	master := mesostest.Start(m)
	defer master.Close()
	defer m.Drop()
	fmt.Println(master.Host)
	n := 0
	large.Run(ctx, m, rate, func(t *mesostest.Task) {
		if n++; n%max(rate/told, 1) == 0 {
			addr := t.Statuses[0].ContainerStatus.NetworkInfos[0].IPAddresses[0].IPAddress
			fmt.Println(strings.ToLower(t.Name)+".marathon.mesos.", addr, time.Now().UnixNano())
		}
	})
	return nil
}

// seenLimit is how long to wait for a change.
const seenLimit = 10 * time.Second

// seen is how long changes took until they were answered.
type seen struct {
	after []float64 // ms
	never int       // within seenLimit
}

// watch asks a server for the tasks that move, for each from when the master has told of it,
// whether or not earlier moves are answered yet.
func (m *moving) watch(ctx context.Context, server string, length time.Duration) seen {
	for len(m.moves) > 0 {
		<-m.moves // an earlier one
	}
	var mu sync.Mutex
	var all seen
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			wg.Wait()
			return all
		case to := <-m.moves:
			wg.Go(func() {
				took, ok := to.await(server)
				mu.Lock()
				defer mu.Unlock()
				if ok {
					all.after = append(all.after, float64(took.Microseconds())/1000)
				} else {
					all.never++
				}
			})
		}
	}
}

// await asks for the app of a task until its address is in the answer, and returns how long after
// the move that was. It returns false if it never was.
func (to move) await(server string) (time.Duration, bool) {
	for {
		if slices.Contains(ask(server, to.name, dns.TypeA), netip.MustParseAddr(to.addr).String()) {
			return time.Since(to.at), true
		}
		waited := time.Since(to.at)
		if waited > seenLimit {
			return 0, false
		}
		time.Sleep(max(time.Millisecond, waited/20)) // do not keep the server busy
	}
}
