"""One thread that sleeps until a process ends, a caller wants something or a timer is due.

Everything given to it runs in that thread, one after the other, so what those actions share needs no lock. Must not
know what the actions are about.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count

from lwr.managers.processes import Process, Watcher

Action = Callable[[], None]
#: Is told of an exception that nobody expected, in the loop's thread. Must not raise.
OnDefect = Callable[[Exception], None]

#: Until an action is tried again that the machine did not let us do.
RETRY_S = 1.0


def _tell_the_hook(defect: Exception) -> None:
    """As if a thread had died of it: whoever keeps the logs can listen there."""
    told = (type(defect), defect, defect.__traceback__, threading.current_thread())
    threading.excepthook(threading.ExceptHookArgs(told))


class Loop:
    """The thread and what wakes it. `idle` is called once in each turn; it returns whether it wants another one now.

    What an action or `idle` raises is told to `on_defect`, and the thread goes on with the next.

    `tell` and `stop` may be called from any thread, the others only from the loop's own.
    """

    def __init__(self, name: str, idle: Callable[[], bool], on_defect: OnDefect = _tell_the_hook) -> None:
        self._idle = idle
        self._on_defect = on_defect
        self._again = False
        self._watcher = Watcher()
        self._inbox: deque[Action] = deque()
        self._timers: list[tuple[float, int, Action]] = []
        self._timer_numbers = count()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread is gone; the action that it is at is finished, the others are dropped. May be
        called twice, or without `start`."""
        if self._stopping:
            return
        self._stopping = True
        self._watcher.wake()
        if self._thread.is_alive():
            self._thread.join()
        self._watcher.close()

    def tell(self, action: Action) -> None:
        """Have an action done soon, after those that were told before."""
        self._inbox.append(action)
        self._watcher.wake()

    def later(self, delay_s: float, action: Action) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._timer_numbers), action))

    def at_end(self, process: Process, action: Action) -> None:
        """Have an action done once, when the process has ended."""
        self._watcher.add(process, action)

    def persist(self, action: Action) -> None:
        """Do an action now, and again later as long as it raises OSError: what cannot be looked at is not known."""
        try:
            action()
        except OSError:
            self.later(RETRY_S, partial(self.persist, action))

    def _run(self) -> None:
        while not self._stopping:
            for action in self._watcher.wait(0.0 if self._again else self._time_to_wait_s()):
                self._do(action)
            while self._inbox and not self._stopping:
                self._do(self._inbox.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._do(heapq.heappop(self._timers)[2])
            self._again = False
            self._do(self._be_idle)

    def _do(self, action: Action) -> None:
        try:
            action()
        except Exception as defect:
            self._on_defect(defect)

    def _be_idle(self) -> None:
        self._again = self._idle()

    def _time_to_wait_s(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
