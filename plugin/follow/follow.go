// Package follow listens to whichever master of a cluster leads: by its event
// stream, or by asking for its state where that cannot be.
package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

var log = clog.NewWithPlugin("calicomesos")

const leaderTimeout = 2 * time.Second // of GET_MASTER

var (
	errSilent  = errors.New("the master is silent")
	errDeposed = errors.New("ZooKeeper names another leader")
)

// Message is one of Masters, Connect, State, Event, Lost, Asked, Answered.
type Message any

// Masters are new masters, or another leader of them.
type Masters struct{ leader.View }

// Connect is the result of an attempt to subscribe, or to ask for the state.
type Connect struct{ Err error }

// State is the whole cluster: the beginning of a stream, or the answer to a poll.
type State struct {
	mesos.Subscribed
	Leader Leader
	Polled bool
}

// Event is an event of the stream that is open, other than SUBSCRIBED.
type Event struct{ mesos.Event }

// Lost says that the stream has ended, or that polls fail.
type Lost struct{}

// Asked says that the master is about to be asked what Answered then tells.
type Asked struct{}

// Answered is what the master that is listened to said when it was asked.
type Answered struct {
	State *mesos.State // nil where there is no answer
	Whole bool         // of GET_STATE; else of GET_AGENTS
}

// Leader is the leading master as it names itself, or as it was reached.
type Leader struct {
	Endpoint string // host:port of its API
	mesos.Master
}

// differs reports whether l is another process than o, as far as they tell.
func (l Leader) differs(o Leader) bool {
	if l.ID != "" && o.ID != "" {
		return l.ID != o.ID
	}
	return l.Endpoint != o.Endpoint
}

// Follower follows the leading master of a cluster.
type Follower struct {
	Cluster string // its name in logs
	Finder  leader.Finder
	Client  *mesos.Client
	Poll    time.Duration // ask for the state so often; 0: subscribe
	// Tell takes in what there is to tell, in order; it may wait. Only what an attempt
	// tells that was deposed or shut down, other than its state and events, has a
	// context that is done.
	Tell func(ctx context.Context, m Message)
	// Awaiting reports whether agents are to re-register, so that it is of interest
	// whether they are still expected to.
	Awaiting func() bool

	changed chan struct{} // signals a new view
	doubt   chan struct{}
	untold  string // the master of which it was logged that it does not name itself

	viewing sync.Mutex // held while a view is taken in and told, which is in order so
	ordered []*url.URL // the masters, once SetMasters has said

	mu      sync.Mutex
	view    *leader.View // nil before the first
	attempt *attempt     // under way, or nil
}

// New returns a follower that is told of masters by finder. Its other fields are
// to be set before Run.
func New(cluster string, finder leader.Finder, client *mesos.Client) *Follower {
	return &Follower{
		Cluster: cluster, Finder: finder, Client: client,
		changed: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
	}
}

// attempt is a call to a master, and the stream that may come of it.
type attempt struct {
	asked    *url.URL
	answerer *mesos.Conn // nil before the answer
	cancel   context.CancelCauseFunc
}

// at reports whether the attempt is at the master at u: by who has answered, if
// anybody has.
func (a *attempt) at(u *url.URL) bool {
	if a.answerer != nil {
		return a.answerer.URL.Host == u.Host || a.answerer.Remote.String() == u.Host
	}
	return a.asked.Host == u.Host
}

// Run follows until ctx is done.
func (f *Follower) Run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { f.Finder.Run(ctx, func(v leader.View) { f.found(ctx, v) }) })
	wg.Go(func() {
		select {
		case <-f.changed:
		case <-ctx.Done():
			return
		}
		if f.Poll > 0 {
			f.poll(ctx, f.Poll)
		} else {
			f.follow(ctx)
		}
	})
	wg.Wait()
	f.Client.Close()
}

// Doubt says that something is missing that only the whole state can tell.
func (f *Follower) Doubt() { signal(f.doubt) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// SetMasters says that the masters are these, in place of the finder.
func (f *Follower) SetMasters(ctx context.Context, masters []*url.URL) {
	f.viewing.Lock()
	defer f.viewing.Unlock()
	f.ordered = masters
	f.setView(ctx, leader.View{Masters: masters})
}

// found takes in what the finder says.
func (f *Follower) found(ctx context.Context, v leader.View) {
	f.viewing.Lock()
	defer f.viewing.Unlock()
	if f.ordered != nil {
		v.Masters = f.ordered
	}
	f.setView(ctx, v)
}

// setView takes in new masters. An attempt at one that leads no more is left at
// once: it may hang.
func (f *Follower) setView(ctx context.Context, v leader.View) {
	known := v.Masters
	if v.Leader != nil {
		known = append(slices.Clone(known), v.Leader)
	}
	f.Client.Trust(known)
	f.mu.Lock()
	elected := f.view == nil || otherLeader(f.view, &v)
	f.view = &v
	if a := f.attempt; a != nil && v.Leader != nil && elected && !a.at(v.Leader) {
		a.cancel(errDeposed)
	}
	f.mu.Unlock()
	f.Tell(ctx, Masters{v})
	signal(f.changed) // a state of a new leader is told after it
}

// otherLeader reports whether v names another leader than before.
func otherLeader(before, v *leader.View) bool {
	return v.Leader != nil && (before.Leader == nil || *before.Leader != *v.Leader)
}

// begin returns the context of an attempt at u, which view led to, and what ends
// it.
func (f *Follower) begin(ctx context.Context, view *leader.View, u *url.URL) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &attempt{asked: u, cancel: cancel}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attempt = a
	if otherLeader(view, f.view) && !a.at(f.view.Leader) {
		cancel(errDeposed)
	}
	return ctx, func(cause error) {
		cancel(cause)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.attempt == a {
			f.attempt = nil
		}
	}
}

// answered notes who has answered the attempt that is under way.
func (f *Follower) answered(who *mesos.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.attempt != nil { // it has not been given up
		f.attempt.answerer = who
	}
}

func (f *Follower) masters() *leader.View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// candidates returns the masters to try, the likeliest leader first, and the view
// they are of. The leader that ZooKeeper names is the only one, unless it has
// failed for a while: ZooKeeper may be away, and the others know more.
func (f *Follower) candidates(last *url.URL, failing bool) (*leader.View, []*url.URL) {
	v := f.masters()
	if v.Leader != nil && !failing {
		return v, []*url.URL{v.Leader}
	}
	first := func(u *url.URL) func(*url.URL) bool {
		return func(o *url.URL) bool { return u != nil && *o == *u }
	}
	order := slices.Clone(v.Masters)
	if i := slices.IndexFunc(order, first(last)); i > 0 {
		order = append(order[i:], order[:i]...)
	}
	if v.Leader != nil {
		order = append([]*url.URL{v.Leader}, slices.DeleteFunc(order, first(v.Leader))...)
	}
	return v, order
}

// follow keeps a stream open.
func (f *Follower) follow(ctx context.Context) {
	var (
		last       *url.URL                                            // the master that led to a stream
		refused    = backOff{least: minBackOff, most: maxBackOff}      // where no stream begins
		recovering = backOff{least: minBackOff, most: recoveryBackOff} // where one is about to
		broken     = backOff{least: minBackOff, most: maxBackOff}      // where streams end soon
		evicted    = backOff{least: minEvicted, most: maxEvicted}
		failed     failures
	)
	for ctx.Err() == nil {
		var errs []error
		back := &refused
		view, order := f.candidates(last, refused.patient() || broken.patient())
		for _, u := range order {
			out, err := f.stream(ctx, view, u)
			if ctx.Err() != nil {
				return
			}
			if !out.subscribed {
				errs = append(errs, err)
				if mesos.IsRecovering(err) { // its agents return as soon as it has, which is to be heard from the beginning
					back = &recovering
				}
				if errors.Is(err, errDeposed) {
					break
				}
				continue
			}
			last, errs, back = u, nil, &broken
			failed.over()
			refused.reset()
			recovering.reset()
			log.Warningf("Lost the leading master %s: %v", out.leader.Endpoint, err)
			if out.lived >= out.settles {
				broken.reset()
			}
			if out.lived >= forgiven {
				evicted.reset()
			}
			if errors.Is(err, io.EOF) && f.yield(ctx, out.leader, evicted.advance()) {
				evicted.reset()
				broken.reset()
			}
			break
		}
		failed.log("No master of %s can be watched: %v", f.Cluster, errs)
		if wait(ctx, back.advance(), f.changed) {
			back.reset()
		}
	}
}

// failures logs why masters fail, when that changes.
type failures struct{ said string }

// localAddress is what differs between the errors of two equal failures.
var localAddress = regexp.MustCompile(`\S+->`)

func (f *failures) over() { f.said = "" }

func (f *failures) log(format, cluster string, errs []error) {
	err := errors.Join(errs...)
	if err == nil {
		return
	}
	if text := localAddress.ReplaceAllString(err.Error(), ""); text != f.said {
		f.said = text
		log.Warningf(format, cluster, err)
	}
}

// outcome is what became of a stream.
type outcome struct {
	leader     Leader
	subscribed bool          // it told a whole state
	lived      time.Duration // since then
	settles    time.Duration // when it has lived so long the next one need not wait
}

// stream follows one event stream to its end.
func (f *Follower) stream(watching context.Context, view *leader.View, u *url.URL) (outcome, error) {
	ctx, end := f.begin(watching, view, u)
	defer end(nil)
	watchdog := newWatchdog(answerTimeout, func() { end(errSilent) })
	defer watchdog.stop()

	s, err := f.Client.Subscribe(ctx, u, watchdog.progress)
	if err != nil {
		f.Tell(ctx, Connect{err})
		return outcome{}, cause(ctx, err)
	}
	watchdog.allow(firstSilence)
	f.answered(s.Conn)
	defer s.Close()
	var reconciling sync.WaitGroup
	defer reconciling.Wait()
	defer end(nil)
	who := f.ask(ctx, s.Conn)
	result := outcome{leader: who}
	start := time.Now()
	odd := false
	for {
		ev, err := s.Next()
		if err != nil {
			err = cause(ctx, err)
			if result.subscribed {
				result.lived, result.settles = time.Since(start), watchdog.settles()
				f.Tell(watching, Lost{})
			} else {
				f.Tell(watching, Connect{err})
			}
			return result, fmt.Errorf("stream of %s: %w", s.Conn.URL.Host, err)
		}
		watchdog.feed()
		first, ok := ev.(mesos.Subscribed)
		if !ok {
			if _, unknown := ev.(mesos.Unknown); unknown && !odd {
				odd = true
				log.Warningf("The leading master %s sends events that are malformed or of an unknown type; they are counted and left out", who.Endpoint)
			}
			f.Tell(watching, Event{ev}) // ctx may have been cancelled
			continue
		}
		watchdog.expect(first.Heartbeat)
		f.greet("Watching", who, first.State)
		f.Tell(watching, State{Subscribed: first, Leader: who})
		if !result.subscribed {
			result.subscribed = true
			start = time.Now()
			f.Tell(ctx, Connect{})
			reconciling.Go(func() { f.reconcile(ctx, s.Conn, first.Heartbeat, end) })
		}
	}
}

// greet logs what a master has told of its cluster.
func (f *Follower) greet(doing string, who Leader, s *mesos.State) {
	log.Infof("%s the leading master %s: %d tasks, %d agents, %d frameworks",
		doing, who.Endpoint, len(s.Tasks), len(s.Agents), len(s.Frameworks))
	if s.Malformed > 0 {
		log.Warningf("%d tasks, agents or frameworks of %s are malformed, and left out", s.Malformed, f.Cluster)
	}
}

// cause returns why ctx was cancelled, if it was, instead of what that led to.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	return err
}

// ask asks a master who it is (GET_MASTER). Where it does not say, it is the
// address that the connection goes to.
func (f *Follower) ask(ctx context.Context, l *mesos.Conn) Leader {
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	who := Leader{Endpoint: l.URL.Host}
	m, err := l.Master(ctx)
	if err == nil && (m.Addr.IsValid() || m.Hostname != "") {
		who.Master = m
		return who
	}
	if err != nil && f.untold != l.URL.Host {
		f.untold = l.URL.Host
		log.Infof("The leading master %s does not tell its address, it is taken from the connection: %v", l.URL.Host, err)
	}
	who.ID, who.Addr, who.Port = m.ID, l.Remote.Addr(), uint32(l.Remote.Port())
	return who
}
