"""What every `JobManager` must do, as tests: a subclass names the kind and inherits the suite.

    class TestMine(ManagerConformance):
        type = "mine"
        options = {"some_option": 1}

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from lwr.core.places import SETUP_AREAS, Area, JobLayout
from lwr.core.script import MARKER_NAME
from lwr.core.ticket import Adoption, EnvItem, Observation, Phase, Ticket
from lwr.errors import ManagerError
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


class ManagerConformance:
    """The suite. Subclasses set `type` and `options`, and the fault points that their way of starting passes."""

    type: ClassVar[str]
    options: ClassVar[Mapping[str, object]] = {}
    fault_points: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture
    def yard(self, tmp_path: Path) -> Iterator[Yard]:
        made = Yard(tmp_path, self.type, self.options)
        yield made
        made.close()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "fault_point" in metafunc.fixturenames:
            metafunc.parametrize("fault_point", self.fault_points)

    # -- running ---------------------------------------------------------------------------------------------------

    def test_a_job_is_reported_waiting_then_running_then_ended(self, yard: Yard) -> None:
        ticket, ended = yard.run(yard.manager(), "echo out; echo err >&2; pwd; exit 3")
        assert yard.ledger.phases(ticket) == [Phase.WAITING, Phase.RUNNING, Phase.ENDED]
        assert yard.ledger.wait(ticket, Phase.RUNNING).handle
        assert ended == Observation(Phase.ENDED, exit_code=3)
        assert yard.stdout(ticket) == f"out\n{ticket.layout.area(Area.WORKING)}\n"
        assert yard.stderr(ticket) == "err\n"

    @pytest.mark.parametrize("code", [0, 1, 3, 42, 111, 126, 127, 255])
    def test_the_exit_code_is_the_commands(self, yard: Yard, code: int) -> None:
        ticket, ended = yard.run(yard.manager(), f"exit {code}")
        assert (ended.phase, ended.exit_code) == (Phase.ENDED, code)
        assert Path(ticket.layout.exit_file).read_text() == f"{code}\n"

    def test_every_exit_code_comes_through(self, yard: Yard) -> None:
        manager = yard.manager()
        tickets = [yard.ticket(f"exit {code}") for code in range(256)]
        for ticket in tickets:
            manager.submit(ticket)
        assert [yard.ledger.wait_over(ticket).exit_code for ticket in tickets] == list(range(256))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_death_of_the_command_by_a_signal_is_128_and_its_number(self, yard: Yard, number: signal.Signals) -> None:
        _, ended = yard.run(yard.manager(), f"sh -c 'kill -{number:d} $$'")
        assert (ended.phase, ended.exit_code) == (Phase.ENDED, 128 + number)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_death_of_the_script_by_a_signal_is_told(self, yard: Yard, number: signal.Signals) -> None:
        _, ended = yard.run(yard.manager(), f"kill -{number:d} $$; cat {yard.gate()}")
        assert (ended.phase, ended.exit_code) == (Phase.ENDED, -number)
        assert number.name in ended.reason

    def test_a_hostile_command_line_stays_in_its_place(self, yard: Yard) -> None:
        command = r"""echo "it's" 'a "quote"' `echo b` $((1+1)); cat <<'EOF'
)
exit 99 ' " $x
EOF
show() { printf '%s' "☃ $1"; }
show \)
(exit 9)"""
        ticket, ended = yard.run(yard.manager(), command)
        assert yard.stdout(ticket) == 'it\'s a "quote" b 2\n)\nexit 99 \' " $x\n☃ )', yard.stderr(ticket)
        assert ended.exit_code == 9

    @pytest.mark.parametrize("command", [")", "fi", "if", "echo 'open", 'echo "open', "x() {", "$(", "exec /nowhere/x"])
    def test_a_command_that_no_shell_understands_fails_by_its_code(self, yard: Yard, command: str) -> None:
        ticket, ended = yard.run(yard.manager(), command)
        assert ended.phase is Phase.ENDED
        assert ended.exit_code not in (0, None)
        assert Path(ticket.layout.exit_file).read_text() == f"{ended.exit_code}\n"

    def test_a_command_line_of_half_a_megabyte(self, yard: Yard) -> None:
        ticket, ended = yard.run(yard.manager(), "printf %s '" + "x" * 500_000 + "' | wc -c")
        assert (ended.exit_code, yard.stdout(ticket).strip()) == (0, "500000")

    def test_megabytes_of_output_arrive_whole(self, yard: Yard) -> None:
        ticket, ended = yard.run(yard.manager(), "head -c 30000000 /dev/zero")
        assert (ended.exit_code, os.path.getsize(ticket.layout.stdout)) == (0, 30_000_000)

    def test_a_job_that_removes_its_own_directory_is_over_all_the_same(self, yard: Yard) -> None:
        ticket, ended = yard.run(yard.manager(), 'rm -rf "$(dirname "$_GALAXY_JOB_DIR")"; exit 5')
        assert (ended.phase, ended.exit_code) == (Phase.ENDED, 5)
        assert not os.path.exists(ticket.layout.root)

    def test_a_forged_exit_file_of_another_kind_is_not_believed(self, yard: Yard) -> None:
        command = "echo 0 > ../real; ln -s real ../return_code; kill -9 $$"
        _, ended = yard.run(yard.manager(), command)
        assert ended.exit_code == -signal.SIGKILL

    # -- at most one start -----------------------------------------------------------------------------------------

    def test_a_ticket_submitted_again_and_again_starts_once(self, yard: Yard) -> None:
        manager, gate = yard.manager(), yard.gate()
        ticket = yard.ticket(f"echo started >> effects; cat {gate}; exit 7")
        threads = [threading.Thread(target=manager.submit, args=(ticket,)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        yard.ledger.wait(ticket, Phase.RUNNING)
        manager.submit(ticket)
        gate.open()
        yard.ledger.wait_over(ticket)
        manager.submit(ticket)
        # Whatever comes after it shows that the last submit was dealt with.
        yard.run(manager, "true")
        assert {seen.exit_code for seen in yard.ledger.of(ticket) if seen.phase in OVER} == {7}
        assert effects(ticket) == ["started"]

    def test_a_second_start_refuses_and_leaves_everything_as_it_is(self, yard: Yard) -> None:
        ticket, _ = yard.run(yard.manager(), "echo once; exit 4")
        again = subprocess.run(["bash", ticket.layout.script], check=False, capture_output=True)
        assert (again.returncode, again.stdout, again.stderr) == (111, b"", b"")
        assert yard.stdout(ticket) == "once\n"
        assert Path(ticket.layout.exit_file).read_text() == "4\n"

    def test_what_cannot_be_taken_is_refused_at_once(self, yard: Yard) -> None:
        manager = yard.manager()
        lost = Ticket(uuid.uuid4().hex, "x", 0, JobLayout(str(yard.root / "nowhere")), "true")
        with pytest.raises(ManagerError, match="could not be written") as caught:
            manager.submit(lost)
        assert not caught.value.transient
        with pytest.raises(ManagerError, match="not Unicode"):
            manager.submit(yard.ticket("echo \ud900"))

    # -- cancelling ------------------------------------------------------------------------------------------------

    def test_cancel_ends_a_running_job(self, yard: Yard) -> None:
        manager = yard.manager()
        ticket = yard.ticket(f"cat {yard.gate()} | cat")
        manager.submit(ticket)
        yard.ledger.wait(ticket, Phase.RUNNING)
        manager.cancel(ticket.attempt)
        manager.cancel(ticket.attempt)
        assert yard.ledger.wait_over(ticket).phase in (Phase.ENDED, Phase.GONE)
        assert yard.processes(ticket) == []

    def test_cancel_reaches_a_tree_that_hides_and_ignores_sigterm(self, yard: Yard) -> None:
        manager, up = yard.manager(), yard.gate()
        never = yard.gate()
        stubborn = f"trap '' TERM; echo >> {up}; cat {never}"
        hidden = f'(setsid sh -c "{stubborn}" &) &\n(env -i sh -c "{stubborn}" &) &\n{stubborn}'
        ticket = yard.ticket(hidden)
        manager.submit(ticket)
        up.wait_for(3)
        manager.cancel(ticket.attempt)
        yard.ledger.wait_over(ticket)
        assert yard.processes(ticket) == []
        # The last of them held the other end of this pipe, also the one without a marker.
        assert not anybody_at(never)

    def test_cancel_of_a_job_whose_script_ended_but_whose_processes_did_not(self, yard: Yard) -> None:
        manager, never, up = yard.manager(), yard.gate(), yard.gate()
        ticket = yard.ticket(f"(trap '' TERM; echo >> {up}; cat {never}) & cat {never}")
        manager.submit(ticket)
        up.wait_for(1)
        manager.cancel(ticket.attempt)
        assert yard.ledger.wait_over(ticket).phase in (Phase.ENDED, Phase.GONE)
        assert yard.processes(ticket) == []

    def test_cancel_of_unknown_and_finished_attempts_is_nothing(self, yard: Yard) -> None:
        manager = yard.manager()
        manager.cancel(uuid.uuid4().hex)
        ticket, _ = yard.run(manager, "true")
        manager.cancel(ticket.attempt)
        yard.run(manager, "true")
        assert yard.ledger.phases(ticket)[-1] is Phase.ENDED
        assert len([phase for phase in yard.ledger.phases(ticket) if phase in OVER]) == 1

    # -- start, stop, and starting again ---------------------------------------------------------------------------

    def test_stop_may_come_twice_or_without_start(self, yard: Yard) -> None:
        manager = yard.manager()
        manager.stop()
        manager.stop()
        unstarted = manager_kinds()[self.type].build("test", dict(self.options), Site())
        unstarted.stop()

    def test_jobs_outlive_a_stop_and_are_found_again(self, yard: Yard) -> None:
        first, gate = yard.manager(), yard.gate()
        ticket = yard.ticket(f"echo started >> effects; cat {gate}; exit 8")
        first.submit(ticket)
        handle = yard.ledger.wait(ticket, Phase.RUNNING).handle
        first.stop()
        heard = len(yard.ledger.of(ticket))
        second = yard.manager()
        second.adopt([Adoption(ticket.attempt, ticket.job_id, ticket.order, ticket.layout, handle)])
        gate.open()
        assert yard.ledger.wait_over(ticket).exit_code == 8
        assert [seen.phase for seen in yard.ledger.of(ticket)[heard:]] == [Phase.RUNNING, Phase.ENDED]
        assert effects(ticket) == ["started"]

    @pytest.mark.parametrize("heard_of_it", [True, False])
    def test_a_job_that_runs_when_the_server_is_killed_is_found_again(self, yard: Yard, heard_of_it: bool) -> None:
        gate = yard.gate()
        ticket = yard.ticket(f"echo started >> effects; cat {gate}; exit 9")
        victim = Victim(yard, [ticket])
        victim.read_until(ticket, Phase.RUNNING)
        wait_for_effects(ticket, gate)
        victim.kill()
        manager = yard.manager()
        if not heard_of_it:
            victim.handles.clear()
        manager.adopt([victim.adoption(ticket)])
        assert yard.ledger.wait(ticket, Phase.RUNNING).handle
        gate.open()
        assert yard.ledger.wait_over(ticket) == Observation(Phase.ENDED, exit_code=9)
        assert effects(ticket) == ["started"]

    def test_a_job_that_ended_while_the_server_was_away_is_concluded(self, yard: Yard) -> None:
        gate = yard.gate()
        ticket, dead = yard.ticket(f"cat {gate}; exit 6"), yard.ticket(f"cat {yard.gate()}")
        for one in (ticket, dead):
            victim = Victim(yard, [one])
            victim.read_until(one, Phase.RUNNING)
            victim.kill()
            if one is ticket:
                gate.open()
                wait_until(lambda: not yard.processes(ticket))
            else:
                yard.kill(dead)
            yard.manager().adopt([victim.adoption(one)])
        assert yard.ledger.wait_over(ticket) == Observation(Phase.ENDED, exit_code=6)
        gone = yard.ledger.wait_over(dead)
        assert (gone.phase, gone.exit_code) == (Phase.GONE, None)
        assert gone.reason

    def test_cancel_reaches_an_adopted_job(self, yard: Yard) -> None:
        up, never = yard.gate(), yard.gate()
        ticket = yard.ticket(f"(trap '' TERM; env -i cat {never}) & echo >> {up}; cat {never}")
        victim = Victim(yard, [ticket])
        victim.read_until(ticket, Phase.RUNNING)
        up.wait_for(1)
        victim.kill()
        manager = yard.manager()
        manager.adopt([victim.adoption(ticket)])
        manager.cancel(ticket.attempt)
        assert yard.ledger.wait_over(ticket).phase in (Phase.GONE, Phase.ENDED)
        assert yard.processes(ticket) == []
        assert not anybody_at(never)

    def test_killed_at_a_fault_point_a_job_starts_once_and_ends(self, yard: Yard, fault_point: str) -> None:
        tickets = [yard.ticket(f"echo started >> effects; exit {number}") for number in (11, 12)]
        victim = Victim(yard, tickets, fault=fault_point)
        victim.read_until()
        assert victim.bury() == -signal.SIGKILL, f"{fault_point} was never passed"
        manager = yard.manager()
        # As the engine does: what was not reported yet is submitted again, the rest is adopted.
        manager.adopt([victim.adoption(ticket) for ticket in tickets if ticket.attempt in victim.handles])
        for ticket in tickets:
            if ticket.attempt not in victim.handles:
                manager.submit(ticket)
        assert [yard.ledger.wait_over(ticket).exit_code for ticket in tickets] == [11, 12]
        assert [effects(ticket) for ticket in tickets] == [["started"], ["started"]]


class SlotConformance(ManagerConformance):
    """For managers with slots of their own: those that `one_slot` makes into a queue."""

    one_slot: ClassVar[Mapping[str, object]]
    no_slot: ClassVar[Mapping[str, object]]

    def test_first_come_first_served(self, yard: Yard) -> None:
        manager, gate = yard.manager(**self.one_slot), yard.gate()
        log = yard.root / "order"
        first = yard.ticket(f"cat {gate}")
        manager.submit(first)
        tickets = [yard.ticket(f"echo {number} >> {log}") for number in range(8)]
        for ticket in tickets:
            manager.submit(ticket)
        yard.ledger.wait(tickets[-1], Phase.WAITING)
        gate.open()
        for ticket in tickets:
            yard.ledger.wait_over(ticket)
        assert log.read_text().split() == [str(number) for number in range(8)]

    def test_no_more_run_than_there_are_slots(self, yard: Yard) -> None:
        manager, gates = yard.manager(**self.one_slot), [yard.gate() for _ in range(3)]
        tickets = [yard.ticket(f"cat {gate}") for gate in gates]
        for ticket in tickets:
            manager.submit(ticket)
        for ticket in tickets:
            yard.ledger.wait(ticket, Phase.WAITING)
        for number, (ticket, gate) in enumerate(zip(tickets, gates, strict=True)):
            yard.ledger.wait(ticket, Phase.RUNNING)
            assert [yard.ledger.phases(later) for later in tickets[number + 1 :]] == [[Phase.WAITING]] * (2 - number)
            gate.open()
            yard.ledger.wait_over(ticket)

    def test_without_slots_nothing_runs_and_cancel_says_so(self, yard: Yard) -> None:
        manager = yard.manager(**self.no_slot)
        ticket = yard.ticket("echo started >> effects")
        manager.submit(ticket)
        yard.ledger.wait(ticket, Phase.WAITING)
        manager.cancel(ticket.attempt)
        assert yard.ledger.wait_over(ticket).phase is Phase.GONE
        assert yard.ledger.phases(ticket) == [Phase.WAITING, Phase.GONE]
        # Cancelled is for ever, also for one who starts the script by hand.
        assert subprocess.run(["bash", ticket.layout.script], check=False).returncode == 111
        assert effects(ticket) == []

    def test_waiting_jobs_keep_their_place_over_a_restart(self, yard: Yard) -> None:
        gate, log = yard.gate(), yard.root / "order"
        tickets = [yard.ticket(f"cat {gate}"), *(yard.ticket(f"echo {number} >> {log}") for number in range(4))]
        victim = Victim(yard, tickets)
        victim.read_until(tickets[-1], Phase.WAITING)
        victim.kill()
        manager = yard.manager(**self.one_slot)
        manager.adopt([victim.adoption(ticket) for ticket in reversed(tickets)])
        gate.open()
        for ticket in tickets:
            assert yard.ledger.wait_over(ticket).exit_code == 0
        assert log.read_text().split() == ["0", "1", "2", "3"]


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
