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
	"slices"
	"strings"
	"sync"
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
			Tasks:      []mesos.PackedTask{(&mesos.Task{ID: "t", FrameworkID: "f", AgentID: "s", Name: "nginx", State: mesos.TaskRunning}).Pack()},
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
	if err != nil || !reflect.DeepEqual(got.Header, s.Header) || len(got.State.Tasks) != 1 || got.State.Tasks[0] != s.State.Tasks[0] ||
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
		if _, err := Read(file); !errors.Is(err, errTorn) {
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

// TestOther reads files that are not snapshots, or not of this version.
func TestOther(t *testing.T) {
	for name, tc := range map[string]struct {
		make     func(file string) error
		want     string // in the error of Read
		replaced bool
	}{
		"nothing": {func(string) error { return nil }, fs.ErrNotExist.Error(), true},
		"a text":  {func(f string) error { return os.WriteFile(f, []byte("root:x:0:0:root:/root:/bin/bash\n"), 0o600) }, "not a snapshot", false},
		"the future": {func(f string) error {
			return os.WriteFile(f, []byte("calicomesos snapshot 2\nxyz"), 0o600)
		}, "newer version: 2", false},
		"the past": {func(f string) error {
			return os.WriteFile(f, []byte("calicomesos snapshot 0\nxyz"), 0o600)
		}, "torn", true},
		"another cluster": {func(f string) error {
			s := example()
			s.Endpoints = []string{"elsewhere:5050"}
			return Write(f, s)
		}, "", false},
		"this cluster, with more masters": {func(f string) error {
			s := example()
			s.Endpoints = append([]string{"elsewhere:5050"}, s.Endpoints...)
			return Write(f, s)
		}, "", true},
		"no header": {func(f string) error {
			return os.WriteFile(f, []byte("calicomesos snapshot 1\n[7"), 0o600)
		}, "torn", true},
		"a directory":  {func(f string) error { return os.Mkdir(f, 0o700) }, "not a snapshot", false},
		"a pipe":       {func(f string) error { return syscall.Mkfifo(f, 0o600) }, "not a snapshot", false},
		"no directory": {func(f string) error { return os.Remove(filepath.Dir(f)) }, fs.ErrNotExist.Error(), false},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "snapshot")
			if err := tc.make(file); err != nil {
				t.Fatal(err)
			}
			before, err := Read(file)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(strings.ReplaceAll(err.Error(), "no such file or directory", fs.ErrNotExist.Error()), tc.want) {
				t.Errorf("read: %v, want %s", err, tc.want)
			}
			if err := Write(file, example()); (err == nil) != tc.replaced {
				t.Errorf("write: %v", err)
			}
			after, err := Read(file)
			if tc.replaced && (err != nil || !slices.Equal(after.Endpoints, example().Endpoints)) {
				t.Errorf("read again: %+v, %v", after, err)
			}
			if !tc.replaced && !reflect.DeepEqual(before, after) {
				t.Errorf("read again: %+v, %v, before %+v", after, err, before)
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

// recordedFile is a file that records what is done with it.
type recordedFile struct {
	syncWriter
	done *[]string
}

func (f recordedFile) Write(b []byte) (int, error) {
	if last := len(*f.done) - 1; (*f.done)[last] != "write" {
		*f.done = append(*f.done, "write")
	}
	return f.syncWriter.Write(b)
}

func (f recordedFile) Sync() error {
	*f.done = append(*f.done, "sync")
	return f.syncWriter.Sync()
}

func (f recordedFile) Close() error {
	*f.done = append(*f.done, "close")
	return f.syncWriter.Close()
}

// TestWrite_Order holds Write to the order that survives a crash: the content must be on the
// disk before the rename, and the rename before Write returns.
func TestWrite_Order(t *testing.T) {
	var done []string
	o := operations{
		create: func(file string) (syncWriter, error) {
			done = append(done, "create "+filepath.Base(file))
			f, err := createTemporary(file)
			return recordedFile{f, &done}, err
		},
		rename: func(from, to string) error {
			done = append(done, "rename to "+filepath.Base(to))
			return os.Rename(from, to)
		},
		syncDir: func(dir string) error {
			done = append(done, "sync directory")
			return syncDir(dir)
		},
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := o.replace(file, example()); err != nil {
		t.Fatal(err)
	}
	if want := "create snapshot, write, sync, close, rename to snapshot, sync directory"; strings.Join(done, ", ") != want {
		t.Errorf("%s, want %s", strings.Join(done, ", "), want)
	}
}

// TestWrite_LeftOver finds the temporary files of others: old ones go, no other file does.
func TestWrite_LeftOver(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot")
	long := time.Now().Add(-2 * leftOver)
	for _, name := range []string{"snapshot.123.tmp", "other.123.tmp", "snapshot.old", "snapshot.456.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name != "snapshot.456.tmp" {
			if err := os.Chtimes(filepath.Join(dir, name), long, long); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := Write(file, example()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"other.123.tmp", "snapshot", "snapshot.456.tmp", "snapshot.old"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%q, %v, want %q", names, err, want)
	}
}

// TestWrite_Together writes one file by several writers at once: it is whole at each moment.
func TestWrite_Together(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 10 {
				if err := Write(file, example()); err != nil {
					t.Error(err)
				}
				if _, err := Read(file); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
}

// TestCheckDir looks whether a snapshot could be written, and leaves nothing.
func TestCheckDir(t *testing.T) {
	dir := t.TempDir()
	if err := CheckDir(filepath.Join(dir, "snapshot")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left over: %v, %v", entries, err)
	}
	if err := CheckDir(filepath.Join(dir, "nowhere", "snapshot")); err == nil {
		t.Error("a snapshot can be written to no directory")
	}
}

// TestWrite_Fails writes a snapshot that cannot be encoded: the old one must stay.
func TestWrite_Fails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := Write(file, example()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := example()
	bad.Heard = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) // JSON has no such year
	if err := Write(file, bad); err == nil {
		t.Error("a snapshot that cannot be encoded is written")
	}
	after, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the old snapshot is gone: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(entries) != 1 {
		t.Errorf("left over: %v, %v", entries, err)
	}
}

// TestRead_LongHeader reads a snapshot whose header has no end in sight.
func TestRead_LongHeader(t *testing.T) {
	file := filepath.Join(t.TempDir(), "snapshot")
	content := fmt.Appendf(nil, "%s%d\n%s{}\n", magic, version, bytes.Repeat([]byte(" "), maxHeader+1<<20))
	sum := sha256.Sum256(content)
	if err := os.WriteFile(file, append(content, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "header") {
		t.Errorf("a header of more than %d bytes is read: %v", maxHeader, err)
	}
}

// TestRead_Version1 reads a snapshot of the simulated tutorial that an earlier release has
// written, without what later ones have added.
func TestRead_Version1(t *testing.T) {
	s, err := Read("../../testdata/snapshot/version1")
	if err != nil {
		t.Fatal(err)
	}
	if !s.Of([]string{"127.0.0.1:15050"}) || s.Heard.IsZero() || !s.Until.IsZero() || s.Leader.Port != 15050 {
		t.Errorf("the header is %+v", s.Header)
	}
	if len(s.State.Tasks) != 10 || len(s.State.Agents) != 2 || len(s.State.Frameworks) != 1 {
		t.Errorf("%d tasks, %d agents, %d frameworks", len(s.State.Tasks), len(s.State.Agents), len(s.State.Frameworks))
	}
	for _, packed := range s.State.Tasks {
		var task mesos.Task
		packed.Unpack(&task)
		if task.Name == "nginx" && (task.Discovery == nil || len(task.Status.Networks) != 1) {
			t.Errorf("nginx is %+v", task)
		}
	}
}
