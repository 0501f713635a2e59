"""Every request's way in and out: id, secret, route, handler, errors in the reader's dialect, one log line.

Must not know what the routes do. No secret reaches a log line or an answer: the query is never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from lwr.errors import LwrError
from lwr.server.guard import Guard
from lwr.server.http.answers import Refused
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call, Router, decode_query

log = structlog.get_logger("lwr")

#: A whole job description comes in the request line.
MAX_LINE_BYTES = 2 * 1024 * 1024 + 64 * 1024
MAX_FIELD_BYTES = 16 * 1024
#: Longer queries are decoded off the event loop.
_LONG_QUERY = 64 * 1024
#: How long the rest of a refused body is read and thrown away, so that its sender gets to see the answer.
_LINGER_S = 3.0
#: A connection without a request is closed after this.
_IDLE_S = 120.0

_FAILED = Refused(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    "internal-error",
    "The server failed at this request.",
    "The server's log says more, under the id of this request.",
)

# This edge writes its own lines; aiohttp skips its own for a logger that is off.
_NO_ACCESS_LOG = logging.getLogger("lwr.no-access-log")
_NO_ACCESS_LOG.disabled = True


class Edge:
    """Answers requests. One per server; used on the event loop only."""

    def __init__(self, router: Router, guard: Guard, pool: Pool) -> None:
        self._router = router
        self._guard = guard
        self._pool = pool
        self._active_count = 0
        self._stopping = False
        self._idle = asyncio.Event()
        this_server = secrets.token_hex(4)
        self._ids = (f"{this_server}-{number:x}" for number in itertools.count(1))
        self._log_line = log.bind()  # once: a logger is looked up at each call otherwise

    def server(self) -> web.Server:
        """What a listening socket is given."""
        return _Server(self.answer)

    async def drain(self, grace_s: float) -> None:
        """Wait until nothing is in flight, so long at most. Connections are closed after their next answer."""
        self._stopping = True
        for _ in range(3):  # a connection that was accepted just now takes so many turns to be known
            await asyncio.sleep(0)
        if self._active_count:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens."""
        self._active_count += 1
        try:
            answer = await self._answer(request)
        finally:
            self._active_count -= 1
            if self._stopping and not self._active_count:
                self._idle.set()
        if self._stopping:
            answer.force_close()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        started = time.perf_counter()
        request_id = next(self._ids)
        call: Call | None = None
        refused: Refused | None = None
        try:
            call = await self._admit(request)
            answer = await call.route.handler(call)
        except Refused as error:
            refused = error
        except LwrError as error:
            refused = Refused.by(error)
        except (ConnectionError, web.RequestPayloadError):
            refused = Refused(HTTPStatus.BAD_REQUEST, "bad-request", "The request's body is cut or badly framed.")
        except TimeoutError:
            refused = Refused(HTTPStatus.REQUEST_TIMEOUT, "timeout", "The request's body stopped coming.")
        except Exception:
            log.exception(
                "request failed",
                request=request_id,
                method=request.method,
                path=_path(request),
                job=call.job if call else None,
            )
            refused = _FAILED
        if refused is not None:
            answer = refused.problem(request_id)
            if call and call.route.file and not call.careful:
                # Announce more than is sent, then close: the one failure that every stock client notices.
                answer.headers["Content-Length"] = str(len(str(answer.text)) + 1)
                answer.force_close()
        self._log(request, request_id, call, answer.status, refused, time.perf_counter() - started)
        return answer

    async def _admit(self, request: web.BaseRequest) -> Call:
        target = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        path, _, query = target.partition("?")
        self._check_sender(request)
        route, manager, in_path = self._router.find(request.method, path)
        if len(query) > _LONG_QUERY:
            values = await self._pool.run(decode_query, query)
        else:
            values = decode_query(query)
        if not route.open:
            self._guard.check(request.headers.getall("Authorization", ()), values)
        return Call(request, route, manager, {**values, **in_path})

    def _check_sender(self, request: web.BaseRequest) -> None:
        """Refuse what a web page could make a browser send to a server without a secret."""
        headers = request.headers
        host = headers.get("Host")
        if not self._guard.knows_host(host):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "foreign-host",
                "Without a private_key this server answers to loopback names only.",
                "Use http://localhost or 127.0.0.1, or give the server a private_key.",
            )
        if self._guard.is_cross_site(host, headers.getall("Sec-Fetch-Site", ()), headers.getall("Origin", ())):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "cross-site",
                "Without a private_key this server answers no requests that other web pages make.",
                "Open the address itself, use a client that is no browser, or give the server a private_key.",
            )

    def _log(
        self,
        request: web.BaseRequest,
        request_id: str,
        call: Call | None,
        status: int,
        refused: Refused | None,
        taken_s: float,
    ) -> None:
        level = logging.DEBUG if refused is None else logging.WARNING if refused.status < 500 else logging.ERROR
        if not self._log_line.is_enabled_for(level):
            return
        self._log_line.log(
            level,
            "request" if refused is None else "request refused",
            request=request_id,
            method=request.method,
            path=_path(request),
            job=call.job if call else None,
            status=status,
            ms=round(taken_s * 1000, 1),
            peer=request.remote,
            code=refused.code if refused else None,
            detail=refused.detail if refused else None,
        )


def _path(request: web.BaseRequest) -> str:
    """The path for a log line: still encoded, without the query, cut short."""
    return request.raw_path.partition("?")[0][:200]


class _Server(web.Server):
    """Makes connections with this edge's limits."""

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=_NO_ACCESS_LOG,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            lingering_time=_LINGER_S,
            keepalive_timeout=_IDLE_S,
            # Files arrive as they are, whatever Content-Encoding says: no gzip bombs, no changed digests.
            auto_decompress=False,
        )


class _Connection(web.RequestHandler):
    """Answers what is no HTTP with problem+json too."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        del status, message
        if isinstance(exc, LineTooLong):
            refused = Refused(
                HTTPStatus.REQUEST_URI_TOO_LONG,
                "too-large",
                f"The request line or a header is longer than the server takes ({MAX_LINE_BYTES} and "
                f"{MAX_FIELD_BYTES} bytes).",
            )
        elif isinstance(exc, HttpProcessingError):
            refused = Refused(HTTPStatus.BAD_REQUEST, "bad-request", "These bytes are no HTTP request.")
        else:
            refused = _FAILED
            log.error("connection failed", exc_info=exc)
        log.warning("request refused", peer=request.remote, code=refused.code, detail=refused.detail)
        answer = refused.problem("")
        answer.force_close()
        return answer
