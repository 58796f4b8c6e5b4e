# Everything that is done with twinlun, from building to an hour of torture.
# "make" alone tells what there is.

GO      ?= go
VERSION := $(shell cat VERSION)
LDFLAGS := -X main.version=$(VERSION)

# FUZZTIME is spent on every fuzz target, SOAK on every part of the soak.
FUZZTIME ?= 20s
SOAK     ?= 20m
# SEED repeats one simulation.
SEED ?= 1
# DEMO_FLAGS go to the demo: make demo DEMO_FLAGS='--link-delay 25ms --size 4GiB'
DEMO_FLAGS ?=
# RUNS is how often each fault is struck.
RUNS ?= 20
BENCH_FLAGS ?=

# The race detector needs a C compiler; .ci/tools installs one for the tests.
RACE = $(shell command -v gcc >/dev/null && echo -race)

# Exploration and simulation do one thing at a time: no races, but much to do.
# What the end-to-end tests start is built like what users get, without -race.
PURE = ./replication/coherence ./cluster/failover ./test/sim
UNIT = $(shell $(GO) list ./... | grep -v -e /replication/coherence$$ -e /cluster/failover$$ -e /test/sim$$ -e /test/e2e$$ -e /test/chaos$$ -e /test/bench$$)

.DEFAULT_GOAL := help
.PHONY: help build demo test unit e2e chaos failover conformance lint fuzz sim soak bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Settings: SEED=$(SEED) FUZZTIME=$(FUZZTIME) SOAK=$(SOAK) RUNS=$(RUNS) DEMO_FLAGS='…' BENCH_FLAGS='…'"

build: ## bin/twinlun and bin/twinlund
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/twinlun ./cmd/twinlund

demo: build ## two sites on this machine, one mirrored LUN, until Ctrl-C
	@.ci/tools demo
	@exec bin/twinlun demo $(DEMO_FLAGS)

test: unit e2e ## all tests; installs what they need (Debian packages, a VM image)

unit: ## the tests that need nothing but this folder
	@.ci/tools unit
	$(GO) test $(RACE) -timeout 15m $(UNIT)
	$(GO) test -timeout 15m $(PURE)

e2e: build ## qemu-io, libiscsi, the Linux initiator in a VM, kill -9 and cut links
	@.ci/tools e2e
	$(GO) test -v -count=1 -timeout 15m ./test/e2e ./test/chaos

chaos: ## a cluster in namespaces in which everything breaks, for a minute; a part of e2e
	@.ci/tools chaos
	$(GO) test -v -count=1 -timeout 15m -run '^TestChaos$$' ./test/chaos

failover: ## how long hosts stand still when something breaks, RUNS times each
	@.ci/tools chaos
	$(GO) test -v -count=1 -timeout 4h -run '^Test(Stalls|Return|ReturnHuge)$$' ./test/chaos -chaos.stalls $(RUNS) -chaos.return 4096

conformance: build ## libiscsi's test suite at both sites, a part of e2e, with its report
	@.ci/tools conformance
	$(GO) test -v -count=1 -timeout 15m -run '^TestConformance$$' ./test/e2e

lint: ## gofmt, go vet, staticcheck, shellcheck
	@.ci/tools lint
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt -w is needed for:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@if command -v shellcheck >/dev/null; then shellcheck -x -P SCRIPTDIR -e SC1091 .ci/* $$(git ls-files "*.sh"); fi

fuzz: ## every fuzz target, FUZZTIME each
	.ci/fuzz $(FUZZTIME)

sim: ## one simulation of two nodes again: make sim SEED=12345
	$(GO) test -v -count=1 -run 'TestSim$$' ./test/sim -sim.seed=$(SEED)

soak: build ## an hour: exploration with wide bounds, new seeds, faults under load
	.ci/soak $(SOAK)

bench: build ## the table of speeds, side by side in one run
	$(GO) run ./test/bench $(BENCH_FLAGS)

clean: ## what build left
	rm -rf bin
