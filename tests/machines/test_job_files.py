"""The test server for Galaxy's files API answers as Galaxy was recorded to, to real clients too."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError

from tests.machines.job_files import LOGIN_PAGE, JobFilesServer
from tests.machines.tus_uploads import TUS_PATH
from tests.support import DEADLINE_S, wait_until

KEY = "the key & more"
CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy disk"
    disk.mkdir()
    (disk / "in ü&=.dat").write_bytes(CONTENT)
    with JobFilesServer(disk, KEY) as server:
        yield server


@pytest.fixture
def url(galaxy: JobFilesServer) -> str:
    return galaxy.url_of(galaxy.root / "in ü&=.dat")


@pytest.fixture
def web() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def tus_url(galaxy: JobFilesServer, path: Path) -> str:
    """The creation URL that Pulsar makes of a file's URL."""
    return galaxy.url_of(path, "output").replace("/api/jobs/f2db41e1fa331b3e/files", TUS_PATH)


def test_a_download_is_chunked_and_a_part_has_a_length(galaxy: JobFilesServer, url: str, web: requests.Session) -> None:
    whole = web.get(url)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["Transfer-Encoding"] == "chunked"
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert whole.headers["Content-Type"] == "application/json; charset=UTF-8"
    for asked, wanted in (("0-0", CONTENT[:1]), ("1279990-", CONTENT[-10:]), ("-7", CONTENT[-7:])):
        part = web.get(url, headers={"Range": f"bytes={asked}", "If-Range": whole.headers["ETag"]})
        assert (part.status_code, part.content) == (206, wanted)
        assert part.headers["Content-Length"] == str(len(wanted))
        assert part.headers["Content-Range"].endswith(f"/{len(CONTENT)}")
    galaxy.etag_salt = "new"
    anew = web.get(url, headers={"Range": "bytes=5-", "If-Range": whole.headers["ETag"]})
    assert (anew.status_code, anew.content) == (200, CONTENT)
    beyond = web.get(url, headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")
    head = web.head(url)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(CONTENT)))


def test_ranges_and_etags_can_be_off(galaxy: JobFilesServer, url: str, web: requests.Session) -> None:
    galaxy.ranges = galaxy.etags = False
    answer = web.get(url, headers={"Range": "bytes=5-"})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert {"Accept-Ranges", "ETag"}.isdisjoint(answer.headers)


def test_who_may_not_have_a_file_is_told_as_galaxy_tells(
    galaxy: JobFilesServer, url: str, web: requests.Session, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (galaxy.root / "link").symlink_to(outside)
    wrong_key = url.replace("job_key=the", "job_key=no")
    escapes = [galaxy.url_of(galaxy.root / name) for name in ("../outside", "link")]
    for forbidden in (wrong_key, galaxy.url_of(outside), galaxy.url_of("relative"), *escapes):
        for answer in (web.get(forbidden), web.post(forbidden, files={"file": b"x"})):
            assert (answer.status_code, answer.json()["err_code"]) == (403, 403002)
    assert outside.read_text() == "secret"
    assert (web.get(galaxy.endpoint).status_code, web.get(galaxy.endpoint).json()["err_code"]) == (400, 400005)
    assert web.get(galaxy.url_of(galaxy.root / "none")).status_code == 500
    assert web.post(galaxy.url_of(galaxy.root / "new")).status_code == 500
    assert web.put(url, data=b"x").status_code == 404
    galaxy.active = False
    assert web.get(url).status_code == 403


def test_an_upload_is_stored_and_a_stream_of_the_tool_appended_to(
    galaxy: JobFilesServer, web: requests.Session
) -> None:
    for name, stored in (("new/out.dat", b"more"), ("tool_stdout", b"somemore"), ("job.tool_stderr", b"somemore")):
        target = galaxy.root / name
        for piece in (b"some", b"more"):
            answer = web.post(galaxy.url_of(target, "output"), files={"file": (target.name, piece)})
            assert (answer.status_code, answer.json()) == (200, {"message": "ok"})
        assert target.read_bytes() == stored
        assert galaxy.received_bytes(target) == 8


def test_an_upload_that_is_cut_short_changes_nothing(galaxy: JobFilesServer) -> None:
    url = urlsplit(galaxy.url_of(galaxy.root / "out.dat"))
    with socket.create_connection(("127.0.0.1", galaxy.port), timeout=DEADLINE_S) as line:
        line.sendall(
            f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
            '--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf'.encode()
        )
    wait_until(lambda: galaxy.requests and galaxy.requests[0].status == 400, "the cut to be noticed")
    assert not (galaxy.root / "out.dat").exists()


def test_scripts_come_first_in_their_order(galaxy: JobFilesServer, url: str, web: requests.Session) -> None:
    galaxy.fail_next(502, 2, retry_after="7")
    galaxy.answers_html(1, method="GET")
    answers = [web.head(url), web.get(url), web.head(url), web.get(url), web.get(url)]
    assert [answer.status_code for answer in answers] == [502, 502, 200, 200, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert [answer.content for answer in answers[3:]] == [LOGIN_PAGE, CONTENT]
    galaxy.answers_html()
    assert web.get(url).content == web.get(url).content == LOGIN_PAGE
    galaxy.behave()
    assert web.get(url).content == CONTENT
    assert galaxy.counts() == {("HEAD", "files"): 2, ("GET", "files"): 6}


def test_an_answer_can_be_lost_after_the_work(galaxy: JobFilesServer, web: requests.Session) -> None:
    target = galaxy.root / "tool_stdout"
    galaxy.lose_answers()
    with pytest.raises(requests.ConnectionError):
        web.post(galaxy.url_of(target), files={"file": b"one"})
    assert target.read_bytes() == b"one"
    assert web.post(galaxy.url_of(target), files={"file": b"two"}).status_code == 200
    assert target.read_bytes() == b"onetwo"


def test_requests_are_kept_as_they_stood_on_the_wire(galaxy: JobFilesServer, url: str, web: requests.Session) -> None:
    web.get(url, headers={"X-Probe": "1"})
    (seen,) = galaxy.requests
    assert seen.target == url.removeprefix(f"http://127.0.0.1:{galaxy.port}")
    assert "in%20%C3%BC%26%3D.dat" in seen.target
    assert seen.header("x-probe") == "1"
    assert seen.path == str(galaxy.root / "in ü&=.dat")
    assert galaxy.sent_bytes(seen.path) == len(CONTENT)


def test_tuspy_uploads_and_resumes(galaxy: JobFilesServer, web: requests.Session) -> None:
    target = galaxy.root / "out.dat"
    with (galaxy.root / "in ü&=.dat").open("rb") as source:
        first = TusClient(tus_url(galaxy, target)).uploader(file_stream=source, chunk_size=500_000)
        first.upload(stop_at=500_000)
        second = TusClient("").uploader(file_stream=source, chunk_size=500_000, url=first.url)
        assert second.offset == 500_000
        second.upload()
    assert second.url is not None
    answer = web.post(galaxy.url_of(target, "output"), data={"session_id": second.url.rpartition("/")[2]})
    assert (answer.status_code, answer.json()) == (200, {"message": "ok"})
    assert target.read_bytes() == CONTENT
    assert galaxy.received_bytes(target) == len(CONTENT)
    assert galaxy.counts() == {("POST", "tus"): 1, ("HEAD", "tus"): 1, ("PATCH", "tus"): 3, ("POST", "files"): 1}


def test_tuspy_is_told_that_an_upload_is_gone(galaxy: JobFilesServer) -> None:
    with (galaxy.root / "in ü&=.dat").open("rb") as source:
        client = TusClient(tus_url(galaxy, galaxy.root / "out.dat"))
        uploader = client.uploader(file_stream=source, chunk_size=500_000)
        uploader.upload(stop_at=500_000)
        galaxy.forget_uploads()
        with pytest.raises(TusCommunicationError):
            uploader.get_offset()


def test_tus_answers_as_recorded(galaxy: JobFilesServer, web: requests.Session) -> None:
    target = galaxy.root / "out.dat"
    speaks = {"Tus-Resumable": "1.0.0"}
    made = web.post(tus_url(galaxy, target), headers={**speaks, "Upload-Length": "12", "Upload-Metadata": ""})
    assert (made.status_code, made.headers["Content-Length"]) == (201, "0")
    place = made.headers["Location"]
    assert place.startswith(f"http://127.0.0.1:{galaxy.port}{TUS_PATH}/")
    assert "?" not in place
    assert made.headers["Upload-Expires"].endswith(" GMT")
    content = {**speaks, "Content-Type": "application/offset+octet-stream"}
    sent = web.patch(place, data=b"fromwork", headers={**content, "Upload-Offset": "0"})
    assert (sent.status_code, sent.headers["Upload-Offset"]) == (204, "8")
    assert web.patch(place, data=b"again", headers={**content, "Upload-Offset": "0"}).status_code == 409
    assert web.patch(place, data=b"toomuch", headers={**content, "Upload-Offset": "8"}).status_code == 413
    assert web.patch(place, data=b"x", headers={**speaks, "Upload-Offset": "8"}).status_code == 415
    assert web.head(place).status_code == 412
    told = web.head(place, headers=speaks)
    assert (told.headers["Upload-Offset"], told.headers["Upload-Length"]) == ("8", "12")
    assert "termination" in web.options(place).headers["Tus-Extension"]
    assert web.delete(place, headers=speaks).status_code == 204
    assert web.head(place, headers=speaks).status_code == 404
    assert web.post(galaxy.url_of(target), data={"session_id": place.rpartition("/")[2]}).status_code == 500


def test_a_tus_upload_keeps_what_came_and_takes_no_more_from_a_line_that_was_given_up(
    galaxy: JobFilesServer, web: requests.Session
) -> None:
    speaks = {"Tus-Resumable": "1.0.0"}
    made = web.post(tus_url(galaxy, galaxy.root / "out.dat"), headers={**speaks, "Upload-Length": "100"})
    place = urlsplit(made.headers["Location"])
    line = http.client.HTTPConnection("127.0.0.1", galaxy.port, timeout=DEADLINE_S)
    line.putrequest("PATCH", place.path)
    for name, value in {
        **speaks,
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": "100",
    }.items():
        line.putheader(name, value)
    line.endheaders(b"forty bytes of a hundred are sent, no more")
    wait_until(lambda: galaxy.received_bytes(galaxy.root / "out.dat") == 42, "the bytes to come")
    assert web.head(made.headers["Location"], headers=speaks).headers["Upload-Offset"] == "42"
    # Who asked has been told 42: what the old line still brings must not change that.
    line.send(b"late")
    answer = line.getresponse()
    answer.read()
    line.close()
    assert answer.status == 409
    assert web.head(made.headers["Location"], headers=speaks).headers["Upload-Offset"] == "42"
