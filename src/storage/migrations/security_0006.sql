-- What is remembered of ACME directories (SPEC §6): a restart neither registers again nor forgets a back-off.

CREATE TABLE acme_accounts (
    directory   TEXT NOT NULL,
    -- Key id of the external account; '' for none.
    binding     TEXT NOT NULL,
    contacts    TEXT NOT NULL,
    -- URL and private key.
    credentials TEXT NOT NULL,
    created     INTEGER NOT NULL,
    PRIMARY KEY (directory, binding)
) STRICT, WITHOUT ROWID;

-- By name of the certificate in `certificates`; a row stands until an attempt succeeds.
CREATE TABLE acme_attempts (
    certificate        TEXT NOT NULL PRIMARY KEY,
    failures           INTEGER NOT NULL CHECK (failures > 0),
    last               INTEGER NOT NULL,
    why                TEXT NOT NULL,
    next               INTEGER NOT NULL,
    named_by_directory INTEGER NOT NULL CHECK (named_by_directory IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE acme_renewals (
    certificate  TEXT NOT NULL PRIMARY KEY,
    fingerprint  TEXT NOT NULL,
    renew        INTEGER,
    window_start INTEGER,
    window_end   INTEGER,
    ask_again    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
