package calicomesos

import (
	"context"
	"net/netip"
	"sync"

	"github.com/calicomesos/calicomesos/plugin/cluster"
	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/zone"

	"github.com/coredns/coredns/plugin/metadata"
	"github.com/coredns/coredns/request"
)

// Metadata implements metadata.Provider, for plugins such as *log*, *view* and *rewrite*: the
// zone and the tasks of the name that is asked for, and the task whose container asks. Values
// are looked up when they are used.
func (c *CalicoMesos) Metadata(ctx context.Context, state request.Request) context.Context {
	if c.tasks == nil {
		return ctx
	}
	name := state.Name() // in lower case
	if z, rel := c.match(name); z != nil {
		metadata.SetValueFunc(ctx, pluginName+"/zone", func() string { return z.Origin })
		setTask(ctx, "", func() taskOf { return c.tasks.named(z, rel, name) })
	}
	setTask(ctx, "client-", func() taskOf { return c.tasks.at(state.IP()) })
	return ctx
}

// setTask sets the metadata that describe a task.
func setTask(ctx context.Context, prefix string, find func() taskOf) {
	metadata.SetValueFunc(ctx, pluginName+"/"+prefix+"task", func() string { return find().task })
	metadata.SetValueFunc(ctx, pluginName+"/"+prefix+"framework", func() string { return find().framework })
	metadata.SetValueFunc(ctx, pluginName+"/"+prefix+"agent", func() string { return find().agent })
}

// taskOf is what metadata say of a task, or of several: what they have in common.
type taskOf struct {
	task      string // id
	framework string // name, as the framework gave it to itself
	agent     string // hostname
	backup    bool   // unhealthy: it does not count beside one that is not
}

// taskIndex has the tasks by their names and by the addresses of their containers. The
// publisher writes it, and queries read it.
type taskIndex struct {
	schemes map[string]scheme // of zones, by origin

	mu    sync.RWMutex
	names map[indexedName]map[taskOf]int // number of records
	addrs map[netip.Addr]map[taskOf]int
}

// indexedName is a name relative to the zones of a scheme, but fully qualified in those of
// which each has names of its own: reverse and vhost.
type indexedName struct {
	scheme scheme
	name   string
}

func newTaskIndex(zones zoneSet) *taskIndex {
	x := &taskIndex{schemes: make(map[string]scheme), names: make(map[indexedName]map[taskOf]int), addrs: make(map[netip.Addr]map[taskOf]int)}
	for sch, zs := range zones {
		for _, z := range zs {
			x.schemes[z.Origin] = scheme(sch)
		}
	}
	return x
}

// replace takes in that a task has changed, with what the rules made of it before and
// make of it now. It does nothing without an index.
func (x *taskIndex) replace(c cluster.Change[cluster.Kept], r *rules, before, after *recordSet) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var task mesos.Task
	if c.Old.Valid() {
		x.count(c.Old.Instance(&task), r, before, -1)
	}
	if c.New.Valid() {
		x.count(c.New.Instance(&task), r, after, 1)
	}
}

// count adds the names and addresses of a task, or removes them if n is -1.
func (x *taskIndex) count(in cluster.Instance, r *rules, of *recordSet, n int) {
	if r.excludes(in.Framework.Framework) {
		return // it could have the name of another's
	}
	t := taskOf{task: in.Task.ID, framework: in.Framework.Name, agent: in.Agent.Hostname}
	for _, network := range in.Task.Status.Networks {
		for _, addr := range without(network.Addrs, in.Agent.Addrs) {
			count(x.addrs, addr, t, n)
		}
	}
	for _, rec := range of.records {
		name := rec.name.Rel
		if rec.name.Sub != 0 {
			name += "." + subdomains[rec.scheme][rec.name.Sub-1]
		}
		t.backup = rec.IsBackup()
		count(x.names, indexedName{rec.scheme, name}, t, n)
	}
	for _, c := range of.claims {
		if c.addr.IsValid() {
			continue // it goes with another one
		}
		t.backup = c.backup
		count(x.names, indexedName{vhost, zone.Join(c.name, r.vhosts[c.line].origin)}, t, n)
	}
}

func count[K comparable](all map[K]map[taskOf]int, key K, t taskOf, n int) {
	tasks := all[key]
	if tasks == nil {
		tasks = make(map[taskOf]int)
		all[key] = tasks
	}
	if tasks[t] += n; tasks[t] == 0 {
		delete(tasks, t)
	}
	if len(tasks) == 0 {
		delete(all, key)
	}
}

// named describes the tasks with a name in a zone: relative to it, and fully qualified.
func (x *taskIndex) named(z *zone.Zone, rel, name string) taskOf {
	key := indexedName{x.schemes[z.Origin], rel}
	switch {
	case key.scheme == reverse, key.scheme == vhost:
		key.name = name
	case z.Dashes:
		key.name = zone.Dashed(rel)
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return common(x.names[key])
}

// at describes the tasks whose containers have an address.
func (x *taskIndex) at(ip string) taskOf {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return taskOf{}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	return common(x.addrs[addr.Unmap()])
}

// common returns what tasks have in common. Backups do not count beside others.
func common(tasks map[taskOf]int) taskOf {
	var all taskOf
	first := true
	active := false
	for t := range tasks {
		active = active || !t.backup
	}
	for t := range tasks {
		switch {
		case active && t.backup:
			continue
		case first:
			all, first = t, false
			continue
		}
		if all.task != t.task {
			all.task = ""
		}
		if all.framework != t.framework {
			all.framework = ""
		}
		if all.agent != t.agent {
			all.agent = ""
		}
	}
	return all
}

var _ metadata.Provider = (*CalicoMesos)(nil)
