"""What every job on a server goes through, whoever described it: set-up, waiting, its end, and what the server moved.

A `JobOnServer` has these steps and `live` calls them in their order; interrupted, it ends the job and removes it. How
the files of a job are found and named is its heirs' (`lwr.client.job`, `lwr.client.described`). Must not know
terminals, and nothing here retries: the `JobServer` does.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from lwr.client.carrier import Carrier
from lwr.client.events import GivingUp, OnEvent, Retrying, StateChanged
from lwr.client.places import RemotePlaces, local_places
from lwr.client.remote import RemoteServer
from lwr.client.status import RemoteStatus
from lwr.core.mapper import Mapper
from lwr.core.receipt import FileRecord, FileState, records_from_document
from lwr.core.staging import Mover, Step
from lwr.errors import BadRequest, LwrError, PeerError, PeerRefused, PeerUnreachable
from lwr.transfer.retry import growing

FIRST_POLL_S = 0.05
MOST_POLL_S = 1.0
_CANCEL_WAIT_S = 15.0
_TIDY_UP_S = 10.0


class JobServer(Protocol):
    """What a job needs of its server: `RemoteServer` over HTTP, `lwr.client.mq.QueueServer` over a message queue.

    Each method may raise PeerUnreachable or PeerRefused, when patience is over or trying again cannot help; each may be
    called again after that.
    """

    on_retry: Callable[[LwrError, float], None]

    @property
    def files(self) -> RemoteServer | None:
        """Who is asked to move the client's part of the files; None where only the server can move any."""

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
        """Have the job run; what is what: `RemoteServer.submit`. When this returns, it cannot be lost any more."""

    def status(self, job_id: str) -> RemoteStatus:
        """How a job stands, as far as it is known here. One that the server does not know is `lost`."""

    def cancel(self, job_id: str) -> None:
        """Wish a job's end; `status` tells when it is there. A job that is unknown or over: nothing happens."""

    def clean(self, job_id: str) -> None:
        """Have what is left of a job removed, if not by the server itself. One that is not there: nothing happens."""

    def receipt(self, job_id: str) -> dict[str, Any]:
        """What the server knows of each file of a finished job (lwr.core.receipt).

        Raises:
            PeerRefused (404): this server tells none.
        """

    def in_a_hurry(self, total_s: float) -> contextlib.AbstractContextManager[None]:
        """Within it each call is given up after `total_s`: for what is only tidying up."""


@dataclass(frozen=True, slots=True)
class Travel:
    """How the files of a job travel.

    Args:
        mapper: which action each path gets (`lwr.client.rules` reads one from a file); None: the client sends and
            fetches all.
        jobs_directory: the server's staging directory, if it is known here; places are computed then, and a job whose
            files the client does not send is set up with its submit.
        separator, properties: of the server, where places are computed.
        at_a_time: how many files are moved at once.
    """

    mapper: Mapper | None = None
    jobs_directory: str = ""
    separator: str = "/"
    properties: Mapping[str, str] = field(default_factory=dict)
    at_a_time: int = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended and what came back.

    Args:
        missing: declared outputs that the job did not write (not an error of LWR's).
        refused: names that the server told of and that would leave their directory here; not fetched.
        collected: places of the files that were fetched.
        records: what is known of each file that was moved, whoever moved it; the others are in `missing`.
        not_cleaned: why the job is still on the server although it should not be; mostly empty.
    """

    job_id: str
    status: RemoteStatus
    collected: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    records: tuple[FileRecord, ...] = ()
    not_cleaned: str = ""


class JobOnServer(ABC):
    """One job on one server. The steps are called in their order, each once; `cancel` and `clean` at any time.

    Args:
        job_id: random when empty. The server may give another one: `self.job_id` after the set-up.
        on_event: called by one thread at a time, which may be another one while files are moved; must be quick. What it
            raises ends the step.
    """

    def __init__(
        self,
        server: JobServer,
        job_id: str,
        travel: Travel | None,
        on_event: OnEvent,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.job_id = job_id or new_job_id()
        self._server, self._sleep = server, sleep
        self._travel = travel or Travel()
        self._carrier = Carrier(server.files, on_event, self._travel.at_a_time)
        self._places = RemotePlaces(self.job_id, "/", {})
        self._carried: dict[str, Any] | None = None  # the set-up that goes with the submit
        self._state = ""
        server.on_retry = lambda error, pause_s: self._carrier.tell(Retrying(error, pause_s))

    @abstractmethod
    def submit(self) -> None:
        """Have it run. When this returns, the server has it for good."""

    def wait(self, timeout_s: float | None = None) -> RemoteStatus:
        """Look until the job is over; the pause between two looks grows from 50 ms to a second.

        Raises:
            PeerUnreachable: it is not over after `timeout_s`.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for pause_s in growing(FIRST_POLL_S, MOST_POLL_S, 1.4):
            status = self._server.status(self.job_id)
            if status.state != self._state:
                self._state = status.state
                self._carrier.tell(StateChanged(self._state))
            if status.finished:
                return status
            if until is not None and time.monotonic() >= until:
                break
            self._sleep(pause_s)
        raise PeerUnreachable(f"Job {self.job_id} is not over after {timeout_s:g} seconds ({self._state}).")

    def cancel(self) -> None:
        """End the job, and wait a bounded while until it has ended. One that is over or unknown: nothing happens."""
        self._server.cancel(self.job_id)
        with contextlib.suppress(PeerUnreachable):
            self.wait(_CANCEL_WAIT_S)

    def clean(self) -> None:
        """Have the server remove the job and its files, and forget what was fetched in part. May be called twice."""
        self._carrier.abandon()
        self._server.clean(self.job_id)

    def _set_up(self, tool_id: str, tool_version: str) -> None:
        """Have the server make the job's directory, and learn where it is.

        Raises:
            PeerError: the server has its jobs elsewhere than in `jobs_directory`.
            BadRequest: nobody can be asked.
        """
        files = self._server.files
        if files is None:
            raise BadRequest(
                f"Where the files of job {self.job_id} will be is not known, and over a queue nobody is asked.",
                "Give jobs_directory (`--jobs-directory`): the server's staging_directory.",
            )
        told = files.setup(self.job_id, tool_id, tool_version)
        self.job_id, self._carried = told.job_id, None
        self._places = self._computed_places() if self._travel.jobs_directory else told
        _compare(told, self._places)

    def _set_up_with_submit(self, tool_id: str, tool_version: str) -> None:
        """Compute where the job's directory will be; the server is asked nothing yet. Needs `jobs_directory`."""
        self._places = self._computed_places()
        self._carried = {
            "job_id": self.job_id, "tool_id": tool_id, "tool_version": tool_version, "use_metadata": True,
        }  # fmt: skip

    def _computed_places(self) -> RemotePlaces:
        travel = self._travel
        return local_places(
            travel.jobs_directory, self.job_id, separator=travel.separator, properties=travel.properties
        )

    def _moved_by_server(self, steps: Iterable[Step]) -> list[FileRecord]:
        """What the server tells of its own part of `steps`, with `path` and `peer` as they are seen from here. Of an
        old one, which tells nothing: nothing."""
        paths = {(step.kind, step.name): step.action.path for step in steps if step.action.mover is Mover.SERVER}
        if not paths:
            return []
        try:
            told = records_from_document(self._server.receipt(self.job_id))
        except PeerRefused as error:
            if error.status not in (404, 405):
                raise
            return []
        return [
            replace(record, path=paths.get((record.kind, record.name), ""), peer=record.path)
            for record in told
            if record.mover == Mover.SERVER or (record.kind, record.name) in paths
        ]


def live(
    job: JobOnServer,
    server: JobServer,
    stage_in: Callable[[], object] | None,
    collect: Callable[[RemoteStatus], Outcome],
    on_event: OnEvent,
    *,
    keep: bool,
) -> Outcome:
    """All that is left of a job's life; without `stage_in` it was submitted before.

    Whatever interrupts it, Ctrl-C too, the job is cancelled and, unless `keep`, removed from the server; if that
    fails as well, the first error is the one that is raised. Only when the server cannot be reached any more, the job
    is left as it is.
    """
    goes_on = stage_in is None
    try:
        if stage_in is not None:
            stage_in()
            goes_on = True
            job.submit()
        status = job.wait()
        goes_on = False
        outcome = collect(status)
    except PeerUnreachable:
        raise
    except BaseException:
        with contextlib.suppress(LwrError), server.in_a_hurry(_TIDY_UP_S):
            if goes_on:
                on_event(GivingUp(job.job_id))
                job.cancel()
            if not keep:
                job.clean()
        raise
    try:
        with server.in_a_hurry(_TIDY_UP_S):
            if not keep:
                job.clean()
    except LwrError as error:
        return replace(outcome, not_cleaned=error.message)
    return outcome


def new_job_id() -> str:
    """An id that no other job has."""
    return f"run-{secrets.token_hex(6)}"


def is_new(server: JobServer, job_id: str) -> bool:
    """Whether a job was set up and never submitted. Over a queue both are one message.

    Raises:
        PeerRefused: the server does not know the job.
    """
    return server.files is not None and server.files.job(job_id).get("state") == "new"


def names_of(records: Iterable[FileRecord], state: FileState) -> tuple[str, ...]:
    """The names of results with which it stands so."""
    return tuple(record.name for record in records if record.state is state and not record.upward)


def _compare(told: RemotePlaces, computed: RemotePlaces) -> None:
    kind = "jobdir" if told.job_directory else "workdir"
    if told.directories[kind] != computed.directories[kind]:
        raise PeerError(
            f"Job {told.job_id} is in {told.directories[kind]} on the server, and jobs_directory says "
            f"{computed.directories[kind]}.",
            "Correct jobs_directory: it is the server's staging_directory.",
        )
