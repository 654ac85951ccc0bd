// Package api serves, over HTTP, what a stanza knows: Mesos-DNS's API, an API of its own that
// tells why a name answers what it answers, and a page that shows it. All of it is read-only.
//
// The package speaks HTTP and JSON, and knows no rule of names: it declares what it needs as the
// interface Stanza. A Server owns its listener and its goroutines; Close ends them.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of what clients can take: the name server in the same process goes first.
const (
	maxConnections = 256                // open at a time; others wait in the kernel
	fewConnections = maxConnections / 2 // up to so many are kept open for another request
	maxRequests    = 64                 // answered at a time; others are refused
	maxHeader      = 16 << 10           // octets
	headerTimeout  = 5 * time.Second
	idleTimeout    = 5 * time.Second
	writeTimeout   = 30 * time.Second // of an answer before its first part is taken
	closePatience  = time.Second      // for requests under way at the end
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
	open     atomic.Int64 // connections
	requests atomic.Int64 // under way
	places   map[size]places
}

// Listen returns a server that answers on c.Addr until Close.
func Listen(c Config) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", c.Addr)
	if err != nil {
		return nil, err
	}
	s := newServer(c)
	s.listener = listener
	s.http = &http.Server{
		Handler: s.bounded(s.routes()), MaxHeaderBytes: maxHeader, DisableGeneralOptionsHandler: true, ConnState: s.count,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
	}
	s.serving.Go(func() {
		_ = s.http.Serve(netutil.LimitListener(listener, maxConnections)) // it returns when it is closed
	})
	return s, nil
}

func newServer(c Config) *Server {
	return &Server{Config: c, places: newPlaces()}
}

// count counts connections.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed:
		s.open.Add(-1)
	}
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
	mux.HandleFunc("/v1/version", s.answer(small, version))
	mux.HandleFunc("/v1/config", s.answer(small, config))
	mux.HandleFunc("/v1/hosts/{name}", s.answer(lookup, hosts))
	mux.HandleFunc("/v1/hosts/{name}/ports", s.answer(small, hostPorts))
	mux.HandleFunc("/v1/services/{name}", s.answer(lookup, services))
	mux.HandleFunc("/v1/enumerate", s.stream(enumerate))
	mux.HandleFunc("/v1/axfr", s.stream(axfr))
	mux.HandleFunc("/v1/status", s.answer(small, status))
	mux.HandleFunc("/v1/explain/{name}", s.answer(search, explain))
	mux.HandleFunc("/v1/tasks", s.answer(search, tasks))
	mux.HandleFunc("/{$}", pageFile("index.html", "text/html; charset=utf-8"))
	mux.HandleFunc("/page.js", pageFile("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("/page.css", pageFile("page.css", "text/css; charset=utf-8"))
	mux.HandleFunc("/", notFound)
	return mux
}

// reply is an answer of bounded size.
type reply struct {
	value any
	stale bool
}

// maxUnplaced is the size of an answer, in octets, up to which it is written once its place is
// given back: a client may take its time.
const maxUnplaced = 256 << 10

// answer has h work out an answer while it has a place, and writes it.
func (s *Server) answer(of size, h func(st Stanza, r *http.Request) (reply, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		giveBack, err := s.places[of].take(r.Context())
		if err != nil {
			fail(w, err)
			return
		}
		defer giveBack()
		b, stale, err := s.workOut(r, h)
		if err != nil {
			fail(w, err)
			return
		}
		if len(b) <= maxUnplaced {
			giveBack()
		}
		warn(w, stale)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = newPatient(w).Write(b) // the client may have gone
	}
}

func (s *Server) workOut(r *http.Request, h func(st Stanza, r *http.Request) (reply, error)) (b []byte, stale bool, err error) {
	st := s.Stanza()
	if st == nil {
		return nil, false, ErrNotReady
	}
	a, err := h(st, r)
	if err != nil {
		return nil, false, err
	}
	b, err = json.Marshal(a.value)
	return b, a.stale, err
}

// stream has h write an answer of any size while it has a place.
func (s *Server) stream(h func(st Stanza, w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		giveBack, err := s.places[whole].take(r.Context())
		if err != nil {
			fail(w, err)
			return
		}
		defer giveBack()
		err = ErrNotReady
		if st := s.Stanza(); st != nil {
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
	case errors.Is(err, ErrNotReady), errors.Is(err, errBusy):
		w.Header().Set("Retry-After", "1")
		text(w, http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, context.Canceled):
	default:
		text(w, http.StatusInternalServerError, err.Error())
	}
}

// requestError refuses a request for what it is.
type requestError struct {
	status int
	text   string
}

func (e *requestError) Error() string { return e.text }

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
		if s.open.Load() > fewConnections { // whoever is idle would keep others out
			h.Set("Connection", "close")
		}
		under := s.requests.Add(1)
		defer s.requests.Add(-1)
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			text(o, http.StatusMethodNotAllowed, "405: Method Not Allowed")
		case !isClean(r.URL.EscapedPath()): // ServeMux would redirect
			notFound(o, r)
		case under > maxRequests:
			fail(o, errBusy)
		default:
			next.ServeHTTP(o, r)
		}
	})
}

// isClean reports whether a path is one that path.Clean leaves as it is, but for a final slash.
func isClean(p string) bool {
	clean := path.Clean("/" + p)
	return p == clean || clean != "/" && p == clean+"/"
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
