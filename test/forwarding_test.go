//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// snippet returns the configuration of a program in docs/forwarding.md, which asks CoreDNS at
// address.
func snippet(t *testing.T, program, address string) string {
	t.Helper()
	doc, err := os.ReadFile("../docs/forwarding.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?ms)^~~~ ` + program + `\n(.*?)^~~~$`).FindSubmatch(doc)
	if m == nil {
		t.Fatalf("docs/forwarding.md has no configuration of %s", program)
	}
	return strings.ReplaceAll(string(m[1]), "192.0.2.53", address)
}

// signedRoot is a root zone that has no `mesos`, and proves it.
type signedRoot struct {
	port int
	key  []string // of its DNSKEY: flags, protocol, algorithm, public key
	ds   []string // of the DS: key tag, algorithm, digest type, digest
}

func startSignedRoot(t *testing.T) *signedRoot {
	t.Helper()
	r := &signedRoot{port: freePort(t)}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "root"), "$TTL 3600\n. SOA a.root. hostmaster.root. 1 3600 600 86400 300\n. NS a.root.\na.root. A 192.0.2.1\n")
	conf := fmt.Sprintf(`options {
 directory %q; pid-file none; session-keyfile none; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
 recursion no; dnssec-validation no; notify no;
};
controls { };
zone "." { type primary; file "root"; dnssec-policy default; inline-signing yes; };
`, dir, r.port)
	start(t, tool(t, "named"), "-g", "-c", write(t, filepath.Join(dir, "named.conf"), conf))
	ask := func(name string, qtype uint16) *dns.Msg {
		m := new(dns.Msg).SetQuestion(name, qtype).SetEdns0(4096, true)
		answer, _, err := (&dns.Client{Net: "tcp", Timeout: 5 * time.Second}).Exchange(m, fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			return new(dns.Msg)
		}
		return answer
	}
	loopback.Eventually(t, func() string {
		for _, rr := range ask(".", dns.TypeDNSKEY).Answer {
			if key, ok := rr.(*dns.DNSKEY); ok {
				ds := key.ToDS(dns.SHA256)
				r.key = strings.Fields(fmt.Sprintf("%d %d %d %s", key.Flags, key.Protocol, key.Algorithm, key.PublicKey))
				r.ds = strings.Fields(fmt.Sprintf("%d %d %d %s", ds.KeyTag, ds.Algorithm, ds.DigestType, ds.Digest))
			}
		}
		denied := slices.ContainsFunc(ask("mesos.", dns.TypeDS).Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeNSEC })
		if r.key == nil || !denied {
			return "the root is not signed yet"
		}
		return ""
	})
	return r
}

// TestForwarding asks resolvers that validate DNSSEC and forward the cluster's names as
// docs/forwarding.md says. Without the negative trust anchor, where one is needed, there is no
// answer.
func TestForwarding(t *testing.T) {
	root := startSignedRoot(t)
	port := startCoreDNS(t, "", "")
	for name, tc := range map[string]struct {
		address string // of CoreDNS in the configuration
		anchor  string // expression for the negative trust anchors, if there are some
		start   func(t *testing.T, dir, conf string, front int)
	}{
		"bind": {fmt.Sprintf("127.0.0.1 port %d", port), `(?m)^.*validate-except.*$`, func(t *testing.T, dir, conf string, front int) {
			own := fmt.Sprintf(`options {
 directory %q; pid-file none; session-keyfile none; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; };
 dnssec-validation yes; forwarders { 127.0.0.1 port %d; }; forward only;
`, dir, front, root.port)
			conf = strings.Replace(conf, "options {\n", own, 1)
			conf += fmt.Sprintf("controls { };\ntrust-anchors { \".\" static-key %s %q; };\n", strings.Join(root.key[:3], " "), root.key[3])
			start(t, tool(t, "named"), "-g", "-c", write(t, filepath.Join(dir, "named.conf"), conf)).WaitFor(`running`)
		}},
		"unbound": {fmt.Sprintf("127.0.0.1@%d", port), `(?m)^ *domain-insecure.*$`, func(t *testing.T, dir, conf string, front int) {
			own := fmt.Sprintf(`server:
 interface: 127.0.0.1
 port: %d
 do-daemonize: no
 use-syslog: no
 chroot: ""
 username: ""
 pidfile: ""
 do-not-query-localhost: no
 trust-anchor: ". DNSKEY %s"
remote-control:
 control-enable: no
forward-zone:
 name: "."
 forward-addr: 127.0.0.1@%d
`, front, strings.Join(root.key, " "), root.port)
			start(t, tool(t, "unbound"), "-d", "-c", write(t, filepath.Join(dir, "unbound.conf"), own+conf)).WaitFor(`start of service`)
		}},
		"dnsmasq": {fmt.Sprintf("127.0.0.1#%d", port), "", func(t *testing.T, dir, conf string, front int) {
			own := fmt.Sprintf(`port=%d
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
keep-in-foreground
log-facility=-
pid-file=
user=root
server=127.0.0.1#%d
dnssec
trust-anchor=.,%s
`, front, root.port, strings.Join(root.ds, ","))
			start(t, tool(t, "dnsmasq"), "-C", write(t, filepath.Join(dir, "dnsmasq.conf"), own+conf)).WaitFor(`started`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			front := freePort(t)
			conf := snippet(t, name, tc.address)
			tc.start(t, t.TempDir(), conf, front)
			for _, q := range []struct{ name, qtype, want string }{
				{"nginx.marathon.mesos", "A", nginx},
				{"_postgres._db-prod._tcp.marathon.mesos", "SRV", "0_1_5432_db-prod-7yxaw-s1.marathon.mesos."},
				{"66.50.168.192.in-addr.arpa", "PTR", "nginx.marathon.mesos."},
			} {
				if got := short(t, front, q.name, q.qtype); got != q.want {
					t.Errorf("answers %s %s with %s", q.name, q.qtype, got)
				}
			}
			for name, want := range map[string]string{"nope.mesos": "NXDOMAIN", "nope.example": "NXDOMAIN"} {
				if out := run(t, "dig", "@127.0.0.1", "-p", fmt.Sprint(front), name); !strings.Contains(out, "status: "+want) {
					t.Errorf("answers:\n%s", out)
				}
			}
			if out := run(t, "dig", "@127.0.0.1", "-p", fmt.Sprint(front), "+adflag", "nope.example"); !regexp.MustCompile(`flags: [a-z ]*\bad\b`).MatchString(out) {
				t.Errorf("does not validate:\n%s", out)
			}
			if tc.anchor == "" {
				return
			}
			front = freePort(t)
			tc.start(t, t.TempDir(), regexp.MustCompile(tc.anchor).ReplaceAllString(conf, ""), front)
			if out := run(t, "dig", "@127.0.0.1", "-p", fmt.Sprint(front), "nginx.marathon.mesos"); !strings.Contains(out, "status: SERVFAIL") {
				t.Errorf("answers without a negative trust anchor:\n%s", out)
			}
		})
	}
}
