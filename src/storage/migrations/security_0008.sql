-- Bodies of requests and answers, kept for keys of which the operator asked for it (SPEC §10).

-- Until when the bodies of the key are captured; NULL is not at all.
ALTER TABLE api_keys ADD COLUMN capture_until INTEGER;

CREATE TABLE captures (
    -- In the order in which they were stored: the oldest go first.
    number        INTEGER PRIMARY KEY,
    request_id    TEXT NOT NULL UNIQUE,
    key           TEXT NOT NULL,
    at            INTEGER NOT NULL,
    -- Bytes that the row counts of the space for all of them.
    size          INTEGER NOT NULL,
    method        TEXT NOT NULL,
    path          TEXT NOT NULL,
    model         TEXT,
    status        INTEGER NOT NULL,
    request_bytes INTEGER NOT NULL,
    request_kept  TEXT NOT NULL CHECK (request_kept IN ('whole', 'cut', 'binary')),
    answer_bytes  INTEGER NOT NULL,
    answer_kept   TEXT NOT NULL CHECK (answer_kept IN ('whole', 'cut', 'binary')),
    -- Last, so that a list need not read through them.
    request       TEXT NOT NULL,
    answer        TEXT NOT NULL
) STRICT;
-- Age and space are looked at without touching the bodies.
CREATE INDEX captures_by_age ON captures (at, size);
