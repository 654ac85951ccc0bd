// Package api serves, over HTTP, what a stanza knows: Mesos-DNS's API, an API of its own that
// tells why a name answers what it answers, and a page that shows it. All of it is read-only.
//
// The package speaks HTTP and JSON, and knows no rule of names: it declares what it needs as the
// interface Stanza. A Server owns its listener and its goroutines; Close ends them.
package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of what clients can take: the name server in the same process goes first.
const (
	maxConnections = 256             // open at a time; others wait in the kernel
	maxRequests    = 64              // answered at a time; others are refused
	maxLarge       = 2               // of them, such as look at every task or record
	largePatience  = 5 * time.Second // how long such a request waits for its turn
	maxHeader      = 16 << 10        // octets
	headerTimeout  = 5 * time.Second
	writeTimeout   = 30 * time.Second // a whole zone of a large cluster over a slow line
	idleTimeout    = time.Minute
	closePatience  = time.Second // for requests under way at the end
)

// Config is what a Server needs.
type Config struct {
	Addr    string                        // host:port
	Stanza  func() Stanza                 // the one to tell of; nil if there is none
	Observe func(path string, status int) // counts requests by the pattern of their paths
}

// Server is an HTTP server on one address.
type Server struct {
	Config
	listener net.Listener
	http     *http.Server
	serving  sync.WaitGroup
	all      chan struct{} // a place for each request
	large    chan struct{} // a place for each large one
}

// Listen returns a server that answers on c.Addr until Close.
func Listen(c Config) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", c.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{Config: c, listener: listener, all: make(chan struct{}, maxRequests), large: make(chan struct{}, maxLarge)}
	s.http = &http.Server{
		Handler: s.bounded(s.routes()), MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	s.serving.Go(func() {
		_ = s.http.Serve(netutil.LimitListener(listener, maxConnections)) // it returns when it is closed
	})
	return s, nil
}

// Address returns where the server listens.
func (s *Server) Address() net.Addr { return s.listener.Addr() }

// Close ends the server, and waits for it.
func (s *Server) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // what is under way is cut off
	}
	s.serving.Wait()
}

// routes returns the handlers. Patterns have no method: bounded has refused all but two.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/version", s.with(version))
	mux.HandleFunc("/v1/config", s.with(config))
	mux.HandleFunc("/v1/hosts/{name}", s.with(hosts))
	mux.HandleFunc("/v1/hosts/{name}/ports", s.with(hostPorts))
	mux.HandleFunc("/v1/services/{name}", s.with(services))
	mux.HandleFunc("/v1/enumerate", s.with(s.largeOne(enumerate)))
	mux.HandleFunc("/v1/axfr", s.with(s.largeOne(axfr)))
	mux.HandleFunc("/v1/status", s.with(status))
	mux.HandleFunc("/v1/explain/{name}", s.with(s.largeOne(explain)))
	mux.HandleFunc("/v1/tasks", s.with(s.largeOne(tasks)))
	mux.HandleFunc("/{$}", pageFile("index.html", "text/html; charset=utf-8"))
	mux.HandleFunc("/page.js", pageFile("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("/page.css", pageFile("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("/", notFound)
	return mux
}

// handler answers a request for a stanza. An error that it returns is written as text.
type handler func(st Stanza, w http.ResponseWriter, r *http.Request) error

// with calls h with the current stanza.
func (s *Server) with(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		st := s.Stanza()
		err := ErrNotReady
		if st != nil {
			err = h(st, w, r)
		}
		fail(w, err)
	}
}

// fail writes an error. A client that has gone reads none.
func fail(w http.ResponseWriter, err error) {
	var bad *requestError
	switch {
	case err == nil:
	case errors.As(err, &bad):
		text(w, bad.status, bad.Error())
	case errors.Is(err, ErrNotReady), errors.Is(err, errBusy), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		text(w, http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, context.Canceled):
	default:
		text(w, http.StatusInternalServerError, err.Error())
	}
}

// errBusy refuses a request for which there is no place.
var errBusy = errors.New("too many requests are under way")

// requestError refuses a request for what it is.
type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string { return e.text }

// largeOne has h wait for one of the places that large requests have.
func (s *Server) largeOne(h handler) handler {
	return func(st Stanza, w http.ResponseWriter, r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), largePatience)
		defer cancel()
		select {
		case s.large <- struct{}{}:
			defer func() { <-s.large }()
			return h(st, w, r)
		case <-ctx.Done():
			if r.Context().Err() != nil {
				return context.Canceled
			}
			return errBusy
		}
	}
}

// bounded refuses what there is no place for, and other methods than GET and HEAD, and sets the
// headers that keep a browser from taking an answer for something else.
func (s *Server) bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := &observed{ResponseWriter: w, status: http.StatusOK}
		defer func() { s.Observe(pathOf(r), o.status) }()
		h := o.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			text(o, http.StatusMethodNotAllowed, "405: Method Not Allowed")
			return
		}
		select {
		case s.all <- struct{}{}:
			defer func() { <-s.all }()
			next.ServeHTTP(o, r)
		default:
			fail(o, errBusy)
		}
	})
}

// contentPolicy lets the page load its own script and style, and ask this server, and nothing
// else: what a task calls itself must not run, whatever shows it.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// pathOf returns the pattern that a request has matched: clients can name any number of paths.
func pathOf(r *http.Request) string {
	switch r.Pattern {
	case "", "/":
		return "other"
	case "/{$}":
		return "/"
	}
	return r.Pattern
}

// observed notes the status of an answer.
type observed struct {
	http.ResponseWriter
	status int
}

func (o *observed) WriteHeader(status int) {
	o.status = status
	o.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// text writes an answer in words.
func text(w http.ResponseWriter, status int, words string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, words) // the client may have gone
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusNotFound, "404: Page Not Found")
}
