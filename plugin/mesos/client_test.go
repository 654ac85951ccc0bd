package mesos

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

func parseURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSubscribe(t *testing.T) {
	leader := mesostest.NewMaster(0)
	leader.SetID("one")
	mesostest.NewTutorial(leader)
	leading := mesostest.Start(leader)
	defer leading.Close()
	follower := mesostest.NewMaster(0)
	follower.Follow(leading.Host)
	following := mesostest.Start(follower)
	defer following.Close()

	for name, at := range map[string]string{"leader": leading.URL + "/api/v1", "follower": following.URL + "/api/v1"} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(Config{})
			defer c.Close()
			active := 0
			s, err := c.Subscribe(t.Context(), Target{URL: parseURL(t, at)}, func(n int) { active += n })
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			ev, err := s.Next()
			first, ok := ev.(Subscribed)
			if err != nil || !ok || len(first.State.Tasks) != 10 || active == 0 {
				t.Errorf("first event is %T, %v, after %d octets", ev, err, active)
			}
			if s.Conn.URL.Host != leading.Host || s.Conn.Remote.String() != leading.Host {
				t.Errorf("leader %s at %s, want %s", s.Conn.URL, s.Conn.Remote, leading.Host)
			}
			m, err := s.Conn.Master(t.Context())
			if want := (Master{"one", "127.0.0.1", netip.MustParseAddr("127.0.0.1"), 5050}); err != nil || m != want {
				t.Errorf("master is %+v, %v", m, err)
			}
			state, who, err := c.State(t.Context(), Target{URL: parseURL(t, at)}, nil)
			if err != nil || len(state.Tasks) != 10 || len(state.Agents) != 2 || len(state.Frameworks) != 1 || who.URL.Host != leading.Host {
				t.Errorf("state is %+v of %+v, %v", state, who, err)
			}
			if state, err = s.Conn.State(t.Context(), nil); err != nil || len(state.Tasks) != 10 {
				t.Errorf("state is %+v, %v", state, err)
			}
			if agents, err := s.Conn.Agents(t.Context()); err != nil || len(agents.Tasks) != 0 || len(agents.Agents) != 2 {
				t.Errorf("agents are %+v, %v", agents, err)
			}
		})
	}
}

// TestLeadsNoMore asks a master that led, and redirects to another now.
func TestLeadsNoMore(t *testing.T) {
	m := mesostest.NewMaster(0)
	srv := mesostest.Start(m)
	defer srv.Close()
	c := NewClient(Config{})
	defer c.Close()
	_, who, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL+"/api/v1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Follow("192.0.2.1:5050")
	if agents, err := who.Agents(t.Context()); err == nil || !strings.Contains(err.Error(), "does not lead any more: it redirects to 192.0.2.1:5050") {
		t.Errorf("agents are %+v, %v", agents, err)
	}
}

// TestRefusals lets masters, and servers that are not masters, refuse a call.
func TestRefusals(t *testing.T) {
	answer := func(code int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			name, value, _ := strings.Cut(header, ": ")
			w.Header().Set(name, value)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body) // the client may have left
		}
	}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		code    int // of the StatusError; 0 where the error is none
		want    string
	}{
		"no leader":                      {answer(503, "Content-Type: text/plain", "No leader elected"), 503, `503 Service Unavailable: "No leader elected"`},
		"unauthorised":                   {answer(401, "Www-Authenticate: Basic", "401 Unauthorized."), 401, `401 Unauthorized: "401 Unauthorized."`},
		"long page":                      {answer(404, "Content-Type: text/html", strings.Repeat("<p>", 1000)), 404, `404 Not Found: "<p><p>`},
		"a page of a proxy":              {answer(200, "Content-Type: text/html; charset=utf-8", "<html>"), 0, `answer is "text/html", not application/x-protobuf`},
		"JSON":                           {answer(200, "Content-Type: application/json", "{}"), 0, `answer is "application/json"`},
		"redirect with a secret":         {answer(307, "Location: http://me:hunter2@192.0.2.1:1/", ""), 0, "not to a master"},
		"redirect to nowhere":            {answer(307, "X: y", ""), 307, "307 Temporary Redirect"},
		"redirect to itself":             {answer(307, "Location: /api/v1", ""), 0, "more than 3 redirects"},
		"redirect to a file":             {answer(307, "Location: file:///etc/passwd", ""), 0, "not to a master"},
		"redirect that cannot be parsed": {answer(307, "Location: //[::1", ""), 0, "parse Location header"},
		"moved":                          {answer(302, "Location: /elsewhere", "moved"), 302, `302 Found: "moved"`},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tc.handler)
			defer srv.Close()
			c := NewClient(Config{})
			defer c.Close()
			_, err := c.Subscribe(t.Context(), Target{URL: parseURL(t, srv.URL+"/api/v1")}, nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) || len(err.Error()) > 400 {
				t.Fatalf("error is %v, want %s", err, tc.want)
			}
			var status *StatusError
			if errors.As(err, &status) != (tc.code != 0) || status != nil && status.Code != tc.code {
				t.Errorf("status error is %v", status)
			}
		})
	}
}

// TestNoContent asks a master that answers with nothing.
func TestNoContent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", protobuf) }))
	defer srv.Close()
	c := NewClient(Config{})
	defer c.Close()
	if s, err := (&Conn{URL: parseURL(t, srv.URL), client: c}).Agents(t.Context()); err == nil {
		t.Errorf("agents are %+v", s)
	}
	if s, _, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil); err == nil {
		t.Errorf("the state is %+v", s)
	}
}

func TestStreamEnds(t *testing.T) {
	m := mesostest.NewMaster(0)
	srv := mesostest.Start(m)
	defer srv.Close()
	c := NewClient(Config{})
	defer c.Close()
	for name, tc := range map[string]struct {
		end  func(cancel context.CancelFunc)
		want error
	}{
		"crash":     {func(context.CancelFunc) { m.Drop() }, io.ErrUnexpectedEOF},
		"cancelled": {func(cancel context.CancelFunc) { cancel() }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := c.Subscribe(ctx, Target{URL: parseURL(t, srv.URL+"/api/v1")}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for range 2 { // SUBSCRIBED, HEARTBEAT
				if _, err := s.Next(); err != nil {
					t.Fatal(err)
				}
			}
			tc.end(cancel)
			if _, err := s.Next(); !errors.Is(err, tc.want) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// TestCompressed gets answers that are compressed against the request: 194 KB may stand for
// 1.8 GB.
func TestCompressed(t *testing.T) {
	asked := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Type", protobuf)
		w.Header().Set("Content-Encoding", "gzip")
	}))
	defer srv.Close()
	c := NewClient(Config{})
	defer c.Close()
	u := parseURL(t, srv.URL)
	for name, call := range map[string]func() error{
		"SUBSCRIBE": func() error { _, err := c.Subscribe(t.Context(), Target{URL: u}, nil); return err },
		"GET_STATE": func() error { _, _, err := c.State(t.Context(), Target{URL: u}, nil); return err },
		"GET_MASTER": func() error {
			_, err := (&Conn{URL: u, client: c}).Master(t.Context())
			return err
		},
	} {
		asked = ""
		err := call()
		if err == nil || !strings.Contains(err.Error(), `encoded as "gzip"`) || asked != "identity" {
			t.Errorf("%s: %v, asked for %q", name, err, asked)
		}
	}
}
