package calicomesos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metadata"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	_ "github.com/coredns/coredns/plugin/root"
	_ "github.com/coredns/coredns/plugin/transfer"
	_ "github.com/coredns/coredns/plugin/view"

	"github.com/miekg/dns"
)

// A plugin that panics when CoreDNS starts.
func init() {
	plugin.Register("panics_at_start", func(c *caddy.Controller) error {
		c.OnStartup(func() error { panic("at start") })
		return nil
	})
}

func TestMain(m *testing.M) {
	// No test asks a name server outside of this process.
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("tests resolve nothing")
		},
	}
	flag.Parse()
	if !testing.Verbose() {
		clog.Discard()
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	if err := dnsserver.SetDirectives([]string{"root", "metadata", "bind", "errors", "loadbalance", "cache", "transfer", pluginName, "hosts", "panics_at_start", "view"}); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// server is a CoreDNS in this process.
type server struct {
	t        *testing.T
	instance *caddy.Instance
	addr     string // UDP and TCP
}

// startServer starts a CoreDNS on a loopback port with a server block for all
// names that has the given lines, and stops it at the end of the test.
func startServer(t *testing.T, block string) *server {
	t.Helper()
	s, err := tryServer(t, block)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryServer(t *testing.T, block string) (*server, error) {
	t.Helper()
	corefile := fmt.Sprintf(".:0 {\n\tbind 127.0.0.1\n\terrors\n%s\n}\n", block)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	if err != nil {
		return nil, err
	}
	s := &server{t: t, instance: instance}
	t.Cleanup(s.stop)
	return s, s.await()
}

// await notes where s answers, and waits until it does by UDP and TCP, which have
// different random ports: CoreDNS does not stop a server that has yet to begin.
func (s *server) await() error {
	listener := s.instance.Servers()[0]
	s.addr = listener.LocalAddr().String()
	for network, addr := range map[string]string{"udp": s.addr, "tcp": listener.Addr().String()} {
		m := new(dns.Msg).SetQuestion("nobody-asks.invalid.", dns.TypeA)
		if _, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).Exchange(m, addr); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) stop() {
	if s.instance == nil {
		return
	}
	for _, err := range s.instance.ShutdownCallbacks() {
		s.t.Error(err)
	}
	if err := s.instance.Stop(); err != nil {
		s.t.Error(err)
	}
	s.instance = nil
}

// ask sends a question with EDNS by UDP.
func (s *server) ask(name string, qtype uint16) *dns.Msg {
	s.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.SetEdns0(1232, false)
	return s.exchange(m)
}

func (s *server) exchange(m *dns.Msg) *dns.Msg {
	s.t.Helper()
	r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(m, s.addr)
	if err != nil {
		s.t.Fatalf("%s: %v", m.Question[0].String(), err)
	}
	return r
}

// axfr returns the records of a zone, the last SOA left out.
func (s *server) axfr(zone string) ([]dns.RR, error) {
	m := new(dns.Msg)
	m.SetAxfr(zone)
	ch, err := new(dns.Transfer).In(m, s.instance.Servers()[0].Addr().String())
	if err != nil {
		return nil, err
	}
	var rrs []dns.RR
	for e := range ch {
		if e.Error != nil {
			return nil, e.Error
		}
		rrs = append(rrs, e.RR...)
	}
	return rrs[:len(rrs)-1], nil
}

// answers returns the data of the records in ANSWER, sorted, separated by blanks.
func answers(m *dns.Msg) string {
	var data []string
	for _, rr := range m.Answer {
		data = append(data, rdata(rr))
	}
	return strings.Join(sorted(data), " ")
}
