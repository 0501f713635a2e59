"""Large files that several jobs use, sent once: what this client knows of files' contents and of servers' caches.

Before a large file goes to a server that keeps a cache, the client claims its content: the HMAC-SHA-256 of the bytes
under the server's salt, which the server can only know if it was brought the same bytes. What is there is put into the
job by the server; else the file is sent as always, and the server is asked to keep it. Must not know how files are
sent.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from lwr.client.http import Conversation
from lwr.errors import PeerError, PeerRefused
from lwr.transfer.bodies import PIECE_BYTES
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred

#: Smaller files are sent: asking first would not pay.
SMALLEST_BYTES = 1 << 20
#: So many files, and as many contents, are remembered at most.
_REMEMBERED_COUNT = 10_000
#: How soon one who waits for another's upload sees that it was interrupted itself.
_GLANCE_S = 0.2
_SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a job, as on the wire."""

    job_id: str
    kind: str
    name: str


class ServersCache(Protocol):
    """What can be asked of one server's cache. Methods may be called from any thread."""

    @property
    def url(self) -> str: ...

    def salt(self) -> bytes | None:
        """What claims are made with; None from a server without a cache. Raises PeerError: it cannot be asked."""

    def claim(self, place: Place, claim: bytes) -> bool:
        """Have a content put there; False, and nothing is changed, when it is not in the cache."""

    def keep(self, place: Place) -> bool:
        """Have the file that was sent there kept. False when it is not; never an error."""


class CacheRoutes:
    """A server's cache over HTTP.

    Args:
        patiently: makes a call again while that may help.
    """

    def __init__(self, http: Conversation, patiently: Callable[[Callable[[], Any]], Any]) -> None:
        self._http = http
        self._patiently = patiently

    @property
    def url(self) -> str:
        return self._http.endpoint.url

    def salt(self) -> bytes | None:
        try:
            told = self._patiently(lambda: self._http.ask_json("GET", "cache", {}, "ask for the cache"))
            salt = bytes.fromhex(told["salt"])
        except (PeerRefused, KeyError, TypeError, ValueError):
            return None  # older than this, or none configured
        return salt if len(salt) == _SALT_BYTES else None

    def claim(self, place: Place, claim: bytes) -> bool:
        try:
            self._ask(place, "claim", {"claim": claim.hex()}, f"claim {place.name} for job {place.job_id}")
        except PeerRefused:
            return False  # whatever else is wrong, the upload will say it
        return True

    def keep(self, place: Place) -> bool:
        try:
            told = self._ask(place, "keep", {}, f"have {place.name} of job {place.job_id} kept")
        except PeerError:
            return False
        return isinstance(told, dict) and told.get("kept") is True

    def _ask(self, place: Place, verb: str, query: dict[str, str], what: str) -> Any:
        path = f"jobs/{quote(place.job_id, safe='')}/{verb}"
        query = {"name": place.name, "type": place.kind, **query}
        return self._patiently(lambda: self._http.ask_json("POST", path, query, what))


class Contents:
    """What is known of contents, for as many jobs and servers as use it: best one for a process. Thread-safe.

    Several threads that send the same content to one server send it once: the others wait for the first.

    Args:
        enabled: false never asks for a cache.
    """

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._mutex = threading.Lock()
        self._salts: dict[str, bytes | None] = {}
        self._claims: dict[tuple[object, ...], bytes] = {}
        self._under_way: dict[tuple[str, bytes], threading.Event] = {}
        #: What became of contents that were sent: whether the server kept them.
        self._kept: dict[tuple[str, bytes], bool] = {}

    def send(
        self,
        server: ServersCache,
        place: Place,
        source: Path,
        upload: Callable[[], Transferred],
        interrupt: Interrupt,
    ) -> Transferred:
        """Have a file in a job: from the server's cache, or by `upload`, which sends it there.

        Raises what `upload` raises, PeerError when the server does not answer, and Interrupted.
        """
        known = self._claim_of(server, source, interrupt)
        if known is None:
            return upload()
        (size_bytes, claim), key = known, (server.url, known[1])
        from_cache = Transferred(size_bytes, None, "sha-256")
        while True:
            if server.claim(place, claim):
                return from_cache
            if self._kept.get(key) is False:
                return upload()  # there is no room for it, so nothing to wait for
            with self._turn(key, interrupt) as mine:
                if mine:
                    # Since the claim above another thread may have come, sent it and gone.
                    if self._kept.get(key) and server.claim(place, claim):
                        return from_cache
                    moved = upload()
                    self._remember(self._kept, key, server.keep(place))
                    return moved

    def _claim_of(self, server: ServersCache, source: Path, interrupt: Interrupt) -> tuple[int, bytes] | None:
        """The size and claim of a file, or None when it is just to be sent."""
        try:
            status = source.stat()
        except OSError:
            return None
        salt = self._salt(server) if self._enabled and status.st_size >= SMALLEST_BYTES else None
        if salt is None:
            return None
        identity = (os.path.abspath(source), salt, *_identity(status))
        known = self._claims.get(identity)
        if known is None:
            try:
                known = _hmac(source, salt, interrupt)
                if _identity(source.stat()) != _identity(status):
                    return None
            except OSError:
                return None
            self._remember(self._claims, identity, known)
        return status.st_size, known

    def _salt(self, server: ServersCache) -> bytes | None:
        try:
            return self._salts[server.url]
        except KeyError:
            salt = server.salt()
            self._remember(self._salts, server.url, salt)
            return salt

    @contextlib.contextmanager
    def _turn(self, key: tuple[str, bytes], interrupt: Interrupt) -> Iterator[bool]:
        """True for the one thread that may send this content now; for others false, when that thread is through."""
        with self._mutex:
            before = self._under_way.get(key)
            if before is None:
                mine = self._under_way[key] = threading.Event()
        if before is not None:
            while not before.wait(_GLANCE_S):
                interrupt.check()
            yield False
            return
        try:
            yield True
        finally:
            with self._mutex:
                del self._under_way[key]
            mine.set()

    def _remember(self, memory: dict[Any, Any], key: object, value: object) -> None:
        with self._mutex:
            if len(memory) >= _REMEMBERED_COUNT:
                memory.clear()
            memory[key] = value


def contents_from_environ(environ: Mapping[str, str]) -> Contents:
    """`LWR_CACHE_TRANSFERS=0` is for who wants every file to be sent, whatever the server has."""
    return Contents(enabled=environ.get("LWR_CACHE_TRANSFERS", "").strip() != "0")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _hmac(source: Path, salt: bytes, interrupt: Interrupt) -> bytes:
    digest = hmac.new(salt, digestmod="sha256")
    with source.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            interrupt.check()
            digest.update(piece)
    return digest.digest()
