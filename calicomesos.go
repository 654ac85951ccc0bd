// Package calicomesos is a CoreDNS plugin that serves DNS names for the tasks of an Apache
// Mesos cluster, in the naming schemes of Mesos-DNS and of DC/OS.
//
// # From an event to an answer
//
// A task starts, and the leading master, which plugin/detector has found, sends an event to
// everyone who is subscribed.
//
//	plugin/mesos       reads the event from the stream and decodes it
//	plugin/watch       sends it to the loop that owns the model of the cluster
//	plugin/cluster     applies it, and tells what has changed
//	publish.go         hands each changed object, before and after, to the rules
//	naming.go          names a task: which records it makes in each scheme
//	records.go         does so for frameworks, agents and masters
//	ports.go           with which addresses and ports
//	vhosts.go          which names it claims, and balancers.go where those lead
//	frameworks.go      hides a framework whose name is below another's
//	warnings.go        warns of a filter that matches nothing
//	plugin/zone        removes and adds the records in a transaction, and publishes it
//	calicomesos.go     answers the next query from what is published
//	transfer.go        transfers it, and notify.go tells secondaries that it has changed
//	metadata.go        tells other plugins whose name it is, and which task asks
//	insight.go         tells plugin/api of the stanza, told.go of a task, and explain.go why a
//	                   name answers what it answers
//
// plugin/watch and what it stands on know no DNS; this package knows no protobuf, nothing of
// the masters' HTTP and nothing of how a leader is found.
//
// # From a Corefile to a running stanza
//
// options.go parses a stanza into options, those of the masters in masters.go; zones.go makes
// zones of them, and setup.go starts and stops the stanza. mesos.go has the watchers: stanzas that watch a cluster in the same
// way share one, also across a reload. http.go has the servers of the API, likewise.
//
// # Goroutines
//
// CoreDNS calls ServeDNS, Transfer and the metrics in goroutines of its own. They read zones
// through one atomic pointer each, without a lock. The loop of a watcher is the only writer: it
// calls the publishers of the stanzas. A stanza owns the goroutines of its notifier, one for each
// secondary; a server of the API owns its own, and a watcher those that package watch lists. They
// end before the stop of their owner returns. The goroutine of a transfer ends when *transfer* has
// read it, or does not read on.
package calicomesos

import (
	"context"
	"math/rand/v2"
	"strings"

	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/pkg/fall"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/plugin/ready"
	"github.com/coredns/coredns/plugin/transfer"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"
)

const pluginName = "calicomesos"

var log = clog.NewWithPlugin(pluginName)

var (
	_ plugin.Handler      = (*CalicoMesos)(nil)
	_ ready.Readiness     = (*CalicoMesos)(nil)
	_ cache.ZoneBypasser  = (*CalicoMesos)(nil)
	_ transfer.Transferer = (*CalicoMesos)(nil)
)

// CalicoMesos is the plugin: the zones of one stanza.
type CalicoMesos struct {
	Next plugin.Handler
	Fall fall.F

	zones     []*zone.Zone  // the most specific first
	bypass    []string      // zones whose answers *cache* must not cache
	ready     chan struct{} // closed when a first state is published
	tasks     *taskIndex    // nil without *metadata*
	transfers transfers
	counts    map[*zone.Zone]*zoneCounts // nothing is counted for a zone without
}

// Name implements plugin.Handler.
func (c *CalicoMesos) Name() string { return pluginName }

// Ready implements ready.Readiness. The plugin is ready when a first state of the cluster is
// published.
func (c *CalicoMesos) Ready() bool { return isClosed(c.ready) }

// CacheBypassZones implements cache.ZoneBypasser: an answer from a zone is current, and
// cheaper than a cached copy.
func (c *CalicoMesos) CacheBypassZones() []string { return c.bypass }

// ServeDNS implements plugin.Handler. It answers for names in the zones, and passes others
// on.
//
// The functions that make the answer return before it is written, which keeps the stack
// small: a goroutine serves one query, starts with a small stack, and would copy it to a
// larger one for CoreDNS's plugins and the system call.
func (c *CalicoMesos) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m, ours := c.reply(w, r)
	switch {
	case !ours:
		rcode, err := plugin.NextOrFailure(pluginName, c.Next, ctx, w, r)
		if err == nil || plugin.ClientWrite(rcode) || !strings.HasSuffix(err.Error(), noNext) {
			return rcode, err
		}
		if m = c.denial(w, r); m == nil {
			return rcode, err
		}
	case m == nil:
		return dns.RcodeRefused, nil
	}
	// The message is written: for an error's rcode CoreDNS would write another one.
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// reply returns the reply to r, or nil to refuse it. It returns false if the next plugin
// must reply.
func (c *CalicoMesos) reply(w dns.ResponseWriter, r *dns.Msg) (m *dns.Msg, ours bool) {
	if len(r.Question) == 0 {
		return nil, false
	}
	q := &r.Question[0]
	name := strings.ToLower(q.Name)
	z, rel := c.match(name)
	if z == nil {
		return nil, false
	}
	if r.Opcode != dns.OpcodeQuery || q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		return nil, true // a NOTIFY or an UPDATE of our zone, or *transfer* has not taken it
	}
	gen := z.Current()
	if gen == nil {
		c.counts[z].response(dns.RcodeServerFailure, false)
		return notReady(r), true
	}
	state := &request.Request{W: w, Req: r}
	res := gen.Lookup(rel, q.Name, q.Qtype, rand.Uint32(), messageSize(state))
	if !gen.Certain(&res) {
		c.counts[z].response(dns.RcodeServerFailure, gen.Stale)
		return notReady(r), true
	}
	if !res.Exists && c.Fall.Through(name) {
		return nil, false
	}
	m = answer(state, gen, &res)
	c.counts[z].response(m.Rcode, gen.Stale)
	return m, true
}

// noNext ends the error of a plugin that passes a query on while there is no next one.
const noNext = "no next plugin found"

// denial returns the reply to a query that has fallen through to nobody, or nil if it is not
// for a zone of ours.
func (c *CalicoMesos) denial(w dns.ResponseWriter, r *dns.Msg) *dns.Msg {
	if len(r.Question) == 0 {
		return nil
	}
	z, _ := c.match(strings.ToLower(r.Question[0].Name))
	if z == nil {
		return nil
	}
	gen := z.Current()
	c.counts[z].response(dns.RcodeNameError, gen.Stale)
	return answer(&request.Request{W: w, Req: r}, gen, &zone.Result{})
}

// match returns the zone of name, and name relative to its origin. It returns nil if name is
// in no zone.
func (c *CalicoMesos) match(name string) (*zone.Zone, string) {
	for _, z := range c.zones {
		if rel, ok := z.Relative(name); ok {
			return z, rel
		}
	}
	return nil, ""
}

// answer returns the message for a result of gen.
func answer(state *request.Request, gen *zone.Generation, res *zone.Result) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(state.Req)
	m.Authoritative = true
	m.Answer, m.Extra = res.Answer, res.Additional
	switch {
	case !res.Exists:
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{gen.SOA()}
	case len(m.Answer) == 0:
		m.Ns = []dns.RR{gen.SOA()}
	}
	opt := state.Req.IsEdns0() // CoreDNS adds it to the message
	if opt != nil && gen.Stale {
		opt = extendedError(dns.ExtendedErrorCodeStaleAnswer)
	}
	if len(m.Extra) > 0 {
		trimExtra(m, state, opt)
	}
	if gen.Stale && opt != nil {
		m.Extra = append(m.Extra, opt)
	}
	cut(m, state)
	return m
}

// notReady returns SERVFAIL, for a name that may exist.
func notReady(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(r, dns.RcodeServerFailure)
	if r.IsEdns0() != nil {
		m.Extra = []dns.RR{extendedError(dns.ExtendedErrorCodeNotReady)}
	}
	return m
}

// extendedError returns an extended DNS error (RFC 8914), for a client that uses EDNS.
func extendedError(code uint16) *dns.OPT {
	o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	o.Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: code}}
	return o
}

const (
	maxUDP     = 65535 - 8 - 20 // octets that a UDP packet can carry over IPv4
	optionRoom = 64             // octets for EDNS options that other plugins add, such as *nsid*
	tsigRoom   = 400            // octets for a TSIG record: two names and a MAC
)

// messageSize returns how many octets a reply can have.
func messageSize(state *request.Request) int {
	if state.Proto() == "tcp" {
		return dns.MaxMsgSize
	}
	return min(state.Size(), maxUDP)
}

// cut truncates a message that CoreDNS would leave too large: a signed one, and one for a
// client that says it can receive more than UDP carries.
func cut(m *dns.Msg, state *request.Request) {
	switch {
	case state.Proto() == "tcp":
	case state.Req.IsTsig() != nil:
		m.Truncate(messageSize(state) - tsigRoom)
	case state.Size() > maxUDP:
		m.Truncate(maxUDP - optionRoom)
	}
}

// trimExtra drops records from ADDITIONAL that do not fit beside opt, the OPT record that the
// message will have, so that TC is set only if ANSWER does not fit (RFC 2181, section 9).
// There must be room for what other plugins add: options, signatures where DO is set, TSIG.
func trimExtra(m *dns.Msg, state *request.Request, opt *dns.OPT) {
	if state.Req.IsTsig() != nil {
		m.Extra = nil
		return
	}
	size := messageSize(state)
	if opt != nil {
		size -= dns.Len(opt) + optionRoom
	}
	if state.Do() {
		size /= 2
	}
	// With compression, the owner of each record in ANSWER, which is QNAME, has two octets.
	most := m.Len() - len(m.Answer)*(len(m.Question[0].Name)+1-2)
	if most <= size {
		return
	}
	m.Compress = true
	extra := m.Extra
	fits := func(n int) bool {
		m.Extra = extra[:n]
		return m.Len() <= size
	}
	low, high := 0, len(extra) // low records fit, or none does; high+1 do not
	for low < high {
		if mid := (low + high + 1) / 2; fits(mid) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	m.Extra = extra[:low]
}

// isClosed reports whether c is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
