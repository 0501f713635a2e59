"""What happens in the life of a job, told one by one as small values. Draws nothing, does nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lwr.errors import LwrError
from lwr.transfer.partial import Transferred


@dataclass(frozen=True, slots=True)
class SetUp:
    """The job has its directory on the server, or will have it at that place."""

    job_id: str
    directory: str


@dataclass(frozen=True, slots=True)
class StageBegun:
    """So many files are about to be moved. `upward`: to the server. `size_bytes` is None where nobody knows it."""

    upward: bool
    files_count: int
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class Moving:
    """Bytes of a file are on their way; several files may be at once, and of each these come in order."""

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


Event = GivingUp | SetUp | StageBegun | Moving | Moved | Submitted | StateChanged | Retrying
OnEvent = Callable[[Event], None]


def nobody(_: Event) -> None:
    """Nobody wants to know."""
