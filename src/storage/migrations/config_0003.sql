-- Model profiles (SPEC §8.2): one per engine and model. The engine is not referenced: its profiles are there again when
-- it is registered again under the same name.

CREATE TABLE model_profiles (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    engine     TEXT NOT NULL,
    model      TEXT NOT NULL,
    label      TEXT NOT NULL,
    parameters TEXT NOT NULL CHECK (json_valid(parameters)),
    updated    INTEGER NOT NULL,
    UNIQUE (engine, model)
) STRICT;
