"""What an option is, and how the text of common ones becomes a value. Knows no option, file or environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

T = TypeVar("T")

SERVER = "server:main"
APP = "app:main"
MANAGER = "manager:NAME"


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One option.

    `parse` turns text that is not empty into the value, or raises ValueError with the rest of a sentence that
    begins with the option's name. `default` is text too; empty where there is none. A name that ends in `*` stands
    for all that begin so.
    """

    name: str
    section: str
    parse: Callable[[str], T]
    default: str
    doc: str
    unit: str = ""
    secret: bool = False
    aliases: tuple[str, ...] = ()
    example: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True)
class Unserved:
    """Names that old files may hold and that this version does not act on.

    `later` says that they are refused, since ignoring them would surprise; the others get a notice.
    """

    patterns: tuple[str, ...]
    what: str
    later: bool = False

    def covers(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


def choice(*words: str) -> Callable[[str], str]:
    """A parser of one of `words`, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            near = get_close_matches(text.lower(), words, 1)
            raise ValueError(f"must be one of {', '.join(words)}{f'; did you mean {near[0]}?' if near else '.'}")
        return text.lower()

    return parse


def boolean(text: str) -> bool:
    """true, yes, on, 1 or false, no, off, 0, in any case."""
    word = text.lower()
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise ValueError("must be true or false.")


def whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of a whole number between `least` and `most`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
            raise ValueError(f"must be a whole number from {least} to {most}.")
        return int(text)

    return parse


def seconds(text: str) -> float:
    """A number of seconds, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e10:
        raise ValueError("must be a number of seconds, 0 or more.")
    return value


def words(text: str) -> tuple[str, ...]:
    """Words with blanks or commas between them."""
    return tuple(text.replace(",", " ").split())


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`, as the beginning of a hint; empty when none does."""
    near = get_close_matches(name.lower(), sorted(known), 1)
    return f"Did you mean {near[0]}?" if near else ""
