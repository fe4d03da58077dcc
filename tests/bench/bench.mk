# SPDX-License-Identifier: MIT
#
# Measurements. Included by the Makefile at the top; see docs/performance.md.

BENCH_DIR := $(TARGET)/bench
BENCH_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Wno-unused-parameter $(shell tests/host/include-dirs.sh $(TARGET)/host/include | sed 's/-I/-isystem /g')
# The library as it is shipped.
BENCH_ENV = RUSTBRIDGE_MODULE=$(abspath $(TARGET))/release/libmod_rustbridge.so

.PHONY: bench bench-all bench-gate bench-report bench-modules bench-library
bench: host bench-modules bench-library bench-kafka ## Measure against every peer, the short set: some minutes on a quiet machine
	$(BENCH_ENV) cargo bench --bench bench -- --short $(BENCH_ARGS)

bench-all: host bench-modules bench-library bench-kafka bench-perf-test ## Measure everything that docs/performance.md shows
	$(BENCH_ENV) cargo bench --bench bench -- $(BENCH_ARGS)

bench-report: ## Put the results of the last runs into docs/performance.md, and its plots
	cargo bench --bench bench -- report

bench-gate: build host ## Count what an event costs: instructions, allocations, system calls; part of make test
	RUSTBRIDGE_MODULE=$(MODULE) $(CARGO) test $(LOCKED) --test bench_gate -- --nocapture

bench-library:
	cargo rustc --release --lib --crate-type cdylib

bench-modules: $(BENCH_DIR)/mod_bench.so $(BENCH_DIR)/allocations.so

# librdkafka's own program, against the very library that the module carries; it lies beside it where cargo has built that.
.PHONY: bench-kafka
bench-kafka: bench-library | $(BENCH_DIR)
	@for built in $(TARGET)/release/build/rdkafka-sys-*/out; do \
	    if [ -f "$$built/src/librdkafka.a" ] && [ "$$built/src/librdkafka.a" -nt $(BENCH_DIR)/rdkafka_performance ]; then \
	        echo "building rdkafka_performance from $$built"; \
	        $(CC) -O2 -w -I"$$built" -I"$$built/src" "$$built/examples/rdkafka_performance.c" "$$built/src/librdkafka.a" \
	            -o $(BENCH_DIR)/rdkafka_performance -lssl -lcrypto -lz -lm -ldl -lpthread || exit 1; \
	    fi; \
	done

# RabbitMQ's own load generator, from Maven Central. Without it the comparison with it is left out.
PERF_TEST_VERSION := 2.22.1
.PHONY: bench-perf-test
bench-perf-test: | $(BENCH_DIR)
	@if [ ! -e $(BENCH_DIR)/perf-test/.complete ] && command -v mvn >/dev/null; then \
	    echo "fetching PerfTest $(PERF_TEST_VERSION) from Maven Central"; \
	    sed 's/@VERSION@/$(PERF_TEST_VERSION)/' tests/bench/perf-test.pom.xml >$(BENCH_DIR)/perf-test.pom.xml && \
	    mvn -q -B -f $(BENCH_DIR)/perf-test.pom.xml dependency:copy-dependencies -DoutputDirectory=$(abspath $(BENCH_DIR))/perf-test -DincludeScope=runtime && \
	    touch $(BENCH_DIR)/perf-test/.complete || echo "PerfTest cannot be fetched: the bench does without"; \
	fi

$(BENCH_DIR)/mod_bench.so: tests/bench/mod_bench.c tests/bench/bench.mk | $(BENCH_DIR)
	$(CC) $(BENCH_CFLAGS) -fPIC -shared $< -o $@.new && mv $@.new $@

$(BENCH_DIR)/allocations.so: tests/bench/allocations.c tests/bench/bench.mk | $(BENCH_DIR)
	$(CC) -std=gnu11 -O2 -fPIC -shared -Wall -Wextra $< -o $@.new && mv $@.new $@

$(BENCH_DIR):
	mkdir -p $@
