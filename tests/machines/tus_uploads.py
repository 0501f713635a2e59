"""tus 1.0.0 (https://tus.io/protocols/resumable-upload) as Galaxy speaks it: creation, termination and expiration.

Knows nothing of keys, nor of where a finished upload goes: Galaxy asks and tells that when the upload is stored.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from aiohttp import web

from tests.machines.exchange import Handler, RefusedError, Seen

TUS_PATH = "/api/job_files/resumable_upload"


@dataclass
class Upload:
    """One upload. Its offset is the size of its file, so that no byte is counted that is not there."""

    name: str
    file: Path
    length_bytes: int
    wanted_path: str
    #: Raised by whoever asks for the offset or writes: whoever wrote before has lost its line, and stops, so that an
    #: offset that was told stays true.
    claim: int = 0

    @property
    def offset_bytes(self) -> int:
        return self.file.stat().st_size

    def take(self) -> int:
        """Claim the upload for oneself; earlier writers stop at their next piece."""
        self.claim += 1
        return self.claim


class Uploads:
    """The uploads below `directory`, by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Upload] = {}

    def create(self, length_bytes: int, wanted_path: str) -> Upload:
        name = uuid.uuid4().hex
        upload = Upload(name, self._directory / name, length_bytes, wanted_path)
        upload.file.touch()
        self._known[name] = upload
        return upload

    def find(self, name: str) -> Upload | None:
        return self._known.get(name)

    def all(self) -> list[Upload]:
        return list(self._known.values())

    def remove(self, name: str) -> None:
        """Forget an upload and what is left of its file. Unknown: nothing happens."""
        upload = self._known.pop(name, None)
        if upload is not None:
            upload.take()
            upload.file.unlink(missing_ok=True)


class TusRoutes:
    """The requests of tus, by method, for the uploads that it is given."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.handlers: Mapping[str, Handler] = {
            "OPTIONS": self._options,
            "POST": self._create,
            "HEAD": self._offset,
            "PATCH": self._append,
            "DELETE": self._terminate,
        }

    async def _options(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        return _tus_answer(204, {"Tus-Version": "1.0.0", "Tus-Extension": "creation,termination,expiration"})

    async def _create(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        """As in Galaxy, the key is judged when the upload is stored, and not here."""
        _speaks_tus(request)
        length = request.headers.get("Upload-Length", "")
        if not length.isdecimal():
            raise RefusedError(400, 0, "Upload-Length is missing.")
        upload = self._uploads.create(int(length), seen.path)
        # The name under which we were asked, so that what follows goes through the same proxy.
        location = f"http://{request.host}{TUS_PATH}/{upload.name}"
        return _tus_answer(201, {"Location": location, **_expires()})

    async def _offset(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        upload = self._upload(request, seen)
        upload.take()
        offset, length = str(upload.offset_bytes), str(upload.length_bytes)
        return _tus_answer(200, {"Upload-Offset": offset, "Upload-Length": length, "Cache-Control": "no-store"})

    async def _append(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        upload = self._upload(request, seen)
        if request.content_type != "application/offset+octet-stream":
            raise RefusedError(415, 0, "The content is not application/offset+octet-stream.")
        claim = upload.take()
        if request.headers.get("Upload-Offset") != str(upload.offset_bytes):
            raise RefusedError(409, 0, "That is not the offset of this upload.")
        with upload.file.open("ab", buffering=0) as target:
            async for piece in request.content.iter_any():
                if upload.claim != claim:
                    raise RefusedError(409, 0, "Another request has taken this upload over.")
                if upload.offset_bytes + len(piece) > upload.length_bytes:
                    raise RefusedError(413, 0, "That is more than this upload's length.")
                target.write(piece)
                seen.received_bytes += len(piece)
        return _tus_answer(204, {"Upload-Offset": str(upload.offset_bytes), **_expires()})

    async def _terminate(self, request: web.BaseRequest, seen: Seen) -> web.StreamResponse:
        self._uploads.remove(self._upload(request, seen).name)
        return _tus_answer(204, {})

    def _upload(self, request: web.BaseRequest, seen: Seen) -> Upload:
        _speaks_tus(request)
        upload = self._uploads.find(request.path.rpartition("/")[2])
        if upload is None:
            raise RefusedError(404, 0, "There is no such upload.")
        seen.path = upload.wanted_path
        return upload


def _speaks_tus(request: web.BaseRequest) -> None:
    if request.headers.get("Tus-Resumable") != "1.0.0":
        raise RefusedError(412, 0, "Tus-Resumable is not 1.0.0.", {"Tus-Version": "1.0.0"})


def _tus_answer(status: int, headers: Mapping[str, str]) -> web.Response:
    return web.Response(status=status, headers={"Tus-Resumable": "1.0.0", **headers})


def _expires() -> dict[str, str]:
    """As long as Galaxy keeps an upload that is not finished: five days."""
    return {"Upload-Expires": format_datetime(datetime.now(UTC) + timedelta(days=5), usegmt=True)}
