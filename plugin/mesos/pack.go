package mesos

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// PackedTask is a Task in the form in which many are kept. Tasks that mean the same to DNS are
// equal.
type PackedTask struct {
	FrameworkID string
	AgentID     string
	Packed
}

// Packed is a Task without the ids of its framework and agent, in one string, which refers to
// nothing that the garbage collector must follow.
type Packed string

// Pack returns t as it is kept.
func (t *Task) Pack() PackedTask {
	c := codec{packed: make([]byte, 0, 256)}
	c.task(t)
	return PackedTask{t.FrameworkID, t.AgentID, Packed(c.packed)}
}

// Unpack sets all of t. Its strings are parts of p; its slices are used again, so that nothing of
// an earlier value of t must be kept but strings.
func (p PackedTask) Unpack(t *Task) {
	t.FrameworkID, t.AgentID = p.FrameworkID, p.AgentID
	c := codec{unpacks: true, left: string(p.Packed)}
	c.task(t)
}

// Updated returns the task after the event u. TASK_UPDATED.state is the truth; the state in
// its status may lag behind.
func (p PackedTask) Updated(u TaskUpdated) PackedTask {
	var t Task
	p.Unpack(&t)
	t.State = u.State
	t.Status.merge(&u.Status)
	return t.Pack()
}

// KeepNetworks returns p with the networks of older, an earlier message about the same
// task, if p has none: a container keeps its addresses, but not every message names them.
func (p PackedTask) KeepNetworks(older PackedTask) PackedTask {
	if p == older || p.AgentID != older.AgentID {
		return p
	}
	var t, o Task
	p.Unpack(&t)
	older.Unpack(&o)
	if t.Status.Networks != nil || o.Status.Networks == nil {
		return p
	}
	t.Status.Networks, t.Status.addressed = o.Status.Networks, o.Status.addressed
	return t.Pack()
}

// State returns the task's state.
func (p Packed) State() TaskState {
	state, _ := uvarint(string(p))
	return TaskState(state)
}

// ID returns the task's id, as a part of p.
func (p Packed) ID() string {
	_, rest := uvarint(string(p))
	id, _ := cutText(rest)
	return id
}

// Name returns the task's name, as a part of p.
func (p Packed) Name() string {
	_, rest := uvarint(string(p))
	_, rest = cutText(rest)
	name, _ := cutText(rest)
	return name
}

// codec packs or unpacks: each of its methods does either with what it is given, so that
// both agree on the form. Numbers are uvarints (encoding/binary), and texts and lists come after
// their length.
type codec struct {
	unpacks bool
	packed  []byte // the result, when it packs
	left    string // the rest, when it unpacks
}

func (c *codec) task(t *Task) {
	number(c, &t.State) // State, ID and Name know that these come first
	c.text(&t.ID)
	c.text(&t.Name)
	optional(c, &t.Discovery, c.discovery)
	c.container(&t.Container)
	list(c, &t.VIPPorts, func(v *VIPPort) {
		number(c, &v.Index)
		c.text(&v.Protocol)
	})
	list(c, &t.HAProxy, func(l *Label) {
		c.text(&l.Key)
		c.text(&l.Value)
	})
	list(c, &t.Ports, func(r *PortRange) {
		number(c, &r.Begin)
		number(c, &r.End)
	})
	c.status(&t.Status)
}

func (c *codec) discovery(d *Discovery) {
	c.text(&d.Name)
	number(c, &d.Visibility)
	list(c, &d.Ports, func(p *Port) {
		number(c, &p.Number)
		c.text(&p.Name)
		c.text(&p.Protocol)
		c.flag(&p.Host)
	})
}

func (c *codec) container(of *Container) {
	c.flag(&of.Docker)
	c.flag(&of.Bridged)
	c.flag(&of.Named)
	number(c, &of.Networks)
	list(c, &of.PortMappings, c.portMapping)
}

func (c *codec) portMapping(m *PortMapping) {
	number(c, &m.HostPort)
	number(c, &m.ContainerPort)
	c.text(&m.Protocol)
}

func (c *codec) status(s *Status) {
	list(c, &s.Networks, func(n *Network) {
		c.text(&n.Name)
		list(c, &n.Addrs, c.addr)
		list(c, &n.PortMappings, c.portMapping)
	})
	c.flag(&s.addressed)
	optional(c, &s.Labels, func(l *StatusLabels) {
		list(c, &l.Docker, c.addr)
		list(c, &l.Mesos, c.addr)
	})
	number(c, &s.Health)
}

// number packs or unpacks a number, which may be negative.
func number[T ~int | ~int8 | ~int32 | ~uint32 | ~uint64](c *codec, v *T) {
	if !c.unpacks {
		c.packed = binary.AppendUvarint(c.packed, uint64(*v))
		return
	}
	var n uint64
	n, c.left = uvarint(c.left)
	*v = T(n)
}

// uvarint returns the number that s begins with, and what follows.
func uvarint(s string) (n uint64, rest string) {
	for i := 0; ; i++ {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, s[i+1:]
		}
	}
}

// cutText returns the text that s begins with, and what follows.
func cutText(s string) (text, rest string) {
	n, rest := uvarint(s)
	return rest[:n], rest[n:]
}

func (c *codec) flag(v *bool) {
	n := 0
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n == 1
}

func (c *codec) text(v *string) {
	if c.unpacks {
		*v, c.left = cutText(c.left)
		return
	}
	n := len(*v)
	number(c, &n)
	c.packed = append(c.packed, *v...)
}

// addr packs or unpacks an address, which may be the zero netip.Addr.
func (c *codec) addr(a *netip.Addr) {
	if !c.unpacks {
		text := string(a.AsSlice())
		c.text(&text)
		return
	}
	var text string
	c.text(&text)
	*a, _ = netip.AddrFromSlice([]byte(text))
}

// list packs or unpacks a list, each element by a function. An empty one is unpacked as nil.
func list[T any](c *codec, v *[]T, element func(*T)) {
	n := len(*v)
	number(c, &n)
	if c.unpacks {
		if *v = slices.Grow((*v)[:0], n)[:n]; n == 0 {
			*v = nil
		}
	}
	for i := range *v {
		element(&(*v)[i])
	}
}

// optional packs or unpacks what may be nil, by a function.
func optional[T any](c *codec, v **T, value func(*T)) {
	there := *v != nil
	c.flag(&there)
	switch {
	case !there:
		*v = nil
		return
	case *v == nil:
		*v = new(T)
	}
	value(*v)
}
