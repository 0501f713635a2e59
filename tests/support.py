"""A real server for tests: `lwr serve` as a process of its own, with fresh state, to be asked, stopped or killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

#: How long a test waits for something that takes milliseconds on an idle machine.
DEADLINE_S = 30.0

#: Two slots for the plain routes and one manager more, to be reached below /managers/second.
MANAGERS = """\
[manager:_default_]
type = queued_python
num_concurrent_jobs = 2

[manager:second]
type = unqueued
"""


# Whatever proxy the environment names, it is not asked for loopback.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_until(true: Callable[[], T | None], what: str, *, deadline_s: float = DEADLINE_S) -> T:
    """Return what `true()` returns as soon as that is true; fail the test after the deadline."""
    end = time.monotonic() + deadline_s
    while not (value := true()):
        assert time.monotonic() < end, f"waited {deadline_s} s in vain: {what}"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A loopback port that nobody listens on, outside the range that outgoing connections are given."""
    for _ in range(200):
        port = random.SystemRandom().randint(18_000, 32_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def write_configuration(
    directory: Path,
    *,
    port: int,
    secret: str = "",
    managers: str = MANAGERS,
    options: str = "",
    server_options: str = "",
) -> Path:
    """Write a server.ini for a loopback server with all its state below `directory`; returns its path.

    `options` are lines for `[app:main]`, `server_options` for `[server:main]`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "job_managers.ini").write_text(managers)
    key = f"private_key = {secret}\n" if secret else ""
    ini = directory / "server.ini"
    ini.touch(mode=0o600)
    ini.write_text(
        f"[server:main]\nhost = 127.0.0.1\nport = {port}\n{server_options}\n\n[app:main]\n"
        f"staging_directory = {directory / 'staging'}\npersistence_directory = {directory / 'persisted'}\n"
        f"job_managers_config = job_managers.ini\n{key}{options}\n"
    )
    return ini


class RunningServer:
    """`lwr serve` on a loopback port of its own, its configuration and state below `directory`.

    Args:
        directory: made if missing; `server.ini` in it is written anew, the state of an earlier server is kept.
        secret: `private_key`; empty for none.
        managers: the text of job_managers.ini.
        options: lines for `[app:main]`.
        environ: added to the server's environment.

    A context manager that starts and stops. `start` after `kill` or `stop` serves the same state under the same URL.
    """

    def __init__(
        self,
        directory: Path,
        *,
        secret: str = "",
        managers: str = MANAGERS,
        options: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.secret = secret
        self.staging = directory / "staging"
        self.log_path = directory / "serve.log"
        self.needs_broker = True  # whether `start` waits for that too
        self._environ = {**{k: v for k, v in os.environ.items() if not k.startswith("LWR_")}, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        write_configuration(directory, port=port, secret=secret, managers=managers, options=options)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self, *, fault: str = "") -> None:
        """Start, and return when the server is ready. `fault` is a fault point at which it will kill itself."""
        self.spawn(fault=fault)
        wait_until(self._ready, "the server to be ready")

    def spawn(self, *, fault: str = "") -> None:
        """Start without waiting."""
        assert self._process is None or self._process.poll() is not None, "the server runs already"
        command = [sys.executable, "-c", "import sys; from lwr.cli import main; sys.exit(main())"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "serve", str(self.directory / "server.ini")],
                env={**self._environ, "LWR_FAULT": fault} if fault else self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended with {self._process.returncode}:\n{self.log()}"
        try:
            with _OPENER.open(self.url + ("readyz" if self.needs_broker else "livez"), timeout=DEADLINE_S) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:  # 503
            error.close()  # else its socket is closed whenever it is collected, which Python complains of
            return False
        except OSError:  # not listening yet
            return False

    def stop(self) -> int:
        """SIGTERM, wait, and return the exit code. Nothing to stop: 0."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone. Its jobs go on."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Wait until the server ended by itself (at a fault point); returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout=DEADLINE_S)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(timeout=DEADLINE_S)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request, with the secret in its header: (status, body). For tests that need no client."""
        request = urllib.request.Request(self.url + path.lstrip("/"), data=body, method=method)  # noqa: S310
        if self.secret:
            request.add_header("Authorization", f"Bearer {self.secret}")
        try:
            with _OPENER.open(request, timeout=DEADLINE_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def ask_json(self, method: str, path: str, body: bytes | None = None) -> object:
        """The answer to a request that must succeed, decoded."""
        status, answer = self.ask(method, path, body)
        assert status == 200, f"{method} {path}: {status} {answer[:500]!r}"
        return json.loads(answer)

    def __enter__(self) -> RunningServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
