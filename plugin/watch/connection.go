package watch

import (
	"context"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/wake"
)

const leaderTimeout = 2 * time.Second // of GET_MASTER

// connection is the state of a watcher's connection to a master. The detector's goroutine
// and that of the connection share it.
type connection struct {
	changed wake.Signal // other masters were found
	resync  wake.Signal // the model wants the whole state
	rivals  wake.Signal // there may be others to ask beside a stream, or none any more

	mu      sync.Mutex
	masters *detector.Masters // nil before the first are found
	attempt *attempt          // under way, or nil

	anonymous string // the master that was logged as not telling who it is
}

// attempt is a call to a master, and the stream that may follow.
type attempt struct {
	asked  *url.URL
	conn   *mesos.Conn // nil before there is an answer
	cancel context.CancelCauseFunc
}

// isAt reports whether the attempt is at the master at u: the one that has answered, or else
// the one that was asked.
func (a *attempt) isAt(u *url.URL) bool {
	if a.conn != nil {
		return a.conn.URL.Host == u.Host || a.conn.Remote.String() == u.Host
	}
	return a.asked.Host == u.Host
}

// connect keeps a connection to the leading master until ctx is done.
func (w *Watcher) connect(ctx context.Context) {
	select {
	case <-w.connection.changed:
	case <-ctx.Done():
		return
	}
	if w.Poll > 0 {
		w.poll(ctx, w.Poll)
	} else {
		w.subscribe(ctx)
	}
}

// found applies the masters that the detector has found. It cancels an attempt at a master
// that does not lead any more, which may hang.
func (w *Watcher) found(ctx context.Context, m detector.Masters) {
	c := &w.connection
	trusted := m.All
	if m.Leader != nil {
		trusted = append(slices.Clone(trusted), m.Leader)
	}
	w.Client.Trust(trusted)
	c.mu.Lock()
	before := c.masters
	elects, news := m.Elects(before), before == nil || !m.Equal(before)
	again := m.Live && m.Leader != nil && before != nil && !before.Live // another may have led meanwhile
	c.masters = &m
	if a := c.attempt; a != nil && (elects || again) && !a.isAt(m.Leader) {
		a.cancel(errDeposed)
	}
	c.mu.Unlock()
	c.rivals.Set()
	at := time.Now()
	w.emit(ctx, func() { w.applyMasters(m, at) })
	if news {
		c.changed.Set() // last: the loop hears of a leader before its state
	}
}

// begin registers an attempt at u, which was chosen from the masters given. It returns the
// attempt's context, and a function that ends it with a cause.
func (c *connection) begin(ctx context.Context, masters *detector.Masters, u *url.URL) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &attempt{asked: u, cancel: cancel}
	if c.masters.Elects(masters) && !a.isAt(c.masters.Leader) { // meanwhile
		cancel(errDeposed)
	}
	return ctx, c.register(a)
}

// adopt registers a call to a master that has answered already, and that cancel ends. It
// returns a function that ends it with a cause.
func (c *connection) adopt(conn *mesos.Conn, cancel context.CancelCauseFunc) context.CancelCauseFunc {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &attempt{asked: conn.URL, conn: conn, cancel: cancel}
	if m := c.masters; m.Live && m.Leader != nil && !a.isAt(m.Leader) { // meanwhile
		cancel(errDeposed)
	}
	return c.register(a)
}

// register makes a the attempt that is under way, until the function that it returns is
// called. c.mu is held.
func (c *connection) register(a *attempt) context.CancelCauseFunc {
	c.attempt = a
	return func(cause error) {
		a.cancel(cause)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.attempt == a {
			c.attempt = nil
		}
	}
}

// answered notes which master has answered the attempt that is under way.
func (c *connection) answered(conn *mesos.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.attempt != nil { // not cancelled meanwhile
		c.attempt.conn = conn
	}
}

func (c *connection) current() *detector.Masters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.masters
}

// candidates returns the masters to try in order, and those that they were chosen from. The
// leader that ZooKeeper names is the only candidate, unless attempts have been failing. last
// is the master that led to an answer before, or nil.
func (c *connection) candidates(last *url.URL, failing bool) (*detector.Masters, []*url.URL) {
	m := c.current()
	if m.Leader != nil && !failing {
		return m, []*url.URL{m.Leader}
	}
	is := func(u *url.URL) func(*url.URL) bool {
		return func(o *url.URL) bool { return u != nil && *o == *u }
	}
	order := slices.Clone(m.All)
	if i := slices.IndexFunc(order, is(last)); i > 0 {
		order = append(order[i:], order[:i]...)
	}
	if m.Leader != nil {
		order = append([]*url.URL{m.Leader}, slices.DeleteFunc(order, is(m.Leader))...)
	}
	return m, order
}

// disconnected tells the loop that the connection has ended, at the given time. A master was
// last heard at lastHeard. Another one takes over at once, or not.
func (w *Watcher) disconnected(ctx context.Context, lastHeard, at time.Time, takenOver bool) {
	w.emit(ctx, func() { w.applyDisconnect(lastHeard, at, takenOver) })
}

// identify asks a master who it is (GET_MASTER). If it does not tell, its address is that of
// the connection.
func (w *Watcher) identify(ctx context.Context, conn *mesos.Conn) leaderInfo {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	who := leaderInfo{Endpoint: conn.URL.Host}
	m, err := conn.Master(ctx)
	if err == nil {
		w.heardNow()
		if m.Addr.IsValid() || m.Hostname != "" {
			who.Master = m
			return who
		}
	}
	if c := &w.connection; err != nil && c.anonymous != conn.URL.Host {
		c.anonymous = conn.URL.Host
		log.Infof("Asking %s for its address failed, using that of the connection: %v", conn.URL.Host, err)
	}
	who.ID, who.Addr, who.Port = m.ID, conn.Remote.Addr(), uint32(conn.Remote.Port())
	return who
}

// isOther reports whether l is another master process than o, as far as they tell.
func (l leaderInfo) isOther(o leaderInfo) bool {
	if l.ID != "" && o.ID != "" {
		return l.ID != o.ID
	}
	return l.Endpoint != o.Endpoint
}

// contents returns what a state has, for the log.
func contents(s *mesos.State) string {
	return logstate.Count(len(s.Tasks), "task") + ", " + logstate.Count(len(s.Agents), "agent") + ", " + logstate.Count(len(s.Frameworks), "framework")
}

// cause returns why ctx was cancelled, or else err.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}
