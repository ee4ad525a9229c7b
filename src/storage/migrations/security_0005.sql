-- The audit log may be archived, and by nothing else than an anchor may rows leave it (SPEC §5.9); keys of its chain
-- before a change of the database key; alert channels and what became of their deliveries (SPEC §5.10).

-- Stands for the rows `first` to `through`. `code` is the code of row `through`, which the next row goes on from;
-- `seal` chains the anchors.
CREATE TABLE audit_anchors (
    through INTEGER NOT NULL PRIMARY KEY,
    first   INTEGER NOT NULL,
    oldest  INTEGER NOT NULL,
    newest  INTEGER NOT NULL,
    made    INTEGER NOT NULL,
    code    BLOB NOT NULL CHECK (length(code) = 32),
    seal    BLOB NOT NULL CHECK (length(seal) = 32),
    CHECK (first BETWEEN 1 AND through)
) STRICT;

CREATE TRIGGER audit_anchors_fit BEFORE INSERT ON audit_anchors
WHEN NEW.first IS NOT (SELECT coalesce(max(through), 0) + 1 FROM audit_anchors)
    OR NOT EXISTS (SELECT 1 FROM audit_logs WHERE sequence = NEW.through AND code = NEW.code)
BEGIN
    SELECT RAISE(ABORT, 'an anchor stands for the oldest rows');
END;

CREATE TRIGGER audit_anchors_no_update BEFORE UPDATE ON audit_anchors
BEGIN
    SELECT RAISE(ABORT, 'audit_anchors is append-only');
END;

CREATE TRIGGER audit_anchors_no_delete BEFORE DELETE ON audit_anchors
BEGIN
    SELECT RAISE(ABORT, 'audit_anchors is append-only');
END;

DROP TRIGGER audit_logs_no_delete;
CREATE TRIGGER audit_logs_no_delete BEFORE DELETE ON audit_logs
WHEN OLD.sequence > (SELECT coalesce(max(through), 0) FROM audit_anchors)
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;

DROP TRIGGER audit_logs_no_gap;
-- Also refuses INSERT OR REPLACE of an existing row, and the number of an archived one.
CREATE TRIGGER audit_logs_no_gap BEFORE INSERT ON audit_logs
WHEN NEW.sequence IS NOT 1 + max(
    (SELECT coalesce(max(sequence), 0) FROM audit_logs),
    (SELECT coalesce(max(through), 0) FROM audit_anchors))
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is numbered without gaps');
END;

-- The anchor and the rows that it stands for change places in one statement.
CREATE TRIGGER audit_anchors_replace AFTER INSERT ON audit_anchors
BEGIN
    DELETE FROM audit_logs WHERE sequence <= NEW.through;
END;

-- Keys of the chain before the database key was changed: rows up to `through` were chained with `key`.
CREATE TABLE audit_chain_keys (
    through INTEGER NOT NULL PRIMARY KEY,
    key     BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;

CREATE TABLE alert_channels (
    id       TEXT NOT NULL PRIMARY KEY,
    -- The name of a kind as audit/alerts declares it, and its own settings as JSON, secrets included.
    kind     TEXT NOT NULL,
    settings TEXT NOT NULL CHECK (json_valid(settings)),
    severity INTEGER NOT NULL CHECK (severity BETWEEN 1 AND 4),
    created  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_deliveries (
    number   INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    channel  TEXT NOT NULL,
    -- Events in the delivery.
    events   INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    -- NULL when it arrived.
    fault    TEXT
) STRICT;
