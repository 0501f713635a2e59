"""What py-amqp, the broker and TLS say when something went wrong, and what that means for whoever set it up.

One table of their words, the first row that fits counts. What is in none of its rows may pass by itself: a line that
broke is made again. Nothing of a URL but scheme, host, port and virtual host is ever shown.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lwr.errors import ConfigError, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.brokerwords import Place


@dataclass(frozen=True, slots=True)
class _Meaning:
    """`words` are looked for in "type: text" of the exception; the sentences may name {at}, {vhost} and {text}.

    Args:
        peer_code, is_transient: of a PeerRefused.
    """

    words: str
    kind: type[PeerRefused] | type[PeerUnreachable]
    sentence: str
    hint: str = ""
    peer_code: str = ""
    is_transient: bool = False


_MEANINGS = (
    _Meaning(
        "AccessRefused.*(?:Login was refused|ACCESS_REFUSED - Login)|appropriate auth mechanism|"
        "AuthenticationError|WRONGPASS|NOAUTH",
        PeerRefused, "The broker at {at} refuses the login.",
        "Compare user and password in its URL with `rabbitmqctl list_users`; special characters are written as %XX.",
    ),
    _Meaning(
        "NotAllowed.*|InvalidPath.*", PeerRefused, "The broker at {at} has no virtual host {vhost!r} for this user.",
        "Compare with `rabbitmqctl list_vhosts` and `rabbitmqctl list_permissions -p VHOST`; a URL ends in /VHOST.",
    ),
    _Meaning(
        "AccessRefused", PeerRefused, "The broker at {at} does not allow it: {text}.",
        "Give the user configure, write and read permission for these names: `rabbitmqctl set_permissions`.",
    ),
    _Meaning(
        "max.*size|larger than|ContentTooLarge", PeerRefused,
        "The message is too large for the broker at {at}: {text}.",
        "Raise max_message_size in rabbitmq.conf, or have the job write less to its standard streams.",
        peer_code="too-large",
    ),
    # A message that waited here for half an hour, if the broker is not told to allow more (consumer_timeout).
    _Meaning(
        "PreconditionFailed.*(?:delivery tag|delivery acknowledgement)", PeerUnreachable,
        "The broker at {at} took back what it had handed out: {text}.",
    ),
    _Meaning(
        "PreconditionFailed", PeerRefused, "The broker at {at} has it with other properties: {text}.",
        "Queues and exchanges of jobs are durable and without arguments. Delete the other one when it is empty; a "
        "Pulsar that shares it must not have amqp_durable = false.",
    ),
    _Meaning("NotFound", PeerRefused, "The broker at {at} has it not, or not now: {text}.", is_transient=True),
    _Meaning("ResourceLocked", PeerRefused, "A queue at {at} belongs to somebody else alone: {text}."),
    _Meaning(
        "Hostname mismatch|doesn't match|IP address mismatch", PeerRefused,
        "The certificate of the broker at {at} is for another name: {text}.",
        "Name the broker in its URL as its certificate does, or set amqp_connect_ssl_server_hostname.",
    ),
    _Meaning(
        "CERTIFICATE_VERIFY_FAILED", PeerRefused, "The certificate of the broker at {at} is not trusted: {text}.",
        "Set amqp_connect_ssl_ca_certs to the certificate of the authority that signed it.",
    ),
    _Meaning(
        "WRONG_VERSION_NUMBER|record layer failure|HTTP_REQUEST|UNKNOWN_PROTOCOL", PeerRefused, "{at} speaks no TLS.",
        "Use the broker's TLS port (5671 if not changed), or amqp:// without ssl.",
    ),
    _Meaning(
        "ALERT|HANDSHAKE_FAILURE|tls.*EOF|tls.*(?:reset by peer|unexpectedly closed|Broken pipe)", PeerUnreachable,
        "The broker at {at} ended the TLS connection while it was made.",
        "If it demands certificates of its clients: set amqp_connect_ssl_certfile and _keyfile to one that it trusts.",
    ),
    _Meaning(
        "plain.*(?:reset by peer|unexpectedly closed|Broken pipe)", PeerUnreachable,
        "{at} closed the connection while it was made.",
        "If this is its TLS port, write amqps://; if not, see the broker's log.",
    ),
    _Meaning(
        "ConnectionRefused|Connection refused|Error 111", PeerUnreachable, "Nobody listens at {at}.",
        "Is the broker running? Is its port right?",
    ),
    _Meaning("gaierror", PeerUnreachable, "The name of the broker at {at} is not known here.", "Is it spelled right?"),
    _Meaning("timed out|TimeoutError", PeerUnreachable, "The broker at {at} did not answer in time."),
    _Meaning("Too many heartbeats", PeerUnreachable, "The broker at {at} has not been heard of for two heartbeats."),
    _Meaning("ConnectionForced", PeerUnreachable, "The broker at {at} ended the connection: {text}."),
)  # fmt: skip
_OTHER = _Meaning("", PeerUnreachable, "The connection to the broker at {at} broke: {text}.")


def meaning(error: BaseException, place: Place, doing: str) -> LwrError:
    """What to tell of something that was raised while `doing` it. Errors of LWR's own are returned as they are."""
    if isinstance(error, LwrError):
        return error
    stage = ("tls" if place.tls else "plain") if doing == "connecting" else "later"
    said = f"{stage} {type(error).__name__}: {error}"
    row = next((row for row in _MEANINGS if re.search(row.words, said, re.DOTALL)), _OTHER)
    words = {"at": f"{place.host}:{place.port}", "vhost": place.vhost, "text": _text(error)}
    sentence = row.sentence.format_map(words)
    if doing != "connecting":
        sentence = f"{doing[0].upper()}{doing[1:]} failed. {sentence}"
    if row.kind is PeerRefused:
        return PeerRefused(sentence, row.hint, peer_code=row.peer_code, transient=row.is_transient)
    return PeerUnreachable(sentence, row.hint)


def _text(error: BaseException) -> str:
    """The broker's or the system's own words, in one line."""
    text = getattr(error, "reply_text", None) or getattr(error, "verify_message", None) or str(error)
    return " ".join(str(text).split()).rstrip(".")[:300] or type(error).__name__


def check_files(tls: Mapping[str, object]) -> None:
    """See that the files of TLS are there and can be read: where the connection is made, nobody says which one is not.

    Raises:
        ConfigError: one cannot be used; it is named.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    certfile, keyfile, ca_certs = (str(tls.get(name, "")) for name in ("certfile", "keyfile", "ca_certs"))
    name = ""
    try:
        for name in ("certfile", "keyfile", "ca_certs"):
            if name in tls:
                Path(str(tls[name])).read_bytes()
        name = "certfile"
        if certfile:
            context.load_cert_chain(certfile, keyfile or None, password=_no_password)
        name = "ca_certs"
        if ca_certs:
            context.load_verify_locations(ca_certs)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"amqp_connect_ssl_{name} cannot be used: {tls[name]}: {error.strerror or error}.",
            "It is a file in PEM format, readable for LWR; a key has no password and fits its certificate.",
        ) from error


def _no_password() -> str:
    """A key with a password is an error, and not a question on the terminal."""
    return ""
