"""Files on their way into a job: streamed to a part, counted and hashed as they come, named at the end.

While one piece is written and hashed in the pool, the next is received. Nothing has its final name before all of it
has arrived, is as long as announced and has the announced digest. Must not know the dialects' paths.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from aiohttp import StreamReader, hdrs, web
from aiohttp.http import HttpVersion11

from lwr.core.job import JobKey
from lwr.core.places import JobLayout
from lwr.core.wire import FILE_KINDS
from lwr.errors import BadRequest, DigestMismatch, TooLarge
from lwr.server.http.answers import Refused, json_answer
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call
from lwr.server.view import View
from lwr.transfer.digests import digest_field, sha256_of_field

#: A body of known length up to this is received first and stored in one go.
SMALL_BYTES = 64 * 1024
#: What all uploads together may hold in memory in pieces that are being received or written.
_PIECES_BYTES = 16 * 1024 * 1024
_LARGEST_PIECE_BYTES = 1024 * 1024
_SMALLEST_PIECE_BYTES = 32 * 1024
#: An upload that sends nothing for so long is given up.
_STALL_S = 600.0

_WINDOWS = os.name == "nt"
_TOOL_SCRIPT = "tool_script.sh"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the request says about the file to come."""

    places: tuple[tuple[str, ...], ...]  # components below the job's directory; the first is answered
    length: int | None
    sha256: bytes | None


class Uploads:
    """Handlers that take files. One per server.

    Args:
        maximum_bytes: of one file; 0 for no limit.
    """

    def __init__(self, view: View, pool: Pool, maximum_bytes: int) -> None:
        self._view = view
        self._pool = pool
        self._maximum_bytes = maximum_bytes
        self._active = 0

    async def upload(self, call: Call) -> web.StreamResponse:
        return await self.upload_as(call.need("type"), call)

    async def upload_as(self, kind_name: str, call: Call) -> web.StreamResponse:
        """Take the request's body as a file of that kind.

        Raises:
            BadRequest, BadName, NotFound, Conflict (submitted already), TooLarge, DigestMismatch, Unavailable; or
            ConnectionError: the body was cut. Nothing has changed then.
        """
        if call.values.get("cache_token"):
            raise Refused.no_cache()
        wanted = self._wanted(kind_name, call)
        if wanted.length is not None and wanted.length <= SMALL_BYTES:
            _invite(call.request)
            data = await _whole(call.request.content)
            path, sha256 = await self._pool.brief(self._store, call.key, wanted, [data])
        else:
            path, sha256 = await self._stream(call, wanted)
        answer = json_answer({"path": path})
        answer.headers["Repr-Digest"] = digest_field(sha256)
        return answer

    def _wanted(self, kind_name: str, call: Call) -> _Wanted:
        kind = FILE_KINDS.get(kind_name)
        if kind is None:
            raise BadRequest(f"There are no files of type {kind_name[:40]!r}.", f"Types are {', '.join(FILE_KINDS)}.")
        components = call.components(kind, windows=_WINDOWS)
        places = [components]
        if kind_name == "config" and components[-1] == _TOOL_SCRIPT:
            # Galaxy's legacy runner sends the script with the paths of this machine as a configuration file, and
            # then runs the copy in the job's directory, which it sent before with Galaxy's own paths.
            places.append((_TOOL_SCRIPT,))
        length = call.request.content_length if call.request.can_read_body else 0
        if length is not None:
            self._check_size(length)
        announced = call.request.headers.get("Repr-Digest", "")
        sha256 = sha256_of_field(announced)
        if sha256 is None and "sha-256" in announced.lower():
            raise BadRequest("The SHA-256 in `Repr-Digest` cannot be read.", "Send `sha-256=:BASE64:`.")
        return _Wanted(tuple(places), length, sha256)

    def _check_size(self, size_bytes: int) -> None:
        if self._maximum_bytes and size_bytes > self._maximum_bytes:
            raise TooLarge(
                f"The file is larger than the {self._maximum_bytes} bytes that this server takes.",
                "The server's admin can raise maximum_upload_bytes.",
            )

    def _store(self, key: JobKey, wanted: _Wanted, chunks: Sequence[bytes]) -> tuple[str, bytes]:
        """Store a small file, all in one call."""
        with _Incoming(self._view, key, wanted) as incoming:
            incoming.put(chunks)
            return incoming.commit()

    def _finish(self, incoming: _Incoming) -> tuple[str, bytes]:
        """Store a file that took a while, unless the job was submitted meanwhile."""
        incoming.ask_again()
        return incoming.commit()

    async def _stream(self, call: Call, wanted: _Wanted) -> tuple[str, bytes]:
        incoming = await self._pool.run(_Incoming, self._view, call.key, wanted)
        self._active += 1
        try:
            _invite(call.request)
            await self._receive(call.request.content, incoming)
            return await self._pool.run(self._finish, incoming)
        finally:
            self._active -= 1
            await self._pool.run(incoming.close)

    async def _receive(self, content: StreamReader, incoming: _Incoming) -> None:
        received_bytes = 0
        writing: asyncio.Future[None] | None = None
        try:
            while chunks := await self._piece(content):
                received_bytes += sum(map(len, chunks))
                self._check_size(received_bytes)
                if writing is not None:
                    await writing
                writing = self._pool.run(incoming.put, chunks)
        finally:
            # Also on the way out of an error: the part must not be closed while a thread writes to it.
            if writing is not None:
                await writing

    async def _piece(self, content: StreamReader) -> list[bytes]:
        """The next chunks, together about a piece; none at the end of the body."""
        wanted_bytes = max(_SMALLEST_PIECE_BYTES, min(_LARGEST_PIECE_BYTES, _PIECES_BYTES // (2 * self._active)))
        chunks: list[bytes] = []
        size_bytes = 0
        async with asyncio.timeout(_STALL_S):
            while size_bytes < wanted_bytes and (chunk := await content.readany()):
                chunks.append(chunk)
                size_bytes += len(chunk)
        return chunks


class _Incoming:
    """A file that is arriving: its parts and its digest. All methods block; `close` it."""

    def __init__(self, view: View, key: JobKey, wanted: _Wanted) -> None:
        self._view = view
        self._key = key
        self._wanted = wanted
        self._sha256 = hashlib.sha256()
        files = view.files_for_upload(key)
        self._root = files.root
        with ExitStack() as parts:
            self._parts = [parts.enter_context(files.part()) for _ in wanted.places]
            self._open = parts.pop_all()

    def put(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self._sha256.update(chunk)
            for part in self._parts:
                part.write(chunk)

    def ask_again(self) -> None:
        """Raise Conflict if the job was submitted while the file arrived. (Set up anew, it has no such part.)"""
        self._view.files_for_upload(self._key)

    def commit(self) -> tuple[str, bytes]:
        """Check what arrived and give it its name; returns its path on this machine and its SHA-256."""
        size_bytes, sha256 = self._parts[0].size_bytes, self._sha256.digest()
        if self._wanted.length is not None and size_bytes != self._wanted.length:
            raise BadRequest(f"The body has {size_bytes} bytes, and {self._wanted.length} were announced.")
        if self._wanted.sha256 is not None and sha256 != self._wanted.sha256:
            raise DigestMismatch(
                "The SHA-256 of the bytes that arrived is not the one in Repr-Digest.", "Send the file again."
            )
        for part, place in zip(self._parts, self._wanted.places, strict=True):
            part.commit(place)
        return JobLayout(self._root, windows=_WINDOWS).path(*self._wanted.places[0]), sha256

    def close(self) -> None:
        """Forget what was not committed."""
        self._open.close()

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _whole(content: StreamReader) -> bytes:
    async with asyncio.timeout(_STALL_S):
        return await content.read()


def _invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send its body now. Refusals come before, so that it is never sent in vain."""
    expects = request.headers.get(hdrs.EXPECT, "").lower() == "100-continue"
    if expects and request.version >= HttpVersion11 and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
