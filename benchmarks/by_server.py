"""One large file that the server fetches from nginx and delivers there, against curl that hashes and syncs as well.

The server's time is the one in the job's receipt: from the moment it had the task until the file had its name, synced
if it was fetched. curl's is the pipeline's: for a delivery, another process hashes the file at the same time. Only the
one transfer goes on.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.load import MIB, Client, delivery, fetching, make_large
from benchmarks.servers import Server, lwr, nginx
from benchmarks.table import Plan, Row, interleaved, ratio_row

# Not sha256sum: coreutils' own code is several times slower than the processor's SHA instructions.
# Each program holds the pipe of its errors, so that all of them are waited for.
_CURL_GET = 'curl -sS --fail "$0" | tee >(openssl dgst -sha256 >&2) > "$1" && sync "$1"'
_CURL_POST = 'openssl dgst -sha256 "$1" >&2 & curl -sS --fail -o /dev/null -F "file=@$1" "$0" && wait $!'


def _curl_s(script: str, url: str, file: Path) -> float:
    began = time.monotonic()
    subprocess.run(["bash", "-o", "pipefail", "-c", script, url, file], check=True, capture_output=True)
    return time.monotonic() - began


def curl_get_s(url: str, target: Path) -> float:
    seconds = _curl_s(_CURL_GET, url, target)
    target.unlink()
    return seconds


def curl_post_s(url: str, source: Path) -> float:
    return _curl_s(_CURL_POST, url, source)


def server_get_s(server: Server, url: str) -> float:
    [record] = Client(server.url).whole_job("true", fetching(url, "large"))
    return float(record["ended_at"] - record["began_at"])


def server_post_s(server: Server, url: str, source: Path) -> float:
    # Synced, so that the disk has nothing else to do afterwards.
    command = f"cp {source} ../outputs/large && sync ../outputs/large"
    [record] = Client(server.url).whole_job(command, delivery(url, "large"))
    return float(record["ended_at"] - record["began_at"])


def _rows(plan: Plan, place: Path, where: str) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(dir=place) as name,
        lwr(Path(name) / "lwr") as server,
        nginx(Path(name) / "nginx") as web,
    ):
        directory = Path(name)
        source = make_large(directory / "nginx" / "root" / "large", plan.large_bytes)
        subprocess.run(["sync", source], check=True)
        from_url, to_url = f"{web.url}/large", f"{web.url}/sink"
        rounds = interleaved(
            [
                partial(server_get_s, server, from_url),
                partial(curl_get_s, from_url, directory / "copy"),
                partial(server_post_s, server, to_url, source),
                partial(curl_post_s, to_url, source),
            ],
            plan.pairs_count,
        )
    rates = [[plan.large_bytes / MIB / seconds for seconds in each] for each in rounds]
    return [
        ratio_row(f"one large file fetched by the server, {where}", "MiB/s", rates[0], rates[1], "curl", 0.7),
        ratio_row(f"one large file delivered by the server, {where}", "MiB/s", rates[2], rates[3], "curl", 0.7),
    ]


def measure(plan: Plan) -> list[Row]:
    return [*_rows(plan, plan.memory, "in memory"), *_rows(plan, plan.disk, "on disk")]
