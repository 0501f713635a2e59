"""Files that a job uses without declaring them (indices, reference data): found in texts, or asked for one by one.

Facts: file actions, sections 4 and 5. What the mapper's rules take as `unstructured` is staged below a prefix that is
made from the directory that is staged, so that all that is found below one directory stays together, and that is the
same whenever the job is planned again. Asks a `Disk` for names, and must not open a file.
"""

from __future__ import annotations

import hashlib
import os.path
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lwr.client.places import RemotePlaces
from lwr.client.rewrite import paths_in
from lwr.core.mapper import UNSTRUCTURED, Mapper, Match, Rule
from lwr.core.staging import Step


class Disk(Protocol):
    """What planning must know of this machine's files. May be asked the same again."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or a directory."""

    def files(self, directory: str) -> Sequence[str]:
        """All files below a directory, hidden ones too, sorted, relative and with `/`; links to directories are not
        followed. Empty if it is none."""


@dataclass(frozen=True, slots=True)
class Arbitrary:
    """What becomes of an unstructured path.

    Args:
        remote: what stands for it on the server; empty: it stays as it is.
        steps: what has to be staged for it; of a directory, and where a rule has a depth, all files in it.
        directory: whether it is one.
        absent: it would be staged, and is not there.
    """

    remote: str = ""
    steps: tuple[Step, ...] = ()
    directory: bool = False
    absent: bool = False


class UnstructuredFiles:
    """Decides for one job what becomes of each unstructured path; remembers which directories are staged whole."""

    def __init__(self, mapper: Mapper, places: RemotePlaces, disk: Disk) -> None:
        self._mapper = mapper
        self._places = places
        self._disk = disk
        self._whole: list[str] = []

    def place(self, path: str, finder: Rule | None = None) -> Arbitrary:
        """What becomes of an absolute path.

        Each file's action is looked up by its own path. No rule may take it: it only lies beside the file that is
        meant, or the expression of the rule that found it (`finder`) is one for texts. Then the rule of `path`, or else
        `finder`, counts.

        Raises:
            ConfigError: the mapper cannot say what its action needs.
        """
        path = os.path.normpath(path)
        mapper = self._mapper
        if rule := mapper.rule(path, UNSTRUCTURED) or finder:
            mapper = replace(mapper, rules=(*mapper.rules, replace(rule, match=Match.ANY, path="")))
        action = mapper.action(path, UNSTRUCTURED, separator=self._places.separator)
        if not action.kind.staged:
            return Arbitrary(action.rewritten if action.rewritten != path else "")
        root, members = self._root(path, mapper)
        inside = self._disk.files(path)
        if not members and inside:
            members = [f"{os.path.basename(path)}/{name}" for name in inside]
        elif not members and self._disk.exists(path):
            members = [os.path.basename(path)]
        prefix = hashlib.md5(os.fsencode(root), usedforsecurity=False).hexdigest()
        steps = []
        for name in members:
            each = mapper.action(os.path.join(root, *name.split("/")), UNSTRUCTURED)
            if each.kind.staged:
                steps.append(Step(UNSTRUCTURED, f"{prefix}/{name}", each))
        if not steps:
            return Arbitrary(absent=True)
        below = os.path.relpath(path, root).replace(os.sep, "/")
        remote = self._places.path(UNSTRUCTURED, prefix if below == "." else f"{prefix}/{below}")
        return Arbitrary(remote, tuple(steps), bool(inside))

    def _root(self, path: str, mapper: Mapper) -> tuple[str, list[str]]:
        """The directory that names are relative to, and the files in it if it is staged whole."""
        rule = mapper.rule(path, UNSTRUCTURED)
        whole = mapper.staged_directory(rule, path) if rule else ""
        for known in self._whole:
            if (whole or path).startswith(known.rstrip(os.sep) + os.sep) or whole == known:
                return known, list(self._disk.files(known))
        if whole:
            self._whole.append(whole)
            return whole, list(self._disk.files(whole))
        return os.path.dirname(path), []


def found_in(texts: Iterable[str], mapper: Mapper, disk: Disk) -> Iterator[tuple[str, Rule]]:
    """Paths in texts that a rule takes as `unstructured`, as they stand there, each once with the rule that found it.

    Prefixes and globs are compared with every absolute path; regular expressions are looked for in the text as they
    are, and with a group it is the group that counts. A rule without a path finds nothing.
    """
    rules = tuple(rule for rule in mapper.rules if UNSTRUCTURED in rule.kinds and rule.match is not Match.ANY)
    seeking = replace(mapper, rules=rules)
    expressions = [(rule, re.compile(rule.path)) for rule in rules if rule.match is Match.REGEX]
    seen: set[str] = set()
    for text in texts if rules else ():
        candidates = [(path, seeking.rule(path, UNSTRUCTURED)) for path in paths_in(text, disk.exists)]
        for rule, expression in expressions:
            found = expression.finditer(text)
            candidates += [(match[1 if expression.groups else 0] or "", rule) for match in found]
        for path, finder in candidates:
            if finder and path not in seen and os.path.isabs(path):
                seen.add(path)
                yield path, finder
