#!/usr/bin/env python3
"""Makes sample data of the old prototype: a folder as `flm migrate legacy --source DIR` reads it.

    scripts/make_legacy_sample.py DIR           writes config.json and flm.db
    scripts/make_legacy_sample.py --check DIR   says whether DIR holds exactly that (exit code 1 when not)

The folder holds one of everything that docs/migration.md tells about: keys in clear, encrypted, hashed, guessable, twice,
switched off and ended; APIs with an engine that has to be guessed, an unknown one, the same name twice; settings that FLM
has and others; columns and a table that it does not know. tests/fixtures/legacy is made by it. Every key is made up.
"""

import json
import pathlib
import sqlite3
import sys

CONFIG = {
    "version": "0.4.2",
    "database": "C:/Users/anna/flm/flm.db",
    "server": {"host": "0.0.0.0", "port": 9310},
    "engines": [{"name": "lab", "type": "vllm", "url": "http://127.0.0.1:8907/v1"}],
    "experimental": {"openai_api_key": "sk-this-must-never-be-shown-0001", "gpu_layers": 20},
}

SCHEMA = """
CREATE TABLE apis (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, model TEXT, port INTEGER, enable_auth INTEGER DEFAULT 1, status TEXT,
    engine_type TEXT, engine_config TEXT, base_url TEXT, system_prompt TEXT, icon TEXT, created_at TEXT, updated_at TEXT
);
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, api_id TEXT, name TEXT, key TEXT, encrypted_key BLOB, key_hash TEXT, encrypted INTEGER DEFAULT 0,
    is_active INTEGER DEFAULT 1, rate_limit INTEGER, created_at TEXT, expires_at TEXT, note TEXT
);
CREATE TABLE user_settings (key TEXT PRIMARY KEY, value TEXT, updated_at TEXT);
CREATE TABLE request_logs (id INTEGER PRIMARY KEY, path TEXT);
"""

APIS = [
    # id, name, model, port, auth, status, engine, config, url, prompt, icon
    ("a1", "Home Chat", "llama3.2:3b", 5001, 1, "running", "ollama",
     '{"temperature": 0.3, "num_ctx": 8192, "mirostat": 2, "top_p": 7}', None, "You are the assistant of {{key_label}}.", "house"),
    ("a2", "coder", "qwen2.5-coder:7b", 5002, 0, "stopped", "Ollama", '{"repetition_penalty": 1.1}',
     "http://localhost:11434/", None, None),
    ("a3", "lab-big", "meta-llama/Llama-3.3-70B", 5003, 1, "running", "vLLM", "{}", "http://127.0.0.1:8907/v1", None, None),
    ("a4", "coder", "codestral", 5004, 1, "running", "ollama", None, None, None, None),
    ("a5", "strange", "x", 5005, 1, "running", "exllama", "not json", None, "Hello {{unknown_thing}}", None),
    ("a6", "empty", None, 5006, 1, "stopped", "ollama", None, None, None, None),
]

CLEAR = "sk-old-4f9a1c7be0d24a6690e1b2c3d4e5f607"
KEYS = [
    # id, api, name, key, encrypted_key, hash, encrypted, active, rate, created, expires, note
    ("k1", "a1", "laptop", CLEAR, None, None, 0, 1, 120, "2025-01-02T03:04:05Z", None, None),
    ("k2", "a2", "laptop copy", CLEAR, None, None, 0, 1, None, "2025-01-03 00:00:00", None, None),
    ("k3", "a3", "script", "flm_9d3f0a6b7c1e48259f60aa17", None, None, 0, 1, None, "1735786000", "4102444800", "on the build box"),
    ("k4", "a1", "phone", "gAAAAABnSealedSealedSealedSealedSealed", None, None, 0, 1, None, None, None, None),
    ("k5", "a1", "tablet", None, b"\x01\x02\x03\x04", None, 1, 1, None, None, None, None),
    ("k6", "a1", "old hash", None, None, "5e884898da28047151d0e56f8dc62927", 0, 1, None, None, None, None),
    ("k7", "a1", "guess me", "secret", None, None, 0, 1, None, None, None, None),
    ("k8", "a1", "switched off", "sk-old-ffffa1c7be0d24a6690e1b2c3d4e5f60", None, None, 0, 0, None, None, None, None),
    ("k9", "a1", "ended", "sk-old-0000a1c7be0d24a6690e1b2c3d4e5f60", None, None, 0, 1, None, None, "2025-02-01T00:00:00Z", None),
    ("k10", None, None, "sk-old-anywhere-7be0d24a6690e1b2c3d4e5f6", None, None, 0, 1, None, None, None, None),
]

SETTINGS = [
    ("language", '"ja"'),
    ("theme", "light"),
    ("log_level", "WARNING"),
    ("window_width", "1280"),
    ("auto_update", "true"),
    ("hf_token", "hf_this_must_never_be_shown"),
]


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    database = folder / "flm.db"
    database.unlink(missing_ok=True)
    connection = sqlite3.connect(database)
    connection.executescript(SCHEMA)
    made = ("2025-01-01T00:00:00Z", "2025-01-01T00:00:00Z")
    connection.executemany("INSERT INTO apis VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", [row + made for row in APIS])
    connection.executemany("INSERT INTO api_keys VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", KEYS)
    connection.executemany("INSERT INTO user_settings VALUES (?,?,'2025-01-01')", SETTINGS)
    connection.executemany("INSERT INTO request_logs (path) VALUES (?)", [("/v1/models",)] * 3)
    connection.commit()
    connection.execute("VACUUM")
    connection.close()


def content(folder):
    connection = sqlite3.connect(f"file:{folder / 'flm.db'}?mode=ro&immutable=1", uri=True)
    return (folder / "config.json").read_text(), list(connection.iterdump())


def main(arguments):
    if len(arguments) == 1 and not arguments[0].startswith("-"):
        make(pathlib.Path(arguments[0]))
        return 0
    if len(arguments) == 2 and arguments[0] == "--check":
        import tempfile

        with tempfile.TemporaryDirectory() as fresh:
            make(pathlib.Path(fresh))
            if content(pathlib.Path(fresh)) == content(pathlib.Path(arguments[1])):
                return 0
        print(f"error: {arguments[1]} is not what this script makes\nhint: make it anew", file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
