package calicomesos

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestLogs holds docs/logs.md to all that the plugin logs, level by level.
func TestLogs(t *testing.T) {
	b, err := os.ReadFile("docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	level := ""
	for line := range strings.Lines(string(b)) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			level, _, _ = strings.Cut(strings.TrimSpace(title), " ")
		} else if row := regexp.MustCompile("^\\| `([^`]+)` \\| .").FindStringSubmatch(line); row != nil {
			documented = append(documented, level+" "+row[1])
		}
	}
	logged := loggedLines(t)
	for _, l := range logged {
		if !slices.Contains(documented, l) {
			t.Errorf("not documented: %s", l)
		}
	}
	for _, l := range documented {
		if !slices.Contains(logged, l) {
			t.Errorf("never logged: %s", l)
		}
	}
	if len(logged) < 40 {
		t.Errorf("only %d lines were found", len(logged))
	}
}

// logFunctions are the functions whose first argument is a line of the log, with its level.
var logFunctions = map[string]string{
	"Debugf": "DEBUG", "Infof": "INFO", "Warning": "WARNING", "Warningf": "WARNING", "Errorf": "ERROR", "Error": "ERROR",
	"Failed": "WARNING", "Recovered": "INFO",
}

// warningTexts are functions that make lines with fmt.Sprintf, which others log as warnings.
var warningTexts = []string{"warnings", "unreached"}

// loggedLines returns the lines in the sources of the plugin, each with its level.
func loggedLines(t *testing.T) []string {
	var lines []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"cmd", "test", "mesostest", "logstate"}, d.Name()):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				ast.Inspect(f, func(n ast.Node) bool {
					if level, format := logCall(f.Name.Name, n); format != "" {
						lines = append(lines, level+" "+withoutVerbs(format))
					}
					return true
				})
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// logCall returns the level and the format of a line, if n is a call that makes one in the
// function given.
func logCall(function string, n ast.Node) (level, format string) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", ""
	}
	selected, ok := call.Fun.(*ast.SelectorExpr)
	text, isText := call.Args[0].(*ast.BasicLit)
	if !ok || !isText || text.Kind != token.STRING {
		return "", ""
	}
	level, ok = logFunctions[selected.Sel.Name]
	if x, isName := selected.X.(*ast.Ident); isName && (x.Name == "fmt" || x.Name == "c") {
		level, ok = "WARNING", x.Name == "fmt" && slices.Contains(warningTexts, function)
	}
	if !ok {
		return "", ""
	}
	format, _ = strconv.Unquote(text.Value)
	if strings.HasPrefix(format, ";") { // what may follow a line
		return "", ""
	}
	return level, format
}

// withoutVerbs replaces what a format fills in, as docs/logs.md writes it.
func withoutVerbs(format string) string {
	return strings.ReplaceAll(regexp.MustCompile(`"?%[#+]?[a-z]"?`).ReplaceAllString(format, "…"), "……", "…")
}
