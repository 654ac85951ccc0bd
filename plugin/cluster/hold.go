package cluster

import (
	"slices"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// HoldTime is how long an agent has, once it has re-registered with a new
// leader, to announce its tasks, and how long a first state without any agent
// waits before it is believed.
const HoldTime = 10 * time.Second

// A new leader knows its agents only as they re-register. Until then it lists
// them as recovered, and the agents, frameworks and tasks that were known before
// are held: they stay in the cluster, with an epoch before the present one.
// c.held has the agents, with the time at which what they have not announced
// goes; zero for one that has not re-registered.

// replace makes s the whole cluster: what it does not name is held, if its
// agent may yet tell of it, or gone.
func (c *Cluster) replace(s *mesos.State) {
	c.epoch++
	c.begun = c.seq
	clear(c.held)
	c.deadline = time.Time{}
	clear(c.touched)
	for _, f := range s.Frameworks {
		c.addFramework(f)
	}
	for _, a := range s.Agents {
		c.addAgent(a)
	}
	for _, t := range s.Tasks {
		c.addTask(t)
	}
	c.hold(s)
	for _, n := range c.tasks {
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
		if f.epoch != c.epoch && held == 0 && (!s.NoAgents() || len(c.held) == 0) {
			c.setFramework(f, nil)
		}
	}
}

// hold decides which agents of before are held: those that s lists as
// recovered, or all, for a while, if it knows no agent whatever.
func (c *Cluster) hold(s *mesos.State) {
	if s.NoAgents() {
		for id, a := range c.agents {
			if a.now != nil {
				c.until(id, time.Now().Add(HoldTime))
			}
		}
		return // those that were recovered are still awaited, until GET_AGENTS tells
	}
	clear(c.recovered)
	for _, r := range s.RecoveredAgents {
		switch a := c.agents[r.ID]; {
		case a == nil || a.now == nil:
			c.recovered[r.ID] = true
		case a.epoch != c.epoch:
			c.until(r.ID, time.Time{})
		}
	}
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

// registered starts the time that a held agent has to announce its tasks.
func (c *Cluster) registered(agent string) {
	if c.isHeld(agent) {
		c.until(agent, time.Now().Add(HoldTime))
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

// until sets how long an agent is held.
func (c *Cluster) until(agent string, at time.Time) {
	c.held[agent] = at
	if !at.IsZero() && (c.deadline.IsZero() || at.Before(c.deadline)) {
		c.deadline = at
	}
}

// Expire lets go what was held long enough.
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
			c.until(agent, at)
		}
	}
}

// Mark stands for the events that have been applied.
func (c *Cluster) Mark() uint64 { return c.seq }

// Compare applies what a GET_AGENTS answered that was asked for when Mark
// returned mark: agents leave without an event when they become unreachable or
// never return. What an event has touched since is left as it is, and an answer
// from before the present master's state is ignored. It returns how many agents
// differed; that a held agent is given up counts as none.
func (c *Cluster) Compare(s *mesos.State, mark uint64) int {
	if mark < c.begun {
		return 0
	}
	differences := 0
	listed := make(map[string]bool, len(s.Agents))
	for _, a := range s.Agents {
		listed[a.ID] = true
		o := c.agents[a.ID]
		known := o != nil && o.now != nil && o.epoch == c.epoch && *o.now.Agent == *a
		if !known && c.touched[a.ID] <= mark {
			c.addAgent(a)
			differences++
		}
	}
	recovered := make(map[string]bool, len(s.RecoveredAgents))
	for _, a := range s.RecoveredAgents {
		recovered[a.ID] = true
	}
	for id := range c.recovered {
		if !recovered[id] && c.touched[id] <= mark {
			delete(c.recovered, id)
		}
	}
	if s.Malformed > 0 {
		return differences // an agent may be listed and not be decoded
	}
	for id, o := range c.agents {
		if o.now == nil || listed[id] || recovered[id] || c.touched[id] > mark {
			continue
		}
		if o.epoch == c.epoch {
			differences++
		} else if at := c.held[id]; !at.IsZero() {
			continue // of a state without agents: the deadline decides
		}
		c.dropAgent(id)
	}
	for id, seq := range c.touched {
		if seq <= mark {
			delete(c.touched, id)
		}
	}
	return differences
}
