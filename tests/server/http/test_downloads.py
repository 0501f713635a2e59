"""Files that are fetched: in chunks for stock clients, with lengths, ranges and digests for careful ones."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lwr.server.results import COLLECT_BYTES
from lwr.transfer.digests import digest_field
from tests.server.http.served import LARGE, Served, served
from tests.support import DEADLINE_S, wait_until

BEARER = {"Authorization": "Bearer of nothing in particular"}
SIZES = [b"", b"x", b"y" * 65536, b"z" * 65537, LARGE]


@pytest.fixture
def job(server: Served, new_job: Callable[[], str]) -> Callable[[str, bytes], str]:
    """Puts a file into a job, as the job would, and gives the route of the job's files."""

    def put(place: str, data: bytes) -> str:
        job_id = new_job()
        path = server.job_file(job_id, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return f"/jobs/{job_id}/files"

    return put


@pytest.mark.parametrize("data", SIZES, ids=len)
def test_stock_clients_get_chunks(server: Served, job: Callable[[str, bytes], str], data: bytes) -> None:
    answer = server.ask("GET", job("outputs/a/b", data) + "?name=a/b&type=output")
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Content-Length"] is None


@pytest.mark.parametrize("data", SIZES, ids=len)
@pytest.mark.parametrize("header", [BEARER, {"Want-Repr-Digest": "sha-256=10"}, {"Range": "bytes=0-"}])
def test_careful_clients_get_length_and_digest(
    server: Served, job: Callable[[str, bytes], str], data: bytes, header: dict[str, str]
) -> None:
    answer = server.ask("GET", job("outputs/x", data) + "?name=x", headers=header)
    if "Range" in header and not data:
        assert answer.status == 416
        return
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Repr-Digest"] == digest_field(hashlib.sha256(data).digest())
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_ranges_and_validators(server: Served, job: Callable[[str, bytes], str]) -> None:
    target = job("outputs/x", LARGE) + "?name=x"
    head = server.ask("HEAD", target)
    tag = head.headers["ETag"]
    unknown = server.ask("GET", target, headers={"Range": "bytes=0-9"})
    assert (unknown.status, unknown.headers["Repr-Digest"]) == (206, None)  # ten bytes are not worth reading them all
    assert server.ask("GET", target, headers=BEARER).headers["Repr-Digest"]
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(LARGE)), b"")
    part = server.ask("GET", target, headers={"Range": "bytes=1000000-2000000", "If-Range": tag})
    assert (part.status, part.body) == (206, LARGE[1_000_000:2_000_001])
    assert part.headers["Content-Range"] == f"bytes 1000000-2000000/{len(LARGE)}"
    assert part.headers["Repr-Digest"] == digest_field(hashlib.sha256(LARGE).digest())
    tail = server.ask("GET", target, headers={"Range": "bytes=-5"})
    assert (tail.status, tail.body) == (206, LARGE[-5:])
    beyond = server.ask("GET", target, headers={"Range": f"bytes={len(LARGE)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(LARGE)}")
    assert server.ask("GET", target, headers={**BEARER, "If-None-Match": tag}).status == 304
    other = server.ask("GET", target, headers={"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (other.status, len(other.body)) == (200, len(LARGE))
    many = server.ask("GET", target, headers={"Range": "bytes=" + ",".join(["0-"] * 1000)})
    assert (many.status, len(many.body)) == (200, len(LARGE))


def test_what_a_digest_would_take_too_long_for_has_none(
    server: Served, job: Callable[[str, bytes], str], job_id: str
) -> None:
    target = job("outputs/huge", b"") + "?name=huge"
    os.truncate(server.job_file(job_id, "outputs/huge"), COLLECT_BYTES + 1)
    head = server.ask("HEAD", target, headers={"Want-Repr-Digest": "sha-256=10"})
    assert (head.headers["Content-Length"], head.headers["Repr-Digest"]) == (str(COLLECT_BYTES + 1), None)


class TestWhatTheReceiptSaysOfFetchedFiles:
    @pytest.fixture
    def target(self, server: Served, job_id: str) -> str:
        server.setup(job_id)
        server.submit(job_id, "head -c 100000 /dev/zero > ../outputs/x")
        server.finished(job_id)
        return f"/jobs/{job_id}/files?name=x"

    def record(self, server: Served, job_id: str) -> dict[str, Any]:
        """Of the only result."""
        files: list[dict[str, Any]] = server.ask("GET", f"/jobs/{job_id}/receipt").json()["files"]
        assert len(files) == 1
        return files[0]

    @pytest.mark.parametrize(("header", "checked"), [({}, "framing"), (BEARER, "sha-256")])
    def test_a_whole_one(self, server: Served, job_id: str, target: str, header: dict[str, str], checked: str) -> None:
        assert self.record(server, job_id)["state"] == "ready to be fetched"
        server.ask("GET", target, headers=header)
        wait_until(lambda: self.record(server, job_id)["state"] == "whole", "the receipt")
        record = self.record(server, job_id)
        assert (record["mover"], record["checked"], record["tries"]) == ("client", checked, 1)

    def test_the_end_alone_is_not_the_file(self, server: Served, job_id: str, target: str) -> None:
        connection = server.connect()  # one connection: when the second answer begins, the first is written down
        for _ in range(2):
            connection.request("GET", target, headers={"Range": "bytes=99999-"})
            assert connection.getresponse().read() == b"\0"
        connection.close()
        assert self.record(server, job_id)["state"] == "ready to be fetched"

    def test_the_rest_for_one_that_has_the_beginning_of_the_same_file(
        self, server: Served, job_id: str, target: str
    ) -> None:
        tag = server.ask("HEAD", target).headers["ETag"]
        server.ask("GET", target, headers={"Range": "bytes=500-", "If-Range": tag})
        wait_until(lambda: self.record(server, job_id)["state"] == "whole", "the receipt")
        assert self.record(server, job_id)["tries"] == 2

    def test_one_of_a_job_that_still_writes_is_not(self, server: Served, job_id: str) -> None:
        server.setup(job_id)
        server.submit(
            job_id, "echo half > ../outputs/x; while [ ! -e go ]; do sleep 0.05; done; echo more >> ../outputs/x"
        )
        place = server.job_file(job_id, "outputs/x")
        wait_until(lambda: place.exists() and place.read_text() == "half\n", "the first half")
        connection = server.connect()
        for _ in range(2):
            connection.request("GET", f"/jobs/{job_id}/files?name=x")
            assert connection.getresponse().read() == b"half\n"
        connection.close()
        server.job_file(job_id, "working/go").touch()
        server.finished(job_id)
        record = self.record(server, job_id)
        assert (record["state"], record["size_bytes"]) == ("ready to be fetched", len("half\nmore\n"))


def test_a_changed_file_has_another_tag(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("outputs/x", b"one") + "?name=x"
    first = server.ask("GET", target, headers=BEARER)
    server.job_file(job_id, "outputs/x").write_bytes(b"two2")
    second = server.ask("GET", target, headers=BEARER)
    assert first.headers["ETag"] != second.headers["ETag"]
    assert second.headers["Repr-Digest"] == digest_field(hashlib.sha256(b"two2").digest())


def test_one_connection_serves_many_files(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("outputs/large", LARGE)
    server.job_file(job_id, "outputs/small").write_bytes(b"small")
    connection = server.connect()
    for name, data in [("large", LARGE), ("small", b"small"), ("large", LARGE)]:
        for headers in ({}, BEARER):
            connection.request("GET", f"{target}?name={name}", headers=headers)
            assert connection.getresponse().read() == data
    connection.close()


def test_http_1_0_gets_a_length(server: Served, job: Callable[[str, bytes], str]) -> None:
    for data in (b"small", LARGE):
        heard = server.say(f"GET {job('outputs/x', data)}?name=x HTTP/1.0\r\n\r\n".encode())
        head, _, body = heard.partition(b"\r\n\r\n")
        assert b"Content-Length: %d" % len(data) in head
        assert body == data


def test_over_https_too(tmp_path: Path) -> None:
    with served(tmp_path, server_options="ssl_pem = *") as safe:
        safe.setup("1")
        safe.job_file("1", "outputs/x").write_bytes(LARGE)
        assert safe.ask("GET", "/jobs/1/files?name=x").body == LARGE
        part = safe.ask("GET", "/jobs/1/files?name=x", headers={"Range": "bytes=7-2000006"})
        assert part.body == LARGE[7:2_000_007]


FAILURES = [
    ("name=missing", 404, "not-found"),
    ("name=missing&type=output_workdir", 404, "not-found"),
    ("name=", 400, "bad-name"),
    ("name=../command.sh", 400, "bad-name"),
    ("name=return_code&type=output_jobdir", 400, "bad-name"),
    ("name=a", 404, "not-found"),
    ("", 400, "bad-request"),
]


@pytest.mark.parametrize(("query", "status", "code"), FAILURES)
def test_a_download_that_fails_is_an_answer_for_some_and_a_broken_one_for_the_rest(
    server: Served, job: Callable[[str, bytes], str], query: str, status: int, code: str
) -> None:
    target = f"{job('outputs/a/b', b'x')}?{query}"
    server.ask("GET", target, headers=BEARER).problem(status, code)
    with pytest.raises(http.client.IncompleteRead) as broken:
        server.ask("GET", target)
    assert code.encode() in broken.value.partial
    heard = server.say(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    assert heard.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_job_that_nobody_knows(server: Served, job_id: str) -> None:
    for path in (f"/jobs/{job_id}/files?name=x", f"/download_output?name=x&job_id={job_id}"):
        server.ask("GET", path, headers=BEARER).problem(404, "not-found")
        with pytest.raises(http.client.IncompleteRead):
            server.ask("GET", path)


def test_types(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("outputs/x", b"out")
    for place in ("working/x", "metadata/x", "x"):
        server.job_file(job_id, place).write_bytes(place.encode())
    for kind, data in [
        ("output", b"out"),
        ("whatever", b"out"),
        ("output_workdir", b"working/x"),
        ("output_metadata", b"metadata/x"),
        ("output_jobdir", b"x"),
    ]:
        assert server.ask("GET", f"{target}?name=x&type={kind}").body == data


def test_patterns_in_working_names(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("working/d/found_1.txt", b"one")
    server.job_file(job_id, "working/lit*ral").write_bytes(b"literally")
    query = {"type": "output_workdir", "name": "*_?.txt"}
    assert server.ask("GET", target, query=query).body == b"one"
    assert server.ask("GET", target + "/path", query=query).json() == {
        "path": str(server.job_file(job_id, "working/d/found_1.txt"))
    }
    assert server.ask("GET", target, query={**query, "name": "lit*ral"}).body == b"literally"
    server.ask("GET", target, headers=BEARER, query={**query, "name": "no*ne"}).problem(404, "not-found")
    unmatched = server.ask("GET", target + "/path", query={**query, "name": "no*ne"}).json()
    assert unmatched == {"path": str(server.job_file(job_id, "working/no*ne"))}
    server.ask("GET", target, headers=BEARER, query={"name": "*"}).problem(404, "not-found")


def test_paths(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("outputs/x", b"") + "/path"
    told = server.ask("GET", target, query={"name": "foo/bar", "type": "unstructured"}).json()
    assert told == {"path": str(server.job_file(job_id, "unstructured/foo/bar"))}
    server.ask("GET", target, query={"name": "x", "type": "odd"}).problem(400, "bad-request")
    server.ask("GET", target, query={"name": "../x", "type": "input"}).problem(400, "bad-name")
    server.ask("GET", "/jobs/nobody/files/path", query={"name": "x", "type": "input"}).problem(404, "not-found")


def test_what_a_job_plants_is_not_followed_out(
    server: Served, job: Callable[[str, bytes], str], job_id: str, tmp_path: Path
) -> None:
    target = job("outputs/x", b"inside")
    (tmp_path / "secret").write_bytes(b"secret")
    outputs = server.job_file(job_id, "outputs")
    (outputs / "file").symlink_to(tmp_path / "secret")
    (outputs / "dir").symlink_to(tmp_path)
    (outputs / "near").symlink_to("x")
    (outputs / "loop").symlink_to("loop")
    os.mkfifo(outputs / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(outputs)  # a socket's path may have 107 bytes only
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for name in ("file", "dir/secret", "loop", "fifo", "socket"):
            answer = server.ask("GET", target, headers=BEARER, query={"name": name})
            assert answer.status in (400, 404), name
            assert b"secret" not in answer.body.replace(b"dir/secret", b"")
    assert server.ask("GET", target, query={"name": "near"}).body == b"inside"


@pytest.mark.parametrize("header", [{}, BEARER])
def test_a_file_that_shrinks_on_the_way_breaks_the_connection(
    server: Served, job: Callable[[str, bytes], str], job_id: str, header: dict[str, str]
) -> None:
    target = job("outputs/x", b"") + "?name=x"
    path = server.job_file(job_id, "outputs/x")
    os.truncate(path, 200_000_000)
    connection = server.connect()
    connection.request("GET", target, headers=header)
    answer = connection.getresponse()
    answer.read(1000)
    os.truncate(path, 1_000_000)  # what the sockets hold already is far less than the rest
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()


def test_readers_that_go_away_harm_nobody(server: Served, job: Callable[[str, bytes], str], job_id: str) -> None:
    target = job("outputs/x", b"") + "?name=x"
    os.truncate(server.job_file(job_id, "outputs/x"), 200_000_000)
    for _ in range(20):
        with socket.create_connection(server.address, timeout=DEADLINE_S) as raw:
            raw.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            raw.recv(1000)
    assert server.ask("GET", "/livez").status == 200
