"""What the server does for a job before its manager gets it and after its command ended, in a few threads.

`prepare`: carries out the server's part of the staging plan and hands the job to its manager. `collect`: takes the
digests of the results. Both end in one move, told through the engine's callback. A failure that may pass is tried again
later; any other fails the job with its reason. Must not write states itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import structlog

from lwr.core.job import CANCELLED_REASON, Job, JobState, Move
from lwr.core.places import Area, JobLayout, resolve
from lwr.core.staging import Mover, StagingPlan, plan_from_wire
from lwr.core.ticket import Adoption, Ticket
from lwr.core.wire import FILE_KINDS, Submission
from lwr.errors import BadRequest, LwrError, NotFound
from lwr.faults import fault
from lwr.managers.manager import JobManager
from lwr.server import results
from lwr.server.store import FileDigest, Store
from lwr.transfer.jobfiles import JobFiles

log = structlog.get_logger("lwr")


class Finish(Protocol):
    """Makes a move of a job, with the digests that it brings; what the engine gives to `prepare` and `collect`."""

    def __call__(self, job: Job, move: Move, digests: Mapping[str, FileDigest] | None = None) -> None: ...


#: What Pulsar's clients write for the job's directory when the server chooses it.
_DIRECTORY_TOKEN = "__PULSAR_JOB_DIRECTORY__"  # noqa: S105


class Stagers:
    """A pool of `threads_count` threads. `prepare` and `collect` return at once and may be called again for a job:
    what is under way is not begun twice."""

    def __init__(self, store: Store, threads_count: int) -> None:
        self._store = store
        self._threads_count = threads_count
        self._busy: set[tuple[str, str]] = set()  # attempt and stage: a job may end while its preparation returns
        self._mutex = threading.Lock()
        self._pool = ThreadPoolExecutor(threads_count, thread_name_prefix="staging")
        self._stopping = threading.Event()
        self._again: Callable[[str], None] = lambda attempt: None

    def start(self, again: Callable[[str], None]) -> None:
        """Make the threads; all exist from now on. `again(attempt)` is called for what has to be tried again later."""
        self._again = again
        barrier = threading.Barrier(self._threads_count + 1)
        for _ in range(self._threads_count):
            self._pool.submit(barrier.wait)
        barrier.wait()

    def stop(self) -> None:
        """Finish or give up what is under way, leave the rest to the next start. May be called twice, or unstarted."""
        self._stopping.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def prepare(self, job: Job, layout: JobLayout, manager: JobManager, finish: Finish) -> None:
        """Stage in and hand over. Success is told by the manager's own report; failure by a move to FAILED."""
        self._begin(job, "prepare", lambda: self._prepare(job, layout, manager, finish), finish)

    def collect(self, job: Job, layout: JobLayout, finish: Finish) -> None:
        """Take stock of the results; ends in COMPLETE, FAILED or CANCELLED."""
        self._begin(job, "collect", lambda: self._collect(job, layout, finish), finish)

    def trouble(self, job: Job) -> str:
        """Why a file of this job is being tried again; empty when none is."""
        return ""

    def _begin(self, job: Job, stage: str, work: Callable[[], None], finish: Finish) -> None:
        with self._mutex:
            if (job.attempt, stage) in self._busy:
                return
            self._busy.add((job.attempt, stage))
        self._pool.submit(self._guarded, job, stage, work, finish)

    def _guarded(self, job: Job, stage: str, work: Callable[[], None], finish: Finish) -> None:
        tried_again = False
        try:
            self._fail_for_good(job, work, finish)
        except Exception as error:
            # It may pass, or not even the failure could be written down.
            log.warning("staging is tried again", job=str(job.key), stage=stage, reason=str(error))
            tried_again = True
        with self._mutex:
            self._busy.discard((job.attempt, stage))
        if tried_again:
            self._again(job.attempt)

    def _fail_for_good(self, job: Job, work: Callable[[], None], finish: Finish) -> None:
        """Do the work; a failure that cannot pass becomes the job's. Raises those that may pass."""
        try:
            work()
        except LwrError as error:
            if error.transient:
                raise
            finish(job, Move(JobState.FAILED, str(error)))
        except Exception as error:
            log.exception("staging failed", job=str(job.key))
            finish(job, Move(JobState.FAILED, f"LWR could not stage the job: {type(error).__name__}: {error}"))

    def _prepare(self, job: Job, layout: JobLayout, manager: JobManager, finish: Finish) -> None:
        number, description = self._store.submission(job) or (0, "")
        if job.cancel_requested:
            if os.path.lexists(layout.script):
                # The manager was given it, and its report is on the way or was lost with the last server: what it
                # says now leads to its own cancel.
                manager.adopt([Adoption(job.attempt, job.key.job_id, number, layout)])
            else:
                finish(job, Move(JobState.CANCELLED, "cancelled before it was queued"))
            return
        submission = Submission.from_stored(description)
        files = JobFiles(layout.root)
        plan = plan_from_wire(submission.remote_staging)
        _refuse_what_is_not_built(plan)
        for step in plan.inputs_moved_by(Mover.SERVER):
            kind = FILE_KINDS[step.kind]
            target = resolve(kind.area, step.name, nested=kind.nested, windows=layout.windows)
            files.write(target, step.action.contents.encode())
        _touch(files, submission.touch_outputs, layout)
        ticket = Ticket(
            attempt=job.attempt,
            job_id=job.key.job_id,
            order=number,
            layout=layout,
            command_line=submission.command_line.replace(_DIRECTORY_TOKEN, layout.root),
            env=tuple(entry.item() for entry in submission.env),
            params=submission.params,
        )
        fault("prepare.before_handover")
        manager.submit(ticket)
        fault("prepare.after_handover")

    def _collect(self, job: Job, layout: JobLayout, finish: Finish) -> None:
        if job.cancel_requested:
            finish(job, Move(JobState.CANCELLED, CANCELLED_REASON))
            return
        files = JobFiles(layout.root)
        if os.path.islink(layout.area(Area.OUTPUTS)) or not os.path.isdir(layout.area(Area.OUTPUTS)):
            raise NotFound(
                f"The outputs directory of job {job.key} is gone: the command or somebody else removed or replaced it.",
                "Its results cannot be collected.",
            )
        fault("collect.before_digests")
        digests = results.collect_digests(files, self._stopping.is_set)
        fault("collect.before_commit")
        finish(job, Move(JobState.COMPLETE, job.reason), digests)
        fault("collect.after_commit")


def _refuse_what_is_not_built(plan: StagingPlan) -> None:
    asked = sorted({s.action.type for s in plan.inputs_moved_by(Mover.SERVER)} - {"message"})
    if asked:
        raise BadRequest(
            f"The job asks this server to move files itself ({', '.join(dict.fromkeys(asked))}), which this version of "
            "LWR cannot do.",
            "Set default_file_action to transfer in Galaxy's destination.",
        )
    unknown = sorted({step.kind for step in plan.inputs} - set(FILE_KINDS))
    if unknown:
        raise BadRequest(f"No type of file is called {unknown[0][:60]!r}.", f"Known are: {', '.join(FILE_KINDS)}.")


def _touch(files: JobFiles, names: list[str], layout: JobLayout) -> None:
    present = set(files.listing(Area.OUTPUTS)) if names else set()
    for name in names:
        if name not in present:
            files.write(resolve(Area.OUTPUTS, name, windows=layout.windows), b"")
