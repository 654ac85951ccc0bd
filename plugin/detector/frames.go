package detector

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	maxPacket = 4 << 20 // bytes in an answer: four times ZooKeeper's own default

	// What a member may make of the session's timeout. Mesos has ten seconds; ZooKeeper
	// gives two to twenty of its ticks. A shorter one would be nothing but pings.
	minSession = 100 * time.Millisecond
	maxSession = time.Minute
)

// Operations of the library's requests, as in ZooKeeper's protocol.
const (
	opGetData      = 4
	opGetChildren2 = 12
	opClose        = -11
	opSetAuth      = 100
	opSetWatches   = 101
)

const (
	eventXID     = -1 // of a frame that answers no request: an event of a watch
	frameHeader  = 16 // bytes: xid, zxid, error
	statLength   = 68 // bytes of a node's Stat
	sessionStart = 16 // bytes of a ConnectResponse before its password
	lengthPrefix = 4
)

// frameError is a frame that a member of an ensemble must not send.
type frameError struct{ reason string }

func (e *frameError) Error() string { return e.reason }

func badFrame(format string, args ...any) error { return &frameError{fmt.Sprintf(format, args...)} }

// memberConn is a connection to a member of an ensemble, for the library. The library trusts
// lengths, counts and the session's timeout that it reads, and panics or takes memory
// without bound for wrong ones. So a frame is read as a whole, and handed on only once it is
// known to be what its request's answer must look like.
type memberConn struct {
	net.Conn
	stop     func() bool
	rejected func(error) // is told of a frame that ends the connection

	unread []byte // the rest of the last frame

	mu        sync.Mutex
	requested bool            // the session
	answered  bool            // the session's frame has come
	patience  time.Duration   // the longest wait for a frame
	ops       map[int32]int32 // of requests that are not answered, by xid
}

// Write implements net.Conn. The library writes one request at a time.
func (c *memberConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	switch {
	case !c.requested:
		c.requested = true
	case len(b) >= lengthPrefix+8:
		if xid := int32At(b, lengthPrefix); xid > 0 { // not a ping
			c.ops[xid] = int32At(b, lengthPrefix+4)
		}
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

// Read implements net.Conn.
func (c *memberConn) Read(b []byte) (int, error) {
	if len(c.unread) == 0 {
		frame, err := c.readFrame()
		if err != nil {
			return 0, err
		}
		if err := c.check(frame[lengthPrefix:]); err != nil {
			c.rejected(err)
			return 0, err
		}
		c.unread = frame
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

func newMemberConn(conn net.Conn, stop func() bool, rejected func(error)) *memberConn {
	return &memberConn{Conn: conn, stop: stop, rejected: rejected, patience: sessionTimeout, ops: make(map[int32]int32)}
}

// readFrame returns a frame with its length before it.
func (c *memberConn) readFrame() ([]byte, error) {
	var prefix [lengthPrefix]byte
	if _, err := io.ReadFull(c.Conn, prefix[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(prefix[:])
	if length > maxPacket {
		err := badFrame("an answer of %d bytes is longer than %d", length, maxPacket)
		c.rejected(err)
		return nil, err
	}
	frame := make([]byte, lengthPrefix+length)
	copy(frame, prefix[:])
	_, err := io.ReadFull(c.Conn, frame[lengthPrefix:])
	return frame, err
}

// check returns an error unless the library can decode a frame.
func (c *memberConn) check(frame []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered {
		c.answered = true
		return c.checkSession(frame)
	}
	if len(frame) < frameHeader {
		return badFrame("an answer of %d bytes is too short", len(frame))
	}
	xid, failed, body := int32At(frame, 0), int32At(frame, 12) != 0, frameBody{rest: frame[frameHeader:]}
	if xid == eventXID {
		body.skip(8) // type and state
		body.text()  // path
		return body.err
	}
	op, ok := c.ops[xid]
	delete(c.ops, xid)
	if !ok || failed {
		return nil // the library looks at the header only
	}
	switch op {
	case opGetData:
		body.buffer()
		body.skip(statLength)
	case opGetChildren2:
		for range body.count(lengthPrefix) {
			body.text()
		}
		body.skip(statLength)
	case opClose, opSetAuth, opSetWatches: // no body
	default:
		return badFrame("an answer to operation %d is not known", op)
	}
	return body.err
}

// checkSession checks a ConnectResponse, and takes over the session's timeout. One without
// an id says that the session has expired.
func (c *memberConn) checkSession(frame []byte) error {
	if len(frame) < sessionStart {
		return badFrame("a session's answer of %d bytes is too short", len(frame))
	}
	timeout := time.Duration(int32At(frame, 4)) * time.Millisecond
	if id := binary.BigEndian.Uint64(frame[8:]); id != 0 {
		if timeout < minSession || timeout > maxSession {
			return badFrame("a session's timeout of %v is not between %v and %v", timeout, minSession, maxSession)
		}
		c.patience = max(c.patience, timeout)
	}
	password := frameBody{rest: frame[sessionStart:]}
	password.buffer()
	return password.err
}

// SetReadDeadline implements net.Conn. The library would wait a minute for a hanging
// member's first answer, and without end for the rest of one that has begun.
func (c *memberConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	most := time.Now().Add(c.patience)
	c.mu.Unlock()
	if t.IsZero() || t.After(most) {
		t = most
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *memberConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// frameBody reads a frame in the encoding of ZooKeeper's jute: numbers are big-endian, and
// strings, buffers and lists begin with an int32, which is their length.
type frameBody struct {
	rest []byte
	err  error
}

// skip passes n bytes.
func (f *frameBody) skip(n int) {
	if f.err == nil && n > len(f.rest) {
		f.err = badFrame("an answer ends early")
	}
	if f.err == nil {
		f.rest = f.rest[n:]
	}
}

// count reads the length of a list whose elements have at least size bytes.
func (f *frameBody) count(size int) int {
	if len(f.rest) < 4 {
		f.skip(4)
		return 0
	}
	n := int32At(f.rest, 0)
	f.skip(4)
	if n < 0 || int(n) > len(f.rest)/size {
		f.err = badFrame("an answer of %d bytes cannot have %d elements", len(f.rest), n)
		return 0
	}
	return int(n)
}

// text passes a string.
func (f *frameBody) text() {
	if f.err == nil {
		f.skip(f.count(1))
	}
}

// buffer passes bytes, which may be null: a length of -1.
func (f *frameBody) buffer() {
	if f.err == nil && len(f.rest) >= 4 && int32At(f.rest, 0) == -1 {
		f.skip(4)
		return
	}
	f.text()
}

func int32At(b []byte, i int) int32 { return int32(binary.BigEndian.Uint32(b[i:])) }
