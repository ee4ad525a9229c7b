-- TXT records that are, or may be, in the world (SPEC §6): what a crash leaves there is removed at the next start.
CREATE TABLE acme_records (
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    provider TEXT NOT NULL,
    placed   INTEGER NOT NULL,
    PRIMARY KEY (name, value)
) STRICT, WITHOUT ROWID;
