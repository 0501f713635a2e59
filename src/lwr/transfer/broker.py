"""Messages from and to a broker: a consumer and a publisher that outlive its restarts, and looks into a queue.

Delivery is at least once, both ways: who handles messages must be able to meet one again. Must not know jobs or what
messages say, and logs nothing: states are told to whoever made these.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from lwr.core.messages import Address
from lwr.errors import LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.brokerline import BLOCKED, Delivery, Line
from lwr.transfer.brokerwords import BrokerOptions, Letter, LinkState, PublishRetry, masked
from lwr.transfer.retry import growing

__all__ = [
    "BrokerOptions", "Consumer", "Delivery", "Letter", "LinkState", "PublishRetry", "Publisher", "masked", "peek",
    "take",
]  # fmt: skip

#: The longest wait for anything, so that a stop is noticed.
_LOOK_UP_S = 0.5
#: How long a line is taken to be good without a look at it, which costs some 1 ms.
_GLANCE_S = 0.2
_FIRST_PAUSE_S, _MOST_PAUSE_S = 0.5, 30.0
#: A line that stood so long was a good one: the next try comes soon.
_GOOD_AFTER_S = 5.0


def _nobody() -> None:
    """Do nothing between deliveries."""


class _Link:
    """Makes lines, one after another: which broker is next, how long to wait for it, and what is told of that."""

    def __init__(self, options: BrokerOptions, on_state: Callable[[LinkState], None]) -> None:
        self._options = options
        self._on_state = on_state
        self._told = (False, "")
        self._turn = 0
        self._stood_since = 0.0
        self._pauses = _pauses()

    def make(self) -> Line:
        place = self._options.places[self._turn % len(self._options.places)]
        self._turn += 1
        return Line(self._options, place)

    def stands(self) -> None:
        self._turn -= 1  # the same broker again, next time
        self._stood_since = time.monotonic()
        self.tell(connected=True)

    def broke(self, error: LwrError) -> float:
        """Tell of it; returns how long to wait before the next line, in seconds."""
        self.tell(connected=False, reason=str(error))
        if self._stood_since and time.monotonic() - self._stood_since > _GOOD_AFTER_S:
            self._pauses = _pauses()
        self._stood_since = 0.0
        return next(self._pauses)

    def tell(self, *, connected: bool, reason: str = "") -> None:
        if self._told != (connected, reason):
            self._told = (connected, reason)
            self._on_state(LinkState(connected, time.time(), reason))


def _pauses() -> Iterator[float]:
    """Not the same for all: a broker that comes back is not asked by everybody at once."""
    chance = random.SystemRandom()
    return (pause_s * chance.uniform(0.7, 1.0) for pause_s in growing(_FIRST_PAUSE_S, _MOST_PAUSE_S, 2.0))


class Consumer:
    """Takes messages from queues, one after another, over one connection that is made again for ever.

    Args:
        addresses: declared on each new connection, then consumed.
        on_delivery: called for each message, in the thread of `run`; it, or somebody in that thread later, calls `ack`
            or `give_back`. Must not raise: what it raises ends `run`.
        on_state: called in that thread when the line is up, when it broke and when the reason changes.
        on_turn: called in that thread after each delivery, and at least every `consumer_timeout_s`, with a line or
            without. Must not raise.
    """

    def __init__(
        self,
        options: BrokerOptions,
        addresses: Sequence[Address],
        on_delivery: Callable[[Delivery], None],
        *,
        on_state: Callable[[LinkState], None],
        on_turn: Callable[[], None] = _nobody,
    ) -> None:
        self._addresses = addresses
        self._on_delivery = on_delivery
        self._on_turn = on_turn
        self._wait_s = min(options.consumer_timeout_s or _LOOK_UP_S, _LOOK_UP_S)
        self._link = _Link(options, on_state)

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set; returns within about a second of that, or `connect_timeout_s` while it
        connects. What was handed out and not acknowledged is then the broker's again. May be called again."""
        while not stopping.is_set():
            try:
                with closing(self._link.make()) as line:
                    self._serve(line, stopping)
            except LwrError as error:
                self._wait(self._link.broke(error), stopping)

    def _serve(self, line: Line, stopping: threading.Event) -> None:
        # Handled outside of `drain`: what the handler raises is not the line's error, and heartbeats go on between.
        waiting: deque[Delivery] = deque()
        deleted: list[str] = []
        line.consume(self._addresses, waiting.append, deleted.append)
        self._link.stands()
        look_at = 0.0
        while not stopping.is_set():
            if not waiting or time.monotonic() >= look_at:
                line.drain(0 if waiting else self._wait_s)
                look_at = time.monotonic() + _GLANCE_S
            if deleted:
                raise PeerUnreachable(f"The queue {deleted[0]} was deleted; it is declared again.")
            if waiting:
                self._on_delivery(waiting.popleft())
            self._on_turn()

    def _wait(self, pause_s: float, stopping: threading.Event) -> None:
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0 and not stopping.wait(min(left_s, self._wait_s)):
            self._on_turn()


class Publisher:
    """Publishes over one connection, which is made when it is needed. Not thread-safe.

    Args:
        on_state: called, in the thread that publishes or rests, when the line is up or broke, when the reason changes,
            and when the broker takes no messages because it is short of memory or disk.
    """

    def __init__(self, options: BrokerOptions, *, on_state: Callable[[LinkState], None]) -> None:
        self._link = _Link(options, on_state)
        self._line: Line | None = None
        self._next_try_at = 0.0
        self._looked_at = 0.0

    def publish(self, letter: Letter) -> None:
        """Publish; when it returns, the broker has the message in its queue, on disk. One try.

        Raises:
            PeerUnreachable: no line, one that broke, or no confirm in time: it may or may not have the message.
            PeerRefused: the same message will be refused again until somebody does what the hint says.
            ConfigError: a file of TLS cannot be used.
        """
        if (error := self.publish_all([letter])[0]) is not None:
            raise error

    def publish_all(self, letters: Sequence[Letter]) -> list[LwrError | None]:
        """Publish several in this order, and wait once for all confirms.

        Returns for each None, or the error that `publish` would raise. Each stands alone: one before may have failed
        where one after it arrived. So letters of which the order matters must not be in the same call.
        """
        if not letters:
            return []
        outcomes = self._publish(letters)
        if len(letters) > 1 or self._line is not None:
            # Declared again, if its queue was deleted; alone, if another one may be why the broker ended the line.
            for at, error in enumerate(outcomes):
                if isinstance(error, PeerRefused) or (error is not None and self._line is not None):
                    outcomes[at] = self._publish([letters[at]])[0]
        return outcomes

    def _publish(self, letters: Sequence[Letter]) -> list[LwrError | None]:
        try:
            line = self._connected()
        except LwrError as error:
            return [error] * len(letters)
        outcomes = line.publish(letters)
        if line.spent is not None:
            self._lost(line.spent)
        else:
            self._tell(line)
        return outcomes

    def _connected(self) -> Line:
        """A line that was good a moment ago."""
        if self._line is not None and time.monotonic() - self._looked_at > _GLANCE_S:
            try:
                self._look(self._line, 0)
            except LwrError as error:
                self._lost(error)
        if self._line is None:
            try:
                self._line = self._link.make()
            except LwrError as error:
                self._lost(error)
                raise
            self._link.stands()
        if self._line.blocked:
            raise PeerUnreachable(BLOCKED)
        return self._line

    def rest(self, timeout_s: float) -> None:
        """Keep the line alive while there is nothing to publish, for so long; make a new one if it is gone."""
        until = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, min(until - time.monotonic(), _LOOK_UP_S))
            try:
                if self._line is not None:
                    self._look(self._line, left_s)
                elif time.monotonic() >= self._next_try_at:
                    self._connected()
                else:
                    threading.Event().wait(left_s)
            except LwrError as error:
                if self._line is not None and not self._line.blocked:
                    self._lost(error)
            if time.monotonic() >= until:
                return

    def _look(self, line: Line, timeout_s: float) -> None:
        line.drain(timeout_s)
        self._tell(line)

    def _tell(self, line: Line) -> None:
        self._looked_at = time.monotonic()
        self._link.tell(connected=not line.blocked, reason=BLOCKED if line.blocked else "")

    def _lost(self, error: LwrError) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None
        self._next_try_at = time.monotonic() + self._link.broke(error)

    def delete(self, address: Address) -> None:
        """Remove a queue and what is in it. One that is not there: nothing happens. Raises as `publish`. One try."""
        line = self._connected()
        try:
            line.delete(address)
        except LwrError as error:
            self._lost(error)
            raise

    def close(self) -> None:
        """Close the line. May be called twice; the next `publish` makes a new one."""
        if self._line is not None:
            self._line.close()
            self._line = None


def peek(options: BrokerOptions, address: Address, limit: int) -> list[Delivery]:
    """The first messages of a queue, at most `limit`; they stay in it, in their order, and count as redelivered later.

    Raises:
        PeerUnreachable, PeerRefused, ConfigError: see `Publisher.publish`.
    """
    with _held(options, address, limit) as deliveries:
        return list(deliveries)


def take(
    options: BrokerOptions,
    address: Address,
    wanted: Callable[[Delivery], bool],
    do: Callable[[Delivery], None],
    *,
    limit: int,
) -> int:
    """Call `do` with each of the first `limit` messages of a queue that is `wanted`; then it is taken out.

    The others stay, in their order. What `do` raises ends this and leaves that message where it is. A message may be
    taken and come again if the line breaks at that moment. Returns how many were taken.

    Raises:
        PeerUnreachable, PeerRefused, ConfigError: see `Publisher.publish`.
    """
    taken = 0
    with _held(options, address, limit) as deliveries:
        for delivery in deliveries:
            if wanted(delivery):
                do(delivery)
                delivery.ack()
                taken += 1
    return taken


@contextmanager
def _held(options: BrokerOptions, address: Address, limit: int) -> Iterator[Iterator[Delivery]]:
    """The first messages of a queue. What is not acknowledged at the end goes back; RabbitMQ puts it where it was."""
    seen: list[Delivery] = []
    with closing(_Link(options, lambda _state: None).make()) as line:
        waiting = line.declare(address)

        def deliveries() -> Iterator[Delivery]:
            while len(seen) < min(limit, waiting) and (delivery := line.get(address)) is not None:
                seen.append(delivery)
                yield delivery

        try:
            yield deliveries()
        finally:
            for delivery in seen:
                delivery.give_back()
