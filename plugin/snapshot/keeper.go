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
	write func(*Snapshot)
	ready chan struct{}
	put   chan *Snapshot
}

// NewKeeper returns a keeper of what write writes.
func NewKeeper(write func(*Snapshot)) *Keeper {
	return &Keeper{write: write, ready: make(chan struct{}), put: make(chan *Snapshot, 1)}
}

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
			k.write(s)
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
