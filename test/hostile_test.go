//go:build e2e

package test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

var hostileTime = flag.Duration("hostile", time.Minute, "how long TestHostileTenant runs")

// hostile is a tenant who launches tasks in frameworks of its own, to harm others.
type hostile struct {
	*mesostest.Script
	master *mesostest.Master
	r      *rand.Rand
	names  []string // of its frameworks
	live   []*mesostest.Task
	number int
}

// victims are addresses that the tenant claims.
var victims = []string{"192.168.84.192", "192.168.50.65", "172.24.197.101", "172.24.197.100", "127.0.0.1", "169.254.1.1", "255.255.255.255", "fd00:192:168::10", "10.66.6.6"}

func (h *hostile) pick(from []string) string { return from[h.r.IntN(len(from))] }

// name returns a name to give to a task, a framework or a port.
func (h *hostile) name() string {
	return h.pick([]string{
		"nginx", "nginx.marathon", "NGINX", "n_g_i_n_x", "_http._nginx._tcp", "leader", "master", "master0", "slave", "ns1", "_leader._tcp",
		"wanderer", "web", "x.y.z", "..", "*", "\x00", "ü", strings.Repeat("a.", 200), strings.Repeat("x", 300), "nginx-41ke3-s0", "containerip", "autoip",
	})
}

// act does one hostile thing. One in fifty is large: what a message of some hundred kilobytes
// can hold.
func (h *hostile) act() {
	h.number++
	switch h.r.IntN(10) {
	case 0:
		host := h.pick(append([]string{"dead.invalid", "localhost", ""}, victims...))
		f := h.Framework(h.number, h.pick(h.names), host, "http://"+host+":80")
		f.FrameworkInfo.Principal = "mallory"
		h.master.AddFramework(f)
	case 1:
		h.end(len(h.live) / 4)
	case 2, 3, 4:
		if len(h.live) > 0 {
			t := h.live[h.r.IntN(len(h.live))]
			s := h.Status(t, mesostest.TaskRunning, h.pick(victims))
			s.Healthy = new(bool)
			*s.Healthy = h.r.IntN(2) == 0
			h.master.UpdateTask(t.FrameworkID.Value, s, mesostest.TaskRunning)
		}
	default:
		h.launch()
	}
	if len(h.live) > 400 {
		h.end(len(h.live))
	}
}

func (h *hostile) launch() {
	app := mesostest.App{Name: h.name(), Framework: 1, Ports: []mesostest.Port{{Number: uint32(h.r.IntN(70000)), Name: h.name(), Protocol: h.pick([]string{"tcp", "udp", ""})}}}
	addrs := []string{h.pick(victims), h.pick(victims)}
	if h.r.IntN(50) == 0 {
		app.Name = strings.Repeat(h.pick([]string{"a.", "x"}), 100_000)
		for i := range 5000 {
			app.Ports = append(app.Ports, mesostest.Port{Number: uint32(i), Name: h.name()})
			addrs = append(addrs, fmt.Sprintf("10.66.%d.%d", i>>8, i&255))
		}
	}
	t := h.Task(app, fmt.Sprintf("hostile.%d", h.number), h.r.IntN(2), addrs...)
	h.live = append(h.live, t)
	h.master.AddTask(t)
}

// end ends its first n tasks.
func (h *hostile) end(n int) {
	for _, t := range h.live[:n] {
		h.master.UpdateTask(t.FrameworkID.Value, h.Status(t, mesostest.TaskKilled), mesostest.TaskKilled)
	}
	h.live = slices.Delete(h.live, 0, n)
}

// honest are the answers that must not change.
var honest = []struct {
	name string
	typ  uint16
	want string
}{
	{"nginx.marathon.mesos.", dns.TypeA, "192.168.50.65 192.168.50.66 192.168.84.192"},
	{"_http._nginx._tcp.marathon.mesos.", dns.TypeSRV, "nginx-41ke3-s0.marathon.mesos.:80 nginx-tbi96-s1.marathon.mesos.:80 nginx-xhdf8-s1.marathon.mesos.:80"},
	{"nginx.marathon.autoip.dcos.thisdcos.directory.", dns.TypeA, "192.168.50.65 192.168.50.66 192.168.84.192"},
	{"web.marathon.mesos.", dns.TypeA, "172.24.197.102"},
	{"marathon.mesos.", dns.TypeA, "172.24.197.100"},
	{"slave.mesos.", dns.TypeA, "172.24.197.101 172.24.197.102"},
	{"ns1.mesos.", dns.TypeA, "127.0.0.1"},
	{"192.84.168.192.in-addr.arpa.", dns.TypePTR, "nginx.marathon.mesos."},
	{"nope.marathon.mesos.", dns.TypeA, "NXDOMAIN"},
}

// asked is what a client has found.
type asked struct {
	wrong     int
	example   string
	latencies []time.Duration
}

// ask asks for all that is honest.
func (a *asked) ask(t *testing.T, port int) {
	client := dns.Client{Timeout: 5 * time.Second, UDPSize: 4096}
	for _, q := range honest {
		m := new(dns.Msg).SetQuestion(q.name, q.typ).SetEdns0(4096, false)
		answer, took, err := client.Exchange(m, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		a.latencies = append(a.latencies, took)
		var all []string
		for _, rr := range answer.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				all = append(all, rr.A.String())
			case *dns.SRV:
				all = append(all, fmt.Sprintf("%s:%d", rr.Target, rr.Port))
			case *dns.PTR:
				all = append(all, rr.Ptr)
			}
		}
		slices.Sort(all)
		if answer.Rcode != dns.RcodeSuccess {
			all = []string{dns.RcodeToString[answer.Rcode]}
		}
		if got := strings.Join(all, " "); got != q.want {
			a.wrong++
			a.example = q.name + " is " + got
		}
	}
}

func (a *asked) String() string {
	slices.Sort(a.latencies)
	at := func(share float64) time.Duration { return a.latencies[int(share*float64(len(a.latencies)-1))] }
	return fmt.Sprintf("%d answers, %d wrong %s, p50 %v, p99 %v, longest %v", len(a.latencies), a.wrong, a.example, at(.5), at(.99), at(1))
}

// resident returns the memory of a process, in bytes.
func resident(t *testing.T, p *loopback.Program) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// TestHostileTenant has a tenant do its worst while a client asks for the names of others: first
// in frameworks of other names, then in one that has the name of Marathon, which only
// "frameworks" tells apart.
func TestHostileTenant(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tutorial := mesostest.NewTutorial(m)
	for _, f := range m.State().Frameworks.Frameworks {
		f.FrameworkInfo.Principal = "alice"
		m.UpdateFramework(f)
	}
	srv := httptest.NewServer(m)
	t.Cleanup(func() { // after the server
		srv.CloseClientConnections()
		srv.Close()
	})
	var ports []int
	corefile := ""
	for _, frameworks := range []string{"frameworks marathon:alice", ""} {
		port := freePort(t)
		ports = append(ports, port)
		corefile += fmt.Sprintf(".:%d {\n bind 127.0.0.1\n errors\n calicomesos mesos 192.168.0.0/16 {\n master %s\n health\n %s\n }\n}\n", port, srv.URL, frameworks)
	}
	server := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile))
	server.WaitFor(`CoreDNS-`)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	h := &hostile{Script: tutorial.Script, master: m, r: rand.New(rand.NewPCG(seed, 1))}
	h.names = []string{"evil", "nginx.marathon", "a.b.marathon", "leader", "slave", "marathon.slave", "containerip", "NS1", "x.", strings.Repeat("m.", 200)}
	m.AddFramework(h.Framework(1, "evil", "10.66.6.6", ""))

	before := 0
	for _, phase := range []struct {
		name  string
		named string // of the tenant's framework
		wrong bool   // answers without "frameworks" may be wrong, as docs/operating.md says
	}{{"other names", "evil", false}, {"Marathon's name", "marathon", true}} {
		t.Run(phase.name, func(t *testing.T) {
			h.end(len(h.live))
			f := h.Framework(1, phase.named, "10.66.6.6", "")
			f.FrameworkInfo.Principal = "mallory"
			m.UpdateFramework(f)
			ctx, cancel := context.WithTimeout(t.Context(), *hostileTime/2)
			defer cancel()
			var found [2]asked
			most := 0
			for i := 0; ctx.Err() == nil; i++ {
				h.act()
				for p, port := range ports {
					found[p].ask(t, port)
				}
				if most = max(most, resident(t, server)); i == 200 && before == 0 {
					before = most // it is warm
				}
			}
			t.Logf("with frameworks: %v; without: %v; %d things done, resident %d MB at first, %d MB at most", &found[0], &found[1], h.number, before>>20, most>>20)
			if found[0].wrong > 0 || found[1].wrong > 0 && !phase.wrong {
				t.Error("the tenant has changed the answers for others")
			}
			if most > 2*before {
				t.Error("the tenant takes the server's memory")
			}
		})
	}
	h.end(len(h.live))
	m.RemoveFramework(h.FrameworkID(1))
	for p, port := range ports {
		loopback.Eventually(t, func() string {
			var last asked
			if last.ask(t, port); last.wrong > 0 {
				return fmt.Sprintf("server %d, when all is over: %v", p, &last)
			}
			return ""
		})
	}
}
