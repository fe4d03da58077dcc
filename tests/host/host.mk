# SPDX-License-Identifier: MIT
#
# The host, its probe and the generator module, into $(TARGET)/host. Included by the Makefile at the top.

HOST_DIR := $(TARGET)/host
HOST_FILES := core event xml module generate measure scarce main
HOST_CFLAGS = -std=gnu11 -O2 -g -Wall -Wextra -Wno-unused-parameter $(shell tests/host/include-dirs.sh $(HOST_DIR)/include | sed 's/-I/-isystem /g')

.PHONY: host
host: $(HOST_DIR)/rustbridge-host $(HOST_DIR)/mod_probe.so $(HOST_DIR)/mod_generate.so $(HOST_DIR)/clock.so ## Build the small switch core that stands in for FreeSWITCH in tests

# An executable's symbols reach the libraries it opens only with -rdynamic.
$(HOST_DIR)/rustbridge-host: $(HOST_FILES:%=tests/host/%.c) tests/host/host.h tests/host/host.mk | $(HOST_DIR)
	$(CC) $(HOST_CFLAGS) -rdynamic -pthread $(HOST_FILES:%=tests/host/%.c) -ldl -o $@.new && mv $@.new $@

$(HOST_DIR)/mod_probe.so: tests/host/probe.c tests/host/host.mk | $(HOST_DIR)
	$(CC) $(HOST_CFLAGS) -fPIC -shared $< -o $@.new && mv $@.new $@

$(HOST_DIR)/mod_generate.so: tests/host/mod_generate.c tests/host/generate.c tests/host/host.h tests/host/host.mk | $(HOST_DIR)
	$(CC) $(HOST_CFLAGS) -fPIC -shared -fvisibility=hidden -DSWITCH_API_VISIBILITY -Wl,-Bsymbolic tests/host/mod_generate.c tests/host/generate.c -o $@.new && mv $@.new $@

$(HOST_DIR)/clock.so: tests/host/clock.c tests/host/host.mk | $(HOST_DIR)
	$(CC) -std=gnu11 -O2 -Wall -Wextra -fPIC -shared $< -o $@.new && mv $@.new $@

$(HOST_DIR):
	mkdir -p $@
