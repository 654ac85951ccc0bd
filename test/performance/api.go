package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"
)

// apiRate is the number of changes a second while the API is asked.
const apiRate = 100

// apiPaths are requests to the API that look at the whole cluster.
var apiPaths = []string{"/v1/tasks", "/v1/tasks?q=app-7", "/v1/tasks?skipped=true", "/v1/explain/app-7.marathon.mesos", "/v1/explain/nope.marathon.mesos", "/v1/enumerate", "/v1/axfr"}

// measureAPI measures how long requests take, one after the other, and how long changes take
// until they are answered, without requests and beside them.
func measureAPI(ctx context.Context, o *options, r *report) error {
	dir, remove, err := scratch()
	if err != nil {
		return err
	}
	defer remove()
	master, err := startMoving(dir, o.tasks, apiRate, told)
	if err != nil {
		return err
	}
	defer master.stop()
	web, err := loopback.FreePort()
	if err != nil {
		return err
	}
	s, err := startCoreDNS(dir, fmt.Sprintf("calicomesos {\nmaster %s\nhttp 127.0.0.1:%d\n}", master.addr, web))
	if err != nil {
		return err
	}
	defer s.stop()
	if err := answers(ctx, s.addr); err != nil {
		return err
	}
	if _, err := usage(ctx, s.process, o.length); err != nil { // until the load has settled
		return err
	}
	alone := master.watch(ctx, s.addr, 3*o.length)
	asking, end := context.WithCancel(ctx)
	defer end()
	var wg sync.WaitGroup
	var took map[string][]float64
	var failed error
	wg.Go(func() { took, failed = askAPI(asking, fmt.Sprintf("http://127.0.0.1:%d", web)) })
	beside := master.watch(ctx, s.addr, 3*o.length)
	end()
	wg.Wait()
	if failed != nil {
		return failed
	}
	for _, path := range apiPaths {
		goal := ""
		if path == apiPaths[0] {
			goal = "within a second"
		}
		r.add(fmt.Sprintf("%s, %d tasks", path, o.tasks), goal, "%s ms (%d requests)", percentiles(took[path]), len(took[path]))
	}
	r.add(fmt.Sprintf("event to answer, %d tasks, %d changes a second, beside these requests", o.tasks, apiRate), "",
		"%s ms; without them %s ms", percentiles(beside.after), percentiles(alone.after))
	return nil
}

// askAPI sends one request after the other until ctx is done, and returns how long each took, in
// milliseconds, by path.
func askAPI(ctx context.Context, url string) (map[string][]float64, error) {
	took := make(map[string][]float64)
	for i := 0; ; i++ {
		path := apiPaths[i%len(apiPaths)]
		began := time.Now()
		err := fetch(ctx, url+path)
		switch {
		case ctx.Err() != nil && i >= len(apiPaths):
			return took, nil
		case err != nil:
			return nil, err
		}
		took[path] = append(took[path], float64(time.Since(began).Microseconds())/1000)
	}
}

// fetch reads an answer and drops it.
func fetch(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
