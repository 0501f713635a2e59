"""Digests of a job's files: taken once, given up when the server stops, not taken of what is too large."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lwr.core.job import Job, JobKey, JobState
from lwr.errors import Unavailable
from lwr.server import results
from lwr.server.store import Store
from lwr.transfer.jobfiles import JobFiles

PLACE = ("outputs", "x")
Take = Callable[[bool], bytes | None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "7" / "outputs" / "x"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"result")
    return path


@pytest.fixture
def take(tmp_path: Path, file: Path) -> Iterator[Take]:
    """Takes the file's digest in a server that stops, or does not."""
    store = Store(tmp_path / "state")
    root = str(tmp_path / "7")
    job = store.begin(Job(0, JobKey("_default_", "7"), "first", JobState.NEW, root, created_at=1.0), None)
    assert job is not None
    yield lambda stops: results.take_digest(store, job, JobFiles(root), PLACE, lambda: stops)
    store.close()


def test_a_file_is_read_once(take: Take) -> None:
    digest = hashlib.sha256(b"result").digest()
    assert take(False) == digest
    assert take(True) == digest  # nothing is read, so nothing is given up


def test_a_changed_file_is_read_again(take: Take, file: Path) -> None:
    take(False)
    file.write_bytes(b"another result")
    assert take(False) == hashlib.sha256(b"another result").digest()


def test_a_server_that_stops_does_not_read_on(take: Take, file: Path) -> None:
    os.truncate(file, results.COLLECT_BYTES)
    with pytest.raises(Unavailable):
        take(True)


def test_what_would_take_too_long_has_none(take: Take, file: Path) -> None:
    os.truncate(file, results.COLLECT_BYTES + 1)
    assert take(False) is None
