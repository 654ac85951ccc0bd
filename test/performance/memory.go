package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// measureMemory measures the live heap of a task, as the difference to a tiny cluster.
func measureMemory(ctx context.Context, o *options, r *report) error {
	const few = 10
	nothing, err := load(ctx, few, instances)
	if err != nil {
		return err
	}
	for _, cluster := range []struct {
		instances int
		goal      string
	}{{instances, "at most 1.5 KB"}, {1, ""}} {
		l, err := load(ctx, o.tasks, cluster.instances)
		if err != nil {
			return err
		}
		r.add(fmt.Sprintf("live heap, %d tasks, instances of each app: %d", o.tasks, cluster.instances), cluster.goal,
			"%.0f octets a task, in all %.0f MB", (l.heap-nothing.heap)/float64(o.tasks-few), l.heap/1e6)
	}
	return nil
}

// liveHeap returns the bytes of a CoreDNS's live heap after a collection, which its plugin *pprof*
// tells.
func liveHeap(ctx context.Context, port int) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", port), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "# HeapAlloc = ")
	octets, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseFloat(octets, 64)
}
