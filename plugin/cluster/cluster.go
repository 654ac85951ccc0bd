// Package cluster is the model of a Mesos cluster: which tasks run, with their agents and
// frameworks, as the leading master tells.
//
// The model is told what happens, and decides what it means: a whole state (State) and
// events (Event) of the leader, how leaders come and go (Elected, SteppedDown,
// Disconnected), and what a master lists when it is asked (Listed). In turn Flush returns
// what has changed since the last call, Wants what the model needs to be told, and Complete
// whether a task that is not in it does not run.
//
// A task is published (as an Instance) only while it runs and its agent and framework are
// known, whatever the order in which a master announces them. What a failover makes of
// tasks is in failover.go, and how the model finds what changed without an event in
// reconcile.go.
//
// The package does no I/O and starts no goroutine. One goroutine uses a Cluster; the
// objects that it returns never change, so that others may read them.
package cluster

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// Kept is a known task as it is kept, with its framework and agent.
type Kept struct {
	Task      mesos.PackedTask
	Framework *Framework // nil while unknown
	Agent     *Agent     // nil while unknown
	Retained  bool       // from before a failover: the present leader has not named it
}

// Valid reports whether k is not the zero Kept.
func (k Kept) Valid() bool { return k.Task.Packed != "" }

// Instance returns the task as it would be published if it ran. It unpacks it into a Task, which
// may be used again.
func (k Kept) Instance(into *mesos.Task) Instance {
	k.Task.Unpack(into)
	return Instance{into, k.Framework, k.Agent}
}

// Instance is a running task with its framework and agent.
type Instance struct {
	Task      *mesos.Task
	Framework *Framework
	Agent     *Agent
}

// Agent is a registered agent with its addresses.
type Agent struct {
	*mesos.Agent
	Addrs []netip.Addr // from its pid or hostname, or what its hostname resolves to; may be empty
}

// Framework is a registered or recovered framework with its scheduler's addresses.
type Framework struct {
	*mesos.Framework
	Addrs []netip.Addr // of its hostname; may be empty
}

// Masters are the addresses of the masters.
type Masters struct {
	Leader []netip.Addr   // may be empty
	Port   uint16         // of the leader, 0 if unknown
	All    [][]netip.Addr // of each master, in the order of their numbers
}

func (m *Masters) equal(o *Masters) bool {
	return slices.Equal(m.Leader, o.Leader) && m.Port == o.Port &&
		slices.EqualFunc(m.All, o.All, slices.Equal[[]netip.Addr])
}

// Change is an object at the last Flush, and now.
type Change[T any] struct{ Old, New T }

// Changes are what has changed in a cluster. A new object has no Old, and one that is gone
// has no New.
type Changes struct {
	// Instances yields the changes of running tasks, with framework and agent; nil is none. It reads
	// the cluster, which must not have changed since: a list would take a fifth of all memory.
	Instances  iter.Seq[Change[Kept]]
	Tasks      int // how many changes Instances yields, if they are of Flush
	Frameworks []Change[*Framework]
	Agents     []Change[*Agent]
	Masters    Change[*Masters]
}

// Empty reports whether nothing has changed.
func (c *Changes) Empty() bool {
	return c.Tasks == 0 && len(c.Frameworks) == 0 && len(c.Agents) == 0 && c.Masters.Old == c.Masters.New
}

// Counts are the numbers of objects in a cluster.
type Counts struct {
	Tasks      int // in any state
	Agents     int
	Frameworks int
	Retained   int // tasks kept from before a failover
}

// Wants is what a model needs to be told that no event tells.
type Wants struct {
	Agents bool // a list of the agents, to see whether those that are away are still expected
	State  bool // the whole state, since something that an event named is unknown
}

// taskKey identifies a task: its id is unique within its framework only.
type taskKey struct{ framework, task string }

// tasks are the known tasks.
type tasks struct {
	of    map[string]map[string]*taskNode // by framework id and task id
	count int
}

func (t *tasks) get(k taskKey) *taskNode { return t.of[k.framework][k.task] }

// put stores n under a key, whose task id is a part of n.packed.
func (t *tasks) put(k taskKey, n *taskNode) {
	of := t.of[k.framework]
	if of == nil {
		of = make(map[string]*taskNode)
		t.of[k.framework] = of
	}
	t.count -= len(of)
	delete(of, k.task) // the old key would keep the old n.packed in memory
	of[k.task] = n
	t.count += len(of)
}

func (t *tasks) remove(k taskKey) {
	t.count--
	delete(t.of[k.framework], k.task)
	if len(t.of[k.framework]) == 0 {
		delete(t.of, k.framework)
	}
}

// all yields every task. The loop may remove the task that it is given.
func (t *tasks) all(yield func(taskKey, *taskNode) bool) {
	for framework, of := range t.of {
		for id, n := range of {
			if !yield(taskKey{framework, id}, n) {
				return
			}
		}
	}
}

// taskNode is a known task with its place in the lists of its parents.
type taskNode struct {
	packed    mesos.Packed // "" once it is removed
	agent     *parent[Agent]
	framework *parent[Framework]
	place     [2]int32 // index in agent.tasks and framework.tasks
	epoch     uint32   // of the last state or event that named the task
	dirty     bool     // in Cluster.dirtyTasks
}

// dirtyTask is a task that has changed since the last Flush.
type dirtyTask struct {
	*taskNode
	before *Kept // what was published then; nil for nothing
}

// change returns the task as it was published, and as it is now.
func (d dirtyTask) change() Change[Kept] {
	ch := Change[Kept]{New: d.instance()}
	if d.before != nil {
		ch.Old = *d.before
	}
	return ch
}

// parent is an agent or a framework. It may be unknown, as tasks are announced before their
// parents and may outlive them.
type parent[T any] struct {
	id        string
	now       *T // nil while unknown
	published *T // at the last Flush
	tasks     []*taskNode
	place     int // index in taskNode.place
	epoch     uint32
	dirty     bool // in Cluster.dirtyAgents or dirtyFrameworks
}

// Cluster is the model.
type Cluster struct {
	hosts Hosts

	tasks      tasks
	agents     map[string]*parent[Agent]
	frameworks map[string]*parent[Framework]
	masters    Change[*Masters]

	// epoch counts whole states. What has an earlier one is retained: the present leader
	// has not named it.
	epoch    uint32
	failover failover
	reconciliation

	agentCount, frameworkCount, retainedTasks int
	deadline                                  time.Time // when Expire has something to do; zero if never

	dirtyTasks      []dirtyTask
	dirtyAgents     []*parent[Agent]
	dirtyFrameworks []*parent[Framework]

	collectors map[*Collector]bool // under way
}

// Hosts returns the addresses of hostnames as far as they are known, without waiting.
// HostChanged must be called when they change.
type Hosts interface {
	Addrs(host string) []netip.Addr       // of an agent
	TenantAddrs(host string) []netip.Addr // of a framework's scheduler
}

// New returns an empty cluster. hosts may be nil.
func New(hosts Hosts) *Cluster {
	return &Cluster{
		hosts:          hosts,
		tasks:          tasks{of: make(map[string]map[string]*taskNode)},
		agents:         make(map[string]*parent[Agent]),
		frameworks:     make(map[string]*parent[Framework]),
		failover:       failover{agents: make(map[string]returning)},
		reconciliation: reconciliation{unknown: make(map[reference]time.Time)},
	}
}

// Counts returns the numbers of objects.
func (c *Cluster) Counts() Counts {
	return Counts{Tasks: c.tasks.count, Agents: c.agentCount, Frameworks: c.frameworkCount, Retained: c.retainedTasks}
}

// Known reports whether there is anything to publish: a state or a snapshot.
func (c *Cluster) Known() bool { return c.epoch > 0 }

// Stale reports whether all that is known comes from a snapshot.
func (c *Cluster) Stale() bool { return c.failover.stale }

// Complete reports whether a task that is not known does not run: a master has told its
// state, and every agent its tasks.
func (c *Cluster) Complete() bool { return !c.failover.stale && c.failover.unsettled == 0 }

// Wants returns what the model needs to be told.
func (c *Cluster) Wants() Wants {
	return Wants{Agents: c.emptySeen || c.failover.away > 0, State: c.wantsState}
}

// Deadline returns when Expire must be called next, or the zero time.
func (c *Cluster) Deadline() time.Time { return c.deadline }

// wakeAt brings the deadline forward to at, unless that is zero.
func (c *Cluster) wakeAt(at time.Time) {
	if !at.IsZero() && (c.deadline.IsZero() || at.Before(c.deadline)) {
		c.deadline = at
	}
}

// Expire ends what has lasted long enough: the retention of agents and tasks, and the wait
// for announcements.
func (c *Cluster) Expire() {
	now := time.Now()
	if c.deadline.IsZero() || c.deadline.After(now) {
		return
	}
	c.deadline = time.Time{}
	c.expireAgents(now)
	c.expireUnknown(now)
}

// Event takes in an event of the leader's stream other than SUBSCRIBED, whose state is for
// State.
func (c *Cluster) Event(ev mesos.Event) {
	c.touch(ev)
	switch ev := ev.(type) {
	case mesos.TaskAdded:
		c.addTask(ev.Task.Pack())
		if ev.Task.State != mesos.TaskStaging { // a launch: the task did not run before
			c.announces(ev.Task.AgentID)
		}
		c.referToParents(ev.Task)
		c.dropUnnamed(ev.Task.FrameworkID)
	case mesos.TaskUpdated:
		c.updateTask(ev)
		c.dropUnnamed(ev.FrameworkID)
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
	n := c.tasks.get(taskKey{u.FrameworkID, u.TaskID})
	if n == nil {
		c.referToTask(u)
		return
	}
	agent := n.agent.id
	c.setTask(n, n.task().Updated(u))
	if u.State.AgentGone() {
		c.touchAgent(agent)
		c.dropAgent(agent)
	}
}

func (c *Cluster) addTask(t mesos.PackedTask) {
	n := c.tasks.get(taskKey{t.FrameworkID, t.ID()})
	if n == nil {
		n = &taskNode{epoch: c.epoch}
	} else {
		c.announced(n)
		n.epoch = c.epoch
		before := n.task()
		if t = t.KeepNetworks(before); t == before {
			return
		}
	}
	c.setTask(n, t)
}

// setTask stores t in n, and n in the lists of its agent and framework. It removes a task that has
// ended.
func (c *Cluster) setTask(n *taskNode, t mesos.PackedTask) {
	c.markTask(n)
	n.packed = t.Packed
	c.tasks.put(taskKey{t.FrameworkID, t.ID()}, n)
	if n.framework == nil {
		n.framework = c.framework(t.FrameworkID)
		n.framework.add(n)
	}
	if before := n.agent; before == nil || before.id != t.AgentID {
		if before != nil {
			before.remove(n)
		}
		n.agent = c.agent(t.AgentID)
		n.agent.add(n)
		if before != nil {
			forget(c.agents, before)
		}
	}
	if t.State().Terminal() {
		c.removeTask(n)
	}
}

// removeTask forgets a task. It stays among the dirty ones, for Flush.
func (c *Cluster) removeTask(n *taskNode) {
	c.markTask(n)
	c.tasks.remove(taskKey{n.framework.id, n.packed.ID()})
	c.announced(n)
	n.agent.remove(n)
	forget(c.agents, n.agent)
	n.framework.remove(n)
	forget(c.frameworks, n.framework)
	n.agent, n.framework, n.packed = nil, nil, ""
}

func (c *Cluster) agent(id string) *parent[Agent] { return named(c.agents, id, 0) }

func (c *Cluster) framework(id string) *parent[Framework] { return named(c.frameworks, id, 1) }

// named returns the parent with an id, which may be unknown.
func named[T any](all map[string]*parent[T], id string, place int) *parent[T] {
	if all[id] == nil {
		all[id] = &parent[T]{id: id, place: place}
	}
	return all[id]
}

func (c *Cluster) addAgent(a *mesos.Agent) {
	c.registered(a.ID)
	c.supersede(a)
	p := c.agent(a.ID)
	p.epoch = c.epoch
	c.setAgent(p, c.withAgentAddrs(a))
}

// dropAgent removes an agent. Its tasks stay, unpublished, for the case that it returns;
// those that the leader has not announced are removed, too.
func (c *Cluster) dropAgent(id string) {
	c.release(id)
	if a := c.agents[id]; a != nil {
		c.setAgent(a, nil)
	}
}

func (c *Cluster) withAgentAddrs(a *mesos.Agent) *Agent {
	agent := &Agent{Agent: a}
	switch {
	case a.Addr.IsValid():
		agent.Addrs = []netip.Addr{a.Addr}
	case c.hosts != nil && a.Hostname != "":
		agent.Addrs = c.hosts.Addrs(a.Hostname)
	}
	return agent
}

func (c *Cluster) addFramework(f *mesos.Framework) {
	p := c.framework(f.ID)
	p.epoch = c.epoch
	c.setFramework(p, c.withSchedulerAddrs(f))
}

func (c *Cluster) withSchedulerAddrs(f *mesos.Framework) *Framework {
	framework := &Framework{Framework: f}
	switch addr := mesos.ParseAddr(f.Hostname); {
	case addr.IsValid():
		framework.Addrs = []netip.Addr{addr}
	case c.hosts != nil && f.Hostname != "":
		framework.Addrs = c.hosts.TenantAddrs(f.Hostname)
	}
	return framework
}

func (c *Cluster) setAgent(p *parent[Agent], a *Agent) {
	switch {
	case a == nil && p.now == nil:
	case a != nil && p.now != nil && *a.Agent == *p.now.Agent && slices.Equal(a.Addrs, p.now.Addrs):
		return
	default:
		c.markTasks(p.tasks)
		c.agentCount += present(a) - present(p.now)
		p.now = a
		if !p.dirty {
			p.dirty = true
			c.dirtyAgents = append(c.dirtyAgents, p)
		}
	}
	forget(c.agents, p)
}

func (c *Cluster) setFramework(p *parent[Framework], f *Framework) {
	switch {
	case f == nil && p.now == nil:
	case f != nil && p.now != nil && *f.Framework == *p.now.Framework && slices.Equal(f.Addrs, p.now.Addrs):
		return
	default:
		c.markTasks(p.tasks)
		c.frameworkCount += present(f) - present(p.now)
		p.now = f
		if !p.dirty {
			p.dirty = true
			c.dirtyFrameworks = append(c.dirtyFrameworks, p)
		}
	}
	forget(c.frameworks, p)
}

func present[T any](p *T) int {
	if p == nil {
		return 0
	}
	return 1
}

// forget forgets an unknown parent that no task names.
func forget[T any](all map[string]*parent[T], p *parent[T]) {
	if p.now == nil && len(p.tasks) == 0 {
		delete(all, p.id)
	}
}

func (p *parent[T]) add(n *taskNode) {
	n.place[p.place] = int32(len(p.tasks))
	p.tasks = append(p.tasks, n)
}

func (p *parent[T]) remove(n *taskNode) {
	last := len(p.tasks) - 1
	moved := p.tasks[last]
	p.tasks[n.place[p.place]] = moved
	moved.place[p.place] = n.place[p.place]
	p.tasks[last] = nil
	p.tasks = p.tasks[:last]
}

// markTask notes that n will change. It must be called before.
func (c *Cluster) markTask(n *taskNode) {
	for v := range c.collectors {
		v.touched[n] = true
	}
	if !n.dirty {
		d := dirtyTask{n, nil}
		if before := n.instance(); before.Valid() {
			d.before = &before
		}
		c.dirtyTasks = append(c.dirtyTasks, d)
		n.dirty = true
	}
}

func (c *Cluster) markTasks(tasks []*taskNode) {
	for _, n := range tasks {
		c.markTask(n)
	}
}

// HostChanged tells the model that the addresses of a hostname have changed.
func (c *Cluster) HostChanged(host string) {
	for _, p := range c.agents {
		if p.now != nil && p.now.Hostname == host {
			c.setAgent(p, c.withAgentAddrs(p.now.Agent))
		}
	}
	for _, p := range c.frameworks {
		if p.now != nil && p.now.Hostname == host {
			c.setFramework(p, c.withSchedulerAddrs(p.now.Framework))
		}
	}
}

// SetMasters sets the addresses of the masters.
func (c *Cluster) SetMasters(m *Masters) {
	if c.masters.New == nil || !c.masters.New.equal(m) {
		c.masters.New = m
	}
}

// task returns n as a master has described it.
func (n *taskNode) task() mesos.PackedTask {
	return mesos.PackedTask{FrameworkID: n.framework.id, AgentID: n.agent.id, Packed: n.packed}
}

// instance returns what n publishes now, or the zero Kept.
func (n *taskNode) instance() Kept {
	if n.packed == "" || n.packed.State() != mesos.TaskRunning || n.agent.now == nil || n.framework.now == nil {
		return Kept{}
	}
	return Kept{Task: n.task(), Framework: n.framework.now, Agent: n.agent.now}
}

// Flush returns what has changed since the last call.
func (c *Cluster) Flush() Changes {
	var ch Changes
	changed := slices.DeleteFunc(c.dirtyTasks, func(d dirtyTask) bool {
		d.dirty = false
		change := d.change()
		return change.Old == change.New
	})
	ch.Tasks = len(changed)
	ch.Instances = func(yield func(Change[Kept]) bool) {
		for _, d := range changed {
			if !yield(d.change()) {
				return
			}
		}
	}
	ch.Agents = flush(c.dirtyAgents)
	ch.Frameworks = flush(c.dirtyFrameworks)
	c.dirtyTasks, c.dirtyAgents, c.dirtyFrameworks = nil, nil, nil
	ch.Masters = c.masters
	c.masters.Old = c.masters.New
	return ch
}

func flush[T any](dirty []*parent[T]) []Change[*T] {
	var ch []Change[*T]
	for _, p := range dirty {
		p.dirty = false
		if p.now != p.published {
			ch = append(ch, Change[*T]{p.published, p.now})
			p.published = p.now
		}
	}
	return ch
}

// Full returns the whole cluster, as if all of it were new. It must follow a Flush.
func (c *Cluster) Full() Changes {
	ch := Changes{Masters: Change[*Masters]{New: c.masters.Old}}
	ch.Instances = func(yield func(Change[Kept]) bool) {
		for _, n := range c.tasks.all {
			if now := n.instance(); now.Valid() && !yield(Change[Kept]{New: now}) {
				return
			}
		}
	}
	ch.Agents, ch.Frameworks = full(c.agents), full(c.frameworks)
	return ch
}

func full[T any](parents map[string]*parent[T]) []Change[*T] {
	var ch []Change[*T]
	for _, p := range parents {
		if p.published != nil {
			ch = append(ch, Change[*T]{New: p.published})
		}
	}
	return ch
}

// Snapshot returns the running tasks, agents and frameworks in the form of a master's state,
// for LoadSnapshot.
func (c *Cluster) Snapshot() *mesos.State {
	s := &mesos.State{Tasks: make([]mesos.PackedTask, 0, c.tasks.count), Agents: make([]*mesos.Agent, 0, len(c.agents))}
	for _, n := range c.tasks.all {
		if n.instance().Valid() {
			s.Tasks = append(s.Tasks, n.task())
		}
	}
	for _, p := range c.agents {
		if p.now != nil {
			s.Agents = append(s.Agents, p.now.Agent)
		}
	}
	for _, p := range c.frameworks {
		if p.now != nil {
			s.Frameworks = append(s.Frameworks, p.now.Framework)
		}
	}
	return s
}
