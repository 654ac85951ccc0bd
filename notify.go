package calicomesos

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/wake"

	"github.com/miekg/dns"
)

const (
	notifyInterval = time.Second     // between two NOTIFYs of a zone, at least
	notifyHold     = 5 * time.Second // how long transfers can delay a NOTIFY
	notifyTimeout  = 2 * time.Second // of an answer
	notifyMaxWait  = time.Minute     // between attempts at a secondary that does not answer
)

// notifier sends NOTIFYs to the secondaries of changed zones (RFC 1996): all at the same time,
// so that none waits for another. While a zone is being transferred it holds the NOTIFY
// back: some secondaries begin another transfer for each NOTIFY, and would never catch up.
type notifier struct {
	transfers *transfers
	wake      wake.Signal
	all       []*notified

	mu      sync.Mutex
	changed map[string]bool      // zones that were since their last NOTIFY
	sent    map[string]time.Time // last NOTIFY
}

// newNotifier returns a notifier of the secondaries of zones. send sends a NOTIFY, and returns
// an errRefused if it is answered by an error.
func newNotifier(of map[string][]secondary, send func(ctx context.Context, to secondary, origin string) error, t *transfers) *notifier {
	n := &notifier{transfers: t, wake: wake.New(), changed: make(map[string]bool), sent: make(map[string]time.Time)}
	for _, origin := range slices.Sorted(maps.Keys(of)) {
		for _, to := range of[origin] {
			n.all = append(n.all, &notified{
				to: to, origin: origin, send: send, wake: wake.New(),
				back: backoff.New(notifyInterval, notifyMaxWait), failing: logstate.State{Log: log},
			})
		}
	}
	return n
}

// zoneChanged tells the notifier that the serial of a zone has moved. It does not block.
func (n *notifier) zoneChanged(origin string) {
	n.mu.Lock()
	n.changed[origin] = true
	n.mu.Unlock()
	n.wake.Set()
}

// take returns the changed zones to send a NOTIFY of now, and whether others are held back.
func (n *notifier) take() (origins []string, held bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, origin := range slices.Sorted(maps.Keys(n.changed)) {
		if n.transfers.underWay(origin) && time.Since(n.sent[origin]) < notifyHold {
			continue
		}
		origins = append(origins, origin)
		n.sent[origin] = time.Now()
		delete(n.changed, origin)
	}
	return origins, len(n.changed) > 0
}

// run sends NOTIFYs until ctx is done.
func (n *notifier) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	for _, s := range n.all {
		sending.Go(func() { s.run(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		origins, held := n.take()
		for _, s := range n.all {
			if slices.Contains(origins, s.origin) {
				s.wake.Set()
			}
		}
		backoff.Wait(ctx, notifyInterval, nil)
		if held {
			n.wake.Set()
		}
	}
}

// notified is a secondary that is told of the changes of a zone.
type notified struct {
	to      secondary
	origin  string
	send    func(ctx context.Context, to secondary, origin string) error
	wake    wake.Signal      // it has not been told of the last change
	back    *backoff.BackOff // while it does not answer
	failing logstate.State
	results [results]atomic.Uint64
}

// run tells the secondary until ctx is done. While it does not answer it is tried again, after
// longer and longer waits. One that refuses will not think better of it.
func (s *notified) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		err := s.send(ctx, s.to, s.origin)
		if ctx.Err() != nil {
			return
		}
		log.Debugf("Sent NOTIFY of %s to the secondary %s: %v", s.origin, s.to.addr, err)
		isRefused := errors.As(err, new(errRefused))
		switch {
		case err == nil:
			s.results[done].Add(1)
			s.failing.Recovered("Sent NOTIFY of %s to the secondary %s again", s.origin, s.to.addr)
		case isRefused:
			s.results[refused].Add(1)
			s.failing.Failed("Sending NOTIFY of %s to the secondary %s failed: %v", s.origin, s.to.addr, err)
		default:
			s.results[failed].Add(1)
			s.failing.Failed("Sending NOTIFY of %s to the secondary %s failed: %v", s.origin, s.to.addr, err)
		}
		if err == nil || isRefused {
			s.back.Reset()
			continue
		}
		s.wake.Set()
		backoff.Wait(ctx, s.back.Next(), nil)
	}
}

// errRefused is the RCODE of an answer to a NOTIFY.
type errRefused int

func (e errRefused) Error() string { return "it answers " + dns.RcodeToString[int(e)] }

// sendNotify sends a NOTIFY and waits for the answer. The NOTIFY has the SOA, if there is one,
// which spares a secondary that has it already the question (RFC 1996, section 3.7).
func (c *CalicoMesos) sendNotify(ctx context.Context, to secondary, origin string) error {
	m := new(dns.Msg).SetNotify(origin)
	if z, _ := c.match(origin); z != nil && z.Current() != nil {
		m.Answer = []dns.RR{z.Current().SOA()}
	}
	client := dns.Client{Timeout: notifyTimeout, Dialer: &net.Dialer{Timeout: notifyTimeout}}
	if to.source != nil {
		client.Dialer.LocalAddr = &net.UDPAddr{IP: to.source}
	}
	conn, err := client.DialContext(ctx, to.addr)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	answer, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return errRefused(answer.Rcode)
	}
	return nil
}
