package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// TestBackOff counts how often a master is asked that refuses.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }}
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

// TestBackOffWhileElecting asks masters that are electing, or say so: often for a minute, in
// which an election ends, and then less and less.
func TestBackOffWhileElecting(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		dial   error
	}{
		"recovers": {answer: func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Master has not finished recovery", http.StatusServiceUnavailable)
		}},
		"no leader": {answer: func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "No leader elected", http.StatusServiceUnavailable)
		}},
		"redirects to itself":  {answer: func(w http.ResponseWriter, r *http.Request) { redirect(w, r.Host) }},
		"nothing listens":      {dial: refused},
		"no name, for a while": {dial: &net.OpError{Op: "dial", Err: &net.DNSError{Err: "refused", IsTemporary: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &attempts{answer: tc.answer}
				var dials atomic.Int32
				inMemory(t, a, func(c *Config) {
					if tc.dial != nil {
						c.Client = mesos.NewClient(mesos.Config{Dial: func(context.Context, string, string) (net.Conn, error) {
							dials.Add(1)
							return nil, tc.dial
						}})
					}
				})
				asked := func() int { return len(a.all()) + int(dials.Load()) }
				redirects := 1
				if name == "redirects to itself" {
					redirects = 4
				}
				pass(electionTime)
				if n := asked() / redirects; n < 120 || n > 260 {
					t.Errorf("%d attempts in a minute", n)
				}
				before := asked()
				pass(2 * electionTime)
				if n := (asked() - before) / redirects; n < 15 || n > 40 {
					t.Errorf("%d attempts in the two minutes after", n)
				}
			})
		})
	}
}

// redirect redirects to another master, as Mesos does.
func redirect(w http.ResponseWriter, host string) {
	w.Header().Set("Location", "//"+host+"/master/api/v1")
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// TestBackOffWithoutHeartbeat ends streams at once that announce no heartbeat.
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

// TestSubscribedAgain begins a stream again and again, without an end: each is left, and the
// next one is waited for.
func TestSubscribedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := firstRecord(15)
		a := &attempts{answer: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-protobuf")
			for r.Context().Err() == nil {
				if _, err := w.Write(first); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				time.Sleep(time.Millisecond)
			}
		}}
		inMemory(t, a, nil)
		pass(10 * time.Minute)
		if n := len(a.all()); n < 50 || n > 140 {
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
					_, _ = w.Write(first)
					for lived := time.Duration(0); lived < tc.lives; lived += time.Second {
						_, _ = w.Write(beat)
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

// TestLostStream lets the watchdog end a stream, which must be noticed.
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
			w, r := inMemory(t, a, nil)
			pass(10 * time.Second)
			if got := r.take(); got != "SUBSCRIBED; connected" || w.Stats().Leader != "10.0.0.1:5050" || !w.Stats().Synced {
				t.Fatal(got, w.Stats())
			}
			pass(time.Minute)
			if got := r.take(); !strings.Contains(got, "failed") || w.Stats().Synced {
				t.Fatal(got, w.Stats())
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

// TestTrickle lets an event come a byte a second, which is as good as silence.
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
		_, r := inMemory(t, a, nil)
		pass(time.Hour)
		// It takes five minutes: one, two and four of them are tried first.
		if got := r.take(); len(a.all()) != 4 || got != "failed; failed; failed; SUBSCRIBED; connected" {
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

// evict ends all streams, and changes the id of the process.
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

// TestEviction runs more watchers than the master allows: they must not end each other's streams all
// the time, and the one without a stream must know the state.
func TestEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowded{allowed: 3}
		var all []*Watcher
		for range 4 {
			w, _ := inMemory(t, c, nil)
			all = append(all, w)
			pass(time.Second)
		}
		pass(6 * time.Hour)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.evicted > 36 { // about one in 45 minutes, and until the waits are that long
			t.Errorf("%d streams were ended in six hours", c.evicted)
		}
		if c.states < 6*3600/2*9/10 || c.states > 6*3600/2*11/10 { // every two seconds, while one is put out
			t.Errorf("the state was asked for %d times in six hours", c.states)
		}
		for i, w := range all {
			if !w.Stats().Synced {
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
		inMemory(t, c, func(c *Config) { c.Detector = e })
		one, two := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050")
		e <- detector.Masters{Leader: one, All: []*url.URL{one}}
		pass(time.Second)
		e <- detector.Masters{Leader: one, All: []*url.URL{one, two}} // a standby
		pass(time.Second)
		c.evict("")
		pass(20 * time.Second)
		e <- detector.Masters{Leader: one, All: []*url.URL{one}} // and it is gone
		pass(5 * time.Second)
		if n := c.subscribed(); n != 0 {
			t.Errorf("%d streams, soon after it was put out", n)
		}
		e <- detector.Masters{Leader: two, All: []*url.URL{two}}
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
				_, r := inMemory(t, h, func(c *Config) { c.Detector = e })
				one, two := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050")
				both := []*url.URL{one, two}
				e <- detector.Masters{Leader: one, All: both}
				pass(5 * time.Second)
				if asked(one.Host) != 1 || asked(two.Host) != 0 {
					t.Fatalf("asked %d and %d times", asked(one.Host), asked(two.Host))
				}
				r.take()
				e <- detector.Masters{Leader: two, All: both}
				synctest.Wait() // no time passes
				if got := r.take(); asked(two.Host) != 1 || !strings.HasSuffix(got, "SUBSCRIBED; connected") {
					t.Errorf("asked %d times, told %s", asked(two.Host), got)
				}
				e <- detector.Masters{Leader: two, All: both[1:]} // the same leader
				pass(time.Second)
				r.mu.Lock()
				if wantLed := map[bool]int{true: 0, false: 1}[hangs]; r.led != wantLed {
					t.Errorf("another master led %d times, want %d", r.led, wantLed)
				}
				r.mu.Unlock()
				if asked(two.Host) != 1 {
					t.Error("the stream was left without need")
				}
			})
		})
	}
}

// TestTwoLeaders has two masters lead at once, both of which send events. Once ZooKeeper
// names the second, what was read of the first one's stream still counts, though the loop is
// busy, and nothing that comes later.
func TestTwoLeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		masters := map[string]*mesostest.Master{"10.0.0.1:5050": mesostest.NewMaster(time.Second), "10.0.0.2:5050": mesostest.NewMaster(time.Second)}
		one, two := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050")
		both := []*url.URL{one, two}
		e := make(electing)
		w, r := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { masters[r.Host].ServeHTTP(w, r) }), func(c *Config) { c.Detector = e })
		e <- detector.Masters{Leader: one, All: both}
		pass(time.Second)
		busy := make(chan struct{})
		var running sync.WaitGroup
		running.Go(func() { w.Do(func() { <-busy }) })
		synctest.Wait()
		script := mesostest.NewScript("one")
		for i := range 2 * maxQueued {
			masters[one.Host].AddAgent(script.Agent(i, "10.0.0.9"))
		}
		pass(time.Second)
		r.take()
		go func() { e <- detector.Masters{Leader: two, All: both} }()
		pass(time.Second)
		masters[one.Host].AddAgent(script.Agent(1000, "10.0.0.9"))
		close(busy)
		running.Wait()
		pass(time.Second)
		masters[two.Host].AddAgent(mesostest.NewScript("two").Agent(0, "10.0.0.8"))
		pass(time.Second)
		r.mu.Lock()
		defer r.mu.Unlock()
		if n := len(r.agents); n <= maxQueued || n > 2*maxQueued+1 || r.agents[script.AgentID(1000)] || !r.agents["two-S0"] || w.Stats().Leader != two.Host {
			t.Errorf("%d agents, %+v", n, w.Stats())
		}
	})
}

// TestStaleZooKeeper follows the redirect of another master once the leader that
// ZooKeeper named has failed for a while.
func TestStaleZooKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050")
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == one.Host {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			streaming(15, func(io.Writer, func(), *http.Request) { <-r.Context().Done() })(w, r)
		})
		e := make(electing)
		w, _ := inMemory(t, h, func(c *Config) { c.Detector = e })
		e <- detector.Masters{Leader: one, All: []*url.URL{one, two}}
		pass(5 * time.Second)
		if got := w.Stats(); got.Leader != two.Host || !got.Synced {
			t.Errorf("%+v", got)
		}
	})
}

// asking is a master that counts what it is asked for.
type asking struct {
	agents, states atomic.Int32
	takes          time.Duration // to answer GET_STATE
	refuse         atomic.Bool
	recovered      []*mesostest.AgentInfo
	unknown        time.Duration // interval of events that name an unknown task; 0: none
}

func (a *asking) state() *mesostest.GetState {
	return &mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: a.recovered}}
}

// stream sends heartbeats, and events that name an unknown task.
func (a *asking) stream(w io.Writer, flush func(), r *http.Request) {
	beat := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 9}))
	update := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 3, TaskUpdated: &mesostest.TaskUpdated{
		FrameworkID: mesostest.ID{Value: "f"}, Status: mesostest.TaskStatus{TaskID: mesostest.ID{Value: "x"}, State: mesostest.TaskRunning}, State: mesostest.TaskRunning,
	}}))
	named := time.Now()
	for rest(r, min(15*time.Second, max(a.unknown, time.Second))) {
		_, _ = w.Write(beat)
		if a.unknown > 0 && time.Since(named) >= a.unknown {
			named = time.Now()
			_, _ = w.Write(update)
		}
		flush()
	}
}

func (a *asking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/x-protobuf")
	switch call := string(body); {
	case err != nil:
	case strings.HasSuffix(call, "\x12"):
		_, _ = w.Write(mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: a.state(), Heartbeat: 15}})))
		flush := func() { _ = http.NewResponseController(w).Flush() }
		flush()
		a.stream(w, flush, r)
	case strings.HasSuffix(call, "\x0a"):
		a.agents.Add(1)
		if a.refuse.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 9, GetAgents: a.state().Agents}))
	case strings.HasSuffix(call, "\x09"):
		a.states.Add(1)
		rest(r, a.takes)
		if a.refuse.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(mesostest.Protobuf(&mesostest.Response{Type: 8, GetState: a.state()}))
	default:
		w.WriteHeader(http.StatusForbidden)
	}
}

// TestReconcile counts how often a master is asked for its agents and its state.
func TestReconcile(t *testing.T) {
	for name, tc := range map[string]struct {
		awaiting       bool          // an agent has not re-registered
		unknown        time.Duration // an event names an unknown task at this interval; 0: never
		refuse         bool
		agents, states int // in a day, more or less
	}{
		"quiet":                      {agents: 24 * 12, states: 24},
		"awaiting":                   {awaiting: true, agents: 24 * 120, states: 24},
		"refused":                    {refuse: true, agents: 24 * 12, states: 24 * 11}, // from the first hour on
		"one unknown task":           {unknown: 12 * time.Hour, agents: 24 * 12, states: 25},
		"many unknown tasks":         {unknown: time.Second, agents: 24 * 12, states: 24 * 12},
		"awaiting, and many of them": {awaiting: true, unknown: time.Second, agents: 24 * 108, states: 24 * 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asking{unknown: tc.unknown}
				if tc.awaiting {
					a.recovered = []*mesostest.AgentInfo{{Hostname: "a", ID: &mesostest.ID{Value: "s"}}}
				}
				a.refuse.Store(tc.refuse)
				inMemory(t, a, nil)
				pass(24 * time.Hour)
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
		"quick":           {10 * time.Second, 0, false, 360 + 54}, // it lists no agents: every second at first
		"a bit slow":      {10 * time.Second, 4 * time.Second, false, 360},
		"slow":            {10 * time.Second, 20 * time.Second, false, 90},
		"refuses":         {time.Second, 0, true, 480 + 160}, // as if it were electing: often at first
		"refuses, slow":   {30 * time.Second, 0, true, 360 + 160},
		"does not answer": {time.Minute, time.Hour, false, 60 * 2 / 3}, // 30 seconds each time
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &asking{takes: tc.takes}
				a.refuse.Store(tc.refuse)
				w, r := inMemory(t, a, func(c *Config) { c.Poll = tc.every })
				pass(time.Hour)
				if n := int(a.states.Load()); n < tc.want*9/10 || n > tc.want*11/10 {
					t.Errorf("asked %d times in an hour, want %d", n, tc.want)
				}
				got := r.take()
				if states := strings.Count(got, "GET_STATE"); !tc.refuse && tc.takes < firstSilence && states < tc.want*9/10 || tc.refuse && states > 0 {
					t.Errorf("%d states were told", states)
				}
				if tc.refuse || tc.takes > firstSilence {
					return
				}
				a.refuse.Store(true)
				pass(time.Minute)
				if w.Stats().Synced {
					t.Error("synced with a master that refuses")
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
		w, _ := inMemory(t, m, func(c *Config) { c.Poll = 10 * time.Second })
		leader := func() string {
			var id string
			w.Do(func() { id = w.leader.ID })
			return id
		}
		pass(15 * time.Second)
		for _, step := range []struct{ tells, want string }{{"one", "one"}, {"two", "two"}, {"", "two"}} { // "" does not tell
			m.SetID(step.tells)
			pass(10 * time.Second)
			if got := leader(); got != step.want {
				t.Errorf("the leader is %q, want %q", got, step.want)
			}
		}
	})
}

// TestHungCalls asks a master that sends heartbeats, and hangs when it is asked.
func TestHungCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var agents, states atomic.Int32
		w, r := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, err := io.ReadAll(r.Body); err != nil || !strings.HasSuffix(string(body), "\x12") {
				switch {
				case strings.HasSuffix(string(body), "\x0a"):
					agents.Add(1)
				case strings.HasSuffix(string(body), "\x09"):
					states.Add(1)
				}
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
		if agents.Load() < 20 || states.Load() < 1 {
			t.Errorf("asked for agents %d times, for the state %d times", agents.Load(), states.Load())
		}
		if got := r.take(); got != "SUBSCRIBED; connected" || !w.Stats().Synced {
			t.Errorf("told %s, %+v", got, w.Stats())
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
				inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
				if left := subscriptions.Load() > 1; left == (status == http.StatusForbidden) {
					t.Errorf("%d subscriptions", subscriptions.Load())
				}
			})
		})
	}
}

// TestElectionAfterRedirect has a stream by the redirect of a master that is
// named as the leader then, and one of a leader by another of its names.
func TestElectionAfterRedirect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, leads := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050"), mesostest.API("leader.example:5050")
		var mu sync.Mutex
		redirect := true
		e := make(electing)
		w, r := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		}), func(c *Config) { c.Detector = e })
		both := []*url.URL{one, two}
		e <- detector.Masters{Leader: one, All: both[:1]}
		pass(time.Second)
		if got := w.Stats(); got.Leader != leads.Host || !got.Synced {
			t.Fatalf("%+v", got)
		}
		r.take()
		e <- detector.Masters{Leader: one, All: both} // only another master
		pass(time.Second)
		if got := r.take(); got != "" {
			t.Errorf("a healthy stream was left: %s", got)
		}
		mu.Lock()
		redirect = false
		mu.Unlock()
		e <- detector.Masters{Leader: two, All: both}
		pass(time.Second)
		if got := w.Stats(); got.Leader != two.Host || !got.Synced {
			t.Errorf("the stream was not left: %+v", got)
		}
	})
}

// TestBusyLoop keeps the loop busy for longer than three heartbeats, while more events come
// than may wait for it: the master has never been silent.
func TestBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		script := mesostest.NewScript("x")
		w, r := inMemory(t, m, nil)
		pass(time.Second)
		r.take()
		busy := make(chan struct{})
		go w.Do(func() { <-busy })
		synctest.Wait()
		for i := range 2 * maxQueued {
			m.AddAgent(script.Agent(i, "10.0.0.1"))
		}
		pass(10 * time.Minute)
		close(busy)
		pass(time.Second)
		r.mu.Lock()
		agents := len(r.agents)
		r.mu.Unlock()
		if got := r.take(); strings.Contains(got, "connected") || strings.Contains(got, "failed") || agents != 2*maxQueued {
			t.Errorf("%d agents: %s", agents, got)
		}
		m.Stall(true) // now it is silent
		pass(time.Minute)
		if got := r.take(); !strings.Contains(got, "SUBSCRIBED") && w.Stats().Synced {
			t.Errorf("a silent stream was not left: %s", got)
		}
	})
}

// TestReconcile_NotAtTheBeginning breaks a stream while an event has named an unknown task, and
// begins the next one later: its state says all, and must not be asked for.
func TestReconcile_NotAtTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		a := &asking{unknown: time.Second}
		_, r := inMemory(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if away.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			go func() {
				for rest(r, 100*time.Millisecond) && ctx.Err() == nil {
					if away.Load() {
						cancel()
					}
				}
			}()
			a.ServeHTTP(w, r.WithContext(ctx))
		}), nil)
		pass(1500 * time.Millisecond) // one unknown task
		away.Store(true)
		pass(time.Minute)
		a.unknown = 0
		away.Store(false)
		pass(20 * time.Second)
		if n := a.states.Load(); n != 0 || !strings.HasSuffix(r.take(), "SUBSCRIBED; connected") {
			t.Errorf("asked for the state %d times", n)
		}
	})
}

// TestAttempt_IsAt compares an attempt with the master that ZooKeeper names.
func TestAttempt_IsAt(t *testing.T) {
	asked, redirected := mesostest.API("10.0.0.1:5050"), mesostest.API("leader.example:5050")
	conn := &mesos.Conn{URL: redirected, Remote: netip.MustParseAddrPort("10.0.0.2:5050")}
	for _, tc := range []struct {
		conn *mesos.Conn
		at   string
		want bool
	}{
		{nil, "10.0.0.1:5050", true}, {nil, "10.0.0.2:5050", false},
		{conn, "leader.example:5050", true}, {conn, "10.0.0.2:5050", true}, {conn, "10.0.0.1:5050", false}, {conn, "10.0.0.2:5051", false},
	} {
		a := &attempt{asked: asked, conn: tc.conn}
		if got := a.isAt(mesostest.API(tc.at)); got != tc.want {
			t.Errorf("answered by %v: is at %s: %v", tc.conn, tc.at, got)
		}
	}
}

// TestBegin_ElectedMeanwhile begins an attempt at a master that was chosen before ZooKeeper
// named another: it must be cancelled at once.
func TestBegin_ElectedMeanwhile(t *testing.T) {
	one, two := mesostest.API("10.0.0.1:5050"), mesostest.API("10.0.0.2:5050")
	before := &detector.Masters{Leader: one, All: []*url.URL{one, two}}
	for name, tc := range map[string]struct {
		now     detector.Masters
		at      *url.URL
		deposed bool
	}{
		"the same leader":          {detector.Masters{Leader: one, All: []*url.URL{one}}, one, false},
		"another leader":           {detector.Masters{Leader: two, All: []*url.URL{two}}, one, true},
		"the leader that is asked": {detector.Masters{Leader: two, All: []*url.URL{two}}, two, false},
		"no leader":                {detector.Masters{All: []*url.URL{two}}, one, false},
	} {
		c := &connection{masters: &tc.now}
		ctx, end := c.begin(t.Context(), before, tc.at)
		if deposed := errors.Is(context.Cause(ctx), errDeposed); deposed != tc.deposed {
			t.Errorf("%s: deposed: %v", name, deposed)
		}
		if end(nil); c.attempt != nil {
			t.Errorf("%s: the attempt is left", name)
		}
	}
}

// TestFirstStateIsNotKept ends all tasks that a stream began with: nothing of them stays in
// memory while the stream goes on.
func TestFirstStateIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		s := mesostest.NewScript("s")
		first := &mesostest.GetState{
			Tasks:      &mesostest.GetTasks{},
			Agents:     &mesostest.GetAgents{Agents: []*mesostest.Agent{s.Agent(0, "10.0.0.1")}},
			Frameworks: &mesostest.GetFrameworks{Frameworks: []*mesostest.Framework{s.Framework(0, "marathon", "10.0.0.2", "")}},
		}
		const tasks, size = 100, 100_000
		for i := range tasks {
			first.Tasks.Tasks = append(first.Tasks.Tasks, s.Task(mesostest.App{Name: fmt.Sprint(i, strings.Repeat("x", size))}, fmt.Sprint(i), 0, "192.0.2.1"))
		}
		m.Load(first)
		w, _ := inMemory(t, m, nil)
		pass(time.Second)
		if n := w.Stats().Tasks; n != tasks {
			t.Fatalf("%d tasks", n)
		}
		var now runtime.MemStats
		for _, task := range first.Tasks.Tasks {
			m.UpdateTask(task.FrameworkID.Value, s.Status(task, mesostest.TaskKilled), mesostest.TaskKilled)
		}
		pass(time.Minute)
		runtime.GC()
		runtime.ReadMemStats(&now)
		if w.Stats().Tasks != 0 || w.Stats().Leader == "" || now.HeapAlloc > tasks*size/2 {
			t.Errorf("%d tasks are left, and %d MB", w.Stats().Tasks, now.HeapAlloc>>20)
		}
	})
}
