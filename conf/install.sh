#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Puts the built module ($MODULE) into a FreeSWITCH: the first of FREESWITCH_PREFIX, else what pkg-config knows.
# A running switch may have the old library open, so the new one takes its place by rename. A configuration that is there
# is never touched.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
prefix=${FREESWITCH_PREFIX:-}
prefix=${prefix%%:*}

if [ -n "$prefix" ]; then
    for folder in "$prefix/lib/freeswitch/mod" "$prefix/mod"; do
        if [ -d "${DESTDIR:-}$folder" ] || [ -d "$folder" ]; then modules=$folder; break; fi
    done
    [ -n "${modules:-}" ] || { echo "install: $prefix has no folder of modules (lib/freeswitch/mod or mod)" >&2; exit 1; }
    for folder in "$prefix/etc/freeswitch" "$prefix/conf"; do
        if [ -d "${DESTDIR:-}$folder" ] || [ -d "$folder" ]; then configuration=$folder; break; fi
    done
elif pkg-config --exists freeswitch 2>/dev/null; then
    modules=$(pkg-config --variable=modulesdir freeswitch)
    configuration=$(pkg-config --variable=confdir freeswitch)
else
    echo "install: no FreeSWITCH found: set FREESWITCH_PREFIX to where it is installed" >&2
    exit 1
fi

mkdir -p "${DESTDIR:-}$modules"
install -m 755 "$MODULE" "${DESTDIR:-}$modules/.mod_rustbridge.so.new"
mv -f "${DESTDIR:-}$modules/.mod_rustbridge.so.new" "${DESTDIR:-}$modules/mod_rustbridge.so"
echo "installed ${DESTDIR:-}$modules/mod_rustbridge.so"

if [ -n "${configuration:-}" ]; then
    target=${DESTDIR:-}$configuration/autoload_configs/rustbridge.conf.xml
    if [ -e "$target" ]; then
        echo "kept      $target"
    else
        mkdir -p "$(dirname "$target")"
        install -m 640 "$here/rustbridge.conf.xml" "$target"
        # It may hold passwords, and whoever the switch runs as has to read it: the owner of the folder, as a rule.
        [ "$(id -u)" != 0 ] || chown --reference="$(dirname "$target")" "$target"
        echo "installed $target"
    fi
else
    echo "copy conf/rustbridge.conf.xml into the autoload_configs of your FreeSWITCH"
fi

cat <<'TEXT'

To load it at each start, add this line to autoload_configs/modules.conf.xml:
    <load module="mod_rustbridge"/>
To load it now: fs_cli -x 'load mod_rustbridge'
TEXT
