// Package cluster keeps a model of a Mesos cluster from the events of its
// leading master, and tells what has changed in it.
package cluster

import (
	"net/netip"
	"slices"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// Instance is a running task with the framework and the agent it belongs to.
// What it points to never changes.
type Instance struct {
	Task      *mesos.Task
	Framework *Framework
	Agent     *Agent
}

// Valid reports whether i is an instance, and not none.
func (i Instance) Valid() bool { return i.Task != nil }

// Agent is a registered agent and its addresses.
type Agent struct {
	*mesos.Agent
	Addrs []netip.Addr // of its pid or hostname, else as its hostname resolves; may be empty
}

// Framework is a framework, registered or recovered, and its scheduler's addresses.
type Framework struct {
	*mesos.Framework
	Addrs []netip.Addr // of its hostname; may be empty
}

// Masters are the masters of the cluster and their addresses.
type Masters struct {
	Leader []netip.Addr   // may be empty
	Port   uint16         // of the leader, 0 if unknown
	All    [][]netip.Addr // of each master in the order of their numbers
}

func (m *Masters) equal(o *Masters) bool {
	return slices.Equal(m.Leader, o.Leader) && m.Port == o.Port &&
		slices.EqualFunc(m.All, o.All, slices.Equal[[]netip.Addr])
}

// Change is what something was when changes were last taken, and what it is now.
type Change[T any] struct{ Old, New T }

// Changes is what has changed in a cluster. An absent Old is new, an absent New
// is gone; Instances are absent, too, while their task does not run or their
// agent or framework is not known.
type Changes struct {
	Instances  []Change[Instance]
	Frameworks []Change[*Framework]
	Agents     []Change[*Agent]
	Masters    Change[*Masters]
}

// Empty reports whether nothing has changed.
func (c *Changes) Empty() bool {
	return len(c.Instances) == 0 && len(c.Frameworks) == 0 && len(c.Agents) == 0 && c.Masters.Old == c.Masters.New
}

// Counts are the sizes of a cluster.
type Counts struct {
	Tasks      int // known, running or not
	Agents     int // registered
	Frameworks int
	Held       int // tasks kept from before the present master's first state
}

// key identifies a task: its id is unique within its framework only.
type key struct{ framework, task string }

// tasks are those known.
type tasks struct {
	of    map[string]map[string]*taskNode // by the ids of their frameworks and their own
	count int
}

func (t *tasks) get(k key) *taskNode { return t.of[k.framework][k.task] }

// put adds a task that is not known.
func (t *tasks) put(k key, n *taskNode) {
	if t.of[k.framework] == nil {
		t.of[k.framework] = make(map[string]*taskNode)
	}
	t.of[k.framework][k.task] = n
	t.count++
}

// remove removes a task that is known.
func (t *tasks) remove(k key) {
	t.count--
	delete(t.of[k.framework], k.task)
	if len(t.of[k.framework]) == 0 {
		delete(t.of, k.framework)
	}
}

// all yields every task; those yielded may be removed meanwhile.
func (t *tasks) all(yield func(key, *taskNode) bool) {
	for framework, of := range t.of {
		for id, n := range of {
			if !yield(key{framework, id}, n) {
				return
			}
		}
	}
}

// taskNode is a known task and its place in its agent's and framework's lists.
type taskNode struct {
	task      *mesos.Task
	agent     *owner[Agent]
	framework *owner[Framework]
	place     [2]int32 // in agent.tasks, framework.tasks
	epoch     uint32   // the last whole state that named it
	dirty     bool
	taken     Instance // as of the last Take
}

// owner is an agent or a framework: one that is known, or one that tasks name
// before it is announced or after it is gone.
type owner[T any] struct {
	id    string
	now   *T // nil while not known
	taken *T // as of the last Take
	tasks []*taskNode
	which int // index in taskNode.place
	epoch uint32
	dirty bool
}

// Cluster is the model. It is used by one goroutine.
type Cluster struct {
	// Resolve returns the addresses of a hostname as far as they are known; it
	// does not wait. HostChanged is to be called when they change.
	Resolve func(host string) []netip.Addr

	tasks      tasks
	agents     map[string]*owner[Agent]
	frameworks map[string]*owner[Framework]
	awaited    map[string]time.Time // see hold.go
	held       map[string]time.Time // see hold.go
	blank      time.Time            // until when a leader that began without recovered agents may lack some
	outdated   bool                 // all that is known is of a snapshot, or may have changed since; until the next state
	succeeded  bool                 // the next state is another leader's
	deadline   time.Time            // no later than the first in awaited, held and doubts; zero if there is none
	heldTasks  int
	named      *named              // by events since a comparison began; nil while there is none
	doubts     map[doubt]time.Time // see compare.go
	doubtful   bool
	emptied    bool // the last comparison was with nothing, and was not believed
	masters    Change[*Masters]
	epoch      uint32
	counts     Counts

	dirtyTasks      []*taskNode
	dirtyAgents     []*owner[Agent]
	dirtyFrameworks []*owner[Framework]
}

// New returns an empty cluster. resolve may be nil.
func New(resolve func(host string) []netip.Addr) *Cluster {
	if resolve == nil {
		resolve = func(string) []netip.Addr { return nil }
	}
	return &Cluster{
		Resolve:    resolve,
		tasks:      tasks{of: make(map[string]map[string]*taskNode)},
		agents:     make(map[string]*owner[Agent]),
		frameworks: make(map[string]*owner[Framework]),
		awaited:    make(map[string]time.Time),
		held:       make(map[string]time.Time),
		doubts:     make(map[doubt]time.Time),
	}
}

// Counts returns the sizes of the cluster.
func (c *Cluster) Counts() Counts {
	n := c.counts
	n.Tasks, n.Held = c.tasks.count, c.heldTasks
	return n
}

// Complete reports whether all that runs is known: no agent is awaited, and a
// master has spoken.
func (c *Cluster) Complete() bool { return !c.outdated && len(c.awaited) == 0 }

// Apply takes in an event.
func (c *Cluster) Apply(ev mesos.Event) {
	c.note(ev)
	switch ev := ev.(type) {
	case mesos.Subscribed:
		c.replace(ev.State)
		c.outdated = false
	case mesos.TaskAdded:
		c.addTask(ev.Task)
		c.doubtOwners(ev.Task)
	case mesos.TaskUpdated:
		c.updateTask(ev)
	case mesos.AgentAdded:
		c.addAgent(ev.Agent)
	case mesos.AgentRemoved:
		c.dropAgent(ev.AgentID)
	case mesos.FrameworkAdded:
		c.addFramework(ev.Framework)
	case mesos.FrameworkUpdated:
		c.addFramework(ev.Framework)
	case mesos.FrameworkRemoved:
		if f := c.frameworks[ev.FrameworkID]; f != nil {
			c.setFramework(f, nil)
		}
	}
}

func (c *Cluster) updateTask(u mesos.TaskUpdated) {
	n := c.tasks.get(key{u.FrameworkID, u.TaskID})
	if n == nil {
		c.doubtTask(u)
		return
	}
	agent := n.agent.id
	c.setTask(n, n.task.Updated(u))
	if u.State.AgentGone() {
		c.noteAgent(agent)
		c.dropAgent(agent)
	}
}

func (c *Cluster) addTask(t *mesos.Task) {
	k := key{t.FrameworkID, t.ID}
	n := c.tasks.get(k)
	if n == nil {
		n = &taskNode{}
		c.tasks.put(k, n)
	} else {
		t = t.KeepNetworks(n.task)
		c.unhold(n)
		n.epoch = c.epoch
		if n.task.Equal(t) {
			return
		}
	}
	n.epoch = c.epoch
	if n.task == nil || n.task.AgentID != t.AgentID {
		c.leave(n)
		n.agent = c.agent(t.AgentID)
		n.framework = c.framework(t.FrameworkID)
		n.agent.join(n)
		n.framework.join(n)
	}
	c.setTask(n, t)
}

func (c *Cluster) setTask(n *taskNode, t *mesos.Task) {
	n.task = t
	c.touch(n)
	if t.State.Terminal() {
		c.removeTask(n)
	}
}

// removeTask forgets a task. It stays on the list of what changed.
func (c *Cluster) removeTask(n *taskNode) {
	c.tasks.remove(key{n.task.FrameworkID, n.task.ID})
	c.unhold(n)
	c.touch(n)
	c.leave(n)
	n.task = nil
}

// leave takes n from its owners, and forgets those that are named by no one.
func (c *Cluster) leave(n *taskNode) {
	if n.agent != nil {
		n.agent.part(n)
		c.forgetAgent(n.agent)
		n.framework.part(n)
		c.forgetFramework(n.framework)
	}
	n.agent, n.framework = nil, nil
}

func (c *Cluster) agent(id string) *owner[Agent] {
	a := c.agents[id]
	if a == nil {
		a = &owner[Agent]{id: id, which: 0}
		c.agents[id] = a
	}
	return a
}

func (c *Cluster) framework(id string) *owner[Framework] {
	f := c.frameworks[id]
	if f == nil {
		f = &owner[Framework]{id: id, which: 1}
		c.frameworks[id] = f
	}
	return f
}

func (c *Cluster) addAgent(a *mesos.Agent) {
	c.registered(a.ID)
	o := c.agent(a.ID)
	o.epoch = c.epoch
	c.setAgent(o, c.located(a))
}

// dropAgent takes an agent for gone. Its tasks are parked; held ones go.
func (c *Cluster) dropAgent(id string) {
	delete(c.awaited, id)
	c.release(id)
	if a := c.agents[id]; a != nil {
		c.setAgent(a, nil)
	}
}

// located returns a with its addresses.
func (c *Cluster) located(a *mesos.Agent) *Agent {
	return &Agent{Agent: a, Addrs: c.addrs(a.Addr, a.Hostname)}
}

func (c *Cluster) addFramework(f *mesos.Framework) {
	o := c.framework(f.ID)
	o.epoch = c.epoch
	c.setFramework(o, c.scheduled(f))
}

// scheduled returns f with its scheduler's addresses.
func (c *Cluster) scheduled(f *mesos.Framework) *Framework {
	return &Framework{Framework: f, Addrs: c.addrs(mesos.ParseAddr(f.Hostname), f.Hostname)}
}

// addrs returns addr, or else what host resolves to.
func (c *Cluster) addrs(addr netip.Addr, host string) []netip.Addr {
	if addr.IsValid() {
		return []netip.Addr{addr}
	}
	if host == "" {
		return nil
	}
	return c.Resolve(host)
}

func (c *Cluster) setAgent(o *owner[Agent], a *Agent) {
	switch {
	case a == nil && o.now == nil:
	case a != nil && o.now != nil && *a.Agent == *o.now.Agent && slices.Equal(a.Addrs, o.now.Addrs):
		return
	default:
		c.counts.Agents += present(a) - present(o.now)
		o.now = a
		if !o.dirty {
			o.dirty = true
			c.dirtyAgents = append(c.dirtyAgents, o)
		}
		c.touchAll(o.tasks)
	}
	c.forgetAgent(o)
}

func (c *Cluster) setFramework(o *owner[Framework], f *Framework) {
	switch {
	case f == nil && o.now == nil:
	case f != nil && o.now != nil && *f.Framework == *o.now.Framework && slices.Equal(f.Addrs, o.now.Addrs):
		return
	default:
		c.counts.Frameworks += present(f) - present(o.now)
		o.now = f
		if !o.dirty {
			o.dirty = true
			c.dirtyFrameworks = append(c.dirtyFrameworks, o)
		}
		c.touchAll(o.tasks)
	}
	c.forgetFramework(o)
}

func present[T any](p *T) int {
	if p == nil {
		return 0
	}
	return 1
}

func (c *Cluster) forgetAgent(o *owner[Agent]) {
	if o.now == nil && len(o.tasks) == 0 {
		delete(c.agents, o.id)
	}
}

func (c *Cluster) forgetFramework(o *owner[Framework]) {
	if o.now == nil && len(o.tasks) == 0 {
		delete(c.frameworks, o.id)
	}
}

func (o *owner[T]) join(n *taskNode) {
	n.place[o.which] = int32(len(o.tasks))
	o.tasks = append(o.tasks, n)
}

func (o *owner[T]) part(n *taskNode) {
	last := len(o.tasks) - 1
	moved := o.tasks[last]
	o.tasks[n.place[o.which]] = moved
	moved.place[o.which] = n.place[o.which]
	o.tasks[last] = nil
	o.tasks = o.tasks[:last]
}

func (c *Cluster) touch(n *taskNode) {
	if !n.dirty {
		n.dirty = true
		c.dirtyTasks = append(c.dirtyTasks, n)
	}
}

func (c *Cluster) touchAll(tasks []*taskNode) {
	for _, n := range tasks {
		c.touch(n)
	}
}

// HostChanged says that Resolve has another answer for host.
func (c *Cluster) HostChanged(host string) {
	for _, o := range c.agents {
		if o.now != nil && o.now.Hostname == host {
			c.setAgent(o, c.located(o.now.Agent))
		}
	}
	for _, o := range c.frameworks {
		if o.now != nil && o.now.Hostname == host {
			c.setFramework(o, c.scheduled(o.now.Framework))
		}
	}
}

// SetMasters says who the masters are.
func (c *Cluster) SetMasters(m *Masters) {
	if c.masters.New == nil || !c.masters.New.equal(m) {
		c.masters.New = m
	}
}

// instance returns what n stands for now.
func (n *taskNode) instance() Instance {
	if n.task == nil || n.task.State != mesos.TaskRunning || n.agent.now == nil || n.framework.now == nil {
		return Instance{}
	}
	return Instance{Task: n.task, Framework: n.framework.now, Agent: n.agent.now}
}

// Take returns what has changed since the last call.
func (c *Cluster) Take() Changes {
	var ch Changes
	if len(c.dirtyTasks) > 0 {
		ch.Instances = make([]Change[Instance], 0, len(c.dirtyTasks))
	}
	for _, n := range c.dirtyTasks {
		n.dirty = false
		now := n.instance()
		if now != n.taken {
			ch.Instances = append(ch.Instances, Change[Instance]{n.taken, now})
			n.taken = now
		}
	}
	ch.Agents = takeOwners(c.dirtyAgents)
	ch.Frameworks = takeOwners(c.dirtyFrameworks)
	c.dirtyTasks, c.dirtyAgents, c.dirtyFrameworks = nil, nil, nil
	ch.Masters = c.masters
	c.masters.Old = c.masters.New
	return ch
}

func takeOwners[T any](dirty []*owner[T]) []Change[*T] {
	var ch []Change[*T]
	for _, o := range dirty {
		o.dirty = false
		if o.now != o.taken {
			ch = append(ch, Change[*T]{o.taken, o.now})
			o.taken = o.now
		}
	}
	return ch
}

// State returns the running tasks with their agents and frameworks, as a master
// would tell them.
func (c *Cluster) State() *mesos.State {
	s := &mesos.State{Tasks: make([]*mesos.Task, 0, c.tasks.count), Agents: make([]*mesos.Agent, 0, len(c.agents))}
	for _, n := range c.tasks.all {
		if n.instance().Valid() {
			s.Tasks = append(s.Tasks, n.task)
		}
	}
	for _, o := range c.agents {
		if o.now != nil {
			s.Agents = append(s.Agents, o.now.Agent)
		}
	}
	for _, o := range c.frameworks {
		if o.now != nil {
			s.Frameworks = append(s.Frameworks, o.now.Framework)
		}
	}
	return s
}

// All returns the whole cluster as of the last Take, as if all of it were new.
func (c *Cluster) All() Changes {
	ch := Changes{Masters: Change[*Masters]{New: c.masters.Old}}
	for _, n := range c.tasks.all {
		if n.taken.Valid() {
			ch.Instances = append(ch.Instances, Change[Instance]{New: n.taken})
		}
	}
	ch.Agents, ch.Frameworks = allOwners(c.agents), allOwners(c.frameworks)
	return ch
}

func allOwners[T any](owners map[string]*owner[T]) []Change[*T] {
	var ch []Change[*T]
	for _, o := range owners {
		if o.taken != nil {
			ch = append(ch, Change[*T]{New: o.taken})
		}
	}
	return ch
}
