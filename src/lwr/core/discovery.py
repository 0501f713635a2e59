"""Which of a job's files nobody declared and are results all the same. Pure.

They match a pattern of the client's, or the tool itself names them, in `galaxy.json` or the like. Names are relative,
with `/`. Facts: client library, section 7, and A.10. Knows nothing of where they go: `lwr.core.outputs` does.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lwr.core.expressions import Expression
from lwr.errors import BadRequest

_MAX_PATTERNS_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Collector:
    """A description of discovered datasets: a pattern, matched at the start of the name below `directory`."""

    pattern: str
    directory: str = ""


class Discovery:
    """All patterns of a client and the contents of the dynamic file sources, as (type, contents).

    Raises:
        BadRequest: too many patterns, or one that is no regular expression.
    """

    def __init__(
        self,
        collectors: Sequence[Collector],
        sources: Sequence[tuple[str, str]] = (),
        check: Callable[[], None] = lambda: None,
    ) -> None:
        if len(collectors) > _MAX_PATTERNS_COUNT:
            raise BadRequest(f"`client_outputs` holds more than {_MAX_PATTERNS_COUNT} regular expressions.")
        self._patterns = [(_prefix(collector.directory), Expression(collector.pattern)) for collector in collectors]
        self._named = _NamedFiles(sources)
        self._check = check

    def takes(self, name: str) -> bool:
        """Raises BadRequest when a pattern needs too long, and what `check` raises between two patterns."""
        return self._named.holds(name) or any(
            name.startswith(prefix) and self._matches(pattern, name[len(prefix) :])
            for prefix, pattern in self._patterns
        )

    def _matches(self, pattern: Expression, rest: str) -> bool:
        self._check()
        return pattern.takes(rest)


def _prefix(directory: str) -> str:
    plain = posixpath.normpath(directory) if directory else "."
    return "" if plain == "." else f"{plain}/"


class _NamedFiles:
    """The files that a tool names as its results, in `galaxy.json` and the like. What cannot be read names nothing."""

    def __init__(self, sources: Sequence[tuple[str, str]]) -> None:
        self._files: set[str] = set()
        self._directories: set[str] = set()
        for kind, contents in sources:
            for text in contents.splitlines() if kind == "legacy_galaxy" else [contents]:
                try:
                    self._read(json.loads(text))
                except (ValueError, RecursionError):
                    continue

    def _read(self, document: object) -> None:
        level = [document]
        while level:
            value = level.pop()
            if isinstance(value, dict):
                for key, names in (("filename", self._files), ("extra_files", self._directories)):
                    if isinstance(value.get(key), str) and value[key]:
                        names.add(posixpath.normpath(value[key]))
                level += value.values()
            elif isinstance(value, list):
                level += value

    def holds(self, name: str) -> bool:
        if name in self._files:
            return True
        ends = (index for index, character in enumerate(name) if character == "/")
        return bool(self._directories) and any(name[:end] in self._directories for end in ends)
