package watch

import (
	"errors"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
)

// slowDisk takes its time to write a snapshot, or fails.
type slowDisk struct {
	takes  time.Duration
	fails  atomic.Bool
	writes atomic.Int32
}

func (d *slowDisk) write(string, *snapshot.Snapshot) error {
	d.writes.Add(1)
	time.Sleep(d.takes)
	if d.fails.Load() {
		return errors.New("disk full")
	}
	return nil
}

func (r *recorder) saved() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.saves)
}

// TestSnapshot_Rate changes a cluster all the time: a snapshot is written every second,
// or less often if that takes long; and never while nothing changes.
func TestSnapshot_Rate(t *testing.T) {
	for name, tc := range map[string]struct {
		takes       time.Duration
		least, most int // in ten minutes of changes
	}{
		"a quick disk": {0, 580, 602},
		"a slow disk":  {time.Second, 6, 7}, // after a hundred seconds each
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mesostest.NewMaster(15 * time.Second)
				tut := mesostest.NewTutorial(m)
				disk := &slowDisk{takes: tc.takes}
				_, r := inMemory(t, m, func(c *Config) {
					c.Snapshot = &SnapshotConfig{File: filepath.Join(t.TempDir(), "snapshot"), Owned: func() bool { return true }, Write: disk.write}
				})
				for range 600 {
					pass(time.Second)
					tut.Wander(m)
				}
				if n := r.saved(); n < tc.least || n > tc.most {
					t.Errorf("%d snapshots in ten minutes", n)
				}
				pass(10 * time.Minute)
				before := r.saved()
				pass(time.Hour)
				if n := r.saved() - before; n != 0 {
					t.Errorf("%d snapshots in an hour without a change", n)
				}
			})
		})
	}
}

// TestSnapshot_Fails lets writes fail: they are repeated without a change, until one succeeds.
func TestSnapshot_Fails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		mesostest.NewTutorial(m)
		disk := &slowDisk{}
		disk.fails.Store(true)
		_, r := inMemory(t, m, func(c *Config) {
			c.Snapshot = &SnapshotConfig{File: filepath.Join(t.TempDir(), "snapshot"), Owned: func() bool { return true }, Write: disk.write}
		})
		pass(55 * time.Second)
		if n := r.saved(); n != 6 {
			t.Errorf("%d attempts", n)
		}
		disk.fails.Store(false)
		pass(time.Hour)
		if n := r.saved(); n != 7 {
			t.Errorf("%d attempts in the end", n)
		}
	})
}

// TestSnapshot_NotOwned has another watcher own the file: nothing is written until that is
// over, not even at the end.
func TestSnapshot_NotOwned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		mesostest.NewTutorial(m)
		var owned atomic.Bool
		disk := &slowDisk{}
		_, r := inMemory(t, m, func(c *Config) {
			c.Snapshot = &SnapshotConfig{File: filepath.Join(t.TempDir(), "snapshot"), Owned: owned.Load, Write: disk.write}
		})
		pass(time.Minute)
		if disk.writes.Load() != 0 || r.saved() != 0 {
			t.Error("the file of another watcher was written")
		}
		owned.Store(true)
		pass(failedInterval)
		if n := disk.writes.Load(); n != 1 {
			t.Errorf("written %d times", n)
		}
	})
}

// TestSnapshot_Incomplete lets the state become incomplete: it must never replace a complete
// one.
func TestSnapshot_Incomplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		tut := mesostest.NewTutorial(m)
		file := filepath.Join(t.TempDir(), "snapshot")
		inMemory(t, m, func(c *Config) {
			c.Snapshot = &SnapshotConfig{File: file, Endpoints: []string{"x"}, Owned: func() bool { return true }}
		})
		pass(time.Minute)
		whole := m.State()
		info := tut.Agent(7, "172.24.197.109").AgentInfo
		whole.Agents.Recovered = []*mesostest.AgentInfo{&info} // nothing is known of it
		m.Load(whole)
		m.Drop()
		pass(time.Minute)
		for range 100 {
			tut.Wander(m)
			pass(100 * time.Millisecond)
		}
		pass(time.Minute)
		s, err := snapshot.Read(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, task := range s.State.Tasks {
			if task.Name() == "wanderer" && task.ID() != "wanderer.0" {
				t.Errorf("%s was written while the state was incomplete", task.ID())
			}
		}
	})
}

// TestSnapshot_Future loads a snapshot that was written before the clock was put back, while
// no master answers.
func TestSnapshot_Future(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := mesostest.NewMaster(15 * time.Second)
		m.Refuse(http.StatusServiceUnavailable, "No leader elected")
		file := filepath.Join(t.TempDir(), "snapshot")
		until := time.Now().Add(2 * time.Hour)
		s := &snapshot.Snapshot{Header: snapshot.Header{Endpoints: []string{"m"}, Heard: time.Now().Add(time.Hour), Until: until}, State: &mesos.State{}}
		if err := snapshot.Write(file, s); err != nil {
			t.Fatal(err)
		}
		w, r := inMemory(t, m, func(c *Config) {
			c.Snapshot = &SnapshotConfig{File: file, Endpoints: []string{"m"}, Owned: func() bool { return true }}
		})
		pass(time.Minute)
		if age := time.Since(w.Stats().Heard); age < time.Minute-time.Second || age > time.Minute {
			t.Errorf("the state is %v old", age)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if !r.status.After.Equal(until) {
			t.Errorf("what is published comes after %v, want %v", r.status.After, until)
		}
		// A minute later serials may be a minute later, too.
		if got := w.snapshots.until(time.Now()); got.Before(until.Add(time.Minute)) {
			t.Errorf("the next process comes after %v", got)
		}
	})
}

// TestSnapshot_Until changes a cluster at all times: whatever is published before the next
// snapshot is published before the time that the last one has. Only the first change after a
// rest is ahead of its snapshot, which is written at once.
func TestSnapshot_Until(t *testing.T) {
	for name, tc := range map[string]struct {
		takes time.Duration // a write, which is a hundredth of the time until the next
		rest  time.Duration // before the changes
	}{
		"after a rest":           {50 * time.Millisecond, time.Minute},
		"from the beginning":     {50 * time.Millisecond, time.Second},
		"a large cluster's":      {500 * time.Millisecond, 1100 * time.Millisecond},
		"a small cluster's disk": {0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mesostest.NewMaster(15 * time.Second)
				tut := mesostest.NewTutorial(m)
				var mu sync.Mutex
				var until time.Time
				_, r := inMemory(t, m, func(c *Config) {
					c.Snapshot = &SnapshotConfig{File: "x", Owned: func() bool { return true }, Write: func(_ string, s *snapshot.Snapshot) error {
						time.Sleep(tc.takes)
						mu.Lock()
						defer mu.Unlock()
						until = s.Until
						return nil
					}}
				})
				pass(tc.rest)
				for i := range 3000 {
					tut.Wander(m)
					pass(7 * time.Millisecond)
					mu.Lock()
					r.mu.Lock()
					if last := r.published[len(r.published)-1]; i > 10 && !last.Before(until) {
						t.Errorf("published %v after %v", last, until)
					}
					r.mu.Unlock()
					mu.Unlock()
				}
			})
		})
	}
}
