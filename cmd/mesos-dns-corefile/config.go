package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// config is a config.json of Mesos-DNS. encoding/json finds the keys in any case, as it does for
// Mesos-DNS. The defaults are Mesos-DNS's.
type config struct {
	Masters             []string
	Zk                  string
	RefreshSeconds      int
	ZkDetectionTimeout  int
	StateTimeoutSeconds int

	MesosHTTPSOn        bool
	CACertFile          string
	CertFile            string
	KeyFile             string
	MesosAuthentication string // "", "basic" or "iam"
	MesosCredentials    struct{ Principal, Secret string }
	IAMConfigFile       string

	Domain        string
	TTL           int64
	SOAMname      string
	SOARname      string
	SOARefresh    int64
	SOARetry      int64
	SOAExpire     int64
	SOAMinttl     int64
	RecurseOn     bool
	EnforceRFC952 bool
	IPSources     []string

	SRVRecordDefaultWeight int
	ResolvSubnetFirst      bool
	SetTruncateBit         bool

	DNSOn        bool `json:"DnsOn"`
	ReverseDNSOn bool `json:"ReverseDnsOn"`
	Listener     string
	Port         int

	ExternalOn    bool
	Resolvers     []string
	ZoneResolvers map[string][]string
	Timeout       int

	HTTPOn        bool   `json:"HttpOn"`
	HTTPPort      int    `json:"HttpPort"`
	HTTPListener  string // of older versions: Listener
	EnumerationOn bool

	// Accepted and without effect, in Mesos-DNS, too.
	File      string
	SOASerial int64
	Email     string // of versions before 0.2, now SOARname
	NS        string

	set     map[string]bool // keys that stand in the file, in lower case
	unknown []string        // of them those that Mesos-DNS does not know
}

func defaults() *config {
	return &config{
		RefreshSeconds: 60, ZkDetectionTimeout: 30, StateTimeoutSeconds: 300, Domain: "mesos", TTL: 60,
		SOAMname: "ns1.mesos", SOARname: "root.ns1.mesos", SOARefresh: 60, SOARetry: 600, SOAExpire: 86400, SOAMinttl: 60,
		RecurseOn: true, IPSources: []string{"netinfo", "mesos", "host"}, SRVRecordDefaultWeight: 1, SetTruncateBit: true,
		DNSOn: true, Listener: "0.0.0.0", Port: 53, ExternalOn: true, Resolvers: []string{"8.8.8.8"}, Timeout: 5,
		HTTPOn: true, HTTPPort: 8123, HTTPListener: "0.0.0.0", EnumerationOn: true, set: make(map[string]bool),
	}
}

// readConfig reads a config.json. Errors never quote a secret.
func readConfig(b []byte) (*config, error) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")) // a byte order mark
	c := defaults()
	if err := json.Unmarshal(b, c); err != nil {
		return nil, readable(b, err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, readable(b, err)
	}
	known := make(map[string]bool)
	for i := range reflect.TypeFor[config]().NumField() {
		field := reflect.TypeFor[config]().Field(i)
		if field.IsExported() {
			known[strings.ToLower(field.Name)] = true
		}
	}
	for key := range keys {
		c.set[strings.ToLower(key)] = true
		if !known[strings.ToLower(key)] {
			c.unknown = append(c.unknown, key)
		}
	}
	slices.Sort(c.unknown)
	c.Masters = split(c.Masters)
	return c, c.validate()
}

// readable says where JSON is wrong.
func readable(b []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:min(int(syntax.Offset), len(b))], []byte("\n")), err)
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %s must be a %s, not a %s", 1+bytes.Count(b[:min(int(kind.Offset), len(b))], []byte("\n")), kind.Field, kind.Type, kind.Value)
	}
	return err
}

// split splits at commas, and leaves each value once.
func split(values []string) []string {
	var all []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" && !slices.Contains(all, part) {
				all = append(all, part)
			}
		}
	}
	return all
}

// validate refuses what Mesos-DNS would not have run with, and what cannot stand in a Corefile.
func (c *config) validate() error {
	switch {
	case len(c.Masters) == 0 && c.Zk == "":
		return errors.New("there are neither masters nor zk")
	case !c.DNSOn && !c.HTTPOn:
		return errors.New("both dnson and httpon are false")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("certFile and keyFile belong together")
	case c.Timeout < 1:
		return fmt.Errorf("timeout is %d", c.Timeout)
	case strings.HasPrefix(strings.ToLower(c.SOAMname), "leader.") || strings.HasPrefix(strings.ToLower(c.SOAMname), "master."):
		return fmt.Errorf("SOAMname %q is a name of the masters", c.SOAMname)
	}
	for name, port := range map[string]int{"port": c.Port, "httpport": c.HTTPPort} {
		if port < 1 || port > 65535 {
			return fmt.Errorf("%s is %d", name, port)
		}
	}
	for name, addr := range map[string]string{"listener": c.Listener, "HTTPListener": c.HTTPListener} {
		if net.ParseIP(addr) == nil {
			return fmt.Errorf("%s %q is no IP address", name, addr)
		}
	}
	for _, word := range c.words() {
		if strings.ContainsFunc(word.value, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`"{}#\`, r) }) {
			return fmt.Errorf("%s %q cannot stand in a Corefile", word.key, masked(word.value))
		}
	}
	return errors.Join(c.validateAuthentication(), c.validateNames())
}

func (c *config) validateAuthentication() error {
	switch {
	case c.MesosAuthentication != "" && c.MesosAuthentication != "basic" && c.MesosAuthentication != "iam":
		return fmt.Errorf("unknown mesosAuthentication %q: must be basic or iam", c.MesosAuthentication)
	case c.MesosAuthentication == "basic" && (c.MesosCredentials.Principal == "" || c.MesosCredentials.Secret == ""):
		return errors.New("mesosAuthentication is basic, and mesosCredentials lack the principal or the secret")
	case c.MesosAuthentication == "basic" && strings.Contains(c.MesosCredentials.Principal, ":"):
		return errors.New("the principal of mesosCredentials has a colon, which HTTP's basic authentication does not allow")
	case c.MesosAuthentication == "iam" && c.IAMConfigFile == "":
		return errors.New("mesosAuthentication is iam, and there is no IAMConfigFile")
	}
	return nil
}

// validateNames checks masters, the ensemble, the domain and the resolvers.
func (c *config) validateNames() error {
	for _, m := range c.Masters {
		host, port, err := net.SplitHostPort(m)
		if err != nil {
			host, port = strings.Trim(m, "[]"), "5050"
		}
		_, portErr := strconv.ParseUint(port, 10, 16)
		if host == "" || portErr != nil || strings.ContainsAny(host, "/@[]") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return fmt.Errorf("masters: %q is not HOST:PORT", masked(m))
		}
	}
	scheme, rest, _ := strings.Cut(c.Zk, "://")
	_, path, _ := strings.Cut(rest, "/")
	if c.Zk != "" && (scheme != "zk" && scheme != "file" || strings.Trim(path, "/") == "") {
		return fmt.Errorf("zk: %q is not zk://HOST:PORT,…/PATH", masked(c.Zk))
	}
	if domain := strings.Trim(c.Domain, "."); domain == "" || strings.Contains(domain, "..") {
		return fmt.Errorf("domain %q is no domain name", c.Domain)
	}
	if _, ok := dns.IsDomainName(c.Domain); !ok {
		return fmt.Errorf("domain %q is no domain name", c.Domain)
	}
	for _, r := range slices.Concat(c.Resolvers, slices.Concat(slices.Collect(maps.Values(c.ZoneResolvers))...)) {
		_, addrErr := netip.ParseAddr(strings.Trim(r, "[]"))
		_, portErr := netip.ParseAddrPort(r)
		if addrErr != nil && portErr != nil {
			return fmt.Errorf("resolvers: %q is no IP address, with or without a port", r)
		}
	}
	return nil
}

// masked hides what may be a user and a password.
func masked(value string) string {
	if at := strings.LastIndexByte(value, '@'); at >= 0 {
		return "***" + value[at:]
	}
	return value
}

// word is a value that becomes a word of the Corefile.
type word struct{ key, value string }

// words are those values.
func (c *config) words() []word {
	all := []word{
		{"zk", c.Zk}, {"domain", c.Domain}, {"SOAMname", c.SOAMname}, {"CACertFile", c.CACertFile}, {"certFile", c.CertFile},
		{"keyFile", c.KeyFile}, {"IAMConfigFile", c.IAMConfigFile},
	}
	for key, values := range map[string][]string{"masters": c.Masters, "resolvers": c.Resolvers, "IPSources": c.IPSources} {
		for _, v := range values {
			all = append(all, word{key, v})
		}
	}
	for zone, resolvers := range c.ZoneResolvers {
		for _, v := range append([]string{zone}, resolvers...) {
			all = append(all, word{"zoneResolvers", v})
		}
	}
	return all
}

// has reports whether a key stands in the file.
func (c *config) has(key string) bool { return c.set[strings.ToLower(key)] }

// text returns a value for a note.
func text(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(v)
}
