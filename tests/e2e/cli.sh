#!/bin/sh
# cli.sh PROGRAM SOURCE - the program from outside: what it prints, what it refuses, how it ends.
set -u
program=$1
source=$2
model=$source/models/polymath-16m
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
passed=0

# expect STATUS PATTERN ARGUMENTS...: runs the program; standard output and error together must
# match the extended regular expression.
expect() {
    want=$1
    pattern=$2
    shift 2
    "$program" "$@" >"$work/out" 2>&1 </dev/null
    got=$?
    if [ "$got" != "$want" ] || ! grep -Eq -e "$pattern" "$work/out"; then
        echo "FAILED: polymath $*: status $got, wanted $want and /$pattern/; it said:"
        head -5 "$work/out"
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
    fi
}

# same NAME FILE FILE
same() {
    if cmp -s "$2" "$3"; then
        passed=$((passed + 1))
    else
        echo "FAILED: $1: $2 and $3 differ"
        failed=$((failed + 1))
    fi
}

# usage
expect 2 'usage: polymath COMMAND'
expect 0 'usage: polymath COMMAND' --help
expect 0 'polymath [0-9]+\.[0-9]+\.[0-9]+ \(.+\)' --version
expect 2 'unknown command "frobnicate"' frobnicate
expect 0 'usage: polymath run' run --help
expect 0 'usage: polymath serve MODEL' serve --help
expect 2 'usage: polymath run' run
expect 2 '--frobnicate: unknown option' run "$model" --frobnicate
expect 2 'threads: found "many", wanted a whole number' run "$model" x --threads many
expect 2 'top-p: found "1.5"' run "$model" x --top-p 1.5
expect 2 'kv-type: found "int3"' run "$model" x --kv-type int3

# a prompt from each door, the same text each time
expect 0 'generated 16 tokens' run "$model" "def add(a, b):" -n 16 --ignore-eos
"$program" run "$model" "def add(a, b):" -n 16 -q --ignore-eos >"$work/argument" 2>/dev/null
"$program" run "$model" -p "def add(a, b):" -n 16 -q -t 1 --ignore-eos >"$work/flag" 2>/dev/null
printf 'def add(a, b):' >"$work/prompt"
"$program" run "$model" -f "$work/prompt" -n 16 -q -t 3 -b 2 --ignore-eos >"$work/file" 2>/dev/null
"$program" run "$model" -n 16 -q --ignore-eos <"$work/prompt" >"$work/stdin" 2>/dev/null
same "-p" "$work/argument" "$work/flag"
same "-f, other threads and batch" "$work/argument" "$work/file"
same "standard input" "$work/argument" "$work/stdin"
[ -s "$work/argument" ] || { echo "FAILED: no text"; failed=$((failed + 1)); }

# sampling repeats with its seed and changes with another
for seed in 1 1 2; do
    "$program" run "$model" "import" -n 24 -q --temperature 1 -s $seed --ignore-eos >>"$work/seed$seed" 2>/dev/null
done
head -c "$(($(wc -c <"$work/seed1") / 2))" "$work/seed1" >"$work/first"
tail -c "$(($(wc -c <"$work/seed1") / 2))" "$work/seed1" >"$work/second"
same "one seed, twice" "$work/first" "$work/second"
if cmp -s "$work/first" "$work/seed2"; then
    echo "FAILED: another seed gave the same text"
    failed=$((failed + 1))
fi

# stop texts, JSON, limits
stop=$(tail -c +6 "$work/argument" | tr '\n' ' ' | head -c 2)
"$program" run "$model" "def add(a, b):" -n 16 -q --ignore-eos --stop "$stop" >"$work/stopped" 2>/dev/null
if grep -qF -e "$stop" "$work/stopped"; then
    echo "FAILED: the stop text was given out"
    failed=$((failed + 1))
fi
expect 0 '"finish": "(stop|length)"' run "$model" "def add(a, b):" -n 64 --json --stop "$stop"
expect 0 '"top": \[\{"id"' run "$model" "def add(a, b):" -n 4 --json --logprobs 3
expect 1 'the prompt has [0-9]+ tokens, the context is 4' run "$model" "one two three four five six seven" -c 4
expect 2 'context: found 9999999 tokens, the model allows' run "$model" x -c 9999999

# info, tokenize, score, route
expect 0 'experts +16, 2 per token' info "$model"
expect 0 'KV cache' info "$model" --dry-run
expect 0 '^[0-9 ]+$' tokenize "$model" "def add(a, b):" --ids
printf 'def add(a, b):\n    return a + b\n' >"$work/text"
expect 0 'bits per byte: [0-9.]+$' score "$model" "$work/text"
expect 0 'perplexity: ' score "$model" --ids "1 2 3 4" --logits "$work/logits.npy"
head -c 6 "$work/logits.npy" | grep -q NUMPY || { echo "FAILED: not an npy file"; failed=$((failed + 1)); }
expect 2 'ids: found "x' score "$model" --ids "1 x"
expect 2 'token 0: found 99999999' score "$model" --ids "99999999"
expect 0 '8 layers, 16 experts, 2 per token' route "$model" "$work/text" -o "$work/trace"
head -c 8 "$work/trace" | grep -q PMROUTE1 || { echo "FAILED: not a trace"; failed=$((failed + 1)); }

# a random checkpoint, then everything that can be wrong with it
expect 0 'MB|kB' synth qwen3_moe "$work/synth" --set num_hidden_layers=2
expect 0 'generated 4 tokens' run "$work/synth" "hello" -n 4 --ignore-eos

# an interrupt ends a long prompt between two of its steps, as it ends a generation
"$program" synth qwen3_moe "$work/wide" --set max_position_embeddings=65536 >/dev/null
yes 'the quick brown fox jumps over the lazy dog' | head -c 60000 >"$work/long"
"$program" run "$work/wide" -f "$work/long" -c 65536 -t 1 -b 4 -n 1 --json >"$work/interrupted" 2>&1 &
running=$!
for try in $(seq 100); do # until the program catches SIGINT
    grep -q '^SigCgt:.*[2367abef]$' "/proc/$running/status" && break
    sleep 0.1
done
sleep 1
kill -INT $running
before=$(date +%s)
wait $running
got=$?
after=$(date +%s)
if [ $got != 0 ] || [ $((after - before)) -gt 10 ] || ! grep -q '"finish": "interrupted"' "$work/interrupted" ||
    ! grep -Eq '"prompt_tokens": ([0-9]|[1-5][0-9])[0-9]{0,3}, "generated_tokens": 0,' "$work/interrupted"; then
    echo "FAILED: interrupt: status $got after $((after - before)) s; it said:"
    grep -v '"prompt":' "$work/interrupted" | cut -c1-200 | head -8
    failed=$((failed + 1))
else
    passed=$((passed + 1))
fi

expect 0 'tg4' bench model "$work/synth" -p 8 -n 4 -r 1
expect 0 '"share_of_roof"' bench model "$work/synth" -p 8 -n 0 -r 2 -o json
expect 2 'output: found "xml"' bench model "$work/synth" -o xml
expect 0 "synthetic qwen3_moe" bench model --synthetic qwen3_moe --set num_hidden_layers=1 -p 4 -n 0 -r 1 -o csv
"$program" bench model "$work/synth" -p 4 -n 0 -r 1 -o json >"$work/result.json" 2>/dev/null
expect 0 '^## Models' bench report "$work/result.json"
echo '[1]' >"$work/wrong.json"
expect 1 'wrong.json: .*found 1, wanted an object with a result' bench report "$work/wrong.json"
expect 0 '^100 requests done, 0 refused, .* simulated' bench schedule --requests 100 --kv-tokens 4096
expect 0 '"refused": [1-9]' bench schedule --rate 1000 --max-queue 4 --json
printf '{"arrival_ms": 0, "prompt": 32, "output": 3}\n{"arrival_ms": 500, "prompt": 32, "output": 3}\n' >"$work/arrivals"
expect 0 '"prefix_hit_tokens": 0' bench schedule --trace "$work/arrivals" --json
sed 's/"output"/"shared": 32, &/' "$work/arrivals" >"$work/shared"
expect 0 '"prefix_hit_tokens": 16' bench schedule --trace "$work/shared" --json
printf '{"arrival_ms": 0, "prompt": 3, "output": 0}\n' >"$work/arrivals"
expect 1 'arrivals:1: output: found 0, wanted an integer from 1' bench schedule --trace "$work/arrivals"
expect 2 'cost: found "1,2", wanted four numbers' bench schedule --cost 1,2
expect 0 '^\| 2 \| 2 \|' bench batch "$work/synth" --seats 2 -p 4 -n 4 -r 1
expect 0 'bench kernels --shape' bench kernels --help
expect 0 '^[0-9a-f].*,olmoe,layer,loop,BF16,trace,3,16,2,' bench kernels --shape olmoe -e 16 -k 2 --op layer \
    -n 3 -r 1 --routing "trace:$work/trace" --cache hot --baseline loop -o csv
expect 2 'routing: found a trace of top 2 of 16 experts, wanted 4 of 4' \
    bench kernels --shape olmoe -e 4 --op permute --routing "trace:$work/trace" --cache hot
expect 0 '^\| mixtral \| 4096 \| 14336 \| 8 \| 2 \|' bench kernels --list
expect 2 'shape: found "gpt5", wanted qwen3-30b, ' bench kernels --shape gpt5
expect 2 'rows: found "0", wanted a number from 1' bench kernels -n 1,0
expect 2 'not empty|exists' synth qwen3_moe "$work/synth"
expect 1 'No such file|config.json' run "$work/nothing" x
expect 1 'model_type: found "gpt5", known are' info "$source/tests/e2e/unknown_family"
cp -r "$work/synth" "$work/bad"
chmod -R u+w "$work/bad"
size=$(wc -c <"$work/synth/model.safetensors")
head -c "$((size - 1))" "$work/synth/model.safetensors" >"$work/bad/model.safetensors"
expect 1 'model.safetensors' run "$work/bad" x
rm "$work/bad/model.safetensors"
expect 1 'model.safetensors' run "$work/bad" x
cp "$work/synth/model.safetensors" "$work/bad/model.safetensors"
sed 's/"num_experts": 8/"num_experts": 9/' "$work/synth/config.json" >"$work/bad/config.json"
expect 1 'model.layers.0.*found .*(calls for|missing)|is missing' run "$work/bad" x
sed 's/"num_hidden_layers": 2/"num_hidden_layers": "two"/' "$work/synth/config.json" >"$work/bad/config.json"
expect 1 'config.json: num_hidden_layers: found .*two.*, wanted' info "$work/bad"
sed 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' "$work/synth/config.json" >"$work/bad/config.json"
expect 0 'layers  *1' info "$work/bad"
printf '{' >"$work/bad/config.json"
expect 1 'config.json' info "$work/bad"
cp "$work/synth/config.json" "$work/bad/config.json"
printf '{"model": 1}' >"$work/bad/tokenizer.json"
expect 1 'tokenizer.json' run "$work/bad" x

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
