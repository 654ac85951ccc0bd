package main

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// quietPort is where CoreDNS listens on loopback for a configuration without DNS.
const quietPort = 61054

// maxTTL is the largest TTL that a stanza may have.
const maxTTL = 3600

// translation is a Corefile with what it leaves out.
type translation struct {
	corefile string
	notes    []string          // a line for each setting that has no equivalent: what, why, and what it means
	secrets  map[string]string // the content of files that nobody else may read

	config  *config
	local   []netip.Addr // of this machine
	indent  string
	content strings.Builder
}

// translate makes a Corefile that means the same as c. credentials is the file for a secret.
func translate(c *config, credentials string, local []netip.Addr) *translation {
	t := &translation{config: c, local: local, secrets: make(map[string]string)}
	t.server()
	t.stanza(credentials)
	t.resolvers()
	t.close()
	t.leftOut()
	t.corefile = t.content.String()
	return t
}

func (t *translation) line(words ...string) {
	t.content.WriteString(t.indent + strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ") + "\n")
}

func (t *translation) open(words ...string) {
	t.line(append(words, "{")...)
	t.indent += "    "
}

func (t *translation) close() {
	t.indent = strings.TrimSuffix(t.indent, "    ")
	t.line("}")
}

func (t *translation) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// server opens the server block. Without forwarding it is only for names that are known, and
// others are refused, as Mesos-DNS does.
func (t *translation) server() {
	c := t.config
	port, listener := c.Port, c.Listener
	if !c.DNSOn {
		port, listener = quietPort, "127.0.0.1"
		t.note("dnson false: CoreDNS cannot be without a DNS server; it listens on 127.0.0.1:%d, where nobody asks", quietPort)
	}
	zones := []string{"."}
	if !c.forwards() {
		zones = t.zones()
	}
	for i, z := range zones {
		zones[i] = z + ":" + strconv.Itoa(port)
	}
	t.open(zones...)
	t.line("bind", listener)
	t.line("errors")
	t.line("loadbalance")
}

// zones returns the plugin's zones.
func (t *translation) zones() []string {
	zones := []string{strings.ToLower(strings.Trim(t.config.Domain, "."))}
	if t.config.ReverseDNSOn {
		zones = append(zones, "in-addr.arpa", "ip6.arpa")
	}
	return zones
}

// forwards reports whether names outside of the zones are forwarded.
func (c *config) forwards() bool { return c.ExternalOn && c.DNSOn }

// stanza writes the stanza.
func (t *translation) stanza(credentials string) {
	c := t.config
	t.open(append([]string{"calicomesos"}, t.zones()...)...)
	t.line("containerip")
	t.masters(credentials)
	t.authentication(credentials)
	t.line("ipsources", strings.Join(t.sources(), " "))
	t.line("ttl", strconv.FormatInt(t.ttl(), 10))
	if ns := strings.ToLower(strings.Trim(c.SOAMname, ".")); c.has("SOAMname") && ns != "" && ns != "ns1."+t.zones()[0] {
		t.line("ns", ns)
	}
	if c.HTTPOn {
		t.line("http", net.JoinHostPort(c.HTTPListener, strconv.Itoa(c.HTTPPort)))
		if ip := net.ParseIP(c.HTTPListener); !ip.IsLoopback() {
			t.note("HTTPListener %s: anybody who reaches port %d can read what the cluster runs, as before; 127.0.0.1 is safer", c.HTTPListener, c.HTTPPort)
		}
	}
	t.close()
}

func (t *translation) masters(credentials string) {
	c := t.config
	zk := strings.TrimSuffix(c.Zk, "/")
	if strings.Contains(zk, "@") { // with a user and a password
		file := credentials + ".zk"
		t.secrets[file] = zk + "\n"
		zk = "file://" + file
	}
	all := []string{zk}
	for _, m := range c.Masters {
		if _, _, err := net.SplitHostPort(m); err != nil {
			m = net.JoinHostPort(strings.Trim(m, "[]"), "5050")
		}
		if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	t.line(append([]string{"master"}, all...)...)
}

func (t *translation) authentication(credentials string) {
	c := t.config
	switch c.MesosAuthentication {
	case "basic":
		secret := fmt.Sprintf("%s %s\n", c.MesosCredentials.Principal, c.MesosCredentials.Secret)
		if strings.ContainsFunc(c.MesosCredentials.Principal+c.MesosCredentials.Secret, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' }) {
			secret = fmt.Sprintf("{\"principal\": %s, \"secret\": %s}\n", jsonText(c.MesosCredentials.Principal), jsonText(c.MesosCredentials.Secret))
		}
		t.secrets[credentials] = secret
		t.line("credentials", credentials)
	case "iam":
		t.line("credentials", c.IAMConfigFile)
	default:
		if c.MesosCredentials.Principal != "" || c.IAMConfigFile != "" {
			t.note("mesosCredentials, IAMConfigFile: not used, since mesosAuthentication is neither basic nor iam; masters are asked without authentication")
		}
	}
	switch {
	case c.MesosHTTPSOn:
		t.line("tls", c.CertFile, c.KeyFile, c.CACertFile)
		if c.CACertFile == "" {
			t.note("mesosHTTPSOn without CACertFile: Mesos-DNS accepts any certificate; here the masters need one of an authority that this machine trusts, or give it as `tls CA`")
		}
	case c.CACertFile != "" || c.CertFile != "":
		t.note("CACertFile, certFile, keyFile: not used, since mesosHTTPSOn is false; masters are asked by http")
	}
}

// sources returns the sources of addresses that there are.
func (t *translation) sources() []string {
	var all []string
	for _, s := range t.config.IPSources {
		switch {
		case slices.Contains(all, s):
		case slices.Contains([]string{"netinfo", "host", "docker", "mesos"}, s):
			all = append(all, s)
		default:
			t.note("IPSources %q: there is no such source, and no task has addresses from it", s)
		}
	}
	if len(all) == 0 {
		t.note("IPSources: without any source no task has an address; netinfo and host are used instead")
		return []string{"netinfo", "host"}
	}
	return all
}

func (t *translation) ttl() int64 {
	ttl := t.config.TTL
	switch {
	case ttl > maxTTL:
		t.note("ttl %d: the largest is %d", ttl, maxTTL)
		return maxTTL
	case ttl < 0:
		t.note("ttl %d: the smallest is 0", ttl)
		return 0
	case ttl > 5:
		t.note("ttl %d: it is kept; clients may remember an address for so long after a task has moved, and 5 is the default here", ttl)
	}
	return ttl
}

// resolvers writes where other names are forwarded to, the longest zones first.
func (t *translation) resolvers() {
	c := t.config
	if !c.forwards() {
		if len(c.ZoneResolvers) > 0 {
			t.note("zoneResolvers: not used, since names outside of the domain are not answered")
		}
		return
	}
	t.line("loop")
	zones := slices.SortedFunc(maps.Keys(c.ZoneResolvers), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	for _, zone := range zones {
		if len(c.ZoneResolvers[zone]) > 0 {
			t.forward(zone, c.ZoneResolvers[zone])
		}
	}
	if len(c.Resolvers) == 0 {
		t.forward(".", []string{"/etc/resolv.conf"})
		return
	}
	t.forward(".", c.Resolvers)
}

// maxResolvers is the number of resolvers that *forward* takes.
const maxResolvers = 15

// forward writes where a zone is forwarded to.
func (t *translation) forward(zone string, resolvers []string) {
	if len(resolvers) > maxResolvers {
		t.note("resolvers: only the first %d are used, of %d", maxResolvers, len(resolvers))
		resolvers = resolvers[:maxResolvers]
	}
	for i, r := range resolvers {
		addr, err := netip.ParseAddr(strings.Trim(r, "[]"))
		if err == nil {
			resolvers[i] = addr.String()
		} else if ap, err := netip.ParseAddrPort(r); err == nil {
			addr = ap.Addr()
		}
		if addr.IsLoopback() || slices.Contains(t.local, addr) {
			t.note("resolvers %s: that is this machine; if CoreDNS itself answers there, loop ends it, and the site's resolvers must stand here", r)
		}
	}
	t.open("forward", zone, strings.Join(resolvers, " "))
	t.line("policy sequential")
	t.line("read_timeout", strconv.Itoa(t.config.Timeout)+"s")
	t.close()
}

// localAddrs returns the addresses of this machine.
func localAddrs() []netip.Addr {
	var all []netip.Addr
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil // nothing can be said of them
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}
