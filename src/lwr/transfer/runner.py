"""Many transfers in a few threads: each is tried until it is done, cannot be, or its time is over.

The threads are made at the start and are all there ever are: some take any task, two take only what is small, so that
a small file never waits behind large ones. None of them sleeps through a pause: a try that failed gives its slot back
and is due again later. What a failure means is in `lwr.transfer.tasks`, who is next in
`lwr.transfer.waiting`. Knows nothing of HTTP, files or jobs, and logs nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from lwr.errors import LwrError, ServerError
from lwr.transfer.interrupt import Interrupted
from lwr.transfer.partial import Transferred
from lwr.transfer.tasks import Task, Tries, Try
from lwr.transfer.waiting import Entry, Waiting

__all__ = ["SMALL_BYTES", "Runner", "Task", "TooLargeForLane", "Tries", "Try"]

#: What a try in the lane for small files may move.
SMALL_BYTES = 1 << 20
#: Systems cannot wait for any number of seconds.
_LONGEST_WAIT_S = 3600.0


class TooLargeForLane(LwrError):
    """There is more than `Try.most_bytes`. Nobody's fault: the task goes on among the large ones, at once."""

    code = "too-large-for-lane"


def _tell_the_hook(defect: Exception) -> None:
    """As if a thread had died of it: whoever keeps the logs can listen there."""
    told = (type(defect), defect, defect.__traceback__, threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(told))


class Runner:
    """Carries out tasks. All methods may be called from any thread but a `work`; none waits for a transfer but `stop`.

    Each task's `done` is called exactly once, without any lock: by one of the runner's threads, or by the caller of
    `cancel`. After `stop` no more is told but of files that were whole by then: whoever starts next stages again.

    Args:
        slots_count: tries at a time of any size; one owner has at most one less, if there are several.
        slots_per_host_count: tries at a time to or from one host, in both lanes together.
        small_slots_count: tries at a time beside those, of at most `SMALL_BYTES`.
        timeout_s: how long after it was added a task is tried again when what went wrong may pass. A try that still
            gets on is never cut off; that one ends which does not is up to its `work`.
        clock: seconds that only grow. After changing one by hand, call `wake`.
        on_defect: is told of an exception that nobody expected, in the thread where it came up. Must not raise.
    """

    def __init__(
        self,
        slots_count: int,
        slots_per_host_count: int,
        small_slots_count: int = 2,
        timeout_s: float = 21_600.0,
        clock: Callable[[], float] = time.monotonic,
        on_defect: Callable[[Exception], None] = _tell_the_hook,
    ) -> None:
        self._clock = clock
        self._on_defect = on_defect
        self._mutex = threading.Lock()
        # Who waits for work, by lane. One of each is woken, and wakes the next when it leaves something behind.
        self._idle = {small: threading.Condition(self._mutex) for small in (False, True)}
        self._waiting = Waiting(slots_per_host_count, max(1, slots_count - 1), timeout_s)
        self._stopping = False
        lanes = [("any", number) for number in range(slots_count)]
        lanes += [("small", number) for number in range(small_slots_count)]
        self._threads = [
            threading.Thread(target=self._run, args=(lane == "small",), name=f"transfer-{lane}-{number}", daemon=True)
            for lane, number in lanes
        ]

    def start(self) -> None:
        """Make the threads; all exist from now on. Once only."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End every try, and return when the threads are gone. May be called twice, or without `start`."""
        with self._mutex:
            self._stopping = True
            interrupts = self._waiting.running()
            self._wake_all()
        for interrupt in interrupts:
            interrupt.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def add(self, tasks: Iterable[Task]) -> None:
        """Have them carried out soon. Returns at once; after `stop` they are forgotten."""
        with self._mutex:
            now_s = self._clock()
            for task in tasks:
                self._waiting.add(task, now_s)
            self._wake_next()

    def cancel(self, owner: str) -> None:
        """End all tasks that an owner has now, with Interrupted: those that wait before this returns, those that run
        as soon as they let go, which is at once for whatever keeps to `Interrupt`. One that is whole by then is told
        as whole. May be called again, and for owners without tasks."""
        with self._mutex:
            waiting, interrupts = self._waiting.cancel(owner)
        for interrupt in interrupts:
            interrupt.set()
        for entry in waiting:
            self._tell(entry, Interrupted("The transfer was ended before it began."))

    def trouble(self, owner: str) -> str:
        """Why something of an owner's is tried again, or waits for a host that does not work; empty when nothing
        does. The last reason of several."""
        with self._mutex:
            return self._waiting.trouble(owner)

    def counts(self) -> tuple[int, int]:
        """How many tasks run now, and how many wait."""
        with self._mutex:
            return self._waiting.counts()

    def wake(self) -> None:
        """Look at the clock again."""
        with self._mutex:
            self._wake_all()

    def _wake_all(self) -> None:
        for idle in self._idle.values():
            idle.notify_all()

    def _wake_next(self) -> None:
        """Have one of each lane look, if there is anything to be done now or later: the lanes take different things,
        and somebody must know when the next pause is over."""
        if self._waiting.counts()[1]:
            for idle in self._idle.values():
                idle.notify()

    def _run(self, small: bool) -> None:
        while True:
            entry, over = self._next(small)
            for ended, error in over:
                self._tell(ended, error)
            if entry is not None:
                self._try(entry)
            elif not over:
                return

    def _next(self, small: bool) -> tuple[Entry | None, list[tuple[Entry, LwrError]]]:
        """Wait for something to do: an entry to try, some to tell that their time is over. Neither: stop."""
        with self._mutex:
            while not self._stopping:
                now_s = self._clock()
                entry = self._waiting.take(now_s, small=small, most_bytes=SMALL_BYTES)
                over = self._waiting.expire(now_s)
                if entry is not None or over:
                    self._wake_next()
                    return entry, over
                due_s = self._waiting.next_s(now_s)
                self._idle[small].wait(None if due_s is None else min(due_s - now_s, _LONGEST_WAIT_S))
            return None, []

    def _try(self, entry: Entry) -> None:
        assert entry.current is not None
        try:
            result: Transferred | LwrError = entry.task.work(entry.current)
        except LwrError as error:
            result = error
        except Exception as defect:
            self._on_defect(defect)
            # Not its words: they could hold a secret.
            result = ServerError(
                f"LWR could not move the file: {type(defect).__name__}.", "The server's log says more."
            )
        with self._mutex:
            end = self._settle(entry, result)
            self._wake_next()
        if end is not None:
            self._tell(entry, end)

    def _settle(self, entry: Entry, result: Transferred | LwrError) -> Transferred | LwrError | None:
        """What the end of a try means; None when nothing is to be told."""
        if isinstance(result, Transferred):
            self._waiting.succeed(entry, result)
            return result
        if isinstance(result, TooLargeForLane) and not entry.cancelled and not entry.unlimited:
            self._waiting.enlarge(entry)
            return None
        end = self._waiting.fail(entry, result, self._clock())
        return None if self._stopping else end

    def _tell(self, entry: Entry, result: Transferred | LwrError) -> None:
        try:
            entry.task.done(result, entry.tries)
        except Exception as defect:
            self._on_defect(defect)
