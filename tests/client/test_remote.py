"""The dialect: what is asked for each call, what is made of the answers, and that calls are tried again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from lwr.client.remote import RemoteServer
from lwr.errors import BadRequest, BadTransfer, LwrError, PeerError, PeerRefused, PeerUnreachable
from lwr.transfer.retry import Patience
from tests.client.scripted import Answer, Asked, json_answer, scripted

#: Tries again, without the pauses that people need.
PATIENT = Patience(total_s=60.0, first_s=0.0, most_s=0.0)
SETUP = {
    "job_id": "given",
    "working_directory": "/s/given/working",
    "inputs_directory": "/s/given/inputs",
    "system_properties": {"separator": "/"},
}
DONE = {"job_id": "j", "complete": "true", "status": "complete", "returncode": 3, "stdout": "o", "stderr": None}
BUSY = Answer(503)


def query(asked: Asked) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(urlsplit(asked.target).query).items()}


def path(asked: Asked) -> str:
    return f"{asked.method} {urlsplit(asked.target).path}"


def test_a_setup() -> None:
    with scripted(json_answer(SETUP)) as peer, RemoteServer(peer.url) as server:
        places = server.setup("wanted", "grep", "2.0")
    assert path(peer.asked[0]) == "POST /jobs"
    assert query(peer.asked[0]) == {
        "job_id": "wanted",
        "use_metadata": "true",
        "tool_id": "grep",
        "tool_version": "2.0",
    }
    assert places.job_id == "given"
    assert places.path("input", "a/b") == "/s/given/inputs/a/b"
    assert places.path("config", "x") == "/s/given/working/x"
    with pytest.raises(PeerError, match="unstructured"):
        places.path("unstructured", "x")


@pytest.mark.parametrize("answer", [b"[]", b"{}", b'{"working_directory": 7}', b"<html>"])
def test_something_else_answers(answer: bytes) -> None:
    with (
        scripted(Answer(body=answer)) as peer,
        RemoteServer(peer.url) as server,
        pytest.raises(PeerRefused, match="does not speak LWR"),
    ):
        server.setup("j")


def test_below_a_manager_and_with_ids_that_need_quoting() -> None:
    with scripted(json_answer(DONE)) as peer, RemoteServer(peer.url + "managers/long") as server:
        server.status("a/../b")
    assert path(peer.asked[0]) == "GET /managers/long/jobs/a%2F..%2Fb/status"


def test_an_upload_from_a_file_and_from_memory(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"from a file")
    with scripted(json_answer({"path": "/p"})) as peer, RemoteServer(peer.url) as server:
        server.upload("j", "input", "d/ü.txt", tmp_path / "f")
        server.upload("j", "config", "c", b"from memory")
    assert [asked.body for asked in peer.asked] == [b"from a file", b"from memory"]
    assert path(peer.asked[0]) == "POST /jobs/j/files"
    assert query(peer.asked[0]) == {"job_id": "j", "name": "d/ü.txt", "type": "input"}


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with (
        scripted(json_answer({})) as peer,
        RemoteServer(peer.url) as server,
        pytest.raises(BadRequest, match="No such"),
    ):
        server.upload("j", "input", "f", tmp_path / "missing")
    assert peer.asked == []


def test_a_submit() -> None:
    env = [{"name": "A", "value": "1"}]
    with scripted(Answer()) as peer, RemoteServer(peer.url) as server:
        server.submit("j", "echo 'a; b & c' \n", env=env, params={"q": "x"})
        server.submit("j", "true")
    sent = query(peer.asked[0])
    assert path(peer.asked[0]) == "POST /jobs/j/submit"
    assert sent["command_line"] == "echo 'a; b & c' \n"
    assert (json.loads(sent["env"]), json.loads(sent["params"])) == (env, {"q": "x"})
    assert query(peer.asked[1]) == {"job_id": "j", "command_line": "true"}


def test_a_status() -> None:
    going = {"complete": "false", "status": "running", "job_id": "j"}
    over = {**DONE, "outputs_directory_contents": ["a", 7]}
    with scripted(json_answer(going), json_answer(over)) as peer, RemoteServer(peer.url) as server:
        first, second = server.status("j"), server.status("j")
    assert (first.state, first.finished, first.exit_code) == ("running", False, None)
    assert (second.state, second.finished, second.exit_code) == ("complete", True, 3)
    assert (second.stdout, second.stderr, second.outputs) == ("o", "", ("a",))


def test_cancel_and_clean() -> None:
    with scripted(Answer()) as peer, RemoteServer(peer.url) as server:
        server.cancel("j")
        server.clean("j")
    assert [path(asked) for asked in peer.asked] == ["PUT /jobs/j/cancel", "DELETE /jobs/j"]


def test_the_list_of_jobs_and_one_job() -> None:
    job = {"job_id": "j"}
    with scripted(json_answer({"jobs": [job]}), json_answer(job)) as peer, RemoteServer(peer.url) as server:
        assert server.jobs(state="running", limit=3) == [job]
        assert server.job("j") == job
    assert query(peer.asked[0]) == {"state": "running", "limit": "3"}
    assert [path(asked) for asked in peer.asked] == ["GET /jobs", "GET /jobs/j"]


def test_what_may_pass_is_tried_again_and_told() -> None:
    told: list[LwrError] = []
    with (
        scripted(BUSY, BUSY, json_answer(SETUP)) as peer,
        RemoteServer(peer.url, patience=PATIENT, on_retry=lambda error, _: told.append(error)) as server,
    ):
        assert server.setup("j").job_id == "given"
    assert len(peer.asked) == 3
    assert [error.code for error in told] == ["peer-refused"] * 2


def test_a_cut_download_is_fetched_again(tmp_path: Path) -> None:
    cut = Answer(body=b"hal", announced_bytes=5)
    with scripted(cut, Answer(body=b"whole")) as peer, RemoteServer(peer.url, patience=PATIENT) as server:
        server.download("j", "output", "o", tmp_path / "o")
    assert (tmp_path / "o").read_bytes() == b"whole"
    assert query(peer.asked[0]) == {"job_id": "j", "name": "o", "type": "output"}


def test_a_download_that_is_cut_every_time_fails_in_the_end(tmp_path: Path) -> None:
    cut = Answer(body=b"hal", announced_bytes=5)
    with scripted(cut) as peer, RemoteServer(peer.url, patience=PATIENT) as server, pytest.raises(BadTransfer):
        server.download("j", "output", "o", tmp_path / "o")
    assert len(peer.asked) == PATIENT.tries_of_spoiled
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_arrives_changed_is_sent_again() -> None:
    wrong = json_answer({}, headers={"Repr-Digest": "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"})
    with scripted(wrong, json_answer({})) as peer, RemoteServer(peer.url, patience=PATIENT) as server:
        server.upload("j", "input", "f", b"content")
    assert [asked.body for asked in peer.asked] == [b"content"] * 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_what_cannot_pass_is_asked_once(status: int) -> None:
    with (
        scripted(Answer(status)) as peer,
        RemoteServer(peer.url, patience=PATIENT) as server,
        pytest.raises(PeerRefused),
    ):
        server.status("j")
    assert len(peer.asked) == 1


def test_a_greeting_is_tried_once() -> None:
    with scripted(BUSY) as peer, RemoteServer(peer.url, patience=PATIENT) as server, pytest.raises(PeerRefused):
        server.greet()
    assert len(peer.asked) == 1


def test_in_a_hurry_patience_is_short_and_comes_back() -> None:
    server = RemoteServer("http://127.0.0.1:9/", patience=replace(PATIENT, total_s=60.0))
    with server.in_a_hurry(0.0), pytest.raises(PeerUnreachable):
        server.cancel("j")
    assert server.patience == PATIENT
    server.close()
