package calicomesos

import (
	"runtime/debug"
	"sync"
)

const modulePath = "github.com/calicomesos/calicomesos"

// release is the version that `make build` links in, which knows the tag: Go does not, where a
// commit is built that has none or is told not to look (-buildvcs=false).
var release string

// version returns the version of this module in the running program: its tag, or else the commit
// that was built, or "unknown".
var version = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case release != "":
		return release
	case !ok:
		return "unknown"
	}
	return versionIn(info)
})

func versionIn(info *debug.BuildInfo) string {
	for _, m := range info.Deps {
		if m.Path == modulePath && m.Version != "" {
			return m.Version
		}
	}
	if info.Main.Path == modulePath && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	commit, modified := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && s.Value != "":
			commit = s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+dirty"
		}
	}
	return commit + modified
}
