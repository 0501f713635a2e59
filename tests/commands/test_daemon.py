"""A process in the background: told when it is ready, found, stopped, and never taken for another."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lwr.commands import daemon
from lwr.errors import ConfigError, Unavailable

# Started in a process of its own, as forking a test worker with its threads would be asking for trouble.
STARTER = """
import signal, sys, threading
from pathlib import Path
from lwr.commands import daemon
from lwr.errors import ConfigError, LwrError

def work(ready):
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: HOW == "deaf" or told.set())
    print("printed by the work")
    if HOW == "refused": raise ConfigError("It cannot work.", "Do this.")
    if HOW == "crash": raise RuntimeError("a defect")
    ready("ready for work")
    told.wait()
    return 0

HOW, directory = sys.argv[1], Path(sys.argv[2])
try:
    print(*daemon.start(directory / "pid", directory / "log", work))
except LwrError as error:
    print(f"{type(error).__name__}: {error}")
"""


def start(directory: Path, how: str = "well") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STARTER, how, str(directory)],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


def test_it_is_ready_when_start_returns_and_gone_when_stop_does(tmp_path: Path) -> None:
    pid, word = start(tmp_path).split(" ", 1)
    assert word == "ready for work"
    assert daemon.running(tmp_path / "pid") == int(pid)
    assert (tmp_path / "pid").read_text() == f"{pid}\n"
    assert os.getsid(int(pid)) != os.getsid(0)
    assert os.getpgid(int(pid)) != int(pid), "it could be given a terminal again"
    assert daemon.stop(tmp_path / "pid", 30) == int(pid)
    assert not (tmp_path / "pid").exists()
    assert (tmp_path / "log").read_text() == "printed by the work\n"


def test_a_second_one_is_refused_and_names_the_first(tmp_path: Path) -> None:
    pid = start(tmp_path).split()[0]
    try:
        assert start(tmp_path).startswith(f"ConfigError: A server runs already: process {pid} holds")
        with pytest.raises(ConfigError, match=pid), daemon.pid_file(tmp_path / "pid"):
            pass
    finally:
        daemon.stop(tmp_path / "pid", 30)


def test_what_went_wrong_before_it_was_ready_is_told_to_the_starter(tmp_path: Path) -> None:
    assert start(tmp_path, "refused") == "ConfigError: It cannot work. Do this."
    assert daemon.running(tmp_path / "pid") is None
    assert start(tmp_path, "crash").startswith("ConfigError: The server ended before it was ready. Look into")
    assert "RuntimeError: a defect" in (tmp_path / "log").read_text()


def test_a_stranger_with_the_pid_of_a_dead_server_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        (tmp_path / "pid").write_text(f"{stranger.pid}\n")
        assert daemon.running(tmp_path / "pid") is None
        assert daemon.stop(tmp_path / "pid", 30) is None
        assert stranger.poll() is None
        stranger.kill()


def test_the_pid_file_of_a_dead_server_does_not_keep_the_next_from_starting(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("99999999\n")
    with daemon.pid_file(tmp_path / "pid"):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "pid").exists()


def test_children_of_the_server_do_not_hold_its_pid_file(tmp_path: Path) -> None:
    with daemon.pid_file(tmp_path / "pid"):
        job = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with (tmp_path / "pid").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        job.kill()
        job.wait()


def test_one_that_does_not_end_is_told(tmp_path: Path) -> None:
    pid = int(start(tmp_path, "deaf").split()[0])
    with pytest.raises(Unavailable, match="has not ended"):
        daemon.stop(tmp_path / "pid", 0.2)
    os.kill(pid, 9)


def test_files_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    with pytest.raises(ConfigError, match="cannot be opened"), daemon.pid_file(tmp_path / "pid"):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be opened"), daemon.pid_file(tmp_path / "link"):
        pass
    assert not (tmp_path / "elsewhere").exists()
