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
			{a, 0, "[WARNING] plugin/test: failed: read tcp 127.0.0.1:4001->127.0.0.1:5050: reset (for 6m0s)"},
			{errors.Join(io.EOF, io.ErrNoProgress), time.Minute, "[WARNING] plugin/test: failed: EOF; multiple Read calls return no data or error (for 7m0s)"},
			{nil, 1500 * time.Millisecond, "[INFO] plugin/test: recovered after 7m1.5s"},
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

// TestState_Bounded words each failure anew.
func TestState_Bounded(t *testing.T) {
	golog.SetOutput(io.Discard)
	s := State{Log: clog.NewWithPlugin("test")}
	for i := range 10 * maxTexts {
		s.Failed("failed: %d", i)
	}
	if len(s.said) > maxTexts {
		t.Errorf("%d texts are remembered", len(s.said))
	}
}

func TestCount(t *testing.T) {
	if got := Count(0, "task") + ", " + Count(1, "task") + ", " + Count(2, "task"); got != "0 tasks, 1 task, 2 tasks" {
		t.Error(got)
	}
}
