"""polymath bench serve against a server whose delays are known: python3 bench_serve.py PROGRAM

The arithmetic is checked exactly, from the times of each request that --detail gives; the times
themselves against what the server wrote down, within what a busy machine may add.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import fake_server as fake

PROGRAM = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
LATE_MS = 60  # what a loaded machine may add to a median
failures = []


def check(condition, what):
    if not condition:
        failures.append(what)
        print("FAILED:", what)


def near(got, wanted, what, tolerance=1e-3):
    check(abs(got - wanted) <= tolerance * max(1, abs(wanted)), f"{what}: found {got}, wanted {wanted}")


class Fake:
    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("r", suffix=".jsonl")
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, "fake_server.py"), "--log", self.log.name],
                                        stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{self.process.stdout.readline().strip()}"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def requests(self):
        """What the server wrote down since the last call."""
        return [json.loads(line) for line in self.log.readlines()]

    def bench(self, *arguments, status=0, environment=None):
        done = subprocess.run([PROGRAM, "bench", "serve", "--url", self.url, "-o", "json", "--detail", *arguments],
                              capture_output=True, text=True, timeout=120, env={**os.environ, **(environment or {})})
        check(done.returncode == status, f"{arguments}: status {done.returncode}, wanted {status}: {done.stderr[-300:]}")
        return json.loads(done.stdout) if done.stdout else {}


def percentile(values, percent):
    """Linear between ranks."""
    x = sorted(values)
    at = (len(x) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(x) - 1)
    return x[low] + (at - low) * (x[high] - x[low])


def check_spread(r, name, values):
    """The numbers of one metric against its values in ms."""
    mean = sum(values) / len(values)
    near(r[f"mean_{name}_ms"], mean, f"mean {name}")
    near(r[f"median_{name}_ms"], percentile(values, 50), f"median {name}")
    near(r[f"std_{name}_ms"], (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5, f"std {name}", 2e-3)
    for p in (50, 90, 95, 99):
        near(r[f"p{p}_{name}_ms"], percentile(values, p), f"p{p} {name}")
    near(r[f"max_{name}_ms"], max(values), f"max {name}")


def closed_loop(server):
    r = server.bench("-n", "12", "-c", "2", "--input-len", "100..200", "--output-len", "5", "-w", "2",
                     "--goodput", f"ttft:{(fake.FIRST_MS + fake.SLOW_MS) / 2}")
    log = server.requests()[2:]
    check(r["completed"] == 12 and r["failed"] == 0 and len(log) == 12, "12 requests")
    check(r["max_concurrent_requests"] == 2 and r["max_concurrency"] == 2, "two in flight")
    check(r["model_id"] == "fake" and r["server_version"] == "fake 1", "model and version are asked")
    check(r["total_output_tokens"] == 60 and r["output_tokens_from_usage"], "output tokens by usage")
    lengths = sorted(len(q["body"]["prompt"]) for q in log)
    check(sorted(r["input_lens"]) == lengths and r["total_input_tokens"] == sum(lengths), "input tokens")
    check(all(100 <= n <= 200 for n in lengths) and len(set(lengths)) > 3, f"lengths are drawn: {lengths}")
    near(r["output_throughput"], 60 / r["duration"], "output throughput")
    near(r["request_throughput"], 12 / r["duration"], "request throughput")
    near(r["total_token_throughput"], (60 + sum(lengths)) / r["duration"], "token throughput")
    check_spread(r, "ttft", [t * 1000 for t in r["ttfts"]])
    gaps = [g * 1000 for each in r["itls"] for g in each]
    check(len(gaps) == 12 * 4, "four gaps a request")
    check_spread(r, "itl", gaps)
    # The chunk that only says why it ended comes at once after the last token.
    tpot = [sum(each) * 1000 / 4 for each in r["itls"]]
    near(r["mean_tpot_ms"], sum(tpot) / 12, "mean TPOT", 0.2)
    # Truth, by the server's clock.
    for name, p in (("ttft", 50), ("ttft", 99)):
        truth = percentile([1000 * (q["times"][1] - q["times"][0]) for q in log], p)
        got = r[f"p{p}_{name}_ms"]
        check(truth - 1 <= got <= truth + LATE_MS * (1 if p == 50 else 4), f"p{p} {name}: {got}, the server: {truth}")
    truth = percentile([1000 * (b - a) for q in log for a, b in zip(q["times"][1:], q["times"][2:])], 50)
    check(abs(r["median_itl_ms"] - truth) <= fake.GAP_MS / 2, f"median ITL {r['median_itl_ms']}, the server: {truth}")
    good = sum(t * 1000 <= (fake.FIRST_MS + fake.SLOW_MS) / 2 for t in r["ttfts"])
    check(r["good_requests"] == good, "goodput counts what the times say")
    check(4 <= good <= 6, f"half of the requests are fast: {good}")
    near(r["request_goodput"], good / r["duration"], "goodput")


def open_loop(server):
    r = server.bench("--rate", "40", "-d", "1.5", "--output-len", "2", "-s", "7")
    log = server.requests()
    check(len(log) == r["completed"] and 35 <= len(log) <= 90, f"about 60 arrivals: {len(log)}")
    check(r["request_rate"] == 40 and r["max_concurrency"] is None, "the rate is reported")
    check(r["median_lateness_ms"] <= LATE_MS, f"lateness {r['median_lateness_ms']}")
    starts = sorted(r["start_times"])
    again = server.bench("--rate", "40", "-d", "1.5", "--output-len", "2", "-s", "7")
    other = server.bench("--rate", "40", "-d", "1.5", "--output-len", "2", "-s", "8")
    both = server.requests()
    by_prompt = sorted(json.dumps(q["body"]) for q in log)
    check(by_prompt == sorted(json.dumps(q["body"]) for q in both[: len(log)]), "one seed, the same requests")
    late = sum(abs(a - b) for a, b in zip(starts, sorted(again["start_times"]))) / len(starts)
    check(late < LATE_MS / 1000, f"one seed, the same times: {late}")
    check(other["completed"] != r["completed"] or sorted(other["start_times"])[0] != starts[0], "another seed")
    r = server.bench("--rate", "inf", "-n", "20", "--output-len", "2")
    check(r["max_concurrent_requests"] == 20 and r["request_rate"] == "inf", "all at once")
    r = server.bench("--ramp", "5..60:1", "-d", "1", "--output-len", "1")
    starts = r["start_times"]
    check(sum(t > 0.5 for t in starts) > sum(t <= 0.5 for t in starts), "a ramp grows")
    server.requests()


def workloads(server):
    r = server.bench("-n", "12", "--workload", "shared-prefix", "--prefix-len", str(fake.PREFIX), "--num-prefixes", "3",
                     "--input-len", "20", "--output-len", "1", "-s", "3")
    log = server.requests()
    n_prefix = len({tuple(q["body"]["prompt"][: fake.PREFIX]) for q in log})
    check(n_prefix == 3 and len({tuple(q["body"]["prompt"]) for q in log}) == 12, "3 prefixes, 12 prompts")
    check(r["total_cached_tokens"] == (12 - 3) * fake.PREFIX, f"cached tokens: {r['total_cached_tokens']}")
    check(r["prefix_cache_hits"] == r["total_cached_tokens"], "hits by /metrics, before and after")
    check(r["prefix_cache_queries"] == 12 * (fake.PREFIX + 20), "queries by /metrics")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write('{"prompt": "one two three", "max_tokens": 3, "note": 1}\n\n{"prompt": [1, 2], "max_tokens": 2}\n')
        f.flush()
        r = server.bench("--workload", f"file:{f.name}", "--extra-body", ' {"top_p": 0.5} ', "--ignore-eos",
                         "--temperature", "0.7")
        log = server.requests()
        check([q["body"]["prompt"] for q in log] == ["one two three", [1, 2]], "a file's prompts")
        check(r["total_output_tokens"] == 5 and log[0]["body"]["top_p"] == 0.5, "max_tokens and more members")
        check(log[0]["body"]["ignore_eos"] is True and log[0]["body"]["temperature"] == 0.7, "ignore_eos, temperature")
        f.write('{"prompt": 3')
        f.flush()
        server.bench("--workload", f"file:{f.name}", status=1)
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.write('{"messages": [{"role": "user", "content": "caf\\u00e9 \\"x\\""}], "max_tokens": 2}\n')
        f.flush()
        server.bench("--workload", f"file:{f.name}", "--endpoint", "chat")
        check(server.requests()[0]["body"]["messages"] == [{"role": "user", "content": 'café "x"'}], "messages go as they are")
    r = server.bench("--endpoint", "chat", "-n", "2", "--input-len", "10", "--output-len", "3")
    log = server.requests()
    check(len(log[0]["body"]["messages"][0]["content"].split()) == 10, "ten words")
    check(min(r["ttfts"]) * 1000 >= fake.FIRST_MS - 1, "the chunk that names the role is no token")
    check(len(r["itls"][0]) == 2, "three tokens, two gaps")
    server.bench("--prompt", "text", "-n", "1", "--input-len", "5", "--output-len", "1")
    check(len(server.requests()[0]["body"]["prompt"].split()) == 5, "text for completions")


def faults(server):
    bench = server.bench
    r = bench("--model", "busy", "-n", "9", "--output-len", "1")
    check(r["errors_by_kind"] == {"HTTP 429": 3} and r["completed"] == 6, f"429: {r['errors_by_kind']}")
    check(r["errors"].count("HTTP 429") == 3, "errors by request")
    check(r["first_refusal"] == '{"error": {"message": "full"}}', "what a refusal says")
    r = bench("--model", "cut", "-n", "4", "--output-len", "4")
    check(r["errors_by_kind"] == {"closed in an answer": 2}, f"cut: {r['errors_by_kind']}")
    check(r["total_output_tokens"] == 8, "failed requests count no tokens")
    for model, what in (("silent", "not an event stream"), ("failing", "error event"), ("garbage", "malformed event"),
                        ("endless", "event stream without [DONE]")):
        r = bench("--model", model, "-n", "2", "--output-len", "2", status=1)
        check(r["errors_by_kind"] == {what: 2}, f"{model}: {r['errors_by_kind']}")
    for model in ("pieces", "interim", "http10", "closing"):
        r = bench("--model", model, "-n", "4", "-c", "2", "--output-len", "4")
        check(r["completed"] == 4 and r["total_output_tokens"] == 16 and len(r["itls"][0]) == 3, f"{model}: {r['errors_by_kind']}")
    r = bench("--model", "mute", "-n", "2", "--output-len", "4")
    check(r["total_output_tokens"] == 8 and not r["output_tokens_from_usage"], "without usage, chunks are counted")
    r = bench("--model", "pairs", "-n", "2", "--output-len", "8")
    check(r["total_output_tokens"] == 16 and len(r["itls"][0]) == 3, "two tokens a chunk")
    r = bench("--timeout", "1", "-n", "1", "--output-len", "500", status=1)
    check(r["errors_by_kind"] == {"timed out": 1}, f"time-out: {r['errors_by_kind']}")
    r = bench("--api-key", "wrong", "-n", "1", status=1)
    check(r["errors_by_kind"] == {"HTTP 401": 1} and "wrong" not in r["command"], "a key is sent, not shown")
    r = bench("-n", "1", "--output-len", "1", environment={"OPENAI_API_KEY": "right"})
    check(r["completed"] == 1, "the key of the environment")
    server.requests()


def plain_paths(server):
    r = server.bench("--endpoint", "/version", "-n", "50", "-c", "2")
    check(r["completed"] == 50 and r["total_output_tokens"] == 0 and r["mean_e2el_ms"] > 0, "GET of any path")
    r = server.bench("--endpoint", "/nothing", "-n", "2", status=1)
    check(r["errors_by_kind"] == {"HTTP 404": 2}, "its failures")
    server.bench("--endpoint", "/v1/completions", "-n", "1", "--extra-body",
                 '{"model": "fake", "prompt": "a", "max_tokens": 1}')
    check(server.requests()[-1]["body"] == {"model": "fake", "prompt": "a", "max_tokens": 1}, "POST with a body")


def connections(server):
    before = int(metric(server, "connections_total"))
    server.bench("-n", "20", "-c", "2", "--output-len", "1")
    after = int(metric(server, "connections_total"))
    check(after - before <= 4, f"connections are kept: {after - before}")
    server.requests()


def metric(server, name):
    import urllib.request
    page = urllib.request.urlopen(server.url + "/metrics").read().decode()
    return next(line.split()[-1] for line in page.splitlines() if line.startswith("fake:" + name))


def ends(server):
    """An interrupt ends the sending; a server that dies is counted; a dead one is a sentence."""
    command = [PROGRAM, "bench", "serve", "--url", server.url, "-o", "json", "-d", "60", "-c", "2", "--output-len", "3"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    time.sleep(1.5)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=20)
    r = json.loads(out)
    check(run.returncode == 0 and r["completed"] > 0 and r["failed"] == 0, "interrupted: what was measured is told")
    run = subprocess.Popen(command[:-6] + ["-d", "2", "-c", "2", "--output-len", "30"], stdout=subprocess.PIPE, text=True)
    time.sleep(1.2)
    server.process.kill()
    out, _ = run.communicate(timeout=20)
    r = json.loads(out)
    check(r["failed"] >= 2 and r["completed"] >= 2, f"a dying server: {r['completed']} {r['errors_by_kind']}")
    check(r["errors_by_kind"].get("Connection refused", 0) < 400, "the client backs off")
    done = subprocess.run([PROGRAM, "bench", "serve", "--url", server.url], capture_output=True, text=True)
    check(done.returncode == 1 and "Connection refused" in done.stderr, f"a dead server: {done.stderr}")


def wrong_usage():
    for arguments, sentence in (
            (["--url", "https://x"], "url: found"), (["--rate", "fast"], "rate: found"), (["--ramp", "1..2"], "ramp: found"),
            (["--ramp", "1..2:3", "--rate", "1"], "ramp: found"), (["-c", "0"], "concurrency: found"),
            (["--input-len", "9..3"], "input-len: found"), (["--goodput", "tfft:1"], "goodput: found"),
            (["--preset", "gpt9"], "preset: found"), (["--workload", "odd"], "workload: found"),
            (["--endpoint", "embeddings"], "endpoint: found"), (["--extra-body", "[]"], "extra-body"),
            (["--seed", "-1"], "seed: found"), (["--burstiness", "0"], "burstiness: found")):
        done = subprocess.run([PROGRAM, "bench", "serve", *arguments], capture_output=True, text=True)
        check(done.returncode == 2 and sentence in done.stderr, f"{arguments}: {done.returncode} {done.stderr}")


def main():
    wrong_usage()
    with Fake() as server:
        for part in (closed_loop, open_loop, workloads, faults, plain_paths, connections, ends):
            start = time.monotonic()
            part(server)
            print(f"{part.__name__}: {time.monotonic() - start:.1f} s")
    print("failed:" if failures else "passed", len(failures) or "")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
