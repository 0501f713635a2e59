"""A large file on its way up, in pieces that a cut line does not undo: the tus protocol 1.0.0 as a client speaks it.

https://tus.io/protocols/resumable-upload, creation and core. What came stays with the server, under an address that
is remembered (`lwr.client.parts.Addresses`); one long PATCH brings the rest. Makes one try at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import BinaryIO

from lwr.client.http import Conversation
from lwr.client.lines import Answer
from lwr.client.parts import Addresses
from lwr.errors import BadTransfer, PeerRefused, ServerError
from lwr.transfer.bodies import PIECE_BYTES, OnBytes, Upload
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred

_TUS = {"Tus-Resumable": "1.0.0"}
_GONE = (404, 410)
_LOCKED = 423
#: Not found, gone, another offset, or not the announced bytes: what the server has is of no use.
_NOT_SO = (*_GONE, 409, 422, 460, _LOCKED)


class ResumableUpload:
    """One file for `path` of one server. For one thread.

    `reached_bytes`: how much the server was seen to have; `wasted_bytes`: sent, and not kept by it.
    """

    def __init__(
        self, http: Conversation, addresses: Addresses, path: str, query: Mapping[str, str], what: str
    ) -> None:
        self._http, self._addresses, self._path, self._query, self._what = http, addresses, path, query, what
        self.reached_bytes = 0
        self.wasted_bytes = 0
        self._sent_bytes = 0

    def send(
        self, file: BinaryIO, size_bytes: int, name: str, on_bytes: OnBytes, interrupt: Interrupt
    ) -> Transferred | None:
        """Send what is missing; None when the server does not take files in this way, and nothing has happened.

        Raises:
            As `Conversation`; ServerError: the file cannot be read.
        """
        word = f"{self._http.endpoint.url}{self._path} {sorted(self._query.items())} {size_bytes}"
        address = self._addresses.get(word)
        offset_bytes = self._offset(address, interrupt) if address else None
        if offset_bytes is None:
            offset_bytes, address = 0, self._create(size_bytes, interrupt)
            if not address:
                return None
            self._addresses.put(word, address)
        self.wasted_bytes += max(0, self._sent_bytes - offset_bytes)
        self.reached_bytes = max(self.reached_bytes, offset_bytes)
        body = Upload(
            file,
            size_bytes - offset_bytes,
            name,
            self._telling(on_bytes, offset_bytes),
            sha256=_hash(file, offset_bytes),
        )
        try:
            done = self._append(address, offset_bytes, size_bytes, body, interrupt)
        except BadTransfer:
            self._addresses.forget(word)
            raise
        self._addresses.forget(word)
        return replace(done, wasted_bytes=self.wasted_bytes)

    def _telling(self, on_bytes: OnBytes, offset_bytes: int) -> OnBytes:
        def tell(moved_bytes: int) -> None:
            self._sent_bytes = offset_bytes + moved_bytes
            on_bytes(self._sent_bytes)

        return tell

    def _create(self, size_bytes: int, interrupt: Interrupt) -> str:
        headers = _TUS | {"Upload-Length": str(size_bytes)}
        with self._http.exchange(
            "POST", self._path, self._query, self._what, headers=headers, interrupt=interrupt, accepted=(404, 405)
        ) as answer:
            # Only the last part of the address counts: what stands before it may be a proxy's own idea of the server.
            upload_id = answer.headers.get("Location", "").partition("?")[0].rpartition("/")[2]
            return f"{self._path}/{upload_id}" if answer.status == 201 and upload_id else ""

    def _offset(self, address: str, interrupt: Interrupt) -> int | None:
        """How much the server has; None when it does not know the upload any more."""
        with self._http.exchange(
            "HEAD", address, {}, self._what, headers=_TUS, interrupt=interrupt, accepted=(*_GONE, _LOCKED)
        ) as answer:
            self._refuse_locked(answer)
            offset = answer.headers.get("Upload-Offset", "")
            return int(offset) if offset.isdigit() and answer.status not in _GONE else None

    def _append(
        self, address: str, offset_bytes: int, size_bytes: int, body: Upload, interrupt: Interrupt
    ) -> Transferred:
        """Send the rest; an upload that is whole already is only compared."""
        method, headers = "HEAD", _TUS
        if len(body):
            method = "PATCH"
            headers = _TUS | {"Upload-Offset": str(offset_bytes), "Content-Type": "application/offset+octet-stream"}
        with self._http.exchange(
            method, address, {}, self._what, headers=headers, body=body, interrupt=interrupt, accepted=_NOT_SO
        ) as answer:
            self._refuse_locked(answer)
            if answer.status in _NOT_SO:
                raise BadTransfer(f"Could not {self._what}: the server lost what it had of it ({answer.status}).")
            return self._http.arrived(answer, size_bytes, body.digest(), self._what)

    def _refuse_locked(self, answer: Answer) -> None:
        if answer.status == _LOCKED:  # the server has not noticed yet that the line was cut
            raise PeerRefused(
                f"Could not {self._what}: the server is busy with what came before.", status=_LOCKED, transient=True
            )


def _hash(file: BinaryIO, size_bytes: int) -> hashlib._Hash:
    """The hash of the file's beginning, which the server has; the file stands behind it afterwards."""
    sha256 = hashlib.sha256()
    try:
        for begin in range(0, size_bytes, PIECE_BYTES):
            sha256.update(file.read(min(PIECE_BYTES, size_bytes - begin)))
    except OSError as error:
        raise ServerError(f"A file that is sent cannot be read: {error.strerror}.") from error
    return sha256
