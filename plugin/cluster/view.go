package cluster

import (
	"math"
	"slices"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// View is all that a cluster knows at one moment, whether it is published or not.
type View struct {
	Tasks      []Kept // in no order
	Frameworks []*Framework
	Agents     []*Agent
}

// viewStep is the number of tasks that a step of a Collector takes: that is a fraction of a
// millisecond.
const viewStep = 2000

// Collector makes a View of a cluster in several steps, so that none keeps it busy for long. The
// cluster may change between them. End must be called.
type Collector struct {
	cluster *Cluster
	agents  []*parent[Agent]   // whose tasks are yet to be taken
	tasks   []*taskNode        // of the agent that is being taken
	steps   int                // left until the rest is taken at once
	taken   [][]takenTask      // by each step
	touched map[*taskNode]bool // changed since they were taken
	again   map[*taskNode]Kept // as they are since; the zero Kept for a task that is gone
	view    View
}

type takenTask struct {
	node *taskNode
	Kept
}

// Collect begins a View.
func (c *Cluster) Collect() *Collector {
	v := &Collector{cluster: c, touched: make(map[*taskNode]bool), again: make(map[*taskNode]Kept), agents: make([]*parent[Agent], 0, len(c.agents))}
	v.steps = 2*c.tasks.count/viewStep + 100
	for _, p := range c.agents {
		v.agents = append(v.agents, p)
	}
	if c.collectors == nil {
		c.collectors = make(map[*Collector]bool)
	}
	c.collectors[v] = true
	return v
}

// Step takes some of the cluster, and reports whether that was all. It must not be called again
// then.
func (v *Collector) Step() (done bool) {
	most := viewStep
	if v.steps--; v.steps < 0 { // the cluster changes faster than it is taken
		most = math.MaxInt
	}
	taken := make([]takenTask, 0, viewStep)
	defer func() { v.taken = append(v.taken, taken) }()
	for n := 0; n < most; {
		switch {
		case len(v.tasks) > 0: // what has changed since they were listed is in touched
			some := min(len(v.tasks), most-n)
			for _, node := range v.tasks[:some] {
				taken = append(taken, takenTask{node, node.known(v.cluster.epoch)})
			}
			v.tasks = v.tasks[some:]
			n += some
		case len(v.agents) > 0:
			last := len(v.agents) - 1
			v.tasks, v.agents = slices.Clone(v.agents[last].tasks), v.agents[:last]
			n++
		case len(v.touched) > 0:
			for node := range v.touched {
				v.again[node] = node.known(v.cluster.epoch)
				delete(v.touched, node)
				if n++; n >= most {
					break
				}
			}
		default:
			v.finish()
			return true
		}
	}
	return false
}

// finish takes what is left: there is one moment at which all that was taken is true.
func (v *Collector) finish() {
	for _, p := range v.cluster.agents {
		if p.now != nil {
			v.view.Agents = append(v.view.Agents, p.now)
		}
	}
	for _, p := range v.cluster.frameworks {
		if p.now != nil {
			v.view.Frameworks = append(v.view.Frameworks, p.now)
		}
	}
}

// End has the cluster forget the Collector.
func (v *Collector) End() { delete(v.cluster.collectors, v) }

// View returns what was taken. It must be called after the last step, and may be when the cluster
// changes.
func (v *Collector) View() *View {
	view := &v.view
	all := len(v.again)
	for _, step := range v.taken {
		all += len(step)
	}
	view.Tasks = make([]Kept, 0, all)
	for _, step := range v.taken {
		for _, t := range step {
			if _, changed := v.again[t.node]; !changed {
				view.Tasks = append(view.Tasks, t.Kept)
			}
		}
	}
	for _, k := range v.again {
		if k.Valid() {
			view.Tasks = append(view.Tasks, k)
		}
	}
	return view
}

// known returns a task as it is now, or the zero Kept if it is gone.
func (n *taskNode) known(epoch uint32) Kept {
	if n.packed == "" {
		return Kept{}
	}
	return Kept{n.task(), n.framework.now, n.agent.now, n.epoch != epoch}
}

// Away returns the agents that the leader expects to re-register, at most most of them, and how
// many there are.
func (c *Cluster) Away(most int) (some []*mesos.Agent, all int) {
	for id, r := range c.failover.agents {
		if !r.away() {
			continue
		}
		all++
		if len(some) < most {
			agent := &mesos.Agent{ID: id}
			if p := c.agents[id]; p != nil && p.now != nil {
				agent = p.now.Agent
			}
			some = append(some, agent)
		}
	}
	return some, all
}
