"""What was configured of the message queue: which broker, and how to speak to it.

A server's options and a client's are the same and become the same `BrokerOptions` here. Opens no connection. Who has
no queue needs no kombu.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lwr.config import options
from lwr.config import queue_options as o
from lwr.config.ini import Entry
from lwr.config.option import APP, Option, nearest
from lwr.config.values import Values, claim, parsed
from lwr.core.job import DEFAULT_MANAGER
from lwr.errors import ConfigError
from lwr.transfer.brokerwords import BrokerOptions, PublishRetry

_PREFIX = "amqp_"
_TLS_PREFIX = o.TLS_OTHERS.name.removesuffix("*")
_TLS_PATHS = (o.TLS_CA_CERTS, o.TLS_CERTFILE, o.TLS_KEYFILE)


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A server's queue.

    Args:
        consume: whether it takes messages; if not, it only tells of jobs.
        publish: whether it tells of jobs; if not, it only takes messages.
        key_prefix: stands for the usual prefix in the names of Pulsar's queues; empty for the usual one.
        maximum_bytes: the largest message that is taken or sent.
        acknowledge: whether updates are sent again until their receiver has answered (Pulsar's protocol).
        republish_after_s: how long such an answer may take.
    """

    broker: BrokerOptions
    consume: bool
    publish: bool
    key_prefix: str
    maximum_bytes: int
    acknowledge: bool
    republish_after_s: float


def broker_options(url: str, values: Mapping[str, str], *, directory: Path) -> BrokerOptions:
    """What a client was told of its broker.

    Args:
        values: `amqp_*` options as in server.ini, with or without that beginning, as texts.
        directory: what relative paths start from.

    Raises:
        ConfigError: an unknown option, a value or a URL that cannot work; kombu is not installed.
    """
    given = claim(_option_of(name, text) for name, text in values.items())
    checked = parsed(Entry("url", url, "of the broker"), o.QUEUE_URL.parse, secret=True)
    return _broker(checked, Values(APP, directory, given))


def queue_config(app: Values, managers: Collection[str], notices: list[str]) -> QueueConfig | None:
    """What server.ini says of the queue of these managers; None when it names no broker.

    Raises:
        ConfigError: a value that cannot work; kombu is not installed.
    """
    if o.DURABLE.name in app.given:
        notices.append("amqp_durable does nothing any more: queues are always durable; the line can go.")
    url = app.get(o.QUEUE_URL)
    if not url:
        for option in o.QUEUE_OPTIONS:
            if option not in (o.QUEUE_URL, o.TLS_OTHERS):
                app.get(option)
        notices += _idle(app)
        return None
    key_prefix = app.get(o.KEY_PREFIX)
    if key_prefix and len(managers) > 1:
        bound = DEFAULT_MANAGER if DEFAULT_MANAGER in managers else next(iter(managers))
        notices.append(
            "amqp_key_prefix leaves no place for the name of a manager: Pulsar's queues are those of the manager "
            f"{bound}, and of no other. Remove it, or give each manager a server of its own."
        )
    return QueueConfig(
        broker=_broker(url, app),
        consume=app.get(o.CONSUME),
        publish=app.get(o.PUBLISH),
        key_prefix=key_prefix,
        maximum_bytes=app.get(o.MAXIMUM_MESSAGE),
        acknowledge=app.get(o.ACKNOWLEDGE),
        republish_after_s=app.get(o.REPUBLISH_TIME),
    )


def _broker(url: str, values: Values) -> BrokerOptions:
    # Once it is imported it stands in the place of its module without a spec, and cannot be looked for.
    if sys.modules.get("kombu") is None and find_spec("kombu") is None:
        raise ConfigError(
            "There is a message queue, and kombu, by which LWR speaks to it, is not installed.",
            "Install it: `pip install 'lwr[amqp]'`.",
        )
    values.get(o.DURABLE)
    retry, max_retries = values.get(o.RETRY), values.get(o.RETRY_MAX)
    return BrokerOptions(
        url=url,
        tls=_tls(values),
        heartbeat_s=values.get(o.HEARTBEAT),
        connect_timeout_s=values.get(o.CONNECT_TIMEOUT),
        consumer_timeout_s=values.get(o.CONSUMER_TIMEOUT),
        prefetch_count=values.get(o.PREFETCH),
        publish_timeout_s=values.get(o.PUBLISH_TIMEOUT),
        publish_extra={"priority": values.get(o.PRIORITY), "delivery_mode": values.get(o.DELIVERY_MODE)},
        retry=PublishRetry(
            max_retries=max_retries if retry else 0,
            interval_start_s=values.get(o.RETRY_START),
            interval_step_s=values.get(o.RETRY_STEP),
            interval_max_s=values.get(o.RETRY_INTERVAL_MAX),
        ),
    )


def _tls(values: Values) -> dict[str, str] | None:
    """`amqp_connect_ssl_*` by the rest of the name, paths absolute; None when nothing of it was given."""
    texts = {option.name: values.path(option) for option in _TLS_PATHS}
    texts[o.TLS_CERT_REQS.name] = values.get(o.TLS_CERT_REQS)
    given = {name: entry for name, entry in values.given.items() if name.startswith(_TLS_PREFIX)}
    for name in given.keys() - texts.keys():
        values.record(given[name], given[name].text)
        texts[name] = given[name].text
    return {name.removeprefix(_TLS_PREFIX): text for name, text in texts.items() if text} if given else None


def _option_of(name: str, text: str) -> tuple[Option[Any], Entry]:
    full = name if name.startswith(_PREFIX) else _PREFIX + name
    option = options.known(full)
    if option is None:
        names = (option.name for option in o.QUEUE_OPTIONS)
        raise ConfigError(f"{full} is not an option.", nearest(full, names) or "The reference of options lists all.")
    return option, Entry(full, text, "given")


def _idle(app: Values) -> list[str]:
    """Options that say something of a queue that is not there."""
    defaults = {option.name: option.default for option in o.QUEUE_OPTIONS if option is not o.DURABLE}
    others = {name: "" for name in app.given if name.startswith(_TLS_PREFIX)}
    return [
        f"{name} ({app.given[name].origin}) does nothing without message_queue_url."
        for name, default in (others | defaults).items()
        if name in app.given and app.given[name].text != default
    ]
