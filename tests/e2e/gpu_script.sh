#!/bin/sh
# gpu_script.sh BUILD SOURCE - tests/gpu.sh tried without a GPU: it says so; told to take the CPU and
# small sizes, all its measurements work and end in result files, tables and, with matplotlib, plots.
set -u
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
check() {
    what=$1
    shift
    "$@" || { echo "FAILED: $what"; failed=1; }
}

GPU_DEVICE=cuda:999 sh "$source/tests/gpu.sh" "$build" "$work/none" >"$work/said" 2>&1
check "no GPU is status 77" [ $? = 77 ]
check "no GPU is a sentence" grep -q 'gpu.sh: no cuda:999 here' "$work/said"
check "no GPU leaves nothing" [ ! -e "$work/none" ]

GPU_DEVICE=cpu GPU_QUICK=1 GPU_TESTS=none sh "$source/tests/gpu.sh" "$build" "$work/out" >"$work/said" 2>&1
check "every step works" [ $? = 0 ]
for part in peaks kernels-olmoe kernels-routing kernels-types kernels-others model-qwen3-30b-4-layers; do
    check "a file of $part" ls "$work/out"/*-$part.json
done >/dev/null
for title in Ceilings Operations Models; do
    check "a table of $title" grep -q "^## $title" "$work/out"/*.md
done
check "rows of baselines" grep -q '"by": "loop"' "$work/out"/*-kernels-olmoe.json
if "${PYTHON:-python3}" -c 'import matplotlib' 2>/dev/null; then
    check "a plot" [ -s "$work/out/"*-plots/olmoe-up-bf16.svg ]
else
    check "no plot is a sentence" grep -q 'matplotlib is not here' "$work/said"
fi
check "cuBLAS is left out with a sentence" grep -q 'cublas-grouped is left out: .*wanted a GPU' "$work/said"

GPU_SECONDS=0 GPU_DEVICE=cpu GPU_QUICK=1 GPU_TESTS=none sh "$source/tests/gpu.sh" "$build" "$work/late" >"$work/late.said" 2>&1
check "no time is status 1" [ $? = 1 ]
check "no time is said" grep -q 'no time left' "$work/late.said"
[ $failed = 0 ] || cat "$work/said"
exit $failed
