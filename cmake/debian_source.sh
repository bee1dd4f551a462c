#!/bin/sh
# debian_source.sh PACKAGE OUT - the source of a Debian package, unpacked in folder OUT, of the
# version that the machine's package sources offer. Nothing of the machine is changed.
set -eu
package=$1
out=$2
mkdir -p "$out/apt/lists/partial" "$out/apt/parts"
cd "$out"
if [ -e /etc/apt/sources.list.d/debian.sources ]; then
    sed 's/^Types: .*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >apt/parts/list.sources
else
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >apt/parts/list.list
fi
options="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$out/apt/parts -o Dir::State::Lists=$out/apt/lists -o APT::Sandbox::User=root -q"
# shellcheck disable=SC2086
apt-get $options update >apt.log 2>&1 && apt-get $options source --download-only "$package" >>apt.log 2>&1 || {
    cat apt.log >&2
    exit 1
}
tar -xf "$package"_*.orig.tar.* --strip-components=1
