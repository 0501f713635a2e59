"""The whole life of a job, seen by whoever wants its results: set up, send, submit, wait, collect, clean.

`run_job` does all of it and `resume_job` the rest of it; `RemoteJob` has the steps one by one. What happens is told as
small events, so that the same life can be drawn as progress bars, log lines or nothing. Knows the plan and the server's
calls; must not know terminals, and nothing here retries: `RemoteServer` does.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lwr.client.carrier import Carrier
from lwr.client.collect import written
from lwr.client.events import GivingUp, OnEvent, Retrying, SetUp, StateChanged, Submitted, nobody
from lwr.client.places import RemotePlaces, local_places
from lwr.client.plan import JobRequest, LocalFile, command_line, plan
from lwr.client.remote import RemoteServer, RemoteStatus
from lwr.core.mapper import Mapper
from lwr.core.outputs import collect_declared
from lwr.core.receipt import FileRecord, FileState, records_from_document
from lwr.core.staging import Mover, StagingPlan, step_to_wire
from lwr.errors import BadRequest, LwrError, PeerError, PeerUnreachable
from lwr.transfer.retry import growing

#: Names in the job's metadata directory that the command's own streams go by, as Galaxy has them.
STREAMS = ("tool_stdout", "tool_stderr")
FIRST_POLL_S = 0.05
MOST_POLL_S = 1.0
_CANCEL_WAIT_S = 15.0
_TIDY_UP_S = 10.0


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


class RemoteJob:
    """One job on one server. The steps are called in their order, each once; `cancel` and `clean` at any time.

    Args:
        job_id: random when empty. The server may give another one: `self.job_id` after `stage_in`.
        on_event: called by one thread at a time, which may be another one while files are moved; must be quick. What it
            raises ends the step.
    """

    def __init__(
        self,
        server: RemoteServer,
        request: JobRequest,
        *,
        job_id: str = "",
        travel: Travel | None = None,
        on_event: OnEvent = nobody,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.job_id = job_id or f"run-{secrets.token_hex(6)}"
        self._server, self._sleep = server, sleep
        self._travel = travel or Travel()
        self._request = replace(request, files=tuple(_with_members(file) for file in request.files))
        self._plan = plan(self._request, self._travel.mapper, self._travel.separator)
        self._carrier = Carrier(server, on_event, self._travel.at_a_time)
        self._places = RemotePlaces(self.job_id, "/", {})
        self._state = ""
        self._set_up_with_submit = False
        server.on_retry = lambda error, pause_s: self._carrier.tell(Retrying(error, pause_s))

    def stage_in(self, *, again: bool = False) -> None:
        """Set the job up and send the client's part of its files.

        Args:
            again: an earlier process did so and was interrupted: what arrived whole is not sent again.

        Raises:
            PeerError: the server has its jobs elsewhere than in `jobs_directory`.
        """
        steps = list(self._plan.staging.inputs_moved_by(Mover.CLIENT))
        self._set_up_with_submit = bool(self._travel.jobs_directory) and not steps
        if not self._set_up_with_submit:
            self._places = self._server.setup(self.job_id, self._request.tool_id, self._request.tool_version)
            self.job_id = self._places.job_id
        if self._travel.jobs_directory:
            told, self._places = self._places, self._computed_places()
            if not self._set_up_with_submit:
                _compare(told, self._places)
        self._carrier.tell(SetUp(self.job_id, self._places.directories["workdir"]))
        self._carrier.send(steps, self._places, again=again)

    def submit(self) -> None:
        """Have it run. Its streams go to files of their own where the server keeps such, so that none is cut."""
        text = command_line(self._request.command, self._plan.words, self._places)
        if "metadata" in self._places.directories and self._places.separator == "/":
            text = f"{{ {text}\n}} > ../metadata/{STREAMS[0]} 2> ../metadata/{STREAMS[1]}"
        self._server.submit(
            self.job_id,
            text,
            env=[{"name": name, "value": value} for name, value in self._request.env],
            params=self._request.params,
            remote_staging=server_part(self._plan.staging),
            setup=self._setup_parameters() if self._set_up_with_submit else None,
        )
        self._carrier.tell(Submitted(text))

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

    def collect(self, status: RemoteStatus) -> Outcome:
        """Fetch the results of a job that ended by itself; of any other nothing is fetched."""
        if status.state != "complete":
            return Outcome(self.job_id, status)
        found = collect_declared(list(self._plan.staging.outputs_moved_by(Mover.CLIENT)), written(status))
        self._carrier.fetch(self.job_id, found.found)
        for stream in STREAMS:
            if self._request.streams_dir is not None and stream in status.metadata:
                self._server.download(self.job_id, "output_metadata", stream, self._request.streams_dir / stream)
        others = self._moved_by_server()
        missing = (*(step.name for step in found.missing), *_names(others, FileState.NOT_WRITTEN))
        refused = (*found.refused, *_names(others, FileState.REFUSED))
        targets = tuple(Path(step.action.path) for step in found.found)
        return Outcome(self.job_id, status, targets, missing, refused, (*self._carrier.records, *others))

    def cancel(self) -> None:
        """End the job, and wait a bounded while until it has ended. One that is over or unknown: nothing happens."""
        self._server.cancel(self.job_id)
        with contextlib.suppress(PeerUnreachable):
            self.wait(_CANCEL_WAIT_S)

    def clean(self) -> None:
        """Have the server remove the job and its files, and forget what was fetched in part. May be called twice."""
        self._carrier.abandon()
        self._server.clean(self.job_id)

    def _computed_places(self) -> RemotePlaces:
        travel = self._travel
        return local_places(
            travel.jobs_directory, self.job_id, separator=travel.separator, properties=travel.properties
        )

    def _setup_parameters(self) -> dict[str, Any]:
        request = self._request
        return {
            "job_id": self.job_id,
            "tool_id": request.tool_id,
            "tool_version": request.tool_version,
            "use_metadata": True,
        }

    def _moved_by_server(self) -> list[FileRecord]:
        """What the server tells of its own part, with `path` and `peer` as they are seen from here."""
        steps = (*self._plan.staging.inputs, *self._plan.staging.outputs)
        if not any(step.action.mover is Mover.SERVER for step in steps):
            return []
        paths = {(step.kind, step.name): step.action.path for step in steps}
        told = records_from_document(self._server.receipt(self.job_id))
        return [
            replace(record, path=paths.get((record.kind, record.name), ""), peer=record.path)
            for record in told
            if record.mover == Mover.SERVER
        ]


def run_job(
    server: RemoteServer,
    request: JobRequest,
    *,
    job_id: str = "",
    travel: Travel | None = None,
    on_event: OnEvent = nobody,
    keep: bool = False,
) -> Outcome:
    """Run a job on a server and bring its results back.

    Whatever interrupts it, Ctrl-C too, the job is cancelled and, unless `keep`, removed from the server; if that
    fails as well, the first error is the one that is raised. Only when the server cannot be reached any more, the job
    is left as it is: `resume_job` goes on with it.

    Raises:
        LwrError: LWR could not do its part. A tool that fails is no error: see `Outcome.status`.
    """
    job = RemoteJob(server, request, job_id=job_id, travel=travel, on_event=on_event)
    return _live(job, server, on_event, keep=keep, known=False, submitted=False)


def resume_job(
    server: RemoteServer,
    request: JobRequest,
    job_id: str,
    *,
    travel: Travel | None = None,
    on_event: OnEvent = nobody,
    keep: bool = False,
) -> Outcome:
    """Go on with a job that an earlier process began by `run_job` with the same request, wherever it was interrupted.

    What is still missing is sent, the job is waited for, its results are fetched; files that were cut go on where
    they were. LWR's own servers only.

    Raises:
        PeerRefused: the server does not know the job. LwrError: as `run_job`.
    """
    job = RemoteJob(server, request, job_id=job_id, travel=travel, on_event=on_event)
    submitted = server.job(job_id).get("state") != "new"
    return _live(job, server, on_event, keep=keep, known=True, submitted=submitted)


def _live(
    job: RemoteJob, server: RemoteServer, on_event: OnEvent, *, keep: bool, known: bool, submitted: bool
) -> Outcome:
    """All that is left of a job's life. `known`: the server has it already, with a part of its files or `submitted`."""
    goes_on = submitted
    try:
        if not submitted:
            job.stage_in(again=known)
            goes_on = True
            job.submit()
        status = job.wait()
        goes_on = False
        outcome = job.collect(status)
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


def server_part(staging: StagingPlan) -> dict[str, Any]:
    """The `remote_staging` that has the server move its part; empty when it has none."""
    parts = {
        "setup": [step_to_wire(step) for step in staging.inputs_moved_by(Mover.SERVER)],
        "outputs": [step_to_wire(step) for step in staging.outputs_moved_by(Mover.SERVER)],
    }
    # A key travels once, beside the steps.
    keys = {step.action.ssh.key for step in (*staging.inputs, *staging.outputs) if step.action.ssh} - {""}
    if len(keys) > 1:
        raise BadRequest("The files of one job are to be moved with two ssh keys.", "Give all rules the same ssh_key.")
    part: dict[str, Any] = {name: value for name, value in parts.items() if value}
    return part | ({"ssh_key": keys.pop()} if keys else {})


def _compare(told: RemotePlaces, computed: RemotePlaces) -> None:
    kind = "jobdir" if told.job_directory else "workdir"
    if told.directories[kind] != computed.directories[kind]:
        raise PeerError(
            f"Job {told.job_id} is in {told.directories[kind]} on the server, and jobs_directory says "
            f"{computed.directories[kind]}.",
            "Correct jobs_directory: it is the server's staging_directory.",
        )


def _names(records: Iterable[FileRecord], state: FileState) -> Iterator[str]:
    return (record.name for record in records if record.state is state and not record.upward)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", "Check its name.") from error


def _with_members(file: LocalFile) -> LocalFile:
    """The same with the files below it if it is a directory. Raises BadRequest when there is nothing to send."""
    path = Path(file.path)
    with _readable(path):
        path.stat()
        if not path.is_dir():
            return file
        members = sorted(found.relative_to(path).as_posix() for found in path.rglob("*") if found.is_file())
    return replace(file, members=tuple(members))
