package mesos

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	golog "log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"

	"github.com/golang-jwt/jwt/v5"
)

func writeFile(t *testing.T, file, content string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoadCredentials(t *testing.T) {
	dir := t.TempDir()
	key := newKey(t)
	account := func(change func(m map[string]string)) string {
		m := map[string]string{"scheme": "RS256", "uid": "dns", "private_key": keyPEM(t, key), "login_endpoint": "https://leader.example/acs/api/v1/auth/login"}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, tc := range map[string]struct{ content, want string }{
		"a line":                  {"dns hunter2\n", ""},
		"a line with tabs":        {"\tdns\thunter2", ""},
		"JSON":                    {` {"principal": "dns", "secret": "hunter2"}`, ""},
		"an account":              {account(func(map[string]string) {}), ""},
		"nothing":                 {"", "must hold `principal secret`"},
		"one word":                {"hunter2", "must hold `principal secret`"},
		"three words":             {"dns hunter2 hunter2", "must hold `principal secret`"},
		"a colon":                 {"d:ns hunter2", "must not have a colon"},
		"broken JSON":             {`{"principal": "hunter2"`, "malformed JSON"},
		"JSON of another type":    {`{"principal": "dns", "secret": ["hunter2"]}`, "malformed JSON"},
		"no secret":               {`{"principal": "hunter2"}`, "must have principal and secret"},
		"an account without uid":  {account(func(m map[string]string) { delete(m, "uid") }), "needs a uid"},
		"an account without key":  {account(func(m map[string]string) { m["private_key"] = "hunter2" }), "must be an RSA key"},
		"an odd login_endpoint":   {account(func(m map[string]string) { m["login_endpoint"] = "ftp://hunter2" }), "login_endpoint"},
		"a login_endpoint's user": {account(func(m map[string]string) { m["login_endpoint"] = "http://a:hunter2@b/" }), "login_endpoint"},
	} {
		_, err := LoadCredentials(writeFile(t, filepath.Join(dir, "credentials"), tc.content))
		switch {
		case (err == nil) != (tc.want == ""), err != nil && !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error tells: %v", name, err)
		}
	}
	if _, err := LoadCredentials(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a file that is not there is read")
	}
}

// TestCredentials_Files reads pipes, devices, huge and malformed files as credentials, at the
// start and later, and looks at the log: nobody may have to guess.
func TestCredentials_Files(t *testing.T) {
	var logged bytes.Buffer
	golog.SetOutput(&logged)
	defer golog.SetOutput(io.Discard)
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	large := writeFile(t, filepath.Join(dir, "large"), "dns "+strings.Repeat("x", maxCredentials))
	for file, want := range map[string]string{pipe: "not a regular file", "/dev/zero": "not a regular file", large: "larger than"} {
		if _, err := LoadCredentials(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
		if _, err := (&TLS{Files: []string{file}}).Load(); err == nil || want != "larger than" && !strings.Contains(err.Error(), want) {
			t.Errorf("TLS from %s: %v, want %s", file, err, want)
		}
	}
	file := writeFile(t, filepath.Join(dir, "credentials"), "dns hunter2")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, "hunter2")
	for range 3 {
		if err := c.authorize(t.Context(), nil, httptest.NewRequest(http.MethodPost, "/", nil)); err != nil {
			t.Error(err)
		}
	}
	writeFile(t, file, "dns hunter22")
	if err := c.authorize(t.Context(), nil, httptest.NewRequest(http.MethodPost, "/", nil)); err != nil {
		t.Error(err)
	}
	for text, times := range map[string]int{"its mode is 0644": 2, "those read before are used: ": 1, "Read the credentials in": 1, "hunter2": 0} {
		if got := strings.Count(logged.String(), text); got != times {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, got, times, &logged)
		}
	}
}

func newKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyPEM(t *testing.T, key *rsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// authorized is a master that answers those who say the right words.
type authorized struct {
	want atomic.Pointer[string]
	got  atomic.Pointer[string] // the last Authorization
}

func (a *authorized) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	got := r.Header.Get("Authorization")
	a.got.Store(&got)
	if got != *a.want.Load() {
		w.Header().Set("WWW-Authenticate", `Basic realm="mesos-master-readwrite"`)
		http.Error(w, "You said "+got+" "+strings.Repeat("x", 9000)+got, http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", protobuf)
	_, _ = w.Write([]byte("\x08\x08\x4a\x00")) // an empty GET_STATE
}

const (
	basicHunter2 = "Basic ZG5zOmh1bnRlcjI=" // dns:hunter2
	basicHunter3 = "Basic ZG5zOmh1bnRlcjM=" // dns:hunter3
)

// TestBasic changes the secret, once in time and once after it was refused.
func TestBasic(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "credentials"), "dns hunter2")
	credentials, err := LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	a := &authorized{}
	srv := httptest.NewServer(a)
	defer srv.Close()
	c := NewClient(Config{Credentials: credentials})
	defer c.Close()
	for _, tc := range []struct{ file, want string }{
		{"dns hunter2", basicHunter2}, {"dns hunter3\n", basicHunter3}, {"broken", basicHunter3}, {"dns   hunter2", basicHunter2},
	} {
		writeFile(t, file, tc.file)
		a.want.Store(&tc.want)
		if _, _, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil); err != nil {
			t.Errorf("%q: %v", tc.file, err)
		}
	}
	nothing := "nothing"
	a.want.Store(&nothing)
	_, _, err = c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil)
	if err == nil || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "ZG5z") || !strings.Contains(err.Error(), "401") || len(err.Error()) > 400 {
		t.Errorf("refused with %v", err)
	}
}

// redirecting sends everybody to another place.
func redirecting(to *string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", *to)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
}

// TestWhoIsTold holds the client to whom it tells the secret.
func TestWhoIsTold(t *testing.T) {
	credentials, err := LoadCredentials(writeFile(t, filepath.Join(t.TempDir(), "credentials"), "dns hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	a := &authorized{}
	want := basicHunter2
	a.want.Store(&want)
	leader := httptest.NewServer(a)
	defer leader.Close()
	host := func(s *httptest.Server) string { return strings.TrimPrefix(s.URL, "http://") }
	toLeader := "//" + host(leader) + "/master/api/v1"
	stranger := redirecting(&toLeader)
	defer stranger.Close()
	toStranger := "//" + host(stranger) + "/master/api/v1"
	follower := redirecting(&toStranger)
	defer follower.Close()
	second := redirecting(&toLeader)
	defer second.Close()
	secure := httptest.NewTLSServer(follower.Config.Handler)
	defer secure.Close()
	for name, tc := range map[string]struct {
		ask   string
		known []string
		want  string // in the error; "" where the leader is told
	}{
		"configured":                               {leader.URL, []string{leader.URL}, ""},
		"named by a configured one":                {second.URL, []string{second.URL}, ""},
		"named by one that a configured one named": {follower.URL, []string{follower.URL}, "it is not sent the credentials"},
		"named by a stranger, but configured":      {follower.URL, []string{follower.URL, leader.URL}, ""},
		"named by ZooKeeper since":                 {follower.URL, []string{follower.URL, stranger.URL}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a.got.Store(nil)
			c := NewClient(Config{Credentials: credentials})
			defer c.Close()
			var known []*url.URL
			for _, k := range tc.known {
				known = append(known, parseURL(t, k))
			}
			c.Trust(known)
			_, who, err := c.State(t.Context(), Target{URL: parseURL(t, tc.ask)}, nil)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want %q", err, tc.want)
			}
			if told := a.got.Load(); (told != nil) != (tc.want == "") {
				t.Errorf("told %v", told)
			}
			if err == nil {
				if _, err := who.State(t.Context(), nil); err != nil {
					t.Errorf("asked again: %v", err)
				}
			}
		})
	}
	t.Run("from https to http", func(t *testing.T) {
		toStranger = leader.URL // absolute
		a.got.Store(nil)
		c := NewClient(Config{Credentials: credentials, TLS: &TLS{Files: []string{certificate(t, secure)}}})
		defer c.Close()
		c.Trust([]*url.URL{parseURL(t, secure.URL), parseURL(t, leader.URL)})
		_, _, err := c.State(t.Context(), Target{URL: parseURL(t, secure.URL)}, nil)
		if err == nil || !strings.Contains(err.Error(), "from https to http") || a.got.Load() != nil {
			t.Errorf("%v, told %v", err, a.got.Load())
		}
	})
}

// certificate writes the certificate of a server to a file.
func certificate(t *testing.T, s *httptest.Server) string {
	t.Helper()
	return writeFile(t, filepath.Join(t.TempDir(), "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
}

// TestTLS asks a master whose certificate is of an authority of its own.
func TestTLS(t *testing.T) {
	a := &authorized{}
	nothing := ""
	a.want.Store(&nothing)
	srv := httptest.NewUnstartedServer(a)
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	defer srv.Close()
	file := certificate(t, srv) // for 127.0.0.1, ::1 and example.com
	other := httptest.NewTLSServer(a)
	defer other.Close()
	ask := func(c *Client) error {
		_, _, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil)
		return err
	}
	for name, tc := range map[string]struct {
		tls  *TLS
		want string
	}{
		"its authority":        {&TLS{Files: []string{file}}, ""},
		"another name of it":   {&TLS{Files: []string{file}, ServerName: "example.com"}, ""},
		"a name it has not":    {&TLS{Files: []string{file}, ServerName: "example.org"}, "example.org"},
		"the system's":         {nil, "certificate"},
		"an authority of none": {&TLS{Files: []string{filepath.Join(t.TempDir(), "nowhere")}}, "nowhere"},
	} {
		c := NewClient(Config{TLS: tc.tls})
		err := ask(c)
		c.Close()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}

	// The file changes: what cannot be read changes nothing, and is logged.
	var logged bytes.Buffer
	golog.SetOutput(&logged)
	defer golog.SetOutput(io.Discard)
	c := NewClient(Config{TLS: &TLS{Files: []string{file}}})
	defer c.Close()
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	authority := newAuthority(t)
	for _, step := range []struct {
		content string
		want    bool
	}{{string(good), true}, {"broken", true}, {authority, false}, {string(good) + "\n", true}} {
		writeFile(t, file, step.content)
		c.Close() // the idle connection
		if err := ask(c); (err == nil) != step.want {
			t.Errorf("with %.40q: %v", step.content, err)
		}
	}
	for _, text := range []string{"Reading the TLS files failed, those read before are used: ", "Read the TLS files " + file} {
		if n := strings.Count(logged.String(), text); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", text, n, &logged)
		}
	}
}

// TestTLS_Suites asks masters that have little to choose from.
func TestTLS_Suites(t *testing.T) {
	for name, tc := range map[string]struct {
		suite uint16
		want  string
	}{
		"Mesos's defaults, 128 bits": {tls.TLS_RSA_WITH_AES_128_CBC_SHA, ""},
		"Mesos's defaults, 256 bits": {tls.TLS_RSA_WITH_AES_256_CBC_SHA, ""},
		"with forward secrecy":       {tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ""},
		"nothing in common":          {tls.TLS_RSA_WITH_RC4_128_SHA, "LIBPROCESS_SSL_ENABLE_TLS_V1_3"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &authorized{}
			nothing := ""
			a.want.Store(&nothing)
			srv := httptest.NewUnstartedServer(a)
			srv.Config.ErrorLog = golog.New(io.Discard, "", 0)
			srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tc.suite}}
			srv.StartTLS()
			defer srv.Close()
			c := NewClient(Config{TLS: &TLS{Files: []string{certificate(t, srv)}}})
			defer c.Close()
			_, _, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// newAuthority returns a certificate that has signed nothing.
func newAuthority(t *testing.T) string {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestClientCertificate asks a master that wants to know who asks.
func TestClientCertificate(t *testing.T) {
	a := &authorized{}
	nothing := ""
	a.want.Store(&nothing)
	srv := httptest.NewUnstartedServer(a)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	defer srv.Close()
	ca := certificate(t, srv)
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(8), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert := writeFile(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile := writeFile(t, filepath.Join(dir, "key.pem"), keyPEM(t, key))
	for _, tc := range []struct {
		files []string
		ok    bool
	}{{[]string{cert, keyFile, ca}, true}, {[]string{ca}, false}} {
		c := NewClient(Config{TLS: &TLS{Files: tc.files}})
		_, _, err := c.State(t.Context(), Target{URL: parseURL(t, srv.URL)}, nil)
		c.Close()
		if (err == nil) != tc.ok {
			t.Errorf("with %d files: %v", len(tc.files), err)
		}
	}
}

// iam is a DC/OS login endpoint, and the master that takes its tokens.
type iam struct {
	t      *testing.T
	key    *rsa.PrivateKey
	life   time.Duration // of a token; 0: it does not say
	logins int
	token  string // that is taken
	fail   bool   // no login
	refuse bool   // any token
}

func (i *iam) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/acs/api/v1/auth/login" {
		a := &authorized{}
		want := "token=" + i.token
		if i.refuse {
			want = "none"
		}
		a.want.Store(&want)
		a.ServeHTTP(w, r)
		return
	}
	i.logins++
	if i.fail {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	var login struct{ UID, Token string }
	if err := json.NewDecoder(r.Body).Decode(&login); err != nil || r.Header.Get("Authorization") != "" {
		i.t.Errorf("login: %v", err)
	}
	var claims jwt.MapClaims
	_, err := jwt.ParseWithClaims(login.Token, &claims, func(*jwt.Token) (any, error) { return &i.key.PublicKey, nil }, jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
	if err != nil || claims["uid"] != "dns" || login.UID != "dns" {
		i.t.Errorf("login of %q with %v: %v", login.UID, claims, err)
	}
	answer := jwt.MapClaims{"uid": "dns", "n": i.logins}
	if i.life > 0 {
		answer["exp"] = time.Now().Add(i.life).Unix()
	}
	if i.token, err = jwt.NewWithClaims(jwt.SigningMethodHS256, answer).SignedString([]byte("the authority's")); err != nil {
		i.t.Error(err)
	}
	fmt.Fprintf(w, `{"token": %q}`, i.token)
}

// TestServiceAccount logs in, renews the token before it expires, and after it
// was refused.
func TestServiceAccount(t *testing.T) {
	key := newKey(t)
	b, err := json.Marshal(map[string]string{"uid": "dns", "private_key": keyPEM(t, key), "login_endpoint": "http://iam.example:80/acs/api/v1/auth/login"})
	if err != nil {
		t.Fatal(err)
	}
	file := writeFile(t, filepath.Join(t.TempDir(), "account.json"), string(b))
	for name, tc := range map[string]struct{ life, again time.Duration }{
		"for five days":       {120 * time.Hour, 90 * time.Hour},
		"for ever":            {150 * 365 * 24 * time.Hour, maxTokenLife / 4 * 3},
		"without saying when": {0, 45 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := &iam{t: t, key: key, life: tc.life}
				srv := mesostest.StartInMemory(i)
				defer srv.Close()
				c := NewClient(Config{Credentials: mustLoad(t, file), Dial: srv.Dial})
				defer c.Close()
				ask := func(logins int) {
					t.Helper()
					if _, _, err := c.State(t.Context(), Target{URL: parseURL(t, "http://master.example:5050/api/v1")}, nil); err != nil {
						t.Fatal(err)
					}
					if i.logins != logins {
						t.Errorf("%d logins, want %d", i.logins, logins)
					}
				}
				ask(1)
				ask(1)
				time.Sleep(tc.again - time.Minute)
				ask(1)
				time.Sleep(2 * time.Minute)
				ask(2) // before it expires
				i.token = "revoked"
				ask(3) // after a 401
				i.refuse = true
				_, _, err := c.State(t.Context(), Target{URL: parseURL(t, "http://master.example:5050/api/v1")}, nil)
				if err == nil || !strings.Contains(err.Error(), "401") || i.logins > 5 || strings.Contains(err.Error(), i.token) {
					t.Errorf("refused after %d logins: %v", i.logins, err)
				}
				i.refuse, i.token, i.fail = false, "revoked", true
				_, _, err = c.State(t.Context(), Target{URL: parseURL(t, "http://master.example:5050/api/v1")}, nil)
				if err == nil || !strings.Contains(err.Error(), `log in as "dns"`) || !strings.Contains(err.Error(), "403") {
					t.Errorf("a login that is refused: %v", err)
				}
			})
		})
	}
}

func mustLoad(t *testing.T, file string) *Credentials {
	t.Helper()
	c, err := LoadCredentials(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTLSNotPEM names the file that is not in PEM.
func TestTLSNotPEM(t *testing.T) {
	file := writeFile(t, filepath.Join(t.TempDir(), "notpem"), "x")
	if _, err := (&TLS{Files: []string{file}}).Load(); err == nil || err.Error() != file+": not in PEM" {
		t.Errorf("got %v", err)
	}
}
