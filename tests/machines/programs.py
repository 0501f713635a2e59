"""Programs of the system that tests run: found, or said to be missing; started, waited for, and stopped for sure."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, wait_until

_PLACES = "/usr/local/sbin:/usr/sbin:/sbin"


def needed(program: str, package: str) -> str:
    """The path of a program. Without it the test is skipped at home, and fails where CI is set."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if found is not None:
        return found
    why = f"{program} is not installed: apt-get install {package}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


class Program:
    """A server program in the foreground, that listens on a loopback port; all that it says goes to `log`."""

    def __init__(self, command: Sequence[str | Path], port: int, log: Path) -> None:
        self._command = command
        self._port = port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and return when it accepts connections.

        It is told to end as well when the tests are killed, if the system has `setpriv`.
        """
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, *self._command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._log.parent
            )
        try:
            wait_until(self._listens, f"{self._command[0]} to listen")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop, and return when it is gone. Never started, or ended before: nothing happens."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def send(self, what: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(what)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}:\n{self.log()}"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
