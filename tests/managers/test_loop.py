"""The managers' thread: it outlives whatever is done in it, and says what went wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from lwr.managers.loop import Loop
from lwr.managers.processes import Process

DEADLINE_S = 40.0


@dataclass
class Patient:
    """A loop, the defects that it told of, and how often its `idle` is still to fail."""

    defects: list[str] = field(default_factory=list)
    idle_failures: int = 0

    def __post_init__(self) -> None:
        self.told = threading.Event()
        self.loop = Loop("patient", self._idle, self._on_defect)
        self.loop.start()

    def _idle(self) -> bool:
        if self.idle_failures:
            self.idle_failures -= 1
            raise LookupError("idle")
        return False

    def _on_defect(self, defect: Exception) -> None:
        self.defects.append(str(defect))
        self.told.set()

    def lives(self) -> bool:
        done = threading.Event()
        self.loop.tell(done.set)
        return done.wait(DEADLINE_S)


@pytest.fixture
def patient() -> Iterator[Patient]:
    made = Patient()
    yield made
    made.loop.stop()


def fails(where: str) -> None:
    raise ValueError(where)


def test_the_thread_outlives_what_was_told_and_what_was_due(patient: Patient) -> None:
    patient.loop.tell(lambda: fails("told"))
    due = threading.Event()

    def fail_later() -> None:
        due.set()
        fails("due")

    patient.loop.tell(lambda: patient.loop.later(0.0, fail_later))
    patient.loop.tell(lambda: patient.loop.persist(lambda: fails("persisted")))
    assert due.wait(DEADLINE_S)
    assert patient.lives()
    assert sorted(patient.defects) == ["due", "persisted", "told"]


def test_the_thread_outlives_what_was_to_be_done_at_an_end(patient: Patient) -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    process, ended = Process(child.pid), threading.Event()

    def fail_at_end() -> None:
        ended.set()
        fails("at end")

    patient.loop.tell(lambda: patient.loop.at_end(process, fail_at_end))
    child.communicate()
    assert ended.wait(DEADLINE_S)
    assert patient.lives()
    assert patient.defects == ["at end"]
    process.release()


def test_the_thread_outlives_its_idle_moments(patient: Patient) -> None:
    def sicken() -> None:
        patient.idle_failures = 1

    patient.loop.tell(sicken)
    assert patient.told.wait(DEADLINE_S)
    assert patient.lives()
    assert patient.defects == ["idle"]


PROGRAM = """
import threading
from lwr.managers.loop import Loop

loop, done = Loop("the loop", lambda: False), threading.Event()
loop.start()
loop.tell(lambda: {}["missing"])
loop.tell(done.set)
assert done.wait(40)
loop.stop()
"""


def test_without_anybody_to_tell_the_hook_of_threads_is_told() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "the loop" in ended.stderr
    assert "KeyError: 'missing'" in ended.stderr
