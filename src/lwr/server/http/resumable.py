"""Uploads that go on after a cut: the tus protocol 1.0.0 at `/jobs/{job_id}/files`.

Sections of https://tus.io/protocols/resumable-upload: the core protocol, and the extensions creation, expiration,
checksum and termination. What an upload is and where its bytes are is `lwr.server.tus`.

    OPTIONS .../files            what this server can
    POST    .../files?name&type  with `Tus-Resumable`: begins an upload; without, it is a plain one
    HEAD    .../files/UPLOAD     how far it is
    PATCH   .../files/UPLOAD     more bytes; with the last one the file gets its name
    DELETE  .../files/UPLOAD     forgets it

A client that asks how far its upload is has lost its line, even if this end has not noticed: it is answered when what
still arrives on that line has come to an end, or to a rest, in which case the line is cut. Who sends a second PATCH
without asking is refused while the first one is under way.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs, web

from lwr.core.job import JobKey
from lwr.errors import BadRequest, DigestMismatch, LwrError, TooLarge
from lwr.server.http.answers import CHECKSUM_MISMATCH, Refused
from lwr.server.http.intake import Intake, announced_sha256, invite
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call, Handler, Route, route
from lwr.server.http.uploads import Uploads
from lwr.server.incoming import Wanted
from lwr.server.tus import Appending, Checksum, Hash, ResumableUploads, Standing
from lwr.transfer.digests import digest_field

VERSION = "1.0.0"
_EXTENSIONS = "creation,expiration,checksum,termination"
_CONTENT_TYPE = "application/offset+octet-stream"
_RESUMABLE = "Tus-Resumable"

#: By their names in `Upload-Checksum`. SHA-1 is what the protocol asks every server for; the other two are one.
_ALGORITHMS: dict[str, Callable[[], Hash]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha-256": hashlib.sha256,
}
#: Keys of `Upload-Metadata` that stand for a parameter which the query lacks, the later one before the earlier.
_METADATA_PARAMETERS = {"filename": "name", "filetype": "type", "name": "name", "type": "type"}


#: A line that brings nothing for so long is dead if its client asks how far the upload is.
_QUIET_S = 1.0
#: So long it may take until what is on its way has arrived.
_REST_S = 10.0


@dataclass(slots=True, eq=False)
class _Holder:
    """The request that uses an upload now."""

    request: web.BaseRequest
    received_bytes: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def give_up(self) -> None:
        """Wait for its end, or make it end when its line has come to rest."""
        deadline = time.monotonic() + _REST_S
        seen_bytes = -1
        while self.received_bytes > seen_bytes and time.monotonic() < deadline:
            seen_bytes = self.received_bytes
            with suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_S):
                    await self.over.wait()
                return
        await self.cut()

    async def cut(self) -> None:
        """Close its line, as if the client had done so, and wait for its end."""
        if self.request.transport is not None:
            self.request.transport.abort()
        await self.over.wait()


class Resumable:
    """The handlers. One per server; used on the event loop only."""

    def __init__(self, state: ResumableUploads, pool: Pool, intake: Intake, uploads: Uploads) -> None:
        self._state = state
        self._pool = pool
        self._intake = intake
        self._uploads = uploads
        self._holders: dict[tuple[JobKey, str], _Holder] = {}

    def routes(self) -> list[Route]:
        """Those that only tus has."""
        files, one = "/jobs/{job_id}/files", "/jobs/{job_id}/files/{upload}"
        return [
            route("OPTIONS", files, self._options),
            route("OPTIONS", one, self._options),
            route("HEAD", one, _in_tus(self._look)),
            route("PATCH", one, _in_tus(self._append)),
            route("DELETE", one, _in_tus(self._terminate)),
        ]

    async def post(self, call: Call) -> web.StreamResponse:
        """Begin an upload if the request speaks tus; else its body is the whole file."""
        if _RESUMABLE in call.request.headers:
            return await _in_tus(self._create)(call)
        return await self._uploads.upload(call)

    async def _options(self, _: Call) -> web.StreamResponse:
        headers = {
            "Tus-Version": VERSION,
            "Tus-Extension": _EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(_ALGORITHMS),
        }
        if self._intake.maximum_bytes:
            headers["Tus-Max-Size"] = str(self._intake.maximum_bytes)
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=headers)

    async def _create(self, call: Call) -> web.StreamResponse:
        """Section "Creation". A `Repr-Digest` announces the digest of the whole file."""
        headers = call.request.headers
        size_bytes = _whole_number(call, "Upload-Length")
        self._intake.check_size(size_bytes)
        metadata = headers.get("Upload-Metadata", "")
        call = replace(call, values={**_parameters(metadata), **call.values})
        wanted = Wanted.of(call.need("type"), call.need("name"), size_bytes, announced_sha256(call.request))
        standing = await self._pool.run(self._state.create, call.key, wanted, metadata)
        # Relative, so that it is right behind every proxy.
        place = f"{call.request.raw_path.partition('?')[0].rpartition('/')[2]}/{standing.upload_id}"
        answer = _answer(HTTPStatus.CREATED, standing)
        answer.headers[hdrs.LOCATION] = place
        return answer

    async def _look(self, call: Call) -> web.StreamResponse:
        async with self._alone(call):
            standing = await self._pool.run(self._state.look, call.key, call.need("upload"))
        answer = _answer(HTTPStatus.OK, standing)
        answer.headers["Upload-Length"] = str(standing.size_bytes)
        answer.headers[hdrs.CACHE_CONTROL] = "no-store"
        if standing.metadata:
            answer.headers["Upload-Metadata"] = standing.metadata
        return answer

    async def _append(self, call: Call) -> web.StreamResponse:
        request = call.request
        if request.content_type != _CONTENT_TYPE:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "bad-request", f"The body's type must be {_CONTENT_TYPE}.")
        offset_bytes, checksum = _whole_number(call, "Upload-Offset"), _checksum(call)
        async with self._alone(call) as mine:
            appending = await self._pool.run(self._state.begin, call.key, call.need("upload"), offset_bytes, checksum)
            try:
                standing = await self._receive(mine, appending)
            finally:
                await self._pool.run(appending.close)
        return _answer(HTTPStatus.NO_CONTENT, standing)

    async def _receive(self, mine: _Holder, appending: Appending) -> Standing:
        def check(received_bytes: int) -> None:
            mine.received_bytes = received_bytes
            if received_bytes > appending.missing_bytes:
                raise TooLarge(f"Only {appending.missing_bytes} bytes are missing of this upload.")

        request = mine.request
        check(request.content_length or 0)
        invite(request)
        if request.can_read_body:
            await self._intake.pour(request.content, appending.put, check)
        return await self._pool.run(appending.end)

    async def _terminate(self, call: Call) -> web.StreamResponse:
        async with self._alone(call):
            await self._pool.run(self._state.terminate, call.key, call.need("upload"))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @asynccontextmanager
    async def _alone(self, call: Call) -> AsyncIterator[_Holder]:
        """Have an upload for one request.

        Raises:
            Refused: a PATCH while another one is under way.
        """
        place = (call.key, call.need("upload"))
        while (holder := self._holders.get(place)) is not None:
            if holder.request.method != "PATCH":
                await holder.over.wait()  # it takes a moment only
            elif call.request.method == "PATCH":
                raise Refused(
                    HTTPStatus.LOCKED,
                    "conflict",
                    "Another request sends bytes to this upload.",
                    "Ask for its offset (HEAD), which ends that one, and go on from there.",
                )
            elif call.request.method == "DELETE":
                await holder.cut()
            else:
                await holder.give_up()
        mine = self._holders[place] = _Holder(call.request)
        try:
            yield mine
        finally:
            del self._holders[place]
            mine.over.set()


def _in_tus(handler: Handler) -> Handler:
    """The handler for requests that speak this version of tus, with what tus asks of every answer."""

    async def answer(call: Call) -> web.StreamResponse:
        try:
            if call.request.headers.get(_RESUMABLE) != VERSION:
                raise Refused(
                    HTTPStatus.PRECONDITION_FAILED,
                    "bad-request",
                    f"This server speaks version {VERSION} of tus.",
                    f"Send `{_RESUMABLE}: {VERSION}`.",
                    headers={"Tus-Version": VERSION},
                )
            reply = await handler(call)
        except LwrError as error:
            refused = Refused.by(error)
            if isinstance(error, DigestMismatch):
                refused.status = CHECKSUM_MISMATCH
            refused.headers[_RESUMABLE] = VERSION
            raise refused from error
        except Refused as refused:
            refused.headers[_RESUMABLE] = VERSION
            raise
        reply.headers[_RESUMABLE] = VERSION
        return reply

    return answer


def _answer(status: HTTPStatus, standing: Standing) -> web.Response:
    headers = {
        "Upload-Offset": str(standing.offset_bytes),
        "Upload-Expires": formatdate(standing.expires_at, usegmt=True),
    }
    if standing.sha256 is not None:
        headers["Repr-Digest"] = digest_field(standing.sha256)
    return web.Response(status=status, headers=headers)


def _whole_number(call: Call, name: str) -> int:
    text = call.request.headers.get(name, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"The header {name} must be a number of bytes.")
    return int(text)


def _parameters(metadata: str) -> dict[str, str]:
    """What `Upload-Metadata` says of the file's name and type: pairs of a key and base64, with commas between."""
    told: dict[str, str] = {}
    for pair in metadata.split(","):
        key, _, value = pair.strip().partition(" ")
        if key in _METADATA_PARAMETERS:
            try:
                told[key] = base64.b64decode(value.strip(), validate=True).decode()
            except ValueError:
                raise BadRequest(f"The value of `{key}` in Upload-Metadata is not UTF-8 in base64.") from None
    return {parameter: told[key] for key, parameter in _METADATA_PARAMETERS.items() if key in told}


def _checksum(call: Call) -> Checksum | None:
    """Section "Checksum": `Upload-Checksum: ALGORITHM BASE64`."""
    told = call.request.headers.get("Upload-Checksum")
    if told is None:
        return None
    name, _, value = told.partition(" ")
    if name not in _ALGORITHMS:
        raise BadRequest(f"Upload-Checksum takes {', '.join(_ALGORITHMS)}.")
    try:
        return Checksum(_ALGORITHMS[name](), base64.b64decode(value.strip(), validate=True))
    except binascii.Error:
        raise BadRequest("The digest in Upload-Checksum is not base64.") from None
