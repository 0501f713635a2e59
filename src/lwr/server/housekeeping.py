"""What keeps a server's disk in order: removing trees, finding jobs that nobody will ask for, watching free space.

Trees are renamed into `.trash` beside the job directories at once and removed in one background thread, so that
nobody waits for a big one. Must not decide states; the engine asks for `abandoned` jobs and cleans them.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

import structlog

from lwr.core.job import Job
from lwr.errors import LwrError, Unavailable
from lwr.server.store import Store
from lwr.transfer.removal import remove_tree, set_aside

log = structlog.get_logger("lwr")

TRASH = ".trash"
#: A job that is being set up may take its time: uploads can be long.
LEAST_NEW_S = 86400.0
#: Below this much free space no new job is taken.
MIN_FREE_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept that no client removes, in seconds."""

    failed_job_s: float = 7 * 86400.0
    delivered_job_s: float = 86400.0
    record_s: float = 30 * 86400.0


class Housekeeper:
    """One per server. `discard` may be called from any thread.

    Args:
        chores: what else is to be done in each round; called with the time, in the housekeeping thread.
    """

    def __init__(self, store: Store, retention: Retention, chores: Sequence[Callable[[float], object]] = ()) -> None:
        self._store = store
        self._retention = retention
        self._chores = chores
        self._last_round: float | None = None
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self, staging_directories: Sequence[str]) -> None:
        """Begin, with what an earlier server left in the trash."""
        for directory in dict.fromkeys(staging_directories):
            trash = os.path.join(directory, TRASH)
            for name in os.listdir(trash) if os.path.isdir(trash) else []:
                self._work.put(partial(remove_tree, os.path.join(trash, name)))
        self._thread.start()

    def stop(self) -> None:
        """Return when the thread is gone; what is left in the trash waits for the next start. May be called twice."""
        self._stopping = True
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def discard(self, job_directory: str) -> None:
        """Take a job's directory out of the way at once, and remove it soon. One that is not there: nothing."""
        moved = set_aside(job_directory, os.path.join(os.path.dirname(job_directory), TRASH))
        if moved is not None:
            self._work.put(partial(remove_tree, moved))

    def later(self, work: Callable[[], object]) -> None:
        """Do `work` in the housekeeping thread, after what waits there already. Its errors are logged."""
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._stopping:
            try:
                work()
            except Exception:
                # A tree that cannot be removed must not stop the others; it waits in the trash for the next start.
                log.warning("housekeeping could not be done; trying again at the next start", exc_info=True)

    def due(self, now: float, interval_s: float) -> bool:
        """Whether a round is due; a clock that was set back makes it due too. Says so once a round."""
        if self._last_round is not None and 0 <= now - self._last_round < interval_s:
            return False
        self._last_round = now
        return True

    def abandoned(self, now: float) -> list[Job]:
        """Jobs whose directories nobody will ask for any more; old records are deleted on the way, and chores begun."""
        self._store.forget(now - self._retention.record_s)
        for chore in self._chores:
            self.later(partial(chore, now))
        kept_s = self._retention.failed_job_s
        return self._store.abandoned(
            now - kept_s, now - max(kept_s, LEAST_NEW_S), now - self._retention.delivered_job_s
        )

    def check_room(self, staging_directory: str) -> None:
        """Raises Unavailable when the disk is too full to take another job."""
        free_bytes = _free_bytes(staging_directory)
        if free_bytes < MIN_FREE_BYTES:
            raise Unavailable(
                f"The disk of {staging_directory} has {free_bytes // 1024**2} MiB left: no new jobs are taken.",
                "Make room there; LWR goes on by itself.",
            )

    def problems(self, staging_directories: Sequence[str]) -> list[str]:
        problems = []
        for directory in dict.fromkeys(staging_directories):
            try:
                self.check_room(directory)
            except LwrError as error:
                problems.append(str(error))
        return problems


def _free_bytes(directory: str) -> int:
    try:
        return shutil.disk_usage(directory).free
    except OSError as error:
        raise Unavailable(f"The staging directory {directory} cannot be used: {error.strerror}.") from error
