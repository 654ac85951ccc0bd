package calicomesos

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

const (
	// transferChunk is the number of records that a transfer hands over at a time.
	transferChunk = 500
	// maxTransfers bounds the transfers under way. Each keeps a generation of its zone in memory,
	// and a zone has few secondaries.
	maxTransfers = 32
	// transferPatience is how long a client may take nothing before its transfer ends. The
	// connection, and what *transfer* has taken for it, last until the client closes it.
	transferPatience = 10 * time.Second
	// transferMoves is how long a transfer counts as under way after it has moved.
	transferMoves = time.Second
)

var (
	// errIncomplete refuses the transfer of an incomplete zone: a secondary would deny what is
	// missing.
	errIncomplete = errors.New("the state of the cluster is incomplete")
	errBusy       = errors.New("too many transfers are under way")
)

// Transfer implements transfer.Transferer. It transfers one generation: the whole zone (RFC
// 5936), or for a secondary with an older serial what has changed since (RFC 1995), or the
// SOA alone if nothing has.
func (c *CalicoMesos) Transfer(name string, serial uint32) (<-chan []dns.RR, error) {
	z, rel := c.match(dns.CanonicalName(name))
	if z == nil || rel != "" {
		return nil, transfer.ErrNotAuthoritative
	}
	gen, counts := z.Current(), c.counts[z]
	if gen == nil || !gen.Whole() {
		counts.transfer(refused)
		return nil, errIncomplete
	}
	soa := gen.SOA()
	ch := make(chan []dns.RR, 1)
	if serial != 0 && int32(serial-gen.Serial()) >= 0 {
		ch <- []dns.RR{soa}
		close(ch)
		counts.transfer(done)
		return ch, nil
	}
	records := gen.All()
	if serial != 0 {
		if changes, ok := gen.ChangesSince(serial); ok {
			records = changes
		}
	}
	t, err := c.transfers.begin(z.Origin)
	if err != nil {
		counts.transfer(refused)
		return nil, err
	}
	log.Debugf("Transferring %s, serial %d, to a client with serial %d", z.Origin, gen.Serial(), serial)
	go func() {
		defer close(ch)
		defer c.transfers.end(t)
		chunk := []dns.RR{soa}
		for rrs := range records {
			chunk = append(chunk, rrs...)
			if len(chunk) >= transferChunk {
				if !c.transfers.send(t, ch, chunk) {
					counts.transfer(failed)
					spoil(ch)
					return
				}
				chunk = nil
			}
		}
		if !c.transfers.send(t, ch, append(chunk, soa)) {
			counts.transfer(failed)
			spoil(ch)
			return
		}
		counts.transfer(done)
	}()
	return ch, nil
}

// spoil ends a transfer so that its client sees that it is not whole. Without the SOA at the end
// it would mostly see that, but *transfer* takes a single record that is left for an answer
// without changes, and sends the SOA. So it is given what it cannot send: a label of 64 octets.
func spoil(ch chan []dns.RR) {
	select {
	case <-ch: // what it has not taken yet
	default:
	}
	tooLong := &dns.PTR{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypePTR, Class: dns.ClassINET}, Ptr: strings.Repeat("x", maxLabel+1) + "."}
	ch <- []dns.RR{tooLong, tooLong}
}

// transfers are those under way.
type transfers struct {
	mu  sync.Mutex
	all []*transferring
}

// transferring is a transfer.
type transferring struct {
	origin string
	moved  time.Time // when its client last took something
}

func (t *transfers) begin(origin string) (*transferring, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.all) >= maxTransfers {
		return nil, errBusy
	}
	one := &transferring{origin, time.Now()}
	t.all = append(t.all, one)
	return one, nil
}

func (t *transfers) end(one *transferring) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = slices.DeleteFunc(t.all, func(o *transferring) bool { return o == one })
}

// send hands records over. It returns false if the client takes nothing: *transfer*, which
// reads the channel, waits for it.
func (t *transfers) send(one *transferring, ch chan<- []dns.RR, rrs []dns.RR) bool {
	patience := time.NewTimer(transferPatience)
	defer patience.Stop()
	select {
	case ch <- rrs:
	case <-patience.C:
		log.Warningf("Ended a transfer of %s: its client has taken nothing for %v", one.origin, transferPatience)
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	one.moved = time.Now()
	return true
}

// underWay reports whether a zone is being transferred, to a client that takes it.
func (t *transfers) underWay(origin string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.all, func(one *transferring) bool {
		return one.origin == origin && time.Since(one.moved) < transferMoves
	})
}
