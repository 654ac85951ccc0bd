package watch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/resolve"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

func TestMain(m *testing.M) {
	clog.Discard()
	m.Run()
}

// recorder is an Observer and a Sink that notes what it is told.
type recorder struct {
	mu          sync.Mutex
	told        []string
	connected   int // attempts that succeeded
	malformed   int
	differences int
	led         int
	saves       []error
	published   []time.Time
	agents      map[string]bool // that were published
	status      Status
}

func (r *recorder) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, what)
}

func (r *recorder) Connected(err error) {
	if err != nil {
		r.note("failed")
		return
	}
	r.note("connected")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected++
}

func (r *recorder) Received(eventType string) {
	if eventType != "HEARTBEAT" {
		r.note(eventType)
	}
}

func (r *recorder) Malformed(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.malformed += n
}

func (r *recorder) Reconciled(differences int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.differences += differences
}

func (r *recorder) Led() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.led++
}

func (*recorder) Published(time.Duration) {}

func (r *recorder) SnapshotWritten(_ int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saves = append(r.saves, err)
}

func (r *recorder) Publish(ch *cluster.Changes, status Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.published = append(r.published, time.Now())
	r.status = status
	for _, c := range ch.Agents {
		if c.New != nil {
			r.agents[c.New.ID] = true
		} else {
			delete(r.agents, c.Old.ID)
		}
	}
}

func (*recorder) HostsChanged([]string) {}

// take returns what was observed since the last call.
func (r *recorder) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	told := strings.Join(r.told, "; ")
	r.told = nil
	return told
}

// inMemory runs a watcher of masters that h plays, in a bubble of synctest.
func inMemory(t *testing.T, h http.Handler, change func(c *Config)) (*Watcher, *recorder) {
	t.Helper()
	srv := mesostest.StartInMemory(h)
	file := filepath.Join(t.TempDir(), "credentials") // the client is choosy about who is sent these
	if err := os.WriteFile(file, []byte("dns hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials, err := mesos.LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{agents: make(map[string]bool)}
	c := Config{
		Name:     "test",
		Detector: detector.Static{mesostest.API("10.0.0.1:5050")},
		Client:   mesos.NewClient(mesos.Config{Dial: srv.Dial, Credentials: credentials}),
		Resolver: resolve.New(func(context.Context, string) ([]netip.Addr, error) { return nil, io.EOF }),
		Observer: r,
	}
	if change != nil {
		change(&c)
	}
	w := New(c)
	ctx, cancel := context.WithCancel(t.Context())
	go w.Run(ctx)
	w.Add(r)
	t.Cleanup(func() {
		cancel()
		<-w.done
		srv.Close()
	})
	return w, r
}

// pass lets time pass in a bubble of synctest, and all that is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// attempts is a master that notes when it is asked to subscribe.
type attempts struct {
	answer http.HandlerFunc

	mu    sync.Mutex
	times []time.Time
}

func (a *attempts) all() []time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.times)
}

func (a *attempts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil && strings.HasSuffix(string(body), "\x12") { // SUBSCRIBE
		a.mu.Lock()
		a.times = append(a.times, time.Now())
		a.mu.Unlock()
		a.answer(w, r)
		return
	}
	http.Error(w, "no", http.StatusForbidden)
}

// firstRecord is the begin of a stream.
func firstRecord(heartbeat float64) []byte {
	return mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}, Heartbeat: heartbeat}}))
}

// streaming answers SUBSCRIBE with a first record, and then what more does.
func streaming(heartbeat float64, more func(w io.Writer, flush func(), r *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(firstRecord(heartbeat))
		flush := func() { _ = http.NewResponseController(w).Flush() }
		flush()
		more(w, flush, r)
	}
}

// rest lets d pass in a handler, unless the client leaves: that it reports.
func rest(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

// electing is a detector that finds what it is given.
type electing chan detector.Masters

func (e electing) Run(ctx context.Context, found func(detector.Masters)) {
	for {
		select {
		case m := <-e:
			found(m)
		case <-ctx.Done():
			return
		}
	}
}

// TestPublish_LoneEventAndBurst publishes a lone event at once, and those of a burst together.
func TestPublish_LoneEventAndBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		_, r := inMemory(t, m, nil)
		pass(time.Second)
		publications := func() []time.Time {
			r.mu.Lock()
			defer r.mu.Unlock()
			p := r.published
			r.published = nil
			return p
		}

		publications()
		start := time.Now()
		m.AddAgent(tut.Agent(7, "172.24.197.107"))
		synctest.Wait()
		if p := publications(); len(p) != 1 || !p[0].Equal(start) {
			t.Errorf("a lone event was published at %v, it came at %v", p, start)
		}
		pass(time.Second)
		publications()
		start = time.Now()
		tut.Wander(m) // a task that is launched, and not published yet, comes first
		pass(time.Second)
		if p := publications(); len(p) != 1 || p[0].Sub(start) > unchangedInterval {
			t.Errorf("a task that moved at %v was published at %v", start, p)
		}
		publications()
		for i := range 50 {
			m.AddAgent(tut.Agent(10+i, fmt.Sprintf("172.24.198.%d", i)))
			pass(time.Millisecond)
		}
		pass(time.Second)
		p := publications()
		if n := len(p); n < 5 || n > 6 {
			t.Errorf("50 events in 50 ms made %d publications", n)
		}
		for i := 1; i < len(p); i++ {
			if d := p[i].Sub(p[i-1]); d < publishInterval {
				t.Errorf("publications %v apart", d)
			}
		}
	})
}

// TestAdd_WhileAChangeWaits adds a sink while a change waits to be published: it must get
// the change once, in the full set or after it.
func TestAdd_WhileAChangeWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		w, _ := inMemory(t, m, nil)
		pass(time.Second)
		late := &counting{running: make(map[string]int)}
		w.Do(func() { w.publishNext = time.Now().Add(time.Second) })
		tut.Wander(m)
		synctest.Wait()
		w.Add(late)
		pass(2 * time.Second)
		if len(late.running) != 10 || late.odd != 0 {
			t.Errorf("%d tasks run, %d changes do not fit", len(late.running), late.odd)
		}
	})
}

// counting counts the tasks that were published, and changes that do not fit to those before.
type counting struct {
	running map[string]int
	odd     int
}

func (c *counting) Publish(ch *cluster.Changes, _ Status) {
	for change := range ch.Instances {
		if change.Old.Valid() {
			if c.running[change.Old.Task.ID()] != 1 {
				c.odd++
			}
			delete(c.running, change.Old.Task.ID())
		}
		if change.New.Valid() {
			c.running[change.New.Task.ID()]++
		}
	}
}

func (*counting) HostsChanged([]string) {}

// TestMalformed_CountedOnce polls a state with malformed objects: they count when they
// appear, and not at each poll.
func TestMalformed_CountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Int32
		broken.Store(2)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil || !strings.HasSuffix(string(body), "\x09") {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			state := &mesostest.GetState{Tasks: &mesostest.GetTasks{}}
			for range broken.Load() {
				state.Tasks.Tasks = append(state.Tasks.Tasks, &mesostest.Task{Name: "without ids"})
			}
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 8, GetState: state}))
		})
		_, r := inMemory(t, h, func(c *Config) { c.Poll = 10 * time.Second })
		for _, step := range []struct {
			broken int32
			want   int
		}{{2, 2}, {3, 3}, {1, 3}, {2, 4}} {
			broken.Store(step.broken)
			pass(time.Minute)
			r.mu.Lock()
			if r.malformed != step.want {
				t.Errorf("%d malformed objects counted, want %d", r.malformed, step.want)
			}
			r.mu.Unlock()
		}
	})
}

// TestHeard_ByAnswers asks a master without heartbeats for its agents: its answers show that
// it speaks.
func TestHeard_ByAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(0)
		mesostest.NewTutorial(m)
		w, _ := inMemory(t, m, nil)
		for range 12 {
			pass(10 * time.Minute)
			if age := time.Since(w.Stats().Heard); age > agentsTurns*agentsInterval {
				t.Errorf("a master that answers was last heard %v ago", age)
			}
		}
		if n := m.Subscribers(); n != 1 {
			t.Errorf("%d subscriptions", n)
		}
	})
}

// removals is a Sink that notes tasks that are not published any more.
type removals struct {
	mu    sync.Mutex
	tasks []string
}

func (r *removals) Publish(ch *cluster.Changes, _ Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range ch.Instances {
		if !c.New.Valid() {
			r.tasks = append(r.tasks, c.Old.Task.ID())
		}
	}
}

func (*removals) HostsChanged([]string) {}

// TestExpire_Backlog fails over, and has what the agent tells wait for a busy loop for longer
// than the agent has time: it counts all the same.
func TestExpire_Backlog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		mesostest.NewTutorial(m)
		var gone removals
		w, _ := inMemory(t, m, nil)
		w.Add(&gone)
		pass(time.Second)
		before := m.State()
		m.Load(&mesostest.GetState{Frameworks: before.Frameworks, Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{
			&before.Agents.Agents[0].AgentInfo, &before.Agents.Agents[1].AgentInfo,
		}}})
		m.SetID("another")
		m.Drop()
		pass(time.Minute)
		m.AddAgent(before.Agents.Agents[0])
		m.AddAgent(before.Agents.Agents[1])
		pass(time.Second)
		busy := make(chan struct{})
		go w.Do(func() { <-busy })
		synctest.Wait()
		for _, task := range before.Tasks.Tasks {
			m.AddTask(task)
		}
		pass(5 * time.Second)
		close(busy)
		pass(time.Minute)
		if w.Stats().Retained > 0 || !w.Stats().Synced || len(gone.tasks) > 0 {
			t.Errorf("%+v, removed %q", w.Stats(), gone.tasks)
		}
	})
}
