package configfile

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	pipe := filepath.Join(dir, "pipe")
	if os.Symlink(file("target", "linked", 0o600), link) != nil || syscall.Mkfifo(pipe, 0o600) != nil {
		t.Fatal("no link or pipe")
	}
	for name, tc := range map[string]struct{ file, want, err string }{
		"a file":           {file("a", "content", 0o600), "content", ""},
		"an empty one":     {file("b", "", 0o600), "", ""},
		"the largest":      {file("c", "12345678", 0o600), "12345678", ""},
		"one byte more":    {file("d", "123456789", 0o600), "", "larger than 8 bytes"},
		"a link to a file": {link, "linked", ""},
		"a pipe":           {pipe, "", "not a regular file"},
		"a device":         {"/dev/zero", "", "not a regular file"},
		"a directory":      {dir, "", "not a regular file"},
		"none":             {filepath.Join(dir, "none"), "", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, err := Read(tc.file, 8)
			if string(b) != tc.want || (err == nil) != (tc.err == "") {
				t.Fatalf("%q, %v", b, err)
			}
			if err != nil && (!strings.Contains(err.Error(), tc.err) || !strings.Contains(err.Error(), tc.file)) {
				t.Errorf("%v, want %s of %s", err, tc.err, tc.file)
			}
		})
	}
	if _, mode, err := Read(file("e", "", 0o640), 8); err != nil || mode != 0o640 {
		t.Errorf("mode %v, %v", mode, err)
	}
}
