package logstate

import (
	"bytes"
	"errors"
	"io"
	golog "log"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// TestState logs changes once, a lasting failure every five minutes, and each on one line.
func TestState(t *testing.T) {
	var logged bytes.Buffer
	golog.SetOutput(&logged)
	defer golog.SetOutput(io.Discard)
	a, b := errors.New("read tcp 127.0.0.1:4001->127.0.0.1:5050: reset"), errors.New("read tcp 127.0.0.1:4002->127.0.0.1:5050: reset")
	synctest.Test(t, func(t *testing.T) {
		s := State{Log: clog.NewWithPlugin("test")}
		for i, step := range []struct {
			err   error // nil: recovered
			after time.Duration
			want  string
		}{
			{nil, 0, ""},
			{a, 0, "[WARNING] plugin/test: failed: read tcp 127.0.0.1:4001->127.0.0.1:5050: reset"},
			{b, time.Minute, ""}, // another connection, the same failure
			{a, time.Minute, ""},
			{errors.Join(io.EOF, io.ErrNoProgress), 0, "[WARNING] plugin/test: failed: EOF; multiple Read calls return no data or error"},
			{errors.Join(io.EOF, io.ErrNoProgress), 4 * time.Minute, ""},
			{errors.Join(io.EOF, io.ErrNoProgress), time.Minute, "[WARNING] plugin/test: failed: EOF; multiple Read calls return no data or error"},
			{nil, 0, "[INFO] plugin/test: recovered"},
			{nil, time.Hour, ""},
			{io.EOF, 0, "[WARNING] plugin/test: failed: EOF"},
		} {
			time.Sleep(step.after)
			logged.Reset()
			if step.err == nil {
				s.Recovered("recovered")
			} else {
				s.Failed("failed: %v", step.err)
			}
			if got := strings.TrimSuffix(logged.String(), "\n"); !strings.HasSuffix(got, step.want) || step.want == "" && got != "" {
				t.Errorf("step %d logged %q, want %q", i, got, step.want)
			}
		}
	})
}
