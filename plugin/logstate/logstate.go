// Package logstate logs a condition when it changes, instead of at each attempt.
package logstate

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

const (
	// repeat is how often a lasting failure is logged again, to be found in the last
	// minutes of a log.
	repeat = 5 * time.Minute
	// maxTexts bounds how many texts of one failure are remembered: a master may word each anew.
	maxTexts = 64
)

// State is a condition that may fail, in several ways at once, and recover. The zero State has not
// failed.
type State struct {
	Log clog.P

	since time.Time            // when it failed; zero unless it has
	said  map[string]time.Time // when each way was last logged
}

// localAddress is the part of a network error that differs each time.
var localAddress = regexp.MustCompile(`\S+->`)

// Failed logs a failure at WARNING, on one line, unless it was logged less than five
// minutes ago. A failure that lasts is logged with the time for which it has.
func (s *State) Failed(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	same := localAddress.ReplaceAllString(text, "")
	now := time.Now()
	if s.since.IsZero() {
		s.since, s.said = now, make(map[string]time.Time)
	}
	last, again := s.said[same]
	if again && now.Sub(last) < repeat {
		return
	}
	if len(s.said) >= maxTexts {
		clear(s.said)
	}
	s.said[same] = now
	if lasted := now.Sub(s.since); lasted >= repeat {
		text += " (for " + lasted.Round(time.Second).String() + ")"
	}
	s.Log.Warning(text)
}

// Recovered logs the end of a failure at INFO, if one was logged, and how long it has lasted.
func (s *State) Recovered(format string, args ...any) {
	if s.since.IsZero() {
		return
	}
	lasted := time.Since(s.since)
	s.since, s.said = time.Time{}, nil
	s.Log.Infof("%s after %v", fmt.Sprintf(format, args...), lasted.Round(time.Millisecond))
}

// Count returns how many there are of what a noun names, as in "1 task" and "2 tasks".
func Count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
