package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// instances is the number of tasks, and so of addresses, of an app.
const instances = 3

// chains are plugins that stand before the one that is measured.
var chains = []struct{ name, lines string }{
	{"alone", ""},
	{"behind *errors*", "errors"},
	{"behind *errors*, *prometheus* and *loadbalance*", "errors\nprometheus 127.0.0.1:0\nloadbalance"},
}

// measureQueries compares the cost of a query to *calicomesos*, to *hosts* with the same names, to
// *whoami*, which looks nothing up, and to the echo, a server without CoreDNS that always gives
// the same answer, each in several chains of plugins.
func measureQueries(ctx context.Context, o *options, r *report) error {
	for _, chain := range chains {
		costs, err := costsOfQuery(ctx, o, chain.lines)
		if err != nil {
			return err
		}
		ours, hosts, whoami, echo := costs["calicomesos"], costs["hosts"], costs["whoami"], costs["echo"]
		r.add("CPU per query (A, 3 addresses), whole process, "+chain.name, "at most 1.0 of *hosts*",
			"%.1f µs: %.2f of *hosts* (%.1f µs), %.2f of *whoami*, which looks nothing up (%.1f µs), %.2f of a bare echo without CoreDNS (%.1f µs)",
			ours, ours/hosts, hosts, ours/whoami, whoami, ours/echo, echo)
	}
	return nil
}

// asked are the servers that are compared.
var asked = []string{"calicomesos", "hosts", "whoami", "echo"}

// costsOfQuery returns the CPU time of a query to each of asked, in microseconds.
func costsOfQuery(ctx context.Context, o *options, chain string) (map[string]float64, error) {
	dir, remove, err := scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	questions, err := writeNames(dir, o.tasks/instances)
	if err != nil {
		return nil, err
	}
	servers, stop, err := startServers(ctx, dir, o, chain)
	defer stop()
	if err != nil {
		return nil, err
	}
	rounds := make(map[string][]float64)
	for range o.rounds {
		for _, name := range asked {
			cost, err := costOfQuery(ctx, servers[name], questions, o)
			if err != nil {
				return nil, err
			}
			rounds[name] = append(rounds[name], cost)
		}
	}
	costs := make(map[string]float64)
	for name, all := range rounds {
		costs[name] = median(all)
	}
	return costs, nil
}

// writeNames writes a file for dnsperf and one for *hosts* with the names of apps.
func writeNames(dir string, apps int) (questions string, err error) {
	var q, h strings.Builder
	for _, app := range rand.Perm(apps) {
		name := fmt.Sprintf("app-%d.marathon.mesos", app)
		fmt.Fprintf(&q, "%s A\n", name)
		for i := range instances {
			n := app*instances + i
			fmt.Fprintf(&h, "10.%d.%d.%d %s\n", n>>16, n>>8&255, n&255, name)
		}
	}
	questions = filepath.Join(dir, "questions")
	if err := os.WriteFile(questions, []byte(q.String()), 0o644); err != nil {
		return "", err
	}
	return questions, os.WriteFile(filepath.Join(dir, "hosts"), []byte(h.String()), 0o644)
}

func startServers(ctx context.Context, dir string, o *options, chain string) (map[string]*server, func(), error) {
	var started []*process
	stop := func() {
		for _, p := range started {
			p.stop()
		}
	}
	sim, master, err := simulate(ctx, dir, "-tasks", strconv.Itoa(o.tasks))
	if err != nil {
		return nil, stop, err
	}
	started = append(started, sim)
	servers := make(map[string]*server)
	for name, block := range map[string]string{
		"calicomesos": "calicomesos mesos {\nmaster " + master + "\ncontainerip\n}",
		"hosts":       "hosts " + filepath.Join(dir, "hosts") + " {\nttl 5\nreload 0\n}",
		"whoami":      "whoami",
	} {
		port, err := loopback.FreePort()
		if err != nil {
			return nil, stop, err
		}
		if servers[name], err = startBlock(dir, ".", port, chain+"\n"+block); err != nil {
			return nil, stop, err
		}
		started = append(started, servers[name].process)
	}
	echo, err := startEcho(dir)
	if err != nil {
		return nil, stop, err
	}
	started = append(started, echo.process)
	servers["echo"] = echo
	for name, s := range servers {
		if name == "whoami" { // answers no names
			continue
		}
		if err := answers(ctx, s.addr); err != nil {
			return nil, stop, err
		}
	}
	return servers, stop, nil
}

// startEcho runs a server that answers every question with the same addresses.
func startEcho(dir string) (*server, error) {
	port, err := loopback.FreePort()
	if err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := startSelf(dir, "echo", addr)
	return &server{p, addr}, err
}

// startSelf runs this program in another role.
func startSelf(dir string, args ...string) (*process, error) {
	p, err := prepareSelf(dir, args...)
	if err != nil {
		return nil, err
	}
	return p, p.start()
}

// prepareSelf returns this program ready to start in another role.
func prepareSelf(dir string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return prepare(dir, self, args...), nil
}

var completed = regexp.MustCompile(`Queries completed:\s+(\d+)`)

// costOfQuery returns the CPU time of s for an answered query, in microseconds.
func costOfQuery(ctx context.Context, s *server, questions string, o *options) (float64, error) {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return 0, err
	}
	before, err := s.cpu()
	if err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, "dnsperf", "-s", host, "-p", port, "-d", questions, "-e",
		"-l", strconv.Itoa(int(o.length.Seconds())), "-c", "20", "-q", "100").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("dnsperf: %w\n%s", err, out)
	}
	after, err := s.cpu()
	if err != nil {
		return 0, err
	}
	m := completed.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("dnsperf says nothing of completed queries:\n%s", out)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	return float64((after - before).Microseconds()) / n, err
}

// serveEcho answers every question with the same three addresses.
func serveEcho(args []string) error {
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		m.Authoritative = true
		for i := range byte(instances) {
			m.Answer = append(m.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: r.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5},
				A:   net.IPv4(10, 0, 0, i).To4(),
			})
		}
		if r.IsEdns0() != nil {
			m.SetEdns0(1232, false)
		}
		_ = w.WriteMsg(m) // the client may have left
	})
	return (&dns.Server{Addr: args[0], Net: "udp", Handler: handler}).ListenAndServe()
}
