"""A server that streams completions with known delays: what bench serve measures is then known too.

    python3 tests/e2e/fake_server.py [--port N] [--log FILE]

Prints its port. The delay before the first token is FIRST_MS or SLOW_MS, for requests with even
and odd numbers; GAP_MS lie between tokens; max_tokens tokens come. The model's name asks for what
can go wrong: see the methods of Answer. It remembers the first PREFIX tokens of prompts, as a
prefix cache would. The log has one line a request: the monotonic times of its arrival and of
every write, in seconds.
"""

import argparse
import asyncio
import json
import time

FIRST_MS, SLOW_MS, GAP_MS, PREFIX = 30, 150, 10, 64


class Server:
    def __init__(self, log):
        self.log = log
        self.n_request = 0
        self.seen = set()
        self.queries = self.hits = 0
        self.n_connection = 0

    def metrics(self):
        return (f"# TYPE fake:prefix_cache_queries counter\nfake:prefix_cache_queries_total{{model=\"fake\"}} {self.queries}\n"
                f"fake:prefix_cache_hits_total{{model=\"fake\"}} {self.hits}\nfake:num_requests_running 0\n"
                f"fake:connections_total {self.n_connection}\n")

    def look_up(self, prompt):
        """(tokens, tokens found in the cache) of a prompt."""
        tokens = prompt if isinstance(prompt, list) else str(prompt).split()
        key = tuple(tokens[:PREFIX])
        cached = PREFIX if len(tokens) > PREFIX and key in self.seen else 0
        self.seen.add(key)
        self.queries += len(tokens)
        self.hits += cached
        return len(tokens), cached


class Answer:
    """One streamed answer, in the manner that the model's name asks for."""

    def __init__(self, server, writer, body, chat):
        self.server, self.writer, self.body, self.chat = server, writer, body, chat
        self.number = server.n_request
        server.n_request += 1
        self.times = [time.monotonic()]
        self.model = body["model"]
        self.n = body["max_tokens"]
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        self.n_prompt, self.n_cached = server.look_up(prompt)

    def plain(self, status, text, more=""):
        data = text.encode()
        self.writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{more}"
                          f"Content-Length: {len(data)}\r\n\r\n".encode() + data)

    def chunk(self, data):
        """Chunked transfer, in pieces and with an extension for the model "pieces"."""
        if self.model == "http10":
            self.writer.write(data)
        elif self.model == "pieces":
            for i in range(0, len(data), 7):
                part = data[i : i + 7]
                self.writer.write(b"%X;note=\"odd\"\r\n%s\r\n" % (len(part), part))
        else:
            self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, value):
        text = value if isinstance(value, str) else json.dumps(value)
        end = "\r\n" if self.model == "pieces" else "\n"
        note = f": a comment{end}event: message{end}" if self.model == "pieces" else ""
        self.chunk(f"{note}data: {text}{end}{end}".encode())

    def choice(self, text, finish=None, role=None):
        if self.chat:
            delta = {"role": role} if role else {}
            delta["content"] = text
            return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return {"choices": [{"index": 0, "text": text, "finish_reason": finish}]}

    async def tokens(self):
        """The tokens, at their times; two in one chunk for the model "pairs"."""
        step = 2 if self.model == "pairs" else 1
        for i in range(0, self.n, step):
            # Sleep until the moment, so that delays do not add up.
            delay = (SLOW_MS if self.number % 2 else FIRST_MS) + i // step * GAP_MS
            await asyncio.sleep(max(0, self.times[0] + delay / 1000 - time.monotonic()))
            self.times.append(time.monotonic())
            self.event(self.choice(" a" * min(step, self.n - i)))
            await self.writer.drain()
            if self.model == "cut" and self.number % 2 and i >= self.n // 2:
                return False
            if self.model == "failing" and i >= self.n // 2:
                self.event({"error": {"message": "the device failed", "type": "server_error"}})
        return True

    async def run(self):
        """True: the connection stays open."""
        if self.model == "busy" and self.number % 3 == 2:
            self.plain("429 Too Many Requests", '{"error": {"message": "full"}}', "Retry-After: 1\r\n")
            return True
        if self.model == "silent" or not self.body.get("stream"):
            self.plain("200 OK", '{"choices": [{"index": 0, "text": " a", "finish_reason": "length"}]}')
            return True
        if self.model == "interim":
            self.writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        if self.model == "http10":
            self.writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
        else:
            self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if self.chat:
            self.event(self.choice("", role="assistant"))
        if self.model == "garbage":
            self.event('{"choices": [')
        if not await self.tokens():
            return False
        self.event(self.choice("", finish="length"))
        if self.model != "mute":
            self.event({"choices": [], "usage": {
                "prompt_tokens": self.n_prompt, "completion_tokens": self.n,
                "prompt_tokens_details": {"cached_tokens": self.n_cached}}})
        if self.model != "endless":
            self.event("[DONE]")
        if self.model != "http10":
            self.writer.write(b"0\r\nX-Trailer: 1\r\n\r\n")
        return self.model not in ("http10", "closing")


async def read_request(reader):
    """(method, path, headers, body), or None at the end of the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return first.split(" ")[0], first.split(" ")[1], headers, body


async def serve_one(server, reader, writer):
    server.n_connection += 1
    keep = True
    try:
        while keep:
            method, path, headers, body = await read_request(reader)
            page = {"/v1/models": json.dumps({"data": [{"id": "fake"}]}), "/metrics": server.metrics(),
                    "/version": '{"version": "fake 1"}'}.get(path)
            if method == "GET":
                status = "200 OK" if page else "404 Not Found"
                data = (page or "").encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
            elif headers.get("authorization") not in (None, "Bearer right"):
                writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            else:
                answer = Answer(server, writer, json.loads(body), path.endswith("/chat/completions"))
                keep = await answer.run()
                if server.log:
                    server.log.write(json.dumps({"number": answer.number, "times": answer.times,
                                                 "body": answer.body}) + "\n")
                    server.log.flush()
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log")
    args = parser.parse_args()
    server = Server(open(args.log, "w") if args.log else None)
    listener = await asyncio.start_server(lambda r, w: serve_one(server, r, w), "127.0.0.1", args.port, limit=1 << 24)
    print(listener.sockets[0].getsockname()[1], flush=True)
    async with listener:
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
