"""Which synchronous HTTP client moves a large file best: requests, httpx2 or pycurl, over loopback, both ways.

    pip install httpx2 pycurl && python benchmarks/http_clients.py [--size-mib 1024] [--rounds 5]

Each measurement is a process of its own, so that its peak memory is its own; clients take turns within a round. The
server (aiohttp, this file too) throws away what it gets and serves a sparse file. Knows nothing of LWR.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import requests
from aiohttp import web

PIECE_BYTES = 1024 * 1024


def serve(path: str) -> None:
    """Serve until killed; the first line that is printed is the port."""

    async def take(request: web.Request) -> web.Response:
        size_bytes = 0
        async for piece in request.content.iter_any():
            size_bytes += len(piece)
        return web.Response(text=str(size_bytes))

    async def give(request: web.Request) -> web.FileResponse:
        return web.FileResponse(path)

    async def run() -> None:
        app = web.Application(client_max_size=0)
        app.router.add_put("/", take)
        app.router.add_get("/", give)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


class _Sized:
    """A body that is read in large pieces and says its length, as requests understands it."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __len__(self) -> int:
        return os.path.getsize(self._path)

    def __iter__(self) -> Iterator[bytes]:
        return _pieces(self._path)


def requests_up(url: str, path: str) -> int:
    with requests.Session() as session:
        return int(session.put(url, data=_Sized(path)).text)


def requests_down(url: str, path: str) -> int:
    with requests.Session() as session, session.get(url, stream=True) as response, open(os.devnull, "wb") as sink:
        return sum(sink.write(piece) for piece in response.iter_content(PIECE_BYTES))


def httpx2_up(url: str, path: str) -> int:
    httpx2 = import_module("httpx2")
    with httpx2.Client(timeout=None) as client:
        headers = {"Content-Length": str(os.path.getsize(path))}
        return int(client.put(url, content=_pieces(path), headers=headers).text)


def httpx2_down(url: str, path: str) -> int:
    httpx2 = import_module("httpx2")
    with httpx2.Client(timeout=None) as client, client.stream("GET", url) as response, open(os.devnull, "wb") as sink:
        return sum(sink.write(piece) for piece in response.iter_raw())


def pycurl_up(url: str, path: str) -> int:
    pycurl = import_module("pycurl")
    said: list[bytes] = []
    curl = pycurl.Curl()
    with open(path, "rb") as file:
        for option, value in {
            pycurl.URL: url,
            pycurl.UPLOAD: 1,
            pycurl.READDATA: file,
            pycurl.INFILESIZE_LARGE: os.path.getsize(path),
            pycurl.UPLOAD_BUFFERSIZE: PIECE_BYTES,
            pycurl.WRITEFUNCTION: said.append,
        }.items():
            curl.setopt(option, value)
        curl.perform()
    curl.close()
    return int(b"".join(said))


def pycurl_down(url: str, path: str) -> int:
    pycurl = import_module("pycurl")
    curl = pycurl.Curl()
    with open(os.devnull, "wb") as sink:
        for option, value in {pycurl.URL: url, pycurl.BUFFERSIZE: PIECE_BYTES // 2, pycurl.WRITEDATA: sink}.items():
            curl.setopt(option, value)
        curl.perform()
        size_bytes = int(curl.getinfo(pycurl.SIZE_DOWNLOAD_T))
    curl.close()
    return size_bytes


CLIENTS: dict[str, tuple[Callable[[str, str], int], Callable[[str, str], int]]] = {
    "requests": (requests_up, requests_down),
    "httpx2": (httpx2_up, httpx2_down),
    "pycurl": (pycurl_up, pycurl_down),
}


def transfer(client: str, way: str, url: str, path: str) -> None:
    """One transfer in this process: prints its seconds and the process's peak memory in KiB."""
    move = CLIENTS[client][way == "down"]
    start = time.perf_counter()
    size_bytes = move(url, path)
    elapsed_s = time.perf_counter() - start
    if size_bytes != os.path.getsize(path):
        raise SystemExit(f"{client} {way}: {size_bytes} bytes")
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(elapsed_s, peak.group(1) if peak else 0)


def compare(size_mib: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with open(path, "wb") as file:
            file.truncate(size_mib << 20)
        me = [sys.executable, __file__]
        server = subprocess.Popen([*me, "serve", path], stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
            figures: dict[tuple[str, str], list[tuple[float, int]]] = {}
            for _ in range(rounds):
                for way in ("up", "down"):
                    for client in CLIENTS:
                        said = subprocess.check_output([*me, "transfer", client, way, url, path], text=True).split()
                        figures.setdefault((client, way), []).append((float(said[0]), int(said[1])))
        finally:
            server.kill()
            server.communicate()
    print(f"| client | {size_mib} MiB up, MB/s | peak, MiB | down, MB/s | peak, MiB |\n| --- | --- | --- | --- | --- |")
    for client in CLIENTS:
        cells = []
        for way in ("up", "down"):
            seconds, peaks_kib = zip(*figures[client, way], strict=True)
            cells += [f"{size_mib * 1.048576 / statistics.median(seconds):.0f}", f"{max(peaks_kib) / 1024:.0f}"]
        print(f"| {client} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare synchronous HTTP clients.")
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:2] == ["transfer"]:
        transfer(*sys.argv[2:6])
    else:
        given = parser.parse_args()
        compare(given.size_mib, given.rounds)


if __name__ == "__main__":
    main()
