package cluster

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// recoveredState is a new leader's first state: it lists the fixture's agent.
var recoveredState = mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "s"}}}}

// TestHold fails a cluster over that runs the tasks a and b, and looks at what
// is published after each step.
func TestHold(t *testing.T) {
	const both = "a of marathon on 10.0.0.1; b of marathon on 10.0.0.1"
	const a = "a of marathon on 10.0.0.1"
	type step struct {
		event mesos.Event
		after time.Duration // let pass first
		want  string
	}
	back := mesos.AgentAdded{Agent: agent.Agent}
	for name, steps := range map[string][]step{
		"tasks, then the agent": {
			{recoveredState, 0, both}, {added("a", 1), time.Minute, both}, {added("b", 1), 0, both}, {back, 0, both}, {framework, 0, both}, {nil, time.Minute, both},
		},
		"the agent, then tasks": {
			{recoveredState, 0, both}, {back, time.Hour, both}, {added("a", 1), 9 * time.Second, both}, {framework, 0, both}, {nil, time.Second, a},
		},
		"a task ends meanwhile": {{recoveredState, 0, both}, {updated("b", 4), time.Second, a}, {back, 0, a}, {framework, 0, a}, {nil, HoldTime, ""}},
		"the agent is removed":  {{recoveredState, 0, both}, {mesos.AgentRemoved{AgentID: "s"}, time.Minute, ""}},
		"denied outright":       {{subscribed(task("a", 1)), 0, a}},
		"the agent is another":  {{mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "other"}}}}, 0, ""}},
		"two failovers": {
			{recoveredState, 0, both}, {back, 0, both}, {recoveredState, 5 * time.Second, both}, {nil, time.Minute, both},
			{subscribed(task("a", 1)), 0, a},
		},
		"a state of nothing, that fills": {
			{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {added("a", 1), 4 * time.Second, both}, {back, 4 * time.Second, both},
			{framework, 0, both}, {added("b", 1), 9 * time.Second, both}, {nil, time.Minute, both},
		},
		"a state of nothing, that stays": {{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {nil, 9 * time.Second, both}, {nil, time.Second, ""}},
		"a state of nothing, then another's": {
			{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{{ID: "other"}}}}, 4 * time.Second, both},
			{nil, 5 * time.Second, both}, {nil, time.Second, ""},
		},
		"states of nothing in a row": {
			{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {mesos.Subscribed{State: &mesos.State{}}, 6 * time.Second, both},
			{mesos.Subscribed{State: &mesos.State{}}, 6 * time.Second, ""}, {mesos.Subscribed{State: &mesos.State{}}, 6 * time.Second, ""},
		},
		"nothing once, recovered, nothing again": {
			{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {subscribed(task("a", 1), task("b", 1)), time.Second, both}, {recoveredState, time.Hour, both},
			{mesos.Subscribed{State: &mesos.State{}}, time.Second, both}, {nil, 9 * time.Second, both}, {nil, time.Second, ""},
		},
		"two failovers with nothing": {
			{mesos.Subscribed{State: &mesos.State{}}, 0, both}, {back, time.Second, both}, {framework, 0, both}, {added("a", 1), 0, both}, {added("b", 1), 0, both},
			{mesos.Subscribed{State: &mesos.State{}}, time.Hour, both}, {nil, 9 * time.Second, both}, {nil, time.Second, ""},
		},
		"no framework returns": {
			{recoveredState, 0, both}, {back, 0, both}, {added("a", 1), 0, both}, {nil, HoldTime, a},
		},
		"the framework is renamed": {
			{recoveredState, 0, both}, {mesos.FrameworkAdded{Framework: &mesos.Framework{ID: "f", Name: "new"}}, 0, "a of new on 10.0.0.1; b of new on 10.0.0.1"},
		},
		"the framework is removed": {{recoveredState, 0, both}, {mesos.FrameworkRemoved{FrameworkID: "f"}, 0, ""}},
		"the agent is unreachable": {{recoveredState, 0, both}, {updated("a", 10), 0, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				c.Apply(subscribed(task("a", 1), task("b", 1)))
				v := view{}
				v.follow(t, c.Take())
				for i, s := range steps {
					time.Sleep(s.after)
					c.Expire()
					if s.event != nil {
						c.Apply(s.event)
					}
					v.follow(t, c.Take())
					if v.String() != s.want {
						t.Fatalf("step %d: %q, want %q", i, v, s.want)
					}
					if !c.Complete() && name != "the agent is another" {
						t.Errorf("step %d: not complete", i)
					}
					if held := c.Counts().Held; held < 0 || held > 2 {
						t.Errorf("step %d: %d tasks are held", i, held)
					}
				}
				time.Sleep(time.Hour)
				c.Expire()
				if n := c.Counts().Held; len(c.held) == 0 && n != 0 {
					t.Errorf("%d tasks count as held, none is", n)
				}
				if at := c.Deadline(); !at.IsZero() {
					t.Errorf("a deadline of %v is left", at)
				}
			})
		})
	}
}

// TestStateOfNothing gets a state without agents while agents are awaited, and
// while a framework has no tasks.
func TestStateOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := mesos.Subscribed{State: &mesos.State{}}
		c := New(nil)
		c.Apply(recoveredState)
		c.Apply(nothing)
		if c.Complete() {
			t.Error("complete while an unknown agent is awaited")
		}
		time.Sleep(4 * time.Second)
		c.Apply(mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{{ID: "other"}}}})
		if c.Complete() {
			t.Error("complete while it has time to come back")
		}
		time.Sleep(HoldTime)
		c.Expire()
		if !c.Complete() {
			t.Error("an unknown agent is awaited that no master knows")
		}
		c.Apply(mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "third"}}}})
		c.Apply(nothing)
		if c.Complete() {
			t.Error("complete at once, hours after another state of nothing")
		}
		c = New(nil)
		c.Apply(subscribed())
		c.Apply(nothing)
		if n := c.Counts(); n.Frameworks != 1 || n.Agents != 1 {
			t.Errorf("at once: %+v", n)
		}
		time.Sleep(HoldTime)
		c.Expire()
		if n := c.Counts(); n.Frameworks != 0 || n.Agents != 0 {
			t.Errorf("in the end: %+v", n)
		}
	})
}

// TestSucceed takes in the state of another leader, or of the same one, that lacks the
// fixture's agent.
func TestSucceed(t *testing.T) {
	const other, all = "c of marathon on 10.0.0.2", "a of marathon on 10.0.0.1; c of marathon on 10.0.0.2"
	second := &mesos.Agent{ID: "s2", Addr: netip.MustParseAddr("10.0.0.2"), Port: 5051}
	c2 := task("c", 1)
	c2.AgentID = "s2"
	ended := task("d", 1) // on an agent that is never lacking
	ended.AgentID = "s2"
	both := subscribed(task("a", 1), c2)
	both.State.Agents = append(both.State.Agents, second)
	both.State.Frameworks = append(both.State.Frameworks, &mesos.Framework{ID: "idle", Name: "idle"})
	fewer := mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{second}, Frameworks: both.State.Frameworks[:1], Tasks: []*mesos.Task{c2}}}
	recovered := mesos.Subscribed{State: &mesos.State{RecoveredAgents: both.State.Agents}}
	listing := mesos.Subscribed{State: &mesos.State{Agents: fewer.State.Agents, Frameworks: fewer.State.Frameworks, Tasks: fewer.State.Tasks, RecoveredAgents: []*mesos.Agent{{ID: "s3"}}}}
	for name, tc := range map[string]struct {
		prepare     func(c *Cluster)
		state       mesos.Event
		then        []mesos.Event // after four seconds
		first, last string
		sure        bool // names may be denied at first
	}{
		"the same leader":            {func(*Cluster) {}, fewer, nil, other, other, true},
		"another leader":             {(*Cluster).Succeed, fewer, nil, all, other, true},
		"it lists recovered agents":  {(*Cluster).Succeed, listing, nil, other, other, false},
		"the agent comes back":       {(*Cluster).Succeed, fewer, []mesos.Event{added("a", 1), mesos.AgentAdded{Agent: agent.Agent}}, all, all, true},
		"it comes without the task":  {(*Cluster).Succeed, fewer, []mesos.Event{mesos.AgentAdded{Agent: agent.Agent}}, all, other, true},
		"events were missed as well": {func(c *Cluster) { c.Succeed(); c.Outdate() }, fewer, nil, all, other, false},
		"all were awaited":           {func(c *Cluster) { c.Outdate(); c.Apply(recovered); c.Succeed() }, both, nil, all, all, true},
		"its state comes again":      {(*Cluster).Succeed, fewer, []mesos.Event{fewer}, all, other, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, v := New(nil), view{}
				c.Apply(both)
				c.Apply(mesos.TaskAdded{Task: ended})
				tc.prepare(c)
				c.Apply(tc.state)
				v.follow(t, c.Take())
				if v.String() != tc.first || c.Complete() != tc.sure {
					t.Errorf("at first %q, complete: %v", v, c.Complete())
				}
				if n := c.Counts().Frameworks; (n == 2) != (tc.first == all) {
					t.Errorf("%d frameworks at first", n)
				}
				time.Sleep(4 * time.Second)
				for _, ev := range tc.then {
					c.Apply(ev)
				}
				v.follow(t, c.Take())
				if v.String() != tc.first {
					t.Errorf("after four seconds %q", v)
				}
				time.Sleep(HoldTime)
				c.Expire()
				v.follow(t, c.Take())
				if v.String() != tc.last || c.Counts().Held != 0 {
					t.Errorf("in the end %q, %d held", v, c.Counts().Held)
				}
				c.Apply(both)
				c.Apply(fewer)
				v.follow(t, c.Take())
				if v.String() != other {
					t.Errorf("of the same leader %q", v)
				}
			})
		})
	}
}
