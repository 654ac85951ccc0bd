package mesos

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestErrors_KeepIdentity uses secrets that are common words, so that they occur in the texts
// of errors: the text is redacted, and the error is still what it was.
func TestErrors_KeepIdentity(t *testing.T) {
	answer := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/api/v1")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	isElecting := func(err error, _ string) bool { return IsElecting(err) }
	for name, tc := range map[string]struct {
		secret  string
		handler http.HandlerFunc // nil: nothing listens
		is      func(err error, host string) bool
	}{
		"recovering, the secret is in the reason": {"finished", answer(503, "Master has not finished recovery"), isElecting},
		"recovering, the secret is in the call":   {"subscribe", answer(503, "Master has not finished recovery"), isElecting},
		"no leader":                               {"elected", answer(503, "No leader elected"), HasSteppedDown},
		"nothing listens":                         {"connection", nil, HasSteppedDown},
		"redirects to itself":                     {"redirects", answer(307, ""), isElecting},
		"connection refused":                      {"subscribe", nil, func(err error, _ string) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		"unauthorised":                            {"Unauthorized", answer(401, "You are Unauthorized"), func(err error, _ string) bool { return errors.As(err, new(*StatusError)) }},
	} {
		t.Run(name, func(t *testing.T) {
			at := closed.URL
			if tc.handler != nil {
				srv := httptest.NewServer(tc.handler)
				defer srv.Close()
				at = srv.URL
			}
			file := writeFile(t, filepath.Join(t.TempDir(), "credentials"), "dns "+tc.secret)
			c := NewClient(Config{Credentials: mustLoad(t, file)})
			defer c.Close()
			u := parseURL(t, at+"/api/v1")
			c.Trust([]*url.URL{u})
			_, err := c.Subscribe(t.Context(), Target{URL: u}, nil)
			if err == nil || strings.Contains(err.Error(), tc.secret) || !strings.Contains(err.Error(), "***") {
				t.Errorf("the secret %q is not redacted: %v", tc.secret, err)
			}
			if !tc.is(err, u.Host) {
				t.Errorf("the error has lost its identity: %v", err)
			}
		})
	}
}

// TestErrNotLeading_KeepsIdentity is the same for a master that does not lead any more.
func TestErrNotLeading_KeepsIdentity(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "//192.0.2.1:5050/master/api/v1")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	defer srv.Close()
	c := NewClient(Config{Credentials: mustLoad(t, writeFile(t, filepath.Join(t.TempDir(), "credentials"), "dns lead"))})
	defer c.Close()
	_, err := (&Conn{URL: parseURL(t, srv.URL), client: c, trusted: true}).Agents(t.Context())
	if !errors.Is(err, ErrNotLeading) || strings.Contains(err.Error(), "lead") {
		t.Errorf("%v", err)
	}
}

// TestHasSteppedDown asks of errors whether they show that the master at x:5050 does not lead.
func TestHasSteppedDown(t *testing.T) {
	status := func(host string, code int) error { return &StatusError{URL: "http://" + host + "/api/v1", Code: code} }
	refused := func(host string) error {
		return &url.Error{Op: "Post", URL: "http://" + host + "/api/v1", Err: syscall.ECONNREFUSED}
	}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"it refuses":               {status("x:5050", 403), false},
		"no leader is elected":     {status("x:5050", 503), true},
		"nothing listens there":    {refused("x:5050"), true},
		"another is down":          {refused("y:5050"), false},
		"another starts":           {status("y:5050", 503), false},
		"the connection timed out": {&url.Error{Op: "Post", URL: "http://x:5050/api/v1", Err: syscall.ETIMEDOUT}, false},
	} {
		if got := HasSteppedDown(tc.err, "x:5050"); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if HasSteppedDown(status("", 503), "") {
		t.Error("a master that is not known has stepped down")
	}
}

// TestRenew_OldToken is refused with a token that another call has already renewed: the new
// one must stay.
func TestRenew_OldToken(t *testing.T) {
	c := &Credentials{secret: &secret{key: newKey(t)}, token: "new", renewAt: time.Now().Add(time.Hour)}
	req := httptest.NewRequest(http.MethodPost, "/", nil)
	req.Header.Set("Authorization", "token=old")
	if !c.renew(req) || c.token != "new" {
		t.Errorf("the token is %q", c.token)
	}
	req.Header.Set("Authorization", "token=new")
	if !c.renew(req) || c.token != "" {
		t.Errorf("the refused token %q is kept", c.token)
	}
}
