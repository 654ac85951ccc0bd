package calicomesos

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"github.com/calicomesos/calicomesos/plugin/api"
	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/watch"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin/pkg/dnsutil"

	"github.com/miekg/dns"
)

// viewAge is how old a view of the cluster may be that several requests share.
const viewAge = time.Second

// insight is what the API tells of a stanza. It only reads, and does not change once it is made,
// but for the view that it remembers.
type insight struct {
	plugin  *CalicoMesos
	options *options
	zones   [schemes][]*publishedZone
	watcher *watch.Watcher
	take    func(context.Context) (*cluster.View, error) // a view of the cluster

	mu   sync.Mutex
	view weak.Pointer[cluster.View] // its tasks are sorted; it is not kept for nobody
	at   time.Time                  // when view was taken
}

var _ api.Stanza = (*insight)(nil)

// began is when this process began to run.
var began = time.Now()

// Lookup implements api.Stanza.
func (i *insight) Lookup(name string, qtype uint16) (api.Answer, error) {
	z, rel := i.plugin.match(name)
	if z == nil {
		return api.Answer{}, nil
	}
	gen := z.Current()
	if gen == nil {
		return api.Answer{}, api.ErrNotReady
	}
	r := gen.Lookup(rel, name, qtype, 0, math.MaxInt)
	if !gen.Certain(&r) {
		return api.Answer{}, api.ErrNotReady
	}
	return api.Answer{Exists: r.Exists, Stale: gen.Stale, Records: r.Answer}, nil
}

// Zone implements api.Stanza.
func (i *insight) Zone() (api.Zone, bool, error) {
	if len(i.zones[mesosDNS]) == 0 {
		return api.Zone{}, false, nil
	}
	z := i.zones[mesosDNS][0]
	gen := z.Current()
	if gen == nil || !gen.Whole() {
		return api.Zone{}, true, api.ErrNotReady // a part of it would be taken for all
	}
	return api.Zone{Origin: z.Origin, SOA: gen.SOA().(*dns.SOA), Stale: gen.Stale, Records: gen.OfType}, true, nil
}

// look returns a view of the cluster that is at most viewAge old, with its tasks in the order in
// which they are listed.
func (i *insight) look(ctx context.Context) (*cluster.View, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if view := i.view.Value(); view != nil && time.Since(i.at) < viewAge {
		return view, nil
	}
	at := time.Now()
	view, err := i.take(ctx)
	switch {
	case errors.Is(err, watch.ErrStopped):
		return nil, api.ErrNotReady
	case err != nil:
		return nil, err
	}
	slices.SortFunc(view.Tasks, compareKept)
	slices.SortFunc(view.Frameworks, func(a, b *cluster.Framework) int { return strings.Compare(a.ID, b.ID) })
	i.view, i.at = weak.Make(view), at
	return view, nil
}

// compareKept orders tasks by their frameworks' names, their own and their ids.
func compareKept(a, b cluster.Kept) int {
	if a.Framework != b.Framework {
		if c := strings.Compare(tenantOf(a), tenantOf(b)); c != 0 {
			return c
		}
	}
	if c := strings.Compare(a.Task.Name(), b.Task.Name()); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Task.ID(), b.Task.ID()), strings.Compare(a.Task.FrameworkID, b.Task.FrameworkID))
}

// unpacked is a task of a view. Its Task is valid until another is unpacked into the same.
type unpacked struct {
	cluster.Instance
	kept cluster.Kept
}

func unpack(k cluster.Kept, into *mesos.Task) unpacked { return unpacked{k.Instance(into), k} }

// tenantOf returns the name of a task's framework, or its id while that is unknown.
func tenantOf(k cluster.Kept) string {
	if k.Framework == nil {
		return k.Task.FrameworkID
	}
	return k.Framework.Name
}

// published reports whether a task is one that is published, if the rules find a name for it.
func published(k cluster.Kept) bool {
	return k.Task.State() == mesos.TaskRunning && k.Framework != nil && k.Agent != nil
}

// Enumerate implements api.Stanza.
func (i *insight) Enumerate(ctx context.Context) (iter.Seq2[api.Framework, iter.Seq[api.EnumeratedTask]], error) {
	view, err := i.look(ctx)
	if err != nil {
		return nil, err
	}
	z := i.zones[mesosDNS][0]
	rules := i.options.rules
	rules.pointTo = z.Origin // PTR records are listed without reverse zones, too
	of := make(map[string][]cluster.Kept)
	for _, k := range view.Tasks {
		if published(k) {
			of[k.Task.FrameworkID] = append(of[k.Task.FrameworkID], k)
		}
	}
	return func(yield func(api.Framework, iter.Seq[api.EnumeratedTask]) bool) {
		var (
			out  recordSet
			task mesos.Task
		)
		for _, f := range view.Frameworks {
			if len(of[f.ID]) == 0 || rules.excludes(f.Framework) {
				continue
			}
			tasks := func(yield func(api.EnumeratedTask) bool) {
				for _, k := range of[f.ID] {
					out.reset()
					rules.task(k.Instance(&task), &out)
					if records := enumerated(z.Zone, out.records); len(records) > 0 && !yield(api.EnumeratedTask{Name: k.Task.Name(), ID: k.Task.ID(), Records: records}) {
						return
					}
				}
			}
			if !yield(api.Framework{Name: f.Name}, tasks) {
				return
			}
		}
	}, nil
}

// enumerated returns a task's records in a zone, in the form of Mesos-DNS.
func enumerated(z *zone.Zone, records []record) []api.EnumeratedRecord {
	var all []api.EnumeratedRecord
	for _, r := range records {
		switch r.scheme {
		case mesosDNS:
			if rr := z.RR(r.name, r.Record); rr != nil {
				all = append(all, api.EnumeratedRecord{Name: rr.Header().Name, Host: api.Data(rr), Type: dns.TypeToString[rr.Header().Rrtype]})
			}
		case reverse:
			if addr := dnsutil.ExtractAddressFromReverse(r.name.Rel); addr != "" {
				all = append(all, api.EnumeratedRecord{Name: r.Pointed(), Host: addr, Type: "PTR"})
			}
		}
	}
	return all
}

// Config implements api.Stanza.
func (i *insight) Config() map[string]any {
	o := i.options
	all := map[string]any{"DNSOn": true, "HTTPOn": true, "ExternalOn": o.fall.Zones != nil, "TTL": o.ttl, "IPSources": o.rules.sourceList(), "EnforceRFC952": false}
	masters := []string{}
	for _, u := range o.cluster.masters {
		masters = append(masters, u.Host)
	}
	all["Masters"] = masters
	if z := o.cluster.zookeeper; z != nil {
		all["Zk"] = z.String()
	}
	if len(i.zones[mesosDNS]) > 0 {
		z := i.zones[mesosDNS][0]
		all["Domain"], all["SOAMname"] = strings.TrimSuffix(z.Origin, "."), z.NS
		if gen := z.Current(); gen != nil {
			soa := gen.SOA().(*dns.SOA)
			all["SOARname"], all["SOARefresh"], all["SOARetry"], all["SOAExpire"], all["SOAMinttl"] = soa.Mbox, soa.Refresh, soa.Retry, soa.Expire, soa.Minttl
		}
	}
	if o.cluster.poll > 0 {
		all["RefreshSeconds"] = int(o.cluster.poll.Seconds())
	}
	return all
}

// sourceList returns the names of "ipsources".
func (r *rules) sourceList() []string {
	var all []string
	for _, s := range r.sources {
		all = append(all, nameOf(sourceNames, s))
	}
	return all
}

// Status implements api.Stanza.
func (i *insight) Status() api.Status {
	r := i.watcher.Report()
	s := api.Status{
		Version: version(), CoreDNS: coremain.CoreVersion, Started: began,
		Cluster: i.watcher.Name, Masters: append([]string{}, r.Masters...), Leader: r.Leader, Mode: "stream", Connected: r.Connected, Synced: r.Synced,
		Ready: i.plugin.Ready(), Heard: r.Heard.Format(time.RFC3339), AgeSeconds: max(time.Since(r.Heard).Seconds(), 0),
		Tasks: r.Tasks, Agents: r.Agents, Frameworks: r.Frameworks, Retained: r.Retained, AwayCount: r.AwayCount, Away: []api.Agent{},
	}
	if r.Polled {
		s.Mode = "poll"
	}
	if !s.Ready {
		s.Heard = "" // it is when the watcher began
	}
	for _, a := range r.Away {
		s.Away = append(s.Away, api.Agent{ID: a.ID, Hostname: a.Hostname})
	}
	for sch, zs := range i.zones {
		for _, z := range zs {
			zs := statusOf(scheme(sch), z)
			s.Stale = s.Stale || zs.Stale
			s.Zones = append(s.Zones, *zs)
		}
	}
	return s
}

var schemeNames = [schemes]string{"mesos-dns", "dcos", "reverse", "vhosts"}

// statusOf describes a zone.
func statusOf(sch scheme, z *publishedZone) *api.ZoneStatus {
	s := &api.ZoneStatus{Name: z.Origin, Scheme: schemeNames[sch], Skipped: make(map[string]int)}
	if gen := z.Current(); gen != nil {
		s.Serial, s.Records, s.Complete, s.Stale = gen.Serial(), gen.Records(), gen.Complete, gen.Stale
	}
	for why, n := range z.skipped.Load() {
		if n > 0 {
			s.Skipped[reasonNames[why]] = n
		}
	}
	return s
}

// Tasks implements api.Stanza.
func (i *insight) Tasks(ctx context.Context, q api.Query) (*api.Tasks, error) {
	view, err := i.look(ctx)
	if err != nil {
		return nil, err
	}
	found := &api.Tasks{Known: len(view.Tasks), Tasks: []api.Task{}}
	text := i.sought(q.Text)
	var (
		t    *told
		task mesos.Task
	)
	for n, kept := range view.Tasks {
		k := unpack(kept, &task)
		if n%1000 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !mentions(k, text) {
			continue
		}
		if q.Skipped {
			if !i.maySkip(k) {
				continue
			}
			if t = i.tell(k); len(t.Skipped) == 0 {
				continue
			}
		}
		found.Total++
		if found.Total <= q.Offset || len(found.Tasks) >= q.Limit {
			continue
		}
		if !q.Skipped {
			t = i.tell(k)
		}
		found.Tasks = append(found.Tasks, t.Task)
	}
	return found, nil
}

// maySkip reports whether something of a task may not be published. It takes a fraction of what
// tell takes: it makes no records.
func (i *insight) maySkip(k unpacked) bool {
	if !published(k.kept) || len(k.Agent.Addrs) == 0 {
		return true
	}
	out := recordSet{explains: true}
	rules, in := &i.options.rules, k.Instance
	if rules.hides(in) {
		return true
	}
	n, ok := rules.naming(in, &out)
	rules.claims(in, &out)
	return !ok || len(out.notes) > 0 || n.backup || len(n.addrs.published) == 0 || len(n.task)+len(n.tenant)+len(rules.origins[0]) > shortName
}

// shortName is a length of the names of a task, its framework and a zone together up to which no
// name of the task is too long: the rest are labels for a port, a protocol and a subdomain, and
// what tells instances apart.
const shortName = 255 - 2*(maxLabel+1) - len("containerip.") - (1 + hashLength) - (1 + agentLength) - 2

// sought returns what a text is looked for as: in lower case, and of a name in a zone of a naming
// scheme the part before the zone.
func (i *insight) sought(text string) string {
	text = strings.ToLower(text)
	for _, zs := range i.zones[:reverse] {
		for _, z := range zs {
			if rel, ok := z.Relative(dns.Fqdn(text)); ok && rel != "" {
				return rel
			}
		}
	}
	return text
}

// mentions reports whether a text, in lower case, is part of a task's name, id, framework, agent,
// of a name that it claims, or of an address.
func mentions(k unpacked, text string) bool {
	if text == "" {
		return true
	}
	if strings.Contains(text, ".") && strings.Contains(label(k.Task.Name, maxLabel)+"."+labels(tenantOf(k.kept)), text) {
		return true
	}
	if slices.ContainsFunc(k.Task.HAProxy, func(l mesos.Label) bool { return strings.Contains(strings.ToLower(l.Value), text) }) {
		return true
	}
	for _, s := range []string{k.Task.Name, k.Task.ID, tenantOf(k.kept), k.Task.AgentID} {
		if strings.Contains(strings.ToLower(s), text) {
			return true
		}
	}
	if d := k.Task.Discovery; d != nil && strings.Contains(strings.ToLower(d.Name), text) {
		return true
	}
	if k.Agent != nil && (strings.Contains(strings.ToLower(k.Agent.Hostname), text) || anyMentions(k.Agent.Addrs, text)) {
		return true
	}
	return slices.ContainsFunc(k.Task.Status.Networks, func(n mesos.Network) bool { return anyMentions(n.Addrs, text) })
}

// anyMentions reports whether a text is part of an address.
func anyMentions(addrs []netip.Addr, text string) bool {
	if strings.Trim(text, "0123456789abcdef.:") != "" {
		return false
	}
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return strings.Contains(a.String(), text) })
}
