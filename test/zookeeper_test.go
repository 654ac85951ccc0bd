//go:build e2e

package test

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/detector"
	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/go-zookeeper/zk"
)

const zkServer = "/usr/share/zookeeper/bin/zkServer.sh"

// ensemble is a ZooKeeper of one or three members on loopback ports.
type ensemble struct {
	t       *testing.T
	members []*member
}

type member struct {
	address string // host:port for clients
	conf    string
	cmd     *exec.Cmd // nil while it does not run
}

// startEnsemble starts n members, and ends them at the end of the test.
func startEnsemble(t *testing.T, n int) *ensemble {
	t.Helper()
	if _, err := os.Stat(zkServer); err != nil {
		t.Fatalf("ZooKeeper is not installed: make e2e installs it: %v", err)
	}
	e := &ensemble{t: t}
	var servers strings.Builder
	for i := range n {
		e.members = append(e.members, &member{address: fmt.Sprintf("127.0.0.1:%d", freePort(t))})
		if n > 1 {
			fmt.Fprintf(&servers, "server.%d=127.0.0.1:%d:%d\n", i+1, freePort(t), freePort(t))
		}
	}
	for i, m := range e.members {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "myid"), fmt.Sprint(i+1))
		_, port, _ := strings.Cut(m.address, ":")
		m.conf = write(t, filepath.Join(dir, "zoo.cfg"), fmt.Sprintf(`tickTime=500
initLimit=20
syncLimit=4
dataDir=%s
clientPort=%s
clientPortAddress=127.0.0.1
admin.enableServer=false
%s`, dir, port, servers.String()))
		e.start(i)
	}
	t.Cleanup(func() {
		for i := range e.members {
			e.kill(i)
		}
	})
	return e
}

func (e *ensemble) start(i int) {
	m := e.members[i]
	m.cmd = exec.Command(zkServer, "start-foreground", m.conf)
	dir := filepath.Dir(m.conf)
	m.cmd.Env = append(os.Environ(), "JVMFLAGS=-Xmx96m", "ZOO_LOG_DIR="+dir, "JMXDISABLE=true")
	out, err := os.OpenFile(filepath.Join(dir, "out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		e.t.Fatal(err)
	}
	defer out.Close()
	m.cmd.Stdout, m.cmd.Stderr = out, out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
}

// kill ends a member, if it runs, as a crash does.
func (e *ensemble) kill(i int) {
	m := e.members[i]
	if m.cmd == nil {
		return
	}
	_ = syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL) // it may have ended
	_ = m.cmd.Wait()
	m.cmd = nil
}

func (e *ensemble) addresses() []string {
	var all []string
	for _, m := range e.members {
		all = append(all, m.address)
	}
	return all
}

// candidate is a master's session with ZooKeeper.
type candidate struct {
	t    *testing.T
	conn *zk.Conn
	node string
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// announce makes a master a contender.
func (e *ensemble) announce(name string, info []byte) *candidate {
	e.t.Helper()
	conn, _, err := zk.Connect(e.addresses(), 4*time.Second, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		e.t.Fatal(err)
	}
	c := &candidate{t: e.t, conn: conn}
	loopback.Eventually(e.t, func() string {
		if _, err := conn.Create("/mesos", nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return err.Error()
		}
		node, err := conn.Create("/mesos/"+name, info, zk.FlagEphemeral|zk.FlagSequence, zk.WorldACL(zk.PermAll))
		if err != nil {
			return err.Error()
		}
		c.node = node
		return ""
	})
	return c
}

// withdraw ends the session, and with it the node.
func (c *candidate) withdraw() { c.conn.Close() }

func masterJSON(hostPort, id string) []byte {
	_, port, _ := strings.Cut(hostPort, ":")
	return fmt.Appendf(nil, `{"address":{"hostname":"m.invalid","ip":"127.0.0.1","port":%s},"hostname":"m.invalid","id":"%s","ip":16777343,"pid":"master@%s","port":%s}`, port, id, hostPort, port)
}

// finding receives what a detector finds.
type finding struct {
	found chan detector.Masters
	last  detector.Masters
}

func follow(t *testing.T, endpoint string) *finding {
	t.Helper()
	z, err := detector.ParseZooKeeper(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	f := &finding{found: make(chan detector.Masters, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		z.Run(t.Context(), func(v detector.Masters) { f.found <- v })
	}()
	t.Cleanup(func() {
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("the detector does not end")
		}
	})
	return f
}

// capturedLog is what this process logs.
type capturedLog struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func captureLog(t *testing.T) *capturedLog {
	l := &capturedLog{}
	log.SetOutput(l)
	t.Cleanup(func() { log.SetOutput(os.Stderr) })
	return l
}

func (l *capturedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

// expect waits until text is logged.
func (l *capturedLog) expect(t *testing.T, text string) {
	t.Helper()
	loopback.Eventually(t, func() string {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !strings.Contains(l.out.String(), text) {
			return fmt.Sprintf("%q is not logged: %s", text, l.out.String())
		}
		return ""
	})
}

// expect waits until the leader is the one, of so many masters.
func (f *finding) expect(t *testing.T, hostPort string, masters int) {
	t.Helper()
	loopback.Eventually(t, func() string {
		select {
		case f.last = <-f.found:
		default:
		}
		v := f.last
		if v.Leader == nil || v.Leader.Host != hostPort || len(v.All) != masters {
			return fmt.Sprintf("leader %v of %v, want %s of %d", v.Leader, v.All, hostPort, masters)
		}
		return ""
	})
}

// TestZooKeeper follows elections in an ensemble of three, while members fail.
func TestZooKeeper(t *testing.T) {
	e := startEnsemble(t, 3)
	one := e.announce("json.info_", masterJSON("127.0.0.1:5051", "x"))
	// The first member's name cannot be resolved.
	f := follow(t, "zk://zk.invalid:2181,"+strings.Join(e.addresses(), ",")+"/mesos")
	f.expect(t, "127.0.0.1:5051", 1)
	if _, err := one.conn.Create("/mesos/log_replicas", nil, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	old := mesostest.Protobuf(&mesostest.MasterInfo{IP: 0x0200007f, Port: 5052}) // 127.0.0.2, before MasterInfo had an address
	two := e.announce("info_", old)
	defer two.withdraw()
	f.expect(t, "127.0.0.1:5051", 2)
	one.withdraw()
	f.expect(t, "127.0.0.2:5052", 1)

	// Each member dies in turn.
	for i := range e.members {
		e.kill(i)
		three := e.announce("json.info_", masterJSON(fmt.Sprintf("127.0.0.1:%d", 6000+i), "x"))
		f.expect(t, "127.0.0.2:5052", 2)
		three.withdraw()
		f.expect(t, "127.0.0.2:5052", 1)
		e.start(i)
		loopback.Eventually(t, func() string {
			conn, _, err := zk.Connect(e.addresses()[i:i+1], 4*time.Second, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
			if err != nil {
				return err.Error()
			}
			defer conn.Close()
			if _, _, err := conn.Children("/mesos"); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}

// TestZooKeeperRestart restarts the only member. What was found before holds, and new masters are
// found afterwards.
func TestZooKeeperRestart(t *testing.T) {
	e := startEnsemble(t, 1)
	one := e.announce("json.info_", masterJSON("127.0.0.1:5051", "x"))
	logged := captureLog(t)
	f := follow(t, "zk://"+e.addresses()[0]+"/mesos")
	f.expect(t, "127.0.0.1:5051", 1)
	e.kill(0)
	one.withdraw()
	logged.expect(t, "no member of the ensemble answers")
	select {
	case v := <-f.found:
		if v.Live || v.Leader == nil || v.Leader.Host != "127.0.0.1:5051" {
			t.Errorf("found %v while there is no ZooKeeper", v)
		}
	default:
		t.Error("the loss of ZooKeeper was not told")
	}
	e.start(0)
	two := e.announce("json.info_", masterJSON("127.0.0.1:5052", "x"))
	defer two.withdraw()
	f.expect(t, "127.0.0.1:5052", 1)
}

// TestZooKeeperDataLoss restarts the ensemble without its data. It never answers a client that has
// seen a later state than it has itself.
func TestZooKeeperDataLoss(t *testing.T) {
	e := startEnsemble(t, 1)
	one := e.announce("json.info_", masterJSON("127.0.0.1:5051", "x"))
	f := follow(t, "zk://"+e.addresses()[0]+"/mesos")
	f.expect(t, "127.0.0.1:5051", 1)
	e.kill(0)
	one.withdraw()
	if err := os.RemoveAll(filepath.Join(filepath.Dir(e.members[0].conf), "version-2")); err != nil {
		t.Fatal(err)
	}
	e.start(0)
	two := e.announce("json.info_", masterJSON("127.0.0.1:5052", "x"))
	defer two.withdraw()
	f.expect(t, "127.0.0.1:5052", 1)
}

// TestZooKeeperAuth lists nodes that require authentication.
func TestZooKeeperAuth(t *testing.T) {
	e := startEnsemble(t, 1)
	conn, _, err := zk.Connect(e.addresses(), 4*time.Second, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	acl := zk.DigestACL(zk.PermAll, "mesos", "hunter2")
	loopback.Eventually(t, func() string { // it is starting
		if err := conn.AddAuth("digest", []byte("mesos:hunter2")); err != nil {
			return err.Error()
		}
		return ""
	})
	for _, node := range []string{"/mesos", "/mesos/json.info_0000000007"} {
		if _, err := conn.Create(node, masterJSON("127.0.0.1:5051", "x"), 0, acl); err != nil {
			t.Fatal(err)
		}
	}
	logged := captureLog(t)
	follow(t, "zk://"+e.addresses()[0]+"/mesos") // without authentication
	f := follow(t, "zk://mesos:hunter2@"+e.addresses()[0]+"/mesos")
	f.expect(t, "127.0.0.1:5051", 1)
	logged.expect(t, "not authenticated")
}

// TestZooKeeperSession lets the session expire. Masters are then found in another one.
func TestZooKeeperSession(t *testing.T) {
	e := startEnsemble(t, 1)
	one := e.announce("json.info_", masterJSON("127.0.0.1:5051", "x"))
	defer one.withdraw()
	f := follow(t, "zk://"+e.addresses()[0]+"/mesos")
	f.expect(t, "127.0.0.1:5051", 1)
	pid := e.members[0].cmd.Process.Pid
	// A server that is stopped for longer than its sessions last expires them when it continues.
	// Only time does that.
	if err := syscall.Kill(-pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(12 * time.Second)
	if err := syscall.Kill(-pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	two := e.announce("json.info_", masterJSON("127.0.0.1:5052", "x"))
	defer two.withdraw()
	loopback.Eventually(t, func() string {
		select {
		case f.last = <-f.found:
		default:
		}
		if !slices.ContainsFunc(f.last.All, func(u *url.URL) bool { return u.Port() == "5052" }) {
			return fmt.Sprintf("found %v", f.last)
		}
		return ""
	})
}
