"""The only writer of states. What clients ask and what managers see comes in here; moves go to the store.

The way of a job: `setup` makes a row and a directory, `submit` stores the description, `tick` hands the job to
`lwr.server.staging` (before and after the run) and to its manager, and turns the managers' observations into moves.
Every live state has one action that it asks for (`_act`), so that a restart is the same as going on. Looking at
jobs is `lwr.server.view`'s. Must not know HTTP, messages or how a manager works.

No nudge is ever lost, or a job would stand still until the next restart: what is taken from the news stays in `_unread`
until its moves are written, an action that fails is postponed and done again, and doing any action twice is harmless.

`tick` is one step without waiting and without a sleep; `start` runs it in a thread whenever there is news.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import structlog

from lwr.core.job import ENDED_BY_OTHERS, TERMINAL, Job, JobKey, JobState, Move, check_job_id, conclude
from lwr.core.places import SETUP_AREAS
from lwr.core.ticket import Adoption, Observation
from lwr.core.wire import SetupRequest, Submission
from lwr.errors import Conflict, IllegalMove, StillEnding
from lwr.faults import fault
from lwr.server.housekeeping import Housekeeper
from lwr.server.ledger import Ledger
from lwr.server.staging import Stagers
from lwr.server.store import FileDigest, Origin, Store
from lwr.server.view import ManagerEntry, View

log = structlog.get_logger("lwr")

#: Between two looks for what has to be removed or has become old.
HOUSEKEEPING_INTERVAL_S = 60.0
#: How long a set-up waits for the attempt that it replaces to end.
REPLACE_TIMEOUT_S = 10.0
#: How many set-ups may wait so at a time: each holds a thread of the server's.
MOST_REPLACING = 2
#: News comes in bursts; after this moment's patience one step and one transaction do for all of it.
GATHER_S = 0.002
#: Before a step that failed (a full disk) is tried again.
RETRY_INTERVAL_S = 1.0


class Engine:
    """All jobs of one server. Methods are thread-safe; those that change something are durable on return."""

    def __init__(
        self,
        store: Store,
        view: View,
        stagers: Stagers,
        housekeeper: Housekeeper,
        ledger: Ledger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.view = view
        self._store = store
        self._stagers = stagers
        self._housekeeper = housekeeper
        self._ledger = ledger
        self._clock = clock
        self._news: SimpleQueue[tuple[str, Observation | None]] = SimpleQueue()  # by attempt; None: look at it
        self._unread: dict[str, list[Observation]] = {}  # taken from the news, not yet turned into moves
        self._postponed: SimpleQueue[str] = SimpleQueue()  # attempts whose action could not be done
        self._retry_at = 0.0  # monotonic
        self._replacing = threading.BoundedSemaphore(MOST_REPLACING)
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._locks = [threading.Lock() for _ in range(64)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ready = False
        self.on_move: Callable[[], object] = lambda: None  # told after each move of a job; must be quick

    # -- start and stop ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start managers and stagers, take up every job where the last server left it, and go on from there."""
        for entry in self.view.managers.values():
            Path(entry.staging_directory).mkdir(parents=True, exist_ok=True)
            entry.manager.start(self.report)
        self._stagers.start(self._postpone)
        self._housekeeper.start([entry.staging_directory for entry in self.view.managers.values()])
        self.recover()
        self._thread.start()
        self._ready = True

    def stop(self) -> None:
        """Stop and return when no thread is left. Jobs go on. May be called twice, or unstarted."""
        self._ready = False
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._stagers.stop()
        self._ledger.flush()
        for entry in self.view.managers.values():
            entry.manager.stop()
        self._housekeeper.stop()

    def recover(self) -> None:
        """Take up every unfinished job. Called by `start`, before any request."""
        adoptions: dict[str, list[Adoption]] = {name: [] for name in self.view.managers}
        orphans = 0
        for job, number in self._store.unfinished():
            if job.key.manager not in self.view.managers:
                orphans += 1
            elif job.state in (JobState.QUEUED, JobState.RUNNING):
                adoption = Adoption(job.attempt, job.key.job_id, number, self.view.layout(job), job.handle)
                adoptions[job.key.manager].append(adoption)
                if job.cancel_requested:
                    self._look_again(job.attempt)
            else:
                self._look_again(job.attempt)
        for name, adopted in adoptions.items():
            self.view.managers[name].manager.adopt(adopted)
        if orphans:
            log.warning("jobs of managers that are not configured any more", jobs=orphans)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._wake.wait(HOUSEKEEPING_INTERVAL_S if self._postponed.empty() else RETRY_INTERVAL_S):
                self._stopping.wait(GATHER_S)
            self._wake.clear()
            while time.monotonic() >= self._retry_at and not self._postponed.empty():
                self._look_again(self._postponed.get())
            try:
                self.tick()
            except Exception:
                # The thread must outlive a full disk; what could not be written yet is still unread.
                log.exception("engine step failed; trying again")
                self._stopping.wait(RETRY_INTERVAL_S)
                self._wake.set()

    # -- what clients ask ----------------------------------------------------------------------------------------

    def setup(
        self,
        key: JobKey,
        request: SetupRequest,
        *,
        patience_s: float = REPLACE_TIMEOUT_S,
        description: str = "",
        route: str = "",
    ) -> Job:
        """Make a job, or answer for the one that is there (again: see below).

        `description` is its own, if it is known, and `route` how its client will be told: one who was told of the
        attempt before on another route hears that this was cancelled.

        Not submitted yet: the same job. Over: a fresh attempt in the same place, the old tree removed. Submitted or
        running: it is cancelled and waited for, so long, then a fresh attempt.

        Raises:
            NotFound: no such manager. BadName: the id is not allowed.
            StillEnding: the old attempt has not ended yet. Conflict: its directory belongs to somebody else.
            Unavailable: the disk is full.
        """
        entry = self.view.entry(key.manager)
        check_job_id(key.job_id)
        self._housekeeper.check_room(entry.staging_directory)
        with self._held(key, patience_s):
            job = self._store.current(key)
            if job is None or job.cleaned_at is not None:
                return self._begin(key, request, entry, job, route)
            if job.state is JobState.NEW and not (job.cancel_requested or job.clean_requested):
                self.view.files(job).make(SETUP_AREAS)
                return job
            if not job.terminal:
                digest = _digest(description) if description else ""
                if not job.cancel_requested or job.makes_way_for != digest or job.route == route != "":
                    self._store.replace(job, digest, route)
                    log.info("job makes way for a fresh attempt", job=str(key))
                    self._look_again(job.attempt)
                self._wait_until_over(job, patience_s)
            return self._begin(key, request, entry, self._store.current(key), route)

    def _begin(self, key: JobKey, request: SetupRequest, entry: ManagerEntry, old: Job | None, route: str = "") -> Job:
        directory = os.path.join(entry.staging_directory, key.job_id)
        if old is not None:
            self._ledger.forget(old)
        if old is not None and old.cleaned_at is None:
            self._housekeeper.discard(old.directory)
        if os.path.lexists(directory):
            raise self._not_ours(key, directory)
        fresh = Job(
            seq=0, key=key, attempt=uuid.uuid4().hex, state=JobState.NEW, directory=directory,
            tool_id=request.tool_id, tool_version=request.tool_version, created_at=self._clock(), route=route,
        )  # fmt: skip
        fault("setup.before_commit")
        job = self._store.begin(fresh, replaces=old)
        if job is None:
            raise self._not_ours(key, directory)
        fault("setup.after_commit")
        self.view.files(job).make(SETUP_AREAS)
        log.info("job set up", job=str(key), tool=request.tool_id)
        return job

    def _not_ours(self, key: JobKey, directory: str) -> Conflict:
        other = self._store.in_directory(directory)
        if other is not None and other.key != key:
            return Conflict(
                f"The id {key.job_id} is taken by manager {other.key.manager}, which shares this staging directory.",
                f"Give manager {key.manager} a staging_directory of its own in job_managers.ini.",
            )
        return Conflict(
            f"The job directory {directory} is there already, and no job of this server owns it.",
            "Move it away on the server, or use another job id.",
        )

    def submit(
        self,
        key: JobKey,
        submission: Submission,
        setup: SetupRequest | None,
        origin: Origin = Origin(),  # noqa: B008  frozen
        *,
        patience_s: float = REPLACE_TIMEOUT_S,
    ) -> Job:
        """Accept a job's description. On return it and all files of the job are on disk for good.

        The equal description again: nothing happens and the same job is returned. With `setup` the job is set up
        first if it is not there, or if this asks for a fresh attempt (`_is_resubmission`).

        Raises:
            NotFound: no such job and no `setup`. Conflict: submitted already with another description, or over.
        """
        description = submission.canonical()
        job = self.view.job(key)
        if job is None and setup is None:
            raise self.view.unknown(key)
        half_made = job is not None and job.state is JobState.NEW and not job.cancel_requested
        if setup is not None and (job is None or half_made or self._is_resubmission(job, description)):
            job = self.setup(key, setup, patience_s=patience_s, description=description, route=origin.route)
        with self._held(key, patience_s):
            job = self.view.known(key)
            stored = self._store.submission(job)
            if stored is not None and stored[1] == description:
                return job
            if stored is not None or job.state is not JobState.NEW or job.cancel_requested or job.clean_requested:
                raise Conflict(
                    f"Job {key} is {job.state} already and was submitted with another description."
                    if stored is not None
                    else f"Job {key} cannot be submitted: it was cancelled.",
                    "Set the job up again to start a fresh attempt.",
                )
            self.view.files(job).settle()  # no more uploads are taken from here on
            self._ledger.settle(job)
            fault("submit.before_commit")
            try:
                job = self._store.submit(job, description, self._clock(), origin)
            except IllegalMove as error:
                raise Conflict(f"Job {key} was cancelled while it was submitted.") from error
            fault("submit.after_commit")
        log.info("job submitted", job=str(key))
        self._act(job)
        return job

    def refuse(self, key: JobKey, reason: str, route: str, submission: Submission | None) -> None:
        """Record that a job was refused, so that whoever asks for it hears why; told on `route`. For keys without a
        job, or with one that was cleaned. `submission` is its description if that could be read."""
        with self._lock(key):
            old = self._store.current(key)
            if old is None or old.cleaned_at is not None:
                now = self._clock()
                fresh = Job(
                    seq=0, key=key, attempt=uuid.uuid4().hex, state=JobState.NEW,
                    directory=self.view.expected_layout(key).root, created_at=now, cleaned_at=now, route=route,
                )  # fmt: skip
                description = submission.canonical() if submission else ""
                self._store.refuse(fresh, reason, route, description, replaces=old)
        self.on_move()

    def _is_resubmission(self, job: Job, description: str) -> bool:
        """Whether a description that carries its own set-up asks for a fresh attempt: another one than that which was
        submitted, or the same for a job that did not end by itself. (The same again otherwise is a repeat.)"""
        stored = self._store.submission(job)
        return stored is not None and (stored[1] != description or job.state in ENDED_BY_OTHERS)

    def is_repeat(self, key: JobKey, submission: Submission, *, is_old: bool) -> bool:
        """Whether a message with its own set-up says what was taken before, so that it changes nothing. Cleaned jobs
        count: what comes again from the past must not run again.

        Args:
            is_old: the broker or its sender says that it was sent before, so that the description of any
                attempt makes it a repeat; otherwise that of the latest, unless this did not end by itself.
        """
        description = submission.canonical()
        job = self.view.latest(key)
        if job is not None and job.makes_way_for == _digest(description):
            return False  # it was begun with: the old attempt ends for this one
        stored = self._store.submission(job) if job is not None else None
        if job is not None and stored is not None and stored[1] == description:
            return is_old or job.state not in ENDED_BY_OTHERS
        return is_old and self._store.was_submitted(key, description)

    def cancel(self, key: JobKey) -> None:
        """Ask for a job to be cancelled; unknown and finished jobs: nothing. The wish is durable on return."""
        job = self.view.job(key)
        if job is None or job.terminal or job.cancel_requested:
            return
        self._store.wish(job, cancel=True)
        fault("cancel.after_commit")
        log.info("job cancel requested", job=str(key))
        self._look_again(job.attempt)

    def clean(self, key: JobKey) -> None:
        """Remove a job's directory; a live job is cancelled first and removed when it is over. Unknown: nothing."""
        job = self.view.job(key)
        if job is None or self.view.entry(key.manager).keep_directories:
            return
        if job.terminal:
            self._remove(job)
        else:
            self._store.wish(job, cancel=True, clean=True)
            self._look_again(job.attempt)

    def _remove(self, job: Job) -> None:
        with self._lock(job.key):
            present = self._store.current(job.key)
            if present is None or present.attempt != job.attempt or present.cleaned_at is not None:
                return  # somebody was faster, or a fresh attempt lives in the directory now
            self._ledger.forget(job)
            self._store.wish(job, clean=True)  # so that a server that is killed here goes on with it
            fault("clean.before_rename")
            self._housekeeper.discard(job.directory)
            fault("clean.after_rename")
            self._store.cleaned([job], self._clock())
        log.info("job cleaned", job=str(job.key))

    def trouble(self, job: Job) -> str:
        """Why a file of a job that is being staged is tried again; empty when none is."""
        return "" if job.terminal else self._stagers.trouble(job)

    def problems(self) -> list[str]:
        """Why this server takes no jobs now, a sentence each; empty: it does."""
        if not self._ready:
            return ["The server is starting or stopping."]
        return self._housekeeper.problems([entry.staging_directory for entry in self.view.managers.values()])

    # -- what moves jobs -----------------------------------------------------------------------------------------

    def report(self, attempt: str, seen: Observation) -> None:
        """What managers call; returns at once."""
        self._news.put((attempt, seen))
        self._wake.set()

    def _look_again(self, attempt: str) -> None:
        self._news.put((attempt, None))
        self._wake.set()

    def _postpone(self, attempt: str) -> None:
        """Have an attempt looked at again after a while."""
        if self._postponed.empty():
            self._retry_at = time.monotonic() + RETRY_INTERVAL_S
        self._postponed.put(attempt)
        self._wake.set()

    def tick(self) -> None:
        """Take in all news, make the moves that follow, and set going what comes next. Never waits.

        Raises:
            Unavailable: the store takes no writes; the news is kept for the next call.
        """
        while not self._news.empty():
            attempt, observation = self._news.get()
            self._unread.setdefault(attempt, []).extend([observation] if observation else [])
        jobs = {a: job for a in self._unread if (job := self._store.by_attempt(a)) is not None}
        jobs |= self._observe(list(jobs.values()))
        self._unread.clear()
        for job in jobs.values():
            try:
                self._act(job)
            except Exception as error:
                log.warning("a job's next step is tried again", job=str(job.key), reason=str(error))
                self._postpone(job.attempt)
        self._housekeep()

    def _observe(self, jobs: list[Job]) -> dict[str, Job]:
        """Make the moves that the unread observations mean; returns the jobs that changed, by attempt."""
        moves = [(job, move) for job in jobs for move in _moves(job, self._unread[job.attempt])]
        if not moves:
            return {}
        fault("observe.before_commit")
        try:
            changed = self._move(moves)
        except IllegalMove:
            # A defect in one job's story must not stop the others: each for itself, the impossible ones dropped.
            changed = {}
            for job, move in moves:
                try:
                    changed |= self._move([(job, move)])
                except IllegalMove:
                    log.exception("observation dropped", job=str(job.key), state=str(job.state))
        fault("observe.after_commit")
        return changed

    def _act(self, job: Job) -> None:
        """Do what a job's state asks for now. Doing it twice is harmless; this is also how a restart goes on."""
        entry = self.view.managers.get(job.key.manager)
        if entry is None:
            return
        match job.state:
            case JobState.NEW if job.cancel_requested:
                self._finish(job, Move(JobState.CANCELLED, "cancelled before it was submitted"))
            case JobState.PREPROCESSING:
                self._stagers.prepare(job, self.view.layout(job), entry.manager, self._finish)
            case JobState.QUEUED | JobState.RUNNING if job.cancel_requested:
                entry.manager.cancel(job.attempt)
            case JobState.POSTPROCESSING:
                self._stagers.collect(job, self.view.layout(job), self._finish)
            case state if state in TERMINAL and job.clean_requested and job.cleaned_at is None:
                # Not here: the lock may be held by a set-up that waits for this thread.
                self._housekeeper.later(partial(self._remove, job))

    def _finish(self, job: Job, move: Move, digests: Mapping[str, FileDigest] | None = None) -> None:
        """Make one move and look at what it brings; what the stagers call from their threads."""
        for moved in self._move([(job, move)], digests).values():
            if moved.clean_requested:
                self._look_again(moved.attempt)

    def _move(self, moves: list[tuple[Job, Move]], digests: Mapping[str, FileDigest] | None = None) -> dict[str, Job]:
        changed = self._store.move(moves, self._clock(), digests)
        for job in changed:
            facts = {"reason": job.reason or None, "exit_code": job.exit_code}
            told = {name: fact for name, fact in facts.items() if fact is not None}
            log.info("job moved", job=str(job.key), state=str(job.state), **told)
        self.on_move()
        with self._changed:
            self._changed.notify_all()
        return {job.attempt: job for job in changed}

    def _housekeep(self) -> None:
        now = self._clock()
        if self._housekeeper.due(now, HOUSEKEEPING_INTERVAL_S):
            self._ledger.flush()
            for job in self._housekeeper.abandoned(now):
                if job.key.manager in self.view.managers and not self.view.managers[job.key.manager].keep_directories:
                    log.info("abandoned job is removed", job=str(job.key), state=str(job.state))
                    self._store.wish(job, cancel=not job.terminal, clean=True)
                    self._look_again(job.attempt)

    # -- small parts ---------------------------------------------------------------------------------------------

    def _lock(self, key: JobKey) -> threading.Lock:
        return self._locks[hash(key) % len(self._locks)]

    @contextlib.contextmanager
    def _held(self, key: JobKey, patience_s: float) -> Iterator[None]:
        """The lock of a job; raises StillEnding when somebody else makes a fresh attempt for longer than that."""
        lock = self._lock(key)
        if not lock.acquire(timeout=patience_s + 1.0):
            raise StillEnding(f"Job {key} is being set up by somebody else.", "Try again in a few seconds.")
        try:
            yield
        finally:
            lock.release()

    def _wait_until_over(self, job: Job, patience_s: float) -> None:
        def over() -> bool:
            now = self._store.by_attempt(job.attempt)
            return now is None or now.terminal

        ended = False
        if self._replacing.acquire(blocking=False):
            try:
                with self._changed:
                    ended = self._changed.wait_for(over, timeout=patience_s)
            finally:
                self._replacing.release()
        if not ended:
            raise StillEnding(
                f"Job {job.key} was set up again while it ran, and it has not ended yet.",
                "It is being cancelled; try again in a few seconds.",
            )


def _digest(description: str) -> str:
    return hashlib.sha256(description.encode()).hexdigest()


def _moves(job: Job, seen: list[Observation]) -> list[Move]:
    moves: list[Move] = []
    state = job.state
    for observation in seen:
        for move in conclude(state, job.cancel_requested, observation):
            moves.append(move)
            state = move.to
    return moves
