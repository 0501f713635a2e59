"""One large file up and down by curl, against Pulsar and nginx; and a sparse one of 10 GiB, for its memory.

LWR hashes what it receives, so nginx's PUT is measured with a hash of the same stream beside it, and alone for
comparison. Files are in memory where the machine has a file system there: the servers are measured, not the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.growth import growth_bytes
from benchmarks.load import MIB, Client, curl, curl_hashing, file_path, make_large
from benchmarks.servers import Server, lwr, nginx, pulsar
from benchmarks.table import Plan, Row, interleaved, most_row, ratio_row


def _rate(plan: Plan, seconds: float) -> float:
    return plan.large_bytes / MIB / seconds


def uploads(plan: Plan, file: Path, ours: Server, theirs: Server, other: Server) -> list[Row]:
    """Up, each time over the file that the time before left."""
    for server in (ours, theirs):
        Client(server.url).set_up("up")

    def post(server: Server) -> Callable[[], float]:
        target = server.url + file_path("up", "large", "input")
        return lambda: _rate(plan, curl("-X", "POST", "-T", str(file), target))

    put = other.url + "/up"
    rounds = interleaved(
        [
            post(ours),
            post(theirs),
            lambda: _rate(plan, curl_hashing(file, put)),
            lambda: _rate(plan, curl("-T", str(file), put)),
        ],
        plan.pairs_count,
    )
    for server in (ours, theirs):
        Client(server.url).end("up")
    (plan.memory / "nginx" / "root" / "up").unlink()
    return [
        ratio_row("upload of one large file", "MiB/s", rounds[0], rounds[1], "Pulsar", 5),
        ratio_row("upload of one large file", "MiB/s", rounds[0], rounds[2], "nginx with a hash", 0.8),
        ratio_row("upload of one large file", "MiB/s", rounds[0], rounds[3], "nginx without"),
    ]


def downloads(plan: Plan, file: Path, ours: Server, theirs: Server, other: Server) -> list[Row]:
    """Down, from a job that copied the file into its outputs, as stock clients ask and as ours does."""
    for server in (ours, theirs):
        client = Client(server.url)
        client.set_up("down")
        client.submit("down", f"cp {file} ../outputs/large")
        client.wait("down", "complete")
    (plan.memory / "nginx" / "root" / "down").symlink_to(file)

    def get(server: Server, *options: str) -> Callable[[], float]:
        return lambda: _rate(plan, curl(*options, server.url + file_path("down", "large", "output")))

    bearer = get(ours, "-H", "Authorization: Bearer none")
    measures = [get(ours), get(theirs), lambda: _rate(plan, curl(other.url + "/down")), bearer]
    rounds = interleaved(measures, plan.pairs_count)
    for server in (ours, theirs):
        Client(server.url).end("down")
    return [
        ratio_row("download of one large file", "MiB/s", rounds[0], rounds[1], "Pulsar", 5),
        ratio_row("download of one large file", "MiB/s", rounds[0], rounds[2], "nginx", 0.8),
        ratio_row("the same with a length and a digest", "MiB/s", rounds[3], rounds[2], "nginx"),
    ]


def memory_of_sparse_upload(plan: Plan) -> list[Row]:
    """How much the server's memory grows while a sparse file of 10 GiB arrives; the disk gets it for real."""
    sparse = plan.disk / "sparse"
    sparse.touch()
    os.truncate(sparse, plan.sparse_bytes)
    with lwr(plan.disk / "sparse-lwr") as server:
        client = Client(server.url)
        client.set_up("sparse")
        # One small upload first: what any first upload loads is not what this row asks about.
        curl("-X", "POST", "--data-binary", "x", server.url + file_path("sparse", "small", "input"))
        target = server.url + file_path("sparse", "large", "input")
        memory = {"server": server.memory_bytes}
        grown = growth_bytes(memory, lambda: curl("-X", "POST", "-T", str(sparse), target))
        client.end("sparse")
    return [most_row("a 10 GiB upload: growth of the server's memory", "MiB", grown["server"] / MIB, 30)]


def measure(plan: Plan) -> list[Row]:
    file = make_large(plan.memory / "large", plan.large_bytes)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(start(plan.memory / name))
            for start, name in ((lwr, "lwr"), (pulsar, "pulsar"), (nginx, "nginx"))
        ]
        rows = uploads(plan, file, *servers) + downloads(plan, file, *servers)
    file.unlink()
    return rows + memory_of_sparse_upload(plan)
