#!/bin/sh
# gpu.sh - everything that wants a real GPU, in one go of 8 minutes at most: the conformance dump,
# the tests of all operations and families, the sanitizer, the ceilings, the benchmarks with their
# baselines, and one page of tables.
#
#   tests/gpu.sh BUILD OUT [SOURCE]
#
# BUILD is a build folder made with -DPM_CUDA=ON, or the folder that `./x gpu --build` puts together
# for another machine; SOURCE (default: the folder above this script) has tests/golden and bench.
# The machine needs a driver and the tools of any Linux: no compiler, no CUDA toolkit. What is
# there besides is used: compute-sanitizer, cuBLAS, Python with torch, matplotlib.
#
# Results go to OUT as DATE-GPU-NAME.json, tables as DATE-GPU.md, plots and logs to folders; one line
# for each step to stdout. A step that fails does not stop the others. Exit status: 0, 1 if a step
# failed or found no time, 77 if there is no GPU.
#
# GPU_SECONDS sets another limit than 480, GPU_DEVICE another device than cuda:0; GPU_QUICK=1 takes
# small sizes, to try the script.
set -u
[ $# -ge 2 ] || { sed -n '2,22s/^# \{0,1\}//p' "$0" >&2; exit 2; }
build=$1 out=$2
source=${3:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
tests=$build/tests polymath=$build/polymath
suffix=${GPU_TESTS:-gpu} device=${GPU_DEVICE:-cuda:0} all=${GPU_SECONDS:-480}
python=${PYTHON:-python3}
[ -x "$polymath" ] || { echo "gpu.sh: $polymath: no such program" >&2; exit 2; }
# Libraries of the machine that built, where they were brought along.
[ ! -d "$build/lib" ] || export LD_LIBRARY_PATH="$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

if ! devices=$("$polymath" devices 2>&1); then
    echo "$devices" >&2
    echo "gpu.sh: $polymath does not run here" >&2
    exit 2
fi
echo "$devices"
name=$(printf '%s\n' "$devices" | sed -n "s/^$device *$device *\(NVIDIA \)\{0,1\}\([^,]*\),.*/\2/p" | head -n 1)
if [ -z "$name" ]; then
    echo "gpu.sh: no $device here ($(printf '%s\n' "$devices" | sed -n 's/^cuda  *//p')): nothing was measured" >&2
    exit 77
fi
gpu=$(printf '%s' "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
label=$(date +%F)-$gpu
logs=$out/$label-logs
mkdir -p "$logs" || exit 1
export POLYMATH_TEST_BACKEND=cuda POLYMATH_TEST_DEVICE="$device" POLYMATH_SOURCE_DIR="$source"
began=$(date +%s)
failed=0
may_be_late='' # for steps that have done some good when they are stopped

# part SECONDS: what the following steps may take together; what is left of everything bounds it.
part() {
    now=$(date +%s)
    part_end=$((now + $1))
    [ $part_end -le $((began + all)) ] || part_end=$((began + all))
}

# step SECONDS NAME FILE COMMAND...: runs it, its output to FILE, and says how it went.
step() {
    limit=$1 what=$2 file=$3
    shift 3
    start=$(date +%s)
    left=$((part_end - start))
    [ $limit -le $left ] || limit=$left
    if [ $limit -le 0 ]; then
        printf '%-46s         no time left\n' "$what"
        [ -n "$may_be_late" ] || failed=1
        return 1
    fi
    timeout -k 5 "$limit" "$@" >"$file" 2>"$logs/${file##*/}.err"
    code=$?
    [ -s "$logs/${file##*/}.err" ] || rm -f "$logs/${file##*/}.err"
    case $code in
    0) word=ok ;;
    77) word=skipped ;;
    124 | 137)
        word="over $limit s"
        [ -n "$may_be_late" ] || failed=1
        ;;
    *) word="FAILED ($code)" failed=1 ;;
    esac
    printf '%-46s %4d s  %s\n' "$what" $(($(date +%s) - start)) "$word"
    # A result file is whole or is not there.
    case $code:$file in
    0:*) ;;
    *.json) mv -f "$file" "$logs/${file##*/}.part" ;;
    esac
    return $code
}

rows=1,8,64,512,4096,16384 rows_other=1,8,512,8192,32768 rows_some=1,64,4096 samples=20 caches=cold,hot
shapes="qwen3-30b mixtral sonic" layers=48 prompts=512,2048 small='' small_model=''
if [ -n "${GPU_QUICK:-}" ]; then
    rows=1,3 rows_other='' rows_some=2,5 samples=2 caches=hot shapes=olmoe layers=4 prompts=8
    small='-e 4 -k 2 --cache hot' small_model='--set hidden_size=128 --set num_experts=8 --set vocab_size=512'
fi

# What the instructions really do, before anything is built on them.
part 20
[ ! -x "$tests/conformance_$suffix" ] ||
    step 20 "conformance dump" "$logs/conformance.txt" "$tests/conformance_$suffix" dump "$out/$label.conf"

part 100
for test in "$tests"/*_test_"$suffix"; do
    [ -x "$test" ] || continue
    log=$logs/$(basename "$test").txt
    step 60 "$(basename "$test")" "$log" "$test" || [ "$code" = 77 ] || tail -n 5 "$log"
done

part 40
may_be_late=yes
if command -v compute-sanitizer >/dev/null 2>&1; then
    for tool in memcheck racecheck synccheck; do
        for test in gate_test rows_test; do
            step 20 "compute-sanitizer $tool $test" "$logs/$tool-$test.txt" \
                compute-sanitizer --tool $tool --error-exitcode 9 "$tests/${test}_$suffix"
        done
    done
else
    echo "compute-sanitizer is not here: left out"
fi

may_be_late=''
part 15
step 15 "bench peaks" "$out/$label-peaks.json" "$polymath" bench peaks --device "$device" --json

# cuBLAS of the system, or of Python's wheels: a baseline where it is there and computes the same.
wheels=$("$python" -c 'import nvidia, os
print(":".join(os.path.join(p, d, "lib") for p in nvidia.__path__ for d in ("cublas", "cu13")))' 2>/dev/null)
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/cuda/lib64${wheels:+:$wheels}"
baseline=loop
for other in cublas-loop cublas-grouped; do
    if timeout 30 "$polymath" bench kernels --device "$device" --shape olmoe -e 8 --op down -n 64 -r 1 --cache hot \
        --baseline $other >"$logs/$other.txt" 2>&1; then
        baseline=$baseline,$other
    else
        echo "$other is left out: $(tail -n 1 "$logs/$other.txt")"
        grep -Eq 'is not here|has no|wanted a GPU' "$logs/$other.txt" || failed=1
    fi
done

# $small is empty but when this script is tried.
part 110
for shape in $shapes; do
    step 40 "bench kernels $shape" "$out/$label-kernels-$shape.json" "$polymath" bench kernels --device "$device" \
        --shape "$shape" --op up,down,layer -n "$rows" -r $samples --baseline $baseline $small -o json
    rows=${rows_other:-$rows}
done
step 20 "bench kernels routing" "$out/$label-kernels-routing.json" "$polymath" bench kernels --device "$device" \
    --op gate,permute,unpermute,layer -n "$rows_some" -r $samples --routing zipf:1.0,zipf:1.2,one-hot $small -o json
step 20 "bench kernels small types" "$out/$label-kernels-types.json" "$polymath" bench kernels --device "$device" \
    --type fp8,mxfp4 --op up,down,layer -n "$rows_some" -r $samples $small -o json
step 20 "bench kernels others" "$out/$label-kernels-others.json" "$polymath" bench kernels --device "$device" \
    --op gate,permute,unpermute,norm,logits,dense,decode,prefill -n "$rows_some" -r $samples --cache $caches $small \
    -o json

part 45
if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    step 45 "PyTorch beside it" "$logs/torch.jsonl" "$python" "$source/bench/baselines/torch_moe.py" \
        --library "$build/libpolymath.so" --shape qwen3-30b -T 1,8,512,4096,16384 --repeats 20 &&
        { echo '['; sed '$!s/$/,/' "$logs/torch.jsonl"; echo ']'; } >"$out/$label-torch.json"
else
    echo "Python with torch is not here: no comparison with it"
fi

# Random weights in the GPU's memory: the whole model, or a quarter of it where that does not fit.
model() {
    layers=$1
    step 90 "random Qwen3-30B-A3B, $layers layers" "$out/$label-model-qwen3-30b-$layers-layers.json" "$polymath" \
        bench model --synthetic qwen3-30b-a3b --set num_hidden_layers=$layers $small_model --device "$device" \
        -p $prompts -n 64 -r 3 -o json
}
part 90
before=$failed
model $layers || { tail -n 1 "$logs"/*-layers.json.err; model $((layers / 4)) && failed=$before; }

part 30
set -- "$out/$label"-*.json
if [ -e "$1" ]; then
    step 10 "tables" "$out/$label.md" "$polymath" bench report "$@"
    if "$python" -c 'import matplotlib' 2>/dev/null; then
        may_be_late=yes
        step 30 "plots" "$logs/plots.txt" "$python" "$source/bench/plot.py" "$out/$label-plots" "$out/$label"-kernels-*.json
    else
        echo "Python with matplotlib is not here: no plots"
    fi
    [ ! -s "$out/$label.md" ] || cat "$out/$label.md"
fi
[ ! -s "$out/$label.conf" ] || echo "what the instructions compute, for the emulator's tests: copy" \
    "$out/$label.conf to tests/emu/golden/$gpu.conf"
printf '%d s in all, results in %s\n' $(($(date +%s) - began)) "$out"
exit $failed
