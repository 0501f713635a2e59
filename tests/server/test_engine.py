"""The engine, step by step: a staged manager, a clock of the test's, `tick()` called by hand or by its thread."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lwr.core.job import Job, JobKey, JobState, Move
from lwr.core.places import SCRIPT
from lwr.core.ticket import Observation, Phase, Ticket
from lwr.core.wire import SetupRequest, Submission
from lwr.errors import BadName, Conflict, NotFound, Unavailable
from lwr.server.engine import HOUSEKEEPING_INTERVAL_S, Engine
from lwr.server.housekeeping import Housekeeper, Retention
from lwr.server.ledger import Ledger
from lwr.server.moves import Means
from lwr.server.staging import Stagers
from lwr.server.store import Store
from lwr.server.view import ManagerEntry, View
from lwr.testing import StagedManager
from lwr.transfer.http import Web
from lwr.transfer.reach import Reach
from lwr.transfer.runner import Runner
from tests.support import DEADLINE_S, wait_until

KEY = JobKey("_default_", "7")
FILLER = SetupRequest(job_id="x", tool_id="t" * 2000)
ECHO = Submission(command_line="echo hi")


class Bench:
    """One engine with everything around it, and the means to crash and restart it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = 1_000_000.0
        self.engine: Engine
        self.open()

    def open(self) -> None:
        self.manager, self.other = StagedManager(), StagedManager()
        self.store = Store(self.directory / "state")
        staging = str(self.directory / "staging")
        ledger = Ledger(self.store)
        means = Means(Web(Reach()), Reach(), self.directory / "known_hosts")
        managers = {"_default_": ManagerEntry(self.manager, staging), "b": ManagerEntry(self.other, staging)}
        self.engine = Engine(
            self.store,
            View(self.store, managers, ledger),
            Stagers(self.store, ledger, Runner(1, 1), means, threads_count=1),
            Housekeeper(self.store, Retention(failed_job_s=1000.0, record_s=5000.0)),
            ledger,
            clock=lambda: self.now,
        )
        self.engine.start()

    def restart(self) -> None:
        self.close()
        self.open()

    def close(self) -> None:
        self.engine.stop()
        self.store.close()

    def submitted(self, key: JobKey = KEY, submission: Submission = ECHO) -> Job:
        self.engine.setup(key, SetupRequest(job_id=key.job_id))
        self.engine.submit(key, submission, None)
        return self.until(key, lambda job: job.state is not JobState.PREPROCESSING)

    def see(self, job: Job, phase: Phase, exit_code: int | None = None, reason: str = "", handle: str = "") -> None:
        manager = self.other if job.key.manager == "b" else self.manager
        manager.see(job.attempt, Observation(phase, exit_code, reason, handle))

    def until(self, key: JobKey, true: Callable[[Job], bool]) -> Job:
        def found() -> Job | None:
            job = self.store.current(key)
            return job if job is not None and true(job) else None

        return wait_until(found, f"job {key}")

    def until_state(self, state: JobState, key: JobKey = KEY) -> Job:
        return self.until(key, lambda job: job.state is state)

    def run(self, exit_code: int = 0, key: JobKey = KEY) -> Job:
        job = self.submitted(key)
        self.see(job, Phase.RUNNING)
        self.see(job, Phase.ENDED, exit_code)
        return self.until(key, lambda job: job.terminal)

    def path(self, *parts: str) -> Path:
        return self.directory.joinpath("staging", *parts)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def states(bench: Bench, job: Job) -> list[str]:
    return [str(event.state) for event in bench.engine.view.events(job)]


# -- the way of a job --------------------------------------------------------------------------------------------------


def test_a_job_goes_its_way_and_every_step_is_an_event(bench: Bench) -> None:
    job = bench.run(exit_code=3)
    assert (job.state, job.exit_code) == (JobState.COMPLETE, 3)
    assert states(bench, job) == ["new", "preprocessing", "queued", "running", "postprocessing", "complete"]
    assert list(bench.manager.tickets) == [job.attempt]


def test_the_manager_gets_what_the_client_asked_for(bench: Bench) -> None:
    asked = Submission(
        command_line="cat __PULSAR_JOB_DIRECTORY__/x", params={"native_specification": "-q x"}, touch_outputs=["a.dat"]
    )
    job = bench.submitted(submission=asked)
    ticket = bench.manager.tickets[job.attempt]
    assert ticket.command_line == f"cat {bench.path('7')}/x"
    assert (ticket.job_id, ticket.params) == ("7", {"native_specification": "-q x"})
    assert bench.path("7", "outputs", "a.dat").read_bytes() == b""


def test_a_job_faster_than_every_look_at_it_is_told_in_full(bench: Bench) -> None:
    bench.manager.refuses = ""
    job = bench.submitted()
    bench.see(job, Phase.ENDED, 0)
    job = bench.until_state(JobState.COMPLETE)
    assert states(bench, job) == ["new", "preprocessing", "queued", "postprocessing", "complete"]


def test_an_observation_that_comes_before_the_hand_over_is_known_is_not_lost(bench: Bench) -> None:
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    job = bench.store.current(KEY)
    assert job is not None
    bench.store.submit(job, ECHO.canonical(), 1.0)  # PREPROCESSING, and nobody was told
    bench.see(job, Phase.ENDED, 5)
    assert bench.until_state(JobState.COMPLETE).exit_code == 5


def test_a_job_that_ends_while_it_is_still_handed_over_does_not_stand_still(bench: Bench) -> None:
    def end_at_once(ticket: Ticket) -> None:
        bench.manager.see(ticket.attempt, Observation(Phase.ENDED, 2))
        bench.until(KEY, has_ended)
        ended.wait(DEADLINE_S)

    def has_ended(job: Job) -> bool:
        return job.state in (JobState.POSTPROCESSING, JobState.COMPLETE)

    ended = threading.Event()
    bench.manager.while_submitting = end_at_once
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    bench.engine.submit(KEY, ECHO, None)
    bench.until(KEY, has_ended)
    ended.set()
    assert bench.until_state(JobState.COMPLETE).exit_code == 2


def test_a_hand_over_that_may_pass_is_tried_again(bench: Bench) -> None:
    bench.manager.refuses, bench.manager.may_pass = "the disk is full", True
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    bench.engine.submit(KEY, ECHO, None)
    with pytest.raises(AssertionError):
        wait_until(lambda: bench.store.current(KEY).state is not JobState.PREPROCESSING, "", deadline_s=0.2)  # type: ignore[union-attr]
    bench.manager.refuses = ""
    bench.until_state(JobState.QUEUED)


def test_an_output_that_nobody_can_ask_for_does_not_fail_the_job(bench: Bench) -> None:
    job = bench.submitted()
    (bench.path("7", "outputs") / os.fsdecode(b"odd-\xff")).write_bytes(b"x")
    bench.see(job, Phase.ENDED, 0)
    assert bench.until(KEY, lambda job: job.terminal).state is JobState.COMPLETE


def test_outputs_without_an_end_do_not_hold_up_the_others(bench: Bench) -> None:
    job = bench.submitted()
    with bench.path("7", "outputs", "sparse").open("wb") as file:
        file.truncate(1 << 43)
    bench.path("7", "outputs", "small").write_bytes(b"x")
    bench.see(job, Phase.ENDED, 0)
    job = bench.until_state(JobState.COMPLETE)
    assert bench.store.digest(job, "outputs/sparse") is None


def test_a_requeue_goes_back_to_queued(bench: Bench) -> None:
    job = bench.submitted()
    for phase in (Phase.RUNNING, Phase.WAITING, Phase.RUNNING):
        bench.see(job, phase)
    bench.see(job, Phase.ENDED, 0)
    job = bench.until_state(JobState.COMPLETE)
    assert states(bench, job)[2:6] == ["queued", "running", "queued", "running"]


def test_news_that_is_late_repeated_or_about_nobody_changes_nothing(bench: Bench) -> None:
    job = bench.run()
    before = states(bench, job)
    for phase in Phase:
        bench.see(job, phase, exit_code=9)
    bench.manager.see("0" * 32, Observation(Phase.ENDED, 1))
    other = bench.run(key=JobKey("_default_", "8"))  # all of the above was read before this one ended
    assert other.state is JobState.COMPLETE
    assert states(bench, job) == before


def test_a_job_that_nobody_can_account_for_is_lost_with_the_reason(bench: Bench) -> None:
    job = bench.submitted()
    bench.see(job, Phase.GONE, reason="no trace of it")
    assert bench.until_state(JobState.LOST).reason == "no trace of it"


def test_a_job_that_the_manager_refuses_fails_with_its_reason(bench: Bench) -> None:
    bench.manager.refuses = "the queue is closed"
    job = bench.submitted()
    assert (job.state, job.reason) == (JobState.FAILED, "the queue is closed")


@pytest.mark.parametrize("linked", [False, True])
def test_a_job_whose_outputs_directory_is_gone_is_not_green(bench: Bench, linked: bool) -> None:
    job = bench.submitted()
    bench.path("7", "outputs").rmdir()
    if linked:
        bench.path("7", "outputs").symlink_to("/")
    bench.see(job, Phase.ENDED, 0)
    job = bench.until(KEY, lambda job: job.terminal)
    assert job.state is JobState.FAILED
    assert "outputs directory" in job.reason


@pytest.mark.parametrize(
    "staging",
    [
        {"setup": [{"name": "a", "type": "input", "action": {"action_type": "remote_copy", "path": "/is/not/there"}}]},
        {"setup": [{"name": "a", "type": "input", "action": {"action_type": "remote_object_store_copy", "path": "a"}}]},
        {"setup": [{"name": "../a", "type": "input", "action": {"action_type": "message", "contents": "x"}}]},
        {"setup": [{"name": "a", "type": "nonsense", "action": {"action_type": "message", "contents": "x"}}]},
        {"setup": "nonsense"},
    ],
)
def test_staging_that_cannot_be_done_fails_the_job_by_name(bench: Bench, staging: dict[str, object]) -> None:
    job = bench.submitted(submission=Submission(command_line="true", remote_staging=staging))
    assert job.state is JobState.FAILED
    assert job.reason
    assert bench.manager.tickets == {}


def test_a_message_is_written_down_before_the_job_starts(bench: Bench) -> None:
    step = {"name": "c.txt", "type": "config", "action": {"action_type": "message", "contents": "grüße"}}
    bench.submitted(submission=Submission(command_line="true", remote_staging={"setup": [step]}))
    assert bench.path("7", "configs", "c.txt").read_text(encoding="utf-8") == "grüße"


# -- set-up, submit, again and again -----------------------------------------------------------------------------------


def test_set_up_again_before_the_submit_is_the_same_job(bench: Bench) -> None:
    first = bench.engine.setup(KEY, SetupRequest(job_id="7"))
    bench.path("7", "inputs", "x").write_text("kept")
    assert bench.engine.setup(KEY, SetupRequest(job_id="7")) == first
    assert bench.path("7", "inputs", "x").read_text() == "kept"


def test_set_up_after_the_end_is_a_fresh_attempt_in_an_empty_directory(bench: Bench) -> None:
    old = bench.run()
    bench.path("7", "outputs", "old").write_text("x")
    fresh = bench.engine.setup(KEY, SetupRequest(job_id="7"))
    assert fresh.attempt != old.attempt
    assert fresh.state is JobState.NEW
    assert list(bench.path("7", "outputs").iterdir()) == []
    assert bench.run().state is JobState.COMPLETE


def test_set_up_while_it_runs_cancels_the_old_attempt_first(bench: Bench) -> None:
    old = bench.submitted()
    bench.see(old, Phase.RUNNING)
    answers: list[Job] = []
    asking = threading.Thread(target=lambda: answers.append(bench.engine.setup(KEY, SetupRequest(job_id="7"))))
    asking.start()
    wait_until(lambda: bench.manager.cancelled, "the cancel of the old attempt")
    assert asking.is_alive()
    bench.see(old, Phase.GONE)
    asking.join()
    assert answers[0].attempt != old.attempt
    assert states(bench, old)[-1] == "cancelled"


def test_parallel_set_ups_make_one_job(bench: Bench) -> None:
    barrier = threading.Barrier(6)
    made: list[Job] = []

    def ask() -> None:
        barrier.wait()
        made.append(bench.engine.setup(KEY, SetupRequest(job_id="7")))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job.attempt for job in made}) == 1


def test_submit_again_is_silent_when_equal_and_refused_when_not(bench: Bench) -> None:
    job = bench.submitted()
    assert bench.engine.submit(KEY, ECHO, None).attempt == job.attempt
    with pytest.raises(Conflict, match="another description"):
        bench.engine.submit(KEY, Submission(command_line="echo other"), None)
    assert len(bench.manager.tickets) == 1
    done = bench.submitted(JobKey("_default_", "8"))
    assert len(bench.manager.tickets) == 2
    assert done.state is JobState.QUEUED


def test_parallel_submits_start_one_job(bench: Bench) -> None:
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    barrier = threading.Barrier(5)

    def ask() -> None:
        barrier.wait()
        bench.engine.submit(KEY, ECHO, None)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job = bench.until_state(JobState.QUEUED)
    assert states(bench, job) == ["new", "preprocessing", "queued"]


def test_a_submit_may_carry_its_set_up(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.engine.submit(KEY, ECHO, None)
    bench.engine.submit(KEY, ECHO, SetupRequest(job_id="7", tool_id="t"))
    assert bench.until_state(JobState.QUEUED).tool_id == "t"


def test_a_submit_with_its_set_up_is_a_repeat_or_a_resubmission(bench: Bench) -> None:
    asked = SetupRequest(job_id="7")
    first = bench.run(exit_code=1)
    assert bench.engine.submit(KEY, ECHO, asked).attempt == first.attempt
    other = bench.engine.submit(KEY, Submission(command_line="echo other"), asked)
    assert other.attempt != first.attempt
    other = bench.until_state(JobState.QUEUED)
    bench.see(other, Phase.GONE)
    bench.until_state(JobState.LOST)
    assert bench.engine.submit(KEY, Submission(command_line="echo other"), asked).attempt != other.attempt


def test_an_id_taken_by_another_manager_is_a_conflict_that_names_it(bench: Bench) -> None:
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    with pytest.raises(Conflict, match="taken by manager _default_") as refused:
        bench.engine.setup(JobKey("b", "7"), SetupRequest(job_id="7"))
    assert "staging_directory" in refused.value.hint


def test_a_directory_that_nobody_knows_is_left_alone(bench: Bench) -> None:
    bench.path("7").mkdir()
    bench.path("7", "precious").write_text("mine")
    with pytest.raises(Conflict, match="no job of this server owns it"):
        bench.engine.setup(KEY, SetupRequest(job_id="7"))
    assert bench.path("7", "precious").read_text() == "mine"


@pytest.mark.parametrize("job_id", ["", ".", "..", "a/b", "a\\b", "a\0", "x" * 129, "nul", "a.", "-rf", "ü", "a\n"])
def test_a_bad_id_never_reaches_the_disk(bench: Bench, job_id: str) -> None:
    before = sorted(path.name for path in bench.path().rglob("*"))
    key = JobKey("_default_", job_id)
    with pytest.raises(BadName):
        bench.engine.setup(key, SetupRequest(job_id=job_id))
    bench.engine.cancel(key)
    bench.engine.clean(key)
    assert sorted(path.name for path in bench.path().rglob("*")) == before


def test_files_are_taken_until_the_submit(bench: Bench) -> None:
    with pytest.raises(NotFound):
        bench.engine.view.job_for_upload(KEY)
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    assert bench.engine.view.job_for_upload(KEY).directory == str(bench.path("7"))
    bench.engine.submit(KEY, ECHO, None)
    with pytest.raises(Conflict, match="no longer taken"):
        bench.engine.view.job_for_upload(KEY)


# -- cancel and clean --------------------------------------------------------------------------------------------------


def test_cancel_before_the_submit(bench: Bench) -> None:
    bench.engine.setup(KEY, SetupRequest(job_id="7"))
    bench.engine.cancel(KEY)
    bench.until_state(JobState.CANCELLED)
    with pytest.raises(Conflict):
        bench.engine.submit(KEY, ECHO, None)


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.RUNNING])
@pytest.mark.parametrize("end", [Phase.GONE, Phase.ENDED])
def test_cancel_wins_when_the_manager_has_it(bench: Bench, phase: Phase, end: Phase) -> None:
    job = bench.submitted()
    bench.see(job, phase)
    bench.engine.cancel(KEY)
    wait_until(lambda: bench.manager.cancelled, "the manager's cancel")
    present = bench.engine.view.job(KEY)
    assert present is not None
    assert not present.terminal  # only when no process is left
    bench.see(job, end, exit_code=None if end is Phase.GONE else 0)
    assert bench.until(KEY, lambda job: job.terminal).state is JobState.CANCELLED


def test_a_cancel_before_the_manager_was_heard_of_asks_the_manager(bench: Bench) -> None:
    """The script is there, so the last server may have handed the job over, and it may even run."""
    job = bench.engine.setup(KEY, SetupRequest(job_id="7"))
    bench.engine.stop()
    bench.store.submit(job, ECHO.canonical(), 1.0)
    bench.store.wish(job, cancel=True)
    bench.path("7", SCRIPT).write_text("exit 0")
    bench.restart()
    wait_until(lambda: [one.attempt for one in bench.manager.adopted] == [job.attempt], "the manager to be asked")
    bench.see(job, Phase.RUNNING)
    wait_until(lambda: bench.manager.cancelled, "the manager's cancel")
    bench.see(job, Phase.GONE)
    bench.until_state(JobState.CANCELLED)


def test_a_clean_that_was_cut_is_finished_after_a_restart(bench: Bench) -> None:
    bench.run()
    bench.engine.stop()
    job = bench.store.current(KEY)
    assert job is not None
    bench.store.wish(job, clean=True)
    bench.restart()
    bench.until(KEY, lambda job: job.cleaned_at is not None)
    assert not bench.path("7").exists()


def test_cancel_of_unknown_and_finished_jobs_is_silent(bench: Bench) -> None:
    bench.engine.cancel(JobKey("_default_", "unknown"))
    job = bench.run()
    bench.engine.cancel(KEY)
    assert bench.store.current(KEY) == job


def test_clean_removes_the_directory_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    job = bench.run()
    bench.path("7", "outputs", "link").symlink_to(outside)
    bench.engine.clean(KEY)
    assert not bench.path("7").exists()
    assert bench.engine.view.job(KEY) is None
    wait_until(lambda: not list(bench.path(".trash").iterdir()), "an empty trash")
    assert (outside / "file").read_text() == "stays"
    bench.engine.clean(KEY)
    latest = bench.engine.view.latest(KEY)
    assert latest is not None
    assert latest.attempt == job.attempt


def test_clean_of_a_running_job_waits_for_its_end(bench: Bench) -> None:
    job = bench.submitted()
    bench.see(job, Phase.RUNNING)
    bench.engine.clean(KEY)
    wait_until(lambda: bench.manager.cancelled, "the manager's cancel")
    assert bench.path("7").exists()
    bench.see(job, Phase.GONE)
    bench.until(KEY, lambda job: job.cleaned_at is not None)
    assert not bench.path("7").exists()


def test_set_up_after_a_clean_starts_over(bench: Bench) -> None:
    bench.run()
    bench.engine.clean(KEY)
    assert bench.run(exit_code=4).exit_code == 4


def test_what_nobody_asks_for_is_removed_after_its_time(bench: Bench) -> None:
    job = bench.submitted()
    bench.see(job, Phase.GONE)
    bench.until_state(JobState.LOST)
    bench.run(key=JobKey("_default_", "good"))
    bench.engine.setup(JobKey("_default_", "idle"), SetupRequest(job_id="idle"))
    bench.now += 86400.0 + HOUSEKEEPING_INTERVAL_S
    bench.manager.see("0" * 32, Observation(Phase.WAITING))  # any news makes the engine look at the clock
    bench.until(KEY, lambda job: job.cleaned_at is not None)
    bench.until(JobKey("_default_", "idle"), lambda job: job.cleaned_at is not None)
    assert not bench.path("7").exists()
    assert bench.path("good").exists()


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_clock_that_jumps_harms_no_job(bench: Bench, jump_s: float) -> None:
    job = bench.submitted()
    bench.now += jump_s if jump_s < 0 else 900.0
    bench.see(job, Phase.RUNNING)
    bench.see(job, Phase.ENDED, 0)
    assert bench.until(KEY, lambda job: job.terminal).state is JobState.COMPLETE
    assert bench.path("7").exists()


# -- after a restart ---------------------------------------------------------------------------------------------------


def test_each_live_state_is_taken_up_again(bench: Bench) -> None:
    keys = {state: JobKey("_default_", f"is-{state}") for state in JobState}
    queued, running = bench.submitted(keys[JobState.QUEUED]), bench.submitted(keys[JobState.RUNNING])
    bench.see(running, Phase.RUNNING, handle="42:7")
    bench.until_state(JobState.RUNNING, running.key)
    bench.engine.setup(keys[JobState.NEW], SetupRequest(job_id="x"))
    waiting = bench.engine.setup(keys[JobState.PREPROCESSING], SetupRequest(job_id="x"))
    ending = bench.submitted(keys[JobState.POSTPROCESSING])
    bench.engine.stop()
    bench.store.submit(waiting, ECHO.canonical(), 1.0)
    bench.store.move([(ending, Move(JobState.POSTPROCESSING, exit_code=6))], 1.0)
    bench.restart()
    assert [(a.attempt, a.handle) for a in bench.manager.adopted] == [(queued.attempt, ""), (running.attempt, "42:7")]
    bench.until_state(JobState.QUEUED, waiting.key)
    assert list(bench.manager.tickets) == [waiting.attempt]
    assert bench.until_state(JobState.COMPLETE, ending.key).exit_code == 6
    new = bench.store.current(keys[JobState.NEW])
    assert new is not None
    assert new.state is JobState.NEW


def test_a_cancel_that_was_accepted_is_carried_out_after_a_restart(bench: Bench) -> None:
    job = bench.submitted()
    bench.engine.stop()
    bench.store.wish(job, cancel=True)
    bench.restart()
    wait_until(lambda: bench.manager.cancelled == [job.attempt], "the manager's cancel")


def test_trash_of_the_last_server_is_removed(bench: Bench) -> None:
    bench.close()
    left = bench.path(".trash", "left")
    left.mkdir(parents=True)
    bench.open()
    wait_until(lambda: not left.exists(), "the old trash to go")


def set_up_without_end(bench: Bench) -> None:
    while True:
        bench.engine.setup(JobKey("_default_", uuid.uuid4().hex), FILLER)


def test_news_that_cannot_be_written_is_kept_until_there_is_room(bench: Bench) -> None:
    job = bench.submitted()
    writer = bench.store.database._writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk full"
    with pytest.raises(Unavailable):
        set_up_without_end(bench)
    bench.see(job, Phase.RUNNING, reason="r" * 50_000)
    bench.see(job, Phase.ENDED, 3)
    wait_until(lambda: bench.engine._news.empty() and bench.engine._unread, "an engine that has read its news")
    assert bench.store.current(job.key) == job
    writer.execute("PRAGMA max_page_count = 1000000")
    assert bench.until_state(JobState.COMPLETE).exit_code == 3


def test_stop_may_be_called_twice_and_nothing_moves_afterwards(bench: Bench) -> None:
    job = bench.submitted()
    bench.engine.stop()
    bench.engine.stop()
    bench.see(job, Phase.ENDED, 0)
    assert bench.store.current(KEY) == job
    assert bench.engine.problems() == ["The server is starting or stopping."]
