"""P2, P10, P11 over the queue: broker, server, client and their lines fail at random, and no job is lost or told wrong.

A real RabbitMQ, a real server, and a client of bare messages, each behind a proxy that cuts; inputs and outputs travel
by the server's own transfers. What each command did is counted in a file of its own.
"""

from __future__ import annotations

import functools
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lwr.core.messages import DEAD, Dialect
from lwr.core.staging import FileAction, Step, step_to_wire
from lwr.transfer.broker import BrokerOptions, peek
from tests.conftest import FULL
from tests.end_to_end.test_crash import QUEUE_ROOMS, SOURCE, fault_points
from tests.end_to_end.unlucky_peer import ENDS, Heard, Plan, UnluckyPeer
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.job_files import JobFilesServer
from tests.machines.rabbitmq import RabbitMQ
from tests.support import DEADLINE_S, RunningServer, wait_until

JOBS = 100 if FULL else 60
#: How often each kind of trouble comes, and how many new connections of each side are cut after some bytes.
TIMES = 4 if FULL else 1
CUTS = 40 if FULL else 12
SEED = 20140618

MANAGERS = "[manager:_default_]\ntype = queued_python\nnum_concurrent_jobs = 40\n"
OPTIONS = """\
message_queue_url = {url}
amqp_heartbeat = 2
amqp_connect_timeout = 3
amqp_publish_timeout = 3
"""

#: How a job ends, by its number.
WAYS = ("exit 0", "exit 3", "no input", "killed", "exit 0", "killed")


class Jobs:
    """What is to be done, and what must come of it."""

    def __init__(self, directory: Path, galaxy: JobFilesServer) -> None:
        self.galaxy = galaxy
        self.effects = directory / "effects"
        self.effects.mkdir()
        self.plan = functools.cache(self._plan)

    def _plan(self, number: int) -> Plan:
        chance = random.Random(SEED + number)  # noqa: S311
        data, way = chance.randbytes(chance.randrange(1, 100_000)), WAYS[number % len(WAYS)]
        source, target = self.galaxy.root / f"{number}.in", self._target(number)
        source.write_bytes(data)
        url = self.galaxy.url_of(source)
        if way == "no input":
            url = url.replace("/api/jobs/", "/nothing/")  # 404
        steps = [
            Step("input", "in.dat", FileAction("remote_transfer", str(source), url)),
            Step("output", "out.dat",
                 FileAction("remote_transfer", str(target), self.galaxy.url_of(target, "output")), required=True),
        ]  # fmt: skip
        command = (
            f"echo started >> '{self.effects / str(number)}'; sleep {chance.uniform(0.5, 6):.1f}; "
            f"cat ../inputs/in.dat ../inputs/in.dat > ../outputs/out.dat; exit {3 if way == 'exit 3' else 0}"
        )
        setup = {
            "job_id": str(number),
            "command_line": command,
            "setup_params": {"job_id": str(number)},
            "remote_staging": {"setup": [step_to_wire(steps[0])], "outputs": [step_to_wire(steps[1])]},
        }
        dialect = (Dialect.PULSAR, Dialect.LWR)[number // len(WAYS) % 2]
        return Plan(dialect, setup, chance.uniform(0, 6) if way == "killed" else None)

    def _target(self, number: int) -> Path:
        return self.galaxy.root / f"{number}.out"

    def wrong(self, number: int, state: str, body: bytes) -> Iterator[str]:
        """What is not as it must be, after all."""
        way, effects = WAYS[number % len(WAYS)], self.effects / str(number)
        starts = effects.read_text().count("started") if effects.exists() else 0
        expected = {"no input": {"failed"}, "killed": {"cancelled", "complete"}}.get(way, {"complete"})
        if state not in expected:
            yield f"it was to end as {way}, and is {state}: {body[:300]!r}"
        if starts not in {"complete": (1,), "failed": (0,)}.get(state, (0, 1)):
            yield f"started {starts} times"
        if state == "complete":
            data = (self.galaxy.root / f"{number}.in").read_bytes()
            if not self._target(number).exists() or self._target(number).read_bytes() != data + data:
                yield "its output is not whole"
            if b'"returncode":%d' % (3 if way == "exit 3" else 0) not in body:
                yield f"another exit code: {body[:300]!r}"
        if state == "failed" and b"404" not in body:
            yield f"its reason is not told: {body[:300]!r}"


def not_a_word(updates: list[Heard]) -> Iterator[str]:
    """What is wrong with all that was heard of one job: how it goes (set-ups that come again are answered, too), then
    its end. On a new connection a client may hear again what it heard before, from an earlier place on."""
    states = [update.status for update in updates]
    if (ends := len({update.body for update in updates if update.status in ENDS})) != 1:
        yield f"{ends} ends: {states}"
    if len({update.body for update in updates}) > len(set(states)):
        yield f"repeats are not equal: {states}"
    for _, heard in itertools.groupby(updates, key=lambda update: update.connection):
        ended = [update.status in ENDS for update in heard]
        if ended != sorted(ended):
            yield f"it goes on after its end: {states}"
    first = list(dict.fromkeys(states))
    if not set(first[:-1]).isdisjoint(ENDS):
        yield f"told late: {states}"


class Trouble:
    """All that can happen to a broker, a server, a client and the lines between them, one thing after another."""

    def __init__(
        self, broker: RabbitMQ, server: RunningServer, near: FaultProxy, far: FaultProxy, peer: UnluckyPeer
    ) -> None:
        self.broker, self.server, self.near, self.far, self.peer = broker, server, near, far, peer
        self.counts: Counter[str] = Counter()
        self._chance = random.Random(SEED)  # noqa: S311
        self._pause = threading.Event()  # never set: something to wait on

    def make(self) -> None:
        points = fault_points(path for path in SOURCE.rglob("*.py") if path.name in QUEUE_ROOMS)
        kinds: list[tuple[Callable[[], None], int]] = [
            (self._broker_stops, 1), (self._broker_is_killed, 1), (self._all_are_killed, 1),
            (self._server_is_killed, 4), (self._server_stops, 1), (self._lines_are_cut, 3),
            (self._server_is_half_open, 1), (self._client_is_half_open, 1), (self._client_dies, 3),
            *((functools.partial(self._server_dies_at, point), 1) for point in [*points, "observe.after_commit"]),
        ]  # fmt: skip
        todo = [what for what, times in kinds for _ in range(times * TIMES)]
        self._chance.shuffle(todo)
        for what in todo:
            self._wait(0.8)
            what()

    def _wait(self, most_s: float) -> None:
        self._pause.wait(self._chance.uniform(0.0, most_s))

    def _broker_stops(self) -> None:
        self.counts["broker stopped"] += 1
        self.broker.stop()
        self._wait(1.0)
        self.broker.start()

    def _broker_is_killed(self) -> None:
        self.counts["broker killed"] += 1
        self.broker.kill()
        self._wait(1.0)
        self.broker.start()

    def _all_are_killed(self) -> None:
        self.counts["broker killed"] += 1
        self.counts["server killed"] += 1
        self.broker.kill()
        self.server.kill()
        self.server.spawn()  # it is not ready before the broker is
        self.peer.die()
        self.broker.start()
        wait_until(lambda: self.server.ask("GET", "readyz")[0] == 200, "the server to be ready")

    def _server_is_killed(self) -> None:
        self.counts["server killed"] += 1
        self.server.kill()
        self._wait(0.3)
        self.server.start()

    def _server_stops(self) -> None:
        self.counts["server stopped"] += 1
        assert self.server.stop() == 0
        self.server.start()

    def _server_dies_at(self, point: str) -> None:
        self.server.kill()
        # Jobs keep coming, so it gets there by itself.
        self.server.spawn(fault=f"{point}:{self._chance.randrange(1, 4)}")
        self.server.wait()
        self.counts[f"server died at {point}"] += 1
        self.server.start()

    def _lines_are_cut(self) -> None:
        self.counts["all lines cut"] += 1
        self.near.cut()
        self.far.cut()

    def _server_is_half_open(self) -> None:
        self._freeze(self.near, "server half open")

    def _client_is_half_open(self) -> None:
        self._freeze(self.far, "client half open")

    def _freeze(self, proxy: FaultProxy, what: str) -> None:
        self.counts[what] += 1
        before = len(proxy.lines)
        proxy.freeze()
        wait_until(lambda: len(proxy.lines) > before, "a new connection, because nothing is heard on the old ones")
        proxy.thaw()

    def _client_dies(self) -> None:
        self.counts["client died"] += 1
        self.peer.die()


def random_cuts(seed: int) -> list[Fault]:
    chance = random.Random(seed)  # noqa: S311
    faults = []
    for _ in range(CUTS):
        after_bytes, reset = chance.randrange(300, 40_000), chance.random() < 0.5
        up = chance.random() < 0.5
        faults.append(Fault(cut_up_bytes=after_bytes, reset=reset) if up else
                      Fault(cut_down_bytes=after_bytes, reset=reset))  # fmt: skip
    return faults


@pytest.mark.crash
@pytest.mark.timeout(1200 if FULL else 420)
def test_no_job_is_lost_or_told_twice_differently_whatever_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(RabbitMQ(tmp_path / "rabbitmq"))
        galaxy_root = tmp_path / "galaxy"
        galaxy_root.mkdir()
        jobs = Jobs(tmp_path, stack.enter_context(JobFilesServer(galaxy_root, "job-key")))
        near = stack.enter_context(FaultProxy(broker.port, random_cuts(SEED)))
        far = stack.enter_context(FaultProxy(broker.port, random_cuts(SEED + 1)))
        url = broker.url(port=near.port).replace("%", "%%")
        server = RunningServer(tmp_path, managers=MANAGERS, options=OPTIONS.format(url=url))
        stack.callback(server.stop)
        server.start()
        peer = UnluckyPeer(broker.url(port=far.port), jobs.plan, SEED)
        stack.callback(peer.stop)
        trouble = Trouble(broker, server, near, far, peer)
        trouble.make()
        wait_until(lambda: peer.published >= JOBS, f"{JOBS} jobs to be published", deadline_s=DEADLINE_S * 4)
        published = peer.say_no_more()
        peer.wait_for_all(DEADLINE_S * 4)
        wait_until(lambda: not sum(broker.queue_depths().values()), "the queues to be empty")
        wait_until(lambda: waiting(server) == 0, "the outbox to be empty")
        wait_until(lambda: peer.names <= peer.acknowledged, "all its messages to be acknowledged")
        dead = peek(BrokerOptions(broker.url()), DEAD, 10)
        peer.stop()
        problems = list(judge(jobs, peer.heard, published))
        repeats = len(peer.heard) - len({update.body for update in peer.heard})
        ends = Counter({update.job_id: update.status for update in peer.heard if update.status in ENDS}.values())
        record_property(
            "queue crash test",
            f"seed {SEED}, RabbitMQ {broker.version}, {published} jobs ({dict(ends)}), {dict(trouble.counts)}, "
            f"{len(near.lines)} connections of the server, {len(far.lines)} of the client, which died {peer.deaths} "
            f"times before it acknowledged; {peer.said_again} messages said again, {repeats} updates heard again "
            f"({sum(update.redelivered for update in peer.heard)} redelivered), {peer.most_under_way} jobs at a time",
        )
        assert problems == []
        assert dead == []
        assert peer.most_under_way >= 20
        assert broker.password not in server.log()


def judge(jobs: Jobs, heard: list[Heard], published: int) -> Iterator[str]:
    """What is wrong, job by job."""
    told: dict[str, list[Heard]] = {str(number): [] for number in range(published)}
    for update in heard:
        told[update.job_id].append(update)
    for job_id, updates in told.items():
        last = next(update for update in reversed(updates) if update.status in ENDS)
        for what in (*not_a_word(updates), *jobs.wrong(int(job_id), last.status, last.body)):
            yield f"job {job_id}: {what}"


def waiting(server: RunningServer) -> int:
    status = server.ask_json("GET", "status")
    assert isinstance(status, dict)
    return int(status["queue"]["waiting"])
