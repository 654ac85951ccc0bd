package watch

import (
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// ensemble has masters by host, some of which may hang, and notes what they are asked.
type ensemble struct {
	masters map[string]*mesostest.Master

	mu      sync.Mutex
	hung    map[string]bool
	mute    bool            // they do not tell who they are
	refuses map[string]bool // hosts that refuse to be subscribed to
	asked   []string        // host and call
}

const (
	one   = "10.0.0.1:5050"
	two   = "10.0.0.2:5050"
	three = "10.0.0.3:5050"

	mapped = "[::ffff:10.0.0.1]:5050" // the first, too
)

// newEnsemble returns three masters, the first of which leads, and an agent.
func newEnsemble() *ensemble {
	e := &ensemble{masters: make(map[string]*mesostest.Master), hung: make(map[string]bool), refuses: make(map[string]bool)}
	for _, host := range []string{one, two, three} {
		e.masters[host] = mesostest.NewMaster(15 * time.Second)
		e.masters[host].SetAddress(netip.MustParseAddrPort(host))
		e.masters[host].AddAgent(mesostest.NewScript("s").Agent(0, "10.0.1.1"))
	}
	e.masters[two].Follow(one)
	e.masters[three].Follow(one)
	return e
}

func (e *ensemble) list() detector.Static {
	return detector.Static{mesostest.API(one), mesostest.API(two), mesostest.API(three)}
}

// hang makes a master hang: its streams are silent, and its answers do not come.
func (e *ensemble) hang(host string, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hung[host] = on
	e.masters[host].Stall(on)
}

// set changes how masters answer.
func (e *ensemble) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// count returns how often what was asked.
func (e *ensemble) count(what string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Count(strings.Join(e.asked, "\n")+"\n", what+"\n")
}

func (e *ensemble) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	call := map[byte]string{18: "SUBSCRIBE", 17: "GET_MASTER", 9: "GET_STATE", 10: "GET_AGENTS"}[body[len(body)-1]]
	host := r.Host
	if host == "m.example:5050" || host == mapped { // another name of the first, and its address as IPv6
		host = one
	}
	e.mu.Lock()
	e.asked = append(e.asked, host+" "+call)
	hung, refused := e.hung[host], call == "SUBSCRIBE" && e.refuses[host] || call == "GET_MASTER" && e.mute
	e.mu.Unlock()
	switch {
	case hung && call != "SUBSCRIBE": // a stream is silent instead
		<-r.Context().Done()
	case refused && host != two: // which is a follower
		w.WriteHeader(http.StatusForbidden)
	default:
		e.masters[host].ServeHTTP(w, r)
	}
}

// TestRival has another master lead while the stream of the first is open. ZooKeeper does not
// say so.
func TestRival(t *testing.T) {
	elect := func(e *ensemble) {
		e.masters[three].Lead()
		e.masters[two].Follow(three)
	}
	for name, tc := range map[string]struct {
		masters func(all detector.Static) detector.Static // nil: all
		live    bool                                      // ZooKeeper names the first
		mute    bool
		happens func(e *ensemble)
		soon    string // the leader after five seconds
		late    string // and after twenty
		doubted bool   // no name is denied then
	}{
		"nothing":                        {happens: func(*ensemble) {}, soon: one, late: one},
		"a hung leader, another elected": {happens: func(e *ensemble) { e.hang(one, true); elect(e) }, soon: three, late: three},
		"the same, and nobody tells who": {mute: true, happens: func(e *ensemble) { e.hang(one, true); elect(e) }, soon: three, late: three},
		"a hung leader, nobody elected":  {happens: func(e *ensemble) { e.hang(one, true) }, soon: one, late: one, doubted: true},
		"the same, of one master": {
			masters: func(all detector.Static) detector.Static { return all[:1] },
			happens: func(e *ensemble) { e.hang(one, true) }, soon: one, late: one,
		},
		"the same, whom ZooKeeper names": {live: true, happens: func(e *ensemble) { e.hang(one, true) }, soon: one, late: one},
		"another is named, and refuses": {
			happens: func(e *ensemble) { e.set(func() { e.refuses[three] = true }); elect(e) }, soon: one, late: one,
		},
		"another is named, and does not lead": {
			happens: func(e *ensemble) { e.masters[two].Follow(three); e.masters[three].Refuse(503, "No leader elected") }, soon: one, late: one,
		},
		"another says that it leads, too": {happens: func(e *ensemble) { e.masters[three].Lead() }, soon: one, late: one},
		"and the first hangs": {
			happens: func(e *ensemble) { e.hang(one, true); e.masters[three].Lead() }, soon: one, late: three, doubted: true, // it may have launched something
		},
		"the leader's other name":                     {happens: func(e *ensemble) { e.masters[two].Follow("m.example:5050") }, soon: one, late: one},
		"the leader's other name, and it hangs":       {happens: func(e *ensemble) { e.masters[two].Follow("m.example:5050"); e.hang(one, true) }, soon: one, late: one, doubted: true},
		"the leader at its address, which is mute":    {mute: true, happens: func(e *ensemble) { e.masters[two].Follow(mapped) }, soon: one, late: one},
		"the leader by its other name, which is mute": {mute: true, happens: func(e *ensemble) { e.masters[two].Follow("m.example:5050") }, soon: "m.example:5050", late: "m.example:5050"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnsemble()
				e.mute = tc.mute
				masters := e.list()
				if tc.masters != nil {
					masters = tc.masters(masters)
				}
				found := make(electing)
				w, r := inMemory(t, e, func(c *Config) { c.Detector = found })
				m := detector.Masters{All: masters}
				if tc.live {
					m.Leader, m.Live = masters[0], true
				}
				found <- m
				pass(20 * time.Second) // a heartbeat has come
				if got := w.Stats(); got.Leader != one || !got.Synced {
					t.Fatalf("%+v", got)
				}
				tc.happens(e)
				pass(5 * time.Second)
				if got := w.Stats(); got.Leader != tc.soon || !got.Synced {
					t.Errorf("after five seconds %+v, want %s", got, tc.soon)
				}
				pass(15 * time.Second)
				r.mu.Lock()
				complete, streams := r.status.Complete, r.connected
				r.mu.Unlock()
				if got := w.Stats(); got.Leader != tc.late || complete == tc.doubted || got.Synced == tc.doubted {
					t.Errorf("after twenty seconds %+v, complete %v, want %s", got, complete, tc.late)
				}
				if tc.late == one && streams != 1 {
					t.Error("the stream of the leader was left")
				}
				if tc.doubted && tc.late == one {
					e.hang(one, false)
					synctest.Wait()
					if !w.Stats().Synced {
						t.Error("still doubted when the stream speaks again")
					}
				}
			})
		})
	}
}

// TestRival_Missed takes over from a leader that hung for long: what it may have launched
// meanwhile on an agent that has not returned is not denied.
func TestRival_Missed(t *testing.T) {
	for name, late := range map[string]bool{"late": true, "in time": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnsemble()
				script := mesostest.NewScript("s")
				e.masters[three].Load(&mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{&script.Agent(0, "10.0.1.1").AgentInfo}}})
				w, _ := inMemory(t, e, func(c *Config) { c.Detector = e.list() })
				pass(time.Minute + time.Second)
				e.hang(one, true)
				if late {
					pass(20 * time.Second)
				}
				e.masters[three].Lead()
				e.masters[two].Follow(three)
				pass(5 * time.Second)
				if got := w.Stats(); got.Leader != three || got.Synced == late {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestElectedRedirects has the leader that ZooKeeper names redirect to its predecessor, which
// hangs, until it has recovered.
func TestElectedRedirects(t *testing.T) {
	for name, tc := range map[string]struct {
		live   bool
		takes  time.Duration // until it leads
		within time.Duration // when it is subscribed to then
		asked  bool          // the predecessor is asked
	}{
		"a moment":          {true, 30 * time.Millisecond, 50 * time.Millisecond, false},
		"a second":          {true, time.Second, 50 * time.Millisecond, false},
		"longer":            {true, 5 * time.Second, answerTimeout, true},
		"without a session": {false, 30 * time.Millisecond, 2 * answerTimeout, true},
	} {
		for _, poll := range []time.Duration{0, 5 * time.Second} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEnsemble()
					e.hang(one, true)
					found := make(electing)
					_, r := inMemory(t, e, func(c *Config) { c.Detector, c.Poll = found, poll })
					began := time.Now()
					found <- detector.Masters{Leader: mesostest.API(two), Live: tc.live, All: []*url.URL{mesostest.API(one), mesostest.API(two)}}
					pass(tc.takes)
					e.masters[two].Lead()
					pass(tc.within)
					if poll > 0 && tc.asked { // it takes longer to tell whether a poll hangs
						pass(2 * firstSilence)
					}
					r.mu.Lock()
					defer r.mu.Unlock()
					if r.connected == 0 || r.connected > 1 && poll == 0 {
						t.Errorf("%d connections %v after the leader", r.connected, time.Since(began)-tc.takes)
					}
					if got := e.count(one+" SUBSCRIBE") + e.count(one+" GET_STATE"); (got > 0) != tc.asked {
						t.Errorf("the predecessor was asked %d times", got)
					}
				})
			})
		}
	}
}

// TestHungLeaderIsAskedOnce starts while the leader hangs, and all others redirect to it. It is
// not waited for again each time.
func TestHungLeaderIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		e.hang(one, true)
		w, _ := inMemory(t, e, func(c *Config) { c.Detector = e.list() })
		pass(firstSilence + 5*time.Second)
		rounds := e.count(two + " SUBSCRIBE")
		if hung := e.count(one + " SUBSCRIBE"); rounds < 3 || hung > rounds+1 { // the last has just begun
			t.Errorf("asked the hung leader %d times in %d rounds", hung, rounds)
		}
		e.masters[three].Lead()
		e.masters[two].Follow(three)
		pass(firstSilence)
		if got := w.Stats(); got.Leader != three {
			t.Errorf("%+v", got)
		}
	})
}

// TestTrickle_NextIsWell has the first master trickle its state, more than a watchdog asks for.
func TestTrickle_NextIsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		e.masters[two].Lead()
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host != one {
				e.ServeHTTP(w, r)
				return
			}
			_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client leaves
			w.Header().Set("Content-Type", "application/x-protobuf")
			_, _ = io.WriteString(w, "100000000\n")
			for rest(r, 20*time.Second) {
				_, _ = w.Write(make([]byte, progressStep))
				_ = http.NewResponseController(w).Flush()
			}
		})
		w, _ := inMemory(t, h, func(c *Config) { c.Detector = e.list() })
		pass(stateTimeout + time.Second)
		if got := w.Stats(); got.Leader != two || !got.Synced {
			t.Errorf("%+v", got)
		}
	})
}

// TestPoll_Failover polls a new leader often until it has its agents, but not for ever.
func TestPoll_Failover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		agent := mesostest.NewScript("s").Agent(1, "10.0.1.2")
		e.masters[two].Load(&mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{&agent.AgentInfo}}})
		w, _ := inMemory(t, e, func(c *Config) { c.Detector, c.Poll = e.list(), 5*time.Minute })
		pass(time.Minute)
		e.masters[one].Refuse(http.StatusServiceUnavailable, "No leader elected")
		e.masters[two].Refuse(http.StatusServiceUnavailable, "Master has not finished recovery")
		e.masters[three].Refuse(http.StatusServiceUnavailable, "No leader elected")
		pass(4*time.Minute + 2*time.Second) // the next poll, and some attempts
		e.masters[two].Lead()
		pass(time.Second)
		if got := w.Stats(); got.Leader != two || got.Synced {
			t.Fatalf("%+v", got)
		}
		e.masters[two].AddAgent(agent)
		pass(2 * time.Second)
		if got := w.Stats(); !got.Synced {
			t.Errorf("%+v, two seconds after the agent has returned", got)
		}
	})
}

// inTurn is an ensemble. Requests to one of its hosts are served by a function first.
type inTurn struct {
	*ensemble
	host  string
	serve func(w http.ResponseWriter, r *http.Request, call byte) (done bool)
}

func (i *inTurn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	if r.Host != i.host || !i.serve(w, r, body[len(body)-1]) {
		i.ensemble.ServeHTTP(w, r)
	}
}

// takeOver has the first hang and the third lead.
func (e *ensemble) takeOver() {
	e.hang(one, true)
	e.masters[three].Lead()
	e.masters[two].Follow(three)
}

// TestRival_ZooKeeperIsBack loses the session, follows another leader, and then hears from
// ZooKeeper who leads: a stream of any other is left at once.
func TestRival_ZooKeeperIsBack(t *testing.T) {
	for name, lost := range map[string]func(m detector.Masters) detector.Masters{
		"and names nobody meanwhile": func(m detector.Masters) detector.Masters { return detector.Masters{All: m.All} },
		"and names the same again":   func(m detector.Masters) detector.Masters { m.Live = false; return m },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnsemble()
				found := make(electing)
				w, _ := inMemory(t, e, func(c *Config) { c.Detector = found })
				elected := detector.Masters{Leader: mesostest.API(one), Live: true, All: e.list()}
				found <- elected
				pass(20 * time.Second)
				found <- lost(elected)
				e.takeOver()
				pass(5 * time.Second)
				if got := w.Stats(); got.Leader != three {
					t.Fatalf("%+v", got)
				}
				e.hang(one, false)
				e.masters[one].Lead()
				e.masters[two].Follow(one)
				e.hang(three, true)
				found <- elected
				pass(time.Second)
				if got := w.Stats(); got.Leader != one || !got.Synced {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestRival_ZooKeeperIsBackMeanwhile hears from ZooKeeper while the third is being subscribed to.
func TestRival_ZooKeeperIsBackMeanwhile(t *testing.T) {
	for name, m := range map[string]struct {
		masters detector.Masters
		want    string
	}{
		"that names the first":  {detector.Masters{Leader: mesostest.API(one), Live: true}, one},
		"that names the third":  {detector.Masters{Leader: mesostest.API(three), Live: true}, three},
		"that names nobody yet": {detector.Masters{}, three},
		"whose first node cannot be read, so that nobody is named": {detector.Masters{Live: true}, three},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnsemble()
				found := make(electing)
				w, _ := inMemory(t, &inTurn{e, three, func(_ http.ResponseWriter, r *http.Request, call byte) bool {
					return call == 18 && !rest(r, 3*time.Second)
				}}, func(c *Config) { c.Detector = found })
				found <- detector.Masters{All: e.list()}
				pass(20 * time.Second)
				e.takeOver()
				pass(3 * time.Second)
				m.masters.All = e.list()
				if m.want == one {
					e.hang(one, false)
				}
				found <- m.masters
				pass(5 * time.Second)
				if got := w.Stats(); got.Leader != m.want {
					t.Errorf("%+v, want %s", got, m.want)
				}
			})
		})
	}
}

// statuses is a Sink that notes whether the state is complete.
type statuses struct {
	mu  sync.Mutex
	all []bool
}

func (s *statuses) Publish(_ *cluster.Changes, status Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, status.Complete)
}

func (*statuses) HostsChanged([]string) {}

// TestRival_Doubts has the first's heartbeat be late while the third is being subscribed to, which
// takes long or never ends: from then on nothing is denied, not even for the moment in which
// the third takes over.
func TestRival_Doubts(t *testing.T) {
	for name, takes := range map[string]time.Duration{"a while": 9 * time.Second, "for ever": time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEnsemble()
				agent := mesostest.NewScript("s").Agent(0, "10.0.1.1")
				e.masters[three].Load(&mesostest.GetState{Agents: &mesostest.GetAgents{Recovered: []*mesostest.AgentInfo{&agent.AgentInfo}}})
				w, _ := inMemory(t, &inTurn{e, three, func(_ http.ResponseWriter, r *http.Request, call byte) bool {
					return call == 18 && !rest(r, takes)
				}}, func(c *Config) { c.Detector = e.list() })
				pass(24 * time.Second) // the last heartbeat was at 15 s
				e.takeOver()
				pass(8*time.Second + time.Millisecond)
				var seen statuses
				w.Add(&seen)
				pass(10 * time.Second)
				seen.mu.Lock()
				defer seen.mu.Unlock()
				if slices.Contains(seen.all, true) || len(seen.all) == 0 {
					t.Errorf("complete: %v", seen.all)
				}
				if got := w.Stats(); (got.Leader == three) != (takes < time.Minute) {
					t.Errorf("%+v", got)
				}
			})
		})
	}
}

// TestRival_OneNameOfAll has one name for all masters, which leads to any of them.
func TestRival_OneNameOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		var to atomic.Value
		to.Store(two)
		w, _ := inMemory(t, &inTurn{e, "any.example:5050", func(_ http.ResponseWriter, r *http.Request, _ byte) bool {
			r.Host = to.Load().(string)
			return false
		}}, func(c *Config) { c.Detector = detector.Static{mesostest.API("any.example:5050")} })
		for _, host := range []string{two, one, two} { // it is the leader itself for a while
			to.Store(host)
			pass(5 * time.Second)
		}
		e.takeOver()
		pass(5 * time.Second)
		if got := w.Stats(); got.Leader != three || !got.Synced {
			t.Errorf("%+v", got)
		}
	})
}

// TestRival_StreamEnds ends the stream of a leader that has taken over: the one that hangs is
// not asked first.
func TestRival_StreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		w, _ := inMemory(t, e, func(c *Config) { c.Detector = e.list() })
		pass(20 * time.Second)
		e.takeOver()
		pass(time.Minute)
		e.masters[three].Drop()
		pass(time.Second)
		if got := w.Stats(); got.Leader != three || !got.Synced {
			t.Errorf("%+v", got)
		}
	})
}

// TestRefusedIsNotElecting refuses all that followers redirect: that is no election, in which
// one would be asked often.
func TestRefusedIsNotElecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEnsemble()
		e.masters[one].Refuse(http.StatusUnauthorized, "no")
		inMemory(t, e, func(c *Config) { c.Detector = e.list() })
		pass(electionTime)
		if n := e.count(one + " SUBSCRIBE"); n > 25 {
			t.Errorf("asked %d times in a minute", n)
		}
	})
}
