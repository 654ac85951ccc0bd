package calicomesos

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/calicomesos/calicomesos/plugin/api"
)

// webServer is a server of the API at an address. The stanzas of one Corefile have different
// addresses, but during a reload an old and a new one share it.
type webServer struct {
	*api.Server
	stanzas []webStanza // in the order of their starts
}

type webStanza struct {
	stanza  *stanza
	insight *insight
}

// listen has the API tell of a stanza that is about to start. leave takes it back.
func (r *registry) listen(addr string, s *stanza, i *insight) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	web := r.web[addr]
	if web == nil {
		server, err := api.Listen(api.Config{Addr: addr, Stanza: func() api.Stanza { return r.toldAt(addr) }, Observe: countRequest})
		if err != nil {
			return fmt.Errorf("property \"http\": %w", err)
		}
		web = &webServer{Server: server}
		if r.web == nil {
			r.web = make(map[string]*webServer)
		}
		r.web[addr] = web
	}
	web.stanzas = append(web.stanzas, webStanza{s, i})
	return nil
}

// toldAt returns the stanza of which the API tells at an address: the last that has something to
// tell. It returns nil if there is none.
func (r *registry) toldAt(addr string) api.Stanza {
	r.mu.Lock()
	defer r.mu.Unlock()
	web := r.web[addr]
	if web == nil || len(web.stanzas) == 0 {
		return nil
	}
	for _, s := range slices.Backward(web.stanzas) {
		if s.stanza.plugin.Ready() {
			return s.insight
		}
	}
	return web.stanzas[len(web.stanzas)-1].insight
}

// leave ends what listen began. The server ends with its last stanza.
func (r *registry) leave(addr string, s *stanza) {
	r.mu.Lock()
	web := r.web[addr]
	if web == nil {
		r.mu.Unlock()
		return
	}
	web.stanzas = slices.DeleteFunc(web.stanzas, func(other webStanza) bool { return other.stanza == s })
	last := len(web.stanzas) == 0
	if last {
		delete(r.web, addr)
	}
	none := len(r.web) == 0
	r.mu.Unlock()
	if last {
		web.Close()
	}
	if none {
		requestsTotal.Reset()
	}
}

// claimAddress notes whose API is at an address, and refuses two stanzas.
func (su *startup) claimAddress(addr string) error {
	if addr == "" {
		return nil
	}
	if su.addresses[addr] {
		return fmt.Errorf("property \"http\": %q belongs to another stanza", addr)
	}
	su.addresses[addr] = true
	return nil
}

// parseHTTP parses HOST:PORT. Names are refused, but for localhost: what they mean may change.
func parseHTTP(o *options, args []string) error {
	host, port, err := net.SplitHostPort(args[0])
	n, portErr := strconv.ParseUint(port, 10, 16)
	if host == "localhost" {
		host = "127.0.0.1"
	}
	addr, hostErr := netip.ParseAddr(host)
	if err != nil || portErr != nil || n == 0 || host != "" && hostErr != nil {
		return fmt.Errorf("invalid address %q: must be ADDRESS:PORT, such as 127.0.0.1:8123", args[0])
	}
	if hostErr == nil {
		host = addr.String() // in one way
	}
	o.http = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	o.httpOpen = !addr.IsLoopback()
	return nil
}
