"""A directory held open, so that nothing swapped behind its name can lead elsewhere.

`Folder` is one directory; its methods take single names, never paths, and follow no link. `open_beneath` reads
through links as long as they stay below a root. Raises plain OSError (and `LeadsOut`): what that means for a job is
said in `lwr.transfer.jobfiles`. Where the system cannot open relative to a directory (Windows), the same calls go
by path, each name looked at before it is used.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Self

HAS_DIR_FD = os.open in os.supports_dir_fd

_BINARY: int = getattr(os, "O_BINARY", 0)
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: int = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _NO_LINK
# Without O_NONBLOCK a FIFO that a job left behind would hold its reader for ever.
_READ: int = os.O_RDONLY | _NO_LINK | _BINARY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_CREATE: int = os.O_RDWR | os.O_CREAT | _NO_LINK | _BINARY
# What systems answer when a name that must not be a link is one.
_MAYBE_LINK = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK})

# Other file systems, too many names, none at all here, or a system's rule against it.
_NO_LINKS = frozenset({errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.EPERM})

_MAX_LINKS = 40
_MAX_OPEN_FOLDERS = 200


class LeadsOut(Exception):
    """The name leads out of the root through a link, or through too many links or directories to tell."""


class Folder:
    """One open directory. Close it, or use it as a context manager; closing twice is fine."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str, fd: int) -> None:
        self._path = path
        self._fd = fd  # -1: closed, or this system goes by path

    @classmethod
    def open(cls, path: str, *, by_fd: bool) -> Folder:
        """Open the directory at `path`; its last component must not be a link."""
        if by_fd:
            return cls("", os.open(path, _DIRECTORY))
        _refuse_link(path)
        os.scandir(path).close()
        return cls(path, -1)

    @property
    def _dir_fd(self) -> int | None:
        return None if self._path else self._fd

    def _name(self, name: str) -> str:
        return os.path.join(self._path, name) if self._path else name

    def enter(self, name: str, *, make: bool = False) -> Folder:
        """Open a directory in this one; with `make` it is created when missing."""
        try:
            return self._enter(name)
        except FileNotFoundError:
            if not make:
                raise
        self.make(name)
        return self._enter(name)

    def _enter(self, name: str) -> Folder:
        if self._path:
            return Folder.open(self._name(name), by_fd=False)
        return Folder("", os.open(name, _DIRECTORY, dir_fd=self._fd))

    def make(self, name: str) -> None:
        """Create a directory; one that is there already (or anything else of that name) stays."""
        try:
            os.mkdir(self._name(name), dir_fd=self._dir_fd)
        except FileExistsError:
            return

    def create(self, name: str, *, again: bool = False) -> int:
        """Create a file for writing; returns its descriptor. With `again` it may be there, else it must not."""
        return os.open(self._name(name), _CREATE | (0 if again else os.O_EXCL), 0o644, dir_fd=self._dir_fd)

    def read(self, name: str, *, flags: int = _READ) -> int:
        """Open for reading whatever is there, without waiting; the caller looks at what it is."""
        if self._path and os.path.islink(self._name(name)):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        return os.open(self._name(name), flags, dir_fd=self._dir_fd)

    def link_target(self, name: str) -> str | None:
        """Where the link of that name points; None when it is no link."""
        try:
            return os.readlink(self._name(name), dir_fd=self._dir_fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return None
            raise

    def rename(self, name: str, into: Folder, new_name: str) -> None:
        """Move a file in one step, over anything of the new name that is not a directory."""
        os.replace(self._name(name), into._name(new_name), src_dir_fd=self._dir_fd, dst_dir_fd=into._dir_fd)

    def link(self, path: str, name: str) -> bool:
        """Give a regular file from elsewhere a new name here; False where the file systems do not allow it."""
        try:
            os.link(path, self._name(name), dst_dir_fd=self._dir_fd)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        return True

    def unlink(self, name: str) -> None:
        os.unlink(self._name(name), dir_fd=self._dir_fd)

    def entries(self) -> Iterator[os.DirEntry[str]]:
        """All entries, in no order; each is good only while this folder is open."""
        with os.scandir(self._path or self._fd) as found:
            yield from found

    def sync(self) -> None:
        """Make the names in this directory last (where a system can do that for a directory)."""
        if not self._path:
            os.fsync(self._fd)

    def sync_file(self, name: str) -> None:
        """Make a regular file's contents last."""
        # Windows syncs only what is open for writing.
        fd = self.read(name, flags=(os.O_RDWR | _BINARY) if self._path else _READ)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def descend(base: Folder, components: Sequence[str], *, make: bool = False) -> Folder:
    """Walk down from `base`, which is closed on the way, and return the last folder, open."""
    for name in components:
        above = base
        try:
            base = above.enter(name, make=make)
        finally:
            above.close()
    return base


def open_beneath(root: str, components: Sequence[str], *, by_fd: bool) -> int:
    """Open for reading what the components name below `root`, through links that stay below it.

    Returns the descriptor of whatever is there: the caller looks whether it is a file.

    Raises:
        LeadsOut: a link points outside, or there are more than 40 of them.
        OSError: as the system says; IsADirectoryError for the root itself.
    """
    if not by_fd:
        return _open_beneath_by_path(root, components)
    stack = [Folder.open(root, by_fd=True)]
    pending = list(reversed(components))
    links = 0
    try:
        while pending:
            name = pending.pop()
            if name == "..":
                stack.pop().close()
                if not stack:
                    raise LeadsOut
                continue
            here = stack[-1]
            try:
                if not pending:
                    return here.read(name)
                stack.append(here.enter(name))
            except OSError as error:
                target = here.link_target(name) if error.errno in _MAYBE_LINK else None
                if target is None:
                    raise
                links += 1
                if target.startswith("/"):
                    target = _relative_to(root, target)
                    while len(stack) > 1:
                        stack.pop().close()
                pending += reversed([part for part in target.split("/") if part not in ("", ".")])
            if links > _MAX_LINKS or len(stack) > _MAX_OPEN_FOLDERS:
                raise LeadsOut
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        for folder in stack:
            folder.close()


def _relative_to(root: str, target: str) -> str:
    # A job may know its directory by the configured path or by the one that the system resolved it to.
    for base in (os.path.abspath(root), os.path.realpath(root)):
        if f"{target}/".startswith(f"{base}/"):
            return target[len(base) :]
    raise LeadsOut


def _open_beneath_by_path(root: str, components: Sequence[str]) -> int:
    top = os.path.realpath(root)
    path = os.path.realpath(os.path.join(top, *components))
    if os.path.commonpath([top, path]) != top:
        raise LeadsOut
    return os.open(path, _READ)


def _refuse_link(path: str) -> None:
    # A junction is no link to `islink`, but resolves elsewhere like one.
    if os.path.islink(path) or os.path.realpath(path) != os.path.join(
        os.path.realpath(os.path.dirname(path)), os.path.basename(path)
    ):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
