package leader

import (
	"slices"
	"time"
)

// failoverTime is how long masters take at most until one of them leads: sessions
// with ZooKeeper are over after ten seconds, and a registry takes up to a minute to
// be read.
const failoverTime = time.Minute

// deathTime is how soon after a stream has broken its leader is seen to lead no
// more, if that is why it broke.
const deathTime = 250 * time.Millisecond

// Reign is that of the last leader that has told a state, and what is known of
// those that have led since.
type Reign struct {
	Leader Process
	Polled bool // it is asked for its state now and then, so that it may always change unheard

	heard  time.Time        // last, where it is listened to no more; else zero
	ended  time.Time        // when listening ended
	gone   time.Time        // when the leader was first seen to lead no more; zero if it was not
	others map[Process]bool // that may have led since
}

// Succeed takes in that the masters in line, which are some, have taken the place
// of those before.
func (r *Reign) Succeed(before, line []Process, at time.Time) {
	if line[0] == r.Leader {
		return
	}
	r.Depart(at)
	if r.others == nil {
		r.others = make(map[Process]bool)
	}
	r.others[line[0]] = true
	for _, p := range before[slices.Index(before, r.Leader)+1:] {
		if p == line[0] {
			return
		}
		r.others[p] = true // it is gone, and may have led before that
	}
}

// End says that the leader, which was last heard at heard, is listened to no more.
func (r *Reign) End(heard, at time.Time) { r.heard, r.ended = heard, at }

// Ended reports whether the leader is listened to no more.
func (r *Reign) Ended() bool { return !r.ended.IsZero() }

// Depart says that the leader has been seen to lead no more.
func (r *Reign) Depart(at time.Time) {
	if r.gone.IsZero() {
		r.gone = at
	}
}

// Missed reports whether tasks may have been launched between what was last heard
// and the state of the next leader, that comes at a time: by the leader itself, by
// another one, or, as none was heard for longer than a failover takes, by any.
func (r *Reign) Missed(next Process, at time.Time) bool {
	for p := range r.others {
		if p != next && p != r.Leader {
			return true
		}
	}
	if !r.Ended() {
		return r.Polled
	}
	gone := r.gone
	if gone.IsZero() {
		gone = at
	}
	return r.Polled || gone.Sub(r.ended) > deathTime || at.Sub(r.heard) > failoverTime
}
