"""A server behind a message broker, as its jobs see it: they go there as messages, and updates come back.

Facts: LWR over AMQP, section 4; Pulsar's differences, section 4. Files do not go this way: the server fetches and
delivers them, or small texts are in the message. What is heard comes from `lwr.client.updates`.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from lwr.client.status import RemoteStatus, read_status
from lwr.client.updates import OnUpdate, StatusListener
from lwr.core.job import DEFAULT_MANAGER, check_job_id
from lwr.core.messages import Dialect, Kind
from lwr.errors import LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.broker import BrokerOptions, PublishRetry
from lwr.transfer.retry import Patience

#: States after which no other comes. A message's `complete` does not tell: LWR's says "false" for `failed`.
FINAL_STATES = frozenset({"complete", "failed", "cancelled", "lost"})
#: A job that another process submitted is asked for after so long, if nothing that waited for it was heard: an answer
#: that comes when all is told would make a queue of its own anew.
FIRST_LOOK_S = 1.0
#: A job that was heard of and then not any more is asked for, after pauses from the one to the other.
FIRST_QUESTION_S = 30.0
MOST_QUESTION_S = 3600.0


@dataclass(slots=True)
class _Heard:
    """What is known of a job.

    Args:
        update: the newest; empty before the first.
        ask_at: when to ask for the job, on the monotonic clock; None: not before something was heard of it.
        pause_s: how long to wait after that question.
    """

    update: dict[str, Any]
    ask_at: float | None
    pause_s: float = FIRST_QUESTION_S

    @property
    def over(self) -> bool:
        return self.update.get("status") in FINAL_STATES


class QueueServer:
    """A server behind a broker, as its jobs see it (a `JobServer`). Thread-safe, but for `in_a_hurry`; close it, or use
    `with`.

    Its `submit` and `cancel` return when the broker has the message on disk, whether or not a server is there. Places
    are computed here, so a job needs `Travel(jobs_directory=...)`, and its files are moved by the server.

    Args:
        reply: see `StatusListener`. Who has one asks our own servers only, hears of its own jobs only, and removes the
            queue on `close` when they are over; a later process that uses the same name goes on with them. Empty takes
            the updates of all jobs of the manager, and drops those that neither `on_update` nor a job here wants.
        on_update: given each update, as `StatusListener` gives it.
        patience: bounds what `options.retry` says for publishing, and how long a broker may be away while a job is
            waited for.
        on_retry: told of each failure that is followed by another try, with the pause before it in seconds.
    """

    def __init__(
        self,
        options: BrokerOptions,
        *,
        manager: str = DEFAULT_MANAGER,
        dialect: Dialect = Dialect.LWR,
        key_prefix: str = "",
        reply: str = "",
        on_update: OnUpdate | None = None,
        patience: Patience | None = None,
        on_retry: Callable[[LwrError, float], None] | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self.on_retry = on_retry or (lambda error, pause_s: None)
        self._on_update, self._dialect = on_update, dialect
        self._retry, self._retry_s = options.retry, _total_s(options.retry)
        self._mutex = threading.Lock()
        self._jobs: dict[str, _Heard] = {}
        self._told_away = False
        self._listener = StatusListener(
            options, self._hear, manager=manager, dialect=dialect, key_prefix=key_prefix, reply=reply
        )
        self._listening = False

    @property
    def files(self) -> None:
        """Nobody: over a queue the client moves no files."""
        return None

    def __enter__(self) -> QueueServer:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def listen(self) -> None:
        """Begin to hear. May be called twice."""
        with self._mutex:
            begin, self._listening = not self._listening, True
        if begin:
            self._listener.start()

    def close(self) -> None:
        """Close the connections, and remove a queue of its own if nothing is to come on it. May be called twice."""
        with self._mutex:
            through = bool(self._jobs) and all(job.over for job in self._jobs.values())
            self._jobs.clear()
        if through:
            with contextlib.suppress(LwrError):
                self._listener.forget_reply()
        self._listener.stop()

    @contextlib.contextmanager
    def in_a_hurry(self, total_s: float) -> Iterator[None]:
        """Within it each call is given up after `total_s`: for what is only tidying up."""
        patience = self.patience
        self.patience = replace(patience, total_s=min(total_s, patience.total_s))
        try:
            yield
        finally:
            self.patience = patience

    def greet(self) -> None:
        """Make sure that the broker answers and lets us in. Whether a server is behind it, nobody knows; tried once.

        Raises:
            PeerUnreachable, PeerRefused, ConfigError: with the reason.
        """
        self._listener.greet()
        self.listen()

    def submit(
        self,
        job_id: str,
        command_line: str,
        *,
        env: Sequence[Mapping[str, str]] = (),
        params: Mapping[str, str] | None = None,
        remote_staging: Mapping[str, Any] | None = None,
        setup: Mapping[str, Any] | None = None,
        dependencies: Mapping[str, Any] | None = None,
        touch_outputs: Sequence[str] = (),
        dynamic_sources: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Have the job run; what is what: `RemoteServer.submit`. When this returns, the broker has it on disk.

        Raises:
            BadName: no job can have that id. TooLarge: its description does not fit into a message.
        """
        parts: dict[str, Any] = {
            "submit_params": params,
            "dependencies_description": dependencies,
            "env": list(env),
            "touch_outputs": list(touch_outputs),
            "dynamic_file_sources": [{"path": path, "type": kind} for path, kind in dynamic_sources],
            "status_reply": self._listener.reply,
        }
        message = {
            "job_id": check_job_id(job_id),
            "command_line": command_line,
            "setup_params": {"tool_id": "", "tool_version": "", **(setup or {}), "job_id": job_id},
            "remote_staging": remote_staging or {},
        } | {key: value for key, value in parts.items() if value}
        with self._mutex:
            self._jobs[job_id] = _Heard({}, None)
        self.listen()
        self._post(Kind.SETUP, message)

    def status(self, job_id: str) -> RemoteStatus:
        """The newest that is known of a job; `preprocessing` before the first update.

        The server is asked for a job that was not submitted here, and for one that was heard of and then is silent for
        long; the answer is an update as well. A job that only lies in the broker is not asked for: the server could
        answer that it does not know it yet.

        Raises:
            PeerUnreachable: nothing can be heard for longer than `patience` allows.
        """
        self.listen()
        with self._mutex:
            job = self._jobs.setdefault(job_id, _Heard({}, time.monotonic() + FIRST_LOOK_S))
            due = not job.over and job.ask_at is not None and time.monotonic() >= job.ask_at
            ask = due and self._listener.away_s == 0
            if ask:
                job.ask_at = time.monotonic() + job.pause_s
                job.pause_s = min(job.pause_s * 2, MOST_QUESTION_S)
        if ask:
            self._ask(job_id)
        update = job.update  # once: the next may come while this one is read
        finished = update.get("status") in FINAL_STATES
        if not finished:
            self._check_link()
        return read_status(job_id, {"status": "preprocessing", **update}, finished=finished)

    def cancel(self, job_id: str) -> None:
        """Wish a job's end; `status` tells when it is there. A job that is unknown or over: nothing happens."""
        self._post(Kind.KILL, {"job_id": job_id})

    def clean(self, job_id: str) -> None:
        """Nothing: there is no such message, servers remove by themselves what is delivered and old."""

    def receipt(self, job_id: str) -> dict[str, Any]:
        """What the server told of each file with the last update (lwr.core.receipt).

        Raises:
            PeerRefused (404): it told nothing, as other servers than ours.
        """
        with self._mutex:
            job = self._jobs.get(job_id)
            told = job.update.get("receipt") if job is not None else None
        if not isinstance(told, dict):
            raise PeerRefused(f"Nothing is told of the files of job {job_id}.", status=404)
        return told

    def _post(self, kind: Kind, message: Mapping[str, Any]) -> None:
        retry, patience = self._retry, self.patience
        bounded = replace(
            patience,
            total_s=min(patience.total_s, self._retry_s),
            first_s=retry.interval_start_s,
            most_s=retry.interval_max_s,
        )
        name = str(uuid.uuid4())
        bounded.run(lambda: self._listener.post(kind, message, name), self.on_retry)

    def _ask(self, job_id: str) -> None:
        question = {"request": "status", "job_id": job_id}
        if self._listener.reply:
            question["status_reply"] = self._listener.reply
        # Our servers take questions from the set-ups' queue too, where none overtakes the set-up of its job.
        with contextlib.suppress(PeerUnreachable):  # then it is asked another time
            self._listener.post(Kind.SETUP if self._dialect is Dialect.LWR else Kind.STATUS, question)

    def _check_link(self) -> None:
        away_s, reason = self._listener.away_s, self._listener.reason
        if not reason:
            self._told_away = False
            return
        error = PeerUnreachable(reason)
        if away_s > self.patience.total_s:
            raise error
        if not self._told_away:
            self._told_away = True
            self.on_retry(error, 0.0)

    def _hear(self, update: dict[str, Any]) -> None:
        if self._on_update is not None:
            self._on_update(update)
        with self._mutex:
            job = self._jobs.get(update["job_id"])
            if job is None or (job.over and update["status"] not in FINAL_STATES):
                return  # nobody's here; or an old one, come once more
            job.update = update
            job.ask_at, job.pause_s = time.monotonic() + FIRST_QUESTION_S, FIRST_QUESTION_S


def reply_name(job_id: str) -> str:
    """The `reply` of a client that is there for one job; the same for each process that goes on with it."""
    if re.fullmatch("[A-Za-z0-9_-]{1,80}", job_id):
        return job_id
    return hashlib.sha256(job_id.encode()).hexdigest()


def _total_s(retry: PublishRetry) -> float:
    """How long all retries take."""
    if retry.max_retries is None:
        return math.inf
    pauses = (retry.interval_start_s + retry.interval_step_s * number for number in range(retry.max_retries))
    return sum(min(pause_s, retry.interval_max_s) for pause_s in pauses)
