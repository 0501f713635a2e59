"""Somebody at the other end of a message queue, for tests: publishes what it is told to, and keeps all that it hears.

kombu and nothing of LWR, so that names, flags and bodies are those that a test says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue


@dataclass(frozen=True)
class Heard:
    """A message as it came."""

    queue: str
    body: bytes

    @property
    def value(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.body)
        return content


class QueuePeer:
    """A context manager, with a connection to publish and one to consume `queues` of an exchange; declares these."""

    def __init__(self, url: str, exchange: str, queues: Collection[str]) -> None:
        self._url = url
        self._exchange = Exchange(exchange, "direct")
        self._queues = [Queue(name, self._exchange, routing_key=name) for name in queues]
        self._heard: list[Heard] = []
        self._stopping = threading.Event()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="queue peer")

    def __enter__(self) -> QueuePeer:
        self._thread.start()
        assert self._listens.wait(30), "the broker does not answer"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _listen(self) -> None:
        with (
            Connection(self._url) as connection,
            Consumer(connection, self._queues, on_message=self._hear),
        ):
            self._listens.set()
            while not self._stopping.is_set():
                try:
                    connection.drain_events(timeout=0.1)
                except TimeoutError:
                    continue

    def _hear(self, message: Any) -> None:
        body = message.body
        self._heard.append(
            Heard(message.delivery_info["routing_key"], body if isinstance(body, bytes) else body.encode())
        )
        message.ack()

    def publish(self, queue: str, *values: dict[str, Any]) -> None:
        """Send each as a message like those of Galaxy's; returns when the broker has them."""
        with Connection(self._url, transport_options={"confirm_publish": True}) as connection:
            producer = Producer(connection, self._exchange)
            for value in values:
                producer.publish(
                    json.dumps(value),
                    routing_key=queue,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,
                )

    def heard(self, queue: str) -> list[Heard]:
        """What came on a queue so far, in order."""
        return [message for message in list(self._heard) if message.queue == queue]

    def told(self, queue: str, job_id: str) -> list[Heard]:
        """Of these, what is about a job."""
        return [message for message in self.heard(queue) if message.value.get("job_id") == job_id]
