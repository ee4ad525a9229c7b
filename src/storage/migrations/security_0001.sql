-- security.db, version 1 (SPEC §10). Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE api_keys (
    id                  TEXT NOT NULL PRIMARY KEY,
    label               TEXT NOT NULL,
    last4               TEXT NOT NULL,
    hash                TEXT NOT NULL,
    requests_per_minute INTEGER NOT NULL,
    burst               INTEGER NOT NULL,
    tokens_per_day      INTEGER,
    max_parallel        INTEGER,
    priority            TEXT NOT NULL CHECK (priority IN ('low', 'normal', 'high')),
    models              TEXT NOT NULL CHECK (json_valid(models)),
    routes              TEXT NOT NULL CHECK (json_valid(routes)),
    rights              TEXT NOT NULL CHECK (json_valid(rights)),
    created             INTEGER NOT NULL,
    expires             INTEGER,
    revoked             INTEGER,
    last_used           INTEGER
) STRICT, WITHOUT ROWID;

-- A label may come again once its key is revoked.
CREATE UNIQUE INDEX api_keys_label ON api_keys (label) WHERE revoked IS NULL;

CREATE TABLE ip_blocklist (
    network  TEXT NOT NULL PRIMARY KEY,
    reason   TEXT NOT NULL,
    source   TEXT NOT NULL,
    failures INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    expires  INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX ip_blocklist_expires ON ip_blocklist (expires) WHERE expires IS NOT NULL;

CREATE TABLE ip_allowlist (
    network TEXT NOT NULL PRIMARY KEY,
    note    TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE ip_trusted (
    network TEXT NOT NULL PRIMARY KEY,
    note    TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The defaults of SPEC §5.2; the operator may remove them.
INSERT INTO ip_trusted (network, note, created) VALUES
    ('127.0.0.1/32', 'this machine', unixepoch() * 1000),
    ('::1/128', 'this machine', unixepoch() * 1000);

-- Append-only, numbered without gaps from 1, chained by `code` (SPEC §5.9).
CREATE TABLE audit_logs (
    sequence   INTEGER NOT NULL PRIMARY KEY,
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    severity   INTEGER NOT NULL CHECK (severity BETWEEN 1 AND 4),
    request_id TEXT,
    address    TEXT,
    key        TEXT,
    endpoint   TEXT,
    engine     TEXT,
    status     INTEGER,
    latency_ms INTEGER,
    details    TEXT NOT NULL,
    code       BLOB NOT NULL CHECK (length(code) = 32)
) STRICT;

CREATE INDEX audit_logs_kind ON audit_logs (kind, sequence);
CREATE INDEX audit_logs_address ON audit_logs (address, sequence) WHERE address IS NOT NULL;
CREATE INDEX audit_logs_severity ON audit_logs (severity, sequence);

CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;

CREATE TRIGGER audit_logs_no_delete BEFORE DELETE ON audit_logs
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;

-- Also refuses INSERT OR REPLACE of an existing row.
CREATE TRIGGER audit_logs_no_gap BEFORE INSERT ON audit_logs
WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM audit_logs)
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is numbered without gaps');
END;

-- One row per request that ended; no bodies. `number` keeps the order of arrival in the log.
CREATE TABLE request_log (
    number            INTEGER PRIMARY KEY,
    id                TEXT NOT NULL,
    at                INTEGER NOT NULL,
    client            TEXT NOT NULL,
    key               TEXT,
    key_label         TEXT,
    method            TEXT NOT NULL,
    path              TEXT NOT NULL,
    route             TEXT,
    model             TEXT,
    engine            TEXT,
    status            INTEGER NOT NULL,
    error_code        TEXT,
    stream            INTEGER NOT NULL CHECK (stream IN (0, 1)),
    tokens_prompt     INTEGER NOT NULL,
    tokens_completion INTEGER NOT NULL,
    tokens_cached     INTEGER NOT NULL,
    tokens_source     TEXT NOT NULL,
    bytes_in          INTEGER NOT NULL,
    bytes_out         INTEGER NOT NULL,
    screened_us       INTEGER,
    authenticated_us  INTEGER,
    parsed_us         INTEGER,
    resolved_us       INTEGER,
    sent_us           INTEGER,
    first_byte_us     INTEGER,
    first_token_us    INTEGER,
    ended             TEXT,
    took_us           INTEGER,
    user_agent        TEXT,
    CHECK ((ended IS NULL) = (took_us IS NULL))
) STRICT;

CREATE INDEX request_log_at ON request_log (at);
