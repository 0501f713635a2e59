"""A file that arrives piece by piece, over several tries: counted, hashed, and begun again when it must be.

`Partial` adds counting and SHA-256 to something that bytes can be appended to (`Place`): a part in a job's directory
(`lwr.transfer.jobfiles.Part`) or a file on a client's disk. Must not know where the bytes come from, nor names.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

from lwr.errors import TooLarge

_PIECE_BYTES = 1 << 20


class Place(Protocol):
    """Where the bytes go. What `write` and `restart` raise are errors of `lwr.errors`."""

    size_bytes: int  # what is there

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`."""

    def restart(self) -> None:
        """Throw away what is there."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Up to so many bytes of what is there."""


class Partial:
    """For one thread at a time.

    `wasted_bytes`: what was written and thrown away again.

    Args:
        most_bytes: of the whole file; 0 for no limit. Beyond it `write` raises TooLarge.
    """

    def __init__(self, place: Place, most_bytes: int = 0) -> None:
        self._place = place
        self._most_bytes = most_bytes
        self._sha256 = hashlib.sha256()
        self._hashed_bytes = 0
        self.wasted_bytes = 0

    @property
    def size_bytes(self) -> int:
        return self._place.size_bytes

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`. What was there before it is hashed first, once."""
        self._catch_up()
        if 0 < self._most_bytes < self._place.size_bytes + len(data):
            raise TooLarge(
                f"The file is larger than the {self._most_bytes} bytes that this server takes.",
                "The server's admin can raise maximum_upload_bytes.",
            )
        self._place.write(data)
        self._sha256.update(data)
        self._hashed_bytes += len(data)

    def go_on(self, place: Place) -> None:
        """The same bytes in a place that was opened anew. There may be more of them; of fewer, all are hashed again."""
        self._place = place
        if place.size_bytes < self._hashed_bytes:
            self._sha256 = hashlib.sha256()
            self._hashed_bytes = 0

    def restart(self) -> None:
        """Throw away what is there: the source is another one now."""
        self.wasted_bytes += self._place.size_bytes
        self._place.restart()
        self._sha256 = hashlib.sha256()
        self._hashed_bytes = 0

    def sha256(self) -> bytes:
        """Of all that is there."""
        self._catch_up()
        return self._sha256.digest()

    def _catch_up(self) -> None:
        # What an earlier process left was not hashed by this one.
        while self._hashed_bytes < self._place.size_bytes:
            piece = self._place.read(self._hashed_bytes, _PIECE_BYTES)
            if not piece:
                break
            self._sha256.update(piece)
            self._hashed_bytes += len(piece)


@dataclass(frozen=True, slots=True)
class Transferred:
    """What is known of a file that was moved as a whole.

    Args:
        sha256: of the bytes that were moved; None where they did not pass through this process.
        checked: `sha-256` when both ends counted the same digest, `size` when only the length could be compared,
            `framing` when there was nothing but HTTP's own end mark.
        wasted_bytes: moved more than once, or thrown away.
    """

    size_bytes: int
    sha256: bytes | None
    checked: str
    wasted_bytes: int = 0
