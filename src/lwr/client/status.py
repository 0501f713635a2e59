"""How a job stands, as its client reads it from a server's answer or from a message of the queue. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lwr.client.places import separator_of


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """How a job stands, in the peers' words; the rest is filled when it is `finished`.

    `state` is one of preprocessing, queued, running, postprocessing, complete, failed, cancelled, lost. Listings are
    relative, with `separator`; `sources` are files in which the tool names results, as (type, contents). The streams
    may be shortened in their middle; `job_stderr` is what the shell around the command said, if it is told apart.
    """

    job_id: str
    state: str
    finished: bool
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    job_stderr: str = ""
    outputs: tuple[str, ...] = ()
    working: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    job_directory: tuple[str, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    separator: str = "/"


def read_status(job_id: str, told: Mapping[str, Any], *, finished: bool) -> RemoteStatus:
    """The status in an object that has a text as its `status`; what else it has of another type counts as missing.

    Args:
        finished: whether the job is over. How that is seen differs between answers and messages.
    """
    code = told.get("returncode")
    return RemoteStatus(
        job_id=job_id,
        state=str(told["status"]),
        finished=finished,
        exit_code=code if isinstance(code, int) else None,
        stdout=str(told.get("stdout") or ""),
        stderr=str(told.get("stderr") or ""),
        job_stderr=str(told.get("job_stderr") or ""),
        outputs=_names(told.get("outputs_directory_contents")),
        working=_names(told.get("working_directory_contents")),
        metadata=_names(told.get("metadata_directory_contents")),
        job_directory=_names(told.get("job_directory_contents")),
        sources=_sources(told.get("realized_dynamic_file_sources")),
        separator=separator_of(told),
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def _sources(value: object) -> tuple[tuple[str, str], ...]:
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    return tuple((str(entry.get("type")), str(entry.get("contents") or "")) for entry in entries)
