"""Trying again: what is tried again, for how long, and with which pauses. No clock but the test's own."""

from __future__ import annotations

import pytest

from lwr.errors import BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.retry import Patience, growing


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


class Flaky:
    """Raises its errors one after the other, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def patience(clock: Clock, total_s: float = 60.0) -> Patience:
    return Patience(total_s=total_s, first_s=0.1, most_s=5.0, clock=clock, sleep=clock.sleep)


def test_what_may_pass_is_tried_again_with_growing_pauses() -> None:
    clock, call = Clock(), Flaky(*[PeerUnreachable("gone")] * 4)
    assert patience(clock).run(call) == "done"
    assert clock.slept == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_every_failure_that_is_tried_again_is_told() -> None:
    clock = Clock()
    first, second = PeerUnreachable("one"), PeerUnreachable("two")
    told: list[tuple[LwrError, float]] = []
    patience(clock).run(Flaky(first, second), lambda error, pause_s: told.append((error, pause_s)))
    assert [error for error, _ in told] == [first, second]
    assert [pause_s for _, pause_s in told] == clock.slept


@pytest.mark.parametrize("error", [PeerRefused("no"), ValueError("a defect")])
def test_what_cannot_pass_fails_after_one_try(error: Exception) -> None:
    call = Flaky(error)
    with pytest.raises(type(error)):
        patience(Clock()).run(call)
    assert call.calls == 1


def test_patience_ends() -> None:
    clock, call = Clock(), Flaky(*[PeerUnreachable("gone")] * 1000)
    with pytest.raises(PeerUnreachable):
        patience(clock, total_s=60.0).run(call)
    assert clock.now_s == pytest.approx(60.0)
    assert max(clock.slept) == 5.0


def test_no_patience_is_one_try() -> None:
    call = Flaky(PeerUnreachable("gone"))
    with pytest.raises(PeerUnreachable):
        patience(Clock(), total_s=0.0).run(call)
    assert call.calls == 1


def test_bytes_may_be_spoiled_five_times_and_no_more() -> None:
    call = Flaky(*[BadTransfer("short")] * 9)
    with pytest.raises(BadTransfer):
        patience(Clock(), total_s=1e9).run(call)
    assert call.calls == 5


def test_an_answer_that_may_pass_is_tried_again() -> None:
    call = Flaky(PeerRefused("busy", status=503, transient=True))
    assert patience(Clock()).run(call) == "done"


def test_growing_stops_growing() -> None:
    pauses = growing(1.0, 3.0, 2.0)
    assert [next(pauses) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]


def test_patience_begins_anew_with_whatever_gets_further() -> None:
    clock, call = Clock(), Flaky(*[BadTransfer("cut")] * 8)
    patience = Patience(tries_of_spoiled=4, first_s=0.1, clock=clock, sleep=clock.sleep)
    with pytest.raises(BadTransfer):
        patience.run(call, reached_bytes=lambda: min(call.calls, 3))
    assert clock.slept == pytest.approx([0.1, 0.1, 0.1, 0.2, 0.4])
