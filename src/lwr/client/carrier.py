"""The client's part of moving a job's files: several at a time, by each one's action, with a record of each.

Carries out steps (`lwr.core.staging`) whose mover is the client: over HTTP, or by copying where it sees the job's
directory on a disk of its own. Which steps there are is decided elsewhere; trying again is `RemoteServer`'s.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lwr.client.crowd import each
from lwr.client.events import Event, Moved, Moving, OnEvent, StageBegun
from lwr.client.parts import discard
from lwr.client.places import RemotePlaces
from lwr.client.remote import RemoteServer
from lwr.core.receipt import FileRecord, FileState
from lwr.core.staging import Step, Way
from lwr.errors import BadRequest
from lwr.transfer.copying import copy_file
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred


class Carrier:
    """Moves files of one job. `records` tell what became of each.

    Args:
        server: None where there is nobody to be asked, as over a queue: then there must be no steps.
        at_a_time: how many files at once.
        on_event: called by one thread at a time. What it raises ends the stage.
    """

    def __init__(self, server: RemoteServer | None, on_event: OnEvent, at_a_time: int) -> None:
        self._server, self._on_event, self._at_a_time = server, on_event, at_a_time
        self._mutex = threading.Lock()
        self._begun: set[Path] = set()  # targets that are not whole yet
        self.records: list[FileRecord] = []

    def mover(self, steps: Sequence[Step]) -> RemoteServer | None:
        """Who is asked to move files; None where there is nobody, and nothing to move either.

        Raises:
            BadRequest: there is nobody, and these steps are the client's.
        """
        if self._server is None and steps:
            step = steps[0]
            raise BadRequest(
                f"{step.action.path or step.name} would be moved by the client ({step.action.type}), and over a queue "
                "it moves no files.",
                "Have the server move it: by a rule (remote_transfer, remote_copy, ...) or `--remote-transfer URL`.",
            )
        return self._server

    def send(self, steps: Sequence[Step], places: RemotePlaces, *, again: bool = False) -> None:
        """Bring the inputs to the job. `again`: an earlier process did so in part; what arrived whole is not sent.

        Raises:
            BadRequest: a file cannot be read. LwrError: it could not be moved. Nothing is under way any more then.
        """
        server = self.mover(steps)
        sizes = {step: _size_bytes(_source(step)) for step in steps}
        self.tell(StageBegun(True, len(steps), sum(sizes.values())))
        if server is None:
            return

        def send(step: Step, interrupt: Interrupt) -> None:
            source, size_bytes, began_at = _source(step), sizes[step], time.time()

            def tell(moved_bytes: int) -> None:
                self.tell(Moving(step.name, True, moved_bytes, size_bytes))

            place = places.path(step.kind, step.name)
            if step.action.way is Way.COPY and isinstance(source, Path):
                _check_seen(places.path("workdir", ""), step)  # the one that every job has
                moved = copy_file(source, Path(place), interrupt)
            else:
                there = server.arrived(places.job_id, step.kind, step.name) if again else None
                if there is not None and there.size_bytes == size_bytes and there.sha256 == _sha256(source, interrupt):
                    moved = there
                else:
                    moved = server.upload(places.job_id, step.kind, step.name, source, tell, interrupt)
            self._note(step, True, moved, peer=place, began_at=began_at)
            self.tell(Moved(step.name, step.kind, True, place, moved))

        each(steps, send, min(self._at_a_time, len(steps)))

    def fetch(self, job_id: str, steps: Sequence[Step]) -> None:
        """Bring results to the paths of their actions, each of which is only there when it is whole.

        Raises:
            LwrError: one could not be moved. Nothing is under way any more then; parts of large files may be left for
                another process, or for `abandon`.
        """
        server = self.mover(steps)
        self.tell(StageBegun(False, len(steps), None))
        if server is None:
            return

        def fetch(step: Step, interrupt: Interrupt) -> None:
            target, began_at = Path(step.action.path), time.time()
            sizes: list[int] = []

            def tell(moved_bytes: int) -> None:
                self.tell(Moving(step.name, False, moved_bytes, sizes[-1] if sizes else None))

            with self._mutex:
                self._begun.add(target)
            if step.action.way is Way.COPY:
                source = server.path(job_id, step.kind, step.name)
                _check_seen(os.path.dirname(source), step)
                moved = copy_file(_in_the_job(source, step), target, interrupt)
            else:
                moved = server.download(job_id, step.kind, step.name, target, tell, interrupt, on_size=sizes.append)
            with self._mutex:
                self._begun.discard(target)
            self._note(step, False, moved, peer=f"{server.url} {job_id}", began_at=began_at)
            self.tell(Moved(step.name, step.kind, False, str(target), moved))

        each(steps, fetch, min(self._at_a_time, len(steps)))

    def abandon(self) -> None:
        """Nobody will go on with what was cut: remove what came of it here."""
        for target in self._begun:
            discard(target)
        self._begun.clear()

    def tell(self, event: Event) -> None:
        """Tell an event, after any other thread has told its own."""
        with self._mutex:
            self._on_event(event)

    def _note(self, step: Step, upward: bool, moved: Transferred, *, peer: str, began_at: float) -> None:
        record = FileRecord(
            upward=upward,
            kind=step.kind,
            name=step.name,
            state=FileState.WHOLE,
            mover="client",
            action=step.action.type,
            peer=peer,
            path=os.path.abspath(step.action.path),
            size_bytes=moved.size_bytes,
            sha256=moved.sha256,
            checked=moved.checked,
            tries=1,
            wasted_bytes=moved.wasted_bytes,
            began_at=began_at,
            ended_at=time.time(),
        )
        with self._mutex:
            self.records.append(record)


def _source(step: Step) -> Path | bytes:
    """What is sent: a file, or the text that the step brings along."""
    return step.action.contents.encode() if step.action.contents else Path(step.action.path)


def _size_bytes(source: Path | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except OSError as error:
        raise BadRequest(f"{source} cannot be read: {error.strerror}.", "Check its name.") from error


def _sha256(path: Path | bytes, interrupt: Interrupt) -> bytes:
    if isinstance(path, bytes):
        return hashlib.sha256(path).digest()
    sha256 = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                interrupt.check()
                sha256.update(piece)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read: {error.strerror}.", "Check its name.") from error
    return sha256.digest()


def _check_seen(directory: str, step: Step) -> None:
    if not os.path.isdir(directory):
        raise BadRequest(
            f"{step.name} is to be copied, and this machine does not see the job's directory {directory}.",
            "Use the action `transfer` where the two share no file system.",
        )


def _in_the_job(path: str, step: Step) -> Path:
    """Where a result really is. Raises BadRequest when that is not in the job's directory: a job can make a link to any
    file, and this process may be able to read what the job could not."""
    area = path
    for _ in step.name.split("/"):
        area = os.path.dirname(area)
    job = area if step.kind == "output_jobdir" else os.path.dirname(area)
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(job)):
        raise BadRequest(
            f"{step.name} is to be copied, and is a link that leads out of the job's directory.",
            "A tool may link to its own files only.",
        )
    return real
