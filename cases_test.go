package calicomesos

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"

	"github.com/miekg/dns"
)

// A testCase is a block of a file in testdata/cases. Its README.md tells the format.
type testCase struct {
	file, name string
	lines      []string
}

// readCases returns the cases of a file.
func readCases(t testing.TB, name string) []testCase {
	t.Helper()
	file := filepath.Join("testdata", "cases", name)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []testCase
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch title, isTitle := strings.CutPrefix(line, "== "); {
		case isTitle:
			all = append(all, testCase{file: file, name: title})
		case line == "" || strings.HasPrefix(line, "#"):
		case len(all) == 0:
			t.Fatalf("%s: %q stands before the first case", file, line)
		default:
			all[len(all)-1].lines = append(all[len(all)-1].lines, line)
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s has no cases", file)
	}
	return all
}

// take removes the lines that begin with prefix, and returns them without it.
func (c *testCase) take(prefix string) []string {
	var taken []string
	c.lines = slices.DeleteFunc(c.lines, func(line string) bool {
		rest, ok := strings.CutPrefix(line, prefix)
		if ok {
			taken = append(taken, rest)
		}
		return ok
	})
	return taken
}

// TestRules publishes the cluster of each case, and compares the zones with what it wants.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/rules-*.txt")
	if err != nil || len(files) < 4 {
		t.Fatalf("only %d files: %v", len(files), err)
	}
	fixture, _ := (&ruleCase{t: t}).publish()
	for _, file := range files {
		for _, tc := range readCases(t, filepath.Base(file)) {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+tc.name, func(t *testing.T) {
				c := &ruleCase{t: t}
				renames, same, nothing := tc.take("rename "), tc.take("same"), tc.take("nothing")
				all, more, less, skips := tc.take("= "), tc.take("+ "), tc.take("- "), tc.take("skip ")
				for _, line := range tc.lines {
					c.state(line)
				}
				if len(all)+len(more)+len(less)+len(renames)+len(skips)+len(nothing)+len(same) == 0 {
					t.Fatal("the case wants nothing")
				}
				got, skipped := c.publish()
				want := all
				if len(all)+len(nothing) == 0 {
					want = c.changed(fixture, renames, more, less)
				}
				for i := range want {
					want[i] = c.spell(want[i])
				}
				if !slices.Equal(got, sorted(want)) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if want := c.skips(skips); !maps.Equal(skipped, want) {
					t.Errorf("skipped %v, want %v", skipped, want)
				}
			})
		}
	}
}

// TestExplain publishes the cluster of each case, and asks why names answer what they answer.
func TestExplain(t *testing.T) {
	for _, tc := range readCases(t, "explain.txt") {
		t.Run(tc.name, func(t *testing.T) {
			c := &ruleCase{t: t}
			questions, absent := tc.take("? "), tc.take("! ")
			for _, line := range tc.lines {
				c.state(line)
			}
			i := c.insight()
			for n, q := range append(slices.Clone(questions), absent...) {
				name, want, _ := strings.Cut(q, ": ")
				e, err := i.Explain(t.Context(), c.spell(name))
				if err != nil {
					t.Fatal(err)
				}
				said := append([]string{e.Rcode}, slices.Concat(e.Answer, e.Reasons)...)
				for _, task := range e.Tasks {
					said = append(said, fmt.Sprintf("%s published=%v source=%s addresses=%v", task.ID, task.Published, task.Source, task.Addresses))
					said = append(said, task.Skipped...)
				}
				if text := strings.Join(said, "\n"); strings.Contains(text, c.spell(want)) != (n < len(questions)) {
					t.Errorf("%s: %q is in it: %v\n%s", name, want, n >= len(questions), text)
				}
			}
		})
	}
}

// ruleCase is the cluster of a case: options, and a state that begins as the fixture.
type ruleCase struct {
	t          *testing.T
	options    []string
	tasks      []*mesos.Task
	frameworks []*mesos.Framework
	agents     []*mesos.Agent
	masters    *cluster.Masters
	none       map[string]bool // kinds of objects that the case has none of
	incomplete bool            // the state of the cluster is
	only       string          // the domain that the case is about; "": all
}

// state takes in a line of a case: an option, or an object in place of the fixture's.
func (c *ruleCase) state(line string) {
	kind, rest, _ := strings.Cut(line, " ")
	if rest == "none" {
		if c.none == nil {
			c.none = make(map[string]bool)
		}
		c.none[kind] = true
		return
	}
	name, args := "", strings.Fields(rest)
	if strings.HasPrefix(rest, "`") { // a name with blanks
		name, rest, _ = strings.Cut(rest[1:], "`")
		args = strings.Fields(rest)
	} else if len(args) > 0 && !strings.Contains(args[0], "=") {
		name, args = args[0], args[1:]
	}
	switch kind {
	case "incomplete":
		c.incomplete = true
	case "only":
		c.only = name + "."
	case "options":
		c.options = append(c.options, rest)
	case "task":
		c.task(c.repeat(name), args)
	case "framework":
		f := &mesos.Framework{ID: fmt.Sprintf("x-%04d", len(c.frameworks)), Name: c.repeat(name)}
		c.each(args, map[string]func(string){
			"host":      func(v string) { f.Hostname = v },
			"webui":     func(v string) { f.WebUIURL = v },
			"principal": func(v string) { f.Principal = v },
		})
		c.frameworks = append(c.frameworks, f)
	case "agent":
		a := &mesos.Agent{ID: fmt.Sprintf("x-S%d", len(c.agents)), Addr: mesos.ParseAddr(name), Port: 5051}
		c.each(args, map[string]func(string){"port": func(v string) { a.Port = uint32(c.number(v)) }})
		c.agents = append(c.agents, a)
	case "masters":
		c.masters = &cluster.Masters{}
		c.each(args, map[string]func(string){
			"leader": func(v string) { c.masters.Leader = c.addrs(v) },
			"port":   func(v string) { c.masters.Port = uint16(c.number(v)) },
			"master": func(v string) { c.masters.All = append(c.masters.All, c.addrs(v)) },
		})
	default:
		c.t.Fatalf("unknown line %q", line)
	}
}

// repeat expands `a*80`.
func (c *ruleCase) repeat(text string) string {
	return regexp.MustCompile(`([\w.])\*(\d+)`).ReplaceAllStringFunc(text, func(m string) string {
		return strings.Repeat(m[:1], int(c.number(m[2:])))
	})
}

func (c *ruleCase) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// addrs parses addresses with commas between them. What is not one is the zero address.
func (c *ruleCase) addrs(text string) []netip.Addr {
	var all []netip.Addr
	for part := range strings.SplitSeq(text, ",") {
		if part != "" {
			all = append(all, mesos.ParseAddr(part))
		}
	}
	return all
}

// each calls the function for the key of each argument key=value.
func (c *ruleCase) each(args []string, functions map[string]func(value string)) {
	for _, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		f, ok := functions[key]
		if !ok {
			c.t.Fatalf("unknown argument %q", arg)
		}
		f(value)
	}
}

// task adds a task on the first agent, at 192.0.2.N unless its arguments say otherwise.
func (c *ruleCase) task(name string, args []string) {
	n := len(c.tasks) + 1
	task := &mesos.Task{
		ID: fmt.Sprintf("app.%d", n), FrameworkID: "x-0000", AgentID: "x-S0", Name: name, State: mesos.TaskRunning,
		Status: mesos.Status{Networks: []mesos.Network{{Name: "calico", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}}}},
	}
	discovery := func() *mesos.Discovery {
		if task.Discovery == nil {
			task.Discovery = &mesos.Discovery{Name: name}
		}
		return task.Discovery
	}
	labels := func() *mesos.StatusLabels {
		if task.Status.Labels == nil {
			task.Status.Labels = &mesos.StatusLabels{}
		}
		return task.Status.Labels
	}
	c.each(args, map[string]func(string){
		"discovery":  func(v string) { discovery().Name = v },
		"visibility": func(v string) { discovery().Visibility = visibilityNames[v] },
		"port":       func(v string) { discovery().Ports = append(discovery().Ports, c.port(v)) },
		"ports": func(v string) {
			begin, end, _ := strings.Cut(v, "-")
			task.Ports = append(task.Ports, mesos.PortRange{Begin: c.number(begin), End: c.number(end)})
		},
		"vip": func(v string) {
			index, protocol, _ := strings.Cut(v, "/")
			task.VIPPorts = append(task.VIPPorts, mesos.VIPPort{Index: int(c.number(index)), Protocol: protocol})
		},
		"net": func(v string) {
			network, addrs, _ := strings.Cut(v, "/")
			task.Status.Networks = nil
			if v != "" {
				task.Status.Networks = []mesos.Network{{Name: network, Addrs: c.addrs(addrs)}}
			}
		},
		"launched": func(v string) { task.Container.Networks, task.Container.Named = 1, v != "" },
		"docker":   func(v string) { task.Container.Docker, task.Container.PortMappings = true, c.mappings(v) },
		"cni":      func(v string) { task.Container.Networks, task.Container.PortMappings = 1, c.mappings(v) },
		"pod":      func(v string) { task.Status.Networks[0].PortMappings = c.mappings(v) },
		"health":   func(string) { task.Status.Health = mesos.Unhealthy },
		"label.docker": func(v string) {
			labels().Docker = c.addrs(v)
		},
		"label.mesos": func(v string) { labels().Mesos = c.addrs(v) },
		"bridged":     func(string) { task.Container.Bridged = true },
		"haproxy": func(v string) {
			key, value, _ := strings.Cut(v, ":")
			task.HAProxy = append(task.HAProxy, mesos.Label{Key: "HAPROXY_" + key, Value: strings.ReplaceAll(c.repeat(value), "~", " ")})
		},
		"agent":     func(v string) { task.AgentID = v },
		"framework": func(v string) { task.FrameworkID = v },
		"state":     func(v string) { task.State = mesos.TaskState(c.number(v)) },
		"id":        func(v string) { task.ID = v },
	})
	c.tasks = append(c.tasks, task)
}

// port parses NUMBER[/PROTOCOL[/NAME]], of the agent with a final @host.
func (c *ruleCase) port(text string) mesos.Port {
	text, isHost := strings.CutSuffix(text, "@host")
	parts := append(strings.Split(text, "/"), "", "")
	return mesos.Port{Number: uint32(c.number(parts[0])), Protocol: parts[1], Name: c.repeat(parts[2]), Host: isHost}
}

// mappings parses HOST:CONTAINER[/PROTOCOL], with commas between them.
func (c *ruleCase) mappings(text string) []mesos.PortMapping {
	var all []mesos.PortMapping
	for part := range strings.SplitSeq(text, ",") {
		ports, protocol, _ := strings.Cut(part, "/")
		onHost, inContainer, _ := strings.Cut(ports, ":")
		all = append(all, mesos.PortMapping{HostPort: uint32(c.number(onHost)), ContainerPort: uint32(c.number(inContainer)), Protocol: protocol})
	}
	return all
}

// insight publishes the cluster, and returns what the API tells of it.
func (c *ruleCase) insight() *insight {
	o, err := parseStanza(fmt.Sprintf("calicomesos mesos 192.0.2.0/24 fd00::/16 {\n containerip dcos\n%s\n}", strings.Join(c.options, "\n")))
	if err != nil {
		c.t.Fatal(err)
	}
	if len(c.tasks) == 0 && !c.none["task"] {
		c.task("app", nil)
	}
	if len(c.frameworks) == 0 && !c.none["framework"] {
		c.state("framework marathon")
	}
	if len(c.agents) == 0 && !c.none["agent"] {
		c.state("agent 10.0.0.1")
	}
	p := newPublisher(&o.rules, o.newZones(nil, false), func(string) {}, make(chan struct{}))
	p.hosts = knownHosts{}
	model := cluster.New(nil)
	var tasks []mesos.PackedTask
	for _, t := range c.tasks {
		tasks = append(tasks, t.Pack())
	}
	model.State(&mesos.State{Tasks: tasks, Frameworks: c.frameworks, Agents: c.agents}, cluster.Leader{ID: "m"}, time.Now())
	if c.masters != nil {
		model.SetMasters(c.masters)
	}
	ch := model.Flush()
	p.Publish(&ch, watch.Status{Complete: !c.incomplete})
	plugin := &CalicoMesos{Fall: o.fall, ready: p.ready}
	for z := range p.all {
		plugin.zones = append(plugin.zones, z.Zone)
	}
	return &insight{plugin: plugin, options: o, zones: p.zones, take: func(context.Context) (*cluster.View, error) { return viewOf(model), nil }}
}

// publish returns the records of all zones, and the counts of skipped things other than 0.
func (c *ruleCase) publish() (records []string, skipped map[string]int) {
	skipped = make(map[string]int)
	i := c.insight()
	for _, z := range slices.Concat(i.zones[:]...) {
		if c.only != "" && !dns.IsSubDomain(c.only, z.Origin) {
			continue
		}
		for line := range zoneLines(z.Current()) {
			records = append(records, strings.ReplaceAll(strings.ReplaceAll(line, ". ", " "), ".:", ":"))
		}
		for why, n := range z.skipped.Load() {
			if n != 0 {
				skipped[z.Origin+" "+reasonNames[why]] = n
			}
		}
	}
	for i := range records {
		records[i] = strings.TrimSuffix(records[i], ".")
	}
	return sorted(records), skipped
}

// changed returns the fixture's records with names or addresses renamed, and with more and
// less records.
func (c *ruleCase) changed(fixture, renames, more, less []string) []string {
	want := slices.Clone(fixture)
	for _, r := range renames {
		from, to, _ := strings.Cut(r, " ")
		whole := regexp.MustCompile(`(^|[ _.])` + regexp.QuoteMeta(from) + `($|[:.-])`)
		for i := range want {
			want[i] = whole.ReplaceAllString(want[i], "${1}"+c.repeat(to)+"${2}")
		}
	}
	for _, l := range less {
		i := slices.Index(want, c.spell(l))
		if i < 0 {
			c.t.Fatalf("%q is to go, and not there:\n%s", l, strings.Join(want, "\n"))
		}
		want = slices.Delete(want, i, i+1)
	}
	return append(want, more...)
}

// spell expands HASH and HASHn, the suffix of the first or n-th task's canonical name, and
// repeated letters.
func (c *ruleCase) spell(record string) string {
	record = c.repeat(record)
	for i, task := range slices.Backward(c.tasks) {
		suffix := canonicalSuffix(task.ID, task.AgentID)[1:]
		record = strings.ReplaceAll(record, fmt.Sprintf("HASH%d", i+1), suffix)
		if i == 0 {
			record = strings.ReplaceAll(record, "HASH", suffix)
		}
	}
	return record
}

// skips parses wanted counts: [ZONE] REASON N, of both forward zones without ZONE.
func (c *ruleCase) skips(lines []string) map[string]int {
	want := make(map[string]int)
	for _, line := range lines {
		words := strings.Fields(line)
		zones := []string{"mesos.", "dcos."}
		if len(words) == 3 {
			zones, words = words[:1], words[1:]
		}
		for _, z := range zones {
			want[dns.Fqdn(z)+" "+words[0]] = int(c.number(words[1]))
		}
	}
	return want
}

// FuzzStanza parses anything as a stanza. Files that it names are read, and directories for a
// snapshot written to, so those are left out.
func FuzzStanza(f *testing.F) {
	for _, tc := range readCases(f, "options.txt") {
		tc.take("-> ")
		tc.take("error ")
		f.Add(strings.Join(tc.lines, "\n"))
	}
	f.Fuzz(func(_ *testing.T, properties string) {
		for _, named := range []string{"snapshot", "credentials", "tls", "file:", "import"} {
			if strings.Contains(strings.ToLower(properties), named) {
				return
			}
		}
		o, err := parseStanza(pluginName + " mesos {\n" + properties + "\n}")
		if err == nil {
			o.newZones(nil, false)
			_ = describeOptions(o)
		}
	})
}

// TestOptions parses the stanza of each case, and compares the options or the error.
func TestOptions(t *testing.T) {
	for _, tc := range readCases(t, "options.txt") {
		t.Run(tc.name, func(t *testing.T) {
			want, errors := tc.take("-> "), tc.take("error ")
			args := tc.take("calicomesos")
			stanza := pluginName + strings.Join(args, "")
			if len(tc.lines) > 0 {
				stanza += " {\n" + strings.Join(tc.lines, "\n") + "\n}"
			}
			o, err := parseStanza(stanza)
			switch {
			case len(want)+len(errors) == 0:
				t.Fatal("the case wants nothing")
			case err == nil && len(errors) > 0:
				t.Fatalf("%q is accepted", stanza)
			case err != nil && len(errors) == 0:
				t.Fatal(err)
			case err != nil:
				for _, text := range errors {
					if !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "hunter2") {
						t.Errorf("%v, want %s", err, text)
					}
				}
				return
			}
			got := describeOptions(o)
			for _, w := range want {
				if !slices.Contains(got, w) {
					t.Errorf("want %q, got\n%s", w, strings.Join(got, "\n"))
				}
			}
		})
	}
}

// describeOptions returns the options as lines `NAME VALUE…`.
func describeOptions(o *options) []string {
	var masters, sources []string
	for _, u := range o.cluster.masters {
		masters = append(masters, u.String())
	}
	for _, s := range o.rules.sources {
		for name, source := range sourceNames {
			if s == source {
				sources = append(sources, name)
			}
		}
	}
	visibility := slices.Sorted(maps.Keys(visibilityNames))[0]
	for name, level := range visibilityNames {
		if level == o.rules.visibility {
			visibility = name
		}
	}
	var frameworks []string
	for _, f := range o.rules.frameworks {
		frameworks = append(frameworks, fmt.Sprintf("%s/%s", f.name, f.principal))
	}
	var vhosts []string
	for _, l := range o.rules.vhosts {
		vhosts = append(vhosts, fmt.Sprintf("%s:%v:%v:%v:%v", l.origin, l.addrs, l.names, l.tasks, l.groups))
	}
	var lines []string
	for _, l := range []struct {
		name   string
		values []any
	}{
		{"zones", anys(o.zones[mesosDNS])}, {"containerip", anys(o.zones[dcos])}, {"reverse", anys(sorted(slices.Clone(o.zones[reverse])))},
		{"points-to", []any{o.rules.pointTo}}, {"bypass-cache", anys(o.bypassZones())},
		{"masters", anys(masters)}, {"name", []any{o.cluster.name()}}, {"endpoints", anys(o.cluster.endpoints())},
		{"ipsources", anys(sources)}, {"network", anys(o.rules.networks)}, {"allow", anys(o.rules.allow)},
		{"health", []any{o.rules.health}}, {"visibility", []any{visibility}}, {"frameworks", anys(frameworks)},
		{"ns", append([]any{o.nsName}, anys(o.nsAddrs)...)}, {"ttl", []any{o.ttl}}, {"poll", []any{o.cluster.poll}},
		{"vhosts", anys(vhosts)}, {"http", []any{o.http, o.httpOpen}}, {"startup_timeout", []any{o.startupTimeout}}, {"fallthrough", anys(o.fall.Zones)},
	} {
		line := l.name
		for _, v := range l.values {
			line += fmt.Sprintf(" %v", v)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

func anys[T any](values []T) []any {
	var all []any
	for _, v := range values {
		all = append(all, v)
	}
	return all
}
