"""Messages of a real Galaxy, sent again as they were recorded, over a real broker: answered like then, message by
message; and all of them again, in any order, which changes nothing (P11).
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FULL
from tests.end_to_end.queue_replay import KILLED, RECORDINGS, STREAMS, TWO_RESULTS, Recording, Replay
from tests.machines.job_files import JobFilesServer
from tests.machines.queue_peer import Heard, QueuePeer
from tests.machines.rabbitmq import RabbitMQ
from tests.support import RunningServer, wait_until

KEY = "the-key-of-a-job"
UPDATES = "pulsar__status_update"
ACKS = ("pulsar__setup_ack", "pulsar__kill_ack")
ENDS = ("complete", "failed", "cancelled", "lost")
MANAGERS = "[manager:_default_]\ntype = queued_python\nnum_concurrent_jobs = 4\n"

#: Of directories whose content is the server's own affair only this is compared: files that the job or Galaxy made.
OF_PULSAR = {
    "__instrument_core_galaxy_slots", "__instrument_core_epoch_start", "__instrument_core_galaxy_memory_mb",
    "__instrument_core_epoch_end", "memory_statement.log", "job_stdout", "job_stderr",
    "return_code", "running", "command.sh", "outputs.orig", "working.orig", "configs.orig", "tool_version", "tool_id",
    "preprocessed", "postprocessed", "final_status", "launch_config", "live_output_state",
}  # fmt: skip


@dataclass
class Scene:
    """A broker, Galaxy on both sides, and our server."""

    broker: RabbitMQ
    vhost: str
    galaxy: JobFilesServer
    peer: QueuePeer
    server: RunningServer
    runs: Path

    def replay(self, recording: Recording, job_id: str) -> Replay:
        return Replay(recording, job_id, self.galaxy, self.server.staging, self.runs)

    def states(self, job_id: str) -> list[str]:
        return [message.value["status"] for message in self.peer.told(UPDATES, job_id)]

    def wait(self, job_id: str, *states: str) -> dict[str, Any]:
        """The last update, as soon as it says one of these."""
        wait_until(lambda: set(self.states(job_id)[-1:]) & set(states), f"{job_id} to be told {states}")
        return self.peer.told(UPDATES, job_id)[-1].value

    def settle(self) -> None:
        """Wait until all that was published was handled, and what came of it was told."""
        wait_until(lambda: not any(self.broker.queue_depths(self.vhost).values()), "all messages to be taken")
        # Whatever is told goes in one order: what follows the rest was told last.
        last = f"last-{len(self.peer.heard(UPDATES))}"
        self.peer.publish("pulsar__status", {"request": "status", "job_id": last})
        self.wait(last, "lost")

    def unsent(self) -> int:
        """Messages that the server has sent or will send, and may send again."""
        with closing(sqlite3.connect(self.server.directory / "persisted" / "lwr.sqlite")) as database:
            count: int = database.execute("SELECT count(*) FROM outbox").fetchone()[0]
        return count

    def ran(self) -> Counter[str]:
        """How often each job ran."""
        return Counter(self.runs.read_text().split())


Started = Callable[[str], Scene]


@pytest.fixture
def started(broker: RabbitMQ, tmp_path: Path) -> Iterator[Started]:
    """Starts the scene, with options of the server."""
    disk = tmp_path / "galaxy"
    disk.mkdir()
    vhost = broker.vhost()
    servers: list[RunningServer] = []
    with (
        JobFilesServer(disk, KEY) as galaxy,
        QueuePeer(broker.url(vhost), "pulsar", [UPDATES, *ACKS]) as peer,
    ):

        def start(options: str) -> Scene:
            options = f"message_queue_url = {broker.url(vhost)}\n{options}"
            servers.append(RunningServer(tmp_path / "server", managers=MANAGERS, options=options))
            servers[0].start()
            # Galaxy declares no queue that it publishes to: before this server's first visit there is none.
            wait_until(lambda: "pulsar__status" in broker.queue_depths(vhost), "the server's queues")
            return Scene(broker, vhost, galaxy, peer, servers[0], tmp_path / "runs")

        yield start
        for server in servers:
            server.stop()
            assert KEY not in server.log()


# -- as it was recorded ----------------------------------------------------------------------------------------------


def play(scene: Scene, replay: Replay) -> None:
    """Send what was sent, each message when Galaxy had sent it."""
    for message in replay.sent():
        if message.queue == "pulsar__kill":
            scene.wait(replay.job_id, "running")
        scene.peer.publish(message.queue, message.body)


def alike(ours: dict[str, Any], theirs: dict[str, Any], *, but: tuple[str, ...]) -> None:
    """Every key of a recorded update is in ours, with the same value."""
    assert not theirs.keys() - ours.keys()
    for name in theirs.keys() - set(but):
        mine, other = ours[name], theirs[name]
        if name.endswith("_contents"):
            mine, other = set(mine) - OF_PULSAR, set(other) - OF_PULSAR
            mine = mine if name != "job_directory_contents" else mine & other
        assert mine == other, name


#: Another uuid, another release; and what the machine says of itself.
OTHERS = ("acknowledge_uuid", "pulsar_version")


def test_a_job_with_two_results(started: Started) -> None:
    scene = started("amqp_acknowledge = true\n")
    replay = scene.replay(TWO_RESULTS, "8")
    play(scene, replay)
    told = scene.wait("8", *ENDS)
    assert scene.states("8") == ["running", "complete"]
    running, complete = replay.heard(UPDATES)
    assert scene.peer.told(UPDATES, "8")[0].value.keys() == running.keys()
    alike(scene.peer.told(UPDATES, "8")[0].value, running, but=OTHERS)
    alike(told, complete, but=(*OTHERS, "stdout"))
    assert told["stdout"].startswith(f"slots 1 home {scene.server.staging}/8/home tmp ")
    assert [each.value for each in scene.peer.heard("pulsar__setup_ack")] == replay.heard("pulsar__setup_ack")
    asked = [each for each in replay.asked if "/__instrument_" not in each.query["path"]]
    assert Counter(
        (seen.method, seen.path, seen.target.rpartition("file_type=")[2])
        for seen in scene.galaxy.requests
        if seen.method != "HEAD"
    ) == Counter((each.method, replay.here(each.query["path"]), each.query["file_type"]) for each in asked)
    for each in asked:
        if each.method == "POST" and not each.query["path"].endswith("tool_stdout"):
            delivered = Path(replay.here(each.query["path"])).read_text()
            assert delivered.rstrip("\n") == replay.here(each.uploaded()).rstrip("\n"), each.query["path"]


def test_a_job_that_writes_to_its_streams(started: Started) -> None:
    """Recorded of a server that sent both streams while the job ran, and therefore none at the end."""
    scene = started("amqp_acknowledge = true\n")
    replay = scene.replay(STREAMS, "20")
    play(scene, replay)
    told = scene.wait("20", *ENDS)
    alike(told, replay.heard(UPDATES)[-1], but=(*OTHERS, "stdout", "stderr"))
    lines = [f"{{}} {number}\n" for number in (1, 2, 3, 4)]
    assert told["stdout"] == "".join(lines).replace("{}", "line")
    assert told["stderr"] == "".join(lines).replace("{}", "err")


def test_a_job_that_is_killed(started: Started) -> None:
    """Pulsar's server told nothing after the kill but that it had come; this one tells that the job is over."""
    scene = started("amqp_acknowledge = true\n")
    replay = scene.replay(KILLED, "12")
    play(scene, replay)
    scene.wait("12", *ENDS)
    scene.settle()
    assert scene.states("12") == ["running", "cancelled"]
    for queue in ACKS:
        assert [each.value for each in scene.peer.heard(queue)] == replay.heard(queue)
    delivered = [seen for seen in scene.galaxy.requests if seen.method == "POST"]
    assert not any("/objects/" in seen.path for seen in delivered)


def test_the_last_update_is_told_until_galaxy_has_acknowledged_it(started: Started) -> None:
    scene = started("amqp_acknowledge = true\namqp_ack_republish_time = 1\n")
    play(scene, scene.replay(STREAMS, "20"))

    def ends() -> list[Heard]:
        return [each for each in scene.peer.told(UPDATES, "20") if each.value["status"] in ENDS]

    wait_until(lambda: len(ends()) == 3, "the last update to be told again and again")
    assert len({each.body for each in ends()}) == 1
    assert scene.unsent() == 1
    scene.peer.publish("pulsar__status_update_ack", {"acknowledge_uuid_response": ends()[0].value["acknowledge_uuid"]})
    wait_until(lambda: scene.unsent() == 0, "the server to be content")


# -- shuffled --------------------------------------------------------------------------------------------------------


def whole_stream(replays: list[Replay], seed: int) -> list[tuple[str, dict[str, Any]]]:
    """All that Galaxy sent of these jobs, three times, with questions, and kills of jobs that were over by then."""
    stream = [(each.queue, each.body) for replay in replays for each in replay.sent()]
    stream += [("pulsar__status", {"request": "status", "job_id": replay.job_id}) for replay in replays]
    stream += [("pulsar__setup", {"request": "status", "job_id": replay.job_id}) for replay in replays]
    stream *= 3
    random.Random(seed).shuffle(stream)  # noqa: S311  (an order, no secret)
    return stream


def files_of(galaxy: JobFilesServer) -> dict[str, str]:
    """A digest of everything on Galaxy's disk."""
    return {
        str(path.relative_to(galaxy.root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(galaxy.root.rglob("*"))
        if path.is_file()
    }


def last_words(scene: Scene, job_id: str, *, without: str) -> set[str]:
    """What was said of a job's end, each wording once. Nothing else was said afterwards."""
    states = scene.states(job_id)
    first = next(number for number, state in enumerate(states) if state in ENDS)
    assert set(states[first:]) == {states[first]}, states
    bodies = [message for message in scene.peer.told(UPDATES, job_id) if message.value["status"] in ENDS]
    if not without:
        return {message.body.decode() for message in bodies}
    return {str({name: value for name, value in message.value.items() if name != without}) for message in bodies}


@pytest.mark.parametrize("acknowledge", [False, True], ids=["", "acknowledge"])
def test_all_messages_again_in_any_order(
    acknowledge: bool, started: Started, record_property: Callable[[str, object], None]
) -> None:
    scene = started("amqp_acknowledge = true\n" if acknowledge else "")
    replays = [scene.replay(recording, recording.job_id) for recording in RECORDINGS]
    for replay in replays:
        play(scene, replay)
    for replay in replays:
        scene.wait(replay.job_id, *ENDS)
    scene.settle()
    ran, files, requests_count = scene.ran(), files_of(scene.galaxy), len(scene.galaxy.requests)
    assert ran == {"8": 1, "12": 1, "20": 1}
    seeds = [random.SystemRandom().randrange(10**6) for _ in range(20 if FULL else 3)]
    for seed in seeds:
        record_property("replayed with the seed", seed)
        stream = whole_stream(replays, seed)
        stream += [("pulsar__kill", {"job_id": replay.job_id}) for replay in replays]
        for queue, body in stream:
            scene.peer.publish(queue, body)
        scene.settle()
        assert scene.ran() == ran, seed
        assert files_of(scene.galaxy) == files, seed
        assert len(scene.galaxy.requests) == requests_count, seed
    for replay in replays:
        words = last_words(scene, replay.job_id, without="acknowledge_uuid" if acknowledge else "")
        assert len(words) == 1, (replay.job_id, seeds, words)
        assert len(scene.states(replay.job_id)) > 6 * len(seeds), "every question is answered"
    assert [scene.states(job_id)[-1] for job_id in ("8", "12", "20")] == ["complete", "cancelled", "complete"]


def test_all_messages_in_any_order_from_the_start(
    started: Started, record_property: Callable[[str, object], None]
) -> None:
    """Kills before set-ups, questions before both, all three times: each job runs once, and the killed one at most."""
    scene = started("")
    for seed in [random.SystemRandom().randrange(10**6) for _ in range(20 if FULL else 3)]:
        record_property("shuffled with the seed", seed)
        replays = [scene.replay(recording, f"{recording.job_id}-{seed}") for recording in RECORDINGS]
        for queue, body in whole_stream(replays, seed):
            scene.peer.publish(queue, body)
        for replay in replays:
            scene.wait(replay.job_id, "complete", "cancelled")
        scene.settle()
        two, streams, killed = (replay.job_id for replay in replays)
        assert (scene.ran()[two], scene.ran()[streams]) == (1, 1), seed
        assert scene.ran()[killed] <= 1, seed
        for job_id, end in ((two, "complete"), (streams, "complete"), (killed, "cancelled")):
            assert scene.states(job_id)[-1] == end, (seed, scene.states(job_id))
