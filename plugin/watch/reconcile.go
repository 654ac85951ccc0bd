package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	// GET_AGENTS is called this often while the model wants the agents, and every agentsTurns
	// times otherwise.
	agentsInterval = 30 * time.Second
	agentsTurns    = 10
	agentsTimeout  = 10 * time.Second
	// maxUnanswered is the number of calls in a row that a master without heartbeats may
	// leave unanswered.
	maxUnanswered = 3

	// GET_STATE, which is expensive for a master, is called this often, and when the model
	// wants the state, but for that no more often than resyncInterval.
	stateInterval  = time.Hour
	resyncInterval = 5 * time.Minute
)

// reconciler asks the leader, beside its stream, for what no event tells.
type reconciler struct {
	*Watcher
	conn       *mesos.Conn
	heartbeat  time.Duration // 0 if the master announces none
	failing    logstate.State
	due        time.Time // when to ask for the state
	allowed    time.Time // when the model may have the state
	retry      bool      // the last call for the state has failed
	unanswered int       // calls in a row
}

// reconcile runs a reconciler until ctx is done. It ends the stream if the master does not
// lead any more, or does not answer and has no heartbeat that would tell.
func (w *Watcher) reconcile(ctx context.Context, conn *mesos.Conn, heartbeat time.Duration, end func(cause error)) {
	r := &reconciler{Watcher: w, conn: conn, heartbeat: heartbeat, failing: logstate.State{Log: log}}
	select { // the stream begins with the whole state: what the model wanted before is settled
	case <-w.connection.resync:
	default:
	}
	r.due = time.Now().Add(backoff.Jitter(stateInterval))
	turn := rand.IntN(agentsTurns)
	tick := time.NewTimer(backoff.Jitter(agentsInterval))
	defer tick.Stop()
	for {
		agents := false
		select {
		case <-ctx.Done():
			return
		case <-w.connection.resync:
		case <-tick.C:
			turn++
			agents = turn%agentsTurns == 0 || w.wants.Load().Agents
			tick.Reset(backoff.Jitter(agentsInterval))
		}
		if err := r.ask(ctx, agents); err != nil {
			end(err)
			return
		}
	}
}

// ask asks for the whole state if that is due, or else for the agents if they are wanted. An
// error ends the stream.
func (r *reconciler) ask(ctx context.Context, agents bool) error {
	now := time.Now()
	whole := !now.Before(r.due) || (r.wants.Load().State || r.retry) && !now.Before(r.allowed)
	if !whole && !agents {
		return nil
	}
	err := r.list(ctx, whole)
	if whole {
		r.due, r.allowed, r.retry = now.Add(backoff.Jitter(stateInterval)), now.Add(resyncInterval), err != nil
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the stream has ended
	}
	if err == nil {
		r.unanswered = 0
		log.Debugf("Reconciled with %s, whole=%v", r.conn.URL.Host, whole)
		r.failing.Recovered("Reconciled with %s again", r.conn.URL.Host)
		return nil
	}
	if !errors.As(err, new(*mesos.StatusError)) {
		r.unanswered++
	}
	if errors.Is(err, mesos.ErrNotLeading) || r.heartbeat == 0 && r.unanswered >= maxUnanswered {
		return err
	}
	r.failing.Failed("Reconciliation with %s failed: %v; agents that leave without an event stay published", r.conn.URL.Host, err)
	return nil
}

// list asks for the agents or the whole state, and hands the answer over to the loop.
func (r *reconciler) list(ctx context.Context, whole bool) error {
	r.emit(ctx, r.model.BeginReconcile)
	var (
		s   *mesos.State
		err error
	)
	if whole {
		err = watched(ctx, maxStateTimeout, func(ctx context.Context, read func(n int)) error {
			s, err = r.conn.State(ctx, read)
			return err
		})
	} else {
		timed, cancel := context.WithTimeout(ctx, agentsTimeout)
		defer cancel()
		s, err = r.conn.Agents(timed)
	}
	if err != nil {
		r.emit(ctx, r.model.AbortReconcile)
		return err
	}
	r.heardNow()
	at := time.Now()
	r.emit(ctx, func() { r.applyList(s, whole, at) })
	return nil
}

// applyList applies what a master has listed.
func (w *Watcher) applyList(s *mesos.State, whole bool, at time.Time) {
	if whole {
		w.countMalformed(s)
	}
	n := w.model.Listed(s, whole)
	w.Observer.Reconciled(n)
	if n > 0 {
		log.Infof("Reconciled %s: %s without an event", w.Name, logstate.Count(n, "difference"))
	}
	w.markDirty(at)
}

// watched calls a function that reads a whole state. That may take as long as patience, but
// must not stop.
func watched(ctx context.Context, patience time.Duration, get func(ctx context.Context, read func(n int)) error) error {
	timed, stop := context.WithTimeoutCause(ctx, patience, errSlow)
	defer stop()
	ctx, cancel := context.WithCancelCause(timed)
	defer cancel(nil)
	watchdog := newWatchdog(firstSilence, func() { cancel(errSilent) })
	defer watchdog.stop()
	if err := get(ctx, watchdog.progress); err != nil {
		return cause(ctx, err)
	}
	return nil
}
