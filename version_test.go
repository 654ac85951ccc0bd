package calicomesos

import (
	"runtime/debug"
	"testing"
)

// TestVersion finds the version in what Go builds into a program.
func TestVersion(t *testing.T) {
	vcs := []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: "true"}}
	for want, info := range map[string]*debug.BuildInfo{
		"v1.2.3":             {Main: debug.Module{Path: modulePath, Version: "v1.2.3"}},
		"v1.2.4":             {Main: debug.Module{Path: "github.com/coredns/coredns", Version: "v1.15.0"}, Deps: []*debug.Module{{Path: "other", Version: "v9.9.9"}, {Path: modulePath, Version: "v1.2.4"}}},
		"0123456789ab+dirty": {Main: debug.Module{Path: modulePath, Version: "(devel)"}, Settings: vcs},
		"0123456789ab":       {Main: debug.Module{Path: modulePath}, Settings: vcs[:1]},
		"unknown":            {Main: debug.Module{Path: "github.com/coredns/coredns", Version: "v1.15.0"}},
	} {
		if got := versionIn(info); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if version() == "" {
		t.Error("this program has no version")
	}
}
