"""The tables of the queue: rows in their order until confirmed, each told state once, what was handled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.core.job import Job, JobKey, JobState, Move
from lwr.server.mailbox import EARLY_KILL_S, Answer, Mailbox, Where
from lwr.server.store import SILENT, Origin, Store
from tests.server.test_store import make

ROUTE = "pulsar"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture
def mailbox(store: Store) -> Mailbox:
    return Mailbox(store.database)


def submitted(store: Store, job_id: str = "1", route: str = ROUTE) -> Job:
    return store.submit(make(store, job_id), f'{{"job":"{job_id}"}}', 6.0, Origin(route))


def run(store: Store, job: Job, *states: JobState) -> None:
    for at, state in enumerate(states, 10):
        store.move([(job, Move(state))], float(at))


COMPLETED = (JobState.QUEUED, JobState.RUNNING, JobState.POSTPROCESSING, JobState.COMPLETE)


def drained(mailbox: Mailbox) -> list[tuple[str, str]]:
    told = []
    while (posted := mailbox.first(100.0)) is not None:
        told.append((posted.key.job_id, posted.state))
        mailbox.sent(posted)
    return told


def test_each_told_state_is_a_row_and_the_others_are_none(store: Store, mailbox: Mailbox) -> None:
    one, two = submitted(store, "1"), submitted(store, "2")
    run(store, one, *COMPLETED)
    run(store, two, JobState.FAILED)
    assert drained(mailbox) == [("1", "running"), ("1", "complete"), ("2", "failed")]


@pytest.mark.parametrize("route", ["", SILENT])
def test_nothing_is_told_of_a_job_that_came_otherwise(store: Store, mailbox: Mailbox, route: str) -> None:
    run(store, submitted(store, route=route), *COMPLETED)
    assert mailbox.first(100.0) is None


def test_a_job_that_makes_way_is_not_told_of_any_more(store: Store, mailbox: Mailbox) -> None:
    job = submitted(store)
    run(store, job, JobState.QUEUED, JobState.RUNNING)
    store.replace(job, route=ROUTE)
    run(store, job, JobState.CANCELLED)
    assert mailbox.first(100.0) is None
    present = store.by_attempt(job.attempt)
    assert present is not None
    assert present.cancel_requested


def test_what_was_not_sent_of_a_replaced_attempt_goes(store: Store, mailbox: Mailbox) -> None:
    job = submitted(store)
    run(store, job, JobState.FAILED)
    fresh = Job(0, job.key, "f" * 32, JobState.NEW, job.directory, route=ROUTE)
    assert store.begin(fresh, replaces=store.by_attempt(job.attempt)) is not None
    assert mailbox.first(100.0) is None


@pytest.mark.parametrize("route", ["", "lwr"])
def test_who_was_told_elsewhere_hears_that_the_job_was_taken_over(store: Store, mailbox: Mailbox, route: str) -> None:
    job = submitted(store)
    run(store, job, JobState.QUEUED, JobState.RUNNING)
    store.replace(job, route=route)
    run(store, job, JobState.CANCELLED)
    store.begin(Job(0, job.key, "f" * 32, JobState.NEW, job.directory, route=route), store.by_attempt(job.attempt))
    assert drained(mailbox) == [("1", "running"), ("1", "cancelled")]


def test_a_row_stays_until_it_is_sent_with_the_body_that_was_made_for_it(store: Store, mailbox: Mailbox) -> None:
    job = submitted(store)
    run(store, job, *COMPLETED)
    running = mailbox.first(100.0)
    assert running is not None
    assert running.body is None
    mailbox.keep(running, b"running", "", None)
    again = Mailbox(store.database).first(100.0)
    assert again is not None
    assert (again.number, again.body) == (running.number, b"running")
    mailbox.sent(again)
    complete = mailbox.first(100.0)
    assert complete is not None
    mailbox.keep(complete, b"complete", "", b"complete")
    assert mailbox.last_word(job.seq, ROUTE) == b"complete"
    mailbox.keep(complete, b"otherwise", "", b"otherwise")
    assert mailbox.last_word(job.seq, ROUTE) == b"complete"


def test_blocked_rows_are_passed_over(store: Store, mailbox: Mailbox) -> None:
    key = JobKey("_default_", "1")
    mailbox.post(key, "lwr", "status_update", b"1", 1.0)
    mailbox.post(key, "pulsar", "status_update", b"2", 2.0, headers={"a": "b"}, message_id="m")
    found = mailbox.first(9.0, [Where("_default_", "1", "lwr", "status_update")])
    assert found is not None
    assert found == mailbox.first(9.0, [Where("_default_", "", "lwr", "status_update")])
    assert (found.body, found.headers, found.message_id, found.seq) == (b"2", {"a": "b"}, "m", None)
    assert mailbox.waiting() == (2, 1.0)


def test_what_is_not_answered_comes_again_after_growing_pauses(store: Store, mailbox: Mailbox) -> None:
    run(store, submitted(store), JobState.FAILED)
    now = 1000.0
    for pause_s in (30.0, 60.0, 120.0):
        posted = mailbox.first(now)
        assert posted is not None
        mailbox.keep(posted, b"failed", "name", None)
        mailbox.awaits_answer(posted, now, 30.0)
        assert mailbox.waiting() == (0, None)
        assert mailbox.first(now + pause_s - 1) is None
        assert mailbox.next_due(now) == now + pause_s
        now += pause_s
    mailbox.answered("name")
    assert mailbox.first(1e9) is None


def test_an_answer_to_the_last_word_is_enough(store: Store, mailbox: Mailbox) -> None:
    """A late `running` is never sent behind the end, also where readers answer."""
    run(store, submitted(store), *COMPLETED)
    for name in ("running", "complete"):
        posted = mailbox.first(100.0)
        assert posted is not None
        mailbox.keep(posted, name.encode(), name, None)
        mailbox.awaits_answer(posted, 100.0, 30.0)
    again = mailbox.first(1e6)
    assert again is not None
    assert again.body == b"complete"


def test_what_is_told_on_request_is_the_state_of_that_moment(store: Store, mailbox: Mailbox) -> None:
    job = submitted(store)
    run(store, job, JobState.QUEUED, JobState.RUNNING)
    mailbox.tell(job, "lwr", 20.0)  # `job` is as it was before
    run(store, job, JobState.POSTPROCESSING, JobState.COMPLETE)
    assert drained(mailbox) == [("1", "running"), ("1", "running"), ("1", "complete")]


def test_records_take_their_rows_along(store: Store, mailbox: Mailbox) -> None:
    job = submitted(store)
    run(store, job, JobState.FAILED)
    posted = mailbox.first(100.0)
    assert posted is not None
    mailbox.keep(posted, b"x", "", b"x")
    store.cleaned([job], 50.0)
    assert store.forget(60.0) == 0  # its last word is not told yet
    mailbox.sent(posted)
    assert store.forget(60.0) == 1
    assert mailbox.first(100.0) is None
    assert mailbox.last_word(job.seq, ROUTE) is None


def test_delivered_jobs_are_abandoned_once_all_was_told(store: Store, mailbox: Mailbox) -> None:
    queued, by_http = submitted(store, "1"), submitted(store, "2", route="")
    silent = submitted(store, "3", route=SILENT)
    for job in (queued, by_http, silent):
        run(store, job, *COMPLETED)

    def found(told_before: float) -> list[str]:
        return sorted(job.key.job_id for job in store.abandoned(0.0, 0.0, told_before))

    assert found(1000.0) == ["3"]
    drained(mailbox)
    assert found(1000.0) == ["1", "3"]
    assert found(13.0) == []


def test_messages_are_remembered_by_name(mailbox: Mailbox) -> None:
    key = JobKey("_default_", "1")
    assert not mailbox.was_heard("u")
    mailbox.hear("u", 1.0, Answer(key, "pulsar", "setup_ack", b"{}"))
    mailbox.hear("u", 2.0, Answer(key, "pulsar", "setup_ack", b"{}"))
    assert mailbox.was_heard("u")
    assert mailbox.waiting()[0] == 2
    mailbox.expire(1e9)
    assert not mailbox.was_heard("u")


def test_a_kill_waits_a_day_for_its_set_up(mailbox: Mailbox) -> None:
    key = JobKey("m", "1")
    mailbox.kill_early(key, 100.0)
    assert mailbox.was_killed(key, 101.0)
    assert not mailbox.was_killed(JobKey("other", "1"), 101.0)
    assert not mailbox.was_killed(key, 101.0 + EARLY_KILL_S)
    mailbox.forget_kill(key)
    assert not mailbox.was_killed(key, 101.0)


def test_messages_that_come_back_are_counted_until_they_are_handled(mailbox: Mailbox) -> None:
    assert [mailbox.came_back(b"d", 1.0) for _ in range(3)] == [1, 2, 3]
    mailbox.handled(b"d")
    assert mailbox.came_back(b"d", 1.0) == 1
