"""What is sent, made ready: rows of the mailbox become letters, in their order, each time with the same bytes.

An update's body is made when it is first sent: the last one of an attempt reads the job's directory. Too large a body
loses its listings; the files stay on the server. Must not know brokers; who sends is `lwr.server.amqp`.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from lwr.config.queue import QueueConfig
from lwr.core.job import TERMINAL, Job, JobState
from lwr.core.messages import DEAD, Address, Dialect, Kind, Route, acknowledged, address, update
from lwr.core.receipt import receipt_document
from lwr.core.wire import Results, finished_reply, unfinished_reply
from lwr.errors import LwrError, NotFound
from lwr.faults import fault
from lwr.server.mailbox import DEAD_KIND, Mailbox, Posted, Where
from lwr.server.view import View

log = structlog.get_logger("lwr")

#: What a body that is too large is left without, in this order.
_LISTINGS = (
    "job_directory_contents", "metadata_directory_contents", "working_directory_contents",
    "outputs_directory_contents", "realized_dynamic_file_sources", "job_stdout", "job_stderr", "stdout", "stderr",
    "receipt",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be sent next, and where."""

    posted: Posted
    to: Address
    body: bytes
    headers: Mapping[str, str]
    message_id: str

    @property
    def where(self) -> Where:
        """What shares its fate."""
        return Where(*self.posted.key, self.posted.route, self.posted.kind)


class Outbox:
    """One per server, used by the one thread that sends."""

    def __init__(
        self, mailbox: Mailbox, view: View, config: QueueConfig, clock: Callable[[], float] = time.time
    ) -> None:
        self._mailbox = mailbox
        self._view = view
        self._config = config
        self._clock = clock

    def next(self, blocked: Collection[Where] = ()) -> Ready | None:
        """What is first in the order, or first but for what is blocked."""
        posted = self._mailbox.first(self._clock(), blocked)
        if posted is None:
            return None
        if posted.body is None:
            posted = self._made(posted)
            fault("outbox.after_body")
        assert posted.body is not None
        return Ready(posted, self._to(posted), posted.body, posted.headers, posted.message_id)

    def sent(self, ready: Ready) -> None:
        """The broker has confirmed it."""
        fault("outbox.after_publish")
        if self._config.acknowledge and ready.posted.kind == Kind.STATUS_UPDATE and ready.message_id:
            self._mailbox.awaits_answer(ready.posted, self._clock(), self._config.republish_after_s)
        else:
            self._mailbox.sent(ready.posted)

    def shrink(self, ready: Ready) -> None:
        """The broker takes nothing so large: the body loses what is longest. May be called again."""
        if ready.posted.kind == Kind.STATUS_UPDATE:
            body = fitted(json.loads(ready.body), len(ready.body) // 2)
            self._mailbox.keep(ready.posted, body, ready.message_id, None)

    def pause_s(self, most_s: float) -> float:
        """How long nothing is to be sent, unless something new is posted."""
        now = self._clock()
        due = self._mailbox.next_due(now)
        return most_s if due is None else max(0.0, min(most_s, due - now))

    def _to(self, posted: Posted) -> Address:
        if posted.kind == DEAD_KIND:
            return DEAD
        route = Route.parse(posted.route)
        reply = route.reply if posted.kind == Kind.STATUS_UPDATE else ""
        return address(
            route.dialect, posted.key.manager, Kind(posted.kind), key_prefix=self._config.key_prefix, reply=reply
        )

    def _made(self, posted: Posted) -> Posted:
        job = self._view.numbered(posted.seq) if posted.seq is not None else None
        if job is None:  # its record went while this was read
            job = Job(0, posted.key, "", JobState.LOST, "", reason="The record of this job is gone.")
        route, state = Route.parse(posted.route), JobState(posted.state)
        last_word = None
        if state in TERMINAL:
            last_word = self._mailbox.last_word(job.seq, posted.route) or self._final(job, route)
            body = last_word
        else:
            body = _encoded(update(route.dialect, unfinished_reply(replace(job, state=state))))
        message_id = ""
        if self._config.acknowledge and route.dialect is Dialect.PULSAR:
            message_id = str(uuid.uuid4())
            body = _encoded(acknowledged(json.loads(body), message_id))
        self._mailbox.keep(posted, body, message_id, last_word)
        return replace(posted, body=body, message_id=message_id)

    def _final(self, job: Job, route: Route) -> bytes:
        try:
            # Where a job was that is cleaned or replaced, another one may be now.
            present = self._view.job(job.key)
            results = self._view.results(job) if present and present.attempt == job.attempt else Results()
        except LwrError:
            results = Results()  # its directory is gone: the state still holds
        try:
            properties = self._view.system_properties(job.key.manager)
        except NotFound:
            properties = {}  # the manager is not configured any more
        layout = self._view.layout(job)
        reply = update(route.dialect, finished_reply(job, layout, results, properties, classic=False))
        if route.reply:
            records = self._view.receipt(job)
            reply["receipt"] = receipt_document(job.key.job_id, job.key.manager, job.directory, job.state, records)
        return fitted(reply, self._config.maximum_bytes)


def fitted(reply: Mapping[str, Any], most_bytes: int) -> bytes:
    """The reply as a body of at most that size, if that can be: it loses what is longest and can be found elsewhere."""
    body = _encoded(reply)
    for name in _LISTINGS:
        if len(body) <= most_bytes:
            break
        if reply.get(name):
            kept = {key: value for key, value in reply.items() if key != name}
            # Readers count on these; nobody but us has heard of a receipt.
            empty = {} if name == "receipt" else {name: "" if isinstance(reply[name], str) else []}
            reply = kept | empty | {"left_out": [*reply.get("left_out", ()), name]}
            log.warning("left out of a message that would be too large", job=str(reply["job_id"]), part=name)
            body = _encoded(reply)
    return body


def _encoded(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
