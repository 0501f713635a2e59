"""Copying files on disks that this machine sees: what `remote_copy` does on the server and `copy` on the client.

Only regular files, read without waiting for whoever writes them, hashed on the way, and told apart from what changed
while it was read. A target gets its name when it is whole; it replaces what has that name and follows no link there.
What a server may reach is `lwr.transfer.reach`'s to say; here it is asked about the path that was given and about what
was opened in the end. Must not know jobs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from lwr.errors import BadRequest, BadTransfer, LwrError, NotFound, ServerError, Unavailable
from lwr.faults import fault
from lwr.transfer.folder import HAS_DIR_FD, Folder
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.jobfiles import MAY_PASS, OpenFile
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.reach import Reach
from lwr.transfer.runner import TooLargeForLane

_PIECE_BYTES = 1 << 20

# Without O_NONBLOCK a FIFO would hold its reader for ever.
_READ: int = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_BINARY", 0)
)
#: What disks of other machines say besides when these are away for a while.
_MAY_PASS = MAY_PASS | {
    errno.EIO: "the disk cannot be read or written",
    errno.ESTALE: "the network disk has lost it",
    errno.ETIMEDOUT: "the network disk does not answer",
}
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def copy_in(path: str, partial: Partial, interrupt: Interrupt, reach: Reach, most_bytes: int = 0) -> Transferred:
    """Fill `partial`, from its beginning, with the file at an absolute path of this machine.

    `most_bytes`: 0 for no limit.

    Raises:
        NotFound: there is none.
        BadRequest: it is no regular file, or must not be reached.
        BadTransfer: it changed while it was read.
        Unavailable: may pass (a network disk that is away, a full one).
        ServerError: whatever else the system says, permissions above all.
        TooLargeForLane: it has more than `most_bytes`; nothing was copied.
        Interrupted: on purpose.
    """
    with _open(reach.check_path(path, writing=False), path) as source:
        reach.check_path(_place(source.fd, path), writing=False)
        if 0 < most_bytes < source.size_bytes:
            raise TooLargeForLane(f"{_shown(path)} is larger than {most_bytes} bytes.")
        if partial.size_bytes:
            partial.restart()
        for piece in _pieces(source, path, interrupt):
            partial.write(piece)
    return Transferred(partial.size_bytes, partial.sha256(), "size", partial.wasted_bytes)


def copy_out(source: OpenFile, path: str, interrupt: Interrupt, reach: Reach) -> Transferred:
    """Copy all of an open file to an absolute path of this machine; missing directories are made. The copy lasts.

    After an error there is under that name what was there before. Raises as `copy_in`; BadRequest also for a directory
    in the way. May be called again.
    """
    # The same name at each try, so that one which was killed leaves nothing for ever; no other file's copy has it.
    word = hashlib.sha256(f"{path}\0{source.inode}\0{source.mtime_ns}".encode("utf-8", "surrogateescape")).hexdigest()
    with _NewFile(reach.check_path(path, writing=True), path, word[:16]) as target:
        reach.check_path(_place(target.fd, path), writing=True)
        sha256 = target.fill(source, interrupt)
        fault("copy.before_rename")
        target.commit(lasting=True)
    return Transferred(source.size_bytes, sha256, "size")


def copy_file(source: Path, target: Path, interrupt: Interrupt) -> Transferred:
    """Copy a regular file that this machine sees, with the same care and errors, but no rules and no sync. Links on the
    way to both are followed, also a link that is the source."""
    word = os.urandom(8).hex()
    with _open(os.path.realpath(source), str(source)) as opened, _NewFile(_real(target), str(target), word) as new:
        sha256 = new.fill(opened, interrupt)
        new.commit(lasting=False)
    return Transferred(opened.size_bytes, sha256, "size")


def _real(target: Path) -> str:
    """The real path of a file to be made: its directory's, as it is to stand there itself."""
    return os.path.join(os.path.realpath(target.parent), target.name)


class _NewFile:
    """A file beside `real`, its place to be, under a name of its own until it is whole. `path`: how people call it.
    `word`: makes that name; what somebody left under it is removed."""

    def __init__(self, real: str, path: str, word: str) -> None:
        above, self._name = os.path.split(real)
        self._path = path
        self._own_name = f".lwr-{word}.part"
        if not self._name:
            raise BadRequest(f"{_shown(path)} names a directory, not a file.")
        try:
            os.makedirs(above, exist_ok=True)
            self._folder = Folder.open(above, by_fd=HAS_DIR_FD)
            try:
                with contextlib.suppress(FileNotFoundError):
                    self._folder.unlink(self._own_name)
                self.fd = self._folder.create(self._own_name)
            except OSError:
                self._folder.close()
                raise
        except OSError as error:
            raise _error(error, "written", path) from error

    def fill(self, source: OpenFile, interrupt: Interrupt) -> bytes:
        """Append all of `source`; returns its SHA-256."""
        sha256 = hashlib.sha256()
        for piece in _pieces(source, self._path, interrupt):
            try:
                done = os.write(self.fd, piece)
                while done < len(piece):
                    done += os.write(self.fd, piece[done:])
            except OSError as error:
                raise _error(error, "written", self._path) from error
            sha256.update(piece)
        return sha256.digest()

    def commit(self, *, lasting: bool) -> None:
        """Give it its name. Once only."""
        try:
            if lasting:
                os.fsync(self.fd)
            # Before the rename: some file systems say only here that the disk was full.
            self._close_file()
            self._folder.rename(self._own_name, self._folder, self._name)
            self._own_name = ""
            if lasting:
                self._folder.sync()
        except OSError as error:
            raise _error(error, "written", self._path) from error

    def _close_file(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._close_file()
        if self._own_name:
            with contextlib.suppress(OSError):
                self._folder.unlink(self._own_name)
        self._folder.close()


def _open(real: str, path: str) -> OpenFile:
    try:
        fd = os.open(real, _READ)
    except OSError as error:
        # A socket, or a device without a driver.
        if error.errno == errno.ENXIO:
            raise _no_file(path) from None
        raise _error(error, "read", path) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise _no_file(path)
    return OpenFile(os.fdopen(fd, "rb", buffering=0), status.st_size, status.st_mtime_ns, status.st_ino)


def _pieces(source: OpenFile, path: str, interrupt: Interrupt) -> Iterator[memoryview]:
    """All of a file, each piece good until the next. Raises BadTransfer when it changed since it was opened."""
    buffer = memoryview(bytearray(min(_PIECE_BYTES, source.size_bytes + 1)))
    moved_bytes = 0
    try:
        source.file.seek(0)
        while count := source.file.readinto(buffer):  # type: ignore[attr-defined]
            interrupt.check()
            moved_bytes += count
            if moved_bytes > source.size_bytes:
                break
            yield buffer[:count]
        status = os.fstat(source.fd)
    except OSError as error:
        raise _error(error, "read", path) from error
    if (moved_bytes, status.st_mtime_ns) != (source.size_bytes, source.mtime_ns):
        raise BadTransfer(f"The file that is copied from or to {_shown(path)} changed while it was read.")


def _place(fd: int, path: str) -> str:
    """Where the system says that an open file is: a directory may have been swapped for a link since it was judged."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return path  # no such thing here


def _shown(path: str) -> str:
    return repr(path[:300])


def _no_file(path: str) -> BadRequest:
    return BadRequest(f"{_shown(path)} is no regular file, so it cannot be copied.", "Only regular files are staged.")


def _error(error: OSError, deed: str, path: str) -> LwrError:
    code = error.errno or 0
    sentence = f"{_shown(path)} could not be {deed} on this machine: {_MAY_PASS.get(code) or error.strerror or error}."
    if code in _MAY_PASS:
        return Unavailable(sentence, "The admin of this machine can see to it.")
    if code in _NOT_THERE and deed == "read":
        return NotFound(sentence, "Copying needs a disk that both machines see under the same path.")
    if code in (errno.EACCES, errno.EPERM):
        return ServerError(sentence, "Let the user that LWR runs as do that.")
    if code in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
        return BadRequest(sentence, "Something else has that name, or that of a directory above it.")
    return ServerError(sentence)
