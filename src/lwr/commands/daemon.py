"""A process in the background: started so that its starter learns how that went, found again, and stopped. POSIX only.

The pid file is locked for as long as the process lives, so a file left behind by a crash is known to be one, and
no signal ever goes to a stranger that was given an old number. Knows nothing of what the process does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from lwr.errors import ConfigError, LwrError, Unavailable

#: Work that serves until it is stopped: it calls its argument with a sentence once it is ready, returns an exit code.
Work = Callable[[Callable[[str], None]], int]
_POLL_S = 0.05


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Hold the pid file for this process; it is gone afterwards.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def running(path: Path) -> int | None:
    """The pid of the process that holds the pid file; None when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        while not _lock(descriptor, fcntl.LOCK_SH):
            text = os.pread(descriptor, 20, 0)
            if text.endswith(b"\n"):
                return int(text)
            time.sleep(_POLL_S)  # it has the lock and is about to write
        return None
    finally:
        os.close(descriptor)


def stop(path: Path, deadline_s: float) -> int | None:
    """End the process that holds the pid file, and return its pid when it is gone; None when there was none.

    Raises:
        Unavailable: it did not end within `deadline_s`.
    """
    pid = running(path)
    if pid is None:
        return None
    _signal(path, pid)
    end = time.monotonic() + deadline_s
    while running(path) == pid:
        if time.monotonic() > end:
            raise Unavailable(f"Process {pid} has not ended after {deadline_s:.0f} s.", "Look into its log.")
        time.sleep(_POLL_S)
    return pid


def start(path: Path, log_file: Path, work: Work) -> tuple[int, str]:
    """Do `work` in a process of its own that outlives this one; returns its pid and what it said when it was ready.

    Its standard streams go to `log_file`.

    Raises:
        LwrError: what the work raised before it was ready.
        ConfigError: one is running already; it ended without a word.
    """
    holder = running(path)
    if holder is not None:
        raise _taken(path, holder)
    log = _open_log(log_file)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _detach(path, log, writer, work)
    os.close(writer)
    os.close(log)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        word = json.loads(pipe.read() or b"{}")
    if "pid" in word:
        return word["pid"], word["ready"]
    raise ConfigError(
        word.get("message", "The server ended before it was ready."), word.get("hint", f"Look into {log_file}.")
    )


def _detach(path: Path, log: int, writer: int, work: Work) -> NoReturn:
    """In the child: become a process that no terminal and no parent knows, and work."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, stream in ((null, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, stream)
        code = _work(path, writer, work)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        # Whatever it is, the caller's code must not go on in this process.
        sys.excepthook(*sys.exc_info())
        code = 1
    os._exit(code)


def _work(path: Path, writer: int, work: Work) -> int:
    told = False

    def tell(word: dict[str, object]) -> None:
        nonlocal told
        if not told:
            told = True
            with os.fdopen(writer, "w") as pipe:
                json.dump(word, pipe)

    try:
        with pid_file(path):
            try:
                return work(lambda ready: tell({"pid": os.getpid(), "ready": ready}))
            finally:
                sys.stdout.flush()  # who stops it finds the whole log once the pid file is let go
    except LwrError as error:
        tell({"message": error.message, "hint": error.hint})
        sys.stderr.write(f"lwr: {error}\n")
        return 2


def _signal(path: Path, pid: int) -> None:
    """SIGTERM to the holder of the pid file, however fast pids are given out again."""
    with contextlib.suppress(ProcessLookupError):
        if sys.platform != "linux":
            os.kill(pid, signal.SIGTERM)
            return
        handle = os.pidfd_open(pid)
        try:
            if running(path) == pid:  # so the handle is of the holder and of nobody who came after it
                signal.pidfd_send_signal(handle, signal.SIGTERM)
        finally:
            os.close(handle)


def _locked(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise _unusable(path, error) from error
        if not _lock(descriptor, fcntl.LOCK_EX):
            os.close(descriptor)
            raise _taken(path, running(path))
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its last holder removed it between our two looks


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_log(path: Path) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    except OSError as error:
        raise _unusable(path, error) from error


def _taken(path: Path, pid: int | None) -> ConfigError:
    return ConfigError(f"A server runs already: process {pid} holds {path}.", "Stop it with --stop-daemon first.")


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be opened: {error.strerror}.", "Name another file.")
