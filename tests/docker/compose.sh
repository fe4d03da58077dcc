#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# compose.sh up|down: examples/docker/compose.yaml with the image that build.sh made and the brokers that base.sh pulls or
# makes, until all of it is healthy. Grafana comes along where its image is here or can be pulled.
# RABBITMQ_PORT, SIP_PORT, PROMETHEUS_PORT, GRAFANA_PORT: ports on this machine's loopback address. COMPOSE_PROJECT_NAME:
# another one beside it.
set -euo pipefail
# shellcheck source=tests/docker/engine.sh
. "$(dirname "$0")/engine.sh"
need_engine
EXAMPLE=$TREE/examples/docker
export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-rustbridge} RABBITMQ_PORT=${RABBITMQ_PORT:-5672} SIP_PORT=${SIP_PORT:-5060}
export PROMETHEUS_PORT=${PROMETHEUS_PORT:-9090} GRAFANA_PORT=${GRAFANA_PORT:-3000} GRAFANA_IMAGE=${GRAFANA_IMAGE:-grafana/grafana:12.1.0}
if "$DOCKER" compose version >/dev/null 2>&1; then
    COMPOSE=("$DOCKER" compose)
elif command -v docker-compose >/dev/null; then
    COMPOSE=(docker-compose)
else
    die "no Docker Compose: apt-get install docker-compose (Debian), or docker-compose-plugin (Docker's own packages)"
fi
COMPOSE+=(-f "$EXAMPLE/compose.yaml")

# The passwords, made once: RabbitMQ's for both sides, and that of Grafana's user admin. Readable in the containers, whose
# users differ; the folder keeps others out.
secrets() {
    local folder=$EXAMPLE/secrets name
    install -d -m 700 "$folder"
    for name in amqp-password grafana-password; do
        [ -s "$folder/$name" ] || od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"$folder/$name"
    done
    printf 'default_user = rustbridge\ndefault_pass = %s\n' "$(cat "$folder/amqp-password")" >"$folder/rabbitmq.conf"
    chmod 644 "$folder"/*
}

# in_use FILE… PORT: whether the kernel lists the port as bound, in the files of /proc/net.
in_use() {
    local port
    port=$(printf '%04X' "${!#}")
    awk -v port="$port" -v tcp="$1" '{ split($2, a, ":") } a[2] == port && (tcp !~ /tcp/ || $4 == "0A") { found = 1 } END { exit !found }' "${@:1:$#-1}" 2>/dev/null
}

# The agent that tells Prometheus of Kafka, where `make setup` has brought it, into the folder that Kafka gets as a volume.
agent() {
    local jar=${XDG_CACHE_HOME:-$HOME/.cache}/rustbridge-kafka/agent/jmx_prometheus_javaagent-$JMX_VERSION.jar into=$EXAMPLE/kafka/jmx_prometheus_javaagent.jar
    [ -s "$into" ] || [ ! -r "$jar" ] || install -m 644 "$jar" "$into"
    if [ -s "$into" ]; then
        export KAFKA_AGENT=-javaagent:/mnt/shared/config/jmx_prometheus_javaagent.jar=7071:/mnt/shared/config/jmx.yaml
    else
        say "Prometheus will not hear of Kafka: make setup brings the JMX exporter"
    fi
}

container() { "$DOCKER" ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --filter "label=com.docker.compose.service=$1" | head -n 1; }

case ${1:-} in
up)
    read_images
    # shellcheck disable=SC1091
    . "$STATE/modules" 2>/dev/null || die "the module has not been built into an image: make docker-build"
    if [ -z "$(container freeswitch)" ]; then
        ! in_use /proc/net/tcp /proc/net/tcp6 "$RABBITMQ_PORT" || die "port $RABBITMQ_PORT is in use on this machine: choose another for RabbitMQ with RABBITMQ_PORT=…"
        ! in_use /proc/net/udp /proc/net/udp6 "$SIP_PORT" || die "port $SIP_PORT is in use on this machine: choose another for SIP with SIP_PORT=…"
        ! in_use /proc/net/tcp /proc/net/tcp6 "$PROMETHEUS_PORT" || die "port $PROMETHEUS_PORT is in use on this machine: choose another for Prometheus with PROMETHEUS_PORT=…"
    fi
    "$HERE/base.sh" --brokers || exit 1
    read_brokers
    export RABBITMQ_IMAGE KAFKA_IMAGE PROMETHEUS_IMAGE MODULE_IMAGE=${MODULE_IMAGE:-${MODULE_IMAGES%% *}}
    secrets
    agent
    services=(freeswitch rabbitmq kafka prometheus)
    if have_image "$GRAFANA_IMAGE" || { [ "${DOCKER_PULL:-yes}" != no ] && timeout 300 "$DOCKER" pull -q "$GRAFANA_IMAGE" >/dev/null 2>&1; }; then
        [ -n "$(container grafana)" ] || ! in_use /proc/net/tcp /proc/net/tcp6 "$GRAFANA_PORT" || die "port $GRAFANA_PORT is in use on this machine: choose another for Grafana with GRAFANA_PORT=…"
        services+=(grafana)
    else
        say "without Grafana: no image $GRAFANA_IMAGE, here or in its registry"
    fi
    "${COMPOSE[@]}" up -d "${services[@]}" >"$STATE/compose.log" 2>&1 || die "Docker Compose cannot start it: $(grep -iE 'error|cannot|denied' "$STATE/compose.log" | tail -n 1) (all of it: $STATE/compose.log)"
    end=$((SECONDS + 180))
    for service in "${services[@]}"; do
        until [ "$("$DOCKER" inspect -f '{{.State.Health.Status}}' "$(container "$service")")" = healthy ]; do
            [ "$("$DOCKER" inspect -f '{{.State.Status}}' "$(container "$service")")" != exited ] || die "$service has ended: docker logs $(container "$service")"
            [ "$SECONDS" -lt "$end" ] || die "$service is not healthy: docker logs $(container "$service")"
            sleep 1
        done
        say "$service is healthy"
    done
    say "events are in exchange rustbridge.events of amqp://rustbridge@127.0.0.1:$RABBITMQ_PORT (password: examples/docker/secrets/amqp-password) and in topic fs.events"
    say "what the brokers tell is on http://127.0.0.1:$PROMETHEUS_PORT"
    [ -z "$(container grafana)" ] || say "and on a dashboard on http://127.0.0.1:$GRAFANA_PORT (user admin, password: examples/docker/secrets/grafana-password)"
    say "to look: docker exec $(container freeswitch) rustbridge-start fs_cli -x 'rustbridge status'"
    ;;
down)
    [ -e "$EXAMPLE/secrets/amqp-password" ] || secrets
    "${COMPOSE[@]}" down -v --remove-orphans >"${STATE:?}/compose.log" 2>&1 || die "Docker Compose cannot stop it: $(tail -n 1 "$STATE/compose.log")"
    say "stopped, with its volumes"
    ;;
*) die "say up or down" ;;
esac
