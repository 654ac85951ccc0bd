package calicomesos

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

const (
	notifyInterval = time.Second      // at most one NOTIFY of a zone in this time
	notifyHold     = 10 * time.Second // after the NOTIFY before, no other waits for transfers
	notifyPatience = 3 * time.Second  // for a NOTIFY under way at shutdown
	transferChunk  = 500              // records handed over at a time
)

// errIncomplete refuses the transfer of a zone of which not everything is known.
var errIncomplete = errors.New("the state of the cluster is not complete")

// Transfer implements transfer.Transferer: the whole zone (RFC 5936), as one
// generation; for a secondary that has a serial only what has changed since, or
// the SOA alone (RFC 1995).
func (c *CalicoMesos) Transfer(name string, serial uint32) (<-chan []dns.RR, error) {
	z, owner := c.match(dns.CanonicalName(name))
	if z == nil || owner != "" {
		return nil, transfer.ErrNotAuthoritative
	}
	gen := z.Current()
	if gen == nil || !gen.Complete() {
		return nil, errIncomplete
	}
	soa := gen.SOA()
	ch := make(chan []dns.RR, 1)
	if serial != 0 && int32(serial-gen.Serial()) >= 0 {
		ch <- []dns.RR{soa}
		close(ch)
		return ch, nil
	}
	records := gen.All()
	if serial != 0 {
		if changes, ok := gen.ChangesSince(serial); ok {
			records = changes
		}
	}
	// *transfer* reads the channel to its end, also when its client is gone.
	c.transfers.begin(z.Origin)
	go func() {
		defer close(ch)
		defer c.transfers.end(z.Origin)
		chunk := []dns.RR{soa}
		for rrs := range records {
			chunk = append(chunk, rrs...)
			if len(chunk) >= transferChunk {
				ch <- chunk
				chunk = nil
			}
		}
		ch <- append(chunk, soa)
	}()
	return ch, nil
}

// transfers counts those that are under way.
type transfers struct {
	mu  sync.Mutex
	all map[string]int // of each zone, by its origin
}

func (t *transfers) begin(origin string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = make(map[string]int)
	}
	t.all[origin]++
}

func (t *transfers) end(origin string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all[origin]--
}

// underWay reports whether there is one of a zone.
func (t *transfers) underWay(origin string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[origin] > 0
}

// notifier tells secondaries of changed zones (RFC 1996), not for every change
// but in turn: sending waits for each secondary's answer. While a zone is being
// transferred it waits, until notifyHold after the NOTIFY before: some secondaries would
// begin another transfer beside the one that they cannot keep up with.
type notifier struct {
	send      func(origin string) error
	transfers *transfers
	wake      chan struct{}

	mu    sync.Mutex
	zones map[string]bool
	sent  map[string]time.Time // when the last one was
}

func newNotifier(send func(origin string) error, t *transfers) *notifier {
	return &notifier{send: send, transfers: t, wake: make(chan struct{}, 1), zones: make(map[string]bool), sent: make(map[string]time.Time)}
}

// changed says that the serial of a zone has moved. It does not wait.
func (n *notifier) changed(origin string) {
	n.mu.Lock()
	n.zones[origin] = true
	n.mu.Unlock()
	n.signal()
}

func (n *notifier) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take returns the zones that have changed and are to be told of now; others are
// looked at again after the next signal.
func (n *notifier) take() (zones []string, others bool) {
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

// run sends until ctx is done.
func (n *notifier) run(ctx context.Context) {
	failing := make(map[string]bool) // what was logged
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		zones, others := n.take()
		for _, origin := range zones {
			err := n.send(origin)
			if err != nil && !failing[origin] {
				log.Warningf("A secondary of %s misses changes: %v", origin, err)
			}
			failing[origin] = err != nil
			if ctx.Err() != nil {
				return
			}
		}
		timer := time.NewTimer(notifyInterval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		if others {
			n.signal()
		}
	}
}
