"""`python -m benchmarks`: measure everything side by side and print the table, as Markdown, with the machine."""

from __future__ import annotations

import argparse
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks import (
    by_server,
    cached_inputs,
    cut_lines,
    growth,
    large_files,
    long_queue,
    queue_jobs,
    requests_per_s,
    small_inputs,
)
from benchmarks.table import Plan, Row, Topic, markdown

TOPICS: dict[str, Topic] = {
    "requests": requests_per_s.measure,
    "files": large_files.measure,
    "queue": long_queue.measure,
    "server-side": by_server.measure,
    "inputs": small_inputs.measure,
    "cuts": cut_lines.measure,
    "memory": growth.measure,
    "cache": cached_inputs.measure,
    "mq": queue_jobs.measure,
}
#: Several topics by one name.
GROUPS = {"staging": ("server-side", "inputs", "cuts", "memory", "cache")}
#: What the rows with large files keep there at one time: the source, and a copy or two for each server.
_ROOM_BYTES = 7 << 30


def _quick(plan: Plan) -> Plan:
    return replace(
        plan,
        pairs_count=1,
        load_s=2,
        large_bytes=1 << 26,
        sparse_bytes=1 << 30,
        queue_count=300,
        inputs_count=200,
        cut_bytes=1 << 27,
        cached_jobs_count=10,
        cached_bytes=50 << 20,
        mq_jobs_count=60,
        mq_single_count=8,
        mq_waiting_count=400,
    )


def _machine() -> str:
    processor = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    memory_gib = psutil.virtual_memory().total / 2**30
    system = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{psutil.cpu_count()} cores ({processor}), {memory_gib:.0f} GiB, {system}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[*TOPICS, *GROUPS, []], help="which to measure (default: all)")
    parser.add_argument(
        "--quick", action="store_true", help="small counts, to see that it works; the figures mean little"
    )
    args = parser.parse_args()
    shared = Path("/dev/shm")  # noqa: S108  (a fresh directory is made in it)
    in_memory = shared if shared.is_dir() and shutil.disk_usage(shared).free > _ROOM_BYTES else None
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir=in_memory) as memory:
        plan = Plan(Path(disk), Path(memory))
        if args.quick:
            plan = _quick(plan)
        rows: list[Row] = []
        for given in args.topics or TOPICS:
            for name in GROUPS.get(given, (given,)):
                rows += TOPICS[name](plan)
    print(f"\n{_machine()}; large files {'in memory' if in_memory else 'on disk'}\n\n{markdown(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
