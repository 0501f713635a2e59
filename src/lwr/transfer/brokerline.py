"""One line to a broker, by kombu's transports: made, kept alive, read, written, closed.

py-amqp waits for answers without a bound, verifies no certificate by itself, sends no heartbeats unasked, and raises
whatever it stumbles over; here each wait is bounded, and what comes out is an `LwrError`. A line that raised is spent:
its maker makes another one. What the broker says no to, of one queue or one message, ends a channel, and not the line:
that channel is opened again. Not thread-safe. Must not know jobs or what messages say.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from lwr.core.messages import Address
from lwr.errors import LwrError, PeerRefused, PeerUnreachable
from lwr.faults import fault
from lwr.transfer.brokerclient import SLICE_S, STOPPING, check_name, heed, kombu_client, prepared
from lwr.transfer.brokerfaults import check_files, meaning
from lwr.transfer.brokerwords import BrokerOptions, Delivery, Letter, Place

#: How long the broker has for answering a good-bye; after that it learns it by the closed connection.
_GOODBYE_S = 1.0
#: py-amqp spins on a frame that has come in half, if it is to wait no time at all.
_SHORTEST_WAIT_S = 0.001
#: Of a line that answers to many, each on a queue of its own; then all are forgotten, and declared again when needed.
_MOST_DECLARED = 1000
#: AMQP's class and method, of what is asked for one queue or with one message: a no to it says nothing of others. They
#: are exchange.declare, queue.declare, queue.bind, queue.delete, basic.consume, basic.publish, basic.get.
_OF_ONE_QUEUE = ((40, 10), (50, 10), (50, 20), (50, 40), (60, 20), (60, 40), (60, 70))
BLOCKED = "The broker takes no messages now: it is short of memory or disk."


class Line:
    """A connection with a channel for all that is asked, and one for each queue that is consumed.

    It is spent after the first error that is not of one queue or message.

    Raises, where nothing else is said:
        PeerUnreachable, PeerRefused, ConfigError: in the words of `brokerfaults`.
    """

    def __init__(self, options: BrokerOptions, place: Place, stopping: threading.Event | None = None) -> None:
        """Connect; each step of it takes at most `connect_timeout_s`. Later waits end soon after `stopping` is set."""
        #: Why nothing goes over this line any more.
        self.spent: LwrError | None = None
        #: The broker has said that it is short of memory or disk and takes no messages.
        self.blocked = False
        #: It was given up because it did not confirm what it took.
        self.is_unconfirming = False
        self._stopping = stopping
        self._options = options
        self._place = place
        self._is_amqp = place.scheme == "amqp"
        self._declared: set[Address] = set()
        self._is_reopened = False
        self._sent = 0
        self._unconfirmed: set[int] = set()
        self._nacked: set[int] = set()
        self._returned: set[str] = set()
        self._raw: Any = None
        self._sock: Any = None  # py-amqp may forget it without having closed it
        try:
            with self._guarded("connecting"):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self._place.tls is not None:
            check_files(self._place.tls)
        # Only its transport is used: a kombu.Connection that was lost is made again by whatever is asked of it, without
        # the consumers, and after 2 s of sleep.
        self._client = kombu_client(self._options, self._place)
        self._transport = self._client.transport
        self._raw = self._establish()
        if self._is_amqp:
            self._sock = self._raw.transport.sock
        self._bound_waits(self._options.connect_timeout_s)
        self._channel = self._new_channel()
        if self._is_amqp:
            self._raw.on_blocked, self._raw.on_unblocked = self._on_blocked, self._on_unblocked
            if self._stopping is not None:
                heed(self._raw, self._stopping)
            for event, handler in (
                ("basic_ack", self._on_ack), ("basic_nack", self._on_nack), ("basic_return", self._on_return)
            ):  # fmt: skip
                self._channel.events[event].add(handler)

    def _new_channel(self) -> Any:
        channel = self._transport.create_channel(self._raw)
        if self._is_amqp:
            channel.auto_decode = False  # else a body becomes text when it says so of itself
        return channel

    def _establish(self) -> Any:
        """Connect. What fails half-way is in `_raw`, to be closed: py-amqp closes it after some errors only."""
        if self._is_amqp:
            make = self._transport.Connection

            def keep(**options: Any) -> Any:
                self._raw = make(**options)
                return self._raw

            self._transport.Connection = keep
        return self._transport.establish_connection()

    def _bound_waits(self, timeout_s: float) -> None:
        """Whatever answer is waited for without a bound of its own has this one from now on."""
        if self._is_amqp and self._raw is not None and self._raw.connected:
            self._raw.transport.sock.settimeout(timeout_s)

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """Everything that comes out of kombu becomes an LwrError, and ends this line if it is not of one queue.

        That is OSError, its own errors, those of py-amqp, ssl and redis; and of lines that broke at a bad moment, or
        frames that are none, also AttributeError, KeyError, struct.error, UnicodeDecodeError.
        """
        try:
            yield
        except Exception as error:
            told = meaning(error, self._place, doing)
            if self._is_amqp and getattr(error, "method_sig", None) in _OF_ONE_QUEUE and self._raw.connected:
                self._is_reopened = True  # by py-amqp; the broker has forgotten what the channel was told before
            elif not isinstance(error, PeerRefused):  # which was found out here, and nothing sent
                self.spent = told
            raise told from error

    def declare(self, address: Address) -> int:
        """Make exchange, queue and binding, unless they are there; returns how many messages wait in the queue."""
        with self._guarded(f"declaring the queue {address.queue}"):
            check_name(address)
            self._channel.exchange_declare(exchange=address.exchange, type="direct", durable=True, auto_delete=False)
            made = self._channel.queue_declare(queue=address.queue, durable=True, exclusive=False, auto_delete=False)
            self._channel.queue_bind(queue=address.queue, exchange=address.exchange, routing_key=address.queue)
        if len(self._declared) >= _MOST_DECLARED:
            self._declared.clear()
        self._declared.add(address)
        return int(made.message_count)

    def consume(
        self, address: Address, on_delivery: Callable[[Delivery], None], on_cancel: Callable[[str], None]
    ) -> None:
        """Declare a queue, and have its messages handed out in `drain`; raised once, it may be called for it again.

        `on_cancel` is called with the name of the queue if no more will be handed out: it was deleted.
        """
        self.declare(address)
        with self._guarded("consuming"):
            # Its own, so that a broker that says no to one queue ends nothing of the others.
            channel = self._new_channel()
            # In RabbitMQ the count is of each consumer on the channel, and not of all of them.
            channel.basic_qos(0, self._options.prefetch_count, False)
            channel.basic_consume(
                queue=address.queue,
                no_ack=False,
                consumer_tag=address.queue,
                callback=lambda message: on_delivery(self._delivery(address, channel, message)),
                on_cancel=on_cancel,
            )

    def drain(self, timeout_s: float) -> None:
        """Wait for something from the broker, at most so long, and have it handled. Sends heartbeats when due."""
        if self.spent is not None:
            raise self.spent
        with self._guarded("waiting for messages"):
            self._drain(timeout_s)

    def _drain(self, timeout_s: float) -> None:
        try:
            self._transport.drain_events(self._raw, timeout=max(timeout_s, _SHORTEST_WAIT_S))
        except TimeoutError as error:
            if error.errno == errno.ETIMEDOUT:  # the system has given the connection up; else nothing came
                raise
        if self._is_amqp:
            self._transport.heartbeat_check(self._raw)

    def delete(self, address: Address) -> None:
        """Remove a queue and what is in it. One that is not there: nothing happens."""
        with self._guarded(f"deleting the queue {address.queue}"):
            self._channel.queue_delete(queue=address.queue)
        self._declared.discard(address)

    def get(self, address: Address) -> Delivery | None:
        """The next message of a queue; None if none waits."""
        with self._guarded(f"reading the queue {address.queue}"):
            message = self._channel.basic_get(queue=address.queue, no_ack=False)
            return None if message is None else self._delivery(address, self._channel, message)

    def _delivery(self, address: Address, channel: Any, message: Any) -> Delivery:
        properties = message.properties
        if not self._is_amqp:  # there kombu's own message has them, elsewhere
            properties = {
                **properties, "application_headers": message.headers,
                "content_type": message.content_type, "content_encoding": message.content_encoding,
            }  # fmt: skip
        body = message.body
        return Delivery(
            address=address,
            body=body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body),
            content_type=properties.get("content_type") or "",
            content_encoding=properties.get("content_encoding") or "",
            headers={_text(name): value for name, value in (properties.get("application_headers") or {}).items()},
            redelivered=bool(message.delivery_info.get("redelivered")),
            message_id=str(properties.get("message_id") or ""),
            _line=self,
            _channel=channel,
            _tag=message.delivery_tag,
        )

    def settle(self, answer: Callable[[], object]) -> None:
        """Acknowledge or give back, which `answer` does. Never raises; after an error the next `drain` tells it."""
        if self.spent is None:
            with suppress(LwrError), self._guarded("acknowledging"):
                answer()

    def publish(self, letters: Sequence[Letter]) -> list[LwrError | None]:
        """Publish in this order, and wait until the broker has answered for all, at most `publish_timeout_s`.

        Returns for each letter None if the broker has confirmed it, or why it may not have it. Never raises; see
        `spent` for what became of the line. Other transports than AMQP confirm nothing: sent is confirmed there.
        """
        if self._is_reopened:
            self._is_reopened, self._sent = False, 0
            self._declared.clear()
        first, trouble = self._sent + 1, None
        try:
            self._send_all(letters)
        except LwrError as error:
            trouble = error
        return [self._outcome(tag, letter.address, trouble) for tag, letter in enumerate(letters, first)]

    def _send_all(self, letters: Sequence[Letter]) -> None:
        self._returned.clear()
        for address in dict.fromkeys(letter.address for letter in letters):
            if address not in self._declared:
                self.declare(address)
        self._unconfirmed.clear()
        self._nacked.clear()
        with self._guarded("publishing"):
            if self._is_amqp and not self._sent:
                self._channel.confirm_select()
            until = time.monotonic() + self._options.publish_timeout_s
            for letter in letters:
                self._send(letter)
            fault("publish.before_confirm")
            while self._unconfirmed and (left_s := until - time.monotonic()) > 0:
                self._drain(min(left_s, SLICE_S))
                if self._unconfirmed and self._stopping is not None and self._stopping.is_set():
                    raise PeerUnreachable(STOPPING)
            if self._unconfirmed and not self.blocked:
                self.is_unconfirming = True
                raise TimeoutError
        if self._unconfirmed:  # they may yet be confirmed, and the line is good
            raise PeerUnreachable(BLOCKED)

    def _send(self, letter: Letter) -> None:
        message = prepared(self._channel, letter, self._options, self._raw.frame_max if self._is_amqp else None)
        care = {"mandatory": True, "timeout": self._options.publish_timeout_s} if self._is_amqp else {}
        self._sent += 1
        if self._is_amqp:
            self._unconfirmed.add(self._sent)
        self._channel.basic_publish(message, exchange=letter.address.exchange, routing_key=letter.address.queue, **care)

    def _outcome(self, tag: int, address: Address, trouble: LwrError | None) -> LwrError | None:
        if address.queue in self._returned:
            self._declared.discard(address)
            return PeerUnreachable(f"No queue {address.queue} took the message: it was deleted at this moment.")
        if tag in self._nacked:
            return PeerUnreachable(
                f"The broker could not store a message for {address.queue}.",
                "Is the queue bounded (a policy with max-length), or the broker in trouble? See its log.",
            )
        return trouble if tag > self._sent or tag in self._unconfirmed else None

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._unconfirmed = {other for other in self._unconfirmed if (other > tag if multiple else other != tag)}

    def _on_nack(self, tag: int, multiple: bool) -> None:
        before = self._unconfirmed
        self._on_ack(tag, multiple)
        self._nacked |= before - self._unconfirmed

    def _on_return(self, _error: Exception, _exchange: str, routing_key: str, _message: Any) -> None:
        self._returned.add(routing_key)

    def _on_blocked(self, _reason: str) -> None:
        self.blocked = True

    def _on_unblocked(self) -> None:
        self.blocked = False

    def close(self) -> None:
        """Say good-bye, if that is of use, and close. Returns within about a second; may be called twice."""
        # Whatever goes wrong here, the line is given up, and the broker learns it by the connection's end.
        good, self.spent = self.spent is None, self.spent or PeerUnreachable("The line to the broker was closed.")
        transport = getattr(self._raw, "_transport", None)  # py-amqp's, with the socket; `transport` would connect
        with suppress(Exception):
            if transport is not None and transport.sock is not None:
                transport.sock.settimeout(_GOODBYE_S if good else _SHORTEST_WAIT_S)
            if self._raw is not None and (good or not self._is_amqp):
                self._transport.close_connection(self._raw)
        if transport is not None:
            with suppress(Exception):
                self._raw.collect()
            if transport.sock is not None:
                transport.sock.close()
        if self._sock is not None:
            self._sock.close()


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("utf-8", "replace")
