"""What those see who watch a server: the document, the metrics, the probes; also when a disk hangs."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from lwr import __version__
from lwr.core.job import JobState
from lwr.server.amqp import QueueHealth
from lwr.server.condition import Condition, Disk, Lookout
from lwr.server.http import metrics
from lwr.server.http.pool import THREADS_COUNT, Pool
from lwr.server.http.routing import Route
from lwr.server.http.status import Watch
from lwr.server.view import ManagerEntry
from lwr.testing import StagedManager
from lwr.transfer.broker import LinkState
from tests.server.http.served import Served, edge_with
from tests.support import DEADLINE_S, wait_until

HANDLED = {("pulsar", "setup", "taken"): 7, ("lwr", "kill", "repeated"): 1}
HEALTH = QueueHealth(
    "amqp://lwr:***@broker/", LinkState(True, 100.0, ""), LinkState(False, 90.0, "refused"), 3, 95.0, HANDLED
)


def lookout(problems: Callable[[], list[str]] = list, queue: QueueHealth | None = None) -> Lookout:
    return Lookout({}, dict, problems, lambda: (0, 0), lambda: queue, (), 0.0)


def asked(path: str, watched: Lookout, *, patience_s: float = DEADLINE_S, times: int = 1) -> list[tuple[int, bytes]]:
    """The answers of a server that has the routes of those who watch and nothing else."""

    async def ask() -> list[tuple[int, bytes]]:
        def routes(pool: Pool) -> list[Route]:
            return Watch(watched, pool, patience_s=patience_s).routes()

        async with edge_with(routes) as (_, get):
            return [await get(path) for _ in range(times)]

    return asyncio.run(ask())


def samples(text: str) -> dict[str, float]:
    """Each series, as Prometheus writes it, with its value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


# -- the document ------------------------------------------------------------------------------------------------


def test_the_status_of_a_server(locked: Served) -> None:
    told = locked.ask("GET", "/status", query={"private_key": locked.secret}).json()
    assert (told["version"], told["ready"], told["problems"], told["queue"]) == (__version__, True, [], None)
    assert told["started_at"] <= told["at"]
    assert [(each["name"], each["type"]) for each in told["managers"]] == [
        ("_default_", "queued_python"),
        ("second", "unqueued"),
    ]
    assert told["managers"][0]["staging_directory"] == str(locked.staging)
    assert told["staging"] == {"running": 0, "waiting": 0}
    assert {disk["directory"] for disk in told["disks"]} >= {str(locked.staging)}
    assert all(disk["total_bytes"] > 0 for disk in told["disks"])


def test_jobs_are_counted_for_each_manager(server: Served, job_id: str) -> None:
    def jobs() -> list[dict[str, int]]:
        return [each["jobs"] for each in server.ask("GET", "/status").json()["managers"]]

    before, others = jobs()
    server.setup(job_id)
    after, same = jobs()
    assert after.get("new", 0) == before.get("new", 0) + 1
    assert same == others
    series = samples(server.ask("GET", "/metrics").body.decode())
    assert series["lwr_jobs{manager=_default_,state=new}"] == after["new"]
    assert series["lwr_jobs{manager=second,state=lost}"] == 0


def test_a_queue_in_the_document() -> None:
    ((status, body),) = asked("/status", lookout(queue=replace(HEALTH, publisher=None)))
    assert status == 200
    assert json.loads(body)["queue"] == {
        "broker": "amqp://lwr:***@broker/",
        "consumer": {"connected": True, "since": 100.0, "reason": ""},
        "publisher": None,
        "waiting": 3,
        "oldest_at": 95.0,
    }


@pytest.mark.parametrize("path", ["/status", "/metrics"])
def test_both_need_the_secret(locked: Served, path: str) -> None:
    locked.ask("GET", path).problem(401, "not-authorized")
    headers = {"Authorization": f"Bearer {locked.secret}".encode().decode("latin-1")}
    assert locked.ask("GET", path, headers=headers).status == 200


# -- metrics -----------------------------------------------------------------------------------------------------


def test_metrics_are_what_prometheus_reads(locked: Served) -> None:
    answer = locked.ask("GET", "/metrics", query={"private_key": locked.secret})
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    series = samples(answer.body.decode())
    assert series[f"lwr_up{{version={__version__}}}"] == 1
    assert series["lwr_ready{}"] == 1
    assert series[f"lwr_disk_free_bytes{{directory={locked.staging}}}"] > 0
    assert series["process_resident_memory_bytes{}"] > 0
    assert not any(name.startswith(("python_", "lwr_broker", "lwr_queue")) for name in series)


def test_metrics_in_the_newer_format_for_who_asks(server: Served) -> None:
    answer = server.ask("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")


def test_metrics_of_a_queue() -> None:
    seen = Condition(105.0, 0.0, ("x",), {}, {}, (1, 2), (Disk('/a "b"\\c', 1, 2), Disk("/gone")), HEALTH)
    series = samples(metrics.render(seen, "")[0].decode())
    ours = {name: value for name, value in series.items() if name.startswith("lwr_") and "lwr_up" not in name}
    assert ours == {
        "lwr_ready{}": 0,
        "lwr_transfers{state=running}": 1,
        "lwr_transfers{state=waiting}": 2,
        'lwr_disk_free_bytes{directory=/a "b"\\c}': 1,
        'lwr_disk_size_bytes{directory=/a "b"\\c}': 2,
        "lwr_broker_connected{link=consumer}": 1,
        "lwr_broker_connected{link=publisher}": 0,
        "lwr_queue_waiting_messages{}": 3,
        "lwr_queue_oldest_message_age_seconds{}": 10,
        "lwr_messages_total{dialect=pulsar,kind=setup,result=taken}": 7,
        "lwr_messages_total{dialect=lwr,kind=kill,result=repeated}": 1,
    }


def test_every_metric_is_explained_and_no_other() -> None:
    seen = Condition(1.0, 0.0, (), {"m": ManagerEntry(StagedManager(), "/m")}, {}, (0, 0), (Disk("/d", 1, 2),), HEALTH)
    names = {name.partition("{")[0] for name in samples(metrics.render(seen, "")[0].decode())}
    page = (Path(__file__).parents[3] / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {name for name in names if name.startswith("lwr_")}


def test_no_client_makes_a_series(server: Served) -> None:
    """Names that clients choose are no labels, and neither are managers that are configured no more."""
    counts = {"gone": {JobState.NEW: 1}, "here": {JobState.NEW: 2}}
    managers = {"here": ManagerEntry(StagedManager(), "/here")}
    series = samples(metrics.render(Condition(0.0, 0.0, (), managers, counts), "")[0].decode())
    jobs = [name for name in series if name.startswith("lwr_jobs")]
    assert len(jobs) == len(JobState)
    server.setup("a-name-that-a-client-chose")
    assert b"a-name-that" not in server.ask("GET", "/metrics").body


# -- probes ------------------------------------------------------------------------------------------------------


def test_readiness_names_the_state_of_the_broker_and_nothing_else() -> None:
    away = replace(HEALTH, publisher=LinkState(False, 90.0, "refused"))
    ((status, body),) = asked("/readyz", lookout(queue=away))
    told = json.loads(body)
    assert (status, told["code"], told["broker"]) == (503, "not-ready", "away")
    assert b"refused" not in body
    assert b"amqp" not in body
    connected = replace(HEALTH, publisher=HEALTH.consumer)
    assert asked("/readyz", lookout(queue=connected)) == [(200, b'{"status": "ok", "broker": "connected"}')]


def test_a_disk_that_does_not_answer_is_not_ready_and_holds_up_nobody() -> None:
    release = threading.Event()
    looks = []

    def hang() -> list[str]:
        looks.append(1)
        release.wait()
        return []

    async def ask() -> dict[str, tuple[int, bytes]]:
        def routes(pool: Pool) -> list[Route]:
            return Watch(lookout(hang), pool, patience_s=0.01).routes()

        async with edge_with(routes) as (_, get):
            try:
                return {path: await get(path) for path in ("/readyz", "/status", "/metrics", "/livez")}
            finally:
                release.set()

    answers = asyncio.run(ask())
    assert len(looks) == 1
    assert [status for status, _ in answers.values()] == [503, 200, 200, 200]
    told = json.loads(answers["/status"][1])
    assert (told["ready"], told["queue"], told["staging"]) == (False, None, None)
    assert "The disk does not answer." in told["problems"][0]
    assert samples(answers["/metrics"][1].decode())["lwr_ready{}"] == 0


def test_readiness_waits_for_no_thread_that_serves_requests() -> None:
    async def ask(release: threading.Event) -> int:
        async with edge_with(lambda pool: Watch(lookout(), pool).routes()) as (pool, get):
            stuck = [pool.run(release.wait) for _ in range(THREADS_COUNT)]
            try:
                async with asyncio.timeout(DEADLINE_S):
                    return (await get("/readyz"))[0]
            finally:
                release.set()
                await asyncio.gather(*stuck)

    assert asyncio.run(ask(threading.Event())) == 200


def test_it_gets_ready_again_by_itself(server: Served) -> None:
    """The next look is a new one."""
    problems = ["The disk is full."]
    watched = lookout(lambda: [problems.pop()] if problems else [])
    assert [status for status, _ in asked("/readyz", watched, times=2)] == [503, 200]
    wait_until(lambda: server.ask("GET", "/readyz").status == 200, "the server to be ready")
