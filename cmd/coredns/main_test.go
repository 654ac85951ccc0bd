package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/miekg/dns"
)

const root = "../.."

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	clog.Discard()
	caddy.Quiet, dnsserver.Quiet = true, true
	if err := dnsserver.SetDirectives(directives); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// onLoopback moves a Corefile to loopback, to ports that are free, to a simulated
// master or a primary, and to files in dir, and leaves all else as it is.
func onLoopback(t *testing.T, corefile, master, primary, dir string) string {
	t.Helper()
	web, err := loopback.FreePort() // it is no port of CoreDNS's own
	if err != nil {
		t.Fatal(err)
	}
	corefile = strings.ReplaceAll(corefile, ":8123", fmt.Sprintf(":%d", web))
	if strings.Contains(corefile, "secondary {") {
		corefile = regexp.MustCompile(`transfer from \S+:1053\b`).ReplaceAllString(corefile, "transfer from "+primary)
		return strings.ReplaceAll(strings.ReplaceAll(corefile, ":1053", ":0"), ":0 {", ":0 {\n bind 127.0.0.1")
	}
	corefile = regexp.MustCompile(`/(etc|var/lib)/(coredns|calicomesos)/`).ReplaceAllString(corefile, dir+"/")
	corefile = regexp.MustCompile(`forward \. \S+`).ReplaceAllString(corefile, "forward . "+primary)
	corefile = regexp.MustCompile(`:(1053|9153|8181)\b`).ReplaceAllString(corefile, ":0")
	corefile = regexp.MustCompile(`(?m)^(\.|mesos dcos\.thisdcos\.directory) \{`).ReplaceAllStringFunc(corefile, func(line string) string {
		return strings.ReplaceAll(line, " ", ":0 ")
	})
	corefile = regexp.MustCompile(`(?m)^(\s*ready)$`).ReplaceAllString(corefile, "$1 127.0.0.1:0")
	corefile = regexp.MustCompile(`master .*`).ReplaceAllString(corefile, "master "+master)
	corefile = regexp.MustCompile(`\n\s*tls_servername .*`).ReplaceAllString(corefile, "") // the simulated master has no TLS
	if !strings.Contains(corefile, "master ") {
		corefile = regexp.MustCompile(`(?m)^(\s*calicomesos\b[^{\n/]*)(\{?)\n`).ReplaceAllStringFunc(corefile, func(line string) string {
			line = strings.TrimRight(strings.TrimSuffix(line, "\n"), "{ ")
			if strings.Contains(corefile, line+" {") {
				return line + " {\n master " + master + "\n"
			}
			return line + " {\n master " + master + "\n}\n"
		})
	}
	if !strings.Contains(corefile, "bind ") {
		corefile = strings.ReplaceAll(corefile, ":0 {", ":0 {\n bind 127.0.0.1")
	}
	return corefile
}

// shipped has every Corefile in the documents, the example, and those of the package and the image.
func shipped(t *testing.T) map[string]string {
	t.Helper()
	corefiles := map[string]string{}
	for _, name := range []string{"Corefile.example", "deploy/package/Corefile", "deploy/image/Corefile"} {
		corefiles[name] = read(t, name)
	}
	corefiles["deploy/package/Corefile, with all"] =
		regexp.MustCompile(`(?m)^(\s*)# (credentials|cache|loop|forward)`).ReplaceAllString(corefiles["deploy/package/Corefile"], "$1$2")
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, filepath.Join(root, "README.md")) {
		b, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range regexp.MustCompile("(?s)~~~ corefile\n(.*?)~~~").FindAllStringSubmatch(string(b), -1) {
			corefiles[fmt.Sprintf("%s %d", filepath.Base(document), i+1)] = block[1]
		}
	}
	if len(corefiles) < 10 {
		t.Fatalf("only %d Corefiles", len(corefiles))
	}
	return corefiles
}

// TestCorefiles starts every Corefile that is shipped, and asks it.
func TestCorefiles(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	block := fmt.Sprintf(".:0 {\n bind 127.0.0.1\n transfer {\n to *\n }\n calicomesos {\n master %s\n }\n}\n", master.URL)
	primary, err := caddy.Start(caddy.CaddyfileInput{Filepath: "primary", Contents: []byte(block), ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	defer primary.Stop()
	defer primary.ShutdownCallbacks()
	for name, corefile := range shipped(t) {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(corefile, "forward .") && !strings.Contains(corefile, "loop\n") {
				t.Error("one question would become thousands where the server forwards to itself")
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "mesos.credentials"), []byte("coredns secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			input := caddy.CaddyfileInput{Filepath: name, Contents: []byte(onLoopback(t, corefile, master.URL, primary.Servers()[0].Addr().String(), dir)), ServerTypeName: "dns"}
			instance, err := caddy.Start(input)
			if err != nil {
				t.Fatalf("%v:\n%s", err, input.Contents)
			}
			defer instance.Stop()
			defer instance.ShutdownCallbacks()
			q := new(dns.Msg)
			q.SetQuestion("nginx.marathon.mesos.", dns.TypeA)
			loopback.Eventually(t, func() string { // a secondary must get its zone first
				r, err := dns.Exchange(q, instance.Servers()[0].LocalAddr().String())
				if err != nil || len(r.Answer) != 3 {
					return fmt.Sprintf("%v, %v", r, err)
				}
				return ""
			})
		})
	}
}

// TestDeployments holds the definitions for Marathon and Mesos against the image that they run.
func TestDeployments(t *testing.T) {
	image, corefile := read(t, "deploy/image/Dockerfile"), read(t, "deploy/image/Corefile")
	state := regexp.MustCompile(`snapshot (\S+)/`).FindStringSubmatch(corefile)
	command := regexp.MustCompile(`CMD \[(.*)\]`).FindStringSubmatch(image)
	variable := regexp.MustCompile(`\{\$(\w+)\}`).FindStringSubmatch(corefile)
	if state == nil || command == nil || variable == nil || !strings.Contains(corefile, "ready\n") || !strings.Contains(image, "state "+state[1]+"\n") {
		t.Fatalf("the image has %q, %q, %q", state, command, variable)
	}
	for _, name := range []string{"deploy/marathon.json", "deploy/mesos-task.json"} {
		text := read(t, name)
		if !json.Valid([]byte(text)) {
			t.Errorf("%s is not JSON", name)
		}
		for _, want := range []string{state[1] + `"`, command[1] + "]", `"` + variable[1] + `"`, `"path": "/ready"`, `"port": 8181`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %s", name, want)
			}
		}
	}
}

// upstream is the order of the plugins in upstream's plugin.cfg, as far as they
// are used here.
var upstream = strings.Fields(`root metadata cancel timeouts multisocket reload nsid bufsize bind debug ready health pprof
	prometheus errors log local any loadbalance tsig rewrite acl cache header tls minimal template transfer hosts file
	secondary loop forward whoami view`)

// TestDirectives compares the order of the plugins with upstream's.
func TestDirectives(t *testing.T) {
	others := slices.DeleteFunc(slices.Clone(directives), func(d string) bool { return d == "calicomesos" })
	if !slices.Equal(others, upstream) {
		t.Errorf("the order is %q, upstream's %q", others, upstream)
	}
	place := func(d string) int { return slices.Index(directives, d) }
	for _, before := range []string{"cache", "loadbalance", "rewrite", "transfer"} {
		if place(before) > place("calicomesos") {
			t.Errorf("calicomesos stands before %s", before)
		}
	}
	for _, after := range []string{"hosts", "file", "forward"} {
		if place(after) < place("calicomesos") {
			t.Errorf("calicomesos stands after %s", after)
		}
	}
}

// TestDCOSNames asks the Corefile of docs/migrating.md for the names that DC/OS has.
func TestDCOSNames(t *testing.T) {
	block := regexp.MustCompile("(?s)~~~ corefile\n(.*?)~~~").FindStringSubmatch(read(t, "docs/migrating.md"))[1]
	m := mesostest.NewMaster(15 * time.Second)
	mesostest.NewTutorial(m)
	master := mesostest.Start(m)
	defer master.Close()
	corefile := onLoopback(t, block, master.URL, "127.0.0.1:1", t.TempDir())
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	if err != nil {
		t.Fatalf("%v:\n%s", err, corefile)
	}
	defer instance.Stop()
	defer instance.ShutdownCallbacks()
	for name, want := range map[string]string{
		"v6.marathon.mesos.": "fd00:192:168::10",
		"v6.marathon.containerip.dcos.thisdcos.directory.":                        "fd00:192:168::10",
		"v6.marathon.mesos.thisdcos.global.":                                      "fd00:192:168::10",
		"v6.marathon.mesos.2bsqjwxkz4nrpmpgt6wcbgw3uu.dcos.directory.":            "fd00:192:168::10",
		"v6.marathon.mesos.thisdcos.directory.":                                   "fd00:192:168::10",
		"v6.marathon.containerip.dcos.thisdcos.global.":                           "fd00:192:168::10",
		"v6.marathon.containerip.dcos.2bsqjwxkz4nrpmpgt6wcbgw3uu.dcos.directory.": "fd00:192:168::10",
		"db-prod.marathon.autoip.dcos.2bsqjwxkz4nrpmpgt6wcbgw3uu.dcos.directory.": "192.168.50.67",
		"_postgres._db-prod._tcp.marathon.containerip.dcos.thisdcos.global.":      "5432",
		"ready.spartan.": "127.0.0.1",
		"zk-2.zk.":       "10.0.0.2",
	} {
		found := ""
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeSRV} {
			r, err := dns.Exchange(new(dns.Msg).SetQuestion(name, qtype), instance.Servers()[0].LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			for _, rr := range r.Answer {
				if rr.Header().Name != name {
					t.Errorf("%s is answered as %s", name, rr.Header().Name)
				}
				found += rr.String()
			}
		}
		if !strings.Contains(found, want) {
			t.Errorf("%s: %q, want %s", name, found, want)
		}
	}
}
