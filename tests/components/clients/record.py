"""Records what a client program sends to FLM, for tests/fixtures/clients (see SOURCE.md there).

    record.py --to http://127.0.0.1:8484 --program NAME --version V --command TEXT --output FILE -- PROGRAM [ARGUMENT...]

Listens on a port of its own on loopback, hands everything on to FLM and back as it comes, and writes down, of each different
request, method, path, agent, names of headers, shape of the body, status and media type: no values. The program is run with
the address in RECORDER, in its environment, and {recorder} replaced by it in its arguments. The recording says `ok` when the
program ended with 0.
"""

import argparse
import http.client
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.parse


def shape(value):
    """Names and kinds, and how many there are."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if not value:
            return "list"
        kind = "object" if isinstance(value[0], dict) else type(value[0]).__name__
        return [kind, f"{len(value)} items"]
    return type(value).__name__


class Recorder(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    to = None
    seen = []
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        upstream = http.client.HTTPConnection(self.to.hostname, self.to.port)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            upstream.putheader(name, self.to.netloc if name.lower() == "host" else value)
        upstream.endheaders(body)
        answer = upstream.getresponse()
        self.note(body, answer)
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        whole = answer.getheader("content-length") is not None or self.command == "HEAD" or answer.status in (204, 304)
        if not whole:
            self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while self.command != "HEAD" and (piece := answer.read1(65536)):
            self.wfile.write(piece if whole else b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        if not whole:
            self.wfile.write(b"0\r\n\r\n")
        upstream.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = forward

    def note(self, body, answer):
        try:
            told = shape(json.loads(body)) if body else None
        except ValueError:
            told = self.headers.get("content-type")
        request = {
            "method": self.command,
            "path": self.path,
            "user_agent": self.headers.get("user-agent", ""),
            "headers": sorted({name.lower() for name in self.headers}),
            "body": told,
            "status": answer.status,
            "media_type": answer.getheader("content-type") or "",
        }
        with self.lock:
            if request not in self.seen:
                self.seen.append(request)


def main():
    parser = argparse.ArgumentParser()
    for name in ("to", "program", "version", "command", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("run", nargs="+")
    arguments = parser.parse_args()
    Recorder.to = urllib.parse.urlsplit(arguments.to)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    run = [word.replace("{recorder}", address) for word in arguments.run]
    ended = subprocess.run(run, env={**os.environ, "RECORDER": address}, check=False)
    server.shutdown()
    recording = {
        "program": arguments.program,
        "version": arguments.version,
        "command": arguments.command,
        "result": "ok" if ended.returncode == 0 else f"ended with {ended.returncode}",
        "requests": Recorder.seen,
    }
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump(recording, file, indent=1)
    sys.exit(ended.returncode)


main()
