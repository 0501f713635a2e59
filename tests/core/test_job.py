"""The law of states, pair by pair; what observations mean; which ids may name a job."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.job import (
    LIVE,
    TERMINAL,
    TRANSITIONS,
    Job,
    JobKey,
    JobState,
    Move,
    advance,
    check_job_id,
    check_manager_name,
    conclude,
)
from lwr.core.ticket import Observation, Phase
from lwr.errors import BadName, IllegalMove

S = JobState

#: The law once more, as a picture: each row a state, in its order the states that may follow ("x").
LAW = {
    #                 N P Q R O C F X L
    S.NEW:            ". x . . . . x x .",
    S.PREPROCESSING:  ". . x . . . x x .",
    S.QUEUED:         ". . . x x . x x x",
    S.RUNNING:        ". . x . x . x x x",
    S.POSTPROCESSING: ". . . . . x x x .",
    S.COMPLETE:       ". . . . . . . . .",
    S.FAILED:         ". . . . . . . . .",
    S.CANCELLED:      ". . . . . . . . .",
    S.LOST:           ". . . . . . . . .",
}  # fmt: skip


class TestTransitions:
    @pytest.mark.parametrize(("current", "wanted"), list(product(S, S)))
    def test_every_pair(self, current: JobState, wanted: JobState) -> None:
        legal = LAW[current].split()[list(S).index(wanted)] == "x"
        assert (wanted in TRANSITIONS[current]) == legal
        if current is wanted:
            assert advance(current, wanted) is False
        elif legal:
            assert advance(current, wanted) is True
        else:
            with pytest.raises(IllegalMove, match=f"from {current} to {wanted}"):
                advance(current, wanted)

    def test_every_live_state_can_fail_and_be_cancelled_and_terminal_ones_are_closed(self) -> None:
        assert {S.COMPLETE, S.FAILED, S.CANCELLED, S.LOST} == TERMINAL
        assert set(S) - TERMINAL == LIVE
        assert all({S.FAILED, S.CANCELLED} <= TRANSITIONS[state] for state in LIVE)

    def test_every_state_can_be_reached_and_left(self) -> None:
        reached = {S.NEW}
        while more := {onward for state in reached for onward in TRANSITIONS[state]} - reached:
            reached |= more
        assert reached == set(S)


SEEN = {
    Phase.WAITING: Observation(Phase.WAITING, handle="17"),
    Phase.RUNNING: Observation(Phase.RUNNING, handle="17"),
    Phase.ENDED: Observation(Phase.ENDED, exit_code=3),
    Phase.GONE: Observation(Phase.GONE, reason="nobody knows"),
    Phase.REFUSED: Observation(Phase.REFUSED, reason="no such queue"),
}
ARRIVED = Move(S.QUEUED)

#: What is concluded from QUEUED and RUNNING, without and with a wish to cancel.
MEANING = {
    (Phase.WAITING, False): Move(S.QUEUED, handle="17"),
    (Phase.WAITING, True): Move(S.QUEUED, handle="17"),
    (Phase.RUNNING, False): Move(S.RUNNING, handle="17"),
    (Phase.RUNNING, True): Move(S.RUNNING, handle="17"),
    (Phase.ENDED, False): Move(S.POSTPROCESSING, exit_code=3),
    (Phase.ENDED, True): Move(S.CANCELLED, "cancelled on request", exit_code=3),
    (Phase.GONE, False): Move(S.LOST, "nobody knows"),
    (Phase.GONE, True): Move(S.CANCELLED, "cancelled on request"),
    (Phase.REFUSED, False): Move(S.FAILED, "no such queue"),
    (Phase.REFUSED, True): Move(S.CANCELLED, "cancelled on request"),
}


class TestConclude:
    @pytest.mark.parametrize("cancel", [False, True])
    @pytest.mark.parametrize("phase", Phase)
    @pytest.mark.parametrize("state", [S.QUEUED, S.RUNNING])
    def test_the_table(self, state: JobState, phase: Phase, cancel: bool) -> None:
        assert conclude(state, cancel, SEEN[phase]) == (MEANING[phase, cancel],)

    @pytest.mark.parametrize("cancel", [False, True])
    @pytest.mark.parametrize("phase", Phase)
    def test_a_job_that_its_manager_speaks_of_has_arrived(self, phase: Phase, cancel: bool) -> None:
        last = MEANING[phase, cancel]
        direct = last.to in (S.QUEUED, S.FAILED, S.CANCELLED)
        assert conclude(S.PREPROCESSING, cancel, SEEN[phase]) == ((last,) if direct else (ARRIVED, last))

    @pytest.mark.parametrize("phase", Phase)
    @pytest.mark.parametrize("state", [S.NEW, S.POSTPROCESSING, *sorted(TERMINAL)])
    def test_late_news_means_nothing(self, state: JobState, phase: Phase) -> None:
        assert conclude(state, False, SEEN[phase]) == conclude(state, True, SEEN[phase]) == ()

    def test_the_same_again_is_news_only_with_a_handle(self) -> None:
        assert conclude(S.RUNNING, False, Observation(Phase.RUNNING)) == ()
        assert conclude(S.QUEUED, False, Observation(Phase.WAITING)) == ()
        assert conclude(S.QUEUED, False, Observation(Phase.WAITING, handle="9")) == (Move(S.QUEUED, handle="9"),)

    @pytest.mark.parametrize("cancel", [False, True])
    @pytest.mark.parametrize(("state", "phase"), list(product(S, Phase)))
    def test_only_legal_moves_are_concluded(self, state: JobState, phase: Phase, cancel: bool) -> None:
        for move in conclude(state, cancel, SEEN[phase]):
            advance(state, move.to)
            state = move.to


class TestIds:
    @pytest.mark.parametrize("job_id", ["1", "a", "_", "0-._", "a" * 128, "B7.x", "con_", "nullable", "..".join("ab")])
    def test_right_ones(self, job_id: str) -> None:
        assert check_job_id(job_id) == job_id

    @pytest.mark.parametrize(
        "job_id",
        [
            *[
                "",
                ".",
                "..",
                "...",
                ".a",
                "-a",
                "a.",
                "a/b",
                "../a",
                "a\\b",
                "a\0",
                "a\n",
                "\n",
                " a",
                "a ",
                "a b",
                "~",
            ],
            *["é", "e\u0301", "\u202ea", "\uff11", "\udcff", "%2e%2e", "a:b", "a" * 129, "a" * 9000],
            *["CON", "nul", "Com1", "lpt9.txt", "aux."],
        ],
    )
    def test_wrong_ones(self, job_id: str) -> None:
        with pytest.raises(BadName) as raised:
            check_job_id(job_id)
        assert raised.value.message.isprintable()
        assert len(raised.value.message) < 300
        assert raised.value.hint

    @given(st.one_of(st.text(max_size=140), st.from_regex(r"\A[A-Za-z0-9_.\-]{1,130}\Z")))
    def test_what_passes_is_one_harmless_component(self, job_id: str) -> None:
        try:
            check_job_id(job_id)
        except BadName:
            return
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", job_id, re.ASCII)
        assert not job_id.endswith(".")

    @pytest.mark.parametrize("name", ["_default_", "a", "slurm.long-2", ".a"])
    def test_managers(self, name: str) -> None:
        assert check_manager_name(name) == name

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a" * 65, "a\n", "é"])
    def test_wrong_managers(self, name: str) -> None:
        with pytest.raises(BadName):
            check_manager_name(name)


def test_a_job_knows_whether_it_is_over_and_its_key_what_to_be_called() -> None:
    key = JobKey("_default_", "7")
    assert [Job(1, key, "a", state, "/jobs/7").terminal for state in S] == [state in TERMINAL for state in S]
    assert (str(key), str(JobKey("slurm", "7"))) == ("7", "slurm/7")
