package loopback

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is a running program, and what it prints.
type Program struct {
	*exec.Cmd
	tb testing.TB

	mu  sync.Mutex
	out bytes.Buffer
}

// Start runs a program. At the end of the test SIGTERM must end it.
func Start(tb testing.TB, cmd *exec.Cmd) *Program {
	tb.Helper()
	p := &Program{Cmd: cmd, tb: tb}
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(p.end)
	return p
}

func (p *Program) end() {
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	late := time.AfterFunc(patience, func() {
		p.tb.Errorf("%s does not end", p.Path)
		_ = p.Process.Kill()
	})
	defer late.Stop()
	_ = p.Wait() // by the signal, or as the test has ended it
	if p.tb.Failed() {
		p.tb.Logf("%s printed:\n%s", p.Path, p.Output())
	}
}

// Write implements io.Writer, for the program.
func (p *Program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// Output returns what the program has printed.
func (p *Program) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// WaitFor waits until the output matches an expression, and returns what its last group
// matches.
func (p *Program) WaitFor(expression string) string {
	p.tb.Helper()
	re := regexp.MustCompile(expression)
	var found []string
	Eventually(p.tb, func() string {
		if found = re.FindStringSubmatch(p.Output()); found == nil {
			return fmt.Sprintf("%s has not printed %q:\n%s", p.Path, expression, p.Output())
		}
		return ""
	})
	return found[len(found)-1]
}
