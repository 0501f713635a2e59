"""One look at everything: what is a problem, and what is said of a broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lwr.server.amqp import QueueHealth
from lwr.server.condition import GRACE_S, Disk, Lookout
from lwr.transfer.broker import LinkState

NOW = 1000.0
BROKER = "amqp://lwr:***@broker/lwr"
CONNECTED = LinkState(True, NOW - 50, "")


def away(for_s: float) -> LinkState:
    return LinkState(False, NOW - for_s, "connection refused")


def health(consumer: LinkState | None, publisher: LinkState | None) -> QueueHealth:
    return QueueHealth(BROKER, consumer, publisher, 3, NOW - 20, {})


def lookout(
    queue: QueueHealth | None = None, problems: Callable[[], list[str]] = list, directories: tuple[str, ...] = ()
) -> Lookout:
    return Lookout({}, dict, problems, lambda: (1, 2), lambda: queue, directories, NOW - 60, clock=lambda: NOW)


@pytest.mark.parametrize(
    ("queue", "broker", "problems_count"),
    [
        (None, "", 0),
        (health(CONNECTED, CONNECTED), "connected", 0),
        (health(None, CONNECTED), "connected", 0),
        (health(CONNECTED, away(GRACE_S - 1)), "away", 0),
        (health(CONNECTED, away(GRACE_S + 1)), "away", 1),
        (replace(health(CONNECTED, away(0.1)), was_reached=False), "away", 1),  # its queues may not be there yet
        (health(away(60), away(70)), "away", 1),
        (health(away(60), LinkState(False, NOW - 60, "refused")), "away", 2),
    ],
)
def test_a_broker_is_a_problem_when_it_is_away_for_more_than_a_moment(
    queue: QueueHealth | None, broker: str, problems_count: int
) -> None:
    seen = lookout(queue).look()
    assert (seen.broker, len(seen.problems)) == (broker, problems_count)
    for problem in seen.problems:
        assert "refused" in problem
        assert BROKER in problem


def test_problems_of_others_are_told_too() -> None:
    assert len(lookout(health(away(60), CONNECTED), lambda: ["The disk is full."]).look().problems) == 2


def test_disks_that_are_not_there_have_no_numbers(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    here, other = lookout(directories=(str(tmp_path), gone)).look().disks
    assert other == Disk(gone)
    assert here.free_bytes is not None
    assert here.total_bytes is not None
    assert 0 <= here.free_bytes <= here.total_bytes


def test_who_sees_nothing_says_so() -> None:
    seen = lookout(health(CONNECTED, CONNECTED)).blind()
    assert (seen.jobs, seen.queue, seen.broker) == (None, None, "")
    assert "does not answer" in seen.problems[0]
