package calicomesos

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/calicomesos/calicomesos/plugin/logstate"
	"github.com/calicomesos/calicomesos/plugin/mesos"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/fall"
)

// Defaults and bounds of the properties.
const (
	defaultZone        = "mesos."
	defaultContainerIP = "dcos.thisdcos.directory."
	defaultMaster      = "127.0.0.1:5050"
	defaultTTL         = 5
	maxTTL             = 3600
	defaultStartup     = 5 * time.Second

	// minPoll is the shortest interval of polls: a whole state is expensive for a master.
	minPoll = time.Second
)

// options are what a stanza says.
type options struct {
	zones           [schemes][]string // origins
	cluster         clusterOptions
	rules           rules
	nsName          string       // "": ns1 of each zone
	nsAddrs         []netip.Addr // empty: the listening addresses
	ttl             uint32       // seconds
	startupTimeout  time.Duration
	fall            fall.F
	containerIPSeen bool
	http            string // address of the API, "": none
	httpOpen        bool   // others than this host can reach it
}

// property describes one property of a stanza.
type property struct {
	parse   func(o *options, args []string) error
	min     int // number of arguments
	max     int // any number if -1
	repeats bool
	files   bool // arguments are files, relative to *root*
	secret  bool // surplus arguments may be secrets: errors must not quote them
}

var properties = map[string]property{
	"master":          {parse: parseMasters, min: 1, max: -1, repeats: true},
	"containerip":     {parse: parseContainerIP, max: -1},
	"ipsources":       {parse: parseSources, min: 1, max: -1},
	"network":         {parse: parseNetworks, min: 1, max: -1},
	"allow":           {parse: parseAllow, min: 1, max: -1},
	"health":          {parse: parseHealth},
	"visibility":      {parse: parseVisibility, min: 1, max: 1},
	"ns":              {parse: parseNS, min: 1, max: -1},
	"ttl":             {parse: parseTTL, min: 1, max: 1},
	"cluster":         {parse: parseCluster, min: 1, max: 1},
	"credentials":     {parse: parseCredentials, min: 1, max: 1, files: true, secret: true},
	"tls":             {parse: parseTLS, max: 3, files: true},
	"tls_servername":  {parse: parseServerName, min: 1, max: 1},
	"poll":            {parse: parsePoll, min: 1, max: 1},
	"snapshot":        {parse: parseSnapshot, min: 1, max: 1, files: true},
	"startup_timeout": {parse: parseStartupTimeout, min: 1, max: 1},
	"fallthrough":     {parse: parseFallthrough, max: -1},
	"frameworks":      {parse: parseFrameworks, min: 1, max: -1, repeats: true},
	"http":            {parse: parseHTTP, min: 1, max: 1},
	"vhosts":          {parse: parseVHosts, min: 5, max: -1, repeats: true},
}

// parse parses a stanza. Errors name the property and the value.
func parse(c *caddy.Controller) (*options, error) {
	o := &options{ttl: defaultTTL, startupTimeout: defaultStartup, rules: rules{sources: []source{netinfo, host}}}
	c.Next()
	if err := parseZones(o, c.RemainingArgs()); err != nil {
		return nil, c.Err(err.Error())
	}
	lines := make(map[string]int) // of the properties so far
	for c.NextBlock() {
		name := c.Val()
		p, ok := properties[name]
		args := c.RemainingArgs()
		if !ok {
			return nil, c.Errf("unknown property %q: must be one of %s", name, strings.Join(slices.Sorted(maps.Keys(properties)), ", "))
		}
		if lines[name] > 0 && !p.repeats {
			return nil, c.Errf("property %q is repeated", name)
		}
		lines[name] = c.Line()
		if err := p.checkNumber(args); err != nil {
			return nil, c.Errf("property %q %v", name, err)
		}
		if p.files {
			args = belowRoot(dnsserver.GetConfig(c).Root, args)
		}
		if err := p.parse(o, args); err != nil {
			return nil, c.Errf("property %q: %v", name, err)
		}
	}
	if c.Next() {
		if c.Val() == "{" {
			return nil, c.Errf("\"{\" must stand on the line of %q", pluginName)
		}
		return nil, c.Errf("%q appears more than once in a server block", pluginName)
	}
	if err := o.complete(servedBy(c)); err != nil {
		if p, ok := errors.AsType[*propertyError](err); ok && lines[p.name] > 0 {
			return nil, fmt.Errorf("%s:%d - Error during parsing: %w", c.File(), lines[p.name], err) // as c.Err has it
		}
		return nil, c.Err(err.Error())
	}
	return o, nil
}

// propertyError is an error of a property that can be checked only once the whole stanza is read.
type propertyError struct {
	name string
	err  error
}

// Error implements error.
func (e *propertyError) Error() string { return fmt.Sprintf("property %q: %v", e.name, e.err) }

// checkNumber checks the number of arguments.
func (p *property) checkNumber(args []string) error {
	switch {
	case len(args) < p.min:
		return fmt.Errorf("has %s: must have at least %d", logstate.Count(len(args), "argument"), p.min)
	case p.max < 0 || len(args) <= p.max:
		return nil
	case p.max == 0:
		return fmt.Errorf("must have no arguments: %q", args[0])
	case p.secret:
		return fmt.Errorf("has %s: must have at most %d, the file %q", logstate.Count(len(args), "argument"), p.max, args[0])
	}
	return fmt.Errorf("has %s: must have at most %d: %q", logstate.Count(len(args), "argument"), p.max, args[p.max])
}

// belowRoot returns files with relative ones below root, the argument of *root*.
func belowRoot(root string, files []string) []string {
	all := make([]string, len(files))
	for i, f := range files {
		if !filepath.IsAbs(f) && root != "" {
			f = filepath.Join(root, f)
		}
		all[i] = f
	}
	return all
}

// complete sets defaults, and checks what several properties say together. The default zone of
// "containerip" is left out where no query reaches it: served are the server block's zones.
func (o *options) complete(served plugin.Zones) error {
	if len(o.zones[mesosDNS])+len(o.zones[reverse]) == 0 {
		o.zones[mesosDNS] = []string{defaultZone}
	}
	if !o.containerIPSeen && (len(served) == 0 || reaches(served, defaultContainerIP)) {
		o.zones[dcos] = []string{defaultContainerIP}
	}
	if err := o.cluster.complete(); err != nil {
		return err
	}
	return o.completeZones()
}

func parseZones(o *options, args []string) error {
	for _, arg := range args {
		origins, isAddrs, err := parseZone(arg)
		if err != nil {
			return err
		}
		sch := mesosDNS
		if isAddrs {
			sch = reverse
		}
		for _, origin := range origins {
			if slices.Contains(o.zones[sch], origin) {
				return fmt.Errorf("zone %q is repeated", arg)
			}
			o.zones[sch] = append(o.zones[sch], origin)
		}
	}
	return nil
}

func parseContainerIP(o *options, args []string) error {
	o.containerIPSeen = true
	for _, arg := range args {
		origins, isAddrs, err := parseZone(arg)
		switch {
		case err != nil:
			return err
		case isAddrs:
			return fmt.Errorf("zone %q must not be a reverse zone", arg)
		case slices.Contains(o.zones[dcos], origins[0]):
			return fmt.Errorf("zone %q is repeated", arg)
		}
		o.zones[dcos] = append(o.zones[dcos], origins[0])
	}
	return nil
}

// parseZone returns the origins that arg stands for, and whether they are reverse zones. A
// CIDR that does not end at a label stands for several.
func parseZone(arg string) (origins []string, reverse bool, err error) {
	if prefix, err := netip.ParsePrefix(arg); err == nil {
		if origins = plugin.Host(arg).NormalizeExact(); len(origins) == 0 || prefix.Addr().Is4In6() {
			return nil, false, fmt.Errorf("invalid zone %q: no reverse zone covers it", arg)
		}
		return origins, true, nil
	}
	origin := plugin.Name(arg).Normalize()
	if !isZoneName(origin) || mesos.ParseAddr(arg).IsValid() {
		return nil, false, fmt.Errorf("invalid zone %q: must be a domain name or a CIDR", arg)
	}
	return []string{origin}, isReverse(origin), nil
}

var sourceNames = map[string]source{
	"netinfo": netinfo, "host": host, "auto": auto, "docker": dockerLabel, "mesos": mesosLabel,
}

func parseSources(o *options, args []string) error {
	o.rules.sources = nil
	for _, arg := range args {
		s, ok := sourceNames[arg]
		switch {
		case !ok:
			return fmt.Errorf("unknown source %q: must be one of netinfo, host, auto, docker, mesos", arg)
		case slices.Contains(o.rules.sources, s):
			return fmt.Errorf("%q is repeated", arg)
		}
		o.rules.sources = append(o.rules.sources, s)
	}
	return nil
}

func parseNetworks(o *options, args []string) error {
	o.rules.networks = args
	return nil
}

func parseAllow(o *options, args []string) error {
	for _, arg := range args {
		prefix, err := netip.ParsePrefix(arg)
		if err != nil {
			return fmt.Errorf("invalid prefix %q: must be a CIDR, such as 192.168.0.0/16", arg)
		}
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		if prefix != prefix.Masked() { // an address alone may be meant, or its network
			return fmt.Errorf("invalid prefix %q: must be %v, or %v", arg, prefix.Masked(), netip.PrefixFrom(prefix.Addr(), prefix.Addr().BitLen()))
		}
		o.rules.allow = append(o.rules.allow, prefix)
	}
	return nil
}

func parseHealth(o *options, _ []string) error {
	o.rules.health = true
	return nil
}

var visibilityNames = map[string]mesos.Visibility{
	"framework": mesos.VisibilityFramework, "cluster": mesos.VisibilityCluster, "external": mesos.VisibilityExternal,
}

func parseVisibility(o *options, args []string) error {
	level, ok := visibilityNames[args[0]]
	if !ok {
		return fmt.Errorf("unknown visibility %q: must be one of framework, cluster, external", args[0])
	}
	o.rules.visibility = level
	return nil
}

// parseFrameworks parses NAME[:PRINCIPAL]. The last colon splits.
func parseFrameworks(o *options, args []string) error {
	for _, arg := range args {
		t := tenant{name: arg}
		if colon := strings.LastIndexByte(arg, ':'); colon >= 0 {
			t.name, t.principal = arg[:colon], arg[colon+1:]
			if t.principal == "" {
				return fmt.Errorf("%q has no principal after the colon", arg)
			}
		}
		if t.name == "" {
			return fmt.Errorf("%q has no name", arg)
		}
		if slices.Contains(o.rules.frameworks, t) {
			return fmt.Errorf("%q is repeated", arg)
		}
		o.rules.frameworks = append(o.rules.frameworks, t)
	}
	return nil
}

func parseNS(o *options, args []string) error {
	o.nsName = plugin.Name(args[0]).Normalize()
	if !isZoneName(o.nsName) || o.nsName == "." || mesos.ParseAddr(args[0]).IsValid() {
		return fmt.Errorf("invalid name %q: must be a domain name", args[0])
	}
	for _, arg := range args[1:] {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("invalid address %q of the name server", arg)
		}
		o.nsAddrs = append(o.nsAddrs, addr.Unmap())
	}
	return nil
}

func parseTTL(o *options, args []string) error {
	ttl, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil || ttl > maxTTL {
		return fmt.Errorf("invalid TTL %q: must be a number of seconds from 0 to %d", args[0], maxTTL)
	}
	o.ttl = uint32(ttl)
	return nil
}

func parseStartupTimeout(o *options, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < 0 {
		return fmt.Errorf("invalid time-out %q: must be a duration, such as 5s", args[0])
	}
	o.startupTimeout = d
	return nil
}

func parseFallthrough(o *options, args []string) error {
	for _, arg := range args {
		if _, _, err := parseZone(arg); err != nil {
			return err
		}
	}
	o.fall.SetZonesFromArgs(args)
	return nil
}
