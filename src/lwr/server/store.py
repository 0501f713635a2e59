"""The one truth: jobs, their submissions, events and digests, in one SQLite database.

Speaks in `Job`s and moves; every change is one transaction and durable on return. Repeats the law of states (a
trigger fed from `TRANSITIONS`) and writes the event of each move by trigger too. Must not decide anything: what to
do when is the engine's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lwr.core.job import CANCELLED_REASON, LIVE, TERMINAL, TRANSITIONS, Job, JobKey, JobState, Move, advance
from lwr.errors import IllegalMove
from lwr.server.database import Database

#: A machine that lost power finds these out again, from the manager or the exit file. RUNNING is not among them: a job
#: that was forgotten there would be started a second time.
_SEEN_AGAIN = frozenset({JobState.QUEUED, JobState.POSTPROCESSING})

_COLUMNS = (
    "seq, manager, job_id, attempt, state, directory, tool_id, tool_version, cancel_requested, clean_requested, "
    "handle, exit_code, reason, created_at, submitted_at, started_at, ended_at, cleaned_at, route, "
    "makes_way_for"
)


@dataclass(frozen=True, slots=True)
class Event:
    """One move of an attempt: when (seconds since the epoch), where to, and why."""

    at: float
    state: JobState
    reason: str


@dataclass(frozen=True, slots=True)
class Origin:
    """How a description came in, where that matters afterwards.

    Args:
        route: how its client is told of the job (lwr.core.messages), if it is; `SILENT` for a client that is not.
        killed: the wish to end it was faster.
    """

    route: str = ""
    killed: bool = False


SILENT = "silent"


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file's SHA-256, valid while the other three are still the file's."""

    size_bytes: int
    mtime_ns: int
    inode: int
    sha256: bytes


def _job(row: sqlite3.Row) -> Job:
    return Job(
        seq=row["seq"],
        key=JobKey(row["manager"], row["job_id"]),
        attempt=row["attempt"],
        state=JobState(row["state"]),
        directory=row["directory"],
        tool_id=row["tool_id"],
        tool_version=row["tool_version"],
        submitted=row["submitted_at"] is not None,
        cancel_requested=bool(row["cancel_requested"]),
        clean_requested=bool(row["clean_requested"]),
        handle=row["handle"],
        exit_code=row["exit_code"],
        reason=row["reason"],
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        cleaned_at=row["cleaned_at"],
        route=row["route"],
        makes_way_for=row["makes_way_for"],
    )


class Store:
    """The jobs in `persistence_directory` (made when missing). Methods may be called from any thread."""

    def __init__(self, persistence_directory: Path) -> None:
        persistence_directory.mkdir(parents=True, exist_ok=True)
        self.database = Database(persistence_directory / "lwr.sqlite")
        self.database.write(_write_law)

    def close(self) -> None:
        """Let go of the file. May be called twice."""
        self.database.close()

    # -- one job -------------------------------------------------------------------------------------------------

    def current(self, key: JobKey) -> Job | None:
        """The attempt that `key` means now, cleaned or not."""
        return self._one("manager = ? AND job_id = ? AND superseded = 0", key.manager, key.job_id)

    def by_attempt(self, attempt: str) -> Job | None:
        return self._one("attempt = ?", attempt)

    def numbered(self, seq: int) -> Job | None:
        """The attempt of that number."""
        return self._one("seq = ?", seq)

    def in_directory(self, directory: str) -> Job | None:
        """The job that has this job directory now."""
        return self._one("directory = ? AND superseded = 0 AND cleaned_at IS NULL", directory)

    def _one(self, condition: str, *values: str | int) -> Job | None:
        row = self.database.read().execute(f"SELECT {_COLUMNS} FROM jobs WHERE {condition}", values).fetchone()  # noqa: S608
        return None if row is None else _job(row)

    def begin(self, fresh: Job, replaces: Job | None) -> Job | None:
        """Add a new attempt, in place of `replaces`; returns it with its number, None (and nothing changed) when its
        directory belongs to another job."""

        try:
            self.database.write(lambda connection: _insert(connection, fresh, replaces))
        except sqlite3.IntegrityError:
            return None
        return self.by_attempt(fresh.attempt)

    def refuse(self, fresh: Job, reason: str, route: str, description: str, replaces: Job | None) -> None:
        """Record a job that was refused before it had a directory: FAILED, told on `route`, and cleaned already; with
        its description, so that the same message is known when it comes again (empty: it could not be read)."""

        def work(connection: sqlite3.Connection) -> None:
            seq = _insert(connection, fresh, replaces)
            connection.execute("UPDATE jobs SET route = ? WHERE seq = ?", (route, seq))
            if description:
                connection.execute("INSERT INTO submissions (seq, description) VALUES (?, ?)", (seq, description))
            _move(connection, seq, Move(JobState.FAILED, reason), fresh.created_at)

        self.database.write(work)

    def submit(self, job: Job, description: str, at: float, origin: Origin = Origin()) -> Job:
        """Store what the client asked for and move the job to PREPROCESSING, in one transaction; returns it then.

        Raises:
            IllegalMove: it is not NEW any more; nothing was stored.
        """

        def work(connection: sqlite3.Connection) -> Job | None:
            connection.execute("INSERT INTO submissions (seq, description) VALUES (?, ?)", (job.seq, description))
            connection.execute(
                "UPDATE jobs SET submitted_at = ?, route = ?, cancel_requested = cancel_requested | ? WHERE seq = ?",
                (at, origin.route, origin.killed, job.seq),
            )
            return _move(connection, job.seq, Move(JobState.PREPROCESSING), at)

        submitted = self.database.write(work)
        if submitted is None:
            raise IllegalMove(f"Job {job.key} was submitted before.")
        return submitted

    def submission(self, job: Job) -> tuple[int, str] | None:
        """(number in the order of submissions, description as JSON); None before the submit."""
        row = (
            self.database.read()
            .execute("SELECT number, description FROM submissions WHERE seq = ?", (job.seq,))
            .fetchone()
        )
        return None if row is None else (row["number"], row["description"])

    def was_submitted(self, key: JobKey, description: str) -> bool:
        """Whether any attempt of a job, also one that was replaced, had this description."""
        row = (
            self.database.read()
            .execute(
                "SELECT 1 FROM jobs JOIN submissions USING (seq) WHERE manager = ? AND job_id = ? AND description = ?",
                (*key, description),
            )
            .fetchone()
        )
        return row is not None

    def replace(self, job: Job, digest: str = "", route: str = "") -> None:
        """Record that the job is to make way for a fresh attempt: it is cancelled, and on the fresh one's `route`
        nothing more is told of it.

        `digest` is that of the description of the fresh one, if it is known."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE jobs SET cancel_requested = 1, makes_way_for = ? WHERE seq = ?", (digest, job.seq)
            )
            _mute(connection, job, route)

        self.database.write(work)

    def wish(self, job: Job, *, cancel: bool = False, clean: bool = False) -> None:
        """Record that somebody wants the job cancelled or cleaned. States are moved by the engine alone.

        A wish to clean alone is not synced by itself: it comes with `cleaned`, or is said again."""
        self.database.write(
            lambda connection: connection.execute(
                "UPDATE jobs SET cancel_requested = cancel_requested | ?, clean_requested = clean_requested | ? "
                "WHERE seq = ?",
                (cancel, clean, job.seq),
            ),
            durable=cancel,
        )

    def cleaned(self, jobs: Iterable[Job], at: float) -> None:
        """Record that the jobs' directories are gone."""
        rows = [(at, job.seq) for job in jobs]
        self.database.write(
            lambda connection: connection.executemany("UPDATE jobs SET cleaned_at = ? WHERE seq = ?", rows)
        )

    # -- moves ---------------------------------------------------------------------------------------------------

    def move(
        self, moves: Sequence[tuple[Job, Move]], at: float, digests: Mapping[str, FileDigest] | None = None
    ) -> list[Job]:
        """Make all moves, in order, in one transaction; returns each job that changed, as it is after each change.

        `digests`, by path, belong to the one job that is moved. A wish to cancel that was recorded before a job
        became COMPLETE wins: it becomes CANCELLED.

        Raises:
            IllegalMove: one is against the law; none is made.
        """

        def work(connection: sqlite3.Connection) -> list[Job]:
            for path, one in (digests or {}).items():
                _write_digest(connection, moves[0][0], path, one)
            made = [_move(connection, job.seq, move, at) for job, move in moves]
            return [job for job in made if job is not None]

        return self.database.write(work, durable=not all(move.to in _SEEN_AGAIN for _, move in moves))

    # -- many jobs -----------------------------------------------------------------------------------------------

    def unfinished(self) -> list[tuple[Job, int]]:
        """Every current job with something left to do (live, or to be cleaned), with its number in the order of
        submissions (0 before the submit), in that order."""
        live = ", ".join(f"'{state}'" for state in sorted(LIVE))
        rows = self.database.read().execute(
            f"SELECT jobs.*, coalesce(submissions.number, 0) AS number FROM jobs LEFT JOIN submissions USING (seq) "  # noqa: S608
            f"WHERE superseded = 0 AND cleaned_at IS NULL AND (state IN ({live}) OR clean_requested) ORDER BY number"
        )
        return [(_job(row), row["number"]) for row in rows]

    def abandoned(self, before: float, new_before: float, told_before: float) -> list[Job]:
        """Jobs with a directory that nobody will ask for: failed, lost or cancelled and unchanged since `before`;
        never submitted since `new_before`; or complete since `told_before`, if they came over a queue and their
        client has been told."""
        rows = self.database.read().execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE superseded = 0 AND cleaned_at IS NULL "  # noqa: S608
            "AND (state IN ('failed', 'lost', 'cancelled') AND changed_at < ? OR state = 'new' AND changed_at < ? "
            "OR state = 'complete' AND changed_at < ? AND route <> '' "
            "AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = jobs.seq)) LIMIT 1000",
            (before, new_before, told_before),
        )
        return [_job(row) for row in rows]

    def forget(self, before: float) -> int:
        """Delete rows of attempts that were cleaned or superseded before `before`, and of which nothing is left to be
        told; returns how many."""
        return self.database.write(
            lambda connection: (
                connection.execute(
                    "DELETE FROM jobs WHERE coalesce(cleaned_at, CASE WHEN superseded THEN changed_at END) < ? "
                    "AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.seq = jobs.seq)",
                    (before,),
                ).rowcount
            )
        )

    def jobs(self, state: JobState | None, manager: str | None, limit: int, before_seq: int | None) -> list[Job]:
        """Attempts, newest first, superseded ones too; at most `limit`, only those older than `before_seq`."""
        conditions = ["1"]
        values: list[str | int] = []
        for column, value in (("state =", state), ("manager =", manager), ("seq <", before_seq)):
            if value is not None:
                conditions.append(f"{column} ?")
                values.append(value)
        rows = self.database.read().execute(
            f"SELECT {_COLUMNS} FROM jobs WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (*values, limit),
        )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, dict[JobState, int]]:
        """How many current jobs, not cleaned, are in each state, by manager."""
        # Without statistics SQLite would go through all records that are kept of cleaned jobs: twenty times slower.
        rows = self.database.read().execute(
            "SELECT manager, state, count(*) AS n FROM jobs INDEXED BY jobs_uncleaned "
            "WHERE superseded = 0 AND cleaned_at IS NULL GROUP BY manager, state"
        )
        counts: dict[str, dict[JobState, int]] = {}
        for row in rows:
            counts.setdefault(row["manager"], {})[JobState(row["state"])] = row["n"]
        return counts

    def events(self, job: Job) -> list[Event]:
        rows = self.database.read().execute(
            "SELECT at, state, reason FROM events WHERE seq = ? ORDER BY number", (job.seq,)
        )
        return [Event(row["at"], JobState(row["state"]), row["reason"]) for row in rows]

    # -- digests -------------------------------------------------------------------------------------------------

    def digest(self, job: Job, path: str) -> FileDigest | None:
        row = (
            self.database.read()
            .execute(
                "SELECT size_bytes, mtime_ns, inode, sha256 FROM files WHERE seq = ? AND path = ?", (job.seq, path)
            )
            .fetchone()
        )
        return None if row is None else FileDigest(*row)

    def digests(self, job: Job) -> dict[str, FileDigest]:
        """All that were taken of a job's files, by path below its directory."""
        rows = self.database.read().execute(
            "SELECT path, size_bytes, mtime_ns, inode, sha256 FROM files WHERE seq = ? ORDER BY path", (job.seq,)
        )
        return {path: FileDigest(*rest) for path, *rest in rows}

    def remember_digest(self, job: Job, path: str, digest: FileDigest) -> None:
        self.database.write(lambda connection: _write_digest(connection, job, path, digest))


def _write_digest(connection: sqlite3.Connection, job: Job, path: str, digest: FileDigest) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)",
        (job.seq, path, digest.size_bytes, digest.mtime_ns, digest.inode, digest.sha256),
    )


def _insert(connection: sqlite3.Connection, fresh: Job, replaces: Job | None) -> int:
    """Add an attempt in place of another one, of which nothing more is told on its route; returns its number."""
    if replaces is not None:
        connection.execute("UPDATE jobs SET superseded = 1 WHERE seq = ?", (replaces.seq,))
        _mute(connection, replaces, fresh.route)
    cursor = connection.execute(
        "INSERT INTO jobs (manager, job_id, attempt, state, directory, tool_id, tool_version, reason, cleaned_at, "
        "created_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*fresh.key, fresh.attempt, fresh.state, fresh.directory, fresh.tool_id, fresh.tool_version, fresh.reason,
         fresh.cleaned_at, fresh.created_at, fresh.created_at),
    )  # fmt: skip
    return int(cursor.lastrowid or 0)


def _mute(connection: sqlite3.Connection, job: Job, route: str) -> None:
    """Have nothing more told there of this attempt, nor of those before it."""
    connection.execute("UPDATE jobs SET route = '' WHERE seq = ? AND route = ?", (job.seq, route))
    connection.execute(
        "DELETE FROM outbox WHERE manager = ? AND job_id = ? AND route = ? AND kind = 'status_update'",
        (*job.key, route),
    )


def _write_law(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM transitions")
    connection.executemany(
        "INSERT INTO transitions VALUES (?, ?)",
        [(state, onward) for state, onwards in TRANSITIONS.items() for onward in onwards],
    )


def _move(connection: sqlite3.Connection, seq: int, move: Move, at: float) -> Job | None:
    """Make a move; returns the job as it is then, None when nothing changed."""
    row = connection.execute("SELECT state, cancel_requested FROM jobs WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise IllegalMove(f"There is no attempt number {seq} to move to {move.to}.")
    if move.to is JobState.COMPLETE and row["cancel_requested"]:
        move = Move(JobState.CANCELLED, CANCELLED_REASON, move.exit_code)
    if not advance(JobState(row["state"]), move.to):
        connection.execute("UPDATE jobs SET handle = ? WHERE seq = ? AND ? <> ''", (move.handle, seq, move.handle))
        return None
    ends = move.to is JobState.POSTPROCESSING or move.to in TERMINAL
    # All rows are fetched, or SQLite would not have finished the statement.
    (moved,) = connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, changed_at = ?, exit_code = coalesce(?, exit_code), "  # noqa: S608
        "handle = coalesce(nullif(?, ''), handle), "
        "started_at = CASE WHEN ? THEN coalesce(started_at, ?) ELSE started_at END, "
        "ended_at = CASE WHEN ? THEN coalesce(ended_at, ?) ELSE ended_at END "
        f"WHERE seq = ? RETURNING {_COLUMNS}",
        (move.to, move.reason, at, move.exit_code, move.handle, move.to is JobState.RUNNING, at, ends, at, seq),
    ).fetchall()
    return _job(moved)
