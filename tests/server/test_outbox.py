"""What is sent of jobs, whatever is asked in which order, lost and said again: a legal word for each (P2, P11).

A state machine drives a real inbox, outbox, mailbox, store and engine; broker and manager are the machine itself. The
model is what must have been done (which descriptions were taken) and all that was sent.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lwr.core.job import ENDED_BY_OTHERS, Job, JobKey, JobState
from lwr.core.messages import Dialect, Kind
from lwr.core.ticket import Phase
from lwr.errors import StillEnding
from lwr.server.outbox import Ready
from tests.conftest import FULL
from tests.server.test_inbox import Post

KEYS = [JobKey("_default_", "7"), JobKey("_default_", "8")]
ENDS = frozenset({"complete", "failed", "cancelled", "lost"})
keys, dialects, commands = st.sampled_from(KEYS), st.sampled_from(list(Dialect)), st.sampled_from(["a", "b"])


class Correspondence(RuleBasedStateMachine):
    """A client, a broker and a manager around one server."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix="correspondence-")
        self.post = Post(Path(self.directory.name))
        #: Descriptions that were taken, by job.
        self.taken: defaultdict[JobKey, set[str]] = defaultdict(set)
        #: Set-ups that are kept and tried again: description, dialect, whether the broker gave it a second time.
        self.kept: dict[JobKey, tuple[str, Dialect, bool]] = {}
        #: What was sent, by job and route: the attempt, its state and the bytes.
        self.sent: defaultdict[tuple[JobKey, str], list[tuple[int, str, bytes]]] = defaultdict(list)
        self.under_way: Ready | None = None

    def latest(self, key: JobKey) -> Job | None:
        return self.post.bench.engine.view.latest(key)

    def attempts(self, key: JobKey) -> int:
        return sum(job.key == key for job in self.post.bench.store.jobs(None, None, 1000, None))

    # -- the client ----------------------------------------------------------------------------------------------

    @rule(key=keys, command=commands, dialect=dialects, again=st.booleans())
    def set_up(self, key: JobKey, command: str, dialect: Dialect, again: bool) -> None:
        if key not in self.kept:
            self.give(key, command, dialect, again=again and command in self.taken[key])

    @rule(key=keys)
    def try_again(self, key: JobKey) -> None:
        if key in self.kept:
            self.give(key, *self.kept[key][:2], again=self.kept[key][2])

    def give(self, key: JobKey, command: str, dialect: Dialect, *, again: bool) -> None:
        before, job = self.attempts(key), self.latest(key)
        # One that is kept was begun: the old attempt makes way for it.
        is_fresh = not again or command not in self.taken[key] or key in self.kept
        said = {"job_id": key.job_id, "command_line": command, "setup_params": {"job_id": key.job_id}}
        try:
            result = self.post.give(Kind.SETUP, said, dialect=dialect, redelivered=again)
        except StillEnding:
            assert is_fresh
            self.kept[key] = (command, dialect, again)
            self.post.postponed.add(key)
            return
        self.kept.pop(key, None)
        self.post.postponed.discard(key)
        if not is_fresh:
            assert result == "repeated"
        if job is None or (is_fresh and job.state in ENDED_BY_OTHERS):
            assert result == "taken"
        self.taken[key].add(command)
        assert self.attempts(key) == before + (result == "taken")
        self.post.bench.until(key, lambda now: now.state not in (JobState.NEW, JobState.PREPROCESSING))

    @rule(key=keys, dialect=dialects)
    def kill(self, key: JobKey, dialect: Dialect) -> None:
        self.post.give(Kind.KILL, {"job_id": key.job_id}, dialect=dialect)

    @rule(key=keys, dialect=dialects)
    def ask(self, key: JobKey, dialect: Dialect) -> None:
        if self.latest(key) is not None:
            self.post.give(Kind.STATUS, {"job_id": key.job_id}, dialect=dialect)

    # -- the manager ---------------------------------------------------------------------------------------------

    @rule(key=keys)
    def runs(self, key: JobKey) -> None:
        job = self.latest(key)
        if job is not None and job.state is JobState.QUEUED:
            self.post.bench.see(job, Phase.RUNNING)
            self.post.bench.until_state(JobState.RUNNING, key)

    @rule(key=keys, phase=st.sampled_from([Phase.ENDED, Phase.ENDED, Phase.GONE, Phase.REFUSED]))
    def ends(self, key: JobKey, phase: Phase) -> None:
        job = self.latest(key)
        if job is not None and job.state in (JobState.QUEUED, JobState.RUNNING):
            self.post.bench.see(job, phase, 0 if phase is Phase.ENDED else None, "a reason")
            self.post.bench.until(key, lambda now: now.terminal)

    # -- the broker, and the server's own death ------------------------------------------------------------------

    @precondition(lambda self: self.under_way is None)
    @rule()
    def send(self) -> None:
        self.under_way = ready = self.post.outbox.next()
        if ready is None:
            return
        posted = ready.posted
        if posted.seq is None:  # asked while the next attempt waits to be taken
            assert b'"preprocessing"' in ready.body
            return
        job = self.latest(posted.key)
        assert job is not None
        elsewhere = posted.route != job.route  # its client was told on another route
        assert posted.seq == job.seq or elsewhere, "told of an attempt after the next one began"
        self.sent[posted.key, posted.route].append((posted.seq, posted.state, ready.body))

    @precondition(lambda self: self.under_way is not None)
    @rule(confirmed=st.booleans())
    def hear_of_it(self, confirmed: bool) -> None:
        assert self.under_way is not None
        if confirmed:
            self.post.outbox.sent(self.under_way)
        self.under_way = None

    @rule()
    def restart(self) -> None:
        self.post.restart()
        self.post.postponed.clear()
        self.under_way = None
        self.kept = {key: (command, dialect, True) for key, (command, dialect, _) in self.kept.items()}

    # -- what holds ----------------------------------------------------------------------------------------------

    @invariant()
    def each_word_is_legal(self) -> None:
        for (key, _), letters in self.sent.items():
            assert [seq for seq, _, _ in letters] == sorted(seq for seq, _, _ in letters), f"{key}: {letters}"
            for seq in {seq for seq, _, _ in letters}:
                told = [(state in ENDS, state, body) for of, state, body in letters if of == seq]
                ended = [over for over, _, _ in told]
                assert ended == sorted(ended), f"{key} goes on after its end: {told}"
                assert len({body for over, _, body in told if over}) <= 1, f"{key} ends in two ways: {told}"

    def teardown(self) -> None:
        try:
            for key in KEYS:
                self.ends(key, Phase.ENDED)
                self.try_again(key)
                self.ends(key, Phase.ENDED)
            self.hear_of_all()
            self.each_word_is_legal()
            for key in KEYS:
                job = self.latest(key)
                assert (job is None) is (key not in self.taken or not self.taken[key])
                assert job is None or job.terminal
                if job is not None:
                    assert self.sent[key, job.route][-1][:2] == (job.seq, job.state)
        finally:
            self.post.bench.close()
            self.directory.cleanup()

    def hear_of_all(self) -> None:
        self.under_way = None
        self.send()
        while self.under_way is not None:
            self.hear_of_it(confirmed=True)
            self.send()


TestCorrespondence = Correspondence.TestCase
TestCorrespondence.settings = settings(max_examples=500 if FULL else 30, stateful_step_count=40, deadline=None)
