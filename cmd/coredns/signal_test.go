package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesos"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/plugin/snapshot"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// asProgram makes the test binary run as the program itself.
const asProgram = "CALICOMESOS_RUN_AS_PROGRAM"

// startProcess runs the program with a Corefile until the end of the test.
func startProcess(t *testing.T, corefile string) *loopback.Program {
	t.Helper()
	file := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-conf", file)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return loopback.Start(t, cmd)
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// liveHeap returns the bytes of the live heap, as *pprof* tells after a collection.
func liveHeap(t *testing.T, port int) float64 {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/heap?gc=1&debug=1", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	heap, err := strconv.ParseFloat(string(regexp.MustCompile(`# HeapAlloc = (\d+)`).FindSubmatch(b)[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return heap
}

// TestSIGUSR1 reloads the process by the signal several times, beside *reload*: Caddy purges
// its event hooks before it does so. The zones must have a journal afterwards, those before
// must leave the memory, and the snapshot must be written.
func TestSIGUSR1(t *testing.T) {
	m := mesostest.NewMaster(15 * time.Second)
	large := mesostest.NewLarge(m, 5_000, 250, 3)
	master := mesostest.Start(m)
	defer master.Close()
	port, pprof := freePort(t), freePort(t)
	file := filepath.Join(t.TempDir(), "snapshot")
	p := startProcess(t, fmt.Sprintf(`.:%d {
	bind 127.0.0.1
	reload
	pprof 127.0.0.1:%d
	transfer {
		to *
	}
	calicomesos mesos {
		master %s
		snapshot %s
	}
}
`, port, pprof, master.URL, file))
	server := fmt.Sprintf("127.0.0.1:%d", port)
	ask := func(name string, qtype uint16) []dns.RR {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(name, qtype), server)
		if err != nil {
			return nil
		}
		return r.Answer
	}
	serial := func() (serial uint32) {
		t.Helper()
		loopback.Eventually(t, func() string {
			if answer := ask("mesos.", dns.TypeSOA); len(answer) == 1 {
				serial = answer[0].(*dns.SOA).Serial
				return ""
			}
			return "no SOA"
		})
		return serial
	}
	// incremental moves a task, and transfers what has changed.
	incremental := func() []dns.RR {
		t.Helper()
		before := serial()
		large.Churn(m)
		loopback.Eventually(t, func() string {
			if serial() == before {
				return "the serial does not move"
			}
			return ""
		})
		q := new(dns.Msg).SetIxfr("mesos.", before, ".", ".")
		envelopes, err := new(dns.Transfer).In(q, server)
		if err != nil {
			t.Fatal(err)
		}
		var all []dns.RR
		for e := range envelopes {
			if e.Error != nil {
				t.Fatal(e.Error)
			}
			all = append(all, e.RR...)
		}
		return all
	}
	isIncremental := func(when string) {
		t.Helper()
		if rrs := incremental(); len(rrs) < 4 || len(rrs) > 100 || rrs[1].Header().Rrtype != dns.TypeSOA {
			t.Errorf("%s: a transfer of %d records", when, len(rrs))
		}
	}
	serial()
	isIncremental("at first")
	heap := liveHeap(t, pprof)
	for n := 1; n <= 3; n++ {
		if err := p.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		loopback.Eventually(t, func() string {
			if strings.Count(p.Output(), "Reloading complete") != n {
				return p.Output()
			}
			return ""
		})
		isIncremental(fmt.Sprintf("after reload %d", n))
	}
	if now := liveHeap(t, pprof); now > 1.2*heap {
		t.Errorf("the heap has grown from %.1f to %.1f MB", heap/1e6, now/1e6)
	}
	moved := large.Churn(m)
	// After a slow write the next one waits for a hundred times as long.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := loopback.Poll(ctx, func() bool {
		s, err := snapshot.Read(file)
		return err == nil && slices.ContainsFunc(s.State.Tasks, func(t mesos.PackedTask) bool { return t.ID() == moved.TaskID.Value })
	}); err != nil {
		t.Error("the snapshot is not written any more")
	}
}
