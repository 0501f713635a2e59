"""What a message means: decoded, made into calls of the engine, and its sender answered through the mailbox.

Whatever `take` returns from is on disk, so that the message can be acknowledged. The same message again changes nothing
(decision 4). What cannot be understood becomes a dead letter; a set-up that is refused is answered with `failed` and a
sentence. Must not know brokers.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from lwr.config.queue import QueueConfig
from lwr.core.job import ENDED_BY_OTHERS, Job, JobKey, JobState
from lwr.core.messages import (
    AckMessage,
    Dialect,
    KillMessage,
    Kind,
    Message,
    Receipted,
    Route,
    SetupMessage,
    StatusQuestion,
    address,
    glimpse,
    job_named,
    open_body,
    read_message,
    receipt_body,
    receipt_wanted,
    reply_named,
    update,
)
from lwr.core.wire import Results, finished_reply, unfinished_reply
from lwr.errors import BadRequest, LwrError, RequestError, TooLarge, Unavailable
from lwr.faults import fault
from lwr.server.engine import Engine
from lwr.server.mailbox import DEAD_KIND, Answer, Mailbox
from lwr.server.store import SILENT, Origin

log = structlog.get_logger("lwr")

#: So often a message may come back unhandled, before it is taken for one that ends the server.
MOST_RETURNS = 5
#: How much is kept of a message that is larger than any may be.
_CUT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """The queue that a message came from."""

    dialect: Dialect
    manager: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it came.

    Args:
        redelivered: the broker gave it to somebody before, who did not acknowledge it.
        message_id: the name that its sender gave it; empty for none. A second copy has the same.
    """

    source: Source
    body: bytes
    content_type: str
    redelivered: bool = False
    message_id: str = ""


class Inbox:
    """One per server, used by the one thread that consumes.

    Args:
        is_postponed: whether a set-up of that job was postponed and will be tried again.
        set_ups_come: whether more of them are on their way, so that an unknown job may be among them.
    """

    def __init__(
        self,
        engine: Engine,
        mailbox: Mailbox,
        config: QueueConfig,
        is_postponed: Callable[[JobKey], bool],
        clock: Callable[[], float] = time.time,
        *,
        set_ups_come: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._view = engine.view
        self._mailbox = mailbox
        self._config = config
        self._is_postponed = is_postponed
        self._set_ups_come = set_ups_come
        self._clock = clock

    def take(self, incoming: Incoming) -> str:
        """Do what a message says. May be called again with the same one.

        Returns what came of it: taken, repeated, answered or refused.

        Raises:
            LwrError: it could not be done now (`transient`); the message is to be kept and tried again.
        """
        digest = hashlib.sha256(incoming.body).digest() if incoming.redelivered else b""
        value: dict[str, Any] = {}
        wanted: Receipted | None = None
        try:
            self._check(incoming, digest)
            value = open_body(incoming.body, incoming.content_type)
            wanted = receipt_wanted(incoming.source.kind, value)
            message = read_message(incoming.source.kind, value)
        except RequestError as error:
            self._bury(incoming, str(error), value or glimpse(incoming.body))
            self._remember(incoming, wanted, value)
            return "refused"
        name = wanted.uuid if wanted else incoming.message_id
        heard = name != "" and self._mailbox.was_heard(name)
        try:
            result = self._obey(incoming, message, heard=heard)
        except LwrError as error:
            if error.transient:
                if digest:
                    self._mailbox.handled(digest)  # it ends no server; it waits
                raise
            log.warning("message refused", queue=self._queue(incoming.source), reason=str(error))
            self._answer_refused(incoming.source, value, str(error), message)
            result = "refused"
        fault("message.after_commit")
        self._remember(incoming, wanted, value)
        if digest:
            self._mailbox.handled(digest)
        return result

    def give_up(self, incoming: Incoming, reason: str) -> None:
        """A message could not be dealt with for too long: it becomes a dead letter, and a set-up is told as failed.

        Raises:
            LwrError: not even that can be done now.
        """
        self._bury(incoming, reason, glimpse(incoming.body))

    def job_of(self, incoming: Incoming) -> JobKey | None:
        """The job that a message seems to be about."""
        named = job_named(glimpse(incoming.body))
        return JobKey(incoming.source.manager, named) if named else None

    def _check(self, incoming: Incoming, digest: bytes) -> None:
        """Raises RequestError for a message that is too large, or that came back too often."""
        if len(incoming.body) > self._config.maximum_bytes:
            raise TooLarge(
                f"The message has {len(incoming.body)} bytes, and {self._config.maximum_bytes} are taken.",
                "Raise message_queue_maximum_bytes, or send files by transfer instead of in the message.",
            )
        times = self._mailbox.came_back(digest, self._clock()) if digest else 0
        if times > MOST_RETURNS:
            raise BadRequest(
                f"The message came back {times} times without having been handled: this server ended each time.",
                "Look into its log before you have the message replayed.",
            )

    def _obey(self, incoming: Incoming, message: Message, *, heard: bool) -> str:
        source = incoming.source
        match message:
            case SetupMessage():
                return self._set_up(source, message, is_old=heard or incoming.redelivered)
            case KillMessage(job_id):
                return "repeated" if heard else self._kill(JobKey(source.manager, job_id))
            case StatusQuestion(job_id, reply):
                key = JobKey(source.manager, job_id)
                # On the queue of set-ups it comes behind that of its job.
                if source.kind is Kind.STATUS and self._set_ups_come() and self._view.latest(key) is None:
                    raise Unavailable(f"Job {key} may come: set-ups are being taken.")
                self._tell(key, Route(source.dialect, reply))
                return "answered"
            case AckMessage(name):
                self._mailbox.answered(name)
                return "taken"

    def _set_up(self, source: Source, message: SetupMessage, *, is_old: bool) -> str:
        key, route = JobKey(source.manager, message.setup.job_id), Route(source.dialect, message.reply)
        self._view.entry(key.manager)
        repeated = self._engine.is_repeat(key, message.submission, is_old=is_old)
        killed = self._mailbox.was_killed(key, self._clock())
        if repeated:
            self._tell(key, route)
        else:
            origin = Origin(str(route) if self._config.publish else SILENT, killed)
            self._engine.submit(key, message.submission, message.setup, origin, patience_s=0)
        if killed:
            self._mailbox.forget_kill(key)
        return "repeated" if repeated else "taken"

    def _kill(self, key: JobKey) -> str:
        job = self._view.latest(key)
        if job is None or job.state is JobState.NEW or self._is_postponed(key):
            # It overtook the set-up, which comes by another queue; or that was taken in half, and comes again.
            self._mailbox.kill_early(key, self._clock())
        if job is None or job.state is JobState.NEW or job.terminal:
            return "repeated"
        self._engine.cancel(key)
        return "taken"

    # -- answers -------------------------------------------------------------------------------------------------

    def _tell(self, key: JobKey, route: Route) -> None:
        """Have the present state of a job told on a route. One that waits to be taken is being prepared."""
        if not self._config.publish:
            return
        job = self._view.latest(key)
        if self._is_postponed(key):
            self._post(unfinished_reply(Job(0, key, "", JobState.NEW, "")), key, route)
        elif job is not None:
            self._mailbox.tell(job, str(route), self._clock())
        else:
            self._post_end(key, JobState.LOST, f"This server has no job {key.job_id}.", route)

    def _answer_refused(
        self, source: Source, value: Mapping[str, Any], reason: str, message: Message | None = None
    ) -> None:
        """Tell the sender of a refused set-up that its job failed; if it names one that lives or is complete, how that
        one stands."""
        job_id = job_named(value)
        if source.kind is not Kind.SETUP or value.get("request") == "status" or job_id is None:
            return
        key, route = JobKey(source.manager, job_id), Route(source.dialect, reply_named(value))
        present = self._view.latest(key)
        if present is None or (present.cleaned_at is not None and present.state in ENDED_BY_OTHERS):
            submission = message.submission if isinstance(message, SetupMessage) else None
            self._engine.refuse(key, reason, str(route) if self._config.publish else SILENT, submission)
        elif present.state in (*ENDED_BY_OTHERS, JobState.NEW) or present.cancel_requested:
            self._post_end(key, JobState.FAILED, reason, route)
        else:
            self._tell(key, route)

    def _post_end(self, key: JobKey, state: JobState, reason: str, route: Route) -> None:
        """Tell the end of a job of which there is no record."""
        layout = self._view.expected_layout(key)
        job = Job(0, key, "", state, layout.root, reason=reason)
        properties = self._view.system_properties(key.manager)
        self._post(finished_reply(job, layout, Results(), properties, classic=False), key, route)

    def _post(self, reply: Mapping[str, Any], key: JobKey, route: Route) -> None:
        if self._config.publish:
            body = json.dumps(update(route.dialect, reply)).encode()
            self._mailbox.post(key, str(route), Kind.STATUS_UPDATE, body, self._clock())

    def _remember(self, incoming: Incoming, wanted: Receipted | None, value: Mapping[str, Any]) -> None:
        """That a message was dealt with, under its name if it has one; its sender is told if it wants to be."""
        source = incoming.source
        if wanted is not None:
            key, route = JobKey(source.manager, job_named(value) or ""), str(Route(source.dialect))
            body = json.dumps(receipt_body(wanted.uuid)).encode()
            self._mailbox.hear(wanted.uuid, self._clock(), Answer(key, route, wanted.ack, body))
        elif incoming.message_id and source.kind is Kind.SETUP:
            self._mailbox.hear(incoming.message_id, self._clock())

    def _bury(self, incoming: Incoming, reason: str, value: Mapping[str, Any]) -> None:
        """Keep what cannot be understood, with the reason, for the admin (`lwr mq dead`)."""
        source, job_id = incoming.source, job_named(value) or ""
        log.warning("message is a dead letter now", queue=self._queue(source), reason=reason, job=job_id or None)
        cut = len(incoming.body) > self._config.maximum_bytes
        headers = {
            "lwr-reason": reason,
            "lwr-exchange": source.dialect.value,
            "lwr-queue": self._queue(source),
            "lwr-job": job_id,
            "lwr-at": datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds"),
            "lwr-content-type": incoming.content_type[:100],
        } | ({"lwr-cut": "1"} if cut else {})
        self._mailbox.post(
            JobKey(source.manager, job_id),
            str(Route(source.dialect)),
            DEAD_KIND,
            incoming.body[:_CUT_BYTES] if cut else incoming.body,
            self._clock(),
            headers=headers,
            message_id=str(uuid.uuid4()),
        )
        self._answer_refused(source, value, reason)

    def _queue(self, source: Source) -> str:
        return address(source.dialect, source.manager, source.kind, key_prefix=self._config.key_prefix).queue
