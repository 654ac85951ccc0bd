package follow

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	// GET_AGENTS is asked this often, and once in every so many turns while no
	// agent is awaited.
	agentsInterval = 30 * time.Second
	agentsTurns    = 10
	agentsTimeout  = 10 * time.Second
	// missedAnswers is how many answers in a row may fail to come of a master that
	// sends no heartbeat.
	missedAnswers = 3

	// GET_STATE, which costs a master much, is asked this often, and in doubt: not
	// more often than this.
	stateInterval = time.Hour
	doubtInterval = 5 * time.Minute

	// yieldInterval is how often a watcher without a stream asks for the state.
	yieldInterval = 30 * time.Second
)

// reconcile asks a master now and then what there is, since not all that changes
// makes an event.
// It ends the attempt where the master leads no more, or no longer answers and
// sends no heartbeat that would tell.
func (f *Follower) reconcile(ctx context.Context, who *mesos.Conn, heartbeat time.Duration, end func(cause error)) {
	select { // a doubt of before: the stream began with the whole state
	case <-f.doubt:
	default:
	}
	var (
		due     = time.Now().Add(jitter(stateInterval))
		allowed time.Time // for another GET_STATE in doubt
		doubted bool
		silent  int // answers in a row that did not come
		said    bool
		turn    = rand.IntN(agentsTurns)
		tick    = time.NewTimer(jitter(agentsInterval))
	)
	defer tick.Stop()
	for {
		agents := false
		select {
		case <-ctx.Done():
			return
		case <-f.doubt:
			doubted = true
		case <-tick.C:
			turn++
			agents = turn%agentsTurns == 0 || f.Awaiting()
			tick.Reset(jitter(agentsInterval))
		}
		now := time.Now()
		whole := !now.Before(due) || doubted && !now.Before(allowed)
		if !whole && !agents {
			continue
		}
		err := f.compare(ctx, who, whole)
		if whole { // and again soon, if there was no answer
			due, allowed, doubted = now.Add(jitter(stateInterval)), now.Add(doubtInterval), err != nil
		}
		if err == nil || ctx.Err() != nil {
			silent = 0
			continue
		}
		if !errors.As(err, new(*mesos.StatusError)) {
			silent++
		}
		switch {
		case errors.Is(err, mesos.ErrNotLeading), heartbeat == 0 && silent >= missedAnswers:
			end(err)
			return
		case !said:
			said = true
			log.Warningf("The leading master %s does not answer what there is; what leaves silently keeps its records: %v", who.URL.Host, err)
		}
	}
}

// jitter returns d or up to a tenth less, so that watchers do not ask at once.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }

// compare asks for the agents, or for the whole state.
func (f *Follower) compare(ctx context.Context, who *mesos.Conn, whole bool) error {
	f.Tell(ctx, Asked{})
	var (
		s   *mesos.State
		err error
	)
	if whole {
		err = watched(ctx, func(ctx context.Context, read func(n int)) error {
			s, err = who.State(ctx, read)
			return err
		})
	} else {
		timed, cancel := context.WithTimeout(ctx, agentsTimeout)
		defer cancel()
		s, err = who.Agents(timed)
	}
	f.Tell(ctx, Answered{State: s, Whole: whole})
	return err
}

// watched calls a function that reads a whole state, which may be long but is
// not to stop coming.
func watched(ctx context.Context, get func(ctx context.Context, read func(n int)) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := newWatchdog(firstSilence, func() { cancel(errSilent) })
	defer watchdog.stop()
	if err := get(ctx, watchdog.progress); err != nil {
		return cause(ctx, err)
	}
	return nil
}

// poll asks for the whole state every interval, one request at a time, until ctx
// is done.
func (f *Follower) poll(ctx context.Context, interval time.Duration) {
	p := poller{f: f, interval: interval, back: backOff{least: minBackOff, most: maxBackOff}}
	for ctx.Err() == nil {
		next, _ := p.ask(ctx)
		if wait(ctx, next, f.changed) {
			p.back.reset()
		}
	}
}

// yield asks for the state now and then for the time d, or until there is another
// leader, which it reports, or none that answers: the leader who has ended the
// stream, as it does with the oldest one when there are more than it allows. To
// subscribe at once would only put out the next watcher.
func (f *Follower) yield(ctx context.Context, who Leader, d time.Duration) (changed bool) {
	log.Warningf("The master has ended the stream of %s: it may have too many subscribers. Asking for its state every %v, and for a stream again in %v",
		f.Cluster, yieldInterval, d.Round(time.Second))
	p := poller{f: f, interval: yieldInterval, back: backOff{least: minBackOff, most: maxBackOff}}
	defer p.lose(ctx)
	before := f.masters()
	for end := time.Now().Add(d); ctx.Err() == nil && time.Now().Before(end); {
		next, ok := p.ask(ctx)
		if !ok {
			return false
		}
		if p.leader.differs(who) {
			return true
		}
		for again := time.Now().Add(min(next, time.Until(end))); wait(ctx, time.Until(again), f.changed); {
			if otherLeader(before, f.masters()) { // and not just another master that does not lead
				return true
			}
		}
	}
	return false
}

// poller is what polls remember of each other.
type poller struct {
	f         *Follower
	interval  time.Duration
	back      backOff
	last      *url.URL // the master that led to an answer
	leader    Leader
	connected bool
	failed    failures
}

// ask asks for the state once, and returns when to ask again. A master that
// takes long is left alone for as long, and one that does not answer for no less
// than always; one that refuses is cheap to ask.
func (p *poller) ask(ctx context.Context) (next time.Duration, ok bool) {
	start := time.Now()
	err := p.try(ctx)
	took := time.Since(start)
	switch {
	case err == nil:
		p.back.reset()
		return max(p.interval-took, took), true
	case errors.Is(err, errSilent):
		next = p.interval
	default:
		next = min(p.interval, maxBackOff)
	}
	return max(next, took, p.back.advance()), false
}

// try asks one master after the other.
func (p *poller) try(ctx context.Context) error {
	var errs []error
	view, order := p.f.candidates(p.last, p.back.patient())
	for _, u := range order {
		s, who, err := p.state(ctx, view, u)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p.f.Tell(ctx, Connect{err})
		if err != nil {
			errs = append(errs, err)
			if errors.Is(err, errDeposed) {
				break
			}
			continue
		}
		p.last = u
		before := p.leader
		p.leader = p.f.ask(ctx, who)
		if p.connected && p.leader.ID == "" && !p.leader.differs(before) {
			p.leader = before // it did not answer this time
		}
		if !p.connected || p.leader != before {
			p.f.greet("Polling", p.leader, s)
		}
		p.connected = true
		p.failed.over()
		p.f.Tell(ctx, State{Subscribed: mesos.Subscribed{State: s}, Leader: p.leader, Polled: true})
		return nil
	}
	p.lose(ctx)
	p.failed.log("No master of %s answers: %v", p.f.Cluster, errs)
	return errors.Join(errs...)
}

// lose says that there is no connection any more, if there was.
func (p *poller) lose(ctx context.Context) {
	if p.connected {
		p.connected = false
		p.f.Tell(ctx, Lost{})
	}
}

func (p *poller) state(ctx context.Context, view *leader.View, u *url.URL) (s *mesos.State, who *mesos.Conn, err error) {
	ctx, end := p.f.begin(ctx, view, u)
	defer end(nil)
	err = watched(ctx, func(ctx context.Context, read func(n int)) error {
		s, who, err = p.f.Client.State(ctx, u, read)
		return err
	})
	return s, who, err
}
