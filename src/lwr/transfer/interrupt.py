"""Ending a transfer from another thread, at once: also one that waits for a peer that says nothing.

An `Interrupt` belongs to all that is moved for one purpose (a job's stage). Whoever moves bytes asks it between
pieces (`check`) and lends it what it could hang in (`hold`): a socket, a process. Knows nothing of either.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from lwr.errors import LwrError


class Interrupted(LwrError):
    """Somebody ended this transfer on purpose; nobody's fault."""

    code = "interrupted"


class Interrupt:
    """Thread-safe. Set once, for good."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._mutex = threading.Lock()
        self._closers: list[Callable[[], None]] = []

    def set(self) -> None:
        """End everything that runs under it: what is held is closed now, `check` raises from now on."""
        with self._mutex:
            self._set.set()
            closers, self._closers = self._closers, []
        for close in closers:
            # It may be over, or be closing, already.
            with contextlib.suppress(OSError):
                close()

    @property
    def is_set(self) -> bool:
        return self._set.is_set()

    def check(self) -> None:
        """Raises Interrupted when it was set."""
        if self._set.is_set():
            raise Interrupted("The transfer was ended.")

    def wait(self, timeout_s: float) -> None:
        """Sleep, unless it is set before. Raises Interrupted then."""
        if self._set.wait(timeout_s):
            self.check()

    @contextlib.contextmanager
    def hold(self, close: Callable[[], None]) -> Iterator[None]:
        """While within, `set` calls `close` from its own thread, which must make whatever hangs fail.

        Raises Interrupted if it was set before.
        """
        with self._mutex:
            self.check()
            self._closers.append(close)
        try:
            yield
        finally:
            with self._mutex, contextlib.suppress(ValueError):
                self._closers.remove(close)
