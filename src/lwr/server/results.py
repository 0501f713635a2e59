"""What a finished job left behind: its streams, listings and digests, read from its directory.

Reads files through `JobFiles` only, whatever odd names and bytes the job wrote. Must not decide states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container

from lwr.core.job import Job
from lwr.core.places import STDERR, STDOUT, Area, resolve
from lwr.core.wire import Results, Submission
from lwr.errors import LwrError, NotFound, TooLarge, Unavailable
from lwr.server.store import FileDigest, Store
from lwr.transfer.jobfiles import JobFiles, OpenFile

#: How much of a stream travels in a status answer; head and tail of a longer one (as Pulsar 0.15.16 does).
STREAM_LIMIT_BYTES = 64 * 1024
#: How much of a dynamic file source is looked at.
SOURCE_LIMIT_BYTES = 64 * 1024 * 1024
#: How much of a job's outputs is read when it ends, and of one file when somebody asks for its digest.
COLLECT_BYTES = 4 * 1024**3

_PIECE_BYTES = 1024 * 1024


def read(files: JobFiles, submission: Submission | None) -> Results:
    """Read everything that a final status tells. A stream or directory that is not there is empty, never an error."""
    try:
        sources = dynamic_sources(files, submission)
    except TooLarge:
        sources = []  # the job has failed for it
    job_stdout, job_stderr = _stream(files, STDOUT) or "", _stream(files, STDERR) or ""
    # Galaxy's command writes the tool's own streams here; without it the job's streams are the tool's.
    tool_stdout = _stream(files, "metadata", "tool_stdout")
    tool_stderr = _stream(files, "metadata", "tool_stderr")
    return Results(
        stdout=job_stdout if tool_stdout is None else tool_stdout,
        stderr=job_stderr if tool_stderr is None else tool_stderr,
        job_stdout=job_stdout,
        job_stderr=job_stderr,
        working=files.listing(Area.WORKING),
        outputs=files.listing(Area.OUTPUTS),
        metadata=files.listing(Area.METADATA),
        job_directory=files.top_level(),
        dynamic_file_sources=sources,
    )


def _stream(files: JobFiles, *components: str) -> str | None:
    try:
        return files.read_text(components, STREAM_LIMIT_BYTES)
    except LwrError:
        return None  # a link out of the job, a FIFO: not a stream


def dynamic_sources(files: JobFiles, submission: Submission | None) -> list[dict[str, str]]:
    """The files that tell which other files are results, as far as the job wrote them: `path`, `type`, `contents`.

    Raises TooLarge for one that is larger than `SOURCE_LIMIT_BYTES`.
    """
    realized = []
    for source in submission.dynamic_file_sources if submission else []:
        try:
            components = resolve(Area.WORKING, source.path)
            with files.open(components) as opened:
                size_bytes = opened.size_bytes
            contents = files.read_text(components, SOURCE_LIMIT_BYTES)
        except LwrError:
            continue
        if size_bytes > SOURCE_LIMIT_BYTES:
            # Cut short it would be no JSON any more, and its results would be left behind without a word.
            raise TooLarge(
                f"The file {source.path[:80]!r}, which names results, is larger than {SOURCE_LIMIT_BYTES} bytes."
            )
        if contents is not None:
            realized.append({"path": source.path, "type": source.type, "contents": contents})
    return realized


def known_digest(store: Store, job: Job, components: tuple[str, ...], opened: OpenFile) -> bytes | None:
    """SHA-256 of an open file of the job, if it was taken before and the file is still the same. Quick."""
    known = store.digest(job, "/".join(components))
    same = known is not None and (known.size_bytes, known.mtime_ns, known.inode) == _identity(opened)
    return known.sha256 if known is not None and same else None


def take_digest(
    store: Store, job: Job, files: JobFiles, components: tuple[str, ...], stopping: Callable[[], bool]
) -> bytes | None:
    """SHA-256 of a file of the job, remembered by size, time and inode, so that a file is read once.

    None for one larger than `COLLECT_BYTES`: who asks would wait too long, and a job may leave files that nobody could
    ever read to their end.

    Raises:
        Unavailable: `stopping()` is true.
    """
    with files.open(components) as opened:
        known = known_digest(store, job, components, opened)
        if known is not None or opened.size_bytes > COLLECT_BYTES:
            return known
        computed = FileDigest(*_identity(opened), sha256=sha256_of(opened, stopping))
    store.remember_digest(job, "/".join(components), computed)
    return computed.sha256


def collect_digests(
    files: JobFiles, stopping: Callable[[], bool], leave_out: Container[str] = ()
) -> dict[str, FileDigest]:
    """Digests of the files in `outputs` but those to leave out, by path below the job's directory.

    The first `COLLECT_BYTES` of them: a job may leave files that nobody could ever read to their end, and their digests
    are taken when somebody asks. What is gone since it was listed, or has a name that nobody can ask for, is left out.

    Raises:
        LwrError: a file is there and cannot be read; the job's results would not be whole.
        Unavailable: `stopping()` is true; to be done again.
    """
    digests = {}
    left_bytes = COLLECT_BYTES
    for name in files.listing(Area.OUTPUTS):
        if name in leave_out:
            continue
        components = (Area.OUTPUTS.value, *name.split("/"))
        try:
            opened = files.open(components)
        except NotFound:
            continue
        with opened:
            left_bytes -= opened.size_bytes
            if left_bytes >= 0:
                digests["/".join(components)] = FileDigest(*_identity(opened), sha256=sha256_of(opened, stopping))
    return digests


def _identity(opened: OpenFile) -> tuple[int, int, int]:
    return opened.size_bytes, opened.mtime_ns, opened.inode


def sha256_of(opened: OpenFile, stopping: Callable[[], bool] = lambda: False) -> bytes:
    """SHA-256 of an open file that was not read yet. Raises Unavailable when `stopping()` is true."""
    hasher = hashlib.sha256()
    left_bytes = opened.size_bytes  # and no more: somebody may still be writing
    while left_bytes > 0 and (piece := opened.file.read(min(left_bytes, _PIECE_BYTES))):
        hasher.update(piece)
        left_bytes -= len(piece)
        if stopping():
            raise Unavailable("The server is stopping.")
    return hasher.digest()
