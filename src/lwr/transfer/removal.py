"""Taking a job's directory away: `set_aside` in one step, `remove_tree` for good.

Trees to be removed were written by jobs: links in them are removed and never followed, what is mounted in them is
left alone, and neither their depth nor their width costs memory or open files. Knows paths only, not jobs.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from lwr.errors import ServerError, Unavailable
from lwr.transfer.folder import HAS_DIR_FD

_OPEN: int = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_LOOK: int = getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_NOT_EMPTY = frozenset({errno.ENOTEMPTY, errno.EEXIST})
#: A directory became something else while we looked.
_SWAPPED = frozenset({errno.ENOTDIR, errno.ELOOP})
_MAX_REFILLS = 1000
_MAX_ROUNDS = 10


def set_aside(root: str, trash_dir: str) -> str | None:
    """Move the tree at `root` into `trash_dir` (made when missing), in one step, under a name that is new there.

    Returns its new path; None when there was nothing at `root`. Both must be on one file system.

    Raises:
        ServerError: the system did not allow it; nothing was moved.
    """
    target = os.path.join(trash_dir, f"{os.path.basename(root)[:128]}.{secrets.token_hex(8)}")
    try:
        os.makedirs(trash_dir, exist_ok=True)
        os.rename(root, target)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServerError(f"The directory {root!r} could not be set aside: {error.strerror}.") from error
    return target


def remove_tree(path: str) -> None:
    """Remove a directory and all in it (or a file, or a link itself). Nothing there: nothing happens; may be
    called again. Directories that forbid it are made writable first.

    Raises:
        ServerError: something had to stay, whole (a file system mounted in it, an entry that the system protects);
            all else is gone.
        Unavailable: somebody kept filling or moving it.
    """
    if not HAS_DIR_FD:
        _remove_by_path(path)
        return
    above, name = os.path.split(os.path.abspath(path))
    for _ in range(_MAX_ROUNDS):
        try:
            base = os.open(above, _OPEN & ~getattr(os, "O_NOFOLLOW", 0))
        except FileNotFoundError:
            return
        removal = _Removal(base, name)
        try:
            finished = removal.run()
        finally:
            os.close(removal.here)
        if finished:
            break
    else:
        raise Unavailable(f"The directory {path!r} could not be removed: it is being moved about.", "Try again later.")
    if removal.left:
        raise ServerError(
            f"{len(removal.left)} entries of {path!r} could not be removed; the first: {removal.left[0]}.",
            "Remove or unmount it by hand.",
        )
    if removal.refills > _MAX_REFILLS:
        raise Unavailable(f"The directory {path!r} could not be removed: it is being filled.", "Try again later.")


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


@dataclass(slots=True)
class _Level:
    """A directory on the way down to where the removal is."""

    name: str
    identity: tuple[int, int]
    folders: list[str] = field(default_factory=list)  # still to be removed in it
    stays: bool = False  # something in it could not be removed


class _Removal:
    """One walk: down into each directory by its name, up again by `..`, with one directory open at a time."""

    def __init__(self, base: int, name: str) -> None:
        self.here = base  # open; the caller closes it
        self.levels = [_Level("", _identity(base), [name])]
        self.left: list[str] = []
        self.refills = 0

    def run(self) -> bool:
        """Returns False when a directory was moved while we were in it: start anew."""
        while True:
            level = self.levels[-1]
            if level.folders:
                self._remove(level.folders.pop())
            elif len(self.levels) == 1:
                return True
            elif not self._up():
                return False

    def _remove(self, name: str) -> None:
        """Remove what is empty or no directory; go down into any other."""
        try:
            # First of all: the system answers EBUSY where something is mounted, also from the same file system.
            # Where it does not let us ask, nothing is entered.
            os.rmdir(name, dir_fd=self.here)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                self._unlink(name, self.here)
            elif error.errno in _NOT_EMPTY:
                self._down(name)
            elif error.errno != errno.ENOENT:
                self._leave(name, error)

    def _down(self, name: str) -> None:
        try:
            inner = self._open(name)
        except OSError as error:
            if error.errno in _SWAPPED:
                self._refilled(name)
            elif error.errno != errno.ENOENT:
                self._leave(name, error)
            return
        os.close(self.here)
        self.here = inner
        self.levels.append(_Level(name, _identity(inner)))
        try:
            with os.scandir(inner) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        self.levels[-1].folders.append(entry.name)
                    else:
                        self._unlink(entry.name, inner)
        except OSError as error:
            self._leave(".", error)

    def _open(self, name: str) -> int:
        """Open a directory and make sure that we may empty it."""
        try:
            fd = os.open(name, _OPEN, dir_fd=self.here)
        except PermissionError:
            self._unlock(name)
            fd = os.open(name, _OPEN, dir_fd=self.here)
        try:
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & 0o700 != 0o700:
                os.fchmod(fd, 0o700)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _unlock(self, name: str) -> None:
        if os.chmod in os.supports_follow_symlinks:
            os.chmod(name, 0o700, dir_fd=self.here, follow_symlinks=False)
            return
        # Linux: no chmod there that spares links, but a descriptor that needs no permission.
        fd = os.open(name, _LOOK, dir_fd=self.here)
        try:
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
        finally:
            os.close(fd)

    def _up(self) -> bool:
        above = os.open("..", _OPEN, dir_fd=self.here)
        os.close(self.here)
        self.here = above
        done = self.levels.pop()
        parent = self.levels[-1]
        if _identity(above) != parent.identity:
            return False
        if done.stays:
            parent.stays = True
            return True
        try:
            os.rmdir(done.name, dir_fd=above)
        except OSError as error:
            if error.errno in _NOT_EMPTY or error.errno in _SWAPPED:
                self._refilled(done.name)
            elif error.errno != errno.ENOENT:
                self._leave(done.name, error)
        return True

    def _refilled(self, name: str) -> None:
        self.refills += 1
        if self.refills <= _MAX_REFILLS:
            self.levels[-1].folders.append(name)
        else:
            self.levels[-1].stays = True

    def _unlink(self, name: str, folder: int) -> None:
        try:
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.EISDIR:
                self.levels[-1].folders.append(name)
            elif error.errno != errno.ENOENT:
                self._leave(name, error)

    def _leave(self, name: str, error: OSError) -> None:
        self.levels[-1].stays = True
        path = "/".join([*(level.name for level in self.levels[1:]), name])
        reason = "it is mounted or in use" if error.errno == errno.EBUSY else error.strerror
        self.left.append(f"{path[-200:]!r} ({reason})")


def _remove_by_path(path: str) -> None:
    """For systems without directory descriptors."""

    def try_writable(remove: Callable[[str], object], name: str, _: object) -> None:
        os.chmod(name, stat.S_IWRITE)
        remove(name)

    try:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, onerror=try_writable)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServerError(f"The directory {path!r} could not be removed: {error.strerror}.") from error
