package mesostest

import (
	"context"
	"fmt"
	"net/netip"
	"time"
)

// A Script makes the messages of a cluster: agents, frameworks and tasks, with the same ids
// and timestamps each time.
type Script struct {
	id    string // of the master, with which other ids begin
	clock float64
}

// NewScript returns a script whose ids begin with id.
func NewScript(id string) *Script { return &Script{id: id, clock: 1700000000} }

// AgentID returns the id of agent n.
func (s *Script) AgentID(n int) string { return fmt.Sprintf("%s-S%d", s.id, n) }

// FrameworkID returns the id of framework n.
func (s *Script) FrameworkID(n int) string { return fmt.Sprintf("%s-%04d", s.id, n) }

// Agent returns agent n at addr.
func (s *Script) Agent(n int, addr string) *Agent {
	return &Agent{
		AgentInfo: AgentInfo{Hostname: addr, ID: &ID{s.AgentID(n)}, Port: 5051},
		Active:    true,
		Version:   "1.11.0",
		PID:       "slave(1)@" + netip.AddrPortFrom(netip.MustParseAddr(addr), 5051).String(),
	}
}

// Framework returns framework n.
func (s *Script) Framework(n int, name, hostname, webui string) *Framework {
	return &Framework{
		FrameworkInfo: FrameworkInfo{User: "root", Name: name, ID: &ID{s.FrameworkID(n)}, Hostname: hostname, WebUIURL: webui},
		Active:        true,
		Connected:     true,
	}
}

// App is what the tasks of an app have in common.
type App struct {
	Name      string // of the tasks
	Framework int
	Network   string // CNI network; "" for the host's
	Ports     []Port // of the DiscoveryInfo
	HostPorts []Range
	Labels    []Label
	Docker    bool
}

// Task returns a running task of app on an agent, with addresses.
func (s *Script) Task(app App, id string, agent int, addrs ...string) *Task {
	t := &Task{
		Name:        app.Name,
		TaskID:      ID{id},
		FrameworkID: ID{s.FrameworkID(app.Framework)},
		AgentID:     ID{s.AgentID(agent)},
		State:       TaskRunning,
		Resources:   []Resource{{Name: "cpus", Scalar: &Scalar{0.1}}},
		Discovery:   &DiscoveryInfo{Name: app.Name, Ports: &Ports{app.Ports}},
		Container:   &ContainerInfo{Type: TypeMesos},
	}
	if app.Docker {
		t.Container = &ContainerInfo{Type: TypeDocker, Docker: &DockerInfo{Image: app.Name, Network: 4}}
	}
	if app.Network != "" {
		t.Container.NetworkInfos = []NetworkInfo{{Name: app.Network}}
	}
	if app.HostPorts != nil {
		t.Resources = append(t.Resources, Resource{Name: "ports", Type: rangesType, Ranges: &Ranges{app.HostPorts}})
	}
	if app.Labels != nil {
		t.Labels = &Labels{app.Labels}
	}
	t.Statuses = []TaskStatus{s.Status(t, TaskStarting), s.Status(t, TaskRunning, addrs...)}
	return t
}

// Status returns the next status of t.
func (s *Script) Status(t *Task, state TaskState, addrs ...string) TaskStatus {
	s.clock++
	st := TaskStatus{TaskID: t.TaskID, State: state, AgentID: &t.AgentID, Timestamp: s.clock}
	if len(addrs) == 0 {
		return st
	}
	n := NetworkInfo{}
	if t.Container != nil && len(t.Container.NetworkInfos) > 0 {
		n.Name = t.Container.NetworkInfos[0].Name
	}
	for _, a := range addrs {
		protocol := Protocol(2)
		if netip.MustParseAddr(a).Is4() {
			protocol = 1
		}
		n.IPAddresses = append(n.IPAddresses, IPAddress{protocol, a})
	}
	st.ContainerStatus = &ContainerStatus{NetworkInfos: []NetworkInfo{n}}
	return st
}

// Move replaces task t by one with another id, agent and address, as a scheduler does. m sends
// the events in the order of a real master.
func (s *Script) Move(m *Master, t *Task, id string, agent int, addr string) *Task {
	next := *t
	next.TaskID, next.AgentID, next.State = ID{id}, ID{s.AgentID(agent)}, TaskStaging
	next.Statuses = nil
	m.AddTask(&next)
	m.UpdateTask(t.FrameworkID.Value, s.Status(&next, TaskStarting, addr), TaskStarting)
	running := s.Status(&next, TaskRunning, addr)
	m.UpdateTask(t.FrameworkID.Value, running, TaskRunning)
	m.UpdateTask(t.FrameworkID.Value, s.Status(t, TaskKilled), TaskKilled)
	next.State, next.Statuses = TaskRunning, []TaskStatus{running}
	return &next
}

// Tutorial is the small cluster that the documentation shows.
type Tutorial struct {
	*Script
	wanderer *Task
	moves    int
}

// NewTutorial loads the tutorial's cluster into m: three instances of nginx on a Calico
// network, marathon-lb and a web app on the host's, a grouped app, an IPv6 app, a pod, and
// the app wanderer, which Wander moves.
func NewTutorial(m *Master) *Tutorial {
	s := NewScript("cd613e30-d8f1-6adf-91b7-584a2265b1f5")
	http := []Port{{Number: 80, Name: "http", Protocol: "tcp"}}
	calico := func(name string, ports []Port) App { return App{Name: name, Network: "calico", Ports: ports} }
	onHost := Labels{[]Label{{"network-scope", "host"}}}

	nginx := calico("nginx", http)
	nginx.Labels = []Label{{"HAPROXY_GROUP", "external"}, {"HAPROXY_0_VHOST", "mytask.acme.org"}}
	lb := App{Name: "marathon-lb", Ports: []Port{{Number: 80, Name: "http", Protocol: "tcp"}, {Number: 443, Name: "https", Protocol: "tcp"}}}
	web := App{Name: "web", Ports: []Port{{Number: 31080, Name: "http", Protocol: "tcp", Labels: &onHost}}, HostPorts: []Range{{31080, 31080}}}
	pod := func(container string, port uint32) *Task {
		return s.Task(calico(container+".pod", []Port{{Number: port, Protocol: "tcp"}}), "pod.instance-1."+container, 1, "192.168.50.69")
	}
	wanderer := s.Task(calico("wanderer", http), "wanderer.0", 0, "192.168.84.200")

	m.Load(&GetState{
		Agents: &GetAgents{Agents: []*Agent{s.Agent(0, "172.24.197.101"), s.Agent(1, "172.24.197.102")}},
		Frameworks: &GetFrameworks{Frameworks: []*Framework{
			s.Framework(0, "marathon", "172.24.197.100", "http://172.24.197.100:8080"),
		}},
		Tasks: &GetTasks{Tasks: []*Task{
			s.Task(nginx, "nginx.1e2feb89-414c-343c-1027-c4d1c386bbc4", 0, "192.168.84.192"),
			s.Task(nginx, "nginx.78e51061-7311-d8a3-c2ce-6f447ed4d57b", 1, "192.168.50.65"),
			s.Task(nginx, "nginx.35bf992d-c9e9-c616-612e-7696a6cecc1b", 1, "192.168.50.66"),
			s.Task(lb, "marathon-lb.e4b06ce6-0741-c7a8-7ce4-2c8218072e8c", 0, "172.24.197.101"),
			s.Task(web, "web.5f2c8a1e-2f0b-4e0f-8d3e-1f6f2e9d7a10", 1, "172.24.197.102"),
			s.Task(calico("db.prod", []Port{{Number: 5432, Name: "postgres", Protocol: "tcp"}}), "prod_db.9d1c7b34-6a0e-4c1e-b1f7-2f8b1f5d6e21", 1, "192.168.50.67"),
			s.Task(calico("v6", http), "v6.3c9b2d51-7e42-4f8a-9a64-0b6f2d8e7c32", 0, "fd00:192:168::10"),
			pod("api", 8080),
			pod("sidecar", 9090),
			wanderer,
		}},
	})
	return &Tutorial{Script: s, wanderer: wanderer}
}

// Wander moves the app wanderer to a new address and to the other agent.
func (t *Tutorial) Wander(m *Master) {
	t.moves++
	pool := []string{"192.168.84", "192.168.50"}[t.moves%2]
	addr := fmt.Sprintf("%s.%d", pool, 200+t.moves%50)
	t.wanderer = t.Move(m, t.wanderer, fmt.Sprintf("wanderer.%d", t.moves), t.moves%2, addr)
}

// Large is a cluster of many tasks, which move one at a time.
type Large struct {
	*Script
	Tasks  []*Task
	agents int
	moves  int
}

// NewLarge loads a cluster of n tasks into m. Each app has so many instances, and each task
// an address of its own, a named port and a host port.
func NewLarge(m *Master, n, agents, instances int) *Large {
	l := &Large{Script: NewScript("5b1d9a7e-3c61-4b52-9d87-0f4e6c2a8b13"), agents: agents}
	state := &GetState{
		Agents:     &GetAgents{},
		Frameworks: &GetFrameworks{Frameworks: []*Framework{l.Framework(0, "marathon", "10.255.255.1", "http://10.255.255.1:8080")}},
	}
	for i := range agents {
		state.Agents.Agents = append(state.Agents.Agents, l.Agent(i, largeAddr(172, 16, i)))
	}
	for i := range n {
		app := App{
			Name: fmt.Sprintf("app-%d", i/instances), Network: "calico",
			Ports:     []Port{{Number: 8080, Name: "http", Protocol: "tcp"}},
			HostPorts: []Range{{uint64(31000 + i%1000), uint64(31000 + i%1000)}},
		}
		id := fmt.Sprintf("app-%d.%08x-414c-343c-1027-c4d1c386bbc4", i/instances, uint32(i)*2654435761)
		l.Tasks = append(l.Tasks, l.Task(app, id, i%agents, largeAddr(10, 0, i)))
	}
	state.Tasks = &GetTasks{Tasks: l.Tasks}
	m.Load(state)
	return l
}

func largeAddr(a, b byte, n int) string {
	return netip.AddrFrom4([4]byte{a, b + byte(n>>16), byte(n >> 8), byte(n)}).String()
}

// Churn moves one task after another to a new address, and returns it.
func (l *Large) Churn(m *Master) *Task {
	i := l.moves * 7919 % len(l.Tasks)
	l.moves++
	id := fmt.Sprintf("%s.%d", l.Tasks[i].Name, l.moves)
	addr := largeAddr(100, 64, l.moves%(1<<22))
	l.Tasks[i] = l.Move(m, l.Tasks[i], id, l.moves%l.agents, addr)
	return l.Tasks[i]
}

// Run moves so many tasks a second until ctx is done, and calls moved with each. Moves that
// are late are made up for.
func (l *Large) Run(ctx context.Context, m *Master, perSecond int, moved func(*Task)) {
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	for done := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for due := int(time.Since(began).Seconds() * float64(perSecond)); done < due; done++ {
			moved(l.Churn(m))
		}
	}
}
