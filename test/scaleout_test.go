//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"
)

// secondaries are a CoreDNS and a BIND that follow the zone mesos of a primary.
type secondaries struct{ coreDNS, bind int } // ports

// all yields their names and ports.
func (s secondaries) all(yield func(string, int) bool) {
	_ = yield("CoreDNS", s.coreDNS) && yield("BIND", s.bind)
}

// startPrimary starts a CoreDNS that watches master and notifies the secondaries.
func startPrimary(t *testing.T, port int, master string, s secondaries) *loopback.Program {
	t.Helper()
	text := fmt.Sprintf(`mesos.:%d {
 bind 127.0.0.1
 errors
 transfer {
  to 127.0.0.1:%d 127.0.0.1:%d
 }
 calicomesos {
  master %s
  containerip
 }
}
`, port, s.coreDNS, s.bind, master)
	p := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), text))
	p.WaitFor(`CoreDNS-`)
	return p
}

// start starts both, and returns the BIND.
func (s secondaries) start(t *testing.T, primaries ...int) *loopback.Program {
	t.Helper()
	dir := t.TempDir()
	var from, list strings.Builder
	for _, port := range primaries {
		fmt.Fprintf(&from, " 127.0.0.1:%d", port)
		fmt.Fprintf(&list, " 127.0.0.1 port %d;", port)
	}
	corefile := fmt.Sprintf("mesos.:%d {\n bind 127.0.0.1\n errors\n secondary {\n  transfer from%s\n }\n}\n", s.coreDNS, from.String())
	start(t, "../bin/coredns", "-conf", write(t, filepath.Join(dir, "Corefile"), corefile)).WaitFor(`CoreDNS-`)
	conf := fmt.Sprintf(`options {
 directory %q; pid-file none; session-keyfile none; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
 recursion no; dnssec-validation no; notify no;
};
controls { };
%s
`, dir, s.bind, strings.Replace(bindZone(t), " 192.0.2.1 port 1053;", list.String(), 1))
	named := start(t, tool(t, "named"), "-g", "-c", write(t, filepath.Join(dir, "named.conf"), conf))
	named.WaitFor(`zone mesos/IN: transferred serial (\d+)`)
	return named
}

// bindZone returns the zone of a BIND as docs/scaling.md has it.
func bindZone(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/scaling.md")
	if err != nil {
		t.Fatal(err)
	}
	zone := regexp.MustCompile(`(?s)zone "mesos" \{.*?\n\};`).Find(b)
	if zone == nil {
		t.Fatal("docs/scaling.md has no zone for a BIND")
	}
	return string(zone)
}

// TestScaleOut lets secondaries follow two primaries. Both crash, and one is started again.
func TestScaleOut(t *testing.T) {
	master := start(t, "../bin/mesos-sim", "-listen", "127.0.0.1:0").WaitFor(`at (http://\S+)`)
	ports, s := []int{freePort(t), freePort(t)}, secondaries{freePort(t), freePort(t)}
	primaries := []*loopback.Program{startPrimary(t, ports[0], master, s), startPrimary(t, ports[1], master, s)}
	s.start(t, ports...)
	// follow waits until the app wanderer, which moves every five seconds, is found where the
	// primary says, and not where it was.
	follow := func(primary int, before string) string {
		t.Helper()
		var ours string
		for name, secondary := range s.all {
			loopback.Eventually(t, func() string {
				ours = short(t, primary, "wanderer.marathon.mesos", "A")
				if theirs := short(t, secondary, "wanderer.marathon.mesos", "A"); ours == before || ours == "" || theirs != ours {
					return fmt.Sprintf("%s answers %q, the primary %q", name, theirs, ours)
				}
				return ""
			})
		}
		return ours
	}
	kill := func(p *loopback.Program) {
		t.Helper()
		if err := p.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	before := follow(ports[0], follow(ports[0], ""))
	kill(primaries[0])
	before = follow(ports[1], before)
	kill(primaries[1])
	for name, secondary := range s.all {
		for owner, want := range map[string]string{"nginx.marathon.mesos": nginx, "nope.marathon.mesos": ""} {
			if got := short(t, secondary, owner, "A"); got != want {
				t.Errorf("without its primaries, %s answers %s with %q", name, owner, got)
			}
		}
	}
	startPrimary(t, ports[0], master, s)
	follow(ports[0], before)
}

// TestManyChanges lets secondaries follow a thousand changes a second. BIND must be sent
// the changes alone.
func TestManyChanges(t *testing.T) {
	master := start(t, "../bin/mesos-sim", "-listen", "127.0.0.1:0", "-tasks", "5000", "-agents", "200", "-changes", "1000").WaitFor(`at (http://\S+)`)
	port, s := freePort(t), secondaries{freePort(t), freePort(t)}
	startPrimary(t, port, master, s)
	named := s.start(t, port)
	serial := func(port int) int {
		m := regexp.MustCompile(`hostmaster\.mesos\. (\d+) `).FindStringSubmatch(run(t, "dig", "+short", "@127.0.0.1", "-p", fmt.Sprint(port), "mesos", "SOA"))
		if m == nil {
			return 0
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, secondary := range s.all {
		first := 0
		loopback.Eventually(t, func() string {
			if first = serial(secondary); first == 0 {
				return name + " has no zone yet"
			}
			return ""
		})
		var behind []time.Duration
		loopback.Eventually(t, func() string { // serials are hundredths of seconds
			theirs, ours := serial(secondary), serial(port)
			behind = append(behind, time.Duration(ours-theirs)*10*time.Millisecond)
			if theirs < first+1000 {
				return fmt.Sprintf("%s has followed for %v; it was behind by %v", name, time.Duration(theirs-first)*10*time.Millisecond, behind)
			}
			return ""
		})
		for _, d := range behind {
			if d > 5*time.Second {
				t.Errorf("%s is behind by %v", name, d)
			}
		}
	}
	sent := regexp.MustCompile(`Transfer completed: \d+ messages, (\d+) records`).FindAllStringSubmatch(named.Output(), -1)
	whole, parts := 0, 0
	for i, m := range sent {
		switch n, err := strconv.Atoi(m[1]); {
		case err != nil:
			t.Fatal(err)
		case i == 0:
			whole = n
		case n < whole*3/4:
			parts++
		}
	}
	if parts < 5 || parts < (len(sent)-1)/2 {
		t.Errorf("of %d transfers after the first, of %d records, %d were much smaller", len(sent)-1, whole, parts)
	}
}
