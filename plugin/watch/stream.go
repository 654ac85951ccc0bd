package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/wake"
)

const (
	// A watcher whose stream a master has ended, as it does with the oldest one when there
	// are more than it allows, subscribes again after this time, longer each time: at once
	// it would only end another watcher's stream.
	minEvicted = time.Minute
	maxEvicted = time.Hour
	// evictionReset is how long a stream must live for that to start over.
	evictionReset = 24 * time.Hour
)

var (
	errSilent = errors.New("the master is silent")
	errSlow   = errors.New("the master has not told its state in time")
	errTwice  = errors.New("the master has begun the stream twice")
)

// subscriber keeps a stream open. It remembers how earlier ones have ended.
type subscriber struct {
	asker
	broken  *backoff.BackOff // after streams that have ended soon
	evicted *backoff.BackOff // after streams that the master has ended
}

// subscribe keeps a stream open until ctx is done.
func (w *Watcher) subscribe(ctx context.Context) {
	s := &subscriber{
		asker:   newAsker(w),
		broken:  backoff.New(minBackOff, maxBackOff),
		evicted: backoff.New(minEvicted, maxEvicted),
	}
	for ctx.Err() == nil {
		back, _ := s.round(ctx, func(masters *detector.Masters, t mesos.Target) (*url.URL, error) {
			return s.stream(ctx, masters, t)
		})
		if ctx.Err() != nil {
			return
		}
		if back == nil {
			back = s.broken
		}
		if backoff.Wait(ctx, back.Next(), w.connection.changed) {
			s.reset()
			s.broken.Reset()
		}
	}
}

// subscription is an open stream whose master has told its state.
type subscription struct {
	*mesos.Stream
	ctx       context.Context
	end       context.CancelCauseFunc
	asked     *url.URL // the master that led to it
	watchdog  *watchdog
	leader    leaderInfo
	heartbeat time.Duration // 0 if the master announces none
	state     *mesos.State  // nil once the loop has it: the model keeps what lasts
	doubted   atomic.Bool   // the loop was told that it is late
}

// close ends the stream.
func (sub *subscription) close() {
	sub.end(nil)
	sub.watchdog.stop()
	_ = sub.Close() // the rest of the answer is not needed
}

// open subscribes, and reads the state, which may take as long as patience. ctx is that of the
// stream, and end ends it with a cause.
func (w *Watcher) open(ctx context.Context, end context.CancelCauseFunc, t mesos.Target, patience time.Duration, answered func(*mesos.Conn)) (*subscription, error) {
	sub := &subscription{ctx: ctx, end: end, asked: t.URL, watchdog: newWatchdog(answerTimeout, func() { end(errSilent) })}
	slow := time.AfterFunc(patience, func() { end(errSlow) })
	defer slow.Stop()
	stream, err := w.Client.Subscribe(ctx, t, sub.watchdog.progress)
	if err != nil {
		sub.watchdog.stop()
		return nil, cause(ctx, err)
	}
	sub.Stream = stream
	sub.watchdog.allow(firstSilence)
	answered(stream.Conn)
	sub.leader = w.identify(ctx, stream.Conn)
	for {
		ev, err := stream.Next()
		if err != nil {
			err = fmt.Errorf("stream of %s: %w", stream.Conn.URL.Host, cause(ctx, err))
			sub.close()
			return nil, err
		}
		w.received(ev)
		if first, ok := ev.(mesos.Subscribed); ok { // its state has what an earlier event may have told
			sub.state, sub.heartbeat = first.State, first.Heartbeat
			sub.watchdog.expect(first.Heartbeat)
			return sub, nil
		}
	}
}

// stream follows a stream to its end, and then those of leaders that take over meanwhile. It
// returns the master that led to the last of them. watching is the watcher's context.
func (s *subscriber) stream(watching context.Context, masters *detector.Masters, t mesos.Target) (*url.URL, error) {
	ctx, end := s.connection.begin(watching, masters, t.URL)
	defer end(nil)
	sub, err := s.open(ctx, end, t, s.patience, s.connection.answered)
	if err != nil {
		s.attempted(watching, err)
		return nil, err
	}
	for {
		next := s.follow(watching, sub)
		if next == nil {
			return sub.asked, nil
		}
		next.end = s.connection.adopt(next.Conn, next.end)
		sub = next
	}
}

// follow hands the events of a stream over to the loop until it ends, and decides how to go on
// then. It returns the stream of a master that leads instead, if there is one.
func (s *subscriber) follow(watching context.Context, sub *subscription) *subscription {
	var (
		beside sync.WaitGroup
		next   *subscription
	)
	r := streamReader{subscriber: s, watching: watching, subscription: sub, since: time.Now()}
	r.begin()
	beside.Go(func() { s.reconcile(sub.ctx, sub.Conn, sub.heartbeat, sub.end) })
	late := wake.New()
	beside.Go(func() { s.tellLate(watching, sub, late) })
	beside.Go(func() {
		if next = s.awaitRival(watching, sub, late); next != nil {
			sub.end(fmt.Errorf("%w: %s", errSuperseded, next.leader.Endpoint))
		}
	})
	err := r.read()
	lived, settles, overdue := time.Since(r.since), sub.watchdog.settles(), sub.watchdog.overdue()
	sub.close()
	beside.Wait()
	at := time.Now()
	if overdue { // what has been launched since may be unknown
		at = r.spoke
	}
	s.disconnected(watching, r.spoke, at, next != nil)
	switch {
	case watching.Err() != nil:
		if next != nil {
			next.close()
		}
		return nil
	case next != nil:
		log.Warningf("Left the stream of %s: another master leads: %s", sub.leader.Endpoint, next.leader.Endpoint)
		return next
	}
	s.ended(watching, sub, err, lived, settles)
	return nil
}

// ended decides how to go on after a stream. If the master has ended it, the state is polled
// for a while. A stream that has lived as long as settles was stable.
func (s *subscriber) ended(ctx context.Context, sub *subscription, err error, lived, settles time.Duration) {
	log.Warningf("Lost the stream of %s: %v", sub.leader.Endpoint, err)
	if lived >= settles {
		s.broken.Reset()
	}
	if lived >= evictionReset {
		s.evicted.Reset()
	}
	if errors.Is(err, io.EOF) && s.pollInstead(ctx, sub.leader, sub.asked, s.evicted.Next()) {
		s.evicted.Reset()
		s.broken.Reset()
	}
}

// streamReader hands the events of one stream over to the loop.
type streamReader struct {
	*subscriber
	*subscription
	watching context.Context // the stream's own may have been cancelled: what came before still counts
	since    time.Time       // when it told its state
	spoke    time.Time       // when it last said anything
	unknown  bool            // an unknown event was logged
}

// begin hands over the state.
func (r *streamReader) begin() {
	at := time.Now()
	r.spoke = at
	r.attempted(r.watching, nil)
	r.recovered()
	log.Infof("Subscribed to %s of %s: %s", r.leader.Endpoint, r.Name, contents(r.state))
	state := r.state
	r.state = nil
	r.handOver(func() { r.applyState(state, r.leader, false, at) })
	r.watchdog.feed()
}

// read hands over events until the stream ends, and returns why.
func (r *streamReader) read() error {
	for {
		ev, err := r.Next()
		if err != nil {
			return fmt.Errorf("stream of %s: %w", r.Conn.URL.Host, cause(r.ctx, err))
		}
		r.received(ev)
		r.spoke = time.Now()
		switch ev.(type) {
		case mesos.Subscribed: // or a whole state could be sent again and again
			r.end(errTwice)
			continue
		case mesos.Heartbeat:
		case mesos.Unknown:
			if !r.unknown {
				r.unknown = true
				log.Warningf("Ignored an event of %s that is malformed or of an unknown type", r.leader.Endpoint)
			}
		default:
			r.event(ev, r.spoke)
		}
		r.watchdog.feed()
		if r.doubted.Swap(false) {
			r.tellDoubt(r.watching, r.subscription)
		}
	}
}

// event hands over an event that changes the cluster.
func (r *streamReader) event(ev mesos.Event, at time.Time) {
	r.handOver(func() {
		r.model.Event(ev)
		r.markDirty(at)
	})
}

// handOver queues f for the loop. While the queue is full the watchdog pauses: the master is
// not silent, but nobody reads.
func (r *streamReader) handOver(f func()) {
	r.watchdog.pause()
	r.emit(r.watching, f)
}

// received tells the observer of an event, or of an answer like one.
func (w *Watcher) received(ev mesos.Event) {
	w.heardNow()
	w.Observer.Received(mesos.EventType(ev))
}
