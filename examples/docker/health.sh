#!/bin/sh
# SPDX-License-Identifier: MIT
#
# The health check: FreeSWITCH answers and mod_rustbridge is loaded. Whether a broker is up is none of it: a switch that is
# restarted because its broker is away would end calls for nothing. Port and password of the event socket come from its
# configuration, the password from ESL_PASSWORD_FILE if that is set.
set -u
# shellcheck disable=SC1091
. /usr/local/lib/rustbridge/paths
file=${FREESWITCH_CONF:-$CONF}/autoload_configs/event_socket.conf.xml
value() { sed -n "s/.*<param name=\"$1\" value=\"\([^\"\$]*\)\".*/\1/p" "$file" 2>/dev/null | head -n 1; }
port=$(value listen-port)
password=$(value password)
[ -z "${ESL_PASSWORD_FILE:-}" ] || password=$(cat "$ESL_PASSWORD_FILE")
case $("$FS_CLI" -H 127.0.0.1 -P "${port:-8021}" -p "${password:-ClueCon}" -t 3000 -x 'module_exists mod_rustbridge' 2>&1) in
true*) exit 0 ;;
false*) echo "mod_rustbridge is not loaded: look for its lines in the log of FreeSWITCH" ;;
*) echo "FreeSWITCH does not answer on its event socket, port ${port:-8021}" ;;
esac
exit 1
