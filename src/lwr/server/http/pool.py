"""The threads in which the HTTP edge makes its blocking calls. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

#: Constant, and all started at once, so that the number of threads never depends on the load.
THREADS_COUNT = 8


class Pool:
    """A constant number of threads. `stop` it."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS_COUNT, thread_name_prefix="http")
        together = threading.Barrier(THREADS_COUNT)
        for started in [self._executor.submit(together.wait) for _ in range(THREADS_COUNT)]:
            started.result()

    def run(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> asyncio.Future[Result]:
        """Begin a blocking call now; await what it returns or raises. Called on the event loop."""
        return asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def stop(self) -> None:
        """Return when every call is over. May be called twice."""
        self._executor.shutdown()
