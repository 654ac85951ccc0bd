package main

import (
	"encoding/json"
	"slices"
	"strings"
)

// leftOut notes the settings that have no equivalent, where they say something else than what
// happens anyway.
func (t *translation) leftOut() {
	c := t.config
	for _, s := range []struct {
		key   string
		value any
		usual any // what happens here
		means string
	}{
		{"refreshSeconds", c.RefreshSeconds, 60, "nothing is polled: an answer changes within milliseconds of the event"},
		{"zkDetectionTimeout", c.ZkDetectionTimeout, 30, "CoreDNS does not end without a leader; it serves what it knows, and SERVFAIL before it knows anything"},
		{"stateTimeoutSeconds", c.StateTimeoutSeconds, 300, "a state that does not come is asked for again after a minute"},
		{"SOARname", strings.ReplaceAll(strings.TrimSuffix(c.SOARname, "."), "@", "."), "root.ns1.mesos", "the SOA's mailbox is hostmaster in the zone"},
		{"SOARefresh", c.SOARefresh, int64(60), "it is 60, and secondaries are told of each change"},
		{"SOARetry", c.SOARetry, int64(600), "it is 10"},
		{"SOAExpire", c.SOAExpire, int64(86400), "it is 86400"},
		{"SOAMinttl", c.SOAMinttl, c.TTL, "it is the ttl"},
		{"recurseon", c.RecurseOn, false, "answers for the domain never say that recursion is available; forwarded ones say what the resolver says"},
		{"enforceRFC952", c.EnforceRFC952, false, "labels may begin with a digit, as RFC 1123 has it"},
		{"srvRecordDefaultWeight", c.SRVRecordDefaultWeight, 1, "it is 1 for all, so that no instance is preferred"},
		{"SetTruncateBit", c.SetTruncateBit, true, "an answer that is cut says so, and clients ask again by TCP"},
		{"EnumerationOn", c.EnumerationOn, true, "/v1/enumerate is answered wherever http is"},
		{"ResolvSubnetFirst", c.ResolvSubnetFirst, false, "write the subnets into the Corefile with view and loadbalance prefer: docs/balancing.md"},
		{"email", c.Email, "", "Mesos-DNS ignores it, too; it was the SOA's mailbox once"},
		{"ns", c.NS, "", "Mesos-DNS ignores it, too"},
	} {
		if c.has(s.key) && s.value != s.usual {
			t.note("%s %s: %s", s.key, text(s.value), s.means)
		}
	}
	if c.ReverseDNSOn {
		t.note("reversednson: all of in-addr.arpa and ip6.arpa is answered here, as before; name the prefixes of your networks instead (`calicomesos %s 192.168.0.0/16`) to have others forwarded", t.zones()[0])
	}
	for _, key := range c.unknown {
		t.note("%s: Mesos-DNS does not know it", key)
	}
	slices.Sort(t.notes)
}

// jsonText returns a string in JSON.
func jsonText(s string) string {
	b, _ := json.Marshal(s) //nolint:errchkjson // a string always can
	return string(b)
}
