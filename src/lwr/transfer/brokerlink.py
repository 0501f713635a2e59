"""Lines to brokers, one after another: which broker is next, how long to wait for it, and what is told of that.

Must not know what goes over a line, and logs nothing.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait

from lwr.errors import LwrError, PeerUnreachable
from lwr.transfer.brokerclient import STOPPING
from lwr.transfer.brokerline import Line
from lwr.transfer.brokerwords import BrokerOptions, LinkState, Place
from lwr.transfer.retry import growing

#: The longest wait for a line in the making, so that a stop is noticed.
_LOOK_UP_S = 0.2
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
#: A line that stood so long was a good one: the next try comes soon.
_GOOD_AFTER_S = 5.0
#: So long after a message that was not confirmed a new line is not told to be good, unless it confirms one.
_DOUBT_S = 60.0


class Link:
    """Makes lines, one after another: which broker is next, how long to wait for it, and what is told of that."""

    def __init__(
        self, options: BrokerOptions, on_state: Callable[[LinkState], None], stopping: threading.Event | None = None
    ) -> None:
        self.stopping = stopping
        self._options = options
        self._on_state = on_state
        self._doubt, self._doubted_until = "", 0.0
        self._told = (False, "")
        self._turn = 0
        self._stood_since = 0.0
        self._pauses = _pauses()

    def make(self) -> Line:
        place = self._options.places[self._turn % len(self._options.places)]
        self._turn += 1
        return _made(self._options, place, self.stopping)

    def stands(self, reason: str = "") -> None:
        self._turn -= 1  # the same broker again, next time
        self._stood_since = time.monotonic()
        self.tell(connected=True, reason=reason)

    def confirmed(self, yes: bool, reason: str = "") -> None:
        """Whether the broker does what it is there for, or takes messages without saying that it has them."""
        self._doubt, self._doubted_until = ("", 0.0) if yes else (reason, time.monotonic() + _DOUBT_S)

    def broke(self, error: LwrError) -> float:
        """Tell of it; returns how long to wait before the next line, in seconds."""
        self.tell(connected=False, reason=str(error))
        if self._stood_since and time.monotonic() - self._stood_since > _GOOD_AFTER_S:
            self._pauses = _pauses()
        self._stood_since = 0.0
        return next(self._pauses)

    def tell(self, *, connected: bool, reason: str = "") -> None:
        if connected and time.monotonic() < self._doubted_until:
            connected, reason = False, self._doubt
        if self.is_stopping and not connected:
            return  # whoever stops it knows
        if self._told != (connected, reason):
            self._told = (connected, reason)
            self._on_state(LinkState(connected, time.time(), reason))

    @property
    def is_stopping(self) -> bool:
        return self.stopping is not None and self.stopping.is_set()


def _made(options: BrokerOptions, place: Place, stopping: threading.Event | None) -> Line:
    """A new line. Names and connections are waited for by the system, which knows no stop: a thread does it instead,
    and is left alone with it when it takes longer than that."""
    if stopping is None:
        return Line(options, place)
    future: Future[Line] = Future()

    def connect() -> None:
        try:
            future.set_result(Line(options, place, stopping))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=connect, name="queue-connecting", daemon=True).start()
    while not wait([future], _LOOK_UP_S).done:
        if stopping.is_set():
            future.add_done_callback(_close)
            raise PeerUnreachable(STOPPING)
    return future.result()


def _close(future: Future[Line]) -> None:
    if future.exception() is None:
        future.result().close()


def _pauses() -> Iterator[float]:
    """Not the same for all: a broker that comes back is not asked by everybody at once."""
    chance = random.SystemRandom()
    return (pause_s * chance.uniform(0.7, 1.0) for pause_s in growing(_FIRST_PAUSE_S, _MOST_PAUSE_S, 2.0))
