#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Removes the images that the other scripts made, the build caches that the Dockerfiles named, and what a run left behind
# that was killed before it could. What was pulled stays.
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
need_engine
"$DOCKER" ps -aq --filter label=rustbridge.run | xargs -r "$DOCKER" rm -f -v
"$DOCKER" network ls -q --filter label=rustbridge.run | xargs -r "$DOCKER" network rm
"$DOCKER" volume ls -q --filter label=rustbridge.run | xargs -r "$DOCKER" volume rm -f
# The second name of one of them; an image of this name that somebody made by hand stays.
named=$("$DOCKER" images -q freeswitch-rustbridge:latest)
if [ -n "$named" ] && "$DOCKER" images -q rustbridge/module | grep -qxF "$named"; then "$DOCKER" rmi -f freeswitch-rustbridge:latest; fi
"$DOCKER" images --format '{{.Repository}}:{{.Tag}}' 'rustbridge/*' | xargs -r "$DOCKER" rmi -f
"$DOCKER" builder prune -f --filter type=exec.cachemount --filter 'description~=rustbridge' >/dev/null 2>&1 || true
rm -rf "$STATE"
