"""What the suite for managers works with: jobs in a yard, gates at which they wait, a ledger of what was reported.

Jobs and tests wait for each other at gates (named pipes) and on the reports; nothing sleeps.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lwr.core.places import SETUP_AREAS, Area, JobLayout
from lwr.core.script import MARKER_NAME
from lwr.core.ticket import Adoption, EnvItem, Observation, Phase, Ticket
from lwr.managers.manager import JobManager, Site, manager_kinds

#: How long a test waits for what takes milliseconds on an idle machine.
DEADLINE_S = 40.0

OVER = (Phase.ENDED, Phase.GONE, Phase.REFUSED)


class Ledger:
    """What a manager reported, and waiting for it."""

    def __init__(self) -> None:
        self._all: list[tuple[str, Observation]] = []
        self._news = threading.Condition()

    def report(self, attempt: str, seen: Observation) -> None:
        with self._news:
            self._all.append((attempt, seen))
            self._news.notify_all()

    def of(self, ticket: Ticket) -> list[Observation]:
        with self._news:
            return [seen for attempt, seen in self._all if attempt == ticket.attempt]

    def phases(self, ticket: Ticket) -> list[Phase]:
        return [seen.phase for seen in self.of(ticket)]

    def wait(self, ticket: Ticket, *phases: Phase) -> Observation:
        """The first observation of one of these phases; fails the test when it does not come."""

        def found() -> Observation | None:
            return next((s for a, s in self._all if a == ticket.attempt and s.phase in phases), None)

        with self._news:
            seen = self._news.wait_for(found, DEADLINE_S)
        assert seen is not None, f"no {phases} of {ticket.job_id}: {self.of(ticket)}"
        return seen

    def wait_over(self, ticket: Ticket) -> Observation:
        return self.wait(ticket, *OVER)


class Gate:
    """A named pipe at which a job waits until the test opens it: `cat GATE`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)

    def __str__(self) -> str:
        return self.path

    def open(self) -> None:
        """Let through the one job that waits here, now or in a moment."""
        with open(self.path, "wb"):
            return

    def wait_for(self, callers: int) -> None:
        """The other way round: wait until so many have called with `echo >> GATE`."""
        # Opened for both, so that the end of one writer is not the end of the pipe.
        fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        try:
            for _ in range(callers):
                assert select.select([fd], [], [], DEADLINE_S)[0], "nobody called"
                os.read(fd, 1)
        finally:
            os.close(fd)


@dataclass
class Yard:
    """A directory with jobs in it, and the managers that were let loose on them."""

    root: Path
    type: str
    options: Mapping[str, object]
    ledger: Ledger = field(default_factory=Ledger)
    tickets: list[Ticket] = field(default_factory=list)
    managers: list[JobManager] = field(default_factory=list)

    def manager(self, **options: object) -> JobManager:
        """A manager of the kind, started."""
        made = manager_kinds()[self.type].build("test", {**self.options, **options}, Site())
        made.start(self.ledger.report)
        self.managers.append(made)
        return made

    def gate(self) -> Gate:
        return Gate(self.root / f"gate-{uuid.uuid4().hex}")

    def ticket(self, command_line: str, env: tuple[EnvItem, ...] = ()) -> Ticket:
        """A job with its directories, as the engine makes them, not submitted."""
        order = len(self.tickets)
        layout = JobLayout(str(self.root / f"job {order}"))
        for area in SETUP_AREAS:
            os.makedirs(layout.area(area))
        made = Ticket(uuid.uuid4().hex, str(order), order, layout, command_line, env)
        self.tickets.append(made)
        return made

    def run(self, manager: JobManager, command_line: str) -> tuple[Ticket, Observation]:
        ticket = self.ticket(command_line)
        manager.submit(ticket)
        return ticket, self.ledger.wait_over(ticket)

    def stdout(self, ticket: Ticket) -> str:
        return Path(ticket.layout.stdout).read_text(encoding="utf-8")

    def stderr(self, ticket: Ticket) -> str:
        return Path(ticket.layout.stderr).read_text(encoding="utf-8")

    def processes(self, ticket: Ticket) -> list[int]:
        """Who carries the ticket's marker; read from /proc, so as not to ask the code that is tested."""
        wanted = f"{MARKER_NAME}={ticket.attempt}".encode()
        return _who(lambda entry: wanted in (entry / "environ").read_bytes().split(b"\0"))

    def close(self) -> None:
        for manager in self.managers:
            manager.stop()
        kill_all_below(self.root)

    def kill(self, ticket: Ticket) -> None:
        """End all processes of a job, as no manager would."""
        _kill_all(lambda: self.processes(ticket))


class Victim:
    """A manager in a process of its own, to be killed. It prints what it reports."""

    def __init__(self, yard: Yard, tickets: list[Ticket], fault: str = "") -> None:
        order = {
            "type": yard.type,
            "options": dict(yard.options),
            "tickets": [[t.attempt, t.job_id, t.order, t.layout.root, t.command_line] for t in tickets],
        }
        self.handles: dict[str, str] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.victim"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2], env={**os.environ, "LWR_FAULT": fault},
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order))
        self._process.stdin.close()

    def read_until(self, ticket: Ticket | None = None, phase: Phase | None = None) -> None:
        """Take in its reports up to this one; without arguments, up to its death at a fault point."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            attempt, seen_phase, handle = line.rstrip("\n").split(" ")
            if handle:
                self.handles[attempt] = handle
            if ticket is not None and (attempt, seen_phase) == (ticket.attempt, phase):
                return
        assert ticket is None, "the victim died before it reported what was waited for"

    def kill(self) -> None:
        self._process.kill()
        self.bury()

    def bury(self) -> int:
        """Wait for its death; returns its status."""
        assert self._process.stdout is not None
        with self._process.stdout:
            return self._process.wait(DEADLINE_S)

    def adoption(self, ticket: Ticket) -> Adoption:
        """What a server that heard these reports would give back after its restart."""
        handle = self.handles.get(ticket.attempt, "")
        return Adoption(ticket.attempt, ticket.job_id, ticket.order, ticket.layout, handle)


def effects(ticket: Ticket) -> list[str]:
    path = Path(ticket.layout.path(Area.WORKING.value, "effects"))
    return path.read_text().split() if path.exists() else []


def wait_for_effects(ticket: Ticket, gate: Gate) -> None:
    """Until the job has begun and waits at its gate: opening a pipe to write fails while nobody reads."""
    wait_until(lambda: anybody_at(gate) and bool(effects(ticket)))


def anybody_at(gate: Gate) -> bool:
    return bool(_who(lambda entry: gate.path.encode() in (entry / "cmdline").read_bytes().split(b"\0")))


def kill_all_below(root: Path) -> None:
    """End all processes whose command line names this directory."""
    _kill_all(lambda: _who(lambda entry: str(root).encode() in (entry / "cmdline").read_bytes()))


def _who(matches: Callable[[Path], bool]) -> list[int]:
    """The processes whose directory in /proc passes the test."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid() and matches(entry):
                found.append(int(entry.name))
    return found


def _kill_all(who: Callable[[], list[int]]) -> None:
    def none_left() -> bool:
        pids = who()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(none_left)


def wait_until(true: Callable[[], bool]) -> None:
    """For what nothing tells us of: looks again and again, a few milliseconds apart."""
    tick, left = threading.Event(), DEADLINE_S
    while not true():
        assert left > 0, "it did not come to pass"
        tick.wait(0.01)
        left -= 0.01
