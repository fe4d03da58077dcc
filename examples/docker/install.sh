#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install.sh TARGET OUT IMAGE USER: looks at the FreeSWITCH image mounted at TARGET and puts into OUT what has to be added to
# it. Runs in Dockerfile.module. What does not fit ends it with one line that says what to do.
set -eu
target=$1 out=$2 image=$3 user=$4 module=/mod_rustbridge.so

die() { echo "Dockerfile.module: $*" >&2; exit 1; }
# build.sh tells the two apart by this word.
note() { echo "Dockerfile.module: note: $*" >&2; }

# first TEST PATH…: the first of these that TARGET has.
first() {
    what=$1
    shift
    for path; do
        if test "$what" "$target$path"; then
            echo "$path"
            return 0
        fi
    done
    return 1
}

# ---- does it fit? ----

[ "$image" != scratch ] || die "FREESWITCH_IMAGE is not set: name an image that has FreeSWITCH with --build-arg FREESWITCH_IMAGE=…"
prefixes="/usr/local/freeswitch /usr/local /usr /opt/freeswitch"
for found in "$target"/usr/local/*/bin/freeswitch "$target"/opt/*/bin/freeswitch; do
    [ ! -e "$found" ] || { found=${found#"$target"}; prefixes="$prefixes ${found%/bin/freeswitch}"; }
done
# shellcheck disable=SC2046,SC2086
program=$(first -f $(printf '%s/bin/freeswitch ' $prefixes)) ||
    die "$image holds no FreeSWITCH (looked for bin/freeswitch below $prefixes, /usr/local/* and /opt/*): name an image that has one in FREESWITCH_IMAGE"
prefix=${program%/bin/freeswitch}
# A link may lead to what is only over there.
[ -x "$target$prefix/bin/fs_cli" ] || [ -L "$target$prefix/bin/fs_cli" ] || die "$image has $program but no $prefix/bin/fs_cli, which the health check asks FreeSWITCH with: install it there first"
mods=$(first -d "$prefix/lib/freeswitch/mod" "$prefix/mod" "$prefix/lib64/freeswitch/mod") ||
    die "$image has $program but no folder of modules below $prefix: name an image with a whole FreeSWITCH in FREESWITCH_IMAGE"
conf=$(first -f /etc/freeswitch/freeswitch.xml "$prefix/etc/freeswitch/freeswitch.xml" "$prefix/conf/freeswitch.xml" /usr/share/freeswitch/conf/vanilla/freeswitch.xml) ||
    die "$image has $program but no freeswitch.xml in /etc/freeswitch, $prefix/etc/freeswitch or $prefix/conf: add a configuration to it first"
conf=${conf%/freeswitch.xml}

machine() { readelf -h "$1" 2>/dev/null | sed -n 's/^ *Machine: *//p'; }
ours=$(machine "$module") theirs=$(machine "$target$program")
[ "$ours" = "$theirs" ] ||
    die "$image is for ${theirs:-another system} and the module was built for $ours: build with --platform, or name an image for $ours in FREESWITCH_IMAGE"

# The newest version of the C library that the module asks for, and the newest that the image defines.
newest() { grep -oE "GLIBC_[0-9]+(\.[0-9]+)+" | sed 's/GLIBC_//' | sort -Vu | tail -n 1; }
needs=$(objdump -T "$module" | newest)
libc=
for found in "$target"/lib/*-linux-gnu/libc.so.6 "$target"/usr/lib/*-linux-gnu/libc.so.6 "$target"/lib64/libc.so.6 "$target"/usr/lib64/libc.so.6 "$target"/lib/libc.so.6; do
    [ ! -e "$found" ] || libc=$found
done
[ -n "$libc" ] || die "$image has no GNU C library, which the module needs: name an image on Debian 12 or later in FREESWITCH_IMAGE"
has=$(readelf -V "$libc" | sed -n '/Version definition/,/Version needs/p' | newest)
[ "$(printf '%s\n%s\n' "$needs" "${has:-0}" | sort -V | tail -n 1)" = "${has:-0}" ] ||
    die "$image has the C library ${has:-of an unknown version} and this builder made a module that needs $needs: build on the same Debian as FREESWITCH_IMAGE or an older one (make docker-build BUILDER_IMAGE=rust:1-slim-bookworm …, or docker build --build-arg BUILDER_IMAGE=…)"
for library in libssl.so.3 libcrypto.so.3 libz.so.1 libgcc_s.so.1; do
    readelf -d "$module" | grep -qF "[$library]" || continue
    find "$target/lib" "$target/usr/lib" "$target/usr/local/lib" "$target/lib64" "$prefix/lib" -name "$library" 2>/dev/null | grep -q . ||
        die "$image lacks $library, which the module needs: install it there first (Debian: libssl3, zlib1g, libgcc-s1)"
done

# ---- the module and its configuration ----

mkdir -p "$out/usr/local/bin" "$out/usr/local/lib/rustbridge"
install -D -m 755 "$module" "$out$mods/mod_rustbridge.so"
where=$conf
# The vendor's packages keep a configuration to copy, and start from /etc/freeswitch.
case $conf in
/usr/share/*)
    where=/etc/freeswitch
    mkdir -p "$out$where"
    cp -R "$target$conf/." "$out$where/"
    ;;
esac
settings=$where/autoload_configs
mkdir -p "$out$settings"
if [ -e "$target$settings/rustbridge.conf.xml" ]; then
    note "$image has a $settings/rustbridge.conf.xml, which stays: it is not linked to /etc/rustbridge, so mount yours over it there, and spools are in the volume only if its storage-dir is /var/lib/rustbridge"
else
    # A spool volume is what a container has; the rest is the module's own default.
    # Behind a link, so that it can be mounted over at the same place in every image.
    mkdir -p "$out/etc/rustbridge"
    sed 's|<settings>|&\n    <param name="storage-dir" value="/var/lib/rustbridge"/>|' conf/rustbridge.conf.xml >"$out/etc/rustbridge/rustbridge.conf.xml"
    ln -s /etc/rustbridge/rustbridge.conf.xml "$out$settings/rustbridge.conf.xml"
fi
list=$target$conf/autoload_configs/modules.conf.xml
[ -f "$list" ] || die "$image has no $settings/modules.conf.xml, where the load line belongs: add a configuration to it first"
if ! grep -Eq '^[^!]*<load +module="mod_rustbridge"' "$list"; then
    # After the modules that print the log, so that what ours says is seen, and before those whose events it forwards.
    awk '
        { line[NR] = $0 }
        /<modules>/ && !after { after = NR }
        /<load +module="mod_(console|logfile|syslog)"/ && !/<!--/ { after = NR }
        END { for (i = 1; i <= NR; i++) { print line[i]; if (i == after) print "    <load module=\"mod_rustbridge\"/>" } }
    ' "$list" >"$out$settings/modules.conf.xml"
    grep -q mod_rustbridge "$out$settings/modules.conf.xml" || die "$image has a $settings/modules.conf.xml without <modules>: mend it first"
fi
for file in "$target$conf"/autoload_configs/switch.conf.xml "$target$conf"/autoload_configs/pre_load_modules.conf.xml; do
    [ -f "$file" ] || continue
    # Comments apart.
    tr -d '\n' <"$file" | sed 's/<!--/\n&/g; s/-->/&\n/g' | grep -v '^<!--' | grep -q '<interface-allowlist' || continue
    grep -q 'mod_rustbridge' "$file" || note "$image has an <interface-allowlist> in $settings/${file##*/}: add <allow name=\"mod_rustbridge\"/> to it, or events are forwarded but the commands are missing"
done

# ---- who runs it, and what may be written ----

mkdir -p "$out/etc"
if ! grep -q "^$user:" "$target/etc/passwd"; then
    number=499
    while cut -d: -f3 "$target/etc/passwd" "$target/etc/group" | grep -qx "$number"; do number=$((number - 1)); done
    { cat "$target/etc/passwd"; echo "$user:x:$number:$number::/var/lib/freeswitch:/usr/sbin/nologin"; } >"$out/etc/passwd"
    { cat "$target/etc/group"; echo "$user:x:$number:"; } >"$out/etc/group"
fi
passwd=$out/etc/passwd
[ -e "$passwd" ] || passwd=$target/etc/passwd
owner=$(sed -n "s/^$user:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p" "$passwd" | head -n 1)
[ "${owner%%:*}" != 0 ] || die "RUNTIME_USER $user is root: name another user, FreeSWITCH does not need root here"
for folder in /var/lib/rustbridge /var/lib/freeswitch /var/lib/freeswitch/db /var/lib/freeswitch/storage /var/lib/freeswitch/recordings /var/log/freeswitch /var/run/freeswitch; do
    # /var/run is a link in Debian; a copy must not replace it by a folder.
    case $folder in /var/run/*) [ ! -L "$target/var/run" ] || folder=/run/${folder#/var/run/} ;; esac
    install -d "$out$folder"
    chown "$owner" "$out$folder"
done
# The configuration may hold secrets; FreeSWITCH only reads it.
for folder in "$out$where" "$out/etc/rustbridge"; do [ ! -d "$folder" ] || chown -Rh "0:${owner#*:}" "$folder"; done

install -m 755 /start.sh "$out/usr/local/bin/rustbridge-start"
install -m 755 /health.sh "$out/usr/local/bin/rustbridge-health"
cat >"$out/usr/local/lib/rustbridge/paths" <<P
FREESWITCH=$program
FS_CLI=$prefix/bin/fs_cli
CONF=$where
P
# Where a merged /usr is links, the tree must not bring folders in their place.
for link in bin lib lib64 sbin; do
    [ ! -L "$target/$link" ] || [ ! -d "$out/$link" ] || { mkdir -p "$out/usr/$link"; cp -a "$out/$link/." "$out/usr/$link/"; rm -r "$out/${link:?}"; }
done
note "adding mod_rustbridge.so ($(du -sh "$out$mods/mod_rustbridge.so" | cut -f1), C library $needs or later) to $program in $image, to be run by $user ($owner)"
