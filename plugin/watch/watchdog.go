package watch

import (
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/wake"
)

const (
	// missedHeartbeats is the number of heartbeat intervals after which a silent stream is
	// dead. Intervals outside of the bounds are taken for the bound.
	missedHeartbeats = 3
	minHeartbeat     = time.Second
	maxHeartbeat     = 300 * time.Second
	// lateness is how much later than announced a heartbeat may come before others are asked
	// who leads.
	lateness = 2 * time.Second
	// answerTimeout is how long a master may take to begin an answer to SUBSCRIBE.
	answerTimeout = 10 * time.Second
	// firstSilence is how long an answer may be silent before its master has announced a
	// heartbeat: a busy master prepares the whole state first.
	firstSilence = 30 * time.Second
	// progressStep is the number of bytes of a record after which it counts as progress: a
	// master that trickles is as good as silent.
	progressStep = 64 << 10
	// stateTimeout is how long a whole state may take in all: another master may do better. A
	// loaded one needs some seconds for a hundred thousand tasks, which are 60 MB. If none does
	// better, the link is slow: twice as long is allowed next time, up to maxStateTimeout.
	stateTimeout    = time.Minute
	maxStateTimeout = 16 * time.Minute
)

// watchdog calls a function when nothing has fed it for a limit. Before that it signals that
// what it watches is late.
type watchdog struct {
	expired func()
	late    wake.Signal

	mu     sync.Mutex
	timer  *time.Timer
	limit  time.Duration // 0: none
	early  time.Duration // when to signal late; 0: never
	isLate bool
	bytes  int // read since it was last fed
}

func newWatchdog(limit time.Duration, expired func()) *watchdog {
	d := &watchdog{expired: expired, late: wake.New(), limit: limit}
	d.timer = time.AfterFunc(limit, d.fire)
	return d
}

// fire is called by the timer.
func (d *watchdog) fire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.early > 0 && !d.isLate {
		d.isLate = true
		d.late.Set()
		d.timer.Reset(d.limit - d.early)
		return
	}
	d.expired()
}

// overdue reports whether what the watchdog watches is late.
func (d *watchdog) overdue() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.isLate
}

// feed tells the watchdog that a whole record has come, and been handed over.
func (d *watchdog) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rearm()
}

func (d *watchdog) rearm() {
	d.bytes, d.isLate = 0, false
	switch {
	case d.early > 0:
		d.timer.Reset(d.early)
	case d.limit > 0:
		d.timer.Reset(d.limit)
	}
}

// pause stops the watchdog until it is fed.
func (d *watchdog) pause() { d.timer.Stop() }

// allow sets the limit.
func (d *watchdog) allow(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
	d.rearm()
}

// progress tells the watchdog that n bytes have come.
func (d *watchdog) progress(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bytes += n; d.bytes >= progressStep {
		d.rearm()
	}
}

// expect sets the limits for the heartbeat interval that a master has announced. Without one,
// TCP keep-alive and the reconciliation notice a dead master.
func (d *watchdog) expect(heartbeat time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if heartbeat <= 0 {
		d.timer.Stop()
		d.limit = 0
		return
	}
	heartbeat = min(max(heartbeat, minHeartbeat), maxHeartbeat)
	d.limit, d.early = missedHeartbeats*heartbeat, min(heartbeat+lateness, missedHeartbeats*heartbeat)
	d.rearm()
}

// settles returns how long a stream must live to count as stable.
func (d *watchdog) settles() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.limit, missedHeartbeats*minHeartbeat)
}

func (d *watchdog) stop() { d.timer.Stop() }
