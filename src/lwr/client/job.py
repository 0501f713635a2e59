"""The whole life of a job, seen by whoever wants its results: set up, send, submit, wait, collect, clean.

`run_job` does all of it and `resume_job` the rest of it; `RemoteJob` has the steps one by one. What happens is told as
small events, so that the same life can be drawn as progress bars, log lines or nothing. Knows the plan and the server's
calls; must not know terminals, and nothing here retries: the `JobServer` does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lwr.client.collect import written
from lwr.client.events import OnEvent, SetUp, Submitted, nobody
from lwr.client.life import JobOnServer, JobServer, Outcome, Travel, is_new, live, names_of
from lwr.client.plan import JobRequest, LocalFile, command_line, plan
from lwr.client.status import RemoteStatus
from lwr.core.outputs import collect_declared
from lwr.core.receipt import FileRecord, FileState
from lwr.core.staging import FileAction, Mover, StagingPlan, Step, step_to_wire
from lwr.errors import BadRequest

#: A text up to this size travels in the message that describes the job, where the client cannot send it.
IN_MESSAGE_BYTES = 64 * 1024
#: Names in the job's metadata directory that the command's own streams go by, as Galaxy has them.
STREAMS = ("tool_stdout", "tool_stderr")


class RemoteJob(JobOnServer):
    """The job of a `JobRequest`: `stage_in`, `submit`, `wait`, `collect`."""

    def __init__(
        self,
        server: JobServer,
        request: JobRequest,
        *,
        job_id: str = "",
        travel: Travel | None = None,
        on_event: OnEvent = nobody,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(server, job_id, travel, on_event, sleep)
        self._request = replace(request, files=tuple(_with_members(file) for file in request.files))
        self._plan = plan(self._request, self._travel.mapper, self._travel.separator)
        if server.files is None:
            staging = self._plan.staging
            self._plan = replace(self._plan, staging=replace(staging, inputs=tuple(map(_in_message, staging.inputs))))

    def stage_in(self, *, again: bool = False) -> None:
        """Set the job up and send the client's part of its files.

        Args:
            again: an earlier process did so and was interrupted: what arrived whole is not sent again.

        Raises:
            PeerError: the server has its jobs elsewhere than in `jobs_directory`.
            BadRequest: a file, or one of the results, is to be moved by the client, and cannot be.
        """
        steps = list(self._plan.staging.inputs_moved_by(Mover.CLIENT))
        self._carrier.mover([*steps, *self._plan.staging.outputs_moved_by(Mover.CLIENT)])
        begin = self._set_up_with_submit if self._travel.jobs_directory and not steps else self._set_up
        begin(self._request.tool_id, self._request.tool_version)
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
            setup=self._carried,
        )
        self._carrier.tell(Submitted(text))

    def collect(self, status: RemoteStatus) -> Outcome:
        """Fetch the results of a job that ended by itself; of any other nothing is fetched."""
        if status.state != "complete":
            return Outcome(self.job_id, status)
        found = collect_declared(list(self._plan.staging.outputs_moved_by(Mover.CLIENT)), written(status))
        self._carrier.fetch(self.job_id, found.found)
        server = self._server.files
        for stream in STREAMS:
            if server is not None and self._request.streams_dir is not None and stream in status.metadata:
                server.download(self.job_id, "output_metadata", stream, self._request.streams_dir / stream)
        others = self._moved_by_server((*self._plan.staging.inputs, *self._plan.staging.outputs))
        missing = (*(step.name for step in found.missing), *self._not_written(others, status))
        refused = (*found.refused, *names_of(others, FileState.REFUSED))
        targets = tuple(Path(step.action.path) for step in found.found)
        return Outcome(self.job_id, status, targets, missing, refused, (*self._carrier.records, *others))

    def _not_written(self, told: Collection[FileRecord], status: RemoteStatus) -> Iterable[str]:
        """The server's part of the outputs that the job did not write. Of a server that tells of none of its files:
        those that are not in the listings."""
        if any(not record.upward for record in told):
            return names_of(told, FileState.NOT_WRITTEN)
        steps = list(self._plan.staging.outputs_moved_by(Mover.SERVER))
        return (step.name for step in collect_declared(steps, written(status)).missing)


def run_job(
    server: JobServer,
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
    return live(job, server, job.stage_in, job.collect, on_event, keep=keep)


def resume_job(
    server: JobServer,
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
    stage_in = partial(job.stage_in, again=True) if is_new(server, job_id) else None
    return live(job, server, stage_in, job.collect, on_event, keep=keep)


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


def _in_message(step: Step) -> Step:
    """The same step with the file's text in it, if the client would have to move it and it is a small text."""
    if step.action.mover is not Mover.CLIENT:
        return step
    with _readable(Path(step.action.path)), open(step.action.path, "rb") as file:
        data = file.read(IN_MESSAGE_BYTES + 1)
    with contextlib.suppress(UnicodeDecodeError):
        if len(data) <= IN_MESSAGE_BYTES and b"\0" not in data:
            return replace(step, action=FileAction("message", step.action.path, contents=data.decode()))
    return step


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
