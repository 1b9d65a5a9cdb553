# netemu: `make help` lists the targets. Each does its own set-up; two cores and Debian 12 are enough.

NODE ?= node
BIN := node_modules/.bin
ARGS ?= --netdev user,id=n0 --device e1000,netdev=n0

.PHONY: help run build native test test-unit test-peers fuzz soak peers bench lint format docs dist clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## Build, then run the main job (ARGS="..." for another command line)
	$(NODE) dist/cli/main.js $(ARGS)

build: node_modules/.installed native ## Compile TypeScript and the addon
	$(BIN)/tsc -b
	chmod +x dist/cli/main.js

native: node_modules/.installed ## Build the addon into prebuilds/
	$(MAKE) --no-print-directory -C native

node_modules/.installed: package.json package-lock.json
	npm ci --ignore-scripts --no-audit --no-fund
	touch $@

# Raw IP and ping sockets of the portable host I/O; without it they say that they need it.
node_modules/raw-socket/build/Release/raw.node: node_modules/.installed
	-npm rebuild raw-socket --foreground-scripts

test: build peers node_modules/raw-socket/build/Release/raw.node ## Everything: unit, conformance, and the real programs of test/peers
	$(NODE) --import tsx test/run.ts unit peers

test-unit: build node_modules/raw-socket/build/Release/raw.node ## Tests that need nothing but this checkout
	$(NODE) --import tsx test/run.ts unit

test-peers: build peers ## Tests against QEMU, Linux drivers, tshark, Chromium and the like
	$(NODE) --import tsx test/run.ts peers

# Runs of each native target, how many times the runs of each TypeScript target, and rounds of the suites that are random by themselves.
FUZZ_RUNS ?= 1000000
FUZZ_TIMES ?= 20
FUZZ_ROUNDS ?= 3
RANDOM_SUITES := $(wildcard test/nic/*/random.property.test.ts test/*/garbage.test.ts test/host-io/fuzz.test.ts test/host-io/random.test.ts) \
  test/wire/random.test.ts test/guest/probe/fuzz.test.ts test/backends/frame-reader.test.ts

fuzz: native ## Look for bad input for longer: libFuzzer (clang, installed by root), then the TypeScript targets
	$(NODE) --import tsx test/fuzz/prepare.ts
	$(MAKE) --no-print-directory -C native fuzzers
	@for target in core address; do \
	  mkdir -p native/build/fuzz/found-$$target; \
	  setarch -R native/build/fuzz/$$target -runs=$(FUZZ_RUNS) -max_len=600 -print_final_stats=1 -rss_limit_mb=1024 -artifact_prefix=native/build/fuzz/ \
	    native/build/fuzz/found-$$target fixtures/fuzz/native-$$target || exit 1; \
	done
	NETEMU_FUZZ=$(FUZZ_TIMES) $(BIN)/vitest run --testTimeout=3600000 test/fuzz
	@for round in $$(seq $(FUZZ_ROUNDS)); do $(BIN)/vitest run $(RANDOM_SUITES) || exit 1; done

soak: build ## One netemu under mixed traffic for MINUTES (30), as root; see docs/hardening.md
	$(NODE) --import tsx test/soak/soak.ts

peers: node_modules/.installed ## Install the real programs that tests use (root; cached outside the checkout)
	$(NODE) --import tsx test/peers/lib/prepare.ts

bench: build ## Run every bench; one JSON line each
	@for bench in bench/*.ts; do $(NODE) --expose-gc --import tsx $$bench || exit 1; done

lint: node_modules/.installed ## Type-check everything, the portable part without Node's types, then lint and format check
	$(BIN)/tsc -p tsconfig.test.json
	$(BIN)/tsc -p tsconfig.portable.json
	$(BIN)/biome check

format: node_modules/.installed ## Format and fix what can be fixed
	$(BIN)/biome check --write

docs: node_modules/.installed ## Generate the option reference
	$(NODE) --import tsx docs/generate-options.ts

dist: build docs ## Make the npm tarball, addon included
	npm pack

clean: ## Remove everything that was built
	rm -rf dist prebuilds node_modules *.tgz coverage
	$(MAKE) --no-print-directory -C native clean
