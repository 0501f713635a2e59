"""Processes of this machine: held, heard, found again, and all of a job's ended. Real ones, no fakes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.core.places import JobLayout
from lwr.core.script import MARKER_NAME
from lwr.managers.processes import (
    Process,
    Tree,
    Watcher,
    core_count,
    find,
    job_environment,
    list_processes,
    signal_name,
    spawn,
)
from tests.conformance.yard import DEADLINE_S, Gate, kill_all_below, wait_until

ATTEMPT = uuid.uuid4().hex


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[JobLayout]:
    yield JobLayout(str(tmp_path))
    kill_all_below(tmp_path)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    made.close()


def start(layout: JobLayout, script: str) -> Process:
    """A script's process, with the marker of ATTEMPT."""
    Path(layout.script).write_text(script)
    return spawn(layout, job_environment({"PATH": os.environ["PATH"]}, ATTEMPT))


def wait_for_end(process: Process) -> None:
    watcher = Watcher()
    watcher.add(process, watcher.wake)
    assert watcher.wait(DEADLINE_S)
    watcher.close()


def test_a_jobs_environment_holds_no_secret_of_the_server_and_not_its_virtualenv() -> None:
    server = {"LWR_CONFIG_PRIVATE_KEY": "s", "LWR_FAULT": "x", "VIRTUAL_ENV": "/v", "PYTHONHOME": "/p", "HOME": "/h"}
    assert job_environment(server, "a") == {"HOME": "/h", "LC_CTYPE": "C.UTF-8", MARKER_NAME: "a"}
    assert job_environment({"LANG": "de_DE.UTF-8"}, "a") == {"LANG": "de_DE.UTF-8", MARKER_NAME: "a"}


def test_names_and_counts() -> None:
    assert signal_name(signal.SIGKILL) == "SIGKILL"
    assert signal_name(99) == "signal 99"
    assert core_count() >= 1


def test_an_end_is_heard_at_once_and_once(layout: JobLayout, gate: Gate, watcher: Watcher) -> None:
    process, heard = start(layout, f"cat {gate}; exit 3"), threading.Event()
    watcher.add(process, heard.set)
    assert watcher.wait(0.0) == []
    assert (process.ended(), process.exit_status()) == (False, None)
    gate.open()
    assert watcher.wait(DEADLINE_S) == [heard.set]
    assert watcher.wait(0.0) == []
    assert (process.ended(), process.exit_status()) == (True, 3)
    process.release()
    process.release()


def test_a_wait_can_be_ended_from_another_thread(watcher: Watcher) -> None:
    threading.Thread(target=watcher.wake).start()
    assert watcher.wait(DEADLINE_S) == []
    for _ in range(100_000):
        watcher.wake()
    assert watcher.wait(DEADLINE_S) == []


def test_a_job_is_a_session_of_its_own_with_nothing_open(layout: JobLayout) -> None:
    process = start(layout, "ls -l /proc/$$/fd | grep -c socket; cat; ps -o sid= -p $$ 2>/dev/null || echo $$")
    wait_for_end(process)
    assert Path(layout.stdout).read_text().split() == ["0", str(process.pid)]
    process.release()


def test_a_second_start_adds_to_the_streams_of_the_first(layout: JobLayout) -> None:
    for word in ("one", "two"):
        process = start(layout, f"echo {word}")
        wait_for_end(process)
        process.release()
    assert Path(layout.stdout).read_text() == "one\ntwo\n"


def test_a_start_that_fails_is_an_error_and_follows_no_link(layout: JobLayout) -> None:
    os.symlink("elsewhere", layout.stdout)
    with pytest.raises(OSError, match="symbolic"):
        start(layout, "true")
    with pytest.raises(FileNotFoundError):
        spawn(JobLayout(layout.path("nowhere")), {})


def test_only_the_very_process_of_a_handle_is_found(layout: JobLayout, gate: Gate, tmp_path: Path) -> None:
    up = Gate(tmp_path / "up")
    process = start(layout, f"echo >> {up}; cat {gate}")
    up.wait_for(1)
    again = find(process.pid, ATTEMPT, process.handle)
    assert again is not None
    assert again.handle == process.handle
    # Not reaped by the one who found it: it is not its child.
    assert (again.is_child, again.exit_status()) == (False, None)
    again.release()
    # The same number, but begun at another time; with another marker; or a stranger's.
    assert find(process.pid, ATTEMPT, f"{process.pid}:1") is None
    assert find(process.pid, uuid.uuid4().hex) is None
    assert find(os.getpid(), ATTEMPT) is None
    assert find(2**22 + 1, ATTEMPT) is None
    assert find(10**18, ATTEMPT) is None
    process.signal(signal.SIGKILL)
    wait_for_end(process)
    # A zombie is nobody.
    assert find(process.pid, ATTEMPT) is None
    assert process.exit_status() == -signal.SIGKILL
    process.release()
    with pytest.raises(ProcessLookupError):
        Process(process.pid)


def test_a_process_that_is_between_two_programs_is_not_taken_for_gone(layout: JobLayout, gate: Gate) -> None:
    Path(layout.script).write_text(f"cat {gate}")
    bare = spawn(layout, {})
    # An empty environment is what such a process shows; only its handle says that it is worth another look.
    wait_until(lambda: bare.is_being_executed())
    with pytest.raises(BlockingIOError):
        find(bare.pid, ATTEMPT, bare.handle)
    assert find(bare.pid, ATTEMPT) is None
    bare.signal(signal.SIGKILL)
    wait_for_end(bare)
    bare.release()


def test_a_number_that_came_to_mean_a_stranger_is_not_hit(layout: JobLayout) -> None:
    dead = start(layout, "exit 0")
    wait_for_end(dead)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        # The table says that the stranger is of the dead one's session and carries its marker: it lies.
        seen = next(seen for seen in list_processes() if seen.pid == stranger.pid)
        tree = Tree(ATTEMPT, dead)
        tree.sweep([seen._replace(session=dead.pid, attempt=ATTEMPT)], force=True)
        assert stranger.poll() is None
        tree.release()
    finally:
        stranger.kill()
        stranger.wait()
    dead.release()


def test_a_session_whose_leader_is_gone_is_trusted_only_while_a_known_member_lives(
    layout: JobLayout, tmp_path: Path
) -> None:
    up, never = Gate(tmp_path / "up"), Gate(tmp_path / "never")
    # Each a shell with the marker that ignores SIGTERM, and below it one without the marker.
    hidden = f"(trap '' TERM; env -u {MARKER_NAME} sh -c 'echo >> {up}; cat {never}'; exit)"
    child = start(layout, f"{hidden} & {hidden} & cat {never}")
    up.wait_for(2)
    leader = find(child.pid, ATTEMPT)
    assert leader is not None
    tree = Tree(ATTEMPT, leader)
    # A first look that misses those without the marker; then the leader dies and its number is free.
    assert tree.sweep([seen for seen in list_processes() if seen.attempt], force=False)
    wait_for_end(child)
    child.release()
    while tree.sweep(list_processes(), force=True):
        continue
    assert in_session(child.pid) == []
    leader.release()


def test_a_session_of_which_nobody_is_known_any_more_is_left_alone(layout: JobLayout, tmp_path: Path) -> None:
    up, never = Gate(tmp_path / "up"), Gate(tmp_path / "never")
    child = start(layout, f"trap '' TERM; env -u {MARKER_NAME} sh -c 'echo >> {up}; cat {never}' & cat {never}")
    up.wait_for(1)
    leader = find(child.pid, ATTEMPT)
    assert leader is not None
    child.signal(signal.SIGKILL)
    wait_for_end(child)
    child.release()
    tree = Tree(ATTEMPT, leader)
    without_marker = [seen for seen in list_processes() if not seen.attempt and seen.session == child.pid]
    assert without_marker
    assert not tree.sweep(without_marker, force=False)
    leader.release()


def in_session(session: int) -> list[int]:
    """Who lives in a session; zombies have no command line."""
    members = [seen.pid for seen in list_processes() if seen.session == session]
    return [pid for pid in members if Path("/proc", str(pid), "cmdline").read_bytes()]


WITHOUT_PIDFD = """
import os, sys
del os.pidfd_open
from lwr.core.places import JobLayout
from lwr.managers.processes import Tree, Watcher, find, list_processes, spawn
layout = JobLayout(sys.argv[1])
environment = {"PATH": os.environ["PATH"], "LWR_JOB_MARKER": "a" * 32}
process, watcher = spawn(layout, environment), Watcher()
assert process.pidfd is None and not process.ended()
while (stranger := find(process.pid, "a" * 32, process.handle)) is None:
    continue  # it is not its script yet
watcher.add(process, process.ended)
watcher.add(stranger, stranger.ended)
assert watcher.wait(0.0) == []
tree = Tree("a" * 32, process)
while tree.sweep(list_processes(), force=True):
    watcher_heard = watcher.wait(1.0)
assert stranger.ended() and process.exit_status() == -9 or process.exit_status() == -15, process.exit_status()
for one in (process, stranger, tree):
    one.release()
watcher.close()
print("fine")
"""


def test_where_there_are_no_pidfds_everything_works_by_looking(layout: JobLayout, gate: Gate) -> None:
    """On a Python without `os.pidfd_open`, as macOS has it."""
    Path(layout.script).write_text(f"cat {gate}")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_PIDFD, layout.root],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("fine\n", "")
