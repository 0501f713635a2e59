-- Schema version 1 of the state of an LWR server. Later versions are migrations in database.py.
-- Times are seconds since the epoch; booleans are 0 and 1.

-- One row an attempt. The row with superseded = 0 is what (manager, job_id) means now.
CREATE TABLE jobs (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    manager          TEXT    NOT NULL,
    job_id           TEXT    NOT NULL,
    attempt          TEXT    NOT NULL UNIQUE,
    superseded       INTEGER NOT NULL DEFAULT 0,
    state            TEXT    NOT NULL,
    directory        TEXT    NOT NULL,
    tool_id          TEXT    NOT NULL DEFAULT '',
    tool_version     TEXT    NOT NULL DEFAULT '',
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    clean_requested  INTEGER NOT NULL DEFAULT 0,
    handle           TEXT    NOT NULL DEFAULT '',
    exit_code        INTEGER,
    reason           TEXT    NOT NULL DEFAULT '',
    created_at       REAL    NOT NULL,
    changed_at       REAL    NOT NULL,
    submitted_at     REAL,
    started_at       REAL,
    ended_at         REAL,
    cleaned_at       REAL
);

CREATE UNIQUE INDEX jobs_current ON jobs (manager, job_id) WHERE superseded = 0;
-- Two managers may share a staging directory; two jobs may not share a job directory.
CREATE UNIQUE INDEX jobs_directory ON jobs (directory) WHERE superseded = 0 AND cleaned_at IS NULL;
CREATE INDEX jobs_uncleaned ON jobs (state) WHERE superseded = 0 AND cleaned_at IS NULL;

-- What the client asked for, as JSON. Its number is the order of the queues.
CREATE TABLE submissions (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    seq         INTEGER NOT NULL UNIQUE REFERENCES jobs (seq) ON DELETE CASCADE,
    description TEXT    NOT NULL
);

-- The law: filled from lwr.core.job.TRANSITIONS whenever the store is opened.
CREATE TABLE transitions (
    state TEXT NOT NULL,
    next  TEXT NOT NULL,
    PRIMARY KEY (state, next)
) WITHOUT ROWID;

CREATE TRIGGER jobs_move_lawfully BEFORE UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state
    AND NOT EXISTS (SELECT 1 FROM transitions WHERE state = OLD.state AND next = NEW.state)
BEGIN
    SELECT RAISE(ABORT, 'illegal move');
END;

-- What happened to each attempt. Written by the triggers below, so that no move can forget it.
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    seq    INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    at     REAL    NOT NULL,
    state  TEXT    NOT NULL,
    reason TEXT    NOT NULL
);
CREATE INDEX events_of_job ON events (seq);

CREATE TRIGGER jobs_begin AFTER INSERT ON jobs
BEGIN
    INSERT INTO events (seq, at, state, reason) VALUES (NEW.seq, NEW.changed_at, NEW.state, NEW.reason);
END;

CREATE TRIGGER jobs_move AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
BEGIN
    INSERT INTO events (seq, at, state, reason) VALUES (NEW.seq, NEW.changed_at, NEW.state, NEW.reason);
END;

-- Digests of files, valid while size, time and inode are still those of the file.
CREATE TABLE files (
    seq        INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    path       TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    sha256     BLOB    NOT NULL,
    PRIMARY KEY (seq, path)
) WITHOUT ROWID;
