package calicomesos

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/wake"
)

const (
	notifyInterval = time.Second      // between two NOTIFYs of a zone, at least
	notifyHold     = 10 * time.Second // how long transfers can delay a NOTIFY
	notifyPatience = 3 * time.Second  // how long a shutdown waits for a NOTIFY
)

// notifier sends NOTIFYs to the secondaries of changed zones (RFC 1996). It sends one zone's
// after the other's, since each waits for the secondaries' answers. While a zone is being
// transferred it holds the NOTIFY back: some secondaries begin another transfer for each
// NOTIFY, and would never catch up.
type notifier struct {
	send      func(origin string) error
	transfers *transfers
	wake      wake.Signal

	mu    sync.Mutex
	zones map[string]bool      // changed
	sent  map[string]time.Time // last NOTIFY
}

func newNotifier(send func(origin string) error, t *transfers) *notifier {
	return &notifier{send: send, transfers: t, wake: wake.New(), zones: make(map[string]bool), sent: make(map[string]time.Time)}
}

// changed tells the notifier that the serial of a zone has moved. It does not block.
func (n *notifier) changed(origin string) {
	n.mu.Lock()
	n.zones[origin] = true
	n.mu.Unlock()
	n.wake.Set()
}

// take returns the changed zones to send a NOTIFY of now, and whether others are held back.
func (n *notifier) take() (zones []string, held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, origin := range slices.Sorted(maps.Keys(n.zones)) {
		if n.transfers.underWay(origin) && time.Since(n.sent[origin]) < notifyHold {
			continue
		}
		zones = append(zones, origin)
		n.sent[origin] = time.Now()
		delete(n.zones, origin)
	}
	return zones, len(n.zones) > 0
}

// run sends NOTIFYs until ctx is done.
func (n *notifier) run(ctx context.Context) {
	failing := make(map[string]*logstate.State)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		zones, held := n.take()
		for _, origin := range zones {
			if failing[origin] == nil {
				failing[origin] = &logstate.State{Log: log}
			}
			if err := n.send(origin); err != nil {
				failing[origin].Failed("Sending NOTIFY of %s failed: %v", origin, err)
			} else {
				failing[origin].Recovered("Sent NOTIFY of %s again", origin)
			}
			if ctx.Err() != nil {
				return
			}
		}
		backoff.Wait(ctx, notifyInterval, nil)
		if held {
			n.wake.Set()
		}
	}
}
