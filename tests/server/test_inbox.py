"""What messages do and what is answered: a real engine and store, no broker, each answer read from the outbox."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lwr.config.queue import QueueConfig
from lwr.core.job import JobKey, JobState
from lwr.core.messages import DEAD, Dialect, Kind
from lwr.core.ticket import Phase
from lwr.core.wire import SetupRequest
from lwr.errors import StillEnding, Unavailable
from lwr.server.inbox import MOST_RETURNS, Inbox, Incoming, Source
from lwr.server.mailbox import Mailbox
from lwr.server.outbox import Outbox, Ready, fitted
from lwr.transfer.broker import BrokerOptions
from tests.server.test_engine import KEY, Bench

JSON = "application/json"
SETUP = {"job_id": "7", "command_line": "echo hi", "setup_params": {"job_id": "7", "tool_id": None}}


class Post:
    """An engine's bench with an inbox and an outbox, as a server has them."""

    def __init__(self, directory: Path, *, publish: bool = True, acknowledge: bool = False) -> None:
        self.config = QueueConfig(
            broker=BrokerOptions("memory://"), consume=True, publish=publish, key_prefix="", maximum_bytes=100_000,
            acknowledge=acknowledge, republish_after_s=30.0,
        )  # fmt: skip
        self.bench = Bench(directory)
        self.postponed: set[JobKey] = set()
        self.busy = False
        self.bind()

    def bind(self) -> None:
        self.mailbox = Mailbox(self.bench.store.database)
        self.inbox = Inbox(
            self.bench.engine,
            self.mailbox,
            self.config,
            lambda key: key in self.postponed,
            lambda: self.bench.now,
            set_ups_come=lambda: self.busy,
        )
        self.outbox = Outbox(self.mailbox, self.bench.engine.view, self.config, lambda: self.bench.now)

    def restart(self) -> None:
        self.bench.restart()
        self.bind()

    def give(
        self,
        kind: Kind,
        value: Mapping[str, Any] | bytes,
        *,
        dialect: Dialect = Dialect.PULSAR,
        manager: str = "_default_",
        content_type: str = JSON,
        redelivered: bool = False,
        message_id: str = "",
    ) -> str:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.inbox.take(Incoming(Source(dialect, manager, kind), body, content_type, redelivered, message_id))

    def sent(self) -> list[tuple[str, Any]]:
        """All that is to be sent, as (queue, body), confirmed."""
        return [(ready.to.queue, json.loads(ready.body)) for ready in self.letters()]

    def letters(self) -> list[Ready]:
        letters = []
        while (ready := self.outbox.next()) is not None:
            self.outbox.sent(ready)
            letters.append(ready)
        return letters

    def statuses(self) -> list[str]:
        return [body["status"] for _, body in self.sent()]

    def end(self, exit_code: int = 0) -> None:
        job = self.bench.until(KEY, lambda job: job.state in (JobState.QUEUED, JobState.RUNNING))
        self.bench.see(job, Phase.RUNNING)
        self.bench.see(job, Phase.ENDED, exit_code)
        self.bench.until(KEY, lambda job: job.terminal)

    def cancelled(self) -> None:
        job = self.bench.until(KEY, lambda job: job.state in (JobState.QUEUED, JobState.RUNNING))
        self.bench.see(job, Phase.ENDED, 137)
        self.bench.until(KEY, lambda job: job.state is JobState.CANCELLED)

    def attempts(self) -> int:
        return len(self.bench.store.jobs(None, None, 100, None))


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path)
    yield post
    post.bench.close()


def test_a_job_is_told_where_it_came_from(post: Post) -> None:
    assert post.give(Kind.SETUP, SETUP, dialect=Dialect.LWR) == "taken"
    post.end(3)
    assert [(queue, body["status"], body["job_id"]) for queue, body in post.sent()] == [
        ("lwr__status_update", "running", "7"),
        ("lwr__status_update", "complete", "7"),
    ]


def test_a_job_of_a_named_manager_is_told_in_pulsars_words(post: Post) -> None:
    post.give(Kind.SETUP, SETUP, manager="b")
    job = post.bench.until(JobKey("b", "7"), lambda job: job.state is JobState.QUEUED)
    post.bench.see(job, Phase.REFUSED, reason="no such partition")
    post.bench.until(JobKey("b", "7"), lambda job: job.terminal)
    ((queue, body),) = post.sent()
    assert queue == "pulsar_b__status_update"
    assert (body["status"], body["complete"]) == ("failed", "true")
    assert "no such partition" in body["stderr"]


def test_lwrs_readers_hear_failed_in_their_way(post: Post) -> None:
    post.give(Kind.SETUP, SETUP, dialect=Dialect.LWR)
    job = post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    post.bench.see(job, Phase.GONE, reason="nobody knows")
    post.bench.until(KEY, lambda job: job.state is JobState.LOST)
    ((_, body),) = post.sent()
    assert (body["status"], body["complete"]) == ("failed", "false")
    assert "nobody knows" in body["stderr"]


def test_a_reply_queue_and_a_receipt_for_a_client_of_ours(post: Post) -> None:
    post.give(Kind.SETUP, SETUP | {"status_reply": "run_1"}, dialect=Dialect.LWR)
    post.end()
    (_, running), (queue, body) = post.sent()
    assert queue == "lwr__status_update_run_1"
    assert "receipt" not in running
    assert body["receipt"]["job_id"] == "7"


@pytest.mark.parametrize("redelivered", [True, False])
def test_the_same_again_changes_nothing_and_is_answered(post: Post, redelivered: bool) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    assert post.give(Kind.SETUP, SETUP, redelivered=redelivered) == "repeated"
    assert post.statuses() == ["queued"]
    post.end()
    assert post.give(Kind.SETUP, SETUP, redelivered=redelivered) == "repeated"
    letters = post.letters()
    assert [json.loads(ready.body)["status"] for ready in letters] == ["running", "complete", "complete"]
    assert letters[1].body == letters[2].body
    assert post.attempts() == 1


def test_the_same_again_is_a_fresh_attempt_when_it_failed_unless_it_is_old(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    job = post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    post.bench.see(job, Phase.REFUSED, reason="no")
    post.bench.until(KEY, lambda job: job.terminal)
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "repeated"
    assert post.attempts() == 1
    assert post.give(Kind.SETUP, SETUP) == "taken"
    assert post.attempts() == 2
    post.end()
    assert post.statuses() == ["running", "complete"]  # of the old attempt nothing was sent yet, and nothing is


def test_an_old_message_of_an_earlier_attempt_changes_nothing(post: Post) -> None:
    first, second = SETUP, SETUP | {"command_line": "echo other"}
    post.give(Kind.SETUP, first)
    post.end()
    assert post.give(Kind.SETUP, second) == "taken"
    assert post.give(Kind.SETUP, first, redelivered=True) == "repeated"
    assert post.attempts() == 2


def test_another_description_waits_until_the_old_attempt_has_ended_silently(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    other = SETUP | {"command_line": "echo other"}
    with pytest.raises(StillEnding):
        post.give(Kind.SETUP, other)
    post.cancelled()
    assert post.give(Kind.SETUP, other) == "taken"
    post.end()
    assert post.statuses() == ["running", "complete"]


def test_what_was_cleaned_long_ago_does_not_run_again(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.end()
    before = post.letters()[-1].body
    post.bench.engine.clean(KEY)
    assert post.give(Kind.SETUP, SETUP) == "repeated"
    (again,) = post.letters()
    assert again.body == before
    assert post.attempts() == 1


def test_kill_ends_a_job_which_is_told(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    assert post.give(Kind.KILL, {"job_id": "7"}) == "taken"
    post.cancelled()
    assert post.statuses() == ["cancelled"]
    assert post.give(Kind.KILL, {"job_id": "7"}) == "repeated"
    assert post.sent() == []


def test_a_kill_that_was_faster_than_its_set_up_wins(post: Post) -> None:
    post.give(Kind.KILL, {"job_id": "7"})
    assert post.give(Kind.SETUP, SETUP) == "taken"
    post.bench.until(KEY, lambda job: job.state is JobState.CANCELLED)
    assert post.bench.manager.tickets == {}
    assert post.statuses() == ["cancelled"]
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "repeated"
    assert post.give(Kind.SETUP, SETUP) == "taken"  # a kill counts for one set-up
    post.end()


def test_a_kill_that_meets_a_set_up_taken_in_half_wins(post: Post) -> None:
    """The server was killed between set-up and submit: the set-up comes again, perhaps after the kill."""
    post.bench.engine.setup(KEY, SetupRequest(job_id="7"))
    post.give(Kind.KILL, {"job_id": "7"})
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "taken"
    post.bench.until_state(JobState.CANCELLED)
    assert post.statuses() == ["cancelled"]
    assert not post.mailbox.was_killed(KEY, post.bench.now)


def test_a_set_up_that_was_taken_in_half_is_taken_when_it_comes_again(post: Post) -> None:
    """The server was killed before the job had its directory."""
    post.bench.engine.setup(KEY, SetupRequest(job_id="7"))
    shutil.rmtree(post.bench.path("7"))
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "taken"
    post.end()
    assert post.statuses() == ["running", "complete"]
    assert post.attempts() == 1


def test_a_set_up_that_is_refused_when_it_comes_again_is_answered(post: Post) -> None:
    """What was made in half ends in no other way."""
    post.bench.engine.setup(KEY, SetupRequest(job_id="7"))
    assert post.give(Kind.SETUP, SETUP | {"env": 7}, redelivered=True) == "refused"
    assert [body["status"] for queue, body in post.sent() if queue != DEAD.queue] == ["failed"]


def test_a_kill_is_for_the_attempt_that_waits(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    other = SETUP | {"command_line": "echo other"}
    with pytest.raises(StillEnding):
        post.give(Kind.SETUP, other)
    post.postponed.add(KEY)
    post.give(Kind.KILL, {"job_id": "7"})
    post.cancelled()
    assert post.give(Kind.SETUP, other) == "taken"
    post.bench.until(KEY, lambda job: job.state is JobState.CANCELLED)
    assert post.statuses() == ["cancelled"]


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.SETUP])
def test_questions_are_answered_on_the_exchange_that_they_came_by(post: Post, kind: Kind) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    question = {"request": "status", "job_id": "7", "force_noack": True}
    assert post.give(kind, question, dialect=Dialect.LWR) == "answered"
    assert post.sent() == [("lwr__status_update", {"complete": "false", "status": "queued", "job_id": "7"})]
    post.give(kind, question | {"job_id": "unknown"})
    ((queue, body),) = post.sent()
    assert (queue, body["status"], body["job_id"]) == ("pulsar__status_update", "lost", "unknown")


def test_a_sender_that_wants_to_hear_of_it_does_each_time(post: Post) -> None:
    name = str(uuid.uuid4())
    asked = {"acknowledge_uuid": name, "acknowledge_queue": "setup_ack", "acknowledge_submit_queue": "setup"}
    post.give(Kind.SETUP, SETUP | asked)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    assert post.sent() == [("pulsar__setup_ack", {"acknowledge_uuid_response": name})]
    post.give(Kind.KILL, {"job_id": "7"})
    post.cancelled()
    assert post.give(Kind.SETUP, SETUP | asked | {"force_noack": True}) == "repeated"
    assert post.attempts() == 1
    assert [queue for queue, _ in post.sent()] == [f"pulsar__{name}" for name in
                                                   ("status_update", "status_update", "setup_ack")]  # fmt: skip


def test_our_updates_wait_for_their_readers_answer_where_that_was_agreed(tmp_path: Path) -> None:
    post = Post(tmp_path, acknowledge=True)
    post.give(Kind.SETUP, SETUP)
    post.end()
    _, complete = post.letters()
    told = json.loads(complete.body)
    assert (told["acknowledge_queue"], told["acknowledge_submit_queue"]) == ("status_update_ack", "status_update")
    post.bench.now += 31
    (again,) = post.letters()
    assert again.body == complete.body
    assert post.give(Kind.STATUS_UPDATE_ACK, {"acknowledge_uuid_response": told["acknowledge_uuid"]}) == "taken"
    post.bench.now += 10_000
    assert post.letters() == []
    post.bench.close()


@pytest.mark.parametrize(
    ("kind", "value", "content_type"),
    [
        (Kind.SETUP, b"{", JSON),
        (Kind.SETUP, b"\x80\x04}q\x00.", "application/x-python-serialize"),
        (Kind.SETUP, b"job_id: 7", "application/x-yaml"),
        (Kind.SETUP, b"\xff\xfe{\x00}\x00", JSON),
        (Kind.SETUP, b"[1]", JSON),
        (Kind.SETUP, b'{"command_line": "id"}', JSON),
        (Kind.SETUP, b'{"job_id": "../7", "command_line": "id"}', JSON),
        (Kind.SETUP, b'{"job_id": 7, "command_line": "id"}', JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": "id", "setup_params": [1]}', JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": "id", "env": [{"name": "a b", "value": ""}]}', JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": ["id"]}', JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": "id", "status_reply": "../x"}', JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": "id", "acknowledge_uuid": "u", "acknowledge_queue": "lwr_dead"}',
         JSON),
        (Kind.SETUP, b"[" * 100_000, JSON),
        (Kind.SETUP, b'{"job_id": "7", "command_line": "' + b"x" * 100_000 + b'"}', JSON),
        (Kind.KILL, b"{}", JSON),
        (Kind.KILL, b'{"job_id": "a/b"}', JSON),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_a_dead_letter_and_nothing_runs(
    post: Post, kind: Kind, value: bytes, content_type: str
) -> None:
    assert post.give(kind, value, content_type=content_type) == "refused"
    letters = post.letters()
    dead = [ready for ready in letters if ready.to == DEAD]
    assert len(dead) == 1
    assert dead[0].message_id
    headers = dead[0].headers
    assert (headers["lwr-queue"], headers["lwr-exchange"]) == (f"pulsar__{kind}", "pulsar")
    assert headers["lwr-reason"]
    assert value.startswith(dead[0].body)
    assert (len(value) > 100_000) is ("lwr-cut" in headers)
    named = kind is Kind.SETUP and headers["lwr-job"] == "7"
    assert [json.loads(ready.body)["status"] for ready in letters if ready.to != DEAD] == ["failed"] * named
    assert post.bench.manager.tickets == {}


def test_a_bad_message_does_not_fail_a_job_that_lives(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    post.give(Kind.SETUP, SETUP | {"env": 7})
    assert [body["status"] for queue, body in post.sent() if queue != DEAD.queue] == ["queued"]
    post.end()
    assert post.statuses() == ["running", "complete"]


def test_a_refused_set_up_is_answered_with_failed_and_a_sentence(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    assert post.give(Kind.SETUP, SETUP, manager="b") == "refused"  # both share a staging directory
    ((queue, body),) = post.sent()
    assert (queue, body["status"]) == ("pulsar_b__status_update", "failed")
    assert "staging_directory" in body["stderr"]
    assert body["returncode"] == 1


def test_a_message_that_ends_the_server_each_time_is_buried(post: Post) -> None:
    """As if the server had died in each `take`: nothing is written but the count."""
    for _ in range(MOST_RETURNS):
        post.mailbox.came_back(hashlib.sha256(json.dumps(SETUP).encode()).digest(), 1.0)
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "refused"
    assert [ready.to.queue for ready in post.letters()] == ["lwr_dead", "pulsar__status_update"]
    assert post.bench.manager.tickets == {}


def test_a_message_that_waits_for_room_is_not_counted(post: Post) -> None:
    full = post.bench.directory / "staging"
    for _ in range(MOST_RETURNS + 2):
        full.rename(full.with_name("away"))
        with pytest.raises(Unavailable):
            post.give(Kind.SETUP, SETUP, redelivered=True)
        full.with_name("away").rename(full)
    assert post.give(Kind.SETUP, SETUP, redelivered=True) == "taken"


def test_what_was_not_sent_is_sent_after_a_restart_with_the_same_bytes(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.end()
    ready = post.outbox.next()
    assert ready is not None
    post.restart()
    again = post.outbox.next()
    assert again is not None
    assert again.body == ready.body
    assert post.statuses() == ["running", "complete"]


def test_a_server_that_does_not_publish_tells_nothing(tmp_path: Path) -> None:
    post = Post(tmp_path, publish=False)
    post.give(Kind.SETUP, SETUP)
    post.end()
    assert post.sent() == []
    post.bench.close()


def test_what_is_too_large_for_a_message_is_left_out_and_named() -> None:
    reply = {"job_id": "7", "status": "complete", "working_directory_contents": ["x" * 100] * 100, "stdout": "short"}
    assert json.loads(fitted(reply, 100_000)) == reply
    small = json.loads(fitted(reply, 1000))
    assert small["working_directory_contents"] == []
    assert small["left_out"] == ["working_directory_contents"]
    assert small["stdout"] == "short"


def test_a_refused_set_up_is_on_record_and_its_end_is_told_again(post: Post) -> None:
    """So that a kill that follows, as Galaxy sends it, does not wait for the corrected set-up."""
    post.give(Kind.SETUP, SETUP | {"env": 7})
    first = post.letters()[-1].body
    assert post.give(Kind.KILL, {"job_id": "7"}) == "repeated"
    post.give(Kind.STATUS, {"request": "status", "job_id": "7"})
    assert [ready.body for ready in post.letters()] == [first]
    assert post.give(Kind.SETUP, SETUP) == "taken"
    post.end()
    assert post.statuses() == ["running", "complete"]


def test_a_question_about_a_job_that_waits_to_be_taken(post: Post) -> None:
    post.postponed.add(KEY)
    post.give(Kind.STATUS, {"request": "status", "job_id": "7"})
    assert post.statuses() == ["preprocessing"]


def test_the_sender_of_a_refused_message_hears_that_it_arrived(post: Post) -> None:
    asked = {"acknowledge_uuid": "u", "acknowledge_queue": "setup_ack", "acknowledge_submit_queue": "setup"}
    assert post.give(Kind.SETUP, {"job_id": "7", "env": 7} | asked) == "refused"
    assert post.sent()[-1] == ("pulsar__setup_ack", {"acknowledge_uuid_response": "u"})


def test_a_second_copy_of_a_named_set_up_is_one_although_the_job_was_killed(post: Post) -> None:
    post.give(Kind.SETUP, SETUP, message_id="m")
    post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    post.give(Kind.KILL, {"job_id": "7"})
    post.cancelled()
    assert post.give(Kind.SETUP, SETUP, message_id="m") == "repeated"
    assert post.give(Kind.SETUP, SETUP, message_id="other") == "taken"


def test_names_that_are_no_text_are_refused(post: Post) -> None:
    body = b'{"job_id": "7", "command_line": "id", "acknowledge_uuid": "\\ud800", "acknowledge_queue": "setup_ack"}'
    assert post.give(Kind.SETUP, body) == "refused"


def test_a_cleaned_job_is_not_told_with_what_lies_where_it_was(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.end()
    post.sent()
    post.bench.engine.clean(KEY)
    directory = post.bench.directory / "staging" / "7"
    (directory / "metadata").mkdir(parents=True)
    (directory / "metadata" / "tool_stdout").write_text("of another job")
    post.give(Kind.STATUS, {"request": "status", "job_id": "7"}, dialect=Dialect.LWR)
    ((_, body),) = post.sent()
    assert (body["status"], body["stdout"]) == ("complete", "")


def test_what_waits_for_an_answer_is_done_when_answers_are_switched_off(tmp_path: Path) -> None:
    post = Post(tmp_path, acknowledge=True)
    post.give(Kind.SETUP, SETUP)
    post.end()
    assert len(post.letters()) == 2
    post.config = replace(post.config, acknowledge=False)
    post.bind()
    post.bench.now += 31
    assert len(post.letters()) == 1
    post.bench.now += 10_000
    assert post.letters() == []
    post.bench.close()


def test_an_unknown_job_is_not_lost_while_set_ups_come(post: Post) -> None:
    question = {"request": "status", "job_id": "7"}
    post.busy = True
    with pytest.raises(Unavailable):
        post.give(Kind.STATUS, question)
    assert post.give(Kind.SETUP, question) == "answered"  # behind the set-up, if there was one
    post.busy = False
    assert post.give(Kind.STATUS, question) == "answered"
    assert post.statuses() == ["lost", "lost"]


def test_a_bad_message_about_a_complete_job_leaves_its_record(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    post.end()
    post.sent()
    post.bench.engine.clean(KEY)
    assert post.give(Kind.SETUP, SETUP | {"env": 7}) == "refused"
    assert [body["status"] for queue, body in post.sent() if queue != DEAD.queue] == ["complete"]
    assert post.give(Kind.SETUP, SETUP) == "repeated"


def test_a_refused_set_up_that_comes_again_is_refused_although_its_cause_is_gone(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    assert post.give(Kind.SETUP, SETUP, manager="b") == "refused"
    post.end()
    post.sent()
    post.bench.engine.clean(KEY)
    assert post.give(Kind.SETUP, SETUP, manager="b", redelivered=True) == "repeated"
    assert post.statuses() == ["failed"]
    assert post.give(Kind.SETUP, SETUP, manager="b") == "taken"


@pytest.mark.parametrize("body", [b'{"job_id": "7", "x": [' + b"[]," * 400_000 + b"1]}", b"{" * 400_000])
def test_what_would_fill_the_memory_is_not_read(post: Post, body: bytes) -> None:
    post.config = replace(post.config, maximum_bytes=10_000_000)
    post.bind()
    assert post.give(Kind.SETUP, body) == "refused"
    dead = post.letters()[0]
    assert "lists and objects" in dead.headers["lwr-reason"]


def test_a_message_of_another_size_names_its_job_without_being_read(post: Post) -> None:
    body = b'{"command_line": "' + b"x" * 200_000 + b'", "job_id": "7"}'
    post.give(Kind.SETUP, body)
    assert json.loads(post.letters()[1].body)["job_id"] == "7"


def test_a_message_that_the_broker_finds_too_large_shrinks(post: Post) -> None:
    post.give(Kind.SETUP, SETUP)
    job = post.bench.until(KEY, lambda job: job.state is JobState.QUEUED)
    (Path(job.directory) / "working").joinpath("x" * 200).touch()
    post.end()
    post.outbox.sent(post.outbox.next() or pytest.fail("nothing to send"))
    large = post.outbox.next()
    assert large is not None
    for _ in range(4):
        post.outbox.shrink(post.outbox.next() or pytest.fail("nothing to send"))
    small = post.outbox.next()
    assert small is not None
    assert len(small.body) < len(large.body)
    assert json.loads(small.body)["status"] == "complete"
