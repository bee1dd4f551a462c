#!/bin/sh
# gpu.sh - everything that wants a real GPU, in one go: the conformance dump, the tests of all
# operations and families, the sanitizer, the ceilings, the benchmarks with their baselines.
#
#   tests/gpu.sh BUILD OUT [SOURCE]
#
# BUILD is a build folder made with -DPM_CUDA=ON; it and SOURCE (tests/golden, bench/baselines) may
# have been copied from another machine: only a driver is needed here, and Python with torch for
# the baselines. Results and logs go to OUT, one line for each step to stdout. Exit status 1 if a
# test failed. Every step has a time limit; all of them take 8 minutes at most.
set -u
[ $# -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$1 out=$2
source=${3:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
tests=$build/tests polymath=$build/polymath
suffix=${GPU_TESTS:-gpu} device=${GPU_DEVICE:-cuda:0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
export POLYMATH_TEST_BACKEND=cuda POLYMATH_TEST_DEVICE="$device" POLYMATH_SOURCE_DIR="$source"
failed=0

# step SECONDS NAME LOG COMMAND...: runs it, says how it went.
step() {
    limit=$1 name=$2 log=$3
    shift 3
    began=$(date +%s)
    timeout "$limit" "$@" >"$out/$log" 2>"$out/$log.err"
    code=$?
    [ -s "$out/$log.err" ] || rm -f "$out/$log.err"
    case $code in
    0) word=ok ;;
    77) word=skipped ;;
    124) word="over $limit s" failed=1 ;;
    *) word="FAILED ($code)" failed=1 ;;
    esac
    printf '%-44s %4d s  %s\n' "$name" $(($(date +%s) - began)) "$word"
    return $code
}

"$polymath" --version
"$polymath" devices | tee "$out/devices.txt"
grep -q '^cuda:' "$out/devices.txt" || { echo "gpu.sh: no GPU here" >&2; exit 1; }

# What the instructions really do, before anything is built on them.
[ -x "$tests/conformance_$suffix" ] && step 30 conformance conformance.txt \
    "$tests/conformance_$suffix" dump "$out/conformance.bin"

for test in "$tests"/*_test_"$suffix"; do
    name=$(basename "$test")
    step 60 "$name" "$name.txt" "$test" || tail -n 5 "$out/$name.txt"
done

if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck synccheck; do
        for name in norm_test gate_test rows_test; do
            step 40 "compute-sanitizer $tool $name" "$tool-$name.txt" \
                compute-sanitizer --tool $tool --error-exitcode 9 "$tests/${name}_$suffix"
        done
    done
else
    echo "compute-sanitizer is not here: left out"
fi

step 20 "bench peaks" peaks.json "$polymath" bench peaks --device "$device" --json
for shape in qwen3-30b mixtral olmoe; do
    step 60 "bench kernels $shape" "kernels-$shape.json" "$polymath" bench kernels --device "$device" \
        --shape $shape -n 1,8,64,512,4096,16384 -r 20 -o json
done

if python3 -c 'import torch' 2>/dev/null; then
    step 90 "torch baselines" torch.jsonl python3 "$source/bench/baselines/torch_moe.py" \
        --library "$build/libpolymath.so" --shape qwen3-30b,mixtral -T 1,8,512,4096,16384
else
    echo "Python with torch is not here: no baselines"
fi

step 60 "random Qwen3-30B, 8 layers" synth.txt "$polymath" synth qwen3-30b-a3b "$work/model" \
    --set num_hidden_layers=8 --set vocab_size=32768 &&
    step 60 "bench model" model.json "$polymath" bench model "$work/model" --device "$device" \
        -p 512,2048 -n 128 -r 3 -o json
exit $failed
