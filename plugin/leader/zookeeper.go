package leader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"

	"github.com/go-zookeeper/zk"
)

const (
	sessionTimeout = 10 * time.Second // as Mesos's own
	memberTimeout  = 2 * time.Second  // to resolve a member of the ensemble and connect to it
	listRetry      = time.Second
	maxPacket      = 4 << 20 // of ZooKeeper: four times what it allows itself
	maxURLFile     = 64 << 10
)

// Masters announce themselves in sequential nodes with these prefixes, the
// lowest of which leads.
const (
	jsonPrefix     = "json.info_"
	protobufPrefix = "info_"
)

var (
	errNoMaster = errors.New("no master is announced")
	errNoPath   = errors.New("no path, as in zk://host:2181/mesos")
)

// ZooKeeper is a Finder that follows the election of the masters in ZooKeeper.
// What it found last holds while the ensemble is away.
type ZooKeeper struct {
	Servers []string // host:port of each member
	Path    string   // of the node in which masters announce themselves
	Auth    string   // user:password, or ""
	Secure  bool     // the masters are asked by https
	// Warn is told, once each time, why nothing can be found, and then that it
	// can be again.
	Warn func(text string)
}

// String returns the URL without user and password.
func (z *ZooKeeper) String() string { return "zk://" + strings.Join(z.Servers, ",") + z.Path }

// ParseZooKeeper reads `zk://[user:password@]host:port[,host:port…]/path`, or
// `file:///PATH` of a file that holds such a URL. Errors tell neither user nor
// password.
func ParseZooKeeper(endpoint string) (*ZooKeeper, error) {
	if file, ok := strings.CutPrefix(endpoint, "file://"); ok {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		endpoint = strings.TrimSpace(string(b[:min(len(b), maxURLFile)]))
		if !strings.HasPrefix(endpoint, "zk://") {
			return nil, errors.New("the file holds no zk:// URL")
		}
	}
	rest, ok := strings.CutPrefix(endpoint, "zk://")
	if !ok {
		return nil, errors.New("no zk:// URL")
	}
	z := &ZooKeeper{}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		z.Auth, rest = rest[:at], rest[at+1:]
		if user, _, ok := strings.Cut(z.Auth, ":"); !ok || user == "" {
			return nil, errors.New("what stands before @ is no user:password")
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
		return nil, fmt.Errorf("path %q is none of ZooKeeper", z.Path)
	}
	for server := range strings.SplitSeq(rest[:slash], ",") {
		if err := checkServer(server); err != nil {
			return nil, err
		}
		z.Servers = append(z.Servers, server)
	}
	return z, nil
}

func checkServer(server string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil || host == "" {
		return errors.New("a server is no host:port") // it may be a user's secret
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("a server's port is not one")
	}
	return nil
}

// Run follows the election.
func (z *ZooKeeper) Run(ctx context.Context, found func(View)) {
	e := election{ZooKeeper: z, found: found, health: complaint{warn: z.Warn}}
	for ctx.Err() == nil {
		e.connect(ctx)
	}
}

// election is what is known of it, whatever the connection.
type election struct {
	*ZooKeeper
	found  func(View)
	last   View
	health complaint
}

// connect follows the election by one connection, until ctx is done or there has
// been no session for so long that none is left: the library would go on with
// what it saw last, which an ensemble that has lost its data never answers.
func (e *election) connect(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	connections, sever := context.WithCancel(context.WithoutCancel(ctx))
	changed := make(chan struct{}, 1)
	conn, ended, err := zk.Connect(e.Servers, sessionTimeout,
		zk.WithHostProvider(&members{}), zk.WithDialer(dialer(connections)),
		zk.WithLogger(silent{}), zk.WithLogInfo(false), zk.WithMaxBufferSize(maxPacket),
		zk.WithEventCallback(func(ev zk.Event) {
			if ev.Type == zk.EventSession && ev.State != zk.StateConnecting {
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		}))
	if err != nil { // only an empty list of servers
		sever()
		cancel()
		e.Warn(err.Error())
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
		for range ended { //nolint:revive // to the end of the connection's goroutines
		}
	})
	defer closing.Wait()
	defer cancel()
	e.follow(ctx, conn, changed)
}

// follow lists the masters whenever they or the session change.
func (e *election) follow(ctx context.Context, conn *zk.Conn, changed <-chan struct{}) {
	var (
		watch   <-chan zk.Event // of the masters, until it fires
		known   = e.Auth == ""
		healthy = time.Now()
	)
	for {
		var (
			view  View
			err   error
			retry <-chan time.Time
		)
		if !known {
			err = conn.AddAuth("digest", []byte(e.Auth))
			known = err == nil
		}
		if err == nil {
			view, watch, err = e.list(conn, watch)
		}
		if ctx.Err() != nil {
			return
		}
		e.health.tell(err)
		switch {
		case !isLost(err):
			healthy = time.Now()
		case time.Since(healthy) > sessionTimeout:
			return
		}
		switch {
		case err == nil && !view.equal(&e.last):
			e.last = view
			e.found(view)
		case err != nil && !errors.Is(err, errNoMaster):
			retry = time.After(listRetry)
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

// isLost reports whether err is that there is no session.
func isLost(err error) bool {
	return errors.Is(err, zk.ErrNoServer) || errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrSessionExpired)
}

// complaint tells of changes between health and sickness, not of each error.
type complaint struct {
	warn func(text string)
	said string // what was told; "" in health
	lost bool   // the last try found no ensemble
}

func (c *complaint) tell(err error) {
	lost := isLost(err)
	text := ""
	switch {
	case lost && !c.lost:
		text = c.said // the next member may answer
	case lost:
		text = "no member of the ensemble answers"
	case err != nil:
		text = err.Error()
	}
	c.lost = lost
	if text == c.said {
		return
	}
	c.said = text
	if text == "" {
		text = "the masters are found again"
	}
	c.warn(text)
}

// list returns the masters that are announced, and what tells that these change:
// watch, if that is not nil.
func (z *ZooKeeper) list(conn *zk.Conn, watch <-chan zk.Event) (View, <-chan zk.Event, error) {
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
		return View{}, watch, fmt.Errorf("list %s: %w", z.Path, err)
	}
	var (
		masters []mesos.Master
		leading bool
		odd     error
	)
	for i, name := range announced(names) {
		m, err := z.get(conn, name)
		switch {
		case errors.Is(err, zk.ErrNoNode): // gone in between: the watch tells
		case errors.As(err, new(*announcementError)):
			odd = err
		case err != nil:
			return View{}, watch, err
		default:
			leading = leading || i == 0
			masters = append(masters, m)
		}
	}
	if len(masters) == 0 {
		return View{}, watch, cmp.Or(odd, errNoMaster)
	}
	return z.view(masters, leading), watch, nil
}

// announced returns those of names that announce masters, the leader's first.
func announced(names []string) []string {
	kept := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return sequence(name) < 0 })
	slices.SortFunc(kept, func(a, b string) int { return cmp.Compare(sequence(a), sequence(b)) })
	return kept
}

// sequence returns the number that ZooKeeper gave a master's node; -1 for any
// other node.
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

// announcementError is a node of a master that cannot be read.
type announcementError struct {
	node string
	err  error
}

func (e *announcementError) Error() string { return fmt.Sprintf("node %s: %v", e.node, e.err) }

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
		return mesos.Master{}, &announcementError{node, err}
	}
	return m, nil
}

// view returns the masters ascending by address, so that an election renumbers
// none; the first of them leads, if leading.
func (z *ZooKeeper) view(masters []mesos.Master, leading bool) View {
	var v View
	type located struct {
		addr netip.Addr
		url  *url.URL
	}
	var all []located
	for i, m := range masters {
		l := located{m.Addr, z.endpoint(m)}
		if leading {
			v.Line = append(v.Line, Process(cmp.Or(m.ID, l.url.Host)))
		}
		if slices.ContainsFunc(all, func(o located) bool { return *o.url == *l.url }) {
			continue // the node of a session that has not expired yet
		}
		all = append(all, l)
		if i == 0 && leading {
			v.Leader = l.url
		}
	}
	slices.SortFunc(all, func(a, b located) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(a.url.Host, b.url.Host))
	})
	for _, l := range all {
		v.Masters = append(v.Masters, l.url)
	}
	return v
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

// members are the servers of an ensemble by name: each is resolved when it is
// connected to, so that one that cannot be does not matter.
type members struct {
	mu    sync.Mutex
	all   []string
	next  int
	tried int // since the last success
}

// Init implements zk.HostProvider.
func (m *members) Init(servers []string) error {
	m.all = servers
	return nil
}

// Len implements zk.HostProvider.
func (m *members) Len() int { return len(m.all) }

// Next implements zk.HostProvider. Between two rounds the library pauses.
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

// Connected implements zk.HostProvider. The connection counts as a try.
func (m *members) Connected() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried = 1
}

// dialer connects to members until ctx is done, which breaks the connections. It
// connects to none more often than once in listRetry: one that drops each
// session at once is not to be asked without a pause. It closes the connection
// before, which the library leaves open when the session has expired.
func dialer(ctx context.Context) zk.Dialer {
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
		d := net.Dialer{Timeout: memberTimeout}
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		before = &memberConn{conn, context.AfterFunc(ctx, func() { conn.Close() })}
		return before, nil
	}
}

// memberConn waits for a member no longer than the session lasts: the library
// would give one that hangs a minute to answer its first request.
type memberConn struct {
	net.Conn
	stop func() bool
}

// SetReadDeadline implements net.Conn.
func (c *memberConn) SetReadDeadline(t time.Time) error {
	if most := time.Now().Add(sessionTimeout); t.After(most) {
		t = most
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *memberConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// silent keeps the library from logging each try: Warn tells what matters.
type silent struct{}

// Printf implements zk.Logger.
func (silent) Printf(string, ...any) {}
