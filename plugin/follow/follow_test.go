package follow

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

func TestMain(m *testing.M) {
	clog.Discard()
	m.Run()
}

func parseMaster(t *testing.T, endpoint string) *url.URL {
	t.Helper()
	u, err := leader.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// told notes what a follower tells.
type told struct {
	mu       sync.Mutex
	messages []Message
}

func (l *told) tell(ctx context.Context, m Message) {
	if ctx.Err() != nil {
		return // as a watcher that waits for its turn
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages = append(l.messages, m)
}

// names returns what was told since the last call, heartbeats left out.
func (l *told) names() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var names []string
	for _, m := range l.messages {
		switch m := m.(type) {
		case Event:
			if m.Event != (mesos.Heartbeat{}) {
				names = append(names, mesos.EventType(m.Event))
			}
		case Connect:
			name := "connect"
			if m.Err != nil {
				name = "fail"
			}
			names = append(names, name)
		case State:
			names = append(names, fmt.Sprintf("state of %s", m.Leader.Endpoint))
		case Answered:
			names = append(names, fmt.Sprintf("answered %v, whole %v", m.State != nil, m.Whole))
		default:
			names = append(names, strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", m), "follow.")))
		}
	}
	l.messages = nil
	return strings.Join(names, "; ")
}

// inMemory runs a follower of masters that h plays, in a bubble of synctest.
func inMemory(t *testing.T, h http.Handler, change func(f *Follower)) *told {
	t.Helper()
	srv := mesostest.StartInMemory(h)
	l := &told{}
	file := filepath.Join(t.TempDir(), "credentials") // the client is choosy with these
	if err := os.WriteFile(file, []byte("dns hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials, err := mesos.LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	f := New("test", leader.List{parseMaster(t, "10.0.0.1:5050")}, mesos.NewClient(mesos.Config{Dial: srv.Dial, Credentials: credentials}))
	f.Tell = l.tell
	f.Awaiting = func() bool { return false }
	if change != nil {
		change(f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		srv.Close()
	})
	return l
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

// pass lets time pass in a bubble of synctest, and all that is due then happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestBackOff counts how often a master is asked that has no leader.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }}
		inMemory(t, a, nil)
		pass(2 * time.Minute)
		for i := 1; i < len(a.all()); i++ {
			wait := a.all()[i].Sub(a.all()[i-1])
			most := min(minBackOff<<(i-1), maxBackOff)
			if wait < most/2 || wait > most {
				t.Errorf("attempt %d came after %v, not %v to %v", i, wait, most/2, most)
			}
		}
		if len(a.all()) < 15 || len(a.all()) > 40 {
			t.Errorf("%d attempts", len(a.all()))
		}
	})
}

// TestBackOffWithoutHeartbeat lets streams end at once that announce no interval.
// TestBackOffWhileRecovering asks a leader that reads its registry, and a proxy that
// knows of no leader, for half a minute.
func TestBackOffWhileRecovering(t *testing.T) {
	for body, want := range map[string][2]int{
		"Master has not finished recovery": {60, 125},
		"Service Unavailable":              {5, 15},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, http.StatusServiceUnavailable) }}
			inMemory(t, a, nil)
			time.Sleep(30 * time.Second)
			if n := len(a.all()); n < want[0] || n > want[1] {
				t.Errorf("%q: %d attempts", body, n)
			}
		})
	}
}

func TestBackOffWithoutHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		record := firstRecord(0)
		a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(record)
		}}
		inMemory(t, a, nil)
		pass(10 * time.Minute)
		if n := len(a.all()); n > 140 {
			t.Errorf("%d subscriptions in ten minutes", n)
		}
	})
}

// TestBackOffStartsOver lets streams end before and after they have settled.
func TestBackOffStartsOver(t *testing.T) {
	for name, tc := range map[string]struct {
		lives time.Duration
		most  time.Duration // between the end of a stream and the next attempt, in the end
	}{
		"short": {time.Second, maxBackOff},
		"long":  {50 * time.Second, minBackOff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := firstRecord(15)
				beat := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9}))
				a := &attempts{}
				a.answer = func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/x-protobuf")
					for lived := time.Duration(0); lived < tc.lives; lived += time.Second {
						_, _ = w.Write(append(slices.Clone(first), beat...))
						_ = http.NewResponseController(w).Flush()
						select {
						case <-time.After(time.Second):
						case <-r.Context().Done():
							return
						}
					}
					panic(http.ErrAbortHandler) // as in a crash
				}
				inMemory(t, a, nil)
				pass(10 * time.Minute)
				last := len(a.all()) - 1
				gap := a.all()[last].Sub(a.all()[last-1]) - tc.lives
				if gap > tc.most || gap < tc.most/2 {
					t.Errorf("the next attempt came %v after the end, want %v to %v", gap, tc.most/2, tc.most)
				}
			})
		})
	}
}

// TestBackOffAfterAnOutage breaks the first stream after masters were away: what it
// would have told meanwhile is not waited for.
func TestBackOffAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		a := &attempts{}
		a.answer = func(w http.ResponseWriter, _ *http.Request) {
			if away.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = w.Write(firstRecord(15))
			_ = http.NewResponseController(w).Flush()
			<-time.After(10 * time.Millisecond)
			panic(http.ErrAbortHandler)
		}
		inMemory(t, a, nil)
		pass(time.Minute)
		away.Store(false)
		before := len(a.all())
		pass(maxBackOff)
		all := a.all()
		if len(all) < before+2 || all[before+1].Sub(all[before]) > minBackOff+20*time.Millisecond {
			t.Errorf("attempts at %v", all[before:])
		}
	})
}

// TestLostStream lets the watchdog end a stream: that must be told.
func TestLostStream(t *testing.T) {
	for range 10 { // what ends a stream may also end the telling of it
		synctest.Test(t, func(t *testing.T) {
			a := &attempts{}
			a.answer = func(w http.ResponseWriter, r *http.Request) {
				if len(a.all()) > 1 {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				w.Header().Set("Content-Type", "application/x-protobuf")
				_, _ = w.Write(firstRecord(15))
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
			l := inMemory(t, a, nil)
			pass(10 * time.Second)
			if got := l.names(); got != "masters; state of 10.0.0.1:5050; connect" {
				t.Fatal(got)
			}
			pass(time.Minute)
			if got := l.names(); !strings.Contains(got, "lost; fail") {
				t.Fatal(got)
			}
		})
	}
}

// TestWatchdog leaves streams that are silent.
func TestWatchdog(t *testing.T) {
	for name, tc := range map[string]struct {
		heartbeat float64
		first     bool
		leftAfter time.Duration // 0: not left
	}{
		"three intervals":             {15, true, 45 * time.Second},
		"short intervals":             {0.01, true, 3 * time.Second},
		"long intervals":              {3600, true, 15 * time.Minute},
		"no heartbeat announced":      {0, true, 0},
		"no state, nothing at all":    {0, false, firstSilence},
		"half of a state and no more": {15, false, firstSilence},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				record := firstRecord(tc.heartbeat)
				if !tc.first {
					record = record[:len(record)/2]
				}
				var left atomic.Pointer[time.Time]
				a := &attempts{answer: func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/x-protobuf")
					_, _ = w.Write(record)
					_ = http.NewResponseController(w).Flush()
					<-r.Context().Done()
					now := time.Now()
					left.CompareAndSwap(nil, &now)
				}}
				inMemory(t, a, nil)
				pass(time.Hour)
				at := left.Load()
				switch {
				case at == nil && tc.leftAfter != 0:
					t.Error("the stream was not left")
				case at != nil && at.Sub(a.all()[0]).Round(time.Millisecond) != tc.leftAfter:
					t.Errorf("the stream was left after %v, not %v", at.Sub(a.all()[0]), tc.leftAfter)
				}
			})
		})
	}
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

// TestTrickle lets an event come an octet a second: it is as good as silence.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{answer: streaming(15, func(w io.Writer, flush func(), r *http.Request) {
			_, _ = io.WriteString(w, "1000000\n\x1a\xbc\x84\x3d") // a TASK_ADDED
			for rest(r, time.Second) {
				_, _ = w.Write([]byte{0})
				flush()
			}
		})}
		inMemory(t, a, nil)
		pass(10 * time.Minute)
		if n := len(a.all()); n < 8 || n > 14 {
			t.Errorf("%d subscriptions in ten minutes", n)
		}
	})
}

// TestLargeState lets a state come slowly, but steadily.
func TestLargeState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := &mesostest.GetState{Tasks: &mesostest.GetTasks{}}
		for i := range 10_000 {
			state.Tasks.Tasks = append(state.Tasks.Tasks, &mesostest.Task{Name: strings.Repeat("x", 100), TaskID: mesostest.ID{Value: fmt.Sprint(i)}, FrameworkID: mesostest.ID{Value: "f"}})
		}
		record := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: state}}))
		a := &attempts{answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			for chunk := range slices.Chunk(record, 8<<10) {
				_, _ = w.Write(chunk)
				_ = http.NewResponseController(w).Flush()
				rest(r, 2*time.Second)
			}
			<-r.Context().Done()
		}}
		l := inMemory(t, a, nil)
		pass(time.Hour)
		if got := l.names(); len(a.all()) != 1 || !strings.HasPrefix(got, "masters; state of 10.0.0.1:5050; connect") {
			t.Errorf("%d subscriptions: %s", len(a.all()), got)
		}
	})
}

// crowded is a master that allows so many subscribers, and ends the oldest
// stream where there is one more, as Mesos does.
type crowded struct {
	allowed int

	mu      sync.Mutex
	id      string // of its process, or "" if it does not tell
	streams []chan struct{}
	evicted int
	states  int
}

func (c *crowded) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/x-protobuf")
	switch {
	case err != nil:
	case strings.HasSuffix(string(body), "\x09"): // GET_STATE
		c.mu.Lock()
		c.states++
		c.mu.Unlock()
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 8, GetState: &mesostest.GetState{}}))
	case strings.HasSuffix(string(body), "\x12"): // SUBSCRIBE
		end := make(chan struct{})
		c.mu.Lock()
		if c.streams = append(c.streams, end); len(c.streams) > c.allowed {
			close(c.streams[0])
			c.streams = c.streams[1:]
			c.evicted++
		}
		c.mu.Unlock()
		streaming(0, func(io.Writer, func(), *http.Request) {
			select {
			case <-end:
			case <-r.Context().Done():
			}
		})(w, r)
	default: // GET_MASTER
		c.mu.Lock()
		id := c.id
		c.mu.Unlock()
		if id == "" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 15, GetMaster: &mesostest.GetMaster{MasterInfo: mesostest.MasterInfo{ID: id, Hostname: "m", Port: 5050}}}))
	}
}

// evict ends all streams, and changes what is told of the process.
func (c *crowded) evict(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, end := range c.streams {
		close(end)
	}
	c.streams, c.id = nil, id
}

func (c *crowded) subscribed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.streams)
}

// TestEviction runs more watchers than the master allows: they are not to put
// out one another in a circle, and the one without a stream is to know the state.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowded{allowed: 3}
		var all []*told
		for range 4 {
			all = append(all, inMemory(t, c, nil))
			pass(time.Second)
		}
		pass(24 * time.Hour)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.evicted > 60 { // about one in 45 minutes, and until the waits are that long
			t.Errorf("%d streams were ended in a day", c.evicted)
		}
		if c.states < 1000 || c.states > 24*60*3 {
			t.Errorf("the state was asked for %d times in a day", c.states)
		}
		for i, l := range all {
			if got := l.names(); strings.HasSuffix(got, "lost") {
				t.Errorf("watcher %d has neither a stream nor polls", i)
			}
		}
	})
}

// TestEvictionAndElections ends a stream while another master, that does not
// lead, has come, and then elects another leader.
func TestEvictionAndElections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowded{allowed: 1}
		e := make(electing)
		l := inMemory(t, c, func(f *Follower) { f.Finder = e })
		one, two := parseMaster(t, "10.0.0.1:5050"), parseMaster(t, "10.0.0.2:5050")
		e <- leader.View{Leader: one, Masters: []*url.URL{one}}
		pass(time.Second)
		e <- leader.View{Leader: one, Masters: []*url.URL{one, two}} // a standby
		pass(time.Second)
		l.names()
		c.evict("")
		pass(20 * time.Second)
		e <- leader.View{Leader: one, Masters: []*url.URL{one}} // and it is gone
		pass(5 * time.Second)
		if n := c.subscribed(); n != 0 {
			t.Errorf("%d streams, soon after it was put out", n)
		}
		e <- leader.View{Leader: two, Masters: []*url.URL{two}}
		pass(5 * time.Second)
		if n := c.subscribed(); n != 1 {
			t.Errorf("%d streams of the next leader", n)
		}
	})
}

// TestEvictionAndRestart has the master that has put out a watcher start again at its
// address, or fail to tell who it is.
func TestEvictionAndRestart(t *testing.T) {
	for id, want := range map[string]int{"one": 0, "": 0, "two": 1} {
		synctest.Test(t, func(t *testing.T) {
			c := &crowded{allowed: 1, id: "one"}
			inMemory(t, c, nil)
			pass(time.Second)
			c.evict(id)
			pass(5 * time.Second) // and the wait takes half a minute at least
			if n := c.subscribed(); n != want {
				t.Errorf("process %q: %d streams", id, n)
			}
		})
	}
}

// electing is a Finder that tells what it is given.
type electing chan leader.View

func (e electing) Run(ctx context.Context, found func(leader.View)) {
	for {
		select {
		case v := <-e:
			found(v)
		case <-ctx.Done():
			return
		}
	}
}

// TestElection lets ZooKeeper name another leader, while the stream of the
// present one is open and silent, and while it does not even answer.
func TestElection(t *testing.T) {
	for name, hangs := range map[string]bool{"silent": false, "does not answer": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				counts := make(map[string]int)
				asked := func(host string) int {
					mu.Lock()
					defer mu.Unlock()
					return counts[host]
				}
				h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if body, err := io.ReadAll(r.Body); err != nil || !strings.HasSuffix(string(body), "\x12") {
						http.Error(w, "no", http.StatusForbidden)
						return
					}
					mu.Lock()
					counts[r.Host]++
					mu.Unlock()
					if r.Host == "10.0.0.1:5050" && hangs {
						<-r.Context().Done()
						return
					}
					streaming(300, func(io.Writer, func(), *http.Request) { <-r.Context().Done() })(w, r)
				})
				e := make(electing)
				l := inMemory(t, h, func(f *Follower) { f.Finder = e })
				one, two := parseMaster(t, "10.0.0.1:5050"), parseMaster(t, "10.0.0.2:5050")
				both := []*url.URL{one, two}
				e <- leader.View{Leader: one, Masters: both}
				pass(5 * time.Second)
				if asked(one.Host) != 1 || asked(two.Host) != 0 {
					t.Fatalf("asked %d and %d times", asked(one.Host), asked(two.Host))
				}
				l.names()
				e <- leader.View{Leader: two, Masters: both}
				synctest.Wait() // no time passes
				if got := l.names(); asked(two.Host) != 1 || !strings.Contains(got, "state of 10.0.0.2:5050; connect") {
					t.Errorf("asked %d times, told %s", asked(two.Host), got)
				}
				e <- leader.View{Leader: two, Masters: both[1:]} // the same leader
				pass(time.Second)
				if asked(two.Host) != 1 {
					t.Error("the stream was left without need")
				}
			})
		})
	}
}

// TestTwoLeaders has two masters lead at once, both of which send events. Once
// ZooKeeper names the second, what the first one has said already is still told.
func TestTwoLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		masters := map[string]*mesostest.Master{"10.0.0.1:5050": mesostest.NewMaster(time.Second), "10.0.0.2:5050": mesostest.NewMaster(time.Second)}
		one, two := parseMaster(t, "10.0.0.1:5050"), parseMaster(t, "10.0.0.2:5050")
		e := make(electing)
		busy := make(chan struct{})
		var told []string
		inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { masters[r.Host].ServeHTTP(w, r) }), func(f *Follower) {
			f.Finder = e
			f.Tell = func(ctx context.Context, m Message) {
				switch m := m.(type) {
				case State:
					told = append(told, m.Leader.Endpoint)
				case Event:
					ev, ok := m.Event.(mesos.AgentRemoved)
					if !ok {
						return
					}
					select {
					case <-busy:
						told = append(told, ev.AgentID)
					case <-ctx.Done():
					}
				}
			}
		})
		e <- leader.View{Leader: one, Masters: []*url.URL{one, two}}
		pass(time.Second)
		masters[one.Host].RemoveAgent("a")
		pass(time.Second)
		e <- leader.View{Leader: two, Masters: []*url.URL{one, two}}
		pass(time.Second)
		close(busy)
		pass(time.Second)
		masters[one.Host].RemoveAgent("b")
		masters[two.Host].RemoveAgent("c")
		pass(time.Minute)
		if got := strings.Join(told, " "); got != "10.0.0.1:5050 a 10.0.0.2:5050 c" {
			t.Errorf("told %s", got)
		}
	})
}

// TestStaleZooKeeper follows the redirect of another master once the leader that
// ZooKeeper named has failed for a while.
func TestStaleZooKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := parseMaster(t, "10.0.0.1:5050"), parseMaster(t, "10.0.0.2:5050")
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == one.Host {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			streaming(15, func(io.Writer, func(), *http.Request) { <-r.Context().Done() })(w, r)
		})
		e := make(electing)
		l := inMemory(t, h, func(f *Follower) { f.Finder = e })
		e <- leader.View{Leader: one, Masters: []*url.URL{one, two}}
		pass(5 * time.Second)
		if got := l.names(); !strings.Contains(got, "state of 10.0.0.2:5050; connect") {
			t.Error(got)
		}
	})
}

// asking is a master that counts what it is asked for.
type asking struct {
	agents, states atomic.Int32
	takes          time.Duration // to answer GET_STATE
	refuse         atomic.Bool
}

func (a *asking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/x-protobuf")
	switch call := string(body); {
	case err != nil:
	case strings.HasSuffix(call, "\x12"):
		streaming(15, func(w io.Writer, flush func(), r *http.Request) {
			for rest(r, 15*time.Second) {
				_, _ = w.Write(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9})))
				flush()
			}
		})(w, r)
	case strings.HasSuffix(call, "\x0a"):
		a.agents.Add(1)
		if a.refuse.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 9, GetAgents: &mesostest.GetAgents{}}))
	case strings.HasSuffix(call, "\x09"):
		a.states.Add(1)
		rest(r, a.takes)
		if a.refuse.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 8, GetState: &mesostest.GetState{}}))
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// TestReconcile counts how often a master is asked what there is.
func TestReconcile(t *testing.T) {
	for name, tc := range map[string]struct {
		awaiting       bool
		doubts         time.Duration // one in this time; 0: none
		refuse         bool
		agents, states int // in a day, more or less
	}{
		"quiet":                     {agents: 24 * 12, states: 24},
		"awaiting":                  {awaiting: true, agents: 24 * 120, states: 24},
		"refused":                   {refuse: true, agents: 24 * 12, states: 24 * 11}, // from the first hour on
		"one doubt":                 {doubts: 12 * time.Hour, agents: 24 * 12, states: 25},
		"many doubts":               {doubts: time.Second, agents: 24 * 12, states: 24 * 12},
		"awaiting, and many doubts": {awaiting: true, doubts: time.Second, agents: 24 * 108, states: 24 * 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asking{}
				a.refuse.Store(tc.refuse)
				var follower *Follower
				inMemory(t, a, func(f *Follower) {
					follower = f
					f.Awaiting = func() bool { return tc.awaiting }
				})
				pass(time.Second)
				for start := time.Now(); time.Since(start) < 24*time.Hour; {
					if tc.doubts == 0 {
						pass(24 * time.Hour)
						continue
					}
					pass(tc.doubts)
					follower.Doubt()
				}
				near := func(got, want int) bool { return got >= want*9/10-1 && got <= want*12/10+1 }
				agents, states := int(a.agents.Load()), int(a.states.Load())
				if !near(agents, tc.agents) || !near(states, tc.states) {
					t.Errorf("asked for agents %d times, for states %d times", agents, states)
				}
			})
		})
	}
}

// TestPoll counts how often a master is polled that is quick, slow, or refuses.
func TestPoll(t *testing.T) {
	for name, tc := range map[string]struct {
		every, takes time.Duration
		refuse       bool
		want         int // in an hour
	}{
		"quick":           {10 * time.Second, 0, false, 360},
		"a bit slow":      {10 * time.Second, 4 * time.Second, false, 360},
		"slow":            {10 * time.Second, 20 * time.Second, false, 90},
		"refuses":         {time.Second, 0, true, 480},
		"refuses, slow":   {30 * time.Second, 0, true, 360},
		"does not answer": {time.Minute, time.Hour, false, 60 * 2 / 3}, // 30 seconds each time
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asking{takes: tc.takes}
				a.refuse.Store(tc.refuse)
				l := inMemory(t, a, func(f *Follower) { f.Poll = tc.every })
				pass(time.Hour)
				if n := int(a.states.Load()); n < tc.want*9/10 || n > tc.want*11/10 {
					t.Errorf("asked %d times in an hour, want %d", n, tc.want)
				}
				got := l.names()
				if states := strings.Count(got, "state of 10.0.0.1:5050"); !tc.refuse && tc.takes < firstSilence && states < tc.want*9/10 || tc.refuse && states > 0 {
					t.Errorf("%d states were told", states)
				}
				if tc.refuse || tc.takes > firstSilence {
					return
				}
				a.refuse.Store(true)
				pass(time.Minute)
				if got := l.names(); strings.Count(got, "lost") != 1 {
					t.Errorf("told %s", got)
				}
			})
		})
	}
}

// TestPollAfterRestart polls a master that is started again at its address.
func TestPollAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(0)
		m.SetID("one")
		seen := make(map[string]int)
		inMemory(t, m, func(f *Follower) {
			f.Poll = 10 * time.Second
			f.Tell = func(_ context.Context, msg Message) {
				if s, ok := msg.(State); ok {
					seen[s.Leader.ID]++
				}
			}
		})
		pass(15 * time.Second)
		m.SetID("two")
		pass(10 * time.Second)
		m.SetID("") // as where it does not tell
		pass(10 * time.Second)
		if seen["one"] != 2 || seen["two"] != 2 {
			t.Errorf("leaders are %v", seen)
		}
	})
}

// TestHungCalls asks a master that sends heartbeats, and hangs when it is asked.
func TestHungCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err != nil || !strings.HasSuffix(string(body), "\x12") {
				<-r.Context().Done()
				return
			}
			streaming(15, func(w io.Writer, flush func(), r *http.Request) {
				for rest(r, 15*time.Second) {
					_, _ = w.Write(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9})))
					flush()
				}
			})(w, r)
		}), nil)
		pass(2 * time.Hour)
		got := l.names()
		if n := strings.Count(got, "answered false, whole false"); n < 20 || strings.Count(got, "asked") > strings.Count(got, "answered")+1 {
			t.Errorf("%d answers did not come: %s", n, got)
		}
		if !strings.Contains(got, "answered false, whole true") || strings.Contains(got, "lost") {
			t.Errorf("told %s", got)
		}
	})
}

// TestHungWithoutHeartbeat leaves a master that announced no heartbeat and hangs,
// since it does not answer either.
func TestHungWithoutHeartbeat(t *testing.T) {
	for name, status := range map[string]int{"says nothing": 0, "refuses": http.StatusForbidden, "leads no more": http.StatusTemporaryRedirect} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var subscriptions atomic.Int32
				l := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					switch {
					case err != nil:
					case strings.HasSuffix(string(body), "\x12"):
						subscriptions.Add(1)
						streaming(0, func(io.Writer, func(), *http.Request) { <-r.Context().Done() })(w, r)
					case status == 0:
						<-r.Context().Done()
					default:
						w.Header().Set("Location", "//10.0.0.2:5050/master/api/v1")
						w.WriteHeader(status)
					}
				}), nil)
				pass(time.Hour)
				n, lost := subscriptions.Load(), strings.Contains(l.names(), "lost")
				if left := n > 1 && lost; left == (status == http.StatusForbidden) {
					t.Errorf("%d subscriptions, lost: %v", n, lost)
				}
			})
		})
	}
}

// TestElectionAfterRedirect has a stream by the redirect of a master that is
// named as the leader then, and one of a leader by another of its names.
func TestElectionAfterRedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, leads := parseMaster(t, "10.0.0.1:5050"), parseMaster(t, "10.0.0.2:5050"), parseMaster(t, "leader.example:5050")
		var mu sync.Mutex
		redirect := true
		e := make(electing)
		l := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			switch body, err := io.ReadAll(r.Body); {
			case err != nil || !strings.HasSuffix(string(body), "\x12"):
				w.WriteHeader(http.StatusForbidden)
			case redirect && r.Host != leads.Host:
				w.Header().Set("Location", "//"+leads.Host+"/master/api/v1")
				w.WriteHeader(http.StatusTemporaryRedirect)
			default:
				mu.Unlock()
				streaming(300, func(io.Writer, func(), *http.Request) { <-r.Context().Done() })(w, r)
				mu.Lock()
			}
		}), func(f *Follower) { f.Finder = e })
		both := []*url.URL{one, two}
		e <- leader.View{Leader: one, Masters: both[:1]}
		pass(time.Second)
		if got := l.names(); !strings.Contains(got, "state of leader.example:5050; connect") {
			t.Fatal(got)
		}
		e <- leader.View{Leader: one, Masters: both} // only another master
		pass(time.Second)
		if got := l.names(); got != "masters" {
			t.Errorf("a healthy stream was left: %s", got)
		}
		mu.Lock()
		redirect = false
		mu.Unlock()
		e <- leader.View{Leader: two, Masters: both}
		pass(time.Second)
		if got := l.names(); !strings.Contains(got, "lost") || !strings.Contains(got, "state of 10.0.0.2:5050; connect") {
			t.Errorf("the stream was not left: %s", got)
		}
	})
}

// TestSetMasters puts masters into another order before the finder says the first.
func TestSetMasters(t *testing.T) {
	a, b := parseMaster(t, "192.0.2.1:5050"), parseMaster(t, "192.0.2.2:5050")
	f := New("test", leader.List{a, b}, mesos.NewClient(mesos.Config{}))
	var told []*url.URL
	f.Tell = func(_ context.Context, m Message) {
		if m, ok := m.(Masters); ok {
			told = m.Masters
		}
	}
	f.SetMasters(t.Context(), []*url.URL{b, a})
	f.found(t.Context(), leader.View{Masters: []*url.URL{a, b}})
	if !slices.Equal(told, []*url.URL{b, a}) {
		t.Errorf("the masters are %v", told)
	}
}
