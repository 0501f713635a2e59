"""Processes of this machine: start one, find one again, hear of its end, find and signal all of a job's.

The only module that uses what only POSIX or only Linux has; where pidfds are missing everything still works, by
looking every few milliseconds. A process is always held, by pidfd or by number and start time, before it is judged
or signalled, so that a number that came to mean a stranger is never hit. Knows job layouts and the marker; must not
know slots, queues or observations.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import NamedTuple

import psutil

from lwr.core.places import JobLayout
from lwr.core.script import MARKER_NAME

#: How often processes without a pidfd are looked at.
POLL_INTERVAL_S = 0.02

_LOCALE_NAMES = ("LC_ALL", "LC_CTYPE", "LANG")
_NOT_FOR_JOBS = ("VIRTUAL_ENV", "PYTHONHOME")


def core_count() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; the number where it has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def job_environment(server: Mapping[str, str], attempt: str) -> dict[str, str]:
    """What a job's process begins with: the server's environment without LWR's own names (they may hold secrets) and
    without the virtualenv the server runs in, plus the marker and a locale that knows UTF-8."""
    environment = {
        name: value for name, value in server.items() if not name.startswith("LWR_") and name not in _NOT_FOR_JOBS
    }
    if not any(environment.get(name) for name in _LOCALE_NAMES):
        environment["LC_CTYPE"] = "C.UTF-8"
    environment[MARKER_NAME] = attempt
    return environment


class Process:
    """One process, ours or a stranger's, held so that its number cannot come to mean another one unnoticed.

    A process that `spawn` made is not reaped before `exit_status` or `release`: until then its number is its own.
    """

    def __init__(self, pid: int, popen: subprocess.Popen[bytes] | None = None) -> None:
        """Raises ProcessLookupError when there is no such process, another OSError when that cannot be seen."""
        self.pid = pid
        self._popen = popen
        self._pidfd = _open_pidfd(pid)
        self._seen: psutil.Process | None = None
        try:
            self._seen = psutil.Process(pid)
            self.handle = f"{pid}:{_start_stamp(self._seen)}"
        except psutil.Error as error:
            self.release()
            raise ProcessLookupError(pid) from error
        except OSError:
            if popen is None:
                self.release()
                raise
            # A child can be followed without; after a restart its start marker leads to it.
            self.handle = f"{pid}:"

    @property
    def is_child(self) -> bool:
        return self._popen is not None

    @property
    def pidfd(self) -> int | None:
        """Becomes readable when the process ends; None where the machine (or a full table) gives none."""
        return self._pidfd

    def ended(self) -> bool:
        """Whether it is over; a zombie is."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            return bool(poll.poll(0))
        if self._seen is None:
            return self.exit_status() is not None
        try:
            return not self._seen.is_running() or self._seen.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True
        except OSError:
            return False  # no file handle left to look with

    def carries(self, attempt: str) -> bool:
        """Whether it began with the attempt's marker in its environment, and lives. OSError when that cannot be
        seen."""
        try:
            return self._environ().get(MARKER_NAME) == attempt and not self.ended()
        except psutil.Error:
            return False

    def is_being_executed(self) -> bool:
        """Whether it may be on its way from one program to the next, when it has no environment for a moment."""
        try:
            return not self._environ() and not self.ended()
        except psutil.Error:
            return False

    def _environ(self) -> dict[str, str]:
        return self._seen.environ() if self._seen is not None else {}

    def signal(self, number: int) -> None:
        """Send a signal to it and to nobody else; one that is gone or belongs to another user gets none."""
        try:
            if self._pidfd is not None:
                signal.pidfd_send_signal(self._pidfd, number)
            elif self._seen is not None:
                self._seen.send_signal(number)
        except (OSError, psutil.Error):
            return

    def exit_status(self) -> int | None:
        """How it ended: 0 to 255, or minus the signal's number. None for a process that was not started by us, and
        while it runs. Reaps it."""
        return self._popen.poll() if self._popen is not None else None

    def release(self) -> None:
        """Let go of it, running or not. May be called again."""
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self._popen is not None and self._popen.poll() is None:
            # It goes on without us on purpose; without a code Popen would warn of a forgotten child.
            self._popen.returncode = 0
        self._popen = None


def spawn(layout: JobLayout, environment: Mapping[str, str]) -> Process:
    """Start the script of a job in a session of its own, with nothing of this process open in it.

    Its streams are appended to the job's, so that a start that refuses does not wipe out those of the first.

    Raises:
        OSError: it was not started.
    """
    if layout.windows:
        argv = [os.environ.get("COMSPEC", "cmd.exe"), "/d", "/c", layout.script]
    else:
        argv = [shutil.which("bash") or shutil.which("sh") or "/bin/sh", layout.script]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    with (
        open(os.open(layout.stdout, flags, 0o644), "ab") as out,
        open(os.open(layout.stderr, flags, 0o644), "ab") as err,
    ):
        popen = subprocess.Popen(
            argv, cwd=layout.root, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    return Process(popen.pid, popen)


def find(pid: int, attempt: str, handle: str = "") -> Process | None:
    """The process of that number, if it lives and is the attempt's: it carries the marker and, where a handle is
    given, is the very process of that handle. OSError when that cannot be seen."""
    try:
        process = Process(pid)
    except (ProcessLookupError, OverflowError):
        return None
    found = False
    try:
        # Alive after its environment was read: the number meant the held process all the time.
        found = process.carries(attempt) and handle in ("", process.handle)
        if not found and handle == process.handle and process.is_being_executed():
            raise BlockingIOError(errno.EAGAIN, f"process {pid} begins only now")
    finally:
        if not found:
            process.release()
    return process if found else None


class Watcher:
    """Hears of the ends of processes, and can be woken. `wake` may be called from any thread, the rest from one."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._polled: dict[Process, Callable[[], None]] = {}

    def add(self, process: Process, at_end: Callable[[], None]) -> None:
        if process.pidfd is None:
            self._polled[process] = at_end
        else:
            self._selector.register(process.pidfd, selectors.EVENT_READ, at_end)

    def wake(self) -> None:
        """Make the present or the next `wait` return at once."""
        try:
            self._button.send(b"!")
        except OSError:
            return  # rung often enough already, or closed

    def wait(self, timeout_s: float | None) -> list[Callable[[], None]]:
        """Wait for an end, for `wake`, or for the time (None: for ever).

        Returns the `at_end` of those that ended, each once.
        """
        ended = [self._polled.pop(process) for process in [*self._polled] if process.ended()]
        if self._polled:
            timeout_s = POLL_INTERVAL_S if timeout_s is None else min(timeout_s, POLL_INTERVAL_S)
        for key, _ in self._selector.select(0 if ended else timeout_s):
            if key.data is None:
                self._bell.recv(4096)
            else:
                self._selector.unregister(key.fd)
                ended.append(key.data)
        return ended

    def close(self) -> None:
        self._selector.close()
        self._bell.close()
        self._button.close()


class Seen(NamedTuple):
    """One line of the table of processes: its number, its session (0: unknown) and its marker ("" for none)."""

    pid: int
    session: int
    attempt: str


def list_processes() -> list[Seen]:
    """All processes of this machine, as far as they let themselves be seen. Takes about 50 microseconds for each.

    Raises OSError when there is no file handle left to look with: an empty table would mean something else.
    """
    table = []
    for pid in psutil.pids():
        try:
            attempt = psutil.Process(pid).environ().get(MARKER_NAME, "")
        except psutil.Error:
            attempt = ""
        table.append(Seen(pid, _session(pid), attempt))
    return table


class Tree:
    """All processes of an attempt that can be known: who carries its marker, and who is in its leader's session."""

    def __init__(self, attempt: str, leader: Process) -> None:
        self._attempt = attempt
        self._leader = leader
        self._held: dict[int, Process] = {}
        self._asked: set[int] = set()

    def sweep(self, table: list[Seen], *, force: bool) -> bool:
        """Ask all that the table shows to end (SIGTERM, each once), or make them (`force`: SIGKILL).

        Returns whether any was left. One False may be luck, as processes fork while a table is made; two in a row
        with time between are an answer. OSError when it could not look at all; to be called again then.
        """
        # All are held before the first is signalled: the session is known to be ours while one of it lives.
        for seen in table:
            if seen.pid not in self._held and (seen.attempt == self._attempt or seen.session == self._leader.pid):
                self._hold(seen.pid)
        for process in [held for pid, held in self._held.items() if pid not in self._asked]:
            process.signal(signal.SIGTERM)
        self._asked.update(self._held)
        for pid in [pid for pid, process in self._held.items() if process.ended()]:
            self._held.pop(pid).release()
            self._asked.discard(pid)
        if force:
            for process in self._held.values():
                process.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        return bool(self._held) or not self._leader.ended()

    def release(self) -> None:
        for process in self._held.values():
            process.release()
        self._held.clear()

    def _session_is_ours(self) -> bool:
        # A session's number is not given away while its leader is unreaped or a member lives.
        return (
            self._leader.is_child
            or not self._leader.ended()
            or any(_session(pid) == self._leader.pid and not held.ended() for pid, held in self._held.items())
        )

    def _hold(self, pid: int) -> None:
        try:
            process = Process(pid)
        except ProcessLookupError:
            return
        if process.carries(self._attempt) or (_session(pid) == self._leader.pid and self._session_is_ours()):
            self._held[pid] = process
        else:
            process.release()


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None  # an old kernel, or no file handle left


def _session(pid: int) -> int:
    try:
        return os.getsid(pid) if hasattr(os, "getsid") else 0
    except OSError:
        return 0


def _start_stamp(process: psutil.Process) -> str:
    """When a process began, in words that a step of the clock does not change (where the system has such)."""
    try:
        with open(f"/proc/{process.pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].split()[19].decode()
    except OSError:
        return f"{process.create_time():.2f}"
