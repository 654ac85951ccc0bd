package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

// size is how much a request can take.
type size int

const (
	small  size = iota // the same, whatever the cluster runs
	lookup             // the records of a name, which may be as many as there are tasks
	search             // a look at every task
	whole              // all records or tasks, written piece by piece
)

// sizes are the numbers of places: of requests of a size that are worked on at a time.
var sizes = map[size]int{small: maxRequests, lookup: 8, search: 2, whole: 2}

// placePatience is how long a request waits for a place.
const placePatience = 5 * time.Second

// errBusy refuses a request for which there is no place.
var errBusy = errors.New("too many requests are under way")

// places bound what is worked on at a time.
type places chan struct{}

func newPlaces() map[size]places {
	all := make(map[size]places, len(sizes))
	for of, n := range sizes {
		all[of] = make(places, n)
	}
	return all
}

// take waits for a place. It returns errBusy if that takes too long, and context.Canceled if the
// client leaves. Giving back a second time does nothing.
func (p places) take(ctx context.Context) (giveBack func(), err error) {
	timer := time.NewTimer(placePatience)
	defer timer.Stop()
	select {
	case p <- struct{}{}:
		return sync.OnceFunc(func() { <-p }), nil
	case <-timer.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, context.Canceled
	}
}

// Bounds of writing.
const (
	chunk         = 64 << 10        // octets that the client must take within stallTimeout
	stallTimeout  = 5 * time.Second // as a client that takes nothing keeps a place
	streamTimeout = 2 * time.Minute // of an answer as a whole: a large zone over a slow line
)

// patient writes for as long as the client takes something now and then.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
	end     time.Time
}

func newPatient(w http.ResponseWriter) *patient {
	return &patient{w, http.NewResponseController(w), time.Now().Add(streamTimeout)}
}

func (p *patient) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		deadline := time.Now().Add(stallTimeout)
		if p.end.Before(deadline) {
			deadline = p.end
		}
		if err := p.control.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return n, err
		}
		var wrote int
		wrote, err = p.ResponseWriter.Write(b[:min(len(b), chunk)])
		n, b = n+wrote, b[wrote:]
	}
	return n, err
}
