//go:build release

package release

import (
	"debug/elf"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestImage runs the image by podman: testdata/image.sh does.
func TestImage(t *testing.T) {
	archive := filepath.Join(built(t, firstRelease), "calicomesos_"+first+"_image_amd64.tar")
	cmd := exec.Command("timeout", "120", "unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child",
		"testdata/image.sh", archive, first, t.TempDir())
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(extract(t), "usr/bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// TestImage_Contents looks into the image of each architecture: there is the program and what it needs.
func TestImage_Contents(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		dir := t.TempDir()
		tool(t, "tar", "-C", dir, "-xf", filepath.Join(built(t, firstRelease), "calicomesos_"+first+"_image_"+arch+".tar"))
		var manifest []struct {
			Config   string
			RepoTags []string
			Layers   []string
		}
		read(t, filepath.Join(dir, "manifest.json"), &manifest)
		if len(manifest) != 1 || len(manifest[0].Layers) != 1 {
			t.Fatalf("%s: %+v", arch, manifest)
		}
		var config struct{ Architecture string }
		read(t, filepath.Join(dir, manifest[0].Config), &config)
		if config.Architecture != arch || !strings.Contains(manifest[0].RepoTags[0], "calicomesos:"+first) {
			t.Errorf("%s: %+v is for %s", arch, manifest, config.Architecture)
		}
		layer := filepath.Join(dir, manifest[0].Layers[0])
		program := filepath.Join(dir, "program")
		tool(t, "sh", "-c", `tar -xOf "$0" coredns >"$1"`, layer, program)
		file, err := elf.Open(program)
		if err != nil || file.Machine != map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch] {
			t.Errorf("%s: the program is for %v, %v", arch, file.Machine, err)
		}
		// Debian's authorities, and none that this host trusts besides.
		authorities := tool(t, "tar", "-xOf", layer, "etc/ssl/certs/ca-certificates.crt")
		if want := tool(t, "sh", "-c", "cat /usr/share/ca-certificates/mozilla/*.crt"); authorities != want || len(want) < 100_000 {
			t.Errorf("%s: the image trusts others than Debian does", arch)
		}
		var files []string
		for line := range strings.Lines(tool(t, "tar", "-tf", layer)) {
			files = append(files, strings.TrimSpace(line))
		}
		if got, want := strings.Join(files, " "),
			"coredns etc/ etc/calicomesos/ etc/calicomesos/Corefile etc/ssl/ etc/ssl/certs/ etc/ssl/certs/ca-certificates.crt var/ var/lib/ var/lib/calicomesos/"; got != want {
			t.Errorf("%s: %s, not %s", arch, got, want)
		}
	}
}

// read decodes JSON.
func read(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}
