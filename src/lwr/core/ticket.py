"""What a manager is given (`Ticket`) and all that it may say back (`Observation`).

The language between the engine and the managers. Must not know the states of a job: managers report what they
see, and `lwr.core.job.conclude` decides what that means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lwr.core.places import JobLayout


class Phase(StrEnum):
    """What a manager sees of an attempt."""

    WAITING = "waiting"  # accepted, not started (or put back into the queue)
    RUNNING = "running"  # its script runs
    ENDED = "ended"  # over; `exit_code` is what its exit file or the accounting says
    GONE = "gone"  # over or never there, and nothing says how it ended
    REFUSED = "refused"  # it will never start; `reason` says why


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at one attempt.

    Args:
        phase: what was seen. Silence of a scheduler is not an observation: say nothing then.
        exit_code: with ENDED: 0 to 255 as the command gave it, negative for death by that signal.
        reason: a sentence for people, where the phase needs one.
        handle: what the manager knows the attempt by, to be given back in `Adoption` after a restart.
    """

    phase: Phase
    exit_code: int | None = None
    reason: str = ""
    handle: str = ""


@dataclass(frozen=True, slots=True)
class EnvItem:
    """One step of a job's environment: exactly one of `name` with `value`, `file` or `execute` is set.

    `raw` says that `value` (or `file`) is shell text to be used as it stands; otherwise it is data.
    """

    name: str = ""
    value: str = ""
    file: str = ""
    execute: str = ""
    raw: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """All that a manager needs to run one attempt, and nothing else.

    Args:
        attempt: 32 hex digits; the marker that the job's processes carry, and the manager's name for it.
        job_id: for people: job names on a cluster, log lines.
        order: smaller goes first.
        layout: the job's directories on this machine.
        command_line: shell text, run with `working` as its directory.
        env: steps to take before the command, in order.
        params: what the client asked of the manager (`native_specification`, `user`, ...).
    """

    attempt: str
    job_id: str
    order: int
    layout: JobLayout
    command_line: str
    env: tuple[EnvItem, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoption:
    """An attempt that the manager was given before a restart; `handle` is the last one that it reported."""

    attempt: str
    job_id: str
    order: int
    layout: JobLayout
    handle: str = ""
