#!/bin/sh
# portable.sh BUILD OUT - puts together one folder that tests/gpu.sh runs from on a machine with a
# GPU and nothing else: the programs, the small libraries they need, golden data, scripts.
#
#   tests/portable.sh build-gpu build-gpu/portable
#   ... copy build-gpu/portable to the machine, there: portable/tests/gpu.sh portable results
#
# The C library is the machine's own: it must not be older than the one here.
set -eu
[ $# -eq 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$1 out=$2
source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
rm -rf "$out"
mkdir -p "$out/tests" "$out/lib" "$out/bench"
cp -P "$build/polymath" "$build"/libpolymath.so* "$out/"
cp "$build"/tests/*_test_gpu "$build/tests/conformance_gpu" "$out/tests/"
cp "$source/tests/gpu.sh" "$out/tests/"
cp -R "$source/tests/golden" "$out/tests/"
cp -R "$source/bench/baselines" "$source/bench/plot.py" "$out/bench/"
# All but the C library's own parts.
for file in "$out/polymath" "$out/tests/conformance_gpu" "$out"/tests/*_test_gpu; do
    ldd "$file"
done | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -Ev '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | while read -r library; do
    cp -L "$library" "$out/lib/"
done
if ldd "$out/polymath" | grep -Eq 'libcuda|libcudart|libcublas'; then
    echo "portable.sh: $out/polymath is linked with a library of CUDA" >&2
    exit 1
fi
du -sh "$out"
