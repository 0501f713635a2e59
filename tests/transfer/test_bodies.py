"""A peer that sends next to nothing is given up, one that is only slow is not."""

from __future__ import annotations

import pytest

from lwr.errors import PeerUnreachable
from lwr.transfer.bodies import Pace


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_next_to_nothing_is_given_up_and_may_pass() -> None:
    clock = Clock()
    pace = Pace(clock)
    while clock.now_s + 59 < 1000 + Pace.WINDOW_S:
        clock.now_s += 59
        pace.note(1)
    clock.now_s += 59
    with pytest.raises(PeerUnreachable, match="Only 6 bytes came in 354 s"):
        pace.note(1)


def test_slow_is_not_nothing() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(1000):
        clock.now_s += 59
        pace.note(64 * 1024)
