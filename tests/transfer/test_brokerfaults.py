"""Each way in which a broker cannot be reached ends in a sentence that names the cure, and in no password."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lwr.errors import ConfigError, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.brokerline import Line
from lwr.transfer.brokerwords import BrokerOptions
from tests.machines.rabbitmq import RabbitMQ
from tests.machines.redis import Redis
from tests.support import free_port
from tests.transfer.mail import HERE


def attempt(url: str, tls: dict[str, str] | None = None, *, connect_timeout_s: float = 10) -> LwrError | None:
    """Connect and declare; returns what was wrong."""
    try:
        options = BrokerOptions(url, tls, connect_timeout_s=connect_timeout_s)
        line = Line(options, options.places[0])
    except LwrError as error:
        return error
    try:
        line.declare(HERE)
    except LwrError as error:
        return error
    finally:
        line.close()
    return None


def test_the_login_and_the_virtual_host(broker: RabbitMQ) -> None:
    vhost = broker.vhost()
    broker.add_user("half", "wrongpass", vhost, configure="", write=".*", read=".*")
    wrong = attempt(broker.url(vhost, user="lwr:wrongpass"))
    assert isinstance(wrong, PeerRefused)
    assert str(wrong).startswith(f"The broker at localhost:{broker.port} refuses the login. Compare user and password")
    unknown = attempt(broker.url("nowhere"))
    assert isinstance(unknown, PeerRefused)
    assert "has no virtual host 'nowhere' for this user" in str(unknown)
    unconfigured = attempt(broker.url(vhost, user="half:wrongpass"))
    assert isinstance(unconfigured, PeerRefused)
    assert "set_permissions" in unconfigured.hint
    assert "'lwr' in vhost" in unconfigured.message
    for error in (wrong, unknown, unconfigured):
        assert not error.transient
        assert "wrongpass" not in str(error)
        assert broker.password not in str(error)


def test_tls_is_verified_and_says_what_is_wrong(broker: RabbitMQ) -> None:
    vhost = broker.vhost()
    ours = {"ca_certs": str(broker.ca_pem)}
    mine = {"certfile": str(broker.client_pem), "keyfile": str(broker.client_key)}
    foreign = {"certfile": str(broker.other_client_pem), "keyfile": str(broker.other_client_key)}
    assert attempt(broker.tls_url(vhost), ours) is None
    assert attempt(broker.url(vhost, port=broker.tls_port) + "?ssl=1", ours) is None
    assert attempt(broker.tls_url(vhost), {"cert_reqs": "cert_none"}) is None
    assert attempt(broker.tls_url(vhost), {"ca_certs": str(broker.other_ca_pem), "cert_reqs": "cert_none"}) is None
    assert attempt(broker.mutual_tls_url(vhost), ours | mine) is None
    # Without user and password the certificate is the login.
    assert attempt(f"amqps://localhost:{broker.mutual_tls_port}/{vhost}", ours | mine) is None
    for url, tls, kind, words in (
        (broker.tls_url(vhost), None, PeerRefused, "not trusted"),
        (broker.tls_url(vhost), {"cert_reqs": "cert_optional"}, PeerRefused, "not trusted"),
        (broker.tls_url(vhost), {"ca_certs": str(broker.other_ca_pem)}, PeerRefused, "amqp_connect_ssl_ca_certs"),
        (broker.tls_url(vhost), ours | {"server_hostname": "elsewhere"}, PeerRefused, "for another name"),
        (broker.mutual_tls_url(vhost), ours, PeerUnreachable, "set amqp_connect_ssl_certfile"),
        (broker.mutual_tls_url(vhost), ours | foreign, PeerUnreachable, "set amqp_connect_ssl_certfile"),
        (broker.url(vhost, scheme="amqps"), ours, PeerRefused, "speaks no TLS"),
        (broker.url(vhost, port=broker.tls_port), None, PeerUnreachable, "write amqps://"),
    ):
        error = attempt(url, tls)
        assert type(error) is kind, (url, tls, error)
        assert words in str(error)
        assert broker.password not in str(error)


def test_the_files_of_tls_are_named_if_they_cannot_be_used(broker: RabbitMQ, tmp_path: Path) -> None:
    empty, missing = tmp_path / "empty.pem", tmp_path / "missing.pem"
    empty.touch()
    for tls, name in (
        ({"ca_certs": str(missing)}, "ca_certs"),
        ({"ca_certs": str(empty)}, "ca_certs"),
        ({"certfile": str(broker.client_pem), "keyfile": str(missing)}, "keyfile"),
        ({"certfile": str(broker.client_pem), "keyfile": str(broker.other_client_key)}, "certfile"),
        ({"certfile": str(empty)}, "certfile"),
    ):
        error = attempt(broker.tls_url(), tls)
        assert isinstance(error, ConfigError), tls
        assert f"amqp_connect_ssl_{name} cannot be used: {tls[name]}" in str(error)


def test_tls_to_redis_is_verified_as_well(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as redis:
        ours, other = {"ca_certs": str(redis.ca_pem)}, {"ca_certs": str(redis.other_ca_pem)}
        elsewhere = redis.tls_url.replace("localhost", "127.0.0.1")
        for url, good in (
            (redis.tls_url, ours),
            (redis.tls_url.replace("rediss", "redis"), ours),
            (f"{redis.tls_url}?ssl_ca_certs={redis.ca_pem}", None),
            (f"{redis.tls_url}?ssl_cert_reqs=none", None),
            (elsewhere, {"cert_reqs": "cert_none"}),
        ):
            assert attempt(url, good) is None, (url, good)
        for url, tls, words in (
            (redis.tls_url, None, "is not trusted"),
            (redis.tls_url, other, "amqp_connect_ssl_ca_certs"),
            (f"{redis.tls_url}?ssl_cert_reqs=optional", None, "is not trusted"),
            (elsewhere, ours, "for another name"),
        ):
            error = attempt(url, tls)
            assert isinstance(error, PeerRefused), (url, tls, error)
            assert words in str(error)


class _NoBroker(BaseHTTPRequestHandler):
    """A web server: it answers whatever it does not understand with an error page."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def web_port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _NoBroker) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_who_is_no_broker_or_not_there(web_port: int) -> None:
    nobody = attempt(f"amqp://localhost:{free_port()}/")
    assert isinstance(nobody, PeerUnreachable)
    assert "Nobody listens at localhost" in str(nobody)
    unknown = attempt("amqp://no-such-host.invalid/")
    assert isinstance(unknown, PeerUnreachable)
    assert "is not known here" in str(unknown)
    web = attempt(f"amqp://localhost:{web_port}/", connect_timeout_s=0.5)
    assert isinstance(web, PeerUnreachable)
    assert attempt("nosuch://localhost/") is not None
