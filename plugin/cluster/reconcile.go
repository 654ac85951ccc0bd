package cluster

import (
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// Events are not the whole truth: agents become unreachable, or never return from a
// failover, without one. So a watcher asks the leader now and then for its agents or its
// whole state, and Listed applies what differs. The answer may be older than events that
// arrive meanwhile: what they touch is left as it is.
//
// An event may also name an agent, framework or task that is unknown. Masters announce a
// task before its agent and framework, but all together; if the unknown is not announced
// soon, the model wants the whole state.

const (
	// announceDelay is how long what an event names may stay unknown.
	announceDelay = 5 * time.Second
	// maxUnknown bounds the unknown references that are remembered. One suffices to want the
	// whole state.
	maxUnknown = 100
)

// reconciliation is what the model knows of its differences from the master.
type reconciliation struct {
	touched    *touched                // by events since BeginReconcile; nil while there is none
	emptySeen  bool                    // the last answer had no agents, and was not believed
	unknown    map[reference]time.Time // and when the model wants the whole state
	wantsState bool
}

// touched are the objects that events have named during a reconciliation.
type touched struct {
	tasks              map[taskKey]bool
	agents, frameworks map[string]bool
}

// resetReconciliation starts over: a whole state has come.
func (c *Cluster) resetReconciliation() {
	c.touched, c.emptySeen, c.wantsState = nil, false, false
	clear(c.unknown)
}

// BeginReconcile must be called before the master is asked for what Listed is given.
func (c *Cluster) BeginReconcile() {
	c.touched = &touched{tasks: make(map[taskKey]bool), agents: make(map[string]bool), frameworks: make(map[string]bool)}
}

// AbortReconcile is called instead of Listed if the master has not answered.
func (c *Cluster) AbortReconcile() { c.touched = nil }

// touch notes what ev names, during a reconciliation.
func (c *Cluster) touch(ev mesos.Event) {
	if c.touched == nil {
		return
	}
	switch ev := ev.(type) {
	case mesos.TaskAdded:
		c.touched.tasks[taskKey{ev.Task.FrameworkID, ev.Task.ID}] = true
	case mesos.TaskUpdated:
		c.touched.tasks[taskKey{ev.FrameworkID, ev.TaskID}] = true
	case mesos.AgentAdded:
		c.touchAgent(ev.Agent.ID)
	case mesos.AgentRemoved:
		c.touchAgent(ev.AgentID)
	case mesos.FrameworkAdded:
		c.touched.frameworks[ev.Framework.ID] = true
	case mesos.FrameworkUpdated:
		c.touched.frameworks[ev.Framework.ID] = true
	case mesos.FrameworkRemoved:
		c.touched.frameworks[ev.FrameworkID] = true
	}
}

func (c *Cluster) touchAgent(id string) {
	if c.touched != nil {
		c.touched.agents[id] = true
	}
}

// Listed applies the answer to GET_AGENTS, or to GET_STATE if whole is true, and returns
// the number of agents, frameworks and tasks that differed. It ignores the answer if a whole
// state has come since BeginReconcile, and the first answer without any agent, if some are
// known: a master that has just started may give one.
func (c *Cluster) Listed(s *mesos.State, whole bool) int {
	since := c.touched
	c.touched = nil
	if since == nil {
		return 0
	}
	if s.NoAgents() && c.agentCount > 0 && !c.emptySeen {
		c.emptySeen = true
		c.wantsState = c.wantsState || whole // ask again
		return 0
	}
	c.emptySeen = false
	differences := 0
	if whole {
		clear(c.unknown)
		c.wantsState = false
		differences += c.reconcileFrameworks(s, since)
	}
	differences += c.reconcileAgents(s, since)
	if whole {
		differences += c.reconcileTasks(s, since)
	}
	return differences
}

func (c *Cluster) reconcileAgents(s *mesos.State, since *touched) int {
	differences := 0
	listed := make(map[string]bool, len(s.Agents)+len(s.RecoveredAgents))
	for _, a := range s.Agents {
		listed[a.ID] = true
		p := c.agents[a.ID]
		same := p != nil && p.now != nil && p.epoch == c.epoch && *p.now.Agent == *a
		if !same && !since.agents[a.ID] {
			c.addAgent(a)
			differences++
		}
	}
	for _, a := range s.RecoveredAgents {
		listed[a.ID] = true
	}
	if s.Malformed > 0 {
		return differences // a malformed agent is listed, too
	}
	for id, r := range c.failover.agents {
		if r.state == recovered && !r.retained && !listed[id] && !since.agents[id] {
			c.release(id)
		}
	}
	for id, p := range c.agents {
		if p.now == nil || listed[id] || since.agents[id] {
			continue
		}
		if p.epoch == c.epoch {
			differences++
		} else if c.failover.agents[id].state == missing {
			continue // it has until emptyUntil
		}
		c.dropAgent(id)
	}
	return differences
}

func (c *Cluster) reconcileFrameworks(s *mesos.State, since *touched) int {
	differences := 0
	listed := make(map[string]bool, len(s.Frameworks))
	for _, f := range s.Frameworks {
		listed[f.ID] = true
		if since.frameworks[f.ID] {
			continue
		}
		if p := c.frameworks[f.ID]; p == nil || p.now == nil || *p.now.Framework != *f {
			differences++
		}
		c.addFramework(f)
	}
	for id, p := range c.frameworks {
		if p.now != nil && (p.epoch == c.epoch || c.failover.retained == 0) && !listed[id] && !since.frameworks[id] && s.Malformed == 0 {
			differences++
			c.setFramework(p, nil)
		}
	}
	return differences
}

func (c *Cluster) reconcileTasks(s *mesos.State, since *touched) int {
	differences := 0
	listed := make(map[taskKey]bool, len(s.Tasks))
	for _, t := range s.Tasks {
		k := taskKey{t.FrameworkID, t.ID()}
		listed[k] = true
		if since.tasks[k] || since.agents[t.AgentID] || since.frameworks[t.FrameworkID] {
			continue
		}
		switch n := c.tasks.get(k); {
		case n == nil && t.State().Terminal():
			continue
		case n == nil, n.task() != t.KeepNetworks(n.task()):
			differences++
		}
		c.addTask(t)
	}
	for k, n := range c.tasks.all {
		if listed[k] || n.epoch != c.epoch || since.tasks[k] || s.Malformed > 0 {
			continue
		}
		if n.instance().Valid() {
			differences++
		}
		c.removeTask(n)
	}
	return differences
}

// reference is an agent, a framework or a task that an event has named.
type reference struct{ agent, framework, task string }

// referToParents notes the parents of a task, if they are unknown.
func (c *Cluster) referToParents(t *mesos.Task) {
	if t.State.Terminal() || t.State.AgentGone() {
		return
	}
	c.refer(reference{agent: t.AgentID})
	c.refer(reference{framework: t.FrameworkID})
}

// referToTask notes an unknown task that runs.
func (c *Cluster) referToTask(u mesos.TaskUpdated) {
	if !u.State.Terminal() && !u.State.AgentGone() {
		c.refer(reference{framework: u.FrameworkID, task: u.TaskID})
	}
}

func (c *Cluster) refer(r reference) {
	if _, ok := c.unknown[r]; ok || len(c.unknown) >= maxUnknown || c.known(r) {
		return
	}
	at := time.Now().Add(announceDelay)
	c.unknown[r] = at
	c.wakeAt(at)
}

// known reports whether the model knows what r refers to, or expects it.
func (c *Cluster) known(r reference) bool {
	switch {
	case r.task != "":
		return c.tasks.get(taskKey{r.framework, r.task}) != nil
	case r.framework != "":
		f := c.frameworks[r.framework]
		return f != nil && f.now != nil
	}
	a := c.agents[r.agent]
	return a != nil && a.now != nil || c.failover.agents[r.agent].unsettled
}

func (c *Cluster) expireUnknown(now time.Time) {
	for r, at := range c.unknown {
		if at.After(now) {
			c.wakeAt(at)
			continue
		}
		delete(c.unknown, r)
		c.wantsState = c.wantsState || !c.known(r)
	}
}
