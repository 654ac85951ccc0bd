package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// measureMemory measures the live heap of a task, as the difference to a tiny cluster, and how many
// objects it is.
func measureMemory(ctx context.Context, o *options, r *report) error {
	const few = 10
	nothing, err := load(ctx, few, instances)
	if err != nil {
		return err
	}
	for _, cluster := range []struct {
		instances int
		goal      string
	}{{instances, "at most 750 octets, 8 objects"}, {1, "at most 1100 octets"}} {
		l, err := load(ctx, o.tasks, cluster.instances)
		if err != nil {
			return err
		}
		r.add(fmt.Sprintf("live heap, %d tasks, instances of each app: %d", o.tasks, cluster.instances), cluster.goal,
			"%.0f octets and %.1f objects a task, in all %.0f MB", (l.heap.octets-nothing.heap.octets)/float64(o.tasks-few),
			(l.heap.objects-nothing.heap.objects)/float64(o.tasks-few), l.heap.octets/1e6)
	}
	return nil
}

// heap is what of a heap is in use.
type heap struct{ octets, objects float64 }

// liveHeap returns the live heap of a CoreDNS after a collection, which its plugin *pprof* tells.
func liveHeap(ctx context.Context, port int) (h heap, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", port), nil)
	if err != nil {
		return h, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return h, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return h, err
	}
	for name, value := range map[string]*float64{"HeapAlloc": &h.octets, "HeapObjects": &h.objects} {
		_, rest, _ := strings.Cut(string(b), "# "+name+" = ")
		text, _, _ := strings.Cut(rest, "\n")
		if *value, err = strconv.ParseFloat(text, 64); err != nil {
			return h, err
		}
	}
	return h, nil
}
