"""Which files of a finished job to fetch, and where each goes. Pure.

Some names come from the server (extra files, matches of a pattern): they are checked by `lwr.core.places`, and one
that would leave the directory of its output is refused, whatever the server says. Must not touch a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from lwr.client.remote import RemoteStatus
from lwr.core.places import Area, resolve
from lwr.core.staging import Step
from lwr.errors import BadName


@dataclass(frozen=True, slots=True)
class Fetch:
    """A file to fetch: `kind` and `name` are the server's, `target` is where it goes here."""

    kind: str
    name: str
    target: Path


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch; declared names that the job did not write; names of the server's that would leave their place."""

    fetches: tuple[Fetch, ...]
    missing: tuple[str, ...]
    refused: tuple[str, ...]


def wanted(outputs: Sequence[Step], status: RemoteStatus) -> Wanted:
    """Compare the declared outputs with what the job left behind.

    With an output `report.html` (or `report.dat`) come its extra files: all that lies in `report.html_files/` or
    `report_files/` beside it. They go beside its target.
    """
    fetches: dict[Path, Fetch] = {}
    missing: list[str] = []
    refused: list[str] = []
    listings = {"output": status.outputs, "output_workdir": status.working, "output_metadata": status.metadata}
    for step in outputs:
        target = Path(step.action.path)
        found = list(_matches(step, listings[step.kind], status.separator))
        if not any(relative is None for _, relative in found):
            missing += [] if found and _is_pattern(step.name) else [step.name]
        for name, relative in found:
            try:
                place = target if relative is None else _below(_base(step, target), relative)
            except BadName:
                refused.append(name)
            else:
                fetches[place] = Fetch(step.kind, name, place)
    return Wanted(tuple(fetches.values()), tuple(missing), tuple(refused))


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _matches(step: Step, listing: Sequence[str], separator: str) -> Iterator[tuple[str, str | None]]:
    """Names of the listing that belong to an output, with their place relative to its directory; None: itself."""
    stem = step.name[: len(step.name) - len(PurePosixPath(step.name).suffix)]
    beside = (f"{step.name}_files/", f"{stem}_files/")
    for name in listing:
        plain = name.replace(separator, "/")
        if plain == step.name:
            yield name, None
        elif plain.startswith(beside) if step.kind == "output" else _fits(plain, step.name):
            yield name, plain


def _fits(name: str, pattern: str) -> bool:
    # `*` crosses `/`, and `**/` may also match nothing.
    return _is_pattern(pattern) and (fnmatchcase(name, pattern) or fnmatchcase(name, pattern.replace("**/", "")))


def _base(step: Step, target: Path) -> Path:
    # An output's own name may hold directories; what belongs to it is relative to where those begin.
    for _ in PurePosixPath(step.name).parts:
        target = target.parent
    return target


def _below(base: Path, relative: str) -> Path:
    components = resolve(Area.OUTPUTS, relative, windows=os.name == "nt")[1:]
    return base.joinpath(*components)
