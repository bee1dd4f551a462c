"""Polymath's server beside llama.cpp's, the same model and load, in turns.

    python3 bench/baselines/olmoe_gguf.py FOLDER MODEL.gguf          (once; needs numpy and gguf)
    python3 bench/baselines/llama_server.py PROGRAM LLAMA_SERVER FOLDER MODEL.gguf -o RESULT.json

FOLDER is an OLMoE checkpoint, for example `polymath synth olmoe-1b-7b FOLDER --set num_hidden_layers=4`.
Both servers run with the same threads and context, their weights in memory; `polymath bench serve` loads
one after the other with the same prompts (token ids, no shared prefix), so that each waits idle while the
other works. llama.cpp gets as many slots as the largest concurrency and its defaults otherwise. The medians
over the repeats and their ratio are printed; a lone greedy request is compared first.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from served import Server  # noqa: E402


def ask(url, body=None, timeout=600):
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=timeout) as f:
        return json.loads(f.read())


def start_llama(args, seats):
    port = 18000 + os.getpid() % 1000
    process = subprocess.Popen([args.llama, "-m", args.gguf, "-t", str(args.threads), "-tb", str(args.threads), "--parallel", str(seats),
                                "-c", str(seats * args.room), "--port", str(port), *args.llama_option], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    for _ in range(600):
        time.sleep(0.5)
        if process.poll() is not None:
            raise SystemExit("llama.cpp's server ended")
        try:
            if ask(f"http://127.0.0.1:{port}/health", timeout=5):
                return process, f"http://127.0.0.1:{port}"
        except (urllib.error.URLError, OSError):
            continue
    raise SystemExit("llama.cpp's server did not start")


def bench(args, url, c, n, seed):
    """return_token_ids makes each token an event of ours, as it is of llama.cpp's, which ignores the field."""
    command = [args.program, "bench", "serve", "--url", url, "-o", "json", "-c", str(c), "-n", str(n), "--input-len", str(args.input),
               "--output-len", str(args.tokens), "--ignore-eos", "-s", str(seed), "--extra-body", '{"return_token_ids": true}']
    r = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if r["failed"]:
        raise SystemExit(f"{command}: {r['errors_by_kind']}")
    return r


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("llama")
    parser.add_argument("folder")
    parser.add_argument("gguf")
    parser.add_argument("-o", "--output")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--concurrency", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2, help="times the concurrency")
    parser.add_argument("--input", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--llama-option", action="append", default=[])
    args = parser.parse_args()
    seats = max(args.concurrency)
    args.room = args.input + args.tokens + 80
    rows = []
    llama, llama_url = start_llama(args, seats)
    try:
        with Server(args.program, args.folder, "-t", str(args.threads), "--max-seqs", str(seats), "--kv-tokens", str(seats * args.room)) as ours:
            urls = {"polymath": f"http://127.0.0.1:{ours.port}", "llama.cpp": llama_url}
            greedy = {"prompt": list(range(300, 332)), "max_tokens": 16, "temperature": 0, "ignore_eos": True}
            theirs = [int(t[1:]) for t in ask(llama_url + "/v1/completions", greedy)["choices"][0]["text"].split()]
            mine = ask(urls["polymath"] + "/v1/completions", {**greedy, "return_token_ids": True})["choices"][0]["token_ids"]
            same = next((i for i, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
            print(f"a greedy answer of 16 tokens is equal in the first {same}", flush=True)
            for url in urls.values():
                bench(args, url, seats, seats, 1000)
            for repeat in range(args.repeats):
                for c in args.concurrency:
                    for name, url in urls.items():
                        rows.append({"engine": name, "repeat": repeat, **bench(args, url, c, c * args.requests, repeat)})
                        r = rows[-1]
                        print(f"{name:10} c={c:2}: {r['output_throughput']:.1f} output tokens/s, p99 TTFT {r['p99_ttft_ms']:.0f} ms", flush=True)
    finally:
        llama.send_signal(signal.SIGINT)
        llama.wait(30)
    summary = {}
    for c in args.concurrency:
        for key in ("output_throughput", "p99_ttft_ms", "median_itl_ms"):
            of = {name: [r[key] for r in rows if r["engine"] == name and r["max_concurrency"] == c] for name in urls}
            summary[f"{key} c={c}"] = {**{name: statistics.median(v) for name, v in of.items()}, "spread": {n: [min(v), max(v)] for n, v in of.items()},
                                       "ours_over_theirs": statistics.median(of["polymath"]) / statistics.median(of["llama.cpp"])}
    print(json.dumps(summary, indent=1))
    if args.output:
        version = subprocess.run([args.llama, "--version"], capture_output=True, text=True).stderr.splitlines()[:2]
        with open(args.output, "w") as f:
            json.dump({"summary": summary, "llama_version": version, "greedy_equal": same, "rows": rows}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
