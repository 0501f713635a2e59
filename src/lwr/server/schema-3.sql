-- From schema version 2 to 3: jobs that come over a message queue. lwr.server.mailbox says more.

-- How its client is told of a job: a route of lwr.core.messages; '' for jobs that came over HTTP, 'silent' for those that
-- came over a queue and of which nothing is told.
ALTER TABLE jobs ADD COLUMN route TEXT NOT NULL DEFAULT '';
-- Of an attempt that is ended for a fresh one: the SHA-256 of the description of that, where it is known.
ALTER TABLE jobs ADD COLUMN makes_way_for TEXT NOT NULL DEFAULT '';

-- What is to be sent and was not confirmed yet, in its order.
CREATE TABLE outbox (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    seq        INTEGER REFERENCES jobs (seq) ON DELETE CASCADE,  -- the attempt it tells of, if it does
    manager    TEXT    NOT NULL,
    job_id     TEXT    NOT NULL,
    route      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,                 -- the queue; 'dead' for dead letters
    state      TEXT    NOT NULL DEFAULT '',      -- what is told of the attempt
    created_at REAL    NOT NULL,
    due_at     REAL    NOT NULL DEFAULT 0,       -- confirmed by the broker; sent again then, if its reader does not answer
    tries      INTEGER NOT NULL DEFAULT 0,
    message_id TEXT    NOT NULL DEFAULT '',
    headers    TEXT    NOT NULL DEFAULT '{}',
    body       BLOB                              -- made when it is first sent, the same ever after; last, as it is long
);
CREATE INDEX outbox_of_job ON outbox (seq);
CREATE INDEX outbox_waiting ON outbox (created_at) WHERE due_at = 0;
CREATE INDEX outbox_due ON outbox (due_at) WHERE due_at > 0;

-- No move can forget to tell.
CREATE TRIGGER jobs_tell AFTER UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state AND NEW.route NOT IN ('', 'silent')
    AND NEW.state IN ('running', 'complete', 'failed', 'cancelled', 'lost')
BEGIN
    INSERT INTO outbox (seq, manager, job_id, route, kind, state, created_at)
    VALUES (NEW.seq, NEW.manager, NEW.job_id, NEW.route, 'status_update', NEW.state, NEW.changed_at);
END;

-- The last word on an attempt, as it was told: whoever asks again hears the same.
CREATE TABLE told (
    seq   INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    route TEXT    NOT NULL,
    body  BLOB    NOT NULL,
    PRIMARY KEY (seq, route)
) WITHOUT ROWID;

-- Messages that were handled, by the name that their sender gave them.
CREATE TABLE heard (
    uuid TEXT PRIMARY KEY,
    at   REAL NOT NULL
) WITHOUT ROWID;

-- Kills that overtook the set-ups of their jobs.
CREATE TABLE early_kills (
    manager TEXT NOT NULL,
    job_id  TEXT NOT NULL,
    at      REAL NOT NULL,
    PRIMARY KEY (manager, job_id)
) WITHOUT ROWID;

-- How often a message came back unhandled, by its digest: one that ends the server each time must not come for ever.
CREATE TABLE returned (
    sha256 BLOB    PRIMARY KEY,
    times  INTEGER NOT NULL,
    at     REAL    NOT NULL
) WITHOUT ROWID;
