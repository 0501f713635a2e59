"""One file, moved by this server: a step of a job's plan is carried out with `lwr.transfer`, one try at a time.

Knows how each way (`lwr.core.staging.Way`) is gone in both directions and what of it is written in the ledger. Must
not know when to try again (`lwr.transfer.runner`) or what a failure means for the job (`lwr.server.staging`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lwr.core.job import Job
from lwr.core.places import JobLayout, resolve
from lwr.core.receipt import FileRecord, FileState, without_secrets
from lwr.core.staging import FileAction, Mover, Step, Way, plan_from_wire
from lwr.core.wire import FILE_KINDS, Submission
from lwr.errors import BadRequest, LwrError, Unavailable
from lwr.faults import fault
from lwr.server.ledger import Ledger, Mark
from lwr.server.store import FileDigest
from lwr.transfer.copying import copy_in, copy_out
from lwr.transfer.http import Web
from lwr.transfer.interrupt import Interrupted
from lwr.transfer.jobfiles import JobFiles, OpenFile, Part
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.reach import Reach
from lwr.transfer.runner import SMALL_BYTES, Task, TooLargeForLane, Tries, Try
from lwr.transfer.ssh import deliver_by_ssh, fetch_by_ssh
from lwr.transfer.tus import deliver_tus

#: Told once how a task ended.
Done = Callable[[LwrError | None], None]


@dataclass(frozen=True, slots=True)
class Means:
    """What a server moves files with.

    Args:
        known_hosts: where the keys of ssh hosts are remembered.
        most_bytes: of a file that is fetched; 0 for no limit.
        stopping: set when the server stops: what came of a file is kept for the next one then.
    """

    web: Web
    reach: Reach
    known_hosts: Path
    most_bytes: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)


def check(step: Step) -> None:
    """Raises BadRequest for a step that this server could never carry out."""
    if step.kind not in FILE_KINDS:
        raise BadRequest(f"No type of file is called {step.kind[:60]!r}.", f"Known are: {', '.join(FILE_KINDS)}.")
    if step.action.way is Way.OBJECT_STORE:
        raise BadRequest(
            f"{step.name[:80]!r} should come from Galaxy's object store, which LWR does not read.",
            "Set another action for it in Galaxy's destination, remote_transfer for example.",
        )


def components_of(step: Step, layout: JobLayout) -> tuple[str, ...]:
    """The place of a step's file; raises BadName for a name that leaves the job."""
    kind = FILE_KINDS[step.kind]
    return resolve(kind.area, step.name, nested=kind.nested, windows=layout.windows)


def inputs_of(submission: Submission, layout: JobLayout) -> list[Step]:
    """What the server brings into a job. Raises BadRequest or BadName for what it could never do, and for two files of
    one name (the same one twice is one)."""
    steps = list(dict.fromkeys(plan_from_wire(submission.remote_staging).inputs_moved_by(Mover.SERVER)))
    places = set()
    for step in steps:
        check(step)
        place = components_of(step, layout)
        if place in places:
            raise BadRequest(f"Two files of the job are called {'/'.join(place)[:80]!r}.", "Give them two names.")
        places.add(place)
    return steps


class Moves:
    """Makes the tasks of one job in one direction: `upward`, into the job, or out of it."""

    def __init__(self, job: Job, layout: JobLayout, ledger: Ledger, means: Means, *, upward: bool) -> None:
        self._job = job
        self._layout = layout
        self._files = JobFiles(layout.root)
        self._ledger = ledger
        self._means = means
        self._upward = upward
        self._marks = ledger.marks(job, upward=upward)

    def is_done(self, step: Step) -> bool:
        """Whether an earlier try, of this server or the one before it, has moved this file already."""
        mark = self._mark(step)
        if mark is None or mark.state is not FileState.WHOLE:
            return False
        try:
            return self._identity(step) == mark.identity
        except LwrError:
            return False

    def _mark(self, step: Step) -> Mark | None:
        return self._marks.get((step.kind, step.name, peer_of(step.action)))

    def task(self, step: Step, done: Done) -> Task:
        """What the runner does for a step. Its record is written before `done` is called."""
        mark = self._mark(step)
        carried = _Carried(step, time.time(), mark.bookmark if mark and mark.state is FileState.UNDER_WAY else "")
        move = self._fetch if self._upward else self._deliver

        def over(result: Transferred | LwrError, tries: Tries) -> None:
            try:
                self._write_end(carried, result, tries)
            finally:
                done(result if isinstance(result, LwrError) else None)

        return Task(self._job.attempt, _host(step.action), lambda one: move(carried, one), over, self._is_large(step))

    # -- into the job --------------------------------------------------------------------------------------------

    def _fetch(self, carried: _Carried, one: Try) -> Transferred:
        with self._files.resumable(f"fetch-{_hash(carried.step)}") as part:
            partial = Partial(part, self._means.most_bytes)
            try:
                moved = self._fetch_to(part, partial, carried, one)
                one.interrupt.check()
                fault("fetch.before_commit")
                part.sync()
                part.commit(components_of(carried.step, self._layout))
                fault("fetch.after_commit")
            except LwrError as error:
                one.reached_bytes, one.wasted_bytes = partial.size_bytes, partial.wasted_bytes
                if self._is_kept(error):
                    part.keep()
                raise
        return moved

    def _is_kept(self, error: LwrError) -> bool:
        """Whether somebody will go on with what came. Not on a full disk: what came is what fills it."""
        if isinstance(error, Interrupted):
            return self._means.stopping.is_set()
        return isinstance(error, TooLargeForLane) or (error.transient and not isinstance(error, Unavailable))

    def _fetch_to(self, part: Part, partial: Partial, carried: _Carried, one: Try) -> Transferred:
        action, means = carried.step.action, self._means
        if action.ssh is not None:
            _check_ssh_host(means.reach, action.ssh.host)
            return fetch_by_ssh(action.way, action.ssh, action.path, part, one.interrupt, means.known_hosts)
        if action.way is Way.COPY:
            return copy_in(action.path, partial, one.interrupt, means.reach, one.most_bytes)
        return means.web.fetch(
            action.url,
            partial,
            one.interrupt,
            bookmark=carried.bookmark,
            most_bytes=one.most_bytes,
            on_begin=lambda bookmark: self._remember(carried, bookmark, one),
        )

    # -- out of the job ------------------------------------------------------------------------------------------

    def _deliver(self, carried: _Carried, one: Try) -> Transferred:
        with self._files.open(components_of(carried.step, self._layout)) as source:
            if one.most_bytes and source.size_bytes > one.most_bytes:
                raise TooLargeForLane("This file is for the other lane.")
            fault("deliver.before")
            moved = self._deliver_from(source, carried, one)
            fault("deliver.after")
        return moved

    def _deliver_from(self, source: OpenFile, carried: _Carried, one: Try) -> Transferred:
        action, means = carried.step.action, self._means
        if action.ssh is not None:
            _check_ssh_host(means.reach, action.ssh.host)
            return deliver_by_ssh(action.way, action.ssh, source, action.path, one.interrupt, means.known_hosts)
        if action.way is Way.COPY:
            return copy_out(source, action.path, one.interrupt, means.reach)
        name = os.path.basename(action.path)
        if action.way is Way.URL:
            return means.web.deliver(action.url, source, name, one.interrupt)
        return deliver_tus(
            means.web,
            action.url,
            source,
            name,
            one.interrupt,
            bookmark=carried.bookmark,
            on_begin=lambda bookmark: self._remember(carried, bookmark, one),
            on_bytes=lambda reached_bytes: setattr(one, "reached_bytes", reached_bytes),
        )

    def _is_large(self, step: Step) -> bool | None:
        if self._upward:
            # How much it is shows only on the way; ssh cannot be stopped there and go on in the other lane.
            return True if step.action.ssh is not None else None
        try:
            return self._identity(step)[0] > SMALL_BYTES
        except LwrError:
            return None  # told when it is tried

    # -- what is written down ------------------------------------------------------------------------------------

    def _remember(self, carried: _Carried, bookmark: str, one: Try) -> None:
        """Keep where to go on, for the next try, and for the next server unless the file is small."""
        carried.bookmark = bookmark
        if not one.most_bytes:
            record = carried.record(self._upward, FileState.UNDER_WAY, tries=one.number)
            self._ledger.write(self._job, [record], bookmark=bookmark)

    def _write_end(self, carried: _Carried, result: Transferred | LwrError, tries: Tries) -> None:
        if isinstance(result, LwrError):
            failed = carried.record(self._upward, FileState.FAILED, tries.count, tries.wasted_bytes, result.message)
            self._ledger.write(self._job, [failed])
            return
        whole = carried.record(self._upward, FileState.WHOLE, tries.count, tries.wasted_bytes, moved=result)
        self._ledger.write(self._job, [whole], [FileDigest(*self._identity(carried.step), sha256=b"")])

    def _identity(self, step: Step) -> tuple[int, int, int]:
        with self._files.open(components_of(step, self._layout)) as opened:
            return opened.size_bytes, opened.mtime_ns, opened.inode


@dataclass(slots=True)
class _Carried:
    """A step that is being carried out: what outlives a try of it."""

    step: Step
    began_at: float
    bookmark: str

    def record(
        self,
        upward: bool,
        state: FileState,
        tries: int,
        wasted_bytes: int = 0,
        reason: str = "",
        moved: Transferred | None = None,
    ) -> FileRecord:
        return FileRecord(
            upward,
            self.step.kind,
            self.step.name,
            state,
            mover="server",
            action=self.step.action.type,
            peer=peer_of(self.step.action),
            size_bytes=moved.size_bytes if moved else None,
            sha256=moved.sha256 if moved else None,
            checked=moved.checked if moved else "",
            tries=tries,
            wasted_bytes=wasted_bytes,
            began_at=self.began_at,
            ended_at=None if state is FileState.UNDER_WAY else time.time(),
            reason=reason,
        )


def _check_ssh_host(reach: Reach, host: str) -> None:
    """Raises BadRequest for a host that the admin's rules do not allow."""
    reach.check_host(host)
    if not reach.judges_addresses:
        return
    try:
        reach.check_address(host, host)
    except ValueError:
        raise BadRequest(
            f"This server may not move files by ssh to {host[:80]!r}: it judges addresses, and ssh looks names up "
            "by itself.",
            "Give the host by its address, or the server's admin may take out staging_url_networks.",
        ) from None


def message_record(step: Step) -> FileRecord:
    """What the receipt says of a text that came inside of the job's description and was written down."""
    data = step.action.contents.encode()
    sha256, now = hashlib.sha256(data).digest(), time.time()
    return FileRecord(
        True, step.kind, step.name, FileState.WHOLE, "server", "message", size_bytes=len(data), sha256=sha256,
        checked="size", tries=1, began_at=now, ended_at=now,
    )  # fmt: skip


def _hash(step: Step) -> str:
    return hashlib.sha256(f"{step.kind}/{step.name}".encode()).hexdigest()[:32]


def peer_of(action: FileAction) -> str:
    """The other end, as a receipt may show it."""
    if action.url:
        return f"{without_secrets(action.url)} path={action.path}"
    return f"{action.ssh.host}:{action.path}" if action.ssh else action.path


def _host(action: FileAction) -> str:
    """The peer whose slots a step takes; empty for this machine's disks."""
    if action.ssh is not None:
        return action.ssh.host
    return urlsplit(action.url).netloc.rpartition("@")[2] if action.url else ""
