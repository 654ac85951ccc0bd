package backoff

import (
	"testing"
	"time"
)

// TestBackOff_Bounds holds each wait to its bound and the half of it.
func TestBackOff_Bounds(t *testing.T) {
	const least, most = 100 * time.Millisecond, 10 * time.Second
	b := New(least, most)
	for range 3 {
		bound := least
		for i := range 12 {
			if got := b.Next(); got < bound/2-1 || got > bound+1 {
				t.Errorf("wait %d is %v, the bound is %v", i, got, bound)
			}
			if b.Attempts() != i+1 {
				t.Errorf("%d attempts after %d", b.Attempts(), i+1)
			}
			bound = min(2*bound, most)
		}
		if b.Reset(); b.Attempts() != 0 {
			t.Errorf("%d attempts after Reset", b.Attempts())
		}
	}
}

// TestJitter_Bounds holds Jitter to a tenth.
func TestJitter_Bounds(t *testing.T) {
	different := make(map[time.Duration]bool)
	for range 1000 {
		got := Jitter(time.Hour)
		if got > time.Hour || got < 54*time.Minute {
			t.Fatalf("%v", got)
		}
		different[got] = true
	}
	if len(different) < 100 {
		t.Errorf("only %d different waits", len(different))
	}
}
