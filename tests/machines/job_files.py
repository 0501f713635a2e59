"""Galaxy's job-files API as a test server: what a server that stages by itself fetches from and stores at.

Answers as Galaxy 26.1 was recorded to answer, oddities included: downloads are chunked and called JSON, a missing file
is 500, a finished tus upload is stored by a form, `tool_stdout` and `tool_stderr` are appended to. Galaxy's disk is a
directory of the test; nothing outside is read or written. Streams: no file is ever in memory.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from aiohttp import BodyPartReader, ClientPayloadError, web

from tests.machines.exchange import Handler, Kind, RefusedError, Seen
from tests.machines.loop_thread import LoopThread
from tests.machines.tus_uploads import TUS_PATH, TusRoutes, Uploads

JOB_ID = "f2db41e1fa331b3e"
#: As large as the chunks of Galaxy's downloads.
PIECE_BYTES = 64 * 1024
LOGIN_PAGE = b"<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>\n"

#: What reading a request raises when its line was cut.
_CUT = (ConnectionError, ClientPayloadError, web.RequestPayloadError)
_JSON = {"Content-Type": "application/json; charset=UTF-8"}


@dataclass
class _Script:
    """The same answer to the next requests, instead of work."""

    times: float
    status: int
    method: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class JobFilesServer:
    """Galaxy's job-files API for the one job of `key`, over the files below `root`, on a loopback port of its own.

    A context manager. Its switches are attributes and may be set at any time:
        active: False: the job is over, and Galaxy takes and gives nothing more (403).
        etags: downloads carry a strong ETag, made of the file's size and time and of `etag_salt`.
        etag_salt: another one changes all ETags.
        ranges: False: `Range` is ignored and not offered.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.root = root.resolve()
        self.key = key
        self.port = 0
        self.active = True
        self.etags = True
        self.etag_salt = ""
        self.ranges = True
        self.requests: list[Seen] = []
        self._scripts: list[_Script] = []
        self._answers_to_lose = 0
        self._directory = tempfile.TemporaryDirectory(prefix="job-files-")
        self.uploads = Uploads(Path(self._directory.name))
        self._thread = LoopThread("job files", self._serve)
        self._handlers: Mapping[tuple[str, Kind], Handler] = {
            ("GET", "files"): self._fetch,
            ("HEAD", "files"): self._fetch,
            ("POST", "files"): self._store,
            **{(method, "tus"): handler for method, handler in TusRoutes(self.uploads).handlers.items()},
        }

    def __enter__(self) -> JobFilesServer:
        self.port = self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()
        self._directory.cleanup()

    # -- where it is ------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        """`files_endpoint` as Galaxy hands it out."""
        return self.endpoint_at(self.port)

    def endpoint_at(self, port: int) -> str:
        """The same through a proxy on `port`; the locations of tus uploads then name the proxy as well."""
        return f"http://127.0.0.1:{port}/api/jobs/{JOB_ID}/files?job_key={quote(self.key, safe='')}"

    def url_of(self, path: Path | str, file_type: str = "input", *, port: int | None = None) -> str:
        """The URL of one file, with its path encoded as Galaxy's client does it."""
        return f"{self.endpoint_at(port or self.port)}&path={quote(str(path), safe='')}&file_type={file_type}"

    # -- what it shall do -------------------------------------------------------------------------------------------

    def fail_next(self, status: int, times: int = 1, *, retry_after: str | None = None, method: str = "") -> None:
        """Answer the next `times` requests (of `method`, if given) with `status`. Scripts are worked off in order."""
        headers = {"Retry-After": retry_after} if retry_after is not None else {}
        self._scripts.append(_Script(times, status, method, b'{"err_msg": "scripted", "err_code": 0}', headers | _JSON))

    def answers_html(self, times: float = float("inf"), *, method: str = "") -> None:
        """Answer the next requests with 200 and a login page, as a proxy in front does; from now on, if not told."""
        self._scripts.append(_Script(times, 200, method, LOGIN_PAGE, {"Content-Type": "text/html; charset=utf-8"}))

    def behave(self) -> None:
        """Forget what is left of the scripts."""
        self._scripts.clear()

    def lose_answers(self, times: int = 1) -> None:
        """Do what the next `times` requests other than GET ask for, then cut the line instead of answering."""
        self._answers_to_lose = times

    def forget_uploads(self) -> None:
        """All unfinished tus uploads expire now."""
        for upload in self.uploads.all():
            self.uploads.remove(upload.name)

    # -- what it saw ------------------------------------------------------------------------------------------------

    def counts(self) -> Counter[tuple[str, Kind]]:
        """How many requests came, by method and kind of route."""
        return Counter((seen.method, seen.kind) for seen in list(self.requests))

    def received_bytes(self, path: Path | str) -> int:
        """How many bytes of files came for a Galaxy path, in all attempts."""
        return sum(seen.received_bytes for seen in list(self.requests) if seen.path == str(path))

    def sent_bytes(self, path: Path | str) -> int:
        return sum(seen.sent_bytes for seen in list(self.requests) if seen.path == str(path))

    # -- how it answers ---------------------------------------------------------------------------------------------

    async def _serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        # Not aiohttp's routes: all that comes is to be seen, and 404 is Galaxy's word for what it does not know.
        runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            ready(runner.addresses[0][1])
            await stop.wait()
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers)
        kind = _kind(request.path)
        seen = Seen(request.method, request.raw_path, kind, request.query.get("path", ""), headers)
        self.requests.append(seen)
        script = self._next_script(request.method)
        if script is not None:
            seen.status = script.status
            return web.Response(status=script.status, body=script.body, headers=script.headers)
        handler = self._handlers.get((request.method, kind), _nothing_here)
        try:
            answer = await handler(request, seen)
        except RefusedError as refused:
            answer = web.json_response(refused.told, status=refused.status, headers=refused.headers)
        except _CUT:
            answer = web.Response(status=400)  # nobody will hear it
        seen.status = answer.status
        if self._answers_to_lose and request.method != "GET":
            self._answers_to_lose -= 1
            _cut(request)
        return answer

    def _next_script(self, method: str) -> _Script | None:
        script = next((script for script in self._scripts if script.method in ("", method)), None)
        if script is not None:
            script.times -= 1
            if script.times <= 0:
                self._scripts.remove(script)
        return script

    def _permitted(self, request: web.BaseRequest) -> Path:
        """The file that a request may have, in the order of Galaxy's checks."""
        if request.query.get("job_key") != self.key:
            raise RefusedError(403, 403002, "Invalid job_key supplied.")
        if not self.active:
            raise RefusedError(403, 403002, "The job is over: its files cannot be read or written any more.")
        if not (path := request.query.get("path")):
            raise RefusedError(400, 400005, "The parameter path is missing.")
        file = Path(path)
        if not (file.is_absolute() and file.resolve().is_relative_to(self.root)):
            raise RefusedError(403, 403002, "The job has no such file.")
        return file

    # -- files ------------------------------------------------------------------------------------------------------

    async def _fetch(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        file = self._permitted(request)
        if not file.is_file():
            raise RefusedError(500, 0, "The file is missing.")
        size = file.stat().st_size
        headers = dict(_JSON)
        if self.ranges:
            headers["Accept-Ranges"] = "bytes"
        if self.etags:
            headers["ETag"] = f'"{self.etag_salt}{size:x}-{file.stat().st_mtime_ns:x}"'
        part = self._part(request, size, headers.get("ETag"))
        if part is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        wanted = part or range(size)
        answer = web.StreamResponse(status=200 if part is None else 206, headers=headers)
        if part is None and request.method == "GET":
            answer.enable_chunked_encoding()
        else:
            answer.content_length = len(wanted)
        seen.status = answer.status
        await answer.prepare(request)
        if request.method == "GET":
            await _send(file, wanted, answer, seen)
        return answer

    def _part(self, request: web.BaseRequest, size: int, etag: str | None) -> range | None:
        """The bytes that a request asks for, if only some, and if the file is still the one of its If-Range.

        Raises:
            RefusedError: 416; the file has no such bytes.
        """
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("Range", ""))
        if not (asked and any(asked.groups()) and self.ranges) or request.headers.get("If-Range", etag) != etag:
            return None
        first, last = asked.groups()
        if not first:
            part = range(max(0, size - int(last)), size)
        else:
            part = range(int(first), min(int(last) + 1, size) if last else size)
        if not part:
            raise RefusedError(416, 0, "The file has no such bytes.", {"Content-Range": f"bytes */{size}"})
        return part

    async def _store(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        file = self._permitted(request)
        if request.content_type == "multipart/form-data":
            received = await self._receive(request, seen)
        else:
            received = self._finished(str((await request.post()).get("session_id", "")))
        if received is None:
            raise RefusedError(500, 0, "No file was sent.")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.name.endswith(("tool_stdout", "tool_stderr")) and file.exists():
            with received.open("rb") as source, file.open("ab") as target:
                shutil.copyfileobj(source, target, PIECE_BYTES)
            received.unlink()
        else:
            shutil.move(received, file)
        return web.json_response({"message": "ok"})

    async def _receive(self, request: web.BaseRequest, seen: Seen) -> Path | None:
        """The field `file` of a form, on disk; None when it has neither that nor a `session_id`."""
        received: Path | None = None
        form = await request.multipart()
        while (field_of_form := await form.next()) is not None:
            assert isinstance(field_of_form, BodyPartReader)
            if field_of_form.name == "session_id":
                received = self._finished(await field_of_form.text())
            elif field_of_form.name == "file":
                received = Path(self._directory.name, uuid.uuid4().hex)
                with received.open("wb") as target:
                    while piece := await field_of_form.read_chunk(PIECE_BYTES):
                        target.write(piece)
                        seen.received_bytes += len(piece)
        return received

    def _finished(self, session_id: str) -> Path | None:
        """The file of a tus upload, which is over now. As in Galaxy, nobody asks whether it is whole."""
        upload = self.uploads.find(session_id)
        if upload is None:
            return None
        kept = upload.file.rename(upload.file.with_suffix(".kept"))
        self.uploads.remove(session_id)
        return kept


async def _nothing_here(request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
    return web.json_response({"err_msg": "No route.", "err_code": 404001}, status=404)


async def _send(file: Path, wanted: range, answer: web.StreamResponse, seen: Seen) -> None:
    with file.open("rb") as source:
        source.seek(wanted.start)
        while (left := len(wanted) - seen.sent_bytes) and (piece := source.read(min(PIECE_BYTES, left))):
            await answer.write(piece)
            seen.sent_bytes += len(piece)


def _kind(path: str) -> Kind:
    if re.fullmatch("/api/jobs/[^/]+/files", path):
        return "files"
    return "tus" if path == TUS_PATH or path.startswith(f"{TUS_PATH}/") else "other"


def _cut(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
