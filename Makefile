GO ?= go
MASTER ?=
FUZZTIME ?= 20000x
SOAK ?= 1h
BENCH ?= .
COUNT ?= 6
BASELINE = docs/performance/baseline.txt

# Tools are run by version, so that what they find is the same everywhere.
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build run test e2e soak lint bench bench-baseline bench-e2e fuzz plugincfg clean

build: ## CoreDNS with the plugin, and the simulated master, in bin/
	$(GO) build -o bin/ ./cmd/...

run: build ## CoreDNS on 127.0.0.1:1053 for a simulated cluster, or for MASTER=http://host:5050
	@test/run.sh "$(MASTER)"

test: ## all tests, with -race where there is a C compiler
	@if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v "$$($(GO) env CC)" >/dev/null; then \
		echo "$(GO) test -race ./..."; $(GO) test -race ./...; \
	else \
		echo "There is no C compiler: running without -race"; $(GO) test ./...; \
	fi

e2e: build ## tests of the whole program with real peers
	test/install-peers.sh
	$(GO) test -count=1 -tags e2e -v ./test/...

soak: build ## the chaos test for SOAK: masters, ZooKeeper and CoreDNS fail, and no answer may be wrong
	test/install-peers.sh
	$(GO) test -count=1 -tags e2e -run '^TestChaos$$' -timeout 0 -v ./test -args -chaos $(SOAK)

lint:
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "not formatted:" $$unformatted; exit 1; fi
	$(GO) vet -tags e2e ./...
	$(GO) mod tidy -diff
	$(GO) run $(LINT) run --build-tags e2e ./...

bench: ## benchmarks with allocations, compared with those in docs/performance; BENCH=ServeDNS selects
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./... | tee bin/bench.txt
	$(GO) run $(BENCHSTAT) $(BASELINE) bin/bench.txt

bench-baseline: ## benchmarks, kept to compare others with
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./... | grep -E '^(goos|goarch|cpu|pkg|Benchmark)' >$(BASELINE)

bench-e2e: build ## the whole program measured, written to docs/performance/figures.md
	test/install-peers.sh dnsperf named
	$(GO) run ./test/performance

# By executions, since Go before 1.27 may take the end of a time for a failure
# (go.dev/issue/75804); and with few of them for making inputs smaller, which
# would take most of the time.
fuzz: ## each fuzz target for FUZZTIME, a number of executions
	@for target in plugin/mesos:FuzzStream plugin/mesos:FuzzTask plugin/mesos:FuzzMasterInfo plugin/snapshot:FuzzRead .:FuzzNames .:FuzzServeDNS; do \
		echo "$$target"; \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x ./$${target%:*} || exit 1; \
	done

plugincfg: ## the plugin in a CoreDNS that is built by one line in plugin.cfg
	test/plugincfg.sh

clean:
	rm -rf bin
