"""Jobs of a real Galaxy, sent again as they were recorded: the same files must come back to where it expects them.

Galaxy's disk and host are other ones here, and the message that came over a queue comes as a submit over HTTP that
carries its set-up. What this server asks of Galaxy is compared with what Pulsar's was recorded to ask, and what arrives
there with what arrived then.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests import recorded
from tests.machines.job_files import JobFilesServer
from tests.support import RunningServer, wait_until

KEY = "the-key-of-a-job"
REST = "galaxy-rest-remote_transfer.txt"
QUEUE = "galaxy-mq-job.txt"
#: `TMPDIR` was one of the recorded machine.
ELSEWHERE = re.compile(rb"(?m)(?<= tmp )\S+$")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "server", options="log_level = debug\n") as running:
        yield running


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy's disk"
    disk.mkdir()
    with JobFilesServer(disk, KEY) as files:
        yield files


class Replay:
    """A recorded job, sent to `server` for `galaxy`."""

    def __init__(self, server: RunningServer, galaxy: JobFilesServer, asked: list[recorded.Exchange]) -> None:
        self.server = server
        self.galaxy = galaxy
        # Of metrics this server writes no files yet.
        self.asked = [request for request in asked if "/__instrument_" not in request.query["path"]]
        for request in self.asked:
            if request.method == "GET":
                file = Path(self.here(request.query["path"]))
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self.here(request.answer))

    def here(self, text: str) -> str:
        """What was recorded, with this machine's paths and addresses."""
        text = text.replace("http://GALAXY:8080/api/jobs/<encoded id>/files?job_key=<job_key>", self.galaxy.endpoint)
        text = text.replace("%2FGALAXY%2F", quote(f"{self.galaxy.root}/", safe=""))
        text = re.sub("/GALAXY(?=/)", str(self.galaxy.root), text)
        return text.replace("/STAGING", str(self.server.staging))

    def send(self, method: str, path: str, query: dict[str, str], body: str | None = None) -> None:
        there = {name: self.here(value) for name, value in query.items()}
        status, answer = self.server.ask(
            method, f"{path.lstrip('/')}?{urlencode(there)}", self.here(body or "").encode() or None
        )
        assert status == 200, (path, answer)

    def expected(self) -> Counter[tuple[str, str, str]]:
        """Method, path and type of file of what Pulsar's server asked of Galaxy."""
        return Counter(
            (request.method, self.here(request.query["path"]), request.query["file_type"]) for request in self.asked
        )

    def finish(self, job_id: str) -> None:
        """Wait for the end, and compare what arrived."""
        results = [request for request in self.asked if request.method == "POST"]

        def told() -> dict[str, object]:
            answer = self.server.ask_json("GET", f"jobs/{job_id}/status")
            assert isinstance(answer, dict)
            return answer

        status = wait_until(lambda: now if (now := told())["complete"] == "true" else None, "the job to end")
        # By now all of it must be there.
        for request in results:
            arrived = Path(self.here(request.query["path"])).read_bytes()
            expected = self.here(request.uploaded()).encode()
            assert _comparable(arrived) == _comparable(expected), request.query["path"]
        assert (status["status"], status["returncode"]) == ("complete", 0), status
        receipt = self.server.ask_json("GET", f"jobs/{job_id}/receipt")
        assert json.dumps(receipt).count('"whole"') >= len(self.asked)
        for place in (self.server.log(), json.dumps(receipt), json.dumps(status)):
            assert KEY not in place
        assert self.server.ask("DELETE", f"jobs/{job_id}")[0] == 200


def _comparable(content: bytes) -> bytes:
    return ELSEWHERE.sub(b"", content).rstrip(b"\n")


def asked(galaxy: JobFilesServer) -> Counter[tuple[str, str, str]]:
    """What was asked of Galaxy's files, without HEAD, by which this server sees how much of a stream is there."""
    return Counter(
        (seen.method, seen.path, seen.target.rpartition("file_type=")[2])
        for seen in galaxy.requests
        if seen.kind == "files" and seen.method != "HEAD"
    )


def test_a_job_over_http(server: RunningServer, galaxy: JobFilesServer) -> None:
    replay = Replay(server, galaxy, list(recorded.read(REST, "files_probe_rt")))
    for request in recorded.read(REST, "galaxy_rest_probe_rt"):
        replay.send(request.method, request.path, request.query, request.body)
        if request.path.endswith("/submit"):
            break
    replay.finish("4")
    assert asked(galaxy) == replay.expected()
    assert len(replay.asked) == 12


@pytest.mark.parametrize("action", ["remote_transfer", "remote_transfer_tus", "remote_copy"])
def test_a_job_of_a_queue(server: RunningServer, galaxy: JobFilesServer, action: str) -> None:
    """Galaxy's own destination said `remote_transfer`."""
    replay = Replay(server, galaxy, list(recorded.read(QUEUE, "files_probe_mq")))
    setup = recorded.message(QUEUE, "amqp_probe_mq")
    setup["token_endpoint"] = {"token_endpoint": setup["token_endpoint"]}  # as over HTTP
    text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in setup.items()}
    text["remote_staging"] = text["remote_staging"].replace('"remote_transfer"', f'"{action}"')
    replay.send("POST", "jobs/8/submit", text)
    replay.finish("8")
    assert asked(galaxy) == (Counter() if action == "remote_copy" else replay.expected())
    # The two streams are appended to, as forms.
    by_tus = 7 if action == "remote_transfer_tus" else 0
    assert galaxy.counts()["PATCH", "tus"] == by_tus
