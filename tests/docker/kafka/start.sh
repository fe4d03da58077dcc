#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Formats the storage of a new node, then runs it.
set -eu
properties=/mnt/shared/config/server.properties
[ -r "$properties" ] || { echo "kafka: no $properties: mount a folder with it at /mnt/shared/config" >&2; exit 1; }
[ -e /var/lib/kafka/data/meta.properties ] ||
    java -cp '/opt/kafka/libs/*' kafka.tools.StorageTool format -t "${CLUSTER_ID:-cnVzdGJyaWRnZS1kb2NrZQ}" -c "$properties"
# Little memory and a quick compiler: one of several servers on a small machine.
# shellcheck disable=SC2086
exec java ${KAFKA_HEAP_OPTS:--Xmx512m} ${KAFKA_OPTS:-} -XX:TieredStopAtLevel=1 -cp '/opt/kafka/libs/*' kafka.Kafka "$properties"
