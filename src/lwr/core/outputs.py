"""Which files of a finished job are results, and where each goes on the client's side. Pure.

Facts: collection rules of LWR (client library, section 7) and of Pulsar (A.10). Client and server ask the same
question and each moves its own part of the answer. Names come from the job and destinations from a peer: a name
that would leave the directory of its output is refused (`Collection.refused`), whoever sent it. Must not touch files.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from lwr.core.discovery import Collector, Discovery
from lwr.core.listings import Listing, client_path, flavour_of, of_the_client, relative_name
from lwr.core.mapper import Mapper
from lwr.core.staging import FileAction, Mover, Step, redirected
from lwr.errors import BadName, BadRequest

VERSION_OUTPUT = "COMMAND_VERSION"
#: What LWR's clients, which send no patterns, take from the working directory.
LWR_DYNAMIC_OUTPUTS = (
    "primary_", "galaxy.json", "metadata_", r"dataset_\d+\.dat", "__instrument_", r"dataset_\d+_files.+"
)  # fmt: skip
#: What Pulsar's take unless they say otherwise.
PULSAR_DYNAMIC_OUTPUTS = (*LWR_DYNAMIC_OUTPUTS, "outputs_populated/", "tool_stdout", "tool_stderr")
_NOT_IN_PATHS = re.compile(r"[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class ClientOutputs:
    """What a peer's client expects back: `remote_staging.client_outputs`. Paths are of its own machine.

    Args:
        output_files: destinations; the job's file has the same basename, in `outputs`.
        work_dir_outputs: (path in the client's working directory, destination).
        dynamic_outputs: regular expressions, matched at the start of names in working, metadata and job directory.
            A directory of the client's that is empty takes nothing.
        dynamic_sources: (path in the working directory, type) of the files in which a tool names results.
        required: destinations whose absence is a failure (only our own client says so).
    """

    working_directory: str = ""
    metadata_directory: str = ""
    job_directory: str = ""
    output_files: tuple[str, ...] = ()
    work_dir_outputs: tuple[tuple[str, str], ...] = ()
    version_file: str = ""
    dynamic_outputs: tuple[str, ...] = ()
    dynamic_sources: tuple[tuple[str, str], ...] = ()
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
    """The answer: `found` steps name one existing file each and its resolved action, no destination twice; `missing`
    were declared and not written; `refused` are names that would leave their place."""

    found: tuple[Step, ...] = ()
    missing: tuple[Step, ...] = ()
    refused: tuple[str, ...] = ()


def client_outputs_from_wire(value: object) -> ClientOutputs:
    """Read `client_outputs` of any peer; None or {} is an empty one.

    Raises:
        BadRequest: not of the documented shape, or a pattern that is no regular expression.
    """
    if value is None or value == {}:
        return ClientOutputs()
    if not isinstance(value, dict):
        raise BadRequest("`client_outputs` in `remote_staging` is not an object.")
    patterns = value.get("dynamic_outputs")
    if patterns is None:
        # Whose client sent it is told by what Pulsar added.
        patterns = list(PULSAR_DYNAMIC_OUTPUTS if "metadata_directory" in value else LWR_DYNAMIC_OUTPUTS)
    outputs = ClientOutputs(
        working_directory=_path(value, "working_directory"),
        metadata_directory=_path(value, "metadata_directory"),
        job_directory=_path(value, "job_directory"),
        output_files=_paths(_list(value, "output_files"), "output_files"),
        work_dir_outputs=tuple(_pair(entry) for entry in _list(value, "work_dir_outputs")),
        version_file=_path(value, "version_file"),
        dynamic_outputs=_paths(patterns, "dynamic_outputs"),
        dynamic_sources=tuple((path, kind) for path, kind in _texts(value, "dynamic_file_sources", "path", "type")),
        collectors=tuple(
            Collector(expression, directory)
            for expression, directory in _texts(value, "dataset_collector_descriptions", "pattern", "directory")
            if expression  # a tool may tell of its datasets in a file instead
        ),
        required=frozenset(_paths(_list(value, "required"), "required")),
    )
    Discovery(_collectors(outputs))  # refuses what cannot be used while somebody listens
    return outputs


def _collectors(outputs: ClientOutputs) -> list[Collector]:
    return [*map(Collector, outputs.dynamic_outputs), *outputs.collectors]


def _path(value: Mapping[str, Any], key: str) -> str:
    return _paths([value.get(key) or ""], key)[0]


def _paths(values: object, key: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
        raise BadRequest(f"`client_outputs.{key}` holds something else than text.")
    if any(_NOT_IN_PATHS.search(text) for text in values):
        raise BadRequest(f"`client_outputs.{key}` holds what no path can hold.")
    return tuple(values)


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    entries = value.get(key) or []
    if not isinstance(entries, list):
        raise BadRequest(f"`client_outputs.{key}` is not a list.")
    return entries


def _texts(value: Mapping[str, Any], key: str, *names: str) -> list[tuple[str, ...]]:
    """A list of objects as the texts that they hold under `names`."""
    entries = _list(value, key)
    if not all(isinstance(entry, dict) for entry in entries):
        raise BadRequest(f"`client_outputs.{key}` is not a list of objects.")
    return [_paths([entry.get(name) or "" for name in names], key) for entry in entries]


def _pair(entry: object) -> tuple[str, str]:
    pair = _paths(entry, "work_dir_outputs")
    if len(pair) != 2:
        raise BadRequest("An entry of `client_outputs.work_dir_outputs` is not a pair of paths.")
    return pair[0], pair[1]


def client_outputs_to_wire(outputs: ClientOutputs) -> dict[str, Any]:
    """The `client_outputs` that all peers read."""
    value: dict[str, Any] = {
        "working_directory": outputs.working_directory,
        "metadata_directory": outputs.metadata_directory or None,
        "job_directory": outputs.job_directory or None,
        "output_files": list(outputs.output_files),
        "work_dir_outputs": [list(pair) for pair in outputs.work_dir_outputs],
        "version_file": outputs.version_file or None,
        "dynamic_outputs": list(outputs.dynamic_outputs),
        "dynamic_file_sources": [{"path": path, "type": kind} for path, kind in outputs.dynamic_sources],
        "dataset_collector_descriptions": [
            {"discover_via": "pattern", "pattern": collector.pattern, "directory": collector.directory or None}
            for collector in outputs.collectors
        ],
    }
    return value | ({"required": sorted(outputs.required)} if outputs.required else {})


@dataclass(slots=True)
class _Gathering:
    """The answer while it grows. The first file for a destination has it. `action`: of a destination and a kind."""

    required: frozenset[str]
    action: Callable[[str, str], FileAction]
    found: dict[str, Step] = field(default_factory=dict)
    missing: list[Step] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def take(self, kind: str, name: str, destination: str) -> None:
        if destination not in self.found:
            self.found[destination] = self._step(kind, name, destination)

    def take_below(self, kind: str, name: str, directory: str, relative: str) -> None:
        try:
            destination = client_path(directory, relative)
        except BadName:
            self.refused.append(name)
        else:
            self.take(kind, name, destination)

    def miss(self, kind: str, name: str, destination: str) -> None:
        step = self._step(kind, name, destination)
        if step.action.mover is not Mover.NOBODY:  # else the job wrote it to its place, and not here
            self.missing.append(step)

    def _step(self, kind: str, name: str, destination: str) -> Step:
        return Step(kind, name, self.action(destination, kind), destination in self.required)


def collect(
    outputs: ClientOutputs,
    mapper: Mapper,
    written: Written,
    declared: Sequence[Step] = (),
    check: Callable[[], None] = lambda: None,
) -> Collection:
    """Find the results of a job that a peer described, each with the action that its destination maps to.

    Args:
        declared: what our own client says besides, one by one: for a destination of `outputs` the name of the job's
            file and the action, for any other a result more (`collect_declared`).
        check: called between two comparisons with patterns, which may take long; what it raises comes out here.

    Raises:
        BadRequest: a pattern needs too long. ConfigError: the mapper has no action for a destination.
    """
    own = {step.action.path: step for step in declared}
    known = {*outputs.output_files, outputs.version_file, *(target for _, target in outputs.work_dir_outputs)}

    def action(destination: str, kind: str) -> FileAction:
        check()
        return own[destination].action if destination in own else mapper.action(destination, kind)

    required = outputs.required | {path for path, step in own.items() if step.required}
    gathering = _Gathering(required, action)
    working = Listing(written.working)
    spoken_for = _collect_work_dir(outputs, working, gathering)
    names = {path: step.name for path, step in own.items() if step.kind == "output"}
    _collect_outputs(outputs, names, Listing(written.outputs), gathering)
    more = collect_declared([step for step in declared if step.action.path not in known], written)
    for step in more.found:
        gathering.found.setdefault(step.action.path, step)
    spoken_for |= {step.name for step in more.found if step.kind == "output_workdir"}
    _collect_dynamic(outputs, written, spoken_for, gathering, check)
    return Collection(
        tuple(gathering.found.values()),
        (*gathering.missing, *more.missing),
        tuple(dict.fromkeys((*gathering.refused, *more.refused))),
    )


def _collect_dynamic(
    outputs: ClientOutputs,
    written: Written,
    spoken_for: frozenset[str],
    gathering: _Gathering,
    check: Callable[[], None],
) -> None:
    """Rule 4: what matches a pattern or is named by the tool, in three directories."""
    discovery = Discovery(_collectors(outputs), written.sources, check)
    for kind, names, directory in (
        ("output_workdir", [name for name in written.working if name not in spoken_for], outputs.working_directory),
        ("output_metadata", written.metadata, outputs.metadata_directory),
        ("output_jobdir", of_the_client(written.job_directory), outputs.job_directory),
    ):
        for name in sorted(set(names)) if directory else ():
            if discovery.takes(name):
                gathering.take_below(kind, name, directory, name)


def _collect_work_dir(outputs: ClientOutputs, working: Listing, gathering: _Gathering) -> frozenset[str]:
    """Rule 1: files and directories of the working directory. Returns the names that are spoken for."""
    kind = "output_workdir"
    spoken_for: set[str] = set()
    for source, destination in outputs.work_dir_outputs:
        name = relative_name(source, outputs.working_directory)
        if name is None:
            gathering.refused.append(source)
            continue
        inside = list(working.below(name))
        whole = [name] if name in working else [] if inside else working.fitting(name)[:1]
        for member in inside:
            gathering.take_below(kind, member, destination, member[len(name) + 1 :])
        for match in whole:
            gathering.take(kind, match, destination)
        spoken_for.update(inside, whole)
        if not inside and not whole:
            gathering.miss(kind, name, destination)
    return frozenset(spoken_for)


def _collect_outputs(outputs: ClientOutputs, names: Mapping[str, str], listing: Listing, gathering: _Gathering) -> None:
    """Rules 2 and 3: the outputs, their extra files, and the tool's version. `names`: of outputs with one of their own.

    An output that comes from the working directory is not taken from here: what lies here is the empty file that was
    made for it. Its extra files are.
    """
    from_work_dir = {destination for _, destination in outputs.work_dir_outputs}
    for destination in outputs.output_files:
        directory, local_name = flavour_of(destination).split(destination)
        name = names.get(destination, local_name)
        if destination not in from_work_dir:
            if name in listing:
                gathering.take("output", name, destination)
            else:
                gathering.miss("output", name, destination)
        for extra in listing.extra_files(name):
            there = posixpath.splitext(local_name)[0] + extra[len(posixpath.splitext(name)[0]) :]
            gathering.take_below("output", extra, directory, there)
    if outputs.version_file and VERSION_OUTPUT in listing:
        gathering.take("output", VERSION_OUTPUT, outputs.version_file)


def collect_declared(steps: Sequence[Step], written: Written) -> Collection:
    """Find the results of a job whose outputs were declared one by one (our own client).

    A step's name is that of a file, of a directory (all in it goes below the destination) or a pattern; what matches a
    pattern, and the extra files of an output (`NAME_files/`, or the name without its suffix and `_files/`), go beside
    the destination under their own names. Each has its step's action, for its own destination.
    """
    listings = {
        "output": Listing(written.outputs),
        "output_workdir": Listing(written.working),
        "output_metadata": Listing(written.metadata),
        "output_jobdir": Listing(of_the_client(written.job_directory)),
    }
    found: dict[str, Step] = {}
    missing: list[Step] = []
    refused: list[str] = []
    for step in steps:
        if step.kind not in listings:
            raise BadRequest(f"No type of output is called {step.kind[:60]!r}.", f"Known are: {', '.join(listings)}.")
        required = frozenset((step.action.path,)) if step.required else frozenset()
        action = partial(redirected, step.action)
        _collect_step(step, listings[step.kind], _Gathering(required, action, found, missing, refused))
    return Collection(tuple(found.values()), tuple(missing), tuple(dict.fromkeys(refused)))


def _collect_step(step: Step, listing: Listing, gathering: _Gathering) -> None:
    kind, name, target = step.kind, step.name, step.action.path
    inside = [] if name in listing else list(listing.below(name))
    matches = [] if name in listing or inside else listing.fitting(name)
    if name in listing:
        gathering.take(kind, name, target)
    elif not inside and not matches:
        gathering.miss(kind, name, target)
    for member in inside:
        gathering.take_below(kind, member, target, member[len(name) + 1 :])
    base = target
    for _ in name.split("/"):  # the name may hold directories: what belongs to it is relative to their beginning
        base = flavour_of(target).dirname(base)
    for beside in (*matches, *(listing.extra_files(name) if kind == "output" else ())):
        gathering.take_below(kind, beside, base, beside)
