package mesos

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// randomTask is a task with anything that a task may have, and much that it may lack.
func randomTask(r *rand.Rand) *Task {
	text := func() string { return []string{"", "a", "nginx", "Größe", string(make([]byte, 300))}[r.IntN(5)] }
	addrs := func() (all []netip.Addr) {
		for range r.IntN(3) {
			all = append(all, []netip.Addr{{}, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}[r.IntN(3)])
		}
		return all
	}
	mappings := func() (all []PortMapping) {
		for range r.IntN(3) {
			all = append(all, PortMapping{r.Uint32(), r.Uint32(), text()})
		}
		return all
	}
	t := &Task{ID: text(), FrameworkID: text(), AgentID: text(), Name: text(), State: TaskState(r.Int32() - 1<<30)}
	if r.IntN(2) == 0 {
		t.Discovery = &Discovery{Name: text(), Visibility: Visibility(r.IntN(3) - 1)}
		for range r.IntN(3) {
			t.Discovery.Ports = append(t.Discovery.Ports, Port{r.Uint32(), text(), text(), r.IntN(2) == 0})
		}
	}
	t.Container = Container{r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(3), mappings()}
	for range r.IntN(3) {
		t.VIPPorts = append(t.VIPPorts, VIPPort{r.IntN(1 << 16), text()})
		t.HAProxy = append(t.HAProxy, Label{text(), text()})
		t.Ports = append(t.Ports, PortRange{r.Uint64(), r.Uint64()})
		t.Status.Networks = append(t.Status.Networks, Network{text(), addrs(), mappings()})
	}
	t.Status.Health, t.Status.addressed = Health(r.IntN(3)), r.IntN(2) == 0
	if r.IntN(2) == 0 {
		t.Status.Labels = &StatusLabels{addrs(), addrs()}
	}
	return t
}

// TestPack unpacks what was packed, into a Task that was used before.
func TestPack(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	var again Task
	for range 2000 {
		task := randomTask(r)
		p := task.Pack()
		if p.Unpack(&again); !reflect.DeepEqual(&again, task) {
			t.Fatalf("seed %d: unpacked\n%+v\nwant\n%+v", seed, again, task)
		}
		if p.ID() != task.ID || p.Name() != task.Name || p.State() != task.State {
			t.Fatalf("seed %d: %q %q %v of %+v", seed, p.ID(), p.Name(), p.State(), task)
		}
		if other := randomTask(r); (p == other.Pack()) != reflect.DeepEqual(task, other) {
			t.Fatalf("seed %d: equal: %v\n%+v\n%+v", seed, p == other.Pack(), task, other)
		}
	}
}

// TestUnpack_Allocates holds what unpacking one task after the other takes.
func TestUnpack_Allocates(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	task := randomTask(r)
	task.Discovery = &Discovery{Name: "a", Ports: []Port{{Number: 80}}}
	task.Status.Networks = []Network{{Name: "calico", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	p := task.Pack()
	var again Task
	if n := testing.AllocsPerRun(100, func() { p.Unpack(&again) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestUpdated merges an update, and keeps the networks of an earlier message.
func TestUpdated(t *testing.T) {
	at := func(addrs ...string) (networks []Network) {
		for _, a := range addrs {
			networks = append(networks, Network{Addrs: []netip.Addr{ParseAddr(a)}})
		}
		return networks
	}
	for name, tc := range map[string]struct {
		older, newer Status
		agent        string
		want         []Network
	}{
		"none since":              {Status{Networks: at("192.0.2.1")}, Status{}, "s", at("192.0.2.1")},
		"others since":            {Status{Networks: at("192.0.2.1")}, Status{Networks: at("192.0.2.2")}, "s", at("192.0.2.2")},
		"none since, other agent": {Status{Networks: at("192.0.2.1")}, Status{}, "other", nil},
		"none ever":               {Status{}, Status{}, "s", nil},
	} {
		older := (&Task{ID: "t", AgentID: "s", Status: tc.older}).Pack()
		var task Task
		(&Task{ID: "t", AgentID: tc.agent, Status: tc.newer}).Pack().KeepNetworks(older).Unpack(&task)
		if !reflect.DeepEqual(task.Status.Networks, tc.want) || task.AgentID != tc.agent {
			t.Errorf("%s: %v, want %v", name, task.Status.Networks, tc.want)
		}
	}
	var task Task
	(&Task{ID: "t", State: TaskRunning, Status: Status{Networks: at("192.0.2.1")}}).Pack().Updated(TaskUpdated{State: TaskStaging, Status: Status{Health: Healthy}}).Unpack(&task)
	if task.State != TaskStaging || task.Status.Health != Healthy || !slices.Equal(task.Status.Networks[0].Addrs, at("192.0.2.1")[0].Addrs) {
		t.Errorf("updated: %s", fmt.Sprintf("%+v", task))
	}
}
