"""Kept-alive connections to one server, for many threads.

One request is one call: sent once, without following redirects. Every way in which it can go wrong comes out as an
error of `lwr.errors`. Proxies and certificates come from the environment (`HTTPS_PROXY`, `NO_PROXY`,
`REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE`); a Unix socket of this machine needs neither. On `http.client`:
for each of a thousand small files requests takes three times its processor time, and urllib3 twice, more than all the
rest of sending one. Must not know what is asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead, InvalidURL
from typing import cast
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH, get_auth_from_url, get_environ_proxies, select_proxy
from urllib3.util import make_headers, wait_for_read

from lwr.client.endpoint import socket_of
from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.bodies import PIECE_BYTES
from lwr.transfer.interrupt import Interrupt

_MOST_DRAINED_BYTES = 64 * 1024
_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

Translated = Callable[[], contextlib.AbstractContextManager[None]]


class Answer:
    """An answer whose header has come. What reading its body may raise is ours too."""

    def __init__(self, response: HTTPResponse, translated: Translated) -> None:
        self._response, self._translated = response, translated
        self.status = response.status
        self.reason = response.reason or ""
        self.headers = cast(Mapping[str, str], response.headers)  # a message of `email`, blind to case

    def body(self, most_bytes: int | None = None) -> bytes:
        """All of it, or its first bytes."""
        with self._translated():
            return self._response.read(most_bytes)

    def pieces(self) -> Iterator[bytes]:
        """It, piece by piece."""
        while True:
            with self._translated():
                piece = self._response.read(PIECE_BYTES)
                if not piece and self._response.length:
                    raise IncompleteRead(b"", self._response.length)  # which `read` says of a whole body only
            if not piece:
                return
            yield piece


class _SocketConnection(HTTPConnection):
    """HTTP over a Unix socket; the server is told that it is `localhost`."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(self.timeout)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        self.sock = made


@dataclass(frozen=True, slots=True)
class _Route:
    """How the server is reached. `proxy` is host and port of one; `proxy_headers` are for it, `tls` for the server.
    A Unix socket needs neither."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    proxy: tuple[str, int] | None
    proxy_headers: Mapping[str, str]
    socket_path: str = ""

    def connection(self, timeout_s: float) -> HTTPConnection:
        """One that is not open yet."""
        if self.socket_path:
            return _SocketConnection(self.socket_path, timeout_s)
        host, port = self.proxy or (self.host, self.port)
        if self.tls is None:
            return HTTPConnection(host, port, timeout=timeout_s)
        secure = HTTPSConnection(host, port, timeout=timeout_s, context=self.tls)
        if self.proxy is not None:
            secure.set_tunnel(self.host, self.port, dict(self.proxy_headers))
        return secure


class Lines:
    """Thread-safe. `close` may be called twice; nothing may be under way then.

    Args:
        url: of the server; a proxy is asked for it if the environment says so, never for this machine's loopback.

    Raises:
        BadRequest: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, read_timeout_s: float) -> None:
        self._url = url
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._route = _route(url)
        self._idle: list[HTTPConnection] = []  # its `append` and `pop` are atomic
        parts = urlsplit(url)
        # A proxy is told the whole address, if nothing hides it.
        self._absolute = self._route.proxy is not None and self._route.tls is None
        at_socket = self._route.socket_path
        self._origin = f"unix:{at_socket}" if at_socket else f"{parts.scheme}://{parts.netloc}"

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

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

        Args:
            url: of the server. headers: with the body's Content-Length, if there is one.

        Raises:
            PeerUnreachable, BadTransfer (both transient); PeerRefused: TLS; BadRequest; Interrupted; and what `body`
                raises.
        """

        def translated() -> contextlib.AbstractContextManager[None]:
            return _translated(what, self._url, interrupt)

        with translated():
            connection = self._kept() or self._route.connection(self._timeouts[0])
        held: list[socket.socket] = []

        def break_off() -> None:
            for one in held or [connection.sock]:
                if one is not None:
                    socket.socket.shutdown(one, socket.SHUT_RDWR)  # past TLS, which may wait for its own goodbye

        reusable = False
        try:
            with interrupt.hold(break_off):
                with translated():
                    self._open(connection)
                    held.append(connection.sock)
                    interrupt.check()  # what was set while there was no socket to break
                    target = url if self._absolute else url.removeprefix(self._origin)
                    response = self._asked(connection, method, target, headers, body)
                yield Answer(response, translated)
                with translated():
                    reusable = _drained(response) and connection.sock is not None
        finally:
            if reusable:
                self._idle.append(connection)
            else:
                connection.close()

    def _kept(self) -> HTTPConnection | None:
        """A connection that was used before and that the server has not closed since."""
        while self._idle:
            with contextlib.suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if not wait_for_read(connection.sock, timeout=0):
                    return connection
                connection.close()
        return None

    def _open(self, connection: HTTPConnection) -> None:
        if connection.sock is not None:
            return
        try:
            connection.connect()
        except OSError as error:
            if self._route.proxy is not None and not isinstance(error, ssl.SSLError):
                raise _ProxyError from error
            raise
        cast(socket.socket, connection.sock).settimeout(self._timeouts[1])

    def _asked(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes],
    ) -> HTTPResponse:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {**headers, **(self._route.proxy_headers if self._absolute else {})}.items():
            connection.putheader(name, value)
        try:
            connection.endheaders()
            for piece in (body,) if isinstance(body, bytes) else body:
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            # Who refuses a body may answer before it has come, and read no more of it.
            with contextlib.suppress(HTTPException, OSError):
                return connection.getresponse()
            raise
        return connection.getresponse()


class _ProxyError(OSError):
    """The proxy is not there, or does not open a way to the server."""


def _drained(response: HTTPResponse) -> bool:
    """Whether nothing of an answer is left, or was so little that it is read now."""
    if not response.isclosed() and response.length is not None and response.length <= _MOST_DRAINED_BYTES:
        response.read()
    return response.isclosed()


@contextlib.contextmanager
def _translated(what: str, url: str, interrupt: Interrupt) -> Iterator[None]:
    try:
        yield
    except (HTTPException, OSError, ValueError) as error:
        interrupt.check()  # whatever broke, it was broken on purpose then
        raise foreign(error, what, url) from error


def _route(url: str) -> _Route:
    if path := socket_of(url):
        if not hasattr(socket, "AF_UNIX"):
            raise BadRequest("This platform has no Unix sockets.", "Ask the server at a port of its own.")
        return _Route("localhost", 0, None, None, {}, path)
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    plain = f"[{host}]" if ":" in host else host
    if parts.netloc.casefold().rstrip(":") not in (plain, f"{plain}:{port}"):
        raise BadRequest(f"{parts.netloc[:80]!r} is not the name of a server.", "Check the address.")
    here = host in ("localhost", "::1") or host.startswith("127.")
    named = None if here else select_proxy(url, get_environ_proxies(url))
    tls = _tls() if parts.scheme == "https" else None
    if named is None:
        return _Route(host, port, tls, None, {})
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise BadRequest(
            "The proxy that the environment names cannot be used.", "Look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
        )
    user, password = get_auth_from_url(proxy.geturl())
    headers = make_headers(proxy_basic_auth=f"{user}:{password}") if user else {}
    return _Route(host, port, tls, (proxy.hostname, proxy.port or 80), headers)


def _tls() -> ssl.SSLContext:
    bundle = next((os.environ[name] for name in _CA_VARIABLES if os.environ.get(name)), DEFAULT_CA_BUNDLE_PATH)
    try:
        if os.path.isdir(bundle):
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise BadRequest(
            f"The certificates in {bundle} cannot be read: {error.strerror}.", "Correct REQUESTS_CA_BUNDLE."
        ) from error


def foreign(error: HTTPException | OSError | ValueError, what: str, url: str) -> LwrError:
    """The error of ours for one of http.client or the system; what matters most is whether trying again can help."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
    match error:
        case _ProxyError():
            return PeerUnreachable(
                f"Could not {what}: the proxy does not reach {url}.", "Look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return PeerUnreachable(f"Could not {what}: the secure connection to {url} was cut.")
        case ssl.SSLError():
            reason = getattr(error, "verify_message", reason)
            return PeerRefused(
                f"Could not {what}: no secure connection to {url} ({reason or 'TLS failed'}).",
                "If its certificate is self-signed, name it in REQUESTS_CA_BUNDLE.",
            )
        case TimeoutError():
            return PeerUnreachable(f"Could not {what}: {url} does not answer in time.")
        case IncompleteRead():
            return BadTransfer(f"Could not {what}: the answer was cut short.")
        case InvalidURL() | ValueError():
            return BadRequest(f"Could not {what}: the request to {url} cannot be formed.", "Check the address.")
    return PeerUnreachable(
        f"Could not {what}: no connection to {url} ({reason or 'it broke'}).",
        "Is the server running? Start it with `lwr serve`, or correct the address.",
    )
