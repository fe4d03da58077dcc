# SPDX-License-Identifier: MIT
#
# The fault matrix at its large size. `make soak ROWS=f01` runs the rows whose names contain that, SOAK_MINUTES=1440 has the
# mixture of faults last a day (5 minutes otherwise), FREESWITCH_PREFIX names the FreeSWITCHes that rows run in as well. The
# spool's models of damage and of power loss run ten thousand cases each.

ROWS ?=

.PHONY: soak

soak: setup build host ## The fault matrix at its large size, and its table: hours
	@rm -f $(TARGET)/faults.txt
	@SOAK=1 RUSTBRIDGE_MODULE=$(MODULE) $(CARGO) test $(LOCKED) --release --test faults -- --nocapture $(ROWS); \
	status=$$?; \
	SOAK=1 RUSTBRIDGE_MODULE=$(MODULE) $(CARGO) test $(LOCKED) --release --test scenarios -- two_hundred_loads brokers_that_stop || status=1; \
	PROPTEST_CASES=10000 $(CARGO) test $(LOCKED) --release --lib spool:: || status=1; \
	printf '\n%-78s %-9s %9s %6s %6s %6s %11s %7s\n' fault broker events lost twice order 'longest cb' seconds; \
	cat $(TARGET)/faults.txt 2>/dev/null; \
	exit $$status
