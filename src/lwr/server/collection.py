"""Which results a finished job has, what is missing, and what the receipt says of both. Decides no state.

Reads the job's directory through `JobFiles` and asks `lwr.core.outputs`; who moves what is in the steps it returns.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable

from lwr.core.listings import is_glob
from lwr.core.mapper import Mapper, mapper_from_wire
from lwr.core.outputs import ClientOutputs, Collection, Written, client_outputs_from_wire, collect
from lwr.core.places import Area, JobLayout, resolve
from lwr.core.receipt import FileRecord, FileState
from lwr.core.staging import Mover, Step, plan_from_wire
from lwr.core.wire import FILE_KINDS, Submission
from lwr.errors import BadName, BadRequest, LwrError, NotFound, ServerError, Unavailable
from lwr.server import results
from lwr.transfer.jobfiles import JobFiles

#: For all comparisons of a job's results with its client's patterns.
_PATTERNS_TIMEOUT_S = 60.0
_LOOK_INTERVAL_S = 1.0


class Budget:
    """Called between two comparisons with a peer's patterns, which may each take long: may it go on?

    Raises (when called):
        Unavailable: the server stops, or the job is being cancelled: somebody looks at it again.
        BadRequest: the patterns need too long.
    """

    def __init__(self, job: str, stops: Callable[[], bool], is_cancelled: Callable[[], bool]) -> None:
        self._job, self._stops, self._is_cancelled = job, stops, is_cancelled
        self._until_s = time.monotonic() + _PATTERNS_TIMEOUT_S
        self._look_at_s = 0.0

    def __call__(self) -> None:
        now_s = time.monotonic()
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + _LOOK_INTERVAL_S
        if self._stops() or self._is_cancelled():
            raise Unavailable("The server is stopping, or the job is being cancelled.")
        if now_s > self._until_s:
            raise BadRequest(
                f"The patterns of job {self._job} for its results need more than {_PATTERNS_TIMEOUT_S:.0f} s.",
                "Write them without repeats inside of repeats.",
            )


def touch(files: JobFiles, names: Iterable[str], layout: JobLayout) -> None:
    """Make those outputs that are not there yet, empty."""
    present = set(files.listing(Area.OUTPUTS)) if names else set()
    for name in names:
        if name not in present:
            files.write(resolve(Area.OUTPUTS, name, windows=layout.windows), b"")


def check(submission: Submission) -> None:
    """Before the job runs: raises BadRequest or ConfigError for what could not be collected after it."""
    outputs, mapper = _described(submission)
    for kind, path in (
        *(("output", path) for path in (*outputs.output_files, outputs.version_file) if path),
        *(("output_workdir", path) for _, path in outputs.work_dir_outputs),
    ):
        mapper.action(path, kind)


def _described(submission: Submission) -> tuple[ClientOutputs, Mapper]:
    staging = submission.remote_staging
    mapper = mapper_from_wire(staging.get("action_mapper"), str(staging.get("ssh_key") or ""))
    return client_outputs_from_wire(staging.get("client_outputs")), mapper


def find(files: JobFiles, submission: Submission, check: Callable[[], None]) -> Collection:
    """By what the client said of its outputs, in our own client's form or its peers'.

    `check` is called again and again on the way; what it raises comes out here.

    Raises:
        BadName: a directory of the job was replaced by a link, so that its results cannot be seen.
        TooLarge: a file in which the tool names its results is too large to be read.
    """
    declared = plan_from_wire(submission.remote_staging).outputs
    described, mapper = _described(submission)
    if not declared and described == ClientOutputs():
        return Collection()
    for area in (Area.WORKING, Area.METADATA):
        if os.path.islink(os.path.join(files.root, area.value)):
            raise BadName(f"The directory {area.value} of the job was replaced by a link: its results cannot be seen.")
    sources = results.dynamic_sources(files, submission)
    written = Written(
        outputs=files.listing(Area.OUTPUTS),
        working=files.listing(Area.WORKING),
        metadata=files.listing(Area.METADATA),
        job_directory=[name for name in files.top_level() if _is_result(files, name)],
        sources=[(source["type"], source["contents"]) for source in sources],
    )
    return collect(described, mapper, written, declared, check)


def _is_result(files: JobFiles, name: str) -> bool:
    """Whether a name directly in the job's directory is a file that is not the server's own."""
    try:
        files.open(resolve(Area.JOB, name)).close()
    except LwrError:
        return False
    return True


def still_empty(files: JobFiles, touched: Iterable[str]) -> frozenset[str]:
    """Those of the outputs made before the job that nobody wrote to."""
    empty = set()
    for name in touched:
        with contextlib.suppress(LwrError), files.open(resolve(Area.OUTPUTS, name)) as opened:
            if not opened.size_bytes:
                empty.add(name)
    return frozenset(empty)


def records(found: Collection, empty: frozenset[str]) -> list[FileRecord]:
    """What the receipt says of results that did not come, and of those that are `still_empty`."""
    absent = [
        FileRecord(
            False, step.kind, step.name, FileState.NOT_WRITTEN, "nobody", step.action.type, peer=step.action.path
        )
        for step in found.missing
    ]
    why = "Its name leaves the directory of its output."
    refused = [
        FileRecord(False, "output", name, FileState.FAILED, "nobody", "none", reason=why) for name in found.refused
    ]
    made = [
        FileRecord(False, "output", name, FileState.EMPTY, "nobody", "none", size_bytes=0) for name in sorted(empty)
    ]
    return [*absent, *refused, *made]


def require(found: Collection, files: JobFiles, empty: frozenset[str]) -> None:
    """Raises what the job fails with: a result that is there and cannot be read or named, or one that the client marked
    as required and that the job did not write (one that is `still_empty` was not written)."""
    for step in found.missing:
        _refuse_unreadable(files, step)
    if found.refused and any(step.action.mover is Mover.SERVER for step in (*found.found, *found.missing)):
        shown = ", ".join(repr(name[:80]) for name in found.refused[:3])
        raise BadName(f"Results cannot be delivered under their names, which leave their directory: {shown}.")
    unwritten = [step for step in found.found if step.kind == "output" and step.name in empty]
    required = [step.name for step in (*found.missing, *unwritten) if step.required]
    if required:
        raise NotFound(
            f"The job did not write {', '.join(required[:5])}, which was required.", "Its streams may say why."
        )


def _refuse_unreadable(files: JobFiles, step: Step) -> None:
    """Raises ServerError for a result that is not listed and is there all the same: no file, or not to be read."""
    kind = FILE_KINDS[step.kind]
    if is_glob(step.name):
        return
    components = resolve(kind.area, step.name, nested=kind.nested)
    path = files.root
    for name in components:
        path = os.path.join(path, name)
        if not os.path.lexists(path):
            return
        if os.path.isdir(path) and not os.path.islink(path) and not os.access(path, os.R_OK | os.X_OK):
            break
    raise ServerError(
        f"The result {step.name[:80]!r} is there and cannot be read: it is no file of the job, or its mode forbids it.",
        "Let the command leave a plain file there, readable and no link out of the job.",
    )
