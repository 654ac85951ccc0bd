//go:build release

// Package release builds a release as `make release` does, and installs and runs what it makes.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// The versions that are built.
const (
	first  = "0.0.1"
	second = "0.0.2"
)

// scratch is the directory of all that the tests build.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir
	return m.Run()
}

// build makes the release of a version, from this checkout.
func build(version string) func() (dir string, err error) {
	return sync.OnceValues(func() (string, error) {
		dir := filepath.Join(scratch, version)
		return dir, release("../..", version, dir)
	})
}

var firstRelease, secondRelease = build(first), build(second)

// release runs deploy/release.sh of a checkout, with more in its environment.
func release(checkout, version, dir string, env ...string) error {
	cmd := exec.Command("deploy/release.sh", "v"+version, dir)
	cmd.Dir = checkout
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// built is the directory of a release.
func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tool runs a program, which must succeed, and returns what it prints.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// one is the one file that a pattern names.
func one(t *testing.T, pattern ...string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(pattern...))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v: %v, %v", pattern, files, err)
	}
	return files[0]
}

// TestChecksums checks the list of them, and that every file is in it.
func TestChecksums(t *testing.T) {
	dir := built(t, firstRelease)
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(sums), "\n"); got != len(files)-1 || got != 9 {
		t.Errorf("%d checksums of %d files", got, len(files)-1)
	}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != sum {
			t.Errorf("%s: %s, not %s", name, got, sum)
		}
	}
}

// TestReproducible builds the same commit in another place, with other settings of the person who
// does, and with nothing that Go has kept.
func TestReproducible(t *testing.T) {
	checkout, dir := filepath.Join(scratch, "other", "checkout"), filepath.Join(scratch, "again")
	tool(t, "sh", "-c", `umask 077; mkdir -p "$0" && tar -C ../.. --exclude=./bin --exclude=./dist -cf - . | tar -C "$0" --no-same-permissions -xf -`, checkout)
	if err := release(checkout, first, dir, "TZ=Asia/Tokyo", "LC_ALL=C", "GOAMD64=v2", "GOFLAGS=-buildvcs=false", "BUILDAH_LAYERS=true", "GOCACHE="+filepath.Join(scratch, "cache"), "GOPATH="+filepath.Join(scratch, "go"), "GOMODCACHE="+filepath.Join(scratch, "go/pkg/mod")); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(built(t, firstRelease), "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestVersion refuses what is not a semantic version.
func TestVersion(t *testing.T) {
	for _, version := range []string{"", "1", "1.2", "v1.2.3;", "d938503", "1.2.3+x", "0.1.0-3-gaee1bb3", "1.2.3-"} {
		if err := release("../..", version, filepath.Join(scratch, "none")); err == nil || !strings.Contains(err.Error(), "must be a semantic version") {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// unpacked has the files of a tar.gz of the release.
func unpacked(t *testing.T, file string) map[string][]byte {
	t.Helper()
	packed, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(plain); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestArchives looks for what belongs into them: static programs for each architecture.
func TestArchives(t *testing.T) {
	dir := built(t, firstRelease)
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		name := "calicomesos_" + first + "_linux_" + arch
		files := unpacked(t, filepath.Join(dir, name+".tar.gz"))
		for _, program := range []string{"coredns", "mesos-sim", "mesos-dns-corefile"} {
			file, err := elf.NewFile(bytes.NewReader(files[name+"/"+program]))
			if err != nil {
				t.Fatalf("%s: %s: %v", arch, program, err)
			}
			if file.Machine != machine {
				t.Errorf("%s: %s is for %v", arch, program, file.Machine)
			}
			if libs, err := file.ImportedLibraries(); err != nil || len(libs) > 0 {
				t.Errorf("%s: %s needs %v, %v", arch, program, libs, err)
			}
		}
		for _, file := range []string{"README.md", "LICENSE", "CHANGELOG.md", "man/coredns-calicomesos.7.gz", "docs/names.md", "deploy/alerts.yaml", "deploy/marathon.json"} {
			if len(files[name+"/"+file]) == 0 {
				t.Errorf("%s: %s is missing", arch, file)
			}
		}
	}
}

// TestMaterials compares the bill of materials with what the programs say is linked in.
func TestMaterials(t *testing.T) {
	dir := built(t, firstRelease)
	data, err := os.ReadFile(filepath.Join(dir, "calicomesos_"+first+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	type component struct {
		Name, Version string
		Evidence      struct{ Licenses []any }
	}
	var bom struct {
		BOMFormat, SpecVersion string
		Metadata               struct{ Component component }
		Components             []component
	}
	if err := json.Unmarshal(data, &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.Metadata.Component.Version != "v"+first {
		t.Errorf("a %s of %+v", bom.BOMFormat, bom.Metadata.Component)
	}
	listed := map[string]component{}
	for _, c := range bom.Components {
		listed[c.Name] = c
	}
	if listed["std"].Version == "" {
		t.Error("the standard library is missing")
	}
	name := "calicomesos_" + first + "_linux_amd64"
	files := unpacked(t, filepath.Join(dir, name+".tar.gz"))
	for _, program := range []string{"coredns", "mesos-sim", "mesos-dns-corefile"} {
		info, err := buildinfo.Read(bytes.NewReader(files[name+"/"+program]))
		if err != nil {
			t.Fatal(err)
		}
		for _, dep := range info.Deps {
			if c := listed[dep.Path]; c.Version != dep.Version || len(c.Evidence.Licenses) == 0 {
				t.Errorf("%s: %s %s is %+v", program, dep.Path, dep.Version, c)
			}
		}
	}
}
