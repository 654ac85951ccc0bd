package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/miekg/dns"
)

// scratch makes a directory; remove removes it.
func scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "performance")
	return dir, func() { _ = os.RemoveAll(dir) }, err // in the directory for temporary files
}

// process is a program that is measured.
type process struct {
	cmd *exec.Cmd
	log string // file
}

// start runs a program, which ends with stop.
func start(dir, name string, args ...string) (*process, error) {
	p := prepare(dir, name, args...)
	return p, p.start()
}

// prepare returns a program that is ready to start, with its log in dir.
func prepare(dir, name string, args ...string) *process {
	p := &process{cmd: exec.CommandContext(context.Background(), name, args...), log: filepath.Join(dir, filepath.Base(name)+".log")}
	p.cmd.Env = os.Environ()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p
}

// start runs p. Its output goes to its log, unless it is redirected.
func (p *process) start() error {
	f, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	p.cmd.Stderr = f
	if p.cmd.Stdout == nil {
		p.cmd.Stdout = f
	}
	return p.cmd.Start()
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	ended := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer ended.Stop()
	_ = p.cmd.Wait() // ended by the signal
}

// cpu returns the CPU time of the process.
func (p *process) cpu() (time.Duration, error) {
	user, kernel, err := p.times()
	return user + kernel, err
}

// times returns the CPU time in user mode and in the kernel.
func (p *process) times() (user, kernel time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, 0, errors.New("stat has too few fields")
	}
	const tick = 10 * time.Millisecond // on every Linux
	utime, userErr := strconv.ParseInt(fields[11], 10, 64)
	stime, kernelErr := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(utime) * tick, time.Duration(stime) * tick, errors.Join(userErr, kernelErr)
}

// status returns a size in bytes from /proc, such as VmHWM.
func (p *process) status(field string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kb * 1024, err
		}
	}
	return 0, fmt.Errorf("no %s", field)
}

// server is a name server that is measured.
type server struct {
	*process
	addr string // host:port
}

// startCoreDNS runs bin/coredns with a server block for all names that has the
// given lines behind *errors*, and with env in its environment.
func startCoreDNS(dir, block string, env ...string) (*server, error) {
	port, err := loopback.FreePort()
	if err != nil {
		return nil, err
	}
	return startBlock(dir, ".", port, "errors\n"+block, env...)
}

// startBlock runs bin/coredns with a server block for a zone at a port.
func startBlock(dir, zone string, port int, block string, env ...string) (*server, error) {
	corefile := filepath.Join(dir, fmt.Sprintf("Corefile.%d", port))
	text := fmt.Sprintf("%s:%d {\nbind 127.0.0.1\n%s\n}\n", zone, port, block)
	if err := os.WriteFile(corefile, []byte(text), 0o644); err != nil {
		return nil, err
	}
	p := prepare(dir, "bin/coredns", "-conf", corefile)
	p.cmd.Env = append(p.cmd.Env, env...)
	return &server{p, fmt.Sprintf("127.0.0.1:%d", port)}, p.start()
}

// simulate runs bin/mesos-sim and returns its address once it serves.
func simulate(ctx context.Context, dir string, args ...string) (*process, string, error) {
	port, err := loopback.FreePort()
	if err != nil {
		return nil, "", err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := start(dir, "bin/mesos-sim", append([]string{"-listen", addr}, args...)...)
	if err != nil {
		return nil, "", err
	}
	return p, addr, await(ctx, 10*time.Minute, func() bool {
		b, err := os.ReadFile(p.log)
		return err == nil && strings.Contains(string(b), addr)
	})
}

// await waits until done returns true, but no longer than the limit.
func await(ctx context.Context, limit time.Duration, done func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return loopback.Poll(ctx, done)
}

// ask returns the addresses in a server's answer, or the names in PTR records.
func ask(server, name string, qtype uint16) []string {
	m := new(dns.Msg).SetQuestion(name, qtype)
	m.SetEdns0(1232, false)
	r, _, err := (&dns.Client{Timeout: time.Second}).Exchange(m, server)
	if err != nil {
		return nil
	}
	var all []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			all = append(all, rr.A.String())
		case *dns.PTR:
			all = append(all, rr.Ptr)
		}
	}
	return all
}

// answers waits until a server has addresses for an app of the simulated cluster.
func answers(ctx context.Context, server string) error {
	return await(ctx, 10*time.Minute, func() bool { return len(ask(server, "app-0.marathon.mesos.", dns.TypeA)) > 0 })
}
