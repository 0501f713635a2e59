"""What goes over the wire, for every dialect: requests in, replies out, as plain data.

`SetupRequest` and `Submission` are what a client asks, decoded and checked; `setup_reply` and `status_reply` are
the JSON objects that all dialects answer with. Shapes: LWR's HTTP API of 2014 (sections 3 and 4) and what Pulsar's
clients 0.15.15 to 0.16 send and read (A.3 to A.9); one answer carries the union of the keys. Must not know routes,
sockets or how anything is stored. Which state is told to whom: `reply_status`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError, field_validator

from lwr.core.job import Job, JobState
from lwr.core.places import Area, JobLayout
from lwr.core.ticket import EnvItem
from lwr.errors import BadRequest

#: What is announced as `pulsar_version`: clients read it to choose features. All that 0.15.15 implies is there.
PULSAR_VERSION = "0.15.15"


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a `type` means: the area, and whether `/` in names makes directories (else the last part counts)."""

    area: Area
    nested: bool


#: `type` of LWR's and Pulsar's REST routes. Unknown types of a download mean `output` there.
FILE_KINDS: dict[str, FileKind] = {
    "input": FileKind(Area.INPUTS, True),
    "config": FileKind(Area.CONFIGS, False),
    "tool": FileKind(Area.TOOL_FILES, True),
    "workdir": FileKind(Area.WORKING, True),
    "metadata": FileKind(Area.METADATA, True),
    "unstructured": FileKind(Area.UNSTRUCTURED, True),
    "jobdir": FileKind(Area.JOB, False),
    "output": FileKind(Area.OUTPUTS, True),
    "output_workdir": FileKind(Area.WORKING, True),
    "output_metadata": FileKind(Area.METADATA, True),
    "output_jobdir": FileKind(Area.JOB, False),
}


class _Wire(BaseModel):
    """Strict and closed to change; unknown keys are ignored, as every peer does with ours."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def _none_is_empty(value: object) -> object:
    return "" if value is None else value


Model = TypeVar("Model")
Text = Annotated[str, BeforeValidator(_none_is_empty)]


class SetupRequest(_Wire):
    """A wish for a job: its id and, for the record, the tool it is for."""

    job_id: str
    tool_id: Text = ""
    tool_version: Text = ""


class DynamicFileSource(_Wire):
    """A file in `working` that tells, after the job, which other files are results."""

    path: str
    type: str


_MAX_NESTING = 100
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EnvEntry(_Wire):
    """One item of `env` as peers send it; `item()` is what it means. The first form that is there counts."""

    name: str | None = None
    value: str | None = None
    file: str | None = None
    execute: str | None = None
    raw: bool = False

    def item(self) -> EnvItem:
        """Raises BadRequest when it has none of the forms, or a NUL character that no environment can hold."""
        if any(text and "\0" in text for text in (self.value, self.file, self.execute)):
            raise BadRequest("An item of `env` holds a NUL character.")
        if self.file is not None:
            return EnvItem(file=self.file, raw=self.raw)
        if self.execute is not None:
            return EnvItem(execute=self.execute)
        if self.name is None or self.value is None or not _ENV_NAME.fullmatch(self.name):
            raise BadRequest(
                f"An item of `env` has no usable form (name: {str(self.name)[:40]!r}).",
                "Send `name` and `value`, `file`, or `execute`; names are of A-Z a-z 0-9 and _.",
            )
        return EnvItem(name=self.name, value=self.value, raw=self.raw)


class Submission(_Wire):
    """A job's whole description, as it is stored. Two are the same job when `canonical()` is equal."""

    command_line: str
    params: dict[str, str] = {}
    env: list[EnvEntry] = []
    dependencies: dict[str, Any] | None = None
    remote_staging: dict[str, Any] = {}
    touch_outputs: list[str] = []
    dynamic_file_sources: list[DynamicFileSource] = []
    token_endpoint: str = ""

    @field_validator("command_line")
    @classmethod
    def _no_nul(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("holds a NUL character")
        return value

    def canonical(self) -> str:
        """The stored form: JSON with sorted keys."""
        return json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))

    @classmethod
    def from_stored(cls, text: str) -> Submission:
        """Read what `canonical` wrote. By the parser that read the request: others refuse lone surrogates, which
        file names that are not UTF-8 bring along."""
        return cls.model_validate(json.loads(text))


def decode_json(text: str, what: str) -> Any:
    """Read JSON that came from outside.

    Raises:
        BadRequest: not JSON, nested beyond reason, or numbers that Python refuses; names `what`, quotes nothing.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"`{what}` is not JSON that can be read.", "Send one JSON document, in UTF-8.") from error
    if _nested_beyond(value, _MAX_NESTING):
        raise BadRequest(f"`{what}` is nested deeper than {_MAX_NESTING} levels.")
    return value


def _nested_beyond(value: object, levels: int) -> bool:
    # What is taken here must also be written and read again in threads with less stack left.
    level = [value]
    for _ in range(levels):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [child for children in inner for child in children]
        if not level:
            return False
    return True


def decode(model: type[Model], value: object, what: str) -> Model:
    """Check a decoded document against its shape.

    Raises:
        BadRequest: names `what`, the place in it and what was expected there; quotes no value.
    """
    try:
        return TypeAdapter(model).validate_python(value)
    except (ValidationError, RecursionError) as error:
        where = ""
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            where = f" at {'.'.join(str(part)[:40] for part in first['loc']) or 'its top'}: {first['msg']}"
        raise BadRequest(f"`{what}` is not of the expected shape{where}.") from error


def submission_from_query(query: Mapping[str, str]) -> tuple[Submission, SetupRequest | None]:
    """Read the parameters of a submit request, of any HTTP dialect.

    Takes LWR's early `requirements` for `dependencies_description`; `[]`, `{}` and `null` all mean "nothing".
    Returns the submission, and the set-up that it carries if it does.

    Raises:
        BadRequest: `command_line` is missing, or a parameter is not what it should be.
    """
    if "command_line" not in query:
        raise BadRequest("The parameter `command_line` is missing.")

    def part(name: str, default: object) -> Any:
        return (decode_json(query[name], name) if query.get(name) else None) or default

    dependencies = part("dependencies_description", None)
    if dependencies is None and query.get("requirements"):
        dependencies = {"requirements": part("requirements", []), "installed_tool_dependencies": []}
    extras, endpoint = part("submit_extras", {}), part("token_endpoint", "")
    if not isinstance(extras, dict):
        raise BadRequest("`submit_extras` is not an object.")
    submission = decode(
        Submission,
        {
            "command_line": query["command_line"],
            "params": texts(part("params", {})),
            "env": part("env", []),
            "dependencies": dependencies,
            "remote_staging": part("remote_staging", {}),
            "touch_outputs": extras.get("touch_outputs") or [],
            "dynamic_file_sources": part("dynamic_file_sources", []),
            "token_endpoint": endpoint.get("token_endpoint", "") if isinstance(endpoint, dict) else endpoint,
        },
        "submit",
    )
    for entry in submission.env:
        entry.item()
    carried = part("setup_params", None)
    return submission, None if carried is None else decode(SetupRequest, carried, "setup_params")


def texts(params: object) -> object:
    """What is for the manager, with text for every value; what is no object stays as it is."""
    # Galaxy's destinations may hold numbers and booleans; schedulers take text.
    if not isinstance(params, dict):
        return params
    return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in params.items()}


def setup_reply(job: Job, layout: JobLayout, system_properties: Mapping[str, str]) -> dict[str, Any]:
    """The answer to a set-up: LWR's keys and Pulsar's. `tool_id` and `tool_version` only where they were sent."""
    reply: dict[str, Any] = {
        "job_id": job.key.job_id,
        "job_directory": layout.root,
        "working_directory": layout.area(Area.WORKING),
        "metadata_directory": layout.area(Area.METADATA),
        "outputs_directory": layout.area(Area.OUTPUTS),
        "configs_directory": layout.area(Area.CONFIGS),
        "tools_directory": layout.area(Area.TOOL_FILES),
        "inputs_directory": layout.area(Area.INPUTS),
        "unstructured_files_directory": layout.area(Area.UNSTRUCTURED),
        "path_separator": layout.separator,
        "system_properties": {"separator": layout.separator, **system_properties},
        "pulsar_version": PULSAR_VERSION,
        "preserve_galaxy_python_environment": None,
    }
    if job.tool_id:
        reply["tool_id"] = job.tool_id
    if job.tool_version:
        reply["tool_version"] = job.tool_version
    return reply


_WORDS = {
    JobState.NEW: "preprocessing",
    JobState.PREPROCESSING: "preprocessing",
    JobState.QUEUED: "queued",
    JobState.RUNNING: "running",
    JobState.POSTPROCESSING: "postprocessing",
    JobState.COMPLETE: "complete",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.LOST: "lost",
}


def reply_status(state: JobState, *, classic: bool) -> str:
    """The peers' word for a state. Classic readers know no `failed` and `lost`: to them such a job is `complete`
    with a non-zero return code and the reason in `stderr`."""
    if classic and state in (JobState.FAILED, JobState.LOST):
        return "complete"
    return _WORDS[state]


@dataclass(frozen=True, slots=True)
class Results:
    """What a finished job left behind, as read from its directory. Listings are relative, with its separator."""

    stdout: str = ""
    stderr: str = ""
    job_stdout: str = ""
    job_stderr: str = ""
    working: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    job_directory: list[str] = field(default_factory=list)
    dynamic_file_sources: list[dict[str, str]] = field(default_factory=list)


def unfinished_reply(job: Job) -> dict[str, Any]:
    """The status of a job that still goes on: three keys, `complete` as text."""
    return {"complete": "false", "status": reply_status(job.state, classic=False), "job_id": job.key.job_id}


def finished_reply(
    job: Job, layout: JobLayout, results: Results, system_properties: Mapping[str, str], *, classic: bool
) -> dict[str, Any]:
    """The status of a job that is over, with the union of LWR's and Pulsar's keys.

    For a job that did not end by itself the reason stands first in `stderr`. One that LWR failed never has return
    code 0, and to classic readers neither has a lost one.
    """
    troubled = job.state in (JobState.FAILED, JobState.LOST)
    returncode = job.exit_code
    if not returncode and (job.state is JobState.FAILED or (classic and troubled)):
        returncode = 1
    stderr = results.stderr
    if troubled and job.reason:
        stderr = f"{job.reason}\n{stderr}" if stderr else job.reason
    return {
        "job_id": job.key.job_id,
        "complete": "true",
        "status": reply_status(job.state, classic=classic),
        "returncode": returncode,
        "stdout": results.stdout,
        "stderr": stderr,
        "job_stdout": results.job_stdout,
        "job_stderr": results.job_stderr,
        "working_directory": layout.area(Area.WORKING),
        "metadata_directory": layout.area(Area.METADATA),
        "job_directory": layout.root,
        "working_directory_contents": results.working,
        "metadata_directory_contents": results.metadata,
        "outputs_directory_contents": results.outputs,
        "job_directory_contents": results.job_directory,
        "system_properties": {"separator": layout.separator, **system_properties},
        "pulsar_version": PULSAR_VERSION,
        "realized_dynamic_file_sources": results.dynamic_file_sources,
    }
