#!/bin/sh
# planted.sh - plants the bugs of planted.txt, one at a time, in a copy of the tree, and demands
# that the named test fails. It shows that the tests still have teeth; the tree is never touched.
#
#   tests/emu/planted.sh WORK [KIND] [WORD]
#
# WORK is a folder for the copy and its builds, kept between runs. KIND is fast, address or thread:
# only the bugs that this build must find (all, when left out). WORD: only bugs whose file, text or
# test contains it. PART=I/N in the environment: of these every N-th, from the I-th (0 .. N - 1).
# Exit status 1 when a bug was not found, or could not be planted or built.
set -eu
[ $# -ge 1 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=$1 only=${2:-} word=${3:-}
mkdir -p "$work"
work=$(CDPATH='' cd -- "$work" && pwd)
tree=$work/tree
exec 9>"$work/lock"
flock -n 9 || { echo "planted.sh: another run uses $work" >&2; exit 2; }
part=${PART:-0/1}
missed=0 planted=0 seen=0
# What is put back after a bug was built before, and so was the mutant in the run before this.
launcher=$(command -v ccache || true)

# Brings the copy up to date; unchanged files keep their times, so builds stay small.
sync_tree() {
    mkdir -p "$tree"
    (cd "$root" && find CMakeLists.txt cmake kernels moe runtime bench tests docs models LICENSE \
        -type f | sort) >"$work/files"
    while read -r file; do
        cmp -s "$root/$file" "$tree/$file" && continue
        mkdir -p "$tree/$(dirname "$file")"
        cp "$root/$file" "$tree/$file"
    done <"$work/files"
    (cd "$tree" && find . -type f | sed 's|^\./||' | sort | comm -13 "$work/files" - |
        while read -r file; do rm -f "$file"; done)
}

# plant FILE FIND WITH NTH: the mutant of the copy's FILE on stdout.
plant() {
    FIND=$2 WITH=$3 NTH=$4 awk '
        BEGIN { find = ENVIRON["FIND"]; with = ENVIRON["WITH"]; nth = ENVIRON["NTH"] }
        {
            rest = $0; line = ""
            while ((at = index(rest, find)) > 0) {
                seen++
                text = (nth == "" || seen == nth) ? with : find
                line = line substr(rest, 1, at - 1) text
                rest = substr(rest, at + length(find))
            }
            print line rest
        }
        END { exit (nth == "" ? seen != 1 : seen < nth) }' "$tree/$1"
}

build() { # KIND TARGET
    folder=$work/$1
    if [ ! -f "$folder/build.ninja" ]; then
        sanitize=$1
        [ "$1" != fast ] || sanitize=
        [ "$1" != address ] || sanitize=address,undefined
        cmake -S "$tree" -B "$folder" -G Ninja -DPM_SANITIZE="$sanitize" -DPM_WERROR=OFF \
            -DPM_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
            -DCMAKE_C_COMPILER_LAUNCHER="$launcher" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" \
            -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g" >"$work/log" 2>&1 || return 1
    fi
    cmake --build "$folder" --target "$2" ${JOBS:+-j "$JOBS"} >"$work/log" 2>&1
}

# run KIND TEST ENV ARGS: the test's exit status.
run() {
    # The words of ENV and ARGS are arguments of their own.
    # shellcheck disable=SC2086
    env POLYMATH_TEST_BACKEND=cuda POLYMATH_TEST_DEVICE=cuda:0 \
        TSAN_OPTIONS=atexit_sleep_ms=0:halt_on_error=1 $3 \
        timeout 600 "$work/$1/tests/$2" $4 >"$work/log" 2>&1
}

report() { # VERDICT
    printf '%-10s %-7s %-24s %s: %s\n' "$1" "$in" "$test" "$file" "$find"
}

try() {
    [ -n "$file" ] || return 0
    [ -z "$only" ] || [ "$only" = "$in" ] || return 0
    case "$file $find $test" in *"$word"*) ;; *) return 0 ;; esac
    seen=$((seen + 1))
    [ $(((seen - 1) % ${part#*/})) = "${part%/*}" ] || return 0
    planted=$((planted + 1))
    if ! plant "$file" "$find" "$with" "$nth" >"$work/mutant"; then
        report "NOT THERE" && missed=$((missed + 1))
        return 0
    fi
    cp -p "$tree/$file" "$work/original"
    cp "$work/mutant" "$tree/$file"
    if ! build "$in" "$test"; then
        report "NO BUILD" && missed=$((missed + 1))
        tail -5 "$work/log"
    elif run "$in" "$test" "$env" "$args"; then
        report "NOT FOUND" && missed=$((missed + 1))
    else
        report found
    fi
    # A new time: what was built from the mutant is out of date.
    cp "$work/original" "$tree/$file"
}

sync_tree
file='' find='' with='' nth='' test='' in='' env='' args=''
cp "$root/tests/emu/planted.txt" "$work/bugs" # the tree may change meanwhile
exec 3<"$work/bugs"
while IFS= read -r line <&3 || [ -n "$line" ]; do
    key=${line%% *}
    value=$(printf '%s' "${line#"$key"}" | sed 's/^ *//; s/ *$//')
    case $key in
    '#'*) ;;
    '')
        try
        file='' find='' with='' nth='' test='' in='' env='' args=''
        ;;
    file) file=$value ;;
    find) find=$value ;;
    with) with=$value ;;
    nth) nth=$value ;;
    test) test=$value ;;
    in) in=$value ;;
    env) env=$value ;;
    args) args=$value ;;
    *)
        echo "planted.sh: planted.txt: \"$key\" is no key" >&2
        exit 2
        ;;
    esac
done
try
echo "$planted bugs planted, $missed not found"
[ "$missed" = 0 ]
