"""`queued_python` and `unqueued`: the suite for all managers, and what is special to this machine."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from lwr.core.ticket import Adoption, Observation, Phase, Ticket
from lwr.managers.local import PUT_BACK, QUEUED_PYTHON, UNQUEUED, LocalManager
from lwr.managers.manager import Site
from lwr.managers.processes import Process, core_count, job_environment, spawn
from lwr.managers.scriptfiles import read_marker, write_script
from tests.conformance.managers import ManagerConformance, SlotConformance
from tests.conformance.yard import OVER, Yard, effects, wait_until

POINTS = (
    "script.before_rename", "script.after_rename", "start.before_spawn", "start.after_spawn", "start.after_report",
    "end.before_report",
)  # fmt: skip


class TestUnqueued(ManagerConformance):
    type = "unqueued"
    fault_points = POINTS


class TestQueuedPython(SlotConformance):
    type = "queued_python"
    options: ClassVar = {"num_concurrent_jobs": 1}
    one_slot: ClassVar = {"num_concurrent_jobs": 1}
    no_slot: ClassVar = {"num_concurrent_jobs": 0}
    fault_points = POINTS


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    made = Yard(tmp_path, "queued_python", {"num_concurrent_jobs": 1})
    yield made
    made.close()


def adoption(ticket: Ticket, handle: str = "") -> Adoption:
    return Adoption(ticket.attempt, ticket.job_id, ticket.order, ticket.layout, handle)


def with_prelude(yard: Yard, prelude: str, marker_wait_s: float = 0.1) -> LocalManager:
    """A manager whose scripts do something, as another process might, before they come to their start marker."""
    file = yard.root / "prelude"
    file.write_text(prelude)
    environ = {"PATH": os.environ["PATH"], "BASH_ENV": str(file)}
    manager = LocalManager(1, Site(), marker_wait_s=marker_wait_s, environ=environ)
    manager.start(yard.ledger.report)
    yard.managers.append(manager)
    return manager


def elsewhere(ticket: Ticket) -> Process:
    """Start a ticket's script as a server did that is dead by now."""
    write_script(ticket, Site())
    return spawn(ticket.layout, job_environment(os.environ, ticket.attempt))


def test_a_script_that_comes_second_leads_to_the_one_that_came_first(yard: Yard) -> None:
    gate = yard.gate()
    ticket = yard.ticket(f"echo started >> effects; cat {gate}; exit 6")
    first = elsewhere(ticket)
    wait_until(lambda: bool(effects(ticket)))
    # The marker shows up only when the second script is on its way, as in a race between the two.
    marker = Path(ticket.layout.start_marker)
    marker.rename(marker.with_name("aside"))
    manager = with_prelude(yard, "mv aside started")
    manager.submit(ticket)
    wait_until(lambda: [seen.handle for seen in yard.ledger.of(ticket)][-1:] == [first.handle])
    gate.open()
    assert yard.ledger.wait_over(ticket) == Observation(Phase.ENDED, exit_code=6)
    assert effects(ticket) == ["started"]
    first.release()


def test_a_marker_that_names_nobody_is_waited_for_then_given_up(yard: Yard) -> None:
    ticket = yard.ticket("echo started >> effects")
    with_prelude(yard, ": > started").submit(ticket)
    gone = yard.ledger.wait_over(ticket)
    assert (gone.phase, gone.exit_code) == (Phase.GONE, None)
    assert effects(ticket) == []


def test_a_script_that_cannot_make_its_marker_is_refused(yard: Yard) -> None:
    ticket = yard.ticket("echo started >> effects")
    with_prelude(yard, "exit 111").submit(ticket)
    assert "start marker" in yard.ledger.wait(ticket, Phase.REFUSED).reason
    assert effects(ticket) == []


def test_on_a_full_disk_jobs_wait_for_room_and_start_once(yard: Yard) -> None:
    full = yard.root / "full"
    full.touch()
    # Files can be made, but not written.
    manager = with_prelude(yard, f"if [ -e '{full}' ]; then trap '' XFSZ; ulimit -f 0; fi")
    first, second = yard.ticket("echo started >> effects; exit 1"), yard.ticket("echo started >> effects; exit 2")
    manager.submit(first)
    manager.submit(second)
    wait_until(lambda: PUT_BACK in [seen.handle for seen in yard.ledger.of(first)])
    wait_until(lambda: bool(yard.ledger.phases(second)))
    assert yard.ledger.phases(second) == [Phase.WAITING]
    full.unlink()
    assert [yard.ledger.wait_over(ticket).exit_code for ticket in (first, second)] == [1, 2]
    assert [effects(ticket) for ticket in (first, second)] == [["started"], ["started"]]


def test_a_job_that_was_put_back_waits_again_after_a_restart_and_one_that_ran_does_not(yard: Yard) -> None:
    put_back, ran = yard.ticket("exit 3"), yard.ticket("echo started >> effects")
    for ticket in (put_back, ran):
        write_script(ticket, Site())
    yard.manager().adopt([adoption(put_back, PUT_BACK), adoption(ran, f"{os.getpid()}:1")])
    assert yard.ledger.wait_over(put_back) == Observation(Phase.ENDED, exit_code=3)
    assert yard.ledger.phases(ran) == [Phase.GONE]
    assert effects(ran) == []


def held_up(yard: Yard) -> tuple[LocalManager, Ticket, Path]:
    """A manager that waits for somebody to say whose an attempt's empty marker is, and that marker."""
    manager = with_prelude(yard, "if [ -e held ]; then : > started; fi", marker_wait_s=1000.0)
    ticket = yard.ticket("echo started >> effects; exit 4")
    held = Path(ticket.layout.path("held"))
    held.touch()
    manager.submit(ticket)
    # The next one has the slot: the first one's script has refused.
    yard.run(manager, "true")
    held.unlink()
    return manager, ticket, Path(ticket.layout.start_marker)


def test_a_job_whose_first_script_gave_the_marker_back_is_started(yard: Yard) -> None:
    _, ticket, marker = held_up(yard)
    marker.unlink()
    assert yard.ledger.wait_over(ticket) == Observation(Phase.ENDED, exit_code=4)
    assert effects(ticket) == ["started"]


def test_what_happens_to_a_job_in_between_is_not_lost(yard: Yard) -> None:
    manager, ticket, marker = held_up(yard)
    manager.submit(ticket)
    manager.adopt([adoption(ticket)])
    manager.cancel(ticket.attempt)
    yard.run(manager, "true")
    assert yard.ledger.phases(ticket) == [Phase.WAITING, Phase.RUNNING]
    marker.unlink()
    assert yard.ledger.wait_over(ticket).phase is Phase.GONE
    yard.run(manager, "true")
    assert len([phase for phase in yard.ledger.phases(ticket) if phase in OVER]) == 1
    assert effects(ticket) == []


def test_a_cancelled_job_does_not_start_while_its_cancel_has_to_wait(yard: Yard) -> None:
    manager, gate = yard.manager(), yard.gate()
    before, ticket = yard.ticket(f"cat {gate}"), yard.ticket("echo started >> effects")
    for one in (before, ticket):
        manager.submit(one)
    root, aside = Path(ticket.layout.root), yard.root / "aside"
    root.rename(aside)
    root.touch()
    manager.cancel(ticket.attempt)
    gate.open()
    yard.run(manager, "true")
    assert yard.ledger.phases(ticket) == [Phase.WAITING]
    root.unlink()
    aside.rename(root)
    assert yard.ledger.wait_over(ticket).phase is Phase.GONE
    assert effects(ticket) == []


def test_adopting_what_is_known_says_nothing_new(yard: Yard) -> None:
    manager, gate = yard.manager(), yard.gate()
    running, waiting = yard.ticket(f"cat {gate}"), yard.ticket("true")
    manager.submit(running)
    handle = yard.ledger.wait(running, Phase.RUNNING).handle
    manager.submit(waiting)
    manager.adopt([adoption(running), adoption(running, handle), adoption(waiting)])
    gate.open()
    yard.ledger.wait_over(waiting)
    for ticket in (running, waiting):
        assert yard.ledger.phases(ticket) == [Phase.WAITING, Phase.RUNNING, Phase.ENDED]


def test_adopting_a_script_that_nobody_started_puts_it_where_a_cancel_finds_it(yard: Yard) -> None:
    manager, gate = yard.manager(), yard.gate()
    running, adopted = yard.ticket(f"cat {gate}"), yard.ticket("echo started >> effects")
    manager.submit(running)
    yard.ledger.wait(running, Phase.RUNNING)
    write_script(adopted, Site())
    manager.adopt([adoption(adopted)])
    manager.cancel(adopted.attempt)
    assert yard.ledger.wait_over(adopted).phase is Phase.GONE
    assert yard.ledger.phases(adopted) == [Phase.WAITING, Phase.GONE]
    gate.open()
    yard.run(manager, "true")
    assert subprocess.run(["bash", adopted.layout.script], check=False).returncode == 111
    assert effects(adopted) == []


def test_a_job_whose_directory_is_gone_is_refused(yard: Yard) -> None:
    manager, gate = yard.manager(), yard.gate()
    before, ticket = yard.ticket(f"cat {gate}"), yard.ticket("true")
    manager.submit(before)
    manager.submit(ticket)
    yard.ledger.wait(ticket, Phase.WAITING)
    Path(ticket.layout.root).rename(yard.root / "elsewhere")
    gate.open()
    assert "could not be started" in yard.ledger.wait(ticket, Phase.REFUSED).reason
    # And the next one has the slot.
    assert yard.run(manager, "exit 2")[1].exit_code == 2


def test_cancel_of_a_waiting_job_that_somebody_started_after_all_ends_it(yard: Yard) -> None:
    manager = yard.manager(num_concurrent_jobs=0)
    ticket = yard.ticket(f"cat {yard.gate()}")
    manager.submit(ticket)
    yard.ledger.wait(ticket, Phase.WAITING)
    stray = elsewhere(ticket)
    wait_until(lambda: read_marker(ticket.layout) == stray.pid)
    manager.cancel(ticket.attempt)
    wait_until(lambda: stray.ended())
    stray.exit_status()
    assert yard.ledger.wait_over(ticket).phase is Phase.GONE
    assert yard.processes(ticket) == []
    stray.release()


def test_a_handle_whose_number_is_a_strangers_now_adopts_nobody_and_hits_nobody(yard: Yard) -> None:
    stranger = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    try:
        held = Process(stranger.pid)
        ticket = yard.ticket("true")
        Path(ticket.layout.start_marker).write_text(f"{stranger.pid}\n")
        manager = yard.manager()
        manager.adopt([adoption(ticket, held.handle)])
        manager.cancel(ticket.attempt)
        assert yard.ledger.wait_over(ticket).phase is Phase.GONE
        yard.run(manager, "true")
        assert stranger.poll() is None
        held.release()
    finally:
        assert stranger.stdin is not None
        stranger.stdin.close()
        assert stranger.wait() == 0


def test_adopted_jobs_take_their_slots_before_anything_waits(yard: Yard) -> None:
    gate = yard.gate()
    running, waiting = yard.ticket(f"cat {gate}"), yard.ticket("true")
    write_script(waiting, Site())
    script = elsewhere(running)
    wait_until(lambda: read_marker(running.layout) == script.pid)
    yard.manager().adopt([adoption(waiting), adoption(running)])
    yard.ledger.wait(running, Phase.RUNNING)
    assert yard.ledger.phases(waiting) == [Phase.WAITING]
    gate.open()
    wait_until(lambda: script.ended())
    script.release()
    yard.ledger.wait_over(waiting)
    assert yard.ledger.phases(waiting) == [Phase.WAITING, Phase.RUNNING, Phase.ENDED]


@pytest.mark.parametrize("free_handles", range(8))
def test_a_process_without_free_file_handles_waits_for_better_times(yard: Yard, free_handles: int) -> None:
    manager, gate = yard.manager(), yard.gate()
    first, second = yard.ticket(f"read line < {gate}; exit 1"), yard.ticket("echo started >> effects; exit 2")
    manager.submit(first)
    manager.submit(second)
    pid = int(yard.ledger.wait(first, Phase.RUNNING).handle.partition(":")[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    key = os.open(gate.path, os.O_RDWR)
    lowest_free = os.dup(key)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + free_handles, hard))
    try:
        os.write(key, b"\n")
        _wait_until_reaped(pid)
        if free_handles == 0:
            # How it ended cannot be read now, so nothing is said.
            assert yard.ledger.phases(first) == [Phase.WAITING, Phase.RUNNING]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(key)
    assert yard.ledger.wait_over(first).exit_code == 1
    assert yard.ledger.wait_over(second).exit_code == 2
    assert effects(second) == ["started"]


def _wait_until_reaped(pid: int) -> None:
    """Without a file handle; asks the system a few milliseconds apart."""
    tick = threading.Event()
    while not tick.wait(0.01):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return


def test_ever_so_many_jobs_have_one_thread(yard: Yard) -> None:
    before = threading.active_count()
    manager = yard.manager(num_concurrent_jobs=0)
    tickets = [yard.ticket("true") for _ in range(200)]
    manager.adopt([adoption(ticket) for ticket in tickets])
    yard.ledger.wait(tickets[-1], Phase.WAITING)
    assert threading.active_count() == before + 1
    manager.stop()
    assert threading.active_count() == before


@pytest.mark.parametrize(("text", "slots"), [("0", 0), ("1", 1), (" 12 ", 12), ("*", core_count())])
def test_the_number_of_jobs_is_a_number_or_a_star(text: str, slots: int) -> None:
    (option,) = QUEUED_PYTHON.options
    assert option.parse(text) == slots
    assert option.parse(option.default) == 1
    assert (option.name, option.aliases) == ("num_concurrent_jobs", ("max_concurrent_jobs",))
    assert UNQUEUED.options == ()


@pytest.mark.parametrize("text", ["", "-1", "two", "1.5", "**"])
def test_any_other_number_of_jobs_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="number of jobs"):
        QUEUED_PYTHON.options[0].parse(text)
