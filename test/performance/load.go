package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// loaded is the cost of loading a cluster.
type loaded struct {
	user, kernel   time.Duration // CPU
	wall           time.Duration
	download       time.Duration // of the state by a bare client
	memory         time.Duration // CPU of the kernel for a bare program, run just before, that used 3 KB a task
	peak, resident float64       // bytes
	heap           heap
}

// measureLoad starts CoreDNS for clusters of several sizes, until it answers for all tasks in all
// zones.
func measureLoad(ctx context.Context, o *options, r *report) error {
	nothing, err := load(ctx, 10, instances)
	if err != nil {
		return err
	}
	for _, tasks := range o.sizes {
		l, err := load(ctx, tasks, instances)
		if err != nil {
			return err
		}
		kernel := max(0, l.kernel-nothing.kernel).Seconds()
		used := (l.user - nothing.user).Seconds() + kernel
		goal := ""
		switch tasks {
		case 100_000:
			goal = "at most 0.8 s of CPU, 160 MB"
		case 1_000_000:
			goal = "at most 12 times that, 1.5 GB"
		}
		r.add(fmt.Sprintf("full state, %d tasks on %d agents", tasks, tasks/20), goal,
			"answers after %.1f s, of which the master takes %.1f s to send; CPU %.2f s, of which the kernel %.2f s (%.2f s for a bare program that used 3 KB a task just before); peak %.0f MB, then %.0f MB resident",
			l.wall.Seconds(), l.download.Seconds(), used, kernel, l.memory.Seconds(), l.peak/1e6, l.resident/1e6)
	}
	return nil
}

// load starts CoreDNS for a cluster of so many tasks, with so many instances of each app.
func load(ctx context.Context, tasks, instances int) (l loaded, err error) {
	dir, remove, err := scratch()
	if err != nil {
		return l, err
	}
	defer remove()
	sim, master, err := simulate(ctx, dir, "-tasks", strconv.Itoa(tasks), "-instances", strconv.Itoa(instances))
	if err != nil {
		return l, err
	}
	defer sim.stop()
	if l.download, err = download(ctx, master); err != nil {
		return l, err
	}
	if l.memory, err = costOfMemory(ctx, tasks*3000); err != nil {
		return l, err
	}
	profiles, err := loopback.FreePort()
	if err != nil {
		return l, err
	}
	began := time.Now()
	s, err := startCoreDNS(dir, fmt.Sprintf("pprof 127.0.0.1:%d\ncalicomesos mesos 10.0.0.0/8 {\nmaster %s\nstartup_timeout 1ms\n}", profiles, master))
	if err != nil {
		return l, err
	}
	defer s.stop()
	if err = reverses(ctx, s.addr, tasks-1); err != nil {
		return l, err
	}
	l.wall = time.Since(began)
	if l.user, l.kernel, err = s.times(); err != nil {
		return l, err
	}
	if l.peak, err = s.status("VmHWM"); err != nil {
		return l, err
	}
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return l, ctx.Err()
	}
	if l.resident, err = s.status("VmRSS"); err != nil {
		return l, err
	}
	l.heap, err = liveHeap(ctx, profiles)
	return l, err
}

// reverses waits until a server answers for the address of a task. The reverse zone is published
// last.
func reverses(ctx context.Context, server string, task int) error {
	name, err := dns.ReverseAddr(fmt.Sprintf("10.%d.%d.%d", task>>16, task>>8&255, task&255))
	if err != nil {
		return err
	}
	return await(ctx, 10*time.Minute, func() bool { return len(ask(server, name, dns.TypePTR)) > 0 })
}

// costOfMemory returns the CPU time that the kernel takes to give a process so many bytes.
func costOfMemory(ctx context.Context, octets int) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "touch", strconv.Itoa(octets))
	if err := cmd.Run(); err != nil {
		return 0, err
	}
	return cmd.ProcessState.SystemTime(), nil
}

// touch writes to each page of so many bytes of memory.
func touch(args []string) error {
	octets, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	memory := make([]byte, octets)
	for i := 0; i < octets; i += os.Getpagesize() {
		memory[i] = 1
	}
	return nil
}
