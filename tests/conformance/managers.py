"""What every `JobManager` must do, as tests: a subclass names the kind and inherits the suite.

class TestMine(ManagerConformance):
    type = "mine"
    options = {"some_option": 1}
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from lwr.core.places import Area, JobLayout
from lwr.core.ticket import Adoption, Observation, Phase, Ticket
from lwr.errors import ManagerError
from lwr.managers.manager import Site, manager_kinds
from tests.conformance.yard import OVER, Victim, Yard, anybody_at, effects, wait_for_effects, wait_until


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

    @pytest.mark.parametrize("code", [0, 1, 3, 42, 111, 112, 126, 127, 255])
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

    def test_nothing_of_a_job_goes_on_when_its_script_was_killed(self, yard: Yard) -> None:
        gate = yard.gate()
        ticket = yard.ticket(f"echo begun > effects; cat {gate} & cat {gate}")
        yard.manager().submit(ticket)
        wait_for_effects(ticket, gate)
        os.kill(int(Path(ticket.layout.start_marker).read_text()), signal.SIGKILL)
        assert yard.ledger.wait_over(ticket).exit_code == -signal.SIGKILL
        assert not anybody_at(gate)

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

    @pytest.mark.parametrize("code", [5, 111, 112])
    def test_a_job_that_removes_its_own_directory_is_over_all_the_same(self, yard: Yard, code: int) -> None:
        ticket, ended = yard.run(yard.manager(), f'rm -rf "$(dirname "$_GALAXY_JOB_DIR")"; exit {code}')
        assert (ended.phase, ended.exit_code) == (Phase.ENDED, code)
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
        assert Phase.WAITING not in yard.ledger.phases(ticket)[yard.ledger.phases(ticket).index(Phase.RUNNING) :]
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
        wait_until(lambda: len(yard.ledger.of(ticket)) > heard)
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

    def test_a_job_that_is_adopted_though_it_is_known_goes_on_as_it_was(self, yard: Yard) -> None:
        manager, gate = yard.manager(), yard.gate()
        ticket = yard.ticket(f"echo started >> effects; cat {gate}; exit 5")
        again = Adoption(ticket.attempt, ticket.job_id, ticket.order, ticket.layout)
        manager.submit(ticket)
        manager.adopt([again])
        yard.ledger.wait(ticket, Phase.RUNNING)
        wait_for_effects(ticket, gate)
        manager.adopt([again])
        gate.open()
        assert yard.ledger.wait_over(ticket) == Observation(Phase.ENDED, exit_code=5)
        yard.run(manager, "true")
        assert {seen for seen in yard.ledger.of(ticket) if seen.phase in OVER} == {yard.ledger.wait_over(ticket)}
        assert effects(ticket) == ["started"]

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
