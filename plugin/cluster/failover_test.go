package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// recoveredState is a new leader's first state: it lists the fixture's agent.
var recoveredState = mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "s"}}}}

// TestFailover runs the tasks a and b, fails over, and looks at what is published after each
// step.
func TestFailover(t *testing.T) {
	const both = "a of marathon on 10.0.0.1; b of marathon on 10.0.0.1"
	const a = "a of marathon on 10.0.0.1"
	type step struct {
		event mesos.Event
		after time.Duration // let pass first
		want  string
	}
	back := mesos.AgentAdded{Agent: agent.Agent}
	at := func(id, addr string, port uint32) mesos.AgentAdded {
		return mesos.AgentAdded{Agent: &mesos.Agent{ID: id, Addr: netip.MustParseAddr(addr), Port: port}}
	}
	for name, steps := range map[string][]step{
		"tasks, then the agent": {
			{recoveredState, 0, both}, {added("a", 1), time.Minute, both}, {added("b", 1), 0, both}, {back, 0, both}, {framework, 0, both}, {nil, time.Minute, both},
		},
		"the agent, then tasks": {
			{recoveredState, 0, both}, {back, time.Hour, both}, {added("a", 1), time.Second, both}, {framework, 0, both},
			{nil, announceGrace - time.Millisecond, both}, {nil, time.Millisecond, a},
		},
		"launched on meanwhile": {
			{recoveredState, 0, both}, {back, 0, both}, {added("a", 1), time.Second, both},
			{mesos.TaskAdded{Task: &mesos.Task{ID: "new", FrameworkID: "f", AgentID: "s", Name: "new", State: mesos.TaskStaging}}, time.Second, both},
			{nil, time.Second - time.Millisecond, both}, {nil, time.Millisecond, a},
		},
		"announcing all the time": {
			{recoveredState, 0, both}, {back, 0, both}, {added("a", 1), time.Second, both}, {added("a", 1), 1900 * time.Millisecond, both},
			{added("a", 1), 1900 * time.Millisecond, both}, {added("a", 1), 1900 * time.Millisecond, both}, {added("a", 1), 1900 * time.Millisecond, both},
			{added("a", 1), reregisterGrace - 8601*time.Millisecond, both}, {nil, time.Millisecond, a},
		},
		"it is started again, with another id": {
			{recoveredState, 0, both}, {at("other", "10.0.0.2", 5051), 0, both}, {at("other", "10.0.0.1", 5052), 0, both}, {at("other", "10.0.0.1", 5051), 0, ""},
		},
		"and the state says so": {
			{mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{at("other", "10.0.0.1", 5051).Agent}, RecoveredAgents: recoveredState.State.RecoveredAgents}}, 0, ""},
		},
		"a task ends meanwhile": {{recoveredState, 0, both}, {updated("b", 4), time.Second, a}, {back, 0, a}, {framework, 0, a}, {nil, reregisterGrace, ""}},
		"the agent is removed":  {{recoveredState, 0, both}, {mesos.AgentRemoved{AgentID: "s"}, time.Minute, ""}},
		"denied outright":       {{subscribed(task("a", 1)), 0, a}},
		"the agent is another":  {{mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "other"}}}}, 0, ""}},
		"two failovers": {
			{recoveredState, 0, both}, {back, 0, both}, {recoveredState, time.Second, both}, {nil, time.Minute, both},
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
			{recoveredState, 0, both}, {back, 0, both}, {added("a", 1), 0, both}, {nil, reregisterGrace, a},
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
				apply(c, subscribed(task("a", 1), task("b", 1)))
				v := view{}
				v.follow(t, c.Flush())
				for i, s := range steps {
					time.Sleep(s.after)
					c.Expire()
					if s.event != nil {
						apply(c, s.event)
					}
					v.follow(t, c.Flush())
					if v.String() != s.want {
						t.Fatalf("step %d: %q, want %q", i, v, s.want)
					}
					if !c.Complete() && name != "the agent is another" {
						t.Errorf("step %d: not complete", i)
					}
					if held := c.Counts().Retained; held < 0 || held > 2 {
						t.Errorf("step %d: %d tasks are retained", i, held)
					}
				}
				time.Sleep(time.Hour)
				c.Expire()
				if n := c.Counts().Retained; len(c.failover.agents) == 0 && n != 0 {
					t.Errorf("%d tasks count as retained, none is", n)
				}
				if at := c.Deadline(); !at.IsZero() {
					t.Errorf("a deadline of %v is left", at)
				}
			})
		})
	}
}

// TestFailover_EmptyState tells a state without agents while agents are awaited, and while
// a framework has no tasks.
func TestFailover_EmptyState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nothing := mesos.Subscribed{State: &mesos.State{}}
		c := New(nil)
		apply(c, recoveredState)
		apply(c, nothing)
		if c.Complete() {
			t.Error("complete while an unknown agent is awaited")
		}
		time.Sleep(4 * time.Second)
		apply(c, mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{{ID: "other"}}}})
		if c.Complete() {
			t.Error("complete while it has time to come back")
		}
		time.Sleep(reregisterGrace)
		c.Expire()
		if !c.Complete() {
			t.Error("an unknown agent is awaited that no master knows")
		}
		apply(c, mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "third"}}}})
		apply(c, nothing)
		if c.Complete() {
			t.Error("complete at once, hours after another state of nothing")
		}
		c = New(nil)
		apply(c, subscribed())
		apply(c, nothing)
		if n := c.Counts(); n.Frameworks != 1 || n.Agents != 1 {
			t.Errorf("at once: %+v", n)
		}
		time.Sleep(reregisterGrace)
		c.Expire()
		if n := c.Counts(); n.Frameworks != 0 || n.Agents != 0 {
			t.Errorf("in the end: %+v", n)
		}
	})
}

// TestFailover_NoRegistry takes in the state of another leader, or of the same one, that
// lacks the fixture's agent and lists no agents as recovered.
func TestFailover_NoRegistry(t *testing.T) {
	const other, all = "c of marathon on 10.0.0.2", "a of marathon on 10.0.0.1; c of marathon on 10.0.0.2"
	second := &mesos.Agent{ID: "s2", Addr: netip.MustParseAddr("10.0.0.2"), Port: 5051}
	c2 := task("c", 1)
	c2.AgentID = "s2"
	ended := task("d", 1) // on an agent that is never lacking
	ended.AgentID = "s2"
	both := subscribed(task("a", 1), c2)
	both.State.Agents = append(both.State.Agents, second)
	both.State.Frameworks = append(both.State.Frameworks, &mesos.Framework{ID: "idle", Name: "idle"})
	fewer := mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{second}, Frameworks: both.State.Frameworks[:1], Tasks: pack(c2)}}
	recovered := mesos.Subscribed{State: &mesos.State{RecoveredAgents: both.State.Agents}}
	listing := mesos.Subscribed{State: &mesos.State{Agents: fewer.State.Agents, Frameworks: fewer.State.Frameworks, Tasks: fewer.State.Tasks, RecoveredAgents: []*mesos.Agent{{ID: "s3"}}}}
	miss := func(c *Cluster) { c.Elected([]mesos.MasterID{"third"}, time.Now()) }
	for name, tc := range map[string]struct {
		prepare     func(c *Cluster)
		leader      mesos.MasterID
		state       mesos.Subscribed
		then        []mesos.Event // after four seconds
		first, last string
		sure        bool // names may be denied at first
	}{
		"the same leader":            {nil, "leader", fewer, nil, other, other, true},
		"another leader":             {nil, "second", fewer, nil, all, other, true},
		"it lists recovered agents":  {nil, "second", listing, nil, other, other, false},
		"the agent comes back":       {nil, "second", fewer, []mesos.Event{added("a", 1), mesos.AgentAdded{Agent: agent.Agent}}, all, all, true},
		"it comes without the task":  {nil, "second", fewer, []mesos.Event{mesos.AgentAdded{Agent: agent.Agent}}, all, other, true},
		"events were missed as well": {miss, "second", fewer, nil, all, other, false},
		"all were awaited":           {func(c *Cluster) { miss(c); c.State(recovered.State, Leader{ID: "second", Certain: true}, time.Now()) }, "fourth", both, nil, all, all, true},
		"its state comes again":      {nil, "second", fewer, []mesos.Event{fewer}, all, other, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, v := New(nil), view{}
				tell := func(s mesos.Subscribed, leader mesos.MasterID) {
					c.State(s.State, Leader{ID: leader, Certain: true}, time.Now())
				}
				tell(both, "leader")
				apply(c, mesos.TaskAdded{Task: ended})
				if tc.prepare != nil {
					tc.prepare(c)
				}
				tell(tc.state, tc.leader)
				v.follow(t, c.Flush())
				if v.String() != tc.first || c.Complete() != tc.sure {
					t.Errorf("at first %q, complete: %v", v, c.Complete())
				}
				if n := c.Counts().Frameworks; (n == 2) != (tc.first == all) {
					t.Errorf("%d frameworks at first", n)
				}
				time.Sleep(4 * time.Second)
				for _, ev := range tc.then {
					if s, ok := ev.(mesos.Subscribed); ok {
						tell(s, tc.leader)
						continue
					}
					c.Event(ev)
				}
				v.follow(t, c.Flush())
				if v.String() != tc.first {
					t.Errorf("after four seconds %q", v)
				}
				time.Sleep(reregisterGrace)
				c.Expire()
				v.follow(t, c.Flush())
				if v.String() != tc.last || c.Counts().Retained != 0 {
					t.Errorf("in the end %q, %d retained", v, c.Counts().Retained)
				}
				tell(both, tc.leader)
				tell(fewer, tc.leader)
				v.follow(t, c.Flush())
				if v.String() != other {
					t.Errorf("of the same leader %q", v)
				}
			})
		})
	}
}

// TestFailover_AgentNeverReturns looks at the agent itself: its own records, too, must stay
// until its time is over, and then go.
func TestFailover_AgentNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		apply(c, subscribed(task("a", 1)))
		c.State(&mesos.State{Agents: []*mesos.Agent{{ID: "other"}}}, Leader{ID: "second", Certain: true}, time.Now())
		for _, step := range []struct {
			after  time.Duration
			agents int
		}{{0, 2}, {reregisterGrace - time.Second, 2}, {time.Second, 1}} {
			time.Sleep(step.after)
			c.Expire()
			if n := c.Counts().Agents; n != step.agents {
				t.Errorf("%d agents after %v more, want %d", n, step.after, step.agents)
			}
		}
	})
}

// TestFailover_AgentReturns must keep an agent that has re-registered, when its time to
// announce tasks is over.
func TestFailover_AgentReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		apply(c, subscribed(task("a", 1)))
		apply(c, recoveredState)
		apply(c, agent)
		time.Sleep(reregisterGrace)
		c.Expire()
		if n := c.Counts(); n.Agents != 1 || n.Tasks != 0 {
			t.Errorf("%+v", n)
		}
	})
}

// TestFailover_NothingRetained has a leader without a registry name all agents: frameworks
// that it does not name are gone at once.
func TestFailover_NothingRetained(t *testing.T) {
	c := New(nil)
	s := subscribed()
	s.State.Frameworks = append(s.State.Frameworks, &mesos.Framework{ID: "idle", Name: "idle"})
	apply(c, s)
	c.State(subscribed().State, Leader{ID: "second", Certain: true}, time.Now())
	if n := c.Counts().Frameworks; n != 1 {
		t.Errorf("%d frameworks", n)
	}
}

// TestFailover_FrameworkIsNeverNamed fails over to a leader that never names the framework
// of a task that still runs: the framework goes with its last task.
func TestFailover_FrameworkIsNeverNamed(t *testing.T) {
	for name, state := range map[string]*mesos.State{
		"listed as recovered": recoveredState.State,
		"no registry":         {Agents: []*mesos.Agent{{ID: "other"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				apply(c, subscribed(task("a", 1), task("b", 1)))
				c.State(state, Leader{ID: "second", Certain: true}, time.Now())
				for _, ev := range []mesos.Event{added("a", 1), added("b", 1), agent, updated("b", 4)} {
					c.Event(ev)
				}
				time.Sleep(reregisterGrace)
				c.Expire()
				if n := c.Counts(); n.Frameworks != 1 || n.Tasks != 1 {
					t.Errorf("while a task runs: %+v", n)
				}
				c.Event(updated("a", 4))
				if n := c.Counts(); n.Frameworks != 0 || n.Tasks != 0 {
					t.Errorf("in the end: %+v", n)
				}
			})
		})
	}
}

// TestFailover_IdleFramework fails over while agents are to return. A framework that has no
// tasks there and is not named goes at once, except with a leader without a registry; one whose
// last task ends goes when nothing is retained any more.
func TestFailover_IdleFramework(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		s := subscribed(task("a", 1))
		s.State.Frameworks = append(s.State.Frameworks, &mesos.Framework{ID: "idle", Name: "idle"})
		apply(c, s)
		c.State(recoveredState.State, Leader{ID: "second", Certain: true}, time.Now())
		if n := c.Counts().Frameworks; n != 1 {
			t.Errorf("%d frameworks at first", n)
		}
		c.Event(updated("a", 4))
		if n := c.Counts().Frameworks; n != 1 {
			t.Errorf("%d frameworks while the agent is to return", n)
		}
		c.Event(mesos.AgentRemoved{AgentID: "s"})
		if n := c.Counts().Frameworks; n != 0 {
			t.Errorf("%d frameworks in the end", n)
		}
	})
}

// The steps of a change of leaders, for TestTerm.
type (
	told struct { // a whole state
		leader mesos.MasterID
		state  *mesos.State
	}
	elected      []mesos.MasterID
	disconnected struct{}
	steppedDown  struct{}
	listed       struct{ state *mesos.State }
)

// play tells c the steps, and lets time pass. A leader is heard as it tells a state.
func play(c *Cluster, steps ...any) {
	var heard time.Time
	for _, step := range steps {
		now := time.Now()
		switch step := step.(type) {
		case time.Duration:
			time.Sleep(step)
			c.Expire()
		case told:
			heard = now
			id, polled := strings.CutSuffix(string(step.leader), " polled")
			id, uncertain := strings.CutSuffix(id, "?")
			c.State(step.state, Leader{ID: mesos.MasterID(id), Certain: !uncertain, Polled: polled}, now)
		case elected:
			c.Elected(step, now)
		case disconnected:
			c.Disconnected(heard, now)
		case steppedDown:
			c.SteppedDown(now)
		case listed:
			c.BeginReconcile()
			c.Listed(step.state, false)
		}
	}
}

// TestFailover_RestartWithoutRegistry has masters start again that keep their registry in
// memory, and looks at how many agents are known, and whether names can be denied. A "?"
// marks a master that does not tell its ID.
func TestFailover_RestartWithoutRegistry(t *testing.T) {
	agents := []*mesos.Agent{{ID: "s1", Port: 5051}, {ID: "s2", Port: 5051}}
	all, one := &mesos.State{Agents: agents}, &mesos.State{Agents: agents[:1]}
	recovered := &mesos.State{RecoveredAgents: agents}
	lost, down := disconnected{}, steppedDown{}
	for name, tc := range map[string]struct {
		steps    []any
		agents   int
		complete bool
	}{
		"the stream breaks":                        {[]any{told{"A", all}, lost, told{"A", one}}, 1, true},
		"it starts again":                          {[]any{told{"A", all}, lost, down, told{"B", one}}, 2, true},
		"it does not say which it is":              {[]any{told{"x?", all}, lost, down, told{"x?", one}}, 2, true},
		"the same, with a registry, after long":    {[]any{told{"x?", all}, lost, down, 5 * time.Minute, told{"x?", recovered}}, 2, false},
		"an agent may have come meanwhile":         {[]any{told{"A", one}, lost, down, 5 * time.Minute, told{"B", one}}, 1, false},
		"it has not":                               {[]any{told{"A", one}, lost, down, 5 * time.Minute, told{"B", one}, reregisterGrace}, 1, true},
		"and the master is asked":                  {[]any{told{"A", one}, lost, down, 5 * time.Minute, told{"B", one}, listed{one}}, 1, false},
		"it starts again and again":                {[]any{told{"A", all}, lost, down, told{"B", one}, 9 * time.Second, lost, down, told{"C", one}, 5 * time.Second}, 2, true},
		"an agent has just come to another":        {[]any{told{"A", &mesos.State{Agents: agents[:1], RecoveredAgents: agents[1:]}}, listed{all}, told{"B", &mesos.State{}}, 9 * time.Second}, 2, false},
		"it is polled, and does not say who it is": {[]any{told{"x? polled", all}, told{"x? polled", one}}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				play(c, tc.steps...)
				if n := c.Counts().Agents; n != tc.agents || c.Complete() != tc.complete {
					t.Errorf("%d agents, complete: %v", n, c.Complete())
				}
			})
		})
	}
}

// TestTerm_Missed lets leaders come and go unheard, and looks at whether
// names can be denied while the last one awaits an agent. A letter is a master; of several
// the first leads.
func TestTerm_Missed(t *testing.T) {
	agent := &mesos.Agent{ID: "s", Port: 5051}
	line := func(names string) elected {
		var e elected
		for _, id := range names {
			e = append(e, mesos.MasterID(id))
		}
		return e
	}
	polled := told{"B polled", &mesos.State{Agents: []*mesos.Agent{agent}}}
	lost, down := disconnected{}, steppedDown{}
	for name, tc := range map[string]struct {
		between  []any
		next     mesos.MasterID
		complete bool
	}{
		"it is not seen to step down":      {[]any{lost, 15 * time.Second}, "B", false},
		"the first in line is not known":   {[]any{lost, down, elected{}, line("C")}, "C", false},
		"a failover":                       {[]any{lost, down, 15 * time.Second, line("BC")}, "B", true},
		"the old one is named again":       {[]any{lost, down, line("ABC"), line("BC"), 15 * time.Second}, "B", true},
		"the next is named before the end": {[]any{line("BC"), lost, 15 * time.Second}, "B", true},
		"no one is named":                  {[]any{lost, down, 15 * time.Second}, "B", true},
		"one in line has gone before":      {[]any{line("AC"), lost, down, 15 * time.Second, line("C")}, "C", true},
		"one in line is back":              {[]any{line("ACB"), lost, down, 15 * time.Second, line("CB")}, "C", true},
		"another one led":                  {[]any{lost, down, 15 * time.Second, line("BC"), line("C")}, "C", false},
		"another one led, and lost it":     {[]any{lost, down, line("B")}, "C", false},
		"others go, and it led on":         {[]any{line("AC"), lost, time.Second, down}, "C", false},
		"another one may have led":         {[]any{lost, down, 15 * time.Second, line("C")}, "C", false},
		"all have restarted":               {[]any{lost, down, 15 * time.Second, line("DE")}, "D", false},
		"the leader itself led again":      {[]any{lost, down, line("D"), line("E")}, "E", false},
		"only the leader led again":        {[]any{lost, down, line("B"), line("A"), line("B")}, "B", true},
		"the leader is listed twice":       {[]any{line("AA"), lost, down, line("B")}, "B", true},
		"the leader led on":                {[]any{lost, time.Second, down, line("BC")}, "B", false},
		"the leader may have led on":       {[]any{lost, time.Second, line("BC")}, "B", false},
		"it is not known how it ended":     {[]any{lost, time.Second}, "B", false},
		"the next one answers at once":     {[]any{lost}, "B", true},
		"it takes too long":                {[]any{lost, down, line("BC"), 2 * time.Minute}, "B", false},
		"the same after long":              {[]any{lost, time.Second, down, 2 * time.Minute}, "A", true},
		"it was polled":                    {[]any{lost, down, polled, lost, down}, "C", false},
		"it is polled":                     {[]any{lost, down, polled}, "C", false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				recovered := func(leader mesos.MasterID) told {
					return told{leader, &mesos.State{RecoveredAgents: []*mesos.Agent{agent}}}
				}
				play(c, append([]any{line("ABC"), told{"A", &mesos.State{Agents: []*mesos.Agent{agent}}}}, append(tc.between, recovered(tc.next))...)...)
				if c.Complete() != tc.complete {
					t.Errorf("complete: %v", !tc.complete)
				}
				// The next failover is as any other.
				c.Event(mesos.AgentAdded{Agent: agent})
				play(c, 5*time.Second, told{tc.next, &mesos.State{Agents: []*mesos.Agent{agent}}}, lost, down, recovered("F"))
				if !c.Complete() {
					t.Error("incomplete after the next failover")
				}
			})
		})
	}
}

// TestTerm_HeardLater tells the model of the end of a leader when the next one, which came
// after minutes, has spoken already.
func TestTerm_HeardLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		agents := []*mesos.Agent{{ID: "s", Port: 5051}}
		began := time.Now()
		time.Sleep(2 * time.Minute)
		c.State(&mesos.State{Agents: agents}, Leader{ID: "A", Certain: true}, began)
		c.Disconnected(began, began)
		c.SteppedDown(began)
		c.State(&mesos.State{RecoveredAgents: agents}, Leader{ID: "B", Certain: true}, time.Now())
		if c.Complete() {
			t.Error("names are denied, though masters may have come and gone unheard")
		}
	})
}
