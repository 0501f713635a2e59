"""The threads in which the HTTP edge makes its blocking calls. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

#: Constant, and all started at once, so that the number of threads never depends on the load.
THREADS_COUNT = 8
#: How long a brief call may take, and how long none is made on the event loop after one that took longer.
BRIEF_S = 0.02
WARY_S = 5.0


class Pool:
    """A constant number of threads, and one more for probes. `stop` it."""

    def __init__(self) -> None:
        self._wary_until = 0.0
        self._stopping = threading.Event()
        self._executor = ThreadPoolExecutor(THREADS_COUNT, thread_name_prefix="http")
        self._apart = ThreadPoolExecutor(1, thread_name_prefix="probe")
        together = threading.Barrier(THREADS_COUNT)
        for started in [self._executor.submit(together.wait) for _ in range(THREADS_COUNT)]:
            started.result()

    def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        """Begin a blocking call now; await what it returns or raises. Called on the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def apart(self, function: Callable[[], Result]) -> asyncio.Future[Result]:
        """The same in a thread that serves no requests, so that it does not wait for those that are stuck."""
        return asyncio.get_running_loop().run_in_executor(self._apart, function)

    async def brief(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Make a call that takes microseconds as long as the disk is quick: a few operations on one small file.

        At once, on the event loop: the way to a thread and back costs three times as much as the call. One that meets
        a slow disk holds up every request for as long as it takes. After one that took longer than `BRIEF_S`, all go
        to the threads for `WARY_S`, so that this happens once in that time, and not with each call.
        """
        if time.monotonic() < self._wary_until:
            return await self.run(function, *arguments)
        began = time.monotonic()
        try:
            return function(*arguments)
        finally:
            if (now := time.monotonic()) - began > BRIEF_S:
                self._wary_until = now + WARY_S

    def is_stopping(self) -> bool:
        """For calls that take long: whether they are to give up. From any thread."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Return when every call is over. May be called twice."""
        self._stopping.set()
        self._executor.shutdown()
        self._apart.shutdown()
