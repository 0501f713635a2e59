"""Looking at jobs: which managers there are, rows, places, files and results. Changes nothing.

What every way in reads from; what it wants done it asks of `lwr.server.engine`. Must not know who asks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lwr.core.job import Job, JobKey, JobState, check_job_id
from lwr.core.places import JobLayout
from lwr.core.receipt import FileRecord
from lwr.core.wire import Results, Submission
from lwr.errors import Conflict, NotFound
from lwr.managers.manager import JobManager
from lwr.server import results
from lwr.server.ledger import Ledger
from lwr.server.store import Event, Store
from lwr.transfer.jobfiles import JobFiles, OpenFile


@dataclass(frozen=True, slots=True)
class ManagerEntry:
    """A manager by its name in the configuration.

    Args:
        staging_directory: absolute; the job directories of this manager are made in it.
        system_properties: what clients are told about this machine.
        keep_directories: `debug`: job directories are never removed.
        type: its `type` in the configuration.
    """

    manager: JobManager
    staging_directory: str
    system_properties: Mapping[str, str] = field(default_factory=dict)
    keep_directories: bool = False
    type: str = ""


class View:
    """All that can be seen of one server's jobs. Methods are thread-safe."""

    def __init__(self, store: Store, managers: Mapping[str, ManagerEntry], ledger: Ledger) -> None:
        self.managers = managers
        self._store = store
        self._ledger = ledger

    # -- managers ------------------------------------------------------------------------------------------------

    def entry(self, name: str) -> ManagerEntry:
        """The manager of that name; raises NotFound for one that is not configured."""
        try:
            return self.managers[name]
        except KeyError:
            raise NotFound(
                f"This server has no manager called {name[:60]!r}.",
                "Names stand in job_managers.ini as [manager:NAME].",
            ) from None

    def system_properties(self, manager: str) -> Mapping[str, str]:
        return self.entry(manager).system_properties

    # -- jobs ----------------------------------------------------------------------------------------------------

    def job(self, key: JobKey) -> Job | None:
        """The present attempt, None when there is none or it was cleaned. Quick: one look-up by index."""
        job = self._store.current(key)
        return None if job is None or job.cleaned_at is not None else job

    def jobs(self, state: JobState | None, manager: str | None, limit: int, before_seq: int | None) -> list[Job]:
        """Attempts, newest first, cleaned and replaced ones too."""
        return self._store.jobs(state, manager, limit, before_seq)

    def latest(self, key: JobKey) -> Job | None:
        """The latest attempt, also when it was cleaned: for those who ask what became of a job."""
        return self._store.current(key)

    def counts(self) -> dict[str, dict[JobState, int]]:
        """How many present jobs are in each state, by manager."""
        return self._store.counts()

    def numbered(self, seq: int) -> Job | None:
        """The attempt of that number; None when its record is gone."""
        return self._store.numbered(seq)

    def events(self, job: Job) -> list[Event]:
        return self._store.events(job)

    def known(self, key: JobKey) -> Job:
        """The present attempt; raises NotFound for an unknown job or manager."""
        self.entry(key.manager)
        job = self.job(key)
        if job is None:
            raise self.unknown(key)
        return job

    @staticmethod
    def unknown(key: JobKey) -> NotFound:
        """What is said of a job that is not there."""
        return NotFound(f"There is no job {key.job_id[:140]!r} here.", "Set it up first; a cleaned job is gone.")

    def receipt(self, job: Job) -> list[FileRecord]:
        """What is known of each of its files."""
        return self._ledger.receipt(job, self.layout(job))

    # -- places and files ----------------------------------------------------------------------------------------

    def layout(self, job: Job) -> JobLayout:
        return JobLayout(job.directory, windows=os.name == "nt")

    def files(self, job: Job) -> JobFiles:
        return JobFiles(job.directory)

    def job_for_upload(self, key: JobKey) -> Job:
        """The present attempt, while a client may put files into it; NotFound, or Conflict once it is submitted."""
        job = self.known(key)
        if job.submitted or job.state is not JobState.NEW:
            raise Conflict(
                f"Job {key} is {job.state}: its files are no longer taken.",
                "Files are sent between set-up and submit; set the job up again to start over.",
            )
        return job

    def files_for_download(self, key: JobKey) -> JobFiles:
        return self.files(self.known(key))

    def results(self, job: Job) -> Results:
        """What the job left behind; reads its directory, so it may take a while."""
        stored = self._store.submission(job)
        return results.read(self.files(job), Submission.from_stored(stored[1]) if stored else None)

    def known_digest(self, job: Job, components: tuple[str, ...], opened: OpenFile) -> bytes | None:
        """SHA-256 of an open file, if it was taken before and the file is still the same. Quick."""
        return results.known_digest(self._store, job, components, opened)

    def take_digest(self, job: Job, components: tuple[str, ...], stopping: Callable[[], bool]) -> bytes | None:
        """SHA-256 of a file as it is now, computed and remembered; None for one too large to be read for that.

        Raises Unavailable when `stopping()` is true."""
        return results.take_digest(self._store, job, self.files(job), components, stopping)

    def expected_layout(self, key: JobKey) -> JobLayout:
        """Where a job of that key would live, whether or not it exists."""
        root = os.path.join(self.entry(key.manager).staging_directory, check_job_id(key.job_id))
        return JobLayout(root, windows=os.name == "nt")
