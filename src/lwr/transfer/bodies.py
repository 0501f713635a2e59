"""What is sent in a request's body, piece by piece, and hashed on the way. Knows no sockets and no routes."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from lwr.errors import BadTransfer, PeerUnreachable, ServerError

PIECE_BYTES = 1 << 20

#: In the name of a form's file; as browsers do it.
_QUOTED = (('"', "%22"), ("\r", "%0D"), ("\n", "%0A"))

#: Told of bytes as they move: how many have moved so far.
OnBytes = Callable[[int], None]


class Body(Protocol):
    """What a request can send: so many bytes, in pieces, once."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...


class Pace:
    """Notices a peer that sends next to nothing: it never falls silent for long enough to be given up, and would hold
    a transfer's place for ever. `note` what came.

    Raises (by `note`):
        PeerUnreachable: less than `LEAST_BYTES` in `WINDOW_S`.
    """

    WINDOW_S = 300.0
    LEAST_BYTES = 64 * 1024

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since_s, self._came_bytes = clock(), 0

    def note(self, size_bytes: int) -> None:
        self._came_bytes += size_bytes
        now_s = self._clock()
        if now_s - self._since_s < self.WINDOW_S:
            return
        if self._came_bytes < self.LEAST_BYTES:
            raise PeerUnreachable(f"Only {self._came_bytes} bytes came in {now_s - self._since_s:.0f} s.")
        self._since_s, self._came_bytes = now_s, 0


class Upload:
    """A body that is read once, in large pieces, and hashed while it is sent. `len()` is its announced size.

    Args:
        file: read from where it stands.
        sha256: goes on with this one; a new one if not given.
        more_follows: it is a piece of the file, so its end is not the file's.

    Raises (while it is sent):
        ServerError: it could not be read. BadTransfer: it became shorter or longer meanwhile.
    """

    def __init__(
        self,
        file: BinaryIO,
        size_bytes: int,
        name: str,
        on_bytes: OnBytes,
        *,
        sha256: hashlib._Hash | None = None,
        more_follows: bool = False,
    ) -> None:
        self._file, self._size_bytes, self._name, self._on_bytes = file, size_bytes, name, on_bytes
        self._sha256 = sha256 or hashlib.sha256()
        self._looks_beyond_bytes = 0 if more_follows else 1

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while piece := self._read(min(PIECE_BYTES, self._size_bytes - sent + self._looks_beyond_bytes)):
            sent += len(piece)
            if sent > self._size_bytes:
                break
            self._sha256.update(piece)
            yield piece
            self._on_bytes(sent)
        if sent != self._size_bytes:
            raise BadTransfer(f"{self._name} changed its size while it was sent.", "Send it when nobody writes to it.")

    def _read(self, most_bytes: int) -> bytes:
        try:
            return self._file.read(most_bytes)
        except OSError as error:  # must not look like trouble with the connection
            raise ServerError(f"{self._name} cannot be read: {error.strerror}.") from error

    def digest(self) -> bytes:
        return self._sha256.digest()


class Form:
    """A form (multipart/form-data, RFC 7578) whose only field is a file."""

    def __init__(self, field: str, name: str, file: Upload) -> None:
        boundary = secrets.token_hex(16)
        for character, quoted in _QUOTED:
            name = name.replace(character, quoted)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode("utf-8", "replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = file

    def __len__(self) -> int:
        return len(self._head) + len(self._file) + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        yield from self._file
        yield self._tail
