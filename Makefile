# `make help` lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# sudo resets PATH, and Go is often not on what is left of it.
GO := $(firstword $(shell command -v go 2>/dev/null) $(wildcard /usr/local/go/bin/go /usr/lib/go/bin/go /usr/lib/go-1.*/bin/go $(HOME)/go/bin/go /snap/bin/go))
ifeq ($(GO),)
$(if $(filter-out help clean deps,$(or $(MAKECMDGOALS),help)),$(error cannot find Go: install Go 1.26 or later, or name it with GO=/path/to/go))
endif
export GO
export PATH := $(patsubst %/,%,$(dir $(GO))):$(PATH):/usr/sbin:/sbin
# git refuses to tell a tree's revision to a root that does not own it, and go
# then refuses to build.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

VERSION  ?= $(shell git describe --always --dirty 2>/dev/null || echo devel)
PROGRAMS := build/gatewayd build/vmgate-demo build/workload
FUZZTIME ?= 10s
# Packages one after the other: many of them boot emulated guests or measure
# time, and two at once starve each other.
TESTFLAGS ?= -p 1 -count 1 -timeout 15m
PKG       ?= ./...

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build gatewayd, the demonstration and the lab's workload into build/
	mkdir -p build
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o build/gatewayd ./cmd/gatewayd
	CGO_ENABLED=0 $(GO) build -trimpath -o build/vmgate-demo ./cmd/vmgate-demo
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o build/workload ./internal/lab/workload

.PHONY: deps
deps: ## Install what is missing to run (Debian 12 and 13; root, if anything is)
	@scripts/install-deps.sh

.PHONY: demo
demo: deps build ## Show the gateway at work on three virtual machines (root)
	build/vmgate-demo

.PHONY: kernels
kernels: deps ## Get the further guest kernels into build/kernels, where Debian can be reached
	@scripts/fetch-kernels.sh || echo "make: the tests on those kernels will be skipped"

.PHONY: test
test: deps kernels ## Run all tests (root; about ten minutes), or those of PKG=./some/package
	$(GO) test -json $(TESTFLAGS) $(PKG) | $(GO) run ./scripts/testsum

.PHONY: test-short
test-short: ## Run the quick tests: no guests (those that need root skip without it)
	$(GO) test -json -short $(PKG) | $(GO) run ./scripts/testsum

.PHONY: unit
unit: test-short ## The same as test-short

.PHONY: race
race: ## Run the quick tests under the race detector (needs gcc)
	$(GO) test -json -short -race $(PKG) | $(GO) run ./scripts/testsum

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (10s), and a million frames against the model
	scripts/fuzz.sh $(FUZZTIME)
	VMGATE_MODEL_FRAMES=1000000 $(GO) test -count 1 -run '^TestModel_' -timeout 30m -v ./bpf

.PHONY: bench
bench: ## Measure the whole gateway (root) into build/bench.json, or only ONLY=KEY,KEY
	@scripts/install-deps.sh bench
	mkdir -p build
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 2h ./internal/bench -args -only '$(ONLY)'

.PHONY: bench-docs
bench-docs: ## Write build/bench.json into docs/performance.md, with plots
	$(GO) run ./internal/bench/report

.PHONY: generate
generate: ## Compile the eBPF programs and write their bindings again
	@scripts/install-deps.sh generate
	$(GO) generate ./...

.PHONY: lint
lint: ## Check format, go vet, shell syntax, linters that are installed, and the committed bindings
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './build/*')); \
	if [[ -n $$unformatted ]]; then echo "lint: not as gofmt wants it:" $$unformatted >&2; exit 1; fi
	$(GO) vet ./...
	@for script in scripts/*.sh .ci/run; do bash -n $$script; done
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; else echo "lint: shellcheck is not installed"; fi
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "lint: golangci-lint is not installed"; fi
	@scripts/check-generated.sh

.PHONY: clean
clean: ## Remove what was built, the guest kernel too
	rm -rf build
