"""Programs under valgrind's callgrind, with the proxy bench's fake engine behind and its load client in front.

Used by order-functions.py and count-instructions.py. Needs valgrind (Debian: `apt install valgrind`).
"""
import contextlib, json, pathlib, signal, socket, subprocess, sys, time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 120


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


@contextlib.contextmanager
def fake_engine(bench):
    """The bench's engine; its port."""
    engine = subprocess.Popen([bench, "engine"], stdout=subprocess.PIPE, text=True)
    try:
        yield int(engine.stdout.readline().split()[1])
    finally:
        engine.kill()
        engine.wait()


def load(bench, **plan):
    """What the bench's client tells of a plan (benches/proxy/load.rs)."""
    output = subprocess.run([bench, "client", json.dumps(plan)], stdout=subprocess.PIPE, check=True)
    return json.loads(output.stdout)


class Counted:
    """A program under callgrind, ended with the context. What it says first is read from `first_line`."""

    def __init__(self, command, told, **how):
        self.told, self.dumps = pathlib.Path(told), 0
        valgrind = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={told}"]
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True, **how}
        self.process = subprocess.Popen([*valgrind, *command], **how)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def first_line(self):
        """The first line of its output, for which it may take a while."""
        return self.process.stdout.readline()

    def count(self, work):
        """What callgrind tells of all threads while `work` ran."""
        control = lambda what: subprocess.run(
            ["callgrind_control", what, str(self.process.pid)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        control("--zero")
        work()
        control("--dump")
        self.dumps += 1
        dump = self.told.with_name(f"{self.told.name}.{self.dumps}")
        waited("the counts", dump.exists)
        return dump.read_text()
