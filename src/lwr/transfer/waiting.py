"""Which of many transfers is tried next, and what waits for what.

The order behind `lwr.transfer.runner`, which owns the threads: here is no clock (each call is told the time), no lock
(the runner has one) and nothing that blocks. An `owner` is a word that some tasks share, a `host` another.
"""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count

from lwr.errors import BadTransfer, LwrError, PeerRefused
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.partial import Transferred
from lwr.transfer.tasks import MOST_PAUSE_S, History, Task, Tries, Try, given_up, judge, pause_after_s, speaks_of_host


class State(Enum):
    WAITING = auto()  # for a slot, or for its host
    RESTING = auto()  # until its pause is over
    RUNNING = auto()
    OVER = auto()


@dataclass(slots=True, eq=False)
class Entry:
    """A task and how it stands. Made and changed by `Waiting` alone."""

    task: Task
    deadline_s: float
    tries: Tries
    large: bool
    state: State = State.WAITING
    history: History = field(default_factory=History)
    best_bytes: int = 0
    error: LwrError | None = None  # of its last try
    current: Try | None = None  # while it runs
    cancelled: bool = False
    unlimited: bool = False  # runs among the large ones
    host_round: int = 0  # its host's, when its try began


@dataclass(slots=True)
class _Host:
    """What is known of a host. It is in trouble from a failure that speaks of it until something works again: then one
    task in each pause finds out, whoever it belongs to, however many wait."""

    running: int = 0
    unlimited: int = 0
    live: int = 0  # tasks that are not over
    failures: int = 0
    round: int = 0  # of failures: several at once are one
    pause_s: float = 0.0
    open_at_s: float = 0.0
    error: LwrError | None = None


@dataclass(slots=True)
class _Owner:
    """The tasks of an owner: those that wait, by size and host, and all that are not over."""

    large: dict[str, deque[Entry]] = field(default_factory=dict)
    others: dict[str, deque[Entry]] = field(default_factory=dict)
    unlimited: int = 0  # that run among the large ones
    live: dict[Entry, None] = field(default_factory=dict)
    troubled: dict[Entry, None] = field(default_factory=dict)


def _a_little() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311 - it spreads load


class Waiting:
    """All tasks that are not over, and who is next.

    The owners take turns. Slots without a limit prefer what is known to be large: it takes longest, and the rest has a
    lane of its own. Of a host's slots one is kept for that lane (unless there is only one), so that a small file never
    waits behind large ones there either. Nor has an owner ever all slots without a limit (unless there is only one):
    turns are of no use to who comes when none gets free.
    """

    def __init__(
        self,
        slots_per_host_count: int,
        slots_per_owner_count: int,
        timeout_s: float,
        jitter: Callable[[], float] = _a_little,
    ) -> None:
        self._timeout_s = timeout_s
        self._per_owner = slots_per_owner_count
        self._per_host = slots_per_host_count
        self._unlimited_per_host = max(1, slots_per_host_count - 1)
        self._jitter = jitter
        self._owners: OrderedDict[str, _Owner] = OrderedDict()
        self._hosts: dict[str, _Host] = {}
        # As all have the same time, those whose deadline is next come first.
        self._by_age: OrderedDict[Entry, None] = OrderedDict()
        self._resting: list[tuple[float, int, Entry]] = []
        self._numbers = count()

    def add(self, task: Task, now_s: float) -> None:
        entry = Entry(task, now_s + self._timeout_s, Tries(now_s), task.large is True)
        owner = self._owners.setdefault(task.owner, _Owner())
        owner.live[entry] = None
        self._by_age[entry] = None
        self._hosts.setdefault(task.host, _Host()).live += 1
        self._queue(entry)

    def take(self, now_s: float, *, small: bool, most_bytes: int) -> Entry | None:
        """The next entry for a free slot, now RUNNING, with its `current` try; None when none may run now.

        `small`: for the lane of small files, where a try may move `most_bytes`.
        """
        while self._resting and self._resting[0][0] <= now_s:
            entry = heapq.heappop(self._resting)[2]
            if entry.state is State.RESTING:
                self._queue(entry)
        for larges in (False,) if small else (True, False):
            for name, owner in self._owners.items():
                if not small and owner.unlimited >= self._per_owner:
                    continue
                for host, queue in (owner.large if larges else owner.others).items():
                    if queue and self._may_run(self._hosts[host], now_s, small=small):
                        self._owners.move_to_end(name)
                        return self._begin(queue.popleft(), now_s, most_bytes if small else 0)
        return None

    def _may_run(self, host: _Host, now_s: float, *, small: bool) -> bool:
        if host.open_at_s > now_s or host.running >= self._per_host:
            return False
        return small or host.unlimited < self._unlimited_per_host

    def _begin(self, entry: Entry, now_s: float, most_bytes: int) -> Entry:
        host = self._hosts[entry.task.host]
        host.running += 1
        entry.unlimited = most_bytes == 0
        host.unlimited += entry.unlimited
        self._owners[entry.task.owner].unlimited += entry.unlimited
        entry.host_round = host.round
        if host.failures:
            host.open_at_s = now_s + host.pause_s
        entry.state = State.RUNNING
        entry.tries.count += 1
        entry.current = Try(Interrupt(), entry.tries.count, most_bytes)
        return entry

    def succeed(self, entry: Entry, moved: Transferred) -> None:
        """Its try moved the file: it is over."""
        entry.tries.wasted_bytes += moved.wasted_bytes
        self._heal(self._leave_slot(entry))
        self._end(entry)

    def enlarge(self, entry: Entry) -> None:
        """It was too large for the lane: that was no try."""
        self._heal(self._leave_slot(entry))
        entry.tries.count -= 1
        entry.large = True
        self._queue(entry)

    def fail(self, entry: Entry, error: LwrError, now_s: float) -> LwrError | None:
        """Its try failed. Returns the error that ends it, or None when it will be tried again."""
        assert entry.current is not None
        if entry.cancelled:
            # Whatever broke, we broke it.
            error = Interrupted("The transfer was ended.")
        # It may be kept for long, and would keep with it what the failed calls had at hand: files, buffers.
        error.__traceback__ = error.__context__ = error.__cause__ = None
        progress = entry.current.reached_bytes > entry.best_bytes
        entry.best_bytes = max(entry.best_bytes, entry.current.reached_bytes)
        entry.tries.wasted_bytes += entry.current.wasted_bytes
        host = self._leave_slot(entry)
        if speaks_of_host(error) and not progress:
            self._blame(host, entry, error, now_s)
        elif progress or isinstance(error, PeerRefused | BadTransfer):
            self._heal(host)
        history = History() if progress else entry.history
        jitter = self._jitter()
        entry.history, pause_s = judge(history, error, now_s=now_s, deadline_s=entry.deadline_s, jitter=jitter)
        entry.error = error
        entry.tries.reason = error.message
        if pause_s is None:
            self._end(entry)
            return given_up(error, entry.tries, now_s) if error.transient else error
        self._owners[entry.task.owner].troubled[entry] = None
        entry.state = State.RESTING
        heapq.heappush(self._resting, (now_s + pause_s, next(self._numbers), entry))
        return None

    def _leave_slot(self, entry: Entry) -> _Host:
        host = self._hosts[entry.task.host]
        host.running -= 1
        host.unlimited -= entry.unlimited
        self._owners[entry.task.owner].unlimited -= entry.unlimited
        entry.current = None
        return host

    def _blame(self, host: _Host, entry: Entry, error: LwrError, now_s: float) -> None:
        host.error = error
        if entry.host_round == host.round:
            host.round += 1
            host.failures += 1
            left_s = entry.deadline_s - now_s
            # What one answer asked to wait is for its own task; the others find out sooner.
            pause_s = min(pause_after_s(host.failures, error, self._jitter()), MOST_PAUSE_S)
            # Open in time for this one's last try.
            host.pause_s = min(pause_s, left_s) if left_s > 0 else pause_s
            host.open_at_s = now_s + host.pause_s

    def _heal(self, host: _Host) -> None:
        host.failures, host.open_at_s, host.error = 0, 0.0, None

    def _queue(self, entry: Entry) -> None:
        owner = self._owners[entry.task.owner]
        queues = owner.large if entry.large else owner.others
        entry.state = State.WAITING
        queues.setdefault(entry.task.host, deque()).append(entry)

    def _end(self, entry: Entry) -> None:
        entry.state = State.OVER
        del self._by_age[entry]
        name, host = entry.task.owner, self._hosts[entry.task.host]
        owner = self._owners[name]
        del owner.live[entry]
        owner.troubled.pop(entry, None)
        if not owner.live:
            del self._owners[name]
        host.live -= 1
        if not host.live:
            del self._hosts[entry.task.host]

    def expire(self, now_s: float) -> list[tuple[Entry, LwrError]]:
        """End what has waited for longer than its deadline because of an error, its own or its host's. (What only
        waits for a slot still gets its first try.)"""
        over = []
        for entry in self._past(now_s):
            error = entry.error or self._hosts[entry.task.host].error
            if entry.state is State.WAITING and error is not None:
                over.append((entry, given_up(error, entry.tries, now_s)))
        for entry, _ in over:
            self._unqueue(entry)
            self._end(entry)
        return over

    def _past(self, now_s: float) -> Iterator[Entry]:
        for entry in self._by_age:
            if entry.deadline_s > now_s:
                return
            yield entry

    def _unqueue(self, entry: Entry) -> None:
        owner = self._owners[entry.task.owner]
        (owner.large if entry.large else owner.others)[entry.task.host].remove(entry)

    def cancel(self, owner_name: str) -> tuple[list[Entry], list[Interrupt]]:
        """End an owner's tasks: returns those that waited, over now, and what ends the tries of the others."""
        owner = self._owners.get(owner_name, _Owner())
        running = [entry for entry in owner.live if entry.state is State.RUNNING]
        waiting = [entry for entry in owner.live if entry.state is not State.RUNNING]
        owner.large.clear()
        owner.others.clear()
        for entry in waiting:
            self._end(entry)
        for entry in running:
            entry.cancelled = True
        return waiting, [entry.current.interrupt for entry in running if entry.current is not None]

    def running(self) -> list[Interrupt]:
        """What ends all tries that run now."""
        return [entry.current.interrupt for entry in self._by_age if entry.current is not None]

    def counts(self) -> tuple[int, int]:
        """How many run, and how many others there are."""
        running = sum(host.running for host in self._hosts.values())
        return running, len(self._by_age) - running

    def trouble(self, owner_name: str) -> str:
        """Why something of an owner's is tried again or not begun; empty when nothing is."""
        owner = self._owners.get(owner_name, _Owner())
        for entry in reversed(owner.troubled):
            return entry.tries.reason
        for host, queue in (*owner.large.items(), *owner.others.items()):
            error = self._hosts[host].error if queue else None
            if error is not None:
                return error.message
        return ""

    def next_s(self, now_s: float) -> float | None:
        """When to look again if nothing is added or ends before: the next pause's end or deadline; None for never."""
        times = [host.open_at_s for host in self._hosts.values() if host.open_at_s > now_s]
        times += [self._resting[0][0]] if self._resting else []
        times += next(([entry.deadline_s] for entry in self._by_age if entry.deadline_s > now_s), [])
        return min(times, default=None)
