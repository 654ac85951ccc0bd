// Command mesos-sim is a simulated Mesos master. It serves a small cluster, a
// cluster from a file, a large cluster whose tasks move, or a recorded stream.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// wander is the interval at which the tutorial's app wanderer moves.
const wander = 5 * time.Second

type options struct {
	listen    string
	cluster   string
	replay    string
	speed     float64
	tasks     int
	agents    int
	instances int
	changes   int
	heartbeat time.Duration
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("mesos-sim: ")
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:5050", "address to serve the Operator API on")
	flag.StringVar(&o.cluster, "cluster", "", "file with a v1 GET_STATE in JSON to serve, instead of a small cluster with nginx.marathon")
	flag.StringVar(&o.replay, "replay", "", "recorded stream to serve, with its index in FILE.index")
	flag.Float64Var(&o.speed, "speed", 1, "factor by which to replay faster than recorded")
	flag.IntVar(&o.tasks, "tasks", 0, "serve a generated cluster of this many tasks")
	flag.IntVar(&o.agents, "agents", 0, "agents of the generated cluster (default a twentieth of the tasks)")
	flag.IntVar(&o.instances, "instances", 3, "tasks of each app of the generated cluster")
	flag.IntVar(&o.changes, "changes", 0, "tasks of the generated cluster to move each second")
	flag.DurationVar(&o.heartbeat, "heartbeat", 15*time.Second, "heartbeat interval; 0: none")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal(err)
	}
}

func run(o options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if o.tasks == 0 {
		if of := givenOf("agents", "instances", "changes"); of != "" {
			return fmt.Errorf("-%s needs -tasks", of)
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return err
	}
	handler, drive, err := newCluster(o, l)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		drive(ctx)
	}()
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	log.Printf("Simulating a Mesos master at http://%s", l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done
	return nil
}

// givenOf returns one of the flags that were given, or "".
func givenOf(names ...string) (given string) {
	flag.Visit(func(f *flag.Flag) {
		if slices.Contains(names, f.Name) {
			given = f.Name
		}
	})
	return given
}

// newCluster returns the handler to serve, and the function that changes its cluster until a
// context is done.
func newCluster(o options, l net.Listener) (http.Handler, func(context.Context), error) {
	if o.replay != "" {
		return newReplay(o)
	}
	m := mesostest.NewMaster(o.heartbeat)
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && !tcp.IP.IsUnspecified() {
		m.SetAddress(tcp.AddrPort())
	}
	switch {
	case o.cluster != "":
		b, err := os.ReadFile(o.cluster)
		if err != nil {
			return nil, nil, err
		}
		s, err := mesostest.ParseState(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", o.cluster, err)
		}
		m.Load(s)
		return m, func(context.Context) {}, nil
	case o.tasks > 0:
		if o.agents == 0 {
			o.agents = max(o.tasks/20, 1)
		}
		large := mesostest.NewLarge(m, o.tasks, o.agents, max(o.instances, 1))
		m.Prepare()
		return m, func(ctx context.Context) { large.Run(ctx, m, o.changes, func(*mesostest.Task) {}) }, nil
	}
	tutorial := mesostest.NewTutorial(m)
	return m, func(ctx context.Context) { every(ctx, wander, func() { tutorial.Wander(m) }) }, nil
}

func newReplay(o options) (http.Handler, func(context.Context), error) {
	stream, err := os.ReadFile(o.replay)
	if err != nil {
		return nil, nil, err
	}
	b, err := os.ReadFile(o.replay + ".index")
	if err != nil {
		return nil, nil, err
	}
	index, err := mesostest.ParseIndex(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.index: %w", o.replay, err)
	}
	p := mesostest.NewReplay(stream, "application/x-protobuf")
	return p, func(ctx context.Context) { p.Run(index, o.speed, ctx.Done()) }, nil
}

func every(ctx context.Context, interval time.Duration, f func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f()
		}
	}
}
