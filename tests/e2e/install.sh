#!/bin/sh
# install.sh BUILD SOURCE - installs a build and compiles docs/example.c against it, once through
# pkg-config and once through find_package, and docs/layer.c.
set -eu
build=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/prefix" >/dev/null
library=$(dirname "$(find "$work/prefix" -name 'libpolymath.so')")
# The package file holds the prefix of the configuration; this test installed elsewhere.
flags=$(PKG_CONFIG_PATH=$library/pkgconfig pkg-config --define-variable=prefix="$work/prefix" --cflags --libs polymath)
# shellcheck disable=SC2086
cc "$source/docs/example.c" $flags -o "$work/one"
# shellcheck disable=SC2086
cc "$source/docs/layer.c" $flags -o "$work/layer"
mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<TXT
cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES C)
find_package(Polymath 0.1 REQUIRED)
add_executable(two $source/docs/example.c)
target_link_libraries(two PRIVATE Polymath::polymath)
TXT
cmake -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/project/build" >/dev/null
model=$work/prefix/share/polymath/models/polymath-16m
LD_LIBRARY_PATH=$library "$work/one" "$model" "def add(a, b):" >"$work/one.txt"
LD_LIBRARY_PATH=$library "$work/project/build/two" "$model" "def add(a, b):" >"$work/two.txt"
[ -s "$work/one.txt" ]
LD_LIBRARY_PATH=$library "$work/layer" | grep -q 'alone has the same bits'
cmp "$work/one.txt" "$work/two.txt"
"$work/prefix/bin/polymath" run "$model" "def add(a, b):" -n 32 -q -c 512 >"$work/three.txt"
head -c "$(wc -c <"$work/one.txt")" "$work/three.txt" | cmp - "$work/one.txt"
echo "installed, linked twice, same text"
