#!/usr/bin/env python3
"""Writes link/function-order.ld: the functions that every request runs, which build.rs has the linker put side by side (ADR 21).

  scripts/order-functions.py [--flm PROGRAM --bench PROGRAM]

Builds `flm` with its symbols and the proxy bench, runs `flm` under valgrind's callgrind in front of the bench's fake engine, and asks
it for whole and streamed answers over loopback. Needs valgrind (Debian: `apt install valgrind`) and x86_64 Linux. Run it before a
release and when the way of a request has changed much. The file holds no hashes of compilers and versions, so that it stays true as
long as functions keep their names; a name that is no more is passed over by the linker.
"""
import argparse, collections, json, os, pathlib, re, signal, socket, subprocess, sys, tempfile, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ORDER = ROOT / "link" / "function-order.ld"
# Requests of each kind that are counted, after some that warm up: what runs for less than half of either is no part of the way.
COUNTED, WARMING = 200, 50
PATIENCE = 120
# A name without its hash may stand for as many functions; those of more, such as conversions of any type to any other, are left out.
NAMESAKES = 12
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


def built(kind, *arguments):
    """Builds with cargo and answers the path of the program of that kind ("bin" or "bench")."""
    command = ["cargo", *arguments, "--locked", "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    paths = [m["executable"] for m in messages if m.get("executable") and m["target"]["kind"] == [kind]]
    return paths[-1]


def waited(what, look):
    """The first answer of `look` that is something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = look()
        if answer:
            return answer
        time.sleep(0.1)
    sys.exit(f"error: {what} did not come within {PATIENCE} s")


def listens(port):
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


def profile(flm, bench, home):
    """Callgrind's count of whole answers, and of streamed ones."""
    engine = subprocess.Popen([bench, "engine"], stdout=subprocess.PIPE, text=True)
    engine_port = int(engine.stdout.readline().split()[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"PATH": os.environ["PATH"], "FLM_HOME": home}
    told = pathlib.Path(home) / "callgrind"
    valgrind = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={told}"]
    daemon = subprocess.Popen(
        [*valgrind, flm, "proxy", "start", "--no-daemon", "--port", str(port)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answer(*arguments):
        output = subprocess.run([flm, *arguments, "--format", "json"], env=environment, stdout=subprocess.PIPE, check=True)
        return json.loads(output.stdout)["data"]

    def ask(requests, chunks):
        plan = {"target": f"127.0.0.1:{port}", "key": key, "model": "bench-fast", "chunks": chunks, "connections": 1,
                "requests": requests}
        output = subprocess.run([bench, "client", json.dumps(plan)], stdout=subprocess.PIPE, check=True)
        return json.loads(output.stdout)["failed"] == 0

    try:
        waited("the listener", lambda: listens(port))
        answer("engines", "add", "--kind", "openai", "--id", "bench", "--url", f"http://127.0.0.1:{engine_port}")
        key = answer("api-keys", "create", "--label", "order", "--rpm", "0")["key"]
        waited("an answer", lambda: ask(1, 0))
        counts = []
        for chunks in (0, 5):
            ask(WARMING, chunks)
            subprocess.run(["callgrind_control", "--zero", str(daemon.pid)], check=True, stdout=subprocess.DEVNULL)
            if not ask(COUNTED, chunks):
                sys.exit("error: a request failed while it was counted")
            subprocess.run(["callgrind_control", "--dump", str(daemon.pid)], check=True, stdout=subprocess.DEVNULL)
            counts.append(waited("the counts", lambda: next(iter(sorted(told.parent.glob(f"callgrind.{len(counts) + 1}"))), None)))
        return [path.read_text() for path in counts]
    finally:
        daemon.send_signal(signal.SIGTERM)
        engine.kill()
        daemon.wait()
        engine.wait()


def often_run(counts):
    """The functions of which some line ran for at least half of the requests, in the order in which callgrind tells them."""
    names, most = {}, collections.Counter()
    current, of_a_call = None, False
    for line in counts.splitlines():
        if match := re.match(r"(c?)fn=(\(\d+\))(?: (.*))?$", line):
            called, number, name = match.groups()
            if name:
                names[number] = name
            if not called:
                current = names[number]
        elif line.startswith("calls="):
            of_a_call = True
        elif re.match(r"[+\-*\d]", line):
            # What a call costs in all is no count of the caller's own line.
            if not of_a_call:
                most[current] = max(most[current], int(line.split()[1]))
            of_a_call = False
    # Recursion has callgrind put a number behind a name.
    return [re.sub(r"'\d+$", "", name) for name, count in most.items() if name and count >= COUNTED // 2]


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
    symbols = subprocess.run(["nm", flm], stdout=subprocess.PIPE, check=True, text=True).stdout
    own = {line.split()[-1] for line in symbols.splitlines() if re.search(r" [tTwW] ", line)}
    namesakes = collections.Counter(map(without_hash, own))
    names = dict.fromkeys(without_hash(name) for counts in counted for name in often_run(counts) if name in own)
    ordered = [name for name in names if name.endswith("*") and namesakes[name] <= NAMESAKES]
    ORDER.write_text(HEAD + "".join(f"    *(.text.{name})\n" for name in ordered) + TAIL)
    print(f"{ORDER.relative_to(ROOT)}: {len(ordered)} names of {sum(namesakes[name] for name in ordered)} functions")


if __name__ == "__main__":
    main()
