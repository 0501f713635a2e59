"""The options of the message queue: those of a server, and those that a client has for its broker too.

Part of the table of `lwr.config.options`. The names are those of LWR and Pulsar (LWR over AMQP, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lwr.config.option import APP, Option, boolean, choice, seconds, whole


def seconds_unless(*words: str) -> Callable[[str], float | None]:
    """A parser of a number of seconds, or of one of `words`, in any case, for none."""

    def parse(text: str) -> float | None:
        return None if text.lower() in words else seconds(text)

    return parse


def _heartbeat(text: str) -> float:
    """Seconds; Pulsar's files have words too."""
    words: dict[str, float] = {"true": 30.0, "false": 0.0, "none": 0.0, "off": 0.0}
    word = text.lower()
    return words[word] if word in words else seconds(text)


def _retries(text: str) -> int | None:
    return None if text.lower() == "none" else whole(0, 1_000_000)(text)


def _delivery_mode(text: str) -> int:
    modes = {"1": 1, "transient": 1, "2": 2, "persistent": 2}
    if text.lower() not in modes:
        raise ValueError("must be 2 (persistent) or 1 (transient).")
    return modes[text.lower()]


def _always(text: str) -> bool:
    if text and not boolean(text):
        raise ValueError("is not possible: queues are always durable, or jobs would be lost with the broker.")
    return True


#: Of the URLs of brokers: those of kombu's that have what a queue of jobs needs.
BROKER_SCHEMES = ("amqp", "amqps", "pyamqp", "redis", "rediss", "memory", "filesystem")


def _broker_url(text: str) -> str:
    """A URL, or several with ; between them, unchanged. It is never quoted: it holds a password."""
    for url in text.split(";"):
        if url and url.partition("://")[0].lower() not in BROKER_SCHEMES:
            raise ValueError(f"must begin with amqp://, or with another of {', '.join(BROKER_SCHEMES[1:])}.")
    return text


QUEUE_URL = Option(
    "message_queue_url", APP, _broker_url, "",
    "The broker of the message queue: jobs are taken from it and told on it, besides HTTP. A URL of kombu, with the "
    "user, the password and the virtual host; `amqps` for TLS. No queue if not set. Write signs such as / @ : in a "
    "password as %2F %40 %3A, and in this file each % twice. Needs `pip install 'lwr[amqp]'`.",
    secret=True, example="amqps://lwr:PASSWORD@broker.example.org:5671/lwr",
)  # fmt: skip
CONSUME = Option(
    "message_queue_consume", APP, boolean, "true", "Whether jobs are taken from the queue; `false` only tells of jobs.",
)  # fmt: skip
PUBLISH = Option(
    "message_queue_publish", APP, boolean, "true", "Whether the queue is told of jobs; `false` only takes them.",
)  # fmt: skip
MAXIMUM_MESSAGE = Option(
    "message_queue_maximum_bytes", APP, whole(65536, 512 * 1024**2), str(16 * 1024**2),
    "The largest message that is taken or sent. A larger one that comes in is kept as a dead letter (its beginning "
    "only). RabbitMQ takes 128 MiB before its version 4 and 16 MiB since.", "bytes",
)  # fmt: skip
KEY_PREFIX = Option(
    "amqp_key_prefix", APP, str, "",
    "Stands for `pulsar_`, or `pulsar_MANAGER_`, in the names of Pulsar's queues (`PREFIX_setup`, ...), so that "
    "several servers can share a broker. Galaxy's runner has the same option. It is for one manager.",
    example="pulsar_site7_",
)  # fmt: skip
CONSUMER_TIMEOUT = Option(
    "amqp_consumer_timeout", APP, seconds_unless("none"), "0.2",
    "One wait for messages, after which the server looks whether it shall stop; `None` waits as long as the heartbeat "
    "allows.", "seconds",
)  # fmt: skip
CONNECT_TIMEOUT = Option(
    "amqp_connect_timeout", APP, seconds, "10", "How long a connection to the broker may take to open.", "seconds",
)  # fmt: skip
HEARTBEAT = Option(
    "amqp_heartbeat", APP, _heartbeat, "30",
    "How often both ends of a connection show that they live; one that was silent for twice as long is given up and "
    "made anew. 0 for never.", "seconds",
)  # fmt: skip
PREFETCH = Option(
    "amqp_prefetch_count", APP, whole(1, 65535), "32",
    "How many messages of one queue the broker hands over before the first of them is acknowledged.",
)  # fmt: skip
TLS_CA_CERTS = Option(
    "amqp_connect_ssl_ca_certs", APP, str, "",
    "PEM file of the authorities that may have signed the broker's certificate; those of the system if not set. Any "
    "option of this family switches TLS on.",
    example="/etc/lwr/broker-ca.pem",
)  # fmt: skip
TLS_CERTFILE = Option(
    "amqp_connect_ssl_certfile", APP, str, "",
    "PEM file of the certificate that LWR shows the broker, where that asks for one.",
    example="/etc/lwr/lwr-cert.pem",
)  # fmt: skip
TLS_KEYFILE = Option(
    "amqp_connect_ssl_keyfile", APP, str, "", "PEM file of its private key, if it is not in the same file.",
    example="/etc/lwr/lwr-key.pem",
)  # fmt: skip
TLS_CERT_REQS = Option(
    "amqp_connect_ssl_cert_reqs", APP, choice("cert_required", "cert_optional", "cert_none"), "cert_required",
    "Whether the broker must show a certificate that is good for its name. With `cert_none` whoever stands between "
    "can read and change everything, the password too.",
)  # fmt: skip
TLS_OTHERS = Option(
    "amqp_connect_ssl_*", APP, str, "", "Any other parameter of the TLS connection, such as `server_hostname`.",
    example="amqp_connect_ssl_server_hostname = broker.example.org",
)  # fmt: skip
PUBLISH_TIMEOUT = Option(
    "amqp_publish_timeout", APP, seconds, "30",
    "How long the broker may take to confirm a message, before it is sent again.", "seconds",
)  # fmt: skip
RETRY = Option(
    "amqp_publish_retry", APP, boolean, "true",
    "Whether a client tries again to publish when the broker is away. A server does, for ever, in any case.",
)  # fmt: skip
RETRY_MAX = Option(
    "amqp_publish_retry_max_retries", APP, _retries, "5", "How often a client tries again; `none` for ever.",
)  # fmt: skip
RETRY_START = Option(
    "amqp_publish_retry_interval_start", APP, seconds, "1", "The pause before the first of these tries.", "seconds",
)  # fmt: skip
RETRY_STEP = Option(
    "amqp_publish_retry_interval_step", APP, seconds, "2", "How much longer each next pause is.", "seconds",
)  # fmt: skip
RETRY_INTERVAL_MAX = Option(
    "amqp_publish_retry_interval_max", APP, seconds, "30", "The longest pause.", "seconds",
)  # fmt: skip
PRIORITY = Option(
    "amqp_publish_priority", APP, whole(0, 255), "0", "Priority of published messages, where the broker heeds it.",
)  # fmt: skip
DELIVERY_MODE = Option(
    "amqp_publish_delivery_mode", APP, _delivery_mode, "2",
    "2 (`persistent`): the broker keeps published messages on its disk. 1 (`transient`): they are lost when it stops.",
)  # fmt: skip
ACKNOWLEDGE = Option(
    "amqp_acknowledge", APP, boolean, "false",
    "Whether updates are sent again until the other side has answered that it has them: Pulsar's own protocol, for a "
    "Galaxy whose runner has the same option. The broker's confirmations are waited for in any case.",
)  # fmt: skip
REPUBLISH_TIME = Option(
    "amqp_ack_republish_time", APP, seconds, "30", "How long such an answer may take.", "seconds",
)  # fmt: skip
DURABLE = Option(
    "amqp_durable", APP, _always, "",
    "An option of Pulsar. Queues are always durable, or jobs would be lost with the broker: `true` is accepted with a "
    "notice, `false` is an error.",
    example="true",
)  # fmt: skip

#: What is said of the message queue.
QUEUE_OPTIONS: tuple[Option[Any], ...] = (
    QUEUE_URL, CONSUME, PUBLISH, MAXIMUM_MESSAGE, KEY_PREFIX, TLS_CA_CERTS, TLS_CERTFILE, TLS_KEYFILE, TLS_CERT_REQS,
    TLS_OTHERS, CONNECT_TIMEOUT, HEARTBEAT, CONSUMER_TIMEOUT, PREFETCH, PUBLISH_TIMEOUT, RETRY, RETRY_MAX, RETRY_START,
    RETRY_STEP, RETRY_INTERVAL_MAX, PRIORITY, DELIVERY_MODE, ACKNOWLEDGE, REPUBLISH_TIME, DURABLE,
)  # fmt: skip
