"""Which files of a finished job are results, and where each goes on the client's side. Pure.

Facts: collection rules of LWR (client library, section 7) and of Pulsar (A.10). Client and server ask the same
question and each moves its own part of the answer. Names come from the job and destinations from a peer: a name
that would leave the directory of its output is refused (`Collection.refused`), whoever sent it. Must not touch files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lwr.core.mapper import Mapper
from lwr.core.staging import Step


@dataclass(frozen=True, slots=True)
class Collector:
    """A description of discovered datasets: a pattern, matched at the start of the name below `directory`."""

    pattern: str
    directory: str = ""


@dataclass(frozen=True, slots=True)
class ClientOutputs:
    """What a peer's client expects back: `remote_staging.client_outputs`. Paths are of its own machine.

    Args:
        output_files: destinations; the job's file has the same basename, in `outputs`.
        work_dir_outputs: (path in the client's working directory, destination).
        dynamic_outputs: regular expressions, matched at the start of names in working, metadata and job directory.
        required: destinations whose absence is a failure (only our own client says so).
    """

    working_directory: str = ""
    metadata_directory: str = ""
    job_directory: str = ""
    output_files: tuple[str, ...] = ()
    work_dir_outputs: tuple[tuple[str, str], ...] = ()
    version_file: str = ""
    dynamic_outputs: tuple[str, ...] = ()
    collectors: tuple[Collector, ...] = ()
    required: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Written:
    """What the job left behind: names relative to each directory, with `/`; and the dynamic file sources that exist, as
    (type, contents)."""

    outputs: Sequence[str] = ()
    working: Sequence[str] = ()
    metadata: Sequence[str] = ()
    job_directory: Sequence[str] = ()
    sources: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """The answer: `found` steps name one existing file each and its resolved action; `missing` were declared and not
    written; `refused` are names that would leave their place."""

    found: tuple[Step, ...] = ()
    missing: tuple[Step, ...] = ()
    refused: tuple[str, ...] = ()


def client_outputs_from_wire(value: object) -> ClientOutputs:
    """Read `client_outputs` of any peer; None or {} is an empty one.

    Raises:
        BadRequest: not of the documented shape, or a pattern that is no regular expression.
    """
    raise NotImplementedError


def client_outputs_to_wire(outputs: ClientOutputs) -> dict[str, Any]:
    """The `client_outputs` that all peers read."""
    raise NotImplementedError


def collect(outputs: ClientOutputs, mapper: Mapper, written: Written) -> Collection:
    """Find the results of a job that a peer described, each with the action that its destination maps to."""
    raise NotImplementedError


def collect_declared(steps: Sequence[Step], written: Written) -> Collection:
    """Find the results of a job whose outputs were declared one by one (our own client): names or patterns, each with
    its extra files (`NAME_files/`, or the name without its suffix and `_files/`)."""
    raise NotImplementedError
