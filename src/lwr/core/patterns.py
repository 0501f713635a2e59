"""What prefixes and globs of our own rules mean, and what is left of a path below a directory. Pure text.

Prefixes and globs are regular expressions that are anchored at the start. They are written out here, and not by
`fnmatch.translate`, because a glob means a little more with us (`**/` may also match nothing), and because the
expressions travel to peers whose Python may not know the newest syntax.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"(?P<deep>(?:(?<=/)|\A)\*\*/)|(?P<many>\*+)|(?P<one>\?)"
    r"|\[(?P<negated>!?+)(?P<set>\][^\]]*|[^\]]+)\]|(?P<separator>/)|(?P<text>.)",
    re.DOTALL,
)
#: Means something else in a set of a regular expression than in one of a glob.
_SPECIAL_IN_SET = re.compile(r"[\\\[\]^&~|]")


def prefix_expression(prefix: str, *, windows: bool) -> str:
    """Takes the path `prefix` and whatever lies below it, and not what only begins with the same characters."""
    flags, separator, path = _flavour(prefix, windows)
    return flags + separator.join(map(re.escape, path.rstrip("/").split("/"))) + rf"(?:{separator}|\Z)"


def glob_expression(glob: str, *, windows: bool) -> str:
    """Takes what fnmatch takes (`*` crosses `/`); besides, `**/` before a name may match nothing.

    The result need not compile: a set can hold a range that runs backwards.
    """
    flags, separator, text = _flavour(glob, windows)
    fixed = {"deep": f"(?:.*{separator})?", "many": ".*", "one": ".", "separator": separator}
    parts = [
        fixed.get(token.lastgroup or "") or (_set(token) if token["set"] else re.escape(token["text"]))
        for token in _TOKEN.finditer(text)
    ]
    return flags + "".join(parts) + r"\Z"


def rest_by_component(path: str, directory: str, *, windows: bool) -> str | None:
    """What follows `directory` in a path, with `/`; None when the path is not below it. Both are normalised."""
    rest = rest_by_text(path, directory, windows=windows)
    return rest if not rest or rest.startswith("/") else None


def rest_by_text(path: str, directory: str, *, windows: bool) -> str | None:
    """As `rest_by_component`, but `/data` has `base/x` left of `/database/x`, as with the peers."""
    _, _, path = _flavour(path, windows)
    _, _, head = _flavour(directory.rstrip("/\\" if windows else "/"), windows)
    start, rest = path[: len(head)], path[len(head) :]
    return rest if start == head or (windows and start.lower() == head.lower()) else None


def _flavour(path: str, windows: bool) -> tuple[str, str, str]:
    """Flags, the separator's expression, and the path with `/` alone."""
    return ("(?si)", r"[\\/]", path.replace("\\", "/")) if windows else ("(?s)", "/", path)


def _set(token: re.Match[str]) -> str:
    text = _SPECIAL_IN_SET.sub(r"\\\g<0>", token["set"])
    return f"[{'^' if token['negated'] else ''}{text}]"
