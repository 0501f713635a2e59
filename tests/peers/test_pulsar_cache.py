"""Pulsar's client with its cache, unmodified, from two releases and with both transports, against `lwr serve`.

A second run finds its files, which must then not go up again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers.test_pulsar_check import assert_nothing_left, run_peer
from tests.support import RunningServer

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    directory = tmp_path_factory.mktemp("cached")
    options = f"file_cache_dir = {directory / 'cache'}\nlog_level = debug\n"
    with RunningServer(directory, options=options) as running:
        yield running


def counters(server: RunningServer) -> dict[str, int]:
    told = server.ask_json("GET", "cache")
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize("transport", ["urllib", "curl"])
def test_pulsar_check_with_the_cache(
    peer: Path, transport: str, job_id: str, server: RunningServer, tmp_path: Path
) -> None:
    before = counters(server)
    run_peer(
        [peer / "pulsar-check", "--url", server.url, "--transport", transport, "--cache", "--job_id", job_id], tmp_path
    )
    after = counters(server)
    assert after["hits"] - before["hits"] >= 5, "every file but those with contents of their own goes through the cache"
    assert after["bytes_saved"] > before["bytes_saved"]
    assert_nothing_left(server, job_id)


def test_the_cache_switched_on_by_the_environment(
    peer: Path, job_id: str, server: RunningServer, tmp_path: Path
) -> None:
    """As a Galaxy's admin does it for all its jobs at once."""
    before = counters(server)["hits"]
    driver = Path(__file__).with_name("drive_check.py")
    options = {"url": server.url, "job_id": job_id, "suppress_output": False}
    run_peer(["/usr/bin/env", "PULSAR_CACHE_TRANSFERS=1", peer / "python", driver, json.dumps(options)], tmp_path)
    assert counters(server)["hits"] > before
    assert_nothing_left(server, job_id)
