// Package logstate logs a condition when it changes, instead of at each attempt.
package logstate

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// repeat is how often a lasting failure is logged again, to be found in the last
// minutes of a log.
const repeat = 5 * time.Minute

// State is a condition that may fail and recover. The zero State has not failed.
type State struct {
	Log clog.P

	said string // the failure as last logged; "" if there is none
	at   time.Time
}

// localAddress is the part of a network error that differs each time.
var localAddress = regexp.MustCompile(`\S+->`)

// Failed logs a failure at WARNING, on one line, unless it was logged less than five
// minutes ago.
func (s *State) Failed(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
	same := localAddress.ReplaceAllString(text, "")
	if now := time.Now(); same != s.said || now.Sub(s.at) >= repeat {
		s.said, s.at = same, now
		s.Log.Warning(text)
	}
}

// Recovered logs the end of a failure at INFO, if one was logged.
func (s *State) Recovered(format string, args ...any) {
	if s.said != "" {
		s.said = ""
		s.Log.Infof(format, args...)
	}
}
