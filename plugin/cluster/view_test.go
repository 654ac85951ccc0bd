package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// TestCollect changes a cluster at random between the steps of a view, and compares the view
// with the cluster as it is at the end.
func TestCollect(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	task := func() *mesos.Task {
		return &mesos.Task{
			ID: fmt.Sprintf("t%d", r.IntN(9000)), FrameworkID: fmt.Sprintf("f%d", r.IntN(3)), AgentID: fmt.Sprintf("S%d", max(r.IntN(80)-30, 0)), // many on one
			Name: "app", State: mesos.TaskState(r.IntN(2)),
		}
	}
	s := &mesos.State{}
	for range 9000 {
		s.Tasks = append(s.Tasks, task().Pack())
	}
	for i := range 40 { // some are unknown
		s.Agents = append(s.Agents, &mesos.Agent{ID: fmt.Sprintf("S%d", i)})
	}
	s.Frameworks = []*mesos.Framework{{ID: "f0"}, {ID: "f1"}}
	c := New(nil)
	c.State(s, Leader{ID: "m"}, time.Now())
	for round := range 3 {
		v, steps := c.Collect(), 0
		for !v.Step() {
			if steps++; steps > 1000 {
				t.Fatal("the view does not end")
			}
			for range []int{20, 20, 300}[round%3] { // 300 are more than a step takes

				next := task()
				switch r.IntN(6) {
				case 0:
					c.Event(mesos.TaskUpdated{TaskID: next.ID, FrameworkID: next.FrameworkID, State: 2}) // it has ended
				case 1:
					c.Event(mesos.TaskUpdated{TaskID: next.ID, FrameworkID: next.FrameworkID, State: mesos.TaskRunning})
				case 2:
					c.Event(mesos.AgentRemoved{AgentID: next.AgentID})
				case 3:
					c.Event(mesos.AgentAdded{Agent: &mesos.Agent{ID: next.AgentID, Port: uint32(r.IntN(2))}})
				default:
					c.Event(mesos.TaskAdded{Task: next})
				}
			}
			c.Flush()
		}
		if steps < 3 {
			t.Fatalf("only %d steps", steps)
		}
		want := make(map[Kept]bool)
		for _, n := range c.tasks.all {
			want[n.known(c.epoch)] = true
		}
		v.End()
		c.Event(mesos.TaskAdded{Task: task()}) // it is not in the view any more
		view := v.View()
		for _, k := range view.Tasks {
			if !want[k] {
				t.Fatalf("not there, or twice: %+v", k.Task)
			}
			delete(want, k)
		}
		if len(want) > 0 {
			t.Fatalf("%d tasks are missing", len(want))
		}
		if len(view.Frameworks) != 2 || len(c.collectors) != 0 {
			t.Errorf("%d frameworks, %d collectors are left", len(view.Frameworks), len(c.collectors))
		}
	}
}

// TestCollect_Retained tells which tasks the present leader has not named.
func TestCollect_Retained(t *testing.T) {
	c := New(nil)
	task := &mesos.Task{ID: "t", FrameworkID: "f", AgentID: "S0", Name: "app", State: mesos.TaskRunning}
	c.State(&mesos.State{Agents: []*mesos.Agent{{ID: "S0"}}, Tasks: pack(task)}, Leader{ID: "m"}, time.Now())
	retained := func() bool {
		v := c.Collect()
		defer v.End()
		if !v.Step() {
			t.Fatal("the view takes two steps")
		}
		return v.View().Tasks[0].Retained
	}
	if retained() {
		t.Error("a task that the leader has named is retained")
	}
	c.State(&mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "S0"}}}, Leader{ID: "n"}, time.Now())
	if !retained() {
		t.Error("a task from before a failover is not retained")
	}
}

// TestAway names the agents that a leader expects to re-register.
func TestAway(t *testing.T) {
	c := New(nil)
	c.State(&mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "S0", Hostname: "rack1"}, {ID: "S1"}, {ID: "S2"}}}, Leader{ID: "m"}, time.Now())
	c.Event(mesos.AgentAdded{Agent: &mesos.Agent{ID: "S1"}})
	some, all := c.Away(1)
	if len(some) != 1 || all != 2 || !slices.Contains([]string{"S0", "S2"}, some[0].ID) {
		t.Errorf("%d of %d: %v", len(some), all, some)
	}
}

// BenchmarkCollect takes a view of 100,000 tasks on 5,000 agents. longest-µs is its longest step.
func BenchmarkCollect(b *testing.B) {
	s := &mesos.State{Frameworks: []*mesos.Framework{{ID: "f"}}}
	for i := range 5000 {
		s.Agents = append(s.Agents, &mesos.Agent{ID: fmt.Sprintf("S%d", i)})
	}
	for i := range 100_000 {
		s.Tasks = append(s.Tasks, pack(&mesos.Task{ID: fmt.Sprintf("t%d", i), FrameworkID: "f", AgentID: fmt.Sprintf("S%d", i%5000), Name: "app", State: mesos.TaskRunning})...)
	}
	c := New(nil)
	c.State(s, Leader{ID: "m"}, time.Now())
	b.ReportAllocs()
	longest := time.Duration(0)
	for b.Loop() {
		var v *Collector
		for done := false; !done; {
			began := time.Now()
			if v == nil {
				v = c.Collect()
			}
			done = v.Step()
			longest = max(longest, time.Since(began))
		}
		v.End()
		v.View()
	}
	b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
}
