package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// What Mesos-DNS answers, for its clients. docs/api.md has the deviations.

const projectURL = "https://github.com/calicomesos/calicomesos"

func version(st Stanza, _ *http.Request) (reply, error) {
	return reply{value: struct{ Service, Version, URL string }{"calicomesos", st.Status().Version, projectURL}}, nil
}

func config(st Stanza, _ *http.Request) (reply, error) { return reply{value: st.Config()}, nil }

// host is a row of /v1/hosts/NAME.
type host struct {
	Host string `json:"host"`
	IP   string `json:"ip"`
}

func hosts(st Stanza, r *http.Request) (reply, error) {
	name := asked(r)
	addrs, stale, err := addresses(st, name)
	if err != nil {
		return reply{}, err
	}
	rows := make([]host, 0, len(addrs)+1)
	for _, a := range addrs {
		rows = append(rows, host{name, a})
	}
	if len(rows) == 0 {
		rows = append(rows, host{}) // as Mesos-DNS says that there is none
	}
	return reply{rows, stale}, nil
}

func hostPorts(Stanza, *http.Request) (reply, error) {
	return reply{}, &requestError{http.StatusNotImplemented, "501: Not Implemented"}
}

// service is a row of /v1/services/NAME.
type service struct {
	Service string `json:"service"`
	Host    string `json:"host"`
	IP      string `json:"ip"`
	Port    string `json:"port"`
}

func services(st Stanza, r *http.Request) (reply, error) {
	a, err := st.Lookup(asked(r), dns.TypeSRV)
	if err != nil {
		return reply{}, err
	}
	rows := make([]service, 0, len(a.Records)+1)
	for n, rr := range a.Records {
		srv, ok := rr.(*dns.SRV)
		if !ok {
			continue
		}
		if n%1000 == 0 && r.Context().Err() != nil {
			return reply{}, context.Canceled
		}
		addrs, stale, err := addresses(st, srv.Target)
		if err != nil {
			return reply{}, err
		}
		a.Stale = a.Stale || stale
		for _, addr := range addrs {
			rows = append(rows, service{r.PathValue("name"), srv.Target, addr, strconv.Itoa(int(srv.Port))})
		}
	}
	if len(rows) == 0 {
		rows = append(rows, service{})
	}
	return reply{rows, a.Stale}, nil
}

// asked returns the name in a request's path as DNS has it. Mesos-DNS drops `.*`.
func asked(r *http.Request) string {
	name := strings.ReplaceAll(r.PathValue("name"), ".*", "")
	return strings.ToLower(dns.Fqdn(name))
}

// addresses returns the addresses of a name.
func addresses(st Stanza, name string) (addrs []string, stale bool, err error) {
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := st.Lookup(name, qtype)
		if err != nil {
			return nil, false, err
		}
		stale = stale || a.Stale
		for _, rr := range a.Records {
			addrs = append(addrs, Data(rr))
		}
	}
	return addrs, stale, nil
}

// Data returns the data of a record as Mesos-DNS writes it: an address, or `target.:port`.
func Data(rr dns.RR) string {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A.String()
	case *dns.AAAA:
		return rr.AAAA.String()
	case *dns.SRV:
		return rr.Target + ":" + strconv.Itoa(int(rr.Port))
	case *dns.PTR:
		return rr.Ptr
	}
	return ""
}

// warn marks an answer that no master has confirmed (RFC 7234, section 5.5.1).
func warn(w http.ResponseWriter, stale bool) {
	if stale {
		w.Header().Set("Warning", `110 - "Response is Stale"`)
	}
}

// stream writes JSON piece by piece, so that no answer of any size is in memory as a whole. Once
// the client has gone, failed is true and nothing more is written.
type stream struct {
	*bufio.Writer
	failed bool
}

// newStream begins an answer. Flush must be called.
func newStream(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", "application/json")
	return &stream{Writer: bufio.NewWriterSize(newPatient(w), 32<<10)}
}

// put writes what stands between values.
func (s *stream) put(text string) {
	if _, err := s.WriteString(text); err != nil {
		s.failed = true
	}
}

// value writes a value.
func (s *stream) value(v any) {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = s.Write(b)
	}
	s.failed = s.failed || err != nil
}

func enumerate(st Stanza, w http.ResponseWriter, r *http.Request) error {
	zone, ok, err := st.Zone()
	if err != nil {
		return err
	}
	if !ok {
		return errNoZone
	}
	all, err := st.Enumerate(r.Context())
	if err != nil {
		return err
	}
	warn(w, zone.Stale)
	s := newStream(w)
	s.put(`{"frameworks":[`)
	comma := ""
	for framework, tasks := range all {
		s.put(comma + `{"tasks":[`)
		comma = ","
		between := ""
		for task := range tasks {
			s.put(between)
			s.value(task)
			if between = ","; s.failed {
				return nil
			}
		}
		s.put(`],"name":`)
		s.value(framework.Name)
		s.put("}")
	}
	s.put("]}")
	_ = s.Flush() // the client may have gone
	return nil
}

var errNoZone = &requestError{http.StatusNotFound, "404: there is no zone in the scheme of Mesos-DNS"}

// axfr answers with a whole zone. dcos-net cuts the names that it reads by the length of Domain,
// and `host:port` at the colon.
func axfr(st Stanza, w http.ResponseWriter, _ *http.Request) error {
	zone, ok, err := st.Zone()
	if err != nil {
		return err
	}
	if !ok {
		return errNoZone
	}
	warn(w, zone.Stale)
	s := newStream(w)
	// RefreshSeconds is how old the records may be: an event takes less.
	s.put(fmt.Sprintf(`{"TTL":%d,"Serial":%d,"RefreshSeconds":1,`, zone.SOA.Hdr.Ttl, zone.SOA.Serial))
	for _, field := range []struct{ name, value string }{{"Mname", zone.SOA.Ns}, {"Rname", zone.SOA.Mbox}, {"Domain", strings.TrimSuffix(zone.Origin, ".")}} {
		s.put(`"` + field.name + `":`)
		s.value(field.value)
		s.put(",")
	}
	s.put(`"Records":{"As":`)
	s.sets(zone, dns.TypeA)
	s.put(`,"AAAAs":`)
	s.sets(zone, dns.TypeAAAA)
	s.put(`,"SRVs":`)
	s.sets(zone, dns.TypeSRV)
	s.put("}}")
	_ = s.Flush() // the client may have gone
	return nil
}

// sets writes the records of a type by their owners.
func (s *stream) sets(zone Zone, qtype uint16) {
	s.put("{")
	comma := ""
	var data []string // reused
	for owner, rrs := range zone.Records(qtype) {
		data = data[:0]
		for _, rr := range rrs {
			data = append(data, Data(rr))
		}
		s.put(comma)
		s.value(owner)
		s.put(":")
		s.value(data)
		if comma = ","; s.failed {
			return
		}
	}
	s.put("}")
}
