"""One server for the tests of all commands, and `lwr` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import DEADLINE_S, RunningServer

SECRET = "a secret, with ü"

Lwr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("served"), secret=SECRET) as server:
        yield server


@pytest.fixture
def environ(served: RunningServer, tmp_path: Path) -> dict[str, str]:
    """The environment of a person who uses that server."""
    token = tmp_path / "token"
    token.write_text(SECRET + "\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LWR_")}
    return {**kept, "LWR_URL": served.url, "LWR_TOKEN_FILE": str(token), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def lwr(environ: dict[str, str], tmp_path: Path) -> Lwr:
    """Run `lwr` in a directory of its own: lwr("jobs", "list") -> what it said and its exit code."""
    home = tmp_path / "home"
    home.mkdir()

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lwr.cli", *arguments],
            env=environ,
            cwd=home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )

    return call
