#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Brings what the build and the tests need, and only what is missing. Run it as often as you like: when everything is
# there it needs no network and takes a moment. What cannot be had is named with the way to get it; the build's own
# needs end the script with an error, what only tests need does not (those tests are then skipped, loudly).
set -uo pipefail

say() { printf 'setup: %s\n' "$*"; }
root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi; }
have() { command -v "$1" >/dev/null 2>&1; }

# What is looked for | the Debian package that brings it | build or test | what it is for
NEEDS='
cc|gcc|build|compiles the shim, librdkafka and the test host
c++|g++|build|librdkafka builds its C++ half along
make|make|build|librdkafka and this Makefile
pkg-config|pkg-config|build|finds FreeSWITCH and OpenSSL
@libclang|libclang-dev|build|bindgen reads the FreeSWITCH headers with it
@openssl|libssl-dev|build|TLS
@zlib|zlib1g-dev|build|compression in librdkafka
openssl|openssl|test|a certificate authority for the TLS tests
@rabbitmq|rabbitmq-server|test|the real RabbitMQ that the tests start
kcat|kcat|test|the independent Kafka client
java|default-jre-headless|test|runs the real Apache Kafka that the tests start
mvn|maven|test|brings Apache Kafka from its Maven artifacts
@pika|python3-pika|test|the independent AMQP client
sipp|sip-tester|test|real SIP calls into a real FreeSWITCH
ip|iproute2|test|faults in the network
valgrind|valgrind|test|counts instructions for the gate on what an event costs
'

found() {
    case $1 in
    # Not libclang-cpp.so, which LLVM itself brings: bindgen wants the C interface.
    @libclang) compgen -G '/usr/lib/llvm-*/lib/libclang[.-][.s0-9]*' >/dev/null || compgen -G '/usr/lib/*/libclang[.-][.s0-9]*so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ] ;;
    @openssl) have pkg-config && pkg-config --exists openssl ;;
    @zlib) have pkg-config && pkg-config --exists zlib ;;
    @rabbitmq) [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || have rabbitmq-server ;;
    @pika) [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import pika' 2>/dev/null ;;
    *) have "$1" ;;
    esac
}

# Packages of what is missing, one per line; $1 narrows to build or test.
missing() {
    local what package kind
    while IFS='|' read -r what package kind _; do
        [ -n "$what" ] || continue
        [ -z "${1:-}" ] || [ "$1" = "$kind" ] || continue
        found "$what" || printf '%s\n' "$package"
    done <<<"$NEEDS"
}

# A server package starts its service when it is installed. The tests run private servers only, so while we install,
# Debian's own switch for this says no, unless this machine already has a policy of its own.
install_packages() {
    local policy=/usr/sbin/policy-rc.d placed='' status=0 mapper=''
    if have epmd && epmd -names >/dev/null 2>&1; then mapper=running; fi
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | root tee "$policy" >/dev/null && root chmod 755 "$policy" && placed=1
    fi
    root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$LOG" 2>&1 || {
        say "refreshing the package lists"
        root apt-get update -q >>"$LOG" 2>&1
        root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >>"$LOG" 2>&1 || status=1
    }
    [ -z "$placed" ] || root rm -f "$policy"
    # RabbitMQ's package asks its own tools something while it is set up, which leaves Erlang's port mapper running.
    [ -n "$mapper" ] || ! have epmd || root epmd -kill >/dev/null 2>&1 || true
    # Not at the next boot either: nobody asked for a broker on this machine.
    case " $* " in *" rabbitmq-server "*)
        if have systemctl; then root systemctl disable -q rabbitmq-server >/dev/null 2>&1 || true; fi ;;
    esac
    return "$status"
}

LOG=$(mktemp) || exit 1
trap 'rm -f "$LOG"' EXIT

mapfile -t packages < <(missing)
if [ "${#packages[@]}" -gt 0 ]; then
    if ! have apt-get; then
        say "no apt-get here: install what corresponds to ${packages[*]} by hand"
    elif [ "$(id -u)" != 0 ] && ! have sudo; then
        say "neither root nor sudo: ask somebody to run apt-get install ${packages[*]}"
    else
        say "installing ${packages[*]}"
        install_packages "${packages[@]}" || { say "apt-get install failed:"; tail -n 5 "$LOG"; }
    fi
fi

# Apache Kafka: its own jars and what they need, once, outside the tree.
KAFKA_VERSION=4.1.0
jars=${XDG_CACHE_HOME:-$HOME/.cache}/rustbridge-kafka/$KAFKA_VERSION
if [ ! -e "$jars/.complete" ] && have mvn; then
    say "fetching Apache Kafka $KAFKA_VERSION from Maven Central into $jars"
    work=$(mktemp -d)
    cat >"$work/pom.xml" <<XML
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>rustbridge</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$KAFKA_VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$KAFKA_VERSION</version></dependency>
  </dependencies>
</project>
XML
    mkdir -p "$jars"
    if mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" -DincludeScope=runtime >"$LOG" 2>&1; then
        touch "$jars/.complete"
    else
        say "maven could not fetch Apache Kafka; the Kafka tests will be skipped:"
        tail -n 3 "$LOG"
    fi
    rm -rf "$work"
fi

# What tells Prometheus of Kafka: an agent in Kafka's own process.
JMX_VERSION=1.0.1
agent=${XDG_CACHE_HOME:-$HOME/.cache}/rustbridge-kafka/agent
if [ ! -e "$agent/jmx_prometheus_javaagent-$JMX_VERSION.jar" ] && have mvn; then
    say "fetching the JMX exporter $JMX_VERSION from Maven Central into $agent"
    mvn -q -B dependency:copy -Dartifact="io.prometheus.jmx:jmx_prometheus_javaagent:$JMX_VERSION" -DoutputDirectory="$agent" >"$LOG" 2>&1 ||
        { say "maven could not fetch the JMX exporter; Prometheus will not hear of Kafka:"; tail -n 3 "$LOG"; }
fi

mapfile -t still < <(missing test)
[ "${#still[@]}" = 0 ] || say "tests that need these will be skipped: ${still[*]} (apt-get install ${still[*]})"

if ! have cargo; then
    say "cargo is missing: install Rust from https://rustup.rs, then run this again"
    exit 1
fi
mapfile -t still < <(missing build)
if [ "${#still[@]}" -gt 0 ]; then
    say "the build needs ${still[*]}: apt-get install ${still[*]}"
    exit 1
fi
say "everything the build needs is here"
