// Package calicomesos is a CoreDNS plugin that names the tasks of an Apache
// Mesos cluster. It watches the leading master and answers from memory, in the
// naming schemes of Mesos-DNS and of DC/OS.
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
	bypass    []string      // zones whose answers are not to be cached
	ready     chan struct{} // closed once a first state was published
	transfers transfers
}

// Name returns the plugin's name in a Corefile.
func (c *CalicoMesos) Name() string { return pluginName }

// Ready reports whether a first state of the cluster was published.
func (c *CalicoMesos) Ready() bool { return isClosed(c.ready) }

// CacheBypassZones returns the zones that *cache* is to leave alone: an answer
// here is always the newest, and cheaper than a copy of it.
func (c *CalicoMesos) CacheBypassZones() []string { return c.bypass }

// ServeDNS answers for names in the plugin's zones, and passes on all others.
//
// It keeps little on the stack, and what makes the answer has returned when that is
// written: a goroutine serves one question, begins with a short stack, and copies it
// for a longer one where CoreDNS, plugins and system calls do not fit.
func (c *CalicoMesos) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m, ours := c.reply(w, r)
	switch {
	case !ours:
		return plugin.NextOrFailure(pluginName, c.Next, ctx, w, r)
	case m == nil:
		return dns.RcodeRefused, nil
	}
	// Success, since the message is written: CoreDNS would send another one.
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// reply returns the answer to r, nil to refuse it, and whether it is for the next
// plugin to say.
func (c *CalicoMesos) reply(w dns.ResponseWriter, r *dns.Msg) (m *dns.Msg, ours bool) {
	if len(r.Question) == 0 {
		return nil, false
	}
	q := &r.Question[0]
	name := strings.ToLower(q.Name)
	z, owner := c.match(name)
	if z == nil || r.Opcode != dns.OpcodeQuery {
		return nil, false
	}
	if q.Qtype == dns.TypeAXFR || q.Qtype == dns.TypeIXFR {
		return nil, true // *transfer* has not taken it
	}
	gen := z.Current()
	if gen == nil {
		return notReady(r), true
	}
	res := gen.Lookup(owner, q.Name, q.Qtype, rand.Uint32())
	// A name that is known lacks a type even where the others are not: clients give a
	// name up if one of its two kinds of addresses fails.
	if !res.Records && !gen.Complete() {
		return notReady(r), true
	}
	if !res.Exists && c.Fall.Through(name) {
		return nil, false
	}
	return answer(&request.Request{W: w, Req: r}, gen, &res), true
}

// match returns the zone of a name in lower case and its owner name in it; nil
// outside of all.
func (c *CalicoMesos) match(name string) (*zone.Zone, string) {
	for _, z := range c.zones {
		if owner, ok := z.Relative(name); ok {
			return z, owner
		}
	}
	return nil, ""
}

// answer returns res as a message.
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
	opt := state.Req.IsEdns0() // which CoreDNS adds, if the message has none
	if opt != nil && gen.Stale() {
		opt = explanation(dns.ExtendedErrorCodeStaleAnswer)
	}
	if len(m.Extra) > 0 {
		trim(m, state, opt)
	}
	if gen.Stale() && opt != nil {
		m.Extra = append(m.Extra, opt)
	}
	return m
}

// notReady answers SERVFAIL, since nothing is known of the name, or not yet.
func notReady(r *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(r, dns.RcodeServerFailure)
	if r.IsEdns0() != nil {
		m.Extra = []dns.RR{explanation(dns.ExtendedErrorCodeNotReady)}
	}
	return m
}

// explanation is an extended error (RFC 8914), for a client that speaks EDNS.
func explanation(code uint16) *dns.OPT {
	o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	o.Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: code}}
	return o
}

// trim drops what of ADDITIONAL does not fit beside the OPT that the message will have,
// so that TC is set only where ANSWER does not fit (RFC 2181, section 9).
func trim(m *dns.Msg, state *request.Request, opt *dns.OPT) {
	size := state.Size()
	if state.Proto() == "tcp" {
		size = dns.MaxMsgSize
	}
	if opt != nil {
		size -= dns.Len(opt)
	}
	// Compressed, each record in ANSWER has two octets for its owner, which is QNAME.
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
	low, high := 0, len(extra) // fits(low), or nothing does; not fits(high+1)
	for low < high {
		if mid := (low + high + 1) / 2; fits(mid) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	m.Extra = extra[:low]
}
