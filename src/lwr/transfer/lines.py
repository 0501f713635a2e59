"""Connections that go where they may and can be ended from another thread.

A name is resolved here, each of its addresses is judged, and the connection is made to exactly one that was, so that
no second look-up can lead elsewhere; certificates are still checked by name. Knows sockets and urllib3's connections,
not what is sent over them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

from requests import PreparedRequest
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import ConnectionPool, HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from lwr.errors import BadRequest
from lwr.transfer.reach import Reach

#: The addresses of a host and port, best first. Raises socket.gaierror.
Resolve = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask this machine's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Line:
    """What one thread's requests go over, one after another: its connections, kept alive or not.

    Only `shut` may be called from other threads. `connect_timeout_s` is for each address; for what follows, TLS and
    sending, the timeouts of the requests count.
    """

    def __init__(self, reach: Reach, connect_timeout_s: float, resolve: Resolve = resolve) -> None:
        self._reach = reach
        self._connect_timeout_s = connect_timeout_s
        self._resolve = resolve
        self._mutex = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._opening: socket.socket | None = None
        self._shut = False

    def ready(self) -> None:
        """Before each request: what was shut before counts no more."""
        with self._mutex:
            self._shut = False

    def shut(self) -> None:
        """Make whatever hangs in one of the connections fail, at once; but for the look-up of a name."""
        with self._mutex:
            self._shut = True
            hanging = [*self._sockets, *([self._opening] if self._opening else [])]
        for one in hanging:
            # It may be closed already. Past SSLSocket's own method, which is not for two threads.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def connect(self, connection: HTTPConnection) -> socket.socket:
        """A socket that is connected to where urllib3 wants one; raises what urllib3 would, and BadRequest."""
        refused: BadRequest | None = None
        failed: OSError | None = None
        for address in self._addresses(connection):
            try:
                if connection.proxy is None:
                    self._reach.check_address(connection.host, address)
                return self._connected(connection, address)
            except BadRequest as error:
                refused = error
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(connection, "timed out") from failed
        if failed is not None or refused is None:
            raise NewConnectionError(connection, "not connected") from failed
        raise refused

    def _addresses(self, connection: HTTPConnection) -> Sequence[str]:
        if connection.proxy is None:
            self._reach.check_host(connection.host)
        try:
            return self._resolve(connection.host.strip("[]"), connection.port)
        except (socket.gaierror, UnicodeError) as error:
            no_name = (
                error if isinstance(error, socket.gaierror) else socket.gaierror(socket.EAI_NONAME, "no such name")
            )
            raise NameResolutionError(connection.host, connection, no_name) from no_name

    def _connected(self, connection: HTTPConnection, address: str) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.settimeout(self._connect_timeout_s)
            self._watch(made)
            made.connect((address, connection.port))
            made.settimeout(connection.timeout)
        except BaseException:
            made.close()
            raise
        return made

    def _watch(self, made: socket.socket) -> None:
        # Another handle, which stays when TLS takes the socket over.
        self._unwatch()
        with self._mutex:
            if self._shut:
                raise ConnectionAbortedError("ended on purpose")
            self._opening = made.dup()

    def _unwatch(self) -> None:
        with self._mutex:
            opening, self._opening = self._opening, None
        if opening is not None:
            opening.close()

    @contextlib.contextmanager
    def opening(self, connection: HTTPConnection) -> Iterator[None]:
        """Around all that it takes to open a connection: the way through a proxy, and TLS."""
        try:
            yield
            if isinstance(connection.sock, socket.socket):
                with self._mutex:
                    self._sockets.add(connection.sock)
                    if self._shut:
                        raise NewConnectionError(connection, "ended on purpose")
        finally:
            self._unwatch()


class Adapter(HTTPAdapter):
    """Has requests open its connections through a `Line`."""

    def __init__(self, line: Line) -> None:
        super().__init__(pool_connections=8, pool_maxsize=1)

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return line.connect(self)

            def connect(self) -> None:
                with line.opening(self):
                    super().connect()

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return line.connect(self)

            def connect(self) -> None:
                with line.opening(self):
                    super().connect()

        self._kinds = {"http": Plain, "https": Secure}

    def get_connection_with_tls_context(
        self,
        request: PreparedRequest,
        verify: bool | str | None,
        proxies: Mapping[str, str] | None = None,
        cert: tuple[str, str] | str | None = None,
    ) -> ConnectionPool:
        """The pool that a request goes to, before it has opened anything."""
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        assert isinstance(pool, HTTPConnectionPool)
        pool.ConnectionCls = self._kinds[pool.scheme]
        return pool
