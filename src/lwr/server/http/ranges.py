"""Which part of a file a request wants, from its header fields. Pure text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum

from lwr.transfer.jobfiles import OpenFile


class Special(Enum):
    """Answers without the file's bytes."""

    NOT_MODIFIED = 304
    UNSATISFIABLE = 416


_ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.IGNORECASE)


def etag(opened: OpenFile) -> str:
    """A strong validator: another file, another write or another length gives another."""
    return f'"{opened.mtime_ns:x}-{opened.size_bytes:x}-{opened.inode:x}"'


def wanted(headers: Mapping[str, str], tag: str, size_bytes: int) -> range | Special:
    """The bytes to send, as a range of positions; the whole file when no range is asked for, or none that counts.

    Several ranges, other units and what cannot be read are answered with the whole file, as RFC 9110 allows.
    """
    none_match = headers.get("If-None-Match", "")
    if none_match.strip() == "*" or tag in [given.strip().removeprefix("W/") for given in none_match.split(",")]:
        return Special.NOT_MODIFIED
    whole = range(size_bytes)
    asked = _ONE_RANGE.fullmatch(headers.get("Range", "").strip())
    if asked is None or headers.get("If-Range", tag).strip() != tag:
        return whole
    first, last = asked.groups()
    if not first:
        part = whole[-int(last) :] if last and int(last) else None
        return part if part else (whole if not last else Special.UNSATISFIABLE)
    if last and int(last) < int(first):
        return whole
    part = whole[int(first) : int(last) + 1 if last else None]
    return part if part else Special.UNSATISFIABLE
