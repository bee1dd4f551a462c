"""A polymath server under test: starts, asks, stops. Only the standard library."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

MODEL = "models/polymath-16m"


class Server:
    def __init__(self, program, model, *arguments, wait=True, prefix=(), **environment):
        self.process = subprocess.Popen(
            [*prefix, program, "serve", model, "--port", "0", "-t", "1", *arguments],
            stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
        self.said = []
        self.port = None
        while wait and self.port is None:
            line = self.process.stderr.readline()
            if not line:
                raise RuntimeError("the server ended: " + "".join(self.said))
            self.said.append(line)
            found = re.search(r" at http://\S+:(\d+), ", line)
            self.port = int(found[1]) if found else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, body) of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.headers, text

    def get(self, path, **headers):
        status, _, text = self.ask("GET", path, headers=headers)
        return status, json.loads(text)

    def post(self, path, body, **headers):
        status, _, text = self.ask("POST", path, body, headers)
        return status, json.loads(text)

    def connect(self, timeout=60):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def raw(self, data, timeout=20):
        """What comes back for bytes until the server closes or falls silent."""
        with self.connect(timeout) as s:
            s.sendall(data)
            return read_all(s)

    def begin(self, path, body, headers=""):
        """A socket whose request is sent and not answered yet."""
        text = json.dumps(body)
        s = self.connect()
        s.sendall((f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                   f"{headers}Content-Length: {len(text)}\r\n\r\n{text}").encode())
        return s

    def metric(self, name, headers=None, **labels):
        _, _, text = self.ask("GET", "/metrics", headers=headers)
        for line in text.decode().splitlines():
            if line.startswith(f"polymath:{name}{{") and all(
                    f'{k}="{v}"' in line for k, v in labels.items()):
                return float(line.split()[-1])
        raise KeyError(name)

    def wait_for(self, what, seconds=20):
        end = time.time() + seconds
        while not what():
            if time.time() > end:
                raise TimeoutError(what)
            time.sleep(0.02)

    def stop(self, number=signal.SIGTERM, timeout=60):
        self.process.send_signal(number)
        return self.process.wait(timeout)


def read_all(s):
    data = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                return data
            data += part
    except (socket.timeout, ConnectionResetError):
        return data


def events(text):
    """The data of server-sent events."""
    return [line[6:] for line in text.split("\n") if line.startswith("data: ")]


class Tests:
    """Runs the functions given to it, each with a server; names what failed."""

    def __init__(self):
        self.failed = 0
        self.passed = 0

    def run(self, functions, *arguments):
        only = sys.argv[3:]
        for f in functions:
            if only and f.__name__ not in only:
                continue
            try:
                f(*arguments)
                self.passed += 1
            except Exception as error:  # all are reported
                self.failed += 1
                import traceback
                print(f"FAILED: {f.__name__}: {error!r}")
                traceback.print_exc(limit=4, file=sys.stdout)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed")
        sys.exit(1 if self.failed else 0)


def equal(found, wanted):
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")


def has(found, part):
    if part not in found:
        raise AssertionError(f"no {part!r} in {found!r}")
