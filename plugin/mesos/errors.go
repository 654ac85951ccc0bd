package mesos

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"syscall"
)

const (
	maxErrorBody = 4 << 10 // read of the body of an error, in bytes
	maxReason    = 200     // of it in a StatusError
)

// ErrNotLeading is wrapped by the error of a call to a Conn whose master does not lead any
// more.
var ErrNotLeading = errors.New("does not lead any more")

// errRedirects ends a call that is redirected again and again: to itself by a master that has
// started again while its old session lives, or in a circle.
var errRedirects = fmt.Errorf("more than %d redirects", maxRedirects)

// StatusError is an answer that is neither 200 nor a redirect to the leader: 503 while no
// leader is elected or it has not recovered, 401, 403, ….
type StatusError struct {
	URL    string
	Code   int
	Reason string // the start of the body, without secrets

}

func newStatusError(u *url.URL, code int, body string, credentials *Credentials) *StatusError {
	reason := credentials.redact(strings.TrimSpace(body))
	return &StatusError{
		URL: u.String(), Code: code,
		Reason: strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "?"),
	}
}

// Error returns the URL, the status and the reason.
func (e *StatusError) Error() string {
	msg := fmt.Sprintf("%s: %d %s", e.URL, e.Code, http.StatusText(e.Code))
	if e.Reason != "" {
		msg += fmt.Sprintf(": %q", e.Reason)
	}
	return msg
}

// IsElecting reports whether err is what masters answer until one of them leads: nothing
// listens, 503 "No leader elected" or "Master has not finished recovery", or they redirect to
// each other.
func IsElecting(err error) bool {
	var status *StatusError
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errRedirects) ||
		errors.As(err, &status) && status.Code == http.StatusServiceUnavailable
}

// HasSteppedDown reports whether err shows that the master at host, the host:port of its
// API, does not lead: nothing listens there, or it answers 503.
func HasSteppedDown(err error, host string) bool {
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

// redactedError shows an error without the secrets that a master may have echoed. It is
// still that error: errors.Is and errors.As look into it.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }

func (e *redactedError) Unwrap() error { return e.err }

// wrap returns err with what failed, and without secrets. It returns nil for nil.
func (c *Client) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", doing, err)
	if text := c.credentials.redact(err.Error()); text != err.Error() {
		return &redactedError{text, err}
	}
	return err
}
