#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Runs the tests of tests/docker against the images that base.sh and build.sh made. Whatever way it ends, nothing of what it
# started stays: every container, network and volume carries the label of this run and goes by it.
# test.sh [FILTER…]: only the tests whose names contain one of these. With --or-skip it notes what is missing and succeeds.
# The functions that a trap runs look unused to it.
# shellcheck disable=SC2317
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
SKIPS=${CARGO_TARGET_DIR:-$TREE/target}/test-skips.txt
# What was noted of these tests before they ran.
forget_skips() { [ ! -e "$SKIPS" ] || sed -i '/^tests\/docker: /d' "$SKIPS"; }
if [ "${1:-}" = --or-skip ]; then
    missing=
    if ! find_engine; then
        missing=$(no_engine)
    else
        # Images may take minutes to make, so what is done is shown; what goes wrong is said on standard error alone.
        said=$(mktemp)
        trap 'rm -f "$said"' EXIT
        if ! "$HERE/build.sh" --for-tests 2>"$said"; then
            cat "$said" >&2
            # What cannot be had here is missing; whatever else is wrong is a failure.
            missing=$(grep -oE '^(base\.sh: .*|build\.sh: the builder cannot get .*)' "$said" | head -n 1 | sed 's/^[a-z]*\.sh: //')
            [ -n "$missing" ] || exit 1
        fi
        rm -f "$said"
        trap - EXIT
    fi
    if [ -n "$missing" ]; then
        line="tests/docker: ${missing%%: *}; to get it: ${missing#*: }, then make docker-test"
        echo "SKIPPED $line" >&2
        mkdir -p "${SKIPS%/*}"
        forget_skips
        echo "$line" >>"$SKIPS"
        exit 0
    fi
    shift
    # What `make test` has built already.
    export DOCKER_TEST_FEATURES=${DOCKER_TEST_FEATURES:-}
    READY=1
fi
# Where nothing has been built yet, these tests need the least: neither librdkafka nor FreeSWITCH's headers, and nothing of what
# makes other tests quick, since these wait for containers.
if [ -z "${DOCKER_TEST_FEATURES+set}" ]; then
    export DOCKER_TEST_FEATURES=--no-default-features CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
fi
need_builder
mkdir -p "$STATE"

# The images and the tests' own program are made side by side.
PREPARING='' COMPILING=''
# $1: what to end with.
give_up() {
    trap '' INT TERM HUP
    [ -z "$PREPARING" ] || end_tree "$PREPARING"
    [ -z "$COMPILING" ] || kill -- "-$COMPILING" 2>/dev/null || true
    wait
    exit "$1"
}
trap 'give_up 130' INT
trap 'give_up 143' TERM HUP
cd "$TREE"
# shellcheck disable=SC2086
setsid cargo test --locked $DOCKER_TEST_FEATURES --test docker --no-run >"$STATE/tests.log" 2>&1 &
COMPILING=$!
if [ -z "${READY:-}" ]; then
    "$HERE/build.sh" --for-tests &
    PREPARING=$!
    wait "$PREPARING" || give_up 1
    PREPARING=
fi
build_options
# Others may be writing what is read here.
take_turn
read_images
read_brokers
# shellcheck disable=SC1091
. "$STATE/modules" 2>/dev/null || die "the module has not been built into an image: make docker-build"

# A name for the run, by which whoever gave it can look what is left of it.
RUN=${DOCKER_TEST_RUN:-rustbridge-$$-$(date +%s)}
clean() {
    local label left=
    # Volumes may be let go of a moment after their containers.
    for _ in 1 2 3; do
        left=
        # What the tests start, and what Compose starts for them.
        for label in "label=rustbridge.run=$RUN" "label=com.docker.compose.project=$RUN"; do
            "$DOCKER" ps -aq --filter "$label" | xargs -r "$DOCKER" rm -f -v >/dev/null 2>&1 || true
            "$DOCKER" network ls -q --filter "$label" | xargs -r "$DOCKER" network rm >/dev/null 2>&1 || true
            "$DOCKER" volume ls -q --filter "$label" | xargs -r "$DOCKER" volume rm -f >/dev/null 2>&1 || true
            left+=$("$DOCKER" ps -aq --filter "$label"; "$DOCKER" network ls -q --filter "$label"; "$DOCKER" volume ls -q --filter "$label")
        done
        if [ -z "$left" ]; then
            "$DOCKER" images -q --filter "label=rustbridge.run=$RUN" | xargs -r "$DOCKER" rmi -f >/dev/null 2>&1 || true
            return 0
        fi
    done
    say "could not remove: $(tr '\n' ' ' <<<"$left")"
    return 1
}
CARGO=
# The processes of the tests: number and name.
members() {
    local file line fields
    for file in /proc/[0-9]*/stat; do
        { read -r line <"$file"; } 2>/dev/null || continue
        read -ra fields <<<"${line##*) }"
        if [ "${fields[2]}" != "$CARGO" ] || [ "${fields[0]}" = Z ]; then continue; fi
        line=${line#*(}
        file=${file#/proc/}
        echo "${file%/stat} ${line%)*}"
    done
}
finish() {
    local status=$? pid name end=$((SECONDS + 30))
    # A second signal must not end this half way: make hands on the one that it got itself.
    trap '' INT TERM HUP
    if [ -n "$CARGO" ]; then
        # The tests end at once. Clients are heard out, for the engine may do what they asked for although nobody waits for it.
        while read -r pid name; do
            [ "$name" = "${DOCKER##*/}" ] || kill -KILL "$pid" 2>/dev/null || true
        done < <(members)
        clean >/dev/null || true
        while [ "$SECONDS" -lt "$end" ] && [ -n "$(members)" ]; do sleep 0.2; done
        kill -KILL -- "-$CARGO" 2>/dev/null || true
        wait "$CARGO" 2>/dev/null || true
    fi
    clean || status=1
    exit "$status"
}
wait "$COMPILING" || { tail -n 20 "$STATE/tests.log" >&2; die "the tests do not compile (all of it: $STATE/tests.log)"; }
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

TEST_IMAGES=()
NEXT_TEST=
for module in $MODULE_IMAGES $NEXT_MODULE; do
    image=rustbridge/test:${module#*:}
    "${BUILD[@]}" --progress plain "${OPTIONS[@]}" -f "$HERE/Dockerfile.test" --build-arg BUILDER_IMAGE=rustbridge/builder:local --build-arg "MODULE_IMAGE=$module" -t "$image" "$TREE" >"$STATE/test-image.log" 2>&1 ||
        die "the test image cannot be built from $module: $(grep -E 'error|ERROR' "$STATE/test-image.log" | tail -n 1) (all of it: $STATE/test-image.log)"
    if [ "$module" = "$NEXT_MODULE" ]; then NEXT_TEST=$image; else TEST_IMAGES+=("$image"); fi
done

end_turn
forget_skips
export DOCKER
export RUSTBRIDGE_DOCKER_RUN=$RUN
export RUSTBRIDGE_DOCKER_FREESWITCH=$FREESWITCH_IMAGES RUSTBRIDGE_DOCKER_MODULE=$MODULE_IMAGES RUSTBRIDGE_DOCKER_TEST=${TEST_IMAGES[*]}
export RUSTBRIDGE_DOCKER_NEXT="$NEXT_MODULE $NEXT_TEST"
export RUSTBRIDGE_DOCKER_RABBITMQ=$RABBITMQ_IMAGE RUSTBRIDGE_DOCKER_KAFKA=$KAFKA_IMAGE RUSTBRIDGE_DOCKER_CLIENT=$CLIENT_IMAGE RUSTBRIDGE_DOCKER_BASE=$BASE_IMAGE
export RUSTBRIDGE_DOCKER_BUILDER=$BUILDER_IMAGE RUSTBRIDGE_DOCKER_PROMETHEUS=$PROMETHEUS_IMAGE
# In the background and waited for, since a shell that waits in the foreground acts on a signal only afterwards; and in a
# process group of its own, so that the tests end with it and start nothing while what they started is removed.
# A thread for each test: who runs when is decided by tests/docker/gate.rs, in front of which "has been running for over
# 60 seconds" means nothing.
# shellcheck disable=SC2086
setsid cargo test --locked $DOCKER_TEST_FEATURES --test docker -- --test-threads=64 --nocapture "$@" > >(grep --line-buffered -v 'has been running for over 60 seconds') &
CARGO=$!
status=0
wait "$CARGO" || status=$?
CARGO=
exit "$status"
