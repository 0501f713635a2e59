"""A server without a port: its socket, who may connect to it, and what it finds and leaves in its directory."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from lwr.client import JobRequest, RemoteServer, run_job
from lwr.errors import ConfigError, PeerRefused
from lwr.server.http.listening import open_socket, remove_socket
from tests.server.http.served import Served, served
from tests.support import DEADLINE_S


def portless(directory: Path, *, secret: str = "") -> AbstractContextManager[Served]:
    queue = "message_queue_url = memory://"
    return served(directory, secret=secret, options=queue, arguments={"host": "none"})


def said(path: Path, request: bytes) -> bytes:
    """All that a server at this socket answers to these bytes."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(DEADLINE_S)
        raw.connect(str(path))
        raw.sendall(request + b"Connection: close\r\n\r\n")
        heard = b""
        while piece := raw.recv(65536):
            heard += piece
        return heard


@contextmanager
def left_behind(path: Path) -> Iterator[None]:
    """The socket of a server that was killed: its name is there, and nobody listens."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.is_socket()
    yield


def test_everything_over_the_socket_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "persisted" / "lwr.sock"
    with portless(tmp_path) as server:
        assert server.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with RemoteServer(server.url) as client:
            assert client.server_status()["managers"]
            assert run_job(client, JobRequest("true")).status.exit_code == 0
        with RemoteServer(f"{server.url}/managers/second/") as client:
            assert run_job(client, JobRequest("exit 3")).status.exit_code == 3
            assert client.jobs()[0]["manager"] == "second"
        # No page of the web can speak to a socket, so it may be asked under any name.
        for head in (b"Host: elsewhere.example\r\n", b"Host: x\r\nOrigin: http://y\r\nSec-Fetch-Site: cross-site\r\n"):
            assert said(path, b"GET /jobs HTTP/1.1\r\n" + head).startswith(b"HTTP/1.1 200 ")
        assert sorted(entry.name for entry in path.parent.iterdir() if "sqlite" not in entry.name) == ["lwr.sock"]
    assert not os.path.lexists(path)


def test_a_secret_counts_at_the_socket_too(tmp_path: Path) -> None:
    with portless(tmp_path, secret="sesame") as server:
        with RemoteServer(server.url) as client, pytest.raises(PeerRefused, match="401"):
            client.server_status()
        with RemoteServer(server.url, "sesame") as client:
            assert client.server_status()["managers"]


def test_with_a_port_there_is_no_socket(tmp_path: Path) -> None:
    with served(tmp_path):
        assert not (tmp_path / "persisted" / "lwr.sock").exists()


def test_what_killed_servers_left_is_in_nobodys_way(tmp_path: Path) -> None:
    persisted = tmp_path / "persisted"
    (persisted / ".new").mkdir(parents=True)
    with left_behind(persisted / "lwr.sock"), left_behind(persisted / ".new" / "s"), portless(tmp_path) as server:
        with RemoteServer(server.url) as client:
            assert client.server_status()["managers"]
        assert not (persisted / ".new").exists()


def opened(directory: Path) -> None:
    async def open_and_close() -> None:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response()

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        try:
            await open_socket(runner, directory)
        finally:
            await runner.cleanup()

    asyncio.run(open_and_close())


def test_something_else_of_that_name_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "lwr.sock"
    file.write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        opened(tmp_path)
    remove_socket(tmp_path)
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]


def test_a_path_that_no_system_can_keep(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    with pytest.raises(ConfigError, match="longer than 103 bytes"):
        opened(long)


def test_a_directory_that_takes_no_socket(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        opened(tmp_path / "gone")


def test_removing_may_be_repeated(tmp_path: Path) -> None:
    with left_behind(tmp_path / "lwr.sock"):
        remove_socket(tmp_path)
        remove_socket(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_shut_to_others_before_it_can_be_seen(tmp_path: Path) -> None:
    """However the umask is: what is made in the open has its mode already."""
    before = os.umask(0)
    try:
        opened(tmp_path)
    finally:
        os.umask(before)
    path = tmp_path / "lwr.sock"
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
