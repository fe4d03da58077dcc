#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Makes ready what is needed (base.sh), builds the module once and adds it to each FreeSWITCH image: those of base.sh, or those
# that FREESWITCH_IMAGE names. The results are rustbridge/module:VERSION, the first of them also freeswitch-rustbridge.
# Environment: see base.sh; DOCKER_BUILD_OPTIONS is handed to every build.
#   build.sh --for-tests    also makes ready the brokers and clients of the tests
#   build.sh --only-check   goes as far as to know whether the images fit, and makes none
#   build.sh --vendor       makes a FreeSWITCH image from the vendor's packages, with the token in the file SIGNALWIRE_TOKEN_FILE
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
if [ "${1:-}" = --vendor ]; then
    token=${SIGNALWIRE_TOKEN_FILE:-}
    [ -n "$token" ] || die "no token for the vendor's packages: get one from SignalWire (developer.signalwire.com) and name the file that has it in SIGNALWIRE_TOKEN_FILE"
    [ -f "$token" ] && [ -r "$token" ] || die "the token for the vendor's packages cannot be read from $token: name a file that can in SIGNALWIRE_TOKEN_FILE"
fi
need_builder
# What it starts from, and the compiler's work, unless only an answer is wanted. In the background and waited for, since a
# shell that waits in the foreground acts on a signal only afterwards.
case ${1:-} in
--only-check | --vendor) ;;
*)
    trap 'end_tree "$BASE"; wait "$BASE" || true; exit 130' INT TERM HUP
    "$HERE/base.sh" "${1:---for-build}" & BASE=$!
    wait "$BASE" || exit 1
    trap - INT TERM HUP
    ;;
esac
build_options
take_turn
LOG=$STATE/build.log

# build IMAGE OPTION…: quiet when it works, else the one line that says what is wrong.
build() {
    local image=$1 said
    shift
    if "${BUILD[@]}" --progress plain "${OPTIONS[@]}" "$@" -t "$image" "$TREE" >"$LOG" 2>&1; then
        grep -ohE 'Dockerfile\.module: note: .*' "$LOG" | sort -u | sed "s/^Dockerfile.module/$PROGRAM/" || true
        return 0
    fi
    # What our own files say, which is not where the command that would say it is printed, and not a note on the way.
    said=$(grep -vE 'echo|die |: note: ' "$LOG" | grep -ohE '(Dockerfile\.[a-z]+: |the builder cannot get ).*' | head -n 1 | sed 's/^Dockerfile[^:]*: //') || true
    [ -n "$said" ] || said=$(grep -E 'error|ERROR' "$LOG" | tail -n 1)
    die "$said (all of it: $LOG)"
}

# The version that an image says, else its tag.
version_of() {
    local version
    version=$(image_label "$1" rustbridge.version)
    [ -n "$version" ] && [ "$version" != '<no value>' ] || version=$(tr -c 'A-Za-z0-9_.\n-' '-' <<<"${1##*/}")
    echo "$version"
}

if [ "${1:-}" = --vendor ]; then
    BASE_IMAGE=${BASE_IMAGE:-debian:${DEBIAN_RELEASE:-bookworm}-slim}
    need_image "$BASE_IMAGE" "check the network, or name a Debian 12 or 13 in BASE_IMAGE"
    OPTIONS+=(--secret "id=signalwire-token,src=$token")
    build rustbridge/freeswitch:vendor -f "$TREE/examples/docker/Dockerfile.freeswitch" --build-arg "BASE_IMAGE=$BASE_IMAGE"
    say "rustbridge/freeswitch:vendor is ready: make docker-build FREESWITCH_IMAGE=rustbridge/freeswitch:vendor"
    exit 0
fi
# One that was named goes before what base.sh noted, which it may not have run to note.
named=${BUILDER_IMAGE:-}
read_images
BUILDER_IMAGE=${named:-$BUILDER_IMAGE}
DOCKERFILE=$TREE/examples/docker/Dockerfile.module
[ "${1:-}" = --only-check ] || build_builder
MODULE_IMAGES=()
NEXT_MODULE=
for freeswitch in ${FREESWITCH_IMAGE:-$FREESWITCH_IMAGES $NEXT_IMAGE}; do
    need_image "$freeswitch" "name one that has FreeSWITCH in FREESWITCH_IMAGE"
    if [ "${1:-}" = --only-check ]; then
        build rustbridge/check:local -f "$DOCKERFILE" --target install --build-arg "BUILDER_IMAGE=$BUILDER_IMAGE" --build-arg "FREESWITCH_IMAGE=$freeswitch"
        "$DOCKER" rmi -f rustbridge/check:local >/dev/null
        continue
    fi
    image=rustbridge/module:$(version_of "$freeswitch")
    build "$image" -f "$DOCKERFILE" --build-arg "BUILDER_IMAGE=${BUILDER_IMAGE}" --build-arg "FREESWITCH_IMAGE=$freeswitch"
    added=$((($("$DOCKER" image inspect -f '{{.Size}}' "$image") - $("$DOCKER" image inspect -f '{{.Size}}' "$freeswitch")) / 1000))
    say "$image: $freeswitch and $added kB"
    if [ "$freeswitch" = "$NEXT_IMAGE" ]; then NEXT_MODULE=$image; else MODULE_IMAGES+=("$image"); fi
done
[ "${1:-}" != --only-check ] || exit 0
# What compose.yaml takes when it is used by hand.
"$DOCKER" tag "${MODULE_IMAGES[0]}" freeswitch-rustbridge
printf 'MODULE_IMAGES=%q\nNEXT_MODULE=%q\n' "${MODULE_IMAGES[*]}" "$NEXT_MODULE" >"$STATE/modules"
