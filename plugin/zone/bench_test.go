package zone

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// million is a zone of a million names: apps of three instances, with a name
// of their own each, and a service.
func million(b *testing.B) *Zone {
	b.Helper()
	z := newZone("mesos.")
	tx := z.Begin()
	for app := range 200_000 {
		name := fmt.Sprintf("app-%d.marathon", app)
		service := fmt.Sprintf("_app-%d._tcp.marathon", app)
		for i := range 3 {
			task := fmt.Sprintf("app-%d-abcde-s%d.marathon", app, i)
			r := Address(netip.AddrFrom4([4]byte{10, byte(app >> 14), byte(app >> 6), byte(app<<2 | i)}))
			tx.Add(Rel(name), r)
			tx.Add(Rel(task), r)
			tx.Add(Rel(service), Service(Rel(task), 80))
		}
	}
	tx.Publish(now, Status{Complete: true})
	return z
}

func BenchmarkLookup(b *testing.B) { benchmarkLookup(b, million(b)) }

// BenchmarkLookupChanged asks a zone in which a quarter of the apps was given one more
// name each, many publications one after the other.
func BenchmarkLookupChanged(b *testing.B) {
	z := million(b)
	for app := 0; app < 200_000; {
		tx := z.Begin()
		for range 100 {
			tx.Add(Rel(fmt.Sprintf("new-%d.marathon", app)), Address(netip.AddrFrom4([4]byte{11, byte(app >> 16), byte(app >> 8), byte(app)})))
			app += 4
		}
		tx.Publish(now, Status{Complete: true})
	}
	benchmarkLookup(b, z)
}

func benchmarkLookup(b *testing.B, z *Zone) {
	for _, bc := range []struct {
		name  string
		owner string
		qtype uint16
	}{
		{"A3", "app-%d.marathon", dns.TypeA},
		{"SRV3", "_app-%d._tcp.marathon", dns.TypeSRV},
		{"NODATA", "app-%d.marathon", dns.TypeTXT},
		{"NXDOMAIN", "nope-%d.marathon", dns.TypeA},
	} {
		owners := make([]string, 1<<14)
		for i := range owners {
			owners[i] = fmt.Sprintf(bc.owner, i*7919%200_000)
		}
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				owner := owners[i&(1<<14-1)]
				z.Current().Lookup(owner, owner, bc.qtype, uint32(i), maxAnswer)
				i++
			}
		})
	}
}

// BenchmarkFind searches what an answer with three services needs, the service and its
// three targets: in a table, and in one of Go's maps, which could not be published.
func BenchmarkFind(b *testing.B) {
	g := million(b).Current()
	nodes := make(map[string]node)
	for n := range g.table.all {
		nodes[n.rel] = n
	}
	services := make([]string, 1<<14)
	for i := range services {
		services[i] = fmt.Sprintf("_app-%d._tcp.marathon", i*7919%200_000)
	}
	for _, bc := range []struct {
		name string
		find func(head string) node
	}{
		{"table", g.find},
		{"map", func(head string) node { return nodes[head] }},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				n := bc.find(services[i&(1<<14-1)])
				for r := range n.around(0) {
					prefix, text, suffix := r.target(n.rel)
					if bc.find(prefix+text+suffix).sets == "" {
						b.Fatal("no target")
					}
				}
				i++
			}
		})
	}
}

// BenchmarkPublish moves tasks of a zone of a million names, one of each of some apps at
// a time: two names of each change, and two come and go. With secondaries it keeps what
// has changed.
func BenchmarkPublish(b *testing.B) {
	for _, bc := range []struct {
		name   string
		batch  int
		deltas bool
	}{{"batch1", 1, false}, {"batch10", 10, false}, {"batch10deltas", 10, true}} {
		b.Run(bc.name, func(b *testing.B) {
			z := million(b)
			z.Journal = bc.deltas
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				tx := z.Begin()
				for range bc.batch {
					app, version := i*7919%200_000, i/200_000
					moveTask(tx, app, version)
					i++
				}
				if !tx.Publish(time.Now(), Status{Complete: true}) {
					b.Fatal("nothing has changed")
				}
			}
		})
	}
}

// BenchmarkPublish_Large moves one of 10,000 instances of an app.
func BenchmarkPublish_Large(b *testing.B) {
	const instances = 10_000
	z := newZone("mesos.")
	move := func(tx *Tx, i, n int) {
		apply := tx.Add
		if n < 0 {
			apply, n = tx.Remove, -n
		}
		task := Rel(fmt.Sprintf("app-abcde-s%d.marathon", n*instances+i))
		r := Address(netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)}))
		apply(Rel("app.marathon"), r)
		apply(task, r)
		apply(Rel("_app._tcp.marathon"), Service(task, 80))
	}
	tx := z.Begin()
	for i := range instances {
		move(tx, i, 1)
	}
	tx.Publish(now, Status{Complete: true})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tx := z.Begin()
		n := i/instances + 1
		move(tx, i%instances, -n)
		move(tx, i%instances, n+1)
		if !tx.Publish(time.Now(), Status{Complete: true}) {
			b.Fatal("nothing has changed")
		}
	}
}

// moveTask moves the first task of an app for the nth time.
func moveTask(tx *Tx, app, n int) {
	place := func(n int) (Name, Record) {
		return Rel(fmt.Sprintf("app-%d-abcde-s%d.marathon", app, 3*n)), Address(netip.AddrFrom4([4]byte{10 + byte(n), byte(app >> 14), byte(app >> 6), byte(app << 2)}))
	}
	name, service := Rel(fmt.Sprintf("app-%d.marathon", app)), Rel(fmt.Sprintf("_app-%d._tcp.marathon", app))
	task, r := place(n)
	tx.Remove(name, r)
	tx.Remove(task, r)
	tx.Remove(service, Service(task, 80))
	task, r = place(n + 1)
	tx.Add(name, r)
	tx.Add(task, r)
	tx.Add(service, Service(task, 80))
}
