//go:build e2e

package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

const (
	simAgents  = 6
	simApps    = 60
	simMasters = 3
	marathon   = 0 // the framework's number
)

// grace is how long a change may take.
const grace = 2 * time.Second

// holdTime is how long a task stays published after its agent has re-registered without it.
const holdTime = 2 * time.Second

// simulation is a cluster whose masters fail and are elected in a real ZooKeeper. It knows the
// truth about its tasks.
type simulation struct {
	t      *testing.T
	script *mesostest.Script
	zk     *ensemble

	mu        sync.Mutex
	apps      []*simApp
	masters   []*simMaster
	leader    *simMaster   // nil while there is none
	present   map[int]bool // agents that have registered with it
	number    int          // of the last task
	processes int          // of masters, so far
	linked    times        // since when each watcher is subscribed to the leader; absent if it is not
}

// times are moments by the principal of a watcher.
type times map[string]time.Time

// simApp is an app of one task, which moves.
type simApp struct {
	name  string
	task  *mesostest.Task
	addr  string
	agent int
	moved time.Time        // when it last did
	known times            // when each watcher was told of the app
	gone  map[string]times // addresses of before, and when each watcher was told that they are
}

// simMaster is one process of a master.
type simMaster struct {
	address   string
	id        string // of its process
	master    *mesostest.Master
	srv       *http.Server // nil while it does not run
	announced *candidate
	frozen    chan struct{} // closed when it thaws; nil while it is not frozen
}

func newSimulation(t *testing.T, zk *ensemble) *simulation {
	t.Helper()
	s := &simulation{t: t, script: mesostest.NewScript("c0ffee00-1d5e-4c1a-9b7e-2f6a8d3e5b10"), zk: zk, present: make(map[int]bool), linked: make(times)}
	for i := range simApps {
		a := &simApp{name: fmt.Sprintf("app-%d", i), known: make(times), gone: make(map[string]times)}
		s.place(a)
		s.apps = append(s.apps, a)
	}
	for range simMasters {
		m := &simMaster{address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
		s.masters = append(s.masters, m)
		s.startMaster(m)
	}
	t.Cleanup(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.masters {
			s.stopMaster(m)
		}
	})
	return s
}

// place replaces the task of a by one with another address and agent.
func (s *simulation) place(a *simApp) {
	s.number++
	a.agent = rand.IntN(simAgents)
	a.addr = fmt.Sprintf("10.%d.%d.%d", s.number>>16&255, s.number>>8&255, s.number&255)
	a.task = s.script.Task(mesostest.App{Name: a.name, Framework: marathon, Network: "calico"}, fmt.Sprintf("%s.%d", a.name, s.number), a.agent, a.addr)
}

func (s *simulation) agentAddr(i int) string { return fmt.Sprintf("172.16.0.%d", i+1) }

// startMaster starts a master, as a candidate that follows.
func (s *simulation) startMaster(m *simMaster) {
	s.processes++
	m.id = fmt.Sprint("process-", s.processes)
	m.master = mesostest.NewMaster(time.Second)
	m.master.Refuse(http.StatusServiceUnavailable, "No leader elected")
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", m.address)
	if err != nil {
		s.t.Errorf("a master does not start: %v", err)
		return
	}
	m.frozen = nil
	m.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(m, w, r) })}
	go m.srv.Serve(l) //nolint:errcheck // ends with Close
	m.announced = s.zk.announce("json.info_", masterJSON(m.address, m.id))
}

// serve serves a master, and notes who subscribes.
func (s *simulation) serve(m *simMaster, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	frozen, master, leads := m.frozen, m.master, s.leader == m
	s.mu.Unlock()
	if frozen != nil {
		select {
		case <-frozen:
		case <-r.Context().Done():
		}
		return
	}
	call, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(call))
	principal, _, _ := r.BasicAuth()
	if leads && bytes.Equal(call, []byte{8, 18}) { // SUBSCRIBE
		s.link(principal)
		defer s.unlink(m, principal)
	}
	master.ServeHTTP(w, r)
}

// link notes that a watcher gets the leader's state.
func (s *simulation) link(principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.linked[principal] = now
	for _, a := range s.apps {
		if s.present[a.agent] {
			a.told(s.linked)
		}
		for _, at := range a.gone {
			if len(s.present) == simAgents && at[principal].IsZero() {
				at[principal] = now
			}
		}
	}
}

func (s *simulation) unlink(m *simMaster, principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leader == m {
		delete(s.linked, principal)
	}
}

// forgotten notes that a watcher knows only its snapshot. That may be older than what it was told,
// after a crash, or since it was told while agents were away.
func (s *simulation) forgotten(principal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		for _, told := range a.gone {
			delete(told, principal)
		}
	}
}

// depose ends the leader's term. Its last events may not have arrived.
func (s *simulation) depose() {
	s.leader = nil
	clear(s.linked)
	const flight = time.Second
	for _, a := range s.apps {
		if time.Since(a.moved) < flight {
			clear(a.known)
		}
		maps.DeleteFunc(a.known, func(_ string, at time.Time) bool { return time.Since(at) < flight })
		for _, told := range a.gone { // retained addresses go later
			maps.DeleteFunc(told, func(_ string, at time.Time) bool { return time.Since(at) < flight })
		}
	}
}

// stopMaster ends a master as a crash does, and its session with ZooKeeper. elect waits for as long
// as a session lasts.
func (s *simulation) stopMaster(m *simMaster) {
	if m.srv == nil {
		return
	}
	m.srv.Close()
	m.srv = nil
	m.announced.withdraw()
	if m.frozen != nil {
		close(m.frozen)
		m.frozen = nil
	}
	if s.leader == m {
		s.depose()
	}
}

// election says how a new leader begins.
type election struct {
	nothing bool          // without even the agents that were registered
	late    time.Duration // how late the last agent comes
}

// elect makes the first contender the leader. Agents re-register one by one.
func (s *simulation) elect(ctx context.Context, e election) {
	s.mu.Lock()
	var next *simMaster
	for _, m := range s.masters {
		if m.srv != nil && m.frozen == nil && (next == nil || m.announced.node < next.announced.node) {
			next = m
		}
	}
	s.present = make(map[int]bool)
	recovered := &mesostest.GetAgents{}
	for i := range simAgents {
		if !e.nothing {
			info := s.script.Agent(i, s.agentAddr(i)).AgentInfo
			recovered.Recovered = append(recovered.Recovered, &info)
		}
	}
	m := mesostest.NewMaster(time.Second)
	m.SetID(next.id)
	m.Load(&mesostest.GetState{Agents: recovered})
	m.Refuse(http.StatusServiceUnavailable, "Master has not finished recovery")
	next.master = m
	s.mu.Unlock()

	for _, other := range s.masters {
		if other != next {
			other.master.Follow(next.address)
		}
	}
	pause(ctx, time.Duration(100+rand.IntN(400))*time.Millisecond)
	s.mu.Lock()
	s.leader = next
	m.Lead()
	s.mu.Unlock()
	s.reregister(ctx, next, e)
}

// reregister lets the agents re-register with a new leader.
func (s *simulation) reregister(ctx context.Context, leader *simMaster, e election) {
	first := 200 * time.Millisecond
	if e.nothing {
		first = 4 * time.Second
	}
	order := rand.Perm(simAgents)
	for k, i := range order {
		wait := time.Duration(rand.IntN(300)) * time.Millisecond
		switch k {
		case 0:
			wait = first
		case simAgents - 1:
			wait = e.late
		}
		pause(ctx, wait)
		s.mu.Lock()
		if s.leader != leader || ctx.Err() != nil {
			s.mu.Unlock()
			return
		}
		s.register(leader.master, i, k == 0)
		s.mu.Unlock()
	}
}

// register lets agent i re-register. Events have the order of a real leader, which knows the
// framework once the first agent has registered.
func (s *simulation) register(m *mesostest.Master, i int, first bool) {
	tasks := func() {
		for _, a := range s.apps {
			if a.agent == i {
				m.AddTask(a.task)
				a.told(s.linked)
			}
		}
	}
	if !first {
		tasks()
	}
	m.AddAgent(s.script.Agent(i, s.agentAddr(i)))
	if first {
		f := s.script.Framework(marathon, "marathon", "172.16.1.1", "")
		f.Recovered, f.Active, f.Connected = true, false, false
		m.AddFramework(f)
		tasks()
	}
	s.present[i] = true
	if len(s.present) < simAgents {
		return
	}
	for _, a := range s.apps { // what ended meanwhile is not announced
		for _, at := range a.gone {
			for p := range s.linked {
				if at[p].IsZero() {
					at[p] = time.Now().Add(holdTime)
				}
			}
		}
	}
}

// told notes that the subscribers were told of the app.
func (a *simApp) told(linked times) {
	for p := range linked {
		if a.known[p].IsZero() {
			a.known[p] = time.Now()
		}
	}
}

// churn moves an app, if both of its agents are registered with a leader.
func (s *simulation) churn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.apps[rand.IntN(len(s.apps))]
	if s.leader == nil || s.leader.frozen != nil || !s.present[a.agent] {
		return
	}
	old := *a
	s.place(a)
	if !s.present[a.agent] {
		*a = old
		return
	}
	a.task = s.script.Move(s.leader.master, old.task, a.task.TaskID.Value, a.agent, a.addr)
	a.moved = time.Now()
	a.told(s.linked)
	a.gone[old.addr] = make(times)
	for p := range s.linked {
		a.gone[old.addr][p] = time.Now()
	}
}

// judge returns what is wrong with a watcher's answer to a query for an app, or "".
func (s *simulation) judge(principal string, a *simApp, asked time.Time, denied bool, addrs []string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	linked, isLinked := s.linked[principal]
	if denied {
		known := a.known[principal]
		if known.IsZero() || asked.Sub(known) < grace {
			return ""
		}
		return fmt.Sprintf("%s, known for %v, is denied (linked: %v)", a.name, asked.Sub(known).Round(time.Millisecond), isLinked)
	}
	for _, addr := range addrs {
		told := a.gone[addr][principal]
		if !isLinked || told.IsZero() {
			continue
		}
		since := told
		if linked.After(told) {
			since = linked
		}
		if asked.Sub(since) > grace {
			return fmt.Sprintf("%s is still at %s, which was taken away %v ago", a.name, addr, asked.Sub(since).Round(time.Millisecond))
		}
	}
	return ""
}

// forget drops addresses that have gone long ago.
func (s *simulation) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.apps {
		for addr, at := range a.gone {
			if len(at) == len(principals) && !slices.ContainsFunc(principals, func(p string) bool { return time.Since(at[p]) < 2*time.Minute }) {
				delete(a.gone, addr)
			}
		}
	}
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
