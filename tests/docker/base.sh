#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Makes ready every image that a build of the module and the tests start from. Those that a registry has are pulled; where
# none answers, each is made from what this machine has, and the script says what it took:
#   Debian       by debootstrap
#   FreeSWITCH   the installations of FREESWITCH_PREFIX (several, separated by colons; default: the one that is found), with
#                the libraries that they need and Debian's base lacks
#   Rust         the toolchain of this machine
#   RabbitMQ     Debian's package
#   Kafka        its Maven artifacts, which `make setup` fetches
#   Prometheus   Debian's package
#   clients      pika, kcat, sipp and tc, as Debian's packages
# An installed FreeSWITCH is packed over the Debian that it was made for, and the first one also over the next Debian, where
# that can be had. FREESWITCH_IMAGE names images to take instead of packing an installation. What is there already is left as
# it is.
# Environment: DEBIAN_MIRROR, http_proxy and so on; DOCKER_PULL=no asks no registry; BUILDER_IMAGE names what to compile in.
#   base.sh               all of it
#   base.sh --for-build   without brokers and clients; compiles the module meanwhile, for build.sh to find it done
#   base.sh --for-tests   all of it, and compiles the module meanwhile
#   base.sh --brokers     the brokers and Prometheus alone, after one of the others
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
# Brokers that are all pulled, or here, need nothing that builds.
if [ "${1:-}" = --brokers ]; then need_engine; else need_builder; fi
build_options
take_turn
WORK=$(mktemp -d)
jobs=()
TOOLCHAIN=
# A build that goes on in the background when this ends would keep the engine busy for nobody.
finish() {
    local job mount
    for job in "${jobs[@]}"; do end_tree "$job"; done
    wait
    [ -z "$TOOLCHAIN" ] || "$DOCKER" rm -f "$TOOLCHAIN" >/dev/null 2>&1 || true
    # What debootstrap had mounted when it was ended.
    while read -r _ mount _; do
        case $mount in "$WORK"/*) umount -l "$mount" || true ;; esac
    done </proc/mounts
    # Once more for what its last process wrote meanwhile.
    rm -rf --one-file-system "$WORK" 2>/dev/null || rm -rf --one-file-system "$WORK" || true
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# True when the registry gave the image, or it is here already.
pull() {
    have_image "$1" && return 0
    [ "${DOCKER_PULL:-yes}" != no ] && [ ! -e "$WORK/no-registry" ] || return 1
    timeout 300 "$DOCKER" pull -q "$1" >/dev/null 2>"$WORK/pull" && return 0
    # An image that a registry does not have says nothing of the others.
    grep -qiE 'not found|manifest unknown|denied' "$WORK/pull" || touch "$WORK/no-registry"
    say "no registry gives $1 ($(tail -n 1 "$WORK/pull" | cut -c1-120)): local images are made instead"
    return 1
}

# ---- Debian ----

# What is packed must meet the system that it was made for; what an image brings has its own.
HOST_ID=$(. /etc/os-release && echo "$ID")
if [ -n "${FREESWITCH_IMAGE:-}" ]; then
    ID=debian CODENAME=${DEBIAN_RELEASE:-bookworm}
else
    ID=$HOST_ID CODENAME=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
fi

# debian CODENAME: its image, as BASE_IMAGE.
debian() {
    local codename=$1
    case $ID in
    debian) BASE_IMAGE=debian:$codename-slim ;;
    ubuntu) BASE_IMAGE=ubuntu:$codename ;;
    *) die "a FreeSWITCH installed on $ID cannot be packed, only on Debian or Ubuntu: name an image that has one in FREESWITCH_IMAGE" ;;
    esac
    pull "$BASE_IMAGE" && return 0
    local wanted=$BASE_IMAGE
    BASE_IMAGE=rustbridge/base:$codename
    have_image "$BASE_IMAGE" && return 0
    command -v debootstrap >/dev/null || die "no registry gives $wanted and debootstrap is missing: apt-get install debootstrap"
    [ "$(id -u)" = 0 ] || die "debootstrap must run as root: sudo make docker-base"
    local mirror=${DEBIAN_MIRROR:-} from=$WORK/base-$codename
    # The mirror that this machine's own packages come from, which has no other system's.
    # shellcheck disable=SC2016
    [ -n "$mirror" ] || [ "$HOST_ID" != "$ID" ] || mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $(. /etc/os-release && echo "${VERSION_CODENAME:-}")" 2>/dev/null | head -n 1)
    [ -n "$mirror" ] || mirror=http://deb.debian.org/debian
    say "making $BASE_IMAGE with debootstrap"
    # shellcheck disable=SC2015
    # In two stages, so that the second and every package installed later heeds what Debian's own slim images say to dpkg: it
    # need not wait for the disk after each file, for an image is made whole or not at all, and documentation stays out.
    debootstrap --foreign --variant=minbase --include=ca-certificates "$codename" "$from" "$mirror" >"$from.log" 2>&1 &&
        printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' >"$from/etc/dpkg/dpkg.cfg.d/docker" &&
        chroot "$from" /debootstrap/debootstrap --second-stage >>"$from.log" 2>&1 ||
        die "debootstrap cannot make Debian $codename ($(grep -E '^[EW]:' "$from.log" | tail -n 1)): check the network, or name a mirror in DEBIAN_MIRROR"
    # As there too: no service starts in a build, no package is kept.
    printf '#!/bin/sh\nexit 101\n' >"$from/usr/sbin/policy-rc.d"
    chmod 755 "$from/usr/sbin/policy-rc.d"
    rm -rf "$from"/var/cache/apt/archives/*.deb "$from"/var/lib/apt/lists/* "$from"/usr/share/{doc,locale}/* "$from"/usr/share/man/*/*
    tar -C "$from" --numeric-owner -c . | "$DOCKER" import -c 'CMD ["bash"]' - "$BASE_IMAGE" >/dev/null
    rm -rf "$from"
}

# ---- FreeSWITCH ----

# The prefix of an installed FreeSWITCH.
find_prefix() {
    local program
    for program in "$(pkg-config --variable prefix freeswitch 2>/dev/null || true)/bin/freeswitch" "$(type -P freeswitch || true)" /usr/local/freeswitch/bin/freeswitch; do
        if [ -x "$program" ]; then
            dirname "$(dirname "$(readlink -f "$program")")"
            return 0
        fi
    done
    return 1
}

# pack_freeswitch PREFIX [CODENAME]: over BASE_IMAGE; the tag and the version name the Debian where it is not its own.
pack_freeswitch() {
    local prefix=$1 version image source into=$WORK/freeswitch file library
    if [ ! -x "$prefix/bin/freeswitch" ] || [ ! -x "$prefix/bin/fs_cli" ]; then die "$prefix holds no FreeSWITCH: name one with bin/freeswitch and bin/fs_cli in FREESWITCH_PREFIX, or an image in FREESWITCH_IMAGE"; fi
    version=$("$prefix/bin/freeswitch" -version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1) || true
    [ -n "$version" ] || die "$prefix/bin/freeswitch does not say its version: it does not run on this machine"
    version+=${2:+-$2}
    image=rustbridge/freeswitch:$version
    PACKED+=("$image")
    source=$(cd "$prefix" && find bin lib etc -type f -printf '%p %s %T@\n' | LC_ALL=C sort | cat - "$HERE/base.sh" <(echo "$BASE_IMAGE") | sha256sum | cut -c1-16)
    [ "$(image_label "$image" rustbridge.source || true)" != "$source" ] || return 0
    rm -rf "$into"
    mkdir -p "$into$prefix"
    # Programs, libraries, modules, configuration and scripts; nothing that only a compiler needs, nothing that runs left.
    tar -C "$prefix" --exclude '*.la' --exclude '*.a' --exclude lib/pkgconfig --exclude mod_rustbridge.so --exclude 'share/freeswitch/sounds' -c bin lib etc share |
        tar -C "$into$prefix" -x
    "$DOCKER" run --rm "$BASE_IMAGE" find -L /lib /usr/lib -name '*.so*' >"$WORK/there"
    : >"$WORK/took"
    while read -r library; do
        case $library in "$prefix"/*) continue ;; esac
        # The base's own files win: its C library and what belongs to it stay together.
        grep -qxF -e "$library" -e "/usr$library" "$WORK/there" && continue
        file=$(readlink -f "$library")
        install -D -m 644 "$file" "$into/usr/local/lib/packed/${library##*/}"
        printf '%s %s\n' "$library" "$(dpkg -S "$file" 2>/dev/null | cut -d: -f1 | head -n 1)" >>"$WORK/took"
    done < <(find "$prefix/bin" "$prefix/lib" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u)
    mkdir -p "$into/etc/ld.so.conf.d"
    echo /usr/local/lib/packed >"$into/etc/ld.so.conf.d/packed.conf"
    cat >"$into/Dockerfile" <<D
FROM $BASE_IMAGE
COPY . /
RUN rm /Dockerfile && ldconfig && groupadd -r freeswitch && useradd -r -g freeswitch -d /var/lib/freeswitch freeswitch && ldd $prefix/bin/freeswitch $prefix/lib/freeswitch/mod/*.so | grep 'not found' && exit 1 || true
LABEL rustbridge.source=$source rustbridge.version=$version
D
    tar -C "$into" --numeric-owner --owner 0 --group 0 -c . | "${BUILD[@]}" -q -t "$image" - >/dev/null
    say "$image: took FreeSWITCH $version from $prefix ($(du -sh "$into$prefix" | cut -f1)), $(find "$into$prefix/lib" -name 'mod_*.so' | wc -l) modules, and $(wc -l <"$WORK/took") libraries that Debian's base lacks:"
    sed 's/^/    /; s/ \([^ ]\+\)$/  (\1)/' "$WORK/took"
    rm -rf "$into"
}

# What is to be packed, before anything is made: where there is none, that should be known at once.
prefixes() {
    [ -z "${FREESWITCH_IMAGE:-}" ] || return 0
    PREFIXES=${FREESWITCH_PREFIX:-}
    [ -n "$PREFIXES" ] || PREFIXES=$(find_prefix) || die "no FreeSWITCH is installed: name its prefix in FREESWITCH_PREFIX, or an image that has one in FREESWITCH_IMAGE"
}

freeswitch() {
    PACKED=()
    local entry
    if [ -n "${FREESWITCH_IMAGE:-}" ]; then
        for entry in $FREESWITCH_IMAGE; do
            need_image "$entry" "name one that has FreeSWITCH in FREESWITCH_IMAGE"
            PACKED+=("$entry")
        done
        return 0
    fi
    while read -r entry; do pack_freeswitch "$entry"; done < <(tr : '\n' <<<"$PREFIXES")
}

# The same FreeSWITCH and its libraries where all else is newer, for NEXT_IMAGE. It is one more test, which is skipped where
# there is no such Debian. That takes its time to come, so it is begun first and waited for last.
NEXT_DEBIAN=trixie
begin_next_debian() {
    NEXT_JOB=
    # shellcheck disable=SC2031
    [ -z "${FREESWITCH_IMAGE:-}" ] && [ "$ID $CODENAME" = "debian bookworm" ] || return 0
    (debian "$NEXT_DEBIAN") >"$WORK/next" 2>&1 & NEXT_JOB=$!
    jobs+=("$NEXT_JOB")
}

on_next_debian() {
    local own=$BASE_IMAGE packed=("${PACKED[@]}")
    [ -n "$NEXT_JOB" ] || return 0
    if wait "$NEXT_JOB"; then
        grep -v 'no registry gives' "$WORK/next" || true
        BASE_IMAGE=rustbridge/base:$NEXT_DEBIAN
        ! have_image "debian:$NEXT_DEBIAN-slim" || BASE_IMAGE=debian:$NEXT_DEBIAN-slim
        PACKED=()
        pack_freeswitch "${PREFIXES%%:*}" "$NEXT_DEBIAN"
        NEXT_IMAGE=${PACKED[0]}
    else
        say "no Debian $NEXT_DEBIAN, so nothing is tested on it: $(tail -n 1 "$WORK/next" | sed 's/^base.sh: //')"
    fi
    BASE_IMAGE=$own PACKED=("${packed[@]}")
}

# ---- Rust ----

rust() {
    local version sysroot
    if [ -n "${BUILDER_IMAGE:-}" ]; then
        need_image "$BUILDER_IMAGE" "name a Debian with Rust 1.89 or later in BUILDER_IMAGE, or leave it out"
        return 0
    fi
    version=$(cd "$TREE" && rustc -vV 2>/dev/null | sed -n 's/^release: //p') || true
    BUILDER_IMAGE=rust:${version:-1}-slim-$CODENAME
    pull "$BUILDER_IMAGE" && return 0
    [ -n "$version" ] || die "no registry gives a rust image and no rustc is installed: install Rust from https://rustup.rs"
    BUILDER_IMAGE=rustbridge/rust:$version-$CODENAME
    have_image "$BUILDER_IMAGE" && return 0
    sysroot=$(cd "$TREE" && rustc --print sysroot)
    # Without what only a person needs. Copied into a container and committed: a build would write its half gigabyte thrice.
    TOOLCHAIN=$("$DOCKER" create "$BASE_IMAGE" true)
    tar -C "$sysroot" --numeric-owner --owner 0 --group 0 --transform 's,^\.,./usr/local/rust,S' --exclude ./share \
        --exclude './bin/*clippy*' --exclude './bin/*fmt' --exclude ./bin/rustdoc --exclude './bin/rust-*' -c . | "$DOCKER" cp - "$TOOLCHAIN:/"
    "$DOCKER" commit -c 'ENV PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo' -c 'CMD ["bash"]' "$TOOLCHAIN" "$BUILDER_IMAGE" >/dev/null
    "$DOCKER" rm -f "$TOOLCHAIN" >/dev/null
    TOOLCHAIN=
    say "$BUILDER_IMAGE: took the toolchain $version of this machine"
}

# ---- brokers and clients ----

# local_source FOLDER: what an image is known by that was made from it.
local_source() { (cd "$1" && find . -type f ! -name '*.jar' -exec sha256sum {} + | LC_ALL=C sort | cat - <(echo "$BASE_IMAGE $KAFKA_VERSION") | sha256sum | cut -c1-16); }

# local_image NAME FOLDER WHAT: from the folder's Dockerfile, unless it is there and the folder is the same.
local_image() {
    local image=rustbridge/$1:local source
    source=$(local_source "$2")
    [ "$(image_label "$image" rustbridge.source || true)" != "$source" ] || return 0
    [ -n "${BUILD+set}" ] || need_builder
    "${BUILD[@]}" -q "${OPTIONS[@]}" --build-arg "BASE_IMAGE=$BASE_IMAGE" --label "rustbridge.source=$source" -t "$image" "$2" >/dev/null 2>"$WORK/$1.log" ||
        die "$image cannot be built: $(grep -iE 'error|unable|failed' "$WORK/$1.log" | head -n 1); check the network, or name a mirror in DEBIAN_MIRROR"
    say "$image: $3"
}

kafka() {
    local jars=${XDG_CACHE_HOME:-$HOME/.cache}/rustbridge-kafka/$KAFKA_VERSION into=$WORK/kafka
    # The jars are as their version says, so an image that is there needs none.
    [ "$(image_label rustbridge/kafka:local rustbridge.source || true)" != "$(local_source "$HERE/kafka")" ] || return 0
    [ -e "$jars/.complete" ] || die "no registry gives apache/kafka:$KAFKA_VERSION and its Maven artifacts are not here: make setup"
    mkdir -p "$into/libs"
    cp "$HERE"/kafka/* "$into/"
    cp "$jars"/*.jar "$into/libs/"
    local_image kafka "$into" "Apache Kafka $KAFKA_VERSION from its Maven artifacts, with Debian's Java"
}

brokers() {
    RABBITMQ_IMAGE=${RABBITMQ_IMAGE:-rabbitmq:4-management}
    KAFKA_IMAGE=${KAFKA_IMAGE:-apache/kafka:$KAFKA_VERSION}
    PROMETHEUS_IMAGE=${PROMETHEUS_IMAGE:-prom/prometheus:v3.5.0}
    if ! pull "$RABBITMQ_IMAGE"; then
        RABBITMQ_IMAGE=rustbridge/rabbitmq:local
        local_image rabbitmq "$HERE/rabbitmq" "RabbitMQ as Debian's package" & jobs+=($!)
    fi
    if ! pull "$KAFKA_IMAGE"; then
        KAFKA_IMAGE=rustbridge/kafka:local
        kafka & jobs+=($!)
    fi
    if ! pull "$PROMETHEUS_IMAGE"; then
        PROMETHEUS_IMAGE=rustbridge/prometheus:local
        local_image prometheus "$HERE/prometheus" "Prometheus as Debian's package" & jobs+=($!)
    fi
}

test_clients() { local_image client "$HERE/client" "pika, kcat, sipp and tc as Debian's packages" & jobs+=($!); }

# For what was begun in the background.
finish_jobs() {
    local job
    for job in "${jobs[@]}"; do [ "$job" = "${NEXT_JOB:-}" ] || wait "$job" || exit 1; done
    jobs=()
}

# write FILE NAME…: these variables, whole or not at all, for others read it meanwhile.
write() {
    local file=$1 name
    shift
    for name; do printf '%s=%q\n' "$name" "${!name}"; done >"$file.new"
    mv "$file.new" "$file"
}
write_brokers() { write "$(brokers_file)" RABBITMQ_IMAGE KAFKA_IMAGE PROMETHEUS_IMAGE CLIENT_IMAGE; }

CLIENT_IMAGE=rustbridge/client:local
if [ "${1:-}" = --brokers ]; then
    # On the Debian that the others were made from. What was noted before stays, unless another is asked for: what runs may
    # have its data in volumes.
    read_images
    for name in RABBITMQ_IMAGE KAFKA_IMAGE PROMETHEUS_IMAGE; do
        noted=$(. "$(brokers_file)" 2>/dev/null && echo "${!name}") || true
        [ -n "${!name:-}" ] || [ -z "$noted" ] || ! have_image "$noted" || printf -v "$name" %s "$noted"
    done
    brokers
    finish_jobs
    write_brokers
    exit 0
fi

NEXT_IMAGE=
prefixes
begin_next_debian
debian "$CODENAME"
rust
# What follows mostly waits for a mirror or for the disk, so it is all done at once, and beside it the compiler runs.
if [ -n "${1:-}" ]; then (PROGRAM=build.sh; build_builder) & jobs+=($!); fi
if [ "${1:-}" != --for-build ]; then
    test_clients
    brokers
fi
freeswitch
on_next_debian
finish_jobs
FREESWITCH_IMAGES=${PACKED[*]}
write "$(images_file)" BASE_IMAGE BUILDER_IMAGE FREESWITCH_IMAGES NEXT_IMAGE
beside=
if [ "${1:-}" != --for-build ]; then
    write_brokers
    beside=", $RABBITMQ_IMAGE, $KAFKA_IMAGE, $PROMETHEUS_IMAGE, $CLIENT_IMAGE"
fi
say "ready: $FREESWITCH_IMAGES${NEXT_IMAGE:+ $NEXT_IMAGE} on $BASE_IMAGE, $BUILDER_IMAGE$beside"
