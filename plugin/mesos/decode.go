package mesos

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Bounds of the strings that a decoder keeps for sharing. No id or label is longer.
const (
	maxInterned       = 1 << 17
	maxInternedLength = 255
)

// defaultAgentPort is the default of AgentInfo.port.
const defaultAgentPort = 5051

// Labels with a meaning for addresses, ports and names.
const (
	networkScope  = "network-scope" // of a port of a DiscoveryInfo
	vipPrefix     = "VIP_PORT"      // of a task
	haproxyPrefix = "HAPROXY_"      // of a task
	dockerAddress = "Docker.NetworkSettings.IPAddress"
	mesosAddress  = "MesosContainerizer.NetworkSettings.IPAddress"
)

// Values of DockerInfo.Network. Without one it is HOST.
const (
	dockerHost   = 1
	dockerBridge = 2
	dockerUser   = 4
)

// mesosBridge is the network on which agents map ports of their own to containers.
const mesosBridge = "mesos-bridge"

// errNoState is returned for a SUBSCRIBED without a state, which would empty the cluster.
var errNoState = errors.New("SUBSCRIBED has no state")

// decoder decodes v1 messages into the types of this package. Field numbers are those of
// v1/master/master.proto and v1/mesos.proto.
type decoder struct{ interned map[string]string }

func newDecoder() *decoder { return &decoder{interned: make(map[string]string)} }

// intern returns b as a string that all callers share: for ids of agents and frameworks,
// and names of networks, ports and protocols.
func (d *decoder) intern(b []byte) string {
	if len(b) > maxInternedLength {
		return string(b)
	}
	if s, ok := d.interned[string(b)]; ok {
		return s
	}
	if len(d.interned) >= maxInterned {
		clear(d.interned)
	}
	s := string(b)
	d.interned[s] = s
	return s
}

// event decodes an Event. One whose content is malformed or has no id is returned as
// Unknown; an error means that the record itself is broken.
func (d *decoder) event(w *wire) (Event, error) {
	var (
		ev  Event = Unknown{}
		typ uint64
	)
	err := w.message(func(num protowire.Number, wt protowire.Type) (bool, error) {
		switch {
		case num == 1 && wt == protowire.VarintType:
			var err error
			typ, err = w.varint()
			return true, err
		case wt != protowire.BytesType:
			return false, nil
		case num == 2:
			s := Subscribed{}
			used, err := d.subscribed(w, &s)
			if err == nil && s.State == nil {
				err = errNoState
			}
			ev = s
			return used, err
		case num >= 3 && num <= 9:
			b, err := w.bytes()
			if err == nil && b != nil {
				ev = d.change(num, b)
			}
			return true, err
		}
		return false, nil
	})
	if typ == 9 {
		ev = Heartbeat{}
	}
	return ev, err
}

func (d *decoder) subscribed(w *wire, s *Subscribed) (bool, error) {
	return w.nested(func(num protowire.Number, wt protowire.Type) (bool, error) {
		switch {
		case num == 1 && wt == protowire.BytesType:
			if s.State == nil {
				s.State = new(State)
			}
			return d.state(w, s.State)
		case num == 2 && wt == protowire.Fixed64Type:
			sec, err := w.double()
			if sec > 0 && sec < float64(math.MaxInt64)/float64(time.Second) {
				s.Heartbeat = time.Duration(sec * float64(time.Second))
			}
			return true, err
		}
		return false, nil
	})
}

// change decodes field num of an Event, which holds one object.
func (d *decoder) change(num protowire.Number, b []byte) Event {
	switch num {
	case 3:
		if t := d.task(message(b, 1)); t != nil {
			return TaskAdded{t}
		}
	case 4:
		if u, ok := d.taskUpdated(b); ok {
			return u
		}
	case 5:
		if a := d.agent(message(b, 1)); a != nil {
			return AgentAdded{a}
		}
	case 6:
		if id := d.id(message(b, 1)); id != "" {
			return AgentRemoved{id}
		}
	case 7:
		if f := d.framework(message(b, 1)); f != nil {
			return FrameworkAdded{f}
		}
	case 8:
		if f := d.framework(message(b, 1)); f != nil {
			return FrameworkUpdated{f}
		}
	case 9:
		var f Framework
		if d.frameworkInfo(message(b, 1), &f) == nil && f.ID != "" {
			return FrameworkRemoved{f.ID}
		}
	}
	return Unknown{}
}

// response decodes field num of a Response, and reports whether it is there.
func response(w *wire, num protowire.Number, decode func(*wire) (bool, error)) (bool, error) {
	there := false
	err := w.toEOF(func(n protowire.Number, wt protowire.Type) (bool, error) {
		if n == num && wt == protowire.BytesType {
			there = true
			return decode(w)
		}
		return false, nil
	})
	return there, err
}

// state decodes a GetState into s.
func (d *decoder) state(w *wire, s *State) (bool, error) {
	return w.nested(func(num protowire.Number, wt protowire.Type) (bool, error) { return d.stateField(w, s, num, wt) })
}

// stateField decodes field num of a GetState into s.
func (d *decoder) stateField(w *wire, s *State, num protowire.Number, wt protowire.Type) (bool, error) {
	if wt != protowire.BytesType {
		return false, nil
	}
	switch num {
	case 1:
		return d.each(w, s, func(num protowire.Number, b []byte) bool { return d.stateTask(s, num, b) })
	case 3:
		return d.each(w, s, func(num protowire.Number, b []byte) bool { return d.stateFramework(s, num, b) })
	case 4:
		return d.agents(w, s)
	}
	return false, nil
}

// agents decodes a GetAgents into s.
func (d *decoder) agents(w *wire, s *State) (bool, error) {
	return d.each(w, s, func(num protowire.Number, b []byte) bool { return d.stateAgent(s, num, b) })
}

// each reads the messages in a GetTasks, GetFrameworks or GetAgents. add returns false for
// one that is malformed.
func (d *decoder) each(w *wire, s *State, add func(num protowire.Number, b []byte) bool) (bool, error) {
	return w.nested(func(num protowire.Number, wt protowire.Type) (bool, error) {
		if wt != protowire.BytesType {
			return false, nil
		}
		b, err := w.bytes()
		if err == nil && (b == nil || !add(num, b)) {
			s.Malformed++
		}
		return true, err
	})
}

// stateTask adds tasks (2) and, from a Mesos before 1.2, orphan tasks (4). Those run, too,
// and their framework is announced when it re-registers.
func (d *decoder) stateTask(s *State, num protowire.Number, b []byte) bool {
	if num != 2 && num != 4 {
		return true
	}
	t := d.task(b)
	if t == nil {
		return false
	}
	s.Tasks = append(s.Tasks, t.Pack())
	return true
}

func (d *decoder) stateFramework(s *State, num protowire.Number, b []byte) bool {
	if num != 1 {
		return true
	}
	f := d.framework(b)
	if f == nil {
		return false
	}
	s.Frameworks = append(s.Frameworks, f)
	return true
}

func (d *decoder) stateAgent(s *State, num protowire.Number, b []byte) bool {
	switch num {
	case 1:
		a := d.agent(b)
		if a == nil {
			return false
		}
		s.Agents = append(s.Agents, a)
	case 2:
		a := &Agent{Port: defaultAgentPort}
		if d.agentInfo(b, a) != nil || a.ID == "" {
			return false
		}
		a.Addr = ParseAddr(a.Hostname)
		s.RecoveredAgents = append(s.RecoveredAgents, a)
	}
	return true
}

// task decodes a Task. It returns nil if the task is malformed or lacks an id.
func (d *decoder) task(b []byte) *Task {
	t := new(Task)
	var labels []byte
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			t.Name = string(f.b)
		case 2:
			t.ID = string(message(f.b, 1))
		case 3:
			t.FrameworkID = d.id(f.b)
		case 5:
			t.AgentID = d.id(f.b)
		case 6:
			t.State = TaskState(int32(f.u))
		case 7:
			f.nested(d.ports(f.b, &t.Ports))
		case 8:
			var s Status
			f.nested(d.status(f.b, &s, nil))
			t.Status.merge(&s)
		case 11:
			labels = f.b
		case 12:
			t.Discovery = new(Discovery)
			f.nested(d.discovery(f.b, t.Discovery))
		case 13:
			f.nested(d.container(f.b, &t.Container))
		}
	}
	f.nested(eachLabel(labels, func(key, value []byte) {
		d.vipPort(t, key, value)
		d.haproxy(t, key, value)
	}))
	if f.err != nil || t.ID == "" || t.FrameworkID == "" {
		return nil
	}
	return t
}

func (d *decoder) taskUpdated(b []byte) (TaskUpdated, bool) {
	var u TaskUpdated
	hasState := false
	var statusState TaskState
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			u.FrameworkID = d.id(f.b)
		case 2:
			var own statusOwner
			f.nested(d.status(f.b, &u.Status, &own))
			u.TaskID, statusState = own.taskID, own.state
		case 3:
			u.State, hasState = TaskState(int32(f.u)), true
		}
	}
	if !hasState {
		u.State = statusState
	}
	return u, f.err == nil && u.TaskID != "" && u.FrameworkID != ""
}

// statusOwner is what a TaskStatus says that a Task says itself.
type statusOwner struct {
	taskID string
	state  TaskState
}

// status decodes a TaskStatus into s, and into own if that is not nil.
func (d *decoder) status(b []byte, s *Status, own *statusOwner) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			if own != nil {
				own.taskID = string(message(f.b, 1))
			}
		case 2:
			if own != nil {
				own.state = TaskState(int32(f.u))
			}
		case 8:
			s.Health = Unhealthy
			if f.u != 0 {
				s.Health = Healthy
			}
		case 12:
			f.nested(eachLabel(f.b, func(key, value []byte) {
				switch string(key) {
				case dockerAddress:
					s.labels().Docker = append(s.labels().Docker, ParseAddr(string(value)))
				case mesosAddress:
					s.labels().Mesos = append(s.labels().Mesos, ParseAddr(string(value)))
				}
			}))
		case 13:
			f.nested(d.containerStatus(f.b, s))
		}
	}
	return f.err
}

// labels returns s.Labels, which it allocates first.
func (s *Status) labels() *StatusLabels {
	if s.Labels == nil {
		s.Labels = new(StatusLabels)
	}
	return s.Labels
}

// containerStatus decodes the network_infos of a ContainerStatus, if any has an address.
func (d *decoder) containerStatus(b []byte, s *Status) error {
	var networks []Network
	addrs := 0
	f := scan(b)
	for f.next() {
		if f.num == 1 {
			var n Network
			f.nested(d.network(f.b, &n))
			addrs += len(n.Addrs)
			networks = append(networks, n)
			s.addressed = s.addressed || slices.ContainsFunc(n.Addrs, netip.Addr.IsValid)
		}
	}
	if addrs > 0 {
		s.Networks = networks
	}
	return f.err
}

func (d *decoder) network(b []byte, n *Network) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 5:
			n.Addrs = append(n.Addrs, ParseAddr(string(message(f.b, 2))))
		case 6:
			n.Name = d.intern(f.b)
		case 7:
			f.nested(d.portMapping(f.b, 1, &n.PortMappings))
		}
	}
	return f.err
}

// portMapping decodes a PortMapping and appends it. Its fields host_port, container_port
// and protocol are numbered from first.
func (d *decoder) portMapping(b []byte, first protowire.Number, to *[]PortMapping) error {
	var m PortMapping
	f := scan(b)
	for f.next() {
		switch f.num {
		case first:
			m.HostPort = uint32(f.u)
		case first + 1:
			m.ContainerPort = uint32(f.u)
		case first + 2:
			m.Protocol = d.intern(f.b)
		}
	}
	*to = append(*to, m)
	return f.err
}

// container decodes a ContainerInfo: the port mappings of docker for a Docker container,
// else those of network_infos.
func (d *decoder) container(b []byte, c *Container) error {
	var docker, networks []PortMapping
	mode := uint64(dockerHost)
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			c.Docker = f.u == 1
		case 3:
			g := scan(f.b)
			for g.next() {
				switch g.num {
				case 2:
					mode = g.u
				case 3:
					g.nested(d.portMapping(g.b, 1, &docker))
				}
			}
			f.nested(g.err)
		case 7:
			var n Network
			f.nested(d.network(f.b, &n))
			networks = append(networks, n.PortMappings...)
			c.Networks++
			c.Named = c.Named || n.Name != ""
			c.Bridged = c.Bridged || n.Name == mesosBridge
		}
	}
	c.PortMappings = networks
	if c.Docker {
		c.PortMappings = docker
		c.Bridged = c.Bridged || mode == dockerHost || mode == dockerBridge
	}
	return f.err
}

func (d *decoder) discovery(b []byte, di *Discovery) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			di.Visibility = Visibility(int32(f.u))
		case 2:
			di.Name = string(f.b)
		case 6:
			g := scan(f.b)
			for g.next() {
				if g.num == 1 {
					var p Port
					g.nested(d.port(g.b, &p))
					di.Ports = append(di.Ports, p)
				}
			}
			f.nested(g.err)
		}
	}
	return f.err
}

func (d *decoder) port(b []byte, p *Port) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			p.Number = uint32(f.u)
		case 2:
			p.Name = d.intern(f.b)
		case 3:
			p.Protocol = d.intern(f.b)
		case 5:
			f.nested(eachLabel(f.b, func(key, value []byte) {
				if string(key) == networkScope {
					p.Host = string(value) == "host"
				}
			}))
		}
	}
	return f.err
}

// ports appends the ranges of a Resource, if it is named "ports".
func (d *decoder) ports(b []byte, to *[]PortRange) error {
	var name, ranges []byte
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			name = f.b
		case 4:
			ranges = f.b
		}
	}
	if f.err != nil || string(name) != "ports" {
		return f.err
	}
	f = scan(ranges)
	for f.next() {
		if f.num != 1 {
			continue
		}
		var r PortRange
		g := scan(f.b)
		for g.next() {
			switch g.num {
			case 1:
				r.Begin = g.u
			case 2:
				r.End = g.u
			}
		}
		f.nested(g.err)
		*to = append(*to, r)
	}
	return f.err
}

// vipPort appends a label to t.VIPPorts, if it is a VIP_PORTn.
func (d *decoder) vipPort(t *Task, key, value []byte) {
	if len(key) <= len(vipPrefix) || !strings.EqualFold(string(key[:len(vipPrefix)]), vipPrefix) {
		return
	}
	n, err := strconv.ParseUint(string(key[len(vipPrefix):]), 10, 16)
	protocol, _, ok := strings.Cut(string(value), "://")
	if err == nil && ok {
		t.VIPPorts = append(t.VIPPorts, VIPPort{int(n), d.intern([]byte(protocol))})
	}
}

// haproxy appends a label to t.HAProxy, if it says who claims a host name.
func (d *decoder) haproxy(t *Task, key, value []byte) {
	k, ok := bytes.CutPrefix(key, []byte(haproxyPrefix))
	if !ok {
		return
	}
	if _, rest, ok := bytes.Cut(k, []byte("_")); ok {
		k = rest
	}
	switch string(k) {
	case "VHOST", "GROUP", "ENABLED":
		t.HAProxy = append(t.HAProxy, Label{d.intern(key), string(value)})
	}
}

// agent decodes an Agent. It returns nil if the agent is malformed or has no id.
func (d *decoder) agent(b []byte) *Agent {
	a := &Agent{Port: defaultAgentPort}
	var pid netip.Addr
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			f.nested(d.agentInfo(f.b, a))
		case 4:
			pid = parsePID(string(f.b))
		}
	}
	if f.err != nil || a.ID == "" {
		return nil
	}
	a.Addr = pid
	if !a.Addr.IsValid() {
		a.Addr = ParseAddr(a.Hostname)
	}
	return a
}

func (d *decoder) agentInfo(b []byte, a *Agent) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 1:
			a.Hostname = string(f.b)
		case 6:
			a.ID = d.id(f.b)
		case 8:
			a.Port = uint32(f.u)
		}
	}
	return f.err
}

// framework decodes a Framework. It returns nil if the framework is malformed or has no id.
func (d *decoder) framework(b []byte) *Framework {
	fw := new(Framework)
	f := scan(b)
	for f.next() {
		if f.num == 1 {
			f.nested(d.frameworkInfo(f.b, fw))
		}
	}
	if f.err != nil || fw.ID == "" {
		return nil
	}
	return fw
}

func (d *decoder) frameworkInfo(b []byte, fw *Framework) error {
	f := scan(b)
	for f.next() {
		switch f.num {
		case 2:
			fw.Name = string(f.b)
		case 3:
			fw.ID = d.id(f.b)
		case 7:
			fw.Hostname = string(f.b)
		case 8:
			fw.Principal = d.intern(f.b)
		case 9:
			fw.WebUIURL = string(f.b)
		}
	}
	return f.err
}

// parsePID returns the address in a libprocess pid, such as `slave(1)@10.0.0.7:5051`.
func parsePID(pid string) netip.Addr {
	_, at, _ := strings.Cut(pid, "@")
	ap, err := netip.ParseAddrPort(at)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// ParseAddr returns the IP address in s. It cuts a prefix length off, which CNI writes
// (`fd00:85::2/64`), and turns IPv4-mapped addresses into IPv4. It returns the zero
// netip.Addr if s is not an address, or has a zone.
func ParseAddr(s string) netip.Addr {
	s, _, _ = strings.Cut(s, "/")
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}
	}
	return a.Unmap()
}

// eachLabel calls f for each label in a Labels message.
func eachLabel(b []byte, f func(key, value []byte)) error {
	s := scan(b)
	for s.next() {
		if s.num != 1 {
			continue
		}
		var key, value []byte
		l := scan(s.b)
		for l.next() {
			switch l.num {
			case 1:
				key = l.b
			case 2:
				value = l.b
			}
		}
		s.nested(l.err)
		f(key, value)
	}
	return s.err
}

// id returns the value of an AgentID or FrameworkID message.
func (d *decoder) id(b []byte) string { return d.intern(message(b, 1)) }

// message returns field num of b, a string, bytes or a message.
func message(b []byte, num protowire.Number) []byte {
	f := scan(b)
	var v []byte
	for f.next() {
		if f.num == num && f.typ == protowire.BytesType {
			v = f.b
		}
	}
	return v
}
