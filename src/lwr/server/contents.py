"""The files of the cache's directory: contents that are being written, their names, and whether they are as they were.

A content lies in `<2 hex>/<64 hex>`, named by its SHA-256, read-only. It is written under a part's name in the same
directory, hashed on the way, and on disk before it is named. Must not know which contents are worth keeping.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from lwr.errors import ConfigError, ServerError, Unavailable
from lwr.transfer import sharing

_PART_PREFIX = ".part-"
_OWNER = ".lwr-cache"
_FOLDER = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"[0-9a-f]{64}")
_READ_ONLY = 0o444
_MAY_PASS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Content:
    """What is known of some bytes: their SHA-256, their claim (HMAC-SHA-256 under the server's salt), their number."""

    sha256: bytes
    claim: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What tells a file that was changed from one that was not. `names_count`: how many names it has."""

    size_bytes: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    names_count: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink)

    def explains(self, now: Identity) -> bool:
        """Whether nothing needs to have happened to the bytes since then. A name that went with its job changes
        `ctime_ns` too; any other change of that alone is in need of an explanation."""
        return self == now or (
            (self.size_bytes, self.inode, self.mtime_ns) == (now.size_bytes, now.inode, now.mtime_ns)
            and now.names_count < self.names_count
        )


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Says what the system's errors mean: Unavailable for what may pass (disk full), else ServerError."""
    try:
        yield
    except OSError as error:
        kind = Unavailable if error.errno in _MAY_PASS else ServerError
        raise kind(f"The cache of input files cannot be used: {error.strerror or error}.") from error


class Directory:
    """The cache's directory. Methods raise plain OSError unless they say otherwise."""

    def __init__(self, path: str) -> None:
        self._path = path

    def open(self, owner: str) -> None:
        """Make it if it is missing, take possession of it and remove parts that an earlier server left.

        Two servers would remove each other's contents as what a crash left behind, so `owner` is written into it.

        Raises:
            ConfigError: it is another server's, or cannot be used.
        """
        try:
            os.makedirs(self._path, 0o700, exist_ok=True)
            found = self._owner(owner)
            for entry in os.scandir(self._path) if found == owner else ():
                if entry.name.startswith(_PART_PREFIX):
                    os.unlink(entry.path)
        except OSError as error:
            raise ConfigError(
                f"The file_cache_dir {self._path} cannot be used: {error.strerror}.",
                "Name a directory in which this server may write, or none.",
            ) from error
        if found != owner:
            raise ConfigError(
                f"The file_cache_dir {self._path} belongs to another LWR server, or to an earlier state of this one.",
                "Name a directory that no other server uses, or remove this one.",
            )

    def _owner(self, owner: str) -> str:
        path = os.path.join(self._path, _OWNER)
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
            file.write(owner)
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(len(owner) + 1)

    def path(self, sha256: bytes) -> str:
        """Where that content lies, or would."""
        name = sha256.hex()
        return os.path.join(self._path, name[:2], name)

    def contents(self) -> set[bytes]:
        """The SHA-256 of all contents by their names. What has other names is not LWR's, and not looked at."""
        folders = [each.path for each in os.scandir(self._path) if _FOLDER.fullmatch(each.name) and each.is_dir()]
        names = [name for folder in folders for name in os.listdir(folder)]
        return {bytes.fromhex(name) for name in names if _NAME.fullmatch(name)}

    def arrival(self, salt: bytes) -> Arrival:
        """Begin to write a content. Raises Unavailable or ServerError."""
        return Arrival(os.path.join(self._path, _PART_PREFIX + secrets.token_hex(8)), salt)

    def name(self, part: str, sha256: bytes) -> Identity:
        """Give a part the name of its content, over a file that has it."""
        path = self.path(sha256)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.replace(part, path)
        return Identity.of(os.lstat(path))

    def remove(self, sha256: bytes) -> None:
        """Jobs that have the file under names of their own keep it. May be called again."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(sha256))

    def in_use(self, sha256: bytes) -> bool:
        """Whether the file has another name, in a job."""
        try:
            return os.lstat(self.path(sha256)).st_nlink > 1
        except OSError:
            return False

    def wrong(self, sha256: bytes, known: Identity) -> str:
        """What is certainly wrong with a content's file, or nothing."""
        try:
            status = os.lstat(self.path(sha256))
        except OSError as error:
            return f"its file cannot be found: {error.strerror}"
        if not stat.S_ISREG(status.st_mode) or status.st_ino != known.inode:
            return "its file was replaced"
        if (status.st_size, status.st_mtime_ns) != (known.size_bytes, known.mtime_ns):
            return "its file was written to"
        if stat.S_IMODE(status.st_mode) != _READ_ONLY or status.st_uid != os.geteuid():
            return "its file's mode or owner was changed"
        return ""

    def links_are_best(self) -> bool:
        """Whether jobs should get second names of files: blocks cannot be shared here, and this user cannot write to
        a read-only file of its own. (Root can.)"""
        paths = [os.path.join(self._path, f"{_PART_PREFIX}probe-{number}") for number in (1, 2)]
        fds = [os.open(path, os.O_CREAT | os.O_RDWR, _READ_ONLY) for path in paths]
        try:
            os.write(fds[0], b"probe")
            if sharing.clone(fds[0], fds[1]):
                return False
            os.close(os.open(paths[0], os.O_WRONLY))
        except PermissionError:
            return True
        finally:
            for fd, path in zip(fds, paths, strict=True):
                os.close(fd)
                os.unlink(path)
        return False


class Arrival:
    """A content that is being written. For one thread at a time; raises Unavailable or ServerError.

    As a context manager it is forgotten at the end, unless it got its name.
    """

    def __init__(self, part: str, salt: bytes) -> None:
        self.part = part
        self._sha256 = hashlib.sha256()
        self._claim = hmac.new(salt, digestmod="sha256")
        self.size_bytes = 0
        with disk_errors():
            self._file = open(part, "xb", buffering=0)  # noqa: SIM115

    def put(self, chunks: Sequence[bytes]) -> None:
        """Append them."""
        with disk_errors():
            for chunk in chunks:
                self._sha256.update(chunk)
                self._claim.update(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[self._file.write(rest) :]
                self.size_bytes += len(chunk)

    def finish(self) -> Content:
        """Make what was written read-only and last on the disk. Once."""
        with disk_errors(), self._file:
            os.chmod(self.part, _READ_ONLY)
            os.fsync(self._file.fileno())
        return Content(self._sha256.digest(), self._claim.digest(), self.size_bytes)

    def close(self) -> None:
        """Forget what got no name. May be called again; never fails."""
        self._file.close()
        with contextlib.suppress(OSError):  # it has its name, or goes at the next start
            os.unlink(self.part)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
