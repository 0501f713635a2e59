"""The composition root: a configuration becomes a running server. The only place that names all concrete classes.

Order of start: store, managers and engine (which takes up the jobs of the last server), then message queue and socket,
so that nobody is answered by half a server. Order of stop: the socket, requests in flight, queue, engine, store. Jobs
go on.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from lwr import __version__
from lwr.config import Config
from lwr.core.job import JobKey, JobState
from lwr.errors import LwrError
from lwr.server.announcements import Announcements
from lwr.server.cache import Cache
from lwr.server.condition import Lookout
from lwr.server.engine import Engine
from lwr.server.guard import Guard
from lwr.server.housekeeping import Housekeeper, Retention
from lwr.server.http import classic, rest
from lwr.server.http.cache import Caching
from lwr.server.http.downloads import Downloads
from lwr.server.http.edge import Edge
from lwr.server.http.intake import Intake
from lwr.server.http.listening import open_port, open_socket, remove_socket
from lwr.server.http.pages import Pages
from lwr.server.http.pool import Pool
from lwr.server.http.resumable import Resumable
from lwr.server.http.routing import Router
from lwr.server.http.status import Watch
from lwr.server.http.uploads import Uploads
from lwr.server.inbox import Incoming
from lwr.server.ledger import Ledger
from lwr.server.mailbox import Mailbox
from lwr.server.moves import Means
from lwr.server.staging import Stagers
from lwr.server.store import Store
from lwr.server.tls import ssl_context
from lwr.server.tus import ResumableUploads
from lwr.server.view import ManagerEntry, View
from lwr.transfer.http import Web
from lwr.transfer.reach import Reach
from lwr.transfer.runner import Runner

if TYPE_CHECKING:
    from lwr.server.amqp import MessageQueue

log = structlog.get_logger("lwr")

#: For connections that are still busy when the grace is over, before they are cut.
_CLOSE_TIMEOUT_S = 1.0
#: Between two looks at the one job of `run_one`.
_LOOK_S = 0.1


def build(config: Config) -> Service:
    """Make everything, start nothing. When that fails, nothing stays open.

    Raises:
        ConfigError: an option that cannot work on this machine.
        StoreError: the database is another server's, newer than this LWR, or damaged.
    """
    tls = ssl_context(config.ssl_pem, config.directory) if config.ssl_pem else None
    with ExitStack() as undo:
        store = Store(Path(config.persistence_directory))
        undo.callback(store.close)
        managers = {}
        for name, each in config.managers.items():
            manager = each.build()
            undo.callback(manager.stop)
            managers[name] = ManagerEntry(
                manager, each.staging_directory, each.system_properties, each.debug, each.type
            )
        undo.pop_all()
    ledger = Ledger(store)
    view = View(store, managers, ledger)
    resumable = ResumableUploads(store.database, view, ledger.arrived)
    mailbox = Mailbox(store.database)
    retention = Retention(config.failed_job_retention_s, config.delivered_job_retention_s, config.record_retention_s)
    housekeeper = Housekeeper(store, retention, [resumable.expire, mailbox.expire])
    stagers = _stagers(config, store, ledger)
    engine = Engine(store, view, stagers, housekeeper, ledger)
    queue = _queue(config, engine, mailbox)
    lookout = Lookout(
        managers,
        view.counts,
        engine.problems,
        stagers.transfers,
        health=queue.health if queue else lambda: None,
        directories=_directories(config),
        started_at=time.time(),
    )
    return Service(config, store, engine, ledger, resumable, queue, lookout, tls)


def _queue(config: Config, engine: Engine, mailbox: Mailbox) -> MessageQueue | None:
    if config.queue is None:
        return None
    from lwr.server.amqp import MessageQueue  # who has no queue needs no kombu

    return MessageQueue(config.queue, engine, mailbox, config.managers)


def _directories(config: Config) -> tuple[str, ...]:
    """Where the server writes, each once."""
    staging = [manager.staging_directory for manager in config.managers.values()]
    return tuple(dict.fromkeys([config.persistence_directory, *staging, *filter(None, [config.file_cache_dir])]))


def _stagers(config: Config, store: Store, ledger: Ledger) -> Stagers:
    reach = Reach(
        schemes=config.staging_url_schemes,
        hosts=config.staging_url_hosts,
        networks=config.staging_url_networks,
        roots=config.remote_copy_roots,
    )
    runner = Runner(config.staging_slots_count, config.staging_slots_per_host_count, timeout_s=config.staging_timeout_s)
    known_hosts = Path(config.persistence_directory) / "known_hosts"
    means = Means(Web(reach), reach, known_hosts, config.maximum_upload_bytes)
    return Stagers(store, ledger, runner, means, config.staging_threads_count)


class Service:
    """One server. `start`, then `listen` until `ask_to_stop`, then `stop`."""

    def __init__(
        self,
        config: Config,
        store: Store,
        engine: Engine,
        ledger: Ledger,
        resumable: ResumableUploads,
        queue: MessageQueue | None,
        lookout: Lookout,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._config = config
        self._store = store
        self._engine = engine
        self._ledger = ledger
        self._resumable = resumable
        self._queue = queue
        self._lookout = lookout
        self._tls = tls
        self._cache: Cache | None = None
        if config.file_cache_dir:
            self._cache = Cache(config.file_cache_dir, config.file_cache_max_bytes, store.database)
        self._pool = Pool()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told_to_stop = asyncio.Event()

    def start(self) -> None:
        """Start the engine. Nobody is answered yet. Raises ConfigError: the cache's directory cannot be used."""
        if self._cache is not None:
            self._cache.start()
        self._engine.start()
        if self._queue is not None:
            self._queue.start()

    async def listen(self, on_ready: Callable[[str], None]) -> None:
        """Answer requests until told to stop; then finish what is in flight, within `shutdown_grace_s`.

        `on_ready` is called once with the server's URL (`unix:PATH` without a port), when it can be asked.

        Raises:
            ConfigError: the address, or the socket, cannot be listened on.
        """
        self._loop = asyncio.get_running_loop()
        edge = self._edge()
        runner = web.ServerRunner(edge.server(), shutdown_timeout=_CLOSE_TIMEOUT_S)
        await runner.setup()
        try:
            site, url = await self._bind(runner)
            log.info("server ready", url=url, version=__version__)
            on_ready(url)
            await self._told_to_stop.wait()
            log.info("server stopping", grace_s=self._config.shutdown_grace_s)
            await site.stop()
            # Before the runner's own clean-up, which would drop the rest of bodies that still arrive.
            await edge.drain(self._config.shutdown_grace_s)
        finally:
            await runner.cleanup()
            if not self._config.serves_http:
                remove_socket(Path(self._config.persistence_directory))

    def run_one(self, incoming: Incoming, key: JobKey, stopping: threading.Event) -> bool | None:
        """Run the job of one message, until it is over and that was told to the broker.

        Returns whether it completed; None when `stopping` came first.
        """
        assert self._queue is not None, "only a server with a queue is given messages"
        taken = False
        while not stopping.wait(_LOOK_S if taken else 0.0):
            if not taken:
                try:
                    taken = bool(self._queue.take(incoming))
                except LwrError as error:
                    log.warning("the job is tried again", job=str(key), reason=str(error))
                    stopping.wait(_LOOK_S)
                continue
            job = self._engine.view.latest(key)
            if (job is None or job.terminal) and not self._queue.health().waiting_count:
                return job is not None and job.state is JobState.COMPLETE
        return None

    def ask_to_stop(self) -> None:
        """Make `listen` return soon. From any thread or signal handler, at any time, as often as you like."""
        loop = self._loop
        if loop is None or loop.is_closed():
            self._told_to_stop.set()
        else:
            loop.call_soon_threadsafe(self._told_to_stop.set)

    def stop(self) -> None:
        """Stop the engine and let go of all threads and files. May be called twice, or unstarted."""
        if self._queue is not None:
            self._queue.stop()
        self._engine.stop()
        self._pool.stop()
        self._store.close()

    def _edge(self) -> Edge:
        engine, pool = self._engine, self._pool
        jobs, downloads = rest.Jobs(engine, pool), Downloads(engine.view, pool, self._ledger)
        intake = Intake(pool, self._config.maximum_upload_bytes)
        kept = (self._cache, Announcements(self._cache, self._store.database)) if self._cache else None
        caching = Caching(kept, engine.view, pool, intake, self._ledger.arrived)
        uploads = Uploads(engine.view, pool, intake, self._ledger.arrived, caching.use_token)
        resumable = Resumable(self._resumable, pool, intake, uploads)
        router = Router(
            [
                *Pages(engine, pool).routes(),
                *Watch(self._lookout, pool).routes(),
                *caching.routes(),
                *rest.routes(jobs, uploads, resumable, downloads),
                *classic.routes(jobs, uploads, downloads, pool),
            ]
        )
        guard = Guard(
            self._config.private_key,
            query_secret=self._config.query_secret,
            browsers=self._config.serves_http,
        )
        return Edge(router, guard, pool)

    async def _bind(self, runner: web.ServerRunner) -> tuple[web.BaseSite, str]:
        config = self._config
        if config.serves_http:
            return await open_port(runner, config.host, config.port, self._tls)
        return await open_socket(runner, Path(config.persistence_directory))


def serve(config: Config, on_ready: Callable[[str], None]) -> int:
    """Serve until SIGTERM or SIGINT. Called in the main thread; returns the exit code.

    Raises:
        ConfigError, StoreError: the server cannot start; nothing is left running.
    """
    service = build(config)

    def told(signum: int, frame: FrameType | None) -> None:
        service.ask_to_stop()

    previous = {each: signal.signal(each, told) for each in (signal.SIGTERM, signal.SIGINT)}
    hook, threading.excepthook = threading.excepthook, _thread_failed
    try:
        service.start()
        asyncio.run(service.listen(on_ready))
    finally:
        service.stop()
        threading.excepthook = hook
        for each, handler in previous.items():
            signal.signal(each, handler)
    log.info("server stopped; its jobs go on")
    return 0


def run_one(config: Config, incoming: Incoming, key: JobKey, stopping: threading.Event) -> bool | None:
    """Be a server for the job of one message, as `Service.run_one` says.

    Raises:
        ConfigError, StoreError: the server cannot start; nothing is left running.
    """
    service = build(config)
    try:
        service.start()
        return service.run_one(incoming, key, stopping)
    finally:
        service.stop()


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """What a thread could not handle is a defect, and belongs into the log."""
    error = failure.exc_value or failure.exc_type()
    log.error("a thread met a defect of LWR", thread=failure.thread.name if failure.thread else "", exc_info=error)
