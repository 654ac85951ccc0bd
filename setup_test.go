package calicomesos

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"

	"github.com/coredns/caddy"
	"github.com/miekg/dns"
)

func parseStanza(stanza string) (*options, error) {
	return parse(caddy.NewTestController("dns", stanza))
}

func TestDefaults(t *testing.T) {
	o, err := parseStanza("calicomesos")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(o.zones, o.cluster.masters, o.rules.sources, o.ttl, o.startup, o.fall.Zones, o.bypassZones())
	want := "[[mesos.] [dcos.thisdcos.directory.] []] [http://127.0.0.1:5050/api/v1] [0 1] 5 5s [] [mesos. dcos.thisdcos.directory.]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestProperties(t *testing.T) {
	for stanza, want := range map[string]func(o *options) any{
		"calicomesos Mesos example.org | [mesos. example.org.]":                   func(o *options) any { return o.zones[mesosDNS] },
		"calicomesos mesos 10.0.0.0/15 | [0.10.in-addr.arpa. 1.10.in-addr.arpa.]": func(o *options) any { return o.zones[reverse] },
		"calicomesos mesos fd00:1::/32 168.192.in-addr.arpa | [0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa. 168.192.in-addr.arpa.]": func(o *options) any {
			return slices.Sorted(slices.Values(append(o.zones[reverse][:0:0], "0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", o.zones[reverse][1])))
		},
		"calicomesos {\n containerip\n} | []":                                                                                        func(o *options) any { return o.zones[dcos] },
		"calicomesos {\n containerip a.example b.example\n} | [a.example. b.example.]":                                               func(o *options) any { return o.zones[dcos] },
		"calicomesos {\n master a:5050 b:5051\n master https://c:1/x\n} | [http://a:5050/api/v1 http://b:5051/api/v1 https://c:1/x]": func(o *options) any { return o.cluster.masters },
		"calicomesos {\n ipsources auto docker mesos netinfo host\n} | [2 3 4 0 1]":                                                  func(o *options) any { return o.rules.sources },
		"calicomesos {\n network calico storage\n} | [calico storage]":                                                               func(o *options) any { return o.rules.networks },
		"calicomesos {\n allow 192.168.1.2/16 fd00::/8\n} | [192.168.0.0/16 fd00::/8]":                                               func(o *options) any { return o.rules.allow },
		"calicomesos {\n allow ::ffff:10.1.0.0/104\n} | [10.0.0.0/8]":                                                                func(o *options) any { return o.rules.allow },
		"calicomesos {\n health\n} | true":                                                                                           func(o *options) any { return o.rules.health },
		"calicomesos {\n visibility external\n} | 2":                                                                                 func(o *options) any { return o.rules.visibility },
		"calicomesos {\n ns Dns1.Example.org 192.0.2.1 ::ffff:192.0.2.2\n} | dns1.example.org. [192.0.2.1 192.0.2.2]":                func(o *options) any { return o.nsName + " " + fmt.Sprint(o.nsAddrs) },
		"calicomesos {\n ttl 0\n} | 0":                                                                                               func(o *options) any { return o.ttl },
		"calicomesos {\n ttl 3600\n} | 3600":                                                                                         func(o *options) any { return o.ttl },
		"calicomesos {\n startup_timeout 0s\n} | 0s":                                                                                 func(o *options) any { return o.startup },
		"calicomesos {\n fallthrough\n} | [.]":                                                                                       func(o *options) any { return o.fall.Zones },
		"calicomesos {\n fallthrough x.mesos\n} | [x.mesos.]":                                                                        func(o *options) any { return o.fall.Zones },
		"calicomesos mesos 10.0.0.0/8 {\n fallthrough\n} | [mesos. dcos.thisdcos.directory.]":                                        func(o *options) any { return o.bypassZones() },
		"calicomesos mesos 10.0.0.0/8 | [mesos. dcos.thisdcos.directory. 10.in-addr.arpa.]":                                          func(o *options) any { return o.bypassZones() },
		"calicomesos b.example mesos 10.0.0.0/8 | b.example.":                                                                        func(o *options) any { return o.rules.pointTo },
	} {
		stanza, text, _ := strings.Cut(stanza, " | ")
		o, err := parseStanza(stanza)
		if err != nil {
			t.Errorf("%q: %v", stanza, err)
			continue
		}
		if got := fmt.Sprint(want(o)); got != text {
			t.Errorf("%q: %s, want %s", stanza, got, text)
		}
	}
}

// TestErrors holds each error to naming the property and the value.
func TestErrors(t *testing.T) {
	for stanza, want := range map[string][]string{
		"calicomesos mesos mesos":                                 {`"mesos"`, "repeated"},
		"calicomesos mesos a..b":                                  {`"a..b"`},
		"calicomesos mesos:53":                                    {`"mesos:53"`},
		"calicomesos mesos ::/0":                                  {`"::/0"`},
		"calicomesos mesos ::ffff:10.0.0.0/104":                   {`"::ffff:10.0.0.0/104"`},
		"calicomesos 10.0.0.1":                                    {`"10.0.0.1"`},
		"calicomesos mesös":                                       {`"mesös"`},
		"calicomesos *.mesos":                                     {`"*.mesos"`},
		"calicomesos " + strings.Repeat("abcdefghi.", 25) + "abc": {"abcdefghi.abc", "no domain name"},
		"calicomesos {\n ns .\n}":                                 {`"ns"`, `"."`},
		"calicomesos 10.0.0.0/99":                                 {`"10.0.0.0/99"`},
		"calicomesos 10.0.0.0/8":                                  {`"10.in-addr.arpa."`, "forward"},
		"calicomesos dcos.thisdcos.directory":                     {`"dcos.thisdcos.directory."`, "both"},
		"calicomesos a.example {\n containerip a.example\n}":      {`"a.example."`, "both"},
		"calicomesos {\n containerip 10.0.0.0/8\n}":               {"containerip", `"10.0.0.0/8"`},
		"calicomesos {\n containerip a a\n}":                      {"containerip", `"a"`, "repeated"},
		"calicomesos {\n containerip a..b\n}":                     {"containerip", `"a..b"`},
		"calicomesos {\n nonsense 1\n}":                           {`"nonsense"`, "unknown"},
		"calicomesos {\n vhosts acme.org leader\n}":               {`"vhosts"`, "unknown"},
		"calicomesos {\n http :8123\n}":                           {`"http"`, "unknown"},
		"calicomesos {\n ttl 5\n ttl 6\n}":                        {`"ttl"`, "repeated"},
		"calicomesos {\n ttl\n}":                                  {`"ttl"`, "at least 1"},
		"calicomesos {\n ttl 5 6\n}":                              {`"ttl"`, `"6"`, "at most 1"},
		"calicomesos {\n ttl 3601\n}":                             {`"ttl"`, `"3601"`},
		"calicomesos {\n ttl -1\n}":                               {`"ttl"`, `"-1"`},
		"calicomesos {\n ttl 5s\n}":                               {`"ttl"`, `"5s"`},
		"calicomesos {\n health on\n}":                            {`"health"`, `"on"`},
		"calicomesos {\n master\n}":                               {`"master"`},
		"calicomesos {\n master a\n}":                             {`"master"`, `"a"`, "port"},
		"calicomesos {\n master a:1 a:1\n}":                       {`"master"`, `"a:1"`, "repeated"},
		"calicomesos {\n master http://me:hunter2@a:1\n}":         {`"master"`, `"http://***@a:1"`},
		"calicomesos {\n master zk://me:hunter2@a/mesos\n}":       {`"master"`, `"zk://***@a/mesos"`, `"a" is no host:port`},
		"calicomesos {\n master zk://a:2181/mesos b:5050\n}":      {`"master"`, `"b:5050"`, "ZooKeeper names all"},
		"calicomesos {\n master b:5050\n master zk://a:1/m\n}":    {`"master"`, `"zk://a:1/m"`, "ZooKeeper names all"},
		"calicomesos {\n master file:///nowhere\n}":               {`"master"`, `"file:///nowhere"`, "no such file"},
		"calicomesos {\n credentials nowhere\n}":                  {`"credentials"`, "nowhere"},
		"calicomesos {\n credentials a b\n}":                      {`"credentials"`, `"b"`, "at most 1"},
		"calicomesos {\n tls a b c d\n}":                          {`"tls"`, `"d"`, "at most 3"},
		"calicomesos {\n tls nowhere\n}":                          {`"tls"`, `"nowhere"`},
		"calicomesos {\n tls_servername a..b\n}":                  {`"tls_servername"`, `"a..b"`},
		"calicomesos {\n poll 999ms\n}":                           {`"poll"`, `"999ms"`, "1s and more"},
		"calicomesos {\n poll 30\n}":                              {`"poll"`, `"30"`},
		"calicomesos {\n snapshot nowhere/snapshot\n}":            {`"snapshot"`, `"nowhere/snapshot"`},
		"calicomesos {\n snapshot setup.go/snapshot\n}":           {`"snapshot"`, `"setup.go/snapshot"`},
		"calicomesos {\n ipsources netinfo dns\n}":                {`"ipsources"`, `"dns"`},
		"calicomesos {\n ipsources host host\n}":                  {`"ipsources"`, `"host"`, "repeated"},
		"calicomesos {\n network\n}":                              {`"network"`},
		"calicomesos {\n allow 10.0.0.1\n}":                       {`"allow"`, `"10.0.0.1"`},
		"calicomesos {\n visibility public\n}":                    {`"visibility"`, `"public"`},
		"calicomesos {\n ns 10.0.0.1\n}":                          {`"ns"`, `"10.0.0.1"`},
		"calicomesos {\n ns a..b\n}":                              {`"ns"`, `"a..b"`},
		"calicomesos {\n ns ns1.mesos 10.0.0.256\n}":              {`"ns"`, `"10.0.0.256"`},
		"calicomesos {\n ns ns1.mesos ::\n}":                      {`"ns"`, `"::"`},
		"calicomesos {\n startup_timeout 5\n}":                    {`"startup_timeout"`, `"5"`},
		"calicomesos {\n startup_timeout -5s\n}":                  {`"startup_timeout"`, `"-5s"`},
		"calicomesos {\n fallthrough a..b\n}":                     {`"fallthrough"`, `"a..b"`},
		"calicomesos\ncalicomesos":                                {"more than once"},
	} {
		_, err := parseStanza(stanza)
		if err == nil {
			t.Errorf("%q is taken", stanza)
			continue
		}
		for _, part := range want {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%q: %v, want %s", stanza, err, part)
			}
		}
	}
}

func TestInterfaceAddrs(t *testing.T) {
	addrs := func(s ...string) []net.Addr {
		var all []net.Addr
		for _, a := range s {
			ip, n, err := net.ParseCIDR(a)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
		}
		return all
	}
	for _, tc := range []struct {
		all      []net.Addr
		wildcard string
		want     string
	}{
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fe80::1/64", "fd00::1/64"), "", "[10.0.0.1 fd00::1]"},
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fd00::1/64"), "0.0.0.0", "[10.0.0.1]"},
		{addrs("127.0.0.1/8", "::1/128", "10.0.0.1/8", "fd00::1/64"), "::", "[10.0.0.1 fd00::1]"},
		{addrs("127.0.0.1/8", "::1/128", "fe80::1/64"), "", "[127.0.0.1 ::1]"},
		{nil, "", "[]"},
	} {
		if got := fmt.Sprint(interfaceAddrs(tc.all, mesos.ParseAddr(tc.wildcard))); got != tc.want {
			t.Errorf("wildcard %q: %s, want %s", tc.wildcard, got, tc.want)
		}
	}
	explicit, err := listeningAddrs([]string{"127.0.0.1", "::1", "127.0.0.1", "fe80::1%eth0"})
	if want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}; err != nil || !slices.Equal(explicit, want) {
		t.Errorf("explicit addresses are %v, %v", explicit, err)
	}
}

// TestStartupWaitsTogether starts two stanzas whose masters do not answer.
func TestStartupWaitsTogether(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	stanza := fmt.Sprintf("%s {\n master %s\n startup_timeout 1500ms\n}", pluginName, silent.Addr())
	start := time.Now()
	s := startServer(t, stanza+"\n}\nexample.:0 {\n bind 127.0.0.1\n"+strings.Replace(stanza, "{", "example {", 1))
	if took := time.Since(start); took < 1500*time.Millisecond || took >= 3*time.Second {
		t.Errorf("start took %v", took)
	}
	s.stop()
}

// TestReload reloads a Corefile: once to another zone, and once to one that
// cannot start because of a port in use.
func TestReload(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	stanza := fmt.Sprintf("bind 127.0.0.1\n%s ZONE {\n master %s\n}", pluginName, master.URL)
	corefile := func(zone, more string) caddy.Input {
		return caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns",
			Contents: []byte(".:0 {\n" + strings.Replace(stanza, "ZONE", zone, 1) + "\n}\n" + more)}
	}
	s := startServer(t, strings.Replace(strings.TrimPrefix(stanza, "bind 127.0.0.1\n"), "ZONE", "mesos", 1))
	expect := func(zone string) {
		t.Helper()
		s.addr = s.instance.Servers()[0].LocalAddr().String()
		if got := answers(s.ask("v6.marathon."+zone+".", dns.TypeAAAA)); got != "fd00:192:168::10" {
			t.Errorf("answered %q", got)
		}
		if len(running.instances) != 1 {
			t.Errorf("%d stanzas run", len(running.instances))
		}
		eventually(t, func() string {
			if n := m.Subscribers(); n != 1 {
				return fmt.Sprintf("%d subscriptions", n)
			}
			return ""
		})
	}
	expect("mesos")
	next, err := s.instance.Restart(corefile("example", ""))
	if err != nil {
		t.Fatal(err)
	}
	s.instance = next
	expect("example")
	if _, err := s.instance.Restart(corefile("other", fmt.Sprintf("other.:%d {\n bind 127.0.0.1\n errors\n}\n", taken.Addr().(*net.TCPAddr).Port))); err == nil {
		t.Fatal("started on a port in use")
	}
	expect("example")
	if _, err := s.instance.Restart(corefile("a..b", "")); err == nil {
		t.Fatal("started with a bad zone")
	}
	expect("example")
}
