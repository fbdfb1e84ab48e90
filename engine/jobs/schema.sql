-- jobs.sqlite, schema 1. Plain SQLite of 2020: no STRICT, no RETURNING.

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    spec TEXT NOT NULL,                     -- engine.wire.JobSpec as JSON, as it was asked for
    priority INTEGER NOT NULL,              -- decides over the priority inside spec
    place INTEGER NOT NULL,                 -- order among those waiting with equal priority
    state TEXT NOT NULL CHECK (state IN (
        'queued', 'waiting_memory', 'running', 'done', 'failed', 'cancelled', 'interrupted'
    )),
    held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1)),
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    created_at REAL NOT NULL,
    started_at REAL,
    finished_at REAL,
    attempt INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0, -- since a person last asked for it
    error TEXT,
    error_code TEXT,
    waits_for TEXT,
    output TEXT,
    manifest TEXT,
    expected_peak_bytes INTEGER,
    duplicate_of INTEGER
);

CREATE INDEX jobs_by_state ON jobs (state, priority, place);

CREATE TABLE attempts (
    job_id INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    attempt INTEGER NOT NULL,
    started_at REAL NOT NULL,
    ended_at REAL,
    outcome TEXT CHECK (outcome IN ('done', 'failed', 'cancelled', 'interrupted')),
    error_code TEXT,
    cause TEXT,
    instance TEXT NOT NULL,                 -- the engine that ran it
    engine_pid INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    worker_pid INTEGER,
    worker_start_time REAL,                 -- seconds since boot: with the pid, an identity
    output TEXT NOT NULL,                   -- where the video goes if it gets that far
    manifest TEXT NOT NULL,
    PRIMARY KEY (job_id, attempt)
) WITHOUT ROWID;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
