package watch

import (
	"context"
	"errors"
	"net"
	"net/url"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
)

const (
	minBackOff = 100 * time.Millisecond
	maxBackOff = 10 * time.Second
	// maxElecting is the longest wait between attempts while the masters elect one of them and
	// it recovers: a stream should begin before the agents return. That takes a second or some,
	// seldom up to electionTime.
	maxElecting  = 500 * time.Millisecond
	electionTime = time.Minute
	// A master that ZooKeeper names, and that redirects to another, has not finished its
	// recovery: that takes it some ten milliseconds. It is asked again, and believed if it
	// insists.
	maxRedirected = 50 * time.Millisecond
	redirectTime  = 2 * time.Second
	// toleratedFailures is the number of failures in a row after which masters are asked other
	// than the leader that ZooKeeper names: ZooKeeper may be away, and they know better.
	toleratedFailures = 3
)

var (
	errDeposed      = errors.New("ZooKeeper names another leader")
	errNotRecovered = errors.New("it is elected, but has not finished recovery")
	errUnreachable  = errors.New("it has just not answered")
	errFailed       = errors.New("it has just failed")
)

// asker asks the masters for something, one after the other, until the leader answers. It
// remembers how that went, for the wait until the next round.
type asker struct {
	*Watcher
	failing    logstate.State
	last       *url.URL // the master that led to an answer
	refused    *backoff.BackOff
	electing   *backoff.BackOff
	redirected *backoff.BackOff

	patience        time.Duration // with a whole state
	electingSince   time.Time     // zero unless the last round found an election
	redirectedBy    *url.URL      // the elected master that redirects, or nil
	redirectedSince time.Time
}

func newAsker(w *Watcher) asker {
	return asker{
		Watcher:    w,
		failing:    logstate.State{Log: log},
		refused:    backoff.New(minBackOff, maxBackOff),
		electing:   backoff.New(minBackOff, maxElecting),
		redirected: backoff.New(maxRedirected, maxRedirected),
		patience:   stateTimeout,
	}
}

// recovered logs that a state has come after rounds that have failed.
func (a *asker) recovered() { a.failing.Recovered("Received the state of %s", a.Name) }

// fail logs why a round has failed: a line for each master.
func (a *asker) fail(failures []failure) {
	for _, f := range failures {
		todo := ""
		if a.Advice != nil {
			todo = a.Advice(f.err)
		}
		if todo != "" {
			todo = "; " + todo
		}
		a.failing.Failed("Asking %s of %s for its state failed: %v%s", f.asked, a.Name, f.err, todo)
	}
}

// reset starts over, after a round that has ended well.
func (a *asker) reset() {
	a.refused.Reset()
	a.electing.Reset()
	a.redirected.Reset()
	a.electingSince, a.redirectedBy = time.Time{}, nil
}

// failure is why a master has led to no answer.
type failure struct {
	asked string // its host
	err   error
}

// round asks the masters. It calls ask for each, with the masters that it was chosen from,
// until ask returns the one that led to an answer. If none does, it logs and returns the errors,
// and returns how to wait before the next round.
func (a *asker) round(ctx context.Context, ask func(masters *detector.Masters, t mesos.Target) (answered *url.URL, err error)) (*backoff.BackOff, error) {
	back := a.refused
	var failures []failure
	failed := make(map[string]error) // by the host that was asked last, in this round
	masters, order := a.connection.candidates(a.last, a.refused.Attempts()+a.electing.Attempts() > toleratedFailures)
	for _, u := range order {
		asked := u.Host
		answered, err := ask(masters, mesos.Target{URL: u, Follow: func(next *url.URL) error {
			if err := a.mayFollow(u, failed[next.Host]); err != nil {
				return err
			}
			asked = next.Host
			return nil
		}})
		log.Debugf("Asked %s of %s for its state, at %s: %v", u.Host, a.Name, asked, err)
		if answered != nil {
			a.last = answered
			a.reset()
			return nil, nil
		}
		if ctx.Err() != nil {
			return back, ctx.Err()
		}
		failed[asked] = err
		failures = append(failures, failure{u.Host, err})
		if errors.Is(err, errNotRecovered) {
			back = a.redirected
		} else if isElecting(err) {
			back = a.electing
		}
		if back == a.redirected || errors.Is(err, errDeposed) {
			break
		}
	}
	a.fail(failures)
	err := joined(failures)
	if errors.Is(err, errSlow) {
		a.patience = min(2*a.patience, maxStateTimeout)
	}
	return a.pace(back), err
}

// joined returns the errors of failures as one.
func joined(failures []failure) error {
	errs := make([]error, len(failures))
	for i, f := range failures {
		errs[i] = f.err
	}
	return errors.Join(errs...)
}

// mayFollow returns why a redirect of the master at u is not followed, or nil. The leader
// that ZooKeeper names now may know that only after another moment; and who has failed in this
// round would fail again.
func (a *asker) mayFollow(u *url.URL, failed error) error {
	if a.connection.current().IsElected(u) {
		if a.redirectedBy == nil || *a.redirectedBy != *u {
			a.redirectedBy, a.redirectedSince = u, time.Now()
		}
		if time.Since(a.redirectedSince) < redirectTime {
			return errNotRecovered
		}
	}
	switch {
	case failed == nil:
		return nil
	case isElecting(failed), errors.Is(failed, errSilent), errors.As(failed, new(net.Error)):
		return errUnreachable
	}
	return errFailed
}

// isElecting reports whether err says that masters are electing: one leads soon. That is so
// where they name one that is away. It may be so where their names cannot be looked up: they
// can be once this very server answers for them.
func isElecting(err error) bool {
	return mesos.IsElecting(err) || errors.Is(err, errUnreachable) || errors.As(err, new(*net.DNSError))
}

// pace returns how to wait after a round that has failed with the back-off given: an election
// does not last for ever.
func (a *asker) pace(back *backoff.BackOff) *backoff.BackOff {
	if back == a.redirected {
		return back
	}
	if back != a.electing {
		a.electingSince = time.Time{}
		return back
	}
	if a.electingSince.IsZero() {
		a.electingSince = time.Now()
	}
	if time.Since(a.electingSince) > electionTime {
		return a.refused
	}
	return back
}

// attempted tells the loop and the observer whether an attempt has led to a state.
func (w *Watcher) attempted(ctx context.Context, err error) {
	w.Observer.Connected(err)
	if err != nil {
		at := time.Now()
		w.emit(ctx, func() { w.applyFailure(err, at) })
	}
}
