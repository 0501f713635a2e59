"""The cache of input files over HTTP: the old clients' routes, by path, and those of LWR's own client, by claim.

    PUT  /cache?path=P                          must this caller send P: true or false
    POST /cache?path=P           the bytes      null
    GET  /cache/status?path=P                   {"token", "ready"}
    any upload with &cache_token=T, no body     as an upload
    /cache_required, /cache_insert, /file_available: the same three for classic clients

    GET  /cache                                 {"salt", "hits", "misses", "bytes_saved", "entries", ...}
    POST /jobs/ID/claim?name=N&type=T&claim=C   puts that content into the job; 404 `not-cached` if it is not here
    POST /jobs/ID/keep?name=N&type=T            keeps a file that was uploaded: {"kept": true or false}

A claim is the HMAC-SHA-256 of the content under the salt, in hexadecimal: who can make it has the content. Old clients
are told apart by the address that they come from; what they say of it themselves (X-Forwarded-For) does not count.

A server without `file_cache_dir` answers all of this with 404 `cache-not-configured`.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from http import HTTPStatus

from aiohttp import web

from lwr.core.job import JobKey
from lwr.core.places import JobLayout
from lwr.errors import BadRequest
from lwr.server.announcements import Announcements
from lwr.server.cache import Cache
from lwr.server.contents import Arrival
from lwr.server.http.answers import Refused, json_answer
from lwr.server.http.intake import Intake, invite
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call, Route, route
from lwr.server.http.uploads import Arrived
from lwr.server.incoming import WINDOWS, Wanted
from lwr.server.view import View
from lwr.transfer.digests import digest_field

_CLAIM = re.compile(r"[0-9a-f]{64}")


class Caching:
    """The handlers. One per server.

    Args:
        kept: None for a server that keeps no cache; every handler says so then.
    """

    def __init__(
        self,
        kept: tuple[Cache, Announcements] | None,
        view: View,
        pool: Pool,
        intake: Intake,
        arrived: Arrived,
    ) -> None:
        self._kept = kept
        self._view = view
        self._pool = pool
        self._intake = intake
        self._arrived = arrived

    def routes(self) -> list[Route]:
        return [
            route("PUT", "/cache", self.required),
            route("POST", "/cache", self.insert),
            route("GET", "/cache", self.counters),
            route("GET", "/cache/status", self.status),
            route("POST", "/jobs/{job_id}/claim", self.claim),
            route("POST", "/jobs/{job_id}/keep", self.keep),
            Route("/cache_required", self.required, classic=True),
            Route("/cache_insert", self.insert, classic=True),
            Route("/file_available", self.status, classic=True),
        ]

    # -- by path -------------------------------------------------------------------------------------------------

    async def required(self, call: Call) -> web.StreamResponse:
        announced = self._announcements
        return json_answer(await self._pool.run(announced.required, _address(call), call.need("path")))

    async def status(self, call: Call) -> web.StreamResponse:
        announced = self._announcements
        token, ready = await self._pool.run(announced.status, _address(call), call.need("path"))
        return json_answer({"token": token, "ready": ready})

    async def insert(self, call: Call) -> web.StreamResponse:
        """Raises what an upload raises; and Refused (507) when there is no room, since an old client would wait for
        the file for ever."""
        cache, request, path = self._cache, call.request, call.need("path")
        length = request.content_length if request.can_read_body else 0
        if length is not None:
            self._intake.check_size(length)
            if not cache.could_fit(length):
                raise _full()
        arrival = await self._pool.run(cache.arrival)
        try:
            invite(request)
            if request.can_read_body:
                await self._intake.pour(request.content, arrival.put, self._intake.check_size)
            await self._pool.run(self._insert, _address(call), path, arrival, length)
        finally:
            await self._pool.run(arrival.close)
        return json_answer(None)

    def _insert(self, address: str, path: str, arrival: Arrival, length: int | None) -> None:
        if length is not None and arrival.size_bytes != length:
            raise BadRequest(f"The body has {arrival.size_bytes} bytes, and {length} were announced.")
        content = self._cache.keep(arrival)
        if content is None:
            raise _full()
        self._announcements.brought(address, path, content.sha256)

    async def use_token(self, kind_name: str, call: Call) -> web.StreamResponse:
        """An upload with the parameter `cache_token` in place of a body."""
        announced, wanted = self._announcements, Wanted.of(kind_name, call.need("name"), None, None)
        sha256 = await self._pool.run(announced.content, _address(call), call.need("cache_token"))
        return await self._use(call, wanted, sha256)

    # -- by claim ------------------------------------------------------------------------------------------------

    async def claim(self, call: Call) -> web.StreamResponse:
        cache, claim = self._cache, call.need("claim")
        if not _CLAIM.fullmatch(claim):
            raise BadRequest("A claim is 64 hexadecimal digits.", "It is the HMAC-SHA-256 of the content.")
        sha256 = await self._pool.run(cache.claimed, bytes.fromhex(claim))
        return await self._use(call, Wanted.of(call.need("type"), call.need("name"), None, sha256), sha256)

    async def keep(self, call: Call) -> web.StreamResponse:
        wanted = Wanted.of(call.need("type"), call.need("name"), None, None)
        return json_answer({"kept": await self._pool.run(self._keep, self._cache, call.key, wanted)})

    def _keep(self, cache: Cache, key: JobKey, wanted: Wanted) -> bool:
        files = self._view.files(self._view.job_for_upload(key))
        with files.open(wanted.places[0]) as opened:
            return cache.take(opened.file, opened.size_bytes)

    async def counters(self, _: Call) -> web.StreamResponse:
        cache = self._cache
        return json_answer({"salt": cache.salt.hex(), **await self._pool.run(cache.counters)})

    # -- both ----------------------------------------------------------------------------------------------------

    async def _use(self, call: Call, wanted: Wanted, sha256: bytes | None) -> web.StreamResponse:
        if sha256 is None:
            self._cache.missed()
            raise _not_cached()
        path = await self._pool.run(self._put, call.key, wanted, sha256)
        answer = json_answer({"path": path})
        answer.headers["Repr-Digest"] = digest_field(sha256)
        return answer

    def _put(self, key: JobKey, wanted: Wanted, sha256: bytes) -> str:
        """Put a content into a job; its path there."""
        began_at = time.time()
        job = self._view.job_for_upload(key)
        with ExitStack() as discarding:
            parts = []
            for _ in wanted.places:
                part = self._cache.part(sha256, self._view.files(job))
                if part is None:
                    raise _not_cached()
                parts.append(discarding.enter_context(part))
            # A copy may take a while: raises Conflict if the job was submitted meanwhile.
            self._view.job_for_upload(key)
            size_bytes = parts[0].size_bytes
            for part, place in zip(parts, wanted.places, strict=True):
                part.commit(place)
        self._arrived(job, wanted.record(size_bytes, sha256, began_at, time.time()))
        return JobLayout(job.directory, windows=WINDOWS).path(*wanted.places[0])

    @property
    def _cache(self) -> Cache:
        if self._kept is None:
            raise Refused.no_cache()
        return self._kept[0]

    @property
    def _announcements(self) -> Announcements:
        if self._kept is None:
            raise Refused.no_cache()
        return self._kept[1]


def _address(call: Call) -> str:
    return call.request.remote or ""


def _not_cached() -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "not-cached", "This server has no such content.", "Upload the file.")


def _full() -> Refused:
    return Refused(
        HTTPStatus.INSUFFICIENT_STORAGE,
        "cache-full",
        "The cache of input files has no room for this file: what is in it is in use, or the file is too large.",
        "The server's admin can raise file_cache_max_bytes; without its cache the client can send the file anyway.",
    )
