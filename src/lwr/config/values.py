"""From entries to values: each option's text is parsed, checked and remembered with its origin."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lwr.config.ini import Entry
from lwr.config.option import Option
from lwr.errors import ConfigError

T = TypeVar("T")
HIDDEN = "******"


@dataclass(frozen=True, slots=True)
class Setting:
    """A line of `lwr config show`: a value (hidden when secret) and where it came from."""

    section: str
    name: str
    shown: str
    origin: str


@dataclass(slots=True)
class Values:
    """The entries of one place, by the option's own name, and a record of all that was asked for.

    Args:
        section: the place, for the record.
        directory: what relative paths start from.
    """

    section: str
    directory: Path
    given: Mapping[str, Entry]
    settings: list[Setting] = field(default_factory=list)

    def get(self, option: Option[T], default: str = "") -> T:
        """The value of an option, or of `default`, or of its own default."""
        entry = self._entry(option.name, default or option.default)
        value = parsed(entry, option.parse, option.secret)
        self.record(entry, HIDDEN if option.secret and entry.text else entry.text)
        return value

    def path(self, option: Option[str], default: str = "") -> str:
        """An absolute path, or empty when there is none."""
        entry = self._entry(option.name, default or option.default)
        value = os.path.normpath(self.directory / Path(entry.text).expanduser()) if entry.text else ""
        self.record(entry, value)
        return value

    def is_set(self, option: Option[T], text: str) -> bool:
        """Whether somebody gave exactly this text."""
        return option.name in self.given and self.given[option.name].text == text

    def record(self, entry: Entry, shown: str) -> None:
        self.settings.append(Setting(self.section, entry.name, shown, entry.origin))

    def _entry(self, name: str, default: str) -> Entry:
        return self.given.get(name) or Entry(name, default, "default")


def claim(entries: Iterable[tuple[Option[Any], Entry]]) -> dict[str, Entry]:
    """The entries by their option's own name. An empty one is as if it were not there.

    Raises:
        ConfigError: a secret that is empty; two names of one option that say different things.
    """
    claimed: dict[str, Entry] = {}
    for option, entry in entries:
        if not entry.text:
            if option.secret:
                raise ConfigError(
                    f"{entry.name} ({entry.origin}) is empty.",
                    "Write its value (a private_key long and random), or remove the line.",
                )
            continue
        other = claimed.get(option.name)
        if other and other.text != entry.text:
            raise ConfigError(
                f"{other.origin} and {entry.origin} give {option.name} two different values.", "Keep one of them."
            )
        claimed[option.name] = Entry(option.name, entry.text, entry.origin)
    return claimed


def parsed(entry: Entry, parse: Callable[[str], T], secret: bool = False) -> T:
    """Parse an entry; a ValueError becomes the ConfigError that says which option, its text and where it is."""
    if "\n" in entry.text:
        raise ConfigError(
            f"{entry.name} ({entry.origin}) goes on in the next line.", "Begin each option at the start of a line."
        )
    try:
        return parse(entry.text)
    except ValueError as problem:
        shown = HIDDEN if secret else repr(entry.text[:60])
        raise ConfigError(f"{entry.name} = {shown} ({entry.origin}) {problem}") from problem
