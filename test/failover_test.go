//go:build e2e

package test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// listed is a master of a list, which may hang.
type listed struct {
	*mesostest.Master
	srv  *httptest.Server
	hung atomic.Bool
}

func (l *listed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.hung.Load() {
		<-r.Context().Done()
		return
	}
	l.Master.ServeHTTP(w, r)
}

// host returns where the master is.
func (l *listed) host() string { return l.srv.Listener.Addr().String() }

// TestHungLeader lists three masters, without ZooKeeper. The leader hangs, its connections stay
// open, and another is elected, which launches an app: until that is answered, it must not be
// denied for longer than it takes to ask the other masters.
func TestHungLeader(t *testing.T) {
	var masters []*listed
	for range 3 {
		l := &listed{Master: mesostest.NewMaster(15 * time.Second)}
		mesostest.NewTutorial(l.Master)
		l.srv = httptest.NewServer(l)
		t.Cleanup(func() {
			l.srv.CloseClientConnections()
			l.srv.Close()
		})
		l.SetAddress(netip.MustParseAddrPort(l.host()))
		masters = append(masters, l)
	}
	masters[1].Follow(masters[0].host())
	masters[2].Follow(masters[0].host())
	port := freePort(t)
	corefile := fmt.Sprintf("mesos:%d {\n bind 127.0.0.1\n errors\n calicomesos mesos {\n master %s %s %s\n }\n}\n", port, masters[0].host(), masters[1].host(), masters[2].host())
	server := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile))
	server.WaitFor("Subscribed to " + masters[0].host())
	server.WaitFor("CoreDNS-")

	masters[0].Stall(true)
	masters[0].hung.Store(true)
	masters[2].Lead()
	masters[1].Follow(masters[2].host())
	script := mesostest.NewScript("cd613e30-d8f1-6adf-91b7-584a2265b1f5")
	masters[2].AddTask(script.Task(mesostest.App{Name: "new", Network: "calico"}, "new.1", 0, "192.168.84.77"))
	began := time.Now()
	client := dns.Client{Timeout: 5 * time.Second}
	denied := 0
	loopback.Eventually(t, func() string {
		for _, name := range []string{"nginx.marathon.mesos.", "new.marathon.mesos."} {
			m, _, err := client.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), fmt.Sprintf("127.0.0.1:%d", port))
			switch {
			case err != nil:
				return err.Error()
			case strings.HasPrefix(name, "new"):
				if m.Rcode == dns.RcodeNameError {
					denied++
				}
				if len(m.Answer) != 1 {
					return "the new app has no address: " + dns.RcodeToString[m.Rcode]
				}
			case len(m.Answer) != 3:
				t.Errorf("nginx: %v", m)
			}
		}
		return ""
	})
	took := time.Since(began)
	t.Logf("the new leader's app was answered after %v, and denied %d times before", took.Round(time.Millisecond), denied)
	if took > 6*time.Second { // the others are asked every two seconds
		t.Errorf("the old leader was believed for %v", took)
	}
	server.WaitFor("Left the stream of " + masters[0].host())
}
