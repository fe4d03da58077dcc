#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The entry point: FreeSWITCH in the foreground, as the user of the image, writing nothing outside of its volumes. Arguments
# are added to FreeSWITCH's own; a command that is none of its options is run instead
# (docker exec CONTAINER rustbridge-start fs_cli -x …).
set -eu
# shellcheck disable=SC1091
. /usr/local/lib/rustbridge/paths
case ${1:-} in
'' | -*) ;;
fs_cli) shift; exec "$FS_CLI" "$@" ;;
*) exec "$@" ;;
esac
CONF=${FREESWITCH_CONF:-$CONF}
for folder in /var/lib/rustbridge /var/lib/freeswitch /var/log/freeswitch /var/run/freeswitch; do
    [ -w "$folder" ] || { echo "rustbridge-start: $folder cannot be written by user $(id -u): mount a volume there that it owns" >&2; exit 1; }
done
list=$CONF/autoload_configs/modules.conf.xml
# A configuration that is mounted over the image's may lack the load line, and may be read-only: so it is said, not mended.
[ ! -r "$list" ] || grep -Eq '^[^!]*<load +module="mod_rustbridge"' "$list" ||
    echo "rustbridge-start: $list does not load mod_rustbridge: add <load module=\"mod_rustbridge\"/> to it" >&2
# FreeSWITCH 1.10 does without an event socket then, and the health check without an answer.
socket=$CONF/autoload_configs/event_socket.conf.xml
if [ ! -s /proc/net/if_inet6 ] && grep -q 'name="listen-ip" value="::"' "$socket" 2>/dev/null; then
    echo "rustbridge-start: $socket listens on :: and this container has no IPv6: run with --sysctl net.ipv6.conf.all.disable_ipv6=0, or set listen-ip to 127.0.0.1" >&2
fi
mkdir -p /var/lib/freeswitch/db /var/lib/freeswitch/storage /var/lib/freeswitch/recordings /var/lib/freeswitch/cache /var/lib/freeswitch/certs
# Certificates that FreeSWITCH makes for itself where there are none, and without which mod_sofia does not load.
certs=$CONF/tls
ls "$certs"/*.pem >/dev/null 2>&1 || certs=/var/lib/freeswitch/certs
# Its log goes to a pipe here, where the C library would hold it back until there is a block of it.
buffer=
if command -v stdbuf >/dev/null; then buffer='stdbuf -oL'; fi
# shellcheck disable=SC2086
exec $buffer "$FREESWITCH" -nf -nonat -conf "$CONF" -log /var/log/freeswitch -db /var/lib/freeswitch/db -run /var/run/freeswitch \
    -storage /var/lib/freeswitch/storage -recordings /var/lib/freeswitch/recordings -cache /var/lib/freeswitch/cache -certs "$certs" -temp /tmp "$@"
