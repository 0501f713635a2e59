"""Files on their way out of a job, and the paths that files have.

Stock clients get chunks: they take a body that is shorter than its announced length for a whole one. Careful readers
(`Call.careful`) get lengths, ranges, entity tags and digests. The kernel copies from file to socket where it can. A
file that shrinks or fails on the way breaks the connection. Must not know the dialects' paths.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.http import HttpVersion11

from lwr.core.job import Job
from lwr.core.places import JobLayout, resolve
from lwr.core.receipt import FileRecord, FileState
from lwr.core.wire import FILE_KINDS, FileKind
from lwr.errors import BadRequest, NotFound
from lwr.server.http import ranges
from lwr.server.http.answers import json_answer
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call
from lwr.server.ledger import Ledger
from lwr.server.view import View
from lwr.transfer.digests import digest_field
from lwr.transfer.jobfiles import OpenFile

log = structlog.get_logger("lwr")

#: A file up to this is read when it is opened and sent with the header.
_SMALL_BYTES = 64 * 1024
#: Where the kernel cannot send the file (TLS), it is read in pieces.
_PIECE_BYTES = 1024 * 1024
#: So many threads of the pool read files for nothing but their digests; the others are there for everybody else.
_DIGESTS_COUNT = 2

_WINDOWS = os.name == "nt"
#: Directories that results are fetched from, and the kind of the files in them.
_RESULTS = {"outputs": "output", "working": "output_workdir", "metadata": "output_metadata"}


@dataclass(frozen=True, slots=True)
class Found:
    """A file to be sent. `data` is all of it, if it is small."""

    job: Job
    opened: OpenFile
    components: tuple[str, ...]
    data: bytes | None


class Downloads:
    """Handlers that give files. One per server."""

    def __init__(self, view: View, pool: Pool, ledger: Ledger) -> None:
        self._view = view
        self._pool = pool
        self._ledger = ledger
        self._digesting = asyncio.Semaphore(_DIGESTS_COUNT)

    async def download(self, call: Call) -> web.StreamResponse:
        return await self.download_as(call.values.get("type", "output"), call)

    async def download_as(self, kind_name: str, call: Call) -> web.StreamResponse:
        """Send a file; a kind that is not known means outputs. Raises NotFound, BadName or BadRequest."""
        kind = FILE_KINDS.get(kind_name, FILE_KINDS["output"])
        find = self._pool.run if call.is_glob(kind) else self._pool.brief
        found = await find(self.find, call, kind)
        try:
            if call.careful:
                return await self._send_carefully(call, found)
            answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
            if call.request.version >= HttpVersion11:
                answer.enable_chunked_encoding()
            else:
                answer.content_length = found.opened.size_bytes
            return await self._send(call, answer, found, range(found.opened.size_bytes))
        finally:
            found.opened.close()

    async def path(self, call: Call) -> web.StreamResponse:
        return await self.path_as(call.need("type"), call)

    async def path_as(self, kind_name: str, call: Call) -> web.StreamResponse:
        """Tell where a file of that kind and name is or would be on this machine. It need not be there."""
        kind = FILE_KINDS.get(kind_name)
        if kind is None:
            raise BadRequest(f"There are no files of type {kind_name[:40]!r}.", f"Types are {', '.join(FILE_KINDS)}.")
        return json_answer({"path": await self._pool.run(self._path, call, kind)})

    def _path(self, call: Call, kind: FileKind) -> str:
        components = call.components(kind, windows=_WINDOWS)
        if call.is_glob(kind):
            try:
                found = self.find(call, kind)
            except NotFound:
                pass
            else:
                found.opened.close()
                components = found.components
        root = self._view.files_for_download(call.key).root
        return JobLayout(root, windows=_WINDOWS).path(*components)

    def find(self, call: Call, kind: FileKind) -> Found:
        """Open what the call names; blocking. A name with `*` or `?` that is none literally is a pattern."""
        job = self._view.known(call.key)
        files = self._view.files(job)
        components = call.components(kind, windows=_WINDOWS)
        try:
            opened = files.open(components)
        except NotFound:
            matching = files.glob(kind.area, call.need("name")) if call.is_glob(kind) else None
            if matching is None:
                raise
            components = resolve(kind.area, matching, windows=_WINDOWS)
            opened = files.open(components)
        data = None
        if opened.size_bytes <= _SMALL_BYTES:
            data = opened.file.read(opened.size_bytes)
            if len(data) < opened.size_bytes:
                opened.close()
                raise NotFound(f"The file {call.need('name')[:80]!r} changed while it was read.", "Ask again.")
        return Found(job, opened, components, data)

    async def _send_carefully(self, call: Call, found: Found) -> web.StreamResponse:
        request, opened = call.request, found.opened
        tag = ranges.etag(opened)
        part = ranges.wanted(request.headers, tag, opened.size_bytes)
        headers = {"ETag": tag, "Accept-Ranges": "bytes"}
        if part is ranges.Special.NOT_MODIFIED:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        if isinstance(part, ranges.Special):
            headers["Content-Range"] = f"bytes */{opened.size_bytes}"
            return web.Response(status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=headers)
        headers["Content-Type"] = "application/octet-stream"
        is_part = len(part) < opened.size_bytes
        if request.method != "HEAD" or "Want-Repr-Digest" in request.headers:
            sha256 = await self._digest(found, only_known=is_part)
            if sha256 is not None:
                headers["Repr-Digest"] = digest_field(sha256)
        answer = web.StreamResponse(headers=headers)
        if is_part:
            answer.set_status(HTTPStatus.PARTIAL_CONTENT)
            answer.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{opened.size_bytes}"
        answer.content_length = len(part)
        return await self._send(call, answer, found, part)

    async def _digest(self, found: Found, *, only_known: bool) -> bytes | None:
        """SHA-256 of the whole file. For a part of it nothing is read: who goes on was told it with the first part."""
        known = await self._pool.run(self._view.known_digest, found.job, found.components, found.opened)
        if known is not None or only_known:
            return known
        async with self._digesting:
            return await self._pool.run(self._view.take_digest, found.job, found.components, self._pool.is_stopping)

    async def _send(self, call: Call, answer: web.StreamResponse, found: Found, part: range) -> web.StreamResponse:
        """Send the header and those bytes. What goes wrong after the header breaks the connection."""
        request = call.request
        writer = await answer.prepare(request)
        if request.method == "HEAD":
            return answer
        try:
            if found.data is not None:
                await answer.write(found.data[part.start : part.stop])
            elif request.transport is not None and request.transport.get_extra_info("sslcontext") is None:
                assert writer is not None
                writer.send_headers()
                await _send_by_kernel(request.transport, found.opened, part, chunked=answer.chunked)
            else:
                await self._send_pieces(answer, found.opened, part)
            await answer.write_eof()
            if _is_fetched(request, found, part) and self._ledger.fetched(found.job, _record(answer, found, part)):
                await self._pool.run(self._ledger.flush)
        except (OSError, EOFError) as error:
            path = request.raw_path.partition("?")[0][:200]
            log.warning("download broke off", job=call.job, path=path, reason=str(error))
            if request.transport is not None:
                request.transport.abort()
        return answer

    async def _send_pieces(self, answer: web.StreamResponse, opened: OpenFile, part: range) -> None:
        await self._pool.run(opened.file.seek, part.start)
        left = len(part)
        reading = self._pool.run(opened.file.read, min(left, _PIECE_BYTES))
        while left:
            piece = await reading
            if not piece:
                raise EOFError("the file became shorter while it was sent")
            left -= len(piece)
            if left:
                reading = self._pool.run(opened.file.read, min(left, _PIECE_BYTES))
            await answer.write(piece)


def _is_fetched(request: web.BaseRequest, found: Found, part: range) -> bool:
    """Whether a client has all of a result of a job that is over, now that it was sent this part: the whole file, or
    the rest for one that proved with its `If-Range` that it has begun with the same file."""
    is_result = found.job.terminal and found.components[0] in _RESULTS
    from_start = part.start == 0 or "If-Range" in request.headers
    return is_result and from_start and part.stop == found.opened.size_bytes


def _record(answer: web.StreamResponse, found: Found, part: range) -> FileRecord:
    """What the receipt says of a result that was sent to its end, to whatever client it was."""
    size_bytes = found.opened.size_bytes
    told = "sha-256" if "Repr-Digest" in answer.headers else "size" if "ETag" in answer.headers else "framing"
    return FileRecord(
        upward=False,
        kind=_RESULTS[found.components[0]],
        name="/".join(found.components[1:]),
        state=FileState.WHOLE,
        mover="client",
        action="transfer",
        size_bytes=size_bytes,
        checked=told,
        tries=2 if part.start else 1,
        ended_at=time.time(),
    )


async def _send_by_kernel(transport: asyncio.WriteTransport, opened: OpenFile, part: range, *, chunked: bool) -> None:
    """Send bytes of the file as one chunk, however long, without a copy in this process."""
    if not part:
        return
    if transport.is_closing():
        raise ConnectionResetError("the client went away")
    if chunked:
        transport.write(b"%x\r\n" % len(part))
    sent = await asyncio.get_running_loop().sendfile(transport, opened.file, part.start, len(part))
    if sent < len(part):
        raise EOFError("the file became shorter while it was sent")
    if chunked:
        transport.write(b"\r\n")
