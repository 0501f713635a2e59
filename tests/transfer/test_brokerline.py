"""A line by itself: what a message may be without ending it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import amqp
import pytest

from lwr.errors import PeerUnreachable
from lwr.transfer.broker import BrokerOptions, Letter
from lwr.transfer.brokerline import Line
from tests.machines.rabbitmq import RabbitMQ
from tests.support import wait_until
from tests.transfer.mail import HERE


@pytest.fixture
def vhost(broker: RabbitMQ) -> str:
    return broker.vhost()


@pytest.fixture
def line(broker: RabbitMQ, vhost: str) -> Iterator[Line]:
    options = BrokerOptions(broker.url(vhost))
    with closing(Line(options, options.places[0])) as line:
        yield line


@pytest.mark.parametrize(
    "properties",
    [
        {"content_type": b"\xff\xfe"},
        {"message_id": b"\xc3\x28"},
        {"application_headers": {b"\xff": 1, "long": b"\xff\xfe" * 1000}},
        {"content_encoding": "utf-16", "application_headers": {"compression": "application/x-gzip"}},
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}"])
def test_a_message_with_odd_properties_is_handed_out_as_it_came(
    line: Line, broker: RabbitMQ, vhost: str, body: bytes, properties: dict[str, object]
) -> None:
    line.declare(HERE)
    with amqp.Connection(f"localhost:{broker.port}", "lwr", broker.password, virtual_host=vhost) as other:
        other.channel().basic_publish(amqp.Message(body, **properties), HERE.exchange, HERE.queue)
    delivery = wait_until(lambda: line.get(HERE), "the message")
    assert delivery.body == body
    assert delivery.content_type == ""
    assert all(isinstance(name, str) for name in delivery.headers)
    delivery.ack()
    assert line.publish([Letter(HERE, b"the line still stands")]) == [None]


def test_a_closed_line_says_so(line: Line) -> None:
    line.declare(HERE)
    assert line.publish([Letter(HERE, b"1")]) == [None]
    delivery = line.get(HERE)
    assert delivery is not None
    line.close()
    line.close()
    delivery.ack()
    assert not delivery.held
    with pytest.raises(PeerUnreachable, match="was closed"):
        line.drain(0)


def test_an_answer_that_does_not_come_is_not_waited_for_without_end(broker: RabbitMQ, vhost: str) -> None:
    options = BrokerOptions(broker.url(vhost), connect_timeout_s=0.5)
    with closing(Line(options, options.places[0])) as line:
        broker.freeze()
        try:
            with pytest.raises(PeerUnreachable, match=r"Declaring the queue lwr__setup failed.*did not answer in time"):
                line.declare(HERE)
        finally:
            broker.thaw()
