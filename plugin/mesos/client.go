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
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	protobuf = "application/x-protobuf" // exactly: with a parameter Mesos answers 415

	dialTimeout  = 3 * time.Second
	keepAlive    = 15 * time.Second
	maxRedirects = 3
	maxErrorBody = 4 << 10
	maxReason    = 200 // of an error body, in an error
)

// The types of a v1 Call, and the fields of a Response, that are used here.
const (
	callGetState  = 9
	callGetAgents = 10
	callGetMaster = 17
	callSubscribe = 18

	responseGetState  = 9
	responseGetAgents = 10
	responseGetMaster = 16
)

// StatusError is an answer other than 200 and a redirect to the leader: 503
// while no leader is elected or it has not recovered, 401, 403, ….
type StatusError struct {
	URL    string
	Code   int
	Reason string // the start of the body
}

// Error names the URL, the status and the reason.
func (e *StatusError) Error() string {
	msg := fmt.Sprintf("%s: %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Reason != "" {
		msg += fmt.Sprintf(": %q", e.Reason)
	}
	return msg
}

// Recovers reports whether err is the answer of a new leader that reads its registry:
// 503 "Master has not finished recovery".
func Recovers(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && status.Code == http.StatusServiceUnavailable && strings.Contains(status.Reason, "not finished recovery")
}

// Leaderless reports whether err says that the master at host, the host:port of its
// API, does not lead: nothing listens there, or it answers 503.
func Leaderless(err error, host string) bool {
	var (
		status *StatusError
		asked  *url.Error
		where  string
	)
	switch {
	case errors.As(err, &status) && status.Code == http.StatusServiceUnavailable:
		where = status.URL
	case errors.Is(err, syscall.ECONNREFUSED) && errors.As(err, &asked):
		where = asked.URL
	}
	u, err := url.Parse(where)
	return err == nil && host != "" && u.Host == host
}

// Config is how a client connects. Its zero value talks http, and https by the
// system's certificate authorities, to masters that ask for no credentials.
type Config struct {
	Credentials *Credentials // nil: none
	TLS         *TLS         // nil: the system's certificate authorities
	// Dial connects; nil stands for a dialer that waits 3 seconds.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client talks to Mesos masters. It waits for an answer until the context of the
// call is done. Its methods may be called by several goroutines.
type Client struct {
	credentials *Credentials
	http        *httpClient
	login       *httpClient                     // of service accounts: the masters' name is not theirs
	known       atomic.Pointer[map[string]bool] // hosts that may be told the credentials
}

// NewClient returns a client. Nothing is connected to yet.
func NewClient(c Config) *Client {
	if c.Dial == nil {
		c.Dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext
	}
	client := &Client{credentials: c.Credentials, http: &httpClient{tls: c.TLS, dial: c.Dial}, login: &httpClient{dial: c.Dial}}
	if c.TLS != nil {
		client.login.tls = &TLS{Files: c.TLS.Files}
	}
	client.SetMasters(nil)
	return client
}

// SetMasters says who the masters are: the credentials are sent to these, and
// to those that they name as the leader.
func (c *Client) SetMasters(masters []*url.URL) {
	known := make(map[string]bool, len(masters))
	for _, u := range masters {
		known[u.Host] = true
	}
	c.known.Store(&known)
}

// Close drops the client's idle connections.
func (c *Client) Close() {
	c.http.close()
	c.login.close()
}

// failed returns err as what was done, without secrets that a master echoed.
func (c *Client) failed(doing string, err error) error {
	if text := err.Error(); c.credentials.redact(text) != text {
		return fmt.Errorf("%s: %s", doing, c.credentials.redact(text))
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// ErrNotLeading is the error of a call to a Leader that leads no more.
var ErrNotLeading = errors.New("leads no more")

// Leader is the leading master, as it answered a call.
type Leader struct {
	URL    *url.URL       // of its API, after redirects
	Remote netip.AddrPort // where the connection went; invalid if unknown

	client  *Client
	trusted bool // may be told the credentials
}

// Stream is an open SUBSCRIBE.
type Stream struct {
	Leader *Leader // who answers
	body   io.Closer
	recs   *records
	dec    *decoder
}

// Subscribe opens an event stream at the master with the API endpoint u,
// following the redirect of a master that does not lead. Cancelling ctx ends
// the stream. read, if not nil, is called with the size of every read from it.
func (c *Client) Subscribe(ctx context.Context, u *url.URL, read func(n int)) (*Stream, error) {
	resp, leader, err := c.call(ctx, u, callSubscribe) //nolint:bodyclose // closed by Stream.Close
	if err != nil {
		return nil, c.failed("subscribe", err)
	}
	return &Stream{
		Leader: leader,
		body:   resp.Body,
		recs:   newRecords(&countedReader{resp.Body, read}),
		dec:    newDecoder(),
	}, nil
}

// countedReader tells of every read that brought something.
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

// Next returns the next event. After an error the stream is of no more use:
// io.EOF where the master ended it cleanly, io.ErrUnexpectedEOF where it broke.
func (s *Stream) Next() (Event, error) {
	w, err := s.recs.next()
	if err != nil {
		return nil, err
	}
	return s.dec.event(w)
}

// Close ends the stream.
func (s *Stream) Close() error { return s.body.Close() }

// State asks the master at u, or the one it redirects to, for its whole state
// (GET_STATE), and returns who answered. read is as in Subscribe.
func (c *Client) State(ctx context.Context, u *url.URL, read func(n int)) (*State, *Leader, error) {
	resp, leader, err := c.call(ctx, u, callGetState) //nolint:bodyclose // closed by decodeState
	if err == nil {
		var s *State
		s, err = decodeState(resp, read)
		if err == nil {
			return s, leader, nil
		}
	}
	return nil, nil, c.failed("get state", err)
}

func decodeState(resp *http.Response, read func(n int)) (*State, error) {
	s := new(State)
	d := newDecoder()
	return s, content(resp, read, responseGetState, func(w *wire) (bool, error) { return d.state(w, s) })
}

// State asks the master for its whole state (GET_STATE). read is as in Subscribe.
func (l *Leader) State(ctx context.Context, read func(n int)) (*State, error) {
	resp, err := l.call(ctx, callGetState) //nolint:bodyclose // closed by decodeState
	if err == nil {
		var s *State
		if s, err = decodeState(resp, read); err == nil {
			return s, nil
		}
	}
	return nil, l.client.failed("get state", err)
}

// Agents asks the master for its agents, registered and recovered (GET_AGENTS);
// the state has nothing else.
func (l *Leader) Agents(ctx context.Context) (*State, error) {
	s := new(State)
	d := newDecoder()
	resp, err := l.call(ctx, callGetAgents)
	if err == nil {
		err = content(resp, nil, responseGetAgents, func(w *wire) (bool, error) { return d.agents(w, s) })
	}
	if err != nil {
		return nil, l.client.failed("get agents", err)
	}
	return s, nil
}

// Master asks the master who it is (GET_MASTER).
func (l *Leader) Master(ctx context.Context) (Master, error) {
	var m Master
	resp, err := l.call(ctx, callGetMaster)
	if err == nil {
		err = content(resp, nil, responseGetMaster, func(w *wire) (bool, error) {
			b, err := w.bytes()
			if err == nil {
				m, err = decodeMaster(message(b, 1))
			}
			return true, err
		})
	}
	if err != nil {
		return Master{}, l.client.failed("get master", err)
	}
	return m, nil
}

// content has the field num of an answer without RecordIO decoded.
func content(resp *http.Response, read func(n int), num protowire.Number, decode func(*wire) (bool, error)) error {
	defer resp.Body.Close()
	answered, err := response(&newRecords(&countedReader{resp.Body, read}).wire, num, decode)
	if err == nil && !answered {
		err = errors.New("the answer has no content")
	}
	return err
}

// call makes a call to a master that led when it was last asked.
func (l *Leader) call(ctx context.Context, call uint64) (*http.Response, error) {
	resp, _, err := l.client.post(ctx, l.URL, call, l.trusted)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, checkType(resp)
	}
	next, err := l.client.redirect(l.URL, resp)
	if err == nil {
		err = fmt.Errorf("%s %w, but %s", l.URL.Host, ErrNotLeading, next.Host)
	}
	return nil, err
}

// call makes a call of the type, and returns the answer of whoever leads.
func (c *Client) call(ctx context.Context, u *url.URL, call uint64) (*http.Response, *Leader, error) {
	trusted := true // u is configured, or named by ZooKeeper
	for range maxRedirects + 1 {
		resp, remote, err := c.post(ctx, u, call, trusted)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return resp, &Leader{URL: u, Remote: remote, client: c, trusted: trusted}, checkType(resp)
		}
		next, err := c.redirect(u, resp)
		if err != nil {
			return nil, nil, err
		}
		known := *c.known.Load()
		trusted = known[next.Host] || trusted && known[u.Host]
		if !trusted && c.credentials != nil {
			return nil, nil, fmt.Errorf("%s redirects to %s, which is not told the credentials: no configured master names it", u, next)
		}
		u = next
	}
	return nil, nil, fmt.Errorf("more than %d redirects, the last to %s", maxRedirects, u)
}

// post sends a Call of the type to u alone.
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
		if call == callSubscribe {
			req.Header.Set("Accept-Encoding", "identity") // what is compressed comes late
		}
		if c.credentials != nil && trusted {
			if err := c.credentials.authorize(ctx, c.login, req); err != nil {
				return nil, remote, err
			}
		}
		resp, err := c.http.do(req)
		if err != nil {
			return nil, remote, err
		}
		if resp.StatusCode != http.StatusUnauthorized || again || c.credentials == nil || !c.credentials.renew(req) {
			return resp, remote, nil
		}
		resp.Body.Close()
	}
}

// checkType refuses what is no protobuf, as the page of a proxy, or is compressed
// although it was not to be.
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

// redirect returns where resp, the answer of u, sends us:
// `//HOST:PORT/master/api/v1`, scheme relative, from a master that does not lead.
func (c *Client) redirect(u *url.URL, resp *http.Response) (*url.URL, error) {
	defer resp.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	location := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusTemporaryRedirect || location == "" || err != nil {
		text := c.credentials.redact(strings.TrimSpace(string(reason)))
		text = strings.ToValidUTF8(text[:min(len(text), maxReason)], "?")
		return nil, &StatusError{URL: u.String(), Code: resp.StatusCode, Reason: text}
	}
	next, err := u.Parse(location)
	switch {
	case err != nil || (next.Scheme != "http" && next.Scheme != "https") || next.Host == "" || next.User != nil:
		return nil, fmt.Errorf("%s: redirect to %.200q, which is no master", u, location)
	case u.Scheme == "https" && next.Scheme == "http":
		return nil, fmt.Errorf("%s: redirect to %s, which would be asked in the clear", u, next)
	}
	return next, nil
}
