"""The cache as clients meet it: the old ones by path and token, ours by claim; and what nobody is given."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lwr.transfer.digests import digest_field
from tests.server.http.served import LARGE, Answer, Served, served
from tests.support import DEADLINE_S

LIMIT_BYTES = 4 * len(LARGE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a cache that is rarely full."""
    directory = tmp_path_factory.mktemp("cached")
    options = f"file_cache_dir = {directory / 'cache'}\nfile_cache_max_bytes = {LIMIT_BYTES}\n"
    with served(directory, options=options) as running:
        yield running


@pytest.fixture
def content(job_id: str) -> bytes:
    """Bytes that no other test has."""
    return hashlib.sha256(job_id.encode()).digest() + LARGE


def required(server: Served, path: str) -> object:
    return server.ask("PUT", "/cache", query={"path": path}).json()


def insert(server: Served, path: str, data: bytes) -> Answer:
    return server.ask("POST", "/cache", data, query={"path": path})


def status(server: Served, path: str) -> dict[str, Any]:
    told: dict[str, Any] = server.ask("GET", "/cache/status", query={"path": path}).json()
    return told


def use(server: Served, job_id: str, token: str, headers: dict[str, str] | None = None) -> Answer:
    query = {"name": "data", "type": "input", "cache_token": token}
    return server.ask("POST", f"/jobs/{job_id}/files", b"", headers, query)


def counters(server: Served) -> dict[str, Any]:
    told: dict[str, Any] = server.ask("GET", "/cache").json()
    return told


def claim_of(server: Served, data: bytes) -> str:
    return hmac.digest(bytes.fromhex(counters(server)["salt"]), data, "sha256").hex()


def claim(server: Served, job_id: str, value: str) -> Answer:
    return server.ask("POST", f"/jobs/{job_id}/claim", query={"name": "data", "type": "input", "claim": value})


def upload_and_keep(server: Served, job_id: str, data: bytes) -> object:
    server.setup(job_id)
    server.ask("POST", f"/jobs/{job_id}/files?name=data&type=input", data)
    return server.ask("POST", f"/jobs/{job_id}/keep?name=data&type=input").json()


# -- old clients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, len(LARGE)])
def test_a_file_goes_up_once_and_into_two_jobs(server: Served, job_id: str, size: int) -> None:
    path, data = f"/g/{job_id}.dat", LARGE[:size]
    before = counters(server)
    assert required(server, path) is True
    assert required(server, path) is False
    assert status(server, path)["ready"] is False
    assert insert(server, path, data).body == b"null"
    told = status(server, path)
    assert (told["ready"], len(told["token"])) == (True, 64)
    assert required(server, path) is False
    for job in (f"{job_id}-1", f"{job_id}-2"):
        server.setup(job)
        answer = use(server, job, told["token"])
        assert answer.json() == {"path": str(server.job_file(job, "inputs/data"))}
        assert answer.headers["Repr-Digest"] == digest_field(hashlib.sha256(data).digest())
        assert server.job_file(job, "inputs/data").read_bytes() == data
        assert server.parts(job) == []
    after = counters(server)
    assert (after["hits"] - before["hits"], after["bytes_saved"] - before["bytes_saved"]) == (2, 2 * size)


def test_an_insert_that_nobody_announced_is_taken(server: Served, job_id: str) -> None:
    insert(server, f"/g/{job_id}", b"content")
    assert status(server, f"/g/{job_id}")["ready"] is True


def test_changed_content_replaces_what_the_path_meant(server: Served, job_id: str) -> None:
    path = f"/g/{job_id}"
    insert(server, path, b"old")
    insert(server, path, b"new")
    server.setup(job_id)
    use(server, job_id, status(server, path)["token"])
    assert server.job_file(job_id, "inputs/data").read_bytes() == b"new"


def test_two_inserts_at_once_leave_one_whole_content(server: Served, job_id: str, content: bytes) -> None:
    path = f"/g/{job_id}"
    threads = [threading.Thread(target=insert, args=(server, path, content[part:])) for part in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.setup(job_id)
    assert use(server, job_id, status(server, path)["token"]).status == 200
    assert server.job_file(job_id, "inputs/data").read_bytes() in (content, content[1:])


def test_a_cut_insert_is_no_content(server: Served, job_id: str) -> None:
    head = f"POST /cache?path=/g/{job_id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n"
    server.say(head.encode() + b"x" * 1000, cut=True)
    assert status(server, f"/g/{job_id}")["ready"] is False


@pytest.mark.parametrize(
    "token", ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "0" * 64, "x" * 100_000, "\0", "ä", "%"]
)
def test_no_other_token_opens_anything(server: Served, job_id: str, token: str) -> None:
    server.setup(job_id)
    use(server, job_id, token).problem(404, "not-cached")
    assert not server.job_file(job_id, "inputs/data").exists()


def test_digests_paths_and_old_tokens_open_nothing(server: Served, job_id: str) -> None:
    """What somebody may know who has not the content: its digest, and how LWR 2014 made its tokens."""
    path, data = f"/g/{job_id}", job_id.encode()
    insert(server, path, data)
    server.setup(job_id)
    for guess in (data, f"IP:127.0.0.1:{path}".encode()):
        use(server, job_id, hashlib.sha256(guess).hexdigest()).problem(404, "not-cached")
        claim(server, job_id, hashlib.sha256(guess).hexdigest()).problem(404, "not-cached")


def test_what_a_client_says_of_its_address_does_not_count(server: Served, job_id: str) -> None:
    path = f"/g/{job_id}"
    insert(server, path, b"content")
    elsewhere = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    answer = server.ask("GET", f"/cache/status?path={path}&ip=192.0.2.1", headers=elsewhere)
    assert answer.json() == status(server, path)


def test_a_token_is_good_for_its_address_only(server: Served, job_id: str) -> None:
    """A second loopback address is another client."""
    path = f"/g/{job_id}"
    insert(server, path, b"content")
    token = status(server, path)["token"]
    server.setup(job_id)
    other = http.client.HTTPConnection(*server.address, timeout=DEADLINE_S, source_address=("127.0.0.2", 0))
    try:
        other.request("POST", f"/jobs/{job_id}/files?name=data&type=input&cache_token={token}")
        assert other.getresponse().read().find(b"not-cached") > 0
    finally:
        other.close()
    assert use(server, job_id, token).status == 200


def test_an_insert_that_cannot_fit_is_refused_before_it_is_sent(server: Served, job_id: str) -> None:
    """An old client would wait for ever for a file that is not kept."""
    head = f"POST /cache?path=/g/{job_id} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT_BYTES + 1}\r\n"
    with socket.create_connection(server.address, timeout=DEADLINE_S) as raw:
        raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 507 ")


def test_classic_clients_have_the_same_under_other_names(server: Served, job_id: str) -> None:
    path = f"/g/{job_id}"
    server.setup(job_id)
    assert server.ask("GET", f"/cache_required?path={path}").body == b"true"
    assert server.ask("POST", f"/managers/_default_/cache_insert?path={path}", b"content").body == b"null"
    told = server.ask("GET", f"/file_available?path={path}").json()
    assert told == status(server, path)
    query = {"job_id": job_id, "name": "data", "cache_token": told["token"]}
    assert server.ask("GET", "/upload_input", query=query).status == 200
    assert server.job_file(job_id, "inputs/data").read_bytes() == b"content"


def test_a_configuration_from_the_cache_replaces_the_script_too(server: Served, job_id: str) -> None:
    insert(server, f"/g/{job_id}", b"echo\n")
    server.setup(job_id)
    query = {"name": "tool_script.sh", "type": "config", "cache_token": status(server, f"/g/{job_id}")["token"]}
    assert server.ask("POST", f"/jobs/{job_id}/files", query=query).status == 200
    for place in ("configs/tool_script.sh", "tool_script.sh"):
        assert server.job_file(job_id, place).read_bytes() == b"echo\n"


# -- our own clients ---------------------------------------------------------------------------------------------


def test_who_has_the_content_need_not_send_it(server: Served, job_id: str, content: bytes) -> None:
    assert upload_and_keep(server, f"{job_id}-1", content) == {"kept": True}
    job = f"{job_id}-2"
    server.setup(job)
    answer = claim(server, job, claim_of(server, content))
    assert answer.json() == {"path": str(server.job_file(job, "inputs/data"))}
    assert answer.headers["Repr-Digest"] == digest_field(hashlib.sha256(content).digest())
    assert server.job_file(job, "inputs/data").read_bytes() == content
    server.submit(job, "true")
    (record,) = server.ask("GET", f"/jobs/{job}/receipt").json()["files"]
    assert (record["name"], record["checked"], record["size_bytes"]) == ("data", "sha-256", len(content))
    assert record["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_claim_again_is_fine(server: Served, job_id: str) -> None:
    upload_and_keep(server, job_id, b"content")
    for _ in range(2):
        assert claim(server, job_id, claim_of(server, b"content")).status == 200
    assert server.job_file(job_id, "inputs/data").read_bytes() == b"content"


def test_a_claim_to_what_is_not_here_leaves_the_job_as_it_was(server: Served, job_id: str) -> None:
    server.setup(job_id)
    server.ask("POST", f"/jobs/{job_id}/files?name=data&type=input", b"before")
    misses = counters(server)["misses"]
    claim(server, job_id, claim_of(server, b"nobody sent this")).problem(404, "not-cached")
    assert counters(server)["misses"] == misses + 1
    assert server.job_file(job_id, "inputs/data").read_bytes() == b"before"


@pytest.mark.parametrize("value", ["", "x", "../" * 20, "G" * 64, "A" * 64, "a" * 63, "a" * 65])
def test_what_cannot_be_a_claim_is_refused(server: Served, job_id: str, value: str) -> None:
    server.setup(job_id)
    claim(server, job_id, value).problem(400, "bad-request")


def test_files_go_into_jobs_that_take_files_only(server: Served, job_id: str) -> None:
    upload_and_keep(server, f"{job_id}-1", b"content")
    value = claim_of(server, b"content")
    claim(server, job_id, value).problem(404, "not-found")
    server.setup(job_id)
    server.submit(job_id, "true")
    claim(server, job_id, value).problem(409, "conflict")
    server.ask("POST", f"/jobs/{job_id}/keep?name=data&type=input").problem(409, "conflict")
    for name in ("../x", "/etc/passwd", ""):
        query = {"name": name, "type": "input", "claim": value}
        server.ask("POST", f"/jobs/{job_id}-1/claim", query=query).problem(400, "bad-name")


def test_only_files_of_the_job_are_kept(server: Served, job_id: str, tmp_path: Path) -> None:
    server.setup(job_id)
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the server")
    os.symlink(secret, server.job_file(job_id, "inputs/data"))
    assert server.ask("POST", f"/jobs/{job_id}/keep?name=data&type=input").status == 400
    server.ask("POST", f"/jobs/{job_id}/keep?name=nothing&type=input").problem(404, "not-found")


def test_what_has_no_room_is_not_kept_and_the_job_has_it(server: Served, job_id: str) -> None:
    data = b"x" * (LIMIT_BYTES + 1)
    assert upload_and_keep(server, job_id, data) == {"kept": False}
    assert server.job_file(job_id, "inputs/data").stat().st_size == len(data)


def test_a_job_changes_its_own_file_only(server: Served, job_id: str, content: bytes) -> None:
    """A command that writes to its input in place, as whoever runs this."""
    upload_and_keep(server, f"{job_id}-0", content)
    value = claim_of(server, content)
    for number in (1, 2):
        job = f"{job_id}-{number}"
        server.setup(job)
        assert claim(server, job, value).status == 200
        if number == 1:
            server.submit(job, "chmod u+w ../inputs/data; echo changed > ../inputs/data; true")
            server.finished(job)
    second = server.job_file(f"{job_id}-2", "inputs/data")
    assert second.read_bytes() == content


def test_the_secret_is_wanted(locked: Served) -> None:
    for method, target in (("GET", "/cache"), ("PUT", "/cache?path=x"), ("POST", "/jobs/x/claim?claim=x")):
        locked.ask(method, target).problem(401, "not-authorized")


def test_contents_and_tokens_outlast_the_server(tmp_path: Path) -> None:
    options = f"file_cache_dir = {tmp_path / 'cache'}"
    with served(tmp_path, options=options) as first:
        insert(first, "/g/1", b"content")
        token, value = status(first, "/g/1")["token"], claim_of(first, b"content")
    with served(tmp_path, options=options) as second:
        assert status(second, "/g/1") == {"token": token, "ready": True}
        second.setup("job")
        assert use(second, "job", token).status == 200
        assert claim(second, "job", value).status == 200
        assert counters(second)["entries"] == 1
