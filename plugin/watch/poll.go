package watch

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

// evictedPoll is how often a watcher polls whose stream the master has ended.
const evictedPoll = 30 * time.Second

// poller polls the state of the leader. It remembers how earlier polls have ended.
type poller struct {
	*Watcher
	interval  time.Duration
	back      *backoff.BackOff
	last      *url.URL // the master that led to an answer
	leader    leaderInfo
	connected bool
	failing   logstate.State
}

func (w *Watcher) newPoller(interval time.Duration) *poller {
	return &poller{Watcher: w, interval: interval, back: backoff.New(minBackOff, maxBackOff), failing: logstate.State{Log: log}}
}

// poll polls the state, one request at a time, until ctx is done.
func (w *Watcher) poll(ctx context.Context, interval time.Duration) {
	p := w.newPoller(interval)
	for ctx.Err() == nil {
		next, _ := p.ask(ctx)
		if backoff.Wait(ctx, next, w.connection.changed) {
			p.back.Reset()
		}
	}
}

// pollInstead polls for d, after the leader given has ended the watcher's stream. It returns
// earlier if no master answers, or if there is another leader, which it reports.
func (w *Watcher) pollInstead(ctx context.Context, who leaderInfo, d time.Duration) (changed bool) {
	log.Warningf("Polling %s every %v and subscribing again in %v: its master has ended the stream, which may mean that it has too many subscribers",
		w.Name, evictedPoll, d.Round(time.Second))
	p := w.newPoller(evictedPoll)
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

// ask polls once, and returns when to poll again. A master that takes long is left alone for
// as long. One that does not answer is asked no more often than one that does; one that
// refuses may be, since that costs it little.
func (p *poller) ask(ctx context.Context) (next time.Duration, ok bool) {
	start := time.Now()
	err := p.tryMasters(ctx)
	took := time.Since(start)
	switch {
	case err == nil:
		p.back.Reset()
		return max(p.interval-took, took), true
	case errors.Is(err, errSilent):
		next = p.interval
	default:
		next = min(p.interval, maxBackOff)
	}
	return max(next, took, p.back.Next()), false
}

// tryMasters asks one master after the other until one answers.
func (p *poller) tryMasters(ctx context.Context) error {
	var errs []error
	masters, order := p.connection.candidates(p.last, isFailing(p.back))
	for _, u := range order {
		s, conn, err := p.state(ctx, masters, u)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.attempted(ctx, err)
		if err == nil {
			p.last = u
			p.answered(ctx, s, conn)
			return nil
		}
		errs = append(errs, err)
		if errors.Is(err, errDeposed) {
			break
		}
	}
	p.lose(ctx)
	err := errors.Join(errs...)
	p.failing.Failed("Polling the masters of %s failed: %v", p.Name, err)
	return err
}

// answered hands a polled state over to the loop.
func (p *poller) answered(ctx context.Context, s *mesos.State, conn *mesos.Conn) {
	p.heardNow()
	p.Observer.Received("GET_STATE")
	before := p.leader
	p.leader = p.identify(ctx, conn)
	if p.connected && p.leader.ID == "" && !p.leader.isOther(before) {
		p.leader = before // it has not told who it is this time
	}
	if !p.connected || p.leader != before {
		logState("Polling", p.leader, s)
	}
	p.connected = true
	p.failing.Recovered("Polling the masters of %s again", p.Name)
	at, who := time.Now(), p.leader
	p.emit(ctx, func() { p.applyState(s, who, true, at) })
}

// lose tells the loop that there is no connection any more, if there was one.
func (p *poller) lose(ctx context.Context) {
	if p.connected {
		p.connected = false
		p.disconnected(ctx)
	}
}

// state asks the master at u for its state.
func (p *poller) state(ctx context.Context, masters *detector.Masters, u *url.URL) (s *mesos.State, conn *mesos.Conn, err error) {
	ctx, end := p.connection.begin(ctx, masters, u)
	defer end(nil)
	err = watched(ctx, func(ctx context.Context, read func(n int)) error {
		s, conn, err = p.Client.State(ctx, u, read)
		return err
	})
	return s, conn, err
}
