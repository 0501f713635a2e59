"""The store: the law is kept there too, every move is an event, and the current attempt is one row."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.core.job import TERMINAL, TRANSITIONS, Job, JobKey, JobState, Move
from lwr.core.places import JobLayout
from lwr.errors import IllegalMove
from lwr.server.ledger import Ledger
from lwr.server.store import FileDigest, Store

_numbers = itertools.count()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state")
    yield store
    store.close()


def make(store: Store, job_id: str = "1", manager: str = "_default_", replaces: Job | None = None) -> Job:
    job = store.begin(
        Job(0, JobKey(manager, job_id), f"{next(_numbers):032x}", JobState.NEW, f"/s/{job_id}", created_at=5.0),
        replaces,
    )
    assert job is not None
    return job


def bring_to(store: Store, state: JobState) -> Job:
    """A job that reached `state` by lawful moves."""
    paths = {JobState.NEW: [JobState.NEW]}
    while state not in paths:
        for here, onward in TRANSITIONS.items():
            for there in onward:
                if here in paths and there not in paths:
                    paths[there] = [*paths[here], there]
    job = make(store, f"to-{state}-{next(_numbers)}")
    for step in paths[state][1:]:
        (job,) = store.move([(job, Move(step))], 6.0)
    return job


@pytest.mark.parametrize("state", JobState)
def test_every_pair_of_states_is_judged_by_the_table(store: Store, state: JobState) -> None:
    for wanted in JobState:
        job = bring_to(store, state)
        if wanted is state:
            assert store.move([(job, Move(wanted))], 7.0) == []
        elif wanted in TRANSITIONS[state]:
            assert store.move([(job, Move(wanted))], 7.0)[0].state is wanted
        else:
            with pytest.raises(IllegalMove):
                store.move([(job, Move(wanted))], 7.0)
            assert store.current(job.key) == job


def test_the_database_itself_refuses_an_unlawful_update(store: Store) -> None:
    job = bring_to(store, JobState.COMPLETE)
    with pytest.raises(Exception, match="illegal move"):
        store.database.write(lambda c: c.execute("UPDATE jobs SET state = 'running' WHERE seq = ?", (job.seq,)))


def test_racing_threads_make_one_move_and_one_event(store: Store) -> None:
    job = bring_to(store, JobState.QUEUED)
    barrier = threading.Barrier(8)
    changed: list[Job] = []

    def race() -> None:
        barrier.wait()
        changed.extend(store.move([(job, Move(JobState.RUNNING))], 8.0))

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(changed) == 1
    assert [event.state for event in store.events(job)].count(JobState.RUNNING) == 1


def test_each_move_is_an_event_with_its_time_and_reason(store: Store) -> None:
    job = make(store)
    store.submit(job, '{"a":1}', 10.0)
    store.move([(job, Move(JobState.QUEUED)), (job, Move(JobState.RUNNING, "slot 1", handle="77:1"))], 11.0)
    _, done = store.move([(job, Move(JobState.POSTPROCESSING, exit_code=3)), (job, Move(JobState.COMPLETE))], 12.0)
    assert [(e.at, e.state, e.reason) for e in store.events(job)] == [
        (5.0, JobState.NEW, ""),
        (10.0, JobState.PREPROCESSING, ""),
        (11.0, JobState.QUEUED, ""),
        (11.0, JobState.RUNNING, "slot 1"),
        (12.0, JobState.POSTPROCESSING, ""),
        (12.0, JobState.COMPLETE, ""),
    ]
    assert (done.exit_code, done.handle, done.submitted_at, done.started_at, done.ended_at) == (
        3,
        "77:1",
        10.0,
        11.0,
        12.0,
    )


def test_a_cancel_that_was_recorded_first_wins_over_complete(store: Store) -> None:
    job = bring_to(store, JobState.POSTPROCESSING)
    store.wish(job, cancel=True)
    (job,) = store.move([(job, Move(JobState.COMPLETE))], 9.0)
    assert (job.state, job.cancel_requested) == (JobState.CANCELLED, True)


def test_a_fresh_attempt_takes_the_place_of_the_old_one(store: Store) -> None:
    old = make(store)
    fresh = make(store, replaces=old)
    assert store.current(old.key) == fresh
    assert [job.seq for job in store.jobs(None, None, 10, None)] == [fresh.seq, old.seq]


def test_two_jobs_never_share_a_directory(store: Store) -> None:
    mine = make(store, manager="a")
    assert store.begin(Job(0, JobKey("b", "1"), "f" * 32, JobState.NEW, mine.directory), None) is None
    owner = store.in_directory(mine.directory)
    assert owner is not None
    assert owner.key.manager == "a"
    store.cleaned([mine], 9.0)
    assert store.begin(Job(0, JobKey("b", "1"), "e" * 32, JobState.NEW, mine.directory), None) is not None


def test_unfinished_are_the_live_ones_in_the_order_of_submission(store: Store) -> None:
    jobs = [make(store, str(number)) for number in range(4)]
    for job in (jobs[2], jobs[0], jobs[1]):
        store.submit(job, "{}", 6.0)
    store.move([(jobs[1], Move(JobState.FAILED, "why"))], 7.0)
    assert [job.key.job_id for job, _ in store.unfinished()] == ["3", "2", "0"]
    store.wish(jobs[1], clean=True)
    assert [job.key.job_id for job, _ in store.unfinished()] == ["3", "2", "0", "1"]


def test_jobs_are_filtered_and_paged_newest_first(store: Store) -> None:
    jobs = [make(store, str(number), "a" if number % 2 else "b") for number in range(6)]
    store.move([(jobs[5], Move(JobState.CANCELLED))], 6.0)
    assert [job.key.job_id for job in store.jobs(None, "a", 2, None)] == ["5", "3"]
    assert [job.key.job_id for job in store.jobs(None, "a", 2, jobs[3].seq)] == ["1"]
    assert [job.key.job_id for job in store.jobs(JobState.CANCELLED, None, 9, None)] == ["5"]
    assert store.counts() == {"a": {JobState.NEW: 2, JobState.CANCELLED: 1}, "b": {JobState.NEW: 3}}
    store.cleaned([jobs[1]], 7.0)
    assert store.counts()["a"] == {JobState.NEW: 1, JobState.CANCELLED: 1}


def test_old_records_are_forgotten_with_all_that_belongs_to_them(store: Store) -> None:
    kept, old = make(store, "kept"), make(store, "old")
    store.submit(old, "{}", 6.0)
    store.remember_digest(old, "outputs/x", FileDigest(1, 2, 3, b"d" * 32))
    store.cleaned([old], 10.0)
    assert store.forget(before=9.0) == 0
    assert store.forget(before=11.0) == 1
    assert store.current(old.key) is None
    assert store.events(old) == []
    assert store.submission(old) is None
    assert store.digest(old, "outputs/x") is None
    assert store.current(kept.key) == kept


def test_abandoned_are_those_that_nobody_will_ask_for(store: Store) -> None:
    made = {state: bring_to(store, state) for state in JobState}
    found = {job.state for job in store.abandoned(before=100.0, new_before=100.0, told_before=100.0)}
    assert found == {JobState.NEW, JobState.FAILED, JobState.LOST, JobState.CANCELLED}
    assert store.abandoned(before=1.0, new_before=1.0, told_before=1.0) == []
    assert set(made) - found >= TERMINAL - {JobState.FAILED, JobState.LOST, JobState.CANCELLED}


def test_everything_is_there_after_the_store_was_opened_again(tmp_path: Path) -> None:
    first = Store(tmp_path)
    job = make(first)
    first.submit(job, '{"command_line":"x"}', 6.0)
    before = first.current(job.key)
    first.close()
    second = Store(tmp_path)
    assert second.current(job.key) == before
    assert second.submission(job) == (1, '{"command_line":"x"}')
    second.close()


@pytest.mark.parametrize("version", [1, 2])
def test_the_state_of_an_earlier_release_goes_on(tmp_path: Path, version: int) -> None:
    """Every job is there as it was, and can be moved on by this version's law."""
    state = tmp_path / "state"
    state.mkdir()
    with contextlib.closing(sqlite3.connect(state / "lwr.sqlite")) as old:
        old.executescript(Path(__file__).with_name(f"state-of-schema-{version}.sql").read_text())
    store = Store(state)
    for word in ("new", "preprocessing", "queued", "running", "postprocessing", "complete", "failed"):
        job = store.current(JobKey("_default_", word))
        assert job is not None
        assert job.state == word
        assert (store.submission(job) is None) is (word == "new")
        assert store.events(job)[-1].state == word
        for onward in sorted(TRANSITIONS[job.state])[:1]:
            assert store.move([(job, Move(onward))], 2e9)
    complete = store.current(JobKey("_default_", "complete"))
    assert complete is not None
    assert store.digests(complete) == {"outputs/b": FileDigest(5, 1763000000000000000, 77, bytes(range(32)))}
    assert "b" in [record.name for record in Ledger(store).receipt(complete, JobLayout(complete.directory))]
    store.close()
