package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	_ "github.com/calicomesos/calicomesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/loop"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"
)

var update = flag.Bool("update", false, "write what is translated to testdata")

func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Verbose() {
		clog.Discard()
	}
	caddy.Quiet, dnsserver.Quiet = true, true
	if err := dnsserver.SetDirectives([]string{"bind", "errors", "loadbalance", "calicomesos", "loop", "forward"}); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// TestTranslate translates each configuration in testdata, compares the Corefile and the notes with
// what stands beside it, and starts it.
func TestTranslate(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("only %d configurations: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			dir := t.TempDir()
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			c, err := readConfig(bytes.ReplaceAll(b, []byte("DIR"), []byte(dir)))
			if err != nil {
				t.Fatal(err)
			}
			got := translate(c, filepath.Join(dir, "credentials"), []netip.Addr{netip.MustParseAddr("127.0.0.1")})
			text := strings.ReplaceAll(got.corefile+"\n"+strings.Join(got.notes, "\n")+"\n", dir, "DIR")
			golden := strings.TrimSuffix(file, ".json") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if text != string(want) {
				t.Errorf("got\n%s\nwant\n%s", text, want)
			}
			if strings.Contains(text, "hunter2") {
				t.Error("a secret is printed")
			}
			start(t, dir, got)
		})
	}
}

// start starts a Corefile where the test may, with the files that it names.
func start(t *testing.T, dir string, tr *translation) {
	t.Helper()
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	for file, secret := range tr.secrets {
		if err := writeSecret(file, secret); err != nil {
			t.Fatal(err)
		}
	}
	writeTLS(t, dir)
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	corefile := tr.corefile
	for _, r := range []struct{ from, to string }{
		{`(?m)^(\S.*):\d+( |$)`, "${1}:0$2"}, {`:(53|61053|61054)\b`, ":0"}, {`bind \S+`, "bind 127.0.0.1"}, {`http \S+`, fmt.Sprintf("http 127.0.0.1:%d", port)},
		{`master (\S+://\S+|)(?: ?\S+)*`, "master ${1} " + strings.TrimPrefix(master.URL, "http://")},
		{`(?m)^(\s+)containerip$`, "${1}containerip\n${1}startup_timeout 0s"},
	} {
		corefile = regexp.MustCompile(r.from).ReplaceAllString(corefile, r.to)
	}
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(corefile)})
	if err != nil {
		t.Fatalf("%v:\n%s", err, corefile)
	}
	for _, err := range instance.ShutdownCallbacks() {
		t.Error(err)
	}
	if err := instance.Stop(); err != nil {
		t.Error(err)
	}
}

// writeTLS writes the files that configurations name.
func writeTLS(t *testing.T, dir string) {
	t.Helper()
	s := httptest.NewTLSServer(http.NotFoundHandler()) // it has a certificate and a key
	s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, content := range map[string][]byte{
		"ca.pem": cert, "cert.pem": cert, "key.pem": key,
		"iam.json": []byte(`{"uid": "mesos-dns", "private_key": ` + strconv.Quote(string(key)) + `, "login_endpoint": "https://10.0.0.1/login"}`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRunTranslate writes the secret to a file that nobody else can read, and over none.
func TestRunTranslate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "mesos.credentials")
	var out, notes bytes.Buffer
	if err := runTranslate("testdata/basic.json", file, &out, &notes); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{file: "mesos-dns hunter2\n", file + ".zk": "zk://user:hunter2@10.0.0.1:2181/mesos\n"} {
		b, err := os.ReadFile(name)
		info, statErr := os.Stat(name)
		if err != nil || statErr != nil || string(b) != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v, %v", name, b, err, info)
		}
	}
	if strings.Contains(out.String()+notes.String(), "hunter2") || !strings.Contains(out.String(), "credentials "+file) {
		t.Errorf("printed\n%s%s", &out, &notes)
	}
	if err := runTranslate("testdata/basic.json", file, &out, &notes); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := os.WriteFile(file, []byte("other hunter3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := runTranslate("testdata/basic.json", file, &out, &notes); err == nil || !strings.Contains(err.Error(), "exists") || strings.Contains(err.Error(), "hunter") {
		t.Errorf("written over: %v", err)
	}
	if err := runTranslate("testdata/none", file, &out, &notes); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// TestReadConfig refuses what Mesos-DNS refuses, and what cannot stand in a Corefile, and never
// quotes a secret.
func TestReadConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{`:                "unexpected end",
		`{}`:               "neither masters nor zk",
		`{"masters": "a"}`: "must be a ",
		`{"masters": ["a"], "dnson": false, "HTTPON": false}`:                                             "both dnson and httpon are false",
		`{"masters": ["a"], "certFile": "x"}`:                                                             "belong together",
		`{"masters": ["a"], "mesosAuthentication": "kerberos"}`:                                           "unknown mesosAuthentication",
		`{"masters": ["a"], "mesosAuthentication": "basic", "mesosCredentials": {"secret": "hunter2"}}`:   "lack the principal",
		`{"masters": ["a"], "mesosAuthentication": "basic", "mesosCredentials": {"secret": ["hunter2"]}}`: "must be a ",
		`{"masters": ["a"], "mesosAuthentication": "iam"}`:                                                "no IAMConfigFile",
		`{"masters": ["a"], "port": 0}`:                                                                   "port is 0",
		`{"masters": ["a"], "httpport": 70000}`:                                                           "httpport is 70000",
		`{"masters": ["a"], "listener": "eth0"}`:                                                          `"eth0" is no IP address`,
		`{"masters": ["a b"]}`:                                                                            "cannot stand in a Corefile",
		`{"masters": ["a"], "domain": "x } ."}`:                                                           "cannot stand in a Corefile",
		"{\n\"masters\": [\"a\"],\n}":                                                                     "line 3: invalid character",
		"{\n\"ttl\": \"60\"}":                                                                             "line 2: TTL must be a int64, not a string",
		`{"masters": ["http://u:hunter2@h:5050"]}`:                                                        "is not HOST:PORT",
		`{"masters": ["http://h:5050"]}`:                                                                  "is not HOST:PORT",
		`{"masters": ["h:x"]}`:                                                                            `"h:x" is not HOST:PORT`,
		`{"zk": "zk://u:hunter2 x@h:1/mesos"}`:                                                            "cannot stand in a Corefile",
		`{"zk": "zk://u:hunter2@h:1"}`:                                                                    `"***@h:1" is not zk://`,
		`{"zk": "h:2181/mesos"}`:                                                                          "is not zk://",
		`{"masters": ["a"], "domain": ""}`:                                                                "is no domain name",
		`{"masters": ["a"], "domain": "a..b"}`:                                                            "is no domain name",
		`{"masters": ["a"], "resolvers": ["nonsense"]}`:                                                   "is no IP address",
		`{"masters": ["a"], "timeout": -1}`:                                                               "timeout is -1",
		`{"masters": ["a"], "SOAMname": "leader.mesos"}`:                                                  "is a name of the masters",
		`{"masters": ["a"], "mesosAuthentication": "basic", "mesosCredentials": {"principal": "a:b", "secret": "hunter2"}}`: "has a colon",
		`{"masters": ["a"], "zoneResolvers": {"{": ["1.1.1.1"]}}`:                                                           "cannot stand in a Corefile",
	} {
		if _, err := readConfig([]byte(config)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %s", config, err, want)
		}
	}
}

// FuzzReadConfig translates anything, and has what comes out parsed.
func FuzzReadConfig(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readConfig(b)
		if err != nil {
			return
		}
		tr := translate(c, "/credentials", nil)
		if strings.Count(tr.corefile, "{") != strings.Count(tr.corefile, "}") || !strings.HasSuffix(tr.corefile, "\n}\n") {
			t.Errorf("translated to\n%s", tr.corefile)
		}
	})
}

// TestReadConfig_Odd reads what people write.
func TestReadConfig_Odd(t *testing.T) {
	c, err := readConfig([]byte("\xef\xbb\xbf{\"masters\": [\"a:5050,b:5050 , a:5050\", \"[::1]:5050\", \"::1\"], \"IPSources\": [], \"SOAMname\": \"\"}"))
	if err != nil {
		t.Fatal(err)
	}
	tr := translate(c, "/credentials", nil)
	if !strings.Contains(tr.corefile, "master a:5050 b:5050 [::1]:5050\n") || strings.Contains(tr.corefile, "ns ") || !strings.Contains(tr.corefile, "ipsources netinfo host") {
		t.Errorf("translated to\n%s", tr.corefile)
	}
	many, err := readConfig([]byte(`{"masters": ["a"], "resolvers": ["10.0.0.1` + strings.Repeat(`", "10.0.0.1`, 19) + `"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if more := translate(many, "/credentials", nil); strings.Count(more.corefile, "10.0.0.1") != maxResolvers || !strings.HasPrefix(more.notes[1], "resolvers: only the first 15") {
		t.Errorf("translated to\n%s%q", more.corefile, more.notes)
	}
	if !slices.ContainsFunc(tr.notes, func(n string) bool { return strings.HasPrefix(n, "IPSources: without any source") }) {
		t.Errorf("notes %q", tr.notes)
	}
}

// mesosDNS is a Mesos-DNS that answers what was recorded of one: its API, and DNS from that.
func mesosDNS(t *testing.T, name string) target {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../testdata/mesos-dns", name+".http.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Path string
		Body json.RawMessage
	}
	for line := range bytes.Lines(b) {
		if err := json.Unmarshal(line, &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Path == "/v1/axfr" {
			break
		}
	}
	var zone struct {
		Records struct{ As, AAAAs, SRVs map[string][]string }
	}
	if err := json.Unmarshal(answer.Body, &zone); err != nil || len(zone.Records.As) == 0 {
		t.Fatalf("%d names, %v", len(zone.Records.As), err)
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/axfr" {
			_, _ = w.Write(answer.Body)
		}
	}))
	t.Cleanup(api.Close)
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetReply(r)
		q := r.Question[0]
		sets := map[uint16]map[string][]string{dns.TypeA: zone.Records.As, dns.TypeAAAA: zone.Records.AAAAs, dns.TypeSRV: zone.Records.SRVs}[q.Qtype]
		for owner, all := range sets {
			for _, d := range all {
				rr, err := dns.NewRR(fmt.Sprintf("%s 60 IN %s %s", strings.ReplaceAll(owner, " ", "\\032"), dns.TypeToString[q.Qtype], d))
				if host, port, ok := strings.Cut(d, ".:"); ok {
					rr, err = dns.NewRR(fmt.Sprintf("%s 60 IN SRV 0 1 %s %s.", strings.ReplaceAll(owner, " ", "\\032"), port, strings.ReplaceAll(host, " ", "\\032")))
				}
				if err == nil && dns.CanonicalName(owner) == dns.CanonicalName(q.Name) {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		_ = w.WriteMsg(m)
	})
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	listening := make(chan struct{})
	server := &dns.Server{Addr: addr, Net: "tcp", Handler: handler, NotifyStartedFunc: func() { close(listening) }}
	go func() { _ = server.ListenAndServe() }() // until it is shut down
	<-listening
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return target{dns: addr, api: strings.TrimPrefix(api.URL, "http://")}
}

// coreDNS is a CoreDNS for a cluster file.
func coreDNS(t *testing.T, name string) target {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../testdata/clusters", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := mesostest.ParseState(b)
	if err != nil {
		t.Fatal(err)
	}
	m := mesostest.NewMaster(0)
	m.Load(state)
	master := mesostest.Start(m)
	t.Cleanup(master.Close)
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	corefile := fmt.Sprintf("mesos:0 {\n bind 127.0.0.1\n calicomesos {\n master %s\n containerip\n http 127.0.0.1:%d\n}\n}\n", master.URL, port)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(corefile)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		instance.ShutdownCallbacks()
		if err := instance.Stop(); err != nil {
			t.Error(err)
		}
	})
	return target{dns: instance.Servers()[0].Addr().String(), api: fmt.Sprintf("127.0.0.1:%d", port)}
}

// TestCompare compares what was recorded of Mesos-DNS with CoreDNS for the same clusters: each
// difference has a known reason.
func TestCompare(t *testing.T) {
	for _, name := range []string{"tutorial", "names", "networks"} {
		var out bytes.Buffer
		c := comparison{before: mesosDNS(t, name), after: coreDNS(t, name), out: &out}
		if err := c.run(t.Context(), 0); err != nil {
			t.Errorf("%s: %v\n%s", name, err, &out)
		}
		if !regexp.MustCompile(`\n\d\d+ questions, \d+ answered differently, 0 of them`).MatchString(out.String()) {
			t.Errorf("%s:\n%s", name, &out)
		}
	}
}

// TestCompare_Differs finds what has no reason.
func TestCompare_Differs(t *testing.T) {
	var out bytes.Buffer
	c := comparison{before: coreDNS(t, "tutorial"), after: coreDNS(t, "names"), out: &out}
	err := c.run(t.Context(), 0)
	if err == nil || !strings.Contains(out.String(), "nginx.marathon.mesos. A: no known reason\n  old: 192.168.50.65 192.168.50.66 192.168.84.192\n  new: nothing") {
		t.Errorf("%v\n%s", err, &out)
	}
	same := comparison{before: c.before, after: c.before, out: &out}
	if err := same.run(t.Context(), time.Hour); err != nil { // nothing has to settle
		t.Error(err)
	}
}

// TestCompare_Settles asks again for names that differ, until they do not.
func TestCompare_Settles(t *testing.T) {
	before, after := coreDNS(t, "tutorial"), coreDNS(t, "names")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	if err := (&comparison{before: before, after: after, out: &out}).run(ctx, time.Hour); err == nil {
		t.Error("it goes on when it is told to end")
	}
}

// TestCompare_NoAPI compares the names of the other server, and says so.
func TestCompare_NoAPI(t *testing.T) {
	server := coreDNS(t, "tutorial")
	without := target{dns: server.dns, api: "127.0.0.1:1"}
	var out bytes.Buffer
	if err := (&comparison{before: without, after: server, out: &out}).run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "are not compared") || !strings.Contains(out.String(), " 0 answered differently") {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := (&comparison{before: without, after: without, out: &out}).run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no names are known") {
		t.Errorf("without any API: %v", err)
	}
}

// TestCompare_Away ends soon where a server does not answer.
func TestCompare_Away(t *testing.T) {
	server := coreDNS(t, "tutorial")
	away := target{dns: "127.0.0.1:1", api: server.api}
	var out bytes.Buffer
	if err := (&comparison{before: away, after: server, out: &out}).run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestCompare_Stops leaves a server that has stopped answering.
func TestCompare_Stops(t *testing.T) {
	server := coreDNS(t, "tutorial")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for first := true; ; first = false {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := &dns.Conn{Conn: conn}
			if q, err := c.ReadMsg(); err == nil && first {
				_ = c.WriteMsg(new(dns.Msg).SetReply(q))
			}
			conn.Close()
		}
	}()
	var out bytes.Buffer
	stops := target{dns: l.Addr().String(), api: server.api}
	if err := (&comparison{before: stops, after: server, out: &out}).run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestCompare_Domains says that two servers have different domains.
func TestCompare_Domains(t *testing.T) {
	server := coreDNS(t, "tutorial")
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"Domain": "example", "Records": {"As": {"a.example.": ["192.0.2.1"]}}}`))
	}))
	defer api.Close()
	other := target{dns: server.dns, api: strings.TrimPrefix(api.URL, "http://")}
	var out bytes.Buffer
	if err := (&comparison{before: server, after: other, out: &out}).run(t.Context(), 0); err == nil || !strings.Contains(err.Error(), `one has the domain "mesos", the other "example"`) {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestParseServer parses servers.
func TestParseServer(t *testing.T) {
	for s, want := range map[string]target{
		"10.0.0.1":                      {"10.0.0.1:53", "10.0.0.1:8123"},
		"10.0.0.1:61053":                {"10.0.0.1:61053", "10.0.0.1:8123"},
		"10.0.0.1:61053,127.0.0.1:8124": {"10.0.0.1:61053", "127.0.0.1:8124"},
		"fd00::1":                       {"[fd00::1]:53", "[fd00::1]:8123"},
		"[fd00::1]:5353,[fd00::1]:81":   {"[fd00::1]:5353", "[fd00::1]:81"},
		"dns.example,api.example:8123":  {"dns.example:53", "api.example:8123"},
	} {
		if got, err := parseServer(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", ":53", "a,b", ",a:1", "a,b:1,c"} {
		if got, err := parseServer(s); err == nil {
			t.Errorf("%q: %+v", s, got)
		}
	}
}

// TestDeviation names reasons, and none where there is none.
func TestDeviation(t *testing.T) {
	for _, tc := range []struct {
		name          string
		qtype         uint16
		before, after string
		want          string
	}{
		{"sp\\032ace.marathon.mesos.", dns.TypeA, "192.0.2.1", "", "names are answered in their legal form only"},
		{"trail-.marathon.mesos.", dns.TypeA, "192.0.2.1", "", "names are answered in their legal form only"},
		{"nginx.marathon.mesos.", dns.TypeA, "192.0.2.1", "", ""},
		{"nginx.marathon.mesos.", dns.TypeA, "192.0.2.1", "192.0.2.2", ""},
		{"nginx.marathon.mesos.", dns.TypeA, "", "192.0.2.2", ""},
		{"nginx.marathon.mesos.", dns.TypeAAAA, "", "fd00::1", "IPv6 addresses with a prefix length are addresses"},
		{"nginx.marathon.mesos.", dns.TypeAAAA, "fd00::1", "", ""},
		{"leader.mesos.", dns.TypeA, "192.0.2.1", "192.0.2.2", "masters are numbered in the order of the list, or by address with ZooKeeper alone"},
		{"master12.mesos.", dns.TypeA, "192.0.2.1", "", "masters are numbered in the order of the list, or by address with ZooKeeper alone"},
		{"master-x.mesos.", dns.TypeA, "192.0.2.1", "", ""},
		{"_web._tcp.marathon.mesos.", dns.TypeSRV, "web-1.marathon.mesos.:80", "web-1.marathon.slave.mesos.:80", "a service leads to where its port is, by a legal name"},
		{"_web._tcp.marathon.mesos.", dns.TypeSRV, "web-1.marathon.mesos.:80", "web-1.marathon.mesos.:81", ""},
		{"_framework._tcp.marathon.mesos.", dns.TypeSRV, "marathon.mesos.:15101", "marathon.mesos.:8080", "_framework is the port of the framework's web interface"},
	} {
		d := difference{question{tc.name, tc.qtype}, strings.Fields(tc.before), strings.Fields(tc.after)}
		if got := d.deviation(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if q := []question{{"b.", 1}, {"a.", 33}, {"a.", 1}}; true {
		slices.SortFunc(q, question.compare)
		if q[0] != (question{"a.", 1}) || q[2].name != "b." {
			t.Errorf("%v", q)
		}
	}
}
