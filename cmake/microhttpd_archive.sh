#!/bin/sh
# microhttpd_archive.sh OUT CC - Debian's archive of libmicrohttpd wants GnuTLS and all that it
# wants: builds libmicrohttpd.a in folder OUT from Debian's own source package, without TLS and
# what the server does not use.
set -eu
"$(dirname -- "$0")/debian_source.sh" libmicrohttpd "$1"
cd "$1"
./configure CC="$2" CFLAGS="-O2 -fPIC" --disable-shared --enable-static --disable-https --disable-doc \
    --disable-examples --disable-curl --disable-httpupgrade --disable-postprocessor --disable-dauth \
    --disable-bauth --disable-tools --quiet >configure.log 2>&1 || { tail -20 configure.log >&2; exit 1; }
make -C src/microhttpd -s libmicrohttpd.la >make.log 2>&1 || { tail -20 make.log >&2; exit 1; }
cp src/microhttpd/.libs/libmicrohttpd.a libmicrohttpd.a
