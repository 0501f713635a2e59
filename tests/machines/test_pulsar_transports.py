"""The transports of Pulsar's server, unmodified, take our machines for the real ones."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.job_files import JobFilesServer
from tests.support import DEADLINE_S

pytestmark = pytest.mark.peer

PYTHON = Path(__file__).parents[2] / ".venv-peers" / "pulsar-app-0.16.0" / "bin" / "python"
CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy"
    disk.mkdir()
    (disk / "in ü.dat").write_bytes(CONTENT)
    with JobFilesServer(disk, "key") as server:
        yield server


def drive(*calls: tuple[str, ...], home: Path, chunk_bytes: int = 300_000) -> None:
    """Call Pulsar's functions in a process of its own; the test fails with all that it said."""
    if not PYTHON.exists():
        why = "Pulsar is not installed: `make peers` does it"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    done = subprocess.run(
        [PYTHON, Path(__file__).with_name("drive_transport.py"), json.dumps(calls)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PULSAR_TUS_CHUNK_SIZE": str(chunk_bytes)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_downloads_and_one_that_goes_on(galaxy: JobFilesServer, tmp_path: Path) -> None:
    source, started = galaxy.root / "in ü.dat", tmp_path / "started"
    started.write_bytes(CONTENT[:1_000_000])
    drive(
        ("requests", "get_file", galaxy.url_of(source), str(tmp_path / "requests")),
        ("curl", "get_file", galaxy.url_of(source), str(tmp_path / "curl")),
        ("curl", "get_file", galaxy.url_of(source), str(started)),
        home=tmp_path,
    )
    for name in ("requests", "curl", "started"):
        assert (tmp_path / name).read_bytes() == CONTENT
    assert galaxy.sent_bytes(source) == 3 * len(CONTENT) - 1_000_000
    assert galaxy.counts() == {("GET", "files"): 3, ("HEAD", "files"): 1}


def test_uploads(galaxy: JobFilesServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    targets = {name: galaxy.root / "new" / name for name in ("requests", "curl", "tus")}
    urls = {name: galaxy.url_of(target, "output") for name, target in targets.items()}
    drive(
        ("requests", "post_file", urls["requests"], str(source)),
        ("curl", "post_file", urls["curl"], str(source)),
        ("tus", "tus_upload_file", urls["tus"], str(source)),
        home=tmp_path,
    )
    for target in targets.values():
        assert target.read_bytes() == CONTENT
        assert galaxy.received_bytes(target) == len(CONTENT)
    assert galaxy.counts() == {("POST", "files"): 3, ("POST", "tus"): 1, ("PATCH", "tus"): 4}
