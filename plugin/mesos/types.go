// Package mesos is a client of the Operator API v1 of Mesos masters (POST /api/v1). It
// subscribes to a master's events, asks for its state, and follows the redirect of a
// master that does not lead.
//
// Messages are decoded as they stream in, field by field, into small types that have only
// what DNS needs: a message that holds a whole cluster is never in memory as a whole. No
// package above this one knows protobuf, RecordIO or the masters' HTTP.
package mesos

import (
	"net/netip"
	"strconv"
	"time"
)

// TaskState is the v1 TaskState. Unknown values of newer masters are kept.
type TaskState int32

// The states of the v1 TaskState that other packages compare with. Only a task in
// TaskRunning is published.
const (
	TaskStarting TaskState = 0
	TaskRunning  TaskState = 1
	TaskStaging  TaskState = 6
)

// stateNames are the names of the v1 TaskState, by value.
var stateNames = [...]string{
	"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_STAGING",
	"TASK_ERROR", "TASK_KILLING", "TASK_DROPPED", "TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
}

// String returns the name in v1/mesos.proto.
func (s TaskState) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return "TaskState(" + strconv.Itoa(int(s)) + ")"
	}
	return stateNames[s]
}

// Terminal reports whether a task in this state has ended. A lost task whose agent returns
// is announced anew, by a TASK_ADDED with all that is known of it.
func (s TaskState) Terminal() bool {
	switch s {
	case 2, 3, 4, 5, 7, 9, 11, 12: // FINISHED FAILED KILLED LOST ERROR DROPPED GONE GONE_BY_OPERATOR
		return true
	}
	return false
}

// AgentGone reports whether a task is in this state because its agent is unreachable or
// was marked gone. Masters send no AGENT_REMOVED for that. If the agent returns, they send
// AGENT_ADDED.
func (s TaskState) AgentGone() bool { return s == 10 || s == 12 }

// Visibility is the v1 DiscoveryInfo.Visibility: who should be able to find a task.
type Visibility int32

// The values of DiscoveryInfo.Visibility, from the narrowest to the widest.
const (
	VisibilityFramework Visibility = iota
	VisibilityCluster
	VisibilityExternal
)

// Task is what DNS needs of a v1 Task.
type Task struct {
	ID          string // unique within its framework
	FrameworkID string
	AgentID     string
	State       TaskState
	Name        string
	Discovery   *Discovery  // nil without a DiscoveryInfo
	Container   Container   // port mappings of the ContainerInfo
	VIPPorts    []VIPPort   // labels VIP_PORTn
	HAProxy     []Label     // labels HAPROXY_…, which Marathon-LB reads, that say who claims a host name
	Ports       []PortRange // resource "ports", in the order of the message
	Status      Status      // merged from all statuses so far
}

// Label is a v1 Label of a task.
type Label struct{ Key, Value string }

// Discovery is a v1 DiscoveryInfo.
type Discovery struct {
	Name       string // "" if the message has none
	Visibility Visibility
	Ports      []Port
}

// Port is a v1 Port of a DiscoveryInfo.
type Port struct {
	Number   uint32 // as sent, unchecked
	Name     string
	Protocol string
	Host     bool // label network-scope is "host": a port of the agent
}

// Container is what a v1 ContainerInfo says about ports and networks.
type Container struct {
	Docker       bool          // type is DOCKER
	Bridged      bool          // it is reached at the agent: DockerInfo.network is HOST or BRIDGE, or a network is mesos-bridge
	Named        bool          // a network_info has a name
	Networks     int           // number of network_infos
	PortMappings []PortMapping // of docker if Docker, else of network_infos
}

// PortMapping is a v1 PortMapping of a NetworkInfo or a DockerInfo.
type PortMapping struct {
	HostPort      uint32
	ContainerPort uint32
	Protocol      string
}

// PortRange is a Range of the resource "ports". Both ends are included.
type PortRange struct{ Begin, End uint64 }

// VIPPort is a task's label VIP_PORTn, in any case: it makes the n-th port of the resource
// "ports" a host port of this protocol.
type VIPPort struct {
	Index    int
	Protocol string // what stands before "://" in the label's value
}

// Health is the result of a task's health check.
type Health int8

// The results of a health check. It is HealthUnknown before the first one.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
)

// Status is what the statuses of a task say together: each property comes from the last
// status that has it, since later ones may lack it. The last is the last in a master's list,
// and then the last event. A timestamp is an agent's clock, and decides nothing.
type Status struct {
	Networks  []Network     // container_status.network_infos, if any has an address
	Labels    *StatusLabels // nil if no status had any of these labels
	Health    Health
	addressed bool // an address in Networks can be parsed
}

// StatusLabels are the addresses in the labels of a TaskStatus. One that cannot be parsed
// is the zero netip.Addr, to be counted.
type StatusLabels struct {
	Docker []netip.Addr // Docker.NetworkSettings.IPAddress
	Mesos  []netip.Addr // MesosContainerizer.NetworkSettings.IPAddress
}

// merge takes over what the next status says. Networks without an address that can be parsed
// replace none with one.
func (s *Status) merge(next *Status) {
	if next.Networks != nil && (next.addressed || !s.addressed) {
		s.Networks, s.addressed = next.Networks, next.addressed
	}
	if next.Health != HealthUnknown {
		s.Health = next.Health
	}
	if next.Labels != nil {
		s.Labels = next.Labels
	}
}

// Network is a v1 NetworkInfo. An address that cannot be parsed is the zero netip.Addr, so
// that it can be counted.
type Network struct {
	Name         string
	Addrs        []netip.Addr
	PortMappings []PortMapping
}

// Agent is a v1 Agent, or the AgentInfo of a recovered one.
type Agent struct {
	ID       string
	Hostname string
	Port     uint32     // 5051 if the message has none
	Addr     netip.Addr // from the pid, else the hostname if it is an IP address, else invalid
}

// Framework is a v1 Framework.
type Framework struct {
	ID       string
	Name     string
	Hostname string
	WebUIURL string
	// Principal is who has registered it. It is true only where the master makes frameworks
	// authenticate.
	Principal string
}

// MasterID identifies a process of a master: MasterInfo.id, or the host:port of its API
// where that is not known.
type MasterID string

// State is a v1 GetState: a whole cluster.
type State struct {
	Tasks           []PackedTask
	Frameworks      []*Framework
	Agents          []*Agent // registered
	RecoveredAgents []*Agent // known from the registry, not yet re-registered
	Malformed       int      // number of objects left out because they could not be decoded
}

// NoAgents reports whether s has neither registered nor recovered agents.
func (s *State) NoAgents() bool { return len(s.Agents)+len(s.RecoveredAgents) == 0 }

// Event is Subscribed, TaskAdded, TaskUpdated, AgentAdded, AgentRemoved, FrameworkAdded,
// FrameworkUpdated, FrameworkRemoved, Heartbeat or Unknown.
type Event any

// Subscribed is the first event of a stream.
type Subscribed struct {
	State     *State
	Heartbeat time.Duration // interval of heartbeats, 0 if the master announces none
}

// TaskAdded announces a task, or repeats one with all that is known of it.
type TaskAdded struct{ Task *Task }

// TaskUpdated changes the state of a task. It has neither name nor ports.
type TaskUpdated struct {
	TaskID      string
	FrameworkID string
	State       TaskState
	Status      Status
}

// AgentAdded announces an agent that has registered or re-registered.
type AgentAdded struct{ Agent *Agent }

// AgentRemoved says that an agent is gone.
type AgentRemoved struct{ AgentID string }

// FrameworkAdded announces a framework.
type FrameworkAdded struct{ Framework *Framework }

// FrameworkUpdated repeats a framework; anything may have changed.
type FrameworkUpdated struct{ Framework *Framework }

// FrameworkRemoved says that a framework is gone.
type FrameworkRemoved struct{ FrameworkID string }

// Heartbeat says that the stream is alive.
type Heartbeat struct{}

// Unknown is an event of an unknown type, or one that is malformed.
type Unknown struct{}

// EventType returns the name of the v1 Event.Type of ev.
func EventType(ev Event) string {
	switch ev.(type) {
	case Subscribed:
		return "SUBSCRIBED"
	case TaskAdded:
		return "TASK_ADDED"
	case TaskUpdated:
		return "TASK_UPDATED"
	case AgentAdded:
		return "AGENT_ADDED"
	case AgentRemoved:
		return "AGENT_REMOVED"
	case FrameworkAdded:
		return "FRAMEWORK_ADDED"
	case FrameworkUpdated:
		return "FRAMEWORK_UPDATED"
	case FrameworkRemoved:
		return "FRAMEWORK_REMOVED"
	case Heartbeat:
		return "HEARTBEAT"
	}
	return "UNKNOWN"
}
