"""All measurements of the server in one go: python3 bench/serve_suite.py PROGRAM [-o FOLDER] [--part NAME ...]

Needs an otherwise idle machine, 8 GB for a synthetic checkpoint, and 15 minutes. Parts:

  overhead     the embedded model in process (bench batch) and over HTTP, at the same lengths: time and
               processor time a token and a request; paths without a model (/health/live, /tokenize)
  throughput   OLMoE-1B-7B's shape with 4 layers: output tokens/s at 1, 8, 16 and 32 requests in flight
  arrival      the same model: gaps between tokens of 8 running streams while 4,000-token prompts arrive
  connections  the embedded model: 8 streams alone, and beside 1,000 connections that say nothing

One JSON file a part in FOLDER, each with the machine, the commit and every `polymath bench serve` result
behind its numbers; the numbers as Markdown on standard output. Variants that are compared take turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
from served import Server, connect, request, talk  # noqa: E402

# The synthetic checkpoint's vocabulary has texts for few tokens: ids make each token an event.
IDS = ("--extra-body", '{"return_token_ids": true}')
EMBEDDED = os.path.join(ROOT, "models", "polymath-16m")


class Suite:
    def __init__(self, args):
        self.program, self.out, self.olmoe = args.program, args.output, args.olmoe
        self.quick = args.quick
        self.commit = subprocess.run([args.program, "--version"], capture_output=True, text=True).stdout.strip()

    def serve(self, server, *arguments):
        """One result of polymath bench serve."""
        command = [self.program, "bench", "serve", "--url", f"http://127.0.0.1:{server.port}", "-o", "json", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        r = json.loads(done.stdout)
        if r["failed"]:
            raise SystemExit(f"{command}: {r['errors_by_kind']}")
        return r

    def batch(self, seats, prompt, generate, rounds):
        """The same load in process, without HTTP; with the processor time of the process."""
        before = os.times()
        out = subprocess.run([self.program, "bench", "batch", EMBEDDED, "--seats", str(seats), "-p", str(prompt), "-n", str(generate),
                              "-r", str(rounds), "--json"], capture_output=True, text=True, check=True).stdout
        after = os.times()
        return {**json.loads(out), "cpu_seconds": after.children_user + after.children_system - before.children_user - before.children_system}

    def save(self, part, result):
        path = os.path.join(self.out, f"{time.strftime('%Y-%m-%d')}-serve-{part}.json")
        with open(path, "w") as f:
            json.dump({"part": part, "commit": self.commit, "machine": machine(), "load_before": self.load, **result}, f, indent=1)
            f.write("\n")
        print(f"{part}: {path}", file=sys.stderr, flush=True)

    def model(self):
        """The synthetic checkpoint; made once."""
        if not os.path.exists(os.path.join(self.olmoe, "config.json")):
            subprocess.run([self.program, "synth", "olmoe-1b-7b", self.olmoe, "--set", "num_hidden_layers=4"], check=True,
                           stdout=subprocess.DEVNULL)
        return self.olmoe


def machine():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return f"{len(names)} x {names[0]}"


def median(rows, key):
    return statistics.median(r[key] for r in rows)


# ---- parts


def overhead(s):
    """In process and over HTTP, in turns; c requests in flight, each of 128 + 128 tokens."""
    repeats, rounds, rows = (1, 2, []) if s.quick else (5, 4, [])
    with Server(s.program, EMBEDDED) as server:
        s.serve(server, "-n", 2, "--input-len", 128, "--output-len", 128, "--ignore-eos")
        for repeat in range(repeats):
            for c in (1, 8, 32):
                n = c * rounds
                inside = s.batch(c, 128, 128, rounds)
                before = server.cpu_seconds()
                http = s.serve(server, "-c", c, "-n", n, "--input-len", 128, "--output-len", 128, "--ignore-eos", "-s", 1 + repeat)
                http["server_cpu_seconds"] = server.cpu_seconds() - before
                rows.append({"concurrency": c, "in_process": inside, "http": http})
        plain = {}
        for name, more in (("/health/live", ()), ("/v1/models", ()), ("/tokenize", ("--extra-body", json.dumps({"prompt": "def add(a, b):" * 8})))):
            for c in (1, 16):
                plain[f"{name} c={c}"] = s.serve(server, "--endpoint", name, "-c", c, "-n", 500 if s.quick else 20000, *more)
    summary = {}
    for c in (1, 8, 32):
        mine = [r for r in rows if r["concurrency"] == c]
        ins, web = [r["in_process"] for r in mine], [r["http"] for r in mine]
        tokens = web[0]["total_output_tokens"]
        summary[f"c={c}"] = {
            "itl_median_ms": {"in_process": median(ins, "itl_p50_ms"), "http": median(web, "median_itl_ms")},
            "output_tokens_per_s": {"in_process": median(ins, "output_tokens_per_second"), "http": median(web, "output_throughput")},
            "time_per_output_token_us": {"in_process": 1e6 / median(ins, "output_tokens_per_second"), "http": 1e6 / median(web, "output_throughput")},
            # The run in process warms up with one request more.
            "cpu_us_per_output_token": {"in_process": 1e6 * median(ins, "cpu_seconds") / (tokens + 128),
                                        "http": 1e6 * median(web, "server_cpu_seconds") / tokens},
            "client_cpu_share": median(web, "client_cpu_share"),
        }
    for name, r in plain.items():
        summary[name] = {"median_us": 1000 * r["median_e2el_ms"], "p99_us": 1000 * r["p99_e2el_ms"], "requests_per_s": r["request_throughput"],
                         "client_cpu_share": r["client_cpu_share"]}
    s.save("overhead", {"summary": summary, "rows": rows, "plain": plain})
    return summary


def throughput(s):
    repeats, rows = (1, []) if s.quick else (3, [])
    with Server(s.program, s.model(), "--max-seqs", "32", "--kv-tokens", str(32 * 512)) as server:
        s.serve(server, "-c", 8, "-n", 8, "--input-len", 64, "--output-len", 8, "--ignore-eos", "-s", 99, *IDS)
        for repeat in range(repeats):
            for c in (1, 8, 16, 32):
                rows.append(s.serve(server, "-c", c, "-n", max(2, 2 * c), "--input-len", 64, "--output-len", 64, "--ignore-eos", "-s", 10 * repeat + 1, *IDS))
    summary = {}
    for c in (1, 8, 16, 32):
        mine = [r for r in rows if r["max_concurrency"] == c]
        each = [r["output_throughput"] for r in mine]
        summary[f"c={c}"] = {"output_tokens_per_s": statistics.median(each), "least": min(each), "most": max(each),
                             "median_itl_ms": median(mine, "median_itl_ms"), "p99_ttft_ms": median(mine, "p99_ttft_ms")}
    one = summary["c=1"]["output_tokens_per_s"]
    for row in summary.values():
        row["times_one"] = row["output_tokens_per_s"] / one
    s.save("throughput", {"summary": summary, "rows": rows})
    return summary


def gaps_at(r):
    """(when a gap ended, its length) in seconds since the begin, of a result with --detail."""
    for start, first, gaps in zip(r["start_times"], r["ttfts"], r["itls"]):
        at = start + first
        for g in gaps:
            at += g
            yield at, g


def arrival(s):
    """Eight long streams; after a while a prompt of 4,000 tokens arrives, and again."""
    n_output = 60 if s.quick else 640
    with Server(s.program, s.model(), "--max-seqs", "16", "--kv-tokens", str(8 * 736 + 2 * 4096)) as server:
        s.serve(server, "-c", 8, "-n", 8, "--input-len", 64, "--output-len", 8, "--ignore-eos", "-s", 99, *IDS)
        command = [s.program, "bench", "serve", "--url", f"http://127.0.0.1:{server.port}", "-o", "json", "--detail", "-c", "8", "-n", "8",
                   "--input-len", "64", "--output-len", str(n_output), "--ignore-eos", "-s", "5", *IDS]
        streams, begin, windows = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), time.monotonic(), []
        for i in range(1 if s.quick else 3):
            time.sleep(6)
            if streams.poll() is not None:
                break
            at = time.monotonic() - begin
            long = s.serve(server, "-n", 1, "--input-len", 4000, "--output-len", 1, "--ignore-eos", "-s", 100 + i)
            windows.append((at, at + long["duration"], long))
        out, _ = streams.communicate()
    r = json.loads(out)
    # The client's begin is some milliseconds after ours: windows are wide against that.
    inside = [g for t, g in gaps_at(r) if any(a <= t - g and t <= b + 0.05 for a, b, _ in windows)]
    outside = [g for t, g in gaps_at(r) if t > 1 and not any(a - 0.1 <= t and t - g <= b + 0.1 for a, b, _ in windows)]

    def spread(x):
        x = sorted(x)
        return {"n": len(x), **{f"p{p}_ms": 1000 * x[min(len(x) - 1, len(x) * p // 100)] for p in (50, 95, 99) if x}, "max_ms": 1000 * x[-1] if x else 0}

    summary = {"alone": spread(outside), "while_a_prompt_arrives": spread(inside), "prompt_ttft_ms": [w[2]["mean_ttft_ms"] for w in windows]}
    if inside and outside:
        summary["p99_over_normal_step"] = summary["while_a_prompt_arrives"]["p99_ms"] / summary["alone"]["p50_ms"]
    s.save("arrival", {"summary": summary, "streams": r, "prompts": [{"from_s": a, "to_s": b, "result": w} for a, b, w in windows]})
    return summary


def connections(s):
    """Eight streams, in turns alone and beside 1,000 idle or half-sent connections."""
    repeats, rows = (1, []) if s.quick else (5, [])
    load = ("-c", 8, "-n", 64 if not s.quick else 16, "--input-len", 64, "--output-len", 128, "--ignore-eos")
    with Server(s.program, EMBEDDED) as server:
        s.serve(server, *load, "-s", 50)
        for repeat in range(repeats):
            for n in (0, 1000):
                quiet = server.rss_kb()
                sockets = []
                for i in range(n):
                    c = connect(server.port, 20)
                    c.sendall((b"", b"GET /hea", b"GET / HTTP/1.1\r\nX: y\r\n")[i % 3])
                    sockets.append(c)
                time.sleep(0.2)
                r = s.serve(server, *load, "-s", repeat)
                held = server.descriptors()
                rows.append({"idle_connections": n, "descriptors": held, "rss_kb": server.rss_kb(), "rss_before_kb": quiet, "result": r})
                for c in sockets:
                    c.close()
                time.sleep(2)
        codes = talk(server.port, request("GET", "/health/ready", headers="Connection: close\r\n"), half_close=False)
    summary = {}
    for n in (0, 1000):
        mine = [r for r in rows if r["idle_connections"] == n]
        results = [r["result"] for r in mine]
        summary[f"{n} idle"] = {"output_tokens_per_s": median(results, "output_throughput"), "p99_itl_ms": median(results, "p99_itl_ms"),
                                "p99_ttft_ms": median(results, "p99_ttft_ms"), "descriptors": median(mine, "descriptors"), "rss_kb": median(mine, "rss_kb")}
    summary["ready afterwards"] = b"200" in (codes or b"")[:20]
    s.save("connections", {"summary": summary, "rows": rows})
    return summary


def tables(results):
    """Markdown of what was measured."""
    if "overhead" in results:
        r = results["overhead"]
        print("| embedded model, 128 + 128 tokens | output tokens/s in process | over HTTP | processor us a token in process | over HTTP |\n|---|---:|---:|---:|---:|")
        for c in (1, 8, 32):
            row = r[f"c={c}"]
            rate, cpu = row["output_tokens_per_s"], row["cpu_us_per_output_token"]
            print(f"| {c} in flight | {rate['in_process']:.0f} | {rate['http']:.0f} | {cpu['in_process']:.0f} | {cpu['http']:.0f} |")
        print("\n| path without a model | in flight | median us | p99 us | requests/s |\n|---|---:|---:|---:|---:|")
        for name, row in r.items():
            if name.startswith("/"):
                path, c = name.split(" c=")
                print(f"| `{path}` | {c} | {row['median_us']:.0f} | {row['p99_us']:.0f} | {row['requests_per_s']:.0f} |")
    if "throughput" in results:
        print("\n| OLMoE-1B-7B shape, 4 layers, 64 + 64 tokens | output tokens/s (least to most) | times one | median ITL ms | p99 TTFT ms |\n|---|---:|---:|---:|---:|")
        for c, row in results["throughput"].items():
            print(f"| {c[2:]} in flight | {row['output_tokens_per_s']:.1f} ({row['least']:.1f} to {row['most']:.1f}) | {row['times_one']:.2f} | "
                  f"{row['median_itl_ms']:.1f} | {row['p99_ttft_ms']:.0f} |")
    if "arrival" in results:
        r = results["arrival"]
        print("\n| gaps of 8 streams, ms | p50 | p95 | p99 | most |\n|---|---:|---:|---:|---:|")
        for name, text in (("alone", "alone"), ("while_a_prompt_arrives", "while a prompt of 4,000 tokens arrives")):
            if r[name]["n"]:
                print(f"| {text} | " + " | ".join(f"{r[name][k]:.1f}" for k in ("p50_ms", "p95_ms", "p99_ms", "max_ms")) + " |")
        print(f"\np99 then / p50 alone: {r.get('p99_over_normal_step', 0):.2f}")
    if "connections" in results:
        print("\n| 8 streams beside | output tokens/s | p99 ITL ms | p99 TTFT ms | descriptors | RSS MB |\n|---|---:|---:|---:|---:|---:|")
        for name, row in results["connections"].items():
            if isinstance(row, dict):
                print(f"| {name} connections | {row['output_tokens_per_s']:.0f} | {row['p99_itl_ms']:.1f} | {row['p99_ttft_ms']:.1f} | "
                      f"{row['descriptors']:.0f} | {row['rss_kb'] / 1000:.0f} |")


PARTS = (overhead, throughput, arrival, connections)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("-o", "--output", default=os.path.join(ROOT, "bench", "results"))
    parser.add_argument("--olmoe", default="/tmp/olmoe-4-layers", help="the synthetic checkpoint; made where it is not")
    parser.add_argument("--part", action="append", choices=[p.__name__ for p in PARTS])
    parser.add_argument("--quick", action="store_true", help="little of everything, to try the script")
    args = parser.parse_args()
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    os.makedirs(args.output, exist_ok=True)
    suite, results = Suite(args), {}
    for part in PARTS:
        if args.part and part.__name__ not in args.part:
            continue
        suite.load = os.getloadavg()[0]
        start = time.monotonic()
        results[part.__name__] = part(suite)
        print(f"{part.__name__}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    tables(results)


if __name__ == "__main__":
    main()
