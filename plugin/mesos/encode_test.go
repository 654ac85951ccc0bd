package mesos

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// TestWriteState writes all that was recorded of real and made-up clusters, and
// reads it again.
func TestWriteState(t *testing.T) {
	files, err := filepath.Glob("../../testdata/mesos/*/snapshots/*/get_state.pb")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		state, d := new(State), newDecoder()
		if there, err := response(&newRecordReader(bytes.NewReader(b)).wire, getState.field, func(w *wire) (bool, error) { return d.state(w, state) }); err != nil || !there {
			t.Fatalf("%s: %v", file, err)
		}
		for _, f := range state.Frameworks {
			f.Principal = "of " + f.Name
		}
		for i := range state.Tasks { // what no recording has
			var task Task
			state.Tasks[i].Unpack(&task)
			switch i % 4 {
			case 0:
				task.Status.Labels = &StatusLabels{Docker: []netip.Addr{ParseAddr("192.0.2.1"), ParseAddr("odd")}}
			case 1:
				task.Status.Labels = &StatusLabels{Docker: []netip.Addr{ParseAddr("192.0.2.1")}, Mesos: []netip.Addr{ParseAddr("192.0.2.1")}}
				task.VIPPorts = append(task.VIPPorts, VIPPort{3, "tcp"}, VIPPort{0, "udp"})
				task.Container = Container{Bridged: true, Named: true, Networks: 1}
			case 2:
				task.Status.Health = Unhealthy
				task.HAProxy = []Label{{"HAPROXY_0_VHOST", "a.acme.org, b.acme.org"}, {"HAPROXY_GROUP", ""}}
				task.Container = Container{Docker: true, Bridged: i%8 == 2, Named: true, Networks: 2, PortMappings: []PortMapping{{31000, 80, "tcp"}, {31001, 81, ""}}}
			case 3:
				task.Discovery = &Discovery{Visibility: VisibilityExternal, Ports: []Port{{Number: 80, Host: true}, {Number: 99999, Name: "x", Protocol: "udp"}}}
			}
			state.Tasks[i] = task.Pack()
		}
		var buf bytes.Buffer
		if err := WriteState(&buf, state); err != nil {
			t.Fatal(err)
		}
		again, err := ReadState(&buf)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if len(again.Tasks) != len(state.Tasks) || again.Malformed != 0 {
			t.Fatalf("%s: %d tasks of %d, %d malformed", file, len(again.Tasks), len(state.Tasks), again.Malformed)
		}
		for i, task := range state.Tasks {
			if got := again.Tasks[i]; got != task {
				t.Errorf("%s: task %q is read as %q", file, task, got)
			}
		}
		if !reflect.DeepEqual(again.Agents, state.Agents) || !reflect.DeepEqual(again.RecoveredAgents, state.RecoveredAgents) || !reflect.DeepEqual(again.Frameworks, state.Frameworks) {
			t.Errorf("%s: agents or frameworks differ", file)
		}
	}
}
