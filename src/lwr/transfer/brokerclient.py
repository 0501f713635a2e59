"""How kombu and py-amqp are told to reach a broker, and how they read what comes from it.

The only module that imports them. Connects to nothing.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import kombu
from amqp.method_framing import frame_handler
from amqp.serialization import PROPERTY_CLASSES

from lwr.transfer.brokerwords import BrokerOptions, Place

#: Our words for TLS, which are py-amqp's, in redis-py's.
_REDIS_TLS = {
    "cert_reqs": "ssl_cert_reqs", "ca_certs": "ssl_ca_certs", "certfile": "ssl_certfile", "keyfile": "ssl_keyfile",
    "ciphers": "ssl_ciphers", "tls_minimum_version": "ssl_min_version",
}  # fmt: skip
#: AMQP 0-9-1, 2.3.5.2: the frame before a body has class, weight, size of the body, flags, properties.
_CONTENT_HEADER, _BASIC, _PROPERTIES_AT = 2, 60, 12


def kombu_client(options: BrokerOptions, place: Place) -> Any:
    """A kombu.Connection, not connected, which knows how to reach a broker."""
    user, password = place.login or (None, None)
    if place.scheme == "redis":
        timeouts = {"socket_connect_timeout": options.connect_timeout_s, "socket_timeout": options.publish_timeout_s}
        return kombu.Connection(
            place.host, user or None, password or None, place.vhost, place.port,
            transport="redis",
            ssl=_redis_tls(place.tls) if place.tls is not None else False,
            transport_options=timeouts,
        )  # fmt: skip
    if place.scheme != "amqp":
        return kombu.Connection(place.url)
    by_certificate = place.login is None and place.tls is not None and "certfile" in place.tls
    return kombu.Connection(
        place.host, user, password, place.vhost, place.port,
        transport="pyamqp",
        ssl=dict(place.tls) if place.tls is not None else False,
        login_method="EXTERNAL" if by_certificate else None,
        connect_timeout=options.connect_timeout_s,
        heartbeat=max(1, round(options.heartbeat_s)) if options.heartbeat_s else 0,
        transport_options={"socket_settings": _socket_settings(options), "frame_handler": _tolerant},
    )  # fmt: skip


def _redis_tls(tls: Mapping[str, object]) -> dict[str, object]:
    """It checks the name of the host in the URL, if it is told to and there is a certificate to check."""
    checks_name = tls["cert_reqs"] != ssl.CERT_NONE
    return {_REDIS_TLS[name]: what for name, what in tls.items() if name in _REDIS_TLS} | {
        "ssl_check_hostname": checks_name
    }


def _socket_settings(options: BrokerOptions) -> dict[int, int]:
    """py-amqp gives a connection up when anything that it sent is without receipt for 1 s: too soon for long ways."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    return {} if option is None else {option: int((2 * options.heartbeat_s or 60) * 1000)}


def _tolerant(connection: Any, callback: Callable[..., None]) -> Callable[[tuple[int, int, bytes]], bool]:
    """py-amqp's reader of frames, for which properties that cannot be decoded are none.

    The broker hands on what it was given: a content type that is not UTF-8, or headers nested without end. As an error
    that ends the line, one such message would come again and again, and nothing else any more.
    """
    handle = frame_handler(connection, callback)

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        kind, channel, payload = frame
        if kind == _CONTENT_HEADER:
            try:
                PROPERTY_CLASSES[_BASIC](payload, _PROPERTIES_AT)
            except Exception:  # of struct, Unicode, dates, recursion
                payload = payload[:_PROPERTIES_AT] + b"\0\0"
        return bool(handle((kind, channel, payload)))

    return on_frame
