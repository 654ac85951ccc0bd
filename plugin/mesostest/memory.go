package mesostest

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// InMemory serves masters over connections in memory, for a test in a bubble of
// testing/synctest, where time passes only while all goroutines wait.
type InMemory struct {
	listener pipes
	srv      http.Server
}

// StartInMemory serves h, whatever address is dialled, until Close.
func StartInMemory(h http.Handler) *InMemory {
	m := &InMemory{listener: pipes{conns: make(chan net.Conn), done: make(chan struct{})}}
	m.srv.Handler = h
	go m.srv.Serve(&m.listener) //nolint:errcheck // ends with Close
	return m
}

// Dial connects to the server, as a net.Dialer's DialContext. The connection says that it is
// to addr.
func (m *InMemory) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case m.listener.conns <- server:
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return client, nil //nolint:nilerr // a name: it could be anywhere
		}
		return &dialled{client, net.TCPAddrFromAddrPort(ap)}, nil
	case <-m.listener.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dialled is a connection in memory that claims a remote address.
type dialled struct {
	net.Conn
	remote net.Addr
}

// RemoteAddr implements net.Conn.
func (d *dialled) RemoteAddr() net.Addr { return d.remote }

// Close breaks all connections and stops serving.
func (m *InMemory) Close() error { return m.srv.Close() }

// pipes is a listener in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5050} }

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}
