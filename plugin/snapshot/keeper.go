package snapshot

import (
	"context"
	"time"
)

const (
	interval = 10 * time.Second // of writes, at the least
	// share is how many times longer than a write the wait after it is: a large
	// cluster is written less often, so that writing takes a hundredth of the time.
	share = 100
)

// Keeper has snapshots written at a bounded rate, by a goroutine of its own.
type Keeper struct {
	write  func(*Snapshot) bool
	ready  chan struct{}
	put    chan *Snapshot
	failed chan struct{}
}

// NewKeeper returns a keeper of what write writes, which reports whether it has.
func NewKeeper(write func(*Snapshot) bool) *Keeper {
	return &Keeper{write: write, ready: make(chan struct{}), put: make(chan *Snapshot, 1), failed: make(chan struct{}, 1)}
}

// Failed is signalled when a snapshot could not be written.
func (k *Keeper) Failed() <-chan struct{} { return k.failed }

// Ready is received from before each Put: it blocks until the last write is long
// enough ago.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Put has s written. It does not wait.
func (k *Keeper) Put(s *Snapshot) { k.put <- s }

// Run writes until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	for {
		select {
		case k.ready <- struct{}{}:
		case <-ctx.Done():
			return
		}
		select {
		case s := <-k.put:
			start := time.Now()
			if !k.write(s) {
				select {
				case k.failed <- struct{}{}:
				default:
				}
			}
			timer := time.NewTimer(max(interval, share*time.Since(start)))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
			timer.Stop()
		case <-ctx.Done():
			return
		}
	}
}
