"""A file that a client brings to a job, in whatever way: what it is to be, whether it came so, and what is told of it.

Shared by plain uploads and those in pieces. Must not know how the bytes come, and opens nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self

from lwr.core.places import resolve
from lwr.core.receipt import FileRecord, FileState
from lwr.core.wire import FILE_KINDS
from lwr.errors import BadRequest, DigestMismatch

WINDOWS = os.name == "nt"
_TOOL_SCRIPT = "tool_script.sh"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the client says about the file to come.

    Args:
        kind, name: as on the wire.
        places: components below the job's directory; the first is what the client is told.
        size_bytes, sha256: as announced; None where they were not.
    """

    kind: str
    name: str
    places: tuple[tuple[str, ...], ...]
    size_bytes: int | None
    sha256: bytes | None

    @classmethod
    def of(cls, kind_name: str, name: str, size_bytes: int | None, sha256: bytes | None) -> Self:
        """Raises BadRequest for an unknown kind, and BadName."""
        kind = FILE_KINDS.get(kind_name)
        if kind is None:
            raise BadRequest(f"There are no files of type {kind_name[:40]!r}.", f"Types are {', '.join(FILE_KINDS)}.")
        components = resolve(kind.area, name, nested=kind.nested, windows=WINDOWS)
        places = [components]
        if kind_name == "config" and components[-1] == _TOOL_SCRIPT:
            # Galaxy's legacy runner sends the script with the paths of this machine as a configuration file, and
            # then runs the copy in the job's directory, which it sent before with Galaxy's own paths.
            places.append((_TOOL_SCRIPT,))
        return cls(kind_name, name, tuple(places), size_bytes, sha256)

    def check(self, size_bytes: int, sha256: bytes) -> None:
        """Compare what came with what was announced; raises BadRequest or DigestMismatch."""
        if self.size_bytes is not None and size_bytes != self.size_bytes:
            raise BadRequest(f"The body has {size_bytes} bytes, and {self.size_bytes} were announced.")
        if self.sha256 is not None and sha256 != self.sha256:
            raise DigestMismatch(
                "The SHA-256 of the bytes that arrived is not the one in Repr-Digest.", "Send the file again."
            )

    def record(
        self,
        size_bytes: int,
        sha256: bytes,
        began_at: float,
        ended_at: float,
        *,
        tries: int = 1,
        wasted_bytes: int = 0,
    ) -> FileRecord:
        """What the receipt says of it, once it has its name."""
        checked = "sha-256" if self.sha256 is not None else "framing" if self.size_bytes is None else "size"
        return FileRecord(
            True, self.kind, self.name, FileState.WHOLE, "client", "transfer",
            size_bytes=size_bytes, sha256=sha256, checked=checked, tries=tries, wasted_bytes=wasted_bytes,
            began_at=began_at, ended_at=ended_at,
        )  # fmt: skip
