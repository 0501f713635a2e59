"""What the jobs of a manager tell reaches the callback at least once, over a real broker."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lwr.client.updates import MOST_BYTES, StatusListener
from lwr.core.messages import Dialect, Kind
from lwr.errors import BadRequest, LwrError, PeerUnreachable, TooLarge
from lwr.transfer.broker import BrokerOptions
from tests.client.far_end import FarEnd, far_end
from tests.machines.rabbitmq import RabbitMQ
from tests.support import DEADLINE_S, free_port, wait_until

RUNNING = {"job_id": "1", "status": "running", "complete": "false"}
OVER = {"job_id": "1", "status": "complete", "complete": "true", "returncode": 0}


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


def test_updates_come_in_order_and_are_acknowledged(
    broker: RabbitMQ, vhost: str, options: BrokerOptions, peer: FarEnd
) -> None:
    """Also those that were told before anybody listened."""
    peer.tell(RUNNING)
    heard: list[dict[str, Any]] = []
    with StatusListener(options, heard.append):
        peer.tell(OVER)
        wait_until(lambda: len(heard) == 2, "both updates")
        wait_until(lambda: broker.queue_depths(vhost)["lwr__status_update"] == 0, "the acknowledgements")
    assert heard == [RUNNING, OVER]


def test_an_update_is_the_brokers_until_the_callback_has_returned(
    broker: RabbitMQ, vhost: str, options: BrokerOptions, peer: FarEnd
) -> None:
    """Killed in the middle of the callback, a process is given the update again when it comes back."""
    peer.tell(RUNNING)
    program = (
        "import sys, time\n"
        "from lwr.client.updates import StatusListener\n"
        "from lwr.transfer.broker import BrokerOptions\n"
        "def hang(update): print(update['status'], flush=True); time.sleep(600)\n"
        f"StatusListener(BrokerOptions({options.url!r}), hang).start()\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE_S)
    heard: list[dict[str, Any]] = []
    with StatusListener(options, heard.append):
        wait_until(lambda: heard, "the update once more")
    assert heard == [RUNNING]


def test_a_callback_that_fails_loses_nothing_and_keeps_nobody_waiting(options: BrokerOptions, peer: FarEnd) -> None:
    heard: list[str] = []
    troubles: list[LwrError] = []
    well = threading.Event()

    def moody(update: dict[str, Any]) -> None:
        heard.append(update["job_id"])
        if update["job_id"] == "1" and not well.is_set():
            raise RuntimeError("not now")

    with StatusListener(options, moody, on_trouble=troubles.append):
        peer.tell(OVER)
        peer.tell({**OVER, "job_id": "2"})
        wait_until(lambda: "2" in heard, "the other's turn")
        assert heard[0] == "1"
        assert "not now" in troubles[0].message
        well.set()
        before = heard.count("1")
        wait_until(lambda: heard.count("1") > before, "the first one again")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"no json", "application/json"),
        (b"[1]", "application/json"),
        (b'{"status": "running"}', "application/json"),
        (b"\x80\x04.", "application/x-python-serialize"),
        (
            b'{"job_id": "1", "status": "running", "acknowledge_uuid": "u", "acknowledge_queue": "setup"}',
            "application/json",
        ),
    ],
)
def test_what_is_no_update_is_told_and_dropped(
    options: BrokerOptions, peer: FarEnd, body: bytes, content_type: str
) -> None:
    heard: list[dict[str, Any]] = []
    troubles: list[LwrError] = []
    peer.tell(body, content_type=content_type)
    peer.tell(OVER)
    with StatusListener(options, heard.append, on_trouble=troubles.append):
        wait_until(lambda: heard, "the update behind it")
    assert heard == [OVER]
    assert [type(error) for error in troubles] == [BadRequest]


def test_who_wants_to_hear_that_it_arrived_is_answered_afterwards(options: BrokerOptions) -> None:
    asked = {**OVER, "acknowledge_uuid": "u-1", "acknowledge_queue": "status_update_ack"}
    with far_end(options, Dialect.PULSAR, (Kind.STATUS_UPDATE_ACK,)) as peer:
        peer.tell(asked)
        counts: list[int] = []
        with StatusListener(options, lambda update: counts.append(len(peer.taken)), dialect=Dialect.PULSAR):
            wait_until(lambda: peer.taken, "the answer")
    assert counts == [0]
    assert peer.taken == [(Kind.STATUS_UPDATE_ACK, {"acknowledge_uuid_response": "u-1"})]


def test_messages_of_a_size_that_no_server_takes(options: BrokerOptions) -> None:
    with StatusListener(options, print) as listener, pytest.raises(TooLarge, match="are the most"):
        listener.post(Kind.SETUP, {"job_id": "x" * MOST_BYTES})


def test_a_broker_that_is_not_there_is_waited_for_and_told() -> None:
    troubles: list[LwrError] = []
    options = BrokerOptions(f"amqp://me:hidden@127.0.0.1:{free_port()}/")
    with StatusListener(options, print, on_trouble=troubles.append) as listener:
        wait_until(lambda: troubles, "the trouble")
        assert listener.away_s > 0
        with pytest.raises(PeerUnreachable):
            listener.post(Kind.KILL, {"job_id": "1"})
    assert all("hidden" not in str(error) for error in troubles)


def test_who_is_told_of_trouble_and_raises_ends_nothing(options: BrokerOptions, peer: FarEnd) -> None:
    heard: list[dict[str, Any]] = []

    def fail(error: LwrError) -> None:
        raise RuntimeError("a defect of the caller")

    peer.tell(b"no json")
    with StatusListener(options, heard.append, on_trouble=fail):
        peer.tell(OVER)
        wait_until(lambda: heard, "the update behind it")


def test_stopping_twice_and_unstarted(options: BrokerOptions) -> None:
    listener = StatusListener(options, print)
    listener.stop()
    listener.stop()


def test_threads_and_connections_are_as_many_whatever_there_is_to_do(
    broker: RabbitMQ, vhost: str, options: BrokerOptions, peer: FarEnd
) -> None:
    heard: list[dict[str, Any]] = []
    before = threading.active_count()
    with StatusListener(options, heard.append) as listener:
        for number in range(50):
            listener.post(Kind.SETUP, {"job_id": str(number)})
            peer.tell({**RUNNING, "job_id": str(number)})
        wait_until(lambda: len(heard) == 50, "all updates")
        assert threading.active_count() == before + 1
    assert [update["job_id"] for update in heard] == [str(number) for number in range(50)]
