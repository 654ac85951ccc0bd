package watch

import (
	"sync"
	"time"
)

const (
	// missedHeartbeats is the number of heartbeat intervals after which a silent stream is
	// dead. Intervals outside of the bounds are taken for the bound.
	missedHeartbeats = 3
	minHeartbeat     = time.Second
	maxHeartbeat     = 300 * time.Second
	// answerTimeout is how long a master may take to begin an answer to SUBSCRIBE.
	answerTimeout = 10 * time.Second
	// firstSilence is how long an answer may be silent before its master has announced a
	// heartbeat: a busy master prepares the whole state first.
	firstSilence = 30 * time.Second
	// progressStep is the number of bytes of a record after which it counts as progress: a
	// master that trickles is as good as silent.
	progressStep = 64 << 10
)

// watchdog calls a function when nothing has fed it for a limit.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
	limit time.Duration // 0: none
	bytes int           // read since it was last fed
}

func newWatchdog(limit time.Duration, expired func()) *watchdog {
	return &watchdog{limit: limit, timer: time.AfterFunc(limit, expired)}
}

// feed tells the watchdog that a whole record has come, and been handed over.
func (d *watchdog) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rearm()
}

func (d *watchdog) rearm() {
	d.bytes = 0
	if d.limit > 0 {
		d.timer.Reset(d.limit)
	}
}

// pause stops the watchdog until it is fed.
func (d *watchdog) pause() { d.timer.Stop() }

// allow sets the limit; 0 stands for none.
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

// expect sets the limit for the heartbeat interval that a master has announced. Without one,
// TCP keep-alive and the reconciliation notice a dead master.
func (d *watchdog) expect(heartbeat time.Duration) {
	if heartbeat > 0 {
		d.allow(missedHeartbeats * min(max(heartbeat, minHeartbeat), maxHeartbeat))
		return
	}
	d.timer.Stop()
	d.allow(0)
}

// settles returns how long a stream must live to count as stable.
func (d *watchdog) settles() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.limit, missedHeartbeats*minHeartbeat)
}

func (d *watchdog) stop() { d.timer.Stop() }
