package detector

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// jute encodes numbers and strings as ZooKeeper does: int as int32, int64, a string with its
// length.
func jute(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(int32(p))) //nolint:gosec // also wrong ones
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(p))
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

func session(timeout int) []byte { return jute(0, timeout, int64(7), string(make([]byte, 16))) }

// answer is a frame without its length. A member puts the request's xid where it has 0.
func answer(parts ...any) []byte { return append(jute(0, int64(1), 0), jute(parts...)...) }

var stat = make([]byte, statLength)

// serve is a member of an ensemble that answers requests with frames in turn, and then no
// more, and calls done. It answers the end of a session, so that nobody waits for it.
func serve(conn net.Conn, frames [][]byte, done func()) {
	defer conn.Close()
	defer done()
	send := func(frame []byte) { _, _ = conn.Write(append(jute(len(frame)), frame...)) }
	for first := true; ; first = false {
		var prefix [4]byte
		if _, err := io.ReadFull(conn, prefix[:]); err != nil {
			return
		}
		request := make([]byte, binary.BigEndian.Uint32(prefix[:]))
		if _, err := io.ReadFull(conn, request); err != nil {
			return
		}
		xid := request[:4]
		switch {
		case !first && int32At(xid, 0) < 0: // a ping
			continue
		case !first && int32At(request, 4) == opClose:
			send(append(bytes.Clone(xid), answer()[4:]...))
			return
		case len(frames) == 0:
			done()
			continue
		}
		frame := bytes.Clone(frames[0])
		frames = frames[1:]
		if !first && len(frame) >= 4 && int32At(frame, 0) == 0 {
			copy(frame, xid)
		}
		send(frame)
	}
}

// elect follows an election at a member with these frames, until it has no more, and returns
// the masters.
func elect(t *testing.T, frames [][]byte) (found Masters) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		z := &ZooKeeper{Servers: []string{"zk:2181"}, Path: "/mesos"}
		z.run(ctx, func(context.Context, string, string) (net.Conn, error) {
			conn, member := net.Pipe()
			go serve(member, frames, cancel)
			return conn, nil
		}, func(m Masters) { found = m })
	})
	return found
}

const leader = `{"address":{"ip":"10.0.0.1","port":5050},"id":"m"}`

// list is the answer to a list of contenders, get the answer for one.
var (
	list = answer(2, "json.info_0000000001", "log_replicas", stat)
	get  = answer(leader, stat)
)

func TestElection(t *testing.T) {
	masters := elect(t, [][]byte{session(10_000), list, get, answer()})
	if masters.Leader == nil || masters.Leader.Host != "10.0.0.1:5050" {
		t.Errorf("found %+v", masters)
	}
}

// TestElection_Many reads no more nodes than a cluster can have masters.
func TestElection_Many(t *testing.T) {
	parts := []any{maxContenders + 6}
	for i := range maxContenders + 6 {
		parts = append(parts, fmt.Sprintf("json.info_%010d", i))
	}
	frames := [][]byte{session(10_000), answer(append(parts, stat)...)}
	for range maxContenders {
		frames = append(frames, get)
	}
	if masters := elect(t, frames); masters.Leader == nil || len(masters.Contenders) != maxContenders {
		t.Errorf("found %+v", masters)
	}
}

// badFrames are frames that the library must not see: the answers to a session's request, to
// a list, and to a get.
var badFrames = map[string]struct {
	frames [][]byte
	want   string
}{
	"a session without time":       {[][]byte{session(0)}, "a session's timeout of 0s is not between"},
	"a session with less":          {[][]byte{session(-1)}, "a session's timeout of -1ms is not between"},
	"a session for days":           {[][]byte{session(math.MaxInt32)}, "is not between 100ms and 1m0s"},
	"a session that ends early":    {[][]byte{session(10_000)[:15]}, "is too short"},
	"a password beyond its end":    {[][]byte{jute(0, 10_000, int64(7), math.MaxInt32)}, "elements"},
	"a short header":               {[][]byte{session(10_000), answer()[:15]}, "is too short"},
	"nothing":                      {[][]byte{session(10_000), nil}, "is too short"},
	"most children":                {[][]byte{session(10_000), answer(math.MaxInt32)}, "elements"},
	"negative children":            {[][]byte{session(10_000), answer(-2)}, "elements"},
	"no list of children":          {[][]byte{session(10_000), answer(-1, stat)}, "elements"},
	"more children than fit":       {[][]byte{session(10_000), answer(1<<28, make([]byte, 4096))}, "elements"},
	"a child beyond the end":       {[][]byte{session(10_000), answer(1, 500, stat)}, "elements"},
	"no stat of children":          {[][]byte{session(10_000), answer(0)}, "ends early"},
	"data beyond the end":          {[][]byte{session(10_000), list, answer(math.MaxInt32, stat)}, "elements"},
	"data of less than none":       {[][]byte{session(10_000), list, answer(-2, stat)}, "elements"},
	"no stat of data":              {[][]byte{session(10_000), list, answer(leader)}, "ends early"},
	"an event that ends early":     {[][]byte{session(10_000), jute(eventXID, int64(0), 0, 1)}, "ends early"},
	"an event's path beyond it":    {[][]byte{session(10_000), jute(eventXID, int64(0), 0, 1, 3, 1<<30)}, "elements"},
	"an answer of more than 4 MiB": {[][]byte{session(10_000), make([]byte, maxPacket+1)}, "is longer than 4194304"},
}

// TestMemberConn_Rejects reads frames as the library does, after requests for a session, a
// list and a node.
func TestMemberConn_Rejects(t *testing.T) {
	for name, tc := range badFrames {
		t.Run(name, func(t *testing.T) {
			var rejected error
			c := connWith(tc.frames, func(err error) { rejected = err })
			_, err := io.ReadAll(c)
			if err == nil || !errors.Is(err, rejected) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("read %v, rejected %v, want %q", err, rejected, tc.want)
			}
		})
	}
}

// connWith returns a connection with frames to read, on which three requests were written.
func connWith(frames [][]byte, rejected func(error)) *memberConn {
	var in bytes.Buffer
	for i, f := range frames {
		if f = bytes.Clone(f); i > 0 && len(f) >= 4 && int32At(f, 0) == 0 {
			binary.BigEndian.PutUint32(f, uint32(i))
		}
		in.Write(append(jute(len(f)), f...))
	}
	c := newMemberConn(&recordedConn{in: &in}, func() bool { return true }, rejected)
	for _, request := range [][]byte{jute(44), jute(8, 1, opGetChildren2), jute(8, 2, opGetData), jute(8, -2, 11)} {
		_, _ = c.Write(request)
	}
	return c
}

// recordedConn is a connection whose peer has sent all it will.
type recordedConn struct {
	net.Conn
	in io.Reader
}

func (c *recordedConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *recordedConn) Write(b []byte) (int, error) { return len(b), nil }

// TestMemberConn_Accepts hands on what ZooKeeper sends, as it is.
func TestMemberConn_Accepts(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"answers":             {session(4000), list, get},
		"null data":           {session(4000), list, answer(-1, stat)},
		"no password":         {jute(0, 4000, int64(7), -1)},
		"a read-only flag":    {append(session(4000), 0)},
		"an expired session":  {jute(0, 0, int64(0), string(make([]byte, 16)))},
		"a ping and an event": {session(4000), jute(-2, int64(0), 0), jute(eventXID, int64(-1), 0, 4, 3, "/mesos")},
		"an error":            {session(4000), jute(1, int64(0), -101)},
	} {
		t.Run(name, func(t *testing.T) {
			var want bytes.Buffer
			for i, f := range frames {
				if f = bytes.Clone(f); i > 0 && int32At(f, 0) == 0 {
					binary.BigEndian.PutUint32(f, uint32(i))
				}
				want.Write(append(jute(len(f)), f...))
			}
			got, err := io.ReadAll(connWith(frames, func(err error) { t.Errorf("rejected: %v", err) }))
			if err != nil || !bytes.Equal(got, want.Bytes()) {
				t.Errorf("read %x, %v, want %x", got, err, want.Bytes())
			}
		})
	}
}

// TestMemberConn_Patience waits as long as the session lasts, where it lasts longer than was
// asked.
func TestMemberConn_Patience(t *testing.T) {
	c := connWith([][]byte{session(40_000)}, nil)
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	deadline := &deadlineConn{}
	c.Conn = deadline
	for _, at := range []time.Time{{}, time.Now().Add(time.Hour)} {
		_ = c.SetReadDeadline(at)
		if got := time.Until(deadline.at).Round(time.Second); got != 40*time.Second {
			t.Errorf("waits %v", got)
		}
	}
}

// FuzzRun sends frames to the whole of a run, which must neither panic nor take memory
// without bound. Frames are length-prefixed by two bytes.
func FuzzRun(f *testing.F) {
	add := func(frames [][]byte) {
		var b []byte
		for _, frame := range frames {
			if len(frame) <= math.MaxUint16 {
				b = append(binary.BigEndian.AppendUint16(b, uint16(len(frame))), frame...)
			}
		}
		f.Add(b)
	}
	add([][]byte{session(10_000), list, get, answer()})
	for _, tc := range badFrames {
		add(tc.frames)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var frames [][]byte
		for len(b) >= 2 && len(frames) < 8 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			frames, b = append(frames, b[2:2+n]), b[2+n:]
		}
		elect(t, frames)
	})
}

// TestHasSession looks at a session before and after its member is lost.
func TestHasSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		z := &ZooKeeper{Servers: []string{"zk:2181"}, Path: "/mesos"}
		member, conn := net.Pipe()
		reachable := true
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			z.run(ctx, func(context.Context, string, string) (net.Conn, error) {
				if !reachable {
					return nil, errors.New("unreachable")
				}
				reachable = false
				go serve(member, [][]byte{session(10_000), list, get, list, get}, func() {})
				return conn, nil
			}, func(Masters) {})
		}()
		if z.HasSession() {
			t.Error("has a session before it connects")
		}
		synctest.Wait()
		if !z.HasSession() {
			t.Error("has no session with a member that answers")
		}
		member.Close()
		time.Sleep(time.Second)
		synctest.Wait()
		if z.HasSession() {
			t.Error("keeps the session of a member that is lost")
		}
		cancel()
		<-ended
	})
}
