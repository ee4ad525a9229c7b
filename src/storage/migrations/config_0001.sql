-- config.db, version 1 (SPEC §10). Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE settings (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE engines (
    id          TEXT NOT NULL PRIMARY KEY,
    kind        TEXT NOT NULL,
    url         TEXT NOT NULL,
    api_key_env TEXT,
    direct      INTEGER NOT NULL CHECK (direct IN (0, 1)),
    origin      TEXT NOT NULL CHECK (origin IN ('detected', 'manual', 'demo')),
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The last detection: one row.
CREATE TABLE engines_cache (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    at      INTEGER NOT NULL,
    took_ms INTEGER NOT NULL,
    engines TEXT NOT NULL CHECK (json_valid(engines))
) STRICT;

-- Raw checks of about a day (SPEC §3.4).
CREATE TABLE engine_health (
    engine     TEXT NOT NULL REFERENCES engines (id) ON DELETE CASCADE,
    at         INTEGER NOT NULL,
    latency_ms INTEGER,
    reason     TEXT,
    PRIMARY KEY (engine, at)
) STRICT, WITHOUT ROWID;

-- Checks of whole hours, for 90 days.
CREATE TABLE engine_health_hourly (
    engine         TEXT NOT NULL REFERENCES engines (id) ON DELETE CASCADE,
    hour           INTEGER NOT NULL CHECK (hour % 3600000 = 0),
    checks         INTEGER NOT NULL CHECK (checks > 0),
    failures       INTEGER NOT NULL CHECK (failures BETWEEN 0 AND checks),
    latency_sum_ms INTEGER NOT NULL,
    PRIMARY KEY (engine, hour)
) STRICT, WITHOUT ROWID;

-- Listeners to start, one per port (SPEC §1.2).
CREATE TABLE proxy_profiles (
    port                INTEGER NOT NULL PRIMARY KEY CHECK (port BETWEEN 0 AND 65535),
    mode                TEXT NOT NULL,
    bind                TEXT NOT NULL,
    insecure_plain_http INTEGER NOT NULL CHECK (insecure_plain_http IN (0, 1))
) STRICT;

-- Every version of every prompt (SPEC §8.1). Versions count on after a removal.
CREATE TABLE api_prompt_history (
    api_id  TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    text    TEXT NOT NULL,
    saved   INTEGER NOT NULL,
    removed INTEGER,
    PRIMARY KEY (api_id, version)
) STRICT, WITHOUT ROWID;

-- The version in force.
CREATE TABLE api_prompts (
    api_id  TEXT NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL,
    FOREIGN KEY (api_id, version) REFERENCES api_prompt_history (api_id, version)
) STRICT, WITHOUT ROWID;
