"""What the jobs of a manager tell on its queue, heard in a thread of its own; and messages published to that manager.

Facts: LWR over AMQP, sections 1 and 4; Pulsar's differences, section 4. One connection hears and one publishes,
whatever the number of jobs. Must not know jobs, and no broker's protocol: that is `lwr.transfer.broker`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from lwr.core.job import DEFAULT_MANAGER
from lwr.core.messages import Address, Dialect, Kind, Receipted, address, open_body, receipt_body, receipt_wanted
from lwr.errors import BadRequest, LwrError, PeerError, PeerUnreachable, TooLarge
from lwr.transfer.broker import BrokerOptions, Consumer, Delivery, Letter, LinkState, Publisher, peek

OnUpdate = Callable[[dict[str, Any]], object]

#: The largest message that servers take if nobody configured another size.
MOST_BYTES = 16 << 20
#: Pauses before an update is given again to a callback that failed; then others come before it. Well below a heartbeat.
_CALLBACK_PAUSES_S = (0.1, 0.3, 1.0)


class StatusListener:
    """Hears what the jobs of a manager tell, in a thread of its own, and publishes to that manager.

    Each update is given to `on_update`, in the order of the broker, and is acknowledged to the broker only after that
    returned: a process that dies is given it again when it comes back, so it may come twice. If `on_update` raises, it
    is tried again with growing pauses; after a few times the update goes back to the broker, so that others have their
    turn, and comes again. What cannot be an update is dropped and told to `on_trouble`.

    Start and stop once each; or use `with`. `post` may be called by any thread, also while nothing is heard.

    Args:
        key_prefix: Pulsar's `amqp_key_prefix`.
        reply: a queue of its own on which the server is asked to tell; empty for the one that all clients of a manager
            share, of which each update goes to one of them.
        on_trouble: told what is wrong, by the thread that hears: an unreachable broker, updates that cannot be handled.
            What it raises is dropped.
    """

    def __init__(
        self,
        options: BrokerOptions,
        on_update: OnUpdate,
        *,
        manager: str = DEFAULT_MANAGER,
        dialect: Dialect = Dialect.LWR,
        key_prefix: str = "",
        reply: str = "",
        on_trouble: Callable[[LwrError], object] = lambda error: None,
    ) -> None:
        self.reply = reply
        self._options, self._on_update, self._on_trouble = options, on_update, on_trouble
        self._dialect, self._manager, self._key_prefix = dialect, manager, key_prefix
        self._updates = self._address(Kind.STATUS_UPDATE, reply)
        self._stopping = threading.Event()
        self._link = LinkState(False, time.time(), "")
        self._away_since: float | None = time.monotonic()
        self._publishing = threading.Lock()
        self._publisher = Publisher(options, on_state=lambda state: None)  # whoever publishes gets the error
        self._consumer = Consumer(
            options, [self._updates], self._deliver, on_state=self._note_link, on_turn=self._keep_publisher_alive
        )
        self._thread = threading.Thread(
            target=self._consumer.run, args=(self._stopping,), name="lwr-queue-updates", daemon=True
        )

    @property
    def away_s(self) -> float:
        """Since how many seconds nothing can be heard; 0 while connected."""
        since = self._away_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def reason(self) -> str:
        """Why nothing can be heard, a sentence; empty while connected, and before the first try."""
        return self._link.reason

    def __enter__(self) -> StatusListener:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Begin to hear, and to publish. A broker that is not there is waited for."""
        self._thread.start()

    def stop(self) -> None:
        """Hear nothing more and close both connections. What was not handled stays in the broker. Never started, or
        stopped before: nothing happens."""
        self._hear_no_more()
        with self._publishing:
            self._publisher.close()

    def post(self, kind: Kind, value: Mapping[str, Any], name: str = "") -> None:
        """Publish a message to the manager; returns when the broker has it on disk. One try.

        Args:
            name: of this message alone, so that a second copy, after a confirm that was lost, is known for one.

        Raises:
            TooLarge: no server would take it.
            PeerUnreachable, PeerRefused: as `Publisher.publish`.
        """
        body = json.dumps(value, default=dict).encode()
        if len(body) > MOST_BYTES:
            raise TooLarge(
                f"The message for {kind} has {len(body)} bytes; {MOST_BYTES} are the most.",
                "Have the server fetch the files instead of putting them into the message.",
            )
        with self._publishing:
            self._publisher.publish(Letter(self._address(kind), body, message_id=name))

    def greet(self) -> None:
        """Make sure that the broker answers and lets us in, and that there is a queue for what we publish. Tried once.

        Raises:
            PeerUnreachable, PeerRefused, ConfigError: with the reason.
        """
        peek(self._options, self._address(Kind.SETUP), 0)

    def forget_reply(self) -> None:
        """Hear nothing more and remove the queue of its own, with what is still in it. The shared one stays.

        Raises:
            PeerUnreachable, PeerRefused: it may still be there.
        """
        if self.reply:
            self._hear_no_more()  # else it would be declared again
            with self._publishing:
                self._publisher.delete(self._updates)

    def _hear_no_more(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _address(self, kind: Kind, reply: str = "") -> Address:
        return address(self._dialect, self._manager, kind, key_prefix=self._key_prefix, reply=reply)

    def _note_link(self, link: LinkState) -> None:
        self._link = link
        if link.connected:
            self._away_since = None
        elif self._away_since is None:
            self._away_since = time.monotonic()
        if link.reason:
            self._tell_trouble(PeerUnreachable(link.reason))

    def _tell_trouble(self, error: LwrError) -> None:
        with contextlib.suppress(Exception):  # nobody is left to be told of it, and the updates of all jobs come here
            self._on_trouble(error)

    def _keep_publisher_alive(self) -> None:
        """A broker closes a line without heartbeats. Somebody who publishes now keeps it alive as well; and while the
        broker is away there is nothing to keep, and a try would cost time."""
        if self._link.connected and self._publishing.acquire(blocking=False):
            try:
                self._publisher.rest(0.0)
            finally:
                self._publishing.release()

    def _deliver(self, delivery: Delivery) -> None:
        try:
            update = open_body(delivery.body, delivery.content_type)
            if not isinstance(update.get("job_id"), str) or not isinstance(update.get("status"), str):
                raise BadRequest("An update names no job and status.")
            wanted = receipt_wanted(Kind.STATUS_UPDATE, update)
        except BadRequest as error:
            self._tell_trouble(error)
            delivery.ack()
            return
        if self._handed_on(update, wanted):
            delivery.ack()
        else:
            delivery.give_back()

    def _handed_on(self, update: dict[str, Any], wanted: Receipted | None) -> bool:
        """Give an update to the callback, and tell the server that it arrived if it wants to hear that."""
        for pause_s in (*_CALLBACK_PAUSES_S, 0.0):
            try:
                self._on_update(update)
                if wanted is not None:
                    self.post(wanted.ack, receipt_body(wanted.uuid))
            except Exception as error:  # of whoever is called: an update that it could not take is not lost
                trouble = PeerError(f"The update of job {update['job_id']} could not be handled: {error}")
                trouble.__cause__ = error
            else:
                return True
            if self._stopping.wait(pause_s):
                return False
        self._tell_trouble(trouble)
        return False
