package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

func task(id string, state mesos.TaskState) *mesos.Task {
	return &mesos.Task{ID: id, FrameworkID: "f", AgentID: "s", Name: id, State: state}
}

func withAddr(t *mesos.Task, addr string) *mesos.Task {
	t.Status.Networks = []mesos.Network{{Addrs: []netip.Addr{netip.MustParseAddr(addr)}}}
	return t
}

var (
	agent     = mesos.AgentAdded{Agent: &mesos.Agent{ID: "s", Addr: netip.MustParseAddr("10.0.0.1"), Port: 5051}}
	framework = mesos.FrameworkAdded{Framework: &mesos.Framework{ID: "f", Name: "marathon"}}
)

func added(id string, state mesos.TaskState) mesos.Event {
	return mesos.TaskAdded{Task: task(id, state)}
}

func updated(id string, state mesos.TaskState) mesos.Event {
	return mesos.TaskUpdated{TaskID: id, FrameworkID: "f", State: state}
}

func subscribed(tasks ...*mesos.Task) mesos.Subscribed {
	return mesos.Subscribed{State: &mesos.State{
		Agents: []*mesos.Agent{agent.Agent}, Frameworks: []*mesos.Framework{framework.Framework}, Tasks: pack(tasks...),
	}}
}

func pack(tasks ...*mesos.Task) (packed []mesos.PackedTask) {
	for _, t := range tasks {
		packed = append(packed, t.Pack())
	}
	return packed
}

// apply tells the cluster an event of a master, SUBSCRIBED included.
func apply(c *Cluster, ev mesos.Event) {
	if s, ok := ev.(mesos.Subscribed); ok {
		c.State(s.State, Leader{ID: "leader", Certain: true}, time.Now())
		return
	}
	c.Event(ev)
}

// view keeps what changes say is there.
type view map[string]string

// follow applies changes to v, and checks that their old sides are what v has.
func (v view) follow(t *testing.T, ch Changes) {
	t.Helper()
	for c := range ch.Instances {
		if c.Old.Valid() {
			if v[c.Old.Task.ID()] != describe(c.Old) {
				t.Errorf("old is %s, it was %q", describe(c.Old), v[c.Old.Task.ID()])
			}
			delete(v, c.Old.Task.ID())
		}
		if c.New.Valid() {
			v[c.New.Task.ID()] = describe(c.New)
		}
	}
}

func describe(k Kept) string {
	i := k.Instance(new(mesos.Task))
	s := fmt.Sprintf("%s of %s on %s", i.Task.ID, i.Framework.Name, i.Agent.Addr)
	if len(i.Task.Status.Networks) > 0 {
		s += " at " + i.Task.Status.Networks[0].Addrs[0].String()
	}
	return s
}

func (v view) String() string {
	var all []string
	for _, s := range v {
		all = append(all, s)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// TestOrders applies events in the orders that a real master sends, and in
// those it might send, and looks at what is published in the end. Every entry
// is applied twice: with changes taken after each event, and only at the end.
func TestOrders(t *testing.T) {
	const running = mesos.TaskRunning
	a := "a of marathon on 10.0.0.1"
	renamed := mesos.FrameworkUpdated{Framework: &mesos.Framework{ID: "f", Name: "renamed"}}
	moved := mesos.AgentAdded{Agent: &mesos.Agent{ID: "s", Addr: netip.MustParseAddr("10.0.0.2")}}
	for name, tc := range map[string]struct {
		events []mesos.Event
		want   string
	}{
		"agent, framework, task":          {[]mesos.Event{agent, framework, added("a", running)}, a},
		"task first":                      {[]mesos.Event{added("a", running), agent, framework}, a},
		"framework last":                  {[]mesos.Event{agent, added("a", running), framework}, a},
		"no agent":                        {[]mesos.Event{framework, added("a", running)}, ""},
		"no framework":                    {[]mesos.Event{agent, added("a", running)}, ""},
		"staging":                         {[]mesos.Event{agent, framework, added("a", mesos.TaskStaging)}, ""},
		"running":                         {[]mesos.Event{agent, framework, added("a", mesos.TaskStaging), updated("a", running)}, a},
		"killing":                         {[]mesos.Event{agent, framework, added("a", running), updated("a", 8)}, ""},
		"killed":                          {[]mesos.Event{agent, framework, added("a", running), updated("a", 4)}, ""},
		"killed and running again":        {[]mesos.Event{agent, framework, added("a", running), updated("a", 4), updated("a", running)}, ""},
		"killed and announced again":      {[]mesos.Event{agent, framework, added("a", running), updated("a", 4), added("a", running)}, a},
		"unknown state":                   {[]mesos.Event{agent, framework, added("a", running), updated("a", 99)}, ""},
		"update of an unknown task":       {[]mesos.Event{agent, framework, updated("a", running)}, ""},
		"announced twice":                 {[]mesos.Event{agent, framework, added("a", running), added("a", running)}, a},
		"agent removed":                   {[]mesos.Event{agent, framework, added("a", running), mesos.AgentRemoved{AgentID: "s"}}, ""},
		"agent back":                      {[]mesos.Event{agent, framework, added("a", running), mesos.AgentRemoved{AgentID: "s"}, agent}, a},
		"agent removed, task lost first":  {[]mesos.Event{agent, framework, added("a", running), updated("a", 5), mesos.AgentRemoved{AgentID: "s"}, agent}, ""},
		"agent at another address":        {[]mesos.Event{agent, framework, added("a", running), moved}, "a of marathon on 10.0.0.2"},
		"agent unreachable":               {[]mesos.Event{agent, framework, added("a", running), added("b", running), updated("a", 10)}, ""},
		"agent unreachable and back":      {[]mesos.Event{agent, framework, added("a", running), updated("a", 10), added("a", running), agent}, a},
		"framework removed":               {[]mesos.Event{agent, framework, added("a", running), mesos.FrameworkRemoved{FrameworkID: "f"}}, ""},
		"framework renamed":               {[]mesos.Event{agent, framework, added("a", running), renamed}, "a of renamed on 10.0.0.1"},
		"unknown agent removed":           {[]mesos.Event{mesos.AgentRemoved{AgentID: "s"}, agent, framework, added("a", running)}, a},
		"unknown framework removed":       {[]mesos.Event{mesos.FrameworkRemoved{FrameworkID: "f"}, agent, framework, added("a", running)}, a},
		"unknown event":                   {[]mesos.Event{agent, mesos.Unknown{}, framework, added("a", running)}, a},
		"whole state":                     {[]mesos.Event{subscribed(task("a", running))}, a},
		"whole state twice":               {[]mesos.Event{subscribed(task("a", running)), subscribed(task("a", running))}, a},
		"whole state replaces":            {[]mesos.Event{subscribed(task("a", running)), subscribed(task("b", running))}, "b of marathon on 10.0.0.1"},
		"whole state without a framework": {[]mesos.Event{subscribed(task("a", running)), mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{agent.Agent}}}}, ""},
		"killed but unacknowledged":       {[]mesos.Event{subscribed(task("a", 4))}, ""},
		"the same task twice in a state":  {[]mesos.Event{subscribed(task("a", running), task("a", running))}, a},
		"addresses are kept": {
			[]mesos.Event{agent, framework, mesos.TaskAdded{Task: withAddr(task("a", running), "192.0.2.1")}, added("a", running)}, a + " at 192.0.2.1",
		},
		"addresses are kept by an update": {
			[]mesos.Event{agent, framework, mesos.TaskAdded{Task: withAddr(task("a", 0), "192.0.2.1")}, updated("a", running)}, a + " at 192.0.2.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			each, end := New(nil), New(nil)
			got, gotEnd := view{}, view{}
			for _, ev := range tc.events {
				apply(each, ev)
				got.follow(t, each.Flush())
				apply(end, ev)
			}
			gotEnd.follow(t, end.Flush())
			if got.String() != tc.want || gotEnd.String() != tc.want {
				t.Errorf("after each event %q, in the end %q, want %q", got, gotEnd, tc.want)
			}
			if again := end.Flush(); !again.Empty() {
				t.Errorf("changes are taken twice: %+v", again)
			}
		})
	}
}

// TestNothingIsLeft removes everything in several ways.
func TestNothingIsLeft(t *testing.T) {
	for name, events := range map[string][]mesos.Event{
		"one by one":      {updated("a", 4), updated("b", 2), mesos.AgentRemoved{AgentID: "s"}, mesos.FrameworkRemoved{FrameworkID: "f"}},
		"owners gone":     {mesos.AgentRemoved{AgentID: "s"}, mesos.FrameworkRemoved{FrameworkID: "f"}, updated("a", 4), updated("b", 5)},
		"another cluster": {mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "other"}}}}},
	} {
		c := New(nil)
		for _, ev := range append([]mesos.Event{agent, framework, added("a", 1), added("b", 1)}, events...) {
			apply(c, ev)
		}
		n := c.Counts()
		if len(c.tasks.of)+len(c.agents)+len(c.frameworks)+c.failover.retained != 0 || n != (Counts{}) {
			t.Errorf("%s: %d frameworks of tasks, %d agents, %d frameworks, %+v", name, len(c.tasks.of), len(c.agents), len(c.frameworks), c.Counts())
		}
	}
}

func TestComplete(t *testing.T) {
	recovered := mesos.Subscribed{State: &mesos.State{RecoveredAgents: []*mesos.Agent{{ID: "s"}, {ID: "s2"}}}}
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		for i, step := range []struct {
			event mesos.Event
			after time.Duration
			want  bool
		}{
			{recovered, 0, false},
			{agent, 0, false},
			{mesos.AgentRemoved{AgentID: "s2"}, 0, false}, // s may have more tasks to announce
			{nil, announceGrace, true},
			{recovered, 0, false},
			{subscribed(), 0, true},
		} {
			time.Sleep(step.after)
			c.Expire()
			if step.event != nil {
				apply(c, step.event)
			}
			if c.Complete() != step.want {
				t.Errorf("step %d: complete is %v", i, c.Complete())
			}
		}
	})
}

// TestRestore starts from a snapshot that knows the task a: until a master has
// told its state, nothing can be denied.
func TestRestore(t *testing.T) {
	const a = "a of marathon on 10.0.0.1"
	const both = a + "; b of marathon on 10.0.0.1"
	type step struct {
		event    mesos.Event
		after    time.Duration // let pass first
		want     string
		complete bool
	}
	other := mesos.AgentAdded{Agent: &mesos.Agent{ID: "other"}}
	nothing := mesos.Subscribed{State: &mesos.State{}}
	for name, steps := range map[string][]step{
		"no master speaks": {{nil, time.Hour, a, false}},
		"a whole state":    {{subscribed(task("b", 1)), 0, "b of marathon on 10.0.0.1", true}},
		"a failover": {
			{recoveredState, 0, a, false}, {added("b", 1), time.Minute, a + "; b of marathon on 10.0.0.1", false},
			{agent, 0, both, false}, {nil, announceGrace, "b of marathon on 10.0.0.1", true},
		},
		"two failovers":      {{recoveredState, 0, a, false}, {recoveredState, time.Second, a, false}},
		"a state of nothing": {{nothing, 0, a, false}, {nil, reregisterGrace, "", true}},
		"nothing, then another": {
			{nothing, 0, a, false}, {mesos.Subscribed{State: &mesos.State{Agents: []*mesos.Agent{other.Agent}}}, time.Second, a, false}, {nil, reregisterGrace, "", true},
		},
		"nothing, then all":    {{nothing, 0, a, false}, {agent, time.Second, a, false}, {added("a", 1), 0, a, false}, {nil, reregisterGrace, a, true}},
		"the agent is removed": {{recoveredState, 0, a, false}, {mesos.AgentRemoved{AgentID: "s"}, 0, "", true}},
		"another agent":        {{recoveredState, 0, a, false}, {other, 0, a, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := New(nil)
				c.LoadSnapshot(subscribed(task("a", 1)).State, "leader")
				v := view{}
				v.follow(t, c.Flush())
				if v.String() != a || c.Complete() {
					t.Fatalf("restored %q, complete: %v", v, c.Complete())
				}
				for i, s := range steps {
					time.Sleep(s.after)
					c.Expire()
					if s.event != nil {
						apply(c, s.event)
					}
					v.follow(t, c.Flush())
					if v.String() != s.want || c.Complete() != s.complete {
						t.Errorf("step %d: %q, complete: %v, want %q, %v", i, v, c.Complete(), s.want, s.complete)
					}
				}
			})
		})
	}
}

// TestState gives what a cluster tells to another one.
func TestState(t *testing.T) {
	c, other := New(nil), New(nil)
	for _, ev := range []mesos.Event{agent, framework, added("a", 1), added("b", 0), added("c", 1), updated("c", 10), agent} {
		apply(c, ev)
	}
	other.LoadSnapshot(c.Snapshot(), "leader")
	v := view{}
	v.follow(t, other.Flush())
	if n := other.Counts(); v.String() != "a of marathon on 10.0.0.1" || n != (Counts{Tasks: 1, Agents: 1, Frameworks: 1}) {
		t.Errorf("%q, %+v", v, n)
	}
}

// knownHosts are agents' and schedulers' hosts.
type knownHosts map[string][]netip.Addr

func (k knownHosts) Addrs(host string) []netip.Addr       { return k[host] }
func (k knownHosts) TenantAddrs(host string) []netip.Addr { return k[host+" of a tenant"] }

func TestHostnames(t *testing.T) {
	known := knownHosts{}
	c := New(known)
	apply(c, mesos.AgentAdded{Agent: &mesos.Agent{ID: "s", Hostname: "agent.example"}})
	apply(c, mesos.FrameworkAdded{Framework: &mesos.Framework{ID: "f", Hostname: "agent.example"}})
	if ch := c.Flush(); len(ch.Agents) != 1 || len(ch.Agents[0].New.Addrs) != 0 {
		t.Errorf("before the lookup: %+v", ch.Agents)
	}
	known["agent.example"] = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	known["agent.example of a tenant"] = known["agent.example"]
	c.HostChanged("agent.example")
	ch := c.Flush()
	if len(ch.Agents) != 1 || len(ch.Agents[0].New.Addrs) != 1 || len(ch.Frameworks) != 1 || len(ch.Frameworks[0].New.Addrs) != 1 {
		t.Errorf("after the lookup: %+v", ch)
	}
	c.HostChanged("agent.example")
	if ch := c.Flush(); !ch.Empty() {
		t.Errorf("the same answer again: %+v", ch)
	}
}

// TestInstances_Some has a reader of changes that stops at the first.
func TestInstances_Some(t *testing.T) {
	c := New(nil)
	apply(c, mesos.AgentAdded{Agent: &mesos.Agent{ID: "s"}})
	apply(c, mesos.FrameworkAdded{Framework: &mesos.Framework{ID: "f"}})
	for _, id := range []string{"a", "b"} {
		apply(c, mesos.TaskAdded{Task: &mesos.Task{ID: id, FrameworkID: "f", AgentID: "s", State: mesos.TaskRunning}})
	}
	flush := c.Flush()
	for name, ch := range map[string]Changes{"changes": flush, "everything": c.Full()} {
		read := 0
		for range ch.Instances {
			read++
			break
		}
		if read != 1 {
			t.Errorf("%s: %d are read", name, read)
		}
	}
	if flush.Tasks != 2 {
		t.Errorf("%d changes", flush.Tasks)
	}
}

func TestMasters(t *testing.T) {
	c := New(nil)
	one := func() *Masters { return &Masters{Leader: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Port: 5050} }
	c.SetMasters(one())
	if ch := c.Flush(); ch.Masters.Old != nil || ch.Masters.New == nil {
		t.Errorf("first: %+v", ch.Masters)
	}
	c.SetMasters(one())
	if ch := c.Flush(); !ch.Empty() {
		t.Errorf("the same masters again: %+v", ch.Masters)
	}
	two := one()
	two.Port = 5051
	c.SetMasters(two)
	if ch := c.Flush(); ch.Masters.Old.Port != 5050 || ch.Masters.New.Port != 5051 {
		t.Errorf("another port: %+v", ch.Masters)
	}
}
