"""Running another program for as long as a transfer takes, so that it can be ended at once with all that it started.

The program gets nothing to read, a bare environment and a session of its own: it can ask nobody for anything. Must not
know which program it is, or what its words mean. For POSIX systems.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from lwr.errors import ServerError, Unavailable
from lwr.transfer.interrupt import Interrupt

#: So much of the end of what a program says is kept.
_LAST_WORDS_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: `status` as `subprocess` has it, `said` the end of what it said, errors too."""

    status: int
    said: str


def run(command: Sequence[str], interrupt: Interrupt, keep_open: Sequence[int] = ()) -> Ended:
    """Run a program to its end; nothing that it started in its session is left then. `keep_open`: descriptors that it
    inherits.

    Raises:
        ServerError: it is not installed.
        Unavailable: the machine could not start it now.
        Interrupted: on purpose; it was killed.
    """
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            start_new_session=True, pass_fds=keep_open,
        )  # fmt: skip
    except FileNotFoundError:
        raise ServerError(
            f"{command[0]} is not installed on this server's machine.", "Its admin can install it."
        ) from None
    except OSError as error:
        raise Unavailable(f"{command[0]} could not be started: {error.strerror}.", "It is tried again.") from error
    group = _Group(process.pid)
    assert process.stdout is not None
    try:
        with process.stdout, interrupt.hold(group.kill):
            said = _last_words(process.stdout)
            # Looked at, but not taken: until then nobody else can get its number.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    finally:
        group.kill()
        group.forget()
        status = process.wait()
    interrupt.check()
    return Ended(status, said)


class _Group:
    """The processes of a program, to be killed from any thread as long as their number is theirs."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._mutex = threading.Lock()

    def kill(self) -> None:
        with self._mutex:
            if self._number:
                os.killpg(self._number, signal.SIGKILL)

    def forget(self) -> None:
        with self._mutex:
            self._number = 0


def _last_words(stream: IO[bytes]) -> str:
    words = b""
    while piece := os.read(stream.fileno(), 1 << 16):
        words = (words + piece)[-_LAST_WORDS_BYTES:]
    return words.decode("utf-8", "replace")
