package follow

import (
	"context"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	// GET_AGENTS is asked this often, and once in every so many turns while no
	// agent is awaited.
	agentsInterval = 30 * time.Second
	agentsTurns    = 10
	agentsTimeout  = 10 * time.Second

	// GET_STATE, which costs a master much, is asked this often, and in doubt: not
	// more often than this.
	stateInterval = time.Hour
	doubtInterval = 5 * time.Minute

	// yieldInterval is how often a watcher without a stream asks for the state.
	yieldInterval = 30 * time.Second

	forever = 100 * 365 * 24 * time.Hour
)

// reconcile asks a master now and then what there is, since not all that changes
// makes an event.
func (f *Follower) reconcile(ctx context.Context, who *mesos.Leader) {
	select { // a doubt of before: the stream began with the whole state
	case <-f.doubt:
	default:
	}
	var (
		due     = time.Now().Add(jitter(stateInterval))
		allowed time.Time // for another GET_STATE in doubt
		doubted bool
		refused bool
	)
	for turn := rand.IntN(agentsTurns); ; turn++ {
		tick := time.NewTimer(jitter(agentsInterval))
		select {
		case <-ctx.Done():
		case <-f.doubt:
			doubted = true
		case <-tick.C:
		}
		tick.Stop()
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		whole := !now.Before(due) || doubted && !now.Before(allowed)
		if !whole && turn%agentsTurns != 0 && !f.Awaiting() {
			continue
		}
		if whole {
			due, allowed, doubted = now.Add(jitter(stateInterval)), now.Add(doubtInterval), false
		}
		if err := f.compare(ctx, who, whole); err != nil && !refused && ctx.Err() == nil {
			refused = true
			log.Warningf("The leading master %s does not answer what there is; what leaves silently keeps its records: %v", who.URL.Host, err)
		}
	}
}

// jitter returns d or up to a tenth less, so that watchers do not ask at once.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/10) }

// compare asks for the agents, or for the whole state.
func (f *Follower) compare(ctx context.Context, who *mesos.Leader, whole bool) error {
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

// poll asks for the whole state every interval, one request at a time, for the
// time d.
func (f *Follower) poll(ctx context.Context, interval, d time.Duration) {
	var (
		p    = poller{f: f}
		back = backOff{least: minBackOff, most: maxBackOff}
		end  = time.Now().Add(d)
	)
	defer p.lose(ctx)
	for ctx.Err() == nil && time.Now().Before(end) {
		start := time.Now()
		ok := p.ask(ctx, back.patient())
		took := time.Since(start)
		// A master that takes long is left alone for as long, and one that fails for
		// no less than always.
		next := max(interval-took, took)
		if ok {
			back.reset()
		} else {
			next = max(interval, took, back.advance())
		}
		if wait(ctx, min(next, time.Until(end)), f.changed) {
			back.reset()
		}
	}
}

// poller is what polls remember of each other.
type poller struct {
	f         *Follower
	last      *url.URL // the master that led to an answer
	leader    Leader
	connected bool
	failed    failures
}

// ask asks for the state once, and reports whether there is an answer.
func (p *poller) ask(ctx context.Context, failing bool) bool {
	var errs []error
	for _, u := range p.f.candidates(p.last, failing) {
		s, who, err := p.state(ctx, u)
		if ctx.Err() != nil {
			return false
		}
		p.f.Tell(ctx, Connect{err})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.last = u
		if !p.connected || p.leader.Endpoint != who.URL.Host {
			p.leader = p.f.ask(ctx, who)
			p.f.greet("Polling", p.leader, s)
		}
		p.connected = true
		p.failed.over()
		p.f.Tell(ctx, State{Subscribed: mesos.Subscribed{State: s}, Leader: p.leader, Polled: true})
		return true
	}
	p.lose(ctx)
	p.failed.log("No master of %s answers: %v", p.f.Cluster, errs)
	return false
}

// lose says that there is no connection any more, if there was.
func (p *poller) lose(ctx context.Context) {
	if p.connected {
		p.connected = false
		p.f.Tell(ctx, Lost{})
	}
}

func (p *poller) state(ctx context.Context, u *url.URL) (s *mesos.State, who *mesos.Leader, err error) {
	ctx, end := p.f.begin(ctx, u)
	defer end(nil)
	err = watched(ctx, func(ctx context.Context, read func(n int)) error {
		s, who, err = p.f.Client.State(ctx, u, read)
		return err
	})
	return s, who, err
}
