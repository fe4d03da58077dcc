# SPDX-License-Identifier: MIT
#
# `make` says what there is. What counts most: `make run` shows the module at work, `make test` proves it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

export CARGO_TARGET_DIR ?= $(CURDIR)/target
TARGET := $(CARGO_TARGET_DIR)
MODULE := $(TARGET)/mod_rustbridge.so
CARGO ?= cargo
# Nothing is resolved anew: what was tested is what is built.
LOCKED ?= --locked

# The sets of features that must build and pass on their own; `switch` needs the FreeSWITCH headers and libclang.
SINK_FEATURES := "" amqp kafka amqp,kafka

include tests/host/host.mk
include tests/bench/bench.mk
include tests/faults/soak.mk
include tests/docker/docker.mk

.PHONY: help setup build test unittest races check run install clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'
	@printf '\n  BROKERS=1    make run: also a private RabbitMQ and a private Apache Kafka\n'
	@printf '  KEEP=1       make run: stay until Ctrl-C\n'
	@printf '  FREESWITCH_PREFIX=/usr/local/freeswitch   which FreeSWITCH to test in and to install into\n'
	@printf '  FREESWITCH_INCLUDE_DIR=...                which headers to build against\n'
	@printf '  CARGO_TARGET_DIR=%s\n' '$(TARGET)'

setup: ## Install what the build and the tests need, and only what is missing
	@tests/setup.sh

# The manifest names two kinds of library, and Cargo then leaves link-time optimization out: the one that ships is built alone.
build: ## Build the module: target/mod_rustbridge.so
	$(CARGO) rustc $(LOCKED) --release --lib --crate-type cdylib
	@cp $(TARGET)/release/libmod_rustbridge.so $(MODULE).new && mv -f $(MODULE).new $(MODULE)
	@echo "built $(MODULE)"

unittest: ## Unit tests alone; every set of features at least builds
	@set -e; for features in $(SINK_FEATURES); do \
	    echo "building the tests, features: $${features:-none}"; \
	    $(CARGO) check $(LOCKED) --quiet --lib --tests --no-default-features --features "$$features"; \
	done
	$(CARGO) test $(LOCKED) --quiet --lib

# Both need the crate built their own way, and neither needs a sink. ThreadSanitizer is a feature of the compiler that is not
# stabilized; the standard library as it is shipped is not instrumented, which tests/tsan.supp allows for.
races: ## The ring in every order of threads under loom, and under ThreadSanitizer
	RUSTFLAGS='--cfg loom' $(CARGO) test $(LOCKED) --quiet --no-default-features --target-dir $(TARGET)/loom --test loom_ring
	@if [ "$$(uname -m)" = x86_64 ]; then set -x; \
	    RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer' \
	    TSAN_OPTIONS="suppressions=$(CURDIR)/tests/tsan.supp" \
	    $(CARGO) test $(LOCKED) --quiet --no-default-features --target x86_64-unknown-linux-gnu --target-dir $(TARGET)/tsan --test ring_stress; \
	else mkdir -p $(TARGET); echo 'races: ThreadSanitizer: this target is not x86_64-unknown-linux-gnu' | tee -a $(TARGET)/test-skips.txt; fi

# The list of what was skipped comes last, whatever became of the integration tests.
test: setup build host unittest ## Set up, build, and run every test, in the host and in a real FreeSWITCH where there is one
	@rm -f $(TARGET)/test-skips.txt
	@RUSTBRIDGE_MODULE=$(MODULE) $(CARGO) test $(LOCKED) --no-fail-fast --test '*'; status=$$?; \
	$(MAKE) --no-print-directory races || status=1; \
	$(CARGO) test $(LOCKED) --quiet --doc || status=1; \
	$(MAKE) --no-print-directory docker-test-or-skip || status=1; \
	if [ -s $(TARGET)/test-skips.txt ]; then echo; echo 'SKIPPED, because this machine lacks something:'; sort -u $(TARGET)/test-skips.txt | sed 's/^/  /'; \
	else echo; echo 'nothing was skipped'; fi; \
	exit $$status

check: ## Formatting, lints for each set of features, documentation
	$(CARGO) fmt --check
	@set -e; for features in $(SINK_FEATURES); do \
	    echo "clippy, features: $${features:-none}"; \
	    $(CARGO) clippy $(LOCKED) --quiet --lib --no-default-features --features "$$features" -- -D warnings; \
	done
	$(CARGO) clippy $(LOCKED) --quiet --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc $(LOCKED) --quiet --no-deps --document-private-items

run: setup build host ## Show it at work: calls, each event as it lands, the account
	@RUSTBRIDGE_MODULE=$(MODULE) $(CARGO) run $(LOCKED) --quiet --example demo

install: build ## Install into FREESWITCH_PREFIX, or into what pkg-config knows; DESTDIR is respected
	@MODULE=$(MODULE) conf/install.sh

clean: ## Remove what was built
	$(CARGO) clean
	rm -rf $(HOST_DIR) $(MODULE) $(TARGET)/test-skips.txt
