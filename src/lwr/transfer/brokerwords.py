"""How to reach a message broker, and what goes to it and comes from it: the words that both sides share.

Opens no connection and needs no kombu. A URL holds a password: nothing here shows one.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from lwr.core.messages import Address
from lwr.errors import ConfigError, LwrError

#: What `publish_extra` may set: properties of an AMQP message that do not change where it goes or what it says.
EXTRAS = ("priority", "delivery_mode", "expiration", "type", "app_id", "user_id")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Where one URL ends and the next begins: a `;` in a password does not.
_SEVERAL = re.compile(rf";(?={_SCHEME.pattern})")
#: What comes after a login; anything else is a password that was not written as it should be.
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/?#@\s]*)(:\d+)?(/[^?#]*)?(\?.*)?", re.DOTALL)
_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
_TLS_TEXTS = ("ca_certs", "certfile", "keyfile", "server_hostname", "ciphers")
_TLS_VERSIONS = ("tls_minimum_version", "tls_maximum_version")
#: What redis-py cannot be told of TLS.
_NOT_FOR_REDIS = ("server_hostname", "tls_maximum_version")
_REDIS = ("redis", "rediss")


@dataclass(frozen=True, slots=True)
class PublishRetry:
    """How often a client publishes again what could not be published, and the pauses between, which grow by a step.

    Args:
        max_retries: after the first try; None for no bound.
    """

    max_retries: int | None = 5
    interval_start_s: float = 1.0
    interval_step_s: float = 2.0
    interval_max_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Place:
    """One broker of a URL. `tls` is None without TLS, else what py-amqp takes; `login` is None if the URL has none."""

    scheme: str
    host: str
    port: int
    vhost: str
    tls: Mapping[str, object] | None
    login: tuple[str, str] | None = field(repr=False)
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Which broker, and how to speak to it. Looked at when it is made; files of TLS are looked at when it connects.

    Args:
        url: as kombu has it: `amqp://user:password@host:port/vhost`, with `amqps` or `?ssl=1` for TLS; several, with
            `;` between them, are tried in turn. Transports other than AMQP are kombu's: `redis`, `rediss`, `memory`,
            `filesystem`.
        tls: `amqp_connect_ssl_*` by the rest of their names; any of them means TLS. Certificates are verified, and the
            host's name too, unless `cert_reqs` is `cert_none`. Redis has it in its URL as well: `?ssl_ca_certs=...`.
        heartbeat_s: how often each side says that it is there; silence of twice as long ends the line; 0: never.
        connect_timeout_s: for each part of making a line, and for each answer of the broker but a confirm.
        consumer_timeout_s: the longest wait for a message before the consumer looks around; None: it chooses.
        prefetch_count: messages of each queue that were not acknowledged yet.
        publish_timeout_s: until the broker has confirmed.
        publish_extra: properties of every message that is published, `EXTRAS`; None is none.
        retry: for clients; a server tries for ever.

    Raises:
        ConfigError: a part that cannot work. No password is in it.
    """

    url: str = field(repr=False)
    tls: Mapping[str, str] | None = None
    heartbeat_s: float = 30.0
    connect_timeout_s: float = 10.0
    consumer_timeout_s: float | None = 0.2
    prefetch_count: int = 32
    publish_timeout_s: float = 30.0
    publish_extra: Mapping[str, object] = field(default_factory=dict)
    retry: PublishRetry = field(default_factory=PublishRetry)
    places: tuple[Place, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if odd := sorted(set(self.publish_extra) - set(EXTRAS)):
            raise ConfigError(f"amqp_publish_{odd[0]} cannot be set.", f"These can: {', '.join(EXTRAS)}.")
        places = tuple(_place(piece, self.tls) for piece in _SEVERAL.split(self.url) if piece)
        if not places:
            raise ConfigError("The URL of the broker is empty.", "It is like amqp://user:password@host:5672/vhost.")
        object.__setattr__(self, "places", places)

    @property
    def shown(self) -> str:
        """The URL without password and query, for people."""
        return ";".join(map(masked, _SEVERAL.split(self.url)))

    @property
    def insecure(self) -> bool:
        """It speaks TLS, and with anybody who says to be the broker."""
        return any(place.tls and place.tls["cert_reqs"] == ssl.CERT_NONE for place in self.places)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to be published; persistent unless the options say otherwise."""

    address: Address
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str | int] = field(default_factory=dict)
    message_id: str = ""
    content_encoding: str = "utf-8"


class Holder(Protocol):
    """The line that a message came over, and over which it is settled."""

    @property
    def spent(self) -> LwrError | None:
        """Why nothing goes over it any more; None while it stands."""

    def settle(self, answer: Callable[[], object]) -> None:
        """Acknowledge or give back, which `answer` does. Never raises."""


@dataclass(eq=False, slots=True)
class Delivery:
    """A message that the broker handed out. It is the broker's until `ack`, and comes again if that never happens.

    Args:
        body: as it came: never unpacked, decoded or decompressed.
        redelivered: it was handed out before, perhaps to somebody else; transports other than AMQP may not know.
    """

    address: Address
    body: bytes = field(repr=False)
    content_type: str
    content_encoding: str
    headers: Mapping[str, Any] = field(repr=False)
    redelivered: bool
    message_id: str
    _line: Holder = field(repr=False)
    _channel: Any = field(repr=False)
    _tag: Any = field(repr=False)
    _settled: bool = field(default=False, repr=False)

    def ack(self) -> None:
        """It was dealt with. Settled before, or on a line that is gone: nothing happens; the broker delivers again."""
        self._settle(lambda: self._channel.basic_ack(self._tag))

    def give_back(self) -> None:
        """It goes back into its queue, to be handed out at once. On a line that is gone: as `ack`."""
        self._settle(lambda: self._channel.basic_reject(self._tag, requeue=True))

    @property
    def held(self) -> bool:
        """Whether it waits for `ack` or `give_back`, and these can still reach the broker."""
        return not self._settled and self._line.spent is None

    def _settle(self, answer: Callable[[], object]) -> None:
        if not self._settled:
            self._settled = True
            self._line.settle(answer)


@dataclass(frozen=True, slots=True)
class LinkState:
    """Whether a line to the broker stands, since when (seconds since the epoch), and why not; no secret in it.

    Args:
        reason: of a line that stands: what is wrong all the same, such as a queue that is left out.
    """

    connected: bool
    since: float
    reason: str = ""


def masked(url: str) -> str:
    """A URL without password and query, whatever else is odd in it: all up to the last `@` is a login."""
    scheme = _SCHEME.match(url)
    login, at, place = url[scheme.end() if scheme else 0 :].rpartition("@")
    shown = place if _PLACE.fullmatch(place) else "**"
    user = login.partition(":")[0] if scheme else ""
    return (scheme[0] if scheme else "") + (f"{user}:**@" if at else "") + shown.partition("?")[0]


def _place(url: str, tls: Mapping[str, str] | None) -> Place:
    try:
        parts = urlsplit(url)
        host, port = unquote(parts.hostname or ""), parts.port or 0
    except ValueError as error:  # its text may have a part of the password
        raise ConfigError(
            f"The URL of the broker cannot be read: {masked(url)}.",
            "A special character in its password is written as %XX: / is %2F, @ is %40, # is %23.",
        ) from error
    if not _SCHEME.match(url):
        raise ConfigError(f"The URL of the broker has no scheme: {masked(url)}.", "It begins with amqp:// or amqps://.")
    if parts.scheme == "pyamqp":  # kombu's own name for it
        parts = parts._replace(scheme="amqp")
    login = None
    if parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
    tls = _tls_texts(parts, tls)
    return Place(
        scheme={"amqps": "amqp", "rediss": "redis"}.get(parts.scheme, parts.scheme),
        host=host or "localhost",
        port=port or {"redis": 6379, "rediss": 6379}.get(parts.scheme, 5672 if tls is None else 5671),
        vhost=unquote(parts.path[1:]) or "/",
        tls=None if tls is None else _tls(tls, host or "localhost"),
        login=login,
        url=url,
    )


def _tls_texts(parts: SplitResult, tls: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """All that was said of TLS, options before the URL; None without TLS."""
    if parts.scheme in ("amqp", "amqps"):
        wanted = _amqp_wants_tls(parts)
        return (tls or {}) if wanted or tls is not None else None
    if parts.scheme in _REDIS:
        return _redis_tls(parts, tls)
    if parts.scheme not in ("memory", "filesystem"):
        raise ConfigError(
            f"LWR cannot use a broker by {parts.scheme}://.",
            "It would not be known whether its certificate is verified. Use amqps:// or rediss://.",
        )
    if tls is not None:
        raise ConfigError(f"amqp_connect_ssl_* says nothing to {parts.scheme}.", "There is no connection.")
    return None


def _redis_tls(parts: SplitResult, tls: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """kombu verifies nothing for `rediss`, so that it is not asked: the `ssl_...` of its URLs are ours to read."""
    texts = {name.removeprefix("ssl_"): text for name, text in parse_qsl(parts.query) if name.startswith("ssl_")}
    if odd := sorted(name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name[4:] not in texts):
        raise ConfigError(f"The broker's URL cannot say {odd[0]!r}.", "Only ssl_ca_certs and the like stand after `?`.")
    if parts.scheme == "redis" and not texts and tls is None:
        return None
    if "cert_reqs" in texts:
        texts["cert_reqs"] = "cert_" + texts["cert_reqs"].lower().removeprefix("cert_")
    texts |= tls or {}
    for name in _NOT_FOR_REDIS:
        if name in texts:
            raise ConfigError(
                f"amqp_connect_ssl_{name} cannot be used with Redis.",
                "Name the broker in its URL as its certificate does; the newest version of TLS is used that both have.",
            )
    return texts


def _amqp_wants_tls(parts: SplitResult) -> bool:
    if "@" in parts.path + parts.query or parts.fragment:
        raise ConfigError(
            "The URL of the broker has a # or @ behind the host.",
            "In a password / is written as %2F, # as %23; in a virtual host @ is %40.",
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    wanted = _true(query.pop("ssl", "false"))
    if query:
        raise ConfigError(
            f"The broker's URL cannot say {sorted(query)[0]!r}.",
            "Only `ssl` may stand after the `?`; all else has an option of its own, amqp_...",
        )
    return wanted or parts.scheme == "amqps"


def _true(text: str) -> bool:
    if text.lower() not in _TRUE + _FALSE:
        raise ConfigError("`ssl` in the broker's URL is neither true nor false.", "Write ?ssl=true, or amqps://.")
    return text.lower() in _TRUE


def _tls(given: Mapping[str, str], host: str) -> dict[str, object]:
    """In py-amqp's words, which verifies nothing that it is not told to."""
    texts = dict(given)
    reqs = texts.pop("cert_reqs", "cert_required").upper()
    if reqs not in ssl.VerifyMode.__members__:
        raise ConfigError(f"amqp_connect_ssl_cert_reqs cannot be {reqs.lower()}.", "It is cert_required or cert_none.")
    # For a client, optional means the same as required: every server has a certificate.
    tls: dict[str, object] = {"cert_reqs": ssl.CERT_NONE if reqs == "CERT_NONE" else ssl.CERT_REQUIRED}
    name = texts.pop("server_hostname", host)
    if reqs != "CERT_NONE":  # py-amqp checks the name that it is given, which cannot be without the certificate
        tls["server_hostname"] = name
    for version in _TLS_VERSIONS:
        if text := texts.pop(version, ""):
            if text not in ssl.TLSVersion.__members__:
                raise ConfigError(f"amqp_connect_ssl_{version} cannot be {text}.", "It is TLSv1_2 or TLSv1_3.")
            tls[version] = ssl.TLSVersion[text]
    if odd := sorted(set(texts) - set(_TLS_TEXTS)):
        raise ConfigError(
            f"amqp_connect_ssl_{odd[0]} is nothing that TLS can be told.",
            f"It can: cert_reqs, {', '.join((*_TLS_TEXTS, *_TLS_VERSIONS))}.",
        )
    return tls | texts
