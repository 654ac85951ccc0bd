package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	askTimeout  = 5 * time.Second
	again       = time.Second // between two rounds while differences may settle
	maxZone     = 1 << 30     // octets of a zone that the API may send
	maxFailures = 3           // in a row, after which a server counts as away
)

// target is a server to compare.
type target struct {
	dns string // host:port
	api string // host:port of the HTTP API
}

// parseServer parses ADDRESS[:PORT][,API-ADDRESS:PORT].
func parseServer(s string) (target, error) {
	server, api, hasAPI := strings.Cut(s, ",")
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = strings.Trim(server, "[]"), "53"
	}
	if host == "" {
		return target{}, fmt.Errorf("%q has no address", s)
	}
	if !hasAPI {
		api = net.JoinHostPort(host, "8123")
	}
	if _, port, err := net.SplitHostPort(api); err != nil || strings.Contains(port, ",") {
		return target{}, fmt.Errorf("%q must be ADDRESS[:PORT][,API-ADDRESS:PORT]", s)
	}
	return target{dns: net.JoinHostPort(host, port), api: api}, nil
}

// comparison compares two servers.
type comparison struct {
	before, after target
	out           io.Writer
	failed        error // the first of writing
	unlisted      error // a server does not list its names
}

// say prints.
func (c *comparison) say(format string, args ...any) {
	if _, err := fmt.Fprintf(c.out, format, args...); c.failed == nil {
		c.failed = err
	}
}

// question is a name and a type.
type question struct {
	name  string
	qtype uint16
}

func (q question) compare(o question) int {
	if c := strings.Compare(q.name, o.name); c != 0 {
		return c
	}
	return int(q.qtype) - int(o.qtype)
}

// difference is what two servers answer differently.
type difference struct {
	question
	before, after []string
}

// run asks both servers for every name, and prints what differs. It fails if a difference has no
// reason that is known.
func (c *comparison) run(ctx context.Context, settle time.Duration) error {
	questions, err := c.questions(ctx)
	if err != nil {
		return err
	}
	all := len(questions)
	deadline := time.Now().Add(settle)
	differences, err := c.ask(ctx, questions)
	for err == nil && len(differences) > 0 && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again):
		}
		questions = questions[:0]
		for _, d := range differences {
			questions = append(questions, d.question)
		}
		differences, err = c.ask(ctx, questions)
	}
	if err != nil {
		return err
	}
	unknown := 0
	for _, d := range differences {
		why := d.deviation()
		if why == "" {
			unknown++
			why = "no known reason"
		}
		c.say("%s %s: %s\n  old: %s\n  new: %s\n", d.name, dns.TypeToString[d.qtype], why, list(d.before), list(d.after))
	}
	c.say("%d questions, %d answered differently, %d of them for no known reason\n", all, len(differences), unknown)
	switch {
	case c.failed != nil:
		return c.failed
	case c.unlisted != nil:
		return c.unlisted
	}
	if unknown > 0 {
		return fmt.Errorf("%d differences have no known reason", unknown)
	}
	return nil
}

func list(data []string) string {
	if len(data) == 0 {
		return "nothing"
	}
	return strings.Join(data, " ")
}

// questions returns what either server's API lists.
func (c *comparison) questions(ctx context.Context) ([]question, error) {
	all := make(map[question]bool)
	var failed []error
	var domains []string
	for _, t := range []target{c.before, c.after} {
		domain, err := t.list(ctx, all)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		domains = append(domains, domain)
	}
	if len(domains) == 2 && !strings.EqualFold(domains[0], domains[1]) {
		return nil, fmt.Errorf("one has the domain %q, the other %q", domains[0], domains[1])
	}
	if len(failed) == 2 || len(all) == 0 {
		return nil, fmt.Errorf("no names are known: %w", errors.Join(failed...))
	}
	for _, err := range failed {
		c.unlisted = fmt.Errorf("names that only this server has are not compared: %w", err)
	}
	maps.DeleteFunc(all, func(q question, _ bool) bool {
		_, ok := dns.IsDomainName(q.name)
		if !ok {
			c.say("%s: no client can ask for that name\n", q.name)
		}
		return !ok
	})
	return slices.SortedFunc(maps.Keys(all), question.compare), nil
}

// list adds what a server's API lists, and returns its domain.
func (t target) list(ctx context.Context, all map[question]bool) (domain string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	url := "http://" + t.api + "/v1/axfr"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, answer.Status)
	}
	var zone struct {
		Domain  string
		Records struct{ As, AAAAs, SRVs map[string][]string }
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxZone)).Decode(&zone); err != nil {
		return "", fmt.Errorf("%s: %w", url, err)
	}
	for qtype, sets := range map[uint16]map[string][]string{dns.TypeA: zone.Records.As, dns.TypeAAAA: zone.Records.AAAAs, dns.TypeSRV: zone.Records.SRVs} {
		for name := range sets {
			all[question{dns.Fqdn(name), qtype}] = true
		}
	}
	return zone.Domain, nil
}

// ask asks both servers, and returns what they answer differently.
func (c *comparison) ask(ctx context.Context, questions []question) ([]difference, error) {
	before, err := c.before.answers(ctx, questions)
	if err != nil {
		return nil, err
	}
	after, err := c.after.answers(ctx, questions)
	if err != nil {
		return nil, err
	}
	var all []difference
	for i, q := range questions {
		if !slices.Equal(before[i], after[i]) {
			all = append(all, difference{q, before[i], after[i]})
		}
	}
	return all, nil
}

// answers asks a server for all questions, over one connection as long as that lasts.
func (t target) answers(ctx context.Context, questions []question) ([][]string, error) {
	client := &dns.Client{Net: "tcp", Timeout: askTimeout}
	var conn *dns.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	all := make([][]string, 0, len(questions))
	failures := 0 // in a row
	for _, q := range questions {
		var r *dns.Msg
		var err error
		for range 2 { // a server may close a connection at any time
			if conn == nil {
				if conn, err = client.DialContext(ctx, t.dns); err != nil {
					return nil, err
				}
			}
			if r, _, err = client.ExchangeWithConnContext(ctx, new(dns.Msg).SetQuestion(q.name, q.qtype), conn); err == nil {
				break
			}
			conn.Close()
			conn = nil
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil && (len(all) == 0 || failures == maxFailures):
			return nil, fmt.Errorf("%s does not answer for %s: %w", t.dns, q.name, err)
		case err != nil:
			failures++
			all = append(all, []string{fmt.Sprintf("(%v)", err)})
			continue
		case r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError:
			all = append(all, []string{"(" + dns.RcodeToString[r.Rcode] + ")"})
		default:
			all = append(all, data(r, q.qtype))
		}
		failures = 0
	}
	return all, nil
}

// data returns the data of the records of a type, in order, each once.
func data(r *dns.Msg, qtype uint16) []string {
	var all []string
	for _, rr := range r.Answer {
		if rr.Header().Rrtype != qtype {
			continue
		}
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.AAAA:
			all = append(all, rr.AAAA.String())
		case *dns.SRV:
			all = append(all, fmt.Sprintf("%s:%d", strings.ToLower(rr.Target), rr.Port))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// deviation returns the reason by which a difference is meant to be (docs/names.md), or "".
func (d difference) deviation() string {
	first, _, _ := strings.Cut(d.name, ".")
	switch {
	case len(d.after) == 0 && illegal(d.name):
		return "names are answered in their legal form only"
	case strings.HasPrefix(first, "_framework"):
		return "_framework is the port of the framework's web interface"
	case isMasters(d.name):
		return "masters are numbered in the order of the list, or by address with ZooKeeper alone"
	case strings.HasPrefix(d.name, "ns1."):
		return "the name server's addresses are those that CoreDNS listens on"
	case d.qtype == dns.TypeAAAA && len(d.before) == 0:
		return "IPv6 addresses with a prefix length are addresses"
	case d.qtype == dns.TypeSRV && slices.Equal(services(d.before), services(d.after)):
		return "a service leads to where its port is, by a legal name"
	case len(d.before) == 0 && (isShortened(d.name) || slices.ContainsFunc(d.after, isShortened)):
		return "a name that would have too long a label is shortened, not left out"
	}
	return ""
}

// isShortened reports whether a name may have been shortened: with a label that could not be much
// longer.
func isShortened(name string) bool {
	longest := 0
	for label := range strings.SplitSeq(name, ".") {
		longest = max(longest, len(label))
	}
	return longest > 60
}

// rawCanonical is the name of an instance of a task whose own name ends in a dash.
var rawCanonical = regexp.MustCompile(`--[a-z0-9]{5}-s\d+$`)

// illegal reports whether a name has other characters than those of host names, or labels that
// are too long or begin or end with a dash.
func illegal(name string) bool {
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		body := strings.TrimPrefix(label, "_")
		if body == "" || len(label) > 63 || strings.HasPrefix(body, "-") || strings.HasSuffix(body, "-") || rawCanonical.MatchString(body) {
			return true
		}
		if strings.ContainsFunc(body, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }) {
			return true
		}
	}
	return false
}

// isMasters reports whether a name is one of the masters.
func isMasters(name string) bool {
	first, _, _ := strings.Cut(name, ".")
	number, isMaster := strings.CutPrefix(first, "master")
	return first == "leader" || first == "_leader" || isMaster && strings.Trim(number, "0123456789") == ""
}

// services returns services with the label that says where their target is left out, and with
// legal targets.
func services(data []string) []string {
	all := make([]string, 0, len(data))
	for _, s := range data {
		target, port, _ := strings.Cut(strings.ReplaceAll(s, "_", "-"), ":")
		labels := slices.DeleteFunc(strings.Split(target, "."), func(l string) bool { return l == "slave" || l == "containerip" })
		all = append(all, strings.Join(labels, ".")+":"+port)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
