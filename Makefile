GO ?= go
MASTER ?=
FUZZTIME ?= 20000x
SOAK ?= 1h
BENCH ?= .
COUNT ?= 6
BASELINE = docs/performance/baseline.txt
FUZZ = cmd/mesos-dns-corefile:FuzzReadConfig plugin/api:FuzzRequest plugin/mesos:FuzzStream plugin/mesos:FuzzTask plugin/mesos:FuzzMasterInfo plugin/detector:FuzzRun plugin/snapshot:FuzzRead plugin/zone:FuzzService .:FuzzStanza .:FuzzNames .:FuzzServeDNS

# Tools run by version, so that they find the same everywhere.
BENCHSTAT = golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
ACTIONLINT = github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
LINT = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

MODULES = . test/acceptance

.PHONY: help needs-go build run test e2e acceptance soak lint bench bench-baseline bench-e2e bench-quick fuzz plugincfg release release-test clean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

# What `bin/coredns -version`, its metrics and its API tell: the tag, or the commit.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
BIN ?= bin
LDFLAGS = $(STRIP) -X github.com/calicomesos/calicomesos.release=$(VERSION) -X github.com/coredns/coredns/coremain.GitCommit=calicomesos-$(VERSION)

# needs-go says what is missing, where make's "not found" does not.
needs-go:
	@command -v $(GO) >/dev/null || { echo "This needs Go 1.26 (https://go.dev/dl), and $(GO) is not in the PATH."; exit 1; }

build: needs-go ## build bin/coredns, bin/mesos-sim and bin/mesos-dns-corefile
	$(GO) build $(BUILDFLAGS) -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

run: build ## run CoreDNS on 127.0.0.1:1053 for a simulated cluster, or for MASTER=http://host:5050
	@test/run.sh '$(subst ','\'',$(MASTER))'

test: needs-go ## run all tests, with -race if there is a C compiler (2 minutes)
	@if [ "$$($(GO) env CGO_ENABLED)" = 1 ] && command -v "$$($(GO) env CC)" >/dev/null; then \
		echo "$(GO) test -race ./..."; $(GO) test -race ./...; \
	else \
		echo "There is no C compiler: running without -race"; $(GO) test ./...; \
	fi

e2e: build ## test the whole program with real peers (4 minutes; root, installs Debian packages)
	test/install-peers.sh
	$(GO) test -count=1 -tags e2e -v ./test/...

acceptance: build ## test the page in Chromium, and the dashboard and alerts by Prometheus (1 minute; root, installs Debian packages)
	test/install-peers.sh chromium prometheus
	cd test/acceptance && $(GO) test -count=1 -v ./...

soak: build ## fail masters, ZooKeeper and CoreDNS at random for SOAK=1h (as e2e)
	test/install-peers.sh
	$(GO) test -count=1 -tags e2e -run '^TestChaos$$' -timeout 0 -v ./test -args -chaos $(SOAK)

lint: ## run gofmt, vet, go mod tidy, actionlint and golangci-lint (3 minutes)
	@unformatted="$$(gofmt -l .)"; if [ -n "$$unformatted" ]; then echo "not formatted:" $$unformatted; exit 1; fi
	@for module in $(MODULES); do \
		echo "$$module"; \
		(cd $$module && $(GO) vet -tags e2e,release ./... && $(GO) mod tidy -diff) || exit 1; \
	done
	$(GO) run $(ACTIONLINT)
	@for module in $(MODULES); do \
		(cd $$module && $(GO) run $(LINT) run --build-tags e2e,release ./...) || exit 1; \
	done

bench: ## compare benchmarks with docs/performance/baseline.txt; BENCH=ServeDNS selects (15 minutes)
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) ./... | tee bin/bench.txt
	$(GO) run $(BENCHSTAT) $(BASELINE) bin/bench.txt

bench-baseline: ## replace the baseline of the benchmarks (15 minutes)
	$(GO) test -run '^$$' -bench . -benchmem -count $(COUNT) ./... | grep -E '^(goos|goarch|cpu|pkg|Benchmark)' >$(BASELINE)

bench-e2e: build ## measure the whole program into docs/performance/figures.md (30 minutes; root)
	test/install-peers.sh dnsperf named
	$(GO) run ./test/performance

bench-quick: build ## the same in short, to see that it works (1 minute; root)
	test/install-peers.sh dnsperf named
	@out="$$(mktemp -d)" && $(GO) run ./test/performance -quick -out "$$out"; status=$$?; rm -rf "$$out"; exit $$status

# Bounded by executions, since Go before 1.27 may report the end of a time limit as a
# failure (go.dev/issue/75804), and with few of them for minimizing inputs.
fuzz: ## run each fuzz target for FUZZTIME executions (3 minutes)
	@for target in $(FUZZ); do \
		echo "$$target"; \
		$(GO) test -run '^$$' -fuzz "^$${target#*:}\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x ./$${target%:*} || exit 1; \
	done

plugincfg: ## build upstream CoreDNS with the plugin as docs/installing.md says (2 minutes)
	test/plugincfg.sh

release: needs-go ## make packages, images and archives of VERSION=v1.2.3 in dist/ (4 minutes; root, installs Debian packages)
	@[ '$(origin VERSION)' != file ] || { echo "Say which: make release VERSION=v1.2.3"; exit 1; }
	@[ -z "$$(git status --porcelain)" ] || { echo "A release is made of a commit: there are changes that are not committed."; exit 1; }
	test/install-peers.sh mmark buildah setcap ca-certificates
	deploy/release.sh '$(VERSION)' 'dist/$(VERSION)'

release-test: ## build releases, compare, install, boot and run them (6 minutes; root, installs Debian packages)
	test/install-peers.sh mmark buildah setcap ca-certificates podman dig curl lintian rpm man debootstrap systemd-nspawn script
	$(GO) test -count=1 -tags release -timeout 20m -v ./test/release

clean: ## remove bin/ and dist/
	rm -rf bin dist
