-- ledger.sqlite, schema 1. Plain SQLite of 2020: no STRICT, no RETURNING.

CREATE TABLE lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,   -- never used again, so that pages stay pages
    kind TEXT NOT NULL,
    device_id TEXT NOT NULL,
    worker TEXT NOT NULL,
    model TEXT,
    job_id INTEGER,
    line TEXT NOT NULL                      -- engine.wire.LedgerLine as JSON, its id left out
);

CREATE INDEX lines_by_worker ON lines (worker, id);

CREATE INDEX lines_by_job ON lines (job_id, id);
