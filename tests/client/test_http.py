"""One conversation at a time: what is sent, what is checked, and that only LWR's errors come out."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from pathlib import Path

import pytest

from lwr.client.endpoint import Endpoint
from lwr.client.http import Conversation
from lwr.client.parts import PartFile
from lwr.errors import BadRequest, BadTransfer, PeerRefused, PeerUnreachable, ServerError
from lwr.transfer.bodies import PIECE_BYTES, Upload
from lwr.transfer.digests import digest_field
from tests.client.scripted import Answer, json_answer, scripted

DATA = bytes(range(256)) * 5000  # more than one piece
DIGEST = {"Repr-Digest": digest_field(hashlib.sha256(DATA).digest())}


def nobody(_: int) -> None:
    return


def talk(url: str, token: str = "", *, read_timeout_s: float = 30.0) -> Conversation:
    return Conversation(Endpoint(url, token), read_timeout_s=read_timeout_s)


def body(data: bytes = DATA, size_bytes: int | None = None) -> Upload:
    return Upload(io.BytesIO(data), len(data) if size_bytes is None else size_bytes, "the file", nobody)


def fetch(url: str, target: Path) -> None:
    conversation = talk(url)
    try:
        with PartFile(target) as part:
            conversation.fetch("file", {}, part, "do it", nobody)
    finally:
        conversation.close()


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        conversation = talk(f"http://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(PeerUnreachable, match="Connection refused") as caught:
            conversation.ask("GET", "x", {}, "do it")
        conversation.close()
    assert "lwr serve" in caught.value.hint


def test_somebody_there_who_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conversation = talk(f"http://127.0.0.1:{silent.getsockname()[1]}/", read_timeout_s=0.05)
        with pytest.raises(PeerUnreachable, match="in time"):
            conversation.ask("GET", "x", {}, "do it")
        conversation.close()


def test_the_secret_goes_into_the_header_and_nowhere_else() -> None:
    with scripted(Answer()) as server:
        conversation = talk(server.url, "geheim ü")
        conversation.ask("GET", "jobs", {"a": "b c&d"}, "do it")
        conversation.close()
    assert server.asked[0].headers["Authorization"].encode("latin-1") == "Bearer geheim ü".encode()
    assert server.asked[0].target == "/jobs?a=b+c%26d"
    assert "geheim" not in repr(conversation.endpoint)


def test_without_a_secret_none_is_taken_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password other-secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with scripted(Answer()) as server:
        conversation = talk(server.url)
        conversation.ask("GET", "jobs", {}, "do it")
        conversation.close()
    assert "Authorization" not in server.asked[0].headers


def test_no_proxy_is_asked_for_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with scripted(Answer()) as server:
        conversation = talk(server.url)
        assert conversation.ask("GET", "jobs", {}, "do it") == b"OK"
        conversation.close()


@pytest.mark.parametrize(("status", "transient"), [(400, False), (401, False), (404, False), (500, False), (302, False)]
                         + [(status, True) for status in (408, 425, 429, 502, 503, 504, 507)])  # fmt: skip
def test_refusals_know_whether_they_may_pass(status: int, transient: bool) -> None:
    with scripted(Answer(status, b"<html>", {"Location": "http://elsewhere/"})) as server:
        conversation = talk(server.url)
        with pytest.raises(PeerRefused) as caught:
            conversation.ask("GET", "x", {}, "do it")
        conversation.close()
    assert (caught.value.status, caught.value.transient) == (status, transient)
    assert len(server.asked) == 1


def test_a_problem_is_passed_on() -> None:
    problem = {"code": "conflict", "detail": "The job runs.", "hint": "Wait."}
    with scripted(json_answer(problem, status=409)) as server:
        conversation = talk(server.url)
        with pytest.raises(PeerRefused, match=r"the server answered 409: The job runs\. Wait\.") as caught:
            conversation.ask("GET", "x", {}, "do it")
        conversation.close()
    assert caught.value.peer_code == "conflict"


def test_a_page_where_json_should_be() -> None:
    with scripted(Answer(body=b"<html>Welcome</html>")) as server:
        conversation = talk(server.url)
        with pytest.raises(PeerRefused, match="does not speak LWR"):
            conversation.ask_json("GET", "x", {}, "do it")
        conversation.close()


@pytest.mark.parametrize(("headers", "checked"), [(DIGEST, "sha-256"), ({}, "size")])
def test_an_upload_arrives_whole_and_is_compared(headers: dict[str, str], checked: str) -> None:
    told: list[int] = []
    with scripted(json_answer({"path": "/p"}, headers=headers)) as server:
        conversation = talk(server.url)
        upload = Upload(io.BytesIO(DATA), len(DATA), "the file", told.append)
        answer, receipt = conversation.send("x", {"name": "n"}, upload, "do it")
        conversation.close()
    assert answer == {"path": "/p"}
    assert (receipt.size_bytes, receipt.checked) == (len(DATA), checked)
    assert server.asked[0].body == DATA
    assert server.asked[0].headers["Content-Length"] == str(len(DATA))
    assert told == [PIECE_BYTES, len(DATA)]


def test_an_empty_upload_has_a_length() -> None:
    with scripted(json_answer({})) as server:
        conversation = talk(server.url)
        conversation.send("x", {}, body(b""), "do it")
        conversation.close()
    assert server.asked[0].headers["Content-Length"] == "0"


def test_an_upload_that_arrived_changed() -> None:
    with scripted(json_answer({}, headers=DIGEST)) as server:
        conversation = talk(server.url)
        with pytest.raises(BadTransfer, match="changed on the way"):
            conversation.send("x", {}, body(b"other bytes"), "do it")
        conversation.close()


@pytest.mark.parametrize("size_bytes", [len(DATA) - 1, len(DATA) + 1])
def test_a_file_that_changes_its_size_while_it_is_sent(size_bytes: int) -> None:
    with scripted(json_answer({})) as server:
        conversation = talk(server.url)
        with pytest.raises(BadTransfer, match="changed its size"):
            conversation.send("x", {}, body(DATA, size_bytes), "do it")
        conversation.close()


class Broken(io.BytesIO):
    """A file on a disk that fails."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(5, "Input/output error")


def test_a_disk_that_fails_here_is_not_trouble_with_the_connection() -> None:
    with scripted(json_answer({})) as server:
        conversation = talk(server.url)
        with pytest.raises(ServerError, match="Input/output error"):
            conversation.send("x", {}, Upload(Broken(), 5, "the file", nobody), "do it")
        conversation.close()


@pytest.mark.parametrize(("headers", "checked"), [(DIGEST, "sha-256"), ({}, "size")])
def test_a_download_replaces_its_target(headers: dict[str, str], checked: str, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with scripted(Answer(body=DATA, headers=headers)) as server:
        conversation = talk(server.url)
        for _ in range(2):
            with PartFile(target) as part:
                receipt = conversation.fetch("x", {}, part, "do it", nobody)
            assert (receipt.size_bytes, receipt.checked) == (len(DATA), checked)
        conversation.close()
    assert target.read_bytes() == DATA
    assert os.listdir(target.parent) == ["target"]
    assert "Want-Repr-Digest" in server.asked[0].headers


SHORT = Answer(body=DATA[:-1], announced_bytes=len(DATA))
CHANGED = Answer(body=DATA[:-1] + b"?", headers=DIGEST)


@pytest.mark.parametrize("answer", [SHORT, CHANGED, Answer(404)], ids=["short", "changed", "refused"])
def test_a_spoiled_download_leaves_everything_as_it_was(answer: Answer, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("before")
    with scripted(answer) as server, pytest.raises((BadTransfer, PeerRefused)) as caught:
        fetch(server.url, target)
    assert caught.value.transient == (answer.status == 200)
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["target"]


def test_a_page_of_somebody_between_is_not_taken_for_a_file(tmp_path: Path) -> None:
    """Once the server was seen to send digests, an answer without one is not its answer."""
    sent = json_answer({}, headers={"Repr-Digest": digest_field(hashlib.sha256(b"x").digest())})
    with scripted(sent, Answer(body=b"<html>Please log in</html>")) as server:
        conversation = talk(server.url)
        conversation.send("x", {}, body(b"x"), "do it")
        with PartFile(tmp_path / "target") as part, pytest.raises(BadTransfer, match="no digest"):
            conversation.fetch("x", {}, part, "do it", nobody)
        conversation.close()
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with scripted(Answer(body=DATA)) as server, pytest.raises(ServerError, match="cannot be written"):
        fetch(server.url, tmp_path / "file" / "target")


def test_a_bundle_of_certificates_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(BadRequest, match=r"/nowhere/ca\.pem"):
        talk("https://127.0.0.1:9/")


def ask_host(host: str) -> None:
    conversation = talk(f"http://{host}:9/")
    try:
        conversation.ask("GET", "x", {}, "do it")
    finally:
        conversation.close()


@pytest.mark.parametrize("host", ["a..b", "ü" * 70 + ".example", "ex ample", "[::1]x"])
def test_odd_hosts_never_bring_foreign_errors(host: str) -> None:
    with pytest.raises(BadRequest):
        ask_host(host)


def test_a_peer_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:
        conversation = talk(f"http://127.0.0.1:{odd.getsockname()[1]}/")

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(PeerUnreachable):
            conversation.ask("GET", "x", {}, "do it")
        thread.join()
        conversation.close()
