"""The dialect of the LWR of 2014 over a real broker, spoken by hand: its exchange, its queues, its bodies, and updates
of which a Galaxy of that time understands every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.machines.job_files import JobFilesServer
from tests.machines.queue_peer import QueuePeer
from tests.machines.rabbitmq import RabbitMQ
from tests.support import RunningServer, wait_until

KEY = "c3d4"
MANAGERS = "[manager:_default_]\ntype = queued_python\n[manager:foo]\ntype = unqueued\n"
UPDATES = {"_default_": "lwr__status_update", "foo": "lwr_foo__status_update"}


@dataclass
class Scene:
    broker: RabbitMQ
    vhost: str
    galaxy: JobFilesServer
    peer: QueuePeer
    server: RunningServer

    def set_up(self, job_id: str, command_line: str, *, endpoint: str = "") -> dict[str, Any]:
        """A set-up as that Galaxy published it, with an input that is there and one output."""
        endpoint, source = endpoint or self.galaxy.endpoint, self.galaxy.root / "d.dat"
        source.write_text("data\n")
        fetched = {
            "action_type": "remote_transfer",
            "path": str(source),
            "url": f"{endpoint}&path={source}&file_type=input",
        }
        return {
            "job_id": job_id,
            "command_line": command_line,
            "setup_params": {"job_id": job_id, "tool_id": "t", "tool_version": "1"},
            "remote_staging": {
                "setup": [{"name": "d.dat", "type": "input", "action": fetched}],
                "action_mapper": {"default_action": "remote_transfer", "files_endpoint": endpoint, "paths": []},
                "client_outputs": {
                    "working_directory": str(self.galaxy.root / "jwd"),
                    "output_files": [str(self.galaxy.root / "dataset_2.dat")],
                    "work_dir_outputs": [],
                    "version_file": None,
                },
            },
        }

    def told(self, job_id: str, manager: str = "_default_") -> list[dict[str, Any]]:
        return [message.value for message in self.peer.told(UPDATES[manager], job_id)]

    def wait(self, job_id: str, *states: str, manager: str = "_default_") -> dict[str, Any]:
        """The last update, as soon as these are the states that were told."""

        def now() -> list[str]:
            return [update["status"] for update in self.told(job_id, manager)]

        wait_until(lambda: len(now()) >= len(states), f"{job_id} to be told {states}")
        assert now() == list(states)
        return self.told(job_id, manager)[-1]


@pytest.fixture
def scene(broker: RabbitMQ, tmp_path: Path) -> Iterator[Scene]:
    disk, vhost = tmp_path / "galaxy", broker.vhost()
    disk.mkdir()
    options = f"message_queue_url = {broker.url(vhost)}\n"
    with (
        JobFilesServer(disk, KEY) as galaxy,
        QueuePeer(broker.url(vhost), "lwr", UPDATES.values()) as peer,
        RunningServer(tmp_path / "server", managers=MANAGERS, options=options) as server,
    ):
        # Of that Galaxy, too, nobody declares what is published to.
        wait_until(lambda: {"lwr__kill", "lwr_foo__status"} <= broker.queue_depths(vhost).keys(), "the server's queues")
        yield Scene(broker, vhost, galaxy, peer, server)


@pytest.mark.parametrize("manager", UPDATES)
def test_a_job(scene: Scene, manager: str) -> None:
    queue = UPDATES[manager].replace("status_update", "setup")
    scene.peer.publish(queue, scene.set_up("1", "cat ../inputs/d.dat > ../outputs/dataset_2.dat; echo hi"))
    complete = scene.wait("1", "running", "complete", manager=manager)
    assert scene.told("1", manager)[0] == {"complete": "false", "status": "running", "job_id": "1"}
    directory = scene.server.staging / "1"
    assert (
        complete
        | {
            "complete": "true",
            "status": "complete",
            "job_id": "1",
            "returncode": 0,
            "stdout": "hi\n",
            "stderr": "",
            "working_directory": str(directory / "working"),
            "working_directory_contents": [],
            "outputs_directory_contents": ["dataset_2.dat"],
            "system_properties": {"separator": "/"},
        }
        == complete
    )
    assert (scene.galaxy.root / "dataset_2.dat").read_text() == "data\n"


def test_failed_is_not_complete(scene: Scene) -> None:
    """So that Galaxy did not collect what never was there; the reason and the rest of the keys are ours."""
    scene.peer.publish("lwr__setup", scene.set_up("2", "true", endpoint=f"{scene.galaxy.endpoint}-wrong"))
    failed = scene.wait("2", "failed")
    assert failed["complete"] == "false"
    assert "403" in failed["stderr"]
    assert KEY not in failed["stderr"]


def test_a_kill_is_answered(scene: Scene, tmp_path: Path) -> None:
    scene.peer.publish("lwr__setup", scene.set_up("3", f"until [ -e {tmp_path}/never ]; do sleep 0.02; done"))
    scene.wait("3", "running")
    scene.peer.publish("lwr__kill", {"job_id": "3"})
    scene.wait("3", "running", "cancelled")
    scene.peer.publish("lwr__kill", {"job_id": ""}, {"job_id": "nobody"})
    scene.peer.publish("lwr__setup", scene.set_up("4", "true"))
    scene.wait("4", "running", "complete")
    assert scene.told("nobody") == []
    # What names no job is kept for the admin.
    waiting = {name: count for name, count in scene.broker.queue_depths(scene.vhost).items() if count}
    assert waiting == {"lwr_dead": 1}


def test_the_other_dialect_hears_nothing_of_it(scene: Scene) -> None:
    scene.peer.publish("lwr__setup", scene.set_up("5", "true"))
    scene.wait("5", "running", "complete")
    wait_until(lambda: not any(scene.broker.queue_depths(scene.vhost).values()), "all to be taken")
    with QueuePeer(scene.broker.url(scene.vhost), "pulsar", ["pulsar__status_update"]) as other:
        other.publish("pulsar__status", {"request": "status", "job_id": "5"})
        wait_until(lambda: other.told("pulsar__status_update", "5"), "the answer in the dialect of the question")
        assert len(other.heard("pulsar__status_update")) == 1
    scene.wait("5", "running", "complete")
