"""One request and its answer, by URL: followed where it may lead, ended when somebody wants it, and without a leak.

URLs carry other people's secrets (Galaxy's `job_key`, a user and password): they go to the host that they were given
for and nowhere else, neither into a message. There are no cookies, no .netrc and no Referer. Proxies and a CA bundle
come from the environment, as for the client; no proxy where addresses are judged, as it would resolve names itself.
Must not know what is fetched or delivered, and never tries again.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import parse_qsl, unquote, urljoin, urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3 import exceptions as urllib3_errors
from urllib3.util import parse_url

from lwr import __version__
from lwr.errors import BadRequest, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.answers import MAY_PASS_STATUSES, foreign, retry_after_s
from lwr.transfer.bodies import PIECE_BYTES, Body
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.lines import Adapter, Line, Resolve
from lwr.transfer.reach import Reach, shown

MOST_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_OF_AN_ERROR_BYTES = 64 * 1024
_FINAL = "Give its final address."
_SECRET_PARAMETERS = frozenset({"job_key", "private_key", "private_token"})


@dataclass(frozen=True, slots=True)
class _Here:
    """What one thread uses."""

    session: requests.Session
    line: Line


class _Session(requests.Session):
    # Redirects are ours: requests would read all of their bodies, however long.
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class Exchange:
    """For any number of threads: each has its own connections, which are kept alive until `close`."""

    def __init__(self, reach: Reach, connect_timeout_s: float, read_timeout_s: float, resolve: Resolve) -> None:
        self._reach = reach
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._resolve = resolve
        self._threads = threading.local()
        self._mutex = threading.Lock()
        self._sessions: list[requests.Session] = []

    def close(self) -> None:
        """Close all connections, of all threads; nothing may be under way. May be called twice."""
        with self._mutex:
            sessions, self._sessions = self._sessions, []
            self._threads = threading.local()
        for session in sessions:
            session.close()

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        url: str,
        what: str,
        interrupt: Interrupt,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
        also: Collection[int] = (),
    ) -> Iterator[requests.Response]:
        """Send a request; within, its answer of a status below 300, or one of `also`, can be read.

        `what` completes "Could not ...". Only GET and HEAD follow redirects.

        Raises (also for what goes wrong within):
            BadRequest: the URL, or where it leads, is not allowed or makes no sense.
            PeerUnreachable, BadTransfer: the line broke.
            PeerRefused: any other status; transient for those that may pass, 500 among them.
            Interrupted: at once when `interrupt` is set.
        """
        here = self._here()
        here.line.ready()
        try:
            with (
                interrupt.hold(here.line.shut),
                self._followed(here.session, method, url, what, headers or {}, body) as response,
            ):
                if response.status_code >= 300 and response.status_code not in also:
                    raise _refusal(response, url, what)
                yield response
        except (requests.RequestException, urllib3_errors.HTTPError) as error:
            if interrupt.is_set:
                raise Interrupted("The transfer was ended.") from None
            # Not chained: its text has the whole URL.
            raise _ours(error, what, url) from None
        except LwrError:
            interrupt.check()
            raise

    def _here(self) -> _Here:
        here: _Here | None = getattr(self._threads, "here", None)
        if here is None:
            line = Line(self._reach, self._connect_timeout_s, self._resolve)
            session = _Session()
            session.trust_env = False  # of the environment we take what we name, and never .netrc
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
            session.headers.update({"User-Agent": f"lwr/{__version__}", "Accept-Encoding": "identity"})
            session.mount("http://", Adapter(line))
            session.mount("https://", Adapter(line))
            here = self._threads.here = _Here(session, line)
            with self._mutex:
                self._sessions.append(session)
        return here

    def _followed(
        self,
        session: requests.Session,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str],
        body: Body | bytes,
    ) -> requests.Response:
        asked: list[str] = []
        self._reach.check_url(url)
        while len(asked) <= MOST_REDIRECTS:
            response = self._send(session, method, url, what, headers, body)
            target = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or method not in ("GET", "HEAD") or not target:
                return response
            response.close()
            asked.append(url)
            url = _joined(url, target, what)
            self._reach.check_url(url)
            _check_redirect(asked, url, what)
        raise PeerRefused(
            f"Could not {what}: it redirects more than {MOST_REDIRECTS} times.", "Give its final address."
        )

    def _send(
        self,
        session: requests.Session,
        method: str,
        url: str,
        what: str,
        headers: Mapping[str, str],
        body: Body | bytes,
    ) -> requests.Response:
        try:
            return session.request(
                method,
                url,
                data=body,
                headers=dict(headers),
                # The first is for TLS and sending, which may wait for a slow disk over there.
                timeout=(self._read_timeout_s, self._read_timeout_s),
                proxies=self._proxies(url),
                verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException:
            raise
        except (OSError, ValueError):
            raise BadRequest(
                f"Could not {what}: the request cannot be formed.",
                "Check the URL, and REQUESTS_CA_BUNDLE if it is set.",
            ) from None

    def _proxies(self, url: str) -> dict[str, str]:
        host = urlsplit(url).hostname or ""
        loopback = host in ("localhost", "::1") or host.startswith("127.")
        return {} if loopback or self._reach.judges_addresses else get_environ_proxies(url)


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The body as it comes: nothing that came is lost when the line breaks. To be read within `Exchange.answer`."""
    raw = response.raw
    # More than was announced would be another answer.
    while (left := raw.length_remaining) != 0:
        piece = raw.read1(PIECE_BYTES if left is None else min(PIECE_BYTES, left), decode_content=False)
        if not piece:
            return
        yield piece
    # urllib3 does so when it reads the end, which is not read where the length is known.
    raw.release_conn()


def beginning(response: requests.Response, most_bytes: int) -> bytes:
    """So much of a short body as comes in a few packets."""
    return b"".join(itertools.islice(pieces(response), 16))[:most_bytes]


def is_html(headers: Mapping[str, str]) -> bool:
    """Whether an answer calls itself a page for people."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def _refusal(response: requests.Response, url: str, what: str) -> PeerRefused:
    status = response.status_code
    try:
        problem: Any = json.loads(beginning(response, _MOST_OF_AN_ERROR_BYTES))
    except (ValueError, RecursionError, urllib3_errors.HTTPError):
        problem = None
    problem = problem if isinstance(problem, dict) else {}
    said = str(problem.get("err_msg") or problem.get("detail") or response.reason or "no reason given")
    if status in _REDIRECTS:
        said = "it redirects to another address, which is not followed"
    for secret in _secrets(url):
        said = said.replace(secret, "******")
    return PeerRefused(
        f"Could not {what}: the answer was {status}: {said[:1000]}",
        status=status,
        peer_code=str(problem.get("err_code") or problem.get("code") or ""),
        transient=status == 500 or status in MAY_PASS_STATUSES,
        retry_after_s=retry_after_s(response.headers.get("Retry-After", ""), time.time()),
    )


def _joined(url: str, target: str, what: str) -> str:
    try:
        # As requests does it: header bytes that are not ASCII are mostly UTF-8.
        return urljoin(url, target.encode("latin-1").decode("utf-8", "replace"))
    except ValueError:
        raise PeerRefused(f"Could not {what}: it redirects to what is no URL.") from None


def _check_redirect(asked: list[str], url: str, what: str) -> None:
    if asked[-1].lower().startswith("https:") and not url.lower().startswith("https:"):
        raise PeerRefused(f"Could not {what}: it redirects from https to {shown(url)}.", _FINAL)
    for earlier in asked:
        if not _same_place(earlier, url) and any(
            secret in text for secret in _secrets(earlier) for text in (url, unquote(url))
        ):
            raise PeerRefused(f"Could not {what}: a redirect would give its secret to another host.")


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs speak to the same port of the same host in the same way."""
    return _origin(one) == _origin(other)


def _same_place(one: str, other: str) -> bool:
    here, there = _origin(one), _origin(other)
    # From http to https nothing changes hands.
    return here == there or (here[1] == there[1] and here[::2] == ("http", 80) and there[::2] == ("https", 443))


def _origin(url: str) -> tuple[str, str, int]:
    # The parser that also decides where to connect.
    parts = parse_url(url)
    scheme = (parts.scheme or "").lower()
    return scheme, (parts.host or "").rstrip("."), parts.port or (443 if scheme == "https" else 80)


def _secrets(url: str) -> set[str]:
    parts = parse_url(url)
    password = (parts.auth or "").partition(":")[2]
    values = {value for name, value in parse_qsl(parts.query or "") if name in _SECRET_PARAMETERS}
    return (values | {password, unquote(password)}) - {""}


def _ours(error: requests.RequestException | urllib3_errors.HTTPError, what: str, url: str) -> LwrError:
    ours = foreign(_as_requests(error), what, shown(url))
    if isinstance(ours, PeerUnreachable):
        ours.hint = "Can this machine reach that host? Look at its names, routes and firewall."
    return ours


def _as_requests(error: requests.RequestException | urllib3_errors.HTTPError) -> requests.RequestException:
    # What reading a body raises, in the words that requests has for it.
    kind: type[requests.RequestException] = requests.exceptions.ChunkedEncodingError
    match error:
        case requests.RequestException():
            return error
        case urllib3_errors.ReadTimeoutError():
            kind = requests.exceptions.ReadTimeout
        case urllib3_errors.SSLError():
            kind = requests.exceptions.ConnectionError
    told = kind("while the answer came")
    told.__cause__ = error
    return told
