package cluster

import (
	"net/netip"
	"slices"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// A new leader knows no tasks: it learns them as the agents re-register, and its first state
// may name nothing else than those agents. If the model believed that state, the names of
// all tasks would be denied for seconds, though they run. So the model retains what it knew
// of an agent until the agent has told the new leader what it runs.
//
// Each agent that has not done so, or has not had the time for it, is in one of these states,
// in failover.agents. One that is not in the map counts as having told all.
//
//	state       the agent                            becomes        on
//	recovered   is listed as recovered: the          registered     AGENT_ADDED
//	            leader expects it to re-register     gone           any of those below
//	missing     is not listed, by a leader that      registered     AGENT_ADDED
//	            lists no agents as recovered: it     gone           any of those below, or at emptyUntil,
//	            keeps its registry in memory                        which is reregisterGrace after the
//	                                                                leader's first such state
//	registered  has re-registered, and announces     registered     AGENT_ADDED, which starts it over
//	            its tasks                            (told all)     announceGrace after that and its last
//	                                                                TASK_ADDED that is not a launch, as these
//	                                                                are taken in; at last after
//	                                                                reregisterGrace
//	                                                 gone           any of those below
//
// An agent is gone with AGENT_REMOVED, with a task of it that is UNREACHABLE or
// GONE_BY_OPERATOR, when it is no longer listed, and when another agent is at its address and
// port: it was started again, without what it knew.
//
// A whole state starts all of this over. In each state an agent may be
//
//   - retained: what was known of it before is published. When it is gone, or has told all,
//     what the leader has not named by then is removed.
//   - unsettled: it may run tasks that nobody has told of, since nothing was known of it
//     before, or tasks may have been missed. Until it is gone, or has told all, no name can be
//     denied: the cluster is not Complete.
//
// Whether tasks may have been missed depends on the term of the last leader: see term.missed.

const (
	// announceGrace is how long an agent has to announce its tasks once it has re-registered.
	// On a real Mesos they come within ten milliseconds before and after; those of a framework
	// that is yet unknown to the leader follow the framework.
	announceGrace = 2 * time.Second
	// reregisterGrace is how long a leader without a registry may lack agents: they are back
	// after four to eight seconds. It also bounds what announceGrace comes to.
	reregisterGrace = 10 * time.Second

	// anyAgent stands for an agent that may have come while no master was heard.
	anyAgent = ""
)

// failover is what the model knows of a change of leaders.
type failover struct {
	term       term
	contenders []mesos.MasterID            // in ZooKeeper, the leader first; empty if unknown
	stale      bool                        // all that is known comes from a snapshot
	agents     map[string]returning        // by id; see the table above
	emptyUntil time.Time                   // until when a leader without recovered agents may lack some
	places     map[netip.AddrPort][]string // ids in agents by where they were; nil until it is needed

	retained, unsettled, away int // numbers of agents in the map that are so
}

// returnState is the state of an agent in a failover.
type returnState int

const (
	recovered returnState = iota + 1 // 0 is that of an agent that is not in the map
	missing
	registered
)

// returning is an agent that has not told the leader all of its tasks.
type returning struct {
	state     returnState
	retained  bool
	unsettled bool
	since     time.Time // registered: when it did
	at        time.Time // missing, registered: when that ends
}

// away reports whether a list of agents may tell more than events: that the leader does not
// expect the agent any more, or that it has returned.
func (r returning) away() bool { return r.state == recovered || r.state == missing && r.retained }

// set enters an agent in the map, or removes it if it is neither retained nor unsettled.
func (f *failover) set(id string, r returning) {
	if old, ok := f.agents[id]; ok {
		f.count(old, -1)
	}
	if !r.retained && !r.unsettled {
		delete(f.agents, id)
		return
	}
	f.agents[id] = r
	f.count(r, 1)
}

func (f *failover) count(r returning, n int) {
	if r.retained {
		f.retained += n
	}
	if r.unsettled {
		f.unsettled += n
	}
	if r.away() {
		f.away += n
	}
}

// reset empties the map, and returns the old one.
func (f *failover) reset() map[string]returning {
	before := f.agents
	f.agents, f.places = make(map[string]returning), nil
	f.retained, f.unsettled, f.away = 0, 0, 0
	return before
}

// setReturning sets the state of an agent in the failover.
func (c *Cluster) setReturning(id string, r returning) {
	c.failover.set(id, r)
	c.wakeAt(r.at)
}

// Leader is who tells a state.
type Leader struct {
	ID mesos.MasterID
	// Certain is true if the master has told its ID. If not, another process may have
	// started at its address.
	Certain bool
	// Polled is true if the leader is asked for its state now and then, so that tasks may
	// start and end between two of them.
	Polled bool
}

// LoadSnapshot makes s, the cluster as it was once known under a leader, the whole cluster
// until a master tells its state.
func (c *Cluster) LoadSnapshot(s *mesos.State, leader mesos.MasterID) {
	c.failover.term = term{leader: leader}
	c.replace(s, false, false)
	c.failover.stale = true
}

// State takes in a whole state that the leader told at the given time.
func (c *Cluster) State(s *mesos.State, leader Leader, at time.Time) {
	f := &c.failover
	another := c.Known() && (leader.ID != f.term.leader || !leader.Certain && f.term.disconnected())
	missed := f.stale || another && f.term.missed(leader.ID, at)
	f.term = term{leader: leader.ID, polled: leader.Polled}
	c.replace(s, another, missed)
	f.stale = false
}

// replace makes s the whole cluster, except for what is retained. another says that its
// leader is not the last one, and missed that tasks may have been launched unheard.
func (c *Cluster) replace(s *mesos.State, another, missed bool) {
	c.epoch++
	before := c.failover.reset()
	c.resetReconciliation()
	for _, f := range s.Frameworks {
		c.addFramework(f)
	}
	for _, a := range s.Agents {
		c.addAgent(a)
	}
	for _, t := range s.Tasks {
		c.addTask(t)
	}
	noRegistry := s.NoAgents() || another && len(s.RecoveredAgents) == 0
	if noRegistry {
		c.awaitMissing(before, another, missed)
	} else {
		c.awaitRecovered(s.RecoveredAgents, before, missed)
	}
	c.supersede(s.Agents...)
	c.removeUnnamed(noRegistry)
}

// awaitRecovered awaits the agents that a state lists as recovered. After a state of a
// leader without a registry, those that it lacked have the rest of their time.
func (c *Cluster) awaitRecovered(agents []*mesos.Agent, before map[string]returning, missed bool) {
	if time.Now().Before(c.failover.emptyUntil) {
		for id, r := range before {
			a := c.agents[id]
			if a != nil && a.epoch == c.epoch {
				continue // in the state
			}
			known := a != nil && a.now != nil
			c.setReturning(id, returning{state: missing, retained: r.retained && known, unsettled: r.unsettled, at: c.failover.emptyUntil})
		}
	}
	for _, a := range agents {
		p := c.agents[a.ID]
		known := p != nil && p.now != nil
		c.setReturning(a.ID, returning{
			state:     recovered,
			retained:  known && p.epoch != c.epoch,
			unsettled: !known || before[a.ID].unsettled || missed,
		})
	}
}

// awaitMissing awaits all agents that the state of a leader without a registry lacks. They
// have until emptyUntil, which the first of several such states in a row sets.
func (c *Cluster) awaitMissing(before map[string]returning, another, missed bool) {
	f := &c.failover
	inARow := !another && time.Now().Before(f.emptyUntil)
	for _, a := range c.agents {
		inARow = inARow && (a.now == nil || a.epoch != c.epoch-1) // none has registered since the last one
	}
	if !inARow {
		f.emptyUntil = time.Now().Add(reregisterGrace)
	}
	for id, r := range before {
		if a := c.agents[id]; r.unsettled && (a == nil || a.now == nil) {
			c.setReturning(id, returning{state: missing, unsettled: true, at: f.emptyUntil})
		}
	}
	for id, a := range c.agents {
		if a.now != nil && a.epoch != c.epoch {
			c.setReturning(id, returning{state: missing, retained: true, unsettled: missed || before[id].unsettled, at: f.emptyUntil})
		}
	}
	if missed {
		c.setReturning(anyAgent, returning{state: missing, unsettled: true, at: f.emptyUntil})
	}
}

// removeUnnamed removes what the new state has not named, unless it is retained.
func (c *Cluster) removeUnnamed(noRegistry bool) {
	for _, n := range c.tasks.all {
		if n.epoch != c.epoch && !c.failover.agents[n.agent.id].retained {
			c.removeTask(n)
		}
	}
	for id, a := range c.agents {
		if a.epoch != c.epoch && !c.failover.agents[id].retained {
			c.setAgent(a, nil)
		}
	}
	c.retainedTasks = 0
	for _, f := range c.frameworks {
		retained := 0
		for _, n := range f.tasks {
			if n.epoch != c.epoch {
				retained++
			}
		}
		c.retainedTasks += retained
		// A leader without a registry learns frameworks late, even those without tasks.
		if f.epoch != c.epoch && retained == 0 && (!noRegistry || c.failover.retained == 0) {
			c.setFramework(f, nil)
		}
	}
}

// registered notes that an agent has registered or re-registered.
func (c *Cluster) registered(id string) {
	if r, ok := c.failover.agents[id]; ok {
		now := time.Now()
		r.state, r.since, r.at = registered, now, now.Add(announceGrace)
		c.setReturning(id, r)
	}
}

// announces notes that an agent announces a task, as one that has registered does.
func (c *Cluster) announces(id string) {
	r, ok := c.failover.agents[id]
	if !ok || r.state != registered {
		return
	}
	r.at = time.Now().Add(announceGrace)
	if last := r.since.Add(reregisterGrace); r.at.After(last) {
		r.at = last
	}
	c.setReturning(id, r)
}

// supersede releases agents that are at the address of a registered one, under an id of an
// earlier life.
func (c *Cluster) supersede(agents ...*mesos.Agent) {
	f := &c.failover
	if len(f.agents) == 0 {
		return
	}
	if f.places == nil {
		f.places = make(map[netip.AddrPort][]string)
		for id := range f.agents {
			if a := c.agents[id]; a != nil && a.now != nil && a.now.Addr.IsValid() {
				at := netip.AddrPortFrom(a.now.Addr, uint16(a.now.Port))
				f.places[at] = append(f.places[at], id)
			}
		}
	}
	for _, a := range agents {
		for _, id := range f.places[netip.AddrPortFrom(a.Addr, uint16(a.Port))] {
			if r, ok := f.agents[id]; ok && r.state != registered && id != a.ID {
				c.release(id)
			}
		}
	}
}

// announced notes that the leader has named a task, or that it is removed.
func (c *Cluster) announced(n *taskNode) {
	if n.epoch != c.epoch {
		c.retainedTasks--
	}
}

// release ends the return of an agent: what is retained of it is removed.
func (c *Cluster) release(id string) {
	r := c.failover.agents[id]
	c.failover.set(id, returning{})
	if !r.retained {
		return
	}
	a := c.agents[id]
	for _, n := range slices.Clone(a.tasks) {
		if n.epoch != c.epoch {
			c.removeTask(n)
		}
	}
	if a.epoch != c.epoch {
		c.setAgent(a, nil)
	}
	for _, f := range c.frameworks {
		if f.epoch != c.epoch && len(f.tasks) == 0 {
			c.setFramework(f, nil)
		}
	}
}

// dropUnnamed removes a framework that the leader has never named, once nothing is retained
// and its last task has ended.
func (c *Cluster) dropUnnamed(framework string) {
	f := c.frameworks[framework]
	if f != nil && f.now != nil && f.epoch != c.epoch && len(f.tasks) == 0 && c.failover.retained == 0 {
		c.setFramework(f, nil)
	}
}

// expireAgents ends the return of agents whose time is over.
func (c *Cluster) expireAgents(now time.Time) {
	for id, r := range c.failover.agents {
		if !r.at.IsZero() && !r.at.After(now) {
			c.release(id)
			continue
		}
		c.wakeAt(r.at)
	}
}

const (
	// failoverTime is how long masters take at most until one of them leads: their sessions
	// with ZooKeeper expire after ten seconds, and a registry is read within a minute.
	failoverTime = time.Minute
	// deathTime is the longest time from a broken stream until the leader is seen to have
	// stepped down, if it broke for that reason.
	deathTime = 250 * time.Millisecond
)

// term is that of the last leader that has told a state, and what has been seen of its end.
type term struct {
	leader         mesos.MasterID
	polled         bool
	lastHeard      time.Time               // before the connection ended
	disconnectedAt time.Time               // zero while connected
	steppedDownAt  time.Time               // when that was first seen; zero if it was not
	others         map[mesos.MasterID]bool // masters that may have led since
}

// Elected tells the model the contenders in ZooKeeper: the leader, and those that would
// succeed it, in order. An empty list, of masters between elections, says nothing.
func (c *Cluster) Elected(contenders []mesos.MasterID, at time.Time) {
	if len(contenders) == 0 {
		return
	}
	before := c.failover.contenders
	c.failover.contenders = contenders
	t := &c.failover.term
	if contenders[0] == t.leader {
		return
	}
	t.stepDown(at)
	if t.others == nil {
		t.others = make(map[mesos.MasterID]bool)
	}
	t.others[contenders[0]] = true
	for _, id := range before[slices.Index(before, t.leader)+1:] {
		if id == contenders[0] {
			return
		}
		t.others[id] = true // it is gone, and may have led before that
	}
}

// SteppedDown tells the model that the leader has been seen not to lead any more.
func (c *Cluster) SteppedDown(at time.Time) { c.failover.term.stepDown(at) }

func (t *term) stepDown(at time.Time) {
	if t.steppedDownAt.IsZero() {
		t.steppedDownAt = at
	}
}

// Disconnected tells the model that the connection to the leader has ended. A master was
// last heard at lastHeard.
func (c *Cluster) Disconnected(lastHeard, at time.Time) {
	c.failover.term.lastHeard, c.failover.term.disconnectedAt = lastHeard, at
}

func (t *term) disconnected() bool { return !t.disconnectedAt.IsZero() }

// missed reports whether tasks may have been launched unheard, before next told its state:
// by the leader after its stream had broken or between two polls, by another leader in
// between, or by any, since no master was heard for longer than a failover takes.
func (t *term) missed(next mesos.MasterID, at time.Time) bool {
	for id := range t.others {
		if id != next && id != t.leader {
			return true
		}
	}
	if t.polled || !t.disconnected() {
		return t.polled
	}
	steppedDown := t.steppedDownAt
	if steppedDown.IsZero() {
		steppedDown = at
	}
	return steppedDown.Sub(t.disconnectedAt) > deathTime || at.Sub(t.lastHeard) > failoverTime
}
