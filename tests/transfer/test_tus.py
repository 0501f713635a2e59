"""Deliveries that go on: to a Galaxy-like server, through lines that break and answers that get lost."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.errors import BadTransfer, LwrError, PeerRefused
from lwr.transfer.http import Web
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Transferred
from lwr.transfer.tus import deliver_tus, tus_url
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.job_files import JobFilesServer
from tests.transfer.web_parts import open_file, raw, tries, web

TUS_PATH = "/api/job_files/resumable_upload"
KEY = "geheim-7f3a"
CONTENT = bytes(range(256)) * 16384 + b"the end"
PIECE = 1_000_000


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    (tmp_path / "disk").mkdir()
    with JobFilesServer(tmp_path / "disk", KEY) as server:
        yield server


@pytest.fixture
def proxy(galaxy: JobFilesServer) -> Iterator[FaultProxy]:
    with FaultProxy(galaxy.port) as between:
        yield between


@pytest.fixture
def client() -> Iterator[Web]:
    with web() as made:
        yield made


class Delivery:
    """A file on its way to Galaxy, over as many tries as it takes."""

    def __init__(self, client: Web, url: str, source: Path, content: bytes = CONTENT) -> None:
        source.write_bytes(content)
        self.client, self.url, self.source, self.content = client, url, source, content
        self.bookmark = ""
        self.moved_bytes: list[int] = []

    def remember(self, bookmark: str) -> None:
        self.bookmark = bookmark

    def go(self) -> Transferred:
        with open_file(self.source) as source:
            done = deliver_tus(
                self.client,
                self.url,
                source,
                "out.dat",
                Interrupt(),
                bookmark=self.bookmark,
                on_begin=self.remember,
                on_bytes=self.moved_bytes.append,
                piece_bytes=PIECE,
            )
        assert done.size_bytes == len(self.content)
        assert done.sha256 == hashlib.sha256(self.content).digest()
        return done


@pytest.fixture
def delivery(client: Web, galaxy: JobFilesServer, proxy: FaultProxy, tmp_path: Path) -> Delivery:
    return Delivery(client, galaxy.url_of(galaxy.root / "out.dat", "output", port=proxy.port), tmp_path / "source")


def test_a_file_in_pieces(delivery: Delivery, galaxy: JobFilesServer) -> None:
    assert delivery.go().checked == "size"
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    counts = galaxy.counts()
    assert (counts["POST", "tus"], counts["PATCH", "tus"], counts["POST", "files"]) == (1, 5, 1)
    assert galaxy.requests[0].target.startswith(f"{TUS_PATH}?job_key={KEY}&path=")
    assert KEY not in "".join(seen.target for seen in galaxy.requests[1:] if seen.kind == "tus")
    assert delivery.moved_bytes[-1] == len(CONTENT)
    assert delivery.moved_bytes == sorted(delivery.moved_bytes)


def test_a_file_cut_ten_times_moves_once(delivery: Delivery, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.extend(Fault(cut_up_bytes=300_000 + 1000 * number) for number in range(10))
    errors = tries(delivery.go)
    assert len(errors) == 10
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert proxy.up_bytes < len(CONTENT) + 10 * PIECE
    assert galaxy.counts()["POST", "tus"] == 1


def test_what_galaxy_forgot_begins_again(delivery: Delivery, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_up_bytes=2_500_000))
    with pytest.raises(LwrError):
        delivery.go()
    before = delivery.bookmark
    galaxy.forget_uploads()
    delivery.go()
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert delivery.bookmark.partition(" ")[0] != before
    assert galaxy.counts()["POST", "tus"] == 2


def test_an_answer_to_the_last_form_that_was_lost(delivery: Delivery, galaxy: JobFilesServer) -> None:
    galaxy.fail_next(503, method="POST")
    with pytest.raises(PeerRefused):
        delivery.go()  # not even announced
    galaxy.fail_next(502, times=3, method="PATCH")
    assert len(tries(delivery.go)) == 3
    assert galaxy.counts()["POST", "tus"] == 2
    (galaxy.root / "out.dat").unlink()

    again = Delivery(delivery.client, delivery.url, delivery.source)
    remembered = again.remember

    def lose_the_next_answer(bookmark: str) -> None:
        remembered(bookmark)
        if " " in bookmark:
            galaxy.lose_answers(1)

    again.remember = lose_the_next_answer  # type: ignore[method-assign]
    assert len(tries(again.go)) == 1
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert galaxy.counts()["POST", "tus"] == 3  # nothing was sent twice


def test_a_lost_answer_to_an_announcement_or_a_piece(delivery: Delivery, galaxy: JobFilesServer) -> None:
    galaxy.lose_answers(2)
    assert tries(delivery.go)
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT


def test_an_old_file_of_that_size_is_not_taken_for_the_new_one(
    delivery: Delivery, galaxy: JobFilesServer, proxy: FaultProxy
) -> None:
    (galaxy.root / "out.dat").write_bytes(CONTENT[::-1])
    delivery.bookmark = proxy.url(f"{TUS_PATH}/unknown")
    delivery.go()
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT


def test_nor_when_galaxy_forgets_an_upload_before_it_is_handed_over(delivery: Delivery, galaxy: JobFilesServer) -> None:
    (galaxy.root / "out.dat").write_bytes(CONTENT[::-1])
    remembered = delivery.remember

    def refuse_the_form(bookmark: str) -> None:
        remembered(bookmark)
        galaxy.fail_next(502, method="POST")

    delivery.remember = refuse_the_form  # type: ignore[method-assign]
    with pytest.raises(PeerRefused):
        delivery.go()
    galaxy.behave()
    galaxy.forget_uploads()
    delivery.remember = remembered  # type: ignore[method-assign]
    delivery.go()
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT


def test_an_empty_file_and_one_that_is_appended_to_go_as_forms(
    client: Web, galaxy: JobFilesServer, tmp_path: Path
) -> None:
    for name, content in (("empty.dat", b""), ("tool_stdout", b"said\n")):
        Delivery(client, galaxy.url_of(galaxy.root / name, "output"), tmp_path / "source", content).go()
        assert (galaxy.root / name).read_bytes() == content
    Delivery(client, galaxy.url_of(galaxy.root / "tool_stdout"), tmp_path / "source", b"said\nmore\n").go()
    assert (galaxy.root / "tool_stdout").read_bytes() == b"said\nmore\n"
    assert not any(kind == "tus" for _, kind in galaxy.counts())


@pytest.mark.parametrize(
    "location", ["http://localhost:1/up/1", "https://127.0.0.1/up/1", "//evil.test/1", "http://[", None]
)
def test_outputs_go_to_no_other_host(delivery: Delivery, proxy: FaultProxy, location: str | None) -> None:
    headers = ["Content-Length: 0", *([f"Location: {location}"] if location else [])]
    proxy.plan.append(raw("201 Created", *headers))
    with pytest.raises(PeerRefused, match="same host") as caught:
        delivery.go()
    assert not caught.value.transient
    assert len(proxy.lines) == 1


def test_a_bookmark_of_another_host_is_not_used(
    delivery: Delivery, galaxy: JobFilesServer, proxy: FaultProxy, client: Web
) -> None:
    with FaultProxy(galaxy.port) as elsewhere:
        delivery.bookmark = elsewhere.url("/up/1")
        delivery.go()
        assert not elsewhere.lines


@pytest.mark.parametrize("told", ["Upload-Offset: 5", "X: y"])
def test_bytes_that_did_not_arrive(delivery: Delivery, proxy: FaultProxy, told: str) -> None:
    proxy.plan.append(raw("201 Created", "Location: /up/1", "Content-Length: 0"))
    proxy.plan.append(raw("204 No Content", told))
    with pytest.raises((BadTransfer, PeerRefused), match=r"arrived|how far"):
        delivery.go()


def test_a_file_that_changed_since_is_sent_anew(delivery: Delivery, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_up_bytes=3_500_000))
    with pytest.raises(LwrError):
        delivery.go()
    shorter = Delivery(delivery.client, delivery.url, delivery.source, b"shorter")
    shorter.bookmark = delivery.bookmark
    shorter.go()
    assert (galaxy.root / "out.dat").read_bytes() == b"shorter"


def test_a_job_that_is_over_takes_nothing(delivery: Delivery, galaxy: JobFilesServer) -> None:
    galaxy.active = False
    with pytest.raises(PeerRefused) as caught:
        delivery.go()
    assert (caught.value.status, caught.value.transient) == (403, False)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "announce"),
    [
        (
            "http://h/api/jobs/12/files?job_key=k&path=%2Fa",
            "http://h/api/job_files/resumable_upload?job_key=k&path=%2Fa",
        ),
        ("http://h/galaxy/api/jobs/12/files?k=1", "http://h/galaxy/api/job_files/resumable_upload?k=1"),
        ("http://h/jobs/api/jobs/12/files/", "http://h/jobs/api/job_files/resumable_upload"),
        ("http://h/_job_files?job_id=12&job_key=k", None),
        ("http://h/files/x?path=/jobs/1/files", None),
    ],
)
def test_where_uploads_are_announced(files: str, announce: str | None) -> None:
    assert tus_url(files) == announce
