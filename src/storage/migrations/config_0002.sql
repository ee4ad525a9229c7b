-- Usage roll-ups (SPEC §10): one row per local hour, key, model and engine. Neither keys nor engines are referenced:
-- what was used stays known when they are gone.

CREATE TABLE usage_hourly (
    hour              INTEGER NOT NULL,
    key               TEXT NOT NULL,
    model             TEXT NOT NULL,
    engine            TEXT NOT NULL,
    requests          INTEGER NOT NULL,
    failed            INTEGER NOT NULL,
    estimated         INTEGER NOT NULL,
    prompt_tokens     INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens     INTEGER NOT NULL,
    latency_us        INTEGER NOT NULL,
    first_token_us    INTEGER NOT NULL,
    first_tokens      INTEGER NOT NULL,
    rated_tokens      INTEGER NOT NULL,
    rated_us          INTEGER NOT NULL,
    PRIMARY KEY (hour, key, model, engine)
) STRICT, WITHOUT ROWID;
