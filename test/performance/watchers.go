package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// measureWatchers measures a simulated master with one subscriber and with many. A real one costs
// something else, but sends the same.
func measureWatchers(ctx context.Context, o *options, r *report) error {
	fastest := slices.Max(o.changes)
	for _, c := range []struct{ tasks, rate, watchers int }{
		{o.tasks, fastest, 1},
		{o.tasks, fastest, 20},
		{1000, 10, 1},
		{1000, 10, 1000},
	} {
		whole, cpu, err := watch(ctx, o, c.tasks, c.rate, c.watchers)
		if err != nil {
			return err
		}
		r.add(fmt.Sprintf("a simulated master of %d tasks, %d changes a second, subscribers: %d", c.tasks, c.rate, c.watchers), "",
			"all have the state after %.1f s; then CPU %.1f %% of one processor", whole.Seconds(), cpu*100)
	}
	return nil
}

// watch returns how long it takes until so many watchers have a master's state, and the part of a
// processor that the master uses then.
func watch(ctx context.Context, o *options, tasks, rate, watchers int) (whole time.Duration, cpu float64, err error) {
	dir, remove, err := scratch()
	if err != nil {
		return 0, 0, err
	}
	defer remove()
	sim, master, err := simulate(ctx, dir, "-tasks", strconv.Itoa(tasks), "-changes", strconv.Itoa(rate))
	if err != nil {
		return 0, 0, err
	}
	defer sim.stop()
	began := time.Now()
	clients, err := startSelf(dir, "watch", master, strconv.Itoa(watchers))
	if err != nil {
		return 0, 0, err
	}
	defer clients.stop()
	if err := await(ctx, time.Minute, func() bool {
		b, err := os.ReadFile(clients.log)
		return err == nil && strings.Contains(string(b), allSubscribed)
	}); err != nil {
		b, _ := os.ReadFile(clients.log) // as far as it is written
		return 0, 0, fmt.Errorf("subscribing: %w\n%s", err, b)
	}
	whole = time.Since(began)
	cpu, err = usage(ctx, sim, o.length)
	return whole, cpu, err
}

// usage returns the part of a processor that a process uses during some time.
func usage(ctx context.Context, p *process, d time.Duration) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	after, err := p.cpu()
	return float64(after-before) / float64(time.Since(began)), err
}

// subscribe is a call SUBSCRIBE, getState one GET_STATE.
var subscribe, getState = []byte{8, 18}, []byte{8, 9}

// call sends a call to a master.
func call(ctx context.Context, master string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+master+"/api/v1", strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Accept", "application/x-protobuf")
	return http.DefaultClient.Do(req)
}

// download returns how long the master takes to send its state.
func download(ctx context.Context, master string) (time.Duration, error) {
	began := time.Now()
	resp, err := call(ctx, master, getState)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return time.Since(began), err
}

// allSubscribed is what watchMany prints.
const allSubscribed = "all are subscribed"

// watchMany subscribes many times, reports when all have the state, and drops what follows.
func watchMany(args []string) error {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var begun sync.WaitGroup
	failed := make(chan error, n)
	for range n {
		begun.Add(1)
		go func() { // for as long as the process runs
			resp, err := call(context.Background(), args[0], subscribe)
			var stream *bufio.Reader
			if err == nil {
				defer resp.Body.Close()
				stream = bufio.NewReader(resp.Body)
				err = skipRecord(stream)
			}
			begun.Done()
			if err == nil {
				_, err = io.Copy(io.Discard, stream)
			}
			failed <- fmt.Errorf("a stream has ended: %w", err)
		}()
	}
	begun.Wait()
	fmt.Println(allSubscribed)
	return <-failed
}

// skipRecord reads a record of RecordIO.
func skipRecord(r *bufio.Reader) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	length, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64)
	if err != nil {
		return err
	}
	_, err = io.CopyN(io.Discard, r, length)
	return err
}
