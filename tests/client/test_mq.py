"""A server behind a broker: what is published for a job, what is made of updates, and what cannot go over a queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lwr.client import JobDescription, JobRequest, LocalFile, Patience, RemoteJob, Travel, run_described, run_job
from lwr.client.mq import QueueServer, reply_name
from lwr.core.mapper import Mapper
from lwr.core.messages import Dialect, Kind, SetupMessage, StatusQuestion, read_message
from lwr.core.outputs import ClientOutputs
from lwr.core.receipt import FileRecord, FileState, receipt_document
from lwr.errors import BadName, BadRequest, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.broker import BrokerOptions
from tests.client.far_end import FarEnd, far_end
from tests.machines.rabbitmq import RabbitMQ
from tests.support import free_port, wait_until

AT = Travel(jobs_directory="/srv/jobs")
IMPATIENT = Patience(total_s=0.0)


@pytest.fixture
def vhost(broker: RabbitMQ) -> str:
    return broker.vhost()


@pytest.fixture
def options(broker: RabbitMQ, vhost: str) -> BrokerOptions:
    return BrokerOptions(broker.url(vhost))


@pytest.fixture
def peer(options: BrokerOptions) -> Iterator[FarEnd]:
    with far_end(options) as one:
        yield one


@pytest.fixture
def server(options: BrokerOptions) -> Iterator[QueueServer]:
    with QueueServer(options, reply="mine") as one:
        yield one


def over(job_id: str, **more: object) -> dict[str, Any]:
    return {"job_id": job_id, "status": "complete", "complete": "true", "returncode": 0, **more}


def known(server: QueueServer, job_id: str, state: str) -> None:
    wait_until(lambda: server.status(job_id).state == state, f"{job_id} to be {state}")


def test_a_job_is_one_message_with_the_documented_keys(server: QueueServer, peer: FarEnd) -> None:
    server.submit(
        "j1",
        "echo",
        env=[{"name": "A", "value": "1"}],
        params={"native_specification": "-q x"},
        remote_staging={"setup": []},
        setup={"job_id": "j1", "tool_id": "t", "tool_version": "1", "use_metadata": True},
        dependencies={"requirements": []},
        touch_outputs=["o"],
        dynamic_sources=[("galaxy.json", "galaxy")],
    )
    wait_until(lambda: peer.taken, "the message")
    ((kind, value),) = peer.taken
    assert (kind, value) == (
        Kind.SETUP,
        {
            "job_id": "j1",
            "command_line": "echo",
            "setup_params": {"job_id": "j1", "tool_id": "t", "tool_version": "1", "use_metadata": True},
            "submit_params": {"native_specification": "-q x"},
            "dependencies_description": {"requirements": []},
            "env": [{"name": "A", "value": "1"}],
            "remote_staging": {"setup": []},
            "touch_outputs": ["o"],
            "dynamic_file_sources": [{"path": "galaxy.json", "type": "galaxy"}],
            "status_reply": "mine",
        },
    )
    message = read_message(Kind.SETUP, value)
    assert isinstance(message, SetupMessage)
    assert (message.setup.job_id, message.setup.tool_id, message.reply) == ("j1", "t", "mine")


def test_what_is_not_given_is_not_sent(options: BrokerOptions, peer: FarEnd) -> None:
    with QueueServer(options) as server:
        server.submit("j1", "echo")
        wait_until(lambda: peer.taken, "the message")
    assert set(peer.taken[0][1]) == {"job_id", "command_line", "setup_params", "remote_staging"}
    with QueueServer(options) as server, pytest.raises(BadName):
        server.submit("../j1", "echo")


def test_the_newest_update_is_the_status(server: QueueServer, peer: FarEnd) -> None:
    server.submit("j1", "echo")
    status = server.status("j1")
    assert (status.state, status.finished) == ("preprocessing", False)
    peer.tell({"job_id": "j1", "status": "running", "complete": "false"}, "mine")
    known(server, "j1", "running")
    peer.tell(over("j1", stdout="said\n", outputs_directory_contents=["o"]), "mine")
    known(server, "j1", "complete")
    status = server.status("j1")
    assert (status.finished, status.exit_code, status.stdout, status.outputs) == (True, 0, "said\n", ("o",))


def test_failed_is_an_end_whatever_complete_says_and_nothing_comes_after_it(server: QueueServer, peer: FarEnd) -> None:
    server.submit("j1", "echo")
    server.submit("j2", "echo")
    peer.tell({"job_id": "j1", "status": "failed", "complete": "false", "stderr": "no room"}, "mine")
    peer.tell({"job_id": "j1", "status": "running", "complete": "false"}, "mine")
    peer.tell(over("j2"), "mine")
    known(server, "j2", "complete")
    status = server.status("j1")
    assert (status.state, status.finished, status.stderr) == ("failed", True, "no room")


@pytest.mark.parametrize(("dialect", "kind"), [(Dialect.LWR, Kind.SETUP), (Dialect.PULSAR, Kind.STATUS)])
def test_a_job_that_another_process_submitted_is_asked_for_once(
    options: BrokerOptions, dialect: Dialect, kind: Kind
) -> None:
    with (
        far_end(options, dialect, (Kind.SETUP, Kind.STATUS)) as peer,
        QueueServer(options, dialect=dialect, reply="mine") as server,
    ):
        server.submit("fresh", "echo")

        def asked() -> bool:
            states = {server.status("fresh").state, server.status("old").state}
            assert states == {"preprocessing"}
            return len(peer.taken) == 2

        wait_until(asked, "set-up and question")
        asked()
        peer.tell(over("old"), "mine")
        known(server, "old", "complete")
        assert len(peer.taken) == 2
        assert peer.of(kind)[-1] == {"request": "status", "job_id": "old", "status_reply": "mine"}
        assert read_message(kind, peer.of(kind)[-1]) == StatusQuestion("old", "mine")


def test_a_kill(server: QueueServer, peer: FarEnd) -> None:
    server.cancel("j1")
    wait_until(lambda: peer.taken, "the message")
    assert peer.taken == [(Kind.KILL, {"job_id": "j1"})]


def test_a_queue_of_its_own_goes_when_its_jobs_are_over(
    broker: RabbitMQ, vhost: str, options: BrokerOptions, peer: FarEnd
) -> None:
    own = "lwr__status_update_mine"
    with QueueServer(options, reply="mine") as server:
        server.submit("j1", "echo")
    assert own in broker.queue_depths(vhost)  # somebody may go on with the job
    peer.tell(over("j1"), "mine")
    with QueueServer(options, reply="mine") as server:
        known(server, "j1", "complete")
    assert own not in broker.queue_depths(vhost)


def test_updates_of_all_jobs_go_to_the_callback(options: BrokerOptions, peer: FarEnd) -> None:
    heard: list[dict[str, Any]] = []
    with QueueServer(options, on_update=heard.append) as server:
        peer.tell(over("somebodys"))
        wait_until(lambda: heard, "the update")
        assert heard == [over("somebodys")]
        server.close()
        server.close()


def test_a_broker_that_stays_away(options: BrokerOptions) -> None:
    told: list[LwrError] = []
    away = BrokerOptions(f"amqp://me:hidden@127.0.0.1:{free_port()}/")
    with QueueServer(away, patience=IMPATIENT, on_retry=lambda error, pause_s: told.append(error)) as server:
        with pytest.raises(PeerUnreachable) as caught:
            server.greet()
        assert "hidden" not in str(caught.value)
        with pytest.raises(PeerUnreachable):
            server.submit("j1", "echo")
        with pytest.raises(PeerUnreachable):
            wait_until(lambda: server.status("j1").finished, "patience to be over")
        server.patience = Patience()
        server.status("j1")
        server.status("j1")
    assert len(told) == 1


def test_whom_the_broker_does_not_let_in(broker: RabbitMQ, vhost: str) -> None:
    with QueueServer(BrokerOptions(broker.url(vhost, user="lwr:wrong"))) as server, pytest.raises(LwrError) as caught:
        server.greet()
    assert "wrong" not in str(caught.value)


# -- what cannot go over a queue ------------------------------------------------------------------------------------


def test_small_texts_are_in_the_message(server: QueueServer, peer: FarEnd, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("zwölf\r\n")
    (tmp_path / "empty").touch()
    files = tuple(LocalFile("input", f"{tmp_path}/{name}") for name in ("in.txt", "empty"))
    job = RemoteJob(server, JobRequest(f"cat {tmp_path}/in.txt", files), job_id="j1", travel=AT)
    job.stage_in()
    job.submit()
    wait_until(lambda: peer.taken, "the message")
    value = peer.taken[0][1]
    assert "/srv/jobs/j1/inputs/in.txt" in value["command_line"]
    assert [(entry["name"], entry["action"]) for entry in value["remote_staging"]["setup"]] == [
        ("in.txt", {"action_type": "message", "contents": "zwölf\r\n"}),
        ("empty", {"action_type": "message", "contents": ""}),
    ]


@pytest.mark.parametrize("data", [b"\xff\xfe", b"a\0b", b"x" * (64 * 1024 + 1)], ids=["binary", "NUL", "large"])
def test_what_the_client_would_send_is_refused_before_anything_is_published(
    broker: RabbitMQ, vhost: str, server: QueueServer, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "in").write_bytes(data)
    with pytest.raises(BadRequest, match="over a queue it moves no files") as caught:
        run_job(server, JobRequest("true", (LocalFile("input", f"{tmp_path}/in"),)), travel=AT)
    assert "--remote-transfer" in caught.value.hint
    assert broker.queue_depths(vhost).get("lwr__setup", 0) == 0


@pytest.mark.parametrize(
    ("wanted", "travel", "sentence"),
    [
        (JobRequest("true", outputs=("o",)), AT, "o would be moved by the client"),
        (JobRequest("true", workdir_outputs=("w",)), AT, "w would be moved by the client"),
        (JobRequest("true"), Travel(), "over a queue nobody is asked"),
    ],
    ids=["output", "workdir output", "no jobs_directory"],
)
def test_results_and_places(server: QueueServer, wanted: JobRequest, travel: Travel, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        run_job(server, wanted, travel=travel)


def test_a_described_job_whose_results_the_client_would_look_for(server: QueueServer, tmp_path: Path) -> None:
    found = JobDescription("true", ClientOutputs(str(tmp_path), dynamic_outputs=(".*",)))
    with pytest.raises(BadRequest, match="over a queue it moves no files"):
        run_described(server, found, travel=AT)
    named = JobDescription("true", ClientOutputs(str(tmp_path), output_files=("/data/o",)))
    with pytest.raises(BadRequest, match="/data/o would be moved by the client"):
        run_described(server, named, travel=AT)


# -- a whole life ---------------------------------------------------------------------------------------------------


def told_after(peer: FarEnd, kind: Kind, update: dict[str, Any]) -> threading.Thread:
    """Tell an update when a message of a kind has come."""

    def tell() -> None:
        wait_until(lambda: peer.of(kind), f"a message for {kind}")
        peer.tell(update, "mine")

    thread = threading.Thread(target=tell)
    thread.start()
    return thread


@pytest.mark.parametrize("tells", [True, False], ids=["with a receipt", "listings only"])
def test_results_that_the_job_did_not_write_are_missing(server: QueueServer, peer: FarEnd, tells: bool) -> None:
    written = FileRecord(False, "output", "a", FileState.WHOLE, "server", "remote_copy", path="there", size_bytes=2)
    absent = FileRecord(False, "output", "b", FileState.NOT_WRITTEN, "server", "remote_copy")
    receipt = receipt_document("j1", "_default_", "/srv/jobs/j1", "complete", [written, absent])
    update = over("j1", outputs_directory_contents=["a"], **({"receipt": receipt} if tells else {}))
    thread = told_after(peer, Kind.SETUP, update)
    travel = Travel(Mapper(default_action="remote_copy"), jobs_directory="/srv/jobs")
    outcome = run_job(server, JobRequest("true", outputs=("/x/a", "/x/b")), job_id="j1", travel=travel)
    thread.join()
    assert outcome.missing == ("b",)
    assert [record.path for record in outcome.records if record.state is FileState.WHOLE] == (["/x/a"] if tells else [])


def test_a_receipt_that_was_not_told(server: QueueServer) -> None:
    with pytest.raises(PeerRefused) as caught:
        server.receipt("j1")
    assert caught.value.status == 404


def test_what_interrupts_a_job_kills_it(server: QueueServer, peer: FarEnd) -> None:
    def stop(event: object) -> None:
        if type(event).__name__ == "StateChanged":
            raise KeyboardInterrupt

    threads = [
        told_after(peer, Kind.SETUP, {"job_id": "j1", "status": "running", "complete": "false"}),
        told_after(peer, Kind.KILL, {"job_id": "j1", "status": "cancelled", "complete": "true"}),
    ]
    with pytest.raises(KeyboardInterrupt):
        run_job(server, JobRequest("true"), job_id="j1", travel=AT, on_event=stop)
    assert server.status("j1").state == "cancelled"
    for thread in threads:
        thread.join()


def test_names_of_queues_for_jobs() -> None:
    assert reply_name("run-1") == "run-1"
    assert reply_name("jöb") == reply_name("jöb") != reply_name("jäb")
    assert len(reply_name("x" * 200)) == 64
