"""The receipts: what is known of each file that was moved for a job, in both directions.

Keeps `FileRecord`s in the store's database. What clients send is counted in memory until the job is submitted, and
what they fetch is written down in groups, so that small files stay cheap: a server that is killed forgets who
fetched what, and what arrived for a job that was not submitted yet. Must not decide anything about jobs.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import structlog

from lwr.core.job import Job
from lwr.core.places import JobLayout, resolve
from lwr.core.receipt import FileRecord, FileState
from lwr.core.wire import FILE_KINDS
from lwr.errors import LwrError, Unavailable
from lwr.server.store import FileDigest, Store

log = structlog.get_logger("lwr")

Key = TypeVar("Key")

_COLUMNS = (
    "upward, kind, name, state, mover, action, peer, size_bytes, sha256, checked, tries, wasted_bytes, began_at, "
    "ended_at, reason"
)
#: So many fetched files are remembered before they are written down, and so many at most while the disk is full.
_FETCHED_COUNT = 256
_MOST_FETCHED_COUNT = 10_000
#: When so many files wait for their jobs' submits, they are written down before it.
_ARRIVED_COUNT = 50_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What lets a file be skipped or gone on with: its identity when it was whole, or where its source goes on."""

    state: FileState
    identity: tuple[int, int, int]  # size in bytes, mtime in ns, inode
    bookmark: str


class Ledger:
    """One per server; methods are thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = store.database
        self._mutex = threading.Lock()
        self._arrived: dict[int, dict[tuple[str, str], FileRecord]] = {}  # by job, until it is submitted
        self._fetched: dict[tuple[int, str, str], FileRecord] = {}  # by job, kind and name

    # -- what clients do -----------------------------------------------------------------------------------------

    def arrived(self, job: Job, record: FileRecord) -> None:
        """A client's file got its name. In memory; written down by `settle`, or by `flush` if there are many."""
        with self._mutex:
            sent = self._arrived.setdefault(job.seq, {})
            before = sent.get((record.kind, record.name))
            if before is not None:
                wasted = before.wasted_bytes + (before.size_bytes or 0)
                record = replace(record, tries=record.tries + before.tries, wasted_bytes=record.wasted_bytes + wasted)
            sent[record.kind, record.name] = record

    def settle(self, job: Job) -> None:
        """Write down what arrived: no more is taken. Lasts with the next durable write. May be called again."""
        with self._mutex:
            sent = list(self._arrived.get(job.seq, {}).values())
        if sent:
            self.write(job, sent)
        self.forget(job)

    def forget(self, job: Job) -> None:
        """The job was thrown away before it was submitted. Unknown: nothing."""
        with self._mutex:
            self._arrived.pop(job.seq, None)

    def fetched(self, job: Job, record: FileRecord) -> bool:
        """A client was sent all of a result of a job that is over. In memory; whether it is time for `flush`."""
        with self._mutex:
            self._fetched[job.seq, record.kind, record.name] = record
            if len(self._fetched) > _MOST_FETCHED_COUNT:
                del self._fetched[next(iter(self._fetched))]
            return len(self._fetched) % _FETCHED_COUNT == 0

    def flush(self) -> None:
        """Write down what clients fetched, and what they sent when that has become much. Blocks.

        While the disk takes no writes, it stays in memory for the next time."""
        with self._mutex:
            many = sum(map(len, self._arrived.values())) > _ARRIVED_COUNT
            arrived = {seq: dict(sent) for seq, sent in self._arrived.items()} if many else {}
            fetched = dict(self._fetched)
        rows = [(seq, record) for seq, sent in arrived.items() for record in sent.values()]
        rows += [(seq, record) for (seq, _, _), record in fetched.items()]
        if not rows:
            return
        try:
            self._database.write(partial(_write_known, rows=rows), durable=False)
        except Unavailable as error:
            log.warning("receipts are written down later", files=len(rows), reason=error.message)
            return
        with self._mutex:
            _drop(self._fetched, fetched)
            for seq, sent in arrived.items():
                _drop(self._arrived.get(seq, {}), sent)
            self._arrived = {seq: sent for seq, sent in self._arrived.items() if sent}

    # -- what the server does ------------------------------------------------------------------------------------

    def write(
        self, job: Job, records: Iterable[FileRecord], digests: Sequence[FileDigest] = (), bookmark: str = ""
    ) -> None:
        """Write records down, over those of the same files. `digests`: the files' identities, one for each record, so
        that `marks` can tell later whether a file is still the same. Lasts with the next durable write."""
        identities = [(digest.mtime_ns, digest.inode) for digest in digests]
        rows = list(records)

        def work(connection: sqlite3.Connection) -> None:
            for number, record in enumerate(rows):
                _write(connection, job.seq, record, identities[number] if identities else (None, None), bookmark)

        self._database.write(work, durable=False)

    def marks(self, job: Job, *, upward: bool) -> dict[tuple[str, str, str], Mark]:
        """What is known of a job's files in one direction, by kind, name and where it goes or comes from."""
        rows = self._database.read().execute(
            "SELECT kind, name, peer, state, size_bytes, mtime_ns, inode, bookmark FROM moves "
            "WHERE seq = ? AND upward = ?",
            (job.seq, upward),
        )
        return {
            (row["kind"], row["name"], row["peer"]): Mark(
                FileState(row["state"]),
                (row["size_bytes"] or 0, row["mtime_ns"] or 0, row["inode"] or 0),
                row["bookmark"],
            )
            for row in rows
        }

    # -- what people ask -----------------------------------------------------------------------------------------

    def receipt(self, job: Job, layout: JobLayout) -> list[FileRecord]:
        """All that is known of a job's files, those that nobody fetched yet too; up first, then by kind and name."""
        self.flush()
        with self._mutex:
            sent = dict(self._arrived.get(job.seq, {}))
        records = list(sent.values())
        query = f"SELECT {_COLUMNS} FROM moves WHERE seq = ? ORDER BY upward DESC, kind, name"  # noqa: S608
        rows = self._database.read().execute(query, (job.seq,))
        records += [_record(row) for row in rows if not row["upward"] or (row["kind"], row["name"]) not in sent]
        digests = self._store.digests(job)
        told = {record.name for record in records if not record.upward and record.kind == "output"}
        for path, digest in digests.items():
            area, _, name = path.partition("/")
            if area == "outputs" and name not in told:
                records.append(
                    FileRecord(
                        False, "output", name, FileState.READY, "client", "transfer",
                        size_bytes=digest.size_bytes, sha256=digest.sha256,
                    )
                )  # fmt: skip
        return [_placed(record, layout, digests) for record in records]


def _drop(kept: dict[Key, FileRecord], written: Mapping[Key, FileRecord]) -> None:
    """Drop what was written down and is still the same."""
    for key, record in written.items():
        if kept.get(key) is record:
            del kept[key]


def _write_known(connection: sqlite3.Connection, rows: Iterable[tuple[int, FileRecord]]) -> None:
    """Write records of clients down. One of a job that is gone is left out, and so is a fetched file of which more is
    known: that the server delivered it, or that nobody but the server wrote it."""
    for seq, record in rows:
        if connection.execute("SELECT 1 FROM jobs WHERE seq = ?", (seq,)).fetchone() is None:
            continue
        told = connection.execute(
            "SELECT state, mover FROM moves WHERE seq = ? AND upward = ? AND kind = ? AND name = ?",
            (seq, record.upward, record.kind, record.name),
        ).fetchall()
        if record.upward or not any(
            row["state"] == FileState.EMPTY or (row["mover"], row["state"]) == ("server", FileState.WHOLE)
            for row in told
        ):
            _write(connection, seq, record, (None, None), "")


def _write(
    connection: sqlite3.Connection, seq: int, record: FileRecord, identity: tuple[int | None, int | None], bookmark: str
) -> None:
    connection.execute(
        f"INSERT OR REPLACE INTO moves (seq, {_COLUMNS}, mtime_ns, inode, bookmark) "  # noqa: S608
        f"VALUES ({', '.join('?' * 19)})",
        (
            seq, record.upward, record.kind, record.name, record.state, record.mover, record.action, record.peer,
            record.size_bytes, record.sha256, record.checked, record.tries, record.wasted_bytes, record.began_at,
            record.ended_at, record.reason, *identity, bookmark,
        ),
    )  # fmt: skip


def _record(row: sqlite3.Row) -> FileRecord:
    return FileRecord(
        upward=bool(row["upward"]),
        kind=row["kind"],
        name=row["name"],
        state=FileState(row["state"]),
        mover=row["mover"],
        action=row["action"],
        peer=row["peer"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        checked=row["checked"],
        tries=row["tries"],
        wasted_bytes=row["wasted_bytes"],
        began_at=row["began_at"],
        ended_at=row["ended_at"],
        reason=row["reason"],
    )


def _placed(record: FileRecord, layout: JobLayout, digests: Mapping[str, FileDigest]) -> FileRecord:
    """The record with its place on this machine and the digest that was taken there."""
    kind = FILE_KINDS.get(record.kind)
    try:
        components = resolve(kind.area, record.name, nested=kind.nested, windows=layout.windows) if kind else ()
    except LwrError:
        components = ()  # a pattern that matched nothing
    known = digests.get("/".join(components))
    sha256 = record.sha256 or (known.sha256 if known and known.size_bytes == record.size_bytes else None)
    return replace(record, path=layout.path(*components) if components else "", sha256=sha256)
