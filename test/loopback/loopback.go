// Package loopback helps tests and benchmarks that run whole programs on loopback: it finds
// free ports, starts programs, and waits for what a program does in its own time.
package loopback

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// step is the time between two looks at what is waited for.
const step = 2 * time.Millisecond

// patience is how long Eventually waits, on a machine that is busy with other tests.
const patience = 30 * time.Second

// FreePort returns a port that is free for UDP and TCP.
func FreePort() (int, error) {
	var listen net.ListenConfig
	for range 20 {
		l, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		u, err := listen.ListenPacket(context.Background(), "udp", l.Addr().String())
		_ = l.Close() // nobody has used it
		if err == nil {
			_ = u.Close()
			return port, nil
		}
	}
	return 0, errors.New("found no free port")
}

// Poll waits until done returns true. It returns the error of ctx if that is done before.
func Poll(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Eventually waits until check returns "". It fails the test with what check says is missing
// if that takes too long.
func Eventually(tb testing.TB, check func() string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	missing := ""
	if Poll(ctx, func() bool { missing = check(); return missing == "" }) != nil {
		tb.Fatal(missing)
	}
}
