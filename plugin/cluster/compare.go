package cluster

import (
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// Events are not the whole truth. Agents leave without one when they become
// unreachable or never return, so that what a master answers when it is asked is
// compared with what its events have told. And what an event names without it
// ever being announced leaves a doubt.

// doubtTime is how long what an event names may stay unknown: masters announce
// tasks before the agents and frameworks that they belong to, but in one go.
const doubtTime = 5 * time.Second

// maxDoubts bounds how much is remembered: one doubt is enough to ask for all.
const maxDoubts = 100

// named is what events have named: of that an answer may be older.
type named struct {
	tasks              map[key]bool
	agents, frameworks map[string]bool
}

// BeginCompare is to be called before the master is asked for what Compare is
// then given, so that no answer undoes an event that is newer.
func (c *Cluster) BeginCompare() {
	c.named = &named{tasks: make(map[key]bool), agents: make(map[string]bool), frameworks: make(map[string]bool)}
}

// EndCompare is to be called where there is no answer.
func (c *Cluster) EndCompare() { c.named = nil }

// note remembers what ev names, while a comparison is under way.
func (c *Cluster) note(ev mesos.Event) {
	if c.named == nil {
		return
	}
	switch ev := ev.(type) {
	case mesos.TaskAdded:
		c.named.tasks[key{ev.Task.FrameworkID, ev.Task.ID}] = true
	case mesos.TaskUpdated:
		c.named.tasks[key{ev.FrameworkID, ev.TaskID}] = true
	case mesos.AgentAdded:
		c.noteAgent(ev.Agent.ID)
	case mesos.AgentRemoved:
		c.noteAgent(ev.AgentID)
	case mesos.FrameworkAdded:
		c.named.frameworks[ev.Framework.ID] = true
	case mesos.FrameworkUpdated:
		c.named.frameworks[ev.Framework.ID] = true
	case mesos.FrameworkRemoved:
		c.named.frameworks[ev.FrameworkID] = true
	}
}

func (c *Cluster) noteAgent(id string) {
	if c.named != nil {
		c.named.agents[id] = true
	}
}

// Compare applies what a GET_AGENTS answered, or a GET_STATE if whole, that was
// asked for after BeginCompare. What an event has named since is left as it is,
// and so is what is held; after another whole state the answer is ignored, and so
// is the first answer without any agent while some are known. It returns how many agents, frameworks and tasks differed.
func (c *Cluster) Compare(s *mesos.State, whole bool) int {
	since := c.named
	c.named = nil
	if since == nil {
		return 0
	}
	if s.NoAgents() && c.counts.Agents > 0 && !c.emptied {
		c.emptied = true
		c.doubtful = c.doubtful || whole // ask for all again
		return 0
	}
	c.emptied = false
	differences := 0
	if whole {
		clear(c.doubts)
		c.doubtful = false
		differences += c.compareFrameworks(s, since)
	}
	differences += c.compareAgents(s, since)
	if whole {
		differences += c.compareTasks(s, since)
	}
	return differences
}

func (c *Cluster) compareAgents(s *mesos.State, since *named) int {
	differences := 0
	listed := make(map[string]bool, len(s.Agents)+len(s.RecoveredAgents))
	for _, a := range s.Agents {
		listed[a.ID] = true
		o := c.agents[a.ID]
		known := o != nil && o.now != nil && o.epoch == c.epoch && *o.now.Agent == *a
		if !known && !since.agents[a.ID] {
			c.addAgent(a)
			differences++
		}
	}
	for _, a := range s.RecoveredAgents {
		listed[a.ID] = true
	}
	if s.Malformed > 0 {
		return differences // an agent may be listed and not be decoded
	}
	for id, at := range c.awaited {
		if at.IsZero() && !listed[id] && !since.agents[id] && !c.isHeld(id) {
			delete(c.awaited, id)
		}
	}
	for id, o := range c.agents {
		if o.now == nil || listed[id] || since.agents[id] {
			continue
		}
		if o.epoch == c.epoch {
			differences++
		} else if at := c.held[id]; !at.IsZero() {
			continue // of a state without agents: the deadline decides
		}
		c.dropAgent(id)
	}
	return differences
}

func (c *Cluster) compareFrameworks(s *mesos.State, since *named) int {
	differences := 0
	listed := make(map[string]bool, len(s.Frameworks))
	for _, f := range s.Frameworks {
		listed[f.ID] = true
		if since.frameworks[f.ID] {
			continue
		}
		if o := c.frameworks[f.ID]; o == nil || o.now == nil || *o.now.Framework != *f {
			differences++
		}
		c.addFramework(f)
	}
	for id, o := range c.frameworks {
		if o.now != nil && (o.epoch == c.epoch || len(c.held) == 0) && !listed[id] && !since.frameworks[id] && s.Malformed == 0 {
			differences++
			c.setFramework(o, nil)
		}
	}
	return differences
}

func (c *Cluster) compareTasks(s *mesos.State, since *named) int {
	differences := 0
	listed := make(map[key]bool, len(s.Tasks))
	for _, t := range s.Tasks {
		k := key{t.FrameworkID, t.ID}
		listed[k] = true
		if since.tasks[k] || since.agents[t.AgentID] || since.frameworks[t.FrameworkID] {
			continue
		}
		switch n := c.tasks.get(k); {
		case n == nil && t.State.Terminal():
			continue
		case n == nil, !n.task.Equal(t.KeepNetworks(n.task)):
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

// doubt is something that an event named and that is not known.
type doubt struct{ agent, framework, task string }

// doubtOwners notes the owners of a task that are not known.
func (c *Cluster) doubtOwners(t *mesos.Task) {
	if t.State.Terminal() || t.State.AgentGone() {
		return
	}
	c.suspect(doubt{agent: t.AgentID})
	c.suspect(doubt{framework: t.FrameworkID})
}

// doubtTask notes that an unknown task runs.
func (c *Cluster) doubtTask(u mesos.TaskUpdated) {
	if !u.State.Terminal() && !u.State.AgentGone() {
		c.suspect(doubt{framework: u.FrameworkID, task: u.TaskID})
	}
}

func (c *Cluster) suspect(d doubt) {
	if _, ok := c.doubts[d]; ok || len(c.doubts) >= maxDoubts || c.resolved(d) {
		return
	}
	at := time.Now().Add(doubtTime)
	c.doubts[d] = at
	c.wake(at)
}

// resolved reports whether what d is of is known, or awaited.
func (c *Cluster) resolved(d doubt) bool {
	switch {
	case d.task != "":
		return c.tasks.get(key{d.framework, d.task}) != nil
	case d.framework != "":
		f := c.frameworks[d.framework]
		return f != nil && f.now != nil
	}
	a := c.agents[d.agent]
	_, awaited := c.awaited[d.agent]
	return a != nil && a.now != nil || awaited
}

func (c *Cluster) expireDoubts(now time.Time) {
	for d, at := range c.doubts {
		if at.After(now) {
			c.wake(at)
			continue
		}
		delete(c.doubts, d)
		c.doubtful = c.doubtful || !c.resolved(d)
	}
}

// TakeDoubt reports whether, since the last call, something turned out to be
// missing that only a whole state can tell.
func (c *Cluster) TakeDoubt() bool {
	d := c.doubtful
	c.doubtful = false
	return d
}
