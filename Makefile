# SPDX-License-Identifier: Apache-2.0
#
# The one front door. `make help` lists the targets. Everything is built once, in Release, into build/; a target installs the
# Debian packages that it misses (as root), or says which they are.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

BUILD := $(CURDIR)/build
PREFIX ?= /usr/local
DESTDIR ?=

# Nothing is left running behind a build, and it says only what it has to.
export DOTNET_NOLOGO := 1
export DOTNET_CLI_TELEMETRY_OPTOUT := 1
export DOTNET_SKIP_FIRST_TIME_EXPERIENCE := 1
DOTNET_BUILD_FLAGS := --configuration Release --disable-build-servers --nologo --verbosity quiet

# package=probe: the package is missing if the probe (a command, or a file) is.
BUILD_PACKAGES := gcc=gcc binutils=objcopy libc6-dev=/usr/include/stdlib.h libjemalloc-dev=/usr/include/jemalloc/jemalloc.h \
	libibverbs-dev=/usr/include/infiniband/verbs.h librdmacm-dev=/usr/include/rdma/rdma_cma.h
TEST_PACKAGES := memtester=memtester stress-ng=stress-ng velvet=velveth iproute2=ip python3=python3 util-linux=unshare clang-format=clang-format \
	etcd-server=etcd
DEMO_PACKAGES := velvet=velveth
BENCH_PACKAGES := velvet=velveth util-linux=mkswap mount=swapon openmpi-bin=mpirun libopenmpi-dev=mpicc
FORMAT_PACKAGES := clang-format=clang-format
NEED := packaging/need

# What the outputs are made from; a change of any of them rebuilds.
SETTINGS := $(wildcard Directory.*.props global.json .editorconfig)
SOURCES := $(shell find src -type f \( -name '*.cs' -o -name '*.csproj' -o -name '*.json' \) -not -path '*/bin/*' -not -path '*/obj/*')
TEST_SOURCES := $(shell find tests -type f \( -name '*.cs' -o -name '*.csproj' \) -not -path '*/bin/*' -not -path '*/obj/*')
C_SOURCES := $(shell find native examples tests/rdma -type f \( -name '*.c' -o -name '*.h' \))

.PHONY: build
build: native $(BUILD)/vsmp $(BUILD)/bench/vsmp-bench $(BUILD)/examples/wordcount/wordcount ## build/vsmp, ready to run from here
	@echo "built: $(BUILD)/vsmp"

.PHONY: native
native:
	@$(NEED) packages $(BUILD_PACKAGES)
	@if [[ -f native/Makefile ]]; then $(MAKE) --no-print-directory -C native BUILD=$(BUILD); fi
	@$(MAKE) --no-print-directory -C examples BUILD=$(BUILD)

$(BUILD)/vsmp: $(SOURCES) $(SETTINGS)
	@$(NEED) dotnet
	@mkdir -p $(BUILD)
	dotnet publish src/VSmp.Agent/VSmp.Agent.csproj $(DOTNET_BUILD_FLAGS) --output $(BUILD)
	@touch $@

# In a folder of its own, since it brings the agent's assemblies along.
$(BUILD)/bench/vsmp-bench: $(SOURCES) $(SETTINGS)
	@$(NEED) dotnet
	dotnet publish src/VSmp.Bench/VSmp.Bench.csproj $(DOTNET_BUILD_FLAGS) --output $(@D)
	@ln -sfn bench/vsmp-bench $(BUILD)/vsmp-bench
	@touch $@

$(BUILD)/examples/wordcount/wordcount: $(wildcard examples/WordCount/*.cs* src/VSmp.Client/*.cs*) $(SETTINGS)
	@$(NEED) dotnet
	dotnet publish examples/WordCount/WordCount.csproj $(DOTNET_BUILD_FLAGS) --output $(@D)
	@touch $@

$(BUILD)/.tests-built: $(BUILD)/vsmp $(SOURCES) $(TEST_SOURCES) $(SETTINGS) VSmp.sln
	dotnet build VSmp.sln $(DOTNET_BUILD_FLAGS)
	@touch $@

.PHONY: test
test: build ## all suites; the last line is the total over them
	@$(NEED) packages $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory $(BUILD)/.tests-built
	@BUILD=$(BUILD) tests/run-all

.PHONY: test-long
test-long: build ## the system tests with nothing shortened (about half an hour)
	@$(NEED) packages $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory $(BUILD)/.tests-built
	@BUILD=$(BUILD) VSMP_TEST_LONG=1 tests/run-all VSmp.System.Tests

.PHONY: test-rdma
test-rdma: build ## verbs over soft-RoCE, in virtual machines
	@$(MAKE) --no-print-directory $(BUILD)/.tests-built
	@BUILD=$(BUILD) tests/rdma/run

.PHONY: rdma-shell
rdma-shell: build ## a shell in such a machine
	@BUILD=$(BUILD) tests/rdma/run --shell

.PHONY: bench
bench: build ## the figures in docs/benchmarks, measured here (half an hour; let nothing else run)
	@$(NEED) packages $(BENCH_PACKAGES)
	@$(MAKE) --no-print-directory native # with the programs that need those
	$(BUILD)/vsmp-bench ratio --json docs/benchmarks/ratio.json --markdown docs/benchmarks/ratio.md --svg docs/benchmarks/ratio.svg
	$(BUILD)/vsmp-bench bandwidth --json docs/benchmarks/bandwidth.json --markdown docs/benchmarks/bandwidth.md --svg docs/benchmarks/bandwidth.svg
	$(BUILD)/vsmp-bench fault --json docs/benchmarks/fault.json --markdown docs/benchmarks/fault.md
	$(BUILD)/vsmp-bench fault --breakdown --json docs/benchmarks/breakdown.json --markdown docs/benchmarks/breakdown.md
	$(BUILD)/vsmp-bench velvet --json docs/benchmarks/velvet.json --markdown docs/benchmarks/velvet.md --svg docs/benchmarks/velvet.svg
	$(BUILD)/vsmp-bench velvet --reads 60000 --rounds 1 --limit 120 --budgets 75,50 --json docs/benchmarks/velvet-small.json --markdown docs/benchmarks/velvet-small.md
	$(BUILD)/vsmp-bench apps --json docs/benchmarks/apps.json --markdown docs/benchmarks/apps.md --svg docs/benchmarks/apps.svg
	$(BUILD)/vsmp-bench recovery --json docs/benchmarks/recovery.json --csv docs/benchmarks/recovery.csv --svg docs/benchmarks/recovery.svg
	$(BUILD)/vsmp-bench checkpoint --generations 40 --seed 7 --json docs/benchmarks/checkpoint.json --csv docs/benchmarks/checkpoint.csv --svg docs/benchmarks/checkpoint.svg --waste-svg docs/benchmarks/checkpoint-waste.svg
	$(BUILD)/vsmp-bench agent --json docs/benchmarks/agent.json --markdown docs/benchmarks/agent.md
	$(BUILD)/vsmp-bench micro --json docs/benchmarks/micro.json --markdown docs/benchmarks/micro.md

.PHONY: demo
demo: build ## a genome assembly on four agents, none of which could have held it
	@$(NEED) packages $(DEMO_PACKAGES)
	@VSMP=$(BUILD)/vsmp demo/run

.PHONY: docs
docs: ## prints the protocol tables into docs/protocols
	@$(NEED) dotnet
	dotnet build tests/VSmp.Coherence.Tests $(DOTNET_BUILD_FLAGS)
	VSMP_PRINT=1 dotnet tests/VSmp.Coherence.Tests/bin/Release/net10.0/VSmp.Coherence.Tests.dll -method '*The_printed_tables_are_the_code'

.PHONY: format
format: ## rewrites the sources to the project's style
	@$(NEED) dotnet packages $(FORMAT_PACKAGES)
	dotnet format VSmp.sln
	clang-format -i $(C_SOURCES)

.PHONY: lint lint-cs lint-c
lint: lint-cs lint-c ## fails if `make format` would change anything
lint-cs:
	@$(NEED) dotnet
	dotnet format VSmp.sln --verify-no-changes
lint-c:
	@$(NEED) packages $(FORMAT_PACKAGES)
	clang-format --dry-run --Werror $(C_SOURCES)

.PHONY: install
install: build ## into PREFIX (default /usr/local): vsmp, man pages, completion, systemd unit, udev rule
	install -d $(DESTDIR)$(PREFIX)/lib/vsmp $(DESTDIR)$(PREFIX)/bin
	install -m 0755 $(BUILD)/vsmp $(BUILD)/vsmp-keeper $(BUILD)/*.so $(DESTDIR)$(PREFIX)/lib/vsmp/
	install -m 0644 $(BUILD)/*.dll $(BUILD)/*.json $(DESTDIR)$(PREFIX)/lib/vsmp/
	ln -sfn ../lib/vsmp/vsmp $(DESTDIR)$(PREFIX)/bin/vsmp
	install -D -m 0644 native/include/vsmp.h $(DESTDIR)$(PREFIX)/include/vsmp.h
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed 's|@LIBDIR@|$(PREFIX)/lib/vsmp|; s|@INCLUDEDIR@|$(PREFIX)/include|' packaging/vsmp.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/vsmp.pc
	install -d $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 0644 packaging/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -D -m 0644 packaging/completions/vsmp.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vsmp
	install -D -m 0644 packaging/completions/_vsmp $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vsmp
	install -D -m 0644 packaging/completions/vsmp.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vsmp.fish
	install -D -m 0644 packaging/udev/70-vsmp-userfaultfd.rules \
		$(DESTDIR)$(PREFIX)/lib/udev/rules.d/70-vsmp-userfaultfd.rules
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/vsmp/LICENSE
	install -m 0644 NOTICE $(DESTDIR)$(PREFIX)/share/doc/vsmp/
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|g' packaging/systemd/vsmp-agent@.service \
		> $(DESTDIR)$(PREFIX)/lib/systemd/system/vsmp-agent@.service

.PHONY: clean
clean: ## removes everything that was built
	rm -rf $(BUILD)
	find src tests examples -type d \( -name bin -o -name obj \) -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
