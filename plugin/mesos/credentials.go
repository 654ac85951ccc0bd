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

	"github.com/golang-jwt/jwt/v5"
)

const (
	maxCredentials = 64 << 10
	maxToken       = 64 << 10
	// loginValid is how long the proof is valid that a service account shows to
	// log in: it is used at once, clocks may differ.
	loginValid = 5 * time.Minute
	// tokenLife is assumed of a token that does not say when it expires.
	tokenLife    = time.Hour
	maxTokenLife = 30 * 24 * time.Hour // after which another is fetched, whatever it says
	loginTimeout = 10 * time.Second
)

// Credentials are what a file says that proves to the masters who we are: a
// principal and its secret, for HTTP basic authentication, or a DC/OS service
// account, which logs in for a token. The file is read again when it changes;
// while it cannot be, what it said last holds.
type Credentials struct {
	file string

	mu      sync.Mutex
	state   fileStates
	secret  *secret
	token   string // of a service account that has logged in
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

// LoadCredentials reads a credentials file. Errors do not tell what is in it.
func LoadCredentials(file string) (*Credentials, error) {
	c := &Credentials{file: file}
	return c, c.read()
}

// read takes in the file if it has changed.
func (c *Credentials) read() error {
	state := statFiles(c.file)
	if c.secret != nil && state.equal(c.state) {
		return nil
	}
	f, err := os.Open(c.file)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCredentials))
	if err != nil {
		return err
	}
	s, err := parseSecret(b)
	if err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
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
			return nil, errors.New("neither `principal secret` on one line nor JSON")
		}
		s.Principal, s.Secret = words[0], words[1]
		return s, s.checkPrincipal()
	}
	if json.Unmarshal(b, s) != nil { // its errors may quote the secret
		return nil, errors.New("malformed JSON")
	}
	if s.UID == "" && s.Key == "" && s.Endpoint == "" {
		if s.Principal == "" || s.Secret == "" {
			return nil, errors.New("the JSON has neither principal and secret, nor uid, private_key and login_endpoint")
		}
		return s, s.checkPrincipal()
	}
	u, err := url.Parse(s.Endpoint)
	switch {
	case s.UID == "":
		return nil, errors.New("a service account without uid")
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil:
		return nil, errors.New("login_endpoint is no http or https URL")
	}
	if s.key, err = jwt.ParseRSAPrivateKeyFromPEM([]byte(s.Key)); err != nil {
		return nil, errors.New("private_key is no RSA key in PEM")
	}
	return s, nil
}

// checkPrincipal refuses what HTTP basic authentication cannot carry (RFC 7617,
// section 2).
func (s *secret) checkPrincipal() error {
	if strings.Contains(s.Principal, ":") {
		return errors.New("a principal with a colon")
	}
	return nil
}

// authorize adds what the credentials say to req. A service account logs in by
// client first, if it has no token.
func (c *Credentials) authorize(ctx context.Context, client *httpClient, req *http.Request) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.read(); err != nil && c.secret == nil {
		return err
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

// renew forgets the token that req was refused with, and reports whether another
// try may have a better one: there is a new login, or the file has changed.
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

// login asks the service account's login_endpoint for a token (DC/OS Identity
// and Access Management, POST /acs/api/v1/auth/login).
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
		return "", now, fmt.Errorf("%s answers without a token", s.Endpoint)
	}
	return answer.Token, expiry(answer.Token, now), nil
}

// expiry returns when a token expires, by its own word: it is the masters' to
// verify it.
func expiry(token string, now time.Time) time.Time {
	var claims jwt.RegisteredClaims
	if _, _, err := jwt.NewParser().ParseUnverified(token, &claims); err == nil && claims.ExpiresAt != nil {
		return claims.ExpiresAt.Time
	}
	return now.Add(tokenLife)
}

// redact hides the secrets in s, which a master sent: it may have echoed them.
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

// fileStates are what tells the versions of files apart.
type fileStates []fileState

type fileState struct {
	size    int64
	changed time.Time
	info    os.FileInfo // nil while it cannot be looked at
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
