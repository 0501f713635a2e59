"""Small requests: the whole life of trivial jobs, 4 KiB uploads, and status; 16 clients at a time, by wrk.

Both servers run side by side with four slots, on a real disk; wrk's own ceiling is measured at nginx. Uploads are
measured in memory too: on ext4, making a file takes much longer while many were deleted a few seconds ago.
"""

from __future__ import annotations

from functools import partial
from itertools import count

from benchmarks.load import Client, wrk
from benchmarks.servers import Server, lwr, nginx, pulsar
from benchmarks.table import Plan, Row, interleaved, ratio_row

_runs = count()


def lives_per_s(server: Server, plan: Plan) -> float:
    # One connection for each thread of wrk: its script tells the steps of a job by thread.
    figures = wrk(server.url, "life.lua", f"r{next(_runs)}", threads_count=16, duration_s=2 * plan.load_s)
    return figures["jobs_per_s"]


def uploads_per_s(server: Server, plan: Plan) -> float:
    client, job_id = Client(server.url), f"uploads{next(_runs)}"
    client.set_up(job_id)
    figures = wrk(server.url, "upload.lua", job_id, threads_count=2, duration_s=plan.load_s)
    client.end(job_id)
    return figures["requests_per_s"]


def statuses_per_s(server: Server, plan: Plan) -> float:
    """Status of a job that runs: what a Galaxy asks most of the time."""
    client, job_id = Client(server.url), f"status{next(_runs)}"
    client.set_up(job_id)
    client.submit(job_id, "sleep 600")
    client.wait(job_id, "running")
    path = f"/jobs/{job_id}/status?job_id={job_id}"
    figures = wrk(server.url, "get.lua", path, threads_count=2, duration_s=plan.load_s)
    client.end(job_id)
    return figures["requests_per_s"]


def measure(plan: Plan) -> list[Row]:
    rows = []
    what = "4 KiB uploads, state in memory"
    with lwr(plan.memory / "lwr") as ours, pulsar(plan.memory / "pulsar") as theirs:
        rounds = interleaved(
            [partial(uploads_per_s, ours, plan), partial(uploads_per_s, theirs, plan)], plan.pairs_count
        )
        rows.append(ratio_row(what, "requests/s", rounds[0], rounds[1], "Pulsar", 3.0))
    with lwr(plan.disk / "lwr") as ours, pulsar(plan.disk / "pulsar") as theirs, nginx(plan.disk / "nginx") as other:
        ceiling = wrk(other.url, "get.lua", "/ping", threads_count=2, duration_s=plan.load_s)["requests_per_s"]
        print(f"wrk alone: {ceiling:,.0f} requests/s", flush=True)
        for what, unit, figure, least in (
            ("trivial jobs, whole life", "jobs/s", lives_per_s, 4.0),
            ("4 KiB uploads, on disk", "requests/s", uploads_per_s, 3.0),
            ("status of a running job", "requests/s", statuses_per_s, 3.0),
        ):
            rounds = interleaved([partial(figure, ours, plan), partial(figure, theirs, plan)], plan.pairs_count)
            rows.append(ratio_row(what, unit, rounds[0], rounds[1], "Pulsar", least))
            print(rows[-1], flush=True)
    return rows
