// Package acceptance tests the page in a real browser, and the dashboard and the alerts with a
// real Prometheus. It is a module of its own, since nobody else needs the driver of the browser
// and Grafana's schema.
package acceptance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/calicomesos/calicomesos/plugin/mesostest"
	"github.com/calicomesos/calicomesos/test/loopback"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is how long a browser may take for a step, on a busy machine.
const patience = 30 * time.Second

// serve runs CoreDNS for a cluster, and returns the address of the page.
func serve(t *testing.T, load func(*mesostest.Master), properties string) (url string, program *loopback.Program) {
	t.Helper()
	m := mesostest.NewMaster(15 * time.Second)
	load(m)
	master := mesostest.Start(m)
	t.Cleanup(master.Close)
	dns, web := freePort(t), freePort(t)
	corefile := fmt.Sprintf(".:%d {\n bind 127.0.0.1\n errors\n calicomesos {\n master %s\n http 127.0.0.1:%d\n%s\n }\n}\n", dns, master.URL, web, properties)
	file := filepath.Join(t.TempDir(), "Corefile")
	if err := os.WriteFile(file, []byte(corefile), 0o600); err != nil {
		t.Fatal(err)
	}
	program = loopback.Start(t, exec.Command("../../bin/coredns", "-conf", file))
	program.WaitFor(`CoreDNS-`)
	return fmt.Sprintf("http://127.0.0.1:%d/", web), program
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// browser is a headless Chromium with one tab.
type browser struct {
	t   *testing.T
	ctx context.Context
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(1100, 900),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-quic", true))
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	quiet := log.New(io.Discard, "", 0).Printf // events that the driver does not know yet
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(quiet), chromedp.WithLogf(quiet))
	t.Cleanup(cancel)
	b := &browser{t, ctx}
	if err := chromedp.Do(ctx); err != nil { // not with a time-out: the browser would end by it
		t.Fatalf("start Chromium: %v", err)
	}
	return b
}

// do runs actions.
func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval evaluates an expression.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// expect waits until an expression has a value.
func (b *browser) expect(expression, want string) {
	b.t.Helper()
	loopback.Eventually(b.t, func() string {
		if got := b.eval(expression); got != want {
			return fmt.Sprintf("%s is %q, want %q", expression, got, want)
		}
		return ""
	})
}

// Expressions of what the page shows.
const (
	rows    = `document.querySelectorAll(".row").length`
	first   = `document.querySelector(".row")?.innerText`
	details = `document.querySelector("#tasks .detail")?.innerText.replaceAll("\n", " | ")`
)

// TestPage uses the page as somebody does who looks for a task.
func TestPage(t *testing.T) {
	url, _ := serve(t, func(m *mesostest.Master) {
		tut := mesostest.NewTutorial(m)
		evil := `<script>alert(1)</script><img src=x onerror="document.title='run'">`
		m.AddTask(tut.Task(mesostest.App{Name: evil, Network: "calico", Labels: []mesostest.Label{{Key: "HAPROXY_0_VHOST", Value: evil}}, Ports: []mesostest.Port{{Number: 80, Name: evil, Protocol: "tcp"}}}, evil, 0, "192.168.84.66"))
		m.AddTask(tut.Task(mesostest.App{Name: "elsewhere", Network: "calico"}, "elsewhere.1", 0, "10.9.8.7"))
	}, "allow 192.168.0.0/16 fd00::/8\nvhosts acme.org to 192.0.2.1 for *")
	b := newBrowser(t)
	b.do(chromedp.Navigate(url))
	b.expect(rows, "12")
	b.expect(`document.getElementById("state").textContent`, "In sync with the masters")

	t.Log("find an instance by its address, and open it by keyboard")
	b.do(chromedp.KeyEvent("/"))
	b.expect(`document.activeElement.id`, "text")
	b.eval(`document.getElementById("text").value = ""`) // the driver types the key at that, unlike a keyboard
	b.do(chromedp.SendKeys("#text", "192.168.84.192"))
	b.expect(rows, "1")
	b.do(chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.Enter))
	b.expect(`document.querySelector(".row").getAttribute("aria-expanded")`, "true")
	loopback.Eventually(t, func() string {
		text := b.eval(details)
		for _, want := range []string{"nginx-41ke3-s0.marathon.mesos.", "netinfo: 192.168.84.192", "(taken)", "_http._nginx._tcp.marathon.mesos. → nginx-41ke3-s0.marathon.mesos.:80"} {
			if !strings.Contains(text, want) {
				return fmt.Sprintf("no %q in %s", want, text)
			}
		}
		return ""
	})

	t.Log("it refreshes itself, and keeps what is open, typed and focused")
	b.eval(`window.kept = document.querySelector(".row")`)
	b.eval(`(window.turns = view.asked, refresh(), 0)`)
	b.expect(`view.asked > turns && document.activeElement === kept && document.getElementById("text").value`, "192.168.84.192")
	b.expect(`document.querySelectorAll(".detail h3").length > 2`, "true")

	t.Log("see why a task is not published")
	b.eval(`document.getElementById("text").value = ""`)
	b.do(chromedp.Click("#skipped"))
	loopback.Eventually(t, func() string {
		if text := b.eval(`document.getElementById("tasks").innerText`); !strings.Contains(text, "allow 192.168.0.0/16 fd00::/8 excludes 10.9.8.7") {
			return text
		}
		return ""
	})
	b.expect(`location.hash`, "#skipped=true")

	t.Log("a name that is not there is explained")
	b.do(chromedp.Click("#skipped"), chromedp.SendKeys("#text", "ngin.marathon.mesos"))
	loopback.Eventually(t, func() string {
		if text := b.eval(`document.getElementById("explained").innerText`); !strings.Contains(text, "NXDOMAIN") || !strings.Contains(text, "an app is named nginx") {
			return text
		}
		return ""
	})

	t.Log("a task that is named as a script is text")
	b.eval(`(document.getElementById("text").value = "alert(1)", search())`)
	b.expect(rows, "1")
	b.do(chromedp.Click(".row"))
	b.expect(`document.querySelector("#tasks .detail h3") !== null`, "true")
	if got := b.eval(first); !strings.Contains(got, "<script>alert(1)</script><img") {
		t.Errorf("the row says %q", got)
	}
	if got := b.eval(`document.title + document.querySelectorAll("img, main script").length`); got != "calicomesos0" {
		t.Errorf("markup of a task is in the page: %s", got)
	}

	t.Log("on a phone nothing is wider than the screen, and in the dark the page is dark")
	b.do(chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile))
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}); err != nil {
		t.Fatal(err)
	}
	b.eval(`(document.getElementById("text").value = "", search())`)
	b.expect(rows, "12")
	b.expect(`document.documentElement.scrollWidth <= 360`, "true")
	b.expect(`getComputedStyle(document.body).backgroundColor`, "rgb(20, 24, 31)")
}

// TestPage_Alone asks no other host, and has no script but its own.
func TestPage_Alone(t *testing.T) {
	url, _ := serve(t, func(m *mesostest.Master) { mesostest.NewTutorial(m) }, "")
	b := newBrowser(t)
	b.do(chromedp.Navigate(url))
	b.expect(rows, "10")
	foreign := fmt.Sprintf(`performance.getEntriesByType("resource").filter(e => !e.name.startsWith(%q) && !e.name.startsWith("data:")).length`, url)
	if got := b.eval(foreign); got != "0" {
		t.Errorf("%s resources are from elsewhere", got)
	}
	b.eval(`(() => { const s = document.createElement("script"); s.textContent = "document.title = 'run'"; document.body.append(s) })()`)
	if got := b.eval("document.title"); got != "calicomesos" {
		t.Errorf("a script in the page has run: %s", got)
	}
}

// TestPage_Large shows the first rows of 100,000 tasks. How long that takes is printed.
func TestPage_Large(t *testing.T) {
	url, _ := serve(t, func(m *mesostest.Master) { mesostest.NewLarge(m, 100_000, 5000, 3) }, "startup_timeout 60s")
	b := newBrowser(t)
	began := time.Now()
	b.do(chromedp.Navigate(url), chromedp.WaitVisible(".row"))
	t.Logf("the first rows of 100,000 tasks after %v", time.Since(began).Round(time.Millisecond))
	b.expect(rows, "100")
	b.expect(`document.getElementById("count").textContent`, "100,000 tasks")
	began = time.Now()
	b.do(chromedp.SendKeys("#text", "app-333."))
	b.expect(rows, "3")
	t.Logf("an app found after %v", time.Since(began).Round(time.Millisecond))
}

// TestPage_Away says that nothing answers, and recovers by itself.
func TestPage_Away(t *testing.T) {
	url, program := serve(t, func(m *mesostest.Master) { mesostest.NewTutorial(m) }, "")
	b := newBrowser(t)
	b.do(chromedp.Navigate(url))
	b.expect(rows, "10")
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	loopback.Eventually(t, func() string {
		if _, err := http.Get(url); err == nil {
			return "it still answers"
		}
		return ""
	})
	b.eval(`(refresh(), 0)`)
	loopback.Eventually(t, func() string {
		if text := b.eval(`document.getElementById("state").textContent`); !strings.HasPrefix(text, "This server does not answer") {
			return text
		}
		return ""
	})
	if got := b.eval(rows); got != "10" {
		t.Errorf("%s rows are left", got)
	}
}

var screenshot = flag.String("screenshot", "", "write a picture of the page to this file")

// TestScreenshot makes the picture in the README.
func TestScreenshot(t *testing.T) {
	if *screenshot == "" {
		t.Skip("without -screenshot FILE")
	}
	url, _ := serve(t, func(m *mesostest.Master) { mesostest.NewTutorial(m) }, "vhosts acme.org to marathon-lb.marathon.slave.mesos for external")
	b := newBrowser(t)
	b.do(chromedp.EmulateViewport(900, 820), chromedp.Navigate(url))
	b.expect(rows, "10")
	b.do(chromedp.SendKeys("#text", "nginx"))
	b.expect(rows, "3")
	b.do(chromedp.Click(".row"))
	b.expect(`document.querySelectorAll("#tasks .detail h3").length > 2`, "true")
	picture, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(*screenshot, picture, 0o644) //nolint:gosec // it is part of the documentation
	}
	if err != nil {
		t.Fatal(err)
	}
}
