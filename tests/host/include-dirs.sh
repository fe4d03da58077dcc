#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Prints the compiler's -I options for FreeSWITCH's headers, found where build.rs finds them: FREESWITCH_INCLUDE_DIR,
# pkg-config, else the headers packaged in the crate fswtch-src. $1 is a folder for the one header that crate comes without.
set -eu
if [ -n "${FREESWITCH_INCLUDE_DIR:-}" ]; then
    echo "-I$FREESWITCH_INCLUDE_DIR"
elif pkg-config --exists freeswitch 2>/dev/null; then
    pkg-config --cflags-only-I freeswitch
else
    crate=$(cargo metadata --format-version 1 --locked 2>/dev/null |
        grep -o '"manifest_path":"[^"]*/fswtch-src-[^"]*/Cargo.toml"' | head -n 1 | sed 's/.*:"//; s|/Cargo.toml"$||')
    [ -n "$crate" ] || { echo "include-dirs: cargo metadata does not know fswtch-src" >&2; exit 1; }
    mkdir -p "$1"
    # What FreeSWITCH's configure writes on a 64-bit Unix.
    cat >"$1/switch_am_config.h" <<'H'
#define SWITCH_INT_16  short
#define SWITCH_INT_32  int
#define SWITCH_INT_64  long
#define SWITCH_SIZE_T  size_t
#define SWITCH_SSIZE_T ssize_t
#define SWITCH_SIZEOF_VOIDP 8
#define SWITCH_PREFIX_DIR "/usr/local/freeswitch"
#define SWITCH_SSIZE_T_FMT "ld"
#define SWITCH_SIZE_T_FMT "ld"
#define SWITCH_INT64_T_FMT "ld"
#define SWITCH_UINT64_T_FMT "lu"
H
    echo "-I$crate/freeswitch/src/include -I$crate/freeswitch/libs/apr/include -I$crate/freeswitch/libs/libteletone/src -I$1"
fi
