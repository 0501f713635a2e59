"""A manager alone in a process, so that it can be killed: reads its order as JSON, prints each report as a line."""

from __future__ import annotations

import json
import sys
import threading

from lwr.core.places import JobLayout
from lwr.core.ticket import Observation, Ticket
from lwr.managers.manager import Site, manager_kinds


def _report(attempt: str, seen: Observation) -> None:
    sys.stdout.write(f"{attempt} {seen.phase} {seen.handle}\n")
    sys.stdout.flush()


def main() -> None:
    order = json.load(sys.stdin)
    manager = manager_kinds()[order["type"]].build("test", order["options"], Site())
    manager.start(_report)
    for attempt, job_id, place, root, command_line in order["tickets"]:
        manager.submit(Ticket(attempt, job_id, place, JobLayout(root), command_line))
    threading.Event().wait()


main()
