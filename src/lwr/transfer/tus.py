"""Deliveries that can go on after a cut: tus 1.0.0 (https://tus.io/protocols/resumable-upload), for both sides.

`Tus` is the protocol: begin, ask how far it came, send the rest; it sends through what it is given, so the server uses
it with its `Web` and the client with its own conversation. `deliver_tus` is what Galaxy makes of it: the upload is
announced beside the job's files, and handed over by a form with its last name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from urllib.parse import urlencode, urljoin, urlsplit

from lwr.errors import BadTransfer, PeerRefused, ServerError
from lwr.transfer.bodies import PIECE_BYTES, Body, OnBytes, Upload
from lwr.transfer.exchange import same_origin
from lwr.transfer.http import Web, is_appended, nobody
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.jobfiles import OpenFile
from lwr.transfer.partial import Transferred

#: As large as the peers' clients make them. Proxies often have bounds for a body.
TUS_PIECE_BYTES = 10_000_000

_VERSION = {"Tus-Resumable": "1.0.0"}
_FORGOTTEN = frozenset({404, 410})
_JOB_FILES = re.compile(r"(^|/)jobs/[^/]+/files/?$")
#: Follows the location in a bookmark when all was sent, only the handing over is to be done, and nothing of the file's
#: size was at its destination: what has that size there later was handed over.
_SENT = " sent"


class Send(Protocol):
    """Sends one request and gives the headers of its answer. Raises PeerRefused for a status of 300 and more."""

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: Body | bytes) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class Tus:
    """The protocol. `piece_bytes`: the most that one request sends."""

    send: Send
    piece_bytes: int = TUS_PIECE_BYTES

    def begin(self, url: str, size_bytes: int, metadata: str = "") -> str:
        """Announce a file; returns the location that it is sent to.

        Raises:
            PeerRefused: there was none in the answer, or on another host: outputs go nowhere else.
        """
        told = {"Upload-Length": str(size_bytes), "Upload-Metadata": metadata}
        answer = self.send("POST", url, _VERSION | told, b"")
        try:
            location = urljoin(url, answer.get("Location", ""))
        except ValueError:
            location = ""
        if "Location" not in answer or not same_origin(url, location):
            raise PeerRefused(
                "Could not begin an upload: the answer gave no place for it on the same host.",
                "That server, or the proxy before it, must know the address that it is reached by.",
            )
        return location

    def offset(self, location: str) -> int | None:
        """How many bytes of it have come; None when that server has forgotten it."""
        try:
            answer = self.send("HEAD", location, _VERSION, b"")
        except PeerRefused as refused:
            if refused.status in _FORGOTTEN:
                return None
            raise
        return _offset(answer)

    def push(
        self, location: str, source: BinaryIO, offset: int, size_bytes: int, name: str, on_bytes: OnBytes
    ) -> bytes:
        """Send what is missing from `offset` on, piece by piece; returns the SHA-256 of the whole file.

        Raises:
            ServerError: the file cannot be read. BadTransfer: it changed meanwhile, or less arrived than was sent.
        """
        sha256 = _hashed(source, offset, name)
        while offset < size_bytes:
            end = min(offset + self.piece_bytes, size_bytes)
            piece = Upload(
                source, end - offset, name, _after(offset, on_bytes), sha256=sha256, more_follows=end < size_bytes
            )
            told = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
            arrived = _offset(self.send("PATCH", location, _VERSION | told, piece))
            if arrived != end:
                raise BadTransfer(f"Could not deliver {name}: {arrived} of {end} bytes arrived.")
            offset = end
        return sha256.digest()


def deliver_tus(
    web: Web,
    files_url: str,
    source: OpenFile,
    name: str,
    interrupt: Interrupt,
    *,
    bookmark: str = "",
    on_begin: Callable[[str], None],
    on_bytes: OnBytes = nobody,
    piece_bytes: int = TUS_PIECE_BYTES,
) -> Transferred:
    """Deliver a file to Galaxy's job-files API, going on where an earlier try ended.

    As a plain form goes what Galaxy would append to, what has no bytes, and what that URL has no place for beside it.
    May be repeated after any error, also when only the last answer was lost.

    Args:
        bookmark: what `on_begin` was told last by an earlier try for the same file.
        on_begin: told a new bookmark, before anything is sent under it.

    Raises:
        what `Web.deliver` does.
    """
    announce_url = tus_url(files_url)
    if announce_url is None or is_appended(files_url) or source.size_bytes == 0:
        return web.deliver(files_url, source, name, interrupt, on_bytes)

    def send(method: str, url: str, headers: Mapping[str, str], body: Body | bytes) -> Mapping[str, str]:
        return web.send(method, url, name, interrupt, headers, body)

    def moved(sent_bytes: int) -> None:
        interrupt.check()
        on_bytes(sent_bytes)

    tus = Tus(send, piece_bytes)
    location, sent, _ = bookmark.partition(_SENT)
    offset = tus.offset(location) if location and same_origin(announce_url, location) else None
    if offset is None and sent and web.size(files_url, interrupt) == source.size_bytes:
        # It was handed over, and the answer lost.
        return Transferred(source.size_bytes, _hashed(source.file, source.size_bytes, name).digest(), "size")
    if offset is None or offset > source.size_bytes:
        location, offset = tus.begin(announce_url, source.size_bytes), 0
        on_begin(location)
        sent = ""
    sha256 = tus.push(location, source.file, offset, source.size_bytes, name, moved)
    if not sent and web.size(files_url, interrupt) != source.size_bytes:
        on_begin(location + _SENT)
    form = urlencode({"session_id": urlsplit(location).path.rpartition("/")[2]}).encode()
    send("POST", files_url, {"Content-Type": "application/x-www-form-urlencoded"}, form)
    return Transferred(source.size_bytes, sha256, "size")


def tus_url(files_url: str) -> str | None:
    """Where Galaxy takes announcements for the files of `files_url`; None for a URL that is not its job-files API."""
    parts = urlsplit(files_url)
    path, count = _JOB_FILES.subn(r"\1job_files/resumable_upload", parts.path)
    return parts._replace(path=path).geturl() if count else None


def _after(offset: int, on_bytes: OnBytes) -> OnBytes:
    return lambda sent_bytes: on_bytes(offset + sent_bytes)


def _offset(headers: Mapping[str, str]) -> int:
    told = headers.get("Upload-Offset", "")
    if not told.isdecimal():
        raise PeerRefused("Could not go on with an upload: the answer did not say how far it came.")
    return int(told)


def _hashed(source: BinaryIO, size_bytes: int, name: str) -> hashlib._Hash:
    """Of the first bytes of a file, which stands behind them afterwards."""
    sha256 = hashlib.sha256()
    try:
        source.seek(0)
        while size_bytes > 0 and (piece := source.read(min(PIECE_BYTES, size_bytes))):
            sha256.update(piece)
            size_bytes -= len(piece)
    except OSError as error:
        raise ServerError(f"{name} cannot be read: {error.strerror}.") from error
    return sha256
