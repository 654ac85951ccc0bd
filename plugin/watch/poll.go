package watch

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	// evictedPoll is how often a watcher polls whose stream the master has ended, at least as
	// long as evictedShare makes it: the master is busy, and has a stream less.
	evictedPoll  = 2 * time.Second
	evictedShare = 9
	// failoverPoll is how often a leader is polled at first that expects agents.
	failoverPoll = time.Second
)

// poller polls the state of the leader. It remembers how earlier polls have ended.
type poller struct {
	asker
	interval  time.Duration
	share     time.Duration // a master is left alone for so many times as long as a poll took
	leader    leaderInfo
	since     time.Time // when leader first answered
	expecting bool      // it expects agents
	connected bool
}

func (w *Watcher) newPoller(interval, share time.Duration) *poller {
	return &poller{asker: newAsker(w), interval: interval, share: share}
}

// poll polls the state, one request at a time, until ctx is done.
func (w *Watcher) poll(ctx context.Context, interval time.Duration) {
	p := w.newPoller(interval, 1)
	for ctx.Err() == nil {
		next, _ := p.ask(ctx)
		if backoff.Wait(ctx, next, w.connection.changed) {
			p.reset()
		}
	}
}

// pollInstead polls for d, after the leader given, to which the master at from has led, has ended
// the watcher's stream. It returns earlier if no master answers, or if there is another leader,
// which it reports.
func (w *Watcher) pollInstead(ctx context.Context, who leaderInfo, from *url.URL, d time.Duration) (changed bool) {
	log.Warningf("Polling %s every %v and subscribing again in %v: its master has ended the stream, which may mean that it has too many subscribers",
		w.Name, evictedPoll, d.Round(time.Second))
	p := w.newPoller(evictedPoll, evictedShare)
	p.last = from
	defer p.lose(ctx)
	before := w.connection.current()
	for end := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(end); {
		next, ok := p.ask(ctx)
		if !ok {
			return false
		}
		if p.leader.isOther(who) {
			return true
		}
		for again := time.Now().Add(min(next, time.Until(end))); backoff.Wait(ctx, time.Until(again), w.connection.changed); {
			if w.connection.current().Elects(before) { // not just another master
				return true
			}
		}
	}
	return false
}

// ask polls once, and returns when to poll again. A master that does not answer is asked no
// more often than one that does; one that refuses may be, since that costs it little.
func (p *poller) ask(ctx context.Context) (next time.Duration, ok bool) {
	start := time.Now()
	back, err := p.round(ctx, func(masters *detector.Masters, t mesos.Target) (*url.URL, error) {
		s, conn, err := p.state(ctx, masters, t)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p.attempted(ctx, err)
		if err != nil {
			return nil, err
		}
		p.apply(ctx, s, conn)
		return t.URL, nil
	})
	took := time.Since(start)
	switch {
	case back == nil && p.expecting && time.Since(p.since) < electionTime:
		return max(min(p.interval, failoverPoll)-took, took), true
	case back == nil:
		return max(p.interval-took, p.share*took), true
	}
	p.lose(ctx)
	switch {
	case errors.Is(err, errSilent):
		next = p.interval
	case back == p.refused:
		next = min(p.interval, maxBackOff)
	}
	return max(next, took, back.Next()), false
}

// apply hands a polled state over to the loop.
func (p *poller) apply(ctx context.Context, s *mesos.State, conn *mesos.Conn) {
	p.heardNow()
	p.Observer.Received("GET_STATE")
	before := p.leader
	p.leader = p.identify(ctx, conn)
	if p.connected && p.leader.ID == "" && !p.leader.isOther(before) {
		p.leader = before // it has not told who it is this time
	}
	if !p.connected || p.leader != before {
		p.since = time.Now()
		log.Infof("Polling %s of %s: %s", p.leader.Endpoint, p.Name, contents(s))
	}
	p.connected, p.expecting = true, s.NoAgents() || len(s.RecoveredAgents) > 0
	p.recovered()
	at, who := time.Now(), p.leader
	p.emit(ctx, func() { p.applyState(s, who, true, at) })
}

// lose tells the loop that there is no connection any more, if there was one.
func (p *poller) lose(ctx context.Context) {
	if p.connected {
		p.connected = false
		p.disconnected(ctx, time.Unix(0, p.heard.Load()), time.Now(), false)
	}
}

// state asks a master for its state.
func (p *poller) state(ctx context.Context, masters *detector.Masters, t mesos.Target) (s *mesos.State, conn *mesos.Conn, err error) {
	ctx, end := p.connection.begin(ctx, masters, t.URL)
	defer end(nil)
	err = watched(ctx, p.patience, func(ctx context.Context, read func(n int)) error {
		s, conn, err = p.Client.State(ctx, t, read)
		return err
	})
	return s, conn, err
}
