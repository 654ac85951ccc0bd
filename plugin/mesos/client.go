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
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	protobuf = "application/x-protobuf" // exactly: with a parameter Mesos answers 415

	dialTimeout   = 5 * time.Second
	keepAlive     = 15 * time.Second
	headerTimeout = 10 * time.Second
	maxRedirects  = 3
	maxErrorBody  = 200
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

// Client talks to Mesos masters.
type Client struct {
	http *http.Client
}

// NewClient returns a client that waits 5 seconds for a connection and 10 for
// the headers of an answer.
func NewClient() *Client {
	return NewClientDialing((&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext)
}

// NewClientDialing returns a client that connects by dial.
func NewClientDialing(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *Client {
	return &Client{http: &http.Client{
		Transport: &http.Transport{
			DialContext:           dial,
			TLSHandshakeTimeout:   dialTimeout,
			ResponseHeaderTimeout: headerTimeout,
			MaxIdleConnsPerHost:   1,
			IdleConnTimeout:       time.Minute,
		},
		// call follows redirects itself: they name the leader.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close drops the client's idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Stream is an open SUBSCRIBE.
type Stream struct {
	Leader *url.URL       // who answers, after redirects
	Remote netip.AddrPort // where the connection goes; invalid if unknown
	body   io.Closer
	recs   *records
	dec    *decoder
}

// Subscribe opens an event stream at the master with the API endpoint u,
// following the redirect of a master that does not lead. Cancelling ctx ends
// the stream. activity, if not nil, is called with every read from it.
func (c *Client) Subscribe(ctx context.Context, u *url.URL, activity func()) (*Stream, error) {
	var remote netip.AddrPort
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			if tcp, ok := info.Conn.RemoteAddr().(*net.TCPAddr); ok {
				ap := tcp.AddrPort()
				remote = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
			}
		},
	})
	resp, err := c.call(ctx, u, callSubscribe) //nolint:bodyclose // closed by Stream.Close
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return &Stream{
		Leader: resp.Request.URL,
		Remote: remote,
		body:   resp.Body,
		recs:   newRecords(&activeReader{resp.Body, activity}),
		dec:    newDecoder(),
	}, nil
}

// activeReader tells of every read that brought something.
type activeReader struct {
	r        io.Reader
	activity func()
}

func (a *activeReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 && a.activity != nil {
		a.activity()
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

// State asks the master at u for its whole state (GET_STATE).
func (c *Client) State(ctx context.Context, u *url.URL) (*State, error) {
	s := new(State)
	d := newDecoder()
	_, err := c.get(ctx, u, callGetState, responseGetState, func(w *wire) (bool, error) { return d.state(w, s) })
	if err != nil {
		return nil, fmt.Errorf("get state: %w", err)
	}
	return s, nil
}

// Agents asks the master at u for its agents, registered and recovered
// (GET_AGENTS); the state has nothing else.
func (c *Client) Agents(ctx context.Context, u *url.URL) (*State, error) {
	s := new(State)
	d := newDecoder()
	answerer, err := c.get(ctx, u, callGetAgents, responseGetAgents, func(w *wire) (bool, error) { return d.agents(w, s) })
	if err == nil && answerer.Host != u.Host {
		err = fmt.Errorf("%s leads instead of %s", answerer.Host, u.Host)
	}
	if err != nil {
		return nil, fmt.Errorf("get agents: %w", err)
	}
	return s, nil
}

// Master asks the leading master at u who it is (GET_MASTER).
func (c *Client) Master(ctx context.Context, u *url.URL) (Master, error) {
	var m Master
	d := newDecoder()
	_, err := c.get(ctx, u, callGetMaster, responseGetMaster, func(w *wire) (bool, error) {
		b, err := w.bytes()
		if err == nil {
			m, err = d.master(message(b, 1))
		}
		return true, err
	})
	if err != nil {
		return Master{}, fmt.Errorf("get master: %w", err)
	}
	return m, nil
}

// get makes a call whose answer is one message without RecordIO, has the field
// num of it decoded, and returns who answered.
func (c *Client) get(ctx context.Context, u *url.URL, call uint64, num protowire.Number, decode func(*wire) (bool, error)) (*url.URL, error) {
	resp, err := c.call(ctx, u, call)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answered, err := response(&newRecords(resp.Body).wire, num, decode)
	if err == nil && !answered {
		err = errors.New("the answer has no content")
	}
	return resp.Request.URL, err
}

// call posts a Call of the type, and returns the answer of whoever leads.
func (c *Client) call(ctx context.Context, u *url.URL, call uint64) (*http.Response, error) {
	body := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), call)
	for range maxRedirects + 1 {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", protobuf)
		req.Header.Set("Accept", protobuf)
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK {
			return resp, checkType(resp)
		}
		next, err := redirect(u, resp)
		if err != nil {
			return nil, err
		}
		u = next
	}
	return nil, fmt.Errorf("more than %d redirects, the last to %s", maxRedirects, u)
}

// checkType refuses what is no protobuf, as the page of a proxy.
func checkType(resp *http.Response) error {
	ct, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if ct == protobuf {
		return nil
	}
	resp.Body.Close()
	return fmt.Errorf("%s: answer is %q, not %s", resp.Request.URL, ct, protobuf)
}

// redirect returns where resp sends us: `//HOST:PORT/master/api/v1`, scheme
// relative, from a master that does not lead.
func redirect(u *url.URL, resp *http.Response) (*url.URL, error) {
	defer resp.Body.Close()
	reason, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	location := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusTemporaryRedirect || location == "" || err != nil {
		return nil, &StatusError{URL: u.String(), Code: resp.StatusCode, Reason: strings.ToValidUTF8(strings.TrimSpace(string(reason)), "?")}
	}
	next, err := u.Parse(location)
	if err != nil {
		return nil, fmt.Errorf("%s: redirect to %q: %w", u, location, err)
	}
	if (next.Scheme != "http" && next.Scheme != "https") || next.Host == "" {
		return nil, fmt.Errorf("%s: redirect to %q, which is no master", u, location)
	}
	return next, nil
}
