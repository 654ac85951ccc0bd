package snapshot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

func example() *Snapshot {
	addr := netip.MustParseAddr("192.0.2.1")
	return &Snapshot{
		Header: Header{
			Endpoints: []string{"10.0.0.1:5050", "10.0.0.2:5050"},
			Heard:     time.Unix(1795423339, 0).UTC(),
			Masters:   []string{"http://10.0.0.1:5050/api/v1"},
			Endpoint:  "10.0.0.1:5050",
			Leader:    mesos.Master{Addr: addr, Hostname: "m1", Port: 5050},
			Hosts:     map[string][]netip.Addr{"agent.example": {addr}},
		},
		State: &mesos.State{
			Agents:     []*mesos.Agent{{ID: "s", Hostname: "agent.example", Port: 5051}},
			Frameworks: []*mesos.Framework{{ID: "f", Name: "marathon"}},
			Tasks:      []*mesos.Task{{ID: "t", FrameworkID: "f", AgentID: "s", App: &mesos.App{Name: "nginx"}, State: mesos.TaskRunning}},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	s := example()
	s.Hosts = map[string][]netip.Addr{}
	for i := range 20_000 { // a header that no buffer holds
		s.Hosts[fmt.Sprintf("agent-%d.example", i)] = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	}
	for range 2 { // the second replaces the first
		if err := Write(file, s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(file)
	if err != nil || !reflect.DeepEqual(got.Header, s.Header) || len(got.State.Tasks) != 1 || !got.State.Tasks[0].Equal(s.State.Tasks[0]) ||
		*got.State.Agents[0] != *s.State.Agents[0] || *got.State.Frameworks[0] != *s.State.Frameworks[0] {
		t.Errorf("%+v, %v", got, err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// TestTorn cuts a snapshot at each length, and changes each of its bytes.
func TestTorn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := Write(file, example()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range whole {
		put(whole[:n])
		if _, err := Read(file); !errors.Is(err, ErrTorn) {
			t.Fatalf("the first %d bytes are read: %v", n, err)
		}
		changed := bytes.Clone(whole)
		changed[n] ^= 1
		put(changed)
		if s, err := Read(file); err == nil {
			t.Fatalf("with byte %d changed it is read as %+v", n, s)
		}
	}
	put(whole[:len(whole)/2])
	if err := Write(file, example()); err != nil {
		t.Errorf("a torn snapshot is not replaced: %v", err)
	}
	if _, err := Read(file); err != nil {
		t.Error(err)
	}
}

// TestOther finds what is no snapshot of ours where one is to be.
func TestOther(t *testing.T) {
	for name, tc := range map[string]struct {
		make     func(file string) error
		want     string // in the error of Read
		replaced bool
	}{
		"nothing": {func(string) error { return nil }, fs.ErrNotExist.Error(), true},
		"a text":  {func(f string) error { return os.WriteFile(f, []byte("root:x:0:0:root:/root:/bin/bash\n"), 0o600) }, "is no snapshot", false},
		"the future": {func(f string) error {
			return os.WriteFile(f, []byte("calicomesos snapshot 2\nxyz"), 0o600)
		}, "version of which this release knows nothing: 2", true},
		"a directory":  {func(f string) error { return os.Mkdir(f, 0o700) }, "is no snapshot", false},
		"a pipe":       {func(f string) error { return syscall.Mkfifo(f, 0o600) }, "is no snapshot", false},
		"no directory": {func(f string) error { return os.Remove(filepath.Dir(f)) }, fs.ErrNotExist.Error(), false},
		"a left-over": {func(f string) error {
			return os.Symlink("/etc/hostname", f+".tmp")
		}, fs.ErrNotExist.Error(), true},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "snapshot")
			if err := tc.make(file); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(file); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "no such file or directory", fs.ErrNotExist.Error()), tc.want) {
				t.Errorf("read: %v, want %s", err, tc.want)
			}
			if err := Write(file, example()); (err == nil) != tc.replaced {
				t.Errorf("write: %v", err)
			}
			if _, err := Read(file); (err == nil) != tc.replaced {
				t.Errorf("read again: %v", err)
			}
		})
	}
}

// FuzzRead reads what has the right checksum, and anything else in it.
func FuzzRead(f *testing.F) {
	var whole bytes.Buffer
	if err := write(&whole, example()); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes()[:whole.Len()-sha256.Size])
	f.Add([]byte("calicomesos snapshot 1\n{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "snapshot")
		sum := sha256.Sum256(b)
		if err := os.WriteFile(file, append(b, sum[:]...), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Read(file)
		if err == nil && s.State == nil {
			t.Error("a snapshot without a state")
		}
	})
}
