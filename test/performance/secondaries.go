package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
)

// measureSecondaries has a CoreDNS watch a cluster of which tasks move, and others
// follow it: two CoreDNS by AXFR and a BIND by IXFR.
func measureSecondaries(ctx context.Context, o *options, r *report) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	tasks := o.tasks / 10
	rate := o.changes[len(o.changes)-1]
	m := mesostest.NewMaster(15 * time.Second)
	large := mesostest.NewLarge(m, tasks, tasks/20, instances)
	m.Prepare()
	master := mesostest.Start(m)
	defer master.Close()
	defer m.Drop()
	alone, _, err := startFamily(ctx, dir, master.Host, nil)
	if err != nil {
		return err
	}
	c := churn{master: m, large: large, server: alone.addr, rate: rate}
	cpu, err := c.cost(ctx, o, alone.process)
	alone.stop()
	if err != nil {
		return err
	}
	r.add(fmt.Sprintf("a CoreDNS without secondaries, %d tasks, %d changes a second", tasks, rate), "", "CPU %.0f %% of one processor", cpu[0]*100)
	for _, kinds := range [][]string{{"coredns", "coredns"}, {"bind"}} {
		if err := measureFamily(ctx, o, r, dir, master.Host, &c, kinds); err != nil {
			return err
		}
	}
	return nil
}

// measureFamily measures a primary and its secondaries, of the kinds given.
func measureFamily(ctx context.Context, o *options, r *report, dir, master string, c *churn, kinds []string) error {
	primary, secondaries, err := startFamily(ctx, dir, master, kinds)
	if err != nil {
		return err
	}
	defer primary.stop()
	processes := []*process{primary.process}
	for _, s := range secondaries {
		defer s.stop()
		processes = append(processes, s.process)
	}
	c.server = secondaries[0].addr
	cpu, err := c.cost(ctx, o, processes...)
	if err != nil {
		return err
	}
	seen := c.run(ctx, o)
	r.add(fmt.Sprintf("with %d × %s as secondary", len(kinds), kinds[0]), "follow 1,000 changes a second",
		"CPU %.0f %% the primary, %.0f %% each secondary; a change is seen there after p50 %.1f s, p99 %.1f s (%d samples, and %d that were not seen in %s)",
		cpu[0]*100, cpu[1]*100, median(seen)/1000, quantile(seen, 0.99)/1000, len(seen), c.unseen, seenLimit)
	return nil
}

// cost returns what parts of a processor processes take while tasks move.
func (c *churn) cost(ctx context.Context, o *options, processes ...*process) ([]float64, error) {
	var before []time.Duration
	for _, p := range processes {
		cpu, err := p.cpu()
		if err != nil {
			return nil, err
		}
		before = append(before, cpu)
	}
	began := time.Now()
	c.run(ctx, o)
	var parts []float64
	for i, p := range processes {
		cpu, err := p.cpu()
		if err != nil {
			return nil, err
		}
		parts = append(parts, float64(cpu-before[i])/float64(time.Since(began)))
	}
	return parts, ctx.Err()
}

// startFamily starts a primary for the master, and its secondaries.
func startFamily(ctx context.Context, dir, master string, kinds []string) (*server, []*server, error) {
	var to []string
	ports := make([]int, len(kinds))
	for i := range kinds {
		port, err := freePort()
		if err != nil {
			return nil, nil, err
		}
		ports[i] = port
		to = append(to, fmt.Sprintf("127.0.0.1:%d", port))
	}
	block := "calicomesos mesos {\nmaster " + master + "\ncontainerip\n}"
	if len(to) > 0 {
		block += "\ntransfer {\nto " + strings.Join(to, " ") + "\n}"
	}
	primary, err := startCoreDNS(dir, block)
	if err != nil {
		return nil, nil, err
	}
	if err := answers(ctx, primary.addr, "app-0.marathon.mesos."); err != nil {
		return primary, nil, err
	}
	var secondaries []*server
	for i, kind := range kinds {
		start := startSecondary
		if kind == "bind" {
			start = startBIND
		}
		s, err := start(dir, ports[i], primary.addr)
		if err != nil {
			return primary, secondaries, err
		}
		secondaries = append(secondaries, s)
		if err := answers(ctx, s.addr, "app-0.marathon.mesos."); err != nil {
			return primary, secondaries, err
		}
	}
	return primary, secondaries, nil
}

func startSecondary(dir string, port int, primary string) (*server, error) {
	corefile := filepath.Join(dir, fmt.Sprintf("Corefile.%d", port))
	text := fmt.Sprintf("mesos.:%d {\nbind 127.0.0.1\nerrors\nsecondary {\ntransfer from %s\n}\n}\n", port, primary)
	if err := os.WriteFile(corefile, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p, err := start(dir, "bin/coredns", "-conf", corefile)
	return &server{p, fmt.Sprintf("127.0.0.1:%d", port)}, err
}

func startBIND(dir string, port int, primary string) (*server, error) {
	named, err := exec.LookPath("named")
	if err != nil {
		named = "/usr/sbin/named"
	}
	host, from, _ := strings.Cut(primary, ":")
	conf := filepath.Join(dir, fmt.Sprintf("named.%d.conf", port))
	text := fmt.Sprintf(`options {
 directory %q; pid-file none; session-keyfile none; listen-on-v6 { none; }; listen-on port %d { 127.0.0.1; };
 recursion no; dnssec-validation no; notify no; min-refresh-time 1; serial-query-rate 1000;
 max-records-per-type 0;
};
controls { };
zone "mesos" { type secondary; file "mesos.%d"; masterfile-format raw; primaries { %s port %s; }; };
`, dir, port, port, host, from)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p, err := start(dir, named, "-g", "-c", conf)
	return &server{p, fmt.Sprintf("127.0.0.1:%d", port)}, err
}
