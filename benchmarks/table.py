"""A row of the table: what was measured, what is asked for, and how it is shown. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

Figure = TypeVar("Figure")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and where to measure.

    Args:
        disk: a fresh directory on a real disk, for what syncs.
        memory: one on a file system in memory where there is one, so that large files measure the servers, not the
            disk.
        pairs_count: how often each pair of servers is measured; the median counts.
        load_s: how long wrk puts load on a server each time.
        large_bytes: size of "one large file".
        sparse_bytes: of the file during which memory is watched.
        queue_count: how many jobs are queued.
        inputs_count: how many small inputs one job has.
        cut_bytes: of the file whose line is cut again and again.
        cached_jobs_count, cached_bytes: how many jobs have the same input, and its size.
        mq_jobs_count: how many jobs are published at once.
        mq_single_count: how many are published one after the other, each when the one before is over.
        mq_waiting_count: how many set-ups wait in the broker.
    """

    disk: Path
    memory: Path
    pairs_count: int = 5
    load_s: int = 6
    large_bytes: int = 1 << 30
    sparse_bytes: int = 10 << 30
    queue_count: int = 10_000
    inputs_count: int = 1_000
    cut_bytes: int = 2 << 30
    cached_jobs_count: int = 100
    cached_bytes: int = 200 << 20
    mq_jobs_count: int = 200
    mq_single_count: int = 50
    mq_waiting_count: int = 5_000


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result. `enough` says whether the figure is what was asked for."""

    what: str
    measured: str
    figure: str
    asked: str
    enough: bool


Topic = Callable[[Plan], list[Row]]


def interleaved(measure: Sequence[Callable[[], Figure]], pairs_count: int) -> list[list[Figure]]:
    """Measure each in turn, again and again, so that what else the machine does hits all alike.

    Returns, for each callable, its figures by round. The order turns around from round to round.
    """
    rounds: list[list[Figure]] = [[] for _ in measure]
    for number in range(pairs_count):
        order = range(len(measure)) if number % 2 == 0 else range(len(measure) - 1, -1, -1)
        for which in order:
            rounds[which].append(measure[which]())
    return rounds


def ratio_row(what: str, unit: str, ours: list[float], theirs: list[float], name: str, least: float = 0) -> Row:
    """Ours against theirs, where more is better: the median of the rounds' ratios counts. `least` 0: for interest."""
    ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
    measured = f"{_short(median(ours))} {unit}, {name} {_short(median(theirs))}"
    asked = f"{least:g} times" if least else ""
    return Row(f"{what}, against {name}", measured, f"{ratio:.2f} times", asked, ratio >= least)


def most_row(what: str, unit: str, figure: float, most: float, measured: str = "") -> Row:
    """A figure that must not exceed a bound. `measured`: what it is made of, where that is more than the figure."""
    told = f"{_short(figure)} {unit}"
    return Row(what, measured or told, told, f"at most {most:g} {unit}", figure <= most)


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"


def markdown(rows: list[Row]) -> str:
    lines = ["| what | measured | figure | asked | |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        verdict = ("yes" if row.enough else "**no**") if row.asked else ""
        lines.append(f"| {row.what} | {row.measured} | {row.figure} | {row.asked} | {verdict} |")
    return "\n".join(lines)
