"""Request bodies on their way to the disk: read in pieces, so that all of them together hold little memory.

While one piece is written and hashed in the pool, the next is received. Must not know what the bytes are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpVersion11

from lwr.errors import BadRequest, TooLarge
from lwr.server.http.pool import Pool
from lwr.transfer.digests import sha256_of_field

#: What all bodies together may hold in memory in pieces that are being received or written.
_PIECES_BYTES = 16 * 1024 * 1024
_LARGEST_PIECE_BYTES = 1024 * 1024
_SMALLEST_PIECE_BYTES = 32 * 1024
#: A body that brings nothing for so long is given up.
_STALL_S = 600.0


class Intake:
    """One per server; used on the event loop only.

    Args:
        maximum_bytes: of one file; 0 for no limit.
    """

    def __init__(self, pool: Pool, maximum_bytes: int) -> None:
        self.maximum_bytes = maximum_bytes
        self._pool = pool
        self._active = 0

    def check_size(self, size_bytes: int) -> None:
        """Raises TooLarge for a file that this server does not take."""
        if self.maximum_bytes and size_bytes > self.maximum_bytes:
            raise TooLarge(
                f"The file is larger than the {self.maximum_bytes} bytes that this server takes.",
                "The server's admin can raise maximum_upload_bytes.",
            )

    async def whole(self, content: StreamReader) -> bytes:
        """All of a small body. Raises ConnectionError (cut) or TimeoutError (stalled)."""
        async with asyncio.timeout(_STALL_S):
            return await content.read()

    async def pour(
        self, content: StreamReader, put: Callable[[Sequence[bytes]], None], check_size: Callable[[int], None]
    ) -> None:
        """Read a body to its end; `put` gets every piece of it, in order, in a thread.

        What came was put when this returns, and also when it raises: what `put` raises, what `check_size` raises for
        the number of bytes that came so far, ConnectionError (cut) or TimeoutError (stalled).
        """
        received_bytes = 0
        writing: asyncio.Future[None] | None = None
        self._active += 1
        try:
            while True:
                chunks: list[bytes] = []
                try:
                    await self._piece(content, chunks)
                finally:
                    # Also on the way out of a cut: a resumable upload goes on behind the last byte that came.
                    if chunks:
                        received_bytes += sum(map(len, chunks))
                        check_size(received_bytes)
                        if writing is not None:
                            await writing
                        writing = self._pool.run(put, chunks)
                if not chunks:
                    return
        finally:
            self._active -= 1
            # Also on the way out of an error: nothing must be closed while a thread writes to it.
            if writing is not None:
                await writing

    async def _piece(self, content: StreamReader, chunks: list[bytes]) -> None:
        """Append the next chunks, together about a piece; none at the end of the body."""
        wanted_bytes = max(_SMALLEST_PIECE_BYTES, min(_LARGEST_PIECE_BYTES, _PIECES_BYTES // (2 * self._active)))
        size_bytes = 0
        async with asyncio.timeout(_STALL_S):
            while size_bytes < wanted_bytes and (chunk := await content.readany()):
                chunks.append(chunk)
                size_bytes += len(chunk)


def invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body now. Refusals come before, so that it is never sent in vain."""
    expects = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    if expects and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def announced_sha256(request: web.BaseRequest) -> bytes | None:
    """What `Repr-Digest` announces; None without one that LWR knows. Raises BadRequest when it cannot be read."""
    announced = request.headers.get("Repr-Digest", "")
    sha256 = sha256_of_field(announced)
    if sha256 is None and "sha-256" in announced.lower():
        raise BadRequest("The SHA-256 in `Repr-Digest` cannot be read.", "Send `sha-256=:BASE64:`.")
    return sha256
