// Package mesostest provides simulated Mesos masters for tests, as net/http/httptest provides
// servers.
//
// A Master serves the Operator API v1 in protobuf and JSON, sends events as its cluster is
// changed, and can be made to fail. A Script makes the messages of a cluster; Tutorial and
// Large are clusters made by one. A Replay sends a recorded stream. Start serves any of them
// on loopback, StartInMemory in a bubble of testing/synctest.
package mesostest

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// The types below are the v1 messages of master.proto and mesos.proto, with the fields that
// the project uses. The tag json is the name of the field in JSON, the tag pb its number,
// with ",always" if it is sent even when it is zero.

// ID is any of AgentID, FrameworkID, TaskID, ExecutorID.
type ID struct {
	Value string `json:"value" pb:"1,always"`
}

// Event is a master::Event.
type Event struct {
	Type             EventType         `json:"type" pb:"1,always"`
	Subscribed       *Subscribed       `json:"subscribed,omitempty" pb:"2"`
	TaskAdded        *TaskAdded        `json:"task_added,omitempty" pb:"3"`
	TaskUpdated      *TaskUpdated      `json:"task_updated,omitempty" pb:"4"`
	AgentAdded       *AgentAdded       `json:"agent_added,omitempty" pb:"5"`
	AgentRemoved     *AgentRemoved     `json:"agent_removed,omitempty" pb:"6"`
	FrameworkAdded   *FrameworkAdded   `json:"framework_added,omitempty" pb:"7"`
	FrameworkUpdated *FrameworkAdded   `json:"framework_updated,omitempty" pb:"8"`
	FrameworkRemoved *FrameworkRemoved `json:"framework_removed,omitempty" pb:"9"`
}

// Subscribed is the first event's content.
type Subscribed struct {
	GetState  *GetState `json:"get_state,omitempty" pb:"1"`
	Heartbeat float64   `json:"heartbeat_interval_seconds,omitempty" pb:"2"`
}

// TaskAdded announces a task.
type TaskAdded struct {
	Task *Task `json:"task" pb:"1"`
}

// TaskUpdated changes a task's state.
type TaskUpdated struct {
	FrameworkID ID         `json:"framework_id" pb:"1"`
	Status      TaskStatus `json:"status" pb:"2"`
	State       TaskState  `json:"state" pb:"3,always"`
}

// AgentAdded announces an agent.
type AgentAdded struct {
	Agent *Agent `json:"agent" pb:"1"`
}

// AgentRemoved removes an agent.
type AgentRemoved struct {
	AgentID ID `json:"agent_id" pb:"1"`
}

// FrameworkAdded announces or updates a framework.
type FrameworkAdded struct {
	Framework *Framework `json:"framework" pb:"1"`
}

// FrameworkRemoved removes a framework.
type FrameworkRemoved struct {
	FrameworkInfo FrameworkInfo `json:"framework_info" pb:"1"`
}

// GetState is a whole cluster.
type GetState struct {
	Tasks      *GetTasks      `json:"get_tasks,omitempty" pb:"1"`
	Executors  *struct{}      `json:"get_executors,omitempty" pb:"2"`
	Frameworks *GetFrameworks `json:"get_frameworks,omitempty" pb:"3"`
	Agents     *GetAgents     `json:"get_agents,omitempty" pb:"4"`
}

// GetTasks are the tasks of a cluster.
type GetTasks struct {
	Tasks       []*Task `json:"tasks,omitempty" pb:"2"`
	Completed   []*Task `json:"completed_tasks,omitempty" pb:"3"`
	Orphan      []*Task `json:"orphan_tasks,omitempty" pb:"4"`
	Unreachable []*Task `json:"unreachable_tasks,omitempty" pb:"5"`
}

// GetFrameworks are the frameworks of a cluster.
type GetFrameworks struct {
	Frameworks []*Framework `json:"frameworks,omitempty" pb:"1"`
	Completed  []*Framework `json:"completed_frameworks,omitempty" pb:"2"`
}

// GetAgents are the agents of a cluster.
type GetAgents struct {
	Agents    []*Agent     `json:"agents,omitempty" pb:"1"`
	Recovered []*AgentInfo `json:"recovered_agents,omitempty" pb:"2"`
}

// Response is a master::Response.
type Response struct {
	Type      ResponseType `json:"type" pb:"1,always"`
	GetState  *GetState    `json:"get_state,omitempty" pb:"9"`
	GetAgents *GetAgents   `json:"get_agents,omitempty" pb:"10"`
	GetMaster *GetMaster   `json:"get_master,omitempty" pb:"16"`
}

// GetMaster names the leading master.
type GetMaster struct {
	MasterInfo MasterInfo `json:"master_info" pb:"1"`
}

// MasterInfo describes a master.
type MasterInfo struct {
	ID       string   `json:"id" pb:"1,always"`
	IP       uint32   `json:"ip" pb:"2,always"`
	Port     uint32   `json:"port" pb:"3,always"`
	PID      string   `json:"pid,omitempty" pb:"4"`
	Hostname string   `json:"hostname,omitempty" pb:"5"`
	Version  string   `json:"version,omitempty" pb:"6"`
	Address  *Address `json:"address,omitempty" pb:"7"`
}

// Address is where a process is reached.
type Address struct {
	Hostname string `json:"hostname,omitempty" pb:"1"`
	IP       string `json:"ip,omitempty" pb:"2"`
	Port     uint32 `json:"port" pb:"3,always"`
}

// Framework is a framework as the master knows it.
type Framework struct {
	FrameworkInfo FrameworkInfo `json:"framework_info" pb:"1"`
	Active        bool          `json:"active" pb:"2,always"`
	Connected     bool          `json:"connected" pb:"3,always"`
	Recovered     bool          `json:"recovered" pb:"11,always"`
}

// FrameworkInfo is what a framework says of itself.
type FrameworkInfo struct {
	User     string `json:"user" pb:"1,always"`
	Name     string `json:"name" pb:"2,always"`
	ID       *ID    `json:"id,omitempty" pb:"3"`
	Hostname string `json:"hostname,omitempty" pb:"7"`
	// Principal is who has registered it.
	Principal string `json:"principal,omitempty" pb:"8"`
	WebUIURL  string `json:"webui_url,omitempty" pb:"9"`
}

// Agent is an agent as the master knows it.
type Agent struct {
	AgentInfo AgentInfo `json:"agent_info" pb:"1"`
	Active    bool      `json:"active" pb:"2,always"`
	Version   string    `json:"version" pb:"3,always"`
	PID       string    `json:"pid,omitempty" pb:"4"`
}

// AgentInfo is what an agent says of itself.
type AgentInfo struct {
	Hostname string `json:"hostname" pb:"1,always"`
	ID       *ID    `json:"id,omitempty" pb:"6"`
	Port     int32  `json:"port,omitempty" pb:"8"`
}

// Task is a task as the master knows it.
type Task struct {
	Name        string         `json:"name" pb:"1,always"`
	TaskID      ID             `json:"task_id" pb:"2"`
	FrameworkID ID             `json:"framework_id" pb:"3"`
	ExecutorID  *ID            `json:"executor_id,omitempty" pb:"4"`
	AgentID     ID             `json:"agent_id" pb:"5"`
	State       TaskState      `json:"state" pb:"6,always"`
	Resources   []Resource     `json:"resources,omitempty" pb:"7"`
	Statuses    []TaskStatus   `json:"statuses,omitempty" pb:"8"`
	Labels      *Labels        `json:"labels,omitempty" pb:"11"`
	Discovery   *DiscoveryInfo `json:"discovery,omitempty" pb:"12"`
	Container   *ContainerInfo `json:"container,omitempty" pb:"13"`
}

// TaskStatus is a status update of a task.
type TaskStatus struct {
	TaskID          ID               `json:"task_id" pb:"1"`
	State           TaskState        `json:"state" pb:"2,always"`
	AgentID         *ID              `json:"agent_id,omitempty" pb:"5"`
	Timestamp       float64          `json:"timestamp,omitempty" pb:"6"`
	Healthy         *bool            `json:"healthy,omitempty" pb:"8"`
	Labels          *Labels          `json:"labels,omitempty" pb:"12"`
	ContainerStatus *ContainerStatus `json:"container_status,omitempty" pb:"13"`
}

// ContainerStatus is what a container turned out to be.
type ContainerStatus struct {
	NetworkInfos []NetworkInfo `json:"network_infos,omitempty" pb:"1"`
}

// NetworkInfo is a network of a container, wanted or given.
type NetworkInfo struct {
	Labels       *Labels       `json:"labels,omitempty" pb:"4"`
	IPAddresses  []IPAddress   `json:"ip_addresses,omitempty" pb:"5"`
	Name         string        `json:"name,omitempty" pb:"6"`
	PortMappings []PortMapping `json:"port_mappings,omitempty" pb:"7"`
}

// IPAddress is an address of a container.
type IPAddress struct {
	Protocol  Protocol `json:"protocol,omitempty" pb:"1"`
	IPAddress string   `json:"ip_address,omitempty" pb:"2"`
}

// PortMapping maps a port of the agent to one of a container.
type PortMapping struct {
	HostPort      uint32 `json:"host_port" pb:"1,always"`
	ContainerPort uint32 `json:"container_port" pb:"2,always"`
	Protocol      string `json:"protocol,omitempty" pb:"3"`
}

// ContainerInfo is the container that a task asked for.
type ContainerInfo struct {
	Type         ContainerType `json:"type" pb:"1,always"`
	Docker       *DockerInfo   `json:"docker,omitempty" pb:"3"`
	NetworkInfos []NetworkInfo `json:"network_infos,omitempty" pb:"7"`
}

// DockerInfo is a Docker container.
type DockerInfo struct {
	Image        string        `json:"image" pb:"1,always"`
	Network      DockerNetwork `json:"network,omitempty" pb:"2"`
	PortMappings []PortMapping `json:"port_mappings,omitempty" pb:"3"`
}

// DiscoveryInfo is how a task should be found.
type DiscoveryInfo struct {
	Visibility Visibility `json:"visibility" pb:"1,always"`
	Name       string     `json:"name,omitempty" pb:"2"`
	Ports      *Ports     `json:"ports,omitempty" pb:"6"`
}

// Ports are the ports of a DiscoveryInfo.
type Ports struct {
	Ports []Port `json:"ports,omitempty" pb:"1"`
}

// Port is a port of a DiscoveryInfo.
type Port struct {
	Number   uint32  `json:"number" pb:"1,always"`
	Name     string  `json:"name,omitempty" pb:"2"`
	Protocol string  `json:"protocol,omitempty" pb:"3"`
	Labels   *Labels `json:"labels,omitempty" pb:"5"`
}

// Labels are labels.
type Labels struct {
	Labels []Label `json:"labels,omitempty" pb:"1"`
}

// Label is a label.
type Label struct {
	Key   string `json:"key" pb:"1,always"`
	Value string `json:"value,omitempty" pb:"2"`
}

// Resource is a resource of a task.
type Resource struct {
	Name   string       `json:"name" pb:"1,always"`
	Type   ResourceType `json:"type" pb:"2,always"`
	Scalar *Scalar      `json:"scalar,omitempty" pb:"3"`
	Ranges *Ranges      `json:"ranges,omitempty" pb:"4"`
}

// Scalar is an amount.
type Scalar struct {
	Value float64 `json:"value" pb:"1,always"`
}

// Ranges are ranges of numbers.
type Ranges struct {
	Range []Range `json:"range,omitempty" pb:"1"`
}

// Range is a range of numbers, both ends included.
type Range struct {
	Begin uint64 `json:"begin" pb:"1,always"`
	End   uint64 `json:"end" pb:"2,always"`
}

// The enumerations are numbers in protobuf and names in JSON.
type (
	// EventType is the type of an Event.
	EventType int32
	// ResponseType is the type of a Response.
	ResponseType int32
	// TaskState is the state of a task.
	TaskState int32
	// Visibility is who should be able to find a task.
	Visibility int32
	// Protocol is the version of an IP address.
	Protocol int32
	// ContainerType is the kind of a container.
	ContainerType int32
	// DockerNetwork is the network mode of a Docker container.
	DockerNetwork int32
	// ResourceType is the kind of a resource's value.
	ResourceType int32
)

// The values of the enumerations that tests use by name.
const (
	TaskStarting TaskState = 0
	TaskRunning  TaskState = 1
	TaskKilled   TaskState = 4
	TaskLost     TaskState = 5
	TaskStaging  TaskState = 6

	TypeMesos  ContainerType = 2
	TypeDocker ContainerType = 1

	rangesType ResourceType = 1
)

var (
	eventTypes    = names{"UNKNOWN", "SUBSCRIBED", "TASK_ADDED", "TASK_UPDATED", "AGENT_ADDED", "AGENT_REMOVED", "FRAMEWORK_ADDED", "FRAMEWORK_UPDATED", "FRAMEWORK_REMOVED", "HEARTBEAT"}
	responseTypes = names{8: "GET_STATE", 9: "GET_AGENTS", 15: "GET_MASTER"}
	taskStates    = names{
		"TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_LOST", "TASK_STAGING",
		"TASK_ERROR", "TASK_KILLING", "TASK_DROPPED", "TASK_UNREACHABLE", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
	}
	visibilities   = names{"FRAMEWORK", "CLUSTER", "EXTERNAL"}
	protocols      = names{1: "IPv4", 2: "IPv6"}
	containerTypes = names{1: "DOCKER", 2: "MESOS"}
	dockerNetworks = names{1: "HOST", 2: "BRIDGE", 3: "NONE", 4: "USER"}
	resourceTypes  = names{"SCALAR", "RANGES", "SET", "TEXT"}
)

// names are the names of an enumeration's values.
type names []string

func (n names) text(v int32) ([]byte, error) {
	if v < 0 || int(v) >= len(n) || n[v] == "" {
		return nil, fmt.Errorf("no value %d in %q", v, n)
	}
	return []byte(n[v]), nil
}

// parse sets v by name. An unknown name becomes -1.
func (n names) parse(v *int32, text []byte) error {
	*v = -1
	for i, name := range n {
		if name == string(text) {
			*v = int32(i)
		}
	}
	return nil
}

// MarshalText returns the value's name.
func (v EventType) MarshalText() ([]byte, error) { return eventTypes.text(int32(v)) }

// MarshalText returns the value's name.
func (v ResponseType) MarshalText() ([]byte, error) { return responseTypes.text(int32(v)) }

// MarshalText returns the value's name.
func (v TaskState) MarshalText() ([]byte, error) { return taskStates.text(int32(v)) }

// MarshalText returns the value's name.
func (v Visibility) MarshalText() ([]byte, error) { return visibilities.text(int32(v)) }

// MarshalText returns the value's name.
func (v Protocol) MarshalText() ([]byte, error) { return protocols.text(int32(v)) }

// MarshalText returns the value's name.
func (v ContainerType) MarshalText() ([]byte, error) { return containerTypes.text(int32(v)) }

// MarshalText returns the value's name.
func (v DockerNetwork) MarshalText() ([]byte, error) { return dockerNetworks.text(int32(v)) }

// MarshalText returns the value's name.
func (v ResourceType) MarshalText() ([]byte, error) { return resourceTypes.text(int32(v)) }

// UnmarshalText sets the value by name.
func (v *EventType) UnmarshalText(b []byte) error { return eventTypes.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *ResponseType) UnmarshalText(b []byte) error { return responseTypes.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *TaskState) UnmarshalText(b []byte) error { return taskStates.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *Visibility) UnmarshalText(b []byte) error { return visibilities.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *Protocol) UnmarshalText(b []byte) error { return protocols.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *ContainerType) UnmarshalText(b []byte) error { return containerTypes.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *DockerNetwork) UnmarshalText(b []byte) error { return dockerNetworks.parse((*int32)(v), b) }

// UnmarshalText sets the value by name.
func (v *ResourceType) UnmarshalText(b []byte) error { return resourceTypes.parse((*int32)(v), b) }

// ParseState reads a GetState in JSON, bare or in a Response.
func ParseState(b []byte) (*GetState, error) {
	var r Response
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("response in JSON: %w", err)
	}
	if r.GetState != nil {
		return r.GetState, nil
	}
	s := new(GetState)
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("state in JSON: %w", err)
	}
	return s, nil
}

// Protobuf encodes a pointer to one of the messages of this package.
func Protobuf(message any) []byte {
	return encoder{}.message(nil, reflect.ValueOf(message).Elem())
}

// encoder encodes messages.
type encoder struct {
	tasks map[*Task][]byte // those that are encoded already; may be nil
}

// prefixed inserts the length of what stands after start in b before it.
func prefixed(b []byte, start int) []byte {
	n := len(b) - start
	size := protowire.SizeVarint(uint64(n))
	b = append(b, make([]byte, size)...)
	copy(b[start+size:], b[start:start+n])
	protowire.AppendVarint(b[:start], uint64(n))
	return b
}

// pbField is a field of a message type: its number, and whether it is sent when it is zero.
type pbField struct {
	index  int
	num    protowire.Number
	always bool
}

var fieldsOf sync.Map // reflect.Type -> []pbField

func messageFields(t reflect.Type) []pbField {
	if known, ok := fieldsOf.Load(t); ok {
		return known.([]pbField)
	}
	var fields []pbField
	for i := range t.NumField() {
		num, option, _ := strings.Cut(t.Field(i).Tag.Get("pb"), ",")
		n, err := strconv.Atoi(num)
		if err != nil {
			panic(fmt.Sprintf("mesostest: field %s of %s: %v", t.Field(i).Name, t, err))
		}
		fields = append(fields, pbField{i, protowire.Number(n), option == "always"})
	}
	fieldsOf.Store(t, fields)
	return fields
}

func (e encoder) message(b []byte, v reflect.Value) []byte {
	for _, f := range messageFields(v.Type()) {
		b = e.field(b, f.num, v.Field(f.index), f.always)
	}
	return b
}

func (e encoder) field(b []byte, num protowire.Number, v reflect.Value, always bool) []byte {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			b = e.field(b, num, v.Index(i), true)
		}
		return b
	case reflect.Pointer:
		if v.IsNil() {
			return b
		}
		if t, ok := v.Interface().(*Task); ok && e.tasks[t] != nil {
			return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), e.tasks[t])
		}
		return e.field(b, num, v.Elem(), true)
	case reflect.Struct:
		b = protowire.AppendTag(b, num, protowire.BytesType)
		return prefixed(e.message(b, v), len(b))
	}
	if v.IsZero() && !always {
		return b
	}
	switch v.Kind() {
	case reflect.String:
		return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), v.String())
	case reflect.Float64:
		return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), math.Float64bits(v.Float()))
	case reflect.Bool:
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), protowire.EncodeBool(v.Bool()))
	case reflect.Int32:
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), uint64(v.Int()))
	case reflect.Uint32, reflect.Uint64:
		return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v.Uint())
	default:
		panic(fmt.Sprintf("mesostest: no encoding of %s", v.Type()))
	}
}
