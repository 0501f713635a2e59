"""Our client in a process of its own, so that its memory is its own: `python -m benchmarks.our_client`.

Each line on its standard input is a job as JSON (`benchmarks.clients.Work`); when the job is over and cleaned, the
answer is a line with the seconds of its steps. Ends with its input. Uses `lwr.client` as anybody would who has many
jobs: with one `RemoteServer` for all that go to the same server.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lwr.client import JobRequest, LocalFile, RemoteJob, RemoteServer


def run(server: RemoteServer, work: dict[str, Any]) -> dict[str, float]:
    """One job's whole life. Raises SystemExit when it did not end as it should."""
    request = JobRequest(
        work["command"],
        tuple(LocalFile("input", path) for path in work["files"]),
        outputs=tuple(work["outputs"]),
        output_dir=Path(work["output_dir"]),
    )
    clock = [time.monotonic()]
    job = RemoteJob(server, request)
    job.stage_in()
    clock.append(time.monotonic())
    job.submit()
    clock.append(time.monotonic())
    status = job.wait()
    clock.append(time.monotonic())
    outcome = job.collect(status)
    clock.append(time.monotonic())
    job.clean()
    if status.state != "complete" or status.exit_code != 0 or outcome.missing:
        raise SystemExit(f"{str(work)[:300]}: {outcome}")
    steps = zip(("stage_s", "submit_s", "wait_s", "collect_s"), clock, clock[1:], strict=False)
    return {name: after - before for name, before, after in steps} | {"total_s": time.monotonic() - clock[0]}


def main() -> None:
    with ExitStack() as stack:
        servers: dict[str, RemoteServer] = {}
        for line in sys.stdin:
            work = json.loads(line)
            url = work["url"]
            if url not in servers:
                servers[url] = stack.enter_context(RemoteServer(url))
            print(json.dumps(run(servers[url], work)), flush=True)


if __name__ == "__main__":
    main()
