package calicomesos

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// document is the text of one, from a heading to the next of the same level.
func document(t *testing.T, name, heading string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(b), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no %q", name, heading)
	}
	text, _, _ = strings.Cut(text, "\n"+strings.Fields(heading)[0]+" ")
	return text
}

// foundIn is what a pattern with one group finds, in order.
func foundIn(pattern, text string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return sorted(found)
}

// TestDocuments_Properties holds the README to the properties, which may be repeated, and their
// defaults.
func TestDocuments_Properties(t *testing.T) {
	syntax := document(t, "README.md", "## Syntax")
	want := slices.Sorted(maps.Keys(properties))
	block, told, _ := strings.Cut(syntax, "\n~~~\n")
	if got := foundIn(`(?m)^    (\w+)`, block); !slices.Equal(got, want) {
		t.Errorf("the syntax has %q, there are %q", got, want)
	}
	if got := foundIn("(?m)^\\* `(\\w+)`", told); !slices.Equal(got, want) {
		t.Errorf("described are %q, there are %q", got, want)
	}
	var repeated []string
	for _, name := range want {
		if properties[name].repeats {
			repeated = append(repeated, name)
		}
	}
	but := regexp.MustCompile(`(?s)Every property but (.*?) may appear once`).FindString(told)
	if got := foundIn("`(\\w+)`", but); !slices.Equal(got, repeated) {
		t.Errorf("%q are said to be repeated, %q are", got, repeated)
	}
	for _, want := range []string{
		fmt.Sprintf("0 to %d, default %d:", maxTTL, defaultTTL),
		fmt.Sprintf("default `%v`: how long CoreDNS waits", defaultStartup),
		fmt.Sprintf("at least `%v`: asks for the whole state", minPoll),
	} {
		if !strings.Contains(told, want) {
			t.Errorf("the README does not say %q", want)
		}
	}
}

// TestDocuments_Reasons compares the reasons in docs/operating.md with the program's.
func TestDocuments_Reasons(t *testing.T) {
	_, rows, _ := strings.Cut(document(t, "docs/operating.md", "## What is not published"), "\n|---|")
	got := foundIn("(?m)^\\| `(\\w+)` \\|", rows)
	if want := sorted(slices.Clone(reasonNames[:])); !slices.Equal(got, want) {
		t.Errorf("told are %q, there are %q", got, want)
	}
}
