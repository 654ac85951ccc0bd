package calicomesos

import (
	"bytes"
	"fmt"
	"net"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/plugin"
	hostport "github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// secondary is a server that NOTIFYs are sent to.
type secondary struct {
	addr   string // host:port
	source net.IP // nil: any
}

// secondariesOf returns the secondaries of each zone: those that the server block's *transfer*
// names. That keeps them to itself, and sends its NOTIFYs to one after the other, so that one
// that is dead would delay the rest. Its part of the Corefile, which it has accepted, is read
// once more for that.
func secondariesOf(corefile caddy.Input, block int, served, origins []string) (map[string][]secondary, error) {
	blocks, err := caddyfile.Parse(corefile.Path(), bytes.NewReader(corefile.Body()), nil)
	if err != nil {
		return nil, err
	}
	if block >= len(blocks) {
		return nil, fmt.Errorf("%s has %d server blocks", corefile.Path(), len(blocks))
	}
	type transfer struct {
		zones plugin.Zones
		to    []secondary
	}
	var transfers []transfer
	d := caddyfile.NewDispenserTokens(corefile.Path(), blocks[block].Tokens["transfer"])
	for d.Next() {
		t := transfer{zones: plugin.OriginsFromArgsOrServerBlock(d.RemainingArgs(), served)}
		var source net.IP
		for d.NextBlock() {
			switch d.Val() {
			case "to":
				for _, arg := range d.RemainingArgs() {
					if addr, err := hostport.HostPort(arg, transport.Port); err == nil && arg != "*" {
						t.to = append(t.to, secondary{addr: addr})
					}
				}
			case "source":
				if args := d.RemainingArgs(); len(args) == 1 {
					source = net.ParseIP(args[0])
				}
			}
		}
		for i := range t.to {
			t.to[i].source = source
		}
		transfers = append(transfers, t)
	}
	all := make(map[string][]secondary)
	for _, origin := range origins {
		closest := "" // as in *transfer*
		for _, t := range transfers {
			if zone := t.zones.Matches(origin); zone != "" && (len(zone) > len(closest) || len(zone) == len(closest) && zone > closest) {
				closest, all[origin] = zone, t.to
			}
		}
	}
	return all, nil
}
