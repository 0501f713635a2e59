"""Where a job's files live on the server: told by it, or computed here before it was asked. Pure text.

Facts: LWR's HTTP API, section 3.4, and its client library, section 4. Must not ask anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lwr.core.places import Area, JobLayout
from lwr.errors import BadRequest, PeerError

_AREAS = {
    "input": Area.INPUTS,
    "config": Area.CONFIGS,
    "tool": Area.TOOL_FILES,
    "workdir": Area.WORKING,
    "metadata": Area.METADATA,
    "unstructured": Area.UNSTRUCTURED,
    "jobdir": Area.JOB,
    "output": Area.OUTPUTS,
    "output_workdir": Area.WORKING,
    "output_metadata": Area.METADATA,
    "output_jobdir": Area.JOB,
}
_KEYS = {
    Area.INPUTS: "inputs_directory",
    Area.CONFIGS: "configs_directory",
    Area.TOOL_FILES: "tools_directory",
    Area.WORKING: "working_directory",
    Area.METADATA: "metadata_directory",
    Area.UNSTRUCTURED: "unstructured_files_directory",
    Area.JOB: "job_directory",
    Area.OUTPUTS: "outputs_directory",
}


@dataclass(frozen=True, slots=True)
class RemotePlaces:
    """Where a job's files live on the server.

    Args:
        directories: by kind of file; a kind that an old server lacks is missing.
        properties: what the server says of itself (`separator`, `galaxy_home`, ...).
    """

    job_id: str
    separator: str
    directories: Mapping[str, str]
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def job_directory(self) -> str:
        """The directory above all others; empty when it is not known."""
        return self.directories.get("jobdir", "")

    def path(self, kind: str, name: str) -> str:
        """The remote path of a file; `name` is '/'-relative. Raises PeerError when the server has no such place."""
        if kind not in self.directories:
            raise PeerError(f"This server has no place for files of type `{kind}`.", "It is too old for this job.")
        parts = [self.directories[kind].rstrip("/\\"), *(part for part in name.split("/") if part)]
        return self.separator.join(parts)


def told_places(reply: Mapping[str, Any], job_id: str) -> RemotePlaces:
    """The places in a server's answer to a set-up; its id counts, `job_id` only if it names none."""
    directories = {kind: reply[_KEYS[area]] for kind, area in _AREAS.items() if isinstance(reply.get(_KEYS[area]), str)}
    # LWR's servers before 2013 kept configuration files in the working directory.
    directories.setdefault("config", directories.get("workdir", ""))
    said = reply.get("system_properties")
    properties = {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}
    return RemotePlaces(str(reply.get("job_id") or job_id), separator_of(reply), directories, properties)


def local_places(
    jobs_directory: str, job_id: str, *, separator: str = "/", properties: Mapping[str, str] | None = None
) -> RemotePlaces:
    """The places of a job on a server whose staging directory is known, as its answer to a set-up will say.

    Args:
        jobs_directory: absolute, in the server's notation; a separator at its end does not matter.
        separator: the server's (`remote_sep`).
        properties: of the destination (`remote_property_*`, without that prefix).

    Raises:
        BadRequest: the separator is none.
    """
    if separator not in ("/", "\\"):
        raise BadRequest(f"{separator[:10]!r} separates no directories.", "It is / or \\.")
    windows = separator == "\\"
    root = JobLayout(jobs_directory, windows).path(job_id)
    layout = JobLayout(root, windows)
    directories = {kind: layout.area(area) for kind, area in _AREAS.items()}
    return RemotePlaces(job_id, separator, directories, {"separator": separator, **(properties or {})})


def separator_of(reply: Mapping[str, Any]) -> str:
    """What separates directories on the machine that gave an answer."""
    properties = reply.get("system_properties")
    told = properties.get("separator") if isinstance(properties, dict) else reply.get("path_separator")
    return "\\" if told == "\\" else "/"
