"""One SQLite file: opened by one server at a time, brought to this version's schema, written in groups.

Knows SQLite, not jobs: what the tables mean is `lwr.server.store`'s business. `Database.write` is durable when it
returns (WAL, synchronous=FULL); what several threads ask for at the same time shares one commit, and so one sync.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Generic, TypeVar

from lwr.errors import LwrError, StoreError, Unavailable

T = TypeVar("T")


def _sql(name: str) -> str:
    return files("lwr.server").joinpath(name).read_text(encoding="utf-8")


#: Steps from version 1 on: the n-th brings a file of version n to version n + 1.
MIGRATIONS: tuple[str, ...] = (_sql("schema-2.sql"), _sql("schema-3.sql"))


class _Request(Generic[T]):
    """One caller's work and what became of it."""

    def __init__(self, work: Callable[[sqlite3.Connection], T], durable: bool) -> None:
        self.work = work
        self.durable = durable
        self.done = False
        self.value: T | None = None
        self.error: BaseException | None = None


class Database:
    """The file `path`, held by this process alone until `close`.

    Raises (when made):
        StoreError: another server holds it, it was written by a newer LWR, or it is not a database.
        Unavailable: it cannot be written now (full or read-only disk).
    """

    def __init__(self, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._mutex = threading.Lock()  # guards the two lists
        self._waiting: list[_Request[Any]] = []
        self._turn = threading.Lock()  # held by the thread that writes for all
        self._syncs = True
        self._lock = _hold_alone(path)
        try:
            with _sqlite_errors(path):
                # What clients sent stands in it, job keys of Galaxy's among it; SQLite's other files follow its mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                self._writer = self._connect()
                self._upgrade(migrations)
        except BaseException:
            self.close()
            raise

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run `work` in a transaction and return what it returned, once that is on disk for good.

        With `durable` false a killed process loses nothing either, but a machine that loses power may: for what can
        be found out again. It is on disk with the next durable write.

        `work` must only use the connection. When it raises, nothing of it remains and the error comes out here.

        Raises:
            Unavailable: the disk took no write; nothing of it remains.
        """
        request = _Request(work, durable)
        with self._mutex:
            self._waiting.append(request)
        with self._turn:
            if not request.done:
                with self._mutex:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        if request.error is not None:
            raise request.error
        return request.value  # type: ignore[return-value]  # None only where T is None

    def read(self) -> sqlite3.Connection:
        """This thread's connection for reading; sees all that `write` has returned from."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def close(self) -> None:
        """Close every connection and let the next server in. May be called twice; nothing may be called after."""
        with self._mutex:
            connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()
        self._lock.close()

    def _commit(self, batch: list[_Request[Any]]) -> None:
        try:
            with _sqlite_errors(self._path):
                self._sync_at_commit(any(request.durable for request in batch))
                self._writer.execute("BEGIN IMMEDIATE")
                for request in batch:
                    self._run(request)
                self._writer.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            for request in batch:
                request.error = request.error or error
        finally:
            for request in batch:
                request.done = True

    def _sync_at_commit(self, wanted: bool) -> None:
        if wanted is not self._syncs:
            # In WAL mode NORMAL leaves out the sync of the log at each commit, and nothing else.
            self._writer.execute(f"PRAGMA synchronous={'FULL' if wanted else 'NORMAL'}")
            self._syncs = wanted

    def _run(self, request: _Request[Any]) -> None:
        self._writer.execute("SAVEPOINT one")
        try:
            request.value = request.work(self._writer)
        except (LwrError, sqlite3.IntegrityError, ValueError, TypeError, KeyError) as error:
            request.error = error
            self._writer.execute("ROLLBACK TO one")
        self._writer.execute("RELEASE one")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        with self._mutex:
            self._connections.append(connection)
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _upgrade(self, migrations: Sequence[str]) -> None:
        newest = len(migrations) + 1
        version: int = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version > newest:
            raise StoreError(
                f"{self._path} was written by a newer LWR (schema {version}; this one knows {newest}).",
                "Install that LWR again, or put back the copy that it made beside the file when it upgraded.",
            )
        if version == newest:
            return
        steps = migrations[version - 1 :] if version else (_sql("schema.sql"), *migrations)
        if version:
            self._back_up(version)
        for step in steps:
            self._writer.executescript(f"BEGIN;\n{step}\nPRAGMA user_version = {version + 1};\nCOMMIT;")
            version += 1

    def _back_up(self, version: int) -> None:
        copy = self._path.with_name(f"{self._path.name}.schema-{version}.bak")
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT, 0o600))  # it has the same secrets
        target = sqlite3.connect(copy)
        try:
            self._writer.backup(target)
        finally:
            target.close()


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise Unavailable(
            f"The state in {path} cannot be written: {error}.",
            "Look for a full or read-only disk; LWR goes on by itself when there is room.",
        ) from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"{path} is damaged: {error}.", "Stop LWR, set the file aside and put back a copy of it."
        ) from error


def _hold_alone(path: Path) -> sqlite3.Connection:
    # An exclusive transaction on a file of its own is a lock that every platform has and that dies with us.
    lock_path = path.with_name(path.name + ".lock")
    lock = sqlite3.connect(lock_path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("PRAGMA journal_mode=MEMORY")  # no journal is left behind by a server that was killed
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        lock.close()
        if "locked" not in str(error):
            raise Unavailable(
                f"{lock_path} cannot be used: {error}.", "Check the directory's owner and disk."
            ) from error
        raise StoreError(
            f"Another LWR server (process {_holder(path)}) uses {path.parent}.",
            "Stop it first, or give this one a persistence_directory of its own.",
        ) from error
    path.with_name(path.name + ".pid").write_text(str(os.getpid()), encoding="ascii")
    return lock


def _holder(path: Path) -> str:
    try:
        return path.with_name(path.name + ".pid").read_text(encoding="ascii")[:20]
    except OSError:
        return "unknown"
