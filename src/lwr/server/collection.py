"""Which results a finished job has, what is missing, and what the receipt says of both. Decides no state.

Reads the job's directory through `JobFiles` and asks `lwr.core.outputs`; who moves what is in the steps it returns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lwr.core.mapper import mapper_from_wire
from lwr.core.outputs import Collection, Written, client_outputs_from_wire, collect
from lwr.core.places import Area, resolve
from lwr.core.receipt import FileRecord, FileState
from lwr.core.staging import plan_from_wire
from lwr.core.wire import Submission
from lwr.errors import LwrError, NotFound
from lwr.server import results
from lwr.server.store import FileDigest
from lwr.transfer.jobfiles import JobFiles


def find(files: JobFiles, submission: Submission) -> Collection:
    """By what the client said of its outputs, in our own client's form or its peers'."""
    staging = submission.remote_staging
    declared = plan_from_wire(staging).outputs
    described = client_outputs_from_wire(staging.get("client_outputs"))
    if not declared and described == client_outputs_from_wire(None):
        return Collection()
    sources = results.dynamic_sources(files, submission)
    written = Written(
        outputs=files.listing(Area.OUTPUTS),
        working=files.listing(Area.WORKING),
        metadata=files.listing(Area.METADATA),
        job_directory=[name for name in files.top_level() if _is_result(files, name)],
        sources=[(source["type"], source["contents"]) for source in sources],
    )
    mapper = mapper_from_wire(staging.get("action_mapper"), str(staging.get("ssh_key") or ""))
    return collect(described, mapper, written, declared)


def _is_result(files: JobFiles, name: str) -> bool:
    """Whether a name directly in the job's directory is a file that is not the server's own."""
    try:
        files.open(resolve(Area.JOB, name)).close()
    except LwrError:
        return False
    return True


def records(found: Collection, touched: Iterable[str], digests: Mapping[str, FileDigest]) -> list[FileRecord]:
    """What the receipt says of results that did not come, and of files that were made before the job (`touched`) and
    that nobody wrote to."""
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
    empty = [
        FileRecord(False, "output", name, FileState.EMPTY, "nobody", "none", size_bytes=0)
        for name in touched
        if (digest := digests.get(f"{Area.OUTPUTS}/{name}")) is not None and not digest.size_bytes
    ]
    return [*absent, *refused, *empty]


def require(found: Collection, job: str) -> None:
    """Raises NotFound for results that the client marked as required and the job did not write."""
    required = [step.name for step in found.missing if step.required]
    if required:
        raise NotFound(
            f"Job {job} did not write {', '.join(required[:5])}, which was required.", "Its streams may say why."
        )
