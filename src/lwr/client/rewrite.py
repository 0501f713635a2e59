"""Paths in commands and in texts: where they begin and end, and how another path is put in their place. Pure.

The one place that knows what a path in a text looks like. A path counts where it stands as a word of its own (or behind
`=`, `,`, `:`, a quote, an option's letter, ...), the longest one first, and what was put in is not looked at again.
Must not touch a file, and not know which paths a job has: `lwr.client.plan` and `lwr.client.description` do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

#: No path begins here: inside of a longer one, of a word, of a variable's name.
_INSIDE = r"(?<![\w./\\~+%$}-])(?<!\$\{)"
#: But an absolute one does: `-I/usr/include`, `file:///x`, and what follows an escaped end of line (JSON).
_GLUED = r"(?:(?<=[\s'\"]-[A-Za-z])|(?<=\A-[A-Za-z])|(?<=file://)|(?<=\\[nrt]))"
_ABSOLUTE = r"(?=/|[A-Za-z]:[\\/])"
_BEGIN = rf"(?:{_INSIDE}|{_GLUED}{_ABSOLUTE})"
_BEGIN_ABSOLUTE = re.compile(rf"(?:{_INSIDE}(?!//)|{_GLUED}){_ABSOLUTE}")
# A full stop may end a sentence; a backslash may escape a quote or stand for the end of a line.
_END = re.compile(r"(?!\.?[\w/~+%-]|\.\.|\\(?![\"'nrt\n\\]))")
_END_ON_WINDOWS = re.compile(r"(?!\.?[\w/\\~+%-]|\.\.)")
_END_OF_DIRECTORY = re.compile(r"(?=[/\\])|(?!\.?[\w~+%-]|\.\.)")
_TAIL = re.compile(r"[^\s'\",;|&<>()]*")


@dataclass(frozen=True, slots=True)
class Replacement:
    """A path of this machine and what stands for it on the server. A directory also counts before a separator."""

    local: str
    remote: str
    directory: bool = False


@dataclass(frozen=True, slots=True)
class _Place:
    begin: int
    end: int
    replacement: Replacement


class Rewriter:
    """Puts remote paths in the place of local ones.

    Args:
        replacements: of two for one local path the first counts.
        separator: the server's. With a backslash its shell is Windows' command processor, which knows only `"`.
    """

    def __init__(self, replacements: Iterable[Replacement], separator: str = "/") -> None:
        self._table: dict[str, Replacement] = {}
        for replacement in replacements:
            for spelling in _spellings(replacement.local):
                self._table.setdefault(spelling, replacement)
        self._table.pop("", None)
        self._lengths = sorted({len(local) for local in self._table}, reverse=True)
        firsts = "".join({re.escape(local[0]) for local in self._table})
        self._begin = re.compile(f"{_BEGIN}(?=[{firsts}])" if firsts else r"(?!)")
        self._windows = separator == "\\"

    def shell(self, text: str) -> str:
        """Rewrite a command line: each path is one word again, also inside of quotes."""
        quotes = _Quotes(text, self._windows)
        quoted = _quoted_for_windows if self._windows else _quoted

        def form(place: _Place) -> str:
            quote, typed = quotes.open_at(place.begin), text[place.begin : place.end]
            # A quote within it may be a part of the name, or the end of another word.
            return quoted(place.replacement.remote, quote) if _is_one_word(typed, quote) else typed

        return self._rewritten(text, form)

    def plain(self, text: str) -> str:
        """Rewrite a text of any other kind, and one word of a command: paths are put in as they are."""
        return self._rewritten(text, lambda place: place.replacement.remote)

    def mentioned(self, text: str) -> set[str]:
        """The local paths that stand in a text, those that `shell` and `plain` would replace."""
        return {place.replacement.local for place in self._places(text)}

    def _rewritten(self, text: str, form: Callable[[_Place], str]) -> str:
        pieces, position = [], 0
        for place in self._places(text):
            pieces += [text[position : place.begin], form(place)]
            position = place.end
            tail = _TAIL.match(text, position)
            if place.replacement.directory and self._windows and tail:
                pieces.append(tail[0].replace("/", "\\"))
                position = tail.end()
        return "".join((*pieces, text[position:]))

    def _places(self, text: str) -> Iterator[_Place]:
        # By the lengths of what is sought, not by one great expression: jobs may have thousands of files.
        position = 0
        for begin in (found.start() for found in self._begin.finditer(text)):
            place = self._longest(text, begin) if begin >= position else None
            if place is not None:
                yield place
                position = place.end

    def _longest(self, text: str, begin: int) -> _Place | None:
        for length in self._lengths:
            replacement = self._table.get(text[begin : begin + length])
            if replacement is None or len(text) < begin + length:
                continue
            ends = _END_ON_WINDOWS if "\\" in replacement.local else _END
            if (_END_OF_DIRECTORY if replacement.directory else ends).match(text, begin + length):
                return _Place(begin, begin + length, replacement)
        return None


#: How `'` stands within `'`: the string ends, a quote follows in another way, and the string goes on.
_QUOTES_IN_QUOTES = ("'\\''", "'\"'\"'")


def _spellings(path: str) -> Iterator[str]:
    """A path as it is, as people type it outside of quotes, and as programs put it in quotes."""
    yield path
    yield re.sub(r"([^\w@%+=:,./~\\-])", r"\\\1", path)
    for quote in _QUOTES_IN_QUOTES if "'" in path else ():
        yield path.replace("'", quote)


class _Quotes:
    """Which quote is open at places of shell text; asked for in their order."""

    def __init__(self, text: str, windows: bool) -> None:
        self._text = text
        self._kinds, self._escape = ('"', "") if windows else ("'\"", "\\")
        self._position, self._open = 0, ""

    def open_at(self, end: int) -> str:
        while self._position < end:
            character = self._text[self._position]
            if character == self._escape and self._open != "'":
                self._position += 1
            elif character in self._kinds and self._open in ("", character):
                self._open = "" if self._open else character
            self._position += 1
        return self._open


def _is_one_word(typed: str, quote: str) -> bool:
    for inner in _QUOTES_IN_QUOTES if quote == "'" else ():
        typed = typed.replace(inner, "")
    return quote not in typed if quote else re.search(r"(?<!\\)['\"]", typed) is None


def _quoted(path: str, quote: str) -> str:
    if quote == "'":
        return path.replace("'", "'\\''")
    return re.sub(r'([\\"$`])', r"\\\1", path) if quote else shlex.quote(path)


def _quoted_for_windows(path: str, quote: str) -> str:
    return path if quote or re.fullmatch(r"[\w.:\\/~+-]+", path) else f'"{path}"'


#: Where a path ends if nothing exists under the longer name: at what means something to shells and in documents.
_CUT = re.compile(r"[;|&<>()`:}\]\\]|\.?\Z")
_CUT_ON_WINDOWS = re.compile(r"(?<=..)[;|&<>()`:}\]]|\.?\Z")
_WORD = re.compile(r"[^\s,'\"]+")


def paths_in(text: str, exists: Callable[[str], bool]) -> Iterator[str]:
    """Absolute paths in a text, as they stand there.

    A path ends at a blank, a comma or a quote; in quotes, only at the second one if such a path `exists`; and before
    a character that shells and documents give a meaning, unless the longer path `exists`.
    """
    position = 0
    while found := _BEGIN_ABSOLUTE.search(text, position):
        path = _path_at(text, found.start(), exists)
        if len(path) > 1:
            yield path
        position = found.start() + max(len(path), 1)


def _path_at(text: str, begin: int, exists: Callable[[str], bool]) -> str:
    quote = text[begin - 1 : begin] if begin else ""
    word = _WORD.match(text, begin)
    longest = word[0] if word else ""
    if quote in ("'", '"') and (end := text.find(quote, begin)) > begin:
        inside = text[begin:end]
        if "\n" not in inside and inside != longest and exists(inside):
            return inside
    if exists(longest):
        return longest
    cut = (_CUT if longest.startswith("/") else _CUT_ON_WINDOWS).search(longest)
    return longest[: cut.start()] if cut else longest
