package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"
)

// measureSecondaries lets a CoreDNS watch a cluster whose tasks move, and secondaries follow it:
// two CoreDNS by AXFR, and a BIND by IXFR.
func measureSecondaries(ctx context.Context, o *options, r *report) error {
	for _, family := range []struct {
		tasks int
		kinds []string
	}{
		{o.tasks / 10, nil},
		{o.tasks / 10, []string{"coredns", "coredns"}},
		{o.tasks / 10, []string{"bind"}},
		{o.tasks, nil},
		{o.tasks, []string{"bind"}},
	} {
		if err := measureFamily(ctx, o, r, family.tasks, family.kinds); err != nil {
			return err
		}
	}
	return nil
}

// measureFamily measures a primary and its secondaries while tasks move: first their CPU time while
// nobody asks, then how long changes take.
func measureFamily(ctx context.Context, o *options, r *report, tasks int, kinds []string) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	rate := slices.Max(o.changes)
	const told = 5 // moves a second to look for
	master, err := startMoving(dir, tasks, rate, told)
	if err != nil {
		return err
	}
	defer master.stop()
	f, err := startFamily(ctx, dir, master.addr, kinds)
	defer f.stop()
	if err != nil {
		return err
	}
	cpu, err := f.cpu(ctx, 3*o.length)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("a CoreDNS, %d tasks, %d changes a second, ", tasks, rate)
	if len(kinds) == 0 {
		r.add(what+"no secondaries", "", "CPU %.0f %% of one processor", cpu[0]*100)
		return nil
	}
	seen := master.watch(ctx, f.secondaries[0].addr, 3*o.length)
	var each float64
	for _, part := range cpu[1:] {
		each += part / float64(len(kinds))
	}
	r.add(what+fmt.Sprintf("secondaries: %d × %s", len(kinds), kinds[0]), "follow 1,000 changes a second",
		"CPU %.0f %% the primary, %.0f %% each secondary; a change is seen there after %s ms (%d samples, and %d that were not seen in %s)",
		cpu[0]*100, each*100, percentiles(seen.after), len(seen.after), seen.never, seenLimit)
	return nil
}

// family is a primary and its secondaries.
type family struct {
	primary     *server
	secondaries []*server
}

func (f *family) stop() {
	for _, s := range f.all() {
		s.stop()
	}
}

// all returns those that were started.
func (f *family) all() []*server {
	if f.primary == nil {
		return nil
	}
	return append([]*server{f.primary}, f.secondaries...)
}

// cpu returns the part of a processor that each member uses during some time.
func (f *family) cpu(ctx context.Context, length time.Duration) ([]float64, error) {
	members := f.all()
	parts := make([]float64, len(members))
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, s := range members {
		wg.Go(func() { parts[i], errs[i] = usage(ctx, s.process, length) })
	}
	wg.Wait()
	return parts, errors.Join(errs...)
}

// startFamily starts a primary for the master, and its secondaries. With an error it returns those
// that were started.
func startFamily(ctx context.Context, dir, master string, kinds []string) (*family, error) {
	f := &family{}
	ports := make([]int, len(kinds))
	block := "calicomesos mesos {\nmaster " + master + "\ncontainerip\n}"
	if len(kinds) > 0 {
		block += "\ntransfer {\nto"
		for i := range kinds {
			port, err := loopback.FreePort()
			if err != nil {
				return f, err
			}
			ports[i] = port
			block += fmt.Sprintf(" 127.0.0.1:%d", port)
		}
		block += "\n}"
	}
	primary, err := startCoreDNS(dir, block)
	if err != nil {
		return f, err
	}
	f.primary = primary
	if err := answers(ctx, primary.addr); err != nil {
		return f, err
	}
	for i, kind := range kinds {
		start := startSecondary
		if kind == "bind" {
			start = startBIND
		}
		s, err := start(dir, ports[i], primary.addr)
		if err != nil {
			return f, err
		}
		f.secondaries = append(f.secondaries, s)
		if err := answers(ctx, s.addr); err != nil {
			return f, err
		}
	}
	return f, nil
}

func startSecondary(dir string, port int, primary string) (*server, error) {
	return startBlock(dir, "mesos.", port, "errors\nsecondary {\ntransfer from "+primary+"\n}")
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
