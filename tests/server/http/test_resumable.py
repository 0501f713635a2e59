"""Uploads by the tus protocol: as tuspy does them, as Galaxy's peers were recorded, cut, repeated, refused, killed."""

from __future__ import annotations

import hashlib
import http.client
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from urllib.parse import urljoin

import pytest
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed

from lwr.transfer.digests import digest_field
from tests.server.http.served import LARGE, Answer, Served, served
from tests.support import DEADLINE_S, RunningServer, wait_until

TUS = {"Tus-Resumable": "1.0.0"}
BYTES = {**TUS, "Content-Type": "application/offset+octet-stream"}
NewJob = Callable[[], str]
#: What may lie between the socket and the disk when a line breaks.
LOST_BYTES = 512 * 1024


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def created(server: Served, files: str, size: int, query: str = "name=a/b&type=input", **more: str) -> Answer:
    headers = {**TUS, "Upload-Length": str(size), **{name.replace("_", "-"): value for name, value in more.items()}}
    return server.ask("POST", f"{files}?{query}", headers=headers)


def begun(server: Served, job_id: str, size: int, query: str = "name=a/b&type=input", **more: str) -> str:
    """Begin an upload; returns its path."""
    files = f"/jobs/{job_id}/files"
    answer = created(server, files, size, query, **more)
    assert answer.status == 201, answer.body
    return urljoin(files, str(answer.headers["Location"]))


def append(server: Served, place: str, offset: int, data: bytes, more: Mapping[str, str] | None = None) -> Answer:
    return server.ask("PATCH", place, data, {**BYTES, "Upload-Offset": str(offset), **(more or {})})


def offset_of(server: Served, place: str) -> int:
    answer = server.ask("HEAD", place, headers=TUS)
    assert (answer.status, answer.headers["Cache-Control"], answer.headers["Tus-Resumable"]) == (
        200,
        "no-store",
        "1.0.0",
    )
    return int(answer.headers["Upload-Offset"])


class Line:
    """A PATCH that announces `announced` bytes and stays open when it has sent `data`."""

    def __init__(
        self,
        address: tuple[str, int],
        place: str,
        offset: int,
        announced: int,
        data: bytes,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.connection = http.client.HTTPConnection(*address, timeout=DEADLINE_S)
        self.connection.putrequest("PATCH", place)
        headers = {**BYTES, "Upload-Offset": str(offset), "Content-Length": str(announced), **(more or {})}
        for name, value in headers.items():
            self.connection.putheader(name, value)
        self.connection.endheaders(data)

    def is_closed(self) -> bool:
        """Whether the server closes it without an answer; waits for that."""
        assert self.connection.sock is not None
        try:
            return self.connection.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        finally:
            self.connection.close()

    def answer(self, rest: bytes) -> int:
        self.connection.send(rest)
        try:
            return self.connection.getresponse().status
        finally:
            self.connection.close()


def arrived_bytes(server: Served, job_id: str) -> int:
    """The size of the only part that the job has."""
    return sum(server.job_file(job_id, name).stat().st_size for name in server.parts(job_id))


# -- by a client of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/managers/second"])
def test_tuspy_uploads_in_pieces_and_resumes(server: Served, job_id: str, prefix: str) -> None:
    job_id += prefix[10:]
    server.setup(job_id, prefix)
    files = f"{server.url.rstrip('/')}{prefix}/jobs/{job_id}/files?name=a/b&type=input"
    source = BytesIO(LARGE)
    first = TusClient(files).uploader(file_stream=source, chunk_size=1_000_000)
    first.upload(stop_at=1_000_000)
    second = TusClient("").uploader(file_stream=source, chunk_size=1_000_000, url=first.url)
    assert second.offset == 1_000_000
    second.upload()
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE
    assert server.parts(job_id) == []


@pytest.mark.parametrize("keys", [("name", "type"), ("filename", "filetype")])
def test_tuspy_names_the_file_in_metadata_and_sends_checksums(
    server: Served, new_job: NewJob, keys: tuple[str, str]
) -> None:
    job_id = new_job()
    metadata = dict(zip(keys, ("ü b", "tool"), strict=True))
    uploader = TusClient(f"{server.url}jobs/{job_id}/files").uploader(
        file_stream=BytesIO(LARGE), chunk_size=2_000_000, metadata=metadata, upload_checksum=True
    )
    uploader.upload()
    assert server.job_file(job_id, "tool_files/ü b").read_bytes() == LARGE


def test_tuspy_goes_on_after_a_cut(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    Line(server.address, place, 0, len(LARGE), LARGE[:2_000_000]).connection.close()
    uploader = TusClient("").uploader(file_stream=BytesIO(LARGE), url=server.url + place[1:])
    assert 2_000_000 - LOST_BYTES < uploader.offset <= 2_000_000
    uploader.upload()
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE


def test_tuspy_is_told_of_failures(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = server.url + begun(server, job_id, len(LARGE))[1:]
    uploader = TusClient("").uploader(file_stream=BytesIO(LARGE), url=place)
    uploader.offset = 5
    with pytest.raises(TusUploadFailed):
        uploader.upload()
    server.ask("DELETE", place.removeprefix(server.url.rstrip("/")), headers=TUS)
    with pytest.raises(TusCommunicationError):
        uploader.get_offset()


def test_answers_as_they_were_recorded(server: Served, new_job: NewJob) -> None:
    """The requests that Pulsar's tus client sends to a Galaxy, header by header; the answers have what it was sent."""
    files = f"/jobs/{new_job()}/files"
    usual = "Host: localhost\r\nAccept-Encoding: gzip, deflate, zstd\r\nAccept: */*\r\nTus-Resumable: 1.0.0\r\n"
    made = server.say(
        f"POST {files}?name=x&type=input HTTP/1.1\r\n{usual}upload-length: 12\r\nupload-metadata: \r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
    ).lower()
    assert made.startswith(b"http/1.1 201 created\r\n")
    assert b"\r\ntus-resumable: 1.0.0\r\n" in made
    assert b"\r\ncontent-length: 0\r\n" in made
    assert made.partition(b"\r\nupload-expires: ")[2].partition(b"\r\n")[0].endswith(b" gmt")
    place = urljoin(files, made.partition(b"\r\nlocation: ")[2].partition(b"\r\n")[0].decode())
    sent = server.say(
        f"PATCH {place} HTTP/1.1\r\n{usual}upload-offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
        "Content-Length: 12\r\nConnection: close\r\n\r\nfromworkdir\n".encode()
    ).lower()
    assert sent.startswith(b"http/1.1 204 no content\r\n")
    for line in (b"tus-resumable: 1.0.0", b"upload-offset: 12", b"upload-expires: "):
        assert b"\r\n" + line in sent


# -- what the protocol asks for ----------------------------------------------------------------------------------------


def test_what_this_server_can(server: Served, tmp_path: Path) -> None:
    for path in ("/jobs/nobody/files", "/jobs/nobody/files/x"):
        told = server.ask("OPTIONS", path)
        assert (told.status, told.headers["Tus-Version"], told.headers["Tus-Max-Size"]) == (204, "1.0.0", None)
        assert told.headers["Tus-Extension"] == "creation,expiration,checksum,termination"
        assert told.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,sha-256"
    with served(tmp_path, options="maximum_upload_bytes = 200000") as small:
        assert small.ask("OPTIONS", "/jobs/nobody/files").headers["Tus-Max-Size"] == "200000"
        small.setup("1")
        created(small, "/jobs/1/files", 200_001).problem(413, "too-large")
        assert created(small, "/jobs/1/files", 200_000).status == 201


def test_how_far_an_upload_is(server: Served, new_job: NewJob) -> None:
    metadata = "name YQ==,is_confidential"
    place = begun(server, new_job(), 10, Upload_Metadata=metadata)
    assert append(server, place, 0, b"abc").headers["Upload-Offset"] == "3"
    told = server.ask("HEAD", place, headers=TUS)
    assert [told.headers[name] for name in ("Upload-Offset", "Upload-Length", "Upload-Metadata")] == [
        "3",
        "10",
        metadata,
    ]
    assert told.headers["Repr-Digest"] is None
    assert told.headers["Upload-Expires"].endswith(" GMT")


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=len)
def test_a_whole_file_has_its_name_and_is_asked_for_once_more(server: Served, new_job: NewJob, data: bytes) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(data), Repr_Digest=digest_field(sha256(data)))
    if data:
        done = append(server, place, 0, data)
        assert (done.status, done.headers["Upload-Offset"]) == (204, str(len(data)))
        assert done.headers["Repr-Digest"] == digest_field(sha256(data))
    told = server.ask("HEAD", place, headers=TUS)  # as a client does that has not heard the last answer
    assert (told.headers["Upload-Offset"], told.headers["Repr-Digest"]) == (str(len(data)), digest_field(sha256(data)))
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == data
    append(server, place, len(data), b"").problem(409, "conflict")
    assert server.ask("DELETE", place, headers=TUS).status == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == data
    assert server.parts(job_id) == []


def test_a_body_without_a_length(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    pieces: Iterator[bytes] = iter([LARGE[:1_500_000], LARGE[1_500_000:]])
    assert server.ask("PATCH", place, pieces, {**BYTES, "Upload-Offset": "0"}).status == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE


def test_the_tool_script_of_galaxys_legacy_runner(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE), "name=tool_script.sh&type=config")
    append(server, place, 0, LARGE)
    assert server.job_file(job_id, "configs/tool_script.sh").read_bytes() == LARGE
    assert server.job_file(job_id, "tool_script.sh").read_bytes() == LARGE
    assert server.parts(job_id) == []


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha-256"])
def test_a_piece_that_is_not_what_its_checksum_says_is_dropped(server: Served, new_job: NewJob, algorithm: str) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))

    def checksum(data: bytes) -> dict[str, str]:
        digest = hashlib.new(algorithm.replace("-", ""), data).digest()
        return {"Upload-Checksum": f"{algorithm} {b64encode(digest).decode()}"}

    assert append(server, place, 0, LARGE[:9], checksum(LARGE[:9])).status == 204
    told = append(server, place, 9, LARGE[9:], checksum(LARGE)).problem(460, "digest-mismatch")
    assert told["title"] == "Checksum Mismatch"
    assert offset_of(server, place) == 9
    # One that is cut cannot be compared.
    Line(server.address, place, 9, len(LARGE) - 9, LARGE[9:2_000_000], checksum(LARGE[9:])).connection.close()
    assert offset_of(server, place) == 9
    assert append(server, place, 9, LARGE[9:], checksum(LARGE[9:])).status == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE


def test_a_file_that_is_not_what_was_announced_begins_anew(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, 6, Repr_Digest=digest_field(sha256(b"abcdef")))
    append(server, place, 0, b"abc")
    append(server, place, 3, b"xyz").problem(460, "digest-mismatch")
    assert not server.job_file(job_id, "inputs/a/b").exists()
    assert offset_of(server, place) == 0
    assert append(server, place, 0, b"abcdef").status == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == b"abcdef"
    (record,) = server.ask("GET", f"/jobs/{job_id}/receipt").json()["files"]
    assert (record["tries"], record["wasted_bytes"], record["checked"]) == (2, 6, "sha-256")


# -- requests that are refused -----------------------------------------------------------------------------------------

CREATIONS = [
    ({"Upload-Length": "5", "Tus-Resumable": "0.2.2"}, "", 412, "bad-request"),
    ({}, "", 400, "bad-request"),
    ({"Upload-Defer-Length": "1"}, "", 400, "bad-request"),
    ({"Upload-Length": "-5"}, "", 400, "bad-request"),
    ({"Upload-Length": "+5"}, "", 400, "bad-request"),
    ({"Upload-Length": "9" * 19}, "", 400, "bad-request"),
    ({"Upload-Length": "5"}, "name=x&type=odd", 400, "bad-request"),
    ({"Upload-Length": "5"}, "type=input", 400, "bad-request"),
    ({"Upload-Length": "5"}, "name=../x&type=input", 400, "bad-name"),
    ({"Upload-Length": "5", "Upload-Metadata": "name Li4veA=="}, "type=input", 400, "bad-name"),
    ({"Upload-Length": "5", "Upload-Metadata": "name %%%"}, "type=input", 400, "bad-request"),
    ({"Upload-Length": "5", "Upload-Metadata": "name /w=="}, "type=input", 400, "bad-request"),
    ({"Upload-Length": "5", "Repr-Digest": "sha-256=:odd:"}, "", 400, "bad-request"),
]


@pytest.mark.parametrize(("headers", "query", "status", "code"), CREATIONS)
def test_creations_that_are_refused(
    server: Served, new_job: NewJob, headers: dict[str, str], query: str, status: int, code: str
) -> None:
    target = f"/jobs/{new_job()}/files?{query or 'name=x&type=input'}"
    answer = server.ask("POST", target, headers={**TUS, **headers})
    answer.problem(status, code)
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert (answer.headers["Tus-Version"] == "1.0.0") is (status == 412)


PATCHES = [
    ({"Upload-Offset": "0"}, b"xyz", 409, "conflict"),
    ({"Upload-Offset": "4"}, b"xyz", 409, "conflict"),
    ({"Upload-Offset": ""}, b"xyz", 400, "bad-request"),
    ({"Upload-Offset": "-1"}, b"xyz", 400, "bad-request"),
    ({"Content-Type": "application/octet-stream"}, b"xyz", 415, "bad-request"),
    ({"Tus-Resumable": ""}, b"xyz", 412, "bad-request"),
    ({}, b"8 bytes.", 413, "too-large"),
    ({}, LARGE, 413, "too-large"),
    ({"Upload-Checksum": "md5 AAAA"}, b"xyz", 400, "bad-request"),
    ({"Upload-Checksum": "sha1 ===="}, b"xyz", 400, "bad-request"),
    ({"Upload-Checksum": "sha1"}, b"xyz", 460, "digest-mismatch"),
]


@pytest.mark.parametrize(("headers", "body", "status", "code"), PATCHES)
def test_pieces_that_are_refused_change_nothing(
    server: Served, new_job: NewJob, headers: dict[str, str], body: bytes, status: int, code: str
) -> None:
    place = begun(server, new_job(), 10)
    append(server, place, 0, b"abc")
    append(server, place, 3, body, headers).problem(status, code)
    assert offset_of(server, place) == 3


def test_a_body_that_turns_out_too_long_is_refused(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, 10)
    answer = server.ask("PATCH", place, iter([LARGE]), {**BYTES, "Upload-Offset": "0"})
    answer.problem(413, "too-large")
    assert offset_of(server, place) == 0


def test_an_upload_is_its_jobs_own(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, 10)
    upload = place.rpartition("/")[2]
    assert (len(upload), upload.isalnum()) == (32, True)
    server.setup(f"{job_id}-other")
    server.setup(f"{job_id}-apart", "/managers/second")
    paths = [
        f"/jobs/{job_id}-other/files/{upload}",
        f"/managers/second/jobs/{job_id}-apart/files/{upload}",
        f"/jobs/{job_id}-nobody/files/{upload}",
        f"/jobs/{job_id}/files/{upload[:-1]}",
        f"/jobs/{job_id}/files/..%2f{upload}",
        f"/jobs/{job_id}/files/%00",
    ]
    for path in paths:
        append(server, path, 0, b"evil").problem(404, "not-found")
        assert server.ask("DELETE", path, headers=TUS).status == 404
        assert server.ask("HEAD", path, headers=TUS).status == 404
    assert offset_of(server, place) == 0


def test_who_has_no_secret_is_told_nothing(locked: Served) -> None:
    for method, path in [
        ("OPTIONS", "/jobs/1/files"),
        ("POST", "/jobs/1/files?name=x&type=input"),
        ("PATCH", "/jobs/1/files/x"),
    ]:
        locked.ask(method, path, headers=BYTES).problem(401, "not-authorized")


# -- lines that break, and requests at the same time -------------------------------------------------------------------


def test_asking_ends_a_request_whose_line_is_dead(server: Served, new_job: NewJob) -> None:
    """The client has lost its line, and this end does not know yet."""
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    line = Line(server.address, place, 0, len(LARGE), LARGE[:1_234_567])
    wait_until(lambda: arrived_bytes(server, job_id) > 1_000_000, "a piece to arrive")
    offset = offset_of(server, place)
    assert line.is_closed()
    assert 1_234_567 - LOST_BYTES < offset <= 1_234_567
    assert append(server, place, offset, LARGE[offset:]).status == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE
    (record,) = server.ask("GET", f"/jobs/{job_id}/receipt").json()["files"]
    assert (record["tries"], record["wasted_bytes"], record["checked"]) == (2, 0, "size")


def test_asking_waits_for_what_is_still_on_its_way(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    line = Line(server.address, place, 0, len(LARGE), LARGE[:2_000_000])
    wait_until(lambda: arrived_bytes(server, job_id) > 1_000_000, "a piece to arrive")
    asking = server.connect()
    asking.request("HEAD", place, headers=TUS)
    assert line.answer(LARGE[2_000_000:]) == 204
    told = asking.getresponse()
    asking.close()
    assert told.headers["Upload-Offset"] == str(len(LARGE))


def test_a_second_piece_waits_for_the_first(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    line = Line(server.address, place, 0, len(LARGE), LARGE[:2_000_000])
    wait_until(lambda: arrived_bytes(server, job_id) > 1_000_000, "a piece to arrive")
    append(server, place, 0, LARGE).problem(423, "conflict")
    append(server, place, 2_000_000, LARGE[2_000_000:]).problem(423, "conflict")
    assert line.answer(LARGE[2_000_000:]) == 204
    assert server.job_file(job_id, "inputs/a/b").read_bytes() == LARGE


def test_forgetting_an_upload_ends_its_request(server: Served, new_job: NewJob) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    line = Line(server.address, place, 0, len(LARGE), LARGE[:2_000_000])
    wait_until(lambda: arrived_bytes(server, job_id) > 1_000_000, "a piece to arrive")
    assert server.ask("DELETE", place, headers=TUS).status == 204
    assert line.is_closed()
    assert server.parts(job_id) == []
    append(server, place, 0, LARGE).problem(404, "not-found")


def submit(server: Served, job_id: str) -> None:
    server.submit(job_id, "true")


def submit_and_set_up_again(server: Served, job_id: str) -> None:
    submit(server, job_id)
    server.setup(job_id)


def clean(server: Served, job_id: str) -> None:
    server.ask("DELETE", f"/jobs/{job_id}")
    wait_until(lambda: not server.job_file(job_id).exists(), "the job to be gone")


@pytest.mark.parametrize(
    ("meanwhile", "status"),
    [(submit, 409), (submit_and_set_up_again, 404), (clean, 404)],
    ids=["submit", "again", "clean"],
)
def test_what_becomes_of_the_job_meanwhile_wins(
    server: Served, new_job: NewJob, meanwhile: Callable[[Served, str], None], status: int
) -> None:
    job_id = new_job()
    place = begun(server, job_id, len(LARGE))
    other = begun(server, job_id, len(LARGE), "name=c&type=input")
    append(server, other, 0, LARGE[:1000])
    line = Line(server.address, place, 0, len(LARGE), LARGE[:2_000_000])
    wait_until(lambda: arrived_bytes(server, job_id) > 1_000_000, "a piece to arrive")
    meanwhile(server, job_id)
    assert line.answer(LARGE[2_000_000:]) == status
    for path in (place, other):
        assert server.ask("HEAD", path, headers=TUS).status == status
        assert append(server, path, 1000, b"late").status == status
        assert server.ask("DELETE", path, headers=TUS).status == status
    assert server.parts(job_id) == []
    assert not server.job_file(job_id, "inputs/a").exists()


def test_a_server_that_is_killed_goes_on_with_an_upload(tmp_path: Path) -> None:
    content = LARGE * 3
    with RunningServer(tmp_path) as server:
        server.ask_json("POST", "jobs?job_id=1")
        client = TusClient(
            f"{server.url}jobs/1/files?name=x&type=input", {"Repr-Digest": digest_field(sha256(content))}
        )
        uploader = client.uploader(file_stream=BytesIO(content), chunk_size=1_000_000)
        uploader.upload(stop_at=1_000_000)
        assert uploader.url is not None
        host, port = server.url.removeprefix("http://").rstrip("/").split(":")
        place = uploader.url.removeprefix(server.url.rstrip("/"))
        line = Line((host, int(port)), place, 1_000_000, len(content) - 1_000_000, content[1_000_000:5_000_000])
        part = server.staging / "1" / f".part-{place.rpartition('/')[2]}"
        wait_until(lambda: part.stat().st_size > 3_000_000, "more to arrive")
        server.kill()
        line.connection.close()
        server.start()
        again = TusClient("").uploader(file_stream=BytesIO(content), url=uploader.url)
        assert 3_000_000 < again.offset == part.stat().st_size
        again.upload()
        assert (server.staging / "1/inputs/x").read_bytes() == content
        assert not part.exists()


def test_a_client_that_waits_is_invited_or_refused_before_it_sends(server: Served, new_job: NewJob) -> None:
    place = begun(server, new_job(), 3)
    head = f"PATCH {place} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\n"
    head += f"Content-Type: {BYTES['Content-Type']}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n"
    for offset, heard in ((1, b"HTTP/1.1 409 "), (0, b"HTTP/1.1 100 Continue\r\n\r\n")):
        with socket.create_connection(server.address, timeout=DEADLINE_S) as raw:
            raw.sendall(f"{head}Upload-Offset: {offset}\r\n\r\n".encode())
            assert raw.recv(1000).startswith(heard)
            if offset == 0:
                raw.sendall(b"abc")
                assert raw.recv(1000).startswith(b"HTTP/1.1 204 ")
