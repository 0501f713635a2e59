"""Uploads that can be cut and gone on with: which there are, how far each one is, and what came of it.

What came is a part in the job's directory, and its size on the disk is the offset, so that a server that was killed
goes on behind the last byte that it had written. The words are those of the tus protocol 1.0.0,
https://tus.io/protocols/resumable-upload. Blocking; must not know HTTP.

An upload is used by one request at a time: the callers see to it. `expire` may come at any moment.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self

from lwr.core.job import Job, JobKey
from lwr.core.receipt import FileRecord
from lwr.errors import BadRequest, Conflict, DigestMismatch, LwrError, NotFound
from lwr.server import results
from lwr.server.database import Database
from lwr.server.incoming import Wanted
from lwr.server.upload_rows import UploadRow, UploadRows
from lwr.server.view import View
from lwr.transfer.jobfiles import JobFiles, Part
from lwr.transfer.partial import Partial

#: An upload expires so long after its last byte, or up to `_STEP_S` sooner: its row is not written for less.
LIFETIME_S = 86400.0
_STEP_S = 3600.0
#: What expired is removed so much later, when no short request that found it in time can still be at it.
MARGIN_S = 3600.0
#: Of so many uploads the hash is kept in memory between two requests; those of others are counted again from the disk.
_REMEMBERED_COUNT = 1000
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Standing:
    """How an upload stands.

    Args:
        offset_bytes: what came of `size_bytes`.
        metadata: `Upload-Metadata` as it was sent.
        expires_at: seconds since the epoch.
        sha256: of the file, once it has its name.
    """

    upload_id: str
    offset_bytes: int
    size_bytes: int
    metadata: str
    expires_at: float
    sha256: bytes | None


class Hash(Protocol):
    """As `hashlib` makes them."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the bytes of one request must hash to."""

    running: Hash
    expected: bytes


@dataclass(slots=True)
class _History:
    """What is remembered of an upload between two requests; an earlier server's tries are counted as one."""

    partial: Partial
    tries: int
    wasted_bytes: int = 0


class ResumableUploads:
    """All of one server. Methods are thread-safe, within what the module says.

    Every method that takes a key raises NotFound for an unknown job, and Conflict once it is submitted; those that
    take an upload's id also raise NotFound for one that is not of this job's present attempt, or has expired.

    Args:
        arrived: told of a file that got its name, in the thread of its last piece.
    """

    def __init__(
        self,
        database: Database,
        view: View,
        arrived: Callable[[Job, FileRecord], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rows = UploadRows(database)
        self._view = view
        self._arrived = arrived
        self._clock = clock
        self._mutex = threading.Lock()  # guards the next two
        self._histories: dict[str, _History] = {}  # of uploads that nobody uses now
        self._used: set[str] = set()

    def create(self, key: JobKey, wanted: Wanted, metadata: str) -> Standing:
        """Begin an upload; called again, it begins another one. One of no bytes is whole at once.

        Args:
            wanted: with the size. metadata: to be told again by `look`.
        """
        job = self._view.job_for_upload(key)
        now = self._clock()
        row = UploadRow(secrets.token_hex(16), job, wanted, metadata, now, now + LIFETIME_S)
        self._rows.add(row)
        return _standing(row, 0) if row.size_bytes else self.look(key, row.upload_id)

    def look(self, key: JobKey, upload_id: str) -> Standing:
        """How an upload stands. One whose server was killed behind its last byte becomes whole now."""
        row = self._find(key, upload_id)
        if row.sha256 is not None:
            return _standing(row, row.size_bytes)
        with self._open(row, None) as appending, suppress(DigestMismatch):  # it begins anew: so it stands
            return appending.end()
        return _standing(row, 0)

    def begin(self, key: JobKey, upload_id: str, offset_bytes: int, checksum: Checksum | None) -> Appending:
        """Open an upload, to append bytes from `offset_bytes` on. Close what is returned.

        Raises:
            Conflict: that is not how far it is, or it is whole already.
        """
        row = self._find(key, upload_id)
        if row.sha256 is not None:
            raise Conflict(f"The upload of {row.wanted.name!r} to job {key} is whole already.")
        appending = self._open(row, checksum)
        try:
            if appending.offset_bytes != offset_bytes:
                raise Conflict(
                    f"The upload of {row.wanted.name!r} to job {key} is at byte {appending.offset_bytes}, "
                    f"not at {offset_bytes}.",
                    "Ask for its offset (HEAD) and go on from there.",
                )
            self._note(row, None if checksum is None else offset_bytes)
        except BaseException:
            appending.close()
            raise
        return appending

    def terminate(self, key: JobKey, upload_id: str) -> None:
        """Forget an upload and what came of it; a file that has its name stays."""
        row = self._find(key, upload_id)
        self._rows.remove(upload_id)
        self._forget(upload_id)
        if row.sha256 is None:
            self._view.files(row.job).resumable(upload_id).discard()

    def expire(self, now: float) -> None:
        """Remove what expired, but nothing that is being written to. May be called again."""
        for upload_id, directory in self._rows.expired(now - MARGIN_S):
            if self._forget(upload_id):
                self._rows.remove(upload_id)
                with suppress(LwrError):  # the directory may have gone just now
                    if directory:
                        JobFiles(directory).resumable(upload_id).discard()

    def _find(self, key: JobKey, upload_id: str) -> UploadRow:
        row = self._rows.find(self._view.job_for_upload(key), upload_id, self._clock())
        if row is None:
            raise _unknown(key)
        if row.sha256 is None and 0 < row.size_bytes == row.sure_bytes:
            self._recall(row)
        return row

    def _recall(self, row: UploadRow) -> None:
        """A server was killed when it gave this file its name: if it has it, write that down now."""
        files = self._view.files(row.job)
        part = files.resumable(row.upload_id)
        if part.size_bytes:
            part.keep()
            return
        part.discard()
        try:
            with files.open(row.wanted.places[0]) as opened:
                sha256 = results.sha256_of(opened)
                row.wanted.check(opened.size_bytes, sha256)
        except (NotFound, BadRequest, DigestMismatch):
            return  # it never got it
        self._named(row, sha256, _History(Partial(part), tries=1))

    def _forget(self, upload_id: str) -> bool:
        """Forget an upload's history; whether nobody uses it."""
        with self._mutex:
            self._histories.pop(upload_id, None)
            return upload_id not in self._used

    # -- what an Appending does to its upload --------------------------------------------------------------------

    def _open(self, row: UploadRow, checksum: Checksum | None) -> Appending:
        with self._mutex:
            history = self._histories.pop(row.upload_id, None)
            self._used.add(row.upload_id)
        try:
            part = self._view.files(row.job).resumable(row.upload_id)
            if row.sure_bytes is not None and part.size_bytes > row.sure_bytes:
                part.cut_back(row.sure_bytes)
                history = None
        except BaseException:
            self._release(row, None)
            raise
        if history is None:
            history = _History(Partial(part), tries=2 if part.size_bytes else 1)
        else:
            history.partial.go_on(part)
        return Appending(self, row, part, history, checksum)

    def _release(self, row: UploadRow, history: _History | None) -> None:
        """Nobody uses the upload any more. `history`: to be remembered, if it is to go on."""
        with self._mutex:
            self._used.discard(row.upload_id)
            if history is not None:
                if len(self._histories) >= _REMEMBERED_COUNT:
                    self._histories.pop(next(iter(self._histories)))
                self._histories[row.upload_id] = history

    def _note(self, row: UploadRow, sure_bytes: int | None) -> None:
        """Write down how much is sure and until when it may be gone on with, unless that has hardly changed."""
        expires_at = self._clock() + LIFETIME_S
        if sure_bytes != row.sure_bytes or expires_at - row.expires_at >= _STEP_S:
            row.sure_bytes, row.expires_at = sure_bytes, expires_at
            self._rows.note(row)

    def _commit(self, row: UploadRow, part: Part, history: _History) -> None:
        """Give a file of which all came its name.

        Raises:
            DigestMismatch: it is not what was announced, and begins anew. Conflict, NotFound: too late.
        """
        partial, wanted = history.partial, row.wanted
        if self._view.job_for_upload(row.job.key).seq != row.job.seq:
            raise _unknown(row.job.key)
        size_bytes, sha256 = partial.size_bytes, partial.sha256()
        try:
            wanted.check(size_bytes, sha256)
        except DigestMismatch:
            partial.restart()
            history.tries += 1
            raise
        files = self._view.files(row.job)
        for place in wanted.places[1:]:
            with files.part() as copy:
                for offset in range(0, size_bytes, _PIECE_BYTES):
                    copy.write(part.read(offset, _PIECE_BYTES))
                copy.commit(place)
        row.sure_bytes = size_bytes  # what `_recall` goes by
        self._rows.note(row)
        part.commit(wanted.places[0])
        self._named(row, sha256, history)

    def _named(self, row: UploadRow, sha256: bytes, history: _History) -> None:
        """Write down, and tell, that a file has its name."""
        row.sha256 = sha256
        self._rows.whole(row)
        wasted_bytes = history.wasted_bytes + history.partial.wasted_bytes
        self._arrived(
            row.job,
            row.wanted.record(
                row.size_bytes, sha256, row.created_at, self._clock(), tries=history.tries, wasted_bytes=wasted_bytes
            ),
        )


class Appending:
    """An upload that takes bytes. All methods block. Close it, or use it as a context manager: without `end` it was
    cut then, and what came stays, unless it has a checksum that could not be compared."""

    def __init__(
        self, uploads: ResumableUploads, row: UploadRow, part: Part, history: _History, checksum: Checksum | None
    ) -> None:
        self._uploads = uploads
        self._row = row
        self._part = part
        self._history = history
        self._checksum = checksum
        self._ended = False
        self.offset_bytes = part.size_bytes
        self.missing_bytes = row.size_bytes - part.size_bytes

    def put(self, chunks: Sequence[bytes]) -> None:
        """Append them. Raises Unavailable or ServerError; some of it may have been appended then."""
        for chunk in chunks:
            self._history.partial.write(chunk)
            if self._checksum is not None:
                self._checksum.running.update(chunk)

    def end(self) -> Standing:
        """All came that this request was to bring. A whole file gets its name. Once only.

        Raises:
            DigestMismatch: with the checksum, and what this request brought is dropped; or with the file's digest,
                and all is.
            Conflict, NotFound: the job takes no files any more, or is another attempt.
        """
        checksum = self._checksum
        if checksum is not None and checksum.running.digest() != checksum.expected:
            raise DigestMismatch("The bytes that arrived do not match their Upload-Checksum.", "Send them again.")
        self._ended = True
        if self._part.size_bytes == self._row.size_bytes:
            self._uploads._commit(self._row, self._part, self._history)
        else:
            self._uploads._note(self._row, None)
        return _standing(self._row, self._part.size_bytes)

    def close(self) -> None:
        """Let go of the upload; it may be gone on with. Once only."""
        try:
            if not self._ended:
                self._cut()
                self._uploads._note(self._row, None)
        finally:
            self._part.keep()
            self._uploads._release(self._row, None if self._row.sha256 else self._history)

    def _cut(self) -> None:
        came_bytes = self._part.size_bytes - self.offset_bytes
        if came_bytes:
            self._history.tries += 1
        if came_bytes and self._checksum is not None:
            self._history.wasted_bytes += came_bytes + self._history.partial.wasted_bytes
            self._part.cut_back(self.offset_bytes)
            self._history.partial = Partial(self._part)  # which hashes again what lies before

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _standing(row: UploadRow, offset_bytes: int) -> Standing:
    return Standing(row.upload_id, offset_bytes, row.size_bytes, row.metadata, row.expires_at, row.sha256)


def _unknown(key: JobKey) -> NotFound:
    return NotFound(f"Job {key} has no such upload.", "It may have expired; begin another one.")
