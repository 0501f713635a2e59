"""A client of the message queue that is as unlucky as can be: its lines break, it dies, it says things twice.

Speaks bare messages in both dialects, each with a name by which the server can know it again, over a URL that may lead
through a proxy. All that it hears is kept, in the order in which it came.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lwr.core.messages import Address, Dialect, Kind, address
from lwr.errors import LwrError
from lwr.transfer.broker import BrokerOptions, Consumer, Delivery, Letter, LinkState, Publisher

ENDS = frozenset({"complete", "failed", "cancelled", "lost"})
MANAGER = "_default_"
#: How many jobs it has under way at a time.
UNDER_WAY = 50


@dataclass(frozen=True)
class Heard:
    """An update as it came, and on which of the client's connections."""

    connection: int
    job_id: str
    status: str
    body: bytes
    redelivered: bool


@dataclass(frozen=True)
class Plan:
    """What the client does with one job: its set-up, and when to kill it, in seconds after that (None: never)."""

    dialect: Dialect
    setup: Mapping[str, Any]
    kill_after_s: float | None = None


class UnluckyPeer:
    """Publishes the jobs of `plan(0)`, `plan(1)`, ... until it is told to stop, and hears of them.

    Attributes:
        heard: all updates, in their order.
        acknowledged: the names of its messages of which it heard that they arrived.
        deaths: how often it died with messages that it had not acknowledged.
        said_again: messages that it published once more, unasked or because no confirm came.
        most_under_way: of how many jobs at a time it had heard that they run, and not yet that they ended.
    """

    def __init__(self, url: str, plan: Callable[[int], Plan], seed: int) -> None:
        self.heard: list[Heard] = []
        self.acknowledged: set[str] = set()
        self.names: set[str] = set()
        self.deaths = self.said_again = self.most_under_way = self.connections = self.published = 0
        self._options = BrokerOptions(url, heartbeat_s=2, connect_timeout_s=3, publish_timeout_s=3)
        self._plan = plan
        self._chance, self._ear_chance = random.Random(seed), random.Random(seed + 1)  # noqa: S311
        self._states: dict[str, str] = {}
        self._enough, self._over, self._life = threading.Event(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=work, name=work.__name__) for work in (self._speak, self._listen)]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> int:
        return sum(status in ENDS for status in list(self._states.values()))

    def wait_for_all(self, deadline_s: float) -> None:
        """Wait for the end of every job that was published."""
        numbers = {str(number) for number in range(self.published)}

        def left() -> list[str]:
            return sorted(numbers - {job_id for job_id, status in list(self._states.items()) if status in ENDS})

        end = time.monotonic() + deadline_s
        while unended := left():
            assert time.monotonic() < end, f"no end of {[(one, self._states.get(one)) for one in unended]}"
            self._over.wait(0.05)

    def die(self) -> None:
        """Lose the connection for updates, and what came over it and was not acknowledged; begin again."""
        self._life.set()

    def say_no_more(self) -> int:
        """Publish no more jobs; returns how many there are when the last has been confirmed."""
        self._enough.set()
        self._threads[0].join()
        return self.published

    def stop(self) -> None:
        """Return when no thread is left. May be called twice."""
        self._over.set()
        self.say_no_more()
        self._life.set()
        self._threads[1].join()

    # -- speaking ------------------------------------------------------------------------------------------------

    def _speak(self) -> None:
        publisher = Publisher(self._options, on_state=lambda _state: None)
        kills: list[tuple[float, int]] = []
        for number in itertools.count():
            while self.published - self.ended >= UNDER_WAY and not self._enough.is_set():
                self._kill_due(publisher, kills)
                self._enough.wait(0.02)
            if self._enough.is_set():
                break
            plan = self._plan(number)
            self._say(publisher, plan.dialect, Kind.SETUP, plan.setup)
            self.published += 1
            if plan.kill_after_s is not None:
                heapq.heappush(kills, (time.monotonic() + plan.kill_after_s, number))
            self._kill_due(publisher, kills)
        while kills and not self._over.is_set():
            self._kill_due(publisher, kills)
            self._over.wait(0.02)
        publisher.close()

    def _kill_due(self, publisher: Publisher, kills: list[tuple[float, int]]) -> None:
        while kills and kills[0][0] <= time.monotonic():
            _, number = heapq.heappop(kills)
            plan = self._plan(number)
            self._say(publisher, plan.dialect, Kind.KILL, {"job_id": plan.setup["job_id"]})

    def _say(self, publisher: Publisher, dialect: Dialect, kind: Kind, value: Mapping[str, Any]) -> None:
        """Until the broker has confirmed it; now and then twice."""
        name = str(uuid.uuid4())
        asked = {"acknowledge_uuid": name, "acknowledge_queue": f"{kind}_ack", "acknowledge_submit_queue": str(kind)}
        letter = Letter(address(dialect, MANAGER, kind), json.dumps({**value, **asked}).encode())
        self.names.add(name)
        times = 2 if self._chance.random() < 0.1 else 1
        self.said_again += times - 1
        while times and not self._over.is_set():
            try:
                publisher.publish(letter)
                times -= 1
            except LwrError:
                self.said_again += 1
                self._over.wait(0.1)

    # -- listening -----------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while not self._over.is_set():
            self._life = threading.Event()
            Consumer(self._options, list(_hearing()), self._arrived, on_state=self._line_is).run(self._life)

    def _line_is(self, state: LinkState) -> None:
        self.connections += state.connected

    def _arrived(self, delivery: Delivery) -> None:
        value = json.loads(delivery.body)
        if "acknowledge_uuid_response" in value:
            self.acknowledged.add(value["acknowledge_uuid_response"])
        else:
            job_id, status = value["job_id"], value["status"]
            self.heard.append(Heard(self.connections, job_id, status, delivery.body, delivery.redelivered))
            if self._states.get(job_id) not in ENDS:
                self._states[job_id] = status
            running = list(self._states.values()).count("running")
            self.most_under_way = max(self.most_under_way, running)
        if self._ear_chance.random() < 0.02 and not self._over.is_set():
            self.deaths += 1
            self._life.set()  # it dies between hearing and acknowledging
        else:
            delivery.ack()


def _hearing() -> Iterator[Address]:
    for dialect in Dialect:
        for kind in (Kind.STATUS_UPDATE, Kind.SETUP_ACK, Kind.KILL_ACK):
            yield address(dialect, MANAGER, kind)
