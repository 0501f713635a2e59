"""How a file comes from a URL into a partial file: what is asked for, what is believed, and what is begun again.

Must not know which connections are used (`lwr.transfer.exchange`), nor jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

import requests

from lwr.errors import BadTransfer, PeerRefused
from lwr.transfer.bodies import Pace
from lwr.transfer.bookmark import Bookmark, bookmark_of_answer
from lwr.transfer.digests import WANT_DIGEST, sha256_of_field
from lwr.transfer.exchange import Exchange, beginning, is_html, pieces
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.reach import shown
from lwr.transfer.runner import TooLargeForLane

#: Statuses of a HEAD after which nothing is known: no such file (500 is Galaxy's word for it), or no HEAD there.
_NO_SIZE = frozenset({404, 405, 410, 500, 501})
#: Headers that files have and the error and login pages of proxies have not.
_OF_FILES = ("Accept-Ranges", "Content-Range", "Last-Modified", "Content-Disposition", "Repr-Digest")
_JOB_FILES = re.compile(r"/jobs/[^/]+/files/?$|job_files")
_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class Fetch:
    """One try to fetch one file; the arguments are those of `Web.fetch`."""

    exchange: Exchange
    url: str
    partial: Partial
    interrupt: Interrupt
    most_bytes: int
    on_begin: Callable[[str], None]

    @property
    def _what(self) -> str:
        return f"fetch {file_name(self.url)} from {shown(self.url)}"

    def go_on(self, known: Bookmark) -> Transferred | None:
        """Fetch what is missing, or all if the file changed. None: the answer was of no use, and all must be asked."""
        have = self.partial.size_bytes
        with self._answer(known.request(have), also=(416,)) as response:
            if response.status_code == 416:
                whole = known.is_whole(response.headers, have)
                return Transferred(have, self.partial.sha256(), "size", self.partial.wasted_bytes) if whole else None
            if response.status_code == 206:
                told = known.continued(response.headers, have)
                return None if told is None else self._take(response, told)
            self.partial.restart()
            return self._take(response, bookmark_of_answer(response.headers))

    def begin(self) -> Transferred:
        """Fetch all of it; what is there of it is thrown away."""
        if self.partial.size_bytes:
            self.partial.restart()
        with self._answer({}) as response:
            return self._take(response, bookmark_of_answer(response.headers))

    def _answer(
        self, headers: Mapping[str, str], also: Collection[int] = ()
    ) -> AbstractContextManager[requests.Response]:
        return self.exchange.answer(
            "GET", self.url, self._what, self.interrupt, headers={**WANT_DIGEST, **headers}, also=also
        )

    def _take(self, response: requests.Response, told: Bookmark) -> Transferred:
        self._judge(response)
        self.on_begin(str(told))
        total = told.total_bytes
        self._check_lane(total, self.partial.size_bytes)
        pace = Pace()
        for piece in pieces(response):
            self.interrupt.check()
            self.partial.write(piece)
            pace.note(len(piece))
            self._check_lane(total, self.partial.size_bytes)
        if total is None and "Transfer-Encoding" not in response.headers:
            total = self._asked_size()
            self.on_begin(str(Bookmark(total, told.validator)))
        return self._checked(response.headers, total)

    def _judge(self, response: requests.Response) -> None:
        headers = response.headers
        # A body with a length of its own in 206 was looked at by its bookmark.
        if response.status_code not in (200, 206) or (response.status_code == 206 and not self.partial.size_bytes):
            raise PeerRefused(f"Could not {self._what}: the answer {response.status_code} is no file.")
        packed = headers.get("Content-Encoding", "identity").lower()[:20]
        if packed not in ("", "identity"):
            raise BadTransfer(
                f"Could not {self._what}: it came packed as {packed}, which was not asked for.",
                "Turn compression off for it, in that server or in a proxy before it.",
            )
        if is_page(headers, self.url):
            raise BadTransfer(
                f"Could not {self._what}: the answer is a web page, not a file.",
                "A proxy or a login page may answer there; fetch the URL by hand to see it.",
            )

    def _check_lane(self, total_bytes: int | None, have_bytes: int) -> None:
        if 0 < self.most_bytes < (have_bytes if total_bytes is None else total_bytes):
            raise TooLargeForLane(f"{file_name(self.url)} is larger than {self.most_bytes} bytes.")

    def _asked_size(self) -> int:
        """For a body that ended with its connection, which looks the same when it is cut."""
        size_bytes = size_of(self.exchange, self.url, self.interrupt)
        if size_bytes is None:
            raise BadTransfer(
                f"Could not {self._what}: neither the answer nor a HEAD request says how long it is.",
                "Only a length, or a chunked answer, shows whether all of it came.",
            )
        return size_bytes

    def _checked(self, headers: Mapping[str, str], total_bytes: int | None) -> Transferred:
        size_bytes = self.partial.size_bytes
        if total_bytes is not None and size_bytes != total_bytes:
            if size_bytes > total_bytes:
                self.partial.restart()
            raise BadTransfer(f"Could not {self._what}: {size_bytes} of {total_bytes} bytes came.")
        sha256 = self.partial.sha256()
        expected = sha256_of_field(headers.get("Repr-Digest", ""))
        if expected is not None and expected != sha256:
            self.partial.restart()
            raise BadTransfer(f"Could not {self._what}: the bytes changed on the way (SHA-256 differs).")
        checked = "sha-256" if expected is not None else "size" if total_bytes is not None else "framing"
        return Transferred(size_bytes, sha256, checked, self.partial.wasted_bytes)


def size_of(exchange: Exchange, url: str, interrupt: Interrupt) -> int | None:
    """What HEAD says of a file's size in bytes; None when it does not, or there is no such file."""
    what = f"ask for the size of {file_name(url)} at {shown(url)}"
    with exchange.answer("HEAD", url, what, interrupt, also=_NO_SIZE) as response:
        beginning(response, 0)  # none, but then the connection can be used again
        if response.status_code >= 300 or is_page(response.headers, url):
            return None
        return bookmark_of_answer(response.headers).total_bytes


def is_page(headers: Mapping[str, str], url: str) -> bool:
    """Whether an answer is a web page of somebody between, and not the file that was asked for.

    It is one if it calls itself HTML, has nothing that servers of files add to them, and the URL does not ask for
    HTML. Servers of static files add something, also to a page of maintenance; but Galaxy calls all its files JSON, so
    from its job-files API no HTML is a file, while data sets that are HTML pass.
    """
    if not is_html(headers) or file_name(url).lower().endswith((".html", ".htm", ".xhtml")):
        return False
    says_more = any(name in headers for name in _OF_FILES) or headers.get("ETag", "").startswith('"')
    return not says_more or _is_galaxys(url)


def _is_galaxys(url: str) -> bool:
    parts = urlsplit(url)
    return _JOB_FILES.search(parts.path) is not None or "job_key" in parse_qs(parts.query)


def file_name(url: str) -> str:
    """The name of the file that a URL is about, to be shown: of its parameter `path`, or of its own path."""
    parts = urlsplit(url)
    path = parse_qs(parts.query).get("path", [unquote(parts.path)])[0]
    name = path.rstrip("/").rpartition("/")[2][-_NAME_CHARS:]
    return "".join(character if character.isprintable() else "?" for character in name) or "the file"
