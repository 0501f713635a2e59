"""10,000 jobs queued behind one that runs: what that costs in memory, threads and patience, and after a restart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from benchmarks.load import Client, wrk
from benchmarks.servers import Server, lwr
from benchmarks.table import Plan, Row, most_row

MIB = 1 << 20


def _queue(server: Server, queue_count: int) -> None:
    client = Client(server.url)

    def one(number: int) -> None:
        client.set_up(f"q{number}")
        client.submit(f"q{number}", "sleep 3600")

    one(0)
    client.wait("q0", "running")
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(one, range(1, queue_count + 1)):
            pass


def measure(plan: Plan) -> list[Row]:
    directory = plan.disk / "queue"
    last = f"q{plan.queue_count}"
    with lwr(directory, slots_count=1) as server:
        # An idle server is one that has answered: its pool and its caches are warm.
        Client(server.url).ask("GET", "/jobs", {})
        memory_bytes, threads_count = server.memory_bytes(), server.thread_count()
        _queue(server, plan.queue_count)
        grown = (server.memory_bytes() - memory_bytes) / MIB
        threads = server.thread_count() - threads_count
        path = f"/jobs/{last}/status?job_id={last}"
        p99_ms = wrk(server.url, "get.lua", path, threads_count=2, duration_s=plan.load_s)["p99_ms"]
    with lwr(directory, slots_count=1) as server:
        restart_s = server.start_s
        client = Client(server.url)
        client.wait(last, "queued")
        client.end("q0")
    return [
        most_row(f"{plan.queue_count:,} jobs queued: memory above an idle server", "MiB", grown, 60),
        most_row(f"{plan.queue_count:,} jobs queued: threads above an idle server", "threads", threads, 8),
        most_row(f"{plan.queue_count:,} jobs queued: status request, p99", "ms", p99_ms, 50),
        most_row(f"restart with {plan.queue_count:,} queued jobs, until /readyz", "s", restart_s, 3),
    ]
