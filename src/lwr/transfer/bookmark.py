"""Which version of a file a URL gave, so that a later request goes on with the same one or begins again. Pure.

HTTP's own means (RFC 9110): `ETag`, `Last-Modified`, `Range`, `If-Range`, `Content-Range`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What an answer said of its file.

    Args:
        total_bytes: the size of the file; None where it was not told.
        validator: a strong ETag, else the date of its last change; empty where there was neither. Then only the size
            can tell a changed file.
    """

    total_bytes: int | None
    validator: str

    def __str__(self) -> str:
        """As it can be kept; never empty."""
        return f"{'-' if self.total_bytes is None else self.total_bytes} {self.validator}".strip()

    @property
    def tells_versions(self) -> bool:
        """Whether anything could show that the file is another one by now."""
        return self.total_bytes is not None or bool(self.validator)

    def request(self, have_bytes: int) -> dict[str, str]:
        """The headers that ask for what is missing, if it is still the same file."""
        headers = {"Range": f"bytes={have_bytes}-"}
        return headers | ({"If-Range": self.validator} if self.validator else {})

    def continued(self, headers: Mapping[str, str], have_bytes: int) -> Bookmark | None:
        """The bookmark of a 206 that goes on at `have_bytes` with this file; None when it does not."""
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or found[1] is None or int(found[1]) != have_bytes:
            return None
        return self._agreeing(found[2], headers)

    def is_whole(self, headers: Mapping[str, str], have_bytes: int) -> bool:
        """Whether a 416 says that there is nothing missing."""
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if found is None or found[2] != str(have_bytes):
            return False
        return self._agreeing(found[2], headers) is not None

    def _agreeing(self, total: str, headers: Mapping[str, str]) -> Bookmark | None:
        total_bytes = self.total_bytes if total == "*" else int(total)
        validator = _validator(headers)
        if self.total_bytes not in (None, total_bytes) or (validator and self.validator not in ("", validator)):
            return None
        return Bookmark(total_bytes, self.validator or validator)


def bookmark_of_answer(headers: Mapping[str, str]) -> Bookmark:
    """The bookmark of a 200."""
    length = headers.get("Content-Length", "")
    # A chunked body has no length, whatever else is said.
    told = length.isdecimal() and "Transfer-Encoding" not in headers
    return Bookmark(int(length) if told else None, _validator(headers))


def bookmark_of_text(text: str) -> Bookmark | None:
    """What `str` of a bookmark gave; None for any other text."""
    total, _, validator = text.partition(" ")
    if total != "-" and not total.isdecimal():
        return None
    return Bookmark(None if total == "-" else int(total), validator)


def _validator(headers: Mapping[str, str]) -> str:
    etag = headers.get("ETag", "")
    # A weak one says that the file means the same, not that its bytes are.
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")
