"""The whole life of a job that Galaxy describes, or whoever else knows its files by absolute paths.

`run_described` does all of it and `resume_described` the rest of it. A Galaxy plugin takes the steps one by one, as it
must ask for remote paths between the set-up and the description, and may collect what another process staged: for that
the outputs and the job's id are enough. Nothing is written here outside of the directories of the outputs, whatever
names the server tells. Old servers take part as far as they go: they tell nothing of what they moved.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from lwr.client.collect import declared_outputs, written
from lwr.client.description import DescribedPlan, JobDescription, LocalDisk, plan_description
from lwr.client.events import OnEvent, SetUp, Submitted, nobody
from lwr.client.life import JobOnServer, JobServer, Outcome, Travel, is_new, live, names_of
from lwr.client.pathmapper import Names, PathMapper
from lwr.client.places import RemotePlaces
from lwr.client.status import RemoteStatus
from lwr.core.mapper import Mapper
from lwr.core.outputs import ClientOutputs, collect
from lwr.core.receipt import FileState
from lwr.core.staging import FileAction, Mover, Step
from lwr.errors import BadRequest, PeerError


class DescribedJob(JobOnServer):
    """A job on its way: `set_up`, `stage_in`, `submit`, `wait`, `collect`; the last two also of one that another
    process has submitted."""

    def __init__(
        self,
        server: JobServer,
        *,
        job_id: str = "",
        travel: Travel | None = None,
        on_event: OnEvent = nobody,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(server, job_id, travel, on_event, sleep)
        self._mapper = self._travel.mapper or Mapper()
        self._tool = ("", "")
        self._staged: tuple[JobDescription, DescribedPlan] | None = None

    def set_up(self, tool_id: str = "", tool_version: str = "") -> RemotePlaces:
        """Learn where the job is, or with `jobs_directory` will be. The server may have given it another id.

        Raises:
            PeerError: it cannot be made there.
        """
        self._tool = (tool_id, tool_version)
        begin = self._set_up_with_submit if self._travel.jobs_directory else self._set_up
        begin(*self._tool)
        self._carrier.tell(SetUp(self.job_id, self._places.directories["workdir"]))
        return self._places

    def paths(self, local_working_directory: str = "") -> PathMapper:
        """Whom to ask for remote paths, after the set-up, if the description does not have them rewritten. The same one
        is given to `stage_in`."""
        return PathMapper(self._mapper, self._places, local_working_directory, LocalDisk())

    def stage_in(
        self, description: JobDescription, paths: PathMapper | None = None, *, again: bool = False
    ) -> DescribedPlan:
        """Plan the job and send the client's part of its files.

        Args:
            again: an earlier process did so and was interrupted: what arrived whole is not sent again.

        Raises:
            LwrError: as `plan_description` and `Carrier.send`.
            BadRequest: a file, or what may be a result, is to be moved by the client, and cannot be.
            PeerError: files are to be sent, and the server has the job elsewhere than in `jobs_directory`.
        """
        plan = plan_description(description, self._mapper, self._places, paths)
        steps = list(plan.staging.inputs_moved_by(Mover.CLIENT))
        self._carrier.mover([*steps, *plan.staging.outputs_moved_by(Mover.CLIENT), *self._discoverable(plan.outputs)])
        if steps and self._carried is not None:
            computed = self._places
            self._set_up(*self._tool)
            if self._places != computed:
                raise PeerError(
                    f"Job {computed.job_id} is called {self.job_id} by the server, and its paths were computed before.",
                    "Remove jobs_directory: with a server that gives ids of its own it cannot be used.",
                )
        self._carrier.send(steps, self._places, again=again)
        self._staged = (description, plan)
        return plan

    def submit(self) -> None:
        """Have it run. When this returns, the server has it for good.

        Raises:
            BadRequest: it was not staged before.
        """
        if self._staged is None:
            raise BadRequest(f"Job {self.job_id} has no description yet.", "Call stage_in before submit.")
        description, plan = self._staged
        self._server.submit(
            self.job_id,
            plan.command_line,
            env=description.env,
            params=description.params,
            remote_staging=plan.remote_staging,
            setup=self._carried,
            dependencies=description.dependencies,
            touch_outputs=description.touch_outputs,
            dynamic_sources=plan.outputs.dynamic_sources,
        )
        self._carrier.tell(Submitted(plan.command_line))

    def collect(self, status: RemoteStatus, outputs: ClientOutputs, paths: PathMapper | None = None) -> Outcome:
        """Fetch the client's part of the results of a job that ended by itself; of any other nothing is fetched.

        Args:
            outputs: those of the description.
            paths: the one that was asked for them, if one was.
        """
        if status.state != "complete":
            return Outcome(self.job_id, status)
        outputs, declared = declared_outputs(outputs, self._mapper, paths.outputs if paths else Names("_"))
        found = collect(outputs, self._mapper, written(status), declared)
        ours = [step for step in found.found if step.action.mover is Mover.CLIENT]
        astray = _astray(ours, outputs)
        ours = [step for step in ours if step not in astray]
        self._carrier.fetch(self.job_id, ours)
        inputs = self._staged[1].staging.inputs if self._staged else ()
        records = self._moved_by_server((*inputs, *found.found))
        return Outcome(
            self.job_id,
            status,
            collected=tuple(Path(step.action.path) for step in ours),
            missing=tuple(step.name for step in found.missing),
            refused=(*found.refused, *(step.name for step in astray), *names_of(records, FileState.REFUSED)),
            records=(*self._carrier.records, *records),
        )

    def _discoverable(self, outputs: ClientOutputs) -> Iterable[Step]:
        """A stand-in for what will be found in the working directory, if the client would have to fetch that."""
        if not outputs.dynamic_outputs:
            return ()
        path = f"{outputs.working_directory}/*"
        step = Step("output_workdir", "*", FileAction(self._mapper.action_type(path, "output_workdir"), path))
        return (step,) if step.action.mover is Mover.CLIENT else ()


def run_described(
    server: JobServer,
    description: JobDescription,
    *,
    job_id: str = "",
    travel: Travel | None = None,
    on_event: OnEvent = nobody,
    keep: bool = False,
) -> Outcome:
    """Run a job on a server and bring its results back to where its outputs are to be.

    What holds when it is interrupted, and what it raises: as `lwr.client.run_job`.
    """
    job = DescribedJob(server, job_id=job_id, travel=travel, on_event=on_event)
    stage_in = partial(_stage_in, job, description, again=False)
    return live(job, server, stage_in, partial(job.collect, outputs=description.outputs), on_event, keep=keep)


def resume_described(
    server: JobServer,
    description: JobDescription,
    job_id: str,
    *,
    travel: Travel | None = None,
    on_event: OnEvent = nobody,
    keep: bool = False,
) -> Outcome:
    """Go on with a job that an earlier process began by `run_described` with the same description, wherever it was
    interrupted. Once it was submitted, its inputs need not be here any more. LWR's own servers only.

    Raises:
        PeerRefused: the server does not know the job. LwrError: as `run_described`.
    """
    job = DescribedJob(server, job_id=job_id, travel=travel, on_event=on_event)
    stage_in = partial(_stage_in, job, description, again=True) if is_new(server, job_id) else None
    return live(job, server, stage_in, partial(job.collect, outputs=description.outputs), on_event, keep=keep)


def _stage_in(job: DescribedJob, description: JobDescription, *, again: bool) -> None:
    job.set_up(description.tool_id, description.tool_version)
    job.stage_in(description, again=again)


def _astray(steps: Iterable[Step], outputs: ClientOutputs) -> list[Step]:
    """Results whose targets a link on this disk leads out of the directories that were given."""
    targets = [*outputs.output_files, outputs.version_file, *(target for _, target in outputs.work_dir_outputs)]
    given = {outputs.working_directory, outputs.metadata_directory, outputs.job_directory}
    given |= {os.path.dirname(path) for path in targets} | {target for _, target in outputs.work_dir_outputs}
    roots = [os.path.realpath(directory) for directory in given if directory]

    def inside(path: str) -> bool:
        real = Path(os.path.realpath(os.path.dirname(path)))
        return any(real.is_relative_to(root) for root in roots)

    return [step for step in steps if not inside(step.action.path)]
