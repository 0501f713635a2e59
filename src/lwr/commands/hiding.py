"""Secrets in other people's messages, hidden before a terminal shows them.

Knows names, not messages: what stands under a name that looks like a secret's is hidden, at any depth, also in JSON in
a string and in the queries of URLs. Where a text is no JSON, or only its beginning, the same is done by its look, with
bounds in each pattern, since a message may be made to be slow. Better too much is hidden than too little.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import unquote

HIDDEN = "******"
_WORDS = "token|secret|passw|passphrase|job_key|api_?key|ssh_key|private|credential|authorization"
_SECRET_NAME = re.compile(_WORDS, re.IGNORECASE)
_NAME = rf"[\w.-]{{0,40}}(?:{_WORDS})[\w.-]{{0,40}}"
#: How a quotation mark is written, in JSON in JSON.
_QUOTE = r"\\{0,16}[\"\']"
_WORD = re.compile(r"[^\s\"\'\\]+")
_MOST_ENCODINGS = 4
_COLON = r"\s{0,20}:\s{0,20}"
#: Of a value that began with the quotation mark of the second group; one with a backslash before it is of the value.
_TO_ITS_END = r"(?:(?!(?<!\\)\2).)*((?<!\\)\2|\Z)"
_FLAGS = re.IGNORECASE | re.DOTALL
_LOOKS = (
    # "name": "value", where the value may have no end, and be quoted again and again.
    (rf"({_QUOTE}{_NAME}{_QUOTE}{_COLON})({_QUOTE}){_TO_ITS_END}", rf"\1\2{HIDDEN}\3"),
    # "name": [ or {: where it ends is not known.
    (rf"({_QUOTE}{_NAME}{_QUOTE}{_COLON})[\[{{].*", rf"\1{HIDDEN}"),
    # {"name": "API_TOKEN", "value": "..."} of an environment.
    (rf"(:\s{{0,20}}({_QUOTE}){_NAME}\2\s{{0,20}},\s{{0,20}}\2value\2{_COLON})\2{_TO_ITS_END}",
     rf"\1\2{HIDDEN}\3"),
    # name=value of a query or a command line.
    (rf"((?:{_WORDS})[\w.-]{{0,40}}=)(?:\\{{0,16}}[\"\'][^\"\'\\]*|[^&\s\"\'\\]+)", rf"\1{HIDDEN}"),
    (r"\b((?:Bearer|Basic)\s{1,20})[\w.~+/=-]+", rf"\1{HIDDEN}"),
    (r"(://)[^/\s@\"]+@", rf"\1{HIDDEN}@"),
)  # fmt: skip
_IN_TEXT = tuple((re.compile(look, _FLAGS), instead) for look, instead in _LOOKS)
#: Deeper than any message of a job; what is deeper is handled by its look.
_MOST_DEPTH = 50


def hidden(text: str) -> str:
    """`text` without the secrets in it; as it was, spaces and lines too, if it has none."""
    document = _parsed(text)
    if document is None:
        return _in_text(text)
    without = _without(document, _MOST_DEPTH)
    # By its look as well: of a name that is there twice only the last value was parsed.
    return _in_text(text if without == document else _written(without))


def _written(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _parsed(text: str) -> dict[str, Any] | list[Any] | None:
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        document = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict | list) else None


def _without(value: Any, depth: int) -> Any:
    if depth == 0:
        return HIDDEN
    if isinstance(value, str):
        return hidden(value)
    if isinstance(value, list):
        return [_without(each, depth - 1) for each in value]
    if not isinstance(value, dict):
        return value
    named = isinstance(value.get("name"), str) and _SECRET_NAME.search(value["name"])
    return {
        name: HIDDEN
        if each and (_SECRET_NAME.search(name) or (named and name == "value"))
        else _without(each, depth - 1)
        for name, each in value.items()
    }


def _decoded(word: re.Match[str]) -> str:
    """A URL, decoded if only then its secrets can be seen."""
    text = word[0]
    if "%" not in text:
        return text
    for _ in range(_MOST_ENCODINGS):
        text = unquote(text)
    if text != unquote(text):
        return HIDDEN
    without = _by_look(text)
    return word[0] if without == text else without


def _in_text(text: str) -> str:
    return _by_look(_WORD.sub(_decoded, text))


def _by_look(text: str) -> str:
    for pattern, instead in _IN_TEXT:
        text = pattern.sub(instead, text)
    return text
