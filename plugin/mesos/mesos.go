// Package mesos is a client of the Mesos Operator API v1 (POST /api/v1) that
// keeps of each message only what DNS needs. Nothing above it knows protobuf
// or HTTP.
package mesos

import (
	"net/netip"
	"slices"
	"time"
)

// TaskState is the v1 TaskState. Values that a newer master may add are kept as
// they are: a task is published in TaskRunning and in no other state.
type TaskState int32

// The states of the v1 TaskState that a reader of this package compares with.
const (
	TaskStarting TaskState = 0
	TaskRunning  TaskState = 1
	TaskStaging  TaskState = 6
)

// Terminal reports whether a task in this state runs no more, unless the master
// announces it anew with all that is known of it (TASK_ADDED), as it does with
// a lost one whose agent returns.
func (s TaskState) Terminal() bool {
	switch s {
	case 2, 3, 4, 5, 7, 9, 11, 12: // FINISHED FAILED KILLED LOST ERROR DROPPED GONE GONE_BY_OPERATOR
		return true
	}
	return false
}

// AgentGone reports whether a task is in this state because its agent is not
// registered any more: unreachable, or marked gone by an operator. Masters tell
// it of the tasks alone, without an AGENT_REMOVED; if the agent returns, they
// send AGENT_ADDED.
func (s TaskState) AgentGone() bool { return s == 10 || s == 12 }

// Visibility is the v1 DiscoveryInfo.Visibility: how far a task wants to be seen.
type Visibility int32

// The levels of DiscoveryInfo.Visibility, the least visible first.
const (
	VisibilityFramework Visibility = iota
	VisibilityCluster
	VisibilityExternal
)

// Task is a v1 Task cut to what DNS needs. A Task is immutable once it left
// this package.
type Task struct {
	ID          string // unique within its framework only
	FrameworkID string
	AgentID     string
	*App
	Ports  []PortRange // the resource "ports", in the order of the message
	Status Status      // what the task's statuses said so far
	State  TaskState
}

// App is the part of a Task that the instances of an app have in common, and
// often share. It is never nil, and immutable.
type App struct {
	Name      string
	Discovery *Discovery // nil without a DiscoveryInfo
	Container Container  // port mappings of the ContainerInfo
	VIPPorts  []VIPPort  // labels VIP_PORTn
}

// Discovery is a v1 DiscoveryInfo.
type Discovery struct {
	Name       string // empty where the message has none
	Visibility Visibility
	Ports      []Port
}

// Port is a v1 Port of a DiscoveryInfo.
type Port struct {
	Number   uint32 // as sent, not checked
	Name     string
	Protocol string
	Host     bool // label network-scope is "host": a port of the agent
}

// Container is what a v1 ContainerInfo says of ports.
type Container struct {
	Docker       bool          // type is DOCKER
	Networks     int           // how many network_infos it has
	PortMappings []PortMapping // docker.port_mappings if Docker, else those of network_infos
}

// PortMapping is a v1 PortMapping of a NetworkInfo or a DockerInfo.
type PortMapping struct {
	HostPort      uint32
	ContainerPort uint32
	Protocol      string
}

// PortRange is a Range of the resource "ports", both ends included.
type PortRange struct{ Begin, End uint64 }

// VIPPort is the label VIP_PORTn of a task, in any case: the n-th port of the
// resource "ports" is a host port of this protocol.
type VIPPort struct {
	Index    int
	Protocol string // what stands before "://" in the label's value
}

// Health is the result of a task's health check.
type Health int8

// The results of a health check; HealthUnknown before the first one.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// Status is what the statuses of a task said: of each property the value from
// the newest status (by timestamp) that has it, since a later status may lack
// what an earlier one told.
type Status struct {
	Networks     []Network     // container_status.network_infos, where any has an address
	Labels       *StatusLabels // nil where no status had any of them
	Health       Health
	addressed    bool // an address in Networks can be parsed
	networksTime float64
	healthTime   float64
}

// StatusLabels are the addresses in the labels of a TaskStatus. What cannot be
// parsed is the zero netip.Addr, so that it can be counted.
type StatusLabels struct {
	Docker []netip.Addr // Docker.NetworkSettings.IPAddress
	Mesos  []netip.Addr // MesosContainerizer.NetworkSettings.IPAddress
	time   float64
}

func (l *StatusLabels) equal(o *StatusLabels) bool {
	if l == nil || o == nil {
		return l == o
	}
	return slices.Equal(l.Docker, o.Docker) && slices.Equal(l.Mesos, o.Mesos)
}

// merge takes from s what newer says, unless s has it from a later status.
func (s *Status) merge(newer *Status) {
	later := newer.networksTime >= s.networksTime && newer.addressed == s.addressed || newer.addressed && !s.addressed
	if newer.Networks != nil && (s.Networks == nil || later) {
		s.Networks, s.networksTime, s.addressed = newer.Networks, newer.networksTime, newer.addressed
	}
	if newer.Health != HealthUnknown && (s.Health == HealthUnknown || newer.healthTime >= s.healthTime) {
		s.Health, s.healthTime = newer.Health, newer.healthTime
	}
	if newer.Labels != nil && (s.Labels == nil || newer.Labels.time >= s.Labels.time) {
		s.Labels = newer.Labels
	}
}

// Network is a v1 NetworkInfo. An address that cannot be parsed is the zero
// netip.Addr, so that it can be counted.
type Network struct {
	Name         string
	Addrs        []netip.Addr
	PortMappings []PortMapping
}

// Equal reports whether t and o say the same to DNS; when a status said it does
// not matter.
func (t *Task) Equal(o *Task) bool {
	return t.ID == o.ID && t.FrameworkID == o.FrameworkID && t.AgentID == o.AgentID && t.State == o.State &&
		equalApps(t.App, o.App) && slices.Equal(t.Ports, o.Ports) && t.Status.equal(&o.Status)
}

func equalApps(a, o *App) bool {
	return a == o || a.Name == o.Name && a.Discovery.equal(o.Discovery) && a.Container.equal(&o.Container) && slices.Equal(a.VIPPorts, o.VIPPorts)
}

func (d *Discovery) equal(o *Discovery) bool {
	if d == nil || o == nil {
		return d == o
	}
	return d.Name == o.Name && d.Visibility == o.Visibility && slices.Equal(d.Ports, o.Ports)
}

func (c *Container) equal(o *Container) bool {
	return c.Docker == o.Docker && c.Networks == o.Networks && slices.Equal(c.PortMappings, o.PortMappings)
}

func (s *Status) equal(o *Status) bool {
	return s.Health == o.Health && slices.EqualFunc(s.Networks, o.Networks, Network.equal) && s.Labels.equal(o.Labels)
}

func (n Network) equal(o Network) bool {
	return n.Name == o.Name && slices.Equal(n.Addrs, o.Addrs) && slices.Equal(n.PortMappings, o.PortMappings)
}

// With returns the task as it is after u. The state is u's (TASK_UPDATED.state
// is the truth, its status may lag behind); of the status what u has replaces
// what was known, the rest stays.
func (t *Task) With(u TaskUpdated) *Task {
	next := *t
	next.State = u.State
	next.Status.merge(&u.Status)
	return &next
}

// Keep returns t with what older, an earlier message of the same task on the
// same agent, knew and t does not say: the addresses of a container do not
// change, but not every message has them.
func (t *Task) Keep(older *Task) *Task {
	if t.Status.Networks != nil || older.Status.Networks == nil || t.AgentID != older.AgentID {
		return t
	}
	next := *t
	next.Status.Networks, next.Status.networksTime = older.Status.Networks, older.Status.networksTime
	next.Status.addressed = older.Status.addressed
	return &next
}

// Agent is a v1 Agent, or the AgentInfo of a recovered one.
type Agent struct {
	ID       string
	Hostname string
	Port     uint32     // where the agent listens; 5051 where the message has none
	Addr     netip.Addr // from the pid, else the hostname where it is an IP, else invalid
}

// Framework is a v1 Framework.
type Framework struct {
	ID       string
	Name     string
	Hostname string
	WebUIURL string
}

// State is a v1 GetState: a whole cluster.
type State struct {
	Tasks           []*Task
	Frameworks      []*Framework
	Agents          []*Agent
	RecoveredAgents []*Agent // listed by the master, not yet re-registered
	Malformed       int      // messages in it that could not be decoded and were left out
}

// NoAgents reports whether s knows no agent whatever.
func (s *State) NoAgents() bool { return len(s.Agents)+len(s.RecoveredAgents) == 0 }

// Event is one of Subscribed, TaskAdded, TaskUpdated, AgentAdded, AgentRemoved,
// FrameworkAdded, FrameworkUpdated, FrameworkRemoved, Heartbeat, Unknown.
type Event interface{ EventType() string }

// Subscribed is the first event of a stream.
type Subscribed struct {
	State     *State
	Heartbeat time.Duration // 0 where the master announces none
}

// TaskAdded announces a task, or repeats one with all that is known of it.
type TaskAdded struct{ Task *Task }

// TaskUpdated changes the state of a task. It carries neither name nor ports.
type TaskUpdated struct {
	TaskID      string
	FrameworkID string
	State       TaskState
	Status      Status
}

// AgentAdded announces a registered or re-registered agent.
type AgentAdded struct{ Agent *Agent }

// AgentRemoved says that an agent is gone.
type AgentRemoved struct{ AgentID string }

// FrameworkAdded announces a framework.
type FrameworkAdded struct{ Framework *Framework }

// FrameworkUpdated repeats a framework, of which anything may have changed.
type FrameworkUpdated struct{ Framework *Framework }

// FrameworkRemoved says that a framework is gone.
type FrameworkRemoved struct{ FrameworkID string }

// Heartbeat says that the stream lives.
type Heartbeat struct{}

// Unknown is an event of a type that this package does not know, or one
// that lacks what its type promises.
type Unknown struct{}

// EventType returns the name of the v1 Event.Type.
func (Subscribed) EventType() string { return "SUBSCRIBED" }

// EventType returns the name of the v1 Event.Type.
func (TaskAdded) EventType() string { return "TASK_ADDED" }

// EventType returns the name of the v1 Event.Type.
func (TaskUpdated) EventType() string { return "TASK_UPDATED" }

// EventType returns the name of the v1 Event.Type.
func (AgentAdded) EventType() string { return "AGENT_ADDED" }

// EventType returns the name of the v1 Event.Type.
func (AgentRemoved) EventType() string { return "AGENT_REMOVED" }

// EventType returns the name of the v1 Event.Type.
func (FrameworkAdded) EventType() string { return "FRAMEWORK_ADDED" }

// EventType returns the name of the v1 Event.Type.
func (FrameworkUpdated) EventType() string { return "FRAMEWORK_UPDATED" }

// EventType returns the name of the v1 Event.Type.
func (FrameworkRemoved) EventType() string { return "FRAMEWORK_REMOVED" }

// EventType returns the name of the v1 Event.Type.
func (Heartbeat) EventType() string { return "HEARTBEAT" }

// EventType returns the name of the v1 Event.Type.
func (Unknown) EventType() string { return "UNKNOWN" }
