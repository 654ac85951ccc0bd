package api

import (
	"context"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// fake is a stanza with one name, mesos., and a task that calls itself what it likes.
type fake struct {
	stale, notReady, noZone bool
	large                   func(ctx context.Context) error // before a large answer; may be nil
}

func (f *fake) ready(ctx context.Context) error {
	if f.large != nil {
		return f.large(ctx)
	}
	if f.notReady {
		return ErrNotReady
	}
	return nil
}

func (f *fake) Lookup(name string, qtype uint16) (Answer, error) {
	if f.notReady {
		return Answer{}, ErrNotReady
	}
	a := Answer{Stale: f.stale}
	for _, text := range []string{"app.mesos. 5 IN A 192.0.2.1", "app.mesos. 5 IN A 192.0.2.2", "app.mesos. 5 IN AAAA fd00::1", "_app._tcp.mesos. 5 IN SRV 0 1 80 app.mesos."} {
		rr, _ := dns.NewRR(text)
		if rr.Header().Name == name && rr.Header().Rrtype == qtype {
			a.Exists, a.Records = true, append(a.Records, rr)
		}
	}
	return a, nil
}

func (f *fake) Zone() (Zone, bool, error) {
	if f.noZone {
		return Zone{}, false, nil
	}
	if f.notReady {
		return Zone{}, true, ErrNotReady
	}
	soa, _ := dns.NewRR("mesos. 5 IN SOA ns1.mesos. hostmaster.mesos. 7 60 10 86400 5")
	records := func(qtype uint16) iter.Seq2[string, []dns.RR] {
		return func(yield func(string, []dns.RR) bool) {
			for _, name := range []string{"app.mesos.", "_app._tcp.mesos."} {
				if a, _ := f.Lookup(name, qtype); len(a.Records) > 0 && !yield(name, a.Records) {
					return
				}
			}
		}
	}
	return Zone{Origin: "mesos.", SOA: soa.(*dns.SOA), Stale: f.stale, Records: records}, true, nil
}

func (f *fake) Enumerate(ctx context.Context) (iter.Seq2[Framework, iter.Seq[EnumeratedTask]], error) {
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	return func(yield func(Framework, iter.Seq[EnumeratedTask]) bool) {
		for _, name := range []string{"marathon", `odd"name`} {
			tasks := func(yield func(EnumeratedTask) bool) {
				_ = yield(EnumeratedTask{Name: "<b>", ID: "1", Records: []EnumeratedRecord{{"app.mesos.", "192.0.2.1", "A"}}}) && yield(EnumeratedTask{Name: "two", ID: "2"})
			}
			if !yield(Framework{name}, tasks) {
				return
			}
		}
	}, nil
}

func (f *fake) Config() map[string]any { return map[string]any{"Domain": "mesos"} }
func (f *fake) Status() Status         { return Status{Version: "v1.2.3"} }

func (f *fake) Explain(ctx context.Context, name string) (*Explanation, error) {
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	return &Explanation{Name: name}, nil
}

func (f *fake) Tasks(ctx context.Context, q Query) (*Tasks, error) {
	if err := f.ready(ctx); err != nil {
		return nil, err
	}
	return &Tasks{Total: q.Limit, Known: q.Offset, Tasks: []Task{{Name: q.Text, Published: q.Skipped}}}, nil
}

// serve starts a server for a stanza, and returns it with what it has counted.
func serve(t *testing.T, st Stanza) (s *Server, counted func() map[string]int) {
	t.Helper()
	var mu sync.Mutex
	counts := make(map[string]int)
	s, err := Listen(Config{Addr: "127.0.0.1:0", Stanza: func() Stanza { return st }, Observe: func(path string, status int) {
		mu.Lock()
		defer mu.Unlock()
		counts[path+" "+http.StatusText(status)]++
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return counts
	}
}

func request(t *testing.T, s *Server, method, path string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Address().String()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, string(b)
}

// TestRequests asks for each path, in each state of a stanza.
func TestRequests(t *testing.T) {
	const emptyHost, emptyService = `[{"host":"","ip":""}]`, `[{"service":"","host":"","ip":"","port":""}]`
	for _, tc := range []struct {
		fake   *fake
		method string
		path   string
		status int
		want   string // the body, or a part of it between stars
	}{
		{&fake{}, "GET", "/v1/version", 200, `{"Service":"calicomesos","Version":"v1.2.3","URL":"https://github.com/calicomesos/calicomesos"}`},
		{&fake{}, "GET", "/v1/config", 200, `{"Domain":"mesos"}`},
		{&fake{}, "GET", "/v1/hosts/App.Mesos", 200, `[{"host":"app.mesos.","ip":"192.0.2.1"},{"host":"app.mesos.","ip":"192.0.2.2"},{"host":"app.mesos.","ip":"fd00::1"}]`},
		{&fake{}, "GET", "/v1/hosts/app.*.mesos.", 200, `*"192.0.2.1"*`},
		{&fake{}, "GET", "/v1/hosts/nope.mesos", 200, emptyHost},
		{&fake{}, "GET", "/v1/hosts/a%2fb%00%5c.mesos", 200, emptyHost},
		{&fake{}, "GET", "/v1/hosts/app.mesos/ports", 501, "501: Not Implemented"},
		{&fake{}, "GET", "/v1/services/_App._TCP.mesos", 200, `[{"service":"_App._TCP.mesos","host":"app.mesos.","ip":"192.0.2.1","port":"80"},{"service":"_App._TCP.mesos","host":"app.mesos.","ip":"192.0.2.2","port":"80"},{"service":"_App._TCP.mesos","host":"app.mesos.","ip":"fd00::1","port":"80"}]`},
		{&fake{}, "GET", "/v1/services/nope.mesos", 200, emptyService},
		{&fake{}, "GET", "/v1/enumerate", 200, `{"frameworks":[{"tasks":[{"name":"\u003cb\u003e","id":"1","records":[{"name":"app.mesos.","host":"192.0.2.1","rtype":"A"}]},{"name":"two","id":"2","records":null}],"name":"marathon"},{"tasks":[{"name":"\u003cb\u003e","id":"1","records":[{"name":"app.mesos.","host":"192.0.2.1","rtype":"A"}]},{"name":"two","id":"2","records":null}],"name":"odd\"name"}]}`},
		{&fake{}, "GET", "/v1/axfr", 200, `{"TTL":5,"Serial":7,"RefreshSeconds":1,"Mname":"ns1.mesos.","Rname":"hostmaster.mesos.","Domain":"mesos","Records":{"As":{"app.mesos.":["192.0.2.1","192.0.2.2"]},"AAAAs":{"app.mesos.":["fd00::1"]},"SRVs":{"_app._tcp.mesos.":["app.mesos.:80"]}}}`},
		{&fake{noZone: true}, "GET", "/v1/axfr", 404, "*no zone*"},
		{&fake{noZone: true}, "GET", "/v1/enumerate", 404, "*no zone*"},
		{&fake{}, "GET", "/v1/explain/a.mesos", 200, `*"name":"a.mesos"*`},
		{&fake{}, "GET", "/v1/explain/" + strings.Repeat("a", 257), 400, "*too long*"},
		{&fake{}, "GET", "/v1/explain/%ff", 400, "*UTF-8*"},
		{&fake{}, "GET", "/v1/tasks", 200, `*"total":100,"known":0*`},
		{&fake{}, "GET", "/v1/tasks?q=x&limit=99999&offset=7&skipped=true", 200, `*"total":1000,"known":7,"tasks":[{"id":"","name":"x",*"published":true*`},
		{&fake{}, "GET", "/v1/tasks?limit=-1", 400, "400: invalid parameter limit"},
		{&fake{}, "GET", "/v1/tasks?offset=x", 400, "400: invalid parameter offset"},
		{&fake{}, "GET", "/v1/tasks?skipped=maybe", 400, "400: invalid parameter skipped"},
		{&fake{}, "GET", "/v1/tasks?q=" + strings.Repeat("a", 257), 400, "400: invalid parameter q"},
		{&fake{}, "GET", "/v1/status", 200, `*"version":"v1.2.3"*`},
		{&fake{}, "GET", "/", 200, "*<title>calicomesos</title>*"},
		{&fake{}, "GET", "/page.js", 200, "*use strict*"},
		{&fake{}, "GET", "/page.css", 200, "*color-scheme*"},
		{&fake{}, "GET", "/page", 404, "404: Page Not Found"},
		{&fake{}, "GET", "/v1/nope", 404, "404: Page Not Found"},
		{&fake{}, "GET", "/v1/hosts/", 404, "404: Page Not Found"},
		{&fake{}, "GET", "//", 404, "404: Page Not Found"},
		{&fake{}, "GET", "/v1//version", 404, "404: Page Not Found"},
		{&fake{}, "GET", "/v1/explain/..", 404, "404: Page Not Found"},
		{&fake{}, "GET", "/v1/explain/a%2F%2Fb", 200, `*"name":"a//b"*`},
		{&fake{}, "HEAD", "/v1/status", 200, ""},
		{&fake{}, "HEAD", "/v1/axfr", 200, ""},
		{&fake{}, "POST", "/v1/status", 405, "405: Method Not Allowed"},
		{&fake{}, "DELETE", "/nope", 405, "405: Method Not Allowed"},
		{&fake{}, "OPTIONS", "/v1/status", 405, "405: Method Not Allowed"},
		{&fake{notReady: true}, "GET", "/v1/hosts/app.mesos", 503, ErrNotReady.Error()},
		{&fake{notReady: true}, "GET", "/v1/services/app.mesos", 503, ErrNotReady.Error()},
		{&fake{notReady: true}, "GET", "/v1/enumerate", 503, ErrNotReady.Error()},
		{&fake{notReady: true}, "GET", "/v1/axfr", 503, ErrNotReady.Error()},
		{&fake{large: func(context.Context) error { return errors.New("odd") }}, "GET", "/v1/tasks", 500, "odd"},
		{nil, "GET", "/v1/status", 503, ErrNotReady.Error()},
	} {
		var st Stanza
		if tc.fake != nil {
			st = tc.fake
		}
		s, _ := serve(t, st)
		answer, body := request(t, s, tc.method, tc.path)
		rest, found := body, true
		for part := range strings.SplitSeq(tc.want, "*") {
			_, rest, found = cut(rest, part, found)
		}
		if answer.StatusCode != tc.status || !found || !strings.Contains(tc.want, "*") && body != tc.want {
			t.Errorf("%s %s: %s\n%s\nwant %d\n%s", tc.method, tc.path, answer.Status, body, tc.status, tc.want)
		}
		want := map[string]string{
			"X-Content-Type-Options": "nosniff", "Content-Security-Policy": contentPolicy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			"Access-Control-Allow-Origin": "", "Retry-After": map[bool]string{true: "1"}[tc.status == 503], "Allow": map[bool]string{true: "GET, HEAD"}[tc.status == 405],
		}
		for header, value := range want {
			if got := answer.Header.Get(header); got != value {
				t.Errorf("%s %s: %s is %q, want %q", tc.method, tc.path, header, got, value)
			}
		}
		if kind := answer.Header.Get("Content-Type"); tc.status >= 400 && kind != "text/plain; charset=utf-8" || tc.status == 200 && strings.HasPrefix(tc.path, "/v1") && kind != "application/json" {
			t.Errorf("%s: %s", tc.path, kind)
		}
	}
}

func cut(s, part string, found bool) (before, after string, ok bool) {
	before, after, ok = strings.Cut(s, part)
	return before, after, ok && found
}

// TestStale marks answers that no master has confirmed.
func TestStale(t *testing.T) {
	for _, stale := range []bool{false, true} {
		s, _ := serve(t, &fake{stale: stale})
		for _, path := range []string{"/v1/hosts/app.mesos", "/v1/services/_app._tcp.mesos", "/v1/axfr", "/v1/enumerate"} {
			answer, _ := request(t, s, "GET", path)
			if got := answer.Header.Get("Warning"); strings.HasPrefix(got, "110 ") != stale {
				t.Errorf("%s, stale: %v: Warning is %q", path, stale, got)
			}
		}
	}
}

// TestCounted counts requests by pattern: clients cannot make any number of paths.
func TestCounted(t *testing.T) {
	s, counted := serve(t, &fake{})
	for _, path := range []string{"/v1/hosts/a", "/v1/hosts/b", "/v1/nope", "/nope/%3Cscript%3E", "/", "/v1/hosts/a/ports"} {
		request(t, s, "GET", path)
	}
	request(t, s, "POST", "/odd")
	want := map[string]int{"/v1/hosts/{name} OK": 2, "other Not Found": 2, "/ OK": 1, "/v1/hosts/{name}/ports Not Implemented": 1, "other Method Not Allowed": 1}
	for what, n := range want {
		if got := counted()[what]; got != n {
			t.Errorf("%s: %d, want %d; all are %v", what, got, n, counted())
		}
	}
	if len(counted()) != len(want) {
		t.Errorf("counted %v", counted())
	}
}

// TestLargeRequests lets some large requests work at a time: others wait for their turn, and are
// refused when that takes too long or the client leaves.
func TestLargeRequests(t *testing.T) {
	s := newServer(Config{Observe: func(string, int) {}})
	hold := make(chan struct{})
	working := make(chan struct{}, 10)
	st := &fake{large: func(context.Context) error {
		working <- struct{}{}
		<-hold
		return nil
	}}
	s.Stanza = func() Stanza { return st }
	h := s.bounded(s.routes())
	ask := func(ctx context.Context, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, http.NoBody))
		return w
	}
	var wait sync.WaitGroup
	for range sizes[search] {
		wait.Go(func() {
			if w := ask(t.Context(), "/v1/tasks"); w.Code != http.StatusOK {
				t.Errorf("a large request: %d", w.Code)
			}
		})
	}
	for range sizes[search] {
		<-working
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	if w := ask(gone, "/v1/tasks"); w.Body.Len() > 0 {
		t.Errorf("a client that has left is answered %d %s", w.Code, w.Body)
	}
	if w := ask(t.Context(), "/v1/version"); w.Code != http.StatusOK {
		t.Errorf("a small request beside large ones: %d", w.Code)
	}
	wait.Go(func() {
		if w := ask(t.Context(), "/v1/explain/a"); w.Code != http.StatusOK {
			t.Errorf("a large request that waited: %d", w.Code)
		}
	})
	close(hold)
	wait.Wait()

	s.requests.Add(maxRequests)
	if w := ask(t.Context(), "/v1/version"); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("a request beyond the bound: %d", w.Code)
	}
}

// TestClose ends a server with a request under way, which is cut off, and frees its address.
func TestClose(t *testing.T) {
	working := make(chan struct{})
	s, _ := serve(t, &fake{large: func(ctx context.Context) error {
		close(working)
		<-ctx.Done()
		return ctx.Err()
	}})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r, err := http.Get("http://" + s.Address().String() + "/v1/tasks")
		if err == nil {
			r.Body.Close()
		}
	}()
	<-working
	began := time.Now()
	s.Close()
	<-ended
	if took := time.Since(began); took > 10*closePatience {
		t.Errorf("the end took %v", took)
	}
	listener, err := net.Listen("tcp", s.Address().String())
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
}

// TestListen_Taken fails where another program listens.
func TestListen_Taken(t *testing.T) {
	s, _ := serve(t, &fake{})
	if other, err := Listen(Config{Addr: s.Address().String()}); err == nil {
		other.Close()
		t.Error("two servers listen on one address")
	}
}

// FuzzRequest sends any path and query.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"/v1/hosts/app.mesos", "/v1/services/_a._tcp.b", "/v1/tasks?q=%3Cscript%3E&limit=1&offset=2", "/v1/explain/a", "/v1/hosts/a.*/ports", "//", "/%2e%2e/v1"} {
		f.Add(path)
	}
	s := newServer(Config{Stanza: func() Stanza { return &fake{} }, Observe: func(string, int) {}})
	h := s.bounded(s.routes())
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/"+path, http.NoBody)
		if err != nil {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code >= 500 && w.Code != http.StatusNotImplemented || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%q: %d", path, w.Code)
		}
	})
}

// deadlines is a ResponseWriter that notes the deadlines and sizes of writes.
type deadlines struct {
	http.ResponseWriter
	times []time.Time
	sizes []int
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.times = append(d.times, t)
	return nil
}

func (d *deadlines) Write(b []byte) (int, error) {
	d.sizes = append(d.sizes, len(b))
	return len(b), nil
}

// TestPatient gives a client time for each part of an answer, and some for all of it.
func TestPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &deadlines{ResponseWriter: httptest.NewRecorder()}
		p := newPatient(d)
		began := time.Now()
		if n, err := p.Write(make([]byte, 2*chunk+1)); n != 2*chunk+1 || err != nil || !slices.Equal(d.sizes, []int{chunk, chunk, 1}) {
			t.Errorf("wrote %d, %v, as %v", n, err, d.sizes)
		}
		time.Sleep(streamTimeout - time.Second)
		if _, err := p.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if len(d.times) != 4 || d.times[2] != began.Add(stallTimeout) || d.times[3] != began.Add(streamTimeout) {
			t.Errorf("deadlines %v from %v", d.times, began)
		}
	})
}

// TestManyConnections keeps no connection for another request where there are many.
func TestManyConnections(t *testing.T) {
	s, _ := serve(t, &fake{})
	for _, open := range []int64{0, fewConnections} {
		s.open.Add(open)
		if answer, _ := request(t, s, "GET", "/v1/version"); answer.Close != (open > 0) {
			t.Errorf("%d connections: closed: %v", open, answer.Close)
		}
	}
}

// TestPlaces waits for a place, but not for ever, and not for a client that has left.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := make(places, 1)
		giveBack, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := p.take(t.Context()); !errors.Is(err, errBusy) || time.Since(began) != placePatience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		giveBack()
		giveBack()
		again, err := p.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer again()
		if len(p) != 1 {
			t.Errorf("%d places are taken", len(p))
		}
	})
}

// blocked is a ResponseWriter whose client takes nothing.
type blocked struct {
	http.ResponseWriter
	writing, end chan struct{}
}

func (b *blocked) Write(p []byte) (int, error) {
	close(b.writing)
	<-b.end
	return len(p), nil
}

// TestAnswer_SlowClient gives the place back while a small answer is written.
func TestAnswer_SlowClient(t *testing.T) {
	s := newServer(Config{Stanza: func() Stanza { return &fake{} }, Observe: func(string, int) {}})
	s.places[search] = make(places, 1)
	h := s.bounded(s.routes())
	slow := &blocked{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	var wait sync.WaitGroup
	wait.Go(func() {
		h.ServeHTTP(slow, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/tasks", http.NoBody))
	})
	<-slow.writing
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/tasks", http.NoBody))
	if w.Code != http.StatusOK {
		t.Errorf("beside a slow client: %d", w.Code)
	}
	close(slow.end)
	wait.Wait()
}
