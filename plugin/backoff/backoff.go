// Package backoff spaces attempts out, with jitter, so that many clients do not act at
// once.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// BackOff makes the waits between failed attempts. Each is between half of a bound and the
// bound, which doubles from a least to a most.
type BackOff struct {
	waits    backoff.ExponentialBackOff
	attempts int
}

// New returns a BackOff whose bound doubles from least to most.
func New(least, most time.Duration) *BackOff {
	// Three quarters of the bound, a third more or less, is between its half and itself.
	b := &BackOff{waits: backoff.ExponentialBackOff{
		InitialInterval: least * 3 / 4, MaxInterval: most * 3 / 4, Multiplier: 2, RandomizationFactor: 1. / 3,
	}}
	b.waits.Reset()
	return b
}

// Next returns how long to wait after a failed attempt.
func (b *BackOff) Next() time.Duration {
	b.attempts++
	return b.waits.NextBackOff()
}

// Attempts returns the number of failed attempts since the last Reset.
func (b *BackOff) Attempts() int { return b.attempts }

// Reset starts over, after an attempt that succeeded.
func (b *BackOff) Reset() {
	b.attempts = 0
	b.waits.Reset()
}

// Jitter returns d, or up to a tenth less.
func Jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }

// Wait waits for d. It returns earlier if ctx is done, and if wake is received from, which
// it reports.
func Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-wake:
		return true
	}
	return false
}
