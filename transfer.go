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
	notifyInterval = time.Second     // at most one NOTIFY of a zone in this time
	notifyPatience = 3 * time.Second // for a NOTIFY under way at shutdown
	transferChunk  = 500             // records handed over at a time
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
		if changes, ok := gen.Since(serial); ok {
			records = changes
		}
	}
	// *transfer* reads the channel to its end, also when its client is gone.
	go func() {
		defer close(ch)
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

// notifier tells secondaries of changed zones (RFC 1996), not for every change
// but in turn: sending waits for each secondary's answer.
type notifier struct {
	send func(origin string) error
	wake chan struct{}

	mu    sync.Mutex
	zones map[string]bool
}

func newNotifier(send func(origin string) error) *notifier {
	return &notifier{send: send, wake: make(chan struct{}, 1), zones: make(map[string]bool)}
}

// changed says that the serial of a zone has moved. It does not wait.
func (n *notifier) changed(origin string) {
	n.mu.Lock()
	n.zones[origin] = true
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take returns the zones that have changed since the last call.
func (n *notifier) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	zones := slices.Sorted(maps.Keys(n.zones))
	clear(n.zones)
	return zones
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
		for _, origin := range n.take() {
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
	}
}
