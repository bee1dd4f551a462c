#!/bin/sh
# cjson_archive.sh OUT CC - Debian's cJSON ships no archive: builds libcjson.a in folder OUT from
# Debian's own source package.
set -eu
"$(dirname -- "$0")/debian_source.sh" cjson "$1"
cd "$1"
"$2" -O2 -fPIC -fvisibility=hidden -c cJSON.c -o cJSON.o
ar rcs libcjson.a cJSON.o
