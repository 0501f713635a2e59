"""How the server is, for people and for what watches it.

    GET /status    everything at a glance: managers, jobs, queue, disks (DOCUMENT below)
    GET /metrics   the same as numbers, for Prometheus (lwr.server.http.metrics)
    GET /livez     {"status": "ok"}: the event loop turns; no secret needed
    GET /readyz    {"status": "ok", "broker": "connected" or "away", if there is one}, or 503; no secret needed

DOCUMENT: `version`, `at`, `started_at`, `ready`, `problems` (sentences), `managers` (`name`, `type`,
`staging_directory`, `jobs`: {state: how many}), `staging` (`running`, `waiting`), `disks` (`directory`, `free_bytes`,
`total_bytes`) and `queue` (`broker`, `consumer` and `publisher` with `connected`, `since`, `reason`; `waiting`,
`oldest_at`). Times are seconds since the epoch. What is not configured, or could not be seen, is null.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from lwr import __version__
from lwr.server.condition import Condition, Lookout
from lwr.server.http import metrics
from lwr.server.http.answers import Refused, json_answer
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call, Route, route

if TYPE_CHECKING:  # a server without a queue needs no kombu
    from lwr.server.amqp import QueueHealth
    from lwr.transfer.broker import LinkState

log = structlog.get_logger("lwr")

#: So long an answer waits for the disk before it says that this does not answer.
_PATIENCE_S = 2.0


class Watch:
    """The routes of those who watch. They look in a thread of its own, and one look at a time serves all who ask
    meanwhile: a disk that hangs holds up that thread and nobody else.

    Args:
        patience_s: how long an answer may take.
    """

    def __init__(self, lookout: Lookout, pool: Pool, *, patience_s: float = _PATIENCE_S) -> None:
        self._lookout = lookout
        self._pool = pool
        self._patience_s = patience_s
        self._look: asyncio.Future[Condition] | None = None

    def routes(self) -> list[Route]:
        return [
            route("GET", "/status", self.status),
            route("GET", "/metrics", self.metrics),
            route("GET", "/livez", self.livez, open=True),
            route("GET", "/readyz", self.readyz, open=True),
        ]

    async def status(self, _: Call) -> web.StreamResponse:
        return json_answer(_document(await self._seen()))

    async def metrics(self, call: Call) -> web.StreamResponse:
        text, content_type = metrics.render(await self._seen(), call.request.headers.get("Accept", ""))
        # Its parameters do not fit aiohttp's own `content_type`.
        return web.Response(body=text, headers={"Content-Type": content_type})

    async def livez(self, _: Call) -> web.StreamResponse:
        """Touches nothing that could be slow."""
        return json_answer({"status": "ok"})

    async def readyz(self, _: Call) -> web.StreamResponse:
        seen = await self._seen()
        broker = {"broker": seen.broker} if seen.broker else {}
        if not seen.problems:
            return json_answer({"status": "ok", **broker})
        # Asked without a secret: the reasons may name directories and hosts, so they go to the log.
        log.warning("not ready", problems=list(seen.problems))
        raise Refused(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "not-ready",
            "The server takes no jobs at the moment.",
            "`lwr status` and the server's log say why; try again later.",
            members=broker,
        )

    async def _seen(self) -> Condition:
        look = self._look
        if look is None or look.done():
            self._look = look = self._pool.apart(self._lookout.look)
        await asyncio.wait([look], timeout=self._patience_s)
        return look.result() if look.done() else self._lookout.blind()


def _document(seen: Condition) -> dict[str, Any]:
    jobs = seen.jobs
    return {
        "version": __version__,
        "at": seen.at,
        "started_at": seen.started_at,
        "ready": not seen.problems,
        "problems": list(seen.problems),
        "managers": [
            {
                "name": name,
                "type": entry.type,
                "staging_directory": entry.staging_directory,
                "jobs": None if jobs is None else {str(state): count for state, count in jobs.get(name, {}).items()},
            }
            for name, entry in seen.managers.items()
        ],
        "staging": seen.transfers and {"running": seen.transfers[0], "waiting": seen.transfers[1]},
        "disks": [
            {"directory": disk.directory, "free_bytes": disk.free_bytes, "total_bytes": disk.total_bytes}
            for disk in seen.disks
        ],
        "queue": seen.queue and _queue(seen.queue),
    }


def _queue(queue: QueueHealth) -> dict[str, Any]:
    return {
        "broker": queue.broker,
        "consumer": _link(queue.consumer),
        "publisher": _link(queue.publisher),
        "waiting": queue.waiting_count,
        "oldest_at": queue.oldest_at,
    }


def _link(link: LinkState | None) -> dict[str, Any] | None:
    return None if link is None else {"connected": link.connected, "since": link.since, "reason": link.reason}
