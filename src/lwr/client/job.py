"""The whole life of a job, seen by whoever wants its results: set up, send, submit, wait, collect, clean.

`run_job` does all of it; `RemoteJob` has the steps one by one. What happens is told as small events, so that the
same life can be drawn as progress bars, log lines or nothing. Knows the plan and the server's calls; must not know
terminals, and nothing here retries: `RemoteServer` does.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lwr.client.collect import written
from lwr.client.places import RemotePlaces
from lwr.client.plan import JobRequest, LocalFile, command_line, plan
from lwr.client.remote import RemoteServer, RemoteStatus
from lwr.core.outputs import collect_declared
from lwr.core.staging import Mover
from lwr.errors import BadRequest, LwrError, PeerUnreachable
from lwr.transfer.partial import Transferred
from lwr.transfer.retry import growing

#: Names in the job's metadata directory that the command's own streams go by, as Galaxy has them.
STREAMS = ("tool_stdout", "tool_stderr")
FIRST_POLL_S = 0.05
MOST_POLL_S = 1.0
_CANCEL_WAIT_S = 15.0
_TIDY_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class SetUp:
    """The server has made the job's directory."""

    job_id: str
    directory: str


@dataclass(frozen=True, slots=True)
class Moving:
    """Bytes of a file are on their way. `upward`: to the server. `size_bytes` is None where nobody knows it."""

    name: str
    upward: bool
    moved_bytes: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A file is there as a whole. `place` is where: on the server, or here."""

    name: str
    kind: str
    upward: bool
    place: str
    receipt: Transferred


@dataclass(frozen=True, slots=True)
class Submitted:
    """The server has the job for good."""

    command_line: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A new state, as the server calls it. States that last shorter than the pause between two looks are not seen."""

    state: str


@dataclass(frozen=True, slots=True)
class Retrying:
    """Something failed that may pass; it is tried again after the pause."""

    error: LwrError
    pause_s: float


@dataclass(frozen=True, slots=True)
class GivingUp:
    """Something interrupted the job; it is being ended on the server."""

    job_id: str


Event = GivingUp | SetUp | Moving | Moved | Submitted | StateChanged | Retrying
OnEvent = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended and what came back.

    Args:
        missing: declared outputs that the job did not write (not an error of LWR's).
        refused: names that the server told of and that would leave their directory here; not fetched.
        collected: places of the files that were fetched.
        not_cleaned: why the job is still on the server although it should not be; mostly empty.
    """

    job_id: str
    status: RemoteStatus
    collected: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    not_cleaned: str = ""


def nobody(_: Event) -> None:
    """Nobody wants to know."""


class RemoteJob:
    """One job on one server. The steps are called in their order, each once; `cancel` and `clean` at any time.

    Args:
        job_id: random when empty. The server may give another one: `self.job_id` after `stage_in`.
        on_event: called from the thread that works; must be quick. What it raises ends the step.
    """

    def __init__(
        self,
        server: RemoteServer,
        request: JobRequest,
        *,
        job_id: str = "",
        on_event: OnEvent = nobody,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.job_id = job_id or f"run-{secrets.token_hex(6)}"
        self._server, self._on_event, self._sleep = server, on_event, sleep
        self._request = replace(request, files=tuple(_with_members(file) for file in request.files))
        self._plan = plan(self._request)
        self._places = RemotePlaces(self.job_id, "/", {})
        self._state = ""
        server.on_retry = lambda error, pause_s: on_event(Retrying(error, pause_s))

    def stage_in(self) -> None:
        """Set the job up and send its files."""
        self._places = self._server.setup(self.job_id, self._request.tool_id, self._request.tool_version)
        self.job_id = self._places.job_id
        self._on_event(SetUp(self.job_id, self._places.directories["workdir"]))
        for step in self._plan.staging.inputs_moved_by(Mover.CLIENT):
            source = Path(step.action.path)
            with _readable(source):
                size_bytes = source.stat().st_size
            tell = self._teller(step.name, True, size_bytes)
            receipt = self._server.upload(self.job_id, step.kind, step.name, source, tell)
            self._on_event(Moved(step.name, step.kind, True, self._places.path(step.kind, step.name), receipt))

    def submit(self) -> None:
        """Have it run. Its streams go to files of their own where the server keeps such, so that none is cut."""
        text = command_line(self._request.command, self._plan.words, self._places)
        if "metadata" in self._places.directories and self._places.separator == "/":
            text = f"{{ {text}\n}} > ../metadata/{STREAMS[0]} 2> ../metadata/{STREAMS[1]}"
        env = [{"name": name, "value": value} for name, value in self._request.env]
        self._server.submit(self.job_id, text, env=env, params=self._request.params)
        self._on_event(Submitted(text))

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
                self._on_event(StateChanged(self._state))
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
        found = collect_declared(self._plan.staging.outputs, written(status))
        for step in found.found:
            target = Path(step.action.path)
            tell = self._teller(step.name, False, None)
            receipt = self._server.download(self.job_id, step.kind, step.name, target, tell)
            self._on_event(Moved(step.name, step.kind, False, str(target), receipt))
        for stream in STREAMS:
            if self._request.streams_dir is not None and stream in status.metadata:
                self._server.download(self.job_id, "output_metadata", stream, self._request.streams_dir / stream)
        targets = tuple(Path(step.action.path) for step in found.found)
        return Outcome(self.job_id, status, targets, tuple(step.name for step in found.missing), found.refused)

    def cancel(self) -> None:
        """End the job, and wait a bounded while until it has ended. One that is over or unknown: nothing happens."""
        self._server.cancel(self.job_id)
        with contextlib.suppress(PeerUnreachable):
            self.wait(_CANCEL_WAIT_S)

    def clean(self) -> None:
        """Have the server remove the job and its files. May be called twice."""
        self._server.clean(self.job_id)

    def _teller(self, name: str, upward: bool, size_bytes: int | None) -> Callable[[int], None]:
        return lambda moved_bytes: self._on_event(Moving(name, upward, moved_bytes, size_bytes))


def run_job(
    server: RemoteServer, request: JobRequest, *, job_id: str = "", on_event: OnEvent = nobody, keep: bool = False
) -> Outcome:
    """Run a job on a server and bring its results back.

    Whatever interrupts it, Ctrl-C too, the job is cancelled and, unless `keep`, removed from the server; if that
    fails as well, the first error is the one that is raised.

    Raises:
        LwrError: LWR could not do its part. A tool that fails is no error: see `Outcome.status`.
    """
    job = RemoteJob(server, request, job_id=job_id, on_event=on_event)
    goes_on = False
    try:
        job.stage_in()
        goes_on = True
        job.submit()
        status = job.wait()
        goes_on = False
        outcome = job.collect(status)
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
