"""Hostile clients by the thousand while good ones stream: python3 attack.py PROGRAM MODEL [--full]

The good clients must get the tokens that they get alone, bit by bit with their log-probabilities,
without long gaps. They have a key of their own, and so a share of the engine; the attackers have another. Each attack has stated outcomes (a 4xx or a closed connection, never a second
answer to one request). Afterwards the server is as before: no request, no block of the cache, no
descriptor and no memory is held. At last it runs out of descriptors, recovers, and ends in order.

Attackers are processes of their own, so that their work does not slow the good clients' clocks.
"""

import argparse
import json
import multiprocessing
import random
import resource
import socket
import sys
import threading
import time

import served
from served import Server, connect, reset, statuses, stream, talk, talk_many

PROMPT = "/v1/completions"
GOOD_KEY, BAD_KEY = "good", "bad"
KEY = f"Authorization: Bearer {BAD_KEY}\r\n"
GET = f"GET /version HTTP/1.1\r\nHost: x\r\n{KEY}".encode()
POST = f"POST {PROMPT} HTTP/1.1\r\nHost: x\r\n{KEY}Content-Type: application/json\r\n".encode()
MAX_GROWTH_KB = 96 << 10  # bodies of 8 MiB at once in the heaps of several threads
GOOD = [{"prompt": text, "max_tokens": 120, "temperature": 0.7, "seed": 11 + i, "logprobs": 2, "ignore_eos": True}
        for i, text in enumerate(["def add(a, b):", "The license", "import os\n", "int main(void)"])]
LONG = {"prompt": "x = 1\n", "max_tokens": 3000, "temperature": 0.9, "ignore_eos": True, "stream": True}


def request(method, path, body=None, headers=""):
    return served.request(method, path, body, KEY + headers)


SECOND = request("GET", "/version")  # what a smuggled request would get answered


# ---- good clients


def tokens(event):
    """What a client can see of one event, without ids and times."""
    choice = json.loads(event).get("choices") or [{}]
    return choice[0].get("text"), choice[0].get("logprobs"), choice[0].get("finish_reason")


class Good(threading.Thread):
    """Streams its prompt again and again."""

    def __init__(self, port, body, want):
        super().__init__()
        self.port, self.body, self.want = port, body, want
        self.first, self.gaps, self.problems, self.n, self.stopped = [], [], [], 0, False

    def run(self):
        while not self.stopped and len(self.problems) < 5:
            try:
                events = list(stream(self.port, self.body, GOOD_KEY))
            except Exception as e:
                self.problems.append(f"a good client failed: {e!r}")
                continue
            times = [t for t, _ in events]
            self.first.append(times[0])
            self.gaps += [b - a for a, b in zip(times, times[1:])]
            self.n += 1
            if joined(events) != self.want:
                self.problems.append("a good client got other tokens than alone")


def joined(events):
    """Text, log-probabilities and reason of a whole stream; chunks may hold several tokens."""
    text, logprobs, finish = "", [], None
    for _, event in events:
        part, detail, reason = tokens(event)
        text += part or ""
        finish = reason or finish
        if detail:
            logprobs += list(zip(detail["tokens"], detail["token_logprobs"]))
    return text, logprobs, finish


# ---- attacks: each returns complaints; `n` is how often, r a random stream


def idle(port, n, r, hold):
    """Connections that say nothing, or a part of a head, or send a body byte by byte."""
    problems, sockets = [], []
    head = request("GET", "/version")
    slow_body = request("POST", PROMPT, b"{" * 5000)[:-4990]
    for i in range(n):
        try:
            s = connect(port, 10)
        except OSError as e:
            problems.append(f"idle: connection {i} was refused: {e!r}")
            break
        kind = i % 4
        try:
            s.sendall([b"", head[: r.randrange(1, len(head) - 2)], slow_body, b"GET / HTTP/1.1\r\nX: "][kind])
        except OSError:
            pass
        sockets.append((kind, s))
    hold.wait(1200)  # all others are done
    for kind, s in sockets:
        if kind > 1 and r.random() < 0.3:
            try:
                s.send(b"y")
            except OSError:
                pass
        s.close()
    return problems


def slow_readers(port, n, r, hold):
    """Streams that nobody reads, through tiny windows."""
    sockets = []
    for _ in range(n):
        s = connect(port, 10, receive_buffer=2048)
        s.sendall(request("POST", PROMPT, {**LONG, "max_tokens": 1500}))
        sockets.append(s)
    hold.wait(1200)
    for s in sockets:
        reset(s)
    return []


def oversize(port, n, r, hold):
    big = b"a" * 100000
    cases = [
        ("a long header", GET + b"X: " + big + b"\r\n\r\n"),
        ("a long path", b"GET /" + big + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("many headers", GET + b"X: y\r\n" * 20000 + b"\r\n"),
        ("a long method", big + b" / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("a huge length", POST + b"Content-Length: 1000000000000\r\n\r\n{"),
        ("a length beyond 64 bits", POST + b"Content-Length: 99999999999999999999999\r\n\r\n{"),
        ("a body over the limit", request("POST", PROMPT, b" " * (9 << 20))),
        ("chunks over the limit", POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 280),
    ]
    return each(port, n, r, cases, "oversize", half_close=False)


def smuggled(port, n, r, hold):
    chunk = b"Transfer-Encoding: chunked\r\n"
    cases = [
        ("both lengths", POST + b"Content-Length: 5\r\n" + chunk + b"\r\n0\r\n\r\n" + SECOND),
        ("both lengths, the other order", POST + chunk + b"Content-Length: 5\r\n\r\n0\r\n\r\n" + SECOND),
        ("two lengths", POST + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + SECOND),
        ("two equal lengths", POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" + SECOND),
        ("a list of lengths", POST + b"Content-Length: 2, 40\r\n\r\n{}" + SECOND),
        ("a negative length", POST + b"Content-Length: -1\r\n\r\n{}" + SECOND),
        ("a signed length", POST + b"Content-Length: +2\r\n\r\n{}" + SECOND),
        ("a hexadecimal length", POST + b"Content-Length: 0x2\r\n\r\n{}" + SECOND),
        ("a length with a blank inside", POST + b"Content-Length: 2 2\r\n\r\n{}" + SECOND),
        ("an empty length", POST + b"Content-Length: \r\n\r\n{}" + SECOND),
        ("an odd encoding", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND),
        ("two encodings", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SECOND),
        ("an encoding twice", POST + chunk + chunk + b"\r\n0\r\n\r\n" + SECOND),
        ("a blank before the colon", POST + b"Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SECOND),
        ("a folded encoding", POST + b"Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + SECOND),
        ("a fold that hides a length", POST + b"X: y\r\n Content-Length: 40\r\nContent-Length: 2\r\n\r\n{}" + SECOND),
        ("a tab in an encoding", POST + b"Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n" + SECOND),
        ("a body with GET", GET + b"Content-Length: 40\r\n\r\n" + SECOND),
        ("a chunk size that is no number", POST + chunk + b"\r\nzz\r\n{}\r\n0\r\n\r\n" + SECOND),
        ("a negative chunk", POST + chunk + b"\r\n-2\r\n{}\r\n0\r\n\r\n" + SECOND),
        ("a chunk beyond 64 bits", POST + chunk + b"\r\nfffffffffffffffff2\r\n{}\r\n0\r\n\r\n" + SECOND),
        ("a chunk longer than it says", POST + chunk + b"\r\n1\r\n{}\r\n0\r\n\r\n" + SECOND),
        ("a zero byte in a header", GET + b"X: a\0b\r\nContent-Length: 40\r\n\r\n" + SECOND),
        ("no version", b"GET /version\r\n\r\n" + SECOND),
        ("version 2", b"GET /version HTTP/2.0\r\nHost: x\r\n\r\n" + SECOND),
        ("a line without a colon", GET + b"junk\r\n\r\n" + SECOND),
    ]
    return each(port, n, r, cases, "smuggled")


def each(port, n, r, cases, what, half_close=True):
    """Every case at least once: refused, and then the end of the connection. The smuggled request would be
    answered with 200. (libmicrohttpd 0.9.75 writes the head of some of its own 400s twice.)"""
    problems = []
    for i in range(max(n, len(cases))):
        name, data = cases[i % len(cases)]
        got = talk(port, data, 15, half_close)
        codes = statuses(got)
        if got is None:
            problems.append(f"{what}: {name}: neither an answer nor an end")
        elif any(not 400 <= c < 500 and c != 505 for c in codes):
            problems.append(f"{what}: {name}: statuses {codes}")
    return sorted(set(problems))


def truncated(port, n, r, hold):
    """Requests cut anywhere, with a FIN or an RST: nothing is answered with success."""
    problems = []
    whole = request("POST", PROMPT, {"prompt": "a b c", "max_tokens": 2})
    for _ in range(n // 2):
        s = connect(port)
        s.sendall(whole[: r.randrange(len(whole))])
        reset(s)
    cuts = [r.randrange(len(whole)) for _ in range(n // 2)]
    for cut, got in zip(cuts, talk_many(port, [whole[:cut] for cut in cuts])):
        if got is None or any(not 400 <= c < 500 for c in statuses(got)):
            problems.append(f"truncated at {cut}: {statuses(got)}, {'open' if got is None else 'closed'}")
    return sorted(set(problems))


def disconnecting(port, n, r, hold):
    """Leave in the middle of a stream, or before it begins, in both manners."""
    for i in range(n):
        s = connect(port, 30)
        try:
            s.sendall(request("POST", PROMPT, LONG))
            for _ in range(r.randrange(4)):
                s.recv(r.randrange(1, 4000))
        except OSError:
            pass
        if i % 2:
            reset(s)
        else:
            s.close()
    return []


def pipelined(port, n, r, hold):
    """Many requests in one packet are answered in order, each with its own."""
    problems = []
    for i in range(n):
        count = r.randrange(2, 20)
        parts = [("/version", 200) if r.random() < 0.5 else ("/nothing", 404) for _ in range(count)]
        data = b"".join(request("GET", path) for path, _ in parts[:-1])
        data += request("GET", parts[-1][0], headers="Connection: close\r\n")
        codes = statuses(talk(port, data, 20, half_close=False))
        # A refusal may end the connection: then the rest was not answered at all.
        if codes != [c for _, c in parts][: len(codes)] or not codes:
            problems.append(f"pipelined: {codes}, wanted {[c for _, c in parts]}")
    return problems[:3]


BAD_JSON = [
    b"", b" ", b"{", b"}", b"[]", b"null", b"1", b'"x"', b"{]", b"{}", b'{"prompt"}', b'{"prompt": }', b'{"prompt": "x",}',
    b'{"prompt": "x"} {', b'\xef\xbb\xbf{"prompt": "x"}', b'{"prompt": "\xff\xfe"}', b'{"prompt": "\\ud800"}', b'{"prompt": "\\x"}',
    b'{"prompt": "a\x00b"}', b'{"prompt": "x", "prompt": "y"}', b'{"prompt": NaN}', b'{"prompt": "x", "temperature": Infinity}',
    b'{"prompt": "x", "temperature": 1e999}', b'{"prompt": "x", "temperature": -1}', b'{"prompt": "x", "temperature": "hot"}',
    b'{"prompt": "x", "max_tokens": -1}', b'{"prompt": "x", "max_tokens": 1.5}', b'{"prompt": "x", "max_tokens": 1e30}',
    b'{"prompt": "x", "max_tokens": 99999999999999999999}', b'{"prompt": [1, "x"]}', b'{"prompt": [1e9]}', b'{"prompt": [-1]}',
    b'{"prompt": [[[1]]]}', b'{"prompt": {}}', b'{"prompt": true}', b'{"prompt": "x", "n": 1000000}',
    b'{"prompt": "x", "n": 0}', b'{"prompt": "x", "stop": [[]]}', b'{"prompt": "x", "stop": [1]}', b'{"prompt": "x", "stop": ["' +
    b'", "'.join([b"s"] * 100) + b'"]}', b'{"prompt": "x", "logit_bias": {"x": 1}}', b'{"prompt": "x", "logit_bias": {"1": 1e9}}',
    b'{"prompt": "x", "logit_bias": {"-1": 1}}', b'{"prompt": "x", "logprobs": 1000}', b'{"prompt": "x", "seed": "x"}',
    b'{"prompt": "x", "frobnicate": 1}', b'{"prompt": "x", "top_p": 0}', b'{"prompt": "x", "top_p": 2}', b'{"prompt": "x", "stream": "yes"}',
    b'{"prompt": "x", "response_format": {"type": "xml"}}', b'{"prompt": "x", "model": "another"}', b"[" * 100000,
    b'{"a":' * 50000, b'{"prompt": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"prompt": "' + b"a" * 3000000, b"\x00" * 100,
    b'{"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}}}}',
    b'{"messages": "x"}', b'{"messages": []}', b'{"messages": [{}]}', b'{"messages": [{"role": "x", "content": 1}]}',
]


def malformed(port, n, r, hold):
    """Bodies that are no request: a 4xx with an error object, on a connection that goes on."""
    import http.client
    problems = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for i in range(max(n, 2 * len(BAD_JSON))):
        path = (PROMPT, "/v1/chat/completions", "/tokenize", "/detokenize", "/apply-template")[i % 5 if i >= len(BAD_JSON) else 0]
        body = BAD_JSON[i % len(BAD_JSON)]
        if i >= 2 * len(BAD_JSON):
            body = mutated(r)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json", "Authorization": f"Bearer {BAD_KEY}"})
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as e:
            problems.append(f"malformed: {body[:60]!r}: {e!r}")
            connection.close()
            continue
        must = i < len(BAD_JSON) and not body.startswith(b'{"messages')
        if answer.status >= 500 or (must and answer.status < 400):
            problems.append(f"malformed: {path} {body[:60]!r}: status {answer.status} {data[:100]!r}")
        elif answer.status >= 400 and "message" not in json.loads(data)["error"]:
            problems.append(f"malformed: {body[:60]!r}: no error object: {data[:100]!r}")
    return problems[:8]


def mutated(r):
    """A proper request with some bytes changed."""
    body = bytearray(json.dumps({"prompt": "a b", "max_tokens": 2, "temperature": 0.5, "stop": ["x"], "n": 1,
                                 "logit_bias": {"5": 1}, "seed": 3, "stream": False}).encode())
    for _ in range(r.randrange(1, 6)):
        at = r.randrange(len(body))
        what = r.randrange(3)
        if what == 0:
            body[at] = r.randrange(256)
        elif what == 1:
            del body[at : at + r.randrange(1, 9)]
        else:
            body[at:at] = bytes(r.choice([b"9" * 20, b"[[", b'"', b"\\u0000", b"e5", b"-"]))
    return bytes(body)


def noise(port, n, r, hold):
    """Random bytes, and proper requests with some bytes changed."""
    problems, datas = [], []
    whole = request("POST", PROMPT, {"prompt": "a", "max_tokens": 1})
    for i in range(n):
        data = bytearray(r.randbytes(r.randrange(1, 400)) if i % 2 else whole)
        if i % 2 == 0:
            for _ in range(r.randrange(1, 4)):
                data[r.randrange(len(data))] = r.randrange(256)
        datas.append(bytes(data))
    for data, got in zip(datas, talk_many(port, datas)):
        codes = statuses(got)
        if got is None or any(c >= 500 and c not in (501, 505) for c in codes):
            problems.append(f"noise: {'no end' if got is None else codes} for {data!r}")
    return problems[:3]


#        attack, how often in a short run and in a full one, waits for the others
ATTACKS = ((idle, 250, 1000, True), (slow_readers, 8, 32, True), (oversize, 16, 400, False), (smuggled, 52, 2000, False),
           (truncated, 300, 4000, False), (disconnecting, 200, 3000, False), (pipelined, 60, 1000, False),
           (malformed, 400, 10000, False), (noise, 300, 5000, False))


def attack(function, port, n, seed, hold, out):
    try:
        start = time.monotonic()
        found = function(port, n, random.Random(seed), hold)
        out.put((f"{function.__name__} ({n}, {time.monotonic() - start:.1f} s)", found))
    except Exception as e:
        out.put((function.__name__, [f"{function.__name__} broke: {e!r}"]))


def quantile(values, q):
    x = sorted(values)
    return x[min(len(x) - 1, int(q * len(x)))] if x else 0.0


def run_attacks(server, full, seed):
    """All at once while good clients stream; (problems, statistics)."""
    want = [joined(list(stream(server.port, body, GOOD_KEY))) for body in GOOD]
    preempted = server.metrics()["num_preemptions_total"]
    clients = [Good(server.port, body, w) for body, w in zip(GOOD, want)]
    hold, out, problems, idlers, rest = multiprocessing.Event(), multiprocessing.Queue(), [], [], []
    for i, (function, short, long, waits) in enumerate(ATTACKS):
        p = multiprocessing.Process(target=attack, args=(function, server.port, long if full else short, seed + i, hold, out))
        (idlers if waits else rest).append(p)
    for p in idlers:
        p.start()
    time.sleep(0.5)
    for c in clients:
        c.start()
    for p in rest:
        p.start()
    for _ in rest:
        name, found = out.get(timeout=1200)
        print(f"  {name}: {len(found)} problems", flush=True)
        problems += found
    held = server.descriptors()
    for c in clients:
        c.stopped = True
    for c in clients:
        c.join()
        problems += c.problems
    hold.set()
    for _ in idlers:
        problems += out.get(timeout=120)[1]
    for p in idlers + rest:
        p.join()
    gaps, first = [g for c in clients for g in c.gaps], [f for c in clients for f in c.first]
    return problems, {"good_requests": sum(c.n for c in clients), "descriptors_at_the_end": held,
                      "preemptions": server.metrics()["num_preemptions_total"] - preempted,
                      "ttft_p99_s": quantile(first, 0.99), "gap_p50_s": quantile(gaps, 0.5), "gap_p99_s": quantile(gaps, 0.99),
                      "gap_max_s": max(gaps, default=0)}


def settle(server, before, patience=20):
    """What a server holds that it did not hold before: blocks, requests, descriptors, threads."""
    end = time.monotonic() + patience
    while True:
        now = (*server.in_use(), server.descriptors(), server.threads())
        if all(b <= a for a, b in zip(before, now)) or time.monotonic() > end:
            break
        time.sleep(0.2)
    names = ("blocks in use", "requests running", "requests waiting", "descriptors", "threads")
    return [f"after the attacks: {name}: {b}, before {a}" for name, a, b in zip(names, before, now) if b > a]


def out_of_descriptors(server):
    """No more descriptors: who is connected goes on; when there are some again, so does the rest."""
    problems, sockets = [], []
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    want = joined(list(stream(server.port, GOOD[0], GOOD_KEY)))
    good = Good(server.port, {**GOOD[0]}, want)
    running = stream(server.port, {**GOOD[1], "max_tokens": 400}, GOOD_KEY)
    next(running)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.descriptors() + 4, before[1]))
    for _ in range(60):
        try:
            s = connect(server.port, 2)
            s.sendall(request("GET", "/version"))
            sockets.append(s)
        except OSError:
            break
    try:
        if sum(1 for _ in running) < 10:
            problems.append("out of descriptors: a running stream ended early")
    except Exception as e:
        problems.append(f"out of descriptors: a running stream failed: {e!r}")
    cpu = server.cpu_seconds()
    time.sleep(1)
    cpu = server.cpu_seconds() - cpu
    if cpu > 0.5:
        problems.append(f"out of descriptors: it spins, {cpu:.2f} s of processor in a second")
    for s in sockets:
        s.close()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    good.start()
    time.sleep(1)
    good.stopped = True
    good.join(60)
    if good.is_alive() or not good.n:
        problems.append("out of descriptors: it takes no connections afterwards")
    return problems + good.problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--full", action="store_true", help="by the thousand; minutes")
    parser.add_argument("--rounds", type=int, default=2, help="of all attacks; memory is compared between them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-memory", action="store_true", help="do not judge memory: a sanitizer keeps what is freed")
    parser.add_argument("--max-gap", type=float, default=5.0, help="seconds between two tokens of a good client")
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    problems, rss = [], []
    with Server(args.program, args.model, "--api-key", GOOD_KEY, "--api-key", BAD_KEY, key=GOOD_KEY) as server:
        server.fill_cache()
        server.wait_idle()
        rss.append(server.rss_kb())
        before = (*server.in_use(), server.descriptors(), server.threads())
        for i in range(args.rounds):
            start = time.monotonic()
            found, statistics = run_attacks(server, args.full, args.seed + 100 * i)
            found += settle(server, before)
            rss.append(server.rss_kb())
            print(json.dumps({"round": i, "seconds": round(time.monotonic() - start, 1), "rss_kb": rss[-1],
                              **{k: round(v, 4) for k, v in statistics.items()}}), flush=True)
            if statistics["gap_max_s"] > args.max_gap:
                found.append(f"a good client waited {statistics['gap_max_s']:.2f} s between two tokens")
            problems += found
        grown = rss[-1] > rss[0] + MAX_GROWTH_KB or (len(rss) > 4 and rss[-1] > rss[-2] * 1.02 + 1024)
        if grown and not args.no_memory:
            problems.append(f"memory grew from round to round: {rss} kB")
        problems += out_of_descriptors(server)
        problems += settle(server, before)
        status = server.stop()
        if status:
            problems.append(f"SIGTERM: exit status {status}")
    for p in dict.fromkeys(problems):
        print("FAILED:", p)
    print("failed" if problems else "passed")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
