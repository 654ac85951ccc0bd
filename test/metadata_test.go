//go:build e2e

package test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"
)

// TestMetadata has a task, and somebody else, ask as the example in docs/operating.md says: the log
// tells which task it was, and only tasks of one framework see the second zone.
func TestMetadata(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	m.AddTask(tut.Task(mesostest.App{Name: "asks", Network: "calico"}, "asks.1", 0, "127.1.0.5"))
	srv := httptest.NewServer(m)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	doc, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?ms)^~~~ corefile\n([^~]*client-framework.*?)^~~~$`).FindSubmatch(doc)
	if example == nil {
		t.Fatal("docs/operating.md has no example with metadata")
	}
	port := freePort(t)
	corefile := strings.ReplaceAll(string(example[1]), ":1053 {", fmt.Sprintf(":%d {\n bind 127.0.0.1", port))
	corefile = strings.Replace(corefile, "calicomesos\n", "calicomesos {\n master "+srv.URL+"\n}\n", 1)
	corefile = strings.Replace(corefile, "calicomesos staging {", "calicomesos staging {\n master "+srv.URL, 1)
	server := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile))
	server.WaitFor(`CoreDNS-`)
	ask := func(client, name string) string {
		return run(t, "dig", "+tries=1", "-b", client, "@127.0.0.1", "-p", fmt.Sprint(port), name)
	}
	ask("127.1.0.5", "nope.mesos")
	server.WaitFor(`task=asks\.1 framework=marathon A nope\.mesos\. NXDOMAIN`)
	ask("127.1.0.6", "leader.mesos")
	server.WaitFor(`task= framework= A leader\.mesos\. NOERROR`)
	loopback.Eventually(t, func() string {
		if out := ask("127.1.0.5", "nginx.marathon.staging"); !strings.Contains(out, "192.168.84.192") {
			return out
		}
		return ""
	})
	if out := ask("127.1.0.6", "nginx.marathon.staging"); !strings.Contains(out, "status: REFUSED") {
		t.Errorf("somebody else is answered:\n%s", out)
	}
}
