package cluster

import (
	"slices"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// HoldTime is how long an agent has, once it has re-registered with a new
// leader, to announce its tasks, and how long a leader that lists no recovered
// agents, as one that keeps its registry in memory, is waited for to know them.
const HoldTime = 10 * time.Second

// announceTime is how long an agent of which nothing was known has, once it has
// registered, before its tasks count as told: the master sends them in one go.
const announceTime = time.Second

// unnamed is the ID, in c.awaited, of an agent that may have come when nobody told
// of it.
const unnamed = ""

// A new leader knows its agents only as they re-register. Until then it lists
// them as recovered, and the agents, frameworks and tasks that were known before
// are held: they stay in the cluster, with an epoch before the present one.
// c.held has the agents, with the time at which what they have not announced
// goes; zero for one that has not re-registered.
//
// c.awaited has the agents whose tasks are not all known: those of which nothing
// is, and those of which only what is outdated tells. Its times are those at which
// they will have told; zero for one that has not re-registered. Until then no
// name can be denied.

// Restore makes s, which was known once, the whole cluster, until a master
// speaks.
func (c *Cluster) Restore(s *mesos.State) {
	c.replace(s)
	c.outdated = true
}

// Outdate says that events have been missed: there may be tasks that none has told
// of. The next state is taken as it is after a snapshot.
func (c *Cluster) Outdate() { c.outdated = true }

// Succeed says that the next state is that of another leader than the last one: it
// may have forgotten the agents that have not re-registered with it.
func (c *Cluster) Succeed() { c.succeeded = true }

// replace makes s the whole cluster: what it does not name is held, if its
// agent may yet tell of it, or gone.
func (c *Cluster) replace(s *mesos.State) {
	c.epoch++
	before := c.held
	c.held = make(map[string]time.Time)
	c.named = nil
	c.emptied = false
	clear(c.doubts)
	for _, f := range s.Frameworks {
		c.addFramework(f)
	}
	for _, a := range s.Agents {
		c.addAgent(a)
	}
	for _, t := range s.Tasks {
		c.addTask(t)
	}
	forgetful := s.NoAgents() || c.succeeded && len(s.RecoveredAgents) == 0
	c.hold(s, before, forgetful)
	c.succeeded = false
	for _, n := range c.tasks.all {
		if n.epoch != c.epoch && !c.isHeld(n.agent.id) {
			c.removeTask(n)
		}
	}
	for _, a := range c.agents {
		if a.epoch != c.epoch && !c.isHeld(a.id) {
			c.setAgent(a, nil)
		}
	}
	c.heldTasks = 0
	for _, f := range c.frameworks {
		held := 0
		for _, n := range f.tasks {
			if n.epoch != c.epoch {
				held++
			}
		}
		c.heldTasks += held
		if f.epoch != c.epoch && held == 0 && (!forgetful || len(c.held) == 0) {
			c.setFramework(f, nil)
		}
	}
}

// hold decides which agents are held: those that s lists as recovered, or all that
// s lacks, for a while, if it may have forgotten them. If that while is not over,
// those that were held before still are.
func (c *Cluster) hold(s *mesos.State, before map[string]time.Time, forgetful bool) {
	if forgetful {
		c.holdAll()
		return
	}
	awaited := c.awaited
	c.awaited = make(map[string]time.Time)
	if time.Now().Before(c.blank) {
		for id := range before {
			if a := c.agents[id]; a != nil && a.now != nil && a.epoch != c.epoch {
				c.until(c.held, id, c.blank)
			}
		}
		for id := range awaited {
			if a := c.agents[id]; a == nil || a.epoch != c.epoch {
				c.until(c.awaited, id, c.blank)
			}
		}
	}
	for _, r := range s.RecoveredAgents {
		a := c.agents[r.ID]
		_, unsure := awaited[r.ID]
		known := a != nil && a.now != nil
		if known && a.epoch != c.epoch {
			c.until(c.held, r.ID, time.Time{})
		}
		if !known || unsure || c.outdated {
			c.until(c.awaited, r.ID, time.Time{})
		}
	}
}

// holdAll holds all agents that the state lacks, and awaits those that were awaited,
// for HoldTime from the first of a row of such states of one leader.
func (c *Cluster) holdAll() {
	again := !c.succeeded && time.Now().Before(c.blank)
	for _, a := range c.agents {
		again = again && (a.now == nil || a.epoch != c.epoch-1) // none has registered since
	}
	if !again {
		c.blank = time.Now().Add(HoldTime)
	}
	if c.outdated {
		c.until(c.awaited, unnamed, c.blank)
	}
	for id, a := range c.agents {
		if a.now == nil {
			continue
		}
		if a.epoch == c.epoch {
			delete(c.awaited, id)
			continue
		}
		c.until(c.held, id, c.blank)
		if c.outdated {
			c.until(c.awaited, id, c.blank)
		}
	}
	for id, at := range c.awaited {
		if at.IsZero() {
			c.until(c.awaited, id, c.blank)
		}
	}
}

// Awaiting reports whether it is of interest which agents the master lists: some
// have not re-registered, or it seemed to have lost all.
func (c *Cluster) Awaiting() bool {
	if c.emptied {
		return true
	}
	for id := range c.held {
		if c.agents[id].epoch != c.epoch {
			return true
		}
	}
	for _, at := range c.awaited {
		if at.IsZero() {
			return true
		}
	}
	return false
}

func (c *Cluster) isHeld(agent string) bool {
	_, held := c.held[agent]
	return held
}

// unhold counts n as no longer held, if it was.
func (c *Cluster) unhold(n *taskNode) {
	if n.epoch != c.epoch {
		c.heldTasks--
	}
}

// registered starts the time that an agent has to announce its tasks.
func (c *Cluster) registered(agent string) {
	if c.isHeld(agent) {
		c.until(c.held, agent, time.Now().Add(HoldTime))
	}
	if _, ok := c.awaited[agent]; ok {
		c.until(c.awaited, agent, time.Now().Add(announceTime))
	}
}

// release ends the hold of an agent: what it has not announced is gone.
func (c *Cluster) release(agent string) {
	if !c.isHeld(agent) {
		return
	}
	delete(c.held, agent)
	a := c.agents[agent]
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

// Deadline returns when Expire has something to do; zero if there is nothing.
func (c *Cluster) Deadline() time.Time { return c.deadline }

// until sets in times, c.held or c.awaited, how long an agent is there.
func (c *Cluster) until(times map[string]time.Time, agent string, at time.Time) {
	times[agent] = at
	c.wake(at)
}

// wake brings the deadline forward to at, unless that is zero.
func (c *Cluster) wake(at time.Time) {
	if !at.IsZero() && (c.deadline.IsZero() || at.Before(c.deadline)) {
		c.deadline = at
	}
}

// Expire lets go what was held, awaited or doubted long enough.
func (c *Cluster) Expire() {
	now := time.Now()
	if c.deadline.IsZero() || c.deadline.After(now) {
		return
	}
	c.deadline = time.Time{}
	for agent, at := range c.held {
		if !at.IsZero() && !at.After(now) {
			c.release(agent)
		} else {
			c.wake(at)
		}
	}
	for agent, at := range c.awaited {
		if !at.IsZero() && !at.After(now) {
			delete(c.awaited, agent)
		} else {
			c.wake(at)
		}
	}
	c.expireDoubts(now)
}
