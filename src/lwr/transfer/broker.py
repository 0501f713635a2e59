"""Messages from and to a broker: a consumer and a publisher that outlive its restarts, and looks into a queue.

Delivery is at least once, both ways: who handles messages must be able to meet one again. Must not know jobs or what
messages say, and logs nothing: states are told to whoever made these.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from lwr.core.messages import Address
from lwr.errors import LwrError, PeerUnreachable
from lwr.transfer.brokerline import BLOCKED, Line
from lwr.transfer.brokerlink import Link
from lwr.transfer.brokerwords import BrokerOptions, Delivery, Letter, LinkState, PublishRetry, masked

__all__ = [
    "BrokerOptions", "Consumer", "Delivery", "Letter", "LinkState", "PublishRetry", "Publisher", "look", "masked",
    "peek", "take",
]  # fmt: skip

#: The longest wait for anything, so that a stop is noticed.
_LOOK_UP_S = 0.5
#: How long a line is taken to be good without a look at it, which costs some 1 ms.
_GLANCE_S = 0.2
#: Before a queue that was left out is tried again on the same line.
_AGAIN_S = 30.0


def _nobody() -> None:
    """Do nothing between deliveries."""


class Consumer:
    """Takes messages from queues, one after another, over one connection that is made again for ever.

    Args:
        addresses: declared on each new connection, then consumed. One that the broker refuses is left out, which
            `on_state` is told as the reason of a line that stands, and tried again after `again_s` and on the next
            line. If all are refused, the broker is taken to be away.
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
        again_s: float = _AGAIN_S,
    ) -> None:
        self._again_s = again_s
        self._addresses = addresses
        self._on_delivery = on_delivery
        self._on_turn = on_turn
        self._wait_s = min(options.consumer_timeout_s or _LOOK_UP_S, _LOOK_UP_S)
        self._link = Link(options, on_state)

    def run(self, stopping: threading.Event) -> None:
        """Consume until `stopping` is set; returns within about a second of that, whatever the broker does. What was
        handed out and not acknowledged is then the broker's again. May be called again."""
        self._link.stopping = stopping
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
        left_out = self._begin(line, self._addresses, waiting.append, deleted.append)
        if len(left_out) == len(self._addresses):
            raise next(iter(left_out.values()))
        self._link.stands(_sentence(left_out))
        again_at = time.monotonic() + self._again_s
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
            if left_out and time.monotonic() >= again_at:
                left_out = self._begin(line, list(left_out), waiting.append, deleted.append)
                self._link.tell(connected=True, reason=_sentence(left_out))
                again_at = time.monotonic() + self._again_s

    def _begin(
        self,
        line: Line,
        addresses: Sequence[Address],
        on_delivery: Callable[[Delivery], None],
        on_cancel: Callable[[str], None],
    ) -> dict[Address, LwrError]:
        """Consume them; returns those that the broker refuses, with why. Raises only what ended the line."""
        refused: dict[Address, LwrError] = {}
        for address in addresses:
            try:
                line.consume(address, on_delivery, on_cancel)
            except LwrError as error:
                if line.spent is not None:
                    raise
                refused[address] = error
        return refused

    def _wait(self, pause_s: float, stopping: threading.Event) -> None:
        until = time.monotonic() + pause_s
        while (left_s := until - time.monotonic()) > 0 and not stopping.wait(min(left_s, self._wait_s)):
            self._on_turn()


def _sentence(left_out: Mapping[Address, LwrError]) -> str:
    return " ".join(f"The queue {address.queue} is left out: {error}" for address, error in left_out.items())


class Publisher:
    """Publishes over one connection, which is made when it is needed. Not thread-safe.

    Args:
        on_state: called, in the thread that publishes or rests, when the line is up or broke, when the reason changes,
            and when the broker takes no messages because it is short of memory or disk, or confirms none.
        stopping: set by another thread, it ends within about a second what waits for the broker here, with
            PeerUnreachable. What a broker that answers does in that time is still done.
    """

    def __init__(
        self,
        options: BrokerOptions,
        *,
        on_state: Callable[[LinkState], None],
        stopping: threading.Event | None = None,
    ) -> None:
        self._link = Link(options, on_state, stopping)
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
        for at, error in enumerate(outcomes):
            # Declared again, if its queue was deleted; alone, if another one may be why the broker said no.
            if error is not None and self._line is not None and (error.transient or len(letters) > 1):
                outcomes[at] = self._publish([letters[at]])[0]
        return outcomes

    def _publish(self, letters: Sequence[Letter]) -> list[LwrError | None]:
        try:
            line = self._connected()
        except LwrError as error:
            return [error] * len(letters)
        outcomes = line.publish(letters)
        if None in outcomes or line.is_unconfirming:
            self._link.confirmed(None in outcomes, str(line.spent))
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
            if time.monotonic() >= until or self._link.is_stopping:
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
        except LwrError:
            if line.spent is not None:
                self._lost(line.spent)
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
    seen: list[Delivery] = []
    look(options, address, limit, lambda delivery: seen.append(replace(delivery)))
    return seen


def look(options: BrokerOptions, address: Address, limit: int, see: Callable[[Delivery], object]) -> None:
    """As `peek`, one after another: `see` is called with each message, whose body is forgotten afterwards."""
    with _held(options, address, limit) as deliveries:
        for delivery in deliveries:
            see(delivery)
            delivery.body = b""  # to give it back its tag is enough


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
    with closing(Link(options, lambda _state: None).make()) as line:
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
