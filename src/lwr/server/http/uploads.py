"""Files that arrive whole, in one request: streamed to a part, counted and hashed as they come, named at the end.

Nothing has its final name before all of it has arrived, is as long as announced and has the announced digest. Must
not know the dialects' paths.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack

from aiohttp import web

from lwr.core.job import Job, JobKey
from lwr.core.places import JobLayout
from lwr.core.receipt import FileRecord
from lwr.server.http.answers import json_answer
from lwr.server.http.intake import Intake, announced_sha256, invite
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call
from lwr.server.incoming import WINDOWS, Wanted
from lwr.server.view import View
from lwr.transfer.digests import digest_field

#: A body of known length up to this is received first and stored in one go.
SMALL_BYTES = 64 * 1024

#: Told of a client's file that got its name.
Arrived = Callable[[Job, FileRecord], None]
#: Answers an upload, of that kind, which names a cached file in place of a body.
FromCache = Callable[[str, Call], Awaitable[web.StreamResponse]]


class Uploads:
    """Handlers that take files. One per server."""

    def __init__(self, view: View, pool: Pool, intake: Intake, arrived: Arrived, from_cache: FromCache) -> None:
        self._view = view
        self._pool = pool
        self._intake = intake
        self._arrived = arrived
        self._from_cache = from_cache

    async def upload(self, call: Call) -> web.StreamResponse:
        return await self.upload_as(call.need("type"), call)

    async def upload_as(self, kind_name: str, call: Call) -> web.StreamResponse:
        """Take the request's body as a file of that kind.

        Raises:
            BadRequest, BadName, NotFound, Conflict (submitted already), TooLarge, DigestMismatch, Unavailable; or
            ConnectionError: the body was cut. Nothing has changed then.
        """
        if call.values.get("cache_token"):
            return await self._from_cache(kind_name, call)
        length = call.request.content_length if call.request.can_read_body else 0
        if length is not None:
            self._intake.check_size(length)
        wanted = Wanted.of(kind_name, call.need("name"), length, announced_sha256(call.request))
        if length is not None and length <= SMALL_BYTES:
            invite(call.request)
            data = await self._intake.whole(call.request.content)
            path, sha256 = await self._pool.brief(self._store, call.key, wanted, [data])
        else:
            path, sha256 = await self._stream(call, wanted)
        answer = json_answer({"path": path})
        answer.headers["Repr-Digest"] = digest_field(sha256)
        return answer

    def _store(self, key: JobKey, wanted: Wanted, chunks: Sequence[bytes]) -> tuple[str, bytes]:
        """Store a small file, all in one call."""
        with _Incoming(self._view, key, wanted, self._arrived) as incoming:
            incoming.put(chunks)
            return incoming.commit()

    def _finish(self, incoming: _Incoming) -> tuple[str, bytes]:
        """Store a file that took a while, unless the job was submitted meanwhile."""
        incoming.ask_again()
        return incoming.commit()

    async def _stream(self, call: Call, wanted: Wanted) -> tuple[str, bytes]:
        incoming = await self._pool.run(_Incoming, self._view, call.key, wanted, self._arrived)
        try:
            invite(call.request)
            await self._intake.pour(call.request.content, incoming.put, self._intake.check_size)
            return await self._pool.run(self._finish, incoming)
        finally:
            await self._pool.run(incoming.close)


class _Incoming:
    """A file that is arriving: its parts and its digest. All methods block; `close` it."""

    def __init__(self, view: View, key: JobKey, wanted: Wanted, arrived: Arrived) -> None:
        self._began_at = time.time()
        self._view = view
        self._wanted = wanted
        self._arrived = arrived
        self._sha256 = hashlib.sha256()
        self._job = view.job_for_upload(key)
        files = view.files(self._job)
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
        self._view.job_for_upload(self._job.key)

    def commit(self) -> tuple[str, bytes]:
        """Check what arrived and give it its name; returns its path on this machine and its SHA-256."""
        size_bytes, sha256 = self._parts[0].size_bytes, self._sha256.digest()
        self._wanted.check(size_bytes, sha256)
        for part, place in zip(self._parts, self._wanted.places, strict=True):
            part.commit(place)
        self._arrived(self._job, self._wanted.record(size_bytes, sha256, self._began_at, time.time()))
        return JobLayout(self._job.directory, windows=WINDOWS).path(*self._wanted.places[0]), sha256

    def close(self) -> None:
        """Forget what was not committed."""
        self._open.close()

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
