//go:build e2e

package test

import (
	"strings"
	"testing"
)

// TestMakeRun runs what `make run` runs, in a network namespace, where its ports are free: it says
// that CoreDNS answers when it does, a second one says why it cannot, and a signal ends all of it.
func TestMakeRun(t *testing.T) {
	const script = `exec 2>&1
ip link set lo up
cd ..
test/run.sh "" >"$0/first" 2>&1 &
first=$!
until grep -q "CoreDNS answers for a simulated cluster" "$0/first"; do kill -0 $first || exit 1; sleep 0.05; done
dig +tries=1 +time=2 +short @127.0.0.1 -p 1053 nginx.marathon.mesos mytask.acme.org
test/run.sh ""; echo "second: $?"
test/run.sh "http://127.0.0.1:5050/x&y|'z"; echo "third: $?"
kill -TERM $first; wait $first; echo "first: $?"
dig +tries=1 +time=1 @127.0.0.1 -p 1053 nginx.marathon.mesos >/dev/null && echo "left"
cat "$0/first"`
	out := run(t, "unshare", "--net", "--kill-child", "timeout", "60", "sh", "-c", script, t.TempDir())
	for _, want := range []string{
		"192.168.84.192", "172.24.197.101", // the first answers
		"127.0.0.1:5050: bind: address already in use\nmake run: the simulated master has ended", "127.0.0.1: 1053 (DNS), 8123 (the page)", "second: 1",
		"make run: CoreDNS has ended", "third: 1", "first: 0",
		"http://127.0.0.1:8123. Try, in another terminal:\n\n  dig @127.0.0.1 -p 1053 nginx.marathon.mesos\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said", want)
		}
	}
	if strings.Contains(out, "left") || t.Failed() {
		t.Log(out)
	}
}
