-- Alerts survive a restart and are kept for the console (SPEC §5.10, §9).

-- Rows of the audit log up to this number are dealt with: filtered away, delivered, or given up.
ALTER TABLE alert_channels ADD COLUMN through INTEGER NOT NULL DEFAULT 0;

-- Which rows a delivery was about, and what it said in short.
ALTER TABLE alert_deliveries ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alert_deliveries ADD COLUMN last INTEGER NOT NULL DEFAULT 0;
ALTER TABLE alert_deliveries ADD COLUMN summary TEXT NOT NULL DEFAULT '';
CREATE INDEX alert_deliveries_by_channel ON alert_deliveries (channel, number);

-- What the console shows: groups of equal events.
CREATE TABLE alert_inbox (
    number   INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    severity INTEGER NOT NULL CHECK (severity BETWEEN 1 AND 4),
    events   INTEGER NOT NULL,
    -- Rows of the audit log; 0 is an event that could not be recorded there.
    first    INTEGER NOT NULL,
    last     INTEGER NOT NULL,
    address  TEXT,
    details  TEXT NOT NULL,
    -- When it was read; NULL while it is new.
    read     INTEGER
) STRICT;
CREATE INDEX alert_inbox_unread ON alert_inbox (number) WHERE read IS NULL;

-- Every home has a channel that fills the inbox; the operator may change or remove it.
INSERT INTO alert_channels (id, kind, settings, severity, created, through)
SELECT 'console', 'terminal', '{"kind":"terminal"}', 3, CAST(unixepoch('subsec') * 1000 AS INTEGER),
    coalesce((SELECT max(sequence) FROM audit_logs), 0)
WHERE NOT EXISTS (SELECT 1 FROM alert_channels);
