//go:build e2e

// Package test runs the whole program, as a user would, with real clients and servers.
package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/calicomesos/calicomesos/test/loopback"
)

// start runs a program until the end of the test.
func start(t *testing.T, name string, args ...string) *loopback.Program {
	t.Helper()
	return loopback.Start(t, exec.Command(name, args...))
}

// freePort returns a port that is free for UDP and TCP on loopback.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func write(t *testing.T, file, content string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// tool returns the path of a program, which may be a daemon.
func tool(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: make e2e installs it", name)
	return ""
}

// run returns the output of a client.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tool(t, name), args...).Output()
	if err != nil {
		t.Logf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return string(out)
}

// short returns the sorted answers of dig +short.
func short(t *testing.T, port int, name, qtype string) string {
	t.Helper()
	out := run(t, "dig", "+short", "+tries=1", "+time=2", "@127.0.0.1", "-p", fmt.Sprint(port), name, qtype)
	answers := strings.Fields(strings.ReplaceAll(strings.TrimSpace(out), " ", "_"))
	slices.Sort(answers)
	return strings.Join(answers, " ")
}

// startCoreDNS starts a simulated master, and a CoreDNS with plugins before calicomesos. It returns
// the port of CoreDNS.
func startCoreDNS(t *testing.T, plugins string, properties string) int {
	t.Helper()
	sim := start(t, "../bin/mesos-sim", "-listen", "127.0.0.1:0")
	master := sim.WaitFor(`at (http://\S+)`)
	port := freePort(t)
	corefile := fmt.Sprintf(".:%d {\n bind 127.0.0.1\n errors\n loadbalance\n cache\n%s\n calicomesos mesos 192.168.0.0/16 {\n master %s\n%s\n }\n}\n", port, plugins, master, properties)
	server := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile))
	server.WaitFor(`CoreDNS-`)
	return port
}

const nginx = "192.168.50.65 192.168.50.66 192.168.84.192"

func TestDig(t *testing.T) {
	port := startCoreDNS(t, "", "")
	for _, tc := range []struct{ name, qtype, want string }{
		{"nginx.marathon.mesos", "A", nginx},
		{"nGiNx.MaRaThOn.MeSoS", "A", nginx},
		{"v6.marathon.mesos", "AAAA", "fd00:192:168::10"},
		{"_http._nginx._tcp.marathon.mesos", "SRV", "0_1_80_nginx-41ke3-s0.marathon.mesos. 0_1_80_nginx-tbi96-s1.marathon.mesos. 0_1_80_nginx-xhdf8-s1.marathon.mesos."},
		{"nginx.marathon.autoip.dcos.thisdcos.directory", "A", nginx},
		{"192.84.168.192.in-addr.arpa", "PTR", "nginx.marathon.mesos."},
		{"nope.marathon.mesos", "A", ""},
	} {
		if got := short(t, port, tc.name, tc.qtype); got != tc.want {
			t.Errorf("%s %s: %s", tc.name, tc.qtype, got)
		}
	}
	for _, tc := range []struct {
		client, name string
		want         []string
	}{
		{"dig", "nope.marathon.mesos", []string{"status: NXDOMAIN", "flags: qr aa", "SOA\tns1.mesos."}},
		{"kdig", "nope.marathon.mesos", []string{"status: NXDOMAIN", "Flags: qr aa", "ns1.mesos."}},
		{"kdig", "nginx.marathon.mesos", []string{"status: NOERROR", "192.168.84.192"}},
	} {
		out := run(t, tc.client, "@127.0.0.1", "-p", fmt.Sprint(port), tc.name, "A")
		for _, want := range tc.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s %s lacks %q:\n%s", tc.client, tc.name, want, out)
			}
		}
	}
	if out := run(t, "dig", "+tcp", "@127.0.0.1", "-p", fmt.Sprint(port), "mesos", "AXFR"); !strings.Contains(out, "Transfer failed") {
		t.Errorf("a transfer that nobody allowed:\n%s", out)
	}
}

func TestNoMaster(t *testing.T) {
	port := freePort(t)
	corefile := fmt.Sprintf(".:%d {\n bind 127.0.0.1\n errors\n calicomesos {\n master 127.0.0.1:%d\n startup_timeout 100ms\n }\n}\n", port, freePort(t))
	start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile)).WaitFor(`answering SERVFAIL`)
	loopback.Eventually(t, func() string {
		out := run(t, "dig", "+tries=1", "+time=2", "@127.0.0.1", "-p", fmt.Sprint(port), "nginx.marathon.mesos")
		if !strings.Contains(out, "status: SERVFAIL") || !strings.Contains(out, "EDE: 14 (Not Ready)") {
			return out
		}
		return ""
	})
}

// TestSecondary lets BIND transfer both zones, and asks it.
func TestSecondary(t *testing.T) {
	dir := t.TempDir()
	bindPort := freePort(t)
	port := startCoreDNS(t, fmt.Sprintf("transfer {\n to * 127.0.0.1:%d\n}", bindPort), "")
	var zones strings.Builder
	for _, zone := range []string{"mesos", "dcos.thisdcos.directory", "168.192.in-addr.arpa"} {
		fmt.Fprintf(&zones, "zone %q { type secondary; file %q; masterfile-format text; primaries { 127.0.0.1 port %d; }; };\n", zone, filepath.Join(dir, zone), port)
	}
	conf := fmt.Sprintf(`options {
 directory %q; pid-file none; session-keyfile none; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
 recursion no; dnssec-validation no; notify no; empty-zones-enable no; check-names secondary warn;
};
controls { };
%s`, dir, bindPort, zones.String())
	named := start(t, tool(t, "named"), "-g", "-c", write(t, filepath.Join(dir, "named.conf"), conf))
	for _, zone := range []string{"mesos", "dcos.thisdcos.directory", "168.192.in-addr.arpa"} {
		named.WaitFor(`zone ` + regexp.QuoteMeta(zone) + `/IN: transferred serial (\d+)`)
	}
	loopback.Eventually(t, func() string {
		if got := short(t, bindPort, "nginx.marathon.mesos", "A"); got != nginx {
			return "BIND answers " + got
		}
		return ""
	})
	if got := short(t, bindPort, "nginx.marathon.containerip.dcos.thisdcos.directory", "A"); got != nginx {
		t.Errorf("BIND answers %s", got)
	}
	if got := short(t, bindPort, "192.84.168.192.in-addr.arpa", "PTR"); got != "nginx.marathon.mesos." {
		t.Errorf("BIND answers %s", got)
	}

	// The app wanderer moves every five seconds.
	before := short(t, bindPort, "wanderer.marathon.mesos", "A")
	loopback.Eventually(t, func() string {
		ours, theirs := short(t, port, "wanderer.marathon.mesos", "A"), short(t, bindPort, "wanderer.marathon.mesos", "A")
		if theirs == before || theirs != ours {
			return fmt.Sprintf("BIND answers %s, before %s, the primary %s", theirs, before, ours)
		}
		return ""
	})
	// In an incremental transfer the second record is the old SOA.
	serial := func(not string) (serial string) {
		loopback.Eventually(t, func() string {
			m := regexp.MustCompile(`ns1\.mesos\. hostmaster\.mesos\. (\d+) `).FindStringSubmatch(run(t, "dig", "+short", "@127.0.0.1", "-p", fmt.Sprint(port), "mesos", "SOA"))
			if m == nil || m[1] == not {
				return "the serial does not move"
			}
			serial = m[1]
			return ""
		})
		return serial
	}
	old := serial("")
	serial(old)
	out := run(t, "dig", "+tcp", "+noall", "+answer", "@127.0.0.1", "-p", fmt.Sprint(port), "mesos", "IXFR="+old)
	if rrs := strings.Split(strings.TrimSpace(out), "\n"); len(rrs) < 5 || len(rrs) > 30 || !strings.Contains(rrs[1], old) {
		t.Errorf("changes since %s:\n%s", old, out)
	}
	complaint := regexp.MustCompile(`(?i)warning|error|bad |invalid|failed|ignored|extra data|has no|obscured`)
	for line := range strings.Lines(named.Output()) {
		if strings.Contains(line, "zone ") && complaint.MatchString(line) {
			t.Errorf("BIND says: %s", line)
		}
	}
}
