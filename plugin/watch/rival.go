package watch

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/calicomesos/calicomesos/plugin/backoff"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/wake"
)

// A leader that hangs, or that nobody else can reach, leaves its streams open and silent while
// another master is elected. ZooKeeper would tell. Where it does not, the other masters know:
// they redirect to the one that leads. So beside a stream they are asked now and then, and at
// once when a heartbeat is late. From then on until that is settled no name is denied.

// rivalInterval is how often the other masters are asked who leads. The answer, a redirect,
// costs them next to nothing.
const rivalInterval = 2 * time.Second

var (
	errSuperseded = errors.New("another master leads")
	errOurs       = errors.New("it is the leader that is known")
	errNotNamed   = errors.New("it is not the leader that was named")
)

// rivals are the masters beside the one that a subscription is at.
type rivals struct {
	*Watcher
	sub  *subscription
	ours map[string]bool // hosts by which others name the subscription's master
}

// awaitRival returns an open stream of a master that leads instead of that of sub, or nil when
// sub has ended.
func (w *Watcher) awaitRival(watching context.Context, sub *subscription, late <-chan struct{}) *subscription {
	r := &rivals{Watcher: w, sub: sub, ours: sub.hosts()}
	timer := time.NewTimer(backoff.Jitter(rivalInterval))
	defer timer.Stop()
	for {
		select {
		case <-sub.ctx.Done():
			return nil
		case <-w.connection.rivals:
		case <-timer.C:
		case <-late:
		}
		others := w.others(sub)
		for _, u := range others {
			if next := r.ask(watching, u); next != nil {
				return next
			}
		}
		if len(others) == 0 {
			timer.Stop() // until masters are found
		} else {
			timer.Reset(backoff.Jitter(rivalInterval))
		}
	}
}

// tellLate tells the loop of late heartbeats until sub has ended, and sets late: whoever asks
// the others may be waiting for one of them.
func (w *Watcher) tellLate(watching context.Context, sub *subscription, late wake.Signal) {
	for {
		select {
		case <-sub.ctx.Done():
			return
		case <-sub.watchdog.late:
		}
		if len(w.others(sub)) > 0 {
			sub.doubted.Store(true)
			w.tellDoubt(watching, sub)
			late.Set()
		}
	}
}

// tellDoubt tells the loop whether the heartbeat of sub is late.
func (w *Watcher) tellDoubt(ctx context.Context, sub *subscription) {
	at := time.Now()
	w.emit(ctx, func() {
		w.doubted = sub.watchdog.overdue()
		w.markDirty(at)
	})
}

// hosts returns the host:port of a subscription's master, as it was asked, as it was reached
// and as it names itself.
func (sub *subscription) hosts() map[string]bool {
	port := strconv.Itoa(int(sub.leader.Port))
	return map[string]bool{
		sub.Conn.URL.Host:                                true,
		sub.Conn.Remote.String():                         true,
		net.JoinHostPort(sub.leader.Addr.String(), port): true,
		net.JoinHostPort(sub.leader.Hostname, port):      true,
	}
}

// others returns the masters to ask, beside that of sub. Where ZooKeeper says who leads there
// are none. Another name of one master may be that of another tomorrow: it is asked each time.
func (w *Watcher) others(sub *subscription) []*url.URL {
	m := w.connection.current()
	if m.Live {
		return nil
	}
	ours := sub.hosts()
	return slices.DeleteFunc(slices.Clone(m.All), func(u *url.URL) bool { return ours[u.Host] })
}

// ask asks the master at u who leads, and subscribes to that one if it is another.
func (r *rivals) ask(watching context.Context, u *url.URL) *subscription {
	ctx, cancel := context.WithTimeout(r.sub.ctx, leaderTimeout)
	defer cancel()
	named := u
	m, conn, err := r.Client.Master(ctx, mesos.Target{URL: u, Follow: func(next *url.URL) error {
		named = next
		if r.ours[next.Host] {
			return errOurs
		}
		return nil
	}})
	if err == nil {
		if r.isOurs(m, conn) {
			r.ours[named.Host] = true
			return nil
		}
		if named == u && !r.sub.watchdog.overdue() {
			return nil // two lead, as far as they know: no other says so
		}
		return r.subscribe(watching, u, conn.URL)
	}
	if errors.As(err, new(*mesos.StatusError)) && named != u { // it does not tell who it is
		return r.subscribe(watching, u, named)
	}
	return nil
}

// isOurs reports whether the master m, which has answered on conn, is the one that the
// subscription is at.
func (r *rivals) isOurs(m mesos.Master, conn *mesos.Conn) bool {
	if m.ID != "" && r.sub.leader.ID != "" {
		return m.ID == r.sub.leader.ID
	}
	return conn.Remote.IsValid() && conn.Remote == r.sub.Conn.Remote
}

// subscribe subscribes to the master that u, which is asked again, names. That one leads if it
// accepts. It returns nil if it does not, or if the present stream ends meanwhile.
func (r *rivals) subscribe(watching context.Context, u, named *url.URL) *subscription {
	ctx, end := context.WithCancelCause(watching)
	stop := context.AfterFunc(r.sub.ctx, func() { end(errSuperseded) })
	next, err := r.open(ctx, end, mesos.Target{URL: u, Follow: func(next *url.URL) error {
		if next.Host != named.Host {
			return errNotNamed
		}
		return nil
	}}, stateTimeout, func(*mesos.Conn) {})
	switch kept := stop(); {
	case err != nil:
		end(nil)
		log.Debugf("%s does not lead, though %s says so: %v", named.Host, u.Host, err)
		return nil
	case !kept:
	case r.isOurs(next.leader.Master, next.Conn):
		r.ours[named.Host] = true
	default:
		return next
	}
	next.close()
	return nil
}
