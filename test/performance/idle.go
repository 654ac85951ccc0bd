package main

import (
	"context"
	"strconv"
	"time"
)

// measureIdle measures a server that only receives heartbeats and reconciles.
func measureIdle(ctx context.Context, o *options, r *report) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	sim, master, err := simulate(ctx, dir, "-tasks", strconv.Itoa(o.tasks))
	if err != nil {
		return err
	}
	defer sim.stop()
	s, err := startCoreDNS(dir, "calicomesos mesos 10.0.0.0/8 {\nmaster "+master+"\n}")
	if err != nil {
		return err
	}
	defer s.stop()
	if err := answers(ctx, s.addr); err != nil {
		return err
	}
	if _, err := usage(ctx, s.process, 10*time.Second); err != nil { // until the load has settled
		return err
	}
	part, err := usage(ctx, s.process, o.idle)
	if err != nil {
		return err
	}
	r.add("idle, "+strconv.Itoa(o.tasks)+" tasks", "heartbeats and reconciliation only", "CPU %.2f s in %v (%.3f %% of one processor)", part*o.idle.Seconds(), o.idle, part*100)
	return nil
}
