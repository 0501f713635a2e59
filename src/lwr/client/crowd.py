"""The same work for many things, several at a time. Knows nothing of what the work is.

The first that fails ends the others at once, as does whoever interrupts the caller (Ctrl-C).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from lwr.transfer.interrupt import Interrupt

Item = TypeVar("Item")

#: So long an interrupted worker may take to notice; it is left to itself then (one that connects cannot be told).
_FAREWELL_S = 2.0


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

    def labour() -> None:
        try:
            while not interrupt.is_set:
                with mutex:
                    item = next(waiting, nothing)
                if item is nothing:
                    return
                work(item, interrupt)  # type: ignore[arg-type]  # what is not `nothing` is an Item
        except BaseException as error:  # it is raised again, in the caller's thread
            failures.append(error)
            interrupt.set()

    workers = [threading.Thread(target=labour, name=f"lwr-{number}", daemon=True) for number in range(at_a_time)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException:
        interrupt.set()
        until = time.monotonic() + _FAREWELL_S
        for worker in workers:
            if worker.ident is not None:
                worker.join(max(0.0, until - time.monotonic()))
        raise
    if failures:
        raise failures[0]
