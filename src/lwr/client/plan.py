"""What a job sends and fetches, and how its command names these files on the server. Pure text.

From what a person says (`JobRequest`) to the steps (`lwr.core.staging`) and the command line for the server. What is
typed for this machine works there: each path of a sent file, and each output's name, that stands in the command as
a word of its own (or behind `=`, `,`, `:`, a quote, ...) is replaced by its path on the server. Must not touch a file
or a socket.
"""

from __future__ import annotations

import os.path
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lwr.client.places import RemotePlaces
from lwr.client.rewrite import Replacement, Rewriter
from lwr.core.mapper import Mapper
from lwr.core.places import Area, resolve
from lwr.core.staging import FileAction, StagingPlan, Step
from lwr.errors import BadRequest

#: What a file can be sent as -> its `type` on the wire, and whether directories are kept there. `extra` goes beside
#: the input that it lies next to.
SENT_KINDS: dict[str, tuple[str, bool]] = {
    "input": ("input", True),
    "extra": ("input", True),
    "tool": ("tool", True),
    "config": ("config", False),
    "workdir": ("workdir", False),
    "metadata": ("metadata", True),
    "unstructured": ("unstructured", True),
}


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file, or a directory with its `members`, to be sent.

    Args:
        kind: a key of `SENT_KINDS`.
        path: as it is typed, in the command too.
        members: for a directory: the files in it, '/'-relative to it.
    """

    kind: str
    path: str
    members: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as a person describes it.

    Args:
        command: shell text, or the words of a command that are to arrive exactly as they are.
        outputs: local paths of results, as typed in the command; they are written below `output_dir`.
        workdir_outputs: names (or patterns with `*`, `?`) that the command leaves in its working directory.
        metadata_outputs: names that it leaves in the job's metadata directory.
        env: names and values of its environment.
        streams_dir: where the command's whole output goes, as `tool_stdout` and `tool_stderr`; None: nowhere. The
            status has it too, but may have it shortened.
        params: for the server's manager (`native_specification`, ...).
    """

    command: str | Sequence[str]
    files: tuple[LocalFile, ...] = ()
    outputs: tuple[str, ...] = ()
    workdir_outputs: tuple[str, ...] = ()
    metadata_outputs: tuple[str, ...] = ()
    output_dir: Path = Path()
    streams_dir: Path | None = None
    env: tuple[tuple[str, str], ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tool_id: str = ""
    tool_version: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """A path that the command may hold, and the file on the server that it means: `name` of `kind`, or, of what is not
    moved, the path `elsewhere`."""

    typed: str
    kind: str
    name: str
    directory: bool = False
    elsewhere: str = ""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """All steps of a job, and the words of its command that stand for files."""

    staging: StagingPlan
    words: tuple[Word, ...]


def plan(request: JobRequest, mapper: Mapper | None = None, separator: str = "/") -> JobPlan:
    """Decide the remote name of every file. Equal names from different directories do not collide.

    Args:
        mapper: which action each path gets; None: the client moves all.
        separator: the server's, for paths that a rule rewrites.

    Raises:
        BadRequest: an unknown kind, one path for two things, or a file that is not to be moved among those of a
            directory that is. BadName: a name that no server would take. ConfigError: as `Mapper.action`.
    """
    actions = _Actions(mapper, separator)
    inputs: list[Step] = []
    outputs: list[Step] = []
    words: list[Word] = []
    for wire_kind in dict.fromkeys(kind for kind, _ in SENT_KINDS.values()):
        files = [file for file in request.files if _wire_kind(file)[0] == wire_kind]
        for file, name in _place(files):
            elsewhere = actions.elsewhere(wire_kind, file.path)
            words.append(Word(file.path, wire_kind, name, file.members is not None, elsewhere))
            if not elsewhere:
                inputs += _steps(file, wire_kind, name, actions)
    for typed, name in _flat_names(request.outputs):
        target = str(request.output_dir / typed)
        elsewhere = actions.elsewhere("output", target)
        words.append(Word(typed, "output", name, elsewhere=elsewhere))
        if not elsewhere:
            outputs.append(Step("output", name, actions.of("output", target)))
    for kind, names in (("output_workdir", request.workdir_outputs), ("output_metadata", request.metadata_outputs)):
        for name in names:
            resolve(Area.WORKING, name)
            outputs.append(Step(kind, name, actions.of(kind, str(request.output_dir / name))))
    _refuse_twice([os.path.normpath(word.typed) for word in words])
    return JobPlan(StagingPlan(tuple(inputs), tuple(outputs)), tuple(words))


@dataclass(frozen=True, slots=True)
class _Actions:
    """The action of each path; without a mapper paths stay as they were typed."""

    mapper: Mapper | None
    separator: str

    def of(self, kind: str, path: str) -> FileAction:
        if self.mapper is None:
            return FileAction("transfer", path)
        return self.mapper.action(os.path.abspath(path), kind, separator=self.separator)

    def elsewhere(self, kind: str, path: str) -> str:
        """The path on the server of what is not moved; empty for all else."""
        action = self.of(kind, path)
        return "" if action.kind.staged else action.rewritten or action.path


def _wire_kind(file: LocalFile) -> tuple[str, bool]:
    if file.kind not in SENT_KINDS:
        raise BadRequest(f"Files cannot be sent as {file.kind!r}.", f"Known are: {', '.join(SENT_KINDS)}.")
    return SENT_KINDS[file.kind]


def _steps(file: LocalFile, kind: str, name: str, actions: _Actions) -> Iterable[Step]:
    if file.members is None:
        return [Step(kind, name, actions.of(kind, file.path))]
    steps = [
        Step(kind, f"{name}/{member}", actions.of(kind, os.path.join(file.path, member))) for member in file.members
    ]
    for step in steps:
        if not step.action.kind.staged:
            raise BadRequest(
                f"{step.action.path} has the action `{step.action.type}`, and the directory {file.path} is moved.",
                "Let a rule take the directory as a whole.",
            )
    return steps


def _refuse_twice(paths: list[str]) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise BadRequest(f"{path} is named twice.", "A path can be one file of the job only.")


def _place(files: Sequence[LocalFile]) -> list[tuple[LocalFile, str]]:
    """Names for files of one kind. Those of one directory stay together, so that an index finds its file."""
    roots = dict.fromkeys(_directory(file) for file in files if file.kind != "extra")
    groups: dict[str, list[LocalFile]] = {root: [] for root in roots}
    for file in files:
        above = [root for root in roots if _inside(_directory(file), root)]
        root = max(above, key=len) if above and SENT_KINDS[file.kind][1] else _directory(file)
        groups.setdefault(root, []).append(file)
    taken: set[str] = set()
    placed: list[tuple[LocalFile, str]] = []
    for root, members in groups.items():
        nested = all(SENT_KINDS[file.kind][1] for file in members)
        names = [os.path.relpath(os.path.normpath(file.path), root).replace(os.sep, "/") for file in members]
        prefix = _free_prefix(names, taken, "/" if nested else "_")
        for file, name in zip(members, names, strict=True):
            resolve(Area.INPUTS, prefix + name)
            placed.append((file, prefix + name))
            taken.add((prefix + name).casefold())
    return placed


def _directory(file: LocalFile) -> str:
    return os.path.dirname(os.path.normpath(file.path)) or "."


def _inside(directory: str, root: str) -> bool:
    if root == ".":
        return not os.path.isabs(directory) and directory.split(os.sep)[0] != ".."
    return directory == root or directory.startswith(root.rstrip(os.sep) + os.sep)


def _free_prefix(names: Sequence[str], taken: set[str], joint: str) -> str:
    # Without regard to case: the server may be a Windows machine.
    prefix, number = "", 1
    while any(_clash((prefix + name).casefold(), taken) for name in names):
        number += 1
        prefix = f"{number}{joint}"
    return prefix


def _clash(name: str, taken: set[str]) -> bool:
    return any(name == other or name.startswith(other + "/") or other.startswith(name + "/") for other in taken)


def _flat_names(typed: Iterable[str]) -> list[tuple[str, str]]:
    """Outputs lie side by side on the server, wherever they go here: a directory for them would not exist there."""
    taken: set[str] = set()
    named = []
    for path in typed:
        name = os.path.basename(os.path.normpath(path))
        name = _free_prefix([name], taken, "_") + name
        resolve(Area.OUTPUTS, name)
        taken.add(name.casefold())
        named.append((path, name))
    return named


def command_line(command: str | Sequence[str], words: Sequence[Word], places: RemotePlaces) -> str:
    """The command as shell text for the server.

    In shell text a path is put in so that it is one word again, also inside of quotes; the words of a sequence are
    quoted, so that they arrive as they are.
    """
    rewriter = Rewriter(
        (
            Replacement(variant, word.elsewhere or places.path(word.kind, word.name), word.directory)
            for word in words
            for variant in _variants(word)
        ),
        places.separator,
    )
    if isinstance(command, str):
        return rewriter.shell(command)
    return shlex.join(rewriter.plain(part) for part in command)


def _variants(word: Word) -> set[str]:
    plain = os.path.normpath(word.typed)
    return {word.typed.rstrip("/") or "/", plain} | (set() if os.path.isabs(plain) else {f"./{plain}"})
