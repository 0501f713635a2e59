"""Trying again, from the outside: wraps a call that may fail, and knows nothing of what it does.

Only the error says whether another try can help (`LwrError.transient`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from lwr.errors import BadTransfer, LwrError

Result = TypeVar("Result")


def growing(first_s: float, most_s: float, factor: float) -> Iterator[float]:
    """Pauses in seconds: `first_s`, each `factor` times the one before, never more than `most_s`; without end."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(most_s, pause_s * factor)


def _nobody(_error: LwrError, _pause_s: float) -> None:
    """Tell nobody of a retry."""


def _all_or_nothing() -> int:
    """How far a call gets that is either done or has done nothing."""
    return 0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try again.

    Args:
        total_s: counted from the first try of each call; 0 means one try.
        tries_of_spoiled: how often bytes may come back short or changed (`BadTransfer`) before it is an error: a
            machine that spoils them every time is not waited for.
        first_s, most_s: the pause grows from the one to the other.
        clock, sleep: for tests; seconds.
    """

    total_s: float = 600.0
    tries_of_spoiled: int = 5
    first_s: float = 0.1
    most_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def run(
        self,
        call: Callable[[], Result],
        on_retry: Callable[[LwrError, float], None] = _nobody,
        reached_bytes: Callable[[], int] = _all_or_nothing,
    ) -> Result:
        """Call until it succeeds, and return what it returned.

        `on_retry` is told of each failure that is followed by another try, with the pause before it. For a call that
        goes on where it was cut, `reached_bytes` says how far it got: patience begins anew whenever that is further
        than before, so that many cuts cost many short pauses and no long ones.

        Raises:
            LwrError: the last one: it was not transient, or patience is over. Other exceptions pass at once.
        """
        best_bytes, spoiled = reached_bytes(), 0
        until, pauses = self._anew()
        while True:
            try:
                return call()
            except LwrError as error:
                if reached_bytes() > best_bytes:
                    best_bytes, spoiled = reached_bytes(), 0
                    until, pauses = self._anew()
                spoiled += isinstance(error, BadTransfer)
                left_s = until - self.clock()
                if not error.transient or left_s <= 0 or spoiled >= self.tries_of_spoiled:
                    raise
                pause_s = min(next(pauses), left_s)
                on_retry(error, pause_s)
            self.sleep(pause_s)

    def _anew(self) -> tuple[float, Iterator[float]]:
        """Until when to try, on the clock, and the pauses."""
        return self.clock() + self.total_s, growing(self.first_s, self.most_s, 2.0)
