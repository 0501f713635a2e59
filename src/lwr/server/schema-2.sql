-- From schema version 1 to 2: receipts, resumable uploads, the cache of input files.

-- What is known of each file that was moved for a job, or should have been. lwr.core.receipt says what the words mean.
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

-- Files that a client sends in pieces (tus). The bytes that came are a part in the job's directory; its size is how far
-- the upload is. lwr.server.tus says more.
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
CREATE INDEX uploads_of_job ON uploads (seq);

-- Contents in the cache, each in a file that has its digest for a name. The identity is that of the file when it was
-- last known to be unchanged. lwr.server.cache says what a claim is.
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

-- What clients of LWR's older cache routes announced or brought: a token for an address and a path.
CREATE TABLE announced (
    token        TEXT    PRIMARY KEY,
    address      TEXT    NOT NULL,
    sha256       BLOB,                           -- once it is there
    expires_at   REAL    NOT NULL
) WITHOUT ROWID;

-- Random bytes that this server made for itself, by what they are for.
CREATE TABLE secrets (
    name         TEXT    PRIMARY KEY,
    value        BLOB    NOT NULL
) WITHOUT ROWID;
