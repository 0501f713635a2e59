"""What goes over the wire: requests of all ages are read, odd ones refused with a reason, replies hold every key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.job import TERMINAL, Job, JobKey, JobState
from lwr.core.places import Area, JobLayout
from lwr.core.ticket import EnvItem
from lwr.core.wire import (
    FILE_KINDS,
    PULSAR_VERSION,
    EnvEntry,
    Results,
    SetupRequest,
    Submission,
    decode,
    decode_json,
    finished_reply,
    reply_status,
    setup_reply,
    submission_from_query,
    unfinished_reply,
)
from lwr.errors import BadRequest

LAYOUT = JobLayout("/staging/7")


def job(state: JobState, **facts: Any) -> Job:
    return Job(1, JobKey("_default_", "7"), "a" * 32, state, LAYOUT.root, **facts)


def submit(**parameters: object) -> tuple[Submission, SetupRequest | None]:
    """A submit request whose parameters are JSON, but for those that are text already."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    return submission_from_query({"command_line": "true", **texts})


class TestSubmitRequests:
    def test_the_least(self) -> None:
        assert submit() == (Submission(command_line="true"), None)

    def test_all_that_todays_client_sends(self) -> None:
        submission, setup = submit(
            params={"native": "-n 1", "slots": 4, "big": True},
            dependencies_description={"requirements": [{"name": "bwa"}], "installed_tool_dependencies": []},
            env=[{"name": "HOME", "value": '"$_GALAXY_JOB_HOME_DIR"', "raw": True}],
            remote_staging={"setup": []},
            submit_extras={"touch_outputs": ["outputs/a"]},
            dynamic_file_sources=[{"path": "galaxy.json", "type": "galaxy", "new_key": 1}],
            token_endpoint={"token_endpoint": "https://galaxy/api"},
            setup_params={"job_id": "7", "tool_id": None, "use_metadata": "true"},
            a_parameter_of_tomorrow="[",
        )
        assert submission.params == {"native": "-n 1", "slots": "4", "big": "true"}
        assert submission.dependencies is not None
        assert submission.env[0].item() == EnvItem(name="HOME", value='"$_GALAXY_JOB_HOME_DIR"', raw=True)
        assert submission.touch_outputs == ["outputs/a"]
        assert [(source.path, source.type) for source in submission.dynamic_file_sources] == [("galaxy.json", "galaxy")]
        assert submission.token_endpoint == "https://galaxy/api"
        assert setup == SetupRequest(job_id="7")

    @pytest.mark.parametrize("nothing", ["", "null", "[]", "{}"])
    def test_nothing_in_many_forms(self, nothing: str) -> None:
        names = ["params", "dependencies_description", "env", "remote_staging", "submit_extras", "dynamic_file_sources"]
        assert submit(**dict.fromkeys([*names, "token_endpoint", "setup_params"], nothing)) == submit()

    def test_requirements_of_early_clients(self) -> None:
        early, _ = submit(requirements=[{"name": "bwa", "version": "1"}])
        today, _ = submit(
            dependencies_description={
                "requirements": [{"name": "bwa", "version": "1"}],
                "installed_tool_dependencies": [],
            }
        )
        assert early == today

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("params", [1]),
            ("params", "text"),
            ("env", {"A": "b"}),
            ("env", [["A", "b"]]),
            ("env", [{"name": "A"}]),
            ("env", [{"name": "A B", "value": ""}]),
            ("env", [{"name": "A=B", "value": ""}]),
            ("env", [{"name": "BASH_FUNC_x%%", "value": "() { :; }"}]),
            ("env", [{"name": "A", "value": "nul\0"}]),
            ("env", [{"file": "nul\0"}]),
            ("env", [{"execute": "nul\0"}]),
            ("env", [{"name": "A", "value": 1}]),
            ("remote_staging", [1]),
            ("submit_extras", ["outputs/a"]),
            ("submit_extras", {"touch_outputs": [3]}),
            ("submit_extras", {"touch_outputs": "outputs/a"}),
            ("dynamic_file_sources", [{"path": "a"}]),
            ("token_endpoint", [1]),
            ("setup_params", {"tool_id": "a"}),
            ("setup_params", {"job_id": 7}),
            ("dependencies_description", "[1]"),
            ("command_line", "nul\0"),
        ],
    )
    def test_what_cannot_be_understood(self, name: str, value: object) -> None:
        with pytest.raises(BadRequest):
            submit(**{name: value})

    def test_the_command_line_must_be_there(self) -> None:
        with pytest.raises(BadRequest, match="command_line"):
            submission_from_query({"params": "{}"})

    def test_errors_name_the_place_and_quote_nothing(self) -> None:
        with pytest.raises(BadRequest) as raised:
            submit(env=[{"name": "A", "value": ["hunter2"]}])
        assert "env.0.value" in raised.value.message
        assert "hunter2" not in str(raised.value)


class TestJson:
    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "",
            "\ufeff{}",
            "[" * 100_000,
            "[" * 101 + "]" * 101,
            '{"a":' * 101 + "1" + "}" * 101,
            "1" * 5000,
            "nope",
        ],
    )
    def test_unreadable(self, text: str) -> None:
        with pytest.raises(BadRequest, match="`params`"):
            decode_json(text, "params")

    def test_wide_and_fairly_deep_is_fine(self) -> None:
        assert len(decode_json("[" + "1," * 100_000 + "1]", "params")) == 100_001
        decode_json("[" * 100 + "]" * 100, "params")

    def test_unknown_keys_are_ignored_and_types_are_strict(self) -> None:
        assert decode(SetupRequest, {"job_id": "7", "later": 1}, "setup") == SetupRequest(job_id="7")
        with pytest.raises(BadRequest, match="at its top"):
            decode(SetupRequest, [], "setup")
        with pytest.raises(BadRequest, match="at job_id"):
            decode(SetupRequest, {"job_id": 7}, "setup")


_ANY_TEXT = st.text(st.characters(exclude_characters="\0"), max_size=20) | st.just("\udcff lone \ud800")
_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


class TestStoring:
    @given(
        command=_ANY_TEXT, params=st.dictionaries(_ANY_TEXT, _ANY_JSON), staging=st.dictionaries(_ANY_TEXT, _ANY_JSON)
    )
    def test_what_is_taken_can_be_read_again(self, command: str, params: Any, staging: Any) -> None:
        submission, _ = submission_from_query(
            {"command_line": command, "params": json.dumps(params), "remote_staging": json.dumps(staging)}
        )
        stored = submission.canonical()
        assert stored.isascii()
        assert Submission.from_stored(stored).canonical() == stored

    def test_the_deepest_that_is_taken_can_be_read_again(self) -> None:
        submission, _ = submit(remote_staging='{"a":' + "[" * 99 + "]" * 99 + "}")
        assert Submission.from_stored(submission.canonical()) == submission

    def test_equal_descriptions_are_equal_in_whatever_order_and_form(self) -> None:
        one, _ = submit(params='{"a": "1", "b": "2"}', env='[{"name": "A", "value": "x"}]')
        other, _ = submit(params='{"b":2,"a":1}', env='[{"value":"x","name":"A","raw":false,"new":1}]')
        assert one.canonical() == other.canonical()
        assert one.canonical() != submit(params='{"a": "1"}')[0].canonical()


class TestEnvironment:
    @pytest.mark.parametrize(
        ("entry", "item"),
        [
            (EnvEntry(name="A", value="b c"), EnvItem(name="A", value="b c")),
            (EnvEntry(name="A", value=""), EnvItem(name="A")),
            (EnvEntry(file="/x.sh", raw=True), EnvItem(file="/x.sh", raw=True)),
            (EnvEntry(execute="module load x"), EnvItem(execute="module load x")),
            (EnvEntry(name="A", value="b", file="/first"), EnvItem(file="/first")),
        ],
    )
    def test_forms(self, entry: EnvEntry, item: EnvItem) -> None:
        assert entry.item() == item


class TestReplies:
    def test_set_up_holds_both_peers_keys(self) -> None:
        reply = setup_reply(job(JobState.NEW, tool_id="cat"), LAYOUT, {"galaxy_home": "/galaxy"})
        assert reply["working_directory"] == "/staging/7/working"
        assert reply["tools_directory"] == "/staging/7/tool_files"
        assert reply["unstructured_files_directory"] == "/staging/7/unstructured"
        assert reply["system_properties"] == {"separator": "/", "galaxy_home": "/galaxy"}
        assert reply["pulsar_version"] == PULSAR_VERSION
        assert reply["tool_id"] == "cat"
        assert "tool_version" not in reply

    @pytest.mark.parametrize("state", sorted(set(JobState) - TERMINAL))
    def test_what_goes_on_has_three_keys_and_a_text_for_a_truth(self, state: JobState) -> None:
        word = {"new": "preprocessing"}.get(state.value, state.value)
        assert unfinished_reply(job(state)) == {"complete": "false", "status": word, "job_id": "7"}

    @pytest.mark.parametrize(
        ("state", "exit_code", "status", "returncode", "classic_status", "classic_returncode"),
        [
            (JobState.COMPLETE, 0, "complete", 0, "complete", 0),
            (JobState.COMPLETE, 255, "complete", 255, "complete", 255),
            (JobState.COMPLETE, -9, "complete", -9, "complete", -9),
            (JobState.CANCELLED, None, "cancelled", None, "cancelled", None),
            (JobState.CANCELLED, -15, "cancelled", -15, "cancelled", -15),
            (JobState.FAILED, None, "failed", 1, "complete", 1),
            (JobState.FAILED, 3, "failed", 3, "complete", 3),
            (JobState.LOST, None, "lost", None, "complete", 1),
        ],
    )
    def test_ends(
        self,
        state: JobState,
        exit_code: int | None,
        status: str,
        returncode: int | None,
        classic_status: str,
        classic_returncode: int | None,
    ) -> None:
        ended = job(state, exit_code=exit_code, reason="the reason")
        results = Results(stdout="out", stderr="err", outputs=["a"], working=["b"])
        for classic, word, code in ((False, status, returncode), (True, classic_status, classic_returncode)):
            reply = finished_reply(ended, LAYOUT, results, {}, classic=classic)
            assert (reply["complete"], reply["status"], reply["returncode"]) == ("true", word, code)
            troubled = state in (JobState.FAILED, JobState.LOST)
            assert reply["stderr"] == ("the reason\nerr" if troubled else "err")
            assert (reply["stdout"], reply["outputs_directory_contents"]) == ("out", ["a"])
            assert reply["working_directory_contents"] == ["b"]
            json.dumps(reply)

    def test_a_job_that_failed_after_a_good_command_is_no_success_to_classic_readers(self) -> None:
        failed = job(JobState.FAILED, exit_code=0, reason="outputs were lost")
        assert finished_reply(failed, LAYOUT, Results(), {}, classic=True)["returncode"] == 1

    def test_every_state_has_a_word_that_both_dialects_know(self) -> None:
        rest = {reply_status(state, classic=False) for state in JobState}
        classic = {reply_status(state, classic=True) for state in JobState}
        assert rest - classic == {"failed", "lost"}
        assert classic <= {"preprocessing", "queued", "running", "postprocessing", "complete", "cancelled"}

    def test_kinds_of_files(self) -> None:
        assert {kind.area for kind in FILE_KINDS.values()} == set(Area)
        flat = {name for name, kind in FILE_KINDS.items() if not kind.nested}
        assert flat == {"config", "jobdir", "output_jobdir"}
