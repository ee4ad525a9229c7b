#!/usr/bin/env python3
"""Instructions in user space that a request takes: FLM beside bare hyper, counted by valgrind's callgrind (docs/performance.md).

  scripts/count-instructions.py [--rounds N] [--flm PROGRAM --bench PROGRAM --tls PROGRAM]

They do not depend on how busy the machine is, so that claims of less than a tenth are held against them. A whole answer to a chat and
a chunk of a stream that comes by itself go through the proxy bench's two baselines, `GET /health` is answered by the TLS bench's; each in
clear and over TLS, at one connection. All threads count, the one that writes the log too. A figure is the difference of a long and a short
run, in which start, connection and handshake cancel out, less what the program takes by the clock meanwhile; the median of the rounds
is told, with the least and the most. Builds what is not named. Takes some ten minutes; needs valgrind and Linux.

callgrind's processor has no instructions for SHA-256: FLM's check of the key costs it 10,000 more than a real one.
"""
import argparse, contextlib, json, os, pathlib, ssl, socket, statistics, subprocess, sys, tempfile, time

import callgrind
from callgrind import built, waited

# A long and a short run, of requests and of chunks of each stream; streams side by side.
REQUESTS, CHUNKS, STREAMS = (220, 20), (60, 10), 8
# The collector hands rows to the log four times a second: both its hands are empty when a count begins and ends.
SETTLING = 0.7
# What is taken by the clock is counted so long.
IDLE = 5
# One client does what none may; everything is counted, and nothing refused (as in benches/proxy/targets.rs).
POLICY = {
    "address_rate": {"per_minute": 1000000, "burst": 1000000},
    "address_in_flight": {"most": 1000000},
    "resources": {"mode": "off"},
    "rules": {"request_burst": {"in_second": 1000000, "in_minute": 1000000}},
}


def total(counts):
    """All instructions of a dump."""
    return next(int(line.split()[1]) for line in counts.splitlines() if line.startswith(("summary:", "totals:")))


class Server:
    """A program that answers on a port, and what asks it."""

    def __init__(self, counted, port, spoken, bench, key=""):
        self.counted, self.port, self.spoken, self.bench, self.key = counted, port, spoken, bench, key
        self.by_clock = 0

    def chat(self, requests, chunks, connections=1):
        model = "bench-paced" if chunks else "bench-fast"
        told = callgrind.load(
            self.bench, target=f"127.0.0.1:{self.port}", spoken=self.spoken, key=self.key, model=model, chunks=chunks,
            connections=connections, requests=requests)
        return told["failed"] == 0 and told["events"] == requests * chunks

    def health(self, requests):
        stream = socket.create_connection(("127.0.0.1", self.port))
        if self.spoken == "Tls":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            stream = context.wrap_socket(stream)
        with stream:
            for _ in range(requests):
                stream.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\n\r\n")
                answer = b""
                while not answer.endswith(b"}"):
                    piece = stream.recv(65536)
                    if not piece:
                        return False
                    answer += piece
        return answer.startswith(b"HTTP/1.1 200 ")

    def count(self, work):
        """Instructions of `work`, and the seconds that passed."""
        took = 0

        def timed():
            nonlocal took
            time.sleep(SETTLING)
            began = time.monotonic()
            if not work():
                sys.exit("error: a request failed while it was counted")
            time.sleep(SETTLING)
            took = time.monotonic() - began

        return total(self.counted.count(timed)), took

    def idle(self):
        """Notes what it takes by the clock, in instructions a second."""
        told, _ = self.count(lambda: True)
        longer, took = self.count(lambda: time.sleep(IDLE) or True)
        self.by_clock = (longer - told) / (took - SETTLING)

    def each(self, long, short, steps):
        """Instructions of a step, by which the long run is longer than the short one."""
        (more, slow), (less, quick) = self.count(long), self.count(short)
        return (more - less - self.by_clock * (slow - quick)) / steps


def answers(server, kind):
    """One round: what `kind` costs."""
    if kind == "health":
        return server.each(*(lambda n=n: server.health(n) for n in REQUESTS), REQUESTS[0] - REQUESTS[1])
    if kind == "chat":
        return server.each(*(lambda n=n: server.chat(n, 0) for n in REQUESTS), REQUESTS[0] - REQUESTS[1])
    return server.each(
        *(lambda n=n: server.chat(STREAMS, n, STREAMS) for n in CHUNKS), STREAMS * (CHUNKS[0] - CHUNKS[1]))


@contextlib.contextmanager
def flm(options, spoken, engine, folder):
    """FLM with a key and the engine."""
    environment = {"PATH": os.environ["PATH"], "FLM_HOME": folder, "FLM_ENGINE_DETECT_AT_START": "false"}

    def answer(*arguments):
        output = subprocess.run(
            [options.flm, *arguments, "--format", "json"], env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(output.stdout)["data"]

    mode, port = ("dev-selfsigned", "https_port") if spoken == "Tls" else ("local-http", "port")
    command = [options.flm, "proxy", "start", "--no-daemon", "--mode", mode, "--port", "0", "--format", "json"]
    with callgrind.Counted(command, pathlib.Path(folder) / "callgrind", env=environment) as counted:
        port = json.loads(counted.first_line())["data"]["listeners"][0]["config"][port]
        policy = pathlib.Path(folder) / "policy.json"
        policy.write_text(json.dumps(POLICY))
        answer("security", "policy", "set", "--json", str(policy))
        answer("engines", "add", "--kind", "openai", "--id", "bench", "--url", f"http://127.0.0.1:{engine}")
        key = answer("api-keys", "create", "--label", "counted", "--rpm", "0")["key"]
        server = Server(counted, port, spoken, options.bench, key)
        waited("an answer", lambda: server.chat(1, 0))
        yield server


@contextlib.contextmanager
def bare(options, command, spoken, folder):
    """A baseline, which says `listening PORT` or its port alone."""
    with callgrind.Counted(command, pathlib.Path(folder) / "callgrind") as counted:
        yield Server(counted, int(counted.first_line().split()[-1]), spoken, options.bench)


def programs(options, spoken, engine):
    """Name, what it is asked, and how it is started."""
    role = "baseline" if spoken == "Clear" else "baseline-tls"
    for shape in ("per-core", "work-stealing"):
        command = [options.bench, role, shape, str(os.cpu_count()), f"127.0.0.1:{engine}"]
        yield shape, ("chat", "chunk"), lambda folder, command=command: bare(options, command, spoken, folder)
    command = [options.tls, f"baseline-{spoken.lower()}"]
    yield "per-core", ("health",), lambda folder, command=command: bare(options, command, spoken, folder)
    yield "flm", ("chat", "chunk", "health"), lambda folder: flm(options, spoken, engine, folder)


def main():
    """Counts and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--flm", help="a release build of flm, instead of building one")
    parser.add_argument("--bench", help="the program of the proxy bench, instead of building it")
    parser.add_argument("--tls", help="the program of the TLS bench, instead of building it")
    options = parser.parse_args()
    options.flm = options.flm or built("bin", "build", "--release", "--bin", "flm")
    options.bench = options.bench or built("bench", "bench", "--no-run", "--bench", "proxy")
    options.tls = options.tls or built("bench", "bench", "--no-run", "--bench", "tls")
    found, clocks = {}, {}
    with callgrind.fake_engine(options.bench) as engine:
        for spoken in ("Clear", "Tls"):
            for name, kinds, start in programs(options, spoken, engine):
                with tempfile.TemporaryDirectory(prefix="flm-count-") as folder, start(folder) as server:
                    for kind in kinds:
                        # What runs for the first time costs more.
                        answers(server, kind)
                    server.idle()
                    clocks[name, spoken] = server.by_clock
                    for kind in kinds:
                        figures = [answers(server, kind) for _ in range(options.rounds)]
                        found[kind, spoken, name] = figures
                        print(f"{name} {spoken} {kind}: {[round(figure) for figure in figures]}", file=sys.stderr)

    def told(kind, spoken, name):
        figures = found.get((kind, spoken, name))
        return f"{statistics.median(figures):,.0f} ({min(figures):,.0f}–{max(figures):,.0f})" if figures else ""

    print("| instructions, median (least–most) | per-core | work-stealing | flm | of per-core | of work-stealing |")
    print("|---|---:|---:|---:|---:|---:|")
    words = {"chat": "whole answer to a chat", "chunk": "one more chunk of a stream", "health": "`GET /health`"}
    for kind, word in words.items():
        for spoken, where in (("Clear", "in clear"), ("Tls", "over TLS")):
            of = lambda name: statistics.median(found[kind, spoken, name])
            ratios = [f"{of('flm') / of(name):.2f}" if (kind, spoken, name) in found else ""
                      for name in ("per-core", "work-stealing")]
            cells = [told(kind, spoken, name) for name in ("per-core", "work-stealing", "flm")]
            print(f"| {word}, {where} | {' | '.join(cells + ratios)} |")
    seconds = ", ".join(f"{name} {spoken.lower()} {clock:,.0f}" for (name, spoken), clock in clocks.items())
    print(f"\nTaken by the clock, instructions a second, and subtracted: {seconds}.")


if __name__ == "__main__":
    main()
