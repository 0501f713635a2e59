"""Messages through a real RabbitMQ: nothing is lost when it, the line or the queue goes away, and a stop is prompt."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lwr.core.messages import DEAD, Address
from lwr.errors import PeerRefused, PeerUnreachable
from lwr.transfer.broker import BrokerOptions, Delivery, Letter, LinkState, Publisher, look, peek, take
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.rabbitmq import RabbitMQ
from tests.machines.redis import Redis
from tests.support import free_port, wait_until
from tests.transfer.mail import HERE, THERE, Reader, nobody

#: So long a stop may take at most, on a busy machine.
PROMPT_S = 3.0


@pytest.fixture
def vhost(broker: RabbitMQ) -> str:
    return broker.vhost()


@pytest.fixture
def options(broker: RabbitMQ, vhost: str) -> BrokerOptions:
    return BrokerOptions(broker.url(vhost))


@pytest.fixture
def publisher(options: BrokerOptions) -> Iterator[Publisher]:
    with closing(Publisher(options, on_state=nobody)) as publisher:
        yield publisher


def keep(_delivery: Delivery) -> None:
    """Neither acknowledge nor give back."""


def rest_until(publisher: Publisher, true: Callable[[], bool], what: str) -> None:
    def rested() -> bool:
        publisher.rest(0.05)
        return true()

    wait_until(rested, what)


def numbered(count: int, address: Address = HERE) -> list[Letter]:
    return [Letter(address, b"%d" % number, message_id=f"m{number}") for number in range(count)]


@pytest.fixture
def memory() -> BrokerOptions:
    return BrokerOptions("memory://")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[BrokerOptions]:
    with Redis(tmp_path / "redis") as redis:
        yield BrokerOptions(redis.url)


@pytest.mark.parametrize("transport", ["options", "memory", "redis"])
def test_messages_arrive_in_order_as_they_were_sent(transport: str, request: pytest.FixtureRequest) -> None:
    options: BrokerOptions = request.getfixturevalue(transport)
    with closing(Publisher(options, on_state=nobody)) as publisher, Reader(options, [HERE, THERE]) as reader:
        publisher.publish(Letter(HERE, b'{"a":1}', headers={"tries": 3, "why": "no"}, message_id="one"))
        assert publisher.publish_all(numbered(40)) == [None] * 40
        publisher.publish(Letter(THERE, b"\xff\x00", content_type="application/x-python-serialize"))
        bodies = reader.wait_for(42)
        assert [body for body in bodies if body != b"\xff\x00"] == [b'{"a":1}', *(b"%d" % n for n in range(40))]
        first = reader.got[0]
        assert (first.address, first.message_id, first.content_type) == (HERE, "one", "application/json")
        assert (first.headers["tries"], first.headers["why"], first.redelivered) == (3, "no", False)
        odd = next(delivery for delivery in reader.got if delivery.address == THERE)
        assert (odd.body, odd.content_type) == (b"\xff\x00", "application/x-python-serialize")
        assert not first.held
        first.ack()
        assert reader.connected
    assert peek(options, HERE, 10) == []


def test_nobody_takes_more_than_he_can_hold_and_the_rest_goes_back(
    options: BrokerOptions, publisher: Publisher, broker: RabbitMQ, vhost: str
) -> None:
    publisher.publish_all([*numbered(9), *numbered(9, THERE)])
    few = BrokerOptions(options.url, prefetch_count=3)
    with Reader(few, [HERE, THERE], then=keep) as slow:
        slow.wait_for(6)
        turns = slow.turns
        wait_until(lambda: slow.turns > turns + 2, "more turns")
        assert len(slow.got) == 6
        assert all(delivery.held for delivery in slow.got)
    assert not any(delivery.held for delivery in slow.got)
    slow.got[0].ack()  # too late: it is the broker's again
    assert broker.queue_depths(vhost) == {HERE.queue: 9, THERE.queue: 9}
    with Reader(options, [HERE, THERE]) as reader:
        reader.wait_for(18)
    assert [delivery.redelivered for delivery in reader.got if delivery.address == HERE] == [True] * 3 + [False] * 6
    assert broker.queue_depths(vhost) == {HERE.queue: 0, THERE.queue: 0}


def test_messages_of_one_queue_that_are_held_keep_no_other_queue_away_in_redis_either(redis: BrokerOptions) -> None:
    few = BrokerOptions(redis.url, prefetch_count=3)
    with closing(Publisher(few, on_state=nobody)) as publisher, Reader(few, [HERE, THERE], then=keep) as slow:
        publisher.publish_all(numbered(9))
        slow.wait_for(3)
        publisher.publish_all(numbered(9, THERE))
        slow.wait_for(6)
        turns = slow.turns
        wait_until(lambda: slow.turns > turns + 2, "more turns")
        assert [delivery.address for delivery in slow.got] == [HERE] * 3 + [THERE] * 3


def test_what_is_given_back_comes_again(options: BrokerOptions, publisher: Publisher) -> None:
    def once(delivery: Delivery) -> None:
        if delivery.redelivered:
            delivery.ack()
        else:
            delivery.give_back()

    publisher.publish(Letter(HERE, b"again"))
    with Reader(options, then=once) as reader:
        assert reader.wait_for(2) == [b"again", b"again"]
    assert peek(options, HERE, 10) == []


def test_what_was_not_acknowledged_when_the_line_broke_comes_again(
    broker: RabbitMQ, vhost: str, publisher: Publisher
) -> None:
    with FaultProxy(broker.port) as proxy:
        options = BrokerOptions(broker.url(vhost, port=proxy.port))
        publisher.publish(Letter(HERE, b"x"))
        with Reader(options, then=keep) as reader:
            reader.wait_for(1)
            proxy.__exit__(None, None, None)
            reason = reader.wait_away()
            assert not reader.got[0].held
            reader.got[0].ack()
            with FaultProxy(broker.port) as other:
                assert other.port
    assert "broke" in reason or "unexpectedly" in reason
    with Reader(BrokerOptions(broker.url(vhost))) as reader:
        reader.wait_for(1)
    assert reader.got[0].redelivered


def test_a_line_that_is_cut_is_made_again(broker: RabbitMQ, vhost: str, publisher: Publisher) -> None:
    cuts = [Fault(cut_up_bytes=0), Fault(cut_down_bytes=700, reset=True), Fault(cut_up_bytes=400)]
    with FaultProxy(broker.port, cuts) as proxy, Reader(BrokerOptions(broker.url(vhost, port=proxy.port))) as reader:
        publisher.publish(Letter(HERE, b"x"))
        assert reader.wait_for(1) == [b"x"]
        assert len(proxy.lines) == 4
        assert [state.connected for state in reader.states][-1]


def test_a_publish_on_a_line_that_breaks_is_an_error_that_passes(broker: RabbitMQ, vhost: str) -> None:
    states: list[LinkState] = []
    with FaultProxy(broker.port, [Fault(cut_up_bytes=20_000)]) as proxy:
        options = BrokerOptions(broker.url(vhost, port=proxy.port))
        with closing(Publisher(options, on_state=states.append)) as publisher:
            publisher.publish(Letter(HERE, b"before"))
            with pytest.raises(PeerUnreachable, match="Publishing failed"):
                publisher.publish(Letter(HERE, bytes(100_000)))
            publisher.publish(Letter(HERE, b"after"))
    assert [state.connected for state in states] == [True, False, True]
    assert [delivery.body for delivery in peek(options_of(broker, vhost), HERE, 10)] == [b"before", b"after"]


def options_of(broker: RabbitMQ, vhost: str) -> BrokerOptions:
    return BrokerOptions(broker.url(vhost))


def wait_for_more(sent: list[bytes]) -> None:
    enough = len(sent) + 50
    wait_until(lambda: len(sent) >= enough, "messages to be sent")


@pytest.mark.timeout(180)
def test_nothing_is_lost_when_the_broker_is_killed_and_restarted(tmp_path: Path) -> None:
    with RabbitMQ(tmp_path / "broker") as broker:
        options = BrokerOptions(broker.url(broker.vhost()), connect_timeout_s=5, publish_timeout_s=5)
        sent: list[bytes] = []
        enough = threading.Event()

        def send() -> None:
            with closing(Publisher(options, on_state=nobody)) as publisher:
                while not enough.is_set():
                    try:
                        publisher.publish(Letter(HERE, b"%d" % len(sent)))
                        sent.append(b"%d" % len(sent))
                    except PeerUnreachable:
                        enough.wait(0.1)

        with Reader(options) as reader:
            sender = threading.Thread(target=send)
            sender.start()
            reader.wait_connected()  # who connects has a thread more
            threads = threading.active_count()
            for end in (broker.kill, broker.stop):
                wait_for_more(sent)
                end()
                reader.wait_away()
                broker.start()
                reader.wait_connected()
            wait_for_more(sent)
            enough.set()
            sender.join()
            assert threading.active_count() == threads - 1
            wait_until(lambda: set(sent) <= set(reader.bodies), f"all of {len(sent)}")
        first_seen = list(dict.fromkeys(reader.bodies))
        assert first_seen[: len(sent)] == sent


def test_a_broker_that_is_silent_is_given_up_after_two_heartbeats(broker: RabbitMQ, vhost: str) -> None:
    options = BrokerOptions(broker.url(vhost), heartbeat_s=1, connect_timeout_s=1)
    states: list[LinkState] = []
    with Reader(options) as reader, closing(Publisher(options, on_state=states.append)) as publisher:
        publisher.publish(Letter(HERE, b"1"))
        reader.wait_connected()
        broker.freeze()
        try:
            rest_until(publisher, lambda: not states[-1].connected, "the publisher to notice")
            assert "two heartbeats" in states[-1].reason
            assert "two heartbeats" in reader.wait_away()
            with pytest.raises(PeerUnreachable, match="did not answer in time"):
                publisher.publish(Letter(HERE, b"2"))
        finally:
            broker.thaw()
        reader.wait_connected()
        rest_until(publisher, lambda: states[-1].connected, "the publisher to be back")
        publisher.publish(Letter(HERE, b"3"))
        wait_until(lambda: b"3" in reader.bodies, "the message")


def test_heartbeats_keep_a_line_on_which_nothing_is_said(broker: RabbitMQ, vhost: str) -> None:
    options = BrokerOptions(broker.url(vhost), heartbeat_s=4)  # a busy machine may be late by a second or two
    states: list[LinkState] = []
    with Reader(options) as reader, closing(Publisher(options, on_state=states.append)) as publisher:
        publisher.publish(Letter(HERE, b"1"))
        publisher.rest(13)  # three of them: the broker ends a line that was silent for two
        publisher.publish(Letter(HERE, b"2"))
        reader.wait_for(2)
    assert [state.connected for state in states + reader.states] == [True, True]


def test_a_line_that_the_broker_ended_meanwhile_costs_no_message(publisher: Publisher, broker: RabbitMQ) -> None:
    publisher.publish(Letter(HERE, b"1"))
    broker.close_connections()
    time.sleep(0.3)  # so long a line is taken to be good
    publisher.publish(Letter(HERE, b"2"))


def test_a_broker_without_memory_is_waited_for(broker: RabbitMQ, vhost: str) -> None:
    states: list[LinkState] = []
    options = BrokerOptions(broker.url(vhost), publish_timeout_s=0.5)
    with closing(Publisher(options, on_state=states.append)) as publisher:
        publisher.publish(Letter(HERE, b"1"))
        broker.block()
        try:
            with pytest.raises(PeerUnreachable) as caught:
                wait_until(lambda: publisher.publish(Letter(HERE, b"2")), "an error")
            assert caught.value.transient
            rest_until(publisher, lambda: "short of memory" in states[-1].reason, "the state to be told")
            with pytest.raises(PeerUnreachable, match="short of memory"):
                publisher.publish(Letter(HERE, b"3"))
        finally:
            broker.unblock()
        rest_until(publisher, lambda: states[-1].connected, "the state to be told")
        publisher.publish(Letter(HERE, b"4"))


def test_a_queue_that_was_deleted_is_declared_again(
    options: BrokerOptions, publisher: Publisher, broker: RabbitMQ, vhost: str
) -> None:
    publisher.publish(Letter(HERE, b"1"))
    broker.delete_queue(vhost, HERE.queue)
    assert broker.queue_depths(vhost) == {}
    publisher.publish(Letter(HERE, b"2"))  # unroutable at first
    with Reader(options) as reader:
        assert reader.wait_for(1) == [b"2"]
        broker.delete_queue(vhost, HERE.queue)
        assert reader.wait_away() == f"The queue {HERE.queue} was deleted; it is declared again."
        reader.wait_connected()
        publisher.publish(Letter(HERE, b"3"))
        assert reader.wait_for(2) == [b"2", b"3"]


def test_a_queue_with_other_properties_is_refused_with_the_cure(
    options: BrokerOptions, publisher: Publisher, broker: RabbitMQ, vhost: str
) -> None:
    resource = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{HERE.queue}">>)'
    broker.evaluate(f'rabbit_amqqueue:declare({resource}, false, false, [], none, <<"tests">>)')
    with pytest.raises(PeerRefused, match=r"other properties: .*'durable' for queue 'lwr__setup'") as caught:
        publisher.publish(Letter(HERE, b"1"))
    assert not caught.value.transient
    assert "amqp_durable" in caught.value.hint
    outcomes = publisher.publish_all([Letter(THERE, b"1"), Letter(HERE, b"2"), Letter(DEAD, b"3")])
    assert [type(outcome) for outcome in outcomes] == [type(None), PeerRefused, type(None)]
    with Reader(options) as reader:
        assert "other properties" in reader.wait_away()


def refuse(broker: RabbitMQ, vhost: str, address: Address) -> None:
    """A queue of that name with arguments that are not ours."""
    resource = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{address.queue}">>)'
    broker.evaluate(
        f'rabbit_amqqueue:declare({resource}, true, false, [{{<<"x-max-length">>, long, 5}}], none, <<"tests">>)'
    )


def test_one_letter_that_is_refused_says_nothing_of_the_line(broker: RabbitMQ, vhost: str) -> None:
    """Foreign arguments (406), no permission to write (403), a name that is none; and the next letter goes."""
    refuse(broker, vhost, THERE)
    broker.add_user("writer", "pw", vhost, configure=".*", write="^lwr|lwr__setup|lwr__kill", read=".*")
    states: list[LinkState] = []
    options = BrokerOptions(broker.url(vhost, user="writer:pw"))
    foreign = Address("pulsar", "pulsar__status_update")
    with closing(Publisher(options, on_state=states.append)) as publisher:
        publisher.publish(Letter(HERE, b"0"))
        for number, address in enumerate((THERE, foreign, Address("lwr", "x" * 300), Address("lwr", "\ud800")), 1):
            with pytest.raises(PeerRefused):
                publisher.publish(Letter(address, b"no"))
            publisher.publish(Letter(HERE, b"%d" % number))
        for odd in (Letter(HERE, b"no", headers={"why": "x" * 200_000}), Letter(HERE, b"", message_id="x" * 300)):
            with pytest.raises(PeerRefused) as caught:
                publisher.publish(odd)
            assert caught.value.peer_code == ("too-large" if odd.headers else "")
        publisher.publish(Letter(HERE, b"5"))
    assert [state.connected for state in states] == [True]
    assert [delivery.body for delivery in peek(options_of(broker, vhost), HERE, 10)] == [b"%d" % n for n in range(6)]


def test_an_exchange_that_was_deleted_is_declared_again(publisher: Publisher, broker: RabbitMQ, vhost: str) -> None:
    publisher.publish(Letter(HERE, b"1"))
    broker.evaluate(f'rabbit_exchange:delete(rabbit_misc:r(<<"{vhost}">>, exchange, <<"lwr">>), false, <<"tests">>)')
    publisher.publish(Letter(HERE, b"2"))
    assert broker.queue_depths(vhost) == {HERE.queue: 2}


def test_a_good_bye_is_short_also_when_nobody_answers_it(options: BrokerOptions, broker: RabbitMQ) -> None:
    publisher = Publisher(options, on_state=nobody, stopping=threading.Event())
    publisher.publish(Letter(HERE, b"1"))
    broker.freeze()
    try:
        thread = threading.Thread(target=publisher.close)
        thread.start()
        thread.join(PROMPT_S)
        assert not thread.is_alive()
    finally:
        broker.thaw()
        thread.join()


def test_a_queue_that_cannot_be_had_is_left_out_and_tried_again(
    options: BrokerOptions, publisher: Publisher, broker: RabbitMQ, vhost: str
) -> None:
    refuse(broker, vhost, THERE)
    publisher.publish(Letter(HERE, b"1"))
    with Reader(options, [THERE, HERE], again_s=0.1) as reader:
        assert reader.wait_for(1) == [b"1"]
        assert reader.connected
        assert reader.states[-1].reason.startswith(f"The queue {THERE.queue} is left out: Declaring")
        broker.delete_queue(vhost, THERE.queue)
        wait_until(lambda: not reader.states[-1].reason, "it to be tried again")
        publisher.publish_all([Letter(THERE, b"2"), Letter(HERE, b"3")])
        assert set(reader.wait_for(3)) == {b"1", b"2", b"3"}
        assert [state.connected for state in reader.states] == [True, True]


def test_a_queue_that_may_not_be_read_is_left_out(broker: RabbitMQ, vhost: str, publisher: Publisher) -> None:
    broker.add_user("half-reader", "pw", vhost, configure=".*", write=".*", read="^lwr$|lwr__setup")
    publisher.publish(Letter(HERE, b"1"))
    with Reader(BrokerOptions(broker.url(vhost, user="half-reader:pw")), [THERE, HERE]) as reader:
        assert reader.wait_for(1) == [b"1"]
        assert "set_permissions" in reader.states[-1].reason
        assert reader.connected


def test_a_message_that_no_queue_can_store_is_an_error_that_passes(
    publisher: Publisher, broker: RabbitMQ, vhost: str
) -> None:
    broker.ctl("set_policy", "-p", vhost, "full", ".*", '{"max-length": 1, "overflow": "reject-publish"}')
    outcomes = publisher.publish_all(numbered(3))
    assert outcomes[0] is None
    assert isinstance(outcomes[1], PeerUnreachable)
    assert "could not store" in str(outcomes[2])
    publisher.publish(Letter(THERE, b"and the line still stands"))


def test_a_message_that_is_too_large_leaves_the_others_alone(options: BrokerOptions, broker: RabbitMQ) -> None:
    states: list[LinkState] = []
    publisher = Publisher(options, on_state=states.append)
    broker.evaluate("application:set_env(rabbit, max_message_size, 100000)")
    try:
        letters = [Letter(HERE, b"1"), Letter(HERE, bytes(100_001)), Letter(HERE, b"3")]
        outcomes = publisher.publish_all(letters)
        assert [outcomes[0], outcomes[2]] == [None, None]
        assert isinstance(outcomes[1], PeerRefused)
        assert "too large" in str(outcomes[1])
        assert outcomes[1].peer_code == "too-large"
        with pytest.raises(PeerRefused, match="too large"):
            publisher.publish(letters[1])
        publisher.publish(letters[0])
        assert [state.connected for state in states] == [True]
    finally:
        publisher.close()
        broker.evaluate("application:set_env(rabbit, max_message_size, 134217728)")


def test_a_large_body_arrives_whole(options: BrokerOptions, publisher: Publisher) -> None:
    body = bytes(range(256)) * 80_000
    publisher.publish(Letter(HERE, body))
    with Reader(options) as reader:
        assert reader.wait_for(1) == [body]


def test_a_look_into_a_queue_changes_nothing_and_one_of_it_can_be_taken(
    options: BrokerOptions, publisher: Publisher
) -> None:
    publisher.publish_all(numbered(5, DEAD))
    assert [delivery.message_id for delivery in peek(options, DEAD, 3)] == ["m0", "m1", "m2"]
    replayed: list[Delivery] = []
    assert take(options, DEAD, lambda delivery: delivery.message_id == "m3", replayed.append, limit=10) == 1
    assert [delivery.body for delivery in replayed] == [b"3"]
    assert [delivery.body for delivery in peek(options, DEAD, 10)] == [b"0", b"1", b"2", b"4"]

    def fail(_delivery: Delivery) -> None:
        raise PeerRefused("no")

    with pytest.raises(PeerRefused):
        take(options, DEAD, lambda _delivery: True, fail, limit=10)
    assert [delivery.body for delivery in peek(options, DEAD, 10)] == [b"0", b"1", b"2", b"4"]


def test_a_look_at_each_keeps_no_bodies(options: BrokerOptions, publisher: Publisher) -> None:
    publisher.publish_all(numbered(3, DEAD))
    seen: list[Delivery] = []
    bodies: list[bytes] = []

    def see(delivery: Delivery) -> None:
        seen.append(delivery)
        bodies.append(delivery.body)

    look(options, DEAD, 10, see)
    assert bodies == [b"0", b"1", b"2"]
    assert [delivery.body for delivery in seen] == [b"", b"", b""]
    assert [delivery.body for delivery in peek(options, DEAD, 10)] == bodies


def test_a_look_into_a_queue_of_another_transport_changes_nothing_either(memory: BrokerOptions) -> None:
    with closing(Publisher(memory, on_state=nobody)) as publisher:
        publisher.publish(Letter(DEAD, b"1"))
    for _ in range(2):
        assert [delivery.body for delivery in peek(memory, DEAD, 10)] == [b"1"]


def test_of_several_brokers_one_that_answers_is_used(broker: RabbitMQ, vhost: str) -> None:
    url = f"amqp://lwr:x@localhost:{free_port()}/;{broker.url(vhost)}"
    states: list[LinkState] = []
    with closing(Publisher(BrokerOptions(url), on_state=states.append)) as publisher:
        with pytest.raises(PeerUnreachable, match="Nobody listens"):
            publisher.publish(Letter(HERE, b"1"))
        publisher.publish(Letter(HERE, b"2"))
    assert [state.connected for state in states] == [False, True]


def test_a_handler_that_raises_is_heard(options: BrokerOptions, publisher: Publisher) -> None:
    def fail(_delivery: Delivery) -> None:
        raise OSError("a defect")

    publisher.publish(Letter(HERE, b"1"))
    reader = Reader(options, then=fail)
    with pytest.raises(OSError, match="a defect"):
        reader._consumer.run(threading.Event())
    assert [delivery.body for delivery in peek(options, HERE, 10)] == [b"1"]


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections, and says nothing on them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_it_stops_at_once_when_there_is_nothing_and_when_there_is_no_broker(
    options: BrokerOptions, broker: RabbitMQ, vhost: str, silent: int
) -> None:
    with Reader(options) as idle:
        idle.wait_connected()
        idle.stop(PROMPT_S)
    with Reader(BrokerOptions(f"amqp://localhost:{free_port()}/")) as away:
        assert "Nobody listens" in away.wait_away()
        wait_until(lambda: away.turns > 2, "it to look around while it waits")
        away.stop(PROMPT_S)
    with Reader(BrokerOptions(f"amqp://localhost:{silent}/", connect_timeout_s=0.5)) as unanswered:
        unanswered.stop(PROMPT_S)
    with Reader(BrokerOptions(broker.url(vhost), consumer_timeout_s=None)) as patient:
        patient.wait_connected()
        broker.freeze()
        try:
            patient.stop(PROMPT_S)
        finally:
            broker.thaw()


@pytest.mark.parametrize("body", [b"small", bytes(16 << 20)], ids=["waits for the confirm", "cannot even send"])
def test_a_publisher_that_waits_for_a_frozen_broker_stops(
    options: BrokerOptions, broker: RabbitMQ, body: bytes
) -> None:
    stopping = threading.Event()
    states: list[LinkState] = []
    errors: list[Exception] = []
    publisher = Publisher(options, on_state=states.append, stopping=stopping)
    publisher.publish(Letter(HERE, b"1"))

    def publish() -> None:
        try:
            publisher.publish(Letter(HERE, body))
        except PeerUnreachable as error:
            errors.append(error)
        publisher.close()

    broker.freeze()
    try:
        thread = threading.Thread(target=publish)
        thread.start()
        stopping.set()
        thread.join(PROMPT_S)
        assert not thread.is_alive()
    finally:
        broker.thaw()
        thread.join()
    assert "stopping" in str(errors[0])
    assert [state.connected for state in states] == [True]


def test_a_publisher_and_a_consumer_that_connect_stop(silent: int) -> None:
    options = BrokerOptions(f"amqp://localhost:{silent}/")
    stopping = threading.Event()
    with closing(Publisher(options, on_state=nobody, stopping=stopping)) as publisher, Reader(options) as reader:
        threading.Timer(0.2, stopping.set).start()
        with pytest.raises(PeerUnreachable, match="stopping"):
            publisher.publish(Letter(HERE, b"1"))
        reader.stop(PROMPT_S)


def test_a_broker_that_never_confirms_is_told_as_trouble_until_it_does(broker: RabbitMQ, vhost: str) -> None:
    """Frozen for longer than the publisher waits: a new line alone is no sign that it is well."""
    states: list[LinkState] = []
    options = BrokerOptions(broker.url(vhost), publish_timeout_s=0.5)
    with closing(Publisher(options, on_state=states.append)) as publisher:
        publisher.publish(Letter(HERE, b"1"))
        broker.freeze()
        try:
            with pytest.raises(PeerUnreachable, match="did not answer in time"):
                publisher.publish(Letter(HERE, b"2"))
        finally:
            broker.thaw()
        rest_until(publisher, lambda: publisher._line is not None, "a new line")
        assert [state.connected for state in states] == [True, False]
        publisher.publish(Letter(HERE, b"3"))
    assert [state.connected for state in states] == [True, False, True]
