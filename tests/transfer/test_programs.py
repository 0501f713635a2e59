"""Programs that run for a transfer: to their end, or ended at once with all that they started."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

import pytest

from lwr.errors import LwrError, ServerError
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.programs import Ended, run
from tests.support import wait_until


def test_how_it_ended_and_what_it_said_last() -> None:
    said = run(["sh", "-c", "echo out; echo err >&2; exit 23"], Interrupt())
    assert said == Ended(23, "out\nerr\n")
    endless = run([sys.executable, "-c", "print('x' * 1_000_000 + 'end')"], Interrupt())
    assert endless.said.endswith("xend\n")
    assert len(endless.said) == 8192


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ServerError, match="no-such-program is not installed"):
        run(["no-such-program"], Interrupt())


def test_it_learns_nothing_of_our_environment() -> None:
    ended = run(["sh", "-c", "env"], Interrupt())
    assert {line.partition("=")[0] for line in ended.said.splitlines()} <= {"PATH", "LC_ALL", "PWD", "SHLVL", "_"}


def test_an_interrupt_ends_it_and_what_it_started(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    interrupt = Interrupt()
    errors: list[LwrError] = []

    def work() -> None:
        try:
            # It ignores what can be ignored, and has closed what it says.
            script = f"trap '' TERM INT; echo $$ > {numbers}; exec >&- 2>&-; (sleep 1000; true) & sleep 1000; true"
            run(["sh", "-c", script], interrupt)
        except LwrError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: numbers.exists() and numbers.read_text().endswith("\n"), "the program to run")
    group = int(numbers.read_text())
    interrupt.set()
    thread.join(30)
    assert [type(error) for error in errors] == [Interrupted]
    wait_until(lambda: not _lives(group), "its whole group to be gone")


def _lives(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def test_what_was_ended_before_is_not_waited_for() -> None:
    interrupt = Interrupt()
    interrupt.set()
    with pytest.raises(Interrupted):
        run(["sleep", "1000"], interrupt)


def test_what_it_leaves_behind_is_ended(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    run(["sh", "-c", f"echo $$ > {numbers}; sleep 1000 >/dev/null 2>&1 & exit 0"], Interrupt())
    wait_until(lambda: not _lives(int(numbers.read_text())), "its group to be gone")
