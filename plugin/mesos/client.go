package mesos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	protobuf = "application/x-protobuf" // without parameters, which Mesos answers with 415

	dialTimeout  = 3 * time.Second
	keepAlive    = 15 * time.Second
	maxRedirects = 3
)

// method is a call that is answered by one message.
type method struct {
	name  string
	call  uint64           // Call.Type
	field protowire.Number // of Response
}

var (
	getState  = method{"get state", 9, 9}
	getAgents = method{"get agents", 10, 10}
	getMaster = method{"get master", 17, 16}
)

const callSubscribe = 18 // Call.Type

// Config is how a client connects. The zero value sends no credentials and trusts the
// system's certificate authorities.
type Config struct {
	Credentials *Credentials // nil: none
	TLS         *TLS         // nil: the system's certificate authorities
	LoginFailed func()       // called when a service account could not log in; may be nil
	// Dial connects to an address. nil stands for a net.Dialer with a time-out of 3 seconds.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client calls Mesos masters. Calls wait for their answer until their context is done.
// Several goroutines may use a client.
type Client struct {
	credentials *Credentials
	loginFailed func()
	http        *httpClient
	login       *httpClient                     // for logins of service accounts, which ignore tls_servername
	trusted     atomic.Pointer[map[string]bool] // hosts that may be sent the credentials
}

// NewClient returns a client. It does not connect yet.
func NewClient(c Config) *Client {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	}
	if c.LoginFailed == nil {
		c.LoginFailed = func() {}
	}
	client := &Client{credentials: c.Credentials, loginFailed: c.LoginFailed, http: newHTTPClient(c.TLS, masterSuites, c.Dial), login: newHTTPClient(nil, nil, c.Dial)}
	if c.TLS != nil {
		client.login.tls = &TLS{Files: c.TLS.Files}
	}
	client.Trust(nil)
	return client
}

// Trust sets the masters that may be sent the credentials, besides a leader that one of
// them redirects to.
func (c *Client) Trust(masters []*url.URL) {
	hosts := make(map[string]bool, len(masters))
	for _, u := range masters {
		hosts[u.Host] = true
	}
	c.trusted.Store(&hosts)
}

// Close closes idle connections.
func (c *Client) Close() {
	c.http.close()
	c.login.close()
}

// Target is the master to call.
type Target struct {
	URL *url.URL // of its API
	// Follow is asked before a redirect of the master is followed. An error ends the call.
	// nil follows all.
	Follow func(next *url.URL) error
}

// Conn is a leading master that has answered a call.
type Conn struct {
	URL    *url.URL       // of its API, after redirects
	Remote netip.AddrPort // of the TCP connection; invalid if unknown

	client  *Client
	trusted bool // may be sent the credentials
}

// Stream is an open SUBSCRIBE.
type Stream struct {
	Conn    *Conn
	body    io.Closer
	records *recordReader
	decoder *decoder
}

// Subscribe opens an event stream at a master, or at the leader that it redirects to.
// Cancelling ctx ends the stream. read, which may be nil, is called with the size of each
// read from it.
func (c *Client) Subscribe(ctx context.Context, t Target, read func(n int)) (*Stream, error) {
	resp, conn, err := c.call(ctx, t, callSubscribe) //nolint:bodyclose // closed by Stream.Close
	if err != nil {
		return nil, c.wrap("subscribe", err)
	}
	return &Stream{
		Conn:    conn,
		body:    resp.Body,
		records: newRecordReader(&countedReader{resp.Body, read}),
		decoder: newDecoder(),
	}, nil
}

// countedReader calls read, if it is not nil, with the size of each read.
type countedReader struct {
	r    io.Reader
	read func(n int)
}

func (c *countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.read != nil {
		c.read(n)
	}
	return n, err
}

// Next returns the next event. No call may follow one that returned an error: io.EOF if the
// master has ended the stream, io.ErrUnexpectedEOF if it broke.
func (s *Stream) Next() (Event, error) {
	w, err := s.records.next()
	if err != nil {
		return nil, err
	}
	return s.decoder.event(w)
}

// Close ends the stream.
func (s *Stream) Close() error { return s.body.Close() }

// State asks a master, or the leader that it redirects to, for its whole state (GET_STATE),
// and returns who has answered. read is as in Subscribe.
func (c *Client) State(ctx context.Context, t Target, read func(n int)) (*State, *Conn, error) {
	s := new(State)
	conn, err := c.ask(ctx, t, getState, read, stateInto(s))
	return s, conn, err
}

// Master asks a master, or the leader that it redirects to, for its MasterInfo (GET_MASTER),
// and returns who has answered.
func (c *Client) Master(ctx context.Context, t Target) (Master, *Conn, error) {
	var m Master
	conn, err := c.ask(ctx, t, getMaster, nil, masterInto(&m))
	return m, conn, err
}

// ask makes a call and decodes its answer.
func (c *Client) ask(ctx context.Context, t Target, m method, read func(n int), decode func(*wire) (bool, error)) (*Conn, error) {
	resp, conn, err := c.call(ctx, t, m.call)
	if err == nil {
		err = decodeAnswer(resp, read, m.field, decode)
	}
	if err != nil {
		return nil, c.wrap(m.name, err)
	}
	return conn, nil
}

// State asks the master for its whole state (GET_STATE). read is as in Subscribe.
func (c *Conn) State(ctx context.Context, read func(n int)) (*State, error) {
	s := new(State)
	if err := c.ask(ctx, getState, read, stateInto(s)); err != nil {
		return nil, err
	}
	return s, nil
}

func stateInto(s *State) func(*wire) (bool, error) {
	d := newDecoder()
	return func(w *wire) (bool, error) { return d.state(w, s) }
}

// Agents asks the master for its registered and recovered agents (GET_AGENTS). The state
// has nothing else.
func (c *Conn) Agents(ctx context.Context) (*State, error) {
	s, d := new(State), newDecoder()
	if err := c.ask(ctx, getAgents, nil, func(w *wire) (bool, error) { return d.agents(w, s) }); err != nil {
		return nil, err
	}
	return s, nil
}

// Master asks the master for its MasterInfo (GET_MASTER).
func (c *Conn) Master(ctx context.Context) (Master, error) {
	var m Master
	err := c.ask(ctx, getMaster, nil, masterInto(&m))
	return m, err
}

func masterInto(m *Master) func(*wire) (bool, error) {
	return func(w *wire) (bool, error) {
		b, err := w.bytes()
		if err == nil {
			*m, err = decodeMaster(message(b, 1))
		}
		return true, err
	}
}

// ask makes a call and decodes its answer. It follows no redirect: a master that redirects
// does not lead any more.
func (c *Conn) ask(ctx context.Context, m method, read func(n int), decode func(*wire) (bool, error)) error {
	resp, err := c.call(ctx, m.call)
	if err == nil {
		err = decodeAnswer(resp, read, m.field, decode)
	}
	return c.client.wrap(m.name, err)
}

// decodeAnswer decodes a field of a Response, and closes it.
func decodeAnswer(resp *http.Response, read func(n int), field protowire.Number, decode func(*wire) (bool, error)) error {
	defer resp.Body.Close()
	found, err := response(&newRecordReader(&countedReader{resp.Body, read}).wire, field, decode)
	if err == nil && !found {
		err = errors.New("the answer is empty")
	}
	return err
}

// call makes a call to a master that led when it last answered.
func (c *Conn) call(ctx context.Context, call uint64) (*http.Response, error) {
	resp, _, err := c.client.post(ctx, c.URL, call, c.trusted)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, checkType(resp)
	}
	next, err := c.client.redirect(c.URL, resp)
	if err == nil {
		err = fmt.Errorf("%s %w: it redirects to %s", c.URL.Host, ErrNotLeading, next.Host)
	}
	return nil, err
}

// call makes a call to a master, follows its redirects, and returns the answer of the leader.
func (c *Client) call(ctx context.Context, t Target, call uint64) (*http.Response, *Conn, error) {
	u := t.URL
	trusted := true // u is configured, or ZooKeeper names it
	for range maxRedirects + 1 {
		resp, remote, err := c.post(ctx, u, call, trusted)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return resp, &Conn{URL: u, Remote: remote, client: c, trusted: trusted}, checkType(resp)
		}
		next, err := c.redirect(u, resp)
		if err != nil {
			return nil, nil, err
		}
		if t.Follow != nil {
			if err := t.Follow(next); err != nil {
				return nil, nil, fmt.Errorf("%s redirects to %s: %w", u.Host, next.Host, err)
			}
		}
		hosts := *c.trusted.Load()
		trusted = hosts[next.Host] || trusted && hosts[u.Host]
		if !trusted && c.credentials != nil {
			return nil, nil, fmt.Errorf("%s redirects to %s: no configured master names it, so it is not sent the credentials", u, next)
		}
		u = next
	}
	return nil, nil, fmt.Errorf("%w, the last to %s", errRedirects, u.Host)
}

// post sends a Call to u, without following redirects. It sends the credentials if u is
// trusted, and a second time if they were refused and have changed since.
func (c *Client) post(ctx context.Context, u *url.URL, call uint64, trusted bool) (*http.Response, netip.AddrPort, error) {
	var remote netip.AddrPort
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if tcp, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
				ap := tcp.AddrPort()
				remote = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
			}
		},
	})
	body := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), call)
	for again := false; ; again = true {
		req, err := http.NewRequestWithContext(traced, http.MethodPost, u.String(), bytes.NewReader(body))
		if err != nil {
			return nil, remote, err
		}
		req.Header.Set("Content-Type", protobuf)
		req.Header.Set("Accept", protobuf)
		// Compression would delay events, and a small answer could become a huge one.
		req.Header.Set("Accept-Encoding", "identity")
		if c.credentials != nil && trusted {
			if err := c.credentials.authorize(ctx, c.login, req); err != nil {
				c.loginFailed()
				return nil, remote, err
			}
		}
		resp, err := c.http.do(req)
		if err != nil {
			return nil, remote, explainHandshake(err)
		}
		if resp.StatusCode != http.StatusUnauthorized || again || c.credentials == nil || !c.credentials.renew(req) {
			return resp, remote, nil
		}
		resp.Body.Close()
	}
}

// checkType refuses an answer that is not protobuf, such as a proxy's page, or that is
// compressed against the request.
func checkType(resp *http.Response) error {
	ct, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	encoding := resp.Header.Get("Content-Encoding")
	switch {
	case ct != protobuf:
		resp.Body.Close()
		return fmt.Errorf("%s: answer is %.100q, not %s", resp.Request.URL, ct, protobuf)
	case encoding != "" && encoding != "identity":
		resp.Body.Close()
		return fmt.Errorf("%s: answer is encoded as %.100q", resp.Request.URL, encoding)
	}
	return nil
}

// redirect returns where resp, an answer of u, leads to. A master that does not lead
// answers 307 with the location `//HOST:PORT/master/api/v1`, without a scheme.
func (c *Client) redirect(u *url.URL, resp *http.Response) (*url.URL, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	location := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusTemporaryRedirect || location == "" || err != nil {
		return nil, newStatusError(u, resp.StatusCode, string(body), c.credentials)
	}
	next, err := u.Parse(location)
	switch {
	case err != nil || (next.Scheme != "http" && next.Scheme != "https") || next.Host == "" || next.User != nil:
		return nil, fmt.Errorf("%s: redirect to %.200q, not to a master", u, location)
	case u.Scheme == "https" && next.Scheme == "http":
		return nil, fmt.Errorf("%s: redirect to %s, from https to http", u, next)
	}
	return next, nil
}
