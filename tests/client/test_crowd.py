"""Many at a time: all are done, so many at once, and the first that fails ends the others."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from lwr.client.crowd import each
from lwr.errors import BadRequest
from lwr.transfer.interrupt import Interrupt
from tests.support import DEADLINE_S


def test_all_are_done_and_so_many_at_once() -> None:
    done: list[int] = []
    together = threading.Barrier(4, timeout=DEADLINE_S)

    def work(item: int, _: Interrupt) -> None:
        together.wait()
        done.append(item)

    each(range(12), work, 4)
    assert sorted(done) == list(range(12))


def test_nothing_to_do() -> None:
    each([], lambda item, interrupt: None, 8)


def test_the_first_failure_ends_the_others_and_is_raised() -> None:
    begun: list[int] = []
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def work(item: int, interrupt: Interrupt) -> None:
        begun.append(item)
        both.wait()
        if item == 1:
            raise BadRequest("it is spoiled")
        interrupt.wait(DEADLINE_S)
        pytest.fail("nobody interrupted this one")

    with pytest.raises(BadRequest, match="spoiled"):
        each(range(100), work, 2)
    assert sorted(begun) == [0, 1]


def test_what_the_others_say_of_their_end_is_not_raised() -> None:
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def work(item: int, interrupt: Interrupt) -> None:
        both.wait()
        if item == 0:
            interrupt.wait(DEADLINE_S)
        raise BadRequest("the first")

    with pytest.raises(BadRequest):
        each(range(2), work, 2)


def test_ctrl_c_ends_all_at_once() -> None:
    ended: list[int] = []
    both = threading.Barrier(2, timeout=DEADLINE_S)

    def work(item: int, interrupt: Interrupt) -> None:
        both.wait()
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Exception, match="ended"):
            interrupt.wait(DEADLINE_S)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        each(range(2), work, 2)
    assert sorted(ended) == [0, 1]
