"""One server for all tests of a module: each uses job ids of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.server.http.served import Served, served


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Open to everybody on this machine."""
    with served(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Wants a secret."""
    with served(tmp_path_factory.mktemp("locked"), secret="open sesame/ü") as running:
        yield running


_numbers = itertools.count()


@pytest.fixture
def job_id() -> str:
    """Of no other test in this process."""
    return f"job-{next(_numbers)}"


@pytest.fixture
def new_job(server: Served, job_id: str) -> Callable[[], str]:
    """Sets the job of this test up and returns its id."""

    def make() -> str:
        server.setup(job_id)
        return job_id

    return make
