"""100 jobs with the same input of 200 MiB, one after the other: with a cache of input files and without.

Bytes are counted by a proxy before the server, in a run of their own, since they would take time from the run without
a cache. The servers are started without root's power over modes of files, as real servers are: hard links to read-only
files are safe then, and LWR makes them.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from tests.machines.fault_proxy import FaultProxy

from benchmarks.clients import OurClient, Work, our_client
from benchmarks.load import make_large
from benchmarks.servers import lwr, without_power
from benchmarks.table import Plan, Row, interleaved, most_row, ratio_row

#: What is uploaded beside the one copy: the jobs' small requests.
_MOST_COPIES = 1.01


def _check_power(guard: list[str], directory: Path) -> None:
    """Raises SystemExit if a program that is started so can write to its own read-only files."""
    probe = directory / "probe"
    probe.touch(0o444)
    wrote = subprocess.run([*guard, "sh", "-c", 'true > "$0"', probe], check=False, capture_output=True)
    if wrote.returncode == 0:
        raise SystemExit("These servers could write to read-only files: the cache would not be measured.")


def _jobs(client: OurClient, url: str, file: Path, jobs_count: int) -> float:
    """Jobs that look at their input, one after the other; returns how many there were in a second."""
    command = f"test $(wc -c < {file}) = {file.stat().st_size}"
    seconds = [client.run(Work(url, command, files=[str(file)]))["total_s"] for _ in range(jobs_count)]
    return jobs_count / sum(seconds)


def measure(plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=plan.disk) as name:
        directory = Path(name)
        guard = without_power()
        _check_power(guard, directory)
        file = make_large(directory / "input", plan.cached_bytes)
        cache = "file_cache_dir = cache\n"
        # All jobs once, for each server, in as many turns as there are rounds.
        each_count = plan.cached_jobs_count // plan.pairs_count
        with (
            lwr(directory / "cached", options=cache, guard=guard) as cached,
            lwr(directory / "plain", guard=guard) as plain,
            our_client() as client,
        ):
            rates = interleaved(
                [partial(_jobs, client, server.url + "/", file, each_count) for server in (cached, plain)],
                plan.pairs_count,
            )
        with (
            lwr(directory / "counted", options=cache, guard=guard) as counted,
            FaultProxy(urlsplit(counted.url).port or 0) as proxy,
            our_client() as client,
        ):
            _jobs(client, proxy.url(), file, plan.cached_jobs_count)
    jobs_count = each_count * plan.pairs_count
    seconds = [sum(each_count / rate for rate in rounds) for rounds in rates]
    what = f"{plan.cached_jobs_count} jobs with one input of {plan.cached_bytes >> 20} MiB"
    return [
        ratio_row(f"{what}, cached", "jobs/s", [jobs_count / seconds[0]], [jobs_count / seconds[1]], "no cache", 5),
        most_row(f"{what}, cached: uploaded", "copies", proxy.up_bytes / plan.cached_bytes, _MOST_COPIES),
    ]
