"""polymath serve as a child process, and small clients for tests; the standard library only."""

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import time


class Server:
    """A server on a free port of 127.0.0.1; use it with `with`."""

    def __init__(self, program, model, *options, before=()):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([*before, program, "serve", model, "--port", "0", *options],
                                        stderr=self.log, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.pid, self.port = self.process.pid, 0
        end = time.monotonic() + 120
        while not self.port:
            found = re.search(r"at http://127\.0\.0\.1:(\d+)", self.said())
            if found:
                self.port = int(found.group(1))
            elif self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the server did not start: {self.said()}")
            else:
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def stop(self, patience=60):
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return "it did not end"

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def rss_kb(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def get(self, path, timeout=30):
        """(status, body)"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, path, body, timeout=60):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def metrics(self):
        """The sums of samples by name without prefix and labels."""
        sums = {}
        for line in self.get("/metrics")[1].splitlines():
            found = re.match(r"polymath:(\w+)(?:\{.*\})? (\S+)$", line)
            if found:
                sums[found.group(1)] = sums.get(found.group(1), 0) + float(found.group(2))
        return sums

    def in_use(self):
        """(blocks of the cache in use, requests running, requests waiting)"""
        m = self.metrics()
        return (round(m["kv_cache_usage_perc"] * m["kv_cache_blocks"]), int(m["num_requests_running"]),
                int(m["num_requests_waiting"]))

    def wait_idle(self, patience=30):
        """Waits until nothing runs and waits; the blocks in use then."""
        end = time.monotonic() + patience
        while True:
            blocks, running, waiting = self.in_use()
            if running + waiting == 0 or time.monotonic() > end:
                return blocks, running, waiting
            time.sleep(0.1)


def request(method, path, body=None, headers=""):
    """The bytes of a proper request."""
    if body is None:
        return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def connect(port, timeout=10, receive_buffer=None):
    s = socket.socket()
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.settimeout(timeout)
    s.connect(("127.0.0.1", port))
    return s


def reset(s):
    """Closes with RST instead of FIN."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def talk(port, data, timeout=10, half_close=True):
    """Sends data; what comes back until the server closes. None: it neither answers nor closes in time."""
    got = b""
    with connect(port, timeout) as s:
        try:
            s.sendall(data)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all was sent; what it answered may still be there
        try:
            while True:
                part = s.recv(65536)
                if not part:
                    return got
                got += part
        except socket.timeout:
            return got or None
        except OSError:
            return got


def statuses(data):
    """The statuses of all answers in data."""
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3})", data or b"")]


def stream(port, body, path="/v1/completions", timeout=120):
    """Yields (seconds since sending, event as text) of a streamed answer; raises on any other."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {answer.read(300)}")
        while True:
            line = answer.readline()
            if not line:
                raise RuntimeError("the stream ended without [DONE]")
            if line.startswith(b"data: "):
                text = line[6:].strip().decode()
                if text == "[DONE]":
                    return
                yield time.monotonic() - start, text
    finally:
        connection.close()
