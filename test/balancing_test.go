//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// startExample starts the Corefile below a title of docs/balancing.md, with replacements, for a
// simulated cluster. It returns the port.
func startExample(t *testing.T, title string, replace ...string) int {
	t.Helper()
	doc, err := os.ReadFile("../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?ms)^## ` + title + `$.*?^~~~ corefile\n(.*?)^~~~$`).FindSubmatch(doc)
	if m == nil {
		t.Fatalf("docs/balancing.md has no %q", title)
	}
	master := start(t, "../bin/mesos-sim", "-listen", "127.0.0.1:0").WaitFor(`at (http://\S+)`)
	port := freePort(t)
	corefile := strings.NewReplacer(append(replace, ":1053 {", fmt.Sprintf(":%d {\n bind 127.0.0.1", port))...).Replace(string(m[1]))
	corefile = regexp.MustCompile(`(?m)^( *calicomesos[^{\n]*)( \{)?$`).ReplaceAllStringFunc(corefile, func(line string) string {
		if body, open := strings.CutSuffix(line, "{"); open {
			return body + "{\n master " + master
		}
		return line + " {\n master " + master + "\n}"
	})
	start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile)).WaitFor(`CoreDNS-`)
	return port
}

// TestSubnetFirst asks from the subnet that is preferred, and from another.
func TestSubnetFirst(t *testing.T) {
	port := startExample(t, "The client's subnet first", "client_ip(), '10.1.0.0/16'", "client_ip(), '127.0.1.0/24'", "prefer 10.1.0.0/16", "prefer 192.168.84.0/24")
	first := make(map[string]map[string]bool)
	for _, client := range []string{"127.0.1.1", "127.0.2.1"} {
		first[client] = make(map[string]bool)
		for range 40 { // that one of three is never first has a chance of one in ten million
			out := strings.Fields(run(t, "dig", "+short", "+tries=1", "-b", client, "@127.0.0.1", "-p", fmt.Sprint(port), "nginx.marathon.mesos", "A"))
			if len(out) != 3 {
				t.Fatalf("%s is answered %q", client, out)
			}
			first[client][out[0]] = true
		}
	}
	if near := first["127.0.1.1"]; len(near) != 1 || !near["192.168.84.192"] || len(first["127.0.2.1"]) != 3 {
		t.Errorf("first are %v", first)
	}
}

// TestZoneOfNetwork asks for an app in the zone of all networks and in that of one.
func TestZoneOfNetwork(t *testing.T) {
	port := startExample(t, "A zone for each network", "cni-apps", "calico")
	for name, want := range map[string]string{
		"nginx.marathon.mesos":            nginx,
		"marathon-lb.marathon.mesos":      "172.24.197.101",
		"nginx.marathon.apps.mesos":       nginx,
		"v6.marathon.apps.mesos":          "",
		"marathon-lb.marathon.apps.mesos": "172.24.197.101", // on its agent's network, which is not filtered
	} {
		if got := short(t, port, name, "A"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	other := startExample(t, "A zone for each network", "cni-apps", "other")
	if got := short(t, other, "nginx.marathon.apps.mesos", "A"); got != "" {
		t.Errorf("in the zone of another network nginx is at %s", got)
	}
}
