"""The composed server: start, stop, what is in flight, what cannot start."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lwr.config import load
from lwr.errors import ConfigError, StoreError
from lwr.server.app import _thread_failed, build
from tests.server.http.served import LARGE, served
from tests.support import DEADLINE_S, RunningServer, free_port, wait_until, write_configuration


def test_a_service_stops_twice_and_unstarted(tmp_path: Path) -> None:
    ini = write_configuration(tmp_path, port=free_port())
    threads = threading.active_count()
    for start in (False, True):
        service = build(load(ini, {}))
        if start:
            service.start()
        service.stop()
        service.stop()
    wait_until(lambda: threading.active_count() == threads, "all threads to be gone")


def test_told_to_stop_before_it_listens(tmp_path: Path) -> None:
    service = build(load(write_configuration(tmp_path, port=free_port()), {}))
    service.start()
    service.ask_to_stop()
    urls: list[str] = []
    asyncio.run(service.listen(urls.append))
    service.ask_to_stop()
    service.stop()
    assert len(urls) == 1


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        service = build(load(write_configuration(tmp_path, port=other.getsockname()[1]), {}))
        try:
            with pytest.raises(ConfigError, match="cannot be listened on"):
                asyncio.run(service.listen(lambda url: None))
        finally:
            service.stop()


def test_a_second_server_on_the_same_state_refuses(tmp_path: Path) -> None:
    with served(tmp_path), pytest.raises(StoreError):
        build(load(write_configuration(tmp_path, port=free_port()), {}))


def test_an_upload_in_flight_is_finished_and_nobody_else_is_let_in(tmp_path: Path) -> None:
    with served(tmp_path, grace_s=20) as server:
        server.setup("1")
        with socket.create_connection(server.address, timeout=DEADLINE_S) as raw:
            head = f"POST /jobs/1/files?name=x&type=input HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(LARGE)}"
            raw.sendall(head.encode() + b"\r\n\r\n" + LARGE[:100_000])
            wait_until(lambda: server.parts("1"), "the upload to have begun")
            server.service.ask_to_stop()
            wait_until(lambda: not _listens(server.address), "the server to close its port")
            raw.sendall(LARGE[100_000:])
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.job_file("1", "inputs/x").read_bytes() == LARGE


def test_what_stays_in_flight_is_given_up_after_the_grace(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        server.setup("1")
        raw = socket.create_connection(server.address, timeout=DEADLINE_S)
        head = "POST /jobs/1/files?name=x&type=input HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"
        raw.sendall(head.encode())
        wait_until(lambda: server.parts("1"), "the upload to have begun")
        began = time.monotonic()
    assert time.monotonic() - began < DEADLINE_S  # `served` has stopped the server
    raw.close()
    assert not server.job_file("1", "inputs/x").exists()
    assert server.parts("1") == []


def test_a_stopped_server_leaves_its_jobs_running_and_finds_them_again(tmp_path: Path) -> None:
    server = RunningServer(tmp_path, secret="sesame")
    go = tmp_path / "go"
    with server:
        server.ask_json("POST", "/jobs?job_id=1")
        server.ask("POST", f"/jobs/1/submit?command_line=while+!+test+-e+{go};do+sleep+0.05;done;exit+5")
        wait_until(lambda: b"running" in server.ask("GET", "/jobs/1/status")[1], "the job to run")
        assert server.stop() == 0
    with server:
        assert b"running" in server.ask("GET", "/jobs/1/status")[1]
        go.touch()
        wait_until(lambda: b'"returncode": 5' in server.ask("GET", "/jobs/1/status")[1], "the job to end")
        server.kill()
        server.start()
        assert b'"returncode": 5' in server.ask("GET", "/jobs/1/status")[1]
    assert "sesame" not in server.log()


def _listens(address: tuple[str, int]) -> bool:
    # Not by connecting: a connection that is accepted while the socket closes is dropped by asyncio with a warning.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return True
    return False


def test_a_defect_in_a_thread_is_told_in_the_log() -> None:
    with capture_logs() as told:
        thread = threading.Thread(target=lambda: None, name="manager")
        _thread_failed(threading.ExceptHookArgs((ValueError, ValueError("odd"), None, thread)))
    (event,) = told
    assert (event["log_level"], event["thread"], str(event["exc_info"])) == ("error", "manager", "odd")
