"""What attacks, soaks and measurements need beyond server.py: a server's inside from the outside, rude clients."""

import http.client
import json
import os
import re
import selectors
import socket
import struct
import time

import server


class Server(server.Server):
    """A server with all its threads, whose use of the machine can be seen. key: one it asks with."""

    def __init__(self, program, model, *options, key=None):
        super().__init__(program, model, "-t", str(os.cpu_count()), *options)
        self.pid = self.process.pid
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def rss_kb(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metrics(self):
        """The sums of samples by name without prefix and labels."""
        sums = {}
        for line in self.ask("GET", "/metrics", headers=self.headers)[2].decode().splitlines():
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
        """Waits until nothing runs and waits."""
        end = time.monotonic() + patience
        while sum(self.in_use()[1:]) and time.monotonic() < end:
            time.sleep(0.1)

    def fill_cache(self):
        """Touches every block of the cache, so that memory which grows from now on is not the cache's."""
        m = self.metrics()
        for i in range(int(m["kv_cache_blocks"]) // 32 + 2):
            self.ask("POST", "/v1/completions", {"prompt": [256 + (i * 7 + j * 13) % 700 for j in range(512)], "max_tokens": 1},
                     self.headers)


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


def talk_many(port, datas, timeout=20, at_once=50):
    """talk() for many, so many at a time, in the same order."""
    results = []
    for start in range(0, len(datas), at_once):
        part, chooser = datas[start : start + at_once], selectors.DefaultSelector()
        got = [b""] * len(part)
        for i, data in enumerate(part):
            s = connect(port, timeout)
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            s.setblocking(False)
            chooser.register(s, selectors.EVENT_READ, i)
        end = time.monotonic() + timeout
        while chooser.get_map() and time.monotonic() < end:
            for key, _ in chooser.select(0.5):
                try:
                    more = key.fileobj.recv(65536)
                except OSError:
                    more = b""
                got[key.data] += more
                if not more:
                    chooser.unregister(key.fileobj)
                    key.fileobj.close()
        for key in list(chooser.get_map().values()):
            got[key.data] = got[key.data] or None
            key.fileobj.close()
        chooser.close()
        results += got
    return results


def statuses(data):
    """The statuses of all answers in data."""
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3})", data or b"")]


def stream(port, body, key=None, timeout=120):
    """Yields (seconds since sending, event as text) of a streamed answer; raises on any other."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), headers)
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
