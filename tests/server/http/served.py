"""The whole server in a thread of the test, and one plain way to ask it, with every header under the test's control."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from lwr.config import load
from lwr.core.job import JobKey
from lwr.core.places import PART_PREFIX
from lwr.server.app import Service, build
from lwr.server.guard import Guard
from lwr.server.http.edge import Edge
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Route, Router
from tests.support import DEADLINE_S, free_port, wait_until, write_configuration

#: Something between the parts of a file that is streamed: more than what is stored in one go.
LARGE = bytes(range(256)) * 4096 * 3


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self, status: int, code: str) -> dict[str, Any]:
        """The decoded problem; fails when it is another one, or tells too little."""
        assert (self.status, self.headers["Content-Type"]) == (status, "application/problem+json"), self.body[:300]
        told: dict[str, Any] = self.json()
        assert (told["code"], told["status"]) == (code, status)
        assert told["detail"].endswith("."), told
        return told


class Served:
    """A server that can be asked."""

    def __init__(self, url: str, directory: Path, service: Service, secret: str) -> None:
        self.url = url
        self.address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        self.staging = directory / "staging"
        self.service = service
        self.secret = secret

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> Answer:
        """One request on a connection of its own. An iterator is sent in chunks, without a length.

        Raises:
            http.client.IncompleteRead: the answer is shorter than announced.
        """
        connection = self.connect()
        try:
            if query:
                target = f"{target}?{urlencode(query)}"
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        if self.url.startswith("https"):
            unchecked = ssl._create_unverified_context()  # noqa: S323
            return http.client.HTTPSConnection(*self.address, timeout=DEADLINE_S, context=unchecked)
        return http.client.HTTPConnection(*self.address, timeout=DEADLINE_S)

    def say(self, data: bytes, *, cut: bool = False) -> bytes:
        """Send raw bytes, and with `cut` say that no more will come; all that is heard until the server closes."""
        with socket.create_connection(self.address, timeout=DEADLINE_S) as raw:
            raw.sendall(data)
            if cut:
                raw.shutdown(socket.SHUT_WR)
            heard = b""
            while piece := raw.recv(65536):
                heard += piece
            return heard

    def setup(self, job_id: str, prefix: str = "") -> dict[str, Any]:
        answer = self.ask("POST", f"{prefix}/jobs", query={"job_id": job_id})
        assert answer.status == 200, answer.body
        told: dict[str, Any] = answer.json()
        return told

    def submit(self, job_id: str, command: str) -> None:
        answer = self.ask("POST", f"/jobs/{job_id}/submit", query={"command_line": command})
        assert (answer.status, answer.body) == (200, b"OK"), answer.body

    def finished(self, job_id: str, path: str = "/jobs/{}/status") -> dict[str, Any]:
        """The status of a job, when it has come to an end."""
        seen: dict[str, Any] = {}

        def over() -> bool:
            seen.update(self.ask("GET", path.format(job_id)).json())
            return bool(seen["complete"] == "true")

        wait_until(over, f"job {job_id} to end")
        return seen

    def job_file(self, job_id: str, *parts: str) -> Path:
        return self.staging.joinpath(job_id, *parts)

    def parts(self, job_id: str) -> list[str]:
        """The files of a job that are not whole yet."""
        return [path.name for path in self.staging.joinpath(job_id).glob(f"{PART_PREFIX}*")]


@contextmanager
def served(
    directory: Path,
    *,
    secret: str = "",
    options: str = "",
    server_options: str = "",
    grace_s: int = 1,
    arguments: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A server in a thread, stopped at the end. `arguments` are those of its command line."""
    ini = write_configuration(
        directory,
        port=free_port(),
        secret=secret,
        options=f"shutdown_grace_s = {grace_s}\n{options}",
        server_options=server_options,
    )
    service = build(load(ini, {}, arguments=arguments))
    ready = threading.Event()
    urls: list[str] = []

    def on_ready(url: str) -> None:
        urls.append(url)
        ready.set()

    def run() -> None:
        try:
            asyncio.run(service.listen(on_ready))
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="served")
    service.start()
    thread.start()
    try:
        assert ready.wait(DEADLINE_S)
        assert urls, "the server did not come up"
        yield Served(urls[0], directory, service, secret)
    finally:
        service.ask_to_stop()
        thread.join(DEADLINE_S)
        service.stop()
    assert not thread.is_alive()


@asynccontextmanager
async def edge_with(
    routes: Callable[[Pool], list[Route]],
) -> AsyncIterator[tuple[Pool, Callable[[str], Awaitable[tuple[int, bytes]]]]]:
    """An edge of its own with these routes: its pool, and how it is asked (status and body of a path)."""
    pool = Pool()
    runner = web.ServerRunner(Edge(Router(routes(pool)), Guard(""), pool).server())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def get(path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        heard = await reader.read()
        writer.close()
        return int(heard.split(b" ")[1]), heard.partition(b"\r\n\r\n")[2]

    try:
        yield pool, get
    finally:
        await runner.cleanup()
        pool.stop()


def key(job_id: str) -> JobKey:
    return JobKey("_default_", job_id)
