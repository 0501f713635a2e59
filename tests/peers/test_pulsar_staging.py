"""Pulsar's client, unmodified, from two releases, with every file action that it has, against `lwr serve`.

Its self-test compares all results byte by byte as soon as it is told that the job is complete, in a directory that it
makes below `TMPDIR`; here that is the disk of a Galaxy which answers at the job-files API. What the server asked of
Galaxy is compared with what Pulsar's own server was recorded to ask.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests import recorded
from tests.conftest import FULL
from tests.machines.exchange import Seen
from tests.machines.job_files import JobFilesServer
from tests.machines.programs import needed
from tests.machines.sshd import Sshd
from tests.peers.test_pulsar_check import assert_nothing_left, run_peer
from tests.support import RunningServer, wait_until

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

#: In no other word of a log.
KEY = "7f-a-key-+/=&-ü-f7"
CHECK = Path(__file__).with_name("drive_check.py")
JOB = Path(__file__).with_name("drive_job.py")

BY_GALAXY = ("remote_transfer", "remote_transfer_tus")
SECOND = "managers/second/"
ALL_OPTIONS = {
    "test_unicode": True,
    "test_env": True,
    "test_rewrite_action": True,
    "explicit_tool_declarations": True,
    "legacy_galaxy_json": True,
}


@dataclass(frozen=True)
class Run:
    """One run of the self-test. `carried`: with `jobs_directory`, so that the set-up travels in the submit."""

    action: str
    transport: str
    carried: bool
    where: str = ""
    options: dict[str, bool] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        words = (
            self.action,
            self.transport,
            "carried" if self.carried else "",
            self.where.strip("/").rpartition("/")[2],
        )
        return "-".join(filter(None, (*words, "options" if self.options else "")))


#: Every action with and without `jobs_directory`; transports, managers and options take turns.
RUNS = (
    Run("remote_transfer", "urllib", carried=False),
    Run("remote_transfer", "curl", carried=True, where=SECOND, options=ALL_OPTIONS),
    Run("remote_transfer_tus", "curl", carried=False, options=ALL_OPTIONS),
    Run("remote_transfer_tus", "urllib", carried=True, where=SECOND),
    Run("remote_copy", "urllib", carried=False, where=SECOND, options=ALL_OPTIONS),
    Run("remote_copy", "curl", carried=True),
    Run("copy", "curl", carried=False, where=SECOND),
    Run("copy", "urllib", carried=True, options=ALL_OPTIONS),
    Run("none", "urllib", carried=False, options=ALL_OPTIONS),
    Run("none", "curl", carried=True, where=SECOND),
    # As in the tests of `pulsar-check`, but the first file comes before the set-up.
    Run("transfer", "urllib", carried=True, options=ALL_OPTIONS),
)
ALL_RUNS = tuple(
    Run(*each)
    for each in product(
        sorted({run.action for run in RUNS}), ("urllib", "curl"), (False, True), ("", SECOND), ({}, ALL_OPTIONS)
    )
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("staging"), options="log_level = debug\n") as running:
        yield running


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy"
    disk.mkdir()
    with JobFilesServer(disk, KEY) as files:
        yield files


def options_of(run: Run, server: RunningServer, job_id: str, files_endpoint: str) -> str:
    options: dict[str, Any] = {
        "suppress_output": False,
        "url": server.url + run.where,
        "transport": run.transport,
        "job_id": job_id,
        "default_file_action": run.action,
        **run.options,
    }
    if run.action in BY_GALAXY:
        options["files_endpoint"] = files_endpoint
    if run.carried:
        options["jobs_directory"] = str(server.staging)
    return json.dumps(options)


def check(peer: Path, run: Run, server: RunningServer, galaxy: JobFilesServer, job_id: str) -> None:
    run_peer([peer / "python", CHECK, options_of(run, server, job_id, galaxy.endpoint)], galaxy.root)
    assert_nothing_left(server, job_id)
    assert f"job={job_id} state=complete" in server.log().replace("second/", "")
    assert KEY not in server.log()
    assert galaxy.endpoint.partition("job_key=")[2] not in server.log()


@contextmanager
def checking(
    peer: Path, run: Run, server: RunningServer, files_endpoint: str, job_id: str, home: Path
) -> Iterator[None]:
    """The self-test for as long as this lasts: of a job that fails it would take no notice for two minutes."""
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
    command: list[str | Path] = [peer / "python", CHECK, options_of(run, server, job_id, files_endpoint)]
    with subprocess.Popen(command, env=environ, cwd=home, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


def status(server: RunningServer, job_id: str) -> dict[str, Any]:
    told = server.ask_json("GET", f"jobs/{job_id}/status")
    assert isinstance(told, dict)
    return told


def wait_for_status(server: RunningServer, job_id: str, wanted: str) -> dict[str, Any]:
    return wait_until(
        lambda: told if (told := status(server, job_id))["status"] == wanted else None, f"{job_id} to be {wanted}"
    )


# -- every action ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ALL_RUNS if FULL else RUNS, ids=str)
def test_every_action(peer: Path, run: Run, server: RunningServer, galaxy: JobFilesServer, job_id: str) -> None:
    check(peer, run, server, galaxy, job_id)
    counts = galaxy.counts()
    if run.action not in BY_GALAXY:
        assert not counts
        return
    assert counts["GET", "files"] >= 9
    # The streams are appended to, piece by piece, so that they are never sent in another way.
    streams, results = 2, counts["POST", "files"]
    assert results >= 18
    sent_by_tus = results - streams if run.action == "remote_transfer_tus" else 0
    assert counts["POST", "tus"] == counts["PATCH", "tus"] == sent_by_tus
    assert not galaxy.uploads.all()
    assert [seen for seen in galaxy.requests if seen.status >= 400 and seen.method != "HEAD"] == []


def asked(requests: list[Seen], home: Path) -> Counter[tuple[str, str, str]]:
    """Method, path and type of file of what was asked of Galaxy's files, as a capture would show it.

    Without HEAD, by which this server sees what Galaxy has of a stream before it appends to it.
    """
    made = next(home.glob("pulsar-check-client.*"), None)
    assert made is None, "the self-test removes its directory"
    return Counter(
        (
            seen.method,
            "/CLIENT/" + seen.path.split("/", len(home.parts) + 1)[-1],
            seen.target.rpartition("file_type=")[2],
        )
        for seen in requests
        if seen.kind == "files" and seen.method != "HEAD"
    )


@pytest.mark.parametrize(
    ("action", "capture"),
    [
        ("remote_transfer", "rest-07-check-remote_transfer.txt"),
        ("remote_transfer_tus", "rest-08-check-remote_transfer_tus.txt"),
    ],
    ids=["forms", "tus"],
)
def test_galaxy_is_asked_what_pulsars_server_asks_it(
    peer: Path, action: str, capture: str, server: RunningServer, galaxy: JobFilesServer, job_id: str
) -> None:
    check(peer, Run(action, "urllib", carried=False), server, galaxy, job_id)
    expected = Counter(
        (request.method, request.query["path"], request.query["file_type"])
        for request in recorded.read(capture, "-files")
        # This server writes no files of metrics yet.
        if request.path == "/api/jobs/123456/files" and "/__instrument_" not in request.query["path"]
    )
    assert len(expected) == 27
    assert asked(galaxy.requests, galaxy.root) == expected


def test_results_are_delivered_before_the_job_is_complete(
    peer: Path, server: RunningServer, galaxy: JobFilesServer, job_id: str
) -> None:
    """Galaxy takes nothing for a while; the self-test, which asks all the time, must not be told to look."""
    run = Run("remote_transfer", "urllib", carried=True)
    galaxy.fail_next(503, 10**6, method="POST")
    with checking(peer, run, server, galaxy.endpoint, job_id, galaxy.root):
        wait_until(lambda: galaxy.counts()["POST", "files"], "the server to deliver")
        assert status(server, job_id)["status"] == "postprocessing"
        galaxy.behave()
        # A peer that did not find all of its results ends without cleaning its job.
        wait_for_status(server, job_id, "lost")
    assert_nothing_left(server, job_id)


# -- what must fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carried", [False, True], ids=["set-up", "carried"])
@pytest.mark.parametrize("action", BY_GALAXY)
def test_a_wrong_key_fails_the_job(
    peer: Path, action: str, carried: bool, server: RunningServer, galaxy: JobFilesServer, job_id: str
) -> None:
    endpoint = galaxy.endpoint + "-and-no-more"
    with checking(peer, Run(action, "urllib", carried), server, endpoint, job_id, galaxy.root):
        told = wait_for_status(server, job_id, "failed")
    assert told["complete"] == "true"
    assert told["returncode"] != 0
    assert "403" in told["stderr"]
    assert f"job {job_id}" in told["stderr"]
    assert KEY not in told["stderr"]
    assert server.ask("DELETE", f"jobs/{job_id}")[0] == 200
    assert_nothing_left(server, job_id)
    assert KEY not in server.log()
    assert not galaxy.counts()["POST", "files"]


def test_results_that_galaxy_refuses_fail_the_job(
    peer: Path, server: RunningServer, galaxy: JobFilesServer, job_id: str
) -> None:
    galaxy.fail_next(403, 10**6, method="POST")
    galaxy.fail_next(403, 10**6, method="HEAD")
    run = Run("remote_transfer", "urllib", carried=True)
    with checking(peer, run, server, galaxy.endpoint, job_id, galaxy.root):
        told = wait_for_status(server, job_id, "failed")
    assert "no longer takes the files" in told["stderr"]
    assert server.ask("DELETE", f"jobs/{job_id}")[0] == 200
    assert_nothing_left(server, job_id)


# -- ssh -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    needed("rsync", "rsync")
    with Sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.mark.parametrize("carried", [False, True], ids=["set-up", "carried"])
@pytest.mark.parametrize("action", ["remote_rsync_transfer", "remote_scp_transfer"])
def test_the_actions_by_ssh(
    peer: Path, action: str, carried: bool, server: RunningServer, sshd: Sshd, job_id: str, tmp_path: Path
) -> None:
    """Over HTTP the key travels in the mapper; the self-test insists on port 22, so that another job goes here."""
    (tmp_path / "in.dat").write_bytes(bytes(range(256)) * 1000)
    destination = {
        "url": server.url,
        "default_file_action": action,
        "ssh_key": sshd.private_key,
        "ssh_user": sshd.user,
        "ssh_host": sshd.host,
        "ssh_port": sshd.port,
    }
    if carried:
        destination["jobs_directory"] = str(server.staging)
    options = {"directory": str(tmp_path), "job_id": job_id, "destination": destination}
    run_peer([peer / "python", JOB, json.dumps(options)], tmp_path)
    assert_nothing_left(server, job_id)
    assert sshd.private_key.split("\n")[1] not in server.log()
    assert "PRIVATE KEY" not in server.log()
