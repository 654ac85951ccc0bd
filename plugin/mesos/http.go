package mesos

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/configfile"
	"github.com/calicomesos/calicomesos/plugin/logstate"

	clog "github.com/coredns/coredns/plugin/pkg/log"
	pkgtls "github.com/coredns/coredns/plugin/pkg/tls"
)

var log = clog.NewWithPlugin("calicomesos")

// TLS is how masters and the client authenticate each other.
type TLS struct {
	Files      []string // [CERT KEY] [CACERT], read again when they change
	ServerName string   // name in the masters' certificates; "": the host of their URL
}

// maxTLSFile is more than the certificates of all public authorities take, in bytes.
const maxTLSFile = 4 << 20

// Load reads the files. Errors name the file.
func (t *TLS) Load() (*tls.Config, error) {
	for _, file := range t.Files { // the library reads what it gets, and does not say which is wrong
		b, _, err := configfile.Read(file, maxTLSFile)
		if err != nil {
			return nil, err
		}
		if block, _ := pem.Decode(b); block == nil {
			return nil, fmt.Errorf("%s: not in PEM", file)
		}
	}
	config, err := pkgtls.NewTLSConfigFromArgs(t.Files...)
	if err != nil {
		return nil, err
	}
	config.ServerName = t.ServerName
	return config, nil
}

// masterSuites are offered to masters up to TLS 1.2: Go's defaults, and suites that Mesos has
// in its default settings. It uses TLS 1.2 with RSA key exchange or DHE there; Go has no DHE.
var masterSuites = func() []uint16 {
	var ids []uint16
	for _, suite := range tls.CipherSuites() {
		ids = append(ids, suite.ID)
	}
	return append(ids, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA)
}()

// explainHandshake names the usual cause of a refused handshake.
func explainHandshake(err error) error {
	if !strings.HasSuffix(err.Error(), "tls: handshake failure") {
		return err
	}
	return fmt.Errorf("%w: no TLS version and cipher suite in common, or no client certificate (LIBPROCESS_SSL_ENABLE_TLS_V1_3, LIBPROCESS_SSL_CIPHERS)", err)
}

// httpClient is an http.Client that uses changed certificate files, and leaves redirects,
// which name the leader, to its caller.
type httpClient struct {
	tls    *TLS
	suites []uint16 // up to TLS 1.2; nil: Go's
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)

	mu      sync.Mutex
	loading logstate.State
	files   fileStates // as current was made
	current *http.Client
}

func newHTTPClient(t *TLS, suites []uint16, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *httpClient {
	return &httpClient{tls: t, suites: suites, dial: dial, loading: logstate.State{Log: log}}
}

func (c *httpClient) do(req *http.Request) (*http.Response, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}

// client returns a client with the present certificates, or with the last ones while they
// cannot be read.
func (c *httpClient) client() (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config := new(tls.Config)
	if c.tls != nil {
		files := statFiles(c.tls.Files...)
		if c.current != nil && files.equal(c.files) {
			return c.current, nil
		}
		var err error
		if config, err = c.tls.Load(); err != nil {
			if c.current == nil {
				return nil, err
			}
			c.loading.Failed("Reading the TLS files failed, those read before are used: %v", err)
			return c.current, nil
		}
		c.loading.Recovered("Read the TLS files %s", strings.Join(c.tls.Files, " "))
		c.files = files
	} else if c.current != nil {
		return c.current, nil
	}
	if c.current != nil {
		c.current.CloseIdleConnections()
	}
	config.CipherSuites = c.suites
	c.current = &http.Client{
		Transport: &http.Transport{
			DialContext:         c.dial,
			TLSClientConfig:     config,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.current, nil
}

func (c *httpClient) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil {
		c.current.CloseIdleConnections()
	}
}
