"""How the whole server is at one moment: what the status screen, the metrics and the probes tell.

Gathers what other parts know of themselves and adds the room on the disks. Must not know who asks, nor how it is shown.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lwr.core.job import JobState
from lwr.server.view import ManagerEntry

if TYPE_CHECKING:  # a server without a queue needs no kombu
    from lwr.server.amqp import QueueHealth
    from lwr.transfer.broker import LinkState

#: A line to the broker that is made again within this time is not worth an alarm. The first one is: before it stands,
#: the broker may have no queue for what clients send.
GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class Disk:
    """The room where a directory is; None where that cannot be told."""

    directory: str
    free_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """What was seen in one look. Times are seconds since the epoch.

    Args:
        problems: why the server takes no jobs, each with what to do; empty: it is ready.
        managers: those that are configured, by name.
        jobs: how many are in each state, by manager; None when the disk does not answer. Managers without jobs, and
            states without any, are left out.
        transfers: (running, waiting) files that the server moves itself.
        queue: None without a message queue, and when the disk does not answer.
    """

    at: float
    started_at: float
    problems: tuple[str, ...]
    managers: Mapping[str, ManagerEntry]
    jobs: Mapping[str, Mapping[JobState, int]] | None = None
    transfers: tuple[int, int] | None = None
    disks: tuple[Disk, ...] = ()
    queue: QueueHealth | None = None

    @property
    def broker(self) -> str:
        """`connected` or `away`; empty without a queue."""
        if self.queue is None:
            return ""
        return "connected" if all(link.connected for link in links(self.queue).values()) else "away"


@dataclass(frozen=True, slots=True)
class Lookout:
    """Looks at the parts of one server. `look` and `blind` may be called from any thread.

    Args:
        counts, problems, transfers, health: ask the parts; all but `transfers` may block, for ever even.
        directories: whose disks are looked at.
        clock: seconds since the epoch.
    """

    managers: Mapping[str, ManagerEntry]
    counts: Callable[[], Mapping[str, Mapping[JobState, int]]]
    problems: Callable[[], Sequence[str]]
    transfers: Callable[[], tuple[int, int]]
    health: Callable[[], QueueHealth | None]
    directories: Sequence[str]
    started_at: float
    clock: Callable[[], float] = time.time

    def look(self) -> Condition:
        """Everything as it is now; blocks where a disk does."""
        queue, now = self.health(), self.clock()
        return Condition(
            at=now,
            started_at=self.started_at,
            problems=(*self.problems(), *_broker_problems(queue, now)),
            managers=self.managers,
            jobs=self.counts(),
            transfers=self.transfers(),
            disks=tuple(_disk(directory) for directory in self.directories),
            queue=queue,
        )

    def blind(self) -> Condition:
        """What can be said when a look does not come back. Never blocks."""
        problem = "The disk does not answer. Look at the mounts of the directories in server.ini."
        return Condition(self.clock(), self.started_at, (problem,), self.managers)


def links(queue: QueueHealth) -> dict[str, LinkState]:
    """The server's connections to its broker, by what they are for: those that it is meant to have."""
    both = {"consumer": queue.consumer, "publisher": queue.publisher}
    return {name: link for name, link in both.items() if link is not None}


def _broker_problems(queue: QueueHealth | None, now: float) -> list[str]:
    """One text for all connections that are away for the same reason."""
    if queue is None:
        return []
    away: dict[str, list[str]] = {}
    for name, link in links(queue).items():
        if not link.connected and (
            not queue.was_reached or abs(now - link.since) > GRACE_S
        ):  # a clock that was set back
            away.setdefault(link.reason, []).append(f"{name} (for {now - link.since:.0f} s)")
    return [
        f"The broker {queue.broker} is not reached by the {' and the '.join(names)}. LWR tries again by itself, and "
        f"nothing is lost meanwhile. What it met: {reason or 'no answer'}"
        for reason, names in away.items()
    ]


def _disk(directory: str) -> Disk:
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return Disk(directory)
    return Disk(directory, usage.free, usage.total)
