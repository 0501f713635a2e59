"""The self-test of Pulsar's client, unmodified, from two releases, against `lwr serve`.

`pulsar-check` sets a job up, uploads files of every type, waits, collects all outputs, compares and cleans. Each run
here must pass, and leave no file behind on the server.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import RunningServer, wait_until

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

SECRET = "a secret with spaces, +, & and ü"
#: A peer that waits for an end that does not come gives up after two minutes of its own.
DEADLINE_S = 150

#: Options of the self-test that need no staging by the server.
VARIANTS = {
    "unicode": {"test_unicode": True},
    "env": {"test_env": True},
    "rewrite": {"test_rewrite_action": True},
    "explicit-tool-declarations": {"explicit_tool_declarations": True},
    "legacy-galaxy-json": {"legacy_galaxy_json": True},
    "errors": {"test_errors": True},
    "suppress-output": {"suppress_output": True},
    "all-at-once": {
        "test_unicode": True,
        "test_env": True,
        "test_rewrite_action": True,
        "explicit_tool_declarations": True,
        "legacy_galaxy_json": True,
        "test_errors": True,
    },
}


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def closed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("closed"), secret=SECRET) as server:
        yield server


def run_peer(command: list[str | Path], home: Path) -> None:
    """Run a peer's program with nothing of our environment in it; the test fails with all it said."""
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        command, env=environ, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def assert_nothing_left(server: RunningServer, job_id: str) -> None:
    """The job's directory goes at once; what was moved aside is removed in the background, to the last file."""
    assert not (server.staging / job_id).exists()
    wait_until(lambda: not files_below(server.staging), f"the files of {job_id} to be removed")


def files_below(directory: Path) -> list[Path]:
    """Of a directory that somebody else may be removing."""
    return [Path(place, name) for place, _, names in os.walk(directory) for name in names]


@pytest.mark.parametrize("where", ["", "managers/second/"], ids=["default-manager", "named-manager"])
@pytest.mark.parametrize("transport", ["urllib", "curl"])
@pytest.mark.parametrize("secret", ["", SECRET], ids=["open", "token"])
def test_pulsar_check(
    peer: Path, secret: str, transport: str, where: str, job_id: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    server: RunningServer = request.getfixturevalue("closed_server" if secret else "open_server")
    token = ["--private_token", secret] if secret else []
    options = ["--url", server.url + where, "--transport", transport, "--job_id", job_id, *token]
    run_peer([peer / "pulsar-check", *options], tmp_path)
    assert_nothing_left(server, job_id)


@pytest.mark.parametrize("transport", ["urllib", "curl"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_options_of_the_self_test(
    peer: Path, variant: str, transport: str, job_id: str, open_server: RunningServer, tmp_path: Path
) -> None:
    options = {"suppress_output": False, **VARIANTS[variant], "url": open_server.url, "transport": transport}
    driver = Path(__file__).with_name("drive_check.py")
    run_peer([peer / "python", driver, json.dumps({**options, "job_id": job_id})], tmp_path)
    assert_nothing_left(open_server, job_id)


def test_the_same_id_again_and_again(peer: Path, open_server: RunningServer, tmp_path: Path) -> None:
    """`pulsar-check` calls its job 123456 unless told otherwise, every time and on every manager."""
    job_id = f"again-{peer.parent.name}"
    for where in ("", "", "managers/second/"):
        run_peer([peer / "pulsar-check", "--url", open_server.url + where, "--job_id", job_id], tmp_path)
    assert_nothing_left(open_server, job_id)


def test_a_wrong_token_is_refused(peer: Path, closed_server: RunningServer, job_id: str, tmp_path: Path) -> None:
    """That the runs above could have failed."""
    options = ["--url", closed_server.url, "--private_token", "wrong", "--job_id", job_id]
    with pytest.raises(AssertionError, match="401"):
        run_peer([peer / "pulsar-check", *options], tmp_path)
    assert_nothing_left(closed_server, job_id)
