# SPDX-License-Identifier: MIT
#
# Sourced by the scripts beside it: which docker to use, whether an engine answers, which client can build, the names of
# images. Every refusal is one line that says what is wrong and what to do.
# shellcheck shell=bash
# shellcheck disable=SC2034

PROGRAM=${0##*/}
TREE=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HERE=$TREE/tests/docker
STATE=${CARGO_TARGET_DIR:-$TREE/target}/docker
KAFKA_VERSION=4.1.0
JMX_VERSION=1.0.1

say() { printf '%s: %s\n' "$PROGRAM" "$*"; }
die() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; exit 1; }

# Ends a process and all that it started. Itself first, so that it does not take the end of the others for a failure; what a
# script started in its background does not hear of Ctrl-C.
end_tree() {
    local child children=()
    read -ra children 2>/dev/null <"/proc/$1/task/$1/children" || true
    kill "$1" 2>/dev/null || true
    for child in "${children[@]}"; do end_tree "$child"; done
}

# Waits until no other of these scripts builds: they share the files in $STATE. Until the script ends, or end_turn.
take_turn() {
    mkdir -p "$STATE"
    exec 9>"$STATE/turn"
    flock -w 1200 9 || die "another build has gone on for 20 minutes: look for it with 'fuser $STATE/turn'"
}
end_turn() { exec 9>&-; }

# Every client there is, each once; $DOCKER decides when it is set.
clients() { type -ap "${DOCKER:-docker}" | xargs -r -n 1 readlink -f | awk '!seen[$0]++'; }

# The first client that reaches an engine. One that answers nothing at all would keep the next waiting as long.
find_engine() {
    local client status
    while read -r client; do
        status=0
        timeout 15 "$client" version --format '{{.Server.Version}}' >/dev/null 2>&1 || status=$?
        if [ "$status" = 0 ]; then
            DOCKER=$client
            return 0
        fi
        [ "$status" != 124 ] || return 1
    done < <(clients)
    return 1
}

# What to tell somebody without one.
no_engine() {
    if ! type -ap "${DOCKER:-docker}" >/dev/null; then
        echo "no docker is installed: apt-get install docker.io, or see https://docs.docker.com/engine/install/"
    elif [ -e /var/run/docker.sock ] && [ ! -w /var/run/docker.sock ]; then
        echo "the Docker engine is not yours to use: join the group docker, or use sudo"
    else
        echo "no Docker engine answers at ${DOCKER_HOST:-/var/run/docker.sock}: start it with 'systemctl start docker', or 'dockerd &' where there is no systemd"
    fi
}

need_engine() { find_engine || die "$(no_engine)"; }

# The Dockerfiles use cache and secret mounts, so they need a client that speaks BuildKit: one with buildx, or one so old
# (before 23) that it has BuildKit built in.
need_builder() {
    local client major
    need_engine
    while read -r client; do
        if "$client" buildx version >/dev/null 2>&1; then
            BUILD=("$client" build)
            return 0
        fi
        major=$("$client" version --format '{{.Client.Version}}' 2>/dev/null | cut -d. -f1)
        if [ -n "$major" ] && [ "$major" -lt 23 ]; then
            BUILD=(env DOCKER_BUILDKIT=1 "$client" build)
            return 0
        fi
    done < <(clients; DOCKER='' clients)
    die "$DOCKER cannot build with BuildKit: apt-get install docker-buildx (Debian 13), docker-buildx-plugin (Docker's own packages), or docker.io (Debian 12)"
}

# What every build is given: a proxy and mirrors if this machine uses any, and its certificate authorities, which a proxy
# that looks into TLS needs. The latter two as secrets: they leave no trace in an image or its history.
build_options() {
    OPTIONS=()
    local name bundle config
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || OPTIONS+=(--build-arg "$name")
    done
    [ -z "${DEBIAN_MIRROR:-}" ] || OPTIONS+=(--build-arg "DEBIAN_MIRROR=$DEBIAN_MIRROR")
    bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
    [ ! -r "$bundle" ] || OPTIONS+=(--secret "id=ca-certificates,src=$bundle")
    config=${CARGO_CONFIG:-${CARGO_HOME:-$HOME/.cargo}/config.toml}
    [ ! -r "$config" ] || OPTIONS+=(--secret "id=cargo-config,src=$config")
    # shellcheck disable=SC2206
    OPTIONS+=(${DOCKER_BUILD_OPTIONS:-})
}

# The stage of Dockerfile.module that compiles, with BUILDER_IMAGE, as rustbridge/builder:local; after build_options.
build_builder() {
    local log=$STATE/builder.log said
    "${BUILD[@]}" --progress plain "${OPTIONS[@]}" -f "$TREE/examples/docker/Dockerfile.module" --target builder \
        --build-arg "BUILDER_IMAGE=$BUILDER_IMAGE" -t rustbridge/builder:local "$TREE" >"$log" 2>&1 && return 0
    # What our own file says, which is not where the command that would say it is printed.
    said=$(grep -vE 'echo|die ' "$log" | grep -ohE 'the builder cannot get .*' | head -n 1) || true
    [ -n "$said" ] || said=$(grep -E 'error|ERROR' "$log" | tail -n 1)
    die "$said (all of it: $log)"
}

have_image() { "$DOCKER" image inspect "$1" >/dev/null 2>&1; }
image_label() { "$DOCKER" image inspect -f "{{index .Config.Labels \"$2\"}}" "$1" 2>/dev/null; }

# need_image IMAGE REMEDY: one that was asked for by name, so nothing else will do.
need_image() {
    have_image "$1" || { [ "${DOCKER_PULL:-yes}" != no ] && timeout 300 "$DOCKER" pull -q "$1" >/dev/null 2>&1; } ||
        die "no image $1, here or in its registry: $2"
}

# What base.sh found or made, one NAME=value a line: to build with, and to run beside FreeSWITCH.
images_file() { echo "$STATE/images"; }
brokers_file() { echo "$STATE/brokers"; }
read_from() {
    [ -r "$1" ] || die "no images have been prepared: make docker-base"
    # shellcheck disable=SC1090
    . "$1"
}
read_images() { read_from "$(images_file)"; }
read_brokers() { read_from "$(brokers_file)"; }
