package calicomesos

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/resolve"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/miekg/dns"
)

// clusterOptions say how to watch a cluster. Stanzas with equal ones share a watcher.
type clusterOptions struct {
	label       string   // names the cluster in metrics and logs; "": its masters do
	masterArgs  []string // those of masters, which are parsed once it is known whether there is TLS
	masters     []*url.URL
	zookeeper   *detector.ZooKeeper // says which master leads; nil without
	credentials *mesos.Credentials  // nil: none
	tls         *mesos.TLS          // nil: the system's certificate authorities
	serverName  string
	poll        time.Duration // 0: subscribe
	snapshot    string        // file, "": none
}

func (o *clusterOptions) complete() error {
	if o.serverName != "" {
		if o.tls == nil {
			o.tls = &mesos.TLS{}
		}
		o.tls.ServerName = o.serverName
	}
	if o.zookeeper != nil {
		o.zookeeper.Secure = o.tls != nil
	}
	if len(o.masterArgs) == 0 && o.zookeeper == nil {
		o.masterArgs = []string{defaultMaster}
	}
	for _, endpoint := range o.masterArgs {
		if err := o.addMaster(endpoint); err != nil {
			return &propertyError{"master", err}
		}
	}
	return nil
}

// addMaster parses an endpoint. With TLS none is asked in clear: that would send the secret
// to whoever listens.
func (o *clusterOptions) addMaster(endpoint string) error {
	scheme := "http"
	if o.tls != nil {
		scheme = "https"
	}
	u, err := detector.ParseMaster(endpoint, scheme)
	switch {
	case err != nil:
		return fmt.Errorf("invalid master %q: %w", mask(endpoint), err)
	case u.Scheme != scheme && o.tls != nil:
		return fmt.Errorf("%q must be https, since there is \"tls\" or \"tls_servername\"", mask(endpoint))
	case slices.ContainsFunc(o.masters, func(m *url.URL) bool { return *m == *u }):
		return fmt.Errorf("%q is repeated", mask(endpoint))
	}
	o.masters = append(o.masters, u)
	return nil
}

func parseMasters(o *options, args []string) error {
	c := &o.cluster
	for _, arg := range args {
		scheme, _, _ := strings.Cut(strings.ToLower(arg), "://")
		isZooKeeper := scheme == "zk" || scheme == "file"
		if isZooKeeper {
			if c.zookeeper != nil {
				return fmt.Errorf("%q: there is another ZooKeeper ensemble", mask(arg))
			}
			z, err := detector.ParseZooKeeper(arg)
			if err != nil {
				return fmt.Errorf("invalid master %q: %w", mask(arg), err)
			}
			c.zookeeper = z
			continue
		}
		c.masterArgs = append(c.masterArgs, strings.Split(arg, ",")...)
	}
	return nil
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
		port := strings.Trim(server[strings.LastIndexByte(server, ':')+1:], `'"`)
		if strings.Contains(server, ":") && strings.ContainsFunc(port, func(r rune) bool { return r < '0' || r > '9' }) {
			return scheme + "***" // user:password, without the rest
		}
	}
	return endpoint
}

// parseCluster parses the name of the cluster. It is a label, and part of lines of the log.
func parseCluster(o *options, args []string) error {
	name := args[0]
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return fmt.Errorf("invalid name %q: must be of printable characters", name)
	}
	o.cluster.label = name
	return nil
}

func parseCredentials(o *options, args []string) (err error) {
	o.cluster.credentials, err = mesos.LoadCredentials(args[0])
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
	if name := dns.Fqdn(strings.ToLower(args[0])); !isZoneName(name) || name == "." {
		return fmt.Errorf("invalid host name %q", args[0])
	}
	o.cluster.serverName = args[0]
	return nil
}

func parsePoll(o *options, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil || d < minPoll {
		return fmt.Errorf("invalid poll interval %q: must be a duration of at least %v", args[0], minPoll)
	}
	o.cluster.poll = d
	return nil
}

func parseSnapshot(o *options, args []string) error {
	dir := filepath.Dir(args[0])
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New(dir + " must be a directory")
	}
	if err == nil {
		o.cluster.snapshot, err = resolvePath(args[0])
	}
	if err == nil {
		err = snapshot.CheckDir(o.cluster.snapshot)
	}
	if err != nil {
		return fmt.Errorf("%q: %w", args[0], err)
	}
	return nil
}

// resolvePath returns the absolute path of a file without symbolic links. The file need not
// exist.
func resolvePath(file string) (string, error) {
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

// name names the cluster for metrics and logs: by "cluster", or else by its masters.
func (o *clusterOptions) name() string {
	if o.label != "" {
		return o.label
	}
	var names []string
	if o.zookeeper != nil {
		names = append(names, o.zookeeper.String())
	}
	for _, u := range o.masters {
		names = append(names, u.Scheme+"://"+hostAndPath(u))
	}
	return strings.Join(names, ",")
}

// tellsSecretToZooKeeper reports whether the secret is sent to any master that ZooKeeper
// names: without ACLs, as far as can be told, and without certificates.
func (o *clusterOptions) tellsSecretToZooKeeper() bool {
	return o.zookeeper != nil && o.credentials != nil && o.tls == nil && o.zookeeper.Auth == ""
}

// endpoints returns the members of the ensemble, and the masters: a snapshot with none of
// them is of another cluster.
func (o *clusterOptions) endpoints() []string {
	var all []string
	if z := o.zookeeper; z != nil {
		for _, server := range z.Servers {
			all = append(all, "zk://"+server+z.Path)
		}
	}
	for _, u := range o.masters {
		all = append(all, hostAndPath(u))
	}
	return all
}

// hostAndPath returns the host of a master's API, with its path unless that is the usual one.
func hostAndPath(u *url.URL) string {
	if u.Path == detector.APIPath {
		return u.Host
	}
	return u.Host + u.Path
}

// key returns a text that is equal for equal options.
func (o *clusterOptions) key() string {
	zookeeper, auth := "", ""
	if z := o.zookeeper; z != nil {
		zookeeper, auth = z.String(), z.Auth
	}
	tls := "none"
	if o.tls != nil {
		tls = fmt.Sprintf("%q", append([]string{o.tls.ServerName}, o.tls.Files...))
	}
	credentials := ""
	if o.credentials != nil {
		credentials = o.credentials.File()
	}
	return fmt.Sprintf("%q %q %q %q %q %q %v %q", o.label, o.masters, zookeeper, auth, credentials, tls, o.poll, o.snapshot)
}

// watches reports whether equal watchers, but for their names, serve o and other.
func (o *clusterOptions) watches(other *clusterOptions) bool {
	a, b := *o, *other
	a.label, b.label = "", ""
	return a.key() == b.key()
}

// newWatcher returns a watcher of the cluster. It writes the snapshot only while owned
// returns true.
func (o *clusterOptions) newWatcher(owned func() bool) *watch.Watcher {
	c := watch.Config{
		Name:     o.name(),
		Detector: o.detector(),
		Client:   mesos.NewClient(mesos.Config{Credentials: o.credentials, TLS: o.tls, LoginFailed: observer(o.name()).loginFailed}),
		Resolver: resolve.New(nil),
		Poll:     o.poll,
		Observer: observer(o.name()),
		Advice:   o.advice,
	}
	if o.snapshot != "" {
		c.Snapshot = &watch.SnapshotConfig{File: o.snapshot, Endpoints: o.endpoints(), Owned: owned}
	}
	return watch.New(c)
}

// advice returns what can be done about an error of a master, where that is known, or "".
func (o *clusterOptions) advice(err error) string {
	var status *mesos.StatusError
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return `name the authority of its certificate in "tls"`
	case errors.As(err, new(x509.HostnameError)):
		return `name the host in its certificate in "tls_servername"`
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it speaks no TLS"
	case !errors.As(err, &status):
		return ""
	}
	switch status.Code {
	case http.StatusUnauthorized:
		if o.credentials == nil {
			return `it demands authentication: set "credentials"`
		}
		return "check what is in " + o.credentials.File()
	case http.StatusForbidden:
		return "check what its ACLs allow the principal"
	case http.StatusNotFound:
		return `check the path in "master": no operator API is there`
	case http.StatusBadRequest, http.StatusNotImplemented:
		if o.poll == 0 {
			return `it may not know SUBSCRIBE: set "poll"`
		}
	}
	return ""
}

// detector returns what finds the masters.
func (o *clusterOptions) detector() detector.Detector {
	switch {
	case o.zookeeper == nil:
		return detector.Static(o.masters)
	case len(o.masters) == 0:
		return o.zookeeper
	}
	return detector.Fallback{ZooKeeper: o.zookeeper, List: o.masters}
}
