"""Jobs over RabbitMQ: how many a second, how soon one runs, and what thousands that wait cost; beside Pulsar's server.

Both servers are on one broker, in virtual hosts of their own, with the same slots, and Galaxy is the same publisher and
nginx, which gives the input and takes the output.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from tests.machines.rabbitmq import RabbitMQ

from benchmarks.galaxy_queue import ENDS, GalaxyQueue, depth, queue, set_up
from benchmarks.load import MIB, wrk
from benchmarks.servers import Server, lwr, nginx, pulsar_of_queue
from benchmarks.table import Plan, Row, interleaved, most_row, ratio_row

SLOTS_COUNT = 4
_SETTLE_S = 3.0
_INPUT = b"a line of a small input\n" * 40
_COMMAND = "cat ../inputs/in.dat > ../outputs/out.dat"


@contextmanager
def _broker(directory: Path) -> Iterator[RabbitMQ]:
    if shutil.which("rabbitmq-server", path="/usr/local/sbin:/usr/sbin:/usr/bin") is None:
        raise SystemExit("The benchmarks of the queue need RabbitMQ: apt-get install rabbitmq-server")
    with RabbitMQ(directory) as broker:
        yield broker


def _takes_jobs(url: str) -> bool:
    return depth(url, queue("setup").name)[1] > 0


def _wait_for(url: str) -> None:
    """Until a server takes jobs from there. It is ready for HTTP a little earlier."""
    while not _takes_jobs(url):
        time.sleep(0.01)


def jobs_per_s(galaxy: GalaxyQueue, web: Server, jobs_count: int) -> float:
    """All published at once; until the last of them was told to be over."""
    jobs = [
        set_up(_COMMAND, files_url=f"{web.url}/in.dat?job_key=k", sink_url=f"{web.url}/sink?job_key=k")
        for _ in range(jobs_count)
    ]
    began = galaxy.publish("setup", jobs)
    ends = [galaxy.wait(job["job_id"], *ENDS) for job in jobs]
    if bad := [state for state, _ in ends if state != "complete"]:
        raise SystemExit(f"{len(bad)} of {jobs_count} jobs did not end as they should: {set(bad)}")
    return jobs_count / (max(when for _, when in ends) - began)


def running_ms(galaxy: GalaxyQueue) -> float:
    """From the publishing of one set-up until its job was told to run."""
    job = set_up("sleep 0.8")  # Pulsar's server looks twice a second, and tells nothing of shorter ones
    began = galaxy.publish("setup", [job])
    _, when = galaxy.wait(job["job_id"], "running")
    galaxy.wait(job["job_id"], *ENDS)
    return 1000 * (when - began)


def _against_pulsar(plan: Plan, directory: Path, broker: RabbitMQ) -> list[Row]:
    ours_url, theirs_url = (broker.url(broker.vhost()) for _ in range(2))
    options = f"message_queue_url = {ours_url}\n"
    with (
        nginx(directory / "nginx") as web,
        lwr(directory / "lwr", SLOTS_COUNT, options=options),
        pulsar_of_queue(directory / "pulsar", theirs_url, partial(_takes_jobs, theirs_url), slots_count=SLOTS_COUNT),
        GalaxyQueue(ours_url) as ours,
        GalaxyQueue(theirs_url) as theirs,
    ):
        (directory / "nginx" / "root" / "in.dat").write_bytes(_INPUT)
        _wait_for(ours_url)
        ceiling = wrk(web.url, "get.lua", "/in.dat?job_key=k", threads_count=1, duration_s=plan.load_s)[
            "requests_per_s"
        ]
        sides = (ours, theirs)
        mine, other = interleaved(
            [partial(jobs_per_s, side, web, plan.mq_jobs_count) for side in sides], plan.pairs_count
        )
        delays = interleaved([partial(running_ms, side) for side in sides], plan.mq_single_count)
    what = f"{plan.mq_jobs_count} trivial jobs over a queue, one input and one output each"
    mine_ms, other_ms = (median(each) for each in delays)
    return [
        Row(
            "nginx as Galaxy: its ceiling", f"{ceiling:,.0f} requests/s", f"{ceiling:,.0f} requests/s", "", enough=True
        ),
        ratio_row(what, "jobs/s", mine, other, "Pulsar's", 4),
        most_row(
            f"from publish to `running`, idle server, median of {plan.mq_single_count}",
            "ms",
            mine_ms,
            150,
            f"{mine_ms:.0f} ms, Pulsar's {other_ms:.0f}",
        ),
    ]


def _waiting(plan: Plan, directory: Path, broker: RabbitMQ) -> list[Row]:
    """A server that was away, and finds all these when it starts; the one that runs keeps the others waiting."""
    url = broker.url(broker.vhost())
    options = f"message_queue_url = {url}\n"
    with lwr(directory, 1, options=options) as server, GalaxyQueue(url) as galaxy:
        _wait_for(url)
        first = set_up("sleep 3600")
        galaxy.publish("setup", [first])
        galaxy.wait(first["job_id"], "running")
    with lwr(directory, 1, options=options) as server:
        _wait_for(url)
        time.sleep(_SETTLE_S)
        idle_bytes, idle_threads = server.memory_bytes(), server.thread_count()
    with GalaxyQueue(url) as galaxy:
        galaxy.publish("setup", [set_up("true") for _ in range(plan.mq_waiting_count)])
    most_bytes = most_threads = 0
    with lwr(directory, 1, options=options) as server, GalaxyQueue(url) as galaxy:
        _wait_for(url)
        began = time.monotonic()
        until = None
        while until is None or time.monotonic() < until:
            most_bytes = max(most_bytes, server.memory_bytes())
            most_threads = max(most_threads, server.thread_count())
            if until is None and broker.queue_depths(url.rpartition("/")[2])[queue("setup").name] == 0:
                until, took_s = time.monotonic() + _SETTLE_S, time.monotonic() - began
            time.sleep(0.05)
        galaxy.publish("kill", [{"job_id": first["job_id"]}])
        galaxy.wait(first["job_id"], "cancelled")
    what = f"{plan.mq_waiting_count:,} set-ups waiting in the broker"
    return [
        most_row(f"{what}: memory above an idle server", "MiB", (most_bytes - idle_bytes) / MIB, 30),
        most_row(f"{what}: threads above an idle server", "threads", most_threads - idle_threads, 0),
        Row(
            f"{what}: until all are taken", f"{took_s:.1f} s", f"{plan.mq_waiting_count / took_s:,.0f} jobs/s", "", True
        ),
    ]


def measure(plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=plan.disk) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with _broker(directory / "rabbitmq") as broker:
            return [
                *_against_pulsar(plan, directory, broker),
                *_waiting(plan, directory / "waiting", broker),
            ]
