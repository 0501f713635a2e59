"""What is known of each file of a job: the receipt. Pure; the same words on both sides.

A `FileRecord` is one file in one direction. The document that `GET /jobs/{id}/receipt` answers, `lwr run --receipt`
writes and `lwr verify` reads is `{"receipt": 1, "job_id", "manager", "directory", "state", "files": [RECORD, ...]}`; a
RECORD has the fields of `FileRecord` by name, the digest as hexadecimal text. No secret is ever in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from lwr.errors import BadRequest

VERSION = 1


class FileState(StrEnum):
    """How it stands with a file."""

    UNDER_WAY = "under way"
    WHOLE = "whole"
    READY = "ready to be fetched"
    NOT_WRITTEN = "not written by the job"
    EMPTY = "created empty by the server"
    REFUSED = "refused by the receiver"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a job, on its way up (to the job) or down (from it).

    Args:
        kind, name: where it lives in the job, as on the wire; `path` is that place on the machine that wrote this.
        mover: which side moved it: `client`, `server`, or `nobody`.
        action: the file action.
        peer: where it came from or went to on the other side, without secrets.
        checked: `sha-256` (both ends counted the same), `size`, or `framing` (nothing but HTTP's own end mark).
        tries: how often it was begun. wasted_bytes: what was moved and thrown away.
        began_at, ended_at: seconds since the epoch.
        reason: why it is not whole.
    """

    upward: bool
    kind: str
    name: str
    state: FileState
    mover: str
    action: str
    peer: str = ""
    path: str = ""
    size_bytes: int | None = None
    sha256: bytes | None = None
    checked: str = ""
    tries: int = 0
    wasted_bytes: int = 0
    began_at: float | None = None
    ended_at: float | None = None
    reason: str = ""

    def to_wire(self) -> dict[str, Any]:
        """As it stands in the document."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "state": str(self.state),
            "sha256": None if self.sha256 is None else self.sha256.hex(),
        }


def without_secrets(url: str) -> str:
    """A URL as it may be shown: no query (Galaxy's job key stands there), no user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def receipt_document(
    job_id: str, manager: str, directory: str, state: str, records: Iterable[FileRecord]
) -> dict[str, Any]:
    """The document; the same from a server and from a client that wrote down its own side."""
    return {
        "receipt": VERSION,
        "job_id": job_id,
        "manager": manager,
        "directory": directory,
        "state": str(state),
        "files": [record.to_wire() for record in records],
    }


def records_from_document(document: object) -> list[FileRecord]:
    """The records of a document.

    Raises:
        BadRequest: it is not a receipt, or one of a version that this LWR does not know.
    """
    if not isinstance(document, dict) or document.get("receipt") != VERSION:
        raise BadRequest("This is not a receipt that this version of LWR knows.")
    try:
        return [_record_from_wire(value) for value in document["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest("This is not a receipt: one of its files lacks something.") from error


def _record_from_wire(value: Mapping[str, Any]) -> FileRecord:
    known = {name: value[name] for name in FileRecord.__slots__ if name in value}
    digest = known["sha256"]
    return FileRecord(
        **known | {"state": FileState(known["state"]), "sha256": None if digest is None else bytes.fromhex(digest)}
    )
