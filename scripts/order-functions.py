#!/usr/bin/env python3
"""Writes link/function-order.ld: the functions that every request runs, which build.rs has the linker put side by side (ADR 21).

  scripts/order-functions.py [--flm PROGRAM --bench PROGRAM]

Builds `flm` with its symbols and the proxy bench, runs `flm` under valgrind's callgrind in front of the bench's fake engine, and asks
it for whole and streamed answers over loopback. Needs valgrind (Debian: `apt install valgrind`) and x86_64 Linux. Run it before a
release and when the way of a request has changed much. Each function stands there by its whole name, and most of them once more without the
hash of compiler and dependencies, so that the file stays of use; a name that is no more is passed over by the linker.
"""
import argparse, collections, json, os, pathlib, re, socket, subprocess, sys, tempfile

import callgrind
from callgrind import ROOT, built, waited

ORDER = ROOT / "link" / "function-order.ld"
# Requests of each kind that are counted, after some that warm up: what runs for less than half of either is no part of the way.
COUNTED, WARMING = 200, 50
# A name without its hash stands for namesakes too: the same function for other types. All of them may be so many times as large as
# those that run, or so many bytes.
LARGER, SMALL = 2.5, 1024
HEAD = """/* Written by scripts/order-functions.py (ADR 21): what every request runs, in one place of the program. */
SECTIONS
{
  .text.ordered :
  {
"""
TAIL = """  }
}
INSERT BEFORE .text;
"""


def profile(flm, bench, home):
    """Callgrind's count of whole answers, and of streamed ones."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "FLM_HOME": home}

    def answer(*arguments):
        output = subprocess.run([flm, *arguments, "--format", "json"], env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(output.stdout)["data"]

    def ask(requests, chunks):
        plan = {"target": f"127.0.0.1:{port}", "key": key, "model": "bench-fast", "chunks": chunks, "connections": 1}
        return callgrind.load(bench, requests=requests, **plan)["failed"] == 0

    def counted(chunks):
        if not ask(COUNTED, chunks):
            sys.exit("error: a request failed while it was counted")

    command = [flm, "proxy", "start", "--no-daemon", "--port", str(port)]
    with callgrind.fake_engine(bench) as engine, callgrind.Counted(
            command, pathlib.Path(home) / "callgrind", env=environment, stdout=subprocess.DEVNULL) as daemon:
        waited("the listener", lambda: callgrind.listens(port))
        answer("engines", "add", "--kind", "openai", "--id", "bench", "--url", f"http://127.0.0.1:{engine}")
        key = answer("api-keys", "create", "--label", "order", "--rpm", "0")["key"]
        waited("an answer", lambda: ask(1, 0))
        counts = []
        for chunks in (0, 5):
            ask(WARMING, chunks)
            counts.append(daemon.count(lambda: counted(chunks)))
        return counts


def often_called(counts):
    """The functions that were called for at least half of the requests, in the order in which callgrind tells them."""
    names, calls, called = {}, collections.Counter(), None
    for line in counts.splitlines():
        if match := re.match(r"c?fn=(\(\d+\))(?: (.*))?$", line):
            number, name = match.groups()
            if name:
                # Recursion has callgrind put a number behind a name.
                names[number] = re.sub(r"'\d+$", "", name)
            called = names[number]
        elif line.startswith("calls="):
            calls[called] += int(line[6:].split()[0])
    return [name for name, count in calls.items() if count >= COUNTED // 2]


def without_hash(name):
    """A mangled name with a star for its hash, and for what link-time optimisation puts behind."""
    return re.sub(r"17h[0-9a-f]{16}E.*$", "17h*", name)


def main():
    """Builds, counts and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flm", help="a release build of flm with its symbols, instead of building one")
    parser.add_argument("--bench", help="the program of the proxy bench, instead of building it")
    options = parser.parse_args()
    flm = options.flm or built("bin", "rustc", "--release", "--bin", "flm", "--", "-C", "strip=none")
    bench = options.bench or built("bench", "bench", "--no-run", "--bench", "proxy")
    with tempfile.TemporaryDirectory(prefix="flm-order-") as home:
        counted = profile(flm, bench, home)
    symbols = subprocess.run(["nm", "--print-size", flm], stdout=subprocess.PIPE, check=True, text=True).stdout
    sizes = {fields[3]: int(fields[1], 16) for fields in map(str.split, symbols.splitlines()) if len(fields) == 4}
    whole, run = collections.Counter(), collections.Counter()
    for name, size in sizes.items():
        whole[without_hash(name)] += size
    called = [name for name in dict.fromkeys(name for counts in counted for name in often_called(counts)) if name in sizes]
    for name in called:
        run[without_hash(name)] += sizes[name]
    starred = [name for name, size in run.items() if name.endswith("*") and whole[name] <= max(LARGER * size, SMALL)]
    # Exactly those that run come first; the stars find what they are called in another build.
    ORDER.write_text(HEAD + "".join(f"    *(.text.{name})\n" for name in called + starred) + TAIL)
    total = sum(sizes[name] for name in called) // 1024
    print(f"{ORDER.relative_to(ROOT)}: {len(called)} functions of {total} KiB, {len(starred)} names without hashes")


if __name__ == "__main__":
    main()
