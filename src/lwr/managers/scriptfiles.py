"""The three files between a manager and its script: the script itself, the start marker and the exit file.

Whatever runs the script, these say what became of it. Jobs can write in their directory, so what is read here is
read as a stranger's: regular files only, no links, a few bytes. Must not know processes, slots or schedulers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import uuid

from lwr.core.places import PART_PREFIX, JobLayout
from lwr.core.script import HOME, TMP, Site, render
from lwr.core.ticket import Observation, Phase, Ticket
from lwr.errors import ManagerError
from lwr.faults import fault

_READ_LIMIT_BYTES = 64
_EXIT_CODE = re.compile(rb"[0-9]{1,3}")
_MAY_PASS = frozenset(
    {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
)
_PID = re.compile(rb"[0-9]{1,19}")


def write_script(ticket: Ticket, site: Site) -> None:
    """Put the script of an attempt in its place, on disk for good, with mode 0700. May be called again.

    Raises:
        ManagerError: it could not be written; nothing stands under its name that was not there before.
    """
    try:
        _write(ticket.layout, render(ticket, site).encode("utf-8", "surrogateescape"))
    except (OSError, UnicodeEncodeError) as error:
        raise _not_taken(ticket, error) from error


def _write(layout: JobLayout, text: bytes) -> None:
    for name in (HOME, TMP):
        # The script could make its own two; here it costs no process.
        with contextlib.suppress(FileExistsError):
            os.mkdir(layout.path(name))
    part = layout.path(f"{PART_PREFIX}{uuid.uuid4().hex}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    try:
        with open(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        fault("script.before_rename")
        os.replace(part, layout.script)
    except OSError:
        os.unlink(part)
        raise
    _sync_directory(layout.root)
    fault("script.after_rename")


def _not_taken(ticket: Ticket, error: OSError | UnicodeEncodeError) -> ManagerError:
    said = (error.strerror or str(error)) if isinstance(error, OSError) else "it holds text that is not Unicode"
    passing = may_pass(error)
    trouble = ManagerError(
        f"The script of job {ticket.job_id} could not be written: {said}.",
        "See that the staging directory has room and can be written to." if passing else "",
    )
    trouble.transient = passing
    return trouble


def may_pass(error: Exception) -> bool:
    """Whether an error is one of a machine that is full at the moment: of disk, memory, processes, files."""
    return isinstance(error, OSError) and error.errno in _MAY_PASS


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def take_marker(layout: JobLayout) -> bool:
    """Take the start marker in the script's place: afterwards no script of this attempt will run its command.

    Returns False when it was taken before. Raises FileNotFoundError when the job's directory is gone.
    """
    try:
        fd = os.open(layout.start_marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    os.close(fd)
    return True


def read_marker(layout: JobLayout) -> int | None:
    """Who took the start marker: the script's process number, 0 when it does not say; None: nobody.

    Raises:
        OSError: it could not be looked at (too many open files, a broken disk): nothing is known.
    """
    if not os.path.lexists(layout.start_marker):
        return None
    found = _PID.match(_read(layout.start_marker))
    return int(found[0]) if found else 0


def read_exit_code(layout: JobLayout) -> int | None:
    """What the exit file says, 0 to 255; None when there is none, or none that a script wrote. Raises OSError as
    `read_marker` does."""
    found = _EXIT_CODE.fullmatch(_read(layout.exit_file).strip())
    return int(found[0]) if found and int(found[0]) <= 255 else None


def last_words(code: int | None, ended_by_signal: str = "", status: int | None = None) -> Observation:
    """How an attempt that was started ended: by its exit file (`code`), else by its process's status (negative for
    death by a signal, whose name then is `ended_by_signal`), else nobody can say."""
    if code is not None:
        return Observation(Phase.ENDED, exit_code=code)
    if status is None:
        return Observation(Phase.GONE, reason="The job was started; its process is gone and left no exit code.")
    if status < 0:
        return Observation(Phase.ENDED, exit_code=status, reason=f"The job's script was ended by {ended_by_signal}.")
    reason = "The job's script left no exit file; this is the exit code of its process."
    return Observation(Phase.ENDED, exit_code=status, reason=reason)


def _read(path: str) -> bytes:
    try:
        kind = os.lstat(path).st_mode
        if not stat.S_ISREG(kind):
            return b""
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return b""
    try:
        return os.read(fd, _READ_LIMIT_BYTES)
    finally:
        os.close(fd)
