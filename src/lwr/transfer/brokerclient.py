"""How kombu and py-amqp are told to reach a broker, how they read what comes from it, and what they can write at all.

The only module that imports them. Connects to nothing.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import kombu
from amqp.method_framing import frame_handler
from amqp.serialization import PROPERTY_CLASSES

from lwr.core.messages import Address
from lwr.errors import PeerRefused, PeerUnreachable
from lwr.transfer.brokerwords import BrokerOptions, Letter, Place

#: Our words for TLS, which are py-amqp's, in redis-py's.
_REDIS_TLS = {
    "cert_reqs": "ssl_cert_reqs", "ca_certs": "ssl_ca_certs", "certfile": "ssl_certfile", "keyfile": "ssl_keyfile",
    "ciphers": "ssl_ciphers", "tls_minimum_version": "ssl_min_version",
}  # fmt: skip
#: AMQP 0-9-1, 2.3.5.2: the frame before a body has class, weight, size of the body, flags, properties.
_CONTENT_HEADER, _BASIC, _PROPERTIES_AT = 2, 60, 12
#: AMQP 0-9-1, 2.3.5: around what a frame has in it.
_FRAME_BYTES = 8
_MOST_NAME_BYTES = 255
#: The longest wait in one piece, so that a stop is noticed.
SLICE_S = 0.5
STOPPING = "The line to the broker is given up: stopping."


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


def check_name(address: Address) -> None:
    """See that an address can be written.

    Raises:
        PeerRefused: it cannot, in any line to any broker.
    """
    for name in (address.exchange, address.queue):
        if len(name.encode("utf-8", "replace")) > _MOST_NAME_BYTES or name != name.encode("utf-8", "replace").decode():
            raise PeerRefused(
                f"No broker can have a queue of this name: {name[:40]!r}...",
                f"It has {_MOST_NAME_BYTES} bytes at most, and only characters that can be written.",
            )


def prepared(channel: Any, letter: Letter, options: BrokerOptions, frame_max_bytes: int | None) -> Any:
    """The message that a channel publishes.

    Raises:
        PeerRefused: the letter's properties cannot be written, or are too large for a frame: RabbitMQ ends the line
            over one that is. Nothing was sent.
    """
    extra = {name: value for name, value in options.publish_extra.items() if value is not None}
    message = channel.prepare_message(
        letter.body,
        priority=extra.pop("priority", None),
        content_type=letter.content_type,
        content_encoding=letter.content_encoding,
        headers=dict(letter.headers),
        properties={
            "delivery_mode": 2,
            **({"message_id": letter.message_id} if letter.message_id else {}),
            **extra,
        },
    )
    if frame_max_bytes is not None:
        _check_head(message, letter, frame_max_bytes)
    return message


def _check_head(message: Any, letter: Letter, frame_max_bytes: int) -> None:
    try:
        size_bytes = len(message._serialize_properties()) + _PROPERTIES_AT + _FRAME_BYTES
    except Exception as error:  # of struct, Unicode, lengths; py-amqp's own
        raise PeerRefused(f"The headers of a message for {letter.address.queue} cannot be written.") from error
    if size_bytes > frame_max_bytes:
        raise PeerRefused(
            f"The headers of a message for {letter.address.queue} have {size_bytes} bytes; the broker takes "
            f"{frame_max_bytes}.",
            "Raise frame_max in rabbitmq.conf.",
            peer_code="too-large",
        )


def heed(connection: Any, stopping: threading.Event) -> None:
    """Have a connected py-amqp end its waits soon after `stopping` is set: by itself it knows no stop.

    Those are the waits for an answer and for room to write, for both of which the socket's timeout is the longest.
    """
    read, transport = connection.blocking_read, connection.transport

    def read_on(timeout: float | None = None) -> Any:
        if timeout is not None:
            return read(timeout)
        return _in_slices(lambda: read(SLICE_S), stopping, transport.sock.gettimeout())

    def write_on(frame: bytes) -> None:
        sock, at = transport.sock, 0
        longest_s = sock.gettimeout()
        sock.settimeout(SLICE_S)
        try:
            with memoryview(frame) as whole:
                while at < len(whole):
                    at += _in_slices(partial(sock.send, whole[at:]), stopping, longest_s)
        finally:
            sock.settimeout(longest_s)

    connection.blocking_read, transport._write = read_on, write_on


def _in_slices(do: Callable[[], Any], stopping: threading.Event, timeout_s: float) -> Any:
    """What `do` returns, which waits for a slice of time and is called again until all of it is over."""
    until = time.monotonic() + timeout_s
    while True:
        try:
            return do()
        except TimeoutError as error:
            if stopping.is_set():
                raise PeerUnreachable(STOPPING) from error
            if error.errno == errno.ETIMEDOUT or time.monotonic() > until:
                raise


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
