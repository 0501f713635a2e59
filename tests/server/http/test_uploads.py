"""Files that arrive: whole, in pieces, cut, wrong, too large, under names that lead elsewhere."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lwr.transfer.digests import digest_field
from tests.server.http.served import LARGE, Served, served
from tests.support import DEADLINE_S, wait_until


def _everything_below(directory: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in directory.rglob("*")}


def _in_chunks(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 65536, b"z" * 65537, LARGE], ids=len)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_file_arrives_as_it_was_sent(server: Served, new_job: Callable[[], str], data: bytes, chunked: bool) -> None:
    job_id = new_job()
    body = _in_chunks(data) if chunked else data
    answer = server.ask("POST", f"/jobs/{job_id}/files?name=a/b&type=input", body)
    assert answer.json() == {"path": str(server.job_file(job_id, "inputs/a/b"))}
    assert answer.headers["Repr-Digest"] == digest_field(hashlib.sha256(data).digest())
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == data
    assert server.parts(job_id) == []


def test_a_post_without_any_length_is_an_empty_file(server: Served, new_job: Callable[[], str]) -> None:
    job_id = new_job()
    target = f"/jobs/{job_id}/files?name=empty&type=input"
    heard = server.say(f"POST {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert server.job_file(job_id, "inputs/empty").read_bytes() == b""


def test_a_form_is_stored_as_it_is_and_gzip_is_not_unpacked(server: Served, new_job: Callable[[], str]) -> None:
    job_id = new_job()
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}
    server.ask("PUT", f"/jobs/{job_id}/files?name=form&type=input", b"name=other&type=tool", headers)
    assert server.job_file(job_id, "inputs/form").read_bytes() == b"name=other&type=tool"


def test_a_client_that_waits_is_invited_to_send(server: Served, new_job: Callable[[], str]) -> None:
    target = f"/jobs/{new_job()}/files?name=x&type=input"
    with socket.create_connection(server.address, timeout=DEADLINE_S) as raw:
        raw.sendall(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert raw.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"abc")
        assert raw.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_waits_is_refused_before_it_sends(server: Served, job_id: str) -> None:
    target = f"/jobs/{job_id}/files?name=x&type=input"
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\nExpect: 100-continue\r\n\r\n"
    assert server.say(head.encode()).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("data", [b"small", LARGE], ids=len)
def test_the_announced_digest_is_checked(server: Served, new_job: Callable[[], str], data: bytes) -> None:
    job_id = new_job()
    target = f"/jobs/{job_id}/files?name=x&type=input"
    right = {"Repr-Digest": "sha-512=:AAAA:, " + digest_field(hashlib.sha256(data).digest())}
    wrong = {"Repr-Digest": digest_field(hashlib.sha256(data[1:]).digest())}
    server.ask("POST", target, data, wrong).problem(422, "digest-mismatch")
    assert not server.job_file(job_id, "inputs/x").exists()
    assert server.ask("POST", target, data, right).status == 200
    server.ask("POST", target, data[1:], right).problem(422, "digest-mismatch")
    assert server.job_file(job_id, "inputs/x").read_bytes() == data
    server.ask("POST", target, data, {"Repr-Digest": "sha-256=:nonsense:"}).problem(400, "bad-request")
    assert server.parts(job_id) == []


@pytest.mark.parametrize("sent", [0, 10, 1_500_000])
def test_a_body_that_is_cut_leaves_nothing(server: Served, new_job: Callable[[], str], sent: int) -> None:
    job_id = new_job()
    for length in (f"Content-Length: {len(LARGE)}\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n300000\r\n"):
        target = f"/jobs/{job_id}/files?name=cut&type=input"
        server.say(f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{length}".encode() + LARGE[:sent], cut=True)
    wait_until(lambda: not server.parts(job_id), "the parts to be gone")
    assert list(server.job_file(job_id, "inputs").iterdir()) == []


@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: -3\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_bodies_of_ambiguous_length_are_refused(server: Served, new_job: Callable[[], str], head: str) -> None:
    job_id = new_job()
    target = f"/jobs/{job_id}/files?name=x&type=input"
    request = f"POST {target} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode()
    assert server.say(request + b"abc\r\n").split(b" ")[1] == b"400"
    assert not server.job_file(job_id, "inputs/x").exists()


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../../x", "..", ".", "a\\b", "a\0b", "a\nb", "x" * 256, "d/" * 1000 + "x", "C:\\x"],
)
@pytest.mark.parametrize("kind", ["input", "unstructured", "tool", "output_workdir"])
def test_names_that_lead_elsewhere(server: Served, new_job: Callable[[], str], name: str, kind: str) -> None:
    job_id = new_job()
    before = _everything_below(server.staging)
    query = {"name": name, "type": kind}
    server.ask("POST", f"/jobs/{job_id}/files", b"evil", query=query).problem(400, "bad-name")
    assert _everything_below(server.staging) == before


@pytest.mark.parametrize(
    "name", ["command.sh", "return_code", "started", "stdout", ".part-x", "inputs", "TMP", "a/started"]
)
def test_names_that_are_the_servers(server: Served, new_job: Callable[[], str], name: str) -> None:
    job_id = new_job()
    before = _everything_below(server.staging)
    query = {"name": name, "type": "jobdir"}
    server.ask("POST", f"/jobs/{job_id}/files", b"evil", query=query).problem(400, "bad-name")
    assert _everything_below(server.staging) == before


def test_a_directory_that_is_a_link_is_not_followed(server: Served, new_job: Callable[[], str], tmp_path: Path) -> None:
    job_id = new_job()
    server.job_file(job_id, "inputs/out").symlink_to(tmp_path)
    for data in (b"evil", LARGE):
        answer = server.ask("POST", f"/jobs/{job_id}/files?name=out/x&type=input", data)
        answer.problem(400, "bad-name")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_a_link_is_replaced(server: Served, new_job: Callable[[], str], tmp_path: Path) -> None:
    job_id = new_job()
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    server.job_file(job_id, "inputs/x").symlink_to(victim)
    assert server.ask("POST", f"/jobs/{job_id}/files?name=x&type=input", b"new").status == 200
    assert (victim.read_bytes(), server.job_file(job_id, "inputs/x").read_bytes()) == (b"kept", b"new")


def test_types_and_parameters_that_are_missing_or_unknown(server: Served, new_job: Callable[[], str]) -> None:
    files = f"/jobs/{new_job()}/files"
    for query in ("name=x", "type=input&other=1", "name=x&type=odd", "name=%ff&type=input"):
        status = server.ask("POST", f"{files}?{query}", b"x").status
        assert status == 400, query
    told = server.ask("POST", f"{files}?name=x&type=odd", b"x").problem(400, "bad-request")
    assert "unstructured" in told["hint"]


def test_jobs_that_take_no_files(server: Served, job_id: str) -> None:
    target = f"/jobs/{job_id}/files?name=x&type=input"
    server.ask("POST", target, LARGE).problem(404, "not-found")
    assert not server.job_file(job_id).exists()
    server.setup(job_id)
    server.submit(job_id, "true")
    server.ask("POST", target, b"late").problem(409, "conflict")
    server.finished(job_id)
    server.ask("POST", target, LARGE).problem(409, "conflict")
    assert not server.job_file(job_id, "inputs/x").exists()


def test_a_submit_while_a_file_arrives_wins(server: Served, new_job: Callable[[], str]) -> None:
    job_id = new_job()

    def body() -> Iterator[bytes]:
        yield LARGE
        server.submit(job_id, "true")
        yield b"late"

    server.ask("POST", f"/jobs/{job_id}/files?name=x&type=input", body()).problem(409, "conflict")
    assert not server.job_file(job_id, "inputs/x").exists()
    # The job's script, too, is a part for a moment.
    wait_until(lambda: not server.parts(job_id), "all parts to be gone")


@pytest.mark.parametrize("data", [b"#!/bin/sh\n", LARGE], ids=len)
def test_the_tool_script_of_galaxys_legacy_runner(server: Served, new_job: Callable[[], str], data: bytes) -> None:
    job_id = new_job()
    server.ask("POST", f"/jobs/{job_id}/files?name=tool_script.sh&type=jobdir", b"with Galaxy's paths")
    answer = server.ask("POST", f"/jobs/{job_id}/files?name=tool_script.sh&type=config", data)
    assert answer.json() == {"path": str(server.job_file(job_id, "configs/tool_script.sh"))}
    assert server.job_file(job_id, "configs/tool_script.sh").read_bytes() == data
    assert server.job_file(job_id, "tool_script.sh").read_bytes() == data


def test_a_limit_for_files(tmp_path: Path) -> None:
    with served(tmp_path, options="maximum_upload_bytes = 200000") as small:
        small.setup("1")
        target = "/jobs/1/files?name=x&type=input"
        assert small.ask("POST", target, b"x" * 200_000).status == 200
        small.ask("POST", target, b"x" * 200_001).problem(413, "too-large")
        small.ask("POST", target, _in_chunks(LARGE)).problem(413, "too-large")
        assert small.job_file("1", "inputs/x").read_bytes() == b"x" * 200_000
        assert small.parts("1") == []
