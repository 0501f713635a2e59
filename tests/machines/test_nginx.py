"""nginx buffers, bounds bodies, answers 502 as planned, and keeps files, before a server of ours and alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.job_files import JobFilesServer
from tests.machines.nginx import Nginx
from tests.support import wait_until

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def web() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    disk = tmp_path / "galaxy"
    disk.mkdir()
    (disk / "in.dat").write_bytes(CONTENT)
    with JobFilesServer(disk, "key") as server:
        yield server


def test_files_pass_both_ways_and_a_large_body_does_not(
    galaxy: JobFilesServer, tmp_path: Path, web: requests.Session
) -> None:
    with Nginx(tmp_path / "nginx", proxied_port=galaxy.port, max_body_bytes=2_000_000) as nginx:
        url = galaxy.url_of(galaxy.root / "in.dat", port=nginx.port)
        assert web.get(url).content == CONTENT
        assert galaxy.requests[0].header("Host") == f"127.0.0.1:{nginx.port}"
        assert web.get(url, headers={"Range": "bytes=5-9"}).content == CONTENT[5:10]
        target = galaxy.root / "out.dat"
        upload = galaxy.url_of(target, port=nginx.port)
        assert web.post(upload, files={"file": CONTENT}).status_code == 200
        assert target.read_bytes() == CONTENT
        assert web.post(upload, files={"file": CONTENT * 2}).status_code == 413
        made = web.post(
            upload.replace("/api/jobs/f2db41e1fa331b3e/files", "/api/job_files/resumable_upload"),
            headers={"Tus-Resumable": "1.0.0", "Upload-Length": "3"},
        )
        assert made.headers["Location"].startswith(nginx.url("/api/job_files/resumable_upload/"))
        wait_until(lambda: len(nginx.answered()) == 5, "the log to be written")
        assert [line.split(" ", 2)[:2] for line in nginx.answered()] == [
            ["200", "GET"], ["206", "GET"], ["200", "POST"], ["413", "POST"], ["201", "POST"]
        ]  # fmt: skip
    with pytest.raises(requests.ConnectionError):
        web.get(url)


def test_it_answers_502_as_often_as_planned_behind_it(
    galaxy: JobFilesServer, tmp_path: Path, web: requests.Session
) -> None:
    with (
        FaultProxy(galaxy.port, [Fault(cut_down_bytes=0)] * 2) as behind,
        Nginx(tmp_path / "nginx", proxied_port=behind.port) as nginx,
    ):
        url = galaxy.url_of(galaxy.root / "in.dat", port=nginx.port)
        answers = [web.get(url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [502, 502, 200]
    assert "<html>" in answers[0].text


def test_a_directory_is_served_and_written(tmp_path: Path, web: requests.Session) -> None:
    with Nginx(tmp_path / "nginx") as nginx:
        url = nginx.url("/disk/new/file")
        assert web.put(url, data=CONTENT).status_code == 201
        assert (nginx.disk / "new" / "file").read_bytes() == CONTENT
        whole = web.get(url)
        part = web.get(url, headers={"Range": "bytes=9-", "If-Range": whole.headers["ETag"]})
        assert (whole.content, part.status_code, part.content) == (CONTENT, 206, CONTENT[9:])
        assert web.get(nginx.url("/nobody")).status_code == 502
