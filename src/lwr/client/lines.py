"""Kept-alive connections to one server, for many threads: the only module of the client that knows `urllib3`.

One request is one call: sent once, without following redirects. Every way in which it can go wrong comes out as an
error of `lwr.errors`. Proxies and certificates come from the environment (`HTTPS_PROXY`, `NO_PROXY`,
`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`). urllib3 without requests around it, which would cost more
than all the rest of a small file's upload. Must not know what is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import IncompleteRead
from urllib.parse import urlsplit

import certifi
import requests.utils
import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.bodies import PIECE_BYTES
from lwr.transfer.interrupt import Interrupt

_MOST_KEPT_COUNT = 32
_MOST_DRAINED_BYTES = 64 * 1024
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


Translation = Callable[[], contextlib.AbstractContextManager[None]]


class _Current(threading.local):
    """This thread's request: over which connection it goes, and what may end it."""

    connection: HTTPConnection | None = None
    interrupt = Interrupt()


_current = _Current()


class _Held:
    """What makes a connection end with its interrupt: it tells which thread uses it, and when it is there."""

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        _current.connection = self  # type: ignore[assignment]  # mixed into an HTTPConnection
        super().putrequest(method, url, skip_host, skip_accept_encoding)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _current.interrupt.check()  # what was set while there was no socket to break


class _Http(_Held, HTTPConnection):
    pass


class _Https(_Held, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class Answer:
    """An answer whose header has come. What reading its body may raise is ours too."""

    def __init__(self, response: urllib3.BaseHTTPResponse, translated: Translation) -> None:
        self._response, self._translated = response, translated
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = response.headers

    def body(self, most_bytes: int | None = None) -> bytes:
        """All of it, or its first bytes."""
        with self._translated():
            return self._response.read(most_bytes)

    def pieces(self) -> Iterator[bytes]:
        """It, piece by piece."""
        stream = self._response.stream(PIECE_BYTES)
        while True:
            with self._translated():
                piece = next(stream, b"")
            if not piece:
                return
            yield piece


class Lines:
    """Thread-safe. `close` may be called twice.

    Args:
        url: of the server; a proxy is asked for it if the environment says so, never for this machine's loopback.

    Raises:
        BadRequest: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._url = url
        self._timeout = urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s)
        self._pools = _pools(url)
        self._pools.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def close(self) -> None:
        self._pools.clear()

    @contextlib.contextmanager
    def request(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes],
        interrupt: Interrupt,
    ) -> Iterator[Answer]:
        """Send one request; within the `with` its answer can be read. `what` completes "Could not ...".

        Raises:
            PeerUnreachable, BadTransfer (both transient); PeerRefused: TLS; BadRequest; Interrupted; and what
            `body` raises.
        """

        def translated() -> contextlib.AbstractContextManager[None]:
            return _translated(what, self._url, interrupt)

        with _held(interrupt):
            with translated():
                response = self._pools.urlopen(
                    method,
                    url,
                    body=body,
                    headers=headers,
                    redirect=False,
                    retries=False,
                    timeout=self._timeout,
                    preload_content=False,
                    decode_content=False,
                )
            try:
                yield Answer(response, translated)
                if (response.length_remaining or 0) <= _MOST_DRAINED_BYTES:
                    response.drain_conn()  # then it can be used again
            finally:
                response.close()


@contextlib.contextmanager
def _held(interrupt: Interrupt) -> Iterator[None]:
    current = _current
    current.interrupt, current.connection = interrupt, None
    taken = current.__dict__  # of this thread, for the one that interrupts

    def break_off() -> None:
        sock = getattr(taken.get("connection"), "sock", None)
        if sock is not None:
            # Past TLS, which may wait for its own goodbye.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    with interrupt.hold(break_off):
        yield


@contextlib.contextmanager
def _translated(what: str, url: str, interrupt: Interrupt) -> Iterator[None]:
    try:
        yield
    except (exceptions.HTTPError, OSError, ValueError) as error:
        interrupt.check()  # whatever broke, it was broken on purpose then
        raise foreign(error, what, url) from error


def _pools(url: str) -> urllib3.PoolManager:
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), certifi.where())
    if url.startswith("https:") and not os.path.exists(bundle):
        raise BadRequest(f"The certificates {bundle} are not there.", "Correct REQUESTS_CA_BUNDLE.")
    ca_file, ca_directory = (None, bundle) if os.path.isdir(bundle) else (bundle, None)
    host = urlsplit(url).hostname or ""
    here = host in ("localhost", "::1") or host.startswith("127.")
    try:
        proxy = None if here else requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
        if proxy is None:
            return urllib3.PoolManager(maxsize=_MOST_KEPT_COUNT, ca_certs=ca_file, ca_cert_dir=ca_directory)
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        user, password = requests.utils.get_auth_from_url(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=f"{user}:{password}") if user else None
        return urllib3.ProxyManager(
            proxy, maxsize=_MOST_KEPT_COUNT, proxy_headers=headers, ca_certs=ca_file, ca_cert_dir=ca_directory
        )
    except (exceptions.HTTPError, ValueError) as error:
        raise BadRequest(
            "The proxy that the environment names cannot be used.", "Look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
        ) from error


def foreign(error: Exception, what: str, url: str) -> LwrError:
    """The error of ours for one of urllib3; what matters most about it is whether trying again can help."""
    root: BaseException = error
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
    reason = root.strerror if isinstance(root, OSError) and root.strerror else ""
    match error:
        case exceptions.SSLError():
            return PeerRefused(
                f"Could not {what}: no secure connection to {url} ({reason or 'TLS failed'}).",
                "If its certificate is self-signed, name it in REQUESTS_CA_BUNDLE.",
            )
        case exceptions.ProxyError():
            return PeerUnreachable(
                f"Could not {what}: the proxy does not reach {url}.", "Look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
            )
        case exceptions.TimeoutError() if not isinstance(error, exceptions.NewConnectionError):
            return PeerUnreachable(f"Could not {what}: {url} does not answer in time.")
        case exceptions.ProtocolError() if isinstance(root, IncompleteRead):
            return BadTransfer(f"Could not {what}: the answer was cut short.")
        case exceptions.NewConnectionError() | exceptions.ProtocolError() | exceptions.PoolError() | OSError():
            return PeerUnreachable(
                f"Could not {what}: no connection to {url} ({reason or 'it broke'}).",
                "Is the server running? Start it with `lwr serve`, or correct the address.",
            )
        case exceptions.LocationValueError() | exceptions.InvalidHeader() | ValueError():
            return BadRequest(f"Could not {what}: the request to {url} cannot be formed.", "Check the address.")
    return PeerRefused(f"Could not {what}: the answer of {url} cannot be used.")
