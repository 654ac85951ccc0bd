package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
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

// readConfig reads a config.json.
func readConfig(b []byte) (*config, error) {
	c := defaults()
	if err := json.Unmarshal(b, c); err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, err
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
	return c, c.validate()
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
	case c.MesosAuthentication != "" && c.MesosAuthentication != "basic" && c.MesosAuthentication != "iam":
		return fmt.Errorf("unknown mesosAuthentication %q: must be basic or iam", c.MesosAuthentication)
	case c.MesosAuthentication == "basic" && (c.MesosCredentials.Principal == "" || c.MesosCredentials.Secret == ""):
		return errors.New("mesosAuthentication is basic, and mesosCredentials lack the principal or the secret")
	case c.MesosAuthentication == "iam" && c.IAMConfigFile == "":
		return errors.New("mesosAuthentication is iam, and there is no IAMConfigFile")
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
	for _, value := range c.words() {
		if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`"{}#\`, r) }) {
			return fmt.Errorf("%q cannot stand in a Corefile", value)
		}
	}
	return nil
}

// words are the values that become words of the Corefile.
func (c *config) words() []string {
	all := slices.Concat(c.Masters, c.Resolvers, c.IPSources, []string{c.Zk, c.Domain, c.SOAMname, c.CACertFile, c.CertFile, c.KeyFile, c.IAMConfigFile})
	for zone, resolvers := range c.ZoneResolvers {
		all = append(append(all, zone), resolvers...)
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
