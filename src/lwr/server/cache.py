"""Contents of input files that several jobs use: each once on disk, below `file_cache_dir`, and linked into jobs.

A client asks for a content by its *claim*: the HMAC-SHA-256 of the content under this server's salt. The salt is
public, so whoever has the content can make the claim, and nobody else: a digest opens nothing, and tells nobody what
is here.

What a job gets shares blocks with the cache where the file system can do that; else it is a second name of the same
file, if this user cannot write to read-only files (root can); else a copy. A file that was changed all the same is
seen before its next use, by size, inode, owner, mode and times, and thrown out; where only the time of change differs,
and no name that went away with its job explains it, the content is hashed again. (Somebody who is this user, writes,
puts mode and time back and then removes its name is not seen: it could as well write to this directory.)

Must not know HTTP, nor which clients there are. Methods block, and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from io import FileIO
from typing import BinaryIO

import structlog

from lwr.errors import LwrError
from lwr.server.contents import Arrival, Content, Directory, Identity, disk_errors
from lwr.server.database import Database
from lwr.transfer.jobfiles import JobFiles, Part

log = structlog.get_logger("lwr")

_PIECE_BYTES = 1024 * 1024
#: A content whose file is touched again while it is being hashed is looked at so often.
_LOOKS_COUNT = 3


class Cache:
    """The contents in one directory. `start` it before anything else.

    Args:
        directory: absolute; no other server's.
        maximum_bytes: of all contents together; 0 for no limit.
        clock: seconds since the epoch.
    """

    def __init__(
        self, directory: str, maximum_bytes: int, database: Database, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._files = Directory(directory)
        self._maximum_bytes = maximum_bytes
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()  # of the names in the directory, the rows and the counters
        self._looking = threading.Lock()  # of hashing again
        self._counts: Counter[str] = Counter()
        self._links = False
        self._key = b""

    def start(self) -> None:
        """Take possession of the directory, made if missing, and bring files and rows together.

        Raises:
            ConfigError: it is another server's, or cannot be used.
        """
        self._write("INSERT OR IGNORE INTO secrets VALUES ('cache', ?)", (secrets.token_bytes(32),))
        self._key = self._database.read().execute("SELECT value FROM secrets WHERE name = 'cache'").fetchone()[0]
        self._files.open(self.secret("owner").hex())
        with self._lock, disk_errors():
            known = {row[0] for row in self._database.read().execute("SELECT sha256 FROM cached").fetchall()}
            for sha256 in known ^ self._files.contents():
                self._remove(sha256)
            self._links = self._files.links_are_best()

    @property
    def salt(self) -> bytes:
        """What claims are made with. Public; the same for the life of this server's state."""
        return self.secret("salt")

    def secret(self, purpose: str) -> bytes:
        """32 bytes for one purpose, from a key that this server keeps."""
        return hmac.digest(self._key, purpose.encode(), "sha256")

    # -- bringing ------------------------------------------------------------------------------------------------

    def arrival(self) -> Arrival:
        """Begin to write a content, for `keep`. Raises Unavailable or ServerError."""
        return self._files.arrival(self.salt)

    def could_fit(self, size_bytes: int) -> bool:
        """Whether a content of that size can ever be kept."""
        return not self._maximum_bytes or size_bytes <= self._maximum_bytes

    def keep(self, arrival: Arrival) -> Content | None:
        """Name what was written, unless that content is here; None when there is no room for it. Once.

        Raises Unavailable or ServerError.
        """
        content = arrival.finish()
        with self._lock, disk_errors():
            if self._is_intact(content.sha256):
                return content
            if not self._make_room(content):
                return None
            identity = self._files.name(arrival.part, content.sha256)
            self._write(
                "INSERT OR REPLACE INTO cached "
                "(sha256, claim, size_bytes, inode, mtime_ns, ctime_ns, names_count, used_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (content.sha256, content.claim, *astuple(identity), self._clock()),
            )
            return content

    def take(self, file: BinaryIO, size_bytes: int) -> bool:
        """Keep what can be read from an open file, of a job perhaps, that may be changed meanwhile. Returns whether it
        is here now. When it cannot be kept (no room, disk full) this is no error: who has the file needs no cache."""
        if not self.could_fit(size_bytes):
            return False
        try:
            with self.arrival() as arrival:
                while piece := file.read(_PIECE_BYTES):
                    arrival.put([piece])
                return self.keep(arrival) is not None
        except (OSError, LwrError) as error:
            log.warning("a file was not kept in the cache", reason=str(error))
            return False

    # -- using ---------------------------------------------------------------------------------------------------

    def claimed(self, claim: bytes) -> bytes | None:
        """The SHA-256 of the content that this claim is for; None when it is not here."""
        row = self._database.read().execute("SELECT sha256 FROM cached WHERE claim = ?", (claim,)).fetchone()
        return None if row is None else row["sha256"]

    def holds(self, sha256: bytes) -> bool:
        """Whether that content is here, unchanged. Raises Unavailable or ServerError."""
        with self._opened(sha256) as file:
            return file is not None

    def part(self, sha256: bytes, files: JobFiles) -> Part | None:
        """A content as a new file of a job, whole, to be committed there; None when it is not here, unchanged.

        Raises what `JobFiles.part` raises. Counts a hit or a miss.
        """
        part = None
        with self._opened(sha256) as file:
            if file is not None:
                part = self._linked(file, sha256, files) if self._links else None
                part = part or files.filled(file.fileno())
        if part is None:
            self.missed()
            return None
        with self._lock:
            self._counts["hits"] += 1
            self._counts["bytes_saved"] += part.size_bytes
        return part

    def missed(self) -> None:
        """Count somebody who asked for a content that is not here."""
        with self._lock:
            self._counts["misses"] += 1

    def counters(self) -> dict[str, int]:
        """Since the start: `hits`, `misses`, `bytes_saved`. Now: `entries`, `size_bytes`, `maximum_bytes`."""
        with self._lock:
            counted = {name: self._counts[name] for name in ("hits", "misses", "bytes_saved")}
        entries, size_bytes = self._database.read().execute("SELECT count(*), total(size_bytes) FROM cached").fetchone()
        return {**counted, "entries": entries, "size_bytes": int(size_bytes), "maximum_bytes": self._maximum_bytes}

    def _linked(self, file: FileIO, sha256: bytes, files: JobFiles) -> Part | None:
        with self._lock:
            known = self._known(sha256)
            if known is None or not known.explains(Identity.of(os.fstat(file.fileno()))):
                return None  # it was touched again; what is open is still good for a copy
            part = files.linked(self._files.path(sha256))
            if part is not None:
                # The new name changed the file's time. If this is not written down, the file is hashed again.
                self._record(sha256, Identity.of(os.fstat(file.fileno())))
        return part

    @contextlib.contextmanager
    def _opened(self, sha256: bytes) -> Iterator[FileIO | None]:
        """The file of a content, if it is here and unchanged, wherever its name goes meanwhile."""
        with contextlib.ExitStack() as closing:
            yield self._open(sha256, closing)

    def _open(self, sha256: bytes, closing: contextlib.ExitStack) -> FileIO | None:
        for _ in range(_LOOKS_COUNT):
            with self._lock, disk_errors():
                known = self._known(sha256)
                if known is None:
                    return None
                if why := self._files.wrong(sha256, known):
                    self._throw_out(sha256, why)
                    return None
                file = closing.enter_context(FileIO(self._files.path(sha256)))
                now = Identity.of(os.fstat(file.fileno()))
                if known.explains(now):
                    self._record(sha256, now)
                    return file
            if self._looked_at(file, sha256):
                return file
        return None

    def _looked_at(self, file: FileIO, sha256: bytes) -> bool:
        """Hash a file whose time changed, and write its time down if nothing else did. False: look again."""
        with self._looking, disk_errors():
            before = Identity.of(os.fstat(file.fileno()))
            with self._lock:
                if self._known(sha256) == before:
                    return True  # another thread did it while this one waited
            intact = hashlib.file_digest(file, "sha256").digest() == sha256
            with self._lock:
                if not intact:
                    self._throw_out(sha256, "its bytes were changed")
                    return False
                if Identity.of(os.fstat(file.fileno())) != before:
                    return False
                self._record(sha256, before)
                return True

    # -- names and rows; with the lock ---------------------------------------------------------------------------

    def _known(self, sha256: bytes) -> Identity | None:
        row = (
            self._database.read()
            .execute(
                "SELECT size_bytes, inode, mtime_ns, ctime_ns, names_count FROM cached WHERE sha256 = ?", (sha256,)
            )
            .fetchone()
        )
        return None if row is None else Identity(*row)

    def _is_intact(self, sha256: bytes) -> bool:
        """Whether it is here, and needs no other look; it is used now then."""
        known = self._known(sha256)
        if known is None or self._files.wrong(sha256, known):
            return False
        now = Identity.of(os.lstat(self._files.path(sha256)))
        if known.explains(now):
            self._record(sha256, now)
        return known.explains(now)

    def _write(self, statement: str, values: Sequence[object]) -> None:
        # What a machine that lost power forgets of this is put right at the next start, or hashed again.
        self._database.write(lambda connection: connection.execute(statement, tuple(values)), durable=False)

    def _record(self, sha256: bytes, identity: Identity) -> None:
        """It is used now, and this is how its file was last known to be right."""
        self._write(
            "UPDATE cached SET size_bytes = ?, inode = ?, mtime_ns = ?, ctime_ns = ?, names_count = ?, used_at = ? "
            "WHERE sha256 = ?",
            (*astuple(identity), self._clock(), sha256),
        )

    def _throw_out(self, sha256: bytes, why: str) -> None:
        log.warning("a content was thrown out of the cache", sha256=sha256.hex(), reason=why)
        self._remove(sha256)

    def _remove(self, sha256: bytes) -> None:
        self._files.remove(sha256)
        self._write("DELETE FROM cached WHERE sha256 = ?", (sha256,))

    def _make_room(self, fresh: Content) -> bool:
        """Remove what was used longest ago and is in no job, if that makes enough room; else nothing."""
        if not self._maximum_bytes:
            return True
        rows = self._database.read().execute(
            "SELECT sha256, size_bytes FROM cached WHERE sha256 <> ? ORDER BY used_at", (fresh.sha256,)
        )
        others = [(row["sha256"], row["size_bytes"]) for row in rows.fetchall()]
        excess_bytes = sum(size for _, size in others) + fresh.size_bytes - self._maximum_bytes
        leaving = []
        for sha256, size_bytes in others:
            if excess_bytes > 0 and not self._files.in_use(sha256):
                leaving.append(sha256)
                excess_bytes -= size_bytes
        if excess_bytes > 0:
            return False
        for sha256 in leaving:
            self._remove(sha256)
        return True
