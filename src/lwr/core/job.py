"""What a job is, the states it may be in, and the one law of how it moves between them.

Everything that decides about states lives in this file: `TRANSITIONS` (the law), `advance` (the judge) and
`conclude` (what an observation means). The store repeats the law as a trigger, made from the same table; the
diagram in the documentation is drawn from it. Must not know who runs jobs, who asks for them, or where rows live.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from lwr.core.places import is_windows_device
from lwr.core.ticket import Observation, Phase
from lwr.errors import BadName, IllegalMove


class JobState(StrEnum):
    """Where a job stands. The value is what the store holds."""

    NEW = "new"  # set up; files may arrive; not submitted
    PREPROCESSING = "preprocessing"  # submitted; the server stages in and hands it to its manager
    QUEUED = "queued"  # the manager has it
    RUNNING = "running"  # its command runs
    POSTPROCESSING = "postprocessing"  # its command ended; results are collected
    COMPLETE = "complete"  # the command ended by itself, with whatever exit code
    FAILED = "failed"  # LWR could not do its part; `reason` says what
    CANCELLED = "cancelled"  # somebody asked for it, and no process of it is left
    LOST = "lost"  # it was started, and nobody can say how it ended


_S = JobState

#: The law. A pair that is not listed is an error; the same state again is silence; a terminal state is closed.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.NEW: frozenset({_S.PREPROCESSING, _S.FAILED, _S.CANCELLED}),
    _S.PREPROCESSING: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    # Straight to POSTPROCESSING: a job that was faster than the look at it.
    _S.QUEUED: frozenset({_S.RUNNING, _S.POSTPROCESSING, _S.FAILED, _S.CANCELLED, _S.LOST}),
    # Back to QUEUED: the scheduler preempted or requeued it.
    _S.RUNNING: frozenset({_S.QUEUED, _S.POSTPROCESSING, _S.FAILED, _S.CANCELLED, _S.LOST}),
    _S.POSTPROCESSING: frozenset({_S.COMPLETE, _S.FAILED, _S.CANCELLED}),
    _S.COMPLETE: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.LOST: frozenset(),
}

TERMINAL: frozenset[JobState] = frozenset(state for state, onward in TRANSITIONS.items() if not onward)
LIVE: frozenset[JobState] = frozenset(TRANSITIONS) - TERMINAL
#: Ends that are not the command's own, so that asking for the same job again is a wish for a fresh attempt.
ENDED_BY_OTHERS: frozenset[JobState] = frozenset({_S.FAILED, _S.LOST, _S.CANCELLED})
CANCELLED_REASON = "cancelled on request"
_WITH_MANAGER = frozenset({_S.PREPROCESSING, _S.QUEUED, _S.RUNNING})


def advance(current: JobState, wanted: JobState) -> bool:
    """Judge a move.

    Returns True when the move is legal, False when it is silence (the same state again).

    Raises:
        IllegalMove: the table does not list it.
    """
    if current is wanted:
        return False
    if wanted in TRANSITIONS[current]:
        return True
    raise IllegalMove(f"A job cannot go from {current} to {wanted}.")


class JobKey(NamedTuple):
    """What names a job to its client: the manager it was sent to and the id it goes by there."""

    manager: str
    job_id: str

    def __str__(self) -> str:
        return self.job_id if self.manager == DEFAULT_MANAGER else f"{self.manager}/{self.job_id}"


DEFAULT_MANAGER = "_default_"

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MANAGER = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_job_id(job_id: str) -> str:
    """Return `job_id` when it may name a job on any platform.

    Raises:
        BadName: anything else; the id is then shown with `repr`, cut short, so that it can stand in a log line.
    """
    if not _ID.fullmatch(job_id) or job_id.endswith(".") or is_windows_device(job_id):
        raise BadName(
            f"{job_id[:60]!r} cannot be a job id.",
            "Ids have 1 to 128 of A-Z a-z 0-9 _ . -, begin with a letter, digit or _, do not end with a full stop "
            "and are not a Windows device name.",
        )
    return job_id


def check_manager_name(name: str) -> str:
    """Return `name` when it may name a manager; raises BadName otherwise."""
    if not _MANAGER.fullmatch(name) or not name.strip("."):
        raise BadName(f"{name[:60]!r} cannot be a manager's name.", "Names have 1 to 64 of A-Z a-z 0-9 _ . -.")
    return name


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one job, as the store's row has it. Times are seconds since the epoch."""

    seq: int  # position among all attempts; grows
    key: JobKey
    attempt: str  # 32 hex digits, unguessable: what its processes carry in their environment
    state: JobState
    directory: str  # absolute path of the job's directory on this machine
    tool_id: str = ""
    tool_version: str = ""
    submitted: bool = False
    cancel_requested: bool = False
    clean_requested: bool = False
    handle: str = ""  # what the manager knows it by once it has one
    exit_code: int | None = None
    reason: str = ""  # of the latest move; the sentence for people
    created_at: float = 0.0
    submitted_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    cleaned_at: float | None = None
    route: str = ""  # how its client is told of it (lwr.core.messages); empty for one that asks
    makes_way_for: str = ""  # digest of the description for which it is ended, if it is

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


@dataclass(frozen=True, slots=True)
class Move:
    """A wanted change of a job: its next state and the facts that come with it."""

    to: JobState
    reason: str = ""
    exit_code: int | None = None
    handle: str = ""


def conclude(state: JobState, cancel_requested: bool, seen: Observation) -> tuple[Move, ...]:
    """Say what an observation means for a job that was handed to its manager: the moves to make, in order.

    A job in PREPROCESSING that its manager speaks of has arrived there, so it is QUEUED first. For a job in any
    other state than PREPROCESSING, QUEUED and RUNNING it is late news: no moves. A wish to cancel wins over every
    way of ending.
    """
    if state not in _WITH_MANAGER:
        return ()
    match seen.phase:
        case Phase.WAITING:
            move = Move(JobState.QUEUED, seen.reason, handle=seen.handle)
        case Phase.RUNNING:
            move = Move(JobState.RUNNING, seen.reason, handle=seen.handle)
        case _ if cancel_requested:
            return (Move(JobState.CANCELLED, CANCELLED_REASON, exit_code=seen.exit_code),)
        case Phase.ENDED:
            move = Move(JobState.POSTPROCESSING, seen.reason, exit_code=seen.exit_code)
        case Phase.GONE:
            move = Move(JobState.LOST, seen.reason)
        case Phase.REFUSED:
            return (Move(JobState.FAILED, seen.reason),)
    if state is JobState.PREPROCESSING and move.to is not JobState.QUEUED:
        return (Move(JobState.QUEUED), move)
    return (move,) if move.to is not state or move.handle else ()
