"""The same work for many things, several at a time. Knows nothing of what the work is.

The first that fails ends the others at once, as does whoever interrupts the caller (Ctrl-C).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from lwr.transfer.interrupt import Interrupt

Item = TypeVar("Item")

#: So long an interrupted worker may take to notice; it is left to itself then (one that connects cannot be told).
_FAREWELL_S = 2.0
#: A signal that comes just before the caller begins to wait does not wake it: so late it is noticed then.
_GLANCE_S = 0.2


def each(items: Iterable[Item], work: Callable[[Item, Interrupt], None], at_a_time: int) -> None:
    """Call `work` with every item, `at_a_time` of them at once, in threads that are gone when this returns.

    They begin in the order of `items`. `work` gets an Interrupt that it must ask, or lend what it may hang in.

    Raises:
        What `work` raised first, KeyboardInterrupt too: then not all items were taken, and those that were under way
        were interrupted.
    """
    interrupt = Interrupt()
    failures: list[BaseException] = []
    waiting = iter(items)
    mutex = threading.Lock()
    nothing = object()
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def labour() -> None:
        try:
            while not interrupt.is_set:
                with mutex:
                    item = next(waiting, nothing)
                if item is nothing:
                    break
                work(item, interrupt)  # type: ignore[arg-type]  # what is not `nothing` is an Item
        except BaseException as error:  # it is raised again, in the caller's thread
            failures.append(error)
            interrupt.set()
        ended.put(None)

    # Not joined: a `join` that Ctrl-C interrupts takes the thread for one that has ended (bpo-45274).
    running = 0
    try:
        for number in range(at_a_time):
            running += 1
            threading.Thread(target=labour, name=f"lwr-{number}", daemon=True).start()
        while running:
            with contextlib.suppress(queue.Empty):
                ended.get(timeout=_GLANCE_S)
                running -= 1
    except BaseException:
        interrupt.set()
        with contextlib.suppress(queue.Empty):
            for _ in range(running):
                ended.get(timeout=_FAREWELL_S)
        raise
    if failures:
        raise failures[0]
