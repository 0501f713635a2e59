"""What a broker's URL and options mean, and that no password is ever shown."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.errors import ConfigError
from lwr.transfer.brokerwords import BrokerOptions, masked

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "host", "port", "vhost", "login", "has_tls"),
    [
        ("amqp://u:p@h:5673/lab", "h", 5673, "lab", ("u", "p"), False),
        ("amqp://h", "h", 5672, "/", None, False),
        ("amqp://h//", "h", 5672, "/", None, False),
        ("amqp://h/%2Flab", "h", 5672, "/lab", None, False),
        ("amqp://u%40x:p%2F%23@h/", "h", 5672, "/", ("u@x", "p/#"), False),
        ("amqp://", "localhost", 5672, "/", None, False),
        ("amqp://[::1]:5/v", "::1", 5, "v", None, False),
        ("amqps://h/v", "h", 5671, "v", None, True),
        ("amqp://h:1/v?ssl=1", "h", 1, "v", None, True),
        ("amqp://h/v?ssl=False", "h", 5672, "v", None, False),
    ],
)
def test_urls(url: str, host: str, port: int, vhost: str, login: tuple[str, str] | None, has_tls: bool) -> None:
    (place,) = BrokerOptions(url).places
    assert (place.scheme, place.host, place.port, place.vhost) == ("amqp", host, port, vhost)
    assert (place.login, place.tls is not None) == (login, has_tls)


def test_several_brokers_each_have_their_own_name_to_be_checked() -> None:
    one, two = BrokerOptions("amqps://a/;amqp://b/?ssl=1").places
    assert one.tls == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "a"}
    assert two.tls == {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "b"}


def test_certificates_are_verified_unless_that_is_switched_off() -> None:
    given = {
        "ca_certs": "/ca",
        "server_hostname": "other",
        "tls_minimum_version": "TLSv1_3",
        "cert_reqs": "CERT_OPTIONAL",
    }
    options = BrokerOptions("amqp://h/", given)
    assert options.places[0].tls == {
        "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": "other", "ca_certs": "/ca",
        "tls_minimum_version": ssl.TLSVersion.TLSv1_3,
    }  # fmt: skip
    assert not options.insecure
    off = BrokerOptions("amqps://h/", {"cert_reqs": "cert_none"})
    assert off.places[0].tls == {"cert_reqs": ssl.CERT_NONE}
    assert off.insecure
    assert not BrokerOptions("amqp://h/").insecure


@pytest.mark.parametrize("url", ["rediss://h/0", "redis://h/0?ssl_ca_certs=/ca", "rediss://h/0?ssl_cert_reqs=required"])
def test_certificates_of_redis_too(url: str) -> None:
    options = BrokerOptions(url)
    assert options.places[0].port == 6379
    assert options.places[0].tls is not None
    assert options.places[0].tls["cert_reqs"] == ssl.CERT_REQUIRED
    assert not options.insecure
    assert BrokerOptions("rediss://h/0?ssl_cert_reqs=none").insecure
    assert BrokerOptions("rediss://h/0", {"cert_reqs": "cert_none"}).insecure
    assert BrokerOptions("redis://h/0").places[0].tls is None


@pytest.mark.parametrize(
    ("url", "tls", "words"),
    [
        ("", None, "empty"),
        (f"u:{SECRET}@h", None, "no scheme"),
        (f"amqp://u:{SECRET}/x@h/", None, "cannot be read"),
        (f"amqp://u:1/{SECRET}@h/", None, "has a # or @ behind the host"),
        (f"amqp://h/#{SECRET}", None, "has a # or @ behind the host"),
        (f"amqp://u:{SECRET}#x@h/", None, "cannot be read"),
        (f"amqp://u:{SECRET}?x@h/", None, "cannot be read"),
        (f"amqp://u:{SECRET}@h/?heartbeat=3", None, "cannot say 'heartbeat'"),
        (f"amqp://u:{SECRET}@h/?ssl=maybe", None, "neither true nor false"),
        ("amqps://h/", {"cert_reqs": "cert_some"}, "cert_reqs cannot be cert_some"),
        ("amqps://h/", {"verify": "no"}, "ssl_verify is nothing"),
        ("amqps://h/", {"tls_minimum_version": "9"}, "tls_minimum_version cannot be 9"),
        ("memory://", {"ca_certs": "/ca"}, "says nothing to memory"),
        ("rediss://h/", {"server_hostname": "other"}, "cannot be used with Redis"),
        ("rediss://h/?ssl_cert_reqs=some", None, "cert_reqs cannot be cert_some"),
        ("rediss://h/?ssl_check_hostname=false", None, "ssl_check_hostname is nothing"),
        ("redis://h/?virtual_host=1", None, "cannot say 'virtual_host'"),
        (f"sentinel://:{SECRET}@h/", None, "cannot use a broker by sentinel://"),
    ],
)
def test_what_cannot_work_is_said_without_the_password(url: str, tls: dict[str, str] | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        BrokerOptions(url, tls)
    assert SECRET not in str(caught.value)


def test_a_property_that_cannot_be_set_is_an_error() -> None:
    with pytest.raises(ConfigError, match="amqp_publish_mandatory cannot be set"):
        BrokerOptions("memory://", publish_extra={"mandatory": True})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"amqp://u:{SECRET}@h:5/v?ssl=1", "amqp://u:**@h:5/v"),
        (f"amqp://u:{SECRET}@a/;amqp://w:{SECRET}@b/", "amqp://u:**@a/;amqp://w:**@b/"),
        (f"redis://:{SECRET}@h/0", "redis://:**@h/0"),
        ("amqp://h/v", "amqp://h/v"),
    ],
)
def test_urls_are_shown_without_their_passwords(url: str, shown: str) -> None:
    options = BrokerOptions(url)
    assert options.shown == shown
    assert SECRET not in repr(options)
    assert SECRET not in repr(options.places)


@given(st.text("abé/:@;#?%&= \\[]", max_size=12))
def test_whatever_is_around_it_a_password_is_not_shown(odd: str) -> None:
    assert SECRET not in masked(f"amqp://user:{odd}{SECRET}@host/v")
    assert SECRET not in masked(f"amqp://user:{SECRET}{odd}@host/v")
    assert SECRET not in masked(f"user:{SECRET}{odd}@host/v")
    assert SECRET not in said(f"amqp://user:{odd}{SECRET}{odd}@host/v")


def said(url: str) -> str:
    try:
        return BrokerOptions(url).shown
    except ConfigError as error:
        return str(error)
