#!/bin/sh
# cjson_archive.sh OUT CC - Debian's cJSON ships no archive: builds libcjson.a in folder OUT from
# Debian's own source package, of the version that is installed.
set -eu
out=$1
cc=$2
mkdir -p "$out/apt/lists/partial"
cd "$out"
# The machine's package sources, asked for source packages; nothing of the machine is changed.
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    sed 's/^Types: .*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >apt/list.sources
    list=list.sources
else
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >apt/list.list
    list=list.list
fi
mkdir -p apt/parts
mv "apt/$list" apt/parts/
options="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$out/apt/parts -o Dir::State::Lists=$out/apt/lists -o APT::Sandbox::User=root -q"
# shellcheck disable=SC2086
apt-get $options update >apt.log 2>&1 && apt-get $options source --download-only cjson >>apt.log 2>&1 || {
    cat apt.log >&2
    exit 1
}
tar -xf cjson_*.orig.tar.* --strip-components=1
"$cc" -O2 -fPIC -fvisibility=hidden -c cJSON.c -o cJSON.o
ar rcs libcjson.a cJSON.o
