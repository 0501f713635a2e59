-- The state of an LWR server of version 0.2 (schema 2) with a job in each of its states, a receipt and an upload, as
-- SQLite's own dump.
BEGIN TRANSACTION;
CREATE TABLE announced (
    token        TEXT    PRIMARY KEY,
    address      TEXT    NOT NULL,
    sha256       BLOB,                           -- once it is there
    expires_at   REAL    NOT NULL
) WITHOUT ROWID;
CREATE TABLE cached (
    sha256       BLOB    PRIMARY KEY,
    claim        BLOB    NOT NULL UNIQUE,
    size_bytes   INTEGER NOT NULL,
    inode        INTEGER NOT NULL,
    mtime_ns     INTEGER NOT NULL,
    ctime_ns     INTEGER NOT NULL,
    names_count  INTEGER NOT NULL,
    used_at      REAL    NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    seq    INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    at     REAL    NOT NULL,
    state  TEXT    NOT NULL,
    reason TEXT    NOT NULL
);
INSERT INTO "events" VALUES(1,1,1763000000.0,'new','');
INSERT INTO "events" VALUES(2,2,1763000000.0,'new','');
INSERT INTO "events" VALUES(3,2,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(4,3,1763000000.0,'new','');
INSERT INTO "events" VALUES(5,3,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(6,3,1763000002.0,'queued','');
INSERT INTO "events" VALUES(7,4,1763000000.0,'new','');
INSERT INTO "events" VALUES(8,4,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(9,4,1763000002.0,'queued','');
INSERT INTO "events" VALUES(10,4,1763000003.0,'running','');
INSERT INTO "events" VALUES(11,5,1763000000.0,'new','');
INSERT INTO "events" VALUES(12,5,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(13,5,1763000002.0,'queued','');
INSERT INTO "events" VALUES(14,5,1763000003.0,'running','');
INSERT INTO "events" VALUES(15,5,1763000004.0,'postprocessing','');
INSERT INTO "events" VALUES(16,6,1763000000.0,'new','');
INSERT INTO "events" VALUES(17,6,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(18,6,1763000002.0,'queued','');
INSERT INTO "events" VALUES(19,6,1763000003.0,'running','');
INSERT INTO "events" VALUES(20,6,1763000004.0,'postprocessing','');
INSERT INTO "events" VALUES(21,6,1763000005.0,'complete','');
INSERT INTO "events" VALUES(22,7,1763000000.0,'new','');
INSERT INTO "events" VALUES(23,7,1763000001.0,'preprocessing','');
INSERT INTO "events" VALUES(24,7,1763000002.0,'failed','no such action');
CREATE TABLE files (
    seq        INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    path       TEXT    NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    sha256     BLOB    NOT NULL,
    PRIMARY KEY (seq, path)
) WITHOUT ROWID;
INSERT INTO "files" VALUES(6,'outputs/b',5,1763000000000000000,77,X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F');
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
INSERT INTO "jobs" VALUES(1,'_default_','new','00000000000000000000000000000new',0,'new','/STAGING/new','cat1','1.0',0,0,'',NULL,'',1763000000.0,1763000000.0,NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(2,'_default_','preprocessing','0000000000000000000preprocessing',0,'preprocessing','/STAGING/preprocessing','cat1','1.0',0,0,'',NULL,'',1763000000.0,1763000001.0,1763000001.0,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(3,'_default_','queued','00000000000000000000000000queued',0,'queued','/STAGING/queued','cat1','1.0',0,0,'q.1',NULL,'',1763000000.0,1763000002.0,1763000001.0,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(4,'_default_','running','0000000000000000000000000running',0,'running','/STAGING/running','cat1','1.0',0,0,'r.1',NULL,'',1763000000.0,1763000003.0,1763000001.0,1763000003.0,NULL,NULL);
INSERT INTO "jobs" VALUES(5,'_default_','postprocessing','000000000000000000postprocessing',0,'postprocessing','/STAGING/postprocessing','cat1','1.0',0,0,'',3,'',1763000000.0,1763000004.0,1763000001.0,1763000003.0,1763000004.0,NULL);
INSERT INTO "jobs" VALUES(6,'_default_','complete','000000000000000000000000complete',0,'complete','/STAGING/complete','cat1','1.0',0,0,'',0,'',1763000000.0,1763000005.0,1763000001.0,1763000003.0,1763000004.0,NULL);
INSERT INTO "jobs" VALUES(7,'_default_','failed','00000000000000000000000000failed',0,'failed','/STAGING/failed','cat1','1.0',0,0,'',NULL,'no such action',1763000000.0,1763000002.0,1763000001.0,NULL,1763000002.0,NULL);
CREATE TABLE moves (
    seq          INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    upward       INTEGER NOT NULL,               -- 1: to the job, 0: from it
    kind         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    state        TEXT    NOT NULL,
    mover        TEXT    NOT NULL,
    action       TEXT    NOT NULL,
    peer         TEXT    NOT NULL DEFAULT '',    -- source or destination, without secrets
    size_bytes   INTEGER,
    mtime_ns     INTEGER,
    inode        INTEGER,
    sha256       BLOB,
    checked      TEXT    NOT NULL DEFAULT '',
    tries        INTEGER NOT NULL DEFAULT 0,
    wasted_bytes INTEGER NOT NULL DEFAULT 0,
    began_at     REAL,
    ended_at     REAL,
    reason       TEXT    NOT NULL DEFAULT '',
    bookmark     TEXT    NOT NULL DEFAULT '',    -- where to go on after a cut: a validator, or the place of an upload
    PRIMARY KEY (seq, upward, kind, name, peer)  -- a result may go to two places
) WITHOUT ROWID;
INSERT INTO "moves" VALUES(6,0,'output','out.txt','whole','server','remote_transfer','https://galaxy.example.org/api/jobs/1/files',17,NULL,NULL,NULL,'size',1,0,NULL,NULL,'','');
CREATE TABLE secrets (
    name         TEXT    PRIMARY KEY,
    value        BLOB    NOT NULL
) WITHOUT ROWID;
INSERT INTO "secrets" VALUES('tokens',X'00112233');
CREATE TABLE submissions (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    seq         INTEGER NOT NULL UNIQUE REFERENCES jobs (seq) ON DELETE CASCADE,
    description TEXT    NOT NULL
);
INSERT INTO "submissions" VALUES(1,2,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
INSERT INTO "submissions" VALUES(2,3,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
INSERT INTO "submissions" VALUES(3,4,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
INSERT INTO "submissions" VALUES(4,5,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
INSERT INTO "submissions" VALUES(5,6,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
INSERT INTO "submissions" VALUES(6,7,'{"command_line":"cat ../inputs/a > ../outputs/b","dependencies":null,"dynamic_file_sources":[],"env":[],"params":{},"remote_staging":{},"token_endpoint":"","touch_outputs":[]}');
CREATE TABLE transitions (
    state TEXT NOT NULL,
    next  TEXT NOT NULL,
    PRIMARY KEY (state, next)
) WITHOUT ROWID;
INSERT INTO "transitions" VALUES('new','cancelled');
INSERT INTO "transitions" VALUES('new','failed');
INSERT INTO "transitions" VALUES('new','preprocessing');
INSERT INTO "transitions" VALUES('postprocessing','cancelled');
INSERT INTO "transitions" VALUES('postprocessing','complete');
INSERT INTO "transitions" VALUES('postprocessing','failed');
INSERT INTO "transitions" VALUES('preprocessing','cancelled');
INSERT INTO "transitions" VALUES('preprocessing','failed');
INSERT INTO "transitions" VALUES('preprocessing','queued');
INSERT INTO "transitions" VALUES('queued','cancelled');
INSERT INTO "transitions" VALUES('queued','failed');
INSERT INTO "transitions" VALUES('queued','lost');
INSERT INTO "transitions" VALUES('queued','postprocessing');
INSERT INTO "transitions" VALUES('queued','running');
INSERT INTO "transitions" VALUES('running','cancelled');
INSERT INTO "transitions" VALUES('running','failed');
INSERT INTO "transitions" VALUES('running','lost');
INSERT INTO "transitions" VALUES('running','postprocessing');
INSERT INTO "transitions" VALUES('running','queued');
CREATE TABLE uploads (
    id           TEXT    PRIMARY KEY,
    seq          INTEGER NOT NULL REFERENCES jobs (seq) ON DELETE CASCADE,
    kind         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    size_bytes   INTEGER NOT NULL,
    sha256       BLOB,                           -- as announced; of what came, once it is whole
    metadata     TEXT    NOT NULL DEFAULT '',    -- Upload-Metadata as it was sent
    sure_bytes   INTEGER,                        -- what lies behind has a checksum that was not compared yet
    whole        INTEGER NOT NULL DEFAULT 0,     -- the file has its name
    created_at   REAL    NOT NULL,
    expires_at   REAL    NOT NULL
) WITHOUT ROWID;
INSERT INTO "uploads" VALUES('0123456789abcdef',1,'input','reads.fa',100,NULL,'',NULL,0,1763000000.0,1763086400.0);
CREATE UNIQUE INDEX jobs_current ON jobs (manager, job_id) WHERE superseded = 0;
CREATE UNIQUE INDEX jobs_directory ON jobs (directory) WHERE superseded = 0 AND cleaned_at IS NULL;
CREATE INDEX jobs_uncleaned ON jobs (state) WHERE superseded = 0 AND cleaned_at IS NULL;
CREATE TRIGGER jobs_move_lawfully BEFORE UPDATE OF state ON jobs
WHEN OLD.state <> NEW.state
    AND NOT EXISTS (SELECT 1 FROM transitions WHERE state = OLD.state AND next = NEW.state)
BEGIN
    SELECT RAISE(ABORT, 'illegal move');
END;
CREATE INDEX events_of_job ON events (seq);
CREATE TRIGGER jobs_begin AFTER INSERT ON jobs
BEGIN
    INSERT INTO events (seq, at, state, reason) VALUES (NEW.seq, NEW.changed_at, NEW.state, NEW.reason);
END;
CREATE TRIGGER jobs_move AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state
BEGIN
    INSERT INTO events (seq, at, state, reason) VALUES (NEW.seq, NEW.changed_at, NEW.state, NEW.reason);
END;
CREATE INDEX uploads_of_job ON uploads (seq);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('events',24);
INSERT INTO "sqlite_sequence" VALUES('jobs',7);
INSERT INTO "sqlite_sequence" VALUES('submissions',6);
COMMIT;
PRAGMA user_version = 2;
