"""The files of one job: the only code that opens anything in a job's directory.

A job is hostile to the server: it may put links, FIFOs and odd names wherever it can write, and swap them at any
moment. So every directory is opened by its single name from its parent that is already open; writing follows no
link; reading follows a link only while it stays in the job's directory, and reads regular files only. Takes
components that `lwr.core.places.resolve` has checked. Must not know states, the store or who asks.

All methods block. `JobFiles` holds nothing open, so it may be used from many threads and needs no closing.
"""

from __future__ import annotations

import errno
import fnmatch
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Self

from lwr.core.places import PART_PREFIX, Area
from lwr.errors import BadName, LwrError, NotFound, ServerError, Unavailable
from lwr.faults import fault
from lwr.transfer import sharing
from lwr.transfer.folder import HAS_DIR_FD, Folder, LeadsOut, descend, open_beneath

# Together they name a part as nobody else does.
_THIS_PROCESS = os.urandom(8).hex()
_part_numbers = itertools.count()

#: Directories below the job's are looked at down to here: deeper names cannot be asked for either.
_MAX_DEPTH = 101

#: What a file system says that may pass in time, and how people say it.
MAY_PASS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOMEM: "memory is short",
}
_NOT_A_FOLDER = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EMLINK, errno.EISDIR, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file of a job, open for reading (unbuffered). Close it, or use it as a context manager."""

    file: BinaryIO
    size_bytes: int
    mtime_ns: int
    inode: int

    @property
    def fd(self) -> int:
        return self.file.fileno()

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JobFiles:
    """The files below one job's directory.

    What goes wrong, for every method: NotFound (not there, or nothing that can be read as a file), BadName (leads
    out of the job, or a directory is in the way), Unavailable (disk full or read-only: may pass), ServerError
    (anything else that the system says).

    Args:
        root: absolute path of the job's directory; its last component must not be a link.
        by_fd: whether directories can be opened relative to each other; False is for systems that cannot.
    """

    def __init__(self, root: str, *, by_fd: bool = HAS_DIR_FD) -> None:
        self.root = root
        self._by_fd = by_fd

    def _folder(self, components: Sequence[str] = (), *, make: bool = False) -> Folder:
        return descend(Folder.open(self.root, by_fd=self._by_fd), components, make=make)

    def make(self, areas: Iterable[Area]) -> None:
        """Create the job's directory and those areas. What is there stays; may be called again."""
        try:
            os.makedirs(self.root, exist_ok=True)
            with self._folder() as root:
                for area in areas:
                    root.make(area.value)
        except OSError as error:
            raise self._error(error, "be set up") from error

    def part(self) -> Part:
        """Begin a new file: it has no name among the job's files until it is committed."""
        name = self._fresh_name()
        try:
            with self._folder() as root:
                return Part(self, name, root.create(name))
        except OSError as error:
            raise self._error(error, "take a file") from error

    @staticmethod
    def _fresh_name() -> str:
        return f"{PART_PREFIX}{_THIS_PROCESS}-{next(_part_numbers)}"

    def resumable(self, name: str) -> Part:
        """Go on with a file that was begun under this name and kept (`Part.keep`), by this process or an earlier one;
        a new one if there is none. Names are letters, digits and `-`, and never used by two at a time."""
        name = f"{PART_PREFIX}{name}"
        try:
            with self._folder() as root:
                return Part(self, name, root.create(name, again=True))
        except OSError as error:
            raise self._error(error, "take a file") from error

    def filled(self, source_fd: int) -> Part:
        """A new file with all the bytes of an open one, to be committed. Shares its blocks where that can be done."""
        part = self.part()
        try:
            if not sharing.clone(source_fd, part._fd):
                sharing.copy(source_fd, part._fd, os.fstat(source_fd).st_size)
            part.look_again()
        except OSError as error:
            part.discard()
            raise self._error(error, "take a copy of a file") from error
        return part

    def linked(self, path: str) -> Part | None:
        """A file of this machine under a second name, to be committed; None where the file systems cannot do that.

        Committed over another name of the same file, it stays there as a part until `settle`."""
        name = self._fresh_name()
        try:
            with self._folder() as root:
                if not root.link(path, name):
                    return None
                return Part(self, name, root.read(name))
        except OSError as error:
            raise self._error(error, "take a file") from error

    def write(self, components: Sequence[str], data: bytes) -> None:
        """Write a small whole file, over one that is there; nobody ever sees a piece of it."""
        with self.part() as part:
            part.write(data)
            part.commit(components)

    def open(self, components: Sequence[str]) -> OpenFile:
        """Open a regular file for reading, through links that stay in the job's directory."""
        try:
            fd = open_beneath(self.root, components, by_fd=self._by_fd)
        except LeadsOut:
            raise BadName(
                f"The file {_shown(components)} of job {self._job} leads out of the job's directory.",
                "Copy what it points at into the job's directory instead of linking to it.",
            ) from None
        except OSError as error:
            # ENXIO: a socket, or a device without a driver.
            if error.errno in _NOT_A_FOLDER or error.errno == errno.ENXIO:
                raise self._no_file(components) from None
            raise self._error(error, f"give the file {_shown(components)}") from error
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise self._no_file(components)
        return OpenFile(os.fdopen(fd, "rb", buffering=0), status.st_size, status.st_mtime_ns, status.st_ino)

    def listing(self, area: Area) -> list[str]:
        """All regular files of an area, and links to regular files of the job: sorted, relative to the area, with
        `/` between directories. What is not UTF-8 in a name is replaced. An area that is not there is empty.
        Directories that are links are not entered. One that may not be read stands there under its own name, so
        that whoever collects the files stumbles over it instead of missing what is in it."""
        try:
            return sorted(self._files((area.value,) if area.value else ()))
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno in _NOT_A_FOLDER:
                return []
            raise self._error(error, "list its files") from error

    def _files(self, top: tuple[str, ...]) -> Iterator[str]:
        for components, _, entries in self._folders(top):
            if entries is None:
                yield _decoded("/".join(components[len(top) :]) or ".")
                continue
            for entry in entries:
                place = (*components, entry.name)
                if _is_part(place):
                    continue
                if entry.is_file(follow_symlinks=False) or (entry.is_symlink() and self._readable(place)):
                    yield _decoded("/".join(place[len(top) :]))

    def _readable(self, components: Sequence[str]) -> bool:
        try:
            self.open(components).close()
        except (NotFound, BadName, ServerError):
            return False
        return True

    def _folders(self, top: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Folder, list[os.DirEntry[str]] | None]]:
        """Every directory from `top` down, each before those in it, open, with its entries; None for those of one that
        may not be read. The root and one more are open at a time. Raises OSError for `top` itself."""
        with self._folder() as root:
            pending = [top]
            while pending:
                components = pending.pop()
                folder = root
                try:
                    folder = descend(root.enter(components[0]), components[1:]) if components else root
                    entries = list(folder.entries())
                except OSError as error:
                    if error.errno == errno.EACCES:
                        yield components, folder, None
                    elif components == top or (error.errno != errno.ENOENT and error.errno not in _NOT_A_FOLDER):
                        raise
                    # Else it is gone, or was swapped for something else, since it was seen.
                    continue
                else:
                    yield components, folder, entries
                    if len(components) < _MAX_DEPTH:
                        pending += [
                            (*components, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
                        ]
                finally:
                    if folder is not root:
                        folder.close()

    def top_level(self) -> list[str]:
        """The names directly in the job's directory, directories too, sorted. Empty when it is not there."""
        try:
            with self._folder() as root:
                return sorted(_decoded(entry.name) for entry in root.entries() if not _is_part((entry.name,)))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(error, "list its files") from error

    def read_text(self, components: Sequence[str], limit_bytes: int) -> str | None:
        """A file as text, what is not UTF-8 replaced; of one longer than the limit the two ends.

        None when there is none, or only something that must not be read (a link out of the job, a FIFO).
        """
        try:
            opened = self.open(components)
        except (NotFound, BadName):
            return None
        with opened as file:
            try:
                if file.size_bytes <= limit_bytes:
                    return _decoded_bytes(_read_up_to(file.file, limit_bytes))
                head = _read_up_to(file.file, limit_bytes // 2)
                file.file.seek(file.size_bytes - (limit_bytes - len(head)))
                tail = _read_up_to(file.file, limit_bytes - len(head))
            except OSError as error:
                raise self._error(error, f"give the file {_shown(components)}") from error
        return f"{_decoded_bytes(head)}\n..\n{_decoded_bytes(tail)}"

    def glob(self, area: Area, pattern: str) -> str | None:
        """The first file of an area's listing that matches; `*` crosses `/`, and `**/` may match nothing."""
        wanted = re.compile("(?:.*/)?".join(_pattern(piece) for piece in pattern.split("**/")), re.DOTALL)
        return next((name for name in self.listing(area) if wanted.fullmatch(name)), None)

    def settle(self) -> None:
        """Make all regular files and directories of the job last over a crash of the machine, and remove what is left
        of files that were never committed, by this process or an earlier one."""
        try:
            for components, folder, entries in self._folders(()):
                if entries is None:
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                for entry in entries:
                    if _is_part((*components, entry.name)):
                        folder.unlink(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        folder.sync_file(entry.name)
                # An empty directory lasts with its name in the one above. Each call makes the disk flush its cache,
                # even if nothing is new, and most directories of a small job are empty.
                if entries:
                    folder.sync()
            with Folder.open(os.path.dirname(self.root), by_fd=self._by_fd) as above:
                above.sync()
        except OSError as error:
            raise self._error(error, "be made to last on the disk") from error

    @property
    def _job(self) -> str:
        return os.path.basename(self.root)

    def _no_file(self, components: Sequence[str]) -> NotFound:
        return NotFound(f"Job {self._job} has no regular file {_shown(components)}.")

    def _error(self, error: OSError, what: str) -> LwrError:
        """What the system's error means. `what`: what the job could not do."""
        code = error.errno or 0
        sentence = f"Job {self._job} could not {what}: {MAY_PASS.get(code) or error.strerror or error}."
        if code in MAY_PASS:
            return Unavailable(sentence, "Try again later; the server's admin can see to it.")
        if code == errno.ENOENT:
            return NotFound(sentence)
        if code in _NOT_A_FOLDER:
            return BadName(sentence, "A link, or something else that is not a directory, is in the way of that name.")
        return ServerError(sentence)


class Part:
    """A new file of a job that is not whole yet. Not for several threads at once.

    As a context manager it is discarded at the end, unless it was committed.
    """

    __slots__ = ("_fd", "_files", "_name", "size_bytes")

    def __init__(self, files: JobFiles, name: str, fd: int) -> None:
        self._files = files
        self._name = name
        self._fd = fd
        self.size_bytes = os.lseek(fd, 0, os.SEEK_END)

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. Raises Unavailable or ServerError; the part is then good for `discard` only."""
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, memoryview(data)[done:])
        except OSError as error:
            raise self._files._error(error, "take all of a file") from error
        self.size_bytes += done

    def restart(self) -> None:
        """Throw away what was written."""
        self.cut_back(0)

    def cut_back(self, size_bytes: int) -> None:
        """Throw away what was written behind the first so many bytes."""
        try:
            os.ftruncate(self._fd, size_bytes)
            os.lseek(self._fd, size_bytes, os.SEEK_SET)
        except OSError as error:
            raise self._files._error(error, "take a file anew") from error
        self.size_bytes = size_bytes

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to so many of the bytes that were written."""
        try:
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, size_bytes)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise self._files._error(error, "read what came of a file") from error
        return data

    def sync(self) -> None:
        """Make what was written last over a crash of the machine."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._files._error(error, "take all of a file") from error

    @property
    def path(self) -> str:
        """For programs that write files by name (rsync); good while no job runs in the directory."""
        return os.path.join(self._files.root, self._name)

    def look_again(self) -> None:
        """Learn the size anew, after another program has written to `path`."""
        self.size_bytes = os.lseek(self._fd, 0, os.SEEK_END)

    def keep(self) -> None:
        """Close it and leave what came, to go on later (`JobFiles.resumable`). Nothing may be called after."""
        self._name = ""
        self._close_file()

    def commit(self, components: Sequence[str]) -> None:
        """Give the file its name, in one step, over a file that has it; missing directories are made.

        Once only. After an error nothing has changed under that name, and the part can still be discarded.
        """
        files = self._files
        try:
            # Before the rename: some file systems say only here that the disk was full.
            self._close_file()
            # The root is opened anew: if a fresh attempt lives there now, it has no such part, and this fails.
            with files._folder() as root:
                fault("upload.before_rename")
                if len(components) == 1:
                    root.rename(self._name, root, components[0])
                else:
                    area = root.enter(components[0], make=True)
                    with descend(area, components[1:-1], make=True) as folder:
                        root.rename(self._name, folder, components[-1])
                fault("upload.after_rename")
        except OSError as error:
            raise files._error(error, f"take the file {_shown(components)}") from error
        self._name = ""

    def discard(self) -> None:
        """Forget the file, unless it was committed. May be called again; never fails."""
        name, self._name = self._name, ""
        try:
            self._close_file()
            if name:
                with self._files._folder() as root:
                    root.unlink(name)
        except OSError:
            # It goes at the job's submit, or with its directory.
            return

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def _is_part(components: Sequence[str]) -> bool:
    return len(components) == 1 and components[0].startswith(PART_PREFIX)


def _shown(components: Sequence[str]) -> str:
    return repr("/".join(components)[:200])


def _decoded(name: str) -> str:
    return _decoded_bytes(os.fsencode(name))


def _decoded_bytes(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _read_up_to(file: BinaryIO, size_bytes: int) -> bytes:
    pieces = []
    while size_bytes > 0 and (piece := file.read(size_bytes)):
        pieces.append(piece)
        size_bytes -= len(piece)
    return b"".join(pieces)


def _pattern(piece: str) -> str:
    # fnmatch's expression without its anchor, so that several can stand in a row.
    return re.sub(r"\\[Zz]\Z", "", fnmatch.translate(piece))
