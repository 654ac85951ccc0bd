package calicomesos

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/plugin/leader"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/fall"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

func init() { plugin.Register(pluginName, setup) }

// The defaults of the properties.
const (
	defaultZone        = "mesos."
	defaultContainerIP = "dcos.thisdcos.directory."
	defaultMaster      = "http://127.0.0.1:5050"
	defaultTTL         = 5
	maxTTL             = 3600
	defaultStartup     = 5 * time.Second

	// minPoll is the least interval of polls: a whole state costs a master much.
	minPoll = time.Second
)

// options are what a stanza says.
type options struct {
	zones    [schemes][]string // origins
	cluster  clusterOptions
	rules    rules
	nsName   string       // "": ns1 of each zone
	nsAddrs  []netip.Addr // empty: the listening addresses
	ttl      uint32
	startup  time.Duration
	fall     fall.F
	dcosSeen bool // containerip was given
}

// clusterOptions say how a cluster is watched. Stanzas with equal ones share a
// watcher.
type clusterOptions struct {
	masters     []*url.URL
	zookeeper   *leader.ZooKeeper // instead of masters; nil without
	credentials string            // file
	secrets     *mesos.Credentials
	tls         *mesos.TLS // nil: the system's certificate authorities
	serverName  string
	poll        time.Duration // 0: subscribe
	snapshot    string        // file
}

func setup(c *caddy.Controller) error {
	o, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	warnUnreachable(c, o)

	p := &CalicoMesos{Fall: o.fall, bypass: o.bypassZones(), ready: make(chan struct{})}
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		p.Next = next
		return p
	})
	i := &instance{}
	group := startGroupOf(c)
	if err := group.claim(&o.cluster); err != nil {
		return plugin.Error(pluginName, c.Err(err.Error()))
	}
	group.add(func() *instance {
		i.start(p, o, dnsserver.GetConfig(c))
		return i
	}, o.startup)
	c.OnShutdown(func() error {
		i.stop()
		return nil
	})
	return nil
}

// warnUnreachable warns of a stanza that no query can reach.
func warnUnreachable(c *caddy.Controller, o *options) {
	served := plugin.Zones(plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys))
	var all []string
	for _, origins := range o.zones {
		all = append(all, origins...)
	}
	if !slices.ContainsFunc(all, served.Contains) {
		log.Warningf("None of the zones %s is inside of the server block's %s", strings.Join(all, " "), strings.Join(served, " "))
	}
}

// property parses one property of the stanza; its name has been read.
type property struct {
	parse   func(o *options, args []string) error
	files   bool // arguments are files, below *root* where they are relative
	secret  bool // a surplus argument may be what is to be in the file
	min     int  // number of arguments
	max     int  // -1: any
	repeats bool
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
	"credentials":     {parse: parseCredentials, files: true, secret: true, min: 1, max: 1},
	"tls":             {parse: parseTLS, files: true, max: 3},
	"tls_servername":  {parse: parseServerName, min: 1, max: 1},
	"poll":            {parse: parsePoll, min: 1, max: 1},
	"snapshot":        {parse: parseSnapshot, files: true, min: 1, max: 1},
	"startup_timeout": {parse: parseStartup, min: 1, max: 1},
	"fallthrough":     {parse: parseFallthrough, max: -1},
}

// parse reads a stanza.
func parse(c *caddy.Controller) (*options, error) {
	o := &options{ttl: defaultTTL, startup: defaultStartup, rules: rules{sources: []source{netinfo, host}}}
	c.Next()
	if err := parseZones(o, c.RemainingArgs()); err != nil {
		return nil, c.Err(err.Error())
	}
	seen := make(map[string]bool)
	for c.NextBlock() {
		name := c.Val()
		p, ok := properties[name]
		args := c.RemainingArgs()
		switch {
		case !ok:
			return nil, c.Errf("unknown property %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(properties)), ", "))
		case seen[name] && !p.repeats:
			return nil, c.Errf("property %q is repeated", name)
		case len(args) < p.min:
			return nil, c.Errf("property %q has %d arguments, it takes at least %d", name, len(args), p.min)
		case p.max == 0 && len(args) > 0:
			return nil, c.Errf("property %q takes no arguments: %q", name, args[0])
		case p.max >= 0 && len(args) > p.max && p.secret:
			return nil, c.Errf("property %q has %d arguments, it takes at most %d: the file %q", name, len(args), p.max, args[0])
		case p.max >= 0 && len(args) > p.max:
			return nil, c.Errf("property %q has %d arguments, it takes at most %d: %q", name, len(args), p.max, args[p.max])
		}
		seen[name] = true
		if p.files {
			args = belowRoot(dnsserver.GetConfig(c).Root, args)
		}
		if err := p.parse(o, args); err != nil {
			return nil, c.Errf("property %q: %v", name, err)
		}
	}
	if c.Next() {
		return nil, c.Errf("%q appears more than once in a server block", pluginName)
	}
	if err := o.complete(); err != nil {
		return nil, c.Err(err.Error())
	}
	return o, nil
}

// belowRoot returns files as they are named from where *root* is.
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

// complete sets defaults and checks what several properties say together.
func (o *options) complete() error {
	if len(o.zones[mesosDNS])+len(o.zones[reverse]) == 0 {
		o.zones[mesosDNS] = []string{defaultZone}
	}
	if !o.dcosSeen {
		o.zones[dcos] = []string{defaultContainerIP}
	}
	if err := o.cluster.complete(); err != nil {
		return err
	}
	for _, origin := range o.zones[dcos] {
		if slices.Contains(o.zones[mesosDNS], origin) {
			return fmt.Errorf("zone %q is in both lists, the plugin's and containerip's", origin)
		}
	}
	for _, origin := range o.zones[mesosDNS] {
		if l, ok := strings.CutSuffix(o.nsName, "."+origin); ok && namesMasterOrAgents(l) {
			return fmt.Errorf("\"ns\": %q is a name of the masters or the agents", o.nsName)
		}
	}
	if len(o.zones[reverse]) > 0 {
		if len(o.zones[mesosDNS]) == 0 {
			return fmt.Errorf("reverse zone %q needs a forward zone to point to", o.zones[reverse][0])
		}
		o.rules.pointTo = o.zones[mesosDNS][0]
	}
	return nil
}

func parseZones(o *options, args []string) error {
	for _, arg := range args {
		origins, isReverse, err := parseZone(arg)
		if err != nil {
			return err
		}
		sch := mesosDNS
		if isReverse {
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

// parseZone returns the origins that arg stands for, several if it is a CIDR
// that does not end at a label, and whether they are reverse zones.
func parseZone(arg string) (origins []string, isReverse bool, err error) {
	if prefix, err := netip.ParsePrefix(arg); err == nil {
		if origins = plugin.Host(arg).NormalizeExact(); len(origins) == 0 || prefix.Addr().Is4In6() {
			return nil, false, fmt.Errorf("zone %q stands for no reverse zone", arg)
		}
		return origins, true, nil
	}
	origin := plugin.Name(arg).Normalize()
	if !isZoneName(origin) || mesos.ParseAddr(arg).IsValid() {
		return nil, false, fmt.Errorf("zone %q is no domain name and no CIDR", arg)
	}
	isReverse = dns.IsSubDomain("in-addr.arpa.", origin) || dns.IsSubDomain("ip6.arpa.", origin)
	return []string{origin}, isReverse, nil
}

// isZoneName reports whether name is a domain name that a zone can have: of
// letters, digits, dashes and underscores, and with room for names below it.
func isZoneName(name string) bool {
	_, ok := dns.IsDomainName(name)
	illegal := strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
	return ok && !illegal && zone.FitsName(len("hostmaster.")+len(name))
}

func (o *clusterOptions) complete() error {
	if len(o.masters) == 0 && o.zookeeper == nil {
		u, err := leader.Parse(defaultMaster)
		if err != nil {
			return err
		}
		o.masters = []*url.URL{u}
	}
	if o.serverName != "" {
		if o.tls == nil {
			o.tls = &mesos.TLS{}
		}
		o.tls.ServerName = o.serverName
	}
	if o.zookeeper != nil {
		o.zookeeper.Secure = o.tls != nil
		o.zookeeper.Warn = func(text string) { log.Warningf("ZooKeeper of %s: %s", o.name(), text) }
	}
	return nil
}

func parseMasters(o *options, args []string) error {
	c := &o.cluster
	for _, arg := range args {
		if c.zookeeper != nil || len(c.masters) > 0 && isZooKeeper(arg) {
			return fmt.Errorf("%q: ZooKeeper names all masters, there can be no other", mask(arg))
		}
		if isZooKeeper(arg) {
			z, err := leader.ParseZooKeeper(arg)
			if err != nil {
				return fmt.Errorf("%q: %w", mask(arg), err)
			}
			c.zookeeper = z
			continue
		}
		u, err := leader.Parse(arg)
		if err != nil {
			return fmt.Errorf("%q: %w", mask(arg), err)
		}
		if slices.ContainsFunc(c.masters, func(m *url.URL) bool { return *m == *u }) {
			return fmt.Errorf("%q is repeated", mask(arg))
		}
		c.masters = append(c.masters, u)
	}
	return nil
}

func isZooKeeper(arg string) bool {
	return strings.HasPrefix(arg, "zk://") || strings.HasPrefix(arg, "file://")
}

func parseCredentials(o *options, args []string) (err error) {
	o.cluster.credentials = args[0]
	o.cluster.secrets, err = mesos.LoadCredentials(args[0])
	return err
}

func parseTLS(o *options, args []string) error {
	o.cluster.tls = &mesos.TLS{Files: args}
	if _, err := o.cluster.tls.Load(); err != nil {
		return fmt.Errorf("%q: %w", args, err)
	}
	return nil
}

func parseServerName(o *options, args []string) error {
	if _, ok := dns.IsDomainName(args[0]); !ok {
		return fmt.Errorf("%q is no host name", args[0])
	}
	o.cluster.serverName = args[0]
	return nil
}

func parsePoll(o *options, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minPoll {
		return fmt.Errorf("%q is no duration of %v and more, as 30s", args[0], minPoll)
	}
	o.cluster.poll = d
	return nil
}

func parseSnapshot(o *options, args []string) error {
	dir := filepath.Dir(args[0])
	if info, err := os.Stat(dir); err != nil {
		return fmt.Errorf("%q: %w", args[0], err)
	} else if !info.IsDir() {
		return fmt.Errorf("%q: %s is no directory", args[0], dir)
	}
	file, err := uniquePath(args[0])
	if err != nil {
		return fmt.Errorf("%q: %w", args[0], err)
	}
	o.cluster.snapshot = file
	return nil
}

// uniquePath returns the absolute path of a file, which need not be there,
// without symbolic links.
func uniquePath(file string) (string, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(file); err == nil {
		return target, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	return filepath.Join(dir, filepath.Base(file)), err
}

// name names the cluster by its masters, for metrics and logs.
func (o *clusterOptions) name() string {
	if o.zookeeper != nil {
		return o.zookeeper.String()
	}
	var names []string
	for _, u := range o.masters {
		names = append(names, u.Scheme+"://"+address(u))
	}
	return strings.Join(names, ",")
}

// endpoints are the masters, or the members of ZooKeeper's ensemble: two
// clusters have none in common.
func (o *clusterOptions) endpoints() []string {
	var all []string
	if z := o.zookeeper; z != nil {
		for _, server := range z.Servers {
			all = append(all, "zk://"+server+z.Path)
		}
		return all
	}
	for _, u := range o.masters {
		all = append(all, address(u))
	}
	return all
}

// address is the host of a master's API, and the path if it is not as usual.
func address(u *url.URL) string {
	if u.Path == leader.APIPath {
		return u.Host
	}
	return u.Host + u.Path
}

// key is equal for options that are. The order of the masters does not matter.
func (o *clusterOptions) key() string {
	var masters []string
	for _, u := range o.masters {
		masters = append(masters, u.String())
	}
	slices.Sort(masters)
	var zookeeper leader.ZooKeeper
	if o.zookeeper != nil {
		zookeeper = *o.zookeeper
		zookeeper.Warn = nil
	}
	var tls mesos.TLS
	if o.tls != nil {
		tls = *o.tls
	}
	return fmt.Sprintf("%q", []any{masters, zookeeper.Servers, zookeeper.Path, zookeeper.Auth, o.credentials, o.tls != nil, tls.Files, tls.ServerName, o.poll.String(), o.snapshot})
}

// newWatcher returns a watcher of the cluster, which writes the snapshot as long
// as owned.
func (o *clusterOptions) newWatcher(owned func() bool) *watcher {
	var finder leader.Finder = leader.List(o.masters)
	if o.zookeeper != nil {
		finder = o.zookeeper
	}
	w := newWatcher(o.name(), finder, mesos.NewClient(mesos.Config{Credentials: o.secrets, TLS: o.tls}), resolve.New(nil))
	w.follower.Poll = o.poll
	if o.snapshot != "" {
		w.store = newStore(o.snapshot, w.name, o.endpoints(), owned)
	}
	return w
}

// mask hides what may be the user information of a URL, well-formed or not.
func mask(endpoint string) string {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	if scheme += "://"; !ok {
		scheme, rest = "", endpoint
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		return scheme + "***" + rest[at:]
	}
	host, _, _ := strings.Cut(rest, "/")
	for server := range strings.SplitSeq(host, ",") {
		port := server[strings.LastIndexByte(server, ':')+1:]
		if strings.Contains(server, ":") && strings.ContainsFunc(port, func(r rune) bool { return r < '0' || r > '9' }) {
			return scheme + "***" // user:password, of which the rest was cut off
		}
	}
	return endpoint
}

func parseContainerIP(o *options, args []string) error {
	o.dcosSeen = true
	for _, arg := range args {
		origins, isReverse, err := parseZone(arg)
		switch {
		case err != nil:
			return err
		case isReverse:
			return fmt.Errorf("zone %q is a reverse zone", arg)
		case slices.Contains(o.zones[dcos], origins[0]):
			return fmt.Errorf("zone %q is repeated", arg)
		}
		o.zones[dcos] = append(o.zones[dcos], origins[0])
	}
	return nil
}

func parseSources(o *options, args []string) error {
	o.rules.sources = nil
	for _, arg := range args {
		s, ok := sourceNames[arg]
		switch {
		case !ok:
			return fmt.Errorf("%q is none of netinfo, host, auto, docker, mesos", arg)
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
			return fmt.Errorf("%q is no CIDR, as 192.168.0.0/16", arg)
		}
		if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
		}
		o.rules.allow = append(o.rules.allow, prefix.Masked())
	}
	return nil
}

func parseHealth(o *options, _ []string) error {
	o.rules.health = true
	return nil
}

func parseVisibility(o *options, args []string) error {
	switch args[0] {
	case "framework":
		o.rules.visibility = mesos.VisibilityFramework
	case "cluster":
		o.rules.visibility = mesos.VisibilityCluster
	case "external":
		o.rules.visibility = mesos.VisibilityExternal
	default:
		return fmt.Errorf("%q is none of framework, cluster, external", args[0])
	}
	return nil
}

func parseNS(o *options, args []string) error {
	o.nsName = plugin.Name(args[0]).Normalize()
	if !isZoneName(o.nsName) || o.nsName == "." || mesos.ParseAddr(args[0]).IsValid() {
		return fmt.Errorf("%q is no domain name", args[0])
	}
	for _, arg := range args[1:] {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("%q is no address of a name server", arg)
		}
		o.nsAddrs = append(o.nsAddrs, addr.Unmap())
	}
	return nil
}

func parseTTL(o *options, args []string) error {
	ttl, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil || ttl > maxTTL {
		return fmt.Errorf("%q is no number of seconds from 0 to %d", args[0], maxTTL)
	}
	o.ttl = uint32(ttl)
	return nil
}

func parseStartup(o *options, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < 0 {
		return fmt.Errorf("%q is no duration, as 5s", args[0])
	}
	o.startup = d
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

// bypassZones are the zones that *cache* leaves alone: a reverse zone only
// where no other plugin answers for parts of it.
func (o *options) bypassZones() []string {
	zones := slices.Concat(o.zones[mesosDNS], o.zones[dcos])
	for _, origin := range o.zones[reverse] {
		inside := func(zone string) bool { return dns.IsSubDomain(origin, zone) }
		if !o.fall.Through(origin) && !slices.ContainsFunc(o.fall.Zones, inside) {
			zones = append(zones, origin)
		}
	}
	return zones
}

// inside returns the stanza's other zones that are inside of origin.
func (o *options) inside(origin string) []string {
	return slices.DeleteFunc(slices.Concat(o.zones[:]...), func(other string) bool {
		return other == origin || !dns.IsSubDomain(origin, other)
	})
}

// newZones makes the zones, served from the given addresses, to be transferred or
// not.
func (o *options) newZones(listening []netip.Addr, transferred bool) [schemes][]*zone.Zone {
	addrs := o.nsAddrs
	if len(addrs) == 0 {
		addrs = listening
	}
	var zones [schemes][]*zone.Zone
	for sch, origins := range o.zones {
		for _, origin := range origins {
			ns := o.nsName
			switch {
			case ns != "":
			case scheme(sch) == reverse:
				ns = zone.Join("ns1", o.zones[mesosDNS][0])
			default:
				ns = zone.Join("ns1", origin)
			}
			z := zone.New(zone.Config{Origin: origin, TTL: o.ttl, NS: ns, Addrs: addrs, Nested: o.inside(origin), Subs: tails[sch], Journal: transferred})
			if owner, ok := z.Relative(ns); ok && scheme(sch) == mesosDNS {
				o.rules.nsOwners = append(o.rules.nsOwners, owner)
			}
			zones[sch] = append(zones[sch], z)
		}
	}
	return zones
}

// listeningAddrs returns the addresses that hosts, as *bind* gives them, stand
// for: explicit ones as they are, for a wildcard those of the interfaces.
func listeningAddrs(hosts []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, h := range hosts {
		addr := mesos.ParseAddr(h)
		if addr.IsValid() && !addr.IsUnspecified() {
			addrs = append(addrs, addr)
			continue
		}
		if !addr.IsValid() && h != "" {
			continue // with a zone: only valid on its link
		}
		all, err := net.InterfaceAddrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of the interfaces: %w", err)
		}
		addrs = append(addrs, interfaceAddrs(all, addr)...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// interfaceAddrs returns the addresses that a server on the wildcard address
// answers at: loopback only if there is no other, never link-local.
func interfaceAddrs(all []net.Addr, wildcard netip.Addr) []netip.Addr {
	var addrs, loopback []netip.Addr
	for _, a := range all {
		addr := mesos.ParseAddr(a.String())
		switch {
		case !addr.IsValid() || addr.IsLinkLocalUnicast() || wildcard.Is4() && !addr.Is4():
		case addr.IsLoopback():
			loopback = append(loopback, addr)
		default:
			addrs = append(addrs, addr)
		}
	}
	if len(addrs) == 0 {
		return loopback
	}
	return addrs
}

// instance is a running stanza.
type instance struct {
	server    string // label "server" of the metrics
	masters   []*url.URL
	watcher   *sharedWatcher
	publisher *publisher
	cancel    context.CancelFunc
	notifying chan struct{} // closed when the notifier has ended
}

// start makes the zones, with the serials of those that they take the place of,
// and has them published. It cannot fail.
func (i *instance) start(p *CalicoMesos, o *options, cfg *dnsserver.Config) {
	listening, err := listeningAddrs(cfg.ListenHosts)
	if err != nil {
		log.Warningf("No addresses for the zones' name server: %v", err)
	}
	i.server = cfg.Transport + "://" + net.JoinHostPort(slices.Concat(cfg.ListenHosts, []string{""})[0], cfg.Port)
	xfer, _ := cfg.Handler("transfer").(*transfer.Transfer)
	zones := o.newZones(listening, xfer != nil)
	p.zones = slices.Concat(zones[:]...)
	for _, z := range p.zones {
		z.Replaces(running.zone(i.server, z.Origin))
	}
	slices.SortStableFunc(p.zones, func(a, b *zone.Zone) int { return len(b.Origin) - len(a.Origin) })

	n := newNotifier(xfer.Notify, &p.transfers)
	i.publisher = newPublisher(&o.rules, zones, n.changed, p.ready)
	i.masters = o.cluster.masters

	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	i.notifying = make(chan struct{})
	go func() {
		defer close(i.notifying)
		n.run(ctx)
	}()
	i.watcher = running.acquire(&o.cluster)
	running.add(i)
	i.watcher.add(i.publisher)
}

// stop ends what start began. A NOTIFY that a secondary does not answer is
// waited for no longer than notifyPatience.
func (i *instance) stop() {
	if i.cancel == nil {
		return
	}
	i.watcher.remove(i.publisher)
	i.cancel()
	running.remove(i)
	running.release(i.watcher)
	select {
	case <-i.notifying:
	case <-time.After(notifyPatience):
		log.Warning("A NOTIFY is still under way at shutdown")
	}
	i.cancel = nil
}

// startGroup starts the stanzas of a Corefile, and then waits for all of them
// together.
type startGroup struct {
	starts    []func() *instance
	timeouts  []time.Duration
	instances []*instance
	snapshots map[string]string // files, and the key of the cluster that each is of
}

type startGroupKey struct{}

// startGroupOf returns the group of the Corefile that c is part of.
func startGroupOf(c *caddy.Controller) *startGroup {
	if g, ok := c.Get(startGroupKey{}).(*startGroup); ok {
		return g
	}
	g := &startGroup{snapshots: make(map[string]string)}
	c.Set(startGroupKey{}, g)
	c.OnStartup(g.run)
	c.OnRestartFailed(func() error {
		running.settle()
		return nil
	})
	return g
}

// A start that fails after ours, with a port in use for example, calls none of
// the callbacks of what was started. Caddy lists no such instance.
func init() {
	caddy.RegisterEventHook(pluginName, func(event caddy.EventName, _ any) error {
		if event == caddy.InstanceStartupEvent {
			running.settle()
		}
		return nil
	})
}

// claim notes whose snapshot a file is.
func (g *startGroup) claim(o *clusterOptions) error {
	if o.snapshot == "" {
		return nil
	}
	key := o.key()
	if other, ok := g.snapshots[o.snapshot]; ok && other != key {
		return fmt.Errorf("property %q: %q is the file of another stanza, which watches another cluster or in another way", "snapshot", o.snapshot)
	}
	g.snapshots[o.snapshot] = key
	return nil
}

func (g *startGroup) add(start func() *instance, timeout time.Duration) {
	g.starts = append(g.starts, start)
	g.timeouts = append(g.timeouts, timeout)
}

func (g *startGroup) stop() {
	for _, i := range g.instances {
		i.stop()
	}
}

func (g *startGroup) run() error {
	began := time.Now()
	running.settle() // what failed before
	running.begin(g)
	for _, start := range g.starts {
		g.instances = append(g.instances, start())
	}
	for k, i := range g.instances {
		if isClosed(i.publisher.ready) {
			continue
		}
		timer := time.NewTimer(g.timeouts[k] - time.Since(began))
		select {
		case <-i.publisher.ready:
		case <-timer.C:
			log.Warningf("No state of %s after %s: answering SERVFAIL until there is one", i.watcher.name, g.timeouts[k])
		}
		timer.Stop()
	}
	return nil
}

// running is what runs in this process. It is the plugin's only package-level
// state besides the counters.
var running = registry{
	watchers: make(map[string]*sharedWatcher),
	pending:  make(map[*startGroup]bool),
}

// registry has the stanzas that run and the watchers that they share, also
// across a reload.
type registry struct {
	mu        sync.Mutex
	instances []*instance               // in the order in which they were started
	watchers  map[string]*sharedWatcher // by clusterOptions.key
	pending   map[*startGroup]bool      // started, and not known to run
}

// sharedWatcher is a watcher and how many stanzas use it.
type sharedWatcher struct {
	*watcher
	key     string
	users   int
	masters []*url.URL // as the last stanza that runs orders them
	current bool       // a stanza that runs uses it: it may write its snapshot
}

// acquire returns the watcher of a cluster, which release is to be called for.
func (r *registry) acquire(o *clusterOptions) *sharedWatcher {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := o.key()
	w := r.watchers[key]
	if w == nil {
		w = &sharedWatcher{key: key, masters: o.masters}
		w.watcher = o.newWatcher(func() bool { return r.owns(w) })
		r.watchers[key] = w
		w.start()
	}
	w.users++
	return w
}

// owns reports whether w may write its snapshot: not as long as the start may
// fail that it is part of, since the file may be that of another watcher.
func (r *registry) owns(w *sharedWatcher) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return w.current
}

// release stops w if nobody else uses it.
func (r *registry) release(w *sharedWatcher) {
	r.mu.Lock()
	w.users--
	last := w.users == 0
	if last {
		delete(r.watchers, w.key)
	}
	r.mu.Unlock()
	if !last {
		return
	}
	w.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.watchers {
		if other.name == w.name {
			return
		}
	}
	forgetCluster(w.name)
}

func (r *registry) add(i *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = append(r.instances, i)
}

func (r *registry) remove(i *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.instances = slices.DeleteFunc(r.instances, func(other *instance) bool { return other == i })
}

// zone returns the zone that is served at present; nil without one.
func (r *registry) zone(server, origin string) *zone.Zone {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.instances {
		for z := range i.publisher.all {
			if i.server == server && z.Origin == origin {
				return z.Zone
			}
		}
	}
	return nil
}

// begin notes that g is being started.
func (r *registry) begin(g *startGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending[g] = true
}

// settle finds out of all that was started whether it runs, and stops what does
// not.
func (r *registry) settle() {
	runs := make(map[*startGroup]bool)
	for _, i := range caddy.Instances() {
		// One without a server has failed by a panic.
		if g, ok := i.Storage[startGroupKey{}].(*startGroup); ok && len(i.Servers()) > 0 {
			runs[g] = true
		}
	}
	r.mu.Lock()
	groups := slices.Collect(maps.Keys(r.pending))
	clear(r.pending)
	r.mu.Unlock()
	for _, g := range groups {
		if !runs[g] {
			g.stop()
			continue
		}
		for _, i := range g.instances {
			r.settled(i)
		}
	}
}

// settled notes that i runs: its watcher may write its snapshot, and counts the
// masters as the stanza orders them.
func (r *registry) settled(i *instance) {
	r.mu.Lock()
	w := i.watcher
	w.current = true
	reordered := !slices.EqualFunc(w.masters, i.masters, func(a, b *url.URL) bool { return *a == *b })
	w.masters = i.masters
	r.mu.Unlock()
	if reordered {
		w.number(i.masters)
	}
	w.settle(i.publisher)
}
