"""Files by URL, for the server: fetched, asked for, delivered. One try each; trying again is for the caller.

Speaks plain HTTP and Galaxy's job-files API: downloads with ranges, uploads as a form with the field `file`. What may
be reached is decided by `lwr.transfer.reach`; requests and their errors are `lwr.transfer.exchange`'s. Must not know
of jobs; of Galaxy it knows that `tool_stdout` and `tool_stderr` are appended to.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from urllib.parse import parse_qs, urlsplit

from lwr.errors import BadTransfer, LwrError, PeerUnreachable, ServerError
from lwr.transfer.bodies import Body, Form, OnBytes, Upload
from lwr.transfer.bookmark import Bookmark, bookmark_of_text
from lwr.transfer.digests import sha256_of_field
from lwr.transfer.exchange import Exchange, beginning, is_html
from lwr.transfer.fetching import Fetch, size_of
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.jobfiles import OpenFile
from lwr.transfer.lines import Resolve, resolve
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.reach import Reach, shown
from lwr.transfer.runner import TooLargeForLane

_APPENDED = ("tool_stdout", "tool_stderr")
_MOST_OF_AN_ANSWER_BYTES = 64 * 1024


def _ignored(_bookmark: str) -> None:
    """For callers that will not go on later."""


def nobody(_bytes: int) -> None:
    """Nobody wants to know of progress."""


class Web:
    """Thread-safe. `close` ends the connections that are kept alive; nothing may be under way then.

    Every method may raise PeerUnreachable, BadTransfer (both transient), PeerRefused (transient for statuses that may
    pass; for 500 too, which Galaxy says for a missing file: be patient with it for a shorter time), BadRequest (the
    URL is not allowed or makes no sense) and Interrupted, at once when it is set, also while a peer says nothing. No
    message holds a secret of the URL. All may be called again after any error.

    Args:
        reach: what may be reached.
        connect_timeout_s: for each address of a host.
        read_timeout_s: the longest silence of a peer, in an answer or while it takes what is sent.
        resolve: for tests.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        resolve: Resolve = resolve,
    ) -> None:
        self._exchange = Exchange(reach, connect_timeout_s, read_timeout_s, resolve)

    def close(self) -> None:
        """May be called twice."""
        self._exchange.close()

    def fetch(
        self,
        url: str,
        partial: Partial,
        interrupt: Interrupt,
        *,
        bookmark: str = "",
        most_bytes: int = 0,
        on_begin: Callable[[str], None] = _ignored,
    ) -> Transferred:
        """Fetch a file to the end of `partial`, going on where an earlier try ended if it is still the same file.

        Where neither a size nor a version is told, it begins again.

        After an error `partial` keeps what came, unless it is known to be wrong; the next try goes on from there.

        Args:
            bookmark: what `on_begin` was told last when that came. Without it everything is fetched anew.
            most_bytes: 0 for no limit.
            on_begin: told the bookmark of an answer before its first byte is written; again when more is known.

        Raises:
            TooLargeForLane: there is more than `most_bytes`.
            LwrError: what the place of `partial` raises.
        """
        told = bookmark

        def begun(found: str) -> None:
            nonlocal told
            told = found
            on_begin(found)

        fetch = Fetch(self._exchange, url, partial, interrupt, most_bytes, begun)
        known = bookmark_of_text(bookmark)
        try:
            if known is None or not known.tells_versions or not partial.size_bytes:
                return fetch.begin()
            return fetch.go_on(known) or fetch.begin()
        except (PeerUnreachable, BadTransfer, TooLargeForLane):
            # Galaxy tells neither: its size, asked for at once, shows later whether it is the same file still.
            cut = bookmark_of_text(told)
            if partial.size_bytes and cut is not None and not cut.tells_versions:
                with contextlib.suppress(LwrError):
                    on_begin(str(Bookmark(self.size(url, interrupt), "")))
            raise

    def size(self, url: str, interrupt: Interrupt) -> int | None:
        """The size of a file in bytes; None when there is no such file (also when 500 is said), or nobody knows."""
        return size_of(self._exchange, url, interrupt)

    def deliver(
        self, url: str, source: OpenFile, name: str, interrupt: Interrupt, on_bytes: OnBytes = nobody
    ) -> Transferred:
        """Post a file, from its beginning, as the field `file` of a form. It is streamed, and cannot go on when cut.

        Where Galaxy would append it to an earlier try, this is `append`.

        Raises:
            ServerError: it could not be read.
        """
        if is_appended(url):
            return self.append(url, source, name, interrupt, on_bytes)
        return self._post(url, source, 0, name, interrupt, on_bytes)

    def append(
        self, url: str, source: OpenFile, name: str, interrupt: Interrupt, on_bytes: OnBytes = nobody
    ) -> Transferred:
        """Post what the receiver does not have yet of a file to which it appends; it is asked first how much it has.

        So an answer that was lost does no harm. If it has as much or more, nothing is sent.
        """
        have_bytes = self.size(url, interrupt) or 0
        if have_bytes == 0:
            return self._post(url, source, 0, name, interrupt, on_bytes)
        if have_bytes < source.size_bytes:
            self._post(url, source, have_bytes, name, interrupt, on_bytes)
        return Transferred(source.size_bytes, _sha256(source, name), "size")

    def _post(
        self, url: str, source: OpenFile, from_bytes: int, name: str, interrupt: Interrupt, on_bytes: OnBytes
    ) -> Transferred:
        def moved(sent_bytes: int) -> None:
            interrupt.check()
            on_bytes(from_bytes + sent_bytes)

        source.file.seek(from_bytes)
        upload = Upload(source.file, source.size_bytes - from_bytes, name, moved)
        form = Form("file", name, upload)
        headers = self.send("POST", url, name, interrupt, {"Content-Type": form.content_type}, form)
        arrived = sha256_of_field(headers.get("Repr-Digest", ""))
        if arrived is not None and arrived != upload.digest():
            raise BadTransfer(f"Could not deliver {name}: the bytes changed on the way (SHA-256 differs).")
        return Transferred(len(upload), upload.digest(), "framing" if arrived is None else "sha-256")

    def send(
        self, method: str, url: str, name: str, interrupt: Interrupt, headers: Mapping[str, str], body: Body | bytes
    ) -> Mapping[str, str]:
        """Send one request of the delivery of a file; the headers of its answer. A web page is none: BadTransfer."""
        what = f"deliver {name} to {shown(url)}"
        with self._exchange.answer(method, url, what, interrupt, headers=headers, body=body) as response:
            # Read at any rate, so that the connection can be used again. (Peers call their "ok" HTML.)
            said = beginning(response, _MOST_OF_AN_ANSWER_BYTES)
            if is_html(response.headers) and said.lstrip().startswith(b"<"):
                raise BadTransfer(
                    f"Could not {what}: the answer is a web page, so nobody took it.",
                    "A proxy or a login page may answer there.",
                )
            return response.headers


def is_appended(url: str) -> bool:
    """Whether Galaxy appends what is posted there, by the name in `path`."""
    return parse_qs(urlsplit(url).query).get("path", [""])[0].endswith(_APPENDED)


def _sha256(source: OpenFile, name: str) -> bytes:
    try:
        source.file.seek(0)
        return hashlib.file_digest(source.file, "sha256").digest()  # type: ignore[arg-type] # FileIO has readinto
    except OSError as error:
        raise ServerError(f"{name} cannot be read: {error.strerror}.") from error
