-- The request log in pages: one row holds a batch of requests in the form of storage/request_page.rs. Written one
-- request a row, the log cost four times the CPU (docs/adr/0006).
-- Rows of the old form are dropped: no release wrote them.
DROP TABLE request_log;

CREATE TABLE request_log (
    -- Number of the page's newest request; requests are numbered without gaps, so that numbers count them.
    last   INTEGER PRIMARY KEY,
    -- Requests in the page.
    count  INTEGER NOT NULL CHECK (count > 0),
    -- When the newest one came, milliseconds since 1970.
    newest INTEGER NOT NULL,
    page   BLOB NOT NULL
) STRICT;
