"""Random clients for a long time, memory and descriptors over time: python3 soak.py PROGRAM MODEL --minutes 30

Clients submit what is asked of a server (completions, chats, schemas, log-probabilities, several
choices, long prompts, shared prefixes), read some of it and often leave. One JSON line every ten
seconds on standard output; at the end a verdict: no failure of the server's, nothing held, and
memory in the second half not above the first half by more than noise.
"""

import argparse
import json
import random
import subprocess
import sys
import threading
import time

from served import Server, connect, request, reset, statuses

TEXTS = ["def add(a, b):", "The license of this program", "import os\nimport sys\n", "#include <stdio.h>\nint main", "x = [1, 2, 3]\n"]
PREFIX = "This text stands in front of many prompts, so that the cache of prefixes has something to find. " * 6


class Client(threading.Thread):
    def __init__(self, port, seed, count):
        super().__init__(daemon=True)
        self.port, self.r, self.count = port, random.Random(seed), count
        self.problems = []

    def body(self):
        r = self.r
        body = {"prompt": r.choice(TEXTS), "max_tokens": r.choice([1, 5, 30, 200]), "temperature": r.choice([0, 0.8]),
                "seed": r.randrange(1000), "stream": r.random() < 0.8}
        if r.random() < 0.3:
            body["prompt"] = PREFIX + body["prompt"]
        if r.random() < 0.05:
            body["prompt"] = " ".join(str(r.random()) for _ in range(r.randrange(50, 300)))
        if r.random() < 0.2:
            body["logprobs"] = r.randrange(5)
        if r.random() < 0.1:
            body["n"] = r.randrange(1, 5)
        if r.random() < 0.2:
            body["stop"] = [r.choice(["\n", "return", "e"])]
        if r.random() < 0.1:
            body["response_format"] = {"type": "json_object"}
        return body

    def once(self):
        """'finished', 'left', or a status that is not 200."""
        body = self.body()
        s = connect(self.port, 300)
        try:
            s.sendall(request("POST", "/v1/completions", body, "Connection: close\r\n"))
            leave = self.r.randrange(1, 20000) if self.r.random() < 0.4 else 1 << 30
            got = b""
            while len(got) < leave:
                part = s.recv(min(16384, leave - len(got)))
                if not part:
                    break
                got += part
            else:
                if self.r.random() < 0.5:
                    reset(s)
                return "left"
        finally:
            s.close()
        codes = statuses(got)
        if codes == [200]:
            if body["stream"] and b"data: [DONE]" not in got:
                self.problems.append(f"a stream without an end: {got[-200:]!r}")
            return "finished"
        if codes and codes[0] in (400, 429):
            return str(codes[0])
        self.problems.append(f"statuses {codes}: {got[:200]!r}")
        return "failed"

    def run(self):
        while len(self.problems) < 20:
            try:
                how = self.once()
            except OSError as e:
                self.problems.append(repr(e))
                how = "broken"
            self.count[how] = self.count.get(how, 0) + 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    problems, samples = [], []
    version = subprocess.run([args.program, "--version"], capture_output=True, text=True).stdout.strip()
    print(json.dumps({"version": version, "minutes": args.minutes, "clients": args.clients, "seed": args.seed}), flush=True)
    with Server(args.program, args.model) as server:
        server.fill_cache()
        server.wait_idle()
        before = (*server.in_use(), server.descriptors(), server.threads())
        counts = [{} for _ in range(args.clients)]
        clients = [Client(server.port, args.seed * 1000 + i, counts[i]) for i in range(args.clients)]
        start = time.monotonic()
        for c in clients:
            c.start()
        while time.monotonic() - start < args.minutes * 60 and server.process.poll() is None:
            time.sleep(10)
            total = {}
            for c in counts:
                for k, v in list(c.items()):
                    total[k] = total.get(k, 0) + v
            try:
                m = server.metrics()
            except OSError as e:
                problems.append(f"metrics: {e!r}")
                continue
            sample = {"seconds": round(time.monotonic() - start), "rss_kb": server.rss_kb(), "descriptors": server.descriptors(),
                      "threads": server.threads(), "blocks": round(m["kv_cache_usage_perc"] * m["kv_cache_blocks"]),
                      "tokens": int(m["generation_tokens_total"]), "preemptions": int(m["num_preemptions_total"]), **total}
            samples.append(sample)
            print(json.dumps(sample), flush=True)
        if server.process.poll() is not None:
            problems.append(f"the server ended with {server.process.returncode}")
        else:
            for c in clients:
                c.problems += [None] * 20  # they stop
            for c in clients:
                c.join(120)
            server.wait_idle()
            time.sleep(2)
            after = (*server.in_use(), server.descriptors(), server.threads())
            if after != before:
                problems.append(f"blocks, running, waiting, descriptors, threads: {after}, before {before}")
            status = server.stop()
            if status:
                problems.append(f"exit status {status}")
    problems += sorted({p for c in clients for p in c.problems if p})
    half = [s["rss_kb"] for s in samples]
    grown = max(half[len(half) // 2 :], default=0) - max(half[len(half) // 4 : len(half) // 2], default=0)
    if grown > 0.03 * max(half, default=1) + 2048:
        problems.append(f"memory grew by {grown} kB in the second half")
    print(json.dumps({"verdict": "failed" if problems else "passed", "grown_kb": grown, "problems": problems[:20]}))
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
