"""The other end of a manager's queues: takes what clients send, and tells what a test has it tell."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lwr.core.messages import Dialect, Kind, address
from lwr.transfer.broker import BrokerOptions, Consumer, Delivery, Letter, LinkState, Publisher
from tests.support import wait_until


class FarEnd:
    """Consumes `kinds` of the manager `_default_`; `taken` has the kind and the object of each message, in order."""

    def __init__(self, options: BrokerOptions, dialect: Dialect, kinds: tuple[Kind, ...]) -> None:
        self.taken: list[tuple[Kind, dict[str, Any]]] = []
        self._connected = False
        self._stopping = threading.Event()
        self._dialect = dialect
        self._kinds = {address(dialect, "_default_", kind): kind for kind in kinds}
        self._publisher = Publisher(options, on_state=lambda state: None)
        self._consumer = Consumer(options, list(self._kinds), self._take, on_state=self._note)
        self._thread = threading.Thread(target=self._consumer.run, args=(self._stopping,))

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._connected, "the far end to be connected")

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()
        self._publisher.close()

    def tell(self, update: object, reply: str = "", *, content_type: str = "application/json") -> None:
        """Publish an update: an object, or bytes as they are."""
        body = update if isinstance(update, bytes) else json.dumps(update).encode()
        to = address(self._dialect, "_default_", Kind.STATUS_UPDATE, reply=reply)
        self._publisher.publish(Letter(to, body, content_type))

    def of(self, kind: Kind) -> list[dict[str, Any]]:
        """What was taken of one kind."""
        return [value for taken, value in list(self.taken) if taken is kind]

    def _note(self, state: LinkState) -> None:
        self._connected = state.connected

    def _take(self, delivery: Delivery) -> None:
        self.taken.append((self._kinds[delivery.address], json.loads(delivery.body)))
        delivery.ack()


@contextmanager
def far_end(
    options: BrokerOptions, dialect: Dialect = Dialect.LWR, kinds: tuple[Kind, ...] = (Kind.SETUP, Kind.KILL)
) -> Iterator[FarEnd]:
    end = FarEnd(options, dialect, kinds)
    end.start()
    try:
        yield end
    finally:
        end.stop()
