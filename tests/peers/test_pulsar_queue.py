"""Pulsar's client over a real RabbitMQ, unmodified, from two releases, against `lwr serve`: its self-test, and what
Galaxy's runner does with it when something goes wrong.

With full counts the self-test runs against Pulsar's own server as well: that it passes there is what it is worth here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from benchmarks import servers
from benchmarks.galaxy_queue import depth

from tests.conftest import FULL
from tests.machines.job_files import JobFilesServer
from tests.machines.rabbitmq import RabbitMQ
from tests.peers.queue_runner import QueueRunner
from tests.peers.test_pulsar_check import run_peer
from tests.peers.test_pulsar_staging import ALL_OPTIONS
from tests.support import RunningServer, wait_until

pytestmark = [pytest.mark.peer, pytest.mark.timeout(180)]

KEY = "7f-a-key-of-the-queue-f7"
CHECK = Path(__file__).with_name("drive_queue_check.py")
MANAGER = "[manager:{name}]\ntype = queued_python\nnum_concurrent_jobs = 2\n"
COPY = "cat $in > $out"
ACKNOWLEDGE = {"amqp_acknowledge": True}
PREFIX = {"amqp_key_prefix": "site_7"}


@dataclass(frozen=True)
class Way:
    """One way to be connected: options of the client, and of the server, which take the same ones."""

    client: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    tls: bool = False
    manager: str = "_default_"
    action: str = "remote_transfer"

    def queue(self, kind: str) -> str:
        name = "" if self.manager == "_default_" else f"{self.manager}_"
        return f"{self.server.get('amqp_key_prefix') or f'pulsar_{name}'}_{kind}"


WAYS = {
    "plain": Way(),
    "tus": Way(action="remote_transfer_tus"),
    "copied-by-the-server": Way(action="remote_copy"),
    "named-manager": Way(manager="second"),
    "key-prefix": Way(PREFIX, PREFIX),
    "acknowledge": Way(ACKNOWLEDGE, ACKNOWLEDGE),
    "acknowledge-by-the-client-alone": Way(ACKNOWLEDGE),
    "acknowledge-by-the-server-alone": Way({}, ACKNOWLEDGE),
    "tls": Way(tls=True),
    "tls-and-acknowledge": Way(ACKNOWLEDGE, ACKNOWLEDGE, tls=True),
}


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy"
    disk.mkdir()
    with JobFilesServer(disk, KEY) as files:
        yield files


# -- its self-test ---------------------------------------------------------------------------------------------------


def connection(broker: RabbitMQ, vhost: str, way: Way) -> tuple[str, dict[str, str]]:
    """The URL, and the options that belong to it."""
    if not way.tls:
        return broker.url(vhost), {}
    return broker.url(vhost, port=broker.mutual_tls_port), {
        "amqp_connect_ssl_ca_certs": str(broker.ca_pem),
        "amqp_connect_ssl_certfile": str(broker.client_pem),
        "amqp_connect_ssl_keyfile": str(broker.client_key),
        "amqp_connect_ssl_cert_reqs": "cert_required",
    }


def has_queues(broker: RabbitMQ, vhost: str, way: Way) -> None:
    """Wait until the server has declared all that it takes messages from."""
    wanted = {way.queue(kind) for kind in ("kill", "setup", "status")}
    wait_until(lambda: wanted <= broker.queue_depths(vhost).keys(), "the server's queues")


@contextmanager
def lwr_serves(broker: RabbitMQ, vhost: str, way: Way, directory: Path) -> Iterator[Path]:
    """Ours; its staging directory."""
    url, tls = connection(broker, vhost, way)
    lines = "".join(f"{name} = {value}\n" for name, value in {"message_queue_url": url, **tls, **way.server}.items())
    with RunningServer(directory, managers=MANAGER.format(name=way.manager), options=lines) as server:
        has_queues(broker, vhost, way)
        yield server.staging
    for secret in (KEY, broker.password):
        assert secret not in server.log()


@contextmanager
def pulsar_serves(broker: RabbitMQ, vhost: str, way: Way, directory: Path) -> Iterator[Path]:
    """Pulsar's own; its staging directory."""
    url, tls = connection(broker, vhost, way)

    def takes_jobs() -> bool:
        return depth(broker.url(vhost), way.queue("setup"))[1] > 0

    options = {**tls, **way.server}
    with servers.pulsar_of_queue(directory, url, takes_jobs, manager=way.manager, options=options):
        yield directory / "files"


SERVERS = {"lwr": lwr_serves, "pulsar": pulsar_serves}


@pytest.mark.parametrize("which", SERVERS if FULL else ["lwr"])
@pytest.mark.parametrize("name", WAYS)
def test_the_self_test(
    peer: Path, name: str, which: str, broker: RabbitMQ, galaxy: JobFilesServer, job_id: str, tmp_path: Path
) -> None:
    way, vhost = WAYS[name], broker.vhost()
    url, tls = connection(broker, vhost, way)
    # Where a client that wants acknowledgements keeps what it sent and what it heard.
    kept = tmp_path / "client"
    more = {"manager": way.manager, "persistence_directory": str(kept), **tls, **way.client}
    with SERVERS[which](broker, vhost, way, tmp_path / "server") as staging:
        check = {
            "manager_url": url,
            "jobs_directory": str(staging),
            "files_endpoint": galaxy.endpoint,
            "default_file_action": way.action,
            "job_id": job_id,
            "suppress_output": False,
            **ALL_OPTIONS,
        }
        run_peer([peer / "python", CHECK, json.dumps(check), json.dumps(more)], galaxy.root)
        wait_until(lambda: not any(broker.queue_depths(vhost).values()), "all messages to be taken")
    assert (galaxy.counts()["GET", "files"] >= 9) == (way.action != "remote_copy")
    if way.client:
        acknowledged(kept / f"amqp_ack-{way.manager}", way)


def acknowledged(kept: Path, way: Way) -> None:
    if "amqp_acknowledge" in way.client:
        assert list((kept / "publish").iterdir()) == [], "sent, and never acknowledged by the server"
        updates_count = len(list((kept / "consume").iterdir()))
        assert (updates_count >= 1) == bool(way.server), "updates that wanted to be acknowledged"


def test_the_queue_and_http_at_once(
    peer: Path, broker: RabbitMQ, galaxy: JobFilesServer, job_id: str, tmp_path: Path
) -> None:
    vhost = broker.vhost()
    url = broker.url(vhost)
    with RunningServer(tmp_path / "server", options=f"message_queue_url = {url}\n") as server:
        has_queues(broker, vhost, Way())
        runner_options = {
            "manager_url": url,
            "jobs_directory": str(server.staging),
            "files_endpoint": galaxy.endpoint,
            "default_file_action": "remote_transfer",
            "job_id": f"{job_id}-queue",
            "suppress_output": False,
        }
        run_peer([peer / "python", CHECK, json.dumps(runner_options), "{}"], galaxy.root)
        run_peer([peer / "pulsar-check", "--url", server.url, "--job_id", f"{job_id}-http"], tmp_path)


# -- when something goes wrong ---------------------------------------------------------------------------------------


@dataclass
class Scene:
    """Galaxy's runner, a broker and our server, which is not started yet."""

    runner: QueueRunner
    server: RunningServer
    broker: RabbitMQ
    vhost: str
    runs: Path

    def start(self) -> None:
        """Until its queues are there as well: nobody else declares them, and what comes before that is lost."""
        self.server.start()
        has_queues(self.broker, self.vhost, Way())

    def counted(self, job_id: str) -> str:
        """A command that copies its input, and leaves a word of each time that it runs."""
        return f"echo {job_id} >> {self.runs}; {COPY}"

    def ran(self, job_id: str) -> int:
        """How often the job's command was begun."""
        return self.runs.read_text().split().count(job_id) if self.runs.exists() else 0

    def waiting(self, kind: str) -> int | None:
        return self.broker.queue_depths(self.vhost).get(f"pulsar__{kind}")

    def settle(self) -> None:
        """Wait until all that was published was handled, and a message of ours after it as well."""
        asked = f"settled-{len(self.runner.told())}"
        self.runner.ask(asked)
        self.runner.wait(asked, ["lost"])


@pytest.fixture
def scene(peer: Path, broker: RabbitMQ, galaxy: JobFilesServer, tmp_path: Path) -> Iterator[Scene]:
    vhost = broker.vhost()
    url = broker.url(vhost)
    server = RunningServer(tmp_path / "server", options=f"message_queue_url = {url}\n")
    destination = {
        "jobs_directory": str(server.staging),
        "files_endpoint": galaxy.endpoint,
        "default_file_action": "remote_transfer",
    }
    with QueueRunner(peer, {"amqp_url": url}, destination, galaxy.root) as runner:
        yield Scene(runner, server, broker, vhost, tmp_path / "runs")
    server.stop()


def held(gate: Path) -> str:
    """A command that copies its input, and ends when `gate` is there."""
    return f"{COPY}; until [ -e {gate} ]; do sleep 0.02; done"


def test_a_tool_error_is_a_complete_job(scene: Scene) -> None:
    scene.start()
    scene.runner.submit("tool-error", f"{COPY}; echo why >&2; exit 3")
    told = scene.runner.wait("tool-error", ["running", "complete"])
    assert (told["returncode"], told["stderr"].strip()) == (3, "why")
    assert scene.runner.result("tool-error").read_text() == "input of tool-error\n"


def test_failed_staging_is_told_with_a_sentence(scene: Scene, galaxy: JobFilesServer) -> None:
    scene.start()
    scene.runner.submit("no-input", scene.counted("no-input"), files_endpoint=f"{galaxy.endpoint}-wrong")
    told = scene.runner.wait("no-input", ["failed"])
    assert told["complete"] == "true"
    assert told["returncode"] != 0
    assert "403" in told["stderr"]
    assert "no-input" in told["stderr"]
    assert KEY not in json.dumps(told)
    assert scene.ran("no-input") == 0


def test_a_job_is_killed_while_it_runs(scene: Scene, tmp_path: Path) -> None:
    scene.start()
    scene.runner.submit("killed", held(tmp_path / "never"))
    scene.runner.wait("killed", ["running"])
    scene.runner.kill("killed")
    scene.runner.wait("killed", ["running", "cancelled"])
    scene.runner.kill("killed")
    scene.settle()
    assert scene.runner.states("killed") == ["running", "cancelled"]


def test_a_job_that_was_killed_before_the_server_started_never_runs(scene: Scene) -> None:
    scene.start()
    scene.server.stop()
    scene.runner.submit("too-late", scene.counted("too-late"))
    scene.runner.kill("too-late")
    assert (scene.waiting("setup"), scene.waiting("kill")) == (1, 1)
    scene.start()
    scene.runner.wait("too-late", ["cancelled"])
    scene.settle()
    assert (scene.ran("too-late"), scene.runner.states("too-late")) == (0, ["cancelled"])


def test_a_question_is_answered(scene: Scene, tmp_path: Path) -> None:
    """Releases up to 0.15.15 publish it to the queue for set-ups."""
    scene.start()
    scene.runner.submit("asked", held(tmp_path / "gate"))
    scene.runner.wait("asked", ["running"])
    scene.runner.ask("asked")
    scene.runner.wait("asked", ["running", "running"])
    (tmp_path / "gate").touch()
    scene.runner.wait("asked", ["running", "running", "complete"])
    scene.runner.ask("asked")
    scene.runner.wait("asked", ["running", "running", "complete", "complete"])
    assert scene.runner.updates("asked")[-1] == scene.runner.updates("asked")[-2]
    scene.runner.ask("nobody")
    assert scene.runner.wait("nobody", ["lost"])["complete"] == "true"


def test_what_is_published_before_the_server_was_ever_there_is_lost_and_afterwards_waits(scene: Scene) -> None:
    """Pulsar's clients declare no queue to which they publish: the broker drops it, and nobody is told."""
    scene.runner.submit("dropped", scene.counted("dropped"))
    assert scene.waiting("setup") is None
    scene.start()
    scene.server.stop()
    scene.runner.submit("waits", scene.counted("waits"))
    assert scene.waiting("setup") == 1
    scene.start()
    scene.runner.wait("waits", ["running", "complete"])
    assert (scene.ran("waits"), scene.ran("dropped"), scene.runner.states("dropped")) == (1, 0, [])


def test_a_failed_job_is_sent_again(scene: Scene, galaxy: JobFilesServer) -> None:
    """The same words once more, which are a new attempt after a failure and a repeat after success."""
    scene.start()
    galaxy.active = False
    scene.runner.submit("again", scene.counted("again"))
    scene.runner.wait("again", ["failed"])
    galaxy.active = True
    scene.runner.submit("again", scene.counted("again"))
    told = scene.runner.wait("again", ["failed", "running", "complete"])
    assert told["returncode"] == 0
    assert scene.runner.result("again").read_text() == "input of again\n"
    scene.runner.submit("again", scene.counted("again"))
    scene.runner.wait("again", ["failed", "running", "complete", "complete"])
    assert scene.runner.updates("again")[-1] == told
    assert scene.ran("again") == 1


def test_other_words_for_the_same_job_are_the_newer_ones(scene: Scene, tmp_path: Path) -> None:
    scene.start()
    scene.runner.submit("twice", held(tmp_path / "never"))
    scene.runner.wait("twice", ["running"])
    scene.runner.submit("twice", f"{scene.counted('twice')}; echo newer >> $out")
    wait_until(lambda: "complete" in scene.runner.states("twice"), "the newer one to be over")
    scene.settle()
    assert scene.runner.states("twice")[-1] == "complete"
    assert scene.runner.states("twice").count("complete") == 1
    assert scene.runner.result("twice").read_text() == "input of twice\nnewer\n"
    assert scene.ran("twice") == 1
