"""serve_http.py PROGRAM SOURCE [TEST...] - the server as a socket sees it: paths, methods, limits,
keys, clients that misbehave or leave, and how it ends. Only Python's standard library."""
import json
import os
import re
import signal
import socket
import sys
import threading
import time

sys.dont_write_bytecode = True
from server import MODEL, Server, Tests, equal, events, has, read_all

program, source = sys.argv[1:3]
model = os.path.join(source, MODEL)
tests = Tests()
LONG = {"prompt": "def add(a, b):", "max_tokens": 900, "ignore_eos": True, "temperature": 0}
SHORT = {"prompt": "def add(a, b):", "max_tokens": 4, "temperature": 0}


def error_of(answer):
    status, body = answer
    return status, body["error"]["code"]


# ---------------------------------------------------------------- one server, many questions

def reports_on_itself(s):
    equal(s.get("/health/live"), (200, {"status": "ok"}))
    for path in ("/health/ready", "/health"):
        status, body = s.get(path)
        equal((status, body["status"]), (200, "ready"))
    status, body = s.get("/v1/models")
    equal((status, body["data"][0]["id"]), (200, "polymath-16m"))
    equal(s.get("/version")[0], 200)
    status, headers, page = s.ask("GET", "/")
    equal(status, 200)
    has(headers["Content-Security-Policy"], "default-src 'none'")
    has(page, b"<html")


def paths_and_methods_are_checked(s):
    equal(error_of(s.get("/nothing")), (404, "unknown_path"))
    equal(error_of(s.get("/v1/requests/a/b")), (404, "unknown_path"))
    equal(error_of(s.get("/v1/completions")), (405, "method_not_allowed"))
    status, headers, _ = s.ask("PUT", "/v1/models", b"")
    equal((status, headers["Allow"]), (405, "GET, HEAD"))
    equal(s.ask("POST", "/v1/completions", "{}", {"Content-Type": "text/plain"})[0], 415)
    equal(s.ask("POST", "/v1/completions", "{}", {"Content-Type": ""})[0], 415)
    equal(s.ask("POST", "/v1/completions", json.dumps(SHORT),
                {"Content-Type": "application/JSON; charset=utf-8"})[0], 200)
    for path in ("/v1/embeddings", "/v1/responses", "/v1/rerank"):
        equal(error_of(s.post(path, {})), (501, "not_implemented"))
    status, headers, body = s.ask("HEAD", "/health/live")
    equal((status, body), (200, b""))


def tokens_are_text_and_back(s):
    status, body = s.post("/tokenize", {"prompt": "def add(é):", "return_token_strs": True})
    equal((status, body["count"]), (200, len(body["tokens"])))
    equal("".join(body["token_strs"][1:]), "def add(é):")
    status, back = s.post("/detokenize", {"tokens": body["tokens"][1:]})
    equal((status, back["prompt"]), (200, "def add(é):"))
    status, plain = s.post("/tokenize", {"content": "x", "add_special": False})
    equal((status, plain["count"]), (200, 1))
    equal(s.post("/detokenize", {"tokens": [10**9]})[0], 400)
    equal(s.post("/tokenize", {})[0], 400)


def the_experts_are_counted(s):
    equal(s.get("/experts")[0], 200)
    s.post("/v1/completions", SHORT)
    status, body = s.get("/experts")
    equal((body["layers"], body["experts"], len(body["counts"])), (8, 16, 8))
    equal(len({sum(layer) for layer in body["counts"]}), 1)
    if not body["tokens"] > 0:
        raise AssertionError("no tokens were counted")
    has(s.ask("GET", "/metrics")[2].decode(), "polymath:expert_imbalance{")


def metrics_count(s):
    before = s.metric("request_success_total", finished_reason="length")
    tokens = s.metric("generation_tokens_total")
    s.post("/v1/completions", SHORT)
    equal(s.metric("request_success_total", finished_reason="length"), before + 1)
    equal(s.metric("generation_tokens_total"), tokens + 4)
    text = s.ask("GET", "/metrics")[2].decode()
    for line in text.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            float(value)
            has(name, "polymath:")
    buckets = [float(line.split()[-1]) for line in text.splitlines()
               if line.startswith("polymath:time_to_first_token_seconds_bucket")]
    equal(buckets, sorted(buckets))


def lengths_are_not_ambiguous(s):
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    body = json.dumps(SHORT)
    both = head + f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"
    twice = head + f"Content-Length: {len(body)}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    other = head + "Transfer-Encoding: gzip\r\n\r\n"
    huge = head + "Content-Length: 99999999999999999999\r\n\r\n"
    spaced = head + "Content-Length : 2\r\n\r\n{}"
    folded = head + f"Content-Length:\r\n {len(body)}\r\n\r\n{body}"
    folded_more = head + f"Content-Length: 1\r\n {len(body)}\r\n\r\n{body}"
    return_alone = head + f"X-A: b\rContent-Length: 1\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    old = (head + f"Transfer-Encoding: chunked\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0")
    for text in (both + f"{len(body):x}\r\n{body}\r\n0\r\n\r\n", twice, other, spaced, folded,
                 folded_more, return_alone, old):
        answer = s.raw(text.encode() + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", 5)
        has(answer, b" 400 Bad Request")
        equal(answer.count(b"HTTP/1.1 "), 1)
    for length in ("-1", "+5", "5x", ""):
        has(s.raw((head + f"Content-Length: {length}\r\n\r\nhello").encode(), 5), b" 400 Bad Request")
    has(s.raw(huge.encode(), 3), b"HTTP/1.1 413")
    has(s.raw(b"GET /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 3),
        b"HTTP/1.1 400")
    has(s.raw(b"GET /health/live HTTP/1.1\r\n\r\n", 3), b"HTTP/1.1 400")  # no Host
    chunked = head + f"Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    has(s.raw((chunked.replace("Host", "Connection: close\r\nHost")).encode(), 20), b"HTTP/1.1 200")


def sizes_are_bounded(s):
    equal(s.ask("GET", "/health/live", headers={"X-Long": "x" * 20000})[0], 431)
    equal(s.ask("GET", "/health/live", headers={"X-Long": "x" * 15000})[0], 200)
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    has(s.raw((head + "Content-Length: 9000000\r\n\r\n").encode(), 3), b"HTTP/1.1 413")
    with s.connect() as c:  # a body without a length is cut where it becomes too long
        c.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
        piece = b"10000\r\n" + b" " * 65536 + b"\r\n"
        try:
            for _ in range(130):
                c.sendall(piece)
            c.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        has(read_all(c), b"HTTP/1.1 413")
    deep = "[" * 100000 + "]" * 100000
    equal(s.ask("POST", "/v1/completions", '{"prompt": ' + deep + "}")[0], 400)


def fields_are_named(s):
    def param(**more):
        status, body = s.post("/v1/completions", {**SHORT, **more})
        equal(status, 400)
        return body["error"]["param"]
    for name, value in (("temperature", "hot"), ("temperature", -1), ("temperature", 1e300),
                        ("max_tokens", -5), ("max_tokens", 1.5), ("max_tokens", 2**40), ("n", 0),
                        ("n", 17), ("top_p", 0), ("top_p", 2), ("logit_bias", {"x": 1}),
                        ("logit_bias", {"1": 1000}), ("stop", [""]), ("stop", ["x"] * 17),
                        ("logprobs", 33), ("suffix", "x"), ("best_of", 3), ("tools", []),
                        ("response_format", {"type": "xml"}), ("n_discard", -1), ("seed", 0.5),
                        ("stream_options", {"x": 1}), ("prompt", 5), ("prompt", [-1]),
                        ("prompt", [10**9]), ("prompt", ["a", 1]), ("presence_penalty", 3)):
        equal(param(**{name: value}), name)
    equal(s.post("/v1/completions", {})[1]["error"]["param"], "prompt")
    for text in ("{", "[]", '{"prompt": NaN}', '{"prompt": "x", "temperature": 1e999}',
                 '{"prompt": "x", "prompt": "y"}', ""):
        equal(s.ask("POST", "/v1/completions", text)[0], 400)
    for harmless in ({"user": "me"}, {"metadata": {"a": "b"}}, {"store": False}, {"suffix": None},
                     {"best_of": 1}, {"use_beam_search": False}, {"stop": None}, {"top_k": -1}):
        equal(s.post("/v1/completions", {**SHORT, **harmless})[0], 200)
    status, body = s.post("/v1/completions", {**SHORT, "model": "gpt-4"})
    equal((status, body["error"]["code"]), (404, "model_not_found"))


def the_context_is_a_limit(s):
    status, body = s.post("/v1/completions", {**SHORT, "prompt": [5] * 1024})
    equal((status, body["error"]["code"]), (400, "context_length_exceeded"))
    has(body["error"]["message"], "1024 tokens")
    status, body = s.post("/v1/completions", {**SHORT, "prompt": "a b " * 1000000})
    equal((status, body["error"]["code"]), (400, "context_length_exceeded"))
    has(body["error"]["message"], "4000000 bytes")
    status, body = s.post("/v1/completions", {**SHORT, "prompt": [5] * 1020, "max_tokens": 500,
                                              "ignore_eos": True})
    equal((status, body["choices"][0]["finish_reason"]), (200, "length"))
    if body["usage"]["completion_tokens"] > 5:
        raise AssertionError(body["usage"])


def connections_are_kept(s):
    import http.client
    c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=30)
    for _ in range(3):
        c.request("POST", "/v1/completions", json.dumps(SHORT),
                  {"Content-Type": "application/json"})
        equal(c.getresponse().read()[:10], b'{"id":"cmp')
        c.request("POST", "/v1/completions", json.dumps({**SHORT, "stream": True}),
                  {"Content-Type": "application/json"})
        has(c.getresponse().read(), b"[DONE]")
        c.request("GET", "/nothing")
        equal(c.getresponse().read()[:9], b'{"error":')
    c.close()
    two = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2  # pipelined
    equal(s.raw(two, 2).count(b"200 OK"), 2)


def a_client_that_leaves_is_noticed(s):
    for stream in (False, True):
        before = s.metric("request_success_total", finished_reason="abort")
        c = s.begin("/v1/completions", {**LONG, "stream": stream})
        s.wait_for(lambda: s.get("/v1/requests")[1]["requests"])
        c.close()
        s.wait_for(lambda: s.metric("request_success_total", finished_reason="abort") == before + 1)
        s.wait_for(lambda: not s.get("/v1/requests")[1]["requests"])
        equal(s.metric("num_requests_running"), 0)


def a_waiting_client_that_leaves_is_noticed(s):
    """Behind a full batch, where nothing is written that could fail."""
    busy = [s.begin("/v1/completions", {**LONG, "n": 16}) for _ in range(2)]
    s.wait_for(lambda: s.metric("num_requests_running") == 32)
    late = s.begin("/v1/completions", {**LONG, "stream": True})
    s.wait_for(lambda: s.metric("num_requests_waiting") == 1)
    late.close()
    s.wait_for(lambda: s.metric("num_requests_waiting") == 0, 5)
    for c in busy:
        c.close()
    s.wait_for(lambda: s.metric("num_requests_running") == 0)


def requests_are_listed_and_cancelled(s):
    c = s.begin("/v1/completions", {**LONG, "stream": True})
    s.wait_for(lambda: s.get("/v1/requests")[1]["requests"])
    listed = s.get("/v1/requests")[1]["requests"][0]
    equal(listed["prompt_tokens"], 7)
    has(("waiting", "prefill", "decode"), listed["state"])
    status, _, body = s.ask("DELETE", "/v1/requests/cmpl-" + listed["id"])
    equal((status, json.loads(body)["deleted"]), (200, True))
    text = b""
    while b"[DONE]" not in text:
        text += c.recv(65536)
    c.close()
    has(text, b'"finish_reason":"abort"')
    equal(s.ask("DELETE", "/v1/requests/" + listed["id"])[0], 404)


def cors_is_off(s):
    status, headers, _ = s.ask("OPTIONS", "/v1/models", headers={"Origin": "http://a.example"})
    equal((status, headers["Access-Control-Allow-Origin"]), (405, None))
    _, headers, _ = s.ask("GET", "/v1/models", headers={"Origin": "http://a.example"})
    equal(headers["Access-Control-Allow-Origin"], None)


def odd_bytes_do_no_harm(s):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50, b"\0" * 100,
                 b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50, b"G" * 50000,
                 b"GET /" + b"%" * 100 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"):
        s.raw(data, 0.5)
    equal(s.get("/health/live")[0], 200)


# ---------------------------------------------------------------- servers of their own

def keys_are_asked_for():
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"polymath-keys-{os.getpid()}")
    with open(path, "w") as f:
        f.write("# of the test\nfrom-file\n\n")
    try:
        with Server(program, model, "--api-key", "one", "--api-key", "two", "--api-key-file", path,
                    POLYMATH_API_KEY="environment") as s:
            equal(s.get("/health/live")[0], 200)
            for url in ("/", "/v1/models", "/metrics", "/health", "/nothing", "/experts"):
                status, headers, _ = s.ask("GET", url)
                equal(status, 401)
                has(headers["WWW-Authenticate"], "Basic" if url == "/" else "Bearer")
            for key in ("one", "two", "from-file", "environment"):
                equal(s.get("/v1/models", Authorization="Bearer " + key)[0], 200)
            for wrong in ("", "Bearer", "Bearer ", "Bearer on", "Bearer onee", "Bearer ones",
                          "one", "Basic x", "Basic " + "QQ" * 3000, "Bearer \xff"):
                equal(s.get("/v1/models", Authorization=wrong)[0], 401)
            equal(s.ask("GET", "/", headers={"Authorization": "Basic dXNlcjpvbmU="})[0], 200)
            keys_have_their_own_requests(s)
    finally:
        os.unlink(path)


def keys_have_their_own_requests(s):
    one, two = {"Authorization": "Bearer one"}, {"Authorization": "Bearer two"}
    c = s.begin("/v1/completions", {**LONG, "stream": True}, "Authorization: Bearer one\r\n")
    s.wait_for(lambda: s.get("/v1/requests", **one)[1]["requests"])
    name = s.get("/v1/requests", **one)[1]["requests"][0]["id"]
    equal(s.get("/v1/requests", **two)[1]["requests"], [])
    equal(s.ask("DELETE", "/v1/requests/" + name, headers=two)[0], 404)
    equal(s.ask("DELETE", "/v1/requests/" + name, headers=one)[0], 200)
    read_until(c, b"[DONE]")
    c.close()
    prompt = {"prompt": "import os\nimport sys\nimport re\n" * 6, "max_tokens": 1}
    def cached(headers, **more):
        return s.post("/v1/completions", {**prompt, **more},
                      **headers)[1]["usage"]["prompt_tokens_details"]["cached_tokens"]
    equal(cached(one), 0)
    if cached(one) == 0:
        raise AssertionError("a prefix was not found again")
    equal(cached(two), 0)
    equal(cached(two, cache_salt="x"), 0)


def read_until(c, mark):
    text = b""
    while mark not in text:
        part = c.recv(65536)
        if not part:
            raise AssertionError(f"no {mark!r} in {text[-300:]!r}")
        text += part
    return text


def other_origins_may_be_let_in():
    with Server(program, model, "--cors-origin", "http://a.example") as s:
        status, headers, _ = s.ask("OPTIONS", "/v1/completions",
                                   headers={"Origin": "http://a.example"})
        equal((status, headers["Access-Control-Allow-Origin"]), (204, "http://a.example"))
        equal(s.ask("OPTIONS", "/v1/completions", headers={"Origin": "http://b.example"})[0], 405)
        _, headers, _ = s.ask("GET", "/nothing", headers={"Origin": "http://a.example"})
        equal(headers["Access-Control-Allow-Origin"], "http://a.example")


def names_can_be_chosen():
    with Server(program, model, "--served-model-name", "a", "--served-model-name", "b/c") as s:
        equal([m["id"] for m in s.get("/v1/models")[1]["data"]], ["a", "b/c"])
        equal(s.post("/v1/completions", {**SHORT, "model": "b/c"})[1]["model"], "a")
        equal(s.post("/v1/completions", {**SHORT, "model": "polymath-16m"})[0], 404)
        equal(s.get("/v1/models/b/c")[1]["id"], "b/c")
        equal(s.get("/v1/models/polymath-16m")[0], 404)


def a_full_queue_says_so():
    with Server(program, model, "--max-seqs", "1", "--max-queue", "2") as s:
        held = [s.begin("/v1/completions", LONG)]
        s.wait_for(lambda: s.metric("num_requests_running") == 1)
        held += [s.begin("/v1/completions", LONG) for _ in range(2)]
        s.wait_for(lambda: s.metric("num_requests_waiting") == 2)
        status, headers, body = s.ask("POST", "/v1/completions", SHORT)
        equal((status, json.loads(body)["error"]["code"]), (429, "queue_full"))
        equal(headers["Retry-After"], "1")
        equal(s.ask("POST", "/v1/completions", {**SHORT, "n": 2, "stream": True})[0], 429)
        for c in held:
            c.close()
        s.wait_for(lambda: s.metric("num_requests_running") == 0)
        equal(s.post("/v1/completions", SHORT)[0], 200)


def a_signal_drains():
    with Server(program, model, "--grace", "300") as s:
        streams = [s.begin("/v1/completions", {**LONG, "max_tokens": 600, "stream": True})
                   for _ in range(3)]
        s.wait_for(lambda: s.metric("num_requests_running") == 3)
        s.process.send_signal(signal.SIGTERM)
        s.wait_for(lambda: s.get("/health/ready")[0] == 503)
        equal(s.get("/health/live")[0], 200)
        equal(error_of(s.post("/v1/completions", SHORT)), (503, "draining"))
        for c in streams:
            has(read_until(c, b"[DONE]"), b'"finish_reason":"length"')
            c.close()
        equal(s.process.wait(20), 0)


def the_grace_ends():
    with Server(program, model, "--grace", "0") as s:
        c = s.begin("/v1/completions", {**LONG, "n": 16})
        s.wait_for(lambda: s.metric("num_requests_running") == 16)
        started = time.time()
        equal(s.stop(), 0)
        if time.time() - started > 5:
            raise AssertionError("it took its time")
        c.close()


def a_second_signal_ends_at_once():
    with Server(program, model, "--grace", "600") as s:
        c = s.begin("/v1/completions", {**LONG, "n": 16})
        s.wait_for(lambda: s.metric("num_requests_running") == 16)
        s.process.send_signal(signal.SIGINT)
        s.wait_for(lambda: s.get("/health")[0] == 503)
        equal(s.stop(signal.SIGINT, 5), 0)
        c.close()


def files_run_out():
    """The table of files is full: who is connected goes on, and who waits comes in later."""
    with Server(program, model, prefix=("prlimit", "--nofile=160:160")) as s:
        stream = s.begin("/v1/completions", {**LONG, "stream": True})
        idle = []
        for _ in range(140):
            try:
                idle.append(s.connect(1))
            except OSError:
                break
        has(read_until(stream, b"[DONE]"), b"[DONE]")
        stream.close()
        for c in idle:
            c.close()
        s.wait_for(lambda: s.get("/health/live")[0] == 200)
        equal(s.post("/v1/completions", SHORT)[0], 200)


def slow_clients_are_cut_off():
    with Server(program, model, "--read-timeout", "1") as s:
        slow = [s.connect() for _ in range(40)]
        body = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{")
        for i, c in enumerate(slow):
            c.sendall(b"GET /health/live HTTP/1.1\r\nX-" if i % 2 else body)
        good = s.begin("/v1/completions", {**LONG, "stream": True})
        end = time.time() + 10
        for drip in range(30):  # a byte now and then does not help
            for c in slow:
                try:
                    c.sendall(b"a")
                except OSError:
                    pass
            time.sleep(0.1)
        for i, c in enumerate(slow):
            text = read_all(c)
            if i % 2 == 0:
                has(text, b"HTTP/1.1 408")
                head, _, rest = text.partition(b"\r\n\r\n")
                equal(int(re.search(rb"Content-Length: (\d+)", head)[1]), len(rest))
                equal(json.loads(rest)["error"]["code"], "request_timeout")
            c.close()
        if time.time() > end:
            raise AssertionError("slow clients stayed")
        has(read_until(good, b"[DONE]"), b'"finish_reason":"length"')
        good.close()


def many_clients_at_once():
    with Server(program, model) as s:
        alone = s.post("/v1/completions", {**SHORT, "max_tokens": 24})[1]["choices"][0]["text"]
        found = []
        def one(i):
            status, _, text = s.ask("POST", "/v1/completions",
                                    {**SHORT, "max_tokens": 24, "stream": i % 2 == 0}, timeout=120)
            text = text.decode()
            if i % 2 == 0:
                equal(events(text)[-1], "[DONE]")
                text = "".join(json.loads(e)["choices"][0]["text"] for e in events(text)[:-1])
            else:
                text = json.loads(text)["choices"][0]["text"]
            found.append(text)
        threads = [threading.Thread(target=one, args=(i,)) for i in range(64)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(found, [alone] * 64)


def what_is_wrong_is_said():
    import subprocess
    for arguments, part in ((["--port", "x"], "port"), (["--host", "nowhere.invalid"], "host"),
                            (["--api-key", "a b"], "api-key"), (["--api-key-file", "/none"], "none"),
                            (["--max-body", "1"], "max-body")):
        p = subprocess.run([program, "serve", model, *arguments], stderr=subprocess.PIPE, text=True,
                           timeout=30)
        if p.returncode not in (1, 2):
            raise AssertionError(p.returncode)
        has(p.stderr, part)
    with Server(program, model) as s:
        p = subprocess.run([program, "serve", model, "--port", str(s.port)], stderr=subprocess.PIPE,
                           text=True, timeout=30)
        equal(p.returncode, 1)
        has(p.stderr, "in use")


with Server(program, model) as shared:
    tests.run([reports_on_itself, paths_and_methods_are_checked, tokens_are_text_and_back,
               the_experts_are_counted, metrics_count, lengths_are_not_ambiguous,
               sizes_are_bounded, fields_are_named, the_context_is_a_limit, connections_are_kept,
               a_client_that_leaves_is_noticed, a_waiting_client_that_leaves_is_noticed,
               requests_are_listed_and_cancelled, cors_is_off, odd_bytes_do_no_harm], shared)
    tests.run([lambda s: equal(s.stop(), 0)], shared)
tests.run([keys_are_asked_for, other_origins_may_be_let_in, names_can_be_chosen,
           a_full_queue_says_so, a_signal_drains, the_grace_ends, a_second_signal_ends_at_once,
           files_run_out, slow_clients_are_cut_off, many_clients_at_once, what_is_wrong_is_said])
tests.end()
