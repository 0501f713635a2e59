"""Transfers of the client over a line that breaks: nothing is moved twice but what was under way, nothing is wrong.

Bytes are counted by the proxy between the two, not by the client.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lwr.client import Patience, RemoteServer
from lwr.client.caching import Contents
from lwr.errors import BadTransfer, LwrError, PeerUnreachable
from lwr.transfer.interrupt import Interrupt, Interrupted
from tests.machines.fault_proxy import PIECE_BYTES, Fault, FaultProxy
from tests.support import RunningServer

PATIENT = Patience(total_s=60.0, first_s=0.0, most_s=0.0)
ONCE = Patience(total_s=0.0)
SIZE_BYTES = 40 << 20
CUT_BYTES = 3 << 20
CUTS = 10
#: For requests, answers and headers.
TALK_BYTES = 64 * 1024


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE_BYTES)


def proxy(running: RunningServer, *plan: Fault) -> FaultProxy:
    return FaultProxy(urlsplit(running.url).port or 0, plan)


def waiting_job(running: RunningServer, job_id: str, name: str = "", data: bytes = b"") -> None:
    """A job that is set up, with a file among its outputs if there is one."""
    with RemoteServer(running.url) as server:
        places = server.setup(job_id)
    if name:
        Path(places.path("output", name)).write_bytes(data)


def input_path(running: RunningServer, job_id: str, name: str) -> Path:
    return running.staging / job_id / "inputs" / name


def test_a_download_that_is_cut_goes_on_where_it_was(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "down", "o", data)
    told: list[int] = []
    with (
        proxy(running, *[Fault(cut_down_bytes=CUT_BYTES)] * CUTS) as line,
        RemoteServer(line.url(), patience=PATIENT) as server,
    ):
        moved = server.download("down", "output", "o", tmp_path / "o", told.append)
    assert (moved.size_bytes, moved.sha256, moved.checked) == (SIZE_BYTES, hashlib.sha256(data).digest(), "sha-256")
    assert (tmp_path / "o").read_bytes() == data
    assert os.listdir(tmp_path) == ["o"]
    assert sum(one.down_bytes for one in line.lines) <= SIZE_BYTES + CUTS * PIECE_BYTES + TALK_BYTES
    assert len(line.lines) == CUTS + 1
    assert told == sorted(told)


def test_an_upload_that_is_cut_goes_on_where_it_was(running: RunningServer, data: bytes) -> None:
    waiting_job(running, "up")
    # The first connection asks for an address; each later one how far it is, and sends.
    faults = [Fault(cut_up_bytes=CUT_BYTES)] * CUTS
    with proxy(running, *faults) as line, RemoteServer(line.url(), patience=PATIENT) as server:
        moved = server.upload("up", "input", "f", data)
    assert (moved.size_bytes, moved.sha256, moved.checked) == (SIZE_BYTES, hashlib.sha256(data).digest(), "sha-256")
    assert input_path(running, "up", "f").read_bytes() == data
    assert sum(one.up_bytes for one in line.lines) <= SIZE_BYTES + CUTS * PIECE_BYTES + TALK_BYTES
    assert len(line.lines) >= CUTS


def test_another_process_goes_on_with_a_download(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "later", "o", data)
    with (
        proxy(running, Fault(cut_down_bytes=SIZE_BYTES // 2)) as line,
        RemoteServer(line.url(), patience=ONCE) as server,
        pytest.raises((BadTransfer, PeerUnreachable)),
    ):
        server.download("later", "output", "o", tmp_path / "o")
    assert not (tmp_path / "o").exists()
    with proxy(running) as line, RemoteServer(line.url(), patience=ONCE) as server:
        server.download("later", "output", "o", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data
    assert os.listdir(tmp_path) == ["o"]
    assert line.lines[0].down_bytes <= SIZE_BYTES // 2 + PIECE_BYTES + TALK_BYTES


def test_another_process_goes_on_with_an_upload(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "later-up")
    source, memory = tmp_path / "f", tmp_path / "memory"
    source.write_bytes(data)
    uncached = Contents(enabled=False)
    with proxy(running, Fault(cut_up_bytes=SIZE_BYTES // 2)) as line:
        with (
            RemoteServer(line.url(), patience=ONCE, memory=memory, contents=uncached) as server,
            pytest.raises(PeerUnreachable),
        ):
            server.upload("later-up", "input", "f", source)
        with RemoteServer(line.url(), patience=ONCE, memory=memory, contents=uncached) as server:
            server.upload("later-up", "input", "f", source)
    assert input_path(running, "later-up", "f").read_bytes() == data
    assert sum(one.up_bytes for one in line.lines) <= SIZE_BYTES + PIECE_BYTES + TALK_BYTES
    assert os.listdir(memory) == []


def test_a_file_that_changed_meanwhile_is_begun_anew(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "changed", "o", data)
    with (
        proxy(running, Fault(cut_down_bytes=SIZE_BYTES // 2)) as line,
        RemoteServer(line.url(), patience=ONCE) as server,
    ):
        with pytest.raises((BadTransfer, PeerUnreachable)):
            server.download("changed", "output", "o", tmp_path / "o")
        waiting_job(running, "changed", "o", data[::-1])
        server.download("changed", "output", "o", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data[::-1]


def test_a_part_that_is_whole_already_is_a_success(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "whole", "o", data)
    ended = Interrupt()

    def tell(moved_bytes: int) -> None:
        if moved_bytes == SIZE_BYTES:
            raise Interrupted("Killed between the last byte and the name.")

    with proxy(running) as line, RemoteServer(line.url(), patience=ONCE) as server:
        with pytest.raises(Interrupted):
            server.download("whole", "output", "o", tmp_path / "o", tell, ended)
        before = sum(one.down_bytes for one in line.lines)
        moved = server.download("whole", "output", "o", tmp_path / "o")
        assert moved.checked == "sha-256"
        assert sum(one.down_bytes for one in line.lines) - before <= TALK_BYTES
    assert (tmp_path / "o").read_bytes() == data


@pytest.mark.parametrize("flip_at", [0, SIZE_BYTES // 2])
def test_a_bit_that_turned_over_is_found(running: RunningServer, tmp_path: Path, data: bytes, flip_at: int) -> None:
    waiting_job(running, "flipped", "o", data)
    with (
        proxy(running, Fault(flip_down_at=flip_at)) as line,
        RemoteServer(line.url(), patience=ONCE) as server,
    ):
        with pytest.raises(BadTransfer, match="SHA-256 differs"):
            server.download("flipped", "output", "o", tmp_path / "o")
        server.download("flipped", "output", "o", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == data
    assert os.listdir(tmp_path) == ["o"]


# A large file asks for its address first, over the same connection: its own bytes come a little later.
@pytest.mark.parametrize(("size_bytes", "flip_at"), [(1000, 10), (9 << 20, 5 << 20)])
def test_a_bit_that_turned_over_on_the_way_up_is_sent_again(
    running: RunningServer, data: bytes, size_bytes: int, flip_at: int
) -> None:
    waiting_job(running, "flipped-up")
    errors: list[LwrError] = []
    with (
        proxy(running, Fault(flip_up_at=flip_at)) as line,
        RemoteServer(line.url(), patience=PATIENT, on_retry=lambda error, pause_s: errors.append(error)) as server,
    ):
        server.upload("flipped-up", "input", "f", data[:size_bytes])
    assert input_path(running, "flipped-up", "f").read_bytes() == data[:size_bytes]
    assert [type(error) for error in errors] == [BadTransfer]


def test_a_download_ends_at_once(running: RunningServer, tmp_path: Path, data: bytes) -> None:
    waiting_job(running, "slow", "o", data)
    interrupt = Interrupt()
    with (
        proxy(running, Fault(down_bytes_per_s=1 << 20)) as line,
        RemoteServer(line.url()) as server,
        pytest.raises(Interrupted),
    ):
        server.download("slow", "output", "o", tmp_path / "o", lambda moved_bytes: interrupt.set(), interrupt)
    assert line.lines[0].down_bytes < SIZE_BYTES
    assert not (tmp_path / "o").exists()
