"""`lwr serve` bound to a real RabbitMQ: messages in, updates out, whatever becomes of the broker and the server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lwr.core.messages import DEAD, Address, Dialect, Kind, address
from lwr.transfer.broker import BrokerOptions, Delivery, Letter, Publisher, peek, take
from tests.machines.rabbitmq import RabbitMQ
from tests.support import RunningServer, wait_until

JSON = "application/json"


class Client:
    """Somebody who speaks to a server over the queue, in bare messages."""

    def __init__(self, url: str, *, manager: str = "_default_", dialect: Dialect = Dialect.PULSAR) -> None:
        self.options = BrokerOptions(url)
        self.manager, self.dialect = manager, dialect
        self.updates: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self._publisher = Publisher(self.options, on_state=lambda state: None)

    def queue(self, kind: Kind) -> Address:
        return address(self.dialect, self.manager, kind)

    def publish(self, kind: Kind, value: Mapping[str, Any] | bytes, content_type: str = JSON) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self._publisher.publish(Letter(self.queue(kind), body, content_type))

    def setup(self, job_id: str, command: str = "echo hi", **more: Any) -> None:
        self.publish(
            Kind.SETUP, {"job_id": job_id, "command_line": command, "setup_params": {"job_id": job_id}, **more}
        )

    def _take(self, delivery: Delivery) -> None:
        self.bodies.append(delivery.body)
        self.updates.append(json.loads(delivery.body))

    def look(self) -> list[dict[str, Any]]:
        """All updates until now."""
        take(self.options, self.queue(Kind.STATUS_UPDATE), lambda _: True, self._take, limit=10_000)
        return self.updates

    def states(self, job_id: str) -> list[str]:
        return [update["status"] for update in self.look() if update["job_id"] == job_id]

    def until(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait for a job's end; returns its last update."""

        def found() -> dict[str, Any] | None:
            ends = [u for u in self.look() if u["job_id"] == job_id and u["status"] in states]
            return ends[-1] if ends else None

        return wait_until(found, f"job {job_id} to be {' or '.join(states)}")

    def close(self) -> None:
        self._publisher.close()


def in_ini(url: str) -> str:
    """A URL as it is written in an ini file."""
    return url.replace("%", "%%")


@contextmanager
def serving(directory: Path, url: str, options: str = "") -> Iterator[RunningServer]:
    with RunningServer(directory, options=f"message_queue_url = {in_ini(url)}\n{options}") as server:
        yield server


@pytest.fixture
def url(broker: RabbitMQ) -> str:
    return broker.url(broker.vhost())


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(url)
    yield client
    client.close()


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize("manager", ["_default_", "second"])
def test_a_job_over_the_queue(tmp_path: Path, url: str, dialect: Dialect, manager: str) -> None:
    client = Client(url, manager=manager, dialect=dialect)
    client.setup("1", "echo out; echo err >&2; exit 3")  # before the server was ever there
    with serving(tmp_path, url):
        last = client.until("1", "complete")
    assert client.states("1") in (["running", "complete"], ["complete"])
    assert (last["returncode"], last["stdout"], last["stderr"]) == (3, "out\n", "err\n")
    client.close()


def test_what_cannot_be_understood_is_kept_with_its_reason(tmp_path: Path, url: str, client: Client) -> None:
    with serving(tmp_path, url):
        client.publish(Kind.SETUP, b"\x80\x04}q\x00.", "application/x-python-serialize")
        client.setup("1")
        client.until("1", "complete")
        (dead,) = wait_until(lambda: peek(client.options, DEAD, 10), "the dead letter")
    assert dead.body == b"\x80\x04}q\x00."
    assert "application/x-python-serialize" in dead.headers["lwr-reason"]
    assert dead.headers["lwr-queue"] == "pulsar__setup"


def test_a_kill_before_the_server_is_there(tmp_path: Path, url: str, client: Client) -> None:
    marker = tmp_path / "ran"
    client.setup("1", f"touch {marker}")
    client.publish(Kind.KILL, {"job_id": "1"})
    client.setup("2")
    with serving(tmp_path, url):
        client.until("2", "complete")
        client.until("1", "cancelled", "complete")
    assert len(client.states("1")) == 1 or client.states("1") == ["running", "cancelled"]


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RabbitMQ]:
    """One to be stopped."""
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        yield broker


def test_updates_wait_for_a_broker_that_is_away(tmp_path: Path, own_broker: RabbitMQ) -> None:
    client = Client(own_broker.url())
    gate = tmp_path / "gate"
    with serving(tmp_path, own_broker.url()) as server:
        client.setup("1", f"while [ ! -e {gate} ]; do sleep 0.05; done; echo done")
        client.until("1", "running")
        own_broker.stop()
        gate.touch()
        wait_until(lambda: "state=complete" in server.log(), "the job's end")
        own_broker.start()
        last = client.until("1", "complete")
        assert last["stdout"] == "done\n"
        client.setup("2")
        client.until("2", "complete")
    assert client.states("1") == ["running", "complete"]
    assert own_broker.password not in server.log()
    client.close()


@pytest.mark.parametrize("point", ["submit.after_commit", "message.after_commit", "outbox.after_publish"])
def test_a_server_that_is_killed_in_between_loses_and_repeats_nothing(
    tmp_path: Path, url: str, client: Client, point: str
) -> None:
    count = tmp_path / "count"
    server = RunningServer(tmp_path, options=f"message_queue_url = {in_ini(url)}")
    client.setup("1", f"echo x >> {count}")
    server.spawn(fault=point)
    server.wait()
    with server:
        client.until("1", "complete")
        client.setup("2")
        client.until("2", "complete")
    assert count.read_text() == "x\n"
    assert {state for state in client.states("1") if state in ("complete", "failed", "lost", "cancelled")} == {
        "complete"
    }
    ends = {body for body, update in zip(client.bodies, client.updates, strict=True) if update["status"] == "complete"
            and update["job_id"] == "1"}  # fmt: skip
    assert len(ends) == 1


def test_the_status_tells_how_the_queue_is(tmp_path: Path, url: str) -> None:
    with serving(tmp_path, url) as server:

        def connected() -> bool:
            status = server.ask_json("GET", "status")
            assert isinstance(status, dict)
            return bool(status["queue"]["consumer"]["connected"] and status["queue"]["publisher"]["connected"])

        wait_until(connected, "both links")


def test_a_server_stops_soon_although_its_broker_has_frozen(tmp_path: Path, own_broker: RabbitMQ) -> None:
    client = Client(own_broker.url())
    gate = tmp_path / "gate"
    with serving(tmp_path, own_broker.url(), "amqp_publish_timeout = 600\namqp_heartbeat = 600") as server:
        client.setup("1", f"while [ ! -e {gate} ]; do sleep 0.05; done")
        client.until("1", "running")
        own_broker.freeze()
        try:
            gate.touch()
            wait_until(lambda: "state=complete" in server.log(), "the job's end")
            assert server.stop() == 0  # within the support's deadline, which is far below those options
        finally:
            own_broker.thaw()
    client.close()
