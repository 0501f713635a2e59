"""Jobs on this machine: `queued_python` (so many at a time, first come first served) and `unqueued` (all at once).

One thread whatever the number of jobs. It sleeps until a process ends, a caller rings or a timer is due; callers put
what they want into an inbox and return. Nothing is kept here that a restart needs: the script, its start marker, its
exit file and the processes themselves say what became of an attempt (`_take_up`). Must not know jobs or the store;
what is special to an operating system is in `processes`.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from lwr.core.places import JobLayout
from lwr.core.script import NO_ROOM_STATUS, REFUSED_STATUS
from lwr.core.ticket import Adoption, Observation, Phase, Ticket
from lwr.faults import fault
from lwr.managers.loop import RETRY_S, Loop
from lwr.managers.manager import ManagerKind, ManagerOption, Report, Site
from lwr.managers.processes import Process, Tree, core_count, find, job_environment, list_processes, signal_name, spawn
from lwr.managers.scriptfiles import last_words, may_pass, read_exit_code, read_marker, take_marker, write_script

#: How long processes may take to end by themselves after a cancel's SIGTERM.
GRACE_S = 2.0
#: Between two looks at the processes of cancelled jobs: at first, and when they do not end.
SWEEP_S, SLOW_SWEEP_S = 0.02, 1.0
#: How long a script may take from making its start marker to writing its number there.
MARKER_WAIT_S = 1.0
#: The handle of an attempt whose start came to nothing: that of its process would say after a restart that it ran.
PUT_BACK = "-"


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    """An attempt, as small as can be: ten thousand of them wait."""

    order: int
    attempt: str
    layout: JobLayout = field(compare=False)


@dataclass(slots=True, eq=False)
class _Run:
    """An attempt whose script runs or has just ended. With `tree` all its processes are being ended."""

    entry: _Entry
    process: Process
    tree: Tree | None = None
    kill_at: float = 0.0
    empty_sweeps: int = 0


class LocalManager:
    """A `JobManager` for this machine.

    Args:
        slots: how many scripts may run at a time; None: all.
        grace_s: between SIGTERM and SIGKILL.
        marker_wait_s: how long a start marker may stay empty before its script is given up.
        environ: the server's environment, from which the jobs' is made.
    """

    def __init__(
        self, slots: int | None, site: Site, grace_s: float = GRACE_S, marker_wait_s: float = MARKER_WAIT_S,
        environ: Mapping[str, str] = os.environ,
    ) -> None:  # fmt: skip
        self._slots = slots
        self._site = site
        self._grace_s = grace_s
        self._marker_wait_s = marker_wait_s
        self._environ = environ
        self._report: Report = _report_to_nobody
        self._loop = Loop("local-manager", self._start_next)
        # From here on: touched by the loop's thread alone.
        self._queue: list[_Entry] = []
        self._waiting: dict[str, _Entry] = {}
        self._runs: dict[str, _Run] = {}
        # In neither, as it is being found out where they belong, and whether they are to be cancelled then.
        self._unclear: dict[str, bool] = {}
        self._paused = False
        self._sweep_due = math.inf

    # -- the promise (see `JobManager`) ------------------------------------------------------------------------------

    def start(self, report: Report) -> None:
        self._report = report
        self._loop.start()

    def stop(self) -> None:
        self._loop.stop()
        while self._runs:
            self._forget(self._runs.popitem()[1])

    def submit(self, ticket: Ticket) -> None:
        write_script(ticket, self._site)
        entry = _Entry(ticket.order, ticket.attempt, ticket.layout)
        self._loop.tell(lambda: self._wait_for_slot(entry))

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        taken = [(_Entry(one.order, one.attempt, one.layout), one.handle) for one in adoptions]
        # In one piece, so that nothing is started before all that run have their slots and all that wait their place.
        self._loop.tell(lambda: self._adopt(taken))

    def cancel(self, attempt: str) -> None:
        self._loop.tell(lambda: self._cancel(attempt))

    # -- waiting and starting ----------------------------------------------------------------------------------------

    def _wait_for_slot(self, entry: _Entry) -> None:
        if not self._knows(entry):
            self._queue_up(entry, Observation(Phase.WAITING))

    def _knows(self, entry: _Entry) -> bool:
        return any(entry.attempt in known for known in (self._waiting, self._runs, self._unclear))

    def _queue_up(self, entry: _Entry, seen: Observation) -> None:
        self._waiting[entry.attempt] = entry
        heapq.heappush(self._queue, entry)
        self._report(entry.attempt, seen)

    def _start_next(self) -> bool:
        """Start one attempt if there is room, so that ends are heard of before the next one."""
        # Entries that were cancelled stay in the heap until they come up.
        while self._queue and self._queue[0].attempt not in self._waiting:
            heapq.heappop(self._queue)
        if not self._queue or self._paused or (self._slots is not None and len(self._runs) >= self._slots):
            return False
        entry = self._queue[0]
        try:
            process = self._spawn(entry)
        except OSError as error:
            if may_pass(error):
                self._pause()
                return False
            self._leave_queue(entry)
            self._report(entry.attempt, Observation(Phase.REFUSED, reason=f"The job could not be started: {error}."))
            return True
        self._leave_queue(entry)
        if process is None:
            self._clear_up(entry)
        else:
            self._follow(entry, process)
        return True

    def _spawn(self, entry: _Entry) -> Process | None:
        """Start an attempt's script; None when its start marker is taken: it was submitted again."""
        if read_marker(entry.layout) is not None:
            return None
        fault("start.before_spawn")
        process = spawn(entry.layout, job_environment(self._environ, entry.attempt))
        fault("start.after_spawn")
        return process

    def _leave_queue(self, entry: _Entry) -> None:
        heapq.heappop(self._queue)
        del self._waiting[entry.attempt]

    def _pause(self) -> None:
        self._paused = True
        self._loop.later(RETRY_S, self._go_on)

    def _go_on(self) -> None:
        self._paused = False

    def _follow(self, entry: _Entry, process: Process) -> None:
        run = self._runs[entry.attempt] = _Run(entry, process)
        self._loop.at_end(process, partial(self._ended, run))
        self._report(entry.attempt, Observation(Phase.RUNNING, handle=process.handle))
        fault("start.after_report")

    # -- ends, and what is found after a restart -----------------------------------------------------------------------

    def _ended(self, run: _Run) -> None:
        # One that is being cancelled is not over before its whole tree is: `_sweep`.
        if run.tree is None:
            self._loop.persist(partial(self._conclude, run))

    def _conclude(self, run: _Run) -> None:
        """Say how a run that is over ended. OSError, with nothing changed, while that cannot be looked at."""
        entry, process = run.entry, run.process
        if self._runs.get(entry.attempt) is not run:
            return
        status = process.exit_status()
        marker, code = read_marker(entry.layout), read_exit_code(entry.layout)
        if code is None and run.tree is None and (status is None or status < 0):
            # The script was killed before it could write its exit file. What it had started may go on, and must not
            # write into the results of a job that is over.
            self._end_tree(run)
            return
        del self._runs[entry.attempt]
        self._forget(run)
        nothing_ran = status in (REFUSED_STATUS, NO_ROOM_STATUS) and marker != process.pid
        # The command of a job that removed its own directory may have ended with such a number too.
        if nothing_ran and os.path.lexists(entry.layout.script):
            if status == NO_ROOM_STATUS:
                self._pause()
            self._clear_up(entry, PUT_BACK, refused=status == REFUSED_STATUS, cancelled=run.tree is not None)
            return
        fault("end.before_report")
        self._report(entry.attempt, last_words(code, signal_name(-status) if status and status < 0 else "", status))

    def _forget(self, run: _Run) -> None:
        if run.tree is not None:
            run.tree.release()
        run.process.release()

    def _adopt(self, adoptions: list[tuple[_Entry, str]]) -> None:
        for entry, handle in adoptions:
            if not self._knows(entry):
                self._clear_up(entry, handle)

    def _clear_up(self, entry: _Entry, handle: str = "", *, refused: bool = False, cancelled: bool = False) -> None:
        """Find out what an attempt that somebody else may have started is doing, and go on with it. `refused`: its
        script has just said that another one, from before a crash, has it, or that none can make the marker."""
        self._unclear[entry.attempt] = cancelled
        give_up_at = time.monotonic() + self._marker_wait_s
        self._loop.persist(partial(self._take_up, entry, handle, give_up_at, refused=refused))

    def _take_up(self, entry: _Entry, handle: str, give_up_at: float, *, refused: bool) -> None:
        """One look for `_clear_up`. Raises OSError, with nothing changed, while that cannot be looked at."""
        marker = read_marker(entry.layout)
        known_pid = handle.partition(":")[0]
        process = find(int(known_pid), entry.attempt, handle) if known_pid.isdecimal() else None
        if process is None and marker:
            process = find(marker, entry.attempt)
        # Read after the look for the process: a script writes its exit file before it ends.
        code = None if process is not None else read_exit_code(entry.layout)
        if process is None and code is None and marker == 0 and time.monotonic() < give_up_at:
            # A script is writing its number there; on a full disk it gives the marker back.
            again = partial(self._take_up, entry, handle, give_up_at, refused=False)
            self._loop.later(SWEEP_S, partial(self._loop.persist, again))
            return
        if process is not None:
            self._follow(entry, process)
        elif code is not None or marker is not None or handle not in ("", PUT_BACK):
            self._report(entry.attempt, last_words(code))
        elif refused:
            reason = "The job's script could not make its start marker in the job's directory."
            self._report(entry.attempt, Observation(Phase.REFUSED, reason=reason))
        else:
            reason = "The job's directory had no room for its start; it is tried again." if handle else ""
            self._queue_up(entry, Observation(Phase.WAITING, reason=reason, handle=handle))
        if self._unclear.pop(entry.attempt):
            self._cancel(entry.attempt)

    # -- cancelling ----------------------------------------------------------------------------------------------------

    def _cancel(self, attempt: str) -> None:
        entry, run = self._waiting.pop(attempt, None), self._runs.get(attempt)
        if entry is not None:
            self._unclear[attempt] = True
            self._loop.persist(partial(self._end_unstarted, entry))
        elif attempt in self._unclear:
            self._unclear[attempt] = True
        elif run is not None and run.tree is None:
            self._end_tree(run)

    def _end_tree(self, run: _Run) -> None:
        run.tree = Tree(run.entry.attempt, run.process)
        run.kill_at = time.monotonic() + self._grace_s
        self._plan_sweep(0.0)

    def _end_unstarted(self, entry: _Entry) -> None:
        try:
            # A script that was spawned just before a crash may still be on its way to the marker.
            never_started = take_marker(entry.layout)
        except FileNotFoundError:
            never_started = True
        if never_started:
            del self._unclear[entry.attempt]
            self._report(entry.attempt, Observation(Phase.GONE, reason="The job was cancelled before it started."))
        else:
            self._clear_up(entry, cancelled=True)

    def _plan_sweep(self, delay_s: float) -> None:
        due = time.monotonic() + delay_s
        if due < self._sweep_due:
            self._sweep_due = due
            self._loop.later(delay_s, partial(self._loop.persist, self._sweep))

    def _sweep(self) -> None:
        """Look once at all processes of this machine for all runs that are being cancelled, and again later."""
        now = time.monotonic()
        if now < self._sweep_due:
            return
        table, delays_s = list_processes(), []
        for run in [run for run in self._runs.values() if run.tree is not None]:
            left = run.tree is not None and run.tree.sweep(table, force=now >= run.kill_at)
            fault("cancel.after_sweep")
            run.empty_sweeps = 0 if left else run.empty_sweeps + 1
            if run.empty_sweeps >= 2:
                self._loop.persist(partial(self._conclude, run))
            else:
                delays_s.append(self._pause_s(run, now) if left else SWEEP_S)
        self._sweep_due = math.inf
        if delays_s:
            self._plan_sweep(min(delays_s))

    def _pause_s(self, run: _Run, now: float) -> float:
        """Long looks for those that take long, beginning anew with the SIGKILL, which comes on time."""
        if now < run.kill_at:
            waited_s = now - (run.kill_at - self._grace_s)
            return min(max(SWEEP_S, waited_s / 4), run.kill_at - now)
        return min(max(SWEEP_S, (now - run.kill_at) / 4), SLOW_SWEEP_S)


def _report_to_nobody(attempt: str, seen: Observation) -> None:
    """Before `start` there is nobody to tell."""


# -- the kinds of manager ------------------------------------------------------------------------------------------


def _slots(text: str) -> int:
    if text.strip() == "*":
        return core_count()
    if not text.strip().isdecimal():
        raise ValueError(f"{text!r} is neither a number of jobs (0 or more) nor `*` for the number of cores.")
    return int(text)


def _build_queued(name: str, options: Mapping[str, object], site: Site) -> LocalManager:
    slots = options["num_concurrent_jobs"]
    assert isinstance(slots, int)
    return LocalManager(slots, site)


def _build_unqueued(name: str, options: Mapping[str, object], site: Site) -> LocalManager:
    return LocalManager(None, site)


QUEUED_PYTHON = ManagerKind(
    build=_build_queued,
    doc="Runs so many jobs at a time on this machine, in the order in which they came.",
    options=(
        ManagerOption(
            name="num_concurrent_jobs",
            default="1",
            doc="How many jobs run at a time; `*` for one for each core, 0 to queue jobs and start none.",
            parse=_slots,
            aliases=("max_concurrent_jobs",),
        ),
    ),
)
UNQUEUED = ManagerKind(build=_build_unqueued, doc="Starts every job on this machine at once.")
