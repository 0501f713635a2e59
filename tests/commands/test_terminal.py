"""Numbers, times and foreign text as people read them."""

from __future__ import annotations

import time

import pytest

from lwr.commands.terminal import duration, moment, plain, size

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("count_bytes", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (1_250_000, "1.2 MB"),
        (10**9, "1.0 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes(count_bytes: int, shown: str) -> None:
    assert size(count_bytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 ms"), (0.0042, "4 ms"), (3.21, "3.2 s"), (7, "7 s"), (125.9, "2 min 5 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("ago_s", "shown"), [(0, "0 s ago"), (-5, "0 s ago"), (89, "89 s ago"), (300, "5 min ago"), (7200, "2 h ago")]
)
def test_moments(ago_s: float, shown: str) -> None:
    assert moment(NOW - ago_s, NOW) == shown


def test_moments_long_ago_and_never() -> None:
    assert moment(NOW - 10 * 86400, NOW) == time.strftime("%Y-%m-%d %H:%M", time.localtime(NOW - 10 * 86400))
    assert moment(None, NOW) == "-"


def test_foreign_text_loses_what_could_drive_a_terminal() -> None:
    assert plain("a\x1b[2J\x07\nb\u202ec\x9b日本") == "a?[2J? b?c?日本"
