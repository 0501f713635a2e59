"""Talking HTTP with one server: what is sent with each request, and what is made of each answer.

Streams bodies in both directions with their digests, and sends the secret as `Authorization: Bearer`, never in a
URL. Must not know what the routes mean, and never tries again: that is `lwr.transfer.retry`, around it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from lwr import __version__
from lwr.client.endpoint import Endpoint
from lwr.client.lines import Answer, Lines
from lwr.client.parts import PartFile
from lwr.errors import BadTransfer, LwrError, PeerRefused
from lwr.transfer.answers import MAY_PASS_STATUSES
from lwr.transfer.bodies import PIECE_BYTES, OnBytes, Upload
from lwr.transfer.bookmark import Bookmark, bookmark_of_answer, bookmark_of_text
from lwr.transfer.digests import WANT_DIGEST, sha256_of_field
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred

#: For what nobody ends.
NEVER = Interrupt()

_PARTIAL, _UNSATISFIABLE = 206, 416
#: An LWR server also waits for room on its disk, so its client does.
_MAY_PASS = MAY_PASS_STATUSES | {507}
_MOST_OF_AN_ERROR_BYTES = 64 * 1024

_HINT_401 = "Give the server's private_key: `--token-file FILE`, or the file's path in LWR_TOKEN_FILE."
_HINTS = {
    404: "Check the address, and the manager's name in it.",
    413: "Ask the server's admin for a higher limit.",
    507: "The server's disk is full; ask its admin.",
}


def nobody(_: int) -> None:
    """Nobody wants to know of progress."""


class Conversation:
    """Requests to one server over kept-alive connections. Thread-safe; close it.

    Every method may raise PeerUnreachable (transient), PeerRefused (transient for answers that may pass in time),
    BadTransfer (transient), BadRequest, and Interrupted. `what` completes the sentence "Could not ...".
    """

    def __init__(self, endpoint: Endpoint, *, connect_timeout_s: float = 10.0, read_timeout_s: float = 120.0) -> None:
        self.endpoint = endpoint
        self._lines = Lines(endpoint.url, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s)
        self._hashes = False  # whether the server was seen to send digests
        self._headers = {"User-Agent": f"lwr/{__version__}", "Accept-Encoding": "identity"}
        if endpoint.token:
            # http.client writes headers as Latin-1.
            self._headers["Authorization"] = f"Bearer {endpoint.token.encode().decode('latin-1')}"

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._lines.close()

    def ask(self, method: str, path: str, query: Mapping[str, str], what: str) -> bytes:
        """Send a request without a body; return the body of the answer."""
        with self.exchange(method, path, query, what) as answer:
            return answer.body()

    def ask_json(self, method: str, path: str, query: Mapping[str, str], what: str) -> Any:
        """The same for an answer in JSON. Raises PeerRefused when it is not JSON: something else answers there."""
        return self._json(self.ask(method, path, query, what), what)

    def send(
        self, path: str, query: Mapping[str, str], body: Upload, what: str, interrupt: Interrupt = NEVER
    ) -> tuple[Any, Transferred]:
        """Post a body and compare its digest with the one in the answer, if there is one. Returns the answer's JSON."""
        # A small one goes in one write with its header.
        data = b"".join(body) if len(body) <= PIECE_BYTES else body
        with self.exchange("POST", path, query, what, body=data, interrupt=interrupt) as answer:
            return self._json(answer.body(), what), self.arrived(answer, len(body), body.digest(), what)

    def arrived(self, answer: Answer, size_bytes: int, sha256: bytes, what: str) -> Transferred:
        """What is known of a file that was sent. Raises BadTransfer: the digest in the answer is another."""
        arrived = sha256_of_field(answer.headers.get("Repr-Digest", ""))
        if arrived not in (None, sha256):
            raise BadTransfer(f"Could not {what}: the bytes changed on the way (SHA-256 differs).")
        self._hashes = self._hashes or arrived is not None
        return Transferred(size_bytes, sha256, "size" if arrived is None else "sha-256")

    def fetch(
        self,
        path: str,
        query: Mapping[str, str],
        part: PartFile,
        what: str,
        on_bytes: OnBytes,
        interrupt: Interrupt = NEVER,
        *,
        on_size: OnBytes = nobody,
    ) -> Transferred:
        """Download what is still missing of a file and give it its name, when all is there and checked.

        What came stays in `part`, to be gone on with, if the server can do that and still has the same file.

        Raises:
            ServerError: this machine could not keep the file.
        """
        known = bookmark_of_text(part.bookmark)
        wanted = known.request(part.size_bytes) if known is not None and part.size_bytes else {}
        with self.exchange(
            "GET", path, query, what, headers=WANT_DIGEST | wanted, interrupt=interrupt, accepted=(_UNSATISFIABLE,)
        ) as answer:
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                raise BadTransfer(f"Could not {what}: the file comes encoded, which nobody asked for.")
            expected_bytes = _continue(answer, part, known, what)
            if expected_bytes is not None:
                on_size(expected_bytes)
            if answer.status != _UNSATISFIABLE:
                if self._hashes and "Repr-Digest" not in answer.headers:
                    raise BadTransfer(f"Could not {what}: the answer has no digest, so it is not the server's own.")
                for piece in answer.pieces():
                    part.partial.write(piece)
                    on_bytes(part.size_bytes)
                return _finish(answer, part, expected_bytes, what)
        # All was there already; 416 comes without a digest.
        with self.exchange("HEAD", path, query, what, headers=WANT_DIGEST, interrupt=interrupt) as answer:
            return _finish(answer, part, expected_bytes, what)

    @contextlib.contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Upload | bytes = b"",
        interrupt: Interrupt = NEVER,
        accepted: Collection[int] = (),
    ) -> Iterator[Answer]:
        """One request and its answer, to be read within the `with`. From 300 on they refuse, but `accepted`."""
        url = f"{self.endpoint.url}{path}?{urlencode(query)}" if query else self.endpoint.url + path
        sent = {**self._headers, **(headers or {})}
        if body or method not in ("GET", "HEAD"):
            sent["Content-Length"] = str(len(body))
        with self._lines.request(method, url, what, headers=sent, body=body, interrupt=interrupt) as answer:
            if answer.status >= 300 and answer.status not in accepted:
                raise _refusal(answer, what)
            yield answer

    def _json(self, body: bytes, what: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise PeerRefused(
                f"Could not {what}: what answers at {self.endpoint.url} does not speak LWR.", "Check the address."
            ) from error


def _refusal(answer: Answer, what: str) -> PeerRefused:
    status = answer.status
    try:
        problem = json.loads(answer.body(_MOST_OF_AN_ERROR_BYTES))
    except (ValueError, RecursionError, LwrError):
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    said = str(problem.get("detail") or answer.reason or "no reason given")
    if 300 <= status < 400:
        said = "it redirects to another address"
    return PeerRefused(
        f"Could not {what}: the server answered {status}: {said}",
        # The server explains its header; whoever reads this has an option for it.
        _HINT_401 if status == 401 else str(problem.get("hint") or _HINTS.get(status, "")),
        status=status,
        peer_code=str(problem.get("code") or ""),
        transient=status in _MAY_PASS,
    )


def _continue(answer: Answer, part: PartFile, known: Bookmark | None, what: str) -> int | None:
    """See whether an answer goes on with what is there, else begin anew; returns the size of the whole file."""
    have_bytes = part.size_bytes
    if answer.status not in (_PARTIAL, _UNSATISFIABLE):
        if have_bytes:
            part.partial.restart()
        told = bookmark_of_answer(answer.headers)
        # What one piece brings is not worth a second file.
        part.remember(str(told) if told.validator and (told.total_bytes or 0) > PIECE_BYTES else "")
        return told.total_bytes
    if known is not None and answer.status == _PARTIAL:
        known = known.continued(answer.headers, have_bytes)
    elif known is not None and not known.is_whole(answer.headers, have_bytes):
        known = None
    if known is None:
        part.partial.restart()
        raise BadTransfer(f"Could not {what}: another part of the file came than was asked for.")
    return have_bytes if answer.status == _UNSATISFIABLE else known.total_bytes


def _finish(answer: Answer, part: PartFile, expected_bytes: int | None, what: str) -> Transferred:
    """Hold what came against what was announced, and give it its name."""
    size_bytes = part.size_bytes
    if expected_bytes not in (None, size_bytes):
        raise BadTransfer(f"Could not {what}: {size_bytes} of {expected_bytes} bytes came.")
    sha256, expected = part.partial.sha256(), sha256_of_field(answer.headers.get("Repr-Digest", ""))
    if expected not in (None, sha256):
        part.partial.restart()
        raise BadTransfer(f"Could not {what}: the bytes changed on the way (SHA-256 differs).")
    wasted_bytes = part.partial.wasted_bytes
    part.commit()
    checked = "sha-256" if expected is not None else "size" if expected_bytes is not None else "framing"
    return Transferred(size_bytes, sha256, checked, wasted_bytes)
