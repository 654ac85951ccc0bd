package cluster

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// TestReconcile_Agents compares the cluster with what GET_AGENTS answers.
func TestReconcile_Agents(t *testing.T) {
	other := &mesos.Agent{ID: "other"}
	const a = "a of marathon on 10.0.0.1"
	for name, tc := range map[string]struct {
		before      []mesos.Event
		late        []mesos.Event // after the request
		answer      *mesos.State
		want        string
		differences int
	}{
		"nothing new":                 {nil, nil, &mesos.State{Agents: []*mesos.Agent{agent.Agent}}, a, 0},
		"gone":                        {nil, nil, &mesos.State{Agents: []*mesos.Agent{other}}, "", 2},
		"all gone, it seems":          {nil, nil, &mesos.State{}, a, 0},
		"new":                         {nil, nil, &mesos.State{Agents: []*mesos.Agent{agent.Agent, other}}, a, 1},
		"added after the request":     {nil, []mesos.Event{mesos.AgentAdded{Agent: other}}, &mesos.State{Agents: []*mesos.Agent{agent.Agent}}, a, 0},
		"removed after the request":   {nil, []mesos.Event{mesos.AgentRemoved{AgentID: "s"}}, &mesos.State{Agents: []*mesos.Agent{agent.Agent}}, "", 0},
		"from before the state":       {nil, []mesos.Event{subscribed(task("a", 1))}, &mesos.State{}, a, 0},
		"held, still recovered":       {[]mesos.Event{recoveredState}, nil, &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "s"}}}, a, 0},
		"held, and given up":          {[]mesos.Event{recoveredState}, nil, &mesos.State{Agents: []*mesos.Agent{other}}, "", 1},
		"held, back unseen":           {[]mesos.Event{recoveredState}, nil, &mesos.State{Agents: []*mesos.Agent{agent.Agent}}, a, 1},
		"one cannot be decoded":       {nil, nil, &mesos.State{Malformed: 1}, a, 0},
		"held for a state of nothing": {[]mesos.Event{mesos.Subscribed{State: &mesos.State{}}}, nil, &mesos.State{}, a, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := New(nil)
			v := view{}
			apply(c, subscribed(task("a", 1)))
			for _, ev := range tc.before {
				apply(c, ev)
			}
			c.BeginReconcile()
			for _, ev := range tc.late {
				apply(c, ev)
			}
			n := c.Listed(tc.answer, false)
			v.follow(t, c.Flush())
			if v.String() != tc.want || n != tc.differences {
				t.Errorf("%q with %d differences, want %q with %d", v, n, tc.want, tc.differences)
			}
		})
	}
}

func TestReconcile_Completes(t *testing.T) {
	c := New(nil)
	apply(c, recoveredState) // nothing is known of s
	if c.Complete() {
		t.Error("complete with an unknown agent")
	}
	c.BeginReconcile()
	c.Listed(&mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "s"}}}, false)
	if c.Complete() {
		t.Error("complete with an agent that is still recovered")
	}
	c.BeginReconcile()
	c.Listed(&mesos.State{}, false)
	if !c.Complete() {
		t.Error("not complete once the agent is given up")
	}
}

// TestReconcile_WholeState compares a cluster that runs the tasks a and b with what
// GET_STATE answers.
func TestReconcile_WholeState(t *testing.T) {
	const a, b, both = "a of marathon on 10.0.0.1", "b of marathon on 10.0.0.1", "a of marathon on 10.0.0.1; b of marathon on 10.0.0.1"
	state := func(tasks ...*mesos.Task) *mesos.State { return subscribed(tasks...).State }
	renamed := state(task("a", 1), task("b", 1))
	renamed.Frameworks = []*mesos.Framework{{ID: "f", Name: "renamed"}}
	malformed := state()
	malformed.Malformed = 1
	second := state(task("a", 1), task("b", 1), &mesos.Task{ID: "x", Name: "x", FrameworkID: "g", AgentID: "s", State: 1})
	second.Frameworks = append(slices.Clone(second.Frameworks), &mesos.Framework{ID: "g", Name: "second"})
	for name, tc := range map[string]struct {
		before      []mesos.Event
		late        []mesos.Event // after the request
		answer      *mesos.State
		want        string
		differences int
	}{
		"nothing new":                {nil, nil, state(task("b", 1), task("a", 1)), both, 0},
		"a task has ended":           {nil, nil, state(task("a", 1)), a, 1},
		"a task has ended, unacked":  {nil, nil, state(task("a", 1), task("b", 4)), a, 1},
		"an old task":                {nil, nil, state(task("a", 1), task("b", 1), task("old", 4)), both, 0},
		"a task runs":                {[]mesos.Event{added("c", 0)}, nil, state(task("a", 1), task("b", 1), task("c", 1)), both + "; c of marathon on 10.0.0.1", 1},
		"a new task":                 {[]mesos.Event{updated("b", 4)}, nil, state(task("a", 1), task("b", 1)), both, 1},
		"another address":            {nil, nil, state(withAddr(task("a", 1), "192.0.2.1"), task("b", 1)), a + " at 192.0.2.1; " + b, 1},
		"an address is not repeated": {[]mesos.Event{mesos.TaskAdded{Task: withAddr(task("a", 1), "192.0.2.1")}}, nil, state(task("a", 1), task("b", 1)), a + " at 192.0.2.1; " + b, 0},
		"a framework is renamed":     {nil, nil, renamed, "a of renamed on 10.0.0.1; b of renamed on 10.0.0.1", 1},
		"a framework is new":         {nil, nil, second, both + "; x of second on 10.0.0.1", 2},
		"a framework is gone":        {nil, nil, &mesos.State{Agents: []*mesos.Agent{agent.Agent}}, "", 1},
		"an agent is gone":           {nil, nil, &mesos.State{Frameworks: []*mesos.Framework{framework.Framework}, Agents: []*mesos.Agent{{ID: "other"}}}, "", 2},
		"all is malformed":           {nil, nil, malformed, both, 0},
		"added since":                {nil, []mesos.Event{added("c", 1)}, state(task("a", 1), task("b", 1)), both + "; c of marathon on 10.0.0.1", 0},
		"ended since":                {nil, []mesos.Event{updated("b", 4)}, state(task("a", 1), task("b", 1)), a, 0},
		"moved since":                {nil, []mesos.Event{mesos.TaskAdded{Task: withAddr(task("a", 1), "192.0.2.1")}}, state(task("a", 1), task("b", 1)), a + " at 192.0.2.1; " + b, 0},
		"agent removed since":        {nil, []mesos.Event{mesos.AgentRemoved{AgentID: "s"}}, state(task("a", 1), task("b", 1), task("c", 1)), "", 0},
		"agent unreachable since":    {nil, []mesos.Event{updated("a", 10)}, state(task("a", 1), task("b", 1)), "", 0},
		"framework removed since":    {nil, []mesos.Event{mesos.FrameworkRemoved{FrameworkID: "f"}}, state(task("a", 1), task("b", 1)), "", 0},
		"framework renamed since":    {nil, []mesos.Event{mesos.FrameworkUpdated{Framework: renamed.Frameworks[0]}}, state(task("a", 1), task("b", 1)), "a of renamed on 10.0.0.1; b of renamed on 10.0.0.1", 0},
		"another state since":        {nil, []mesos.Event{subscribed(task("a", 1))}, state(task("a", 1), task("b", 1)), a, 0},
		"held":                       {[]mesos.Event{recoveredState}, nil, recoveredState.State, both, 0},
		"held, one is announced":     {[]mesos.Event{recoveredState, added("a", 1)}, nil, recoveredState.State, b, 1},
		"held, all are back": {
			[]mesos.Event{recoveredState}, nil, state(task("a", 1), task("b", 1)), both, 1, // the agent, that came without an event
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				v := view{}
				apply(c, subscribed(task("a", 1), task("b", 1)))
				for _, ev := range tc.before {
					apply(c, ev)
				}
				c.BeginReconcile()
				for _, ev := range tc.late {
					apply(c, ev)
				}
				n := c.Listed(tc.answer, true)
				v.follow(t, c.Flush())
				if v.String() != tc.want || n != tc.differences {
					t.Errorf("%q with %d differences, want %q with %d", v, n, tc.want, tc.differences)
				}
				if held := c.Counts().Retained; name == "held" && held != 2 || name != "held" && name != "held, one is announced" && held != 0 {
					t.Errorf("%d tasks are held", held)
				}
				if n := c.Listed(state(), true); n != 0 {
					t.Errorf("an answer that was not asked for made %d differences", n)
				}
			})
		})
	}
}

// TestReference lets events name unknown objects.
func TestReference(t *testing.T) {
	other := func(agent, framework string) mesos.Event {
		return mesos.TaskAdded{Task: &mesos.Task{ID: "x", FrameworkID: framework, AgentID: agent, State: 1}}
	}
	for name, tc := range map[string]struct {
		events []mesos.Event
		soon   []mesos.Event // within announceDelay
		want   bool
	}{
		"all is known":                   {[]mesos.Event{added("a", 1), updated("a", 1)}, nil, false},
		"unknown agent":                  {[]mesos.Event{other("other", "f")}, nil, true},
		"unknown agent, that comes":      {[]mesos.Event{other("other", "f")}, []mesos.Event{mesos.AgentAdded{Agent: &mesos.Agent{ID: "other"}}}, false},
		"unknown framework":              {[]mesos.Event{other("s", "g")}, nil, true},
		"unknown framework, that comes":  {[]mesos.Event{other("s", "g")}, []mesos.Event{mesos.FrameworkAdded{Framework: &mesos.Framework{ID: "g"}}}, false},
		"unknown task":                   {[]mesos.Event{updated("x", 1)}, nil, true},
		"unknown task, that comes":       {[]mesos.Event{updated("x", 1)}, []mesos.Event{added("x", 1)}, false},
		"unknown task that ends":         {[]mesos.Event{updated("x", 4)}, nil, false},
		"unknown task, not reachable":    {[]mesos.Event{updated("x", 10)}, nil, false},
		"the agent was removed before":   {[]mesos.Event{added("a", 1), mesos.AgentRemoved{AgentID: "s"}}, nil, false},
		"a state comes in between":       {[]mesos.Event{updated("x", 1)}, []mesos.Event{subscribed()}, false},
		"the agent is yet to come back":  {[]mesos.Event{mesos.Subscribed{State: &mesos.State{Frameworks: []*mesos.Framework{framework.Framework}, RecoveredAgents: []*mesos.Agent{{ID: "s"}}}}, added("a", 1)}, nil, false},
		"more than can be remembered":    {slices.Repeat([]mesos.Event{other("other", "f")}, 2*maxUnknown), nil, true},
		"a comparison comes in between":  {[]mesos.Event{updated("x", 1)}, []mesos.Event{nil}, false},
		"an unknown owner that is ended": {[]mesos.Event{mesos.TaskAdded{Task: &mesos.Task{ID: "x", FrameworkID: "g", AgentID: "s", State: 4}}}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				apply(c, subscribed())
				for _, ev := range tc.events {
					apply(c, ev)
				}
				time.Sleep(announceDelay - time.Second)
				c.Expire()
				if c.Wants().State {
					t.Error("wants the state too early")
				}
				for _, ev := range tc.soon {
					if ev == nil {
						c.BeginReconcile()
						c.Listed(subscribed().State, true)
						continue
					}
					apply(c, ev)
				}
				time.Sleep(time.Minute)
				c.Expire()
				if got := c.Wants().State; got != tc.want {
					t.Errorf("wants the state: %v", got)
				}
				if len(c.unknown) != 0 || !c.Deadline().IsZero() {
					t.Error("something is left")
				}
			})
		})
	}
}

// TestReconcile_NoAgents compares twice with an answer without any agent: it is
// believed the second time.
func TestReconcile_NoAgents(t *testing.T) {
	const a = "a of marathon on 10.0.0.1"
	c := New(nil)
	v := view{}
	apply(c, subscribed(task("a", 1)))
	for i, step := range []struct {
		answer   *mesos.State
		want     string
		awaiting bool
	}{
		{&mesos.State{}, a, true}, {subscribed().State, a, false}, {&mesos.State{}, a, true}, {&mesos.State{}, "", false}, {&mesos.State{}, "", false},
	} {
		c.BeginReconcile()
		c.Listed(step.answer, false)
		v.follow(t, c.Flush())
		if v.String() != step.want || c.Wants().Agents != step.awaiting {
			t.Errorf("step %d: %q, awaiting: %v", i, v, c.Wants().Agents)
		}
	}
	apply(c, subscribed(task("a", 1)))
	for i := range 2 { // of one master, and of the next
		c.BeginReconcile()
		c.Listed(&mesos.State{}, true)
		if !c.Wants().State {
			t.Error("all is not asked for again")
		}
		v.follow(t, c.Flush())
		if v.String() != a {
			t.Errorf("master %d: %q", i, v)
		}
		apply(c, subscribed(task("a", 1)))
	}
}

// TestReconcile_MissingAgent lists agents while one that a leader without a registry lacks
// has time to come back.
func TestReconcile_MissingAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		apply(c, subscribed(task("a", 1)))
		other := &mesos.State{Agents: []*mesos.Agent{{ID: "other"}}}
		c.State(other, Leader{ID: "second", Certain: true}, time.Now())
		c.BeginReconcile()
		if n := c.Listed(other, false); n != 0 || c.Counts().Agents != 2 {
			t.Errorf("%d differences, %+v", n, c.Counts())
		}
		time.Sleep(reregisterGrace)
		c.Expire()
		if n := c.Counts().Agents; n != 1 {
			t.Errorf("%d agents in the end", n)
		}
	})
}
