#!/bin/sh
# SPDX-License-Identifier: MIT
#
# leash.sh COMMAND…: runs the command in a process group of its own and kills the whole group as soon as standard input
# ends. A test holds the other end of that pipe, so nothing that a test started outlives it, however it dies. The first
# line on standard output is the group's number; the command's own output goes to $LEASH_OUTPUT.
exec 3<&0
setsid "$@" </dev/null >"${LEASH_OUTPUT:-/dev/null}" 2>&1 3<&- &
group=$!
# What ends the test (Ctrl-C, a time limit) is often sent to all that it started: who watches must outlive that.
trap '' HUP INT TERM
echo "$group"
exec >/dev/null 2>&1
(cat <&3 >/dev/null; kill -s KILL -- "-$group" 2>/dev/null) &
watch=$!
exec 3<&-
wait "$group"
status=$?
kill -s KILL -- "-$group" 2>/dev/null
kill "$watch" 2>/dev/null
exit "$status"
