"""The server's side of the message queue: one thread that takes messages, one that sends, and how both are.

What messages mean is `lwr.server.inbox`'s, what is sent `lwr.server.outbox`'s, connections are `lwr.transfer.broker`'s.
A message is acknowledged when what it asked for is on disk. One that cannot be done now is kept unacknowledged and
tried again; of each queue the broker gives no more than `prefetch_count`, so that a server without room takes nothing.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from lwr.config.queue import QueueConfig
from lwr.core.job import DEFAULT_MANAGER, JobKey
from lwr.core.messages import CONSUMED, Address, Dialect, Kind, address
from lwr.errors import LwrError, PeerRefused, PeerUnreachable, StillEnding
from lwr.faults import fault
from lwr.server.engine import Engine
from lwr.server.inbox import Inbox, Incoming, Source
from lwr.server.mailbox import Mailbox, Where
from lwr.server.outbox import Outbox, Ready
from lwr.transfer.broker import Consumer, Delivery, Letter, LinkState, Publisher
from lwr.transfer.retry import growing

log = structlog.get_logger("lwr")

#: Before a message that could not be done is tried again, at first and at most.
_POSTPONED_S, _MOST_POSTPONED_S = 0.5, 5.0
#: So often LWR may fail at a message in a way that it does not understand.
_MOST_DEFECTS = 5
#: How long a set-up waits for the attempt that it replaces, before it is refused.
_LONGEST_ENDING_S = 600.0
#: Before what the broker refuses is sent again, at first and at most; what goes elsewhere is sent meanwhile.
_FIRST_REFUSED_S, _MOST_REFUSED_S = 1.0, 30.0
#: So often a line may break at one message, and so many jobs' messages may be refused, before others go first.
_MOST_BROKEN, _MOST_REFUSED = 3, 3
#: When no set-up has come for so long, none is on its way that was sent before.
_QUIET_S = 1.0
#: How long a question about an unknown job waits for that at most.
_LONGEST_QUESTION_S = 60.0
_NAME = re.compile(r"[ -~]{1,64}")
#: The longest rest of the sender: it looks after its connection then.
_REST_S = 1.0


@dataclass(frozen=True, slots=True)
class QueueHealth:
    """How a server stands with its broker.

    Args:
        broker: its URL, without secrets.
        consumer, publisher: None for a link that is not configured.
        waiting_count: what the broker has not confirmed.
        oldest_at: when the oldest of it was written, seconds since the epoch.
        was_reached: every link stood once, so that all queues are there.
        handled: how many messages since the start, by (dialect, kind, what came of them).
    """

    broker: str
    consumer: LinkState | None
    publisher: LinkState | None
    waiting_count: int
    oldest_at: float | None
    handled: Mapping[tuple[str, str, str], int]
    was_reached: bool = True


@dataclass(slots=True)
class _Postponed:
    """A message that could not be done yet. Times are monotonic."""

    delivery: Delivery
    incoming: Incoming
    since: float
    job: JobKey | None = None
    again_at: float = 0.0
    tries: int = 0
    defects: int = 0
    superseded: bool = False


class MessageQueue:
    """One per server that is bound to a broker. Every manager is, in both dialects."""

    def __init__(self, config: QueueConfig, engine: Engine, mailbox: Mailbox, managers: Iterable[str]) -> None:
        self._config = config
        self._mailbox = mailbox
        self._outbox = Outbox(mailbox, engine.view, config)
        self._inbox = Inbox(engine, mailbox, config, self._is_postponed, set_ups_come=self._set_ups_come)
        self._sources = self._bound(managers)
        self._links: dict[str, LinkState] = {}
        self._reached: set[str] = set()
        self._handled: Counter[tuple[str, str, str]] = Counter()
        self._postponed: list[_Postponed] = []
        self._refusals: dict[Where, _Refusal] = {}
        self._at, self._broken, self._stood = 0, 0, False  # the row at which lines broke, how many, whether one stood
        self._last_set_up = self._asked_since = 0.0  # monotonic; of the message that is dealt with
        self._stopping = threading.Event()
        self._wake = threading.Event()  # there is something to send
        self._back = threading.Event()  # the broker may be there again
        self._threads = [threading.Thread(target=self._send_all, name="queue-publisher", daemon=True)]
        if config.consume:
            self._threads.append(threading.Thread(target=self._consume, name="queue-consumer", daemon=True))
        engine.on_move = self._wake.set

    def start(self) -> None:
        """Begin; a broker that is not there is waited for, for ever."""
        at = time.time()
        self._links["publisher"] = LinkState(False, at, "not connected yet")
        if self._config.consume:
            self._links["consumer"] = LinkState(False, at, "not connected yet")
        log.info("message queue", broker=self._config.broker.shown, consume=self._config.consume,
                 publish=self._config.publish)  # fmt: skip
        if self._config.broker.insecure:
            log.warning("the broker's certificate is not verified", option="amqp_connect_ssl_cert_reqs")
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when both threads are gone. What was not sent waits for the next start. May be called twice."""
        self._stopping.set()
        self._wake.set()
        self._back.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def take(self, incoming: Incoming) -> str:
        """Take a message that came otherwise; see `Inbox.take`. For servers that do not consume."""
        result = self._inbox.take(incoming)
        self._wake.set()
        return result

    def health(self) -> QueueHealth:
        """How it stands now. Quick."""
        count, oldest_at = self._mailbox.waiting()
        return QueueHealth(
            broker=self._config.broker.shown,
            consumer=self._links.get("consumer"),
            publisher=self._links.get("publisher"),
            waiting_count=count,
            oldest_at=oldest_at,
            handled=dict(self._handled),
            was_reached=self._links.keys() == self._reached,
        )

    def _bound(self, managers: Iterable[str]) -> dict[Address, Source]:
        kinds = (*CONSUMED, Kind.STATUS_UPDATE_ACK) if self._config.acknowledge else CONSUMED
        bound: dict[Address, Source] = {}
        # `amqp_key_prefix` leaves no place for a manager's name: its queues are the default manager's, or the first's.
        for manager in sorted(managers, key=lambda name: name != DEFAULT_MANAGER):
            for source in (Source(dialect, manager, kind) for dialect in Dialect for kind in kinds):
                queue = address(source.dialect, manager, source.kind, key_prefix=self._config.key_prefix)
                if bound.setdefault(queue, source) is not source and source.kind is Kind.SETUP:
                    log.warning("amqp_key_prefix is for one manager", queue=queue.queue, manager=bound[queue].manager,
                                left_out=manager)  # fmt: skip
        return bound

    def _told(self, link: str, state: LinkState) -> None:
        before, self._links[link] = self._links.get(link), state
        if state.connected and state.reason:
            log.warning("connected to the broker, but not in all", link=link, reason=state.reason)
        elif state.connected:
            log.info("connected to the broker", link=link)
        if state.connected:
            self._reached.add(link)
            self._back.set()
            self._stood |= link == "publisher"
        elif before is None or before.connected or before.reason != state.reason:
            log.warning("the broker is away; trying again", link=link, reason=state.reason)

    # -- taking --------------------------------------------------------------------------------------------------

    def _consume(self) -> None:
        Consumer(
            self._config.broker,
            list(self._sources),
            self._arrived,
            on_state=self._consumer_told,
            on_turn=self._try_postponed,
        ).run(self._stopping)

    def _consumer_told(self, state: LinkState) -> None:
        if not state.connected:
            self._postponed.clear()  # what was not acknowledged on a connection that is gone comes again
        self._last_set_up = time.monotonic()  # they may wait in the broker
        self._told("consumer", state)

    def _arrived(self, delivery: Delivery) -> None:
        incoming = Incoming(
            self._sources[delivery.address],
            delivery.body,
            delivery.content_type,
            delivery.redelivered,
            delivery.message_id if _NAME.fullmatch(delivery.message_id) else "",
        )
        one = _Postponed(delivery, incoming, time.monotonic())
        if incoming.source.kind is Kind.SETUP:
            self._last_set_up = one.since
        if self._postponed and incoming.source.kind in (Kind.SETUP, Kind.KILL):
            one.job = self._inbox.job_of(incoming)
            if one.job is not None and self._is_postponed(one.job):
                self._supersede(one)
                self._postponed.append(one)  # behind what was said of its job before
                return
        self._handle(one)

    def _supersede(self, newer: _Postponed) -> None:
        """A set-up is the newest word: what waits of its job would only be undone by it, and would fill the window in
        which the broker hands out messages. Of several kills one is enough."""
        overtaken = {Kind.SETUP, Kind.KILL} if newer.incoming.source.kind is Kind.SETUP else {Kind.KILL}
        for one in self._postponed:
            source = one.incoming.source
            if one.job == newer.job and source.kind in overtaken and source.dialect is newer.incoming.source.dialect:
                one.delivery.ack()
                one.superseded = True
                self._handled[source.dialect.value, source.kind.value, "repeated"] += 1
        self._postponed = [one for one in self._postponed if not one.superseded]

    def _handle(self, one: _Postponed) -> None:
        """Never raises: the thread is for all messages."""
        source, result = one.incoming.source, "postponed"
        try:
            result = self._dealt_with(one)
        except LwrError as error:
            if not one.tries:
                log.warning("a message waits", queue=one.delivery.address.queue, reason=str(error))
        except Exception:
            log.exception("a message is tried again", queue=one.delivery.address.queue)
            one.defects += 1
        self._handled[source.dialect.value, source.kind.value, result] += 1
        if result == "postponed":
            one.again_at = time.monotonic() + min(_POSTPONED_S * 1.5 ** min(one.tries, 20), _MOST_POSTPONED_S)
            one.job = one.job or self._inbox.job_of(one.incoming)
            one.tries += 1
            self._postponed.append(one)
        else:
            fault("message.before_acknowledgement")
            one.delivery.ack()
            self._wake.set()

    def _dealt_with(self, one: _Postponed) -> str:
        """What came of it. Raises LwrError when it cannot be done now."""
        if one.defects >= _MOST_DEFECTS:
            self._inbox.give_up(one.incoming, "LWR failed at it again and again; the log says how.")
            return "refused"
        self._asked_since = one.since
        try:
            return self._inbox.take(one.incoming)
        except StillEnding as error:
            if time.monotonic() - one.since < _LONGEST_ENDING_S:
                raise
            self._inbox.give_up(one.incoming, str(error))
            return "refused"

    def _try_postponed(self) -> None:
        now = time.monotonic()
        if not any(one.again_at <= now for one in self._postponed):
            return
        waiting, self._postponed = self._postponed, []
        for one in waiting:
            # Of one job nothing is done before what was said earlier.
            if one.again_at > now or (one.job is not None and self._is_postponed(one.job)):
                self._postponed.append(one)
            else:
                self._handle(one)

    def _is_postponed(self, key: JobKey) -> bool:
        return any(one.job == key and one.incoming.source.kind is not Kind.STATUS for one in self._postponed)

    def _set_ups_come(self) -> bool:
        now = time.monotonic()
        return now - self._last_set_up < _QUIET_S and now - self._asked_since < _LONGEST_QUESTION_S

    # -- sending -------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        publisher = Publisher(
            self._config.broker, on_state=lambda state: self._told("publisher", state), stopping=self._stopping
        )
        pauses = _pauses()
        while not self._stopping.is_set():
            self._wake.clear()
            self._back.clear()
            ready = None
            try:
                ready = self._outbox.next(self._blocked_now())
                if ready is None:
                    self._rest(publisher)
                    continue
                publisher.publish(Letter(ready.to, ready.body, headers=ready.headers, message_id=ready.message_id))
                self._outbox.sent(ready)
                self._refusals.pop(ready.where, None)
                self._refusals.pop(ready.where.of_all(), None)
                pauses = _pauses()
                continue
            except LwrError as error:
                if self._not_sent(ready, error):
                    continue
            except Exception:
                log.exception("sending is tried again")
            self._back.wait(next(pauses))
        publisher.close()

    def _rest(self, publisher: Publisher) -> None:
        publisher.rest(0.0)
        self._wake.wait(self._outbox.pause_s(_REST_S))

    def _blocked_now(self) -> list[Where]:
        now = time.monotonic()
        return [where for where, refusal in self._refusals.items() if refusal.until > now]

    def _not_sent(self, ready: Ready | None, error: LwrError) -> bool:
        """What cannot be sent now makes way for the rest. Returns whether it does: not where there is no line."""
        if ready is None:  # the store does not answer
            log.warning("sending is tried again", reason=str(error))
            return False
        if isinstance(error, PeerUnreachable) and not self._links["publisher"].connected:
            # A line that broke may be this message's doing, if it breaks each time that one stands.
            stood, self._stood = self._stood, False
            self._broken = (self._broken + 1 if stood else self._broken) if self._at == ready.posted.number else 1
            self._at = ready.posted.number
            if self._broken < _MOST_BROKEN:
                return False
        log.error("a message is not taken", queue=ready.to.queue, job=str(ready.posted.key), reason=str(error))
        if isinstance(error, PeerRefused) and error.peer_code == "too-large":
            self._outbox.shrink(ready)
        self._broken = 0
        self._refuse(ready.where)
        others = [where for where in self._refusals if where.of_all() == ready.where.of_all() and where.job_id]
        if len(others) > _MOST_REFUSED:
            self._refuse(ready.where.of_all())
        return True

    def _refuse(self, where: Where) -> None:
        refusal = self._refusals.setdefault(where, _Refusal())
        refusal.until = time.monotonic() + next(refusal.pauses)


@dataclass(slots=True)
class _Refusal:
    """Until when (monotonic) something is not sent, and the pauses after that."""

    until: float = 0.0
    pauses: Iterator[float] = field(default_factory=lambda: growing(_FIRST_REFUSED_S, _MOST_REFUSED_S, 2.0))


def _pauses() -> Iterator[float]:
    return growing(0.5, 10.0, 2.0)
