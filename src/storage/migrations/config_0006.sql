-- Comparisons of models (SPEC §9.2, §10), saved when the operator says so: prompt and answers are in the document.

CREATE TABLE comparisons (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    created  INTEGER NOT NULL,
    models   TEXT NOT NULL CHECK (json_valid(models)),
    prompt   TEXT NOT NULL,
    runs     INTEGER NOT NULL CHECK (runs > 0),
    document TEXT NOT NULL CHECK (json_valid(document))
) STRICT;
