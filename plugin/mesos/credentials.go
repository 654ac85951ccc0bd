package mesos

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/configfile"
	"github.com/calicomesos/calicomesos/plugin/logstate"

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxCredentials = 64 << 10
	maxToken       = 64 << 10
	// loginValid is how long the token is valid that a service account logs in with. It is
	// used at once, but clocks may differ.
	loginValid = 5 * time.Minute
	// tokenLife is the assumed life of a token without an expiry.
	tokenLife    = time.Hour
	maxTokenLife = 30 * 24 * time.Hour // of any token, whatever its expiry
	loginTimeout = 10 * time.Second
)

// Credentials authenticate the client to the masters. Their file holds a principal and its
// secret, for HTTP basic authentication, or a DC/OS service account, which logs in for a
// token. The file is read again when it changes; while that fails, its last content is
// used.
type Credentials struct {
	file string

	mu      sync.Mutex
	reading logstate.State
	state   fileStates
	secret  *secret
	token   string // of a service account that is logged in, else ""
	renewAt time.Time
}

// secret is the content of a credentials file.
type secret struct {
	Principal string `json:"principal"`
	Secret    string `json:"secret"`

	UID      string `json:"uid"`
	Key      string `json:"private_key"` // PEM
	Endpoint string `json:"login_endpoint"`
	key      *rsa.PrivateKey
}

// LoadCredentials reads a credentials file. Errors do not quote it.
func LoadCredentials(file string) (*Credentials, error) {
	c := &Credentials{file: file, reading: logstate.State{Log: log}}
	return c, c.read()
}

// File returns the name of the file.
func (c *Credentials) File() string { return c.file }

// read reads the file if it has changed.
func (c *Credentials) read() error {
	state := statFiles(c.file)
	if c.secret != nil && state.equal(c.state) {
		return nil
	}
	b, mode, err := configfile.Read(c.file, maxCredentials)
	if err != nil {
		return err
	}
	s, err := parseSecret(b)
	if err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	if mode&0o004 != 0 {
		log.Warningf("Everybody can read the credentials in %s: its mode is %#o", c.file, mode.Perm())
	}
	c.secret, c.state, c.token = s, state, ""
	return nil
}

// parseSecret reads `principal secret`, `{"principal": …, "secret": …}`, or the
// JSON of a service account.
func parseSecret(b []byte) (*secret, error) {
	b = bytes.TrimSpace(b)
	s := new(secret)
	if !bytes.HasPrefix(b, []byte("{")) {
		words := strings.Fields(string(b))
		if len(words) != 2 {
			return nil, errors.New("must hold `principal secret` or JSON")
		}
		s.Principal, s.Secret = words[0], words[1]
		return s, s.checkPrincipal()
	}
	if json.Unmarshal(b, s) != nil { // the error may quote the secret
		return nil, errors.New("malformed JSON")
	}
	if s.UID == "" && s.Key == "" && s.Endpoint == "" {
		if s.Principal == "" || s.Secret == "" {
			return nil, errors.New("must have principal and secret, or uid, private_key and login_endpoint")
		}
		return s, s.checkPrincipal()
	}
	u, err := url.Parse(s.Endpoint)
	switch {
	case s.UID == "":
		return nil, errors.New("a service account needs a uid")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil:
		return nil, errors.New("login_endpoint must be an http or https URL")
	}
	if s.key, err = jwt.ParseRSAPrivateKeyFromPEM([]byte(s.Key)); err != nil {
		return nil, errors.New("private_key must be an RSA key in PEM")
	}
	return s, nil
}

// checkPrincipal refuses a principal that HTTP basic authentication cannot carry (RFC 7617,
// section 2).
func (s *secret) checkPrincipal() error {
	if strings.Contains(s.Principal, ":") {
		return errors.New("a principal must not have a colon")
	}
	return nil
}

// authorize adds the credentials to req. A service account without a token logs in first,
// by client.
func (c *Credentials) authorize(ctx context.Context, client *httpClient, req *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch err := c.read(); {
	case err == nil:
		c.reading.Recovered("Read the credentials in %s", c.file)
	case c.secret == nil:
		return err
	default:
		c.reading.Failed("Reading the credentials failed, those read before are used: %v", err)
	}
	if c.secret.key == nil {
		req.SetBasicAuth(c.secret.Principal, c.secret.Secret)
		return nil
	}
	if c.token == "" || !time.Now().Before(c.renewAt) {
		token, expires, err := c.secret.login(ctx, client)
		if err != nil {
			return fmt.Errorf("log in as %q: %w", c.secret.UID, err)
		}
		now := time.Now()
		c.token, c.renewAt = token, now.Add(min(expires.Sub(now), maxTokenLife)/4*3)
	}
	req.Header.Set("Authorization", "token="+c.token)
	return nil
}

// renew is called when req was refused. It reports whether another attempt may succeed:
// with a new login, which it prepares by dropping the token of req, or with the changed
// file.
func (c *Credentials) renew(req *http.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secret.key == nil {
		return !statFiles(c.file).equal(c.state)
	}
	if req.Header.Get("Authorization") == "token="+c.token {
		c.token = ""
	}
	return true
}

// login asks the service account's login_endpoint for a token (DC/OS Identity and Access
// Management, POST /acs/api/v1/auth/login).
func (s *secret) login(ctx context.Context, client *httpClient) (token string, expires time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	now := time.Now()
	proof, err := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"uid": s.UID, "exp": now.Add(loginValid).Unix()}).SignedString(s.key)
	if err != nil {
		return "", now, err
	}
	body, err := json.Marshal(map[string]any{"uid": s.UID, "token": proof})
	if err != nil {
		return "", now, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Endpoint, bytes.NewReader(body))
	if err != nil {
		return "", now, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.do(req)
	if err != nil {
		return "", now, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", now, &StatusError{URL: s.Endpoint, Code: resp.StatusCode}
	}
	var answer struct {
		Token string `json:"token"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, maxToken)).Decode(&answer)
	if err != nil || answer.Token == "" || strings.ContainsFunc(answer.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", now, fmt.Errorf("%s: the answer has no token", s.Endpoint)
	}
	return answer.Token, expiry(answer.Token, now), nil
}

// expiry returns when a token expires, as the token itself says. Only the masters verify
// it.
func expiry(token string, now time.Time) time.Time {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err == nil && claims.ExpiresAt != nil {
		return claims.ExpiresAt.Time
	}
	return now.Add(tokenLife)
}

// redact replaces the secrets in s, a text of a master that may have echoed them. c may be
// nil.
func (c *Credentials) redact(s string) string {
	if c == nil {
		return s
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.secret == nil {
		return s
	}
	basic := base64.StdEncoding.EncodeToString([]byte(c.secret.Principal + ":" + c.secret.Secret))
	for _, hidden := range []string{basic, c.secret.Secret, c.token} {
		if hidden != "" {
			s = strings.ReplaceAll(s, hidden, "***")
		}
	}
	return s
}

// fileStates tell whether files have changed.
type fileStates []fileState

type fileState struct {
	size    int64
	changed time.Time
	info    os.FileInfo // nil if the file cannot be examined
}

func statFiles(files ...string) fileStates {
	states := make(fileStates, 0, len(files))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			states = append(states, fileState{})
			continue
		}
		states = append(states, fileState{info.Size(), info.ModTime(), info})
	}
	return states
}

func (s fileStates) equal(o fileStates) bool {
	return slices.EqualFunc(s, o, func(a, b fileState) bool {
		return a.size == b.size && a.changed.Equal(b.changed) && (a.info == nil) == (b.info == nil) && os.SameFile(a.info, b.info)
	})
}
