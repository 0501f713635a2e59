"""A transfer of 2 GiB whose line is cut ten times: how many bytes moved in all, counted by the proxy that cuts.

A cut lets through all that was sent before it, as a peer does that goes away. A piece is what is read and written at
a time: 1 MiB. Headers and the job's other requests are counted with the rest.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.machines.fault_proxy import Fault, FaultProxy

from benchmarks.clients import OurClient, Work, our_client
from benchmarks.load import Client, fetching
from benchmarks.servers import Server, lwr, nginx
from benchmarks.table import Plan, Row, most_row

PIECE_BYTES = 1 << 20
CUTS_COUNT = 10


def fetched_by_server(server: Server, web: Server, client: OurClient, file: Path, each_bytes: int) -> FaultProxy:
    with _proxy(web, Fault(cut_down_bytes=each_bytes)) as proxy:
        Client(server.url).whole_job("true", fetching(proxy.url(f"/{file.name}"), file.name))
    return proxy


def sent_by_client(server: Server, web: Server, client: OurClient, file: Path, each_bytes: int) -> FaultProxy:
    with _proxy(server, Fault(cut_up_bytes=each_bytes)) as proxy:
        client.run(Work(proxy.url(), files=[str(file)]))
    return proxy


def fetched_by_client(server: Server, web: Server, client: OurClient, file: Path, each_bytes: int) -> FaultProxy:
    command, target = f"truncate -s {file.stat().st_size} fetched", str(file.parent)
    with _proxy(server, Fault(cut_down_bytes=each_bytes)) as proxy:
        client.run(Work(proxy.url(), command, outputs=["fetched"], output_dir=target))
    return proxy


def _proxy(server: Server, fault: Fault) -> FaultProxy:
    return FaultProxy(urlsplit(server.url).port or 0, otherwise=fault)


#: How the file goes, and which of the proxy's counts tells of it.
WAYS: dict[str, tuple[Callable[[Server, Server, OurClient, Path, int], FaultProxy], str]] = {
    "fetched by the server": (fetched_by_server, "down_bytes"),
    "sent by the client": (sent_by_client, "up_bytes"),
    "fetched by the client": (fetched_by_client, "down_bytes"),
}


def _row(way: str, plan: Plan, directory: Path) -> Row:
    size_bytes = plan.cut_bytes
    # Each connection carries so much; what is left after ten of them is half of that.
    each_bytes = size_bytes * 2 // (2 * CUTS_COUNT + 1)
    move, counted = WAYS[way]
    with lwr(directory / "lwr") as server, nginx(directory / "nginx") as web, our_client() as client:
        file = directory / "nginx" / "root" / "large"
        file.touch()
        os.truncate(file, size_bytes)
        proxy = move(server, web, client, file, each_bytes)
    lines_bytes = [getattr(line, counted) for line in proxy.lines]
    cuts_count = sum(moved >= each_bytes for moved in lines_bytes)
    if cuts_count < CUTS_COUNT:
        raise SystemExit(f"{way}: the line was cut only {cuts_count} times")
    pieces = (sum(lines_bytes) - size_bytes) / PIECE_BYTES
    told = f"{sum(lines_bytes):,} bytes of {size_bytes:,}, {cuts_count} cuts"
    what = f"{size_bytes / (1 << 30):g} GiB cut ten times, {way}: moved beside its size"
    return most_row(what, "pieces", pieces, CUTS_COUNT, told)


def measure(plan: Plan) -> list[Row]:
    rows = []
    for way in WAYS:
        with tempfile.TemporaryDirectory(dir=plan.disk) as directory:
            rows.append(_row(way, plan, Path(directory)))
        print(rows[-1], flush=True)
    return rows
