// Command performance measures CoreDNS with the plugin as a whole program, beside other
// servers and simulated masters, all on loopback, and writes a table of what it has found.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options say how much to measure.
type options struct {
	out     string
	sizes   []int         // clusters to load
	tasks   int           // of the cluster of the other parts
	rounds  int           // of each server; the median counts
	length  time.Duration // of a round
	idle    time.Duration
	changes []int // a second
}

var full = options{
	sizes: []int{1_000, 10_000, 100_000, 1_000_000}, tasks: 100_000,
	rounds: 3, length: 8 * time.Second, idle: 10 * time.Minute, changes: []int{1, 100, 1000},
}

// quick measures everything in two minutes, to see that it works.
var quick = options{
	sizes: []int{1_000, 10_000}, tasks: 10_000,
	rounds: 1, length: time.Second, idle: time.Second, changes: []int{100},
}

// keptIn is where the project keeps the figures.
const keptIn = "docs/performance"

// parts can be measured separately. The table has their order.
var parts = []struct {
	name    string
	measure func(ctx context.Context, o *options, r *report) error
}{
	{"queries", measureQueries},
	{"load", measureLoad},
	{"memory", measureMemory},
	{"changes", measureChanges},
	{"watchers", measureWatchers},
	{"secondaries", measureSecondaries},
	{"api", measureAPI},
	{"idle", measureIdle},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("performance: ")
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	isQuick := flag.Bool("quick", false, "measure small clusters for a short time, to try it")
	out := flag.String("out", keptIn, "directory for the table")
	only := flag.String("only", strings.Join(names, ","), "what to measure")
	flag.Parse()
	if role, ok := roles[flag.Arg(0)]; ok { // started by another process of this program
		if err := role(flag.Args()[1:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if flag.NArg() > 0 {
		log.Fatalf("unknown argument %q", flag.Arg(0))
	}
	o := full
	if *isQuick {
		if *out == keptIn {
			log.Fatal("-quick needs -out: what it measures is not to be kept")
		}
		o = quick
	}
	o.out = *out
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			log.Fatalf("-only: unknown part %q: must be one of %s", name, strings.Join(names, ", "))
		}
	}
	if err := run(o, chosen); err != nil {
		log.Fatal(err)
	}
}

// roles are what this program does in the processes that it starts.
var roles = map[string]func(args []string) error{
	"ask":   askMany,
	"echo":  serveEcho,
	"move":  moveTasks,
	"touch": touch,
	"watch": watchMany,
}

func run(o options, only []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := readReport(ctx, o.out)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if !slices.Contains(only, p.name) {
			continue
		}
		log.Printf("measuring %s", p.name)
		r.begin(p.name)
		if err := p.measure(ctx, &o, r); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := r.write(o.out); err != nil {
			return err
		}
	}
	fmt.Print(r.table())
	return nil
}

// report has the figures of this run, and of earlier runs for parts that this one leaves out.
type report struct {
	figures map[string]*figures // by part
	part    *figures            // being measured
	commit  string              // being measured
}

// figures are those of one part.
type figures struct {
	Measured string // when, and with what
	Rows     []row
}

// row is a line of the table.
type row struct{ What, Figure, Goal string }

// The files of a report in its directory: for this program to read again, and for people.
const (
	figuresFile = "figures.json"
	tableFile   = "figures.md"
)

// readReport returns the figures of earlier runs, if there are any.
func readReport(ctx context.Context, dir string) (*report, error) {
	commit, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return nil, fmt.Errorf("which commit is measured: %w", err)
	}
	r := &report{figures: make(map[string]*figures), commit: strings.TrimSpace(string(commit))}
	b, err := os.ReadFile(filepath.Join(dir, figuresFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	return r, json.Unmarshal(b, &r.figures)
}

// write writes the report as files in dir.
func (r *report) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	figures, err := json.MarshalIndent(r.figures, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, figuresFile), append(figures, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, tableFile), []byte(r.page()), 0o644)
}

// begin begins a part.
func (r *report) begin(part string) {
	r.part = &figures{Measured: fmt.Sprintf("%s UTC, %d processors (%s), %s, commit %s", time.Now().UTC().Format("2006-01-02 15:04"), runtime.NumCPU(), processor(), runtime.Version(), r.commit)}
	r.figures[part] = r.part
}

func (r *report) add(what, goal, format string, args ...any) {
	figure := fmt.Sprintf(format, args...)
	log.Printf("%s: %s", what, figure)
	r.part.Rows = append(r.part.Rows, row{what, figure, goal})
}

// page returns the report as a document.
func (r *report) page() string {
	var b strings.Builder
	b.WriteString("# Figures\n\nMeasured by `make bench-e2e`, all processes on the same machine and on loopback. Compare figures of one part with\neach other: machines differ, and are not always alone.\n\n| part | measured |\n|---|---|\n")
	for _, p := range parts {
		if f := r.figures[p.name]; f != nil {
			fmt.Fprintf(&b, "| %s | %s |\n", p.name, f.Measured)
		}
	}
	b.WriteString("\n" + r.table())
	return b.String()
}

// processor returns the name of the processor.
func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (r *report) table() string {
	var b strings.Builder
	b.WriteString("| what | measured | goal |\n|---|---|---|\n")
	for _, p := range parts {
		f := r.figures[p.name]
		if f == nil {
			continue
		}
		for _, row := range f.Rows {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", row.What, row.Figure, row.Goal)
		}
	}
	return b.String()
}

// median returns the median of v, which it sorts.
func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns the quantile q of v, which it sorts. It is 0 if v is empty.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}
