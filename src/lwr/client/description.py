"""A job as Galaxy describes it, and its plan: what is staged by whom, and how the command names it on the server.

Facts: client library, sections 3 and 5, and A.4, A.10. What a person describes is `lwr.client.plan`'s; here paths are
absolute, which of them travel is the mapper's decision, and configuration files are rewritten with the command.
Looks at names on this machine's disk and reads configuration files; moves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lwr.client.collect import declared_outputs
from lwr.client.pathmapper import PathMapper
from lwr.client.places import RemotePlaces
from lwr.client.rewrite import Replacement, Rewriter, paths_in
from lwr.client.unstructured import found_in
from lwr.core.mapper import UNSTRUCTURED, Mapper
from lwr.core.outputs import ClientOutputs, client_outputs_to_wire
from lwr.core.staging import FileAction, Mover, StagingPlan, Step, step_to_wire
from lwr.errors import BadRequest


class InputKind(StrEnum):
    """What an input is."""

    DATASET = "dataset"  # its extra files, in the directory `<name without suffix>_files` beside it, come with it
    EXTRA_FILES = "extra_files"  # such a directory itself
    METADATA = "metadata"  # is called `metadata_<basename>` on the server


@dataclass(frozen=True, slots=True)
class InputFile:
    """An absolute path of this machine and what is there; a dataset may be a directory."""

    path: str
    kind: InputKind = InputKind.DATASET


@dataclass(frozen=True, slots=True)
class JobDescription:
    """A job of Galaxy's shape. All paths are absolute, and of this machine.

    Args:
        config_files: UTF-8 text is rewritten as the command is; anything else travels as it is.
        outputs: what comes back, and the local working directory and metadata directory, whose files travel too.
        job_files: go directly into the job's directory (`tool_script.sh`).
        arbitrary_files: of a path the name below `unstructured`, as `PathMapper.unstructured` gives it.
        rewrite_paths: whether paths in the command and the configuration files are of this machine still. If not,
            Galaxy has asked a `PathMapper` for each; then only files of the tool are replaced.
        env: as `RemoteServer.submit` takes it.
        dependencies: what the server should resolve; None: nothing.
        params: for the server's manager.
        touch_outputs: names that the server makes empty in `outputs` before the job.
    """

    command_line: str
    outputs: ClientOutputs
    tool_id: str = ""
    tool_version: str = ""
    tool_directory: str = ""
    config_files: Sequence[str] = ()
    input_files: Sequence[InputFile] = ()
    job_files: Sequence[str] = ()
    arbitrary_files: Mapping[str, str] = field(default_factory=dict)
    rewrite_paths: bool = True
    env: Sequence[Mapping[str, str]] = ()
    dependencies: Mapping[str, Any] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    touch_outputs: Sequence[str] = ()


class LocalDisk:
    """This machine's files, as planning sees them (`lwr.client.unstructured.Disk`)."""

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def files(self, directory: str) -> Sequence[str]:
        found = (os.path.join(above, name) for above, _, names in os.walk(directory) for name in names)
        return sorted(os.path.relpath(path, directory).replace(os.sep, "/") for path in found)


@dataclass(frozen=True, slots=True)
class DescribedPlan:
    """What a job needs.

    Args:
        staging: all steps. An input whose `contents` are set is that text, not what the file holds (a rewritten
            configuration file). The outputs are those that were declared, each with its action (decision of our own
            client; the peers know `outputs`).
        command_line: for the server.
        replacements: which path stands for which.
        outputs: as they are sent.
        remote_staging: for the submit: `setup`, `action_mapper`, `client_outputs`, `outputs`. Holds secrets.
        absent: paths in the texts that a rule would stage and that do not exist here; they were left as they are.
    """

    staging: StagingPlan
    command_line: str
    replacements: tuple[Replacement, ...]
    outputs: ClientOutputs
    remote_staging: Mapping[str, Any] = field(repr=False)
    absent: tuple[str, ...] = ()


def plan_description(
    description: JobDescription, mapper: Mapper, places: RemotePlaces, paths: PathMapper | None = None
) -> DescribedPlan:
    """Decide what travels and how it is called there. Touches nothing; may be called again.

    Args:
        paths: the one that was asked for the parameters, if one was.

    Raises:
        BadRequest: an input that is needed does not exist, or a file cannot be read; names it.
        ConfigError: the mapper cannot say what an action needs.
    """
    paths = paths or PathMapper(mapper, places, description.outputs.working_directory, LocalDisk())
    planner = _Planner(description, paths)
    planner.stage_tool_files()
    for path in description.job_files:
        planner.stage("jobdir", os.path.basename(path), path)
    planner.stage_inputs()
    for kind, directory in (
        ("workdir", description.outputs.working_directory),
        ("metadata", description.outputs.metadata_directory),
    ):
        planner.stage_directory(kind, directory)
    for path, name in description.arbitrary_files.items():
        planner.stage(UNSTRUCTURED, name, path)
    planner.name_outputs()
    planner.stage_unstructured()
    rewriter = Rewriter(planner.replacements, places.separator)
    planner.stage_configs(rewriter)
    return planner.plan(rewriter)


class _Planner:
    """The plan while it grows, in the order in which files are staged."""

    def __init__(self, description: JobDescription, paths: PathMapper) -> None:
        self._job = description
        self._paths = paths
        self._mapper, self._places, self._disk = paths.mapper, paths.places, paths.disk
        self._configs = {path: _text(path) for path in dict.fromkeys(description.config_files)}
        self._texts = [description.command_line, *(text for text in self._configs.values() if text)]
        self._steps: dict[tuple[str, str], Step] = {}
        self._absent: list[str] = []
        self._known: list[str] = [description.tool_directory]  # what lies below is not unstructured
        self.replacements: list[Replacement] = []
        if description.rewrite_paths:
            for path in description.config_files:
                self._replace(path, paths.config(path))

    def stage(self, kind: str, name: str, path: str) -> None:
        """Stage a file, or a directory with all that is in it.

        Raises:
            BadRequest: it is not there.
        """
        action = self._mapper.action(path, kind, separator=self._places.separator)
        self._known.append(path)
        inside = self._disk.files(path) if action.kind.staged else ()
        if action.kind.staged and not inside:
            if not self._disk.exists(path):
                raise BadRequest(f"{path} does not exist here, and the job needs it.", "Check the job's description.")
            self._steps[kind, name] = Step(kind, name, action)
        for member in inside:
            self._add(kind, f"{name}/{member}", os.path.join(path, *member.split("/")))
        if self._job.rewrite_paths or kind == "tool":
            staged = action.kind.staged and kind in self._places.directories
            self._replace(path, self._places.path(kind, name) if staged else action.rewritten, bool(inside))

    def _add(self, kind: str, name: str, path: str) -> None:
        action = self._mapper.action(path, kind, separator=self._places.separator)
        if action.kind.staged:
            self._steps[kind, name] = Step(kind, name, action)

    def _replace(self, path: str, remote: str | None, directory: bool = False) -> None:
        if remote and remote != path:
            self.replacements.append(Replacement(path, remote, directory))

    def stage_tool_files(self) -> None:
        """What the texts name below the tool's directory, under the same names."""
        root = os.path.join(os.path.normpath(self._job.tool_directory), "") if self._job.tool_directory else ""
        found = (path for text in self._texts if root for path in paths_in(text, self._disk.exists))
        for path in dict.fromkeys(path for path in found if os.path.normpath(path).startswith(root)):
            if self._disk.exists(path):
                self.stage("tool", os.path.normpath(path)[len(root) :].replace(os.sep, "/"), path)
            else:
                self._absent.append(path)

    def stage_inputs(self) -> None:
        inputs = dict.fromkeys(self._job.input_files)
        beside = {_extra_directory(file.path): file for file in inputs if file.kind is InputKind.DATASET}
        needed = self._needed([*(file.path for file in inputs), *beside])
        for file in inputs:
            prefix = "metadata_" if file.kind is InputKind.METADATA else ""
            owner = beside.get(file.path) if file.kind is InputKind.EXTRA_FILES else None
            name = _extra_directory(self._name(owner)) if owner else self._name(file, prefix)
            self._known.append(file.path)
            if file.path in needed:
                self.stage("input", name, file.path)
            extra = _extra_directory(file.path)
            if file.kind is InputKind.DATASET and extra in needed and self._disk.files(extra):
                self.stage("input", _extra_directory(name), extra)

    def _name(self, file: InputFile, prefix: str = "") -> str:
        return self._paths.input_name(file.path, prefix + os.path.basename(file.path))

    def _needed(self, paths: Iterable[str]) -> set[str]:
        """Those that the texts mention, where they are rewritten; else nobody knows, and all are needed."""
        if not self._job.rewrite_paths:
            return set(paths)
        rewriter = Rewriter(Replacement(path, path, directory=not self._disk_has_file(path)) for path in paths)
        return {path for text in self._texts for path in rewriter.mentioned(text)}

    def _disk_has_file(self, path: str) -> bool:
        return self._disk.exists(path) and not self._disk.files(path)

    def stage_directory(self, kind: str, directory: str) -> None:
        """Every file in one of the job's own directories, under the same name there."""
        if not directory:
            return
        self._known.append(directory)
        for name in self._disk.files(directory):
            self._add(kind, name, os.path.join(directory, *name.split("/")))
        if self._job.rewrite_paths and kind in self._places.directories:
            self._replace(directory, self._places.directories[kind], directory=True)

    def name_outputs(self) -> None:
        """Outputs get their names; with them the directories of their extra files."""
        outputs = self._job.outputs
        for path in outputs.output_files:
            remote = self._paths.output(path)
            self._known += [path, _extra_directory(path)]
            if remote and self._job.rewrite_paths:
                self._replace(path, remote)
                self._replace(_extra_directory(path), _extra_directory(remote), directory=True)
        if outputs.version_file and self._job.rewrite_paths:
            self._known.append(outputs.version_file)
            self._replace(outputs.version_file, self._paths.version(outputs.version_file))

    def stage_unstructured(self) -> None:
        """What the texts name besides, where a rule takes it."""
        if not self._job.rewrite_paths:
            return
        known = {os.path.normpath(path) for path in (*self._known, *self._configs) if path}
        for typed, finder in found_in(self._texts, self._mapper, self._disk):
            if any(place in known for place in _itself_and_above(os.path.normpath(typed))):
                continue
            arbitrary = self._paths.unstructured_files.place(typed, finder)
            self._steps |= {(step.kind, step.name): step for step in arbitrary.steps}
            self._replace(typed, arbitrary.remote, arbitrary.directory)
            if arbitrary.absent:
                self._absent.append(typed)

    def stage_configs(self, rewriter: Rewriter) -> None:
        """Configuration files last, as what they say changed. Their text travels with the job if the server is to fetch
        them: it would fetch the unchanged file."""
        for path, text in self._configs.items():
            name = self._paths.configs.of(os.path.normpath(path), os.path.basename(path))
            action = self._mapper.action(path, "config", separator=self._places.separator)
            changed = _rewritten(rewriter, text)
            if not action.kind.staged:
                continue
            if changed != text:
                by_server = action.mover is Mover.SERVER
                action = FileAction("message" if by_server else "transfer", path, contents=changed or "")
            self._steps["config", name] = Step("config", name, action)

    def plan(self, rewriter: Rewriter) -> DescribedPlan:
        outputs, declared = declared_outputs(self._job.outputs, self._mapper, self._paths.outputs)
        staging = StagingPlan(tuple(self._steps.values()), declared)
        setup = [step_to_wire(step) for step in staging.inputs_moved_by(Mover.SERVER)]
        remote_staging: dict[str, Any] = {"setup": setup} if setup else {}
        remote_staging |= {
            "action_mapper": self._mapper.to_wire(),
            "client_outputs": client_outputs_to_wire(outputs),
        }
        if declared:
            remote_staging["outputs"] = [step_to_wire(step) for step in declared]
        if self._mapper.ssh and self._mapper.ssh.key:
            remote_staging["ssh_key"] = self._mapper.ssh.key
        return DescribedPlan(
            staging,
            rewriter.shell(self._job.command_line),
            tuple(self.replacements),
            outputs,
            remote_staging,
            tuple(dict.fromkeys(self._absent)),
        )


def _text(path: str) -> str | None:
    """A configuration file's text; None if it is none that could be rewritten."""
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise BadRequest(f"The configuration file {path} cannot be read: {error.strerror}.") from error


def _rewritten(rewriter: Rewriter, text: str | None) -> str | None:
    if not text:
        return text
    first = text.partition("\n")[0]
    return rewriter.shell(text) if first.startswith("#!") and first.rstrip().endswith("sh") else rewriter.plain(text)


def _extra_directory(path: str) -> str:
    return f"{os.path.splitext(path)[0]}_files"


def _itself_and_above(path: str) -> Iterable[str]:
    while path != os.path.dirname(path):
        yield path
        path = os.path.dirname(path)
