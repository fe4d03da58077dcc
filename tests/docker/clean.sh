#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Removes the images that the other scripts made, and the build caches that the Dockerfiles named. What was pulled stays.
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
need_engine
"$DOCKER" images --format '{{.Repository}}:{{.Tag}}' 'rustbridge/*' | xargs -r "$DOCKER" rmi -f
"$DOCKER" builder prune -f --filter type=exec.cachemount --filter 'description~=rustbridge' >/dev/null 2>&1 || true
rm -rf "$STATE"
