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

	zones  []*zone.Zone  // the most specific first
	bypass []string      // zones whose answers are not to be cached
	ready  chan struct{} // closed once a first state was published
}

// Name returns the plugin's name in a Corefile.
func (c *CalicoMesos) Name() string { return pluginName }

// Ready reports whether a first state of the cluster was published.
func (c *CalicoMesos) Ready() bool { return isClosed(c.ready) }

// CacheBypassZones returns the zones that *cache* is to leave alone: an answer
// here is always the newest, and cheaper than a copy of it.
func (c *CalicoMesos) CacheBypassZones() []string { return c.bypass }

// ServeDNS answers for names in the plugin's zones, and passes on all others.
func (c *CalicoMesos) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	qname := state.QName()
	name := strings.ToLower(qname)
	z, owner := c.match(name)
	if z == nil || r.Opcode != dns.OpcodeQuery {
		return plugin.NextOrFailure(pluginName, c.Next, ctx, w, r)
	}
	qtype := state.QType()
	if qtype == dns.TypeAXFR || qtype == dns.TypeIXFR {
		return dns.RcodeRefused, nil // *transfer* has not taken it
	}
	gen := z.Current()
	if gen == nil {
		return c.notReady(w, r)
	}
	res := gen.Lookup(owner, qname, qtype, rand.Uint32())
	if len(res.Answer) == 0 {
		if !gen.Complete() {
			return c.notReady(w, r)
		}
		if !res.Exists && c.Fall.Through(name) {
			return plugin.NextOrFailure(pluginName, c.Next, ctx, w, r)
		}
	}
	return c.answer(&state, gen, &res)
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

// answer writes res.
func (c *CalicoMesos) answer(state *request.Request, gen *zone.Generation, res *zone.Result) (int, error) {
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
	if gen.Stale() {
		explain(m, state.Req, dns.ExtendedErrorCodeStaleAnswer)
	}
	if len(m.Extra) > 0 {
		trim(m, state)
	}
	return dns.RcodeSuccess, state.W.WriteMsg(m)
}

// notReady answers SERVFAIL, since nothing is known of the name, or not yet.
func (c *CalicoMesos) notReady(w dns.ResponseWriter, r *dns.Msg) (int, error) {
	m := new(dns.Msg)
	m.SetRcode(r, dns.RcodeServerFailure)
	explain(m, r, dns.ExtendedErrorCodeNotReady)
	// Success, since the message is written: CoreDNS would send another one.
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// explain adds an extended error (RFC 8914) for a client that speaks EDNS.
func explain(m, r *dns.Msg, code uint16) {
	if r.IsEdns0() == nil {
		return
	}
	o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	o.Option = []dns.EDNS0{&dns.EDNS0_EDE{InfoCode: code}}
	m.Extra = append(m.Extra, o)
}

// trim drops what of ADDITIONAL does not fit, so that TC is set only where
// ANSWER does not fit (RFC 2181, section 9).
func trim(m *dns.Msg, state *request.Request) {
	size := state.Size()
	if state.Proto() == "tcp" {
		size = dns.MaxMsgSize
	}
	if o := state.Req.IsEdns0(); o != nil && m.IsEdns0() == nil {
		size -= dns.Len(o)
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
