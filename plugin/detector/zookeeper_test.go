package detector

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	golog "log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"

	"github.com/go-zookeeper/zk"
)

func TestParseZooKeeper(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "zk")
	other := filepath.Join(dir, "other")
	if os.WriteFile(file, []byte("zk://me:hunter2@a:2181,b:2182/mesos\n"), 0o600) != nil || os.WriteFile(other, []byte("hunter2"), 0o600) != nil {
		t.Fatal("no file")
	}
	for endpoint, want := range map[string]string{
		"zk://a:2181/mesos":                       "[a:2181] /mesos ",
		"zk://a:2181,b:2181,[::1]:2181/mesos":     "[a:2181 b:2181 [::1]:2181] /mesos ",
		"zk://a:2181/deep/path/":                  "[a:2181] /deep/path ",
		"zk://me:p@ss:w/rd@a:2181/mesos":          "[a:2181] /mesos me:p@ss:w/rd",
		"file://" + file:                          "[a:2181 b:2182] /mesos me:hunter2",
		"zk://a:2181":                             `error: must have a path`,
		"zk://a:2181/":                            `error: must have a path`,
		"zk://a:2181/a//b":                        `error: invalid path "/a//b"`,
		"zk://a:2181/a?b":                         `error: invalid path "/a?b"`,
		"zk://a/mesos":                            "[a:2181] /mesos ",
		"ZK://a,[::1],b:2182/mesos":               "[a:2181 [::1]:2181 b:2182] /mesos ",
		"zk://:2181/mesos":                        `error: each server must be host:port`,
		"zk://a:2181,/mesos":                      `error: each server must be host:port`,
		"zk://a:0/mesos":                          `error: invalid port of a server`,
		"zk://a:99999/mesos":                      `error: invalid port of a server`,
		"zk://me:hunter2":                         "error: must have a path",
		"zk://me:hunter2,a:2181/mesos":            "error: invalid port of a server",
		"zk://hunter2@a:2181/mesos":               `error: must have user:password before the @`,
		"zk://:hunter2@a:2181/mesos":              `error: must have user:password before the @`,
		"http://a:5050":                           `error: must begin with zk://`,
		"file://" + other:                         `error: the file must hold a zk:// URL`,
		"file://" + filepath.Join(dir, "nowhere"): `error: open `,
	} {
		z, err := ParseZooKeeper(endpoint)
		got := fmt.Sprintf("error: %v", err)
		if err == nil {
			got = fmt.Sprintf("%s %s %s", z.Servers, z.Path, z.Auth)
			if strings.Contains(z.String(), "hunter2") || !strings.HasPrefix(z.String(), "zk://a:2181") {
				t.Errorf("%s is shown as %s", endpoint, z)
			}
		}
		if err == nil && got != want || err != nil && (!strings.HasPrefix(got, want) || strings.Contains(got, "hunter2")) {
			t.Errorf("%s: %s, want %s", endpoint, got, want)
		}
	}
}

func TestContenderNodes(t *testing.T) {
	names := []string{"log_replicas", "json.info_0000000012", "info_0000000011", "json.info_0000000003", "json.info_x", "info_", "json.info_-000000001", "other_0000000001"}
	if got, want := contenderNodes(names), []string{"json.info_0000000003", "info_0000000011", "json.info_0000000012"}; !slices.Equal(got, want) {
		t.Errorf("announced are %v, want %v", got, want)
	}
}

// TestMasters reads the recorded nodes of three masters, in several orders.
func TestMasters(t *testing.T) {
	var masters []mesos.Master
	for i := range 3 {
		b, err := os.ReadFile(fmt.Sprintf("../../testdata/mesos/zookeeper/mesos__json.info_000000000%d.data", i+1))
		if err != nil {
			t.Fatal(err)
		}
		m, err := mesos.MasterFromJSON(b)
		if err != nil {
			t.Fatal(err)
		}
		masters = append(masters, m)
	}
	one, two, three := masters[0], masters[1], masters[2]
	named := mesos.Master{Hostname: "m.example", Port: 5050}
	for _, tc := range []struct {
		masters []mesos.Master
		leading bool
		secure  bool
		want    string
		line    []mesos.MasterID
	}{
		{[]mesos.Master{one, two, three}, true, false, "127.0.0.1:5050 of 127.0.0.1:5050 127.0.0.2:5050 127.0.0.3:5050", []mesos.MasterID{mesos.MasterID(one.ID), mesos.MasterID(two.ID), mesos.MasterID(three.ID)}},
		{[]mesos.Master{three, one, two}, true, true, "127.0.0.3:5050 of 127.0.0.1:5050 127.0.0.2:5050 127.0.0.3:5050", []mesos.MasterID{mesos.MasterID(three.ID), mesos.MasterID(one.ID), mesos.MasterID(two.ID)}},
		{[]mesos.Master{three, one, three}, true, false, "127.0.0.3:5050 of 127.0.0.1:5050 127.0.0.3:5050", []mesos.MasterID{mesos.MasterID(three.ID), mesos.MasterID(one.ID), mesos.MasterID(three.ID)}},
		{[]mesos.Master{two, one}, false, false, "none of 127.0.0.1:5050 127.0.0.2:5050", nil},
		{[]mesos.Master{named, two}, true, false, "m.example:5050 of m.example:5050 127.0.0.2:5050", []mesos.MasterID{"m.example:5050", mesos.MasterID(two.ID)}},
	} {
		v := (&ZooKeeper{Secure: tc.secure}).masters(tc.masters, tc.leading)
		scheme := map[bool]string{false: "http", true: "https"}[tc.secure]
		got := "none of"
		if v.Leader != nil {
			got = v.Leader.Host + " of"
		}
		for _, u := range v.All {
			got += " " + u.Host
			if u.Scheme != scheme || u.Path != "/api/v1" {
				t.Errorf("master is %s", u)
			}
		}
		if got != tc.want || !slices.Equal(v.Contenders, tc.line) || v.Live != tc.leading {
			t.Errorf("%s, in line %v, want %s, %v", got, v.Contenders, tc.want, tc.line)
		}
	}
}

// TestMembers asks for the next member as the library does.
func TestMembers(t *testing.T) {
	m := &members{}
	if m.Init([]string{"a", "b"}) != nil || m.Len() != 2 {
		t.Fatal("members are not taken")
	}
	got := ""
	for _, connected := range []bool{false, false, false, true, false, false, true, true} {
		server, pause := m.Next()
		if pause {
			got += "|"
		}
		got += server
		if connected {
			m.Connected()
		}
	}
	if want := "ab|aba|bab"; got != want {
		t.Errorf("members are asked in the order %s, want %s", got, want)
	}
}

// TestLookupState logs changes, but not that one member is gone while another answers.
func TestLookupState(t *testing.T) {
	var logged bytes.Buffer
	golog.SetOutput(&logged)
	defer golog.SetOutput(io.Discard)
	s := lookupState{State: logstate.State{Log: log}, name: "zk://a"}
	odd := errors.New("odd")
	for _, err := range []error{nil, zk.ErrConnectionClosed, nil, zk.ErrConnectionClosed, fmt.Errorf("list: %w", zk.ErrNoServer), zk.ErrNoServer, odd, odd, zk.ErrNoServer, nil, nil} {
		s.update(err)
	}
	s.rejected(badFrame("an answer ends early"))
	s.update(zk.ErrConnectionClosed)
	const prefix = "plugin/calicomesos: "
	var said []string
	for line := range strings.Lines(logged.String()) {
		said = append(said, strings.TrimSpace(line[strings.Index(line, prefix)+len(prefix):]))
	}
	if want := []string{"Finding masters in zk://a failed: no member of the ensemble answers", "Finding masters in zk://a failed: odd", "Found masters in zk://a again after 0s", "Finding masters in zk://a failed: an answer ends early"}; !slices.Equal(said, want) {
		t.Errorf("logged %q", said)
	}
}

// TestHungMember connects to a member that accepts and says nothing: the run
// ends when it is to end, and the wait for an answer is short.
func TestHungMember(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := dialer(t.Context(), new(net.Dialer).DialContext, func(error) {})("tcp", l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	deadline := &deadlineConn{Conn: conn.(*memberConn).Conn}
	conn.(*memberConn).Conn = deadline
	for _, wait := range []time.Duration{time.Second, time.Hour} {
		if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if got := time.Until(deadline.at); got > min(wait, sessionTimeout) {
			t.Errorf("waits %v", got)
		}
	}
}

type deadlineConn struct {
	net.Conn
	at time.Time
}

func (c *deadlineConn) SetReadDeadline(t time.Time) error {
	c.at = t
	return nil
}
