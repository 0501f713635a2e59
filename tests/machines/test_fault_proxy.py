"""Each fault of the proxy does what it says, to a plain HTTP client, and the bytes are counted right."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.machines.fault_proxy import Fault, FaultProxy, answering
from tests.machines.job_files import JobFilesServer
from tests.support import DEADLINE_S, wait_until

CONTENT = bytes(range(256)) * 4000
HALF = {"Range": f"bytes=0-{len(CONTENT) // 2 - 1}"}


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    (tmp_path / "in.dat").write_bytes(CONTENT)
    with JobFilesServer(tmp_path, "key") as server:
        yield server


@pytest.fixture
def proxy(galaxy: JobFilesServer) -> Iterator[FaultProxy]:
    with FaultProxy(galaxy.port) as between:
        yield between


def ask(
    galaxy: JobFilesServer,
    proxy: FaultProxy,
    fault: Fault,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request on a line of its own, with its fault: the answer and its body."""
    proxy.plan.append(fault)
    line = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE_S)
    try:
        url = galaxy.url_of(galaxy.root / ("in.dat" if body is None else "out.dat"), port=proxy.port)
        line.request(method, url[len(proxy.url("")) :], body, headers or {})
        answer = line.getresponse()
        return answer, answer.read()
    finally:
        line.close()


def form(content: bytes) -> tuple[bytes, dict[str, str]]:
    """A multipart form with the one field `file`, and its header."""
    request = requests.Request("POST", "http://x", files={"file": content}).prepare()
    assert isinstance(request.body, bytes)
    return request.body, {"Content-Type": str(request.headers["Content-Type"])}


def test_what_is_harmless_passes_and_is_counted(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    for _ in range(2):
        answer, content = ask(galaxy, proxy, Fault())
        assert (answer.status, content) == (200, CONTENT)
    assert len(proxy.lines) == 2
    assert len(CONTENT) < proxy.lines[0].down_bytes < len(CONTENT) + 1000
    assert proxy.down_bytes == 2 * proxy.lines[0].down_bytes
    body, headers = form(CONTENT)
    assert ask(galaxy, proxy, Fault(), "POST", body, headers)[0].status == 200
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert len(body) < proxy.lines[2].up_bytes < len(body) + 1000


def test_an_answer_is_cut_after_so_many_bytes(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    with pytest.raises(http.client.IncompleteRead):
        ask(galaxy, proxy, Fault(cut_down_bytes=300_000))
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(galaxy, proxy, Fault(cut_down_bytes=300_000), headers=HALF)
    assert 299_000 < len(cut.value.partial) < 300_000
    assert [line.down_bytes for line in proxy.lines] == [300_000, 300_000]


def test_a_line_is_reset(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    with pytest.raises(ConnectionResetError) as reset:
        ask(galaxy, proxy, Fault(cut_down_bytes=300_000, reset=True))
    assert reset.type is ConnectionResetError  # and not what http.client calls a line that was closed too early
    assert len(galaxy.requests) == 1


def test_a_line_is_cut_as_soon_as_it_stands(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_up_bytes=0))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=DEADLINE_S) as line:
        assert line.recv(1) == b""
    assert galaxy.requests == []


def test_an_upload_is_cut_after_so_many_bytes(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    body, headers = form(CONTENT)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(galaxy, proxy, Fault(cut_up_bytes=300_000), "POST", body, headers)
    wait_until(lambda: galaxy.requests and galaxy.requests[0].status == 400, "the cut to be noticed")
    assert 200_000 < galaxy.received_bytes(galaxy.root / "out.dat") < 300_000
    assert proxy.up_bytes == 300_000
    assert not (galaxy.root / "out.dat").exists()


def test_an_answer_is_lost_after_the_work(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    body, headers = form(CONTENT)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask(galaxy, proxy, Fault(cut_down_bytes=0), "POST", body, headers)
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert proxy.down_bytes == 0


def test_one_byte_is_flipped_either_way(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    _, content = ask(galaxy, proxy, Fault(flip_down_at=400_000), headers=HALF)
    assert [at for at in range(len(content)) if content[at] != CONTENT[at]] == [400_000]
    _, content = ask(galaxy, proxy, Fault(flip_down_at=400_000))
    assert sum(ours != theirs for ours, theirs in zip(content, CONTENT, strict=True)) == 1
    body, headers = form(CONTENT)
    ask(galaxy, proxy, Fault(flip_up_at=500_000), "POST", body, headers)
    stored = (galaxy.root / "out.dat").read_bytes()
    assert sum(ours != theirs for ours, theirs in zip(stored, CONTENT, strict=True)) == 1


def test_the_content_length_is_dropped(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    half = CONTENT[: len(CONTENT) // 2]
    answer, content = ask(galaxy, proxy, Fault(drop_content_length=True), headers=HALF)
    assert (answer.status, answer.headers["Content-Length"], content) == (206, None, half)
    answer, _ = ask(galaxy, proxy, Fault(drop_content_length=True), "HEAD")
    assert (answer.status, answer.headers["Content-Length"]) == (200, None)
    # Together with a cut: a body that is short, and nothing says so.
    answer, content = ask(galaxy, proxy, Fault(drop_content_length=True, cut_down_bytes=9000), headers=HALF)
    assert (answer.status, content) == (206, CONTENT[: len(content)])
    assert 8000 < len(content) < 9000


def test_the_proxy_answers_by_itself(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    body, headers = form(CONTENT)
    for method, sent in (("GET", None), ("POST", body)):
        answer, _ = ask(galaxy, proxy, answering(502, headers="Retry-After: 3\r\n"), method, sent, headers)
        assert (answer.status, answer.reason, answer.headers["Retry-After"]) == (502, "Bad Gateway", "3")
    assert galaxy.requests == []


def test_an_answer_is_late_and_trickles(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    start = time.monotonic()
    _, content = ask(galaxy, proxy, Fault(delay_s=0.2, down_bytes_per_s=10_000), headers={"Range": "bytes=0-999"})
    assert content == CONTENT[:1000]
    assert time.monotonic() - start > 0.25  # never less; how much more is the machine's


def test_lines_that_still_wait_end_with_the_proxy(galaxy: JobFilesServer) -> None:
    with FaultProxy(galaxy.port, otherwise=Fault(delay_s=3600)) as proxy:
        line = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE_S)
        line.request("HEAD", galaxy.url_of(galaxy.root / "in.dat"))
        wait_until(lambda: galaxy.requests, "the request to come through")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        line.getresponse()
    line.close()


def test_all_lines_freeze_and_are_cut(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as line:
        wait_until(lambda: proxy.lines, "the line to stand")
        proxy.freeze()
        url = galaxy.url_of(galaxy.root / "in.dat")
        line.sendall(b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % url[url.index("/api") :].encode())
        with pytest.raises(TimeoutError):
            line.recv(1)
        assert galaxy.requests == []
        proxy.thaw()
        line.settimeout(DEADLINE_S)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.recv(1000)
        proxy.cut()
        assert line.recv(1) == b""
