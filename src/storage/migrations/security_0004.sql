-- Certificates with their private keys (SPEC §6, §10): nowhere else are keys kept.

CREATE TABLE certificates (
    name        TEXT NOT NULL PRIMARY KEY,
    chain       TEXT NOT NULL,
    private_key TEXT NOT NULL,
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
