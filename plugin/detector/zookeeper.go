package detector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/calicomesos/calicomesos/plugin/configfile"
	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/wake"

	"github.com/go-zookeeper/zk"
)

const (
	sessionTimeout = 10 * time.Second // as Mesos has it
	memberTimeout  = 2 * time.Second  // to resolve a member of the ensemble and connect to it
	listRetry      = time.Second      // between attempts to list, and to connect to one member
	electionRetry  = time.Minute      // between attempts to list while no master has registered
	maxURLFile     = 64 << 10         // bytes read of a file:// URL
	maxContenders  = 64               // nodes read: a cluster has three to seven masters
)

// A contender is a sequential node with one of these prefixes. The lowest leads.
const (
	jsonPrefix     = "json.info_"
	protobufPrefix = "info_"
)

var (
	errNoMaster = errors.New("no master has registered")
	errNoPath   = errors.New("must have a path, such as zk://host:2181/mesos")
)

// ZooKeeper follows the masters' election in ZooKeeper.
type ZooKeeper struct {
	Servers []string // host:port of each member of the ensemble
	Path    string   // of the node whose children are the contenders
	Auth    string   // user:password, or ""
	Secure  bool     // masters are asked by https
	first   Static   // numbered before the masters that only ZooKeeper names

	session atomic.Bool
}

// HasSession reports whether there is a session with the ensemble.
func (z *ZooKeeper) HasSession() bool { return z.session.Load() }

// String returns the URL, without user and password.
func (z *ZooKeeper) String() string { return "zk://" + strings.Join(z.Servers, ",") + z.Path }

// ParseZooKeeper parses `zk://[user:password@]host:port[,host:port…]/path`, or
// `file:///PATH` of a file that holds such a URL. Errors quote neither user nor password.
func ParseZooKeeper(endpoint string) (*ZooKeeper, error) {
	if file, ok := cutScheme(endpoint, "file"); ok {
		b, mode, err := configfile.Read(file, maxURLFile)
		if err != nil {
			return nil, err
		}
		endpoint = strings.TrimSpace(string(b))
		if mode&0o004 != 0 && strings.Contains(endpoint, "@") {
			log.Warningf("Everybody can read ZooKeeper's password in %s: its mode is %#o", file, mode.Perm())
		}
		if _, ok := cutScheme(endpoint, "zk"); !ok {
			return nil, errors.New("the file must hold a zk:// URL")
		}
	}
	rest, ok := cutScheme(endpoint, "zk")
	if !ok {
		return nil, errors.New("must begin with zk://")
	}
	z := &ZooKeeper{}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		z.Auth, rest = rest[:at], rest[at+1:]
		if user, _, ok := strings.Cut(z.Auth, ":"); !ok || user == "" {
			return nil, errors.New("must have user:password before the @")
		}
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 {
		return nil, errNoPath
	}
	z.Path = strings.TrimSuffix(rest[slash:], "/")
	if z.Path == "" {
		return nil, errNoPath
	}
	if path.Clean(z.Path) != z.Path || strings.ContainsAny(z.Path, "?#") {
		return nil, fmt.Errorf("invalid path %q", z.Path)
	}
	for server := range strings.SplitSeq(rest[:slash], ",") {
		server, err := parseServer(server)
		if err != nil {
			return nil, err
		}
		z.Servers = append(z.Servers, server)
	}
	return z, nil
}

// cutScheme cuts off a URL's scheme, in any case.
func cutScheme(endpoint, scheme string) (rest string, ok bool) {
	got, rest, ok := strings.Cut(endpoint, "://")
	return rest, ok && strings.EqualFold(got, scheme)
}

// parseServer returns host:port of a member.
func parseServer(server string) (string, error) {
	if !strings.Contains(server, ":") || strings.HasPrefix(server, "[") && strings.HasSuffix(server, "]") {
		server += ":2181" // ZooKeeper's own
	}
	host, port, err := net.SplitHostPort(server)
	if err != nil || host == "" {
		return "", errors.New("each server must be host:port") // it may be part of a secret
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("invalid port of a server")
	}
	return server, nil
}

// Run follows the election until ctx is done.
func (z *ZooKeeper) Run(ctx context.Context, found func(Masters)) {
	z.run(ctx, dialMember, found)
}

var dialMember = (&net.Dialer{Timeout: memberTimeout}).DialContext

func (z *ZooKeeper) run(ctx context.Context, dial dialFunc, found func(Masters)) {
	e := election{ZooKeeper: z, dial: dial, found: found, state: &lookupState{State: logstate.State{Log: log}, name: z.String()}}
	for ctx.Err() == nil {
		e.connect(ctx)
	}
}

// dialFunc connects to a member of the ensemble.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// election is the state of an election, across connections.
type election struct {
	*ZooKeeper
	dial  dialFunc
	found func(Masters)
	last  Masters
	state *lookupState
}

// connect follows the election over one session, until ctx is done, or until there has been
// no session for so long that it must have expired. The library would try to resume it for
// ever, which an ensemble that has lost its data never answers.
func (e *election) connect(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	connections, sever := context.WithCancel(context.WithoutCancel(ctx))
	changed := wake.New()
	conn, ended, err := zk.Connect(e.Servers, sessionTimeout,
		zk.WithHostProvider(&members{}), zk.WithDialer(dialer(connections, e.dial, e.state.rejected)),
		zk.WithLogger(silent{}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxPacket),
		zk.WithEventCallback(func(ev zk.Event) {
			if ev.Type == zk.EventSession && ev.State != zk.StateConnecting {
				changed.Set()
			}
		}))
	if err != nil { // only for an empty list of servers
		sever()
		cancel()
		log.Warningf("Connecting to %s failed: %v", e, err)
		return
	}
	var closing sync.WaitGroup
	closing.Go(func() {
		<-ctx.Done()
		if conn.State() != zk.StateHasSession {
			sever() // there is no session to end
		}
		conn.Close()
		sever()
		for range ended { //nolint:revive // until the library's goroutines have ended
		}
	})
	defer closing.Wait()
	defer cancel()
	e.follow(ctx, conn, changed)
}

// follow lists the contenders whenever they or the session change.
func (e *election) follow(ctx context.Context, conn *zk.Conn, changed <-chan struct{}) {
	var (
		watch         <-chan zk.Event // of the contenders, until it fires
		authenticated = e.Auth == ""
		healthy       = time.Now() // when there was a session
	)
	for {
		var (
			masters Masters
			err     error
			retry   <-chan time.Time
		)
		if conn.State() != zk.StateHasSession {
			e.session.Store(false)
			e.doubt() // at once: the next answer may take long
		}
		if !authenticated {
			err = conn.AddAuth("digest", []byte(e.Auth))
			authenticated = err == nil
		}
		if err == nil {
			masters, watch, err = e.list(conn, watch)
		}
		if ctx.Err() != nil {
			return
		}
		log.Debugf("Listed the masters in %s: %v", e, err)
		e.state.update(err)
		e.session.Store(!isLost(err))
		switch {
		case !isLost(err):
			healthy = time.Now()
		case time.Since(healthy) > sessionTimeout:
			return
		}
		switch {
		case err == nil && (!e.last.Live || !masters.Equal(&e.last)):
			e.last = masters
			e.found(masters)
		case errors.Is(err, errNoMaster):
			retry = time.After(electionRetry) // the watch tells, this only to have it logged again
			e.doubt()
		case err != nil:
			retry = time.After(listRetry)
			e.doubt()
		}
		select {
		case <-ctx.Done():
			return
		case <-watch:
			watch = nil
		case <-changed:
		case <-retry:
		}
	}
}

// doubt tells that the masters found last may not be the present ones.
func (e *election) doubt() {
	if e.last.Live {
		e.last.Live = false
		e.found(e.last)
	}
}

// isLost reports whether err says that there is no session.
func isLost(err error) bool {
	return errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrSessionExpired)
}

// lookupState logs whether the masters are found.
type lookupState struct {
	logstate.State
	name string
	lost bool // the last attempt found no member of the ensemble

	frame atomic.Pointer[error] // why a connection has ended, if by a frame
}

// rejected is told of a frame that has ended a connection.
func (s *lookupState) rejected(err error) { s.frame.Store(&err) }

// update logs the result of an attempt. The first one without a session does not count: the
// next member may answer.
func (s *lookupState) update(err error) {
	wasLost := s.lost
	s.lost = isLost(err)
	frame := s.frame.Swap(nil)
	switch {
	case err == nil:
		s.Recovered("Found masters in %s again", s.name)
	case frame != nil:
		s.Failed("Finding masters in %s failed: %v", s.name, *frame)
	case s.lost && wasLost:
		s.Failed("Finding masters in %s failed: no member of the ensemble answers", s.name)
	case !s.lost:
		s.Failed("Finding masters in %s failed: %v", s.name, err)
	}
}

// list returns the masters, and a watch that fires when their nodes change: the one given,
// unless it is nil.
func (z *ZooKeeper) list(conn *zk.Conn, watch <-chan zk.Event) (Masters, <-chan zk.Event, error) {
	var (
		names []string
		err   error
	)
	if watch == nil {
		names, _, watch, err = conn.ChildrenW(z.Path)
	} else {
		names, _, err = conn.Children(z.Path)
	}
	if err != nil {
		return Masters{}, watch, fmt.Errorf("list %s: %w", z.Path, err)
	}
	var (
		contenders []mesos.Master
		leading    bool // the first of them leads
		unreadable error
	)
	nodes := contenderNodes(names)
	for i, name := range nodes[:min(len(nodes), maxContenders)] {
		m, err := z.get(conn, name)
		switch {
		case errors.Is(err, zk.ErrNoNode): // just gone: the watch fires
		case errors.As(err, new(*nodeError)):
			unreadable = err
		case err != nil:
			return Masters{}, watch, err
		default:
			leading = leading || i == 0
			contenders = append(contenders, m)
		}
	}
	if len(contenders) == 0 {
		return Masters{}, watch, cmp.Or(unreadable, errNoMaster)
	}
	return z.masters(contenders, leading), watch, nil
}

// contenderNodes returns the names of contenders' nodes, the leader's first.
func contenderNodes(names []string) []string {
	kept := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return sequence(name) < 0 })
	slices.SortFunc(kept, func(a, b string) int { return cmp.Compare(sequence(a), sequence(b)) })
	return kept
}

// sequence returns the number that ZooKeeper gave to a contender's node, or -1 for another
// node.
func sequence(name string) int64 {
	digits, ok := strings.CutPrefix(name, jsonPrefix)
	if !ok {
		digits, ok = strings.CutPrefix(name, protobufPrefix)
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return -1
	}
	return int64(n)
}

// nodeError is a contender's node that cannot be decoded.
type nodeError struct {
	node string
	err  error
}

func (e *nodeError) Error() string { return fmt.Sprintf("node %s: %v", e.node, e.err) }

func (z *ZooKeeper) get(conn *zk.Conn, name string) (mesos.Master, error) {
	node := path.Join(z.Path, name)
	b, _, err := conn.Get(node)
	if err != nil {
		return mesos.Master{}, fmt.Errorf("get %s: %w", node, err)
	}
	parse := mesos.MasterFromProtobuf
	if strings.HasPrefix(name, jsonPrefix) {
		parse = mesos.MasterFromJSON
	}
	m, err := parse(b)
	if err != nil {
		return mesos.Master{}, &nodeError{node, err}
	}
	return m, nil
}

// masters returns the contenders as Masters. All has the list first, and then the others,
// sorted by address so that an election does not renumber them. The first contender leads if
// leading is true.
func (z *ZooKeeper) masters(contenders []mesos.Master, leading bool) Masters {
	m := Masters{All: slices.Clone(z.first), Live: leading}
	type located struct {
		addr netip.Addr
		name string // host:port by its hostname
		url  *url.URL
	}
	var all []located
	for i, c := range contenders {
		l := located{c.Addr, net.JoinHostPort(c.Hostname, strconv.Itoa(int(c.Port))), z.endpoint(c)}
		if leading {
			m.Contenders = append(m.Contenders, mesos.MasterID(cmp.Or(c.ID, l.url.Host)))
		}
		if slices.ContainsFunc(all, func(o located) bool { return *o.url == *l.url }) {
			continue // the node of a session that has not expired yet
		}
		all = append(all, l)
		if i == 0 && leading {
			m.Leader = l.url
		}
	}
	slices.SortFunc(all, func(a, b located) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.url.Host, b.url.Host))
	})
	for _, l := range all {
		if !slices.ContainsFunc(z.first, func(u *url.URL) bool { return u.Host == l.url.Host || u.Host == l.name }) {
			m.All = append(m.All, l.url)
		}
	}
	return m
}

// endpoint returns the API of a master.
func (z *ZooKeeper) endpoint(m mesos.Master) *url.URL {
	host := m.Hostname
	if m.Addr.IsValid() {
		host = m.Addr.String()
	}
	u := &url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(int(m.Port))), Path: APIPath}
	if z.Secure {
		u.Scheme = "https"
	}
	return u
}

// members are the members of an ensemble. Each is resolved when it is connected to, so that
// one whose name cannot be resolved does not matter.
type members struct {
	mu    sync.Mutex
	all   []string
	next  int
	tried int // since the last connection
}

// Init implements zk.HostProvider.
func (m *members) Init(servers []string) error {
	m.all = servers
	return nil
}

// Len implements zk.HostProvider.
func (m *members) Len() int { return len(m.all) }

// Next implements zk.HostProvider. The library pauses before it starts over.
func (m *members) Next() (server string, retryStart bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	server = m.all[m.next]
	m.next = (m.next + 1) % len(m.all)
	m.tried++
	if m.tried > len(m.all) {
		m.tried, retryStart = 1, true
	}
	return server, retryStart
}

// Connected implements zk.HostProvider. The connection counts as an attempt.
func (m *members) Connected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried = 1
}

// dialer returns a zk.Dialer whose connections end when ctx is done. It connects to a member
// at most once in listRetry, since one that drops each session at once would be asked
// without a pause. It closes the previous connection, which the library leaves open when a
// session has expired.
// rejected is told of a frame that ends a connection.
func dialer(ctx context.Context, dial dialFunc, rejected func(error)) zk.Dialer {
	var before net.Conn
	dialled := make(map[string]time.Time)
	return func(network, address string, _ time.Duration) (net.Conn, error) {
		if before != nil {
			before.Close()
			before = nil
		}
		select {
		case <-time.After(listRetry - time.Since(dialled[address])):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		dialled[address] = time.Now()
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		before = newMemberConn(conn, context.AfterFunc(ctx, func() { conn.Close() }), rejected)
		return before, nil
	}
}

// silent drops the library's log of each attempt: lookupState logs what matters.
type silent struct{}

// Printf implements zk.Logger.
func (silent) Printf(string, ...any) {}
