"""A transfer that is tried, several times if need be: what it is, and what a failure of it means.

`judge` is the law of trying again, for what the server moves itself; it looks at nothing but its arguments. (What a
caller waits for is tried again by `lwr.transfer.retry`.) Knows no threads, no clock, and not what is moved.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from lwr.errors import BadTransfer, LwrError, PeerRefused, PeerUnreachable, Unavailable
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred

#: The pause before another try, in seconds: at first, at most. It doubles with each failure without progress.
FIRST_PAUSE_S, MOST_PAUSE_S = 0.5, 60.0
#: How often in a row bytes may come back short or changed, without one more than before: a machine that spoils them
#: every time is not waited for.
SPOILED_TRIES = 5
#: Status 500 may pass, but is also what Galaxy says of a file that is missing.
PATIENCE_WITH_500_S = 600.0
#: Answers that speak of the whole host, not of one file.
_HOST_STATUSES = frozenset({429, 502, 503, 504})

Failure = TypeVar("Failure", bound=LwrError)


@dataclass(slots=True)
class Try:
    """One try of a task: what its work is told, and what it may tell.

    Args:
        interrupt: set when the try is to end at once.
        number: from 1.
        most_bytes: 0 for no limit; the work raises `TooLargeForLane` when there turns out to be more.
        reached_bytes: told by the work before it fails: how far into the file it got. A try that got further than all
            before it made progress: failures are counted anew from it on.
        wasted_bytes: told by the work before it fails: moved in vain.
    """

    interrupt: Interrupt
    number: int
    most_bytes: int = 0
    reached_bytes: int = 0
    wasted_bytes: int = 0


@dataclass(slots=True)
class Tries:
    """What became of a task's tries so far. `began_s` is on the runner's clock: when the task was added. `reason`: of
    the last failure."""

    began_s: float
    count: int = 0
    wasted_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """A file to be moved.

    Args:
        owner: whose it is: what is cancelled together, and takes turns with other owners.
        host: the peer that it goes from or to; empty for this machine's disks.
        work: makes one try, in one of the runner's threads. Only what it raises decides whether there is another.
        done: told once how it ended, and not at all when the runner was stopped first.
        large: whether it is larger than what the lane for small files takes; None if that is not known.
    """

    owner: str
    host: str
    work: Callable[[Try], Transferred]
    done: Callable[[Transferred | LwrError, Tries], None]
    large: bool | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The failures of a task in a row, since it last made progress. `first_500_s`: when those began that were 500s."""

    failures: int = 0
    spoiled: int = 0
    first_500_s: float | None = None


def judge(
    history: History, error: LwrError, *, now_s: float, deadline_s: float, jitter: float = 1.0
) -> tuple[History, float | None]:
    """What a failure means: the history with it, and the pause in seconds before another try, None if there is none.

    Args:
        history: `History()` after progress.
        deadline_s: until then all that may pass is tried again; the last try is at the deadline.
        jitter: a factor for the pause, so that many tasks do not come back at once. What the peer asked to wait
            (Retry-After) is never shortened by it, only by the deadline.
    """
    first_500_s = None
    if isinstance(error, PeerRefused) and error.status == 500:
        first_500_s = now_s if history.first_500_s is None else history.first_500_s
        deadline_s = min(deadline_s, first_500_s + PATIENCE_WITH_500_S)
    history = History(history.failures + 1, history.spoiled + isinstance(error, BadTransfer), first_500_s)
    if not error.transient or now_s >= deadline_s or history.spoiled >= SPOILED_TRIES:
        return history, None
    return history, min(pause_after_s(history.failures, error, jitter), deadline_s - now_s)


def pause_after_s(failures: int, error: LwrError, jitter: float) -> float:
    asked_s = error.retry_after_s if isinstance(error, PeerRefused) else 0.0
    return max(asked_s, jitter * min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10)))


def speaks_of_host(error: LwrError) -> bool:
    if isinstance(error, PeerRefused):
        return error.transient and error.status in _HOST_STATUSES
    return isinstance(error, PeerUnreachable | Unavailable)


def given_up(error: Failure, tries: Tries, now_s: float) -> Failure:
    """The last error of a task, as its end: it says how long was tried."""
    times = {0: "No turn came to try it", 1: "It was tried once"}.get(tries.count, f"It was tried {tries.count} times")
    final = copy.copy(error)
    final.message = f"{error.message} {times} in {_duration(now_s - tries.began_s)}."
    final.args = (final.message,)
    return final


def _duration(seconds: float) -> str:
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = ((hours, "h"), (minutes, "min"), (rest_s, "s"))
    return " ".join(f"{number} {unit}" for number, unit in words if number) or "less than a second"
