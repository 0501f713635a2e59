"""The broker of the tests: it is one of its own, is alone with its data, and survives what tests do to it."""

from __future__ import annotations

import ssl
from pathlib import Path

import kombu
import pytest
from amqp.exceptions import AccessRefused

from tests.machines.rabbitmq import RabbitMQ

QUEUE = kombu.Queue("here", kombu.Exchange("lwr", durable=True), routing_key="here", durable=True)


def test_what_is_durable_survives_a_stop_and_a_kill(tmp_path: Path) -> None:
    with RabbitMQ(tmp_path / "broker") as broker:
        vhost = broker.vhost()
        with kombu.Connection(broker.url(vhost)) as connection:
            kombu.Producer(connection).publish({}, exchange="lwr", routing_key="here", declare=[QUEUE])
        broker.restart()
        assert broker.queue_depths(vhost) == {"here": 1}
        broker.kill()
        with pytest.raises(OSError, match="refused"), kombu.Connection(broker.url(vhost)) as connection:
            connection.connect()
        broker.start()
        assert broker.queue_depths(vhost) == {"here": 1}
        assert broker.ctl("list_queues", "-p", vhost).split() == ["name", "messages", "here", "1"]


def test_hosts_are_apart_and_users_may_do_what_they_may(broker: RabbitMQ) -> None:
    vhost = broker.vhost()
    broker.add_user("reader", "secret", vhost, configure="", write="", read="here")
    with kombu.Connection(broker.url(vhost)) as connection:
        QUEUE(connection).declare()
    assert broker.queue_depths(vhost) == {"here": 0}
    assert broker.queue_depths(broker.vhost()) == {}
    with kombu.Connection(broker.url(vhost, user="reader:secret")) as connection:
        assert QUEUE(connection).get() is None
        with pytest.raises(AccessRefused):
            QUEUE(connection).declare()


def test_tls_asks_for_a_certificate_on_one_port_of_two(broker: RabbitMQ) -> None:
    vhost = broker.vhost()
    trust = {"ca_certs": str(broker.ca_pem), "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "localhost"}
    mine = {**trust, "certfile": str(broker.client_pem), "keyfile": str(broker.client_key)}
    for url, options in ((broker.tls_url(vhost), trust), (broker.mutual_tls_url(vhost), mine)):
        with kombu.Connection(url, ssl=options) as connection:
            assert connection.connect()
    with (
        pytest.raises(OSError, match=r"EOF|certificate|reset"),
        kombu.Connection(broker.mutual_tls_url(vhost), ssl=trust) as connection,
    ):
        connection.connect()
