package watch

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
)

const (
	minSaveInterval = time.Second
	failedInterval  = 10 * time.Second // after a write that has failed
	// saveShare makes the wait after a write so many times as long as the write, so that
	// writing a large cluster takes a hundredth of the time.
	saveShare = 100
)

// SnapshotConfig is where a watcher keeps the last known cluster.
type SnapshotConfig struct {
	File      string
	Endpoints []string // of the cluster; a snapshot that has none of them is of another one
	// Owned reports whether the watcher may write the file: an older one may use it.
	Owned func() bool
	// Write replaces the file; nil stands for snapshot.Write.
	Write func(file string, s *snapshot.Snapshot) error
}

// snapshotWriter is the loop's view of the snapshot.
type snapshotWriter struct {
	outdated bool      // something was published since the last write
	next     time.Time // when to write at the earliest
	interval time.Duration
	writing  bool         // by a goroutine that sends to written when it ends
	written  chan written // has room for one
	failing  logstate.State

	promised time.Time // Until of the last snapshot, by this process's clock

	loaded time.Time // when the snapshot of an earlier process was loaded
	after  time.Time // when that one had published all it did; zero if there was none
}

// written is the result of a write.
type written struct {
	ok   bool
	took time.Duration
}

// loadSnapshot publishes the snapshot, if there is one. Run began at began.
func (w *Watcher) loadSnapshot(began int64) {
	if w.Snapshot == nil {
		return
	}
	s := w.readSnapshot()
	if s == nil {
		return
	}
	log.Infof("Loaded the snapshot of %s of %s: %s", w.Name, s.Heard.Format(time.RFC3339), contents(s.State))
	w.Resolver.Seed(s.Hosts)
	w.snapshots.loaded, w.snapshots.after = time.Now(), s.Until
	// Unless a master has spoken meanwhile, and not in the future, if a clock was put back.
	w.heard.CompareAndSwap(began, min(s.Heard.UnixNano(), began))
	w.leader = leaderInfo{Endpoint: s.Endpoint, Master: s.Leader}
	for _, m := range s.Masters {
		if u, err := url.Parse(m); err == nil {
			w.masters.All = append(w.masters.All, u)
		}
	}
	w.model.LoadSnapshot(s.State, w.masterID(w.leader))
	w.resolveMasters()
	w.setDirty(time.Now())
	w.publish()
}

// readSnapshot reads the file. It returns nil if there is no snapshot of this cluster, and
// logs why.
func (w *Watcher) readSnapshot() *snapshot.Snapshot {
	s, err := snapshot.Read(w.Snapshot.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		log.Infof("Found no snapshot %s of %s yet", w.Snapshot.File, w.Name)
	case err != nil:
		log.Warningf("Ignored the snapshot %s: %v", w.Snapshot.File, err)
	case !s.Of(w.Snapshot.Endpoints):
		log.Warningf("Ignored the snapshot %s: it is of another cluster, and stays until it is moved away", w.Snapshot.File)
	default:
		return s
	}
	return nil
}

// saveIfDue starts to write the snapshot if it is outdated, and returns when that may be
// due, or the zero time. An incomplete cluster never replaces one that was complete.
func (w *Watcher) saveIfDue(now time.Time) time.Time {
	s := &w.snapshots
	if w.Snapshot == nil || !s.outdated || s.writing || !w.model.Complete() {
		return time.Time{}
	}
	if now.Before(s.next) {
		return s.next
	}
	s.outdated, s.writing = false, true
	taken := w.takeSnapshot()
	go func() {
		start := time.Now()
		ok := w.save(taken)
		s.written <- written{ok, time.Since(start)}
	}()
	return time.Time{}
}

// saved notes the result of a write. One that has failed is repeated.
func (s *snapshotWriter) saved(result written) {
	s.writing = false
	least := minSaveInterval
	if !result.ok {
		s.outdated, least = true, failedInterval
	}
	s.interval = max(least, saveShare*result.took)
	s.next = time.Now().Add(s.interval)
	if result.ok && s.next.After(s.promised) { // it took longer than the one before: promise more
		s.outdated, s.next = true, time.Now()
	}
}

// saveLast writes the snapshot when the loop has ended.
func (w *Watcher) saveLast() {
	if w.snapshots.writing {
		<-w.snapshots.written
	}
	if w.Snapshot != nil && w.status.Complete && w.model.Complete() {
		w.save(w.takeSnapshot())
	}
}

// save writes s, and reports whether it could. One goroutine at a time may call it.
func (w *Watcher) save(s *snapshot.Snapshot) bool {
	if !w.Snapshot.Owned() {
		return false
	}
	write := w.Snapshot.Write
	if write == nil {
		write = snapshot.Write
	}
	err := write(w.Snapshot.File, s)
	var size int64
	if info, failed := os.Stat(w.Snapshot.File); failed == nil {
		size = info.Size()
	}
	w.Observer.SnapshotWritten(size, err)
	if err != nil {
		w.snapshots.failing.Failed("Writing the snapshot of %s to %s failed: %v", w.Name, w.Snapshot.File, err)
		return false
	}
	log.Debugf("Wrote the snapshot of %s to %s: %s", w.Name, w.Snapshot.File, logstate.Count(int(size), "byte"))
	w.snapshots.failing.Recovered("Wrote the snapshot of %s to %s again", w.Name, w.Snapshot.File)
	return true
}

// until returns a time before which all is published that is before the next snapshot.
func (s *snapshotWriter) until(now time.Time) time.Time {
	wait := 2 * max(minSaveInterval, s.interval) // twice, since the next one takes time, too
	s.promised = now.Add(wait)
	if !s.after.IsZero() {
		// A zone moves its serial no faster than time passes.
		if later := s.after.Add(time.Since(s.loaded)); later.After(now) {
			now = later
		}
	}
	return now.Add(wait)
}

// takeSnapshot returns the cluster as it is now.
func (w *Watcher) takeSnapshot() *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Header: snapshot.Header{
			Endpoints: w.Snapshot.Endpoints,
			Heard:     time.Unix(0, w.heard.Load()),
			Until:     w.snapshots.until(time.Now()),
			Endpoint:  w.leader.Endpoint,
			Leader:    w.leader.Master,
			Hosts:     w.Resolver.Known(),
		},
		State: w.model.Snapshot(),
	}
	for _, u := range w.masters.All {
		s.Masters = append(s.Masters, u.String())
	}
	return s
}
