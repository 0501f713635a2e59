"""How files travel: every action of a person's rules, both ways, with real bytes; places computed here; resuming."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.client import (
    Event,
    JobRequest,
    LocalFile,
    Moved,
    Outcome,
    RemoteJob,
    RemoteServer,
    SetUp,
    Travel,
    resume_job,
    run_job,
)
from lwr.client.rules import mapper_from_document
from lwr.core.mapper import Mapper
from lwr.core.receipt import FileState
from lwr.errors import BadRequest, PeerError, PeerRefused
from tests.client.scripted import json_answer, scripted
from tests.machines.job_files import JobFilesServer
from tests.support import RunningServer

KEY = "the-job-key"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(running: RunningServer) -> Iterator[RemoteServer]:
    with RemoteServer(running.url) as remote:
        yield remote


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    with JobFilesServer(tmp_path, KEY) as endpoint:
        yield endpoint


def request(tmp_path: Path) -> JobRequest:
    """An input that becomes an output, and one more in the working directory."""
    (tmp_path / "in.txt").write_text("eins\n")
    return JobRequest(
        f"cat {tmp_path}/in.txt {tmp_path}/in.txt > {tmp_path}/out.txt; echo left > left.txt",
        (LocalFile("input", f"{tmp_path}/in.txt"),),
        outputs=(f"{tmp_path}/out.txt",),
        workdir_outputs=("left.txt",),
        output_dir=tmp_path,
    )


def check(outcome: Outcome, tmp_path: Path) -> None:
    assert (outcome.status.state, outcome.status.exit_code) == ("complete", 0), outcome.status.stderr
    assert (tmp_path / "out.txt").read_text() == "eins\neins\n"
    assert (tmp_path / "left.txt").read_text() == "left\n"
    assert (outcome.missing, outcome.refused) == ((), ())


@pytest.mark.parametrize("action", ["transfer", "copy", "remote_copy", "remote_transfer", "remote_transfer_tus"])
def test_an_action_for_all_files(server: RemoteServer, galaxy: JobFilesServer, tmp_path: Path, action: str) -> None:
    events: list[Event] = []
    travel = Travel(Mapper(default_action=action, files_endpoint=galaxy.endpoint))
    outcome = run_job(server, request(tmp_path), travel=travel, on_event=events.append)
    check(outcome, tmp_path)
    mover = "server" if action.startswith("remote") else "client"
    assert sum(isinstance(event, Moved) for event in events) == (3 if mover == "client" else 0)
    assert {(record.name, record.upward, record.action, record.mover) for record in outcome.records} == {
        ("in.txt", True, action, mover),
        ("out.txt", False, action, mover),
        ("left.txt", False, action, mover),
    }
    for record in outcome.records:
        data = Path(record.path).read_bytes()
        assert (record.state, record.size_bytes) == (FileState.WHOLE, len(data))
        assert record.sha256 == hashlib.sha256(data).digest()
        assert KEY not in repr(record)


@pytest.mark.parametrize("action", ["none", "rewrite"])
def test_what_is_not_moved_is_a_success(server: RemoteServer, tmp_path: Path, action: str) -> None:
    link = tmp_path / "over-there"
    link.symlink_to(tmp_path)
    rule = {"path": str(tmp_path), "action": action, "match_type": "prefix"}
    if action == "rewrite":
        rule |= {"source_directory": str(tmp_path), "destination_directory": str(link)}
    mapper = mapper_from_document({"paths": [rule]}, "the test")
    outcome = run_job(server, request(tmp_path), travel=Travel(mapper), on_event=lambda event: None)
    check(outcome, tmp_path)
    # Of the working directory even what is not moved has to be copied.
    assert {record.name: record.action for record in outcome.records} == {"left.txt": "copy"}


def test_each_path_goes_its_own_way(server: RemoteServer, galaxy: JobFilesServer, tmp_path: Path) -> None:
    rules = [
        {"path": f"{tmp_path}/in*", "match_type": "glob", "action": "remote_transfer"},
        {"path": f"{tmp_path}/out.txt", "action": "remote_copy"},
    ]
    mapper = mapper_from_document({"paths": rules}, "the test", files_endpoint=galaxy.endpoint)
    outcome = run_job(server, request(tmp_path), travel=Travel(mapper))
    check(outcome, tmp_path)
    assert {record.name: record.action for record in outcome.records} == {
        "in.txt": "remote_transfer",
        "out.txt": "remote_copy",
        "left.txt": "transfer",
    }


def test_a_declared_output_that_the_job_did_not_write_is_told_by_the_server(
    server: RemoteServer, tmp_path: Path
) -> None:
    wanted = JobRequest("true", outputs=("never.txt",), output_dir=tmp_path)
    outcome = run_job(server, wanted, travel=Travel(Mapper(default_action="remote_copy")))
    assert (outcome.status.state, outcome.missing) == ("complete", ("never.txt",))


def test_a_copy_where_the_directory_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    wanted = JobRequest("true", (LocalFile("input", f"{tmp_path}/f"),))
    far = {"job_id": "j", "working_directory": "/nowhere/j/working", "inputs_directory": "/nowhere/j/inputs"}
    with (
        scripted(json_answer(far)) as peer,
        RemoteServer(peer.url) as remote,
        pytest.raises(BadRequest, match="does not see the job's directory /nowhere/j/"),
    ):
        RemoteJob(remote, wanted, travel=Travel(Mapper(default_action="copy"))).stage_in()


@pytest.mark.parametrize("slash", ["", "/"])
def test_places_that_are_computed_here(
    server: RemoteServer, running: RunningServer, tmp_path: Path, slash: str
) -> None:
    """A job whose files the server moves is set up with its submit; one that needs the client's, before."""
    events: list[Event] = []
    travel = Travel(Mapper(default_action="remote_copy"), jobs_directory=f"{running.staging}{slash}")
    check(run_job(server, request(tmp_path), travel=travel, on_event=events.append), tmp_path)
    job_id = next(event.job_id for event in events if isinstance(event, SetUp))
    assert SetUp(job_id, f"{running.staging}/{job_id}/working") in events
    travel = Travel(jobs_directory=f"{running.staging}{slash}")
    check(run_job(server, request(tmp_path), travel=travel), tmp_path)


def test_another_jobs_directory_than_the_servers(server: RemoteServer, running: RunningServer, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="jobs_directory says /elsewhere/mine") as caught:
        run_job(server, request(tmp_path), job_id="mine", travel=Travel(jobs_directory="/elsewhere/"))
    assert f"{running.staging}/mine" in caught.value.message


def test_a_directory_goes_as_a_whole(server: RemoteServer, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "f").write_text("tief\n")
    job = JobRequest(f"cat {tmp_path}/tree/deep/f", (LocalFile("input", f"{tmp_path}/tree"),))
    for action in ("none", "transfer", "remote_copy"):
        mapper = mapper_from_document({"paths": [{"path": f"{tmp_path}/tree", "action": action}]}, "the test")
        assert run_job(server, job, travel=Travel(mapper)).status.stdout == "tief\n"
    mapper = mapper_from_document({"paths": [{"path": f"{tmp_path}/tree/deep", "action": "none"}]}, "the test")
    with pytest.raises(BadRequest, match="directory as a whole"):
        RemoteJob(server, job, travel=Travel(mapper))


def many(tmp_path: Path) -> JobRequest:
    files = []
    for number in range(20):
        path = tmp_path / f"f{number:02}"
        path.write_text(f"{number}\n")
        files.append(LocalFile("input", str(path)))
    return JobRequest(
        " ".join(["cat", *(file.path for file in files), f"> {tmp_path}/sum; echo said"]),
        tuple(files),
        outputs=(f"{tmp_path}/sum",),
        streams_dir=tmp_path,
    )


class KilledError(Exception):
    """Nothing is tidied up."""


def killed_while_sending(server: RemoteServer, wanted: JobRequest, after_count: int) -> str:
    sent: list[Moved] = []

    def tell(event: Event) -> None:
        if isinstance(event, Moved):
            sent.append(event)
            if len(sent) == after_count:
                raise KilledError

    job = RemoteJob(server, wanted, travel=Travel(at_a_time=2), on_event=tell)
    with pytest.raises(KilledError):
        job.stage_in()
    return job.job_id


def test_a_job_that_was_interrupted_while_its_files_were_sent(server: RemoteServer, tmp_path: Path) -> None:
    wanted = many(tmp_path)
    job_id = killed_while_sending(server, wanted, 10)
    (tmp_path / "f03").write_text("!\n")  # changed meanwhile, and as long as before
    outcome = resume_job(server, wanted, job_id)
    assert outcome.status.exit_code == 0
    assert (tmp_path / "sum").read_text() == "".join(f"{'!' if number == 3 else number}\n" for number in range(20))
    assert len([record for record in outcome.records if record.upward]) == 20


def test_what_arrived_whole_is_not_sent_again(server: RemoteServer, running: RunningServer, tmp_path: Path) -> None:
    wanted = many(tmp_path)
    job_id = killed_while_sending(server, wanted, 20)
    inodes = {path.name: path.stat().st_ino for path in (running.staging / job_id / "inputs").iterdir()}
    job = RemoteJob(server, wanted, job_id=job_id)
    job.stage_in(again=True)
    assert inodes == {path.name: path.stat().st_ino for path in (running.staging / job_id / "inputs").iterdir()}
    job.clean()


@pytest.mark.parametrize("waits", [False, True], ids=["live", "over"])
def test_a_job_that_was_interrupted_later(server: RemoteServer, tmp_path: Path, waits: bool) -> None:
    wanted = many(tmp_path)
    job = RemoteJob(server, wanted)
    job.stage_in()
    job.submit()
    if waits:
        job.wait()
    outcome = resume_job(server, wanted, job.job_id)
    assert (tmp_path / "sum").read_text() == "".join(f"{number}\n" for number in range(20))
    assert (tmp_path / "tool_stdout").read_text() == "said\n"
    assert outcome.not_cleaned == ""


def test_a_job_that_nobody_knows_cannot_be_resumed(server: RemoteServer) -> None:
    with pytest.raises(PeerRefused, match="no job"):
        resume_job(server, JobRequest("true"), "never-begun")
