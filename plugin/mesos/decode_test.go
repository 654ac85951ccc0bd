package mesos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"

	"google.golang.org/protobuf/encoding/protowire"
)

const testdata = "../../testdata/mesos"

// decodeAll decodes a stream to its end.
func decodeAll(t *testing.T, stream []byte) []Event {
	t.Helper()
	s := &Stream{records: newRecordReader(bytes.NewReader(stream)), decoder: newDecoder()}
	var events []Event
	for {
		ev, err := s.Next()
		if errors.Is(err, io.EOF) {
			return events
		}
		if err != nil {
			t.Fatalf("event %d: %v", len(events), err)
		}
		events = append(events, ev)
	}
}

// TestRecordings decodes every recorded stream, and compares it with what the
// recording of the same run in JSON says, encoded by mesostest: this holds the
// decoder and the simulated master to the real one at once.
func TestRecordings(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testdata, "*", "*.pb"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			recorded, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			events := decodeAll(t, recorded)
			var encoded []byte
			for _, record := range jsonRecords(t, strings.TrimSuffix(file, ".pb")+".json") {
				var ev mesostest.Event
				if err := json.Unmarshal(record, &ev); err != nil {
					t.Fatal(err)
				}
				encoded = append(encoded, mesostest.Record(mesostest.Protobuf(&ev))...)
			}
			again := decodeAll(t, encoded)
			if len(events) != len(again) {
				t.Fatalf("%d events in protobuf, %d in JSON", len(events), len(again))
			}
			for i := range events {
				if !reflect.DeepEqual(events[i], again[i]) {
					t.Errorf("event %d:\nprotobuf %s\nJSON     %s", i, dump(events[i]), dump(again[i]))
				}
				if _, unknown := events[i].(Unknown); unknown {
					t.Errorf("event %d is unknown", i)
				}
			}
		})
	}
}

func dump(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func jsonRecords(t *testing.T, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		var n int
		if _, err := fmt.Fscanf(r, "%d\n", &n); err != nil {
			return all
		}
		record := make([]byte, n)
		if _, err := io.ReadFull(r, record); err != nil {
			t.Fatal(err)
		}
		all = append(all, record)
	}
}

// protobufMessage builds messages that no Mesos would send.
type protobufMessage []byte

func (m protobufMessage) bytes(num protowire.Number, v []byte) protobufMessage {
	return protowire.AppendBytes(protowire.AppendTag(m, num, protowire.BytesType), v)
}

func (m protobufMessage) varint(num protowire.Number, v uint64) protobufMessage {
	return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), v)
}

func (m protobufMessage) id(num protowire.Number, id string) protobufMessage {
	return m.bytes(num, protobufMessage{}.bytes(1, []byte(id)))
}

func decodeOne(t *testing.T, message []byte) (Event, error) {
	t.Helper()
	s := &Stream{records: newRecordReader(bytes.NewReader(mesostest.Record(message))), decoder: newDecoder()}
	return s.Next()
}

// TestOddMessages decodes messages with new, missing or broken fields.
func TestOddMessages(t *testing.T) {
	type msg = protobufMessage
	task := msg{}.bytes(1, []byte("a")).id(2, "t").id(3, "f").id(5, "s").varint(6, 1)
	added := func(task msg) msg { return msg{}.varint(1, 2).bytes(3, msg{}.bytes(1, task)) }
	plain := TaskAdded{&Task{ID: "t", FrameworkID: "f", AgentID: "s", Name: "a", State: TaskRunning}}
	for name, tc := range map[string]struct {
		message []byte
		want    Event
	}{
		"as it should be":             {added(task), plain},
		"unknown varint field":        {added(task.varint(99, 7)), plain},
		"unknown bytes field":         {added(task.bytes(99, []byte("x"))), plain},
		"unknown fixed32 field":       {added(append(protowire.AppendTag(append(msg{}, task...), 98, protowire.Fixed32Type), 1, 2, 3, 4)), plain},
		"unknown field of the event":  {append(msg{}.varint(77, 1), added(task)...), plain},
		"payload before type":         {msg{}.bytes(3, msg{}.bytes(1, task)).varint(1, 2), plain},
		"unknown state":               {added(task.varint(6, 99)), TaskAdded{&Task{ID: "t", FrameworkID: "f", AgentID: "s", Name: "a", State: 99}}},
		"unknown event type":          {msg{}.varint(1, 42), Unknown{}},
		"unknown event with payload":  {msg{}.varint(1, 42).bytes(42, []byte("x")), Unknown{}},
		"task without id":             {added(msg{}.bytes(1, []byte("a")).id(3, "f")), Unknown{}},
		"task without framework":      {added(msg{}.bytes(1, []byte("a")).id(2, "t")), Unknown{}},
		"truncated task":              {added(task[:len(task)-3]), Unknown{}},
		"no task":                     {msg{}.varint(1, 2), Unknown{}},
		"empty event":                 {nil, Unknown{}},
		"agent without id":            {msg{}.varint(1, 4).bytes(5, msg{}.bytes(1, msg{}.bytes(4, []byte("x")))), Unknown{}},
		"agent removed without id":    {msg{}.varint(1, 5).bytes(6, nil), Unknown{}},
		"framework without id":        {msg{}.varint(1, 6).bytes(7, msg{}.bytes(1, msg{})), Unknown{}},
		"update without task":         {msg{}.varint(1, 3).bytes(4, msg{}.id(1, "f").varint(3, 1)), Unknown{}},
		"update without state":        {msg{}.varint(1, 3).bytes(4, msg{}.id(1, "f").bytes(2, msg{}.id(1, "t").varint(2, 1))), TaskUpdated{TaskID: "t", FrameworkID: "f", State: TaskRunning}},
		"name as number":              {added(task.varint(1, 5)), TaskAdded{&Task{ID: "t", FrameworkID: "f", AgentID: "s", State: TaskRunning}}},
		"heartbeat":                   {msg{}.varint(1, 9), Heartbeat{}},
		"subscribed, an empty state":  {msg{}.varint(1, 1).bytes(2, msg{}.bytes(1, nil)), Subscribed{State: new(State)}},
		"subscribed, a malformed one": {msg{}.varint(1, 1).bytes(2, msg{}.bytes(1, msg{}.bytes(1, msg{}.bytes(2, task).bytes(2, []byte{8})))), Subscribed{State: &State{Tasks: []PackedTask{plain.Task.Pack()}, Malformed: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeOne(t, tc.message)
			if err != nil || !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %s, %v, want %s", dump(got), err, dump(tc.want))
			}
		})
	}
}

func TestSubscribedWithoutState(t *testing.T) {
	if ev, err := decodeOne(t, protobufMessage{}.varint(1, 1).bytes(2, nil)); !errors.Is(err, errNoState) {
		t.Errorf("%s, %v", dump(ev), err)
	}
}

func TestHugeTaskIsSkipped(t *testing.T) {
	huge := protobufMessage{}.bytes(1, make([]byte, maxMessage+1)).id(2, "huge").id(3, "f")
	small := protobufMessage{}.id(2, "small").id(3, "f")
	ev, err := decodeOne(t, protobufMessage{}.varint(1, 1).bytes(2, protobufMessage{}.bytes(1, protobufMessage{}.bytes(1,
		protobufMessage{}.bytes(2, huge).bytes(2, small)))))
	if err != nil {
		t.Fatal(err)
	}
	s := ev.(Subscribed).State
	if len(s.Tasks) != 1 || s.Tasks[0].ID() != "small" || s.Malformed != 1 {
		t.Errorf("%d tasks, %d malformed", len(s.Tasks), s.Malformed)
	}
}

func TestRecordIO(t *testing.T) {
	beat := "2\n\x08\x09"
	for name, tc := range map[string]struct {
		stream string
		events int
		err    string
	}{
		"two records":              {beat + beat, 2, "EOF"},
		"nothing":                  {"", 0, "EOF"},
		"an empty record":          {"0\n" + beat, 2, "EOF"},
		"ends in a length":         {beat + "2", 1, "unexpected EOF"},
		"ends in a record":         {beat + "20\n\x08\x09", 1, "unexpected EOF"},
		"length is no number":      {beat + "x\n", 1, `record length "x" is not a number`},
		"length is negative":       {"-2\n", 0, `record length "-2" is not a number`},
		"length is empty":          {"\n", 0, `record length "" is not a number`},
		"length does not end":      {strings.Repeat("1", 30), 0, `record length "11111111111111111111" has no end`},
		"length of 10^18":          {"1000000000000000000\n", 0, "record of 1000000000000000000 bytes exceeds the limit of 2147483647"},
		"length over 64 bits":      {"99999999999999999999\n", 0, `record length "9999999999`},
		"a page of HTML":           {"<html><body>\n", 0, `record length "<html><body>" is not a number`},
		"field longer than record": {"2\n\x12\x7f", 0, "malformed protobuf: field of 127 bytes with 0 bytes left"},
		"garbage in a record":      {"3\n\xff\xff\xff", 0, "malformed protobuf"},
		"group":                    {"1\n\x0b", 0, "malformed protobuf: wire type 3"},
		"field number 0":           {"2\n\x00\x00", 0, "malformed protobuf"},
		"varint of 11 bytes":       {"12\n\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0, "malformed protobuf"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Stream{records: newRecordReader(strings.NewReader(tc.stream)), decoder: newDecoder()}
			events := 0
			for {
				_, err := s.Next()
				if err == nil {
					events++
					continue
				}
				if events != tc.events || !strings.HasPrefix(err.Error(), tc.err) {
					t.Errorf("%d events, %v; want %d, %s", events, err, tc.events, tc.err)
				}
				return
			}
		})
	}
}

func TestParseAddr(t *testing.T) {
	for s, want := range map[string]string{
		"10.0.0.1":         "10.0.0.1",
		"fd00:85::2/64":    "fd00:85::2",
		"10.0.0.1/24":      "10.0.0.1",
		"::ffff:192.0.2.1": "192.0.2.1",
		"0.0.0.0":          "0.0.0.0",
		"fe80::1%eth0":     "invalid IP",
		"":                 "invalid IP",
		"host.example":     "invalid IP",
		"10.0.0.256":       "invalid IP",
		"10.0.0.1\t":       "invalid IP",
	} {
		if got := ParseAddr(s).String(); got != want {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}

func TestAgentAddress(t *testing.T) {
	for _, tc := range []struct{ pid, hostname, want string }{
		{"slave(1)@10.0.0.7:5051", "agent.example", "10.0.0.7"},
		{"slave(1)@[fd00:2::3]:5051", "agent.example", "fd00:2::3"},
		{"slave(1)@agent.example:5051", "10.0.0.8", "10.0.0.8"},
		{"", "fd00::8", "fd00::8"},
		{"nonsense", "agent.example", "invalid IP"},
		{"slave(1)@10.0.0.7", "agent.example", "invalid IP"},
	} {
		a := mesostest.Agent{AgentInfo: mesostest.AgentInfo{Hostname: tc.hostname, ID: &mesostest.ID{Value: "x"}}, PID: tc.pid}
		if got := newDecoder().agent(mesostest.Protobuf(&a)); got.Addr.String() != tc.want || got.Port != 5051 {
			t.Errorf("pid %q, hostname %q: %v port %d, want %s port 5051", tc.pid, tc.hostname, got.Addr, got.Port, tc.want)
		}
	}
}

func TestMasterAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		info mesostest.MasterInfo
		want Master
	}{
		"address": {
			mesostest.MasterInfo{ID: "one", IP: 16777343, Port: 1, Hostname: "a", Address: &mesostest.Address{Hostname: "b", IP: "10.0.0.1", Port: 2}},
			Master{ID: "one", Hostname: "b", Addr: netip.MustParseAddr("10.0.0.1"), Port: 2},
		},
		"ip alone":      {mesostest.MasterInfo{IP: 16777343, Port: 5050}, Master{Addr: netip.MustParseAddr("127.0.0.1"), Port: 5050}},
		"hostname only": {mesostest.MasterInfo{Hostname: "a", Port: 5050}, Master{Hostname: "a", Port: 5050}},
		"nothing":       {mesostest.MasterInfo{Port: 5050}, Master{}},
		"no port":       {mesostest.MasterInfo{Hostname: "a", IP: 16777343}, Master{}},
	} {
		fromJSON, err := json.Marshal(tc.info)
		if err != nil {
			t.Fatal(err)
		}
		got, err := MasterFromProtobuf(mesostest.Protobuf(&tc.info))
		if got != tc.want || (err == nil) != (tc.want != Master{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if got, err = MasterFromJSON(fromJSON); got != tc.want || (err == nil) != (tc.want != Master{}) {
			t.Errorf("%s in JSON: %+v, %v", name, got, err)
		}
	}
	for _, odd := range []string{"", "{", `{"ip":"127.0.0.1"}`, "\xff"} {
		if m, err := MasterFromJSON([]byte(odd)); err == nil {
			t.Errorf("%q is read as %+v", odd, m)
		}
	}
	if m, err := MasterFromProtobuf([]byte("\xff")); err == nil {
		t.Errorf("read as %+v", m)
	}
}

// TestStatuses merges what statuses say, in the order of the list: clocks decide nothing.
func TestStatuses(t *testing.T) {
	network := func(addr string) *mesostest.ContainerStatus {
		return &mesostest.ContainerStatus{NetworkInfos: []mesostest.NetworkInfo{{IPAddresses: []mesostest.IPAddress{{IPAddress: addr}}}}}
	}
	yes, no := true, false
	for name, tc := range map[string]struct {
		statuses []mesostest.TaskStatus
		addr     string
		health   Health
	}{
		"the last with an address": {[]mesostest.TaskStatus{
			{Timestamp: 1, ContainerStatus: network("10.0.0.1")}, {Timestamp: 2, ContainerStatus: network("10.0.0.2")},
		}, "10.0.0.2", HealthUnknown},
		"a clock that was put back": {[]mesostest.TaskStatus{
			{Timestamp: 2, ContainerStatus: network("10.0.0.2")}, {Timestamp: 1, ContainerStatus: network("10.0.0.1")},
		}, "10.0.0.1", HealthUnknown},
		"a time that is no number": {[]mesostest.TaskStatus{
			{Timestamp: math.NaN(), ContainerStatus: network("10.0.0.2"), Healthy: &yes}, {Timestamp: 1, ContainerStatus: network("10.0.0.1"), Healthy: &no},
		}, "10.0.0.1", Unhealthy},
		"a health result without networks": {[]mesostest.TaskStatus{
			{Timestamp: 1, ContainerStatus: network("10.0.0.1")}, {Timestamp: 2, Healthy: &no},
		}, "10.0.0.1", Unhealthy},
		"networks without addresses": {[]mesostest.TaskStatus{
			{Timestamp: 1, ContainerStatus: network("10.0.0.1")},
			{Timestamp: 2, ContainerStatus: &mesostest.ContainerStatus{NetworkInfos: []mesostest.NetworkInfo{{Name: "calico"}}}},
		}, "10.0.0.1", HealthUnknown},
		"an address that is none": {[]mesostest.TaskStatus{
			{Timestamp: 1, ContainerStatus: network("10.0.0.1")}, {Timestamp: 2, ContainerStatus: network("nonsense")},
		}, "10.0.0.1", HealthUnknown},
		"an address after one that is none": {[]mesostest.TaskStatus{
			{Timestamp: 2, ContainerStatus: network("nonsense")}, {Timestamp: 1, ContainerStatus: network("10.0.0.1")},
		}, "10.0.0.1", HealthUnknown},
		"healthy again":             {[]mesostest.TaskStatus{{Timestamp: 1, Healthy: &no}, {Timestamp: 2, Healthy: &yes}}, "", Healthy},
		"unhealthy, clock put back": {[]mesostest.TaskStatus{{Timestamp: 2, Healthy: &yes}, {Timestamp: 1, Healthy: &no}}, "", Unhealthy},
	} {
		task := mesostest.Task{TaskID: mesostest.ID{Value: "t"}, FrameworkID: mesostest.ID{Value: "f"}, Statuses: tc.statuses}
		got := newDecoder().task(mesostest.Protobuf(&task))
		addr := ""
		if len(got.Status.Networks) > 0 {
			addr = got.Status.Networks[0].Addrs[0].String()
		}
		if addr != tc.addr || got.Status.Health != tc.health {
			t.Errorf("%s: %q, health %d", name, addr, got.Status.Health)
		}
	}
}

// TestPortMappings takes the mappings of the container's own type.
func TestPortMappings(t *testing.T) {
	for container, want := range map[mesostest.ContainerType]uint32{mesostest.TypeDocker: 80, mesostest.TypeMesos: 81} {
		task := mesostest.Task{TaskID: mesostest.ID{Value: "t"}, FrameworkID: mesostest.ID{Value: "f"}, Container: &mesostest.ContainerInfo{
			Type:         container,
			Docker:       &mesostest.DockerInfo{PortMappings: []mesostest.PortMapping{{HostPort: 31000, ContainerPort: 80, Protocol: "tcp"}}},
			NetworkInfos: []mesostest.NetworkInfo{{PortMappings: []mesostest.PortMapping{{HostPort: 31000, ContainerPort: 81, Protocol: "tcp"}}}},
		}}
		got := newDecoder().task(mesostest.Protobuf(&task)).Container
		if mapping := (PortMapping{31000, want, "tcp"}); len(got.PortMappings) != 1 || got.PortMappings[0] != mapping || got.Networks != 1 {
			t.Errorf("container type %d: %+v, want %+v", container, got, mapping)
		}
	}
}

func TestHeartbeatInterval(t *testing.T) {
	for seconds, want := range map[float64]time.Duration{15: 15 * time.Second, 0.5: 500 * time.Millisecond, 0: 0, -3: 0, 1e300: 0} {
		ev, err := decodeOne(t, mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: &mesostest.GetState{}, Heartbeat: seconds}}))
		if first, ok := ev.(Subscribed); err != nil || !ok || first.Heartbeat != want {
			t.Errorf("%g seconds: %v, %v", seconds, ev, err)
		}
	}
}

func FuzzStream(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(testdata, "*", "*.pb"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no recordings: %v", err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		s := &Stream{records: newRecordReader(bytes.NewReader(stream)), decoder: newDecoder()}
		for {
			ev, err := s.Next()
			if err != nil {
				return
			}
			if ev == nil {
				t.Fatal("neither an event nor an error")
			}
		}
	})
}

func FuzzTask(f *testing.F) {
	s := mesostest.NewScript("x")
	f.Add(mesostest.Protobuf(s.Task(mesostest.App{Name: "a", Network: "n", Ports: []mesostest.Port{{Number: 80, Name: "http"}}}, "t", 0, "10.0.0.1")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		task := newDecoder().task(b)
		if task == nil {
			return
		}
		if task.ID == "" || task.FrameworkID == "" {
			t.Error("a task without its ids")
		}
		var again Task
		if task.Pack().Unpack(&again); !reflect.DeepEqual(&again, task) {
			t.Errorf("unpacked\n%+v\nwant\n%+v", again, task)
		}
	})
}

// BenchmarkState decodes the first event of a cluster of a thousand tasks.
func BenchmarkState(b *testing.B) {
	m := mesostest.NewMaster(0)
	mesostest.NewLarge(m, 1000, 50, 3)
	record := mesostest.Record(mesostest.Protobuf(&mesostest.Event{Type: 1, Subscribed: &mesostest.Subscribed{GetState: m.State()}}))
	b.SetBytes(int64(len(record)))
	b.ReportAllocs()
	for b.Loop() {
		s := &Stream{records: newRecordReader(bytes.NewReader(record)), decoder: newDecoder()}
		if _, err := s.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate decodes a TASK_UPDATED.
func BenchmarkUpdate(b *testing.B) {
	s := mesostest.NewScript("x")
	t := s.Task(mesostest.App{Name: "a", Network: "calico"}, "t", 0, "10.0.0.1")
	ev := mesostest.Event{Type: 3, TaskUpdated: &mesostest.TaskUpdated{FrameworkID: t.FrameworkID, Status: t.Statuses[1], State: 1}}
	record := mesostest.Record(mesostest.Protobuf(&ev))
	r := bytes.NewReader(record)
	stream := &Stream{records: newRecordReader(r), decoder: newDecoder()}
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(record)
		if _, err := stream.Next(); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzMasterInfo reads what may stand in ZooKeeper.
func FuzzMasterInfo(f *testing.F) {
	for i := range 3 {
		b, err := os.ReadFile(fmt.Sprintf("../../testdata/mesos/zookeeper/mesos__json.info_000000000%d.data", i+1))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add(mesostest.Protobuf(&mesostest.MasterInfo{IP: 16777343, Port: 5050, Address: &mesostest.Address{IP: "::1", Port: 1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (Master, error){MasterFromJSON, MasterFromProtobuf} {
			if m, err := parse(b); err == nil && (!m.Addr.IsValid() && m.Hostname == "" || m.Port < 1 || m.Port > 65535) {
				t.Errorf("%+v", m)
			}
		}
	})
}

// TestClaims decodes what Marathon-LB's labels say, and whether the agent maps a task's ports.
func TestClaims(t *testing.T) {
	s := mesostest.NewScript("x")
	labels := []mesostest.Label{{Key: "HAPROXY_0_VHOST", Value: "a.acme.org"}, {Key: "HAPROXY_12_GROUP", Value: ""}, {Key: "HAPROXY_GROUP", Value: "x"}, {Key: "HAPROXY_1_ENABLED", Value: "no"},
		{Key: "haproxy_0_vhost", Value: "b"}, {Key: "HAPROXY_0_PATH", Value: "/"}, {Key: "HAPROXY_0_MODE_VHOST", Value: "c"}, {Key: "VHOST", Value: "d"}}
	task := newDecoder().task(mesostest.Protobuf(s.Task(mesostest.App{Name: "a", Labels: labels}, "t0", 0, "10.0.0.1")))
	want := []Label{{"HAPROXY_0_VHOST", "a.acme.org"}, {"HAPROXY_12_GROUP", ""}, {"HAPROXY_GROUP", "x"}, {"HAPROXY_1_ENABLED", "no"}}
	if !slices.Equal(task.HAProxy, want) {
		t.Errorf("got %v, want %v", task.HAProxy, want)
	}
	for _, tc := range []struct {
		what      string
		container mesostest.ContainerInfo
		bridged   bool
	}{
		{"Docker without a network", mesostest.ContainerInfo{Type: mesostest.TypeDocker, Docker: &mesostest.DockerInfo{}}, true},
		{"Docker on the host's", mesostest.ContainerInfo{Type: mesostest.TypeDocker, Docker: &mesostest.DockerInfo{Network: 1}}, true},
		{"Docker's bridge", mesostest.ContainerInfo{Type: mesostest.TypeDocker, Docker: &mesostest.DockerInfo{Network: 2}}, true},
		{"Docker on a network", mesostest.ContainerInfo{Type: mesostest.TypeDocker, Docker: &mesostest.DockerInfo{Network: 4}}, false},
		{"mesos-bridge", mesostest.ContainerInfo{Type: 2, NetworkInfos: []mesostest.NetworkInfo{{Name: "mesos-bridge"}}}, true},
		{"a network", mesostest.ContainerInfo{Type: 2, NetworkInfos: []mesostest.NetworkInfo{{Name: "calico"}}}, false},
		{"Mesos", mesostest.ContainerInfo{Type: 2}, false},
	} {
		message := s.Task(mesostest.App{Name: "a"}, "t0", 0)
		message.Container = &tc.container
		if got := newDecoder().task(mesostest.Protobuf(message)).Container.Bridged; got != tc.bridged {
			t.Errorf("%s: bridged: %v", tc.what, got)
		}
	}
}

// TestIntern_Bounded keeps no more strings than maxInterned, whatever is sent.
func TestIntern_Bounded(t *testing.T) {
	d := newDecoder()
	for i := range maxInterned + 10 {
		d.intern(strconv.AppendInt(nil, int64(i), 10))
	}
	if n := len(d.interned); n > maxInterned {
		t.Errorf("%d strings are kept", n)
	}
	clear(d.interned)
	d.intern(bytes.Repeat([]byte("a"), maxInternedLength+1))
	if len(d.interned) > 0 {
		t.Error("a string is kept that can be no id and no label")
	}
}
