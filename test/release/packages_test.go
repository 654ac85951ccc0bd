//go:build release

package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLintian asks Debian's own judge of packages.
func TestLintian(t *testing.T) {
	dir := built(t, firstRelease)
	for _, arch := range []string{"amd64", "arm64"} {
		tool(t, "lintian", "--allow-root", "--fail-on", "error,warning", filepath.Join(dir, "calicomesos_"+first+"_"+arch+".deb"))
	}
}

// extract unpacks the Debian package into a directory.
func extract(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	tool(t, "dpkg-deb", "--extract", one(t, built(t, firstRelease), "*_amd64.deb"), root)
	return root
}

// TestRPM installs the package for RPM into a directory.
func TestRPM(t *testing.T) {
	dir := built(t, firstRelease)
	for _, arch := range []string{"x86_64", "aarch64"} {
		file := one(t, dir, "*."+arch+".rpm")
		got := tool(t, "rpm", "-qp", "--queryformat", "%{NAME} %{VERSION} %{ARCH} %{LICENSE}", file)
		if want := "calicomesos " + first + " " + arch + " Apache-2.0"; got != want {
			t.Errorf("%s, not %s", got, want)
		}
		if got := strings.TrimSpace(tool(t, "rpm", "-qp", "--configfiles", file)); got != "/etc/calicomesos/Corefile" {
			t.Errorf("configuration: %s", got)
		}
		flags := tool(t, "rpm", "-qp", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags}\n]", file)
		if !strings.Contains(flags, "/etc/calicomesos/Corefile cn\n") { // %config(noreplace)
			t.Error("an upgrade would replace the Corefile")
		}
		for _, want := range []string{
			"/etc/calicomesos", "/usr/bin/mesos-sim", "/usr/bin/mesos-dns-corefile", "/usr/lib/systemd/system/calicomesos.service",
			"/usr/lib/sysusers.d/calicomesos.conf", "/usr/lib/tmpfiles.d/calicomesos.conf", "/usr/share/doc/calicomesos/docs/installing.md",
			"/usr/share/doc/calicomesos/deploy/marathon.json", "/usr/share/doc/calicomesos/deploy/alerts.yaml", "/usr/share/doc/calicomesos/calicomesos.cdx.json",
		} {
			if !strings.Contains("\n"+flags, "\n"+want+" ") {
				t.Errorf("%s is not in the package for %s", want, arch)
			}
		}
	}
	root := t.TempDir()
	tool(t, "rpm", "--root", root, "--initdb")
	tool(t, "rpm", "--root", root, "--install", "--nodeps", "--noscripts", one(t, dir, "*.x86_64.rpm"))
	tool(t, "rpm", "--root", root, "--verify", "--nodeps", "--noscripts", "calicomesos")
	if got := tool(t, filepath.Join(root, "usr/bin/coredns-calicomesos"), "-version"); !strings.Contains(got, "calicomesos-v"+first) {
		t.Errorf("is %s", got)
	}
	scripts := tool(t, "rpm", "-qp", "--scripts", one(t, dir, "*.x86_64.rpm"))
	for _, want := range []string{"postinstall", "preuninstall", "postuninstall"} {
		if !strings.Contains(scripts, want+" scriptlet (using /bin/sh)") {
			t.Errorf("the script %s is missing", want)
		}
	}
}

// hyphen is where man divides a word.
var hyphen = regexp.MustCompile(`‐\n\s*`)

// TestManual reads the manual pages as man does.
func TestManual(t *testing.T) {
	for _, width := range []string{"80", "200"} {
		t.Run(width, func(t *testing.T) { testManual(t, width) })
	}
}

func testManual(t *testing.T, width string) {
	t.Helper()
	root := extract(t)
	for page, want := range map[string][]string{
		"man7/coredns-calicomesos.7.gz": {"calicomesos - serves DNS names for the tasks", "startup_timeout DURATION", "coredns_calicomesos_synced{cluster}", "_framework._tcp.F.mesos", "calicomesos " + first},
		"man1/mesos-sim.1.gz":           {"mesos-sim - simulates a Mesos master", "-listen string", "address to serve"},
		"man1/mesos-dns-corefile.1.gz":  {"mesos-dns-corefile - translates", "-compare", "OLD-SERVER NEW-SERVER"},
	} {
		cmd := exec.Command("man", "--warnings=w", "-l", filepath.Join(root, "usr/share/man", page))
		cmd.Env = append(os.Environ(), "MANWIDTH="+width, "LC_ALL=C.UTF-8")
		var said strings.Builder
		cmd.Stderr = &said
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(said.String(), "wider") || width != "80" && said.Len() > 0 { // a narrow line cannot always be adjusted
			t.Errorf("%s: %s", page, said.String())
		}
		flat := strings.Join(strings.Fields(hyphen.ReplaceAllString(string(text), "")), " ")
		for _, want := range want {
			if !strings.Contains(flat, want) {
				t.Errorf("%s does not say %q", page, want)
			}
		}
		if strings.Contains(string(text), "~~~") || strings.Contains(string(text), "](") {
			t.Errorf("%s has Markdown in it", page)
		}
	}
}

// TestDebian boots a Debian, and in it installs, uses, upgrades, removes and purges the package:
// testdata/debian.sh does.
func TestDebian(t *testing.T) {
	root := filepath.Join(t.TempDir(), "debian")
	tool(t, "debootstrap", "--variant=minbase",
		"--include=systemd,systemd-sysv,systemd-resolved,dbus,bind9-dnsutils,ca-certificates,procps", "bookworm", root)
	for dir, build := range map[string]func() (string, error){"1": firstRelease, "2": secondRelease} {
		packages := filepath.Join(root, "packages", dir)
		tool(t, "mkdir", "-p", packages)
		tool(t, "cp", one(t, built(t, build), "*_amd64.deb"), packages)
	}
	tool(t, "cp", "testdata/debian.sh", filepath.Join(root, "packages"))
	tool(t, "cp", "testdata/packages.service", filepath.Join(root, "etc/systemd/system"))
	tool(t, "systemctl", "--root", root, "enable", "packages.service")

	// It has its own processes, its own /run and no network, and so cannot touch this host's systemd.
	// Without a terminal systemd ends at once. The unit powers it off.
	boot := `mount -t tmpfs tmpfs /run && exec systemd-nspawn -q -b -D "$0" --private-network --register=no --keep-unit -- --log-target=console`
	console := tool(t, "timeout", "300", "script", "-qec", `unshare -m sh -c '`+boot+`' `+root, "/dev/null")

	said, err := os.ReadFile(filepath.Join(root, "packages/said"))
	if err != nil {
		t.Fatalf("it did not run: %v\n%s", err, console)
	}
	t.Logf("%s", said)
	if !strings.HasSuffix(string(said), "\nend\n") || strings.Contains(string(said), "\nfailed ") {
		journal, _ := os.ReadFile(filepath.Join(root, "packages/journal")) // as much as there is
		t.Errorf("journal:\n%s", journal)
	}
}
