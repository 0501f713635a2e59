"""The whole life of a job against a real server; and what happens when it is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.client import (
    Event,
    GivingUp,
    JobRequest,
    LocalFile,
    Moved,
    Moving,
    RemoteJob,
    RemoteServer,
    SetUp,
    StageBegun,
    StateChanged,
    Submitted,
    run_job,
)
from lwr.errors import BadRequest, PeerRefused, PeerUnreachable
from tests.client.scripted import Answer, json_answer, scripted
from tests.support import RunningServer, wait_until

SECRET = "a secret, with ü"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("server"), secret=SECRET) as server:
        yield server


@pytest.fixture
def server(running: RunningServer) -> Iterator[RemoteServer]:
    with RemoteServer(running.url, SECRET) as remote:
        yield remote


def test_a_job_with_everything(server: RemoteServer, running: RunningServer, tmp_path: Path) -> None:
    for name, text in (("a b.txt", "eins\n"), ("a b.txt.idx", "zwei\n"), ("c.ini", "drei\n"), ("tree/x/y", "vier\n")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = {name: str(tmp_path / name) for name in ("a b.txt", "a b.txt.idx", "c.ini", "tree")}
    command = (
        f"cat '{paths['a b.txt']}' \"{paths['a b.txt']}\".idx {paths['c.ini']} {paths['tree']}/x/y > 'o ü.txt'; "
        "mkdir sub; echo $WORD > sub/left; echo said; exit 7"
    )
    request = JobRequest(
        command,
        (
            LocalFile("input", paths["a b.txt"]),
            LocalFile("extra", paths["a b.txt.idx"]),
            LocalFile("config", paths["c.ini"]),
            LocalFile("input", paths["tree"]),
        ),
        outputs=("o ü.txt", "never.txt"),
        workdir_outputs=("sub/*",),
        output_dir=tmp_path / "out",
        streams_dir=tmp_path / "out",
        env=(("WORD", "fünf"),),
    )
    events: list[Event] = []
    outcome = run_job(server, request, job_id="everything", on_event=events.append)
    assert (outcome.status.state, outcome.status.exit_code) == ("complete", 7), outcome.status.stderr
    assert (tmp_path / "out" / "o ü.txt").read_text() == "eins\nzwei\ndrei\nvier\n"
    assert (tmp_path / "out" / "sub" / "left").read_text() == "fünf\n"
    assert (tmp_path / "out" / "tool_stdout").read_text() == "said\n"
    assert (outcome.missing, outcome.refused, outcome.not_cleaned) == (("never.txt",), (), "")
    told = [event for event in events if not isinstance(event, Moving)]
    assert isinstance(told[0], SetUp)
    assert [type(event) for event in told if not isinstance(event, StateChanged)] == (
        [SetUp, StageBegun] + [Moved] * 4 + [Submitted, StageBegun] + [Moved] * 2
    )
    assert {event.receipt.checked for event in told if isinstance(event, Moved)} == {"sha-256"}
    assert StateChanged("complete") in told
    assert not (running.staging / "everything").exists()


def test_a_kept_job_stays(server: RemoteServer, running: RunningServer) -> None:
    outcome = run_job(server, JobRequest("true"), job_id="kept", keep=True)
    assert outcome.status.exit_code == 0
    assert (running.staging / "kept").exists()
    server.clean("kept")


def test_death_by_a_signal_is_told(server: RemoteServer) -> None:
    assert run_job(server, JobRequest("kill -9 $$")).status.exit_code in (-9, 137)


def test_long_output_is_whole_in_the_streams_file(server: RemoteServer, tmp_path: Path) -> None:
    request = JobRequest("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", streams_dir=tmp_path)
    outcome = run_job(server, request)
    lines = (tmp_path / "tool_stdout").read_text().splitlines()
    assert lines == [f"line {number}" for number in range(20000)]
    assert len(outcome.status.stdout) < 100_000


def test_a_failing_shell_is_heard(server: RemoteServer) -> None:
    status = run_job(server, JobRequest("echo 'unclosed")).status
    assert status.exit_code not in (0, None)
    assert "unexpected" in (status.job_stderr + status.stderr).lower()


class Interrupting:
    """Events, with a Ctrl-C at the first state."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if event == StateChanged("running"):
            raise KeyboardInterrupt


def test_an_interrupted_job_is_ended_and_removed(server: RemoteServer, running: RunningServer, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    tell = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        run_job(server, JobRequest(f"echo $$ > {pid_file}; sleep 600"), job_id="interrupted", on_event=tell)
    assert GivingUp("interrupted") in tell.events
    assert server.status("interrupted").state == "lost"
    assert not (running.staging / "interrupted").exists()
    if pid_file.exists():
        wait_until(lambda: not Path(f"/proc/{pid_file.read_text().strip()}").exists(), "the job's process to be gone")


def test_a_job_that_could_not_be_sent_leaves_nothing(
    server: RemoteServer, running: RunningServer, tmp_path: Path
) -> None:
    vanishing = tmp_path / "f"
    vanishing.touch()

    def tell(event: Event) -> None:
        if isinstance(event, SetUp):
            vanishing.unlink()

    with pytest.raises(BadRequest, match="cannot be read"):
        run_job(server, JobRequest("true", (LocalFile("input", str(vanishing)),)), job_id="unsent", on_event=tell)
    wait_until(lambda: not (running.staging / "unsent").exists(), "the job's directory to be removed")


def test_a_missing_input_is_noticed_before_the_server_is_asked(tmp_path: Path) -> None:
    with (
        scripted(Answer(500)) as peer,
        RemoteServer(peer.url) as remote,
        pytest.raises(BadRequest, match="No such file"),
    ):
        run_job(remote, JobRequest("true", (LocalFile("input", str(tmp_path / "none")),)))
    assert peer.asked == []


def test_a_wrong_secret(running: RunningServer) -> None:
    with RemoteServer(running.url, "wrong") as remote, pytest.raises(PeerRefused) as caught:
        run_job(remote, JobRequest("true"))
    assert caught.value.status == 401
    assert "--token-file" in caught.value.hint


def test_an_unknown_manager(running: RunningServer) -> None:
    with RemoteServer(running.url + "managers/none", SECRET) as remote, pytest.raises(PeerRefused, match="none"):
        run_job(remote, JobRequest("true"))


def test_the_pauses_between_two_looks_grow() -> None:
    going = json_answer({"complete": "false", "status": "queued"})
    over = json_answer({"complete": "true", "status": "complete", "returncode": 0})
    pauses: list[float] = []
    with scripted(*[going] * 12, over) as peer, RemoteServer(peer.url) as remote:
        status = RemoteJob(remote, JobRequest("true"), sleep=pauses.append).wait()
    assert status.finished
    assert pauses[0] == 0.05
    assert pauses == sorted(pauses)
    assert pauses[-1] == 1.0


def test_a_wait_that_is_limited() -> None:
    going = json_answer({"complete": "false", "status": "queued"})
    with (
        scripted(going) as peer,
        RemoteServer(peer.url) as remote,
        pytest.raises(PeerUnreachable, match="queued"),
    ):
        RemoteJob(remote, JobRequest("true")).wait(0.0)


def test_a_lost_job_brings_nothing_back(tmp_path: Path) -> None:
    lost = {"complete": "true", "status": "lost", "stderr": "nobody knows", "outputs_directory_contents": ["o.txt"]}
    with scripted(json_answer(lost)) as peer, RemoteServer(peer.url) as remote:
        job = RemoteJob(remote, JobRequest("true", outputs=("o.txt",), output_dir=tmp_path))
        outcome = job.collect(job.wait())
    assert (outcome.status.state, outcome.collected) == ("lost", ())
    assert list(tmp_path.iterdir()) == []


def test_ids_that_the_server_gives_count(tmp_path: Path) -> None:
    setup = json_answer({"job_id": "given", "working_directory": "/s/given/working"})
    with scripted(setup, Answer()) as peer, RemoteServer(peer.url) as remote:
        job = RemoteJob(remote, JobRequest("true"), job_id="wanted")
        job.stage_in()
        job.submit()
    assert job.job_id == "given"
    assert peer.asked[1].target.startswith("/jobs/given/submit?")


def test_a_server_that_comes_back_finds_its_client_waiting(tmp_path: Path) -> None:
    """Killed while the job runs, and started again: the client never knows more than that it had to try again."""
    with RunningServer(tmp_path / "server") as running, RemoteServer(running.url) as remote:
        retried = threading.Event()
        remote_job = RemoteJob(
            remote,
            JobRequest(
                f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo done > o.txt",
                outputs=("o.txt",),
                output_dir=tmp_path,
            ),
        )
        remote_job.stage_in()
        remote_job.submit()
        running.kill()
        remote.on_retry = lambda error, pause_s: retried.set()
        waiter_status: list[str] = []
        waiter = threading.Thread(target=lambda: waiter_status.append(remote_job.wait().state))
        waiter.start()
        assert retried.wait(30)
        running.start()
        (tmp_path / "go").touch()
        waiter.join(30)
        assert waiter_status == ["complete"]
