package mesos

import (
	"bufio"
	"io"
	"net/netip"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// WriteState writes s as a v1 GetState with the fields that this package reads, object by
// object. Malformed objects, which the state has left out, are not in it.
func WriteState(to io.Writer, s *State) error {
	w := bufio.NewWriterSize(to, 64<<10)
	e := encoder{}
	for _, f := range s.Frameworks {
		e.object(w, 3, 1, func() { e.framework(f) })
	}
	for _, a := range s.Agents {
		e.object(w, 4, 1, func() { e.agent(a) })
	}
	for _, a := range s.RecoveredAgents {
		e.object(w, 4, 2, func() { e.agentInfo(a) })
	}
	var t Task
	for _, packed := range s.Tasks {
		packed.Unpack(&t)
		e.object(w, 1, 2, func() { e.task(&t) })
	}
	return w.Flush() // returns the first error of any write
}

// ReadState reads what WriteState has written, to the end of r.
func ReadState(r io.Reader) (*State, error) {
	s := new(State)
	d := newDecoder()
	w := &newRecordReader(r).wire
	return s, w.toEOF(func(num protowire.Number, wt protowire.Type) (bool, error) { return d.stateField(w, s, num, wt) })
}

// encoder appends a message to b. A nested message is appended first, and then moved to
// make room for its length.
type encoder struct{ b []byte }

// object writes one object: field inner of field outer of a GetState. The outer message is
// repeated for each object, which protobuf merges.
func (e *encoder) object(w *bufio.Writer, outer, inner protowire.Number, message func()) {
	e.b = e.b[:0]
	e.nested(outer, func() { e.nested(inner, message) })
	_, _ = w.Write(e.b) // the error stays in w
}

func (e *encoder) nested(num protowire.Number, message func()) {
	e.b = protowire.AppendTag(e.b, num, protowire.BytesType)
	start := len(e.b)
	message()
	n := len(e.b) - start
	size := protowire.SizeVarint(uint64(n))
	e.b = append(e.b, make([]byte, size)...)
	copy(e.b[start+size:], e.b[start:start+n])
	protowire.AppendVarint(e.b[:start], uint64(n))
}

func (e *encoder) string(num protowire.Number, s string) {
	e.b = protowire.AppendString(protowire.AppendTag(e.b, num, protowire.BytesType), s)
}

func (e *encoder) optional(num protowire.Number, s string) {
	if s != "" {
		e.string(num, s)
	}
}

func (e *encoder) varint(num protowire.Number, v uint64) {
	e.b = protowire.AppendVarint(protowire.AppendTag(e.b, num, protowire.VarintType), v)
}

func (e *encoder) id(num protowire.Number, id string) {
	e.nested(num, func() { e.string(1, id) })
}

func (e *encoder) label(key, value string) {
	e.nested(1, func() {
		e.string(1, key)
		e.string(2, value)
	})
}

func (e *encoder) task(t *Task) {
	e.string(1, t.Name)
	e.id(2, t.ID)
	e.id(3, t.FrameworkID)
	e.id(5, t.AgentID)
	e.varint(6, uint64(t.State))
	if len(t.Ports) > 0 {
		e.nested(7, func() { e.ports(t.Ports) })
	}
	e.status(&t.Status)
	if len(t.VIPPorts)+len(t.HAProxy) > 0 {
		e.nested(11, func() {
			for _, v := range t.VIPPorts {
				e.label(vipPrefix+strconv.Itoa(v.Index), v.Protocol+"://")
			}
			for _, l := range t.HAProxy {
				e.label(l.Key, l.Value)
			}
		})
	}
	if t.Discovery != nil {
		e.nested(12, func() { e.discovery(t.Discovery) })
	}
	e.nested(13, func() { e.container(&t.Container) })
}

func (e *encoder) ports(ranges []PortRange) {
	e.string(1, "ports")
	e.nested(4, func() {
		for _, r := range ranges {
			e.nested(1, func() {
				e.varint(1, r.Begin)
				e.varint(2, r.End)
			})
		}
	})
}

// status appends a TaskStatus for each property of s.
func (e *encoder) status(s *Status) {
	if s.Networks != nil {
		e.nested(8, func() {
			e.nested(13, func() {
				for _, n := range s.Networks {
					e.nested(1, func() { e.network(&n) })
				}
			})
		})
	}
	if s.Health != HealthUnknown {
		e.nested(8, func() { e.varint(8, protowire.EncodeBool(s.Health == Healthy)) })
	}
	if s.Labels != nil {
		e.nested(8, func() {
			e.nested(12, func() {
				for _, a := range s.Labels.Docker {
					e.label(dockerAddress, addrText(a))
				}
				for _, a := range s.Labels.Mesos {
					e.label(mesosAddress, addrText(a))
				}
			})
		})
	}
}

func (e *encoder) network(n *Network) {
	for _, a := range n.Addrs {
		e.nested(5, func() { e.string(2, addrText(a)) })
	}
	e.optional(6, n.Name)
	e.portMappings(7, n.PortMappings)
}

// addrText returns the text of an address. For one that could not be parsed it returns a
// text that cannot be parsed either.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (e *encoder) portMappings(num protowire.Number, mappings []PortMapping) {
	for _, m := range mappings {
		e.nested(num, func() {
			e.varint(1, uint64(m.HostPort))
			e.varint(2, uint64(m.ContainerPort))
			e.optional(3, m.Protocol)
		})
	}
}

func (e *encoder) container(c *Container) {
	if c.Docker {
		e.varint(1, 1)
		e.nested(3, func() {
			if c.Bridged {
				e.varint(2, dockerBridge)
			} else {
				e.varint(2, dockerUser)
			}
			e.portMappings(3, c.PortMappings)
		})
	}
	for i := range c.Networks {
		e.nested(7, func() {
			switch {
			case i > 0 || !c.Named:
			case c.Bridged && !c.Docker:
				e.string(6, mesosBridge)
			default:
				e.string(6, "named") // which name is not known any more, and does not matter
			}
			if i == 0 && !c.Docker {
				e.portMappings(7, c.PortMappings)
			}
		})
	}
}

func (e *encoder) discovery(d *Discovery) {
	e.varint(1, uint64(d.Visibility))
	e.optional(2, d.Name)
	if len(d.Ports) == 0 {
		return
	}
	e.nested(6, func() {
		for _, p := range d.Ports {
			e.nested(1, func() {
				e.varint(1, uint64(p.Number))
				e.optional(2, p.Name)
				e.optional(3, p.Protocol)
				if p.Host {
					e.nested(5, func() { e.label(networkScope, "host") })
				}
			})
		}
	})
}

func (e *encoder) agent(a *Agent) {
	e.nested(1, func() { e.agentInfo(a) })
	if a.Addr.IsValid() {
		e.string(4, "agent@"+netip.AddrPortFrom(a.Addr, uint16(a.Port)).String())
	}
}

func (e *encoder) agentInfo(a *Agent) {
	e.string(1, a.Hostname)
	e.id(6, a.ID)
	e.varint(8, uint64(a.Port))
}

func (e *encoder) framework(f *Framework) {
	e.nested(1, func() {
		e.string(2, f.Name)
		e.id(3, f.ID)
		e.optional(7, f.Hostname)
		e.optional(8, f.Principal)
		e.optional(9, f.WebUIURL)
	})
}
