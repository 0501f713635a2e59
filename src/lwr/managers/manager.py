"""What every manager promises (`JobManager`), and the table of the kinds of manager.

Knows tickets and observations. Must not know a job's state, the store, HTTP or who asked. A kind of manager joins
through the entry-point group `lwr.managers` (name: the `type` in job_managers.ini; object: a `ManagerKind`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol

from lwr.core.script import Site as Site
from lwr.core.ticket import Adoption, Observation, Ticket

#: What a manager tells about an attempt, by its marker. Must be called from any thread, returns at once, never raises.
Report = Callable[[str, Observation], None]


class JobManager(Protocol):
    """Runs attempts one way. All methods may be called from any thread; `attempt` is the ticket's marker."""

    def start(self, report: Report) -> None:
        """Begin to work. Called once, before anything else.

        Every change of an attempt is reported, in its order, at least once; the same may be reported again.
        """

    def stop(self) -> None:
        """Stop working and return when no thread of the manager is left. Jobs go on. May be called twice, or
        without `start`. Nothing is reported afterwards."""

    def submit(self, ticket: Ticket) -> None:
        """Take an attempt.

        On return its script is on disk for good and the attempt will be started at most once, now or later, also
        if it is submitted again or adopted; WAITING (or later phases) will be reported by this call or after it.

        Raises:
            ManagerError: it was not taken, nothing will be started; `transient` says whether trying again helps.
        """

    def adopt(self, adoptions: Iterable[Adoption]) -> None:
        """Take back attempts that were submitted before, in an earlier life of the server or up to their script.

        What each is doing now is reported: WAITING, RUNNING (found again), ENDED (with the code of its exit file)
        or GONE. An attempt that was not started yet keeps its place by `order`, and a cancel takes it out. Called
        after `start`; may be called again; what is known already is left as it is.
        """

    def cancel(self, attempt: str) -> None:
        """End an attempt: it will not start any more, and all its processes are made to end.

        Returns at once. When no process of it is left, ENDED or GONE is reported (GONE if it never started).
        An unknown or finished attempt: nothing happens. May be called again.
        """


@dataclass(frozen=True, slots=True)
class ManagerOption:
    """An option that a kind of manager takes in its section.

    `parse` turns the text into a value or raises ValueError with the sentence for the admin.
    """

    name: str
    default: str
    doc: str
    parse: Callable[[str], object] = str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ManagerKind:
    """A `type` of job_managers.ini.

    Args:
        build: (manager's name, parsed values of `options` by name, site) -> manager, not started. Raises
            ConfigError for values that cannot work together or on this machine.
        options: all that the section may hold besides the options of every manager.
        doc: a sentence for the reference and for `lwr config check`.
    """

    build: Callable[[str, Mapping[str, object], Site], JobManager]
    doc: str
    options: tuple[ManagerOption, ...] = ()


def manager_kinds() -> dict[str, ManagerKind]:
    """All kinds that are installed, by `type`: LWR's own and those of third parties."""
    return {point.name: point.load() for point in entry_points(group="lwr.managers")}
