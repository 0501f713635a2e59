"""What all tests with real peers use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PEERS = ("pulsar-app-0.16.0", "pulsar-galaxy-lib-0.15.15")


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest) -> Path:
    """The `bin` of a peer's virtualenv."""
    programs = ROOT / ".venv-peers" / str(request.param) / "bin"
    if not (programs / "pulsar-check").exists():
        why = f"{request.param} is not installed: `make peers` does it"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return programs


@pytest.fixture
def job_id(request: pytest.FixtureRequest) -> str:
    """An id of its own for each test, since they share servers."""
    return "check-" + "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
