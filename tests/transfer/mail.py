"""Those who take and send messages in tests: a consumer in a thread, and what was told of lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType

from lwr.core.messages import Address
from lwr.transfer.broker import BrokerOptions, Consumer, Delivery, LinkState
from tests.support import DEADLINE_S, wait_until

HERE = Address("lwr", "lwr__setup")
THERE = Address("lwr", "lwr__kill")


class Reader:
    """A consumer in a thread of its own, which ends with the block; keeps all that came, and acknowledges it if told.

    Attributes:
        got: deliveries, in their order.
        states: what was told of the line.
        turns: how often it has looked around.
    """

    def __init__(
        self,
        options: BrokerOptions,
        addresses: Sequence[Address] = (HERE,),
        *,
        then: Callable[[Delivery], None] = Delivery.ack,
        again_s: float = 30.0,
    ) -> None:
        self.got: list[Delivery] = []
        self.states: list[LinkState] = []
        self.turns = 0
        self._then = then
        self._stopping = threading.Event()
        self._consumer = Consumer(
            options, addresses, self._take, on_state=self.states.append, on_turn=self._look_around, again_s=again_s
        )
        self._thread = threading.Thread(target=self._consumer.run, args=(self._stopping,), name="reader")

    def _take(self, delivery: Delivery) -> None:
        self.got.append(delivery)
        self._then(delivery)

    def _look_around(self) -> None:
        self.turns += 1

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.got]

    @property
    def connected(self) -> bool:
        return bool(self.states) and self.states[-1].connected

    def wait_for(self, count: int, *, deadline_s: float = DEADLINE_S) -> list[bytes]:
        wait_until(lambda: len(self.got) >= count, f"{count} messages; there are {len(self.got)}, {self.states}",
                   deadline_s=deadline_s)  # fmt: skip
        return self.bodies

    def wait_connected(self) -> None:
        wait_until(lambda: self.connected, "the line to stand")

    def wait_away(self) -> str:
        """Wait until the line broke, and return why."""
        wait_until(lambda: self.states and not self.connected, "the line to break")
        return self.states[-1].reason

    def stop(self, within_s: float) -> None:
        self._stopping.set()
        self._thread.join(within_s)
        assert not self._thread.is_alive(), f"it did not stop within {within_s} s"

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()


def nobody(_state: LinkState) -> None:
    """Not told of the line."""
