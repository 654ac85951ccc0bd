package follow

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second
	// recoveryBackOff is the most for a leader that has not finished recovery, which
	// takes a second, or a minute at most.
	recoveryBackOff = 500 * time.Millisecond

	// A watcher that a master put out for another one tries again after this time,
	// longer each time it is put out.
	minEvicted = time.Minute
	maxEvicted = time.Hour
	// forgiven is how long a stream is to live for that to be forgotten.
	forgiven = 24 * time.Hour

	// A stream that is silent for this many heartbeat intervals is dead.
	missedHeartbeats = 3
	minHeartbeat     = time.Second
	maxHeartbeat     = 300 * time.Second
	// answerTimeout is how long a master may take to begin a stream, and
	// firstSilence how long the stream may be silent before it has announced its
	// heartbeat, or any other answer: a busy master prepares a whole state first.
	answerTimeout = 10 * time.Second
	firstSilence  = 30 * time.Second
	// progressStep is how much of a record is to come before the next silence
	// counts: a master that trickles is as good as silent.
	progressStep = 64 << 10
)

// watchdog calls expired once nothing has fed it for its limit.
type watchdog struct {
	mu     sync.Mutex
	timer  *time.Timer
	limit  time.Duration // 0: no limit
	octets int           // read since it was last fed
}

func newWatchdog(limit time.Duration, expired func()) *watchdog {
	return &watchdog{limit: limit, timer: time.AfterFunc(limit, expired)}
}

// feed says that a whole record has come.
func (d *watchdog) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rearm()
}

func (d *watchdog) rearm() {
	d.octets = 0
	if d.limit > 0 {
		d.timer.Reset(d.limit)
	}
}

// allow sets the limit; 0 stands for none.
func (d *watchdog) allow(limit time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limit = limit
	d.rearm()
}

// progress says that n more octets have come.
func (d *watchdog) progress(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.octets += n; d.octets >= progressStep {
		d.rearm()
	}
}

// expect sets the limit by the heartbeat interval that a master announced.
// Without one, TCP keep-alive decides.
func (d *watchdog) expect(heartbeat time.Duration) {
	if heartbeat > 0 {
		d.allow(missedHeartbeats * min(max(heartbeat, minHeartbeat), maxHeartbeat))
		return
	}
	d.timer.Stop()
	d.allow(0)
}

// settles returns how long a stream is to live to count as a good one.
func (d *watchdog) settles() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(d.limit, missedHeartbeats*minHeartbeat)
}

func (d *watchdog) stop() { d.timer.Stop() }

// backOff makes waits longer each time, with jitter.
type backOff struct{ least, most, next time.Duration }

func (b *backOff) reset() { b.next = 0 }

// patient reports whether there have been several waits.
func (b *backOff) patient() bool { return b.next > 4*b.least }

// advance returns how long to wait, at most twice as long as the last time.
func (b *backOff) advance() time.Duration {
	b.next = min(max(2*b.next, b.least), b.most)
	return b.next/2 + rand.N(b.next/2)
}

// wait waits for d, until ctx is done, or until changed, which it reports.
func wait(ctx context.Context, d time.Duration, changed <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-changed:
		return true
	}
	return false
}
