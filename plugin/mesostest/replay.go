package mesostest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Recorded is a record of a recorded stream.
type Recorded struct {
	Time   float64 `json:"t"` // arrival, seconds since 1970
	Offset int     `json:"offset"`
	Length int     `json:"length"`
	Type   string  `json:"type"`
}

// End is the offset after the record.
func (r Recorded) End() int { return r.Offset + r.Length }

// ParseIndex reads the index of a recorded stream: a line of JSON for each record.
func ParseIndex(b []byte) ([]Recorded, error) {
	var index []Recorded
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		var r Recorded
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("index line %d: %w", len(index)+1, err)
		}
		index = append(index, r)
	}
	return index, lines.Err()
}

// Replay is a master that sends a recorded stream byte for byte to every subscriber, as far as
// SendTo allows. It refuses other calls, as a master does that knows no leader.
type Replay struct {
	ContentType string // of the stream

	mu     sync.Mutex
	stream []byte
	sent   int           // number of bytes that may be sent
	more   chan struct{} // closed when sent has grown
}

// NewReplay returns a replay of a stream. It sends nothing yet.
func NewReplay(stream []byte, contentType string) *Replay {
	return &Replay{ContentType: contentType, stream: stream, more: make(chan struct{})}
}

// SendTo sends the stream up to an offset.
func (p *Replay) SendTo(offset int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset > p.sent {
		p.sent = min(offset, len(p.stream))
		close(p.more)
		p.more = make(chan struct{})
	}
}

// Run sends the records of index at their recorded pace times speed, until done is closed.
func (p *Replay) Run(index []Recorded, speed float64, done <-chan struct{}) {
	for i, r := range index {
		if i > 0 {
			wait := time.Duration((r.Time - index[i-1].Time) / speed * float64(time.Second))
			select {
			case <-time.After(wait):
			case <-done:
				return
			}
		}
		p.SendTo(r.End())
	}
}

// ServeHTTP serves the stream.
func (p *Replay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, accept, ok := readCall(w, r)
	switch {
	case !ok:
		return
	case call != callSubscribe || accept != p.ContentType:
		plain(w, http.StatusServiceUnavailable, "No leader elected")
		return
	}
	w.Header().Set("Content-Type", accept)
	for at := 0; ; {
		p.mu.Lock()
		chunk, more := p.stream[at:p.sent], p.more
		p.mu.Unlock()
		if _, err := w.Write(chunk); err != nil {
			return
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		at += len(chunk)
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}
