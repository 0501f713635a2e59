"""What is sent in a request's body, piece by piece, and hashed on the way. Knows no sockets and no routes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from lwr.errors import BadTransfer, ServerError

PIECE_BYTES = 1 << 20

#: Told of bytes as they move: how many have moved so far.
OnBytes = Callable[[int], None]


class Upload:
    """A body that is read once, in large pieces, and hashed while it is sent. `len()` is its announced size.

    Raises (while it is sent):
        ServerError: it could not be read. BadTransfer: it became shorter or longer meanwhile.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, name: str, on_bytes: OnBytes) -> None:
        self._file, self._size_bytes, self._name, self._on_bytes = file, size_bytes, name, on_bytes
        self._sha256 = hashlib.sha256()

    def __len__(self) -> int:
        return self._size_bytes

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        while piece := self._read():
            sent += len(piece)
            if sent > self._size_bytes:
                break
            self._sha256.update(piece)
            yield piece
            self._on_bytes(sent)
        if sent != self._size_bytes:
            raise BadTransfer(f"{self._name} changed its size while it was sent.", "Send it when nobody writes to it.")

    def _read(self) -> bytes:
        try:
            return self._file.read(PIECE_BYTES)
        except OSError as error:  # must not look like trouble with the connection
            raise ServerError(f"{self._name} cannot be read: {error.strerror}.") from error

    def digest(self) -> bytes:
        return self._sha256.digest()
