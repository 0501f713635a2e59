"""An event loop in a thread, in which one server of the tests listens; knows nothing of what it serves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

from tests.support import DEADLINE_S

Serve = Callable[[Callable[[int], None], asyncio.Event], Awaitable[None]]


class LoopThread:
    """Runs `serve(ready, stop)`, which calls `ready(port)` when it listens and returns soon after `stop` is set."""

    def __init__(self, name: str, serve: Serve) -> None:
        self._name = name
        self._serve = serve
        self._listening = threading.Event()
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Start, and return the port when it listens. Not to be called twice."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name=self._name)
        self._thread.start()
        assert self._listening.wait(DEADLINE_S), f"{self._name} did not come up"
        assert self._port, f"{self._name} could not listen"
        return self._port

    def stop(self) -> None:
        """Stop, and return when the thread has ended. Never started, or stopped before: nothing happens."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"{self._name} did not stop"

    def call(self, what: Callable[[], object]) -> None:
        """Have the loop do something soon; not to be called before `start` or after `stop`."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(what)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        try:
            await self._serve(self._ready, self._stop)
        finally:
            self._listening.set()

    def _ready(self, port: int) -> None:
        self._port = port
        self._listening.set()
