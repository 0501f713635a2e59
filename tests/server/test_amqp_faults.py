"""P10: each thing that can happen to a broker, a line to it or the server, alone: what waits is sent, nothing is lost.

After each the server has as many threads as before, has said little, and no password.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from lwr.core.messages import DEAD, Dialect, Kind
from lwr.transfer.broker import peek
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.rabbitmq import RabbitMQ
from tests.server.test_amqp import Client, in_ini, serving
from tests.support import RunningServer, wait_until

# Brokers take their time to stop and start.
pytestmark = pytest.mark.timeout(240)

#: So that silence is noticed soon.
QUICK = "amqp_heartbeat = 1\namqp_connect_timeout = 3\namqp_publish_timeout = 3\n"
#: What a broker refuses is tried again more and more seldom, until every half a minute.
REFUSED_S = 90.0
#: Of each dialect, where messages are said again.
JOBS = 12
ENDS = ("complete", "failed", "cancelled", "lost")
#: More than one trouble and its end say, and fewer than one that is told again and again.
MOST_LINES = 40

# As a client would that acknowledges what it never got: the broker closes its channel.
_CLOSE_CHANNELS = """
    [gen_server2:cast(Channel, {method, {'basic.ack', 999, false}, none, noflow}) || Channel <- rabbit_channel:list()]
"""
_CLOSE_CONNECTIONS = '[rabbit_networking:close_connection(C, "a test") || C <- rabbit_networking:connections()]'
_DISALLOW = 'ok = rabbit_auth_backend_internal:clear_permissions(<<"lwr">>, <<"{vhost}">>, <<"tests">>)'
_ALLOW = """
    ok = rabbit_auth_backend_internal:set_permissions(
        <<"lwr">>, <<"{vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
"""
_DELETE_HOST = 'ok = rabbit_vhost:delete(<<"{vhost}">>, <<"tests">>)'
_MAKE_HOST = 'ok = rabbit_vhost:add(<<"{vhost}">>, <<"tests">>)'


class Gate:
    """Jobs that run until it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.command = f"while [ ! -e '{path}' ]; do sleep 0.05; done; echo done"

    def open(self) -> None:
        self._path.touch()

    def close(self) -> None:
        self._path.unlink()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def vhost(broker: RabbitMQ) -> str:
    return broker.vhost()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[RabbitMQ]:
    """One to be stopped."""
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        yield broker


@contextmanager
def a_client(url: str, dialect: Dialect = Dialect.PULSAR) -> Iterator[Client]:
    with closing(Client(url, dialect=dialect)) as client:
        yield client


@contextmanager
def beginning(directory: Path, url: str) -> Iterator[RunningServer]:
    """A server that cannot reach its broker: it answers, and says that it is not ready."""
    server = RunningServer(directory, options=f"message_queue_url = {in_ini(url)}\n{QUICK}")
    server.spawn()
    try:
        wait_until(lambda: "server ready" in server.log(), "the server to answer")
        wait_until(lambda: server.ask("GET", "readyz")[0] == 503, "the server to say that it is not ready")
        yield server
    finally:
        server.stop()


def queue_of(server: RunningServer) -> dict[str, Any]:
    status = server.ask_json("GET", "status")
    assert isinstance(status, dict)
    queue = status["queue"]
    assert isinstance(queue, dict)
    return queue


def away(server: RunningServer, link: str) -> str:
    """Why a link is away; empty while it stands."""
    return "" if (queue := queue_of(server))[link]["connected"] else str(queue[link]["reason"])


def stands(server: RunningServer) -> bool:
    return not away(server, "consumer") and not away(server, "publisher")


def threads(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.pid}/task").iterdir()))


@contextmanager
def unharmed(server: RunningServer, client: Client, broker: RabbitMQ) -> Iterator[None]:
    """What happens within leaves the server as it was, and able to run a job."""
    for _ in range(3):
        wait_until(lambda: stands(server), "both lines to stand")
        server.ask("GET", "readyz")
    client.setup("before")
    client.until("before", *ENDS)
    lines, before = server.log().count("\n"), threads(server)
    yield
    wait_until(lambda: stands(server), "both lines to stand again", deadline_s=REFUSED_S)
    told = server.log().count("\n") - lines
    client.setup("after")
    assert client.until("after", *ENDS)["status"] == "complete"
    wait_until(lambda: threads(server) <= before, "as many threads as before")
    jobs = len({update["job_id"] for update in client.updates})
    assert told <= MOST_LINES + 6 * jobs, server.log()
    assert broker.password not in server.log()
    assert queue_of(server)["waiting"] == 0


# -- the broker --------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_away_at_the_start(tmp_path: Path, own_broker: RabbitMQ) -> None:
    own_broker.stop()
    with beginning(tmp_path, own_broker.url()) as server:
        assert b'"broker": "away"' in server.ask("GET", "readyz")[1]
        wait_until(lambda: "Nobody listens" in away(server, "consumer"), "the reason to be told")
        assert "Nobody listens" in server.log()
        own_broker.start()
        with a_client(own_broker.url()) as client:
            client.setup("1")
            client.until("1", "complete")
            wait_until(lambda: server.ask("GET", "readyz")[0] == 200, "the server to be ready")
        assert own_broker.password not in server.log()


@pytest.mark.parametrize("end", [RabbitMQ.stop, RabbitMQ.kill])
def test_a_broker_that_restarts_while_jobs_run_and_updates_wait(
    tmp_path: Path, own_broker: RabbitMQ, gate: Gate, end: Callable[[RabbitMQ], None]
) -> None:
    names = [str(number) for number in range(50)]
    url = own_broker.url(own_broker.vhost())
    managers = "[manager:_default_]\ntype = queued_python\nnum_concurrent_jobs = 60\n"
    server = RunningServer(tmp_path, managers=managers, options=f"message_queue_url = {in_ini(url)}\n{QUICK}")
    with server, a_client(url) as client, unharmed(server, client, own_broker):
        end(own_broker)  # idle
        own_broker.start()
        for name in names:
            client.setup(name, gate.command)
        for name in names:
            client.until(name, "running")
        end(own_broker)
        gate.open()
        wait_until(lambda: queue_of(server)["waiting"] == 50, "50 updates to wait")
        own_broker.start()
        for name in names:
            client.until(name, "complete")
        for name in names:  # of a broker that was killed some may come again
            assert list(dict.fromkeys(client.states(name))) == ["running", "complete"]


def test_memory_that_is_short_while_updates_wait(tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate) -> None:
    with (
        serving(tmp_path, broker.url(vhost), QUICK) as server, a_client(broker.url(vhost)) as client,
        unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        broker.block()
        try:
            gate.open()
            wait_until(lambda: "short of memory" in away(server, "publisher"), "the alarm to be told")
            assert queue_of(server)["waiting"] == 1
        finally:
            broker.unblock()
        client.until("1", "complete")
        assert client.states("1") == ["running", "complete"]


@pytest.mark.parametrize("kind", [Kind.SETUP, Kind.KILL, Kind.STATUS_UPDATE])
def test_queues_that_are_deleted_under_the_server(
    tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate, kind: Kind
) -> None:
    with (
        serving(tmp_path, broker.url(vhost), QUICK) as server, a_client(broker.url(vhost)) as client,
        unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        broker.delete_queue(vhost, client.queue(kind).queue)
        gate.open()
        client.until("1", "complete")


def test_channels_that_the_broker_closes(tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate) -> None:
    with (
        serving(tmp_path, broker.url(vhost), QUICK) as server, a_client(broker.url(vhost)) as client,
        unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        broker.evaluate(_CLOSE_CHANNELS)
        wait_until(lambda: "took back" in server.log(), "the broker's reason to be told")
        gate.open()
        client.until("1", "complete")
        assert client.states("1") == ["running", "complete"]


@pytest.mark.crash
@pytest.mark.timeout(180)
def test_permissions_that_are_taken_away_and_given_back(
    tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate
) -> None:
    with (
        serving(tmp_path, broker.url(vhost), QUICK) as server, a_client(broker.url(vhost)) as client,
        unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        broker.evaluate(_DISALLOW.format(vhost=vhost))
        broker.evaluate(_CLOSE_CONNECTIONS)
        gate.open()
        wait_until(lambda: "list_permissions" in away(server, "publisher"), "the reason, and what to do, to be told")
        wait_until(lambda: queue_of(server)["waiting"] == 1, "the update to wait")
        broker.evaluate(_ALLOW.format(vhost=vhost))
        wait_until(lambda: "complete" in client.states("1"), "its end", deadline_s=REFUSED_S)
        assert client.states("1") == ["running", "complete"]


@pytest.mark.crash
@pytest.mark.timeout(180)
def test_a_virtual_host_that_is_deleted_and_made_again(
    tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate
) -> None:
    with (
        serving(tmp_path, broker.url(vhost), QUICK) as server, a_client(broker.url(vhost)) as client,
        unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        broker.evaluate(_DELETE_HOST.format(vhost=vhost))
        gate.open()
        wait_until(lambda: queue_of(server)["waiting"] == 1, "the update to wait")
        wait_until(lambda: "virtual host" in away(server, "publisher"), "the reason to be told")
        broker.evaluate(_MAKE_HOST.format(vhost=vhost))
        broker.evaluate(_ALLOW.format(vhost=vhost))
        wait_until(lambda: "complete" in client.states("1"), "its end", deadline_s=REFUSED_S)
        assert client.states("1") == ["running", "complete"]


@pytest.mark.crash
@pytest.mark.timeout(180)
def test_a_certificate_that_is_exchanged(tmp_path: Path, gate: Gate) -> None:
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        ca_pem = tmp_path / "ca.pem"
        ca_pem.write_bytes(broker.ca_pem.read_bytes())
        options = f"{QUICK}amqp_connect_ssl_ca_certs = {ca_pem}\n"
        with (
            serving(tmp_path, broker.tls_url(), options) as server, a_client(broker.url()) as client,
            unharmed(server, client, broker),
        ):  # fmt: skip
            client.setup("1", gate.command)
            client.until("1", "running")
            other = trustme.CA()
            certificate = other.issue_cert("localhost", "127.0.0.1")
            certificate.cert_chain_pems[0].write_to_path(tmp_path / "rabbitmq" / "server.pem")
            certificate.private_key_pem.write_to_path(tmp_path / "rabbitmq" / "server.key")
            broker.evaluate("ssl:clear_pem_cache()")
            broker.evaluate(_CLOSE_CONNECTIONS)
            gate.open()
            wait_until(lambda: "not trusted" in away(server, "publisher"), "the reason to be told")
            other.cert_pem.write_to_path(ca_pem)
            wait_until(lambda: "complete" in client.states("1"), "its end", deadline_s=REFUSED_S)
            assert client.states("1") == ["running", "complete"]


def test_a_password_that_is_wrong_until_the_server_restarts(tmp_path: Path, broker: RabbitMQ, vhost: str) -> None:
    broker.add_user("worker", "right-one", vhost, configure=".*", write=".*", read=".*")
    with a_client(broker.url(vhost)) as client:
        client.setup("1")
        with beginning(tmp_path, broker.url(vhost, user="worker:wrong-one")) as server:
            wait_until(lambda: "refuses the login" in away(server, "consumer"), "the reason to be told")
            assert b"wrong-one" not in server.ask("GET", "readyz")[1]
        with serving(tmp_path, broker.url(vhost, user="worker:right-one"), QUICK) as server:
            client.until("1", "complete")
        assert "right-one" not in server.log()
        assert "wrong-one" not in server.log()


# -- the line ----------------------------------------------------------------------------------------------------------


def test_a_line_that_is_half_open(tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate) -> None:
    with (
        FaultProxy(broker.port) as proxy, serving(tmp_path, broker.url(vhost, port=proxy.port), QUICK) as server,
        a_client(broker.url(vhost)) as client, unharmed(server, client, broker),
    ):  # fmt: skip
        client.setup("1", gate.command)
        client.until("1", "running")
        proxy.freeze()
        gate.open()
        client.setup("2")
        wait_until(lambda: away(server, "consumer") and away(server, "publisher"), "the silence to be noticed")
        proxy.thaw()
        client.until("1", "complete")
        client.until("2", "complete")
        assert list(dict.fromkeys(client.states("1"))) == ["running", "complete"]
        assert len(set(client.bodies)) == len({(one["job_id"], one["status"]) for one in client.updates})


def test_a_line_that_is_slow(tmp_path: Path, broker: RabbitMQ, vhost: str) -> None:
    slow = Fault(delay_s=0.5, down_bytes_per_s=4000)
    with (
        FaultProxy(broker.port, otherwise=slow) as proxy,
        serving(tmp_path, broker.url(vhost, port=proxy.port)) as server,
        a_client(broker.url(vhost)) as client, unharmed(server, client, broker),
    ):  # fmt: skip
        for name in "123":
            client.setup(name, "echo hi # " + "x" * 1000)
        for name in "123":
            client.until(name, "complete")
            assert client.states(name) in (["running", "complete"], ["complete"])


# -- the server --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point",
    [
        "setup.before_commit", "setup.after_commit", "submit.before_commit", "submit.after_commit",
        "message.after_commit", "message.after_commit:2", "message.before_acknowledgement",
        "message.before_acknowledgement:2", "outbox.after_body", "outbox.after_body:3", "publish.before_confirm",
        "publish.before_confirm:3", "outbox.after_publish", "outbox.after_publish:3",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_server_that_is_killed_between_any_two_steps(
    tmp_path: Path, broker: RabbitMQ, vhost: str, point: str, dialect: Dialect
) -> None:
    server = RunningServer(tmp_path, options=f"message_queue_url = {in_ini(broker.url(vhost))}")
    effects = [tmp_path / f"effects-{number}" for number in (1, 2, 3)]
    asked = {"acknowledge_uuid": "a-name", "acknowledge_queue": "setup_ack", "acknowledge_submit_queue": "setup"}
    with a_client(broker.url(vhost), dialect) as client:
        for number, more, path in zip("123", (asked, {}, {}), effects, strict=True):
            client.setup(number, f"echo x >> {path}; exit {number}", **more)
        client.publish(Kind.KILL, {"job_id": "3"})
        server.spawn(fault=point)
        server.wait()
        with server:
            ends = [client.until(number, *ENDS) for number in "123"]
            client.setup("4")
            client.until("4", *ENDS)
            wait_until(lambda: not sum(broker.queue_depths(vhost).values()) - acks(client), "empty queues")
            assert queue_of(server)["waiting"] == 0
        states = [end["status"] for end in ends]
        assert states[:2] == ["complete", "complete"]
        assert states[2] in ("cancelled", "complete")
        assert [end.get("returncode") for end in ends[:2]] == [1, 2]
        assert [path.read_text() for path in effects[:2]] == ["x\n", "x\n"]
        assert (effects[2].read_text() if effects[2].exists() else "") in ("", "x\n")
        assert acks(client) >= 1
        assert peek(client.options, DEAD, 10) == []
        told: dict[tuple[str, str], set[bytes]] = {}
        for update, body in zip(client.updates, client.bodies, strict=True):
            told.setdefault((update["job_id"], update["status"]), set()).add(body)
        assert Counter(len(bodies) for bodies in told.values()).keys() == {1}
        assert Counter(job_id for job_id, status in told if status in ENDS) == Counter("1234")


def test_messages_shuffled_and_said_again_change_nothing(tmp_path: Path, broker: RabbitMQ, vhost: str) -> None:
    """P11: first all in any order, some of them more than once; when all is over, all of them again."""
    chance = random.Random(20140618)  # noqa: S311
    effects = tmp_path / "effects"
    effects.mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(serving(tmp_path, broker.url(vhost), QUICK))
        clients = [stack.enter_context(a_client(broker.url(vhost), dialect)) for dialect in Dialect]
        stream = [(client, kind, value) for client in clients for kind, value in messages(client.dialect, effects)]
        orders = [one for one in stream if one[1] is not Kind.STATUS]  # who asks too early hears that there is no job
        first = orders + chance.choices(orders, k=len(orders))
        chance.shuffle(first)
        for client, kind, value in first:
            client.publish(kind, value)
        for client in clients:
            for number in range(JOBS):
                client.until(f"{client.dialect}-{number}", "complete", "cancelled", "failed")
        wait_until(lambda: settled(server, broker, vhost), "all to be handled")
        before = outcome(server, effects)
        again = first + stream
        chance.shuffle(again)
        for client, kind, value in again:
            client.publish(kind, value)
        wait_until(lambda: settled(server, broker, vhost), "all to be handled again")
        assert outcome(server, effects) == before
        assert len(before[0]) == JOBS * 2
        assert set(before[1].values()) == {"x\n"}
        for client in clients:
            client.look()
            ends = {(one["job_id"], body) for one, body in zip(client.updates, client.bodies, strict=True)
                    if one["status"] in ("complete", "cancelled", "failed")}  # fmt: skip
            assert Counter(job_id for job_id, _ in ends).most_common(1)[0][1] == 1
        assert peek(clients[0].options, DEAD, 10) == []


def messages(dialect: Dialect, effects: Path) -> Iterator[tuple[Kind, dict[str, Any]]]:
    """Set-ups with and without names, questions, and a kill of each job that has a name and an even number."""
    for number in range(JOBS):
        job_id, has_name = f"{dialect}-{number}", number % 4 < 2
        more = {"acknowledge_uuid": f"set-up of {job_id}", "acknowledge_queue": "setup_ack"} if has_name else {}
        command = f"echo x >> '{effects / job_id}'; exit {number}"
        yield Kind.SETUP, {"job_id": job_id, "command_line": command, "setup_params": {"job_id": job_id}, **more}
        yield Kind.STATUS, {"request": "status", "job_id": job_id}
        if has_name and number % 2 == 0:
            yield Kind.KILL, {"job_id": job_id}


def settled(server: RunningServer, broker: RabbitMQ, vhost: str) -> bool:
    depths = broker.queue_depths(vhost)
    taken = not any(count for name, count in depths.items() if name.endswith(("_setup", "_kill", "_status")))
    return taken and queue_of(server)["waiting"] == 0


def outcome(server: RunningServer, effects: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The states of all attempts, and what their commands did."""
    jobs = server.ask_json("GET", "jobs?limit=1000")
    assert isinstance(jobs, dict)
    states = sorted((job["job_id"], job["state"]) for job in jobs["jobs"])
    return states, {path.name: path.read_text() for path in effects.iterdir()}


def acks(client: Client) -> int:
    """How often its one message with a name was acknowledged."""
    seen = peek(client.options, client.queue(Kind.SETUP_ACK), 100)
    assert {json.loads(delivery.body)["acknowledge_uuid_response"] for delivery in seen} <= {"a-name"}
    return len(seen)


def test_a_server_that_is_killed_after_it_took_a_kill(tmp_path: Path, broker: RabbitMQ, vhost: str, gate: Gate) -> None:
    server = RunningServer(tmp_path, options=f"message_queue_url = {in_ini(broker.url(vhost))}")
    with a_client(broker.url(vhost)) as client:
        client.setup("1", gate.command)
        server.start(fault="cancel.after_commit")
        client.until("1", "running")
        client.publish(Kind.KILL, {"job_id": "1"})
        server.wait()
        with server:
            client.until("1", "cancelled")
            client.setup("2")
            client.until("2", "complete")
        assert client.states("1") == ["running", "cancelled"]
