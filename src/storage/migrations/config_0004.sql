-- Aliases (SPEC §3.5): names of the operator's own for models. Targets are names, not references: an alias is there
-- before its engine is.

CREATE TABLE aliases (
    name    TEXT NOT NULL PRIMARY KEY,
    targets TEXT NOT NULL CHECK (json_valid(targets)),
    "order" TEXT NOT NULL CHECK ("order" IN ('balanced', 'first_serving')),
    updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- How many requests an engine runs at once, when the operator says so (SPEC §3.8).
ALTER TABLE engines ADD COLUMN slots INTEGER CHECK (slots > 0);
