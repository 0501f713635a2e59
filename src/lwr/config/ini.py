"""Reading an ini file, with the line that each value came from. Knows no option."""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass
from pathlib import Path

from lwr.errors import ConfigError

_SECTION = re.compile(r"\[(?P<section>[^]]+)\]")
_NAME = re.compile(r"(?P<name>[^\s#;:=\[][^:=]*?)\s*[:=]")
_BUILT_IN = ("here", "__file__")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value as somebody wrote it, and where: `server.ini:12`, an environment variable, the command line."""

    name: str
    text: str
    origin: str


class IniFile:
    """An ini file whose names keep their case. `%(name)s` interpolates; `here` is the directory of the file.

    Raises:
        ConfigError: it cannot be read or is not an ini file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError as error:
            raise ConfigError(f"There is no file {path}.", "Check the path; a sample is beside it.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} cannot be read: {error}.") from error
        built_in = {"here": str(path.parent), "__file__": str(path)}
        self._parser = configparser.ConfigParser({name: value.replace("%", "%%") for name, value in built_in.items()})
        self._parser.optionxform = str  # type: ignore[assignment,method-assign]  # the documented way to keep case
        try:
            self._parser.read_string(text, source=path.name)
        except configparser.Error as error:
            # The message of configparser would quote the line, which may hold a secret.
            line = getattr(error, "lineno", None) or next((number for number, _ in getattr(error, "errors", ())), "?")
            raise ConfigError(f"{path}, line {line}: {_what(error)}.", "Lines are `name = value`.") from error
        self._lines = _lines(text)
        self._referenced = set(re.findall(r"%\(([^)]+)\)s", text))

    @property
    def sections(self) -> list[str]:
        return self._parser.sections()

    def own(self, section: str) -> list[Entry]:
        """What stands in a section itself, interpolated; nothing for a section that is not there."""
        return [
            self._entry(section, name)
            for name in (self._parser[section] if self._parser.has_section(section) else ())
            if (section, name) in self._lines
        ]

    def defaults(self, section: str) -> list[Entry]:
        """What `[DEFAULT]` says for a section that does not say it itself."""
        return [
            self._entry(section, name)
            for name in self._parser.defaults()
            if name not in _BUILT_IN and (section, name) not in self._lines and self._parser.has_section(section)
        ]

    def only_referenced(self, name: str) -> bool:
        """Whether some other value uses this name of `[DEFAULT]`, so that it need not be an option."""
        return name in self._referenced

    def _entry(self, section: str, name: str) -> Entry:
        line = self._lines.get((section, name)) or self._lines.get(("DEFAULT", name), 0)
        origin = f"{self.path.name}:{line}"
        try:
            return Entry(name, self._parser.get(section, name).strip(), origin)
        except configparser.Error as error:
            raise ConfigError(
                f"{name} in [{section}] ({origin}) cannot be interpolated.", "Write a plain per cent sign as %%."
            ) from error


def _what(error: configparser.Error) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{error.option} stands twice in [{error.section}]"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"[{error.section}] stands twice"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return "something stands before the first [section]"
    return "this is not a line of an ini file"


def _lines(text: str) -> dict[tuple[str, str], int]:
    """(section, name) -> number of its line, counted from 1."""
    lines: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.match(line):
            section = match["section"]
        elif match := _NAME.match(line):
            lines.setdefault((section, match["name"]), number)
    return lines
