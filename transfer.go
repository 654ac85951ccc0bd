package calicomesos

import (
	"errors"
	"sync"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

// transferChunk is the number of records that a transfer hands over at a time.
const transferChunk = 500

// errIncomplete refuses the transfer of an incomplete zone: a secondary would deny what is
// missing.
var errIncomplete = errors.New("the state of the cluster is incomplete")

// Transfer implements transfer.Transferer. It transfers one generation: the whole zone (RFC
// 5936), or for a secondary with an older serial what has changed since (RFC 1995), or the
// SOA alone if nothing has.
func (c *CalicoMesos) Transfer(name string, serial uint32) (<-chan []dns.RR, error) {
	z, rel := c.match(dns.CanonicalName(name))
	if z == nil || rel != "" {
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
	// *transfer* reads the channel to its end, even if its client is gone.
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

// transfers counts the transfers under way.
type transfers struct {
	mu  sync.Mutex
	all map[string]int // by origin
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

// underWay reports whether a zone is being transferred.
func (t *transfers) underWay(origin string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all[origin] > 0
}
