package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	// maxRecovering is the longest wait between attempts while a leader recovers: the stream
	// should begin before its agents return. Recovery takes a second, seldom up to a minute.
	maxRecovering = 500 * time.Millisecond

	// A watcher whose stream a master has ended, as it does with the oldest one when there
	// are more than it allows, subscribes again after this time, longer each time: at once
	// it would only end another watcher's stream.
	minEvicted = time.Minute
	maxEvicted = time.Hour
	// evictionReset is how long a stream must live for that to start over.
	evictionReset = 24 * time.Hour
)

// subscriber keeps a stream open. It remembers how earlier ones have ended.
type subscriber struct {
	*Watcher
	last       *url.URL         // the master that led to a stream
	refused    *backoff.BackOff // after attempts without a stream
	recovering *backoff.BackOff // after attempts at a leader that recovers
	broken     *backoff.BackOff // after streams that have ended soon
	evicted    *backoff.BackOff // after streams that the master has ended
	failing    logstate.State
}

// subscribe keeps a stream open until ctx is done.
func (w *Watcher) subscribe(ctx context.Context) {
	s := &subscriber{
		Watcher:    w,
		refused:    backoff.New(minBackOff, maxBackOff),
		recovering: backoff.New(minBackOff, maxRecovering),
		broken:     backoff.New(minBackOff, maxBackOff),
		evicted:    backoff.New(minEvicted, maxEvicted),
		failing:    logstate.State{Log: log},
	}
	for ctx.Err() == nil {
		back := s.tryMasters(ctx)
		if ctx.Err() != nil {
			return
		}
		if backoff.Wait(ctx, back.Next(), w.connection.changed) {
			back.Reset()
		}
	}
}

// tryMasters asks one master after the other until there was a stream, which it follows to
// its end. It returns how to wait before the next attempt.
func (s *subscriber) tryMasters(ctx context.Context) *backoff.BackOff {
	var errs []error
	back := s.refused
	masters, order := s.connection.candidates(s.last, isFailing(s.refused) || isFailing(s.broken))
	for _, u := range order {
		result, err := s.stream(ctx, masters, u)
		if ctx.Err() != nil {
			return back
		}
		if result.subscribed {
			s.last = u
			s.streamEnded(ctx, result, err)
			return s.broken
		}
		errs = append(errs, err)
		if mesos.IsRecovering(err) { // its agents return as soon as it has: the stream must begin before
			back = s.recovering
		}
		if errors.Is(err, errDeposed) {
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.failing.Failed("Subscribing to a master of %s failed: %v", s.Name, err)
	}
	return back
}

// streamEnded decides how to go on after a stream. If the master has ended it, the state is
// polled for a while.
func (s *subscriber) streamEnded(ctx context.Context, result streamResult, err error) {
	s.refused.Reset()
	s.recovering.Reset()
	log.Warningf("Lost the stream of %s: %v", result.leader.Endpoint, err)
	if result.lived >= result.settles {
		s.broken.Reset()
	}
	if result.lived >= evictionReset {
		s.evicted.Reset()
	}
	if errors.Is(err, io.EOF) && s.pollInstead(ctx, result.leader, s.evicted.Next()) {
		s.evicted.Reset()
		s.broken.Reset()
	}
}

// streamResult is what became of a stream.
type streamResult struct {
	leader     leaderInfo
	subscribed bool          // it told a whole state
	lived      time.Duration // since then
	settles    time.Duration // a stream that lives so long counts as stable
}

// stream follows one stream to its end. watching is the watcher's context.
func (s *subscriber) stream(watching context.Context, masters *detector.Masters, u *url.URL) (streamResult, error) {
	ctx, end := s.connection.begin(watching, masters, u)
	defer end(nil)
	watchdog := newWatchdog(answerTimeout, func() { end(errSilent) })
	defer watchdog.stop()

	stream, err := s.Client.Subscribe(ctx, u, watchdog.progress)
	if err != nil {
		s.attempted(ctx, err)
		return streamResult{}, cause(ctx, err)
	}
	defer stream.Close()
	watchdog.allow(firstSilence)
	s.connection.answered(stream.Conn)
	var reconciling sync.WaitGroup
	defer func() {
		end(nil) // and with it the reconciliation
		reconciling.Wait()
	}()
	result := streamResult{leader: s.identify(ctx, stream.Conn)}
	r := streamReader{subscriber: s, watching: watching, watchdog: watchdog, leader: result.leader}
	for {
		ev, err := stream.Next()
		if err != nil {
			err = cause(ctx, err)
			if result.subscribed = r.subscribed(); result.subscribed {
				result.lived, result.settles = time.Since(r.since), watchdog.settles()
				s.disconnected(watching)
			} else {
				s.attempted(ctx, err)
			}
			return result, fmt.Errorf("stream of %s: %w", stream.Conn.URL.Host, err)
		}
		subscribed, ok := ev.(mesos.Subscribed)
		if !ok {
			r.event(ev)
			continue
		}
		if r.subscribed() { // or a whole state could be sent again and again
			end(errTwice)
			continue
		}
		r.state(subscribed)
		s.attempted(ctx, nil)
		reconciling.Go(func() { s.reconcile(ctx, stream.Conn, subscribed.Heartbeat, end) })
	}
}

// streamReader hands the events of one stream over to the loop.
type streamReader struct {
	*subscriber
	watching context.Context // the stream's own may have been cancelled: what came before still counts
	watchdog *watchdog
	leader   leaderInfo
	since    time.Time // when it told its state; zero before
	unknown  bool      // an unknown event was logged
}

func (r *streamReader) subscribed() bool { return !r.since.IsZero() }

// state hands over the state of a SUBSCRIBED.
func (r *streamReader) state(s mesos.Subscribed) {
	r.received(s)
	r.failing.Recovered("Subscribed to a master of %s again", r.Name)
	logState("Subscribed to", r.leader, s.State)
	if !r.subscribed() {
		r.since = time.Now()
	}
	at := time.Now()
	r.handOver(func() { r.applyState(s.State, r.leader, false, at) })
	r.watchdog.expect(s.Heartbeat)
}

// event hands over any other event.
func (r *streamReader) event(ev mesos.Event) {
	r.received(ev)
	switch ev.(type) {
	case mesos.Heartbeat:
		r.watchdog.feed()
		return
	case mesos.Unknown:
		if !r.unknown {
			r.unknown = true
			log.Warningf("Ignored an event of %s that is malformed or of an unknown type", r.leader.Endpoint)
		}
	}
	at := time.Now()
	r.handOver(func() {
		r.model.Event(ev)
		r.markDirty(at)
	})
	r.watchdog.feed()
}

func (r *streamReader) received(ev mesos.Event) {
	r.heardNow()
	r.Observer.Received(mesos.EventType(ev))
}

// handOver queues f for the loop. While the queue is full the watchdog pauses: the master is
// not silent, but nobody reads.
func (r *streamReader) handOver(f func()) {
	r.watchdog.pause()
	r.emit(r.watching, f)
}
