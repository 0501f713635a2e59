"""Files that are not whole yet, and what another process needs to go on with them. On this machine's disk only.

A download's part lies beside its target, under a name that follows from the target's; the sender's ETag lies beside
that, so that only bytes of the same file are joined. An upload that the server keeps a part of is remembered by its
address. Must not know HTTP.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from lwr.errors import ServerError
from lwr.transfer.partial import Partial


class PartFile:
    """Bytes of a target that is not whole yet (a `Place` for `Partial`). For one thread at a time; use `with`.

    Leaving the `with` keeps what there is only when it can be continued: a `bookmark` was set and `keep` is true.
    `commit` gives it its name.
    """

    def __init__(self, target: Path) -> None:
        mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
        self._target = target
        self._part = target.with_name(f".lwr-{mark}.part")
        self._bookmark = target.with_name(f".lwr-{mark}.etag")
        self.keep = False
        self.bookmark = ""
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part.open("a+b", buffering=0)
            self.size_bytes = self._file.seek(0, os.SEEK_END)
        if self.size_bytes:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self.bookmark = self._bookmark.read_text()
        self.partial = Partial(self)
        if self.size_bytes and not self.bookmark:
            self.restart()  # by somebody who could not go on with it either

    def __enter__(self) -> PartFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not (self.keep and self.bookmark and self.size_bytes):
            self._remove()

    def remember(self, bookmark: str) -> None:
        """Say what the bytes to come belong to; empty when they cannot be continued."""
        self.bookmark = bookmark
        if bookmark:
            with self._writing():
                self._bookmark.write_text(bookmark)

    def write(self, data: bytes | memoryview) -> None:
        with self._writing():
            rest = memoryview(data)
            while rest:
                written = self._file.write(rest)
                self.size_bytes += written
                rest = rest[written:]

    def restart(self) -> None:
        with self._writing():
            self._file.truncate(0)
        self.size_bytes = 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        with self._writing():
            return os.pread(self._file.fileno(), size_bytes, offset)

    def commit(self) -> None:
        """Give the file its name, replacing what has it."""
        with self._writing():
            os.replace(self._part, self._target)
        self.size_bytes = 0

    def _remove(self) -> None:
        for path in (self._part, self._bookmark) if self.bookmark else (self._part,):
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServerError(
                f"{self._target} cannot be written: {error.strerror}.", "Choose another place."
            ) from error


def discard(target: Path) -> None:
    """Remove what there is of a target that will never be whole. Nothing there: nothing happens."""
    with contextlib.suppress(ServerError), PartFile(target):
        pass


class Addresses:
    """Where the server keeps what came of files on their way up, by a word for each. Thread-safe, as its files are.

    Args:
        directory: None: only this process knows them.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._known: dict[str, str] = {}

    def get(self, word: str) -> str:
        """The address, or nothing."""
        if word not in self._known and self._directory is not None:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                return self._path(self._directory, word).read_text()
        return self._known.get(word, "")

    def put(self, word: str, address: str) -> None:
        """Remember it. That a later process will not know it is no error."""
        self._known[word] = address
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                path = self._path(self._directory, word)
                path.touch(mode=0o600)
                path.write_text(address)

    def forget(self, word: str) -> None:
        self._known.pop(word, None)
        if self._directory is not None:
            with contextlib.suppress(OSError):
                self._path(self._directory, word).unlink()

    @staticmethod
    def _path(directory: Path, word: str) -> Path:
        return directory / hashlib.sha256(word.encode()).hexdigest()
