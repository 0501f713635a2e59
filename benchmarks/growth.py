"""How much client and server grow while a sparse file of 10 GiB goes each of the four ways; the disk gets it for real.

For each way a fresh client and server, and one small file first: what the first file of all loads is not what these
rows ask about.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.clients import OurClient, Work, our_client
from benchmarks.load import MIB, Client, delivery, fetching
from benchmarks.servers import Server, lwr, nginx
from benchmarks.table import Plan, Row, most_row

_SMALL_BYTES = 1000


def growth_bytes(memories: Mapping[str, Callable[[], int]], work: Callable[[], object]) -> dict[str, int]:
    """By how much each memory is larger at most, while `work` goes on, than it was before."""
    before = {name: memory() for name, memory in memories.items()}
    most, done = dict(before), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for name, memory in memories.items():
                most[name] = max(most[name], memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return {name: most[name] - before[name] for name in memories}


def _sparse(path: Path, size_bytes: int) -> Path:
    path.touch()
    os.truncate(path, size_bytes)
    return path


def sent_by_client(client: OurClient, server: Server, web: Server, file: Path) -> None:
    client.run(Work(server.url + "/", files=[str(file)]))


def fetched_by_client(client: OurClient, server: Server, web: Server, file: Path) -> None:
    out = f"{file.name}.out"
    client.run(Work(server.url + "/", f"truncate -s {file.stat().st_size} {out}", outputs=[out],
                    output_dir=str(file.parent)))  # fmt: skip
    file.with_name(out).unlink()


def fetched_by_server(client: OurClient, server: Server, web: Server, file: Path) -> None:
    Client(server.url).whole_job("true", fetching(f"{web.url}/{file.name}", file.name))


def delivered_by_server(client: OurClient, server: Server, web: Server, file: Path) -> None:
    command = f"truncate -s {file.stat().st_size} ../outputs/{file.name}"
    Client(server.url).whole_job(command, delivery(f"{web.url}/sink", file.name))


WAYS: dict[str, Callable[[OurClient, Server, Server, Path], None]] = {
    "sent by the client": sent_by_client,
    "fetched by the client": fetched_by_client,
    "fetched by the server": fetched_by_server,
    "delivered by the server": delivered_by_server,
}


def _row(way: str, plan: Plan, directory: Path) -> Row:
    with lwr(directory / "lwr") as server, nginx(directory / "nginx") as web, our_client() as client:
        root = directory / "nginx" / "root"
        small, large = _sparse(root / "small", _SMALL_BYTES), _sparse(root / "large", plan.sparse_bytes)
        # Both are there even where only one of them has work.
        sent_by_client(client, server, web, small)
        WAYS[way](client, server, web, small)
        memories = {"client": client.memory_bytes, "server": server.memory_bytes}
        grown = growth_bytes(memories, lambda: WAYS[way](client, server, web, large))
    told = ", ".join(f"{name} {value / MIB:.3g} MiB" for name, value in grown.items())
    size = f"{plan.sparse_bytes >> 30} GiB"
    return most_row(f"{size} {way}: growth of memory", "MiB", max(grown.values()) / MIB, 30, told)


def measure(plan: Plan) -> list[Row]:
    # Two copies are there at a time, the server's and the client's or nginx's.
    if shutil.disk_usage(plan.disk).free < plan.sparse_bytes * 5 // 2:
        raise SystemExit(f"{plan.disk} has no room for files of {plan.sparse_bytes:,} bytes; set TMPDIR.")
    rows = []
    for way in WAYS:
        with tempfile.TemporaryDirectory(dir=plan.disk) as directory:
            rows.append(_row(way, plan, Path(directory)))
        print(rows[-1], flush=True)
    return rows
