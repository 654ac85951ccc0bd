package calicomesos

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/watch"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/plugin/test"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
)

// from is a client's connection.
type from struct {
	test.ResponseWriter
	addr string
}

func (f *from) RemoteAddr() net.Addr { return &net.UDPAddr{IP: net.ParseIP(f.addr), Port: 4000} }

// TestMetadata looks names and clients up while tasks change.
func TestMetadata(t *testing.T) {
	p := newTestPublisher(&rules{sources: []source{netinfo, host}, health: true, frameworks: []tenant{{name: "marathon"}, {name: "chronos"}}}, claimedZones...)
	zones := zoneSet{}
	c := &CalicoMesos{}
	for sch, zs := range p.zones {
		for _, z := range zs {
			zones[sch] = append(zones[sch], z.Zone)
		}
	}
	c.zones = zones.all()
	c.tasks = newTaskIndex(zones)
	p.tasks = c.tasks
	agents := []*cluster.Agent{
		{Agent: &mesos.Agent{ID: "x-S0", Hostname: "rack1"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.1")}},
		{Agent: &mesos.Agent{ID: "x-S1", Hostname: "rack2"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.1.2")}},
	}
	task := func(id, framework, addr string, agent int, health mesos.Health) cluster.Kept {
		return cluster.Kept{
			Framework: &cluster.Framework{Framework: &mesos.Framework{ID: framework, Name: framework}}, Agent: agents[agent],
			Task: (&mesos.Task{ID: id, AgentID: agents[agent].ID, Name: id[:len(id)-2], State: mesos.TaskRunning, Status: mesos.Status{
				Health: health, Networks: []mesos.Network{{Addrs: []netip.Addr{netip.MustParseAddr(addr)}}},
			}}).Pack(),
		}
	}
	one, two := task("nginx.1", "marathon", "10.0.0.1", 0, mesos.Healthy), task("nginx.2", "marathon", "10.0.0.2", 1, mesos.Healthy)
	sick := task("nginx.3", "marathon", "10.0.0.3", 1, mesos.Unhealthy)
	for _, in := range []*cluster.Kept{&one, &two, &sick} { // all claim a name of newTestPublisher's zone
		task := in.Instance(new(mesos.Task)).Task
		task.Ports = []mesos.PortRange{{Begin: 31000, End: 31000}}
		task.HAProxy = []mesos.Label{{Key: "HAPROXY_0_VHOST", Value: "shop.apps.acme.org"}}
		in.Task = task.Pack()
	}
	pod := task("side_car.1", "marathon", "10.0.0.1", 0, mesos.Healthy) // with the address of the first
	evil := task("nginx.4", "evil", "10.0.0.4", 1, mesos.Healthy)
	hosted := task("lb.1", "chronos", "10.0.1.1", 0, mesos.Healthy)
	publish := func(old, now cluster.Kept) {
		p.Publish(&cluster.Changes{Instances: slices.Values([]cluster.Change[cluster.Kept]{{Old: old, New: now}})}, watch.Status{Complete: true})
	}
	none := cluster.Kept{}
	canonical := "nginx" + canonicalSuffix("nginx.1", "x-S0") + ".marathon.mesos."
	for i, step := range []struct {
		old, now     cluster.Kept
		name, client string
		want         string // zone, task, framework, agent; and of the client
	}{
		{none, one, "nginx.marathon.mesos.", "10.0.0.1", "mesos. nginx.1 marathon rack1; nginx.1 marathon rack1"},
		{none, sick, "NGINX.marathon.mesos.", "10.0.0.3", "mesos. nginx.1 marathon rack1; nginx.3 marathon rack2"},
		{none, two, "nginx.marathon.mesos.", "10.0.0.2", "mesos.  marathon ; nginx.2 marathon rack2"},
		{none, pod, canonical, "10.0.0.1", "mesos. nginx.1 marathon rack1;  marathon rack1"},
		{none, evil, "nginx.evil.mesos.", "10.0.0.4", "mesos.   ;   "},
		{none, hosted, "lb.chronos.mesos.", "10.0.1.1", "mesos. lb.1 chronos rack1;   "},
		{none, none, "side_car.marathon.mesos.", "10.9.9.9", "mesos. side_car.1 marathon rack1;   "},
		{none, none, "nginx.marathon.agentip.dcos.thisdcos.directory.", "::ffff:10.0.0.2", "dcos.thisdcos.directory.  marathon ; nginx.2 marathon rack2"},
		{none, none, "2.0.0.10.in-addr.arpa.", "fd00::1", "0.10.in-addr.arpa. nginx.2 marathon rack2;   "},
		{none, none, "shop.apps.acme.org.", "10.9.9.9", "apps.acme.org.  marathon ;   "},
		{none, none, "nope.mesos.", "10.0.0.1", "mesos.   ;  marathon rack1"},
		{none, none, "example.", "10.0.0.1", "   ;  marathon rack1"},
		{two, none, "nginx.marathon.mesos.", "10.0.0.2", "mesos. nginx.1 marathon rack1;   "},
		{none, none, "Shop.apps.acme.org.", "10.9.9.9", "apps.acme.org. nginx.1 marathon rack1;   "},
		{one, none, "nginx.marathon.mesos.", "10.0.0.1", "mesos. nginx.3 marathon rack2; side_car.1 marathon rack1"},
	} {
		if step.old.Valid() || step.now.Valid() {
			publish(step.old, step.now)
		}
		ctx := metadata.ContextWithMetadata(t.Context())
		m := new(dns.Msg).SetQuestion(step.name, dns.TypeA)
		ctx = c.Metadata(ctx, request.Request{W: &from{addr: step.client}, Req: m})
		value := func(label string) string {
			if f := metadata.ValueFunc(ctx, "calicomesos/"+label); f != nil {
				return f()
			}
			return ""
		}
		got := fmt.Sprintf("%s %s %s %s; %s %s %s", value("zone"), value("task"), value("framework"), value("agent"), value("client-task"), value("client-framework"), value("client-agent"))
		if got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
	for _, left := range []cluster.Kept{sick, pod, evil, hosted} {
		publish(left, none)
	}
	if len(c.tasks.names) > 0 || len(c.tasks.addrs) > 0 {
		t.Errorf("left: %v, %v", c.tasks.names, c.tasks.addrs)
	}
	if ctx := (&CalicoMesos{}).Metadata(t.Context(), request.Request{}); ctx != t.Context() {
		t.Error("the context is changed without an index")
	}
}

// TestMetadata_View serves a zone to the tasks of one framework only.
func TestMetadata_View(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	tut := mesostest.NewTutorial(m)
	m.AddTask(tut.Task(mesostest.App{Name: "asks", Network: "calico"}, "asks.1", 0, "127.1.0.5"))
	srv := mesostest.Start(m)
	defer srv.Close()
	corefile := fmt.Sprintf(`mesos:0 {
 bind 127.0.0.1
 metadata
 view tasks {
  expr metadata('calicomesos/client-framework') == 'marathon'
 }
 calicomesos {
  master %s
 }
}
`, srv.URL)
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "Corefile", Contents: []byte(corefile), ServerTypeName: "dns"})
	if err != nil {
		t.Fatal(err)
	}
	defer instance.Stop()              //nolint:errcheck // at the end
	defer instance.ShutdownCallbacks() // before that
	for client, want := range map[string]int{"127.1.0.5": dns.RcodeSuccess, "127.1.0.6": dns.RcodeRefused} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		c := dns.Client{Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(client)}}}
		r, _, err := c.ExchangeContext(ctx, new(dns.Msg).SetQuestion("nginx.marathon.mesos.", dns.TypeA), instance.Servers()[0].LocalAddr().String())
		if err != nil || r.Rcode != want {
			t.Errorf("%s is answered %v, %v, want %s", client, r, err, dns.RcodeToString[want])
		}
	}
}
