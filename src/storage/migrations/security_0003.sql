-- The policy of SPEC §5 as one JSON value, and the failures of the last 24 hours (SPEC §5.3, §10).

CREATE TABLE security_policies (
    name    TEXT NOT NULL PRIMARY KEY CHECK (name = 'default'),
    policy  TEXT NOT NULL CHECK (json_valid(policy)),
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Failures of one network: their times as a JSON list, oldest first.
CREATE TABLE failures (
    network TEXT NOT NULL PRIMARY KEY,
    newest  INTEGER NOT NULL,
    times   TEXT NOT NULL CHECK (json_valid(times))
) STRICT, WITHOUT ROWID;

CREATE INDEX failures_newest ON failures (newest);
