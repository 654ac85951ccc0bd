package mesostest

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const recordings = "../../testdata/mesos/http"

// situation puts a master into the state in which a recording was made.
func situation(name string) *Master {
	m := NewMaster(15 * time.Second)
	switch {
	case strings.HasPrefix(name, "follower"):
		m.Follow("127.0.0.1:5050")
	case strings.HasPrefix(name, "no-leader"):
		m.Refuse(http.StatusServiceUnavailable, "No leader elected")
	case strings.HasPrefix(name, "unrecovered"):
		m.Refuse(http.StatusServiceUnavailable, "Master has not finished recovery")
	}
	return m
}

// TestAnswersAsRecorded sends the recorded requests, and compares status,
// headers and body with what a real master answered.
func TestAnswersAsRecorded(t *testing.T) {
	requests, err := filepath.Glob(filepath.Join(recordings, "*.request"))
	if err != nil || len(requests) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	// Not simulated: authentication, the v0 API, and a master's own description.
	left := map[string]bool{"bearer-get-state": true, "unauthorized-subscribe": true, "unrecovered-v0-state": true, "get-master": true, "get-master-json": true, "master-api-v1": true}
	for _, file := range requests {
		name := strings.TrimSuffix(filepath.Base(file), ".request")
		if left[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			srv := Start(situation(name))
			defer srv.Close()
			req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(read(t, file))))
			if err != nil {
				t.Fatal(err)
			}
			req.RequestURI, req.URL.Scheme, req.URL.Host = "", "http", srv.Host
			got, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer got.Body.Close()
			base := strings.TrimSuffix(file, ".request")
			want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(read(t, base+".headers"))), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.StatusCode != want.StatusCode {
				t.Errorf("status %d, want %d", got.StatusCode, want.StatusCode)
			}
			for _, h := range []string{"Content-Type", "Location", "Allow"} {
				if got.Header.Get(h) != want.Header.Get(h) {
					t.Errorf("%s: %q, want %q", h, got.Header.Get(h), want.Header.Get(h))
				}
			}
			wantBody := read(t, base+".body")
			body := make([]byte, len(wantBody))
			if _, err := io.ReadFull(got.Body, body); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bytes.TrimSpace(body), bytes.TrimSpace(wantBody)) {
				t.Errorf("body %q, want %q", body, wantBody)
			}
		})
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTableKeepsOrder(t *testing.T) {
	tab := newTable[int]()
	for i := range 1000 {
		tab.put(string(rune('a'+i%26))+string(rune(i)), i)
	}
	for i := range 1000 {
		if i%3 != 0 {
			tab.remove(string(rune('a'+i%26)) + string(rune(i)))
		}
	}
	last := -1
	for _, v := range tab.list() {
		if v%3 != 0 || v < last {
			t.Fatalf("%d after %d", v, last)
		}
		last = v
	}
	if v, ok := tab.get("d" + string(rune(3))); !ok || v != 3 {
		t.Errorf("got %d, %v", v, ok)
	}
}

// TestPrepare compares tasks that were encoded before, through several changes, with tasks that were
// not.
func TestPrepare(t *testing.T) {
	m := NewMaster(0)
	l := NewLarge(m, 10, 2, 3)
	m.Prepare()
	for range 5 {
		l.Churn(m)
	}
	m.AddTask(l.Tasks[0])
	m.UpdateTask(l.Tasks[1].FrameworkID.Value, l.Status(l.Tasks[1], TaskKilled), TaskKilled)
	state := &Response{Type: 8, GetState: m.State()}
	if !bytes.Equal(m.encodeState(state, protobufType), Protobuf(state)) || len(m.encoded) != len(state.GetState.Tasks.Tasks) {
		t.Errorf("%d encoded tasks of %d, or another state", len(m.encoded), len(state.GetState.Tasks.Tasks))
	}
}
