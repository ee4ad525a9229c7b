#!/usr/bin/env python3
"""Load through the proxy, plain and streamed mixed, and an engine to answer it; nothing but the standard library.

    scripts/proxy_load.py engine [--token-ms N]      serves a small OpenAI-compatible engine; prints its port
    scripts/proxy_load.py load --url URL --key KEY   sends requests for a bounded time; prints the result as JSON
        [--seconds 20] [--concurrency 16] [--model demo] [--max-error-rate 0.005]

A streamed answer counts only when every chunk came in order and it ended with [DONE]; a plain one only when it is whole.
Times are milliseconds. Exit code 1 when more failed than allowed.
"""

import argparse
import asyncio
import json
import sys
import time

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


# ------------------------------------------------------------------------------------------------------------ engine


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return lines[0].split(" ")[1], body


def answer(writer, value, status="200 OK"):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


def chunk(delta, finish=None):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "demo", "choices": [choice]}
    event = f"data: {json.dumps(value)}\n\n".encode()
    return f"{len(event):x}\r\n".encode() + event + b"\r\n"


async def serve_one(reader, writer, token_seconds):
    try:
        while True:
            path, body = await read_request(reader)
            if path == "/v1/models":
                answer(writer, {"object": "list", "data": [{"id": "demo", "object": "model", "owned_by": "load"}]})
            elif path != "/v1/chat/completions":
                answer(writer, {"error": {"message": "no such path"}}, "404 Not Found")
            elif json.loads(body).get("stream"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for number, word in enumerate(WORDS):
                    writer.write(chunk({"role": "assistant", "content": f"{word} "} if number == 0 else {"content": f"{word} "}))
                    await writer.drain()
                    await asyncio.sleep(token_seconds)
                writer.write(chunk({}, "stop"))
                done = b"data: [DONE]\n\n"
                writer.write(f"{len(done):x}\r\n".encode() + done + b"\r\n0\r\n\r\n")
            else:
                message = {"role": "assistant", "content": " ".join(WORDS)}
                usage = {"prompt_tokens": 5, "completion_tokens": len(WORDS), "total_tokens": 5 + len(WORDS)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                value = {"id": "c", "object": "chat.completion", "created": 0, "model": "demo", "usage": usage}
                answer(writer, {**value, "choices": [choice]})
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def engine(options):
    seconds = options.token_ms / 1000
    server = await asyncio.start_server(lambda r, w: serve_one(r, w, seconds), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


# -------------------------------------------------------------------------------------------------------------- load


class Fault(Exception):
    pass


class Connection:
    """One keep-alive connection; opened anew after a fault."""

    def __init__(self, host, port):
        self.host, self.port, self.streams = host, port, None

    async def ask(self, request):
        """Sends a request; answers status, body, and when the first byte of the body came."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        try:
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ")[1])
            body, first = b"", None
            if "transfer-encoding: chunked" in head:
                while True:
                    size = int(await reader.readuntil(b"\r\n"), 16)
                    first = first or time.monotonic()
                    piece = await reader.readexactly(size + 2)
                    if size == 0:
                        break
                    body += piece[:-2]
            else:
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                body = await reader.readexactly(length)
                first = time.monotonic()
            if "connection: close" in head:
                self.close()
            return status, body, first
        except Exception:
            self.close()
            raise

    def close(self):
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


def request(options, stream):
    body = json.dumps(
        {"model": options.model, "stream": stream, "messages": [{"role": "user", "content": "Count."}]}
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {options.host}:{options.port}\r\nUser-Agent: flm-load\r\n"
        f"Authorization: Bearer {options.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def check_stream(status, body):
    events = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    if status != 200 or not events or events[-1] != "[DONE]":
        raise Fault(f"status {status}, and the stream does not end with [DONE]")
    said = "".join(
        choice["delta"].get("content") or "" for event in events[:-1] for choice in json.loads(event)["choices"]
    )
    if said.split() != WORDS:
        raise Fault(f"the stream said {said!r}")


def check_plain(status, body):
    if status != 200:
        raise Fault(f"status {status}: {body[:200]!r}")
    if json.loads(body)["choices"][0]["message"]["content"].split() != WORDS:
        raise Fault("the answer is not whole")


def spread(values):
    values = sorted(values)
    at = lambda share: round(values[min(len(values) - 1, int(share * len(values)))], 2) if values else None
    return {"count": len(values), "p50": at(0.50), "p95": at(0.95), "p99": at(0.99), "max": at(1.0)}


async def load(options):
    end = time.monotonic() + options.seconds
    plain, streamed, first_bytes, faults = [], [], [], {}

    async def client(number):
        connection = Connection(options.host, options.port)
        turn = number
        while time.monotonic() < end:
            stream = turn % 2 == 0
            turn += 1
            began = time.monotonic()
            try:
                status, body, first = await asyncio.wait_for(connection.ask(request(options, stream)), 30)
                (check_stream if stream else check_plain)(status, body)
            except Exception as fault:  # noqa: BLE001 - every fault counts, whatever it is
                text = str(fault) or type(fault).__name__
                faults[text] = faults.get(text, 0) + 1
                connection.close()
                continue
            (streamed if stream else plain).append((time.monotonic() - began) * 1000)
            if stream:
                first_bytes.append((first - began) * 1000)
        connection.close()

    began = time.monotonic()
    await asyncio.gather(*(client(number) for number in range(options.concurrency)))
    elapsed = time.monotonic() - began
    failed = sum(faults.values())
    total = failed + len(plain) + len(streamed)
    rate = failed / total if total else 1.0
    result = {
        "seconds": round(elapsed, 2),
        "concurrency": options.concurrency,
        "requests": total,
        "requests_per_second": round(total / elapsed, 1),
        "failed": failed,
        "error_rate": round(rate, 5),
        "max_error_rate": options.max_error_rate,
        "plain_ms": spread(plain),
        "stream_ms": spread(streamed),
        "stream_first_byte_ms": spread(first_bytes),
        "faults": faults,
    }
    print(json.dumps(result, indent=2))
    # Nothing sent is no success.
    return 0 if rate < options.max_error_rate and plain and streamed else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    served = commands.add_parser("engine")
    served.add_argument("--token-ms", type=float, default=2.0)
    sent = commands.add_parser("load")
    sent.add_argument("--url", required=True)
    sent.add_argument("--key", required=True)
    sent.add_argument("--model", default="demo")
    sent.add_argument("--seconds", type=float, default=20.0)
    sent.add_argument("--concurrency", type=int, default=16)
    sent.add_argument("--max-error-rate", type=float, default=0.005)
    options = parser.parse_args()
    if options.command == "engine":
        try:
            asyncio.run(engine(options))
        except KeyboardInterrupt:
            pass
        return 0
    options.host, _, port = options.url.removeprefix("http://").rstrip("/").partition(":")
    options.port = int(port)
    return asyncio.run(load(options))


if __name__ == "__main__":
    sys.exit(main())
