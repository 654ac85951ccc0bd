package calicomesos

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"

	"github.com/coredns/caddy"
)

// TestAdvice says what can be done about errors of masters.
func TestAdvice(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("dns hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	credentials, err := mesos.LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	without, with := &clusterOptions{}, &clusterOptions{credentials: credentials, poll: time.Second}
	for _, tc := range []struct {
		o    *clusterOptions
		err  error
		want string
	}{
		{without, &mesos.StatusError{Code: 401}, `"credentials"`},
		{with, fmt.Errorf("poll: %w", &mesos.StatusError{Code: 401}), file},
		{with, &mesos.StatusError{Code: 403}, "ACLs"},
		{with, &mesos.StatusError{Code: 404}, `path in "master"`},
		{without, &mesos.StatusError{Code: 501}, `"poll"`},
		{without, &mesos.StatusError{Code: 400}, `"poll"`},
		{with, &mesos.StatusError{Code: 501}, ""},
		{with, &mesos.StatusError{Code: 503}, ""},
		{with, fmt.Errorf("dial: %w", x509.UnknownAuthorityError{}), `"tls"`},
		{with, x509.HostnameError{Certificate: &x509.Certificate{}}, `"tls_servername"`},
		{with, http.ErrSchemeMismatch, "no TLS"},
		{with, errors.New("reset"), ""},
	} {
		if got := tc.o.advice(tc.err); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%v: %q, want %q", tc.err, got, tc.want)
		}
	}
}

// TestCluster_Names has two stanzas in one Corefile that name their clusters.
func TestCluster_Names(t *testing.T) {
	_, srv := countedTutorial(t)
	for name, tc := range map[string]struct{ first, second, want string }{
		"one cluster, one name":    {"cluster graz", "cluster graz", ""},
		"one cluster, two names":   {"cluster graz", "cluster linz", `"graz" and "linz" are names of one cluster`},
		"one cluster, named once":  {"", "cluster linz", `are names of one cluster`},
		"two clusters, one name":   {"cluster graz", "poll 5s\ncluster graz", `"graz" is the name of a cluster with other masters`},
		"two clusters, named once": {"cluster graz", "poll 5s", ""},
	} {
		t.Run(name, func(t *testing.T) {
			block := func(zone, properties string) string {
				return fmt.Sprintf("%s:0 {\n bind 127.0.0.1\n %s %s {\n master %s\n %s\n }\n}\n", zone, pluginName, zone, srv.URL, properties)
			}
			instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", ServerTypeName: "dns", Contents: []byte(block("a", tc.first) + block("b", tc.second))})
			if err == nil {
				instance.ShutdownCallbacks()
				_ = instance.Stop()
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// TestBrace finds that a stanza's brace stands on the next line.
func TestBrace(t *testing.T) {
	if _, err := parseStanza(pluginName + " mesos\n{\n ttl 5\n}"); err == nil || !strings.Contains(err.Error(), `"{" must stand on the line of "calicomesos"`) {
		t.Error(err)
	}
}

// TestParse_Line names the line of a property whose error is found after the stanza's end.
func TestParse_Line(t *testing.T) {
	for _, property := range []string{"master 127.0.0.1:99999", "ns nginx.marathon.mesos", "fallthrough example.org", "vhosts acme.org to lb.acme.org for *"} {
		_, err := parseStanza(pluginName + " mesos {\n ttl 5\n " + property + "\n health\n}")
		if err == nil || !strings.Contains(err.Error(), ":3 - Error during parsing: property") {
			t.Errorf("%s: %v", property, err)
		}
	}
}
