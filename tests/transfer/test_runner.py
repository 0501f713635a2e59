"""The runner's threads: with real threads and a clock that the test sets. Who is next is tested in test_waiting."""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator

import pytest

from lwr.errors import LwrError, PeerRefused, PeerUnreachable, ServerError
from lwr.transfer.interrupt import Interrupted
from lwr.transfer.partial import Transferred
from lwr.transfer.runner import SMALL_BYTES, Runner, Task, TooLargeForLane, Tries, Try
from tests.support import wait_until

WHOLE = Transferred(5, None, "size", wasted_bytes=3)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Ends:
    """What tasks were told at their end."""

    def __init__(self) -> None:
        self.told: dict[str, list[Transferred | LwrError]] = defaultdict(list)
        self.tries: dict[str, Tries] = {}

    def task(self, name: str, work: Callable[[Try], Transferred], *, host: str = "", large: bool | None = None) -> Task:
        def done(result: Transferred | LwrError, tries: Tries) -> None:
            self.told[name].append(result)
            self.tries[name] = tries

        return Task(name, host, work, done, large)

    def of(self, name: str) -> Transferred | LwrError:
        wait_until(lambda: self.told.get(name), f"the end of {name}")
        (end,) = self.told[name]
        return end


class Hanging:
    """Work that hangs as in a socket that says nothing, until its interrupt closes it. What it raises then is now the
    closed socket's error, now Interrupted."""

    def __init__(self) -> None:
        self.count = 0
        self._mutex = threading.Lock()

    def __call__(self, one: Try) -> Transferred:
        closed = threading.Event()
        with one.interrupt.hold(closed.set):
            with self._mutex:
                number = self.count = self.count + 1
            closed.wait()
            if number % 2:
                one.interrupt.check()
            raise PeerUnreachable("the connection was closed")


@contextlib.contextmanager
def running(slots_count: int = 2, per_host_count: int = 9, clock: Clock | None = None) -> Iterator[Runner]:
    runner = Runner(slots_count, per_host_count, timeout_s=3600.0, clock=clock or Clock())
    runner.start()
    try:
        yield runner
    finally:
        runner.stop()


def moved(_one: Try) -> Transferred:
    return WHOLE


def test_every_task_is_done_once() -> None:
    ends = Ends()
    with running() as runner:
        runner.add([ends.task(f"file-{number}", moved) for number in range(300)])
        wait_until(lambda: len(ends.told) == 300, "all to end")
    assert all(told == [WHOLE] for told in ends.told.values())
    assert ends.tries["file-7"] == Tries(0.0, count=1, wasted_bytes=3)


def test_ten_minutes_of_502_pass_without_a_sleeping_thread() -> None:
    clock, ends, calls = Clock(), Ends(), []

    def work(one: Try) -> Transferred:
        calls.append(one.number)
        if clock.now_s < 600.0:
            raise PeerRefused("Bad gateway.", status=502, transient=True)
        return WHOLE

    with running(clock=clock) as runner:
        runner.add([ends.task("file", work, host="galaxy")])

        def time_passes() -> bool:
            clock.now_s += 20.0
            runner.wake()
            return "file" in ends.told

        wait_until(lambda: calls, "the first try")
        wait_until(lambda: runner.trouble("file") == "Bad gateway.", "the reason")
        wait_until(time_passes, "the host to work again")
        assert runner.trouble("file") == ""
    assert ends.of("file") == WHOLE
    assert calls == list(range(1, len(calls) + 1))
    assert clock.now_s < 700.0


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_cannot_pass_is_asked_once(status: int) -> None:
    ends, calls = Ends(), []

    def work(one: Try) -> Transferred:
        calls.append(one.number)
        raise PeerRefused("No.", status=status)

    with running() as runner:
        runner.add([ends.task("file", work)])
        error = ends.of("file")
    assert isinstance(error, PeerRefused)
    assert error.status == status
    assert calls == [1]


def test_small_files_get_through_while_large_ones_hold_every_slot() -> None:
    ends, hanging, lanes = Ends(), Hanging(), []

    def small(one: Try) -> Transferred:
        lanes.append(one.most_bytes)
        return WHOLE

    with running(slots_count=2, per_host_count=3) as runner:
        runner.add([ends.task(f"large-{number}", hanging, host="galaxy", large=True) for number in range(9)])
        wait_until(lambda: hanging.count == 2, "the large ones to begin")
        runner.add([ends.task(f"small-{number}", small, host="galaxy") for number in range(20)])
        wait_until(lambda: len(ends.told) == 20, "the small ones to end")
        assert hanging.count == 2
    assert lanes == [SMALL_BYTES] * 20


def test_what_is_too_large_for_the_lane_goes_on_among_the_large_ones() -> None:
    ends, hanging, seen = Ends(), Hanging(), []

    def unknown(one: Try) -> Transferred:
        seen.append((threading.current_thread().name.rpartition("-")[0], one.number, one.most_bytes))
        if one.most_bytes:
            raise TooLargeForLane("more than the lane takes")
        return WHOLE

    with running(slots_count=1) as runner:
        runner.add([ends.task("blocker", hanging, large=True)])
        wait_until(lambda: hanging.count, "the slot to be taken")
        runner.add([ends.task("file", unknown)])
        wait_until(lambda: seen, "the lane to try it")
        runner.cancel("blocker")
        assert ends.of("file") == WHOLE
    assert seen == [("transfer-small", 1, SMALL_BYTES), ("transfer-any", 1, 0)]


def test_cancel_ends_a_hanging_try_and_what_waits_behind_it() -> None:
    ends, hanging = Ends(), Hanging()
    with running(slots_count=1) as runner:
        runner.add([ends.task("mine", hanging, large=True)])
        wait_until(lambda: hanging.count, "the try to hang")
        told: list[LwrError | Transferred] = []
        runner.add([Task("mine", "", moved, lambda result, _tries: told.append(result), large=True)] * 3)
        runner.add([ends.task("theirs", moved, large=True)])
        runner.cancel("mine")
        assert [type(result) for result in told] == [Interrupted] * 3
        assert isinstance(ends.of("mine"), Interrupted)
        assert ends.of("theirs") == WHOLE
        runner.cancel("mine")
        runner.cancel("nobody")
    assert len(told) == 3


def test_stop_ends_hanging_tries_and_tells_nobody() -> None:
    ends, hanging = Ends(), Hanging()
    runner = Runner(2, 3)
    runner.start()
    runner.add([ends.task(f"file-{number}", hanging, large=True) for number in range(5)])
    wait_until(lambda: hanging.count == 2, "two tries to hang")
    runner.stop()
    runner.stop()
    runner.add([ends.task("late", moved)])
    assert not ends.told
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transfer-any")]


def test_a_runner_that_was_never_started_can_be_stopped() -> None:
    runner = Runner(2, 2)
    runner.add([Ends().task("file", moved)])
    runner.stop()


def test_a_defect_in_work_or_in_done_is_told_and_costs_no_thread() -> None:
    defects: list[Exception] = []
    ends = Ends()

    def broken(_one: Try) -> Transferred:
        raise ValueError("http://galaxy/?job_key=secret")

    def broken_end(_result: Transferred | LwrError, _tries: Tries) -> None:
        raise KeyError("the store")

    runner = Runner(1, 1, small_slots_count=0, on_defect=defects.append)
    runner.start()
    try:
        runner.add([ends.task("file", broken), Task("other", "", moved, broken_end), ends.task("last", moved)])
        error = ends.of("file")
        assert isinstance(error, ServerError)
        assert "ValueError" in str(error)
        assert "secret" not in str(error)
        assert ends.of("last") == WHOLE
    finally:
        runner.stop()
    assert [type(defect) for defect in defects] == [ValueError, KeyError]


def test_the_threads_are_named_and_their_number_is_constant() -> None:
    before = threading.active_count()
    ends = Ends()
    with running(slots_count=3) as runner:
        names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("transfer-"))
        assert names == ["transfer-any-0", "transfer-any-1", "transfer-any-2", "transfer-small-0", "transfer-small-1"]
        runner.add([ends.task(f"file-{number}", moved) for number in range(100)])
        wait_until(lambda: len(ends.told) == 100, "all to end")
        assert threading.active_count() == before + 5
