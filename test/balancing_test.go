//go:build e2e

package test

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"
)

// startExample starts the Corefile below a title of docs/balancing.md, with replacements, for a
// simulated cluster. It returns the port.
func startExample(t *testing.T, title string, replace ...string) int {
	t.Helper()
	doc, err := os.ReadFile("../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?ms)^## ` + title + `$.*?^~~~ corefile\n(.*?)^~~~$`).FindSubmatch(doc)
	if m == nil {
		t.Fatalf("docs/balancing.md has no %q", title)
	}
	master := start(t, "../bin/mesos-sim", "-listen", "127.0.0.1:0").WaitFor(`at (http://\S+)`)
	port := freePort(t)
	corefile := strings.NewReplacer(append(replace, ":1053 {", fmt.Sprintf(":%d {\n bind 127.0.0.1", port))...).Replace(string(m[1]))
	corefile = regexp.MustCompile(`(?m)^( *calicomesos[^{\n]*)( \{)?$`).ReplaceAllStringFunc(corefile, func(line string) string {
		if body, open := strings.CutSuffix(line, "{"); open {
			return body + "{\n master " + master
		}
		return line + " {\n master " + master + "\n}"
	})
	start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile)).WaitFor(`CoreDNS-`)
	return port
}

// TestSubnetFirst asks from the subnet that is preferred, and from another.
func TestSubnetFirst(t *testing.T) {
	port := startExample(t, "The client's subnet first", "client_ip(), '10.1.0.0/16'", "client_ip(), '127.0.1.0/24'", "prefer 10.1.0.0/16", "prefer 192.168.84.0/24")
	first := make(map[string]map[string]bool)
	for _, client := range []string{"127.0.1.1", "127.0.2.1"} {
		first[client] = make(map[string]bool)
		for range 40 { // that one of three is never first has a chance of one in ten million
			out := strings.Fields(run(t, "dig", "+short", "+tries=1", "-b", client, "@127.0.0.1", "-p", fmt.Sprint(port), "nginx.marathon.mesos", "A"))
			if len(out) != 3 {
				t.Fatalf("%s is answered %q", client, out)
			}
			first[client][out[0]] = true
		}
	}
	if near := first["127.0.1.1"]; len(near) != 1 || !near["192.168.84.192"] || len(first["127.0.2.1"]) != 3 {
		t.Errorf("first are %v", first)
	}
}

// TestZoneOfNetwork asks for an app in the zone of all networks and in that of one.
func TestZoneOfNetwork(t *testing.T) {
	port := startExample(t, "A zone for each network", "cni-apps", "calico")
	for name, want := range map[string]string{
		"nginx.marathon.mesos":            nginx,
		"marathon-lb.marathon.mesos":      "172.24.197.101",
		"nginx.marathon.apps.mesos":       nginx,
		"v6.marathon.apps.mesos":          "",
		"marathon-lb.marathon.apps.mesos": "172.24.197.101", // on its agent's network, which is not filtered
	} {
		if got := short(t, port, name, "A"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	other := startExample(t, "A zone for each network", "cni-apps", "other")
	if got := short(t, other, "nginx.marathon.apps.mesos", "A"); got != "" {
		t.Errorf("in the zone of another network nginx is at %s", got)
	}
}

// instances are HTTP servers on loopback addresses that say which they are, and the tasks of an
// app that stand for them.
type instances struct {
	t      *testing.T
	master *mesostest.Master
	script *mesostest.Script
	port   int
	srvs   map[string]*http.Server // by address
	tasks  map[string]*mesostest.Task
	number int
	gone   int    // status of a balancer while there is none, 503 by default
	host   string // that the app claims and clients ask for, "": the balancer's
	single bool   // the balancer keeps to one instance
}

// start starts an instance at an address.
func (i *instances) start(addr string) {
	i.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(i.port)))
	if err != nil {
		i.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, addr) })}
	i.t.Cleanup(func() { srv.Close() })
	go srv.Serve(l)
	i.number++
	app := mesostest.App{Name: "nginx", Network: "calico", Ports: []mesostest.Port{{Number: uint32(i.port), Name: "http", Protocol: "tcp"}}}
	if i.host != "" {
		app.Labels = []mesostest.Label{{Key: "HAPROXY_GROUP", Value: "external"}, {Key: "HAPROXY_0_VHOST", Value: i.host}}
	}
	i.srvs[addr], i.tasks[addr] = srv, i.script.Task(app, fmt.Sprintf("nginx.%d", i.number), i.number%2, addr)
	i.master.AddTask(i.tasks[addr])
}

// kill ends an instance, and tells so.
func (i *instances) kill(addr string) {
	i.srvs[addr].Close()
	t := i.tasks[addr]
	i.master.UpdateTask(t.FrameworkID.Value, i.script.Status(t, mesostest.TaskKilled), mesostest.TaskKilled)
	delete(i.srvs, addr)
	delete(i.tasks, addr)
}

// expect waits until exactly the present instances answer at a balancer, or it says that there
// is none.
func (i *instances) expect(step, balancer string) {
	i.t.Helper()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	began := time.Now()
	loopback.Eventually(i.t, func() string {
		seen := make(map[string]bool)
		for range 3*len(i.srvs) + 5 {
			req, err := http.NewRequestWithContext(i.t.Context(), http.MethodGet, balancer, http.NoBody)
			if err != nil {
				i.t.Fatal(err)
			}
			req.Host = i.host
			resp, err := client.Do(req)
			if err != nil {
				return step + ": " + err.Error()
			}
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			switch {
			case err != nil:
				return step + ": " + err.Error()
			case resp.StatusCode == cmp.Or(i.gone, http.StatusServiceUnavailable) && len(i.srvs) == 0:
				continue
			case resp.StatusCode != http.StatusOK:
				return step + ": " + resp.Status
			}
			seen[string(b)] = true
		}
		for addr := range seen {
			if i.srvs[addr] == nil {
				return step + ": " + addr + " still answers"
			}
		}
		want := len(i.srvs)
		if i.single {
			want = min(want, max(len(seen), 1))
		}
		if len(seen) != want {
			return fmt.Sprintf("%s: %d instances answer, of %d", step, len(seen), len(i.srvs))
		}
		return ""
	})
	i.t.Logf("%s: %d instances after %v", step, len(i.srvs), time.Since(began).Round(10*time.Millisecond))
}

// startCluster starts a cluster without tasks, and so many CoreDNS that watch it. It returns
// their ports, the apps' instances, and the programs.
func startCluster(t *testing.T, servers int) ([]int, *instances, []*loopback.Program) {
	t.Helper()
	m := mesostest.NewMaster(15 * time.Second)
	script := mesostest.NewScript("cd613e30-d8f1-6adf-91b7-584a2265b1f5")
	m.Load(&mesostest.GetState{
		Agents:     &mesostest.GetAgents{Agents: []*mesostest.Agent{script.Agent(0, "172.24.197.101"), script.Agent(1, "172.24.197.102")}},
		Frameworks: &mesostest.GetFrameworks{Frameworks: []*mesostest.Framework{script.Framework(0, "marathon", "172.24.197.100", "")}},
	})
	srv := httptest.NewServer(m)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	var (
		ports    []int
		programs []*loopback.Program
	)
	for range servers {
		port := freePort(t)
		corefile := fmt.Sprintf("mesos:%d apps.example.org:%[1]d {\n bind 127.0.0.1\n errors\n loadbalance\n calicomesos {\n master %s\n allow 127.0.0.0/8\n vhosts apps.example.org to tasks for external\n }\n}\n", port, srv.URL)
		p := start(t, "../bin/coredns", "-conf", write(t, filepath.Join(t.TempDir(), "Corefile"), corefile))
		p.WaitFor(`CoreDNS-`)
		ports, programs = append(ports, port), append(programs, p)
	}
	return ports, &instances{t: t, master: m, script: script, port: freePort(t), srvs: make(map[string]*http.Server), tasks: make(map[string]*mesostest.Task)}, programs
}

// address returns the address of instance n.
func address(n int) string { return fmt.Sprintf("127.1.%d.%d", n/250, n%250+1) }

// comeAndGo has instances come, go, move and be all gone, and the masters be away.
func (i *instances) comeAndGo(balancer string) {
	i.t.Helper()
	i.start(address(0))
	i.start(address(1))
	i.expect("two instances", balancer)
	for n := range 3 {
		i.start(address(n + 2))
	}
	i.expect("scaled up", balancer)
	i.kill(address(0))
	i.start(address(5))
	i.expect("one has moved", balancer)
	i.kill(address(1))
	i.kill(address(2))
	i.expect("scaled down", balancer)
	for _, addr := range slices.Collect(maps.Keys(i.srvs)) {
		i.kill(addr)
	}
	i.expect("all are gone", balancer)
	i.start(address(6))
	i.start(address(7))
	i.expect("and back", balancer)
	i.master.Refuse(http.StatusServiceUnavailable, "No leader elected")
	i.expect("the masters are away", balancer)
	i.master.Lead()
}

// TestHAProxy has HAProxy find the instances of an app as deploy/haproxy.cfg says, also many, and
// while a name server is away.
func TestHAProxy(t *testing.T) {
	ports, i, programs := startCluster(t, 2)
	conf, err := os.ReadFile("../deploy/haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	front := freePort(t)
	replaced := strings.NewReplacer("192.0.2.53:53", fmt.Sprintf("127.0.0.1:%d", ports[0]), "192.0.2.54:53", fmt.Sprintf("127.0.0.1:%d", ports[1]),
		"192.0.2.80:80", fmt.Sprintf("127.0.0.1:%d", front)).Replace(string(conf))
	start(t, tool(t, "haproxy"), "-db", "-f", write(t, filepath.Join(t.TempDir(), "haproxy.cfg"), replaced))
	balancer := fmt.Sprintf("http://127.0.0.1:%d/", front)
	i.comeAndGo(balancer)
	for n := range 200 {
		i.start(address(n + 10))
	}
	i.expect("many", balancer)
	if err := programs[0].Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	i.kill(address(6))
	i.start(address(8))
	i.expect("one name server is away, and one has moved", balancer)
}

// TestHAProxyClaimed has HAProxy look a claimed name up while it runs, as deploy/haproxy-vhosts.cfg
// says, and refuse others.
func TestHAProxyClaimed(t *testing.T) {
	ports, i, programs := startCluster(t, 2)
	conf, err := os.ReadFile("../deploy/haproxy-vhosts.cfg")
	if err != nil {
		t.Fatal(err)
	}
	front := freePort(t)
	replaced := strings.NewReplacer("192.0.2.53:53", fmt.Sprintf("127.0.0.1:%d", ports[0]), "192.0.2.54:53", fmt.Sprintf("127.0.0.1:%d", ports[1]),
		"192.0.2.80:80", fmt.Sprintf("127.0.0.1:%d", front), "int(80)", fmt.Sprintf("int(%d)", i.port)).Replace(string(conf))
	start(t, tool(t, "haproxy"), "-db", "-f", write(t, filepath.Join(t.TempDir(), "haproxy.cfg"), replaced))
	balancer := fmt.Sprintf("http://127.0.0.1:%d/", front)
	i.host, i.single, i.gone = "shop.apps.example.org", true, http.StatusNotFound
	i.comeAndGo(balancer)
	if err := programs[0].Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	i.kill(address(6))
	i.start(address(8))
	i.expect("one name server is away, and one has moved", balancer)
	for range 2 { // one after the other, the one that is in use, too
		i.start(address(20 + len(i.tasks) + i.number))
		i.kill(slices.Min(slices.Collect(maps.Keys(i.srvs))))
		i.expect("another has moved", balancer)
	}
	for _, host := range []string{"other.apps.example.org", "nginx.marathon.mesos", "example.com"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, balancer, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
}

// TestPrometheus has promtool discover the instances of an app, in a network namespace where
// CoreDNS is the resolver.
func TestPrometheus(t *testing.T) {
	doc, err := os.ReadFile("../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?ms)^~~~ yaml\n(.*?)^~~~$`).FindSubmatch(doc)
	dir := t.TempDir()
	conf := write(t, filepath.Join(dir, "prometheus.yml"), strings.ReplaceAll(string(m[1]), "_metrics._", "_http._"))
	resolv := write(t, filepath.Join(dir, "resolv.conf"), "nameserver 127.0.0.1\n")
	corefile := write(t, filepath.Join(dir, "Corefile"), "mesos.:53 {\n bind 127.0.0.1\n errors\n calicomesos {\n master http://127.0.0.1:5050\n }\n}\n")
	script := fmt.Sprintf(`set -e
ip link set lo up
mount --bind %s /etc/resolv.conf
../bin/mesos-sim &
sim=$!
../bin/coredns -conf %s &
dns=$!
trap 'kill $sim $dns; wait' EXIT
until dig +tries=1 +time=1 nginx.marathon.mesos | grep -q 'status: NOERROR'; do kill -0 $dns $sim; done
promtool check service-discovery --timeout=5s %s nginx`, resolv, corefile, conf)
	out := run(t, "unshare", "--net", "--mount", "--kill-child", "timeout", "60", "sh", "-c", script)
	for _, target := range []string{"nginx-41ke3-s0.marathon.mesos:80", "nginx-tbi96-s1.marathon.mesos:80", "nginx-xhdf8-s1.marathon.mesos:80"} {
		if !strings.Contains(out, `"__address__": "`+target+`"`) {
			t.Errorf("%s is not discovered:\n%s", target, out)
		}
	}
}

// TestNginx does the same with nginx, as docs/balancing.md says.
func TestNginx(t *testing.T) { runNginx(t, 0, "") }

// TestNginxClaimed has nginx look claimed names up.
func TestNginxClaimed(t *testing.T) { runNginx(t, 1, "shop.apps.example.org") }

// runNginx runs nginx with a configuration in docs/balancing.md, by its number.
func runNginx(t *testing.T, number int, host string) {
	t.Helper()
	ports, i, _ := startCluster(t, 1)
	doc, err := os.ReadFile("../docs/balancing.md")
	if err != nil {
		t.Fatal(err)
	}
	front, dir := freePort(t), t.TempDir()
	m := regexp.MustCompile(`(?ms)^~~~ nginx\n(.*?)^~~~$`).FindAllSubmatch(doc, -1)[number]
	conf := strings.NewReplacer("192.0.2.53", fmt.Sprintf("127.0.0.1:%d", ports[0]), "192.0.2.80:80", fmt.Sprintf("127.0.0.1:%d", front),
		"8080", strconv.Itoa(i.port)).Replace(string(m[1]))
	own := fmt.Sprintf("daemon off;\nuser root;\npid %[1]s/pid;\nerror_log stderr notice;\nevents { }\nhttp {\naccess_log off;\n"+
		"client_body_temp_path %[1]s/b;\nproxy_temp_path %[1]s/p;\nfastcgi_temp_path %[1]s/f;\nuwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n", dir)
	start(t, tool(t, "nginx"), "-e", "stderr", "-c", write(t, filepath.Join(dir, "nginx.conf"), own+conf+"}\n")).WaitFor(`start worker process`)
	i.gone, i.host = http.StatusBadGateway, host // the name does not exist
	i.comeAndGo(fmt.Sprintf("http://127.0.0.1:%d/", front))
}
