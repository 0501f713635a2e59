"""What the server does for a job before its manager gets it and after its command ended.

`prepare`: carries out the server's part of the staging plan and hands the job to its manager. `collect`: finds the
results, takes digests and delivers what the server delivers. Both end in one move, told through the engine's callback.
Files are moved by the tasks of `lwr.server.moves` in the runner's threads, which try again what may pass; what happens
before and after them runs in a few threads of its own. Must not write states itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from lwr.core.job import CANCELLED_REASON, Job, JobState, Move
from lwr.core.outputs import Collection
from lwr.core.places import Area, JobLayout
from lwr.core.receipt import FileRecord, FileState
from lwr.core.staging import Mover, Step, Way
from lwr.core.ticket import Adoption, Ticket
from lwr.core.wire import Submission
from lwr.errors import LwrError, NotFound, PeerError, PeerRefused, Unavailable
from lwr.faults import fault
from lwr.managers.manager import JobManager
from lwr.server import collection, results
from lwr.server.ledger import Ledger
from lwr.server.moves import Means, Moves, check, components_of, inputs_of, message_record, peer_of
from lwr.server.store import FileDigest, Store
from lwr.transfer.interrupt import Interrupted
from lwr.transfer.jobfiles import JobFiles
from lwr.transfer.runner import Runner, Task

log = structlog.get_logger("lwr")


class Finish(Protocol):
    """Makes a move of a job, with the digests that it brings; what the engine gives to `prepare` and `collect`."""

    def __call__(self, job: Job, move: Move, digests: Mapping[str, FileDigest] | None = None) -> None: ...


#: What Pulsar's clients write for the job's directory when the server chooses it.
_DIRECTORY_TOKEN = "__PULSAR_JOB_DIRECTORY__"  # noqa: S105

_FORBIDDEN = 403


@dataclass(slots=True)
class _Stage:
    """A job in `prepare` or `collect`: `work` does what is next, in the pool, until a move ends the stage.

    `failures` are those of steps that could not be done, by what they are called.
    """

    job: Job
    name: str
    layout: JobLayout
    finish: Finish
    work: Callable[[], bool] = field(default=lambda: False)  # whether tasks of the stage are with the runner now
    left_count: int = 0
    failures: list[tuple[Step, LwrError]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        return self.job.attempt, self.name


class Stagers:
    """`prepare` and `collect` return at once and may be called again for a job: what is under way is not begun twice,
    and ended if the job is to be cancelled. The runner is started and stopped with it.
    """

    def __init__(self, store: Store, ledger: Ledger, runner: Runner, means: Means, threads_count: int) -> None:
        self._store = store
        self._ledger = ledger
        self._runner = runner
        self._means = means
        self._threads_count = threads_count
        self._busy: set[tuple[str, str]] = set()  # attempt and stage: a job may end while its preparation returns
        self._mutex = threading.Lock()
        # Of their own, so that nobody waits behind the hashing of somebody's large results.
        self._pools = {
            name: ThreadPoolExecutor(threads_count, thread_name_prefix=name) for name in ("prepare", "collect")
        }
        self._canceller = ThreadPoolExecutor(1, thread_name_prefix="cancel-transfers")
        self._stopping = threading.Event()
        self._again: Callable[[str], None] = lambda attempt: None

    def start(self, again: Callable[[str], None]) -> None:
        """Make the threads; all exist from now on. `again(attempt)` is called for what has to be tried again later."""
        self._again = again
        self._runner.start()
        for pool in self._pools.values():
            barrier = threading.Barrier(self._threads_count + 1)
            for _ in range(self._threads_count):
                pool.submit(barrier.wait)
            barrier.wait()

    def stop(self) -> None:
        """Finish or give up what is under way, leave the rest to the next start. May be called twice, or unstarted."""
        self._stopping.set()
        self._means.stopping.set()
        self._runner.stop()
        for pool in (*self._pools.values(), self._canceller):
            pool.shutdown(wait=True, cancel_futures=True)
        self._means.web.close()

    def prepare(self, job: Job, layout: JobLayout, manager: JobManager, finish: Finish) -> None:
        """Stage in and hand over. Success is told by the manager's own report; failure by a move to FAILED."""
        stage = _Stage(job, "prepare", layout, finish)
        stage.work = lambda: self._prepare(stage, manager)
        self._begin(stage)

    def collect(self, job: Job, layout: JobLayout, finish: Finish) -> None:
        """Take stock of the results and deliver them; ends in COMPLETE, FAILED or CANCELLED."""
        stage = _Stage(job, "collect", layout, finish)
        stage.work = lambda: self._collect(stage)
        self._begin(stage)

    def trouble(self, job: Job) -> str:
        """Why a file of this job is being tried again; empty when none is."""
        return self._runner.trouble(job.attempt)

    def transfers(self) -> tuple[int, int]:
        """How many files are moved now, and how many wait for it."""
        return self._runner.counts()

    # -- stages --------------------------------------------------------------------------------------------------

    def _begin(self, stage: _Stage) -> None:
        with self._mutex:
            under_way = stage.key in self._busy
            self._busy.add(stage.key)
        if not under_way:
            self._pools[stage.name].submit(self._guarded, stage)
        elif stage.job.cancel_requested:
            self._canceller.submit(self._runner.cancel, stage.job.attempt)  # it may have thousands of files to tell of

    def _guarded(self, stage: _Stage) -> None:
        """Do what is next. The stage stays busy while the runner has tasks of it."""
        tried_again = goes_on = False
        try:
            goes_on = self._fail_for_good(stage)
        except Exception as error:
            # It may pass, or not even the failure could be written down.
            log.warning("staging is tried again", job=str(stage.job.key), stage=stage.name, reason=str(error))
            tried_again = True
        if goes_on:
            return
        with self._mutex:
            self._busy.discard(stage.key)
        if tried_again:
            self._again(stage.job.attempt)

    def _fail_for_good(self, stage: _Stage) -> bool:
        """Do the work; a failure that cannot pass becomes the job's. Raises those that may pass."""
        try:
            return stage.work()
        except LwrError as error:
            if error.transient:
                raise
            stage.finish(stage.job, Move(JobState.FAILED, str(error)))
        except Exception as error:
            log.exception("staging failed", job=str(stage.job.key))
            reason = f"LWR could not stage the job: {type(error).__name__}: {error}"
            stage.finish(stage.job, Move(JobState.FAILED, reason))
        return False

    def _run(self, stage: _Stage, tasks: list[Task], then: Callable[[], None]) -> bool:
        """Have the runner do the tasks, and then go on with `then`, in the pool."""

        def go_on() -> bool:
            then()
            return False

        if not tasks:
            return go_on()
        stage.work = go_on
        stage.left_count = len(tasks)
        self._runner.add(tasks)
        # A wish that came before the runner knew of these tasks found nothing to cancel.
        if self._is_cancelled(stage.job):
            self._runner.cancel(stage.job.attempt)
        return True

    def _done(self, stage: _Stage, step: Step, error: LwrError | None) -> None:
        """What each task says at its end, from the runner's threads."""
        with self._mutex:
            stage.left_count -= 1
            last = not stage.left_count
            if error is not None:
                stage.failures.append((step, error))
        if last:
            self._pools[stage.name].submit(self._guarded, stage)
        elif stage.name == "prepare" and error is not None and not isinstance(error, Interrupted):
            self._runner.cancel(stage.job.attempt)  # the job has failed; the other inputs are for nothing

    def _is_cancelled(self, job: Job) -> bool:
        now = self._store.by_attempt(job.attempt)
        return now is None or now.cancel_requested

    # -- before the job ------------------------------------------------------------------------------------------

    def _prepare(self, stage: _Stage, manager: JobManager) -> bool:
        job, layout = stage.job, stage.layout
        number, description = self._store.submission(job) or (0, "")
        if os.path.lexists(layout.script):
            # The manager was given it, and may be running it: its report is on the way or was lost with the last
            # server. Nothing may be staged under a running job; what the manager says now leads on, or to its cancel.
            manager.adopt([Adoption(job.attempt, job.key.job_id, number, layout)])
            return False
        if job.cancel_requested:
            stage.finish(job, Move(JobState.CANCELLED, "cancelled before it was queued"))
            return False
        submission = Submission.from_stored(description)
        files = JobFiles(layout.root)
        steps = inputs_of(submission, layout)
        collection.check(submission)
        messages = [step for step in steps if step.action.way is Way.MESSAGE]
        for step in messages:
            files.write(components_of(step, layout), step.action.contents.encode())
        if messages:
            self._ledger.write(job, map(message_record, messages))
        tasks = self._tasks(stage, [step for step in steps if step.action.way is not Way.MESSAGE], upward=True)

        def hand_over() -> None:
            if self._ended_by_cancel(stage, "cancelled while its files were fetched"):
                return
            self._raise_failures(stage, "could not be fetched")
            collection.touch(files, submission.touch_outputs, layout)
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

        return self._run(stage, tasks, hand_over)

    def _tasks(self, stage: _Stage, steps: list[Step], *, upward: bool) -> list[Task]:
        """The tasks for what is not done yet."""
        if not steps:
            return []
        moves = Moves(stage.job, stage.layout, self._ledger, self._means, upward=upward)

        def task(step: Step) -> Task:
            return moves.task(step, lambda error: self._done(stage, step, error))

        return [task(step) for step in steps if not moves.is_done(step)]

    def _raise_failures(self, stage: _Stage, what: str) -> None:
        """Raises what the job fails with, if a task failed: the first that was not ended because of another."""
        own = [(step, error) for step, error in stage.failures if not isinstance(error, Interrupted)]
        if own:
            step, error = own[0]
            others = f" ({len(own) - 1} more failed.)" if len(own) > 1 else ""
            named = f"The {step.kind} {step.name} of job {stage.job.key}"
            raise PeerError(f"{named} {what}: {error.message}{others}", error.hint)
        if stage.failures:
            raise Unavailable("Transfers were ended, and nobody wished it.")

    def _ended_by_cancel(self, stage: _Stage, reason: str) -> bool:
        """Whether the job is to be cancelled and its transfers were ended for it; it is CANCELLED then."""
        interrupted = any(isinstance(error, Interrupted) for _, error in stage.failures)
        if interrupted and self._is_cancelled(stage.job):
            stage.finish(stage.job, Move(JobState.CANCELLED, reason))
            return True
        return False

    # -- after the job -------------------------------------------------------------------------------------------

    def _collect(self, stage: _Stage) -> bool:
        job, layout = stage.job, stage.layout
        if job.cancel_requested:
            stage.finish(job, Move(JobState.CANCELLED, CANCELLED_REASON))
            return False
        files = JobFiles(layout.root)
        if os.path.islink(layout.area(Area.OUTPUTS)) or not os.path.isdir(layout.area(Area.OUTPUTS)):
            raise NotFound(
                f"The outputs directory of job {job.key} is gone: the command or somebody else removed or replaced it.",
                "Its results cannot be collected.",
            )
        stored = self._store.submission(job)
        submission = Submission.from_stored(stored[1]) if stored else None
        found = collection.find(files, submission, self._budget(stage)) if submission else Collection()
        delivered = [step for step in found.found if step.action.mover is Mover.SERVER]
        for step in delivered:
            check(step)
        # Their digests are taken on their way; not by ssh, where the bytes do not pass through this process.
        ours = frozenset(step.name for step in delivered if step.kind == "output" and step.action.ssh is None)
        fault("collect.before_digests")
        digests = results.collect_digests(files, self._stopping.is_set, leave_out=ours)
        empty = collection.still_empty(files, submission.touch_outputs if submission else [])
        if absent := collection.records(found, empty):
            self._ledger.write(job, absent)
        collection.require(found, files, empty)

        def conclude() -> None:
            if self._ended_by_cancel(stage, CANCELLED_REASON):
                return
            self._judge_deliveries(stage, delivered)
            fault("collect.before_commit")
            stage.finish(job, Move(JobState.COMPLETE, job.reason), digests)
            fault("collect.after_commit")

        return self._run(stage, self._tasks(stage, delivered, upward=False), conclude)

    def _budget(self, stage: _Stage) -> collection.Budget:
        return collection.Budget(str(stage.job.key), self._stopping.is_set, lambda: self._is_cancelled(stage.job))

    def _judge_deliveries(self, stage: _Stage, delivered: list[Step]) -> None:
        """What the failures of deliveries mean: Galaxy may refuse single outputs (deleted datasets), and takes none at
        all for a job that it has given up."""
        refused = [(step, error) for step, error in stage.failures if _is_refusal(error)]
        stage.failures = [(step, error) for step, error in stage.failures if not _is_refusal(error)]
        for step, error in refused:
            log.warning("result refused", job=str(stage.job.key), file=step.name, reason=error.message)
        if refused:
            self._ledger.write(
                stage.job,
                [
                    FileRecord(False, step.kind, step.name, FileState.REFUSED, "server", step.action.type,
                               peer=peer_of(step.action), reason=error.message)
                    for step, error in refused
                ],
            )  # fmt: skip
        if refused and len(refused) == len(delivered):
            raise PeerRefused(
                f"Galaxy no longer takes the files of job {stage.job.key} (403 for all {len(refused)}).",
                "It has ended or deleted this job on its side.",
            )
        self._raise_failures(stage, "could not be delivered")


def _is_refusal(error: LwrError) -> bool:
    return isinstance(error, PeerRefused) and error.status == _FORBIDDEN
