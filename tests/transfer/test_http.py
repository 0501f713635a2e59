"""Files by URL: against a Galaxy-like server, through lines that break, and from peers that say odd things."""

from __future__ import annotations

import hashlib
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.errors import BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.digests import digest_field
from lwr.transfer.http import Web
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Partial
from lwr.transfer.runner import TooLargeForLane
from tests.machines.fault_proxy import HARMLESS, Fault, FaultProxy
from tests.machines.job_files import LOGIN_PAGE, JobFilesServer
from tests.transfer.web_parts import Memory, open_file, raw, tries, web, with_length

KEY = "geheim-7f3a"
CONTENT = bytes(range(256)) * 16384 + b"the end"  # some pieces
PIECE = 1 << 20


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/in.dat").write_bytes(CONTENT)
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


class Download:
    """A file of Galaxy's on its way, over as many tries as it takes."""

    def __init__(self, client: Web, galaxy: JobFilesServer, proxy: FaultProxy, name: str = "in.dat") -> None:
        self.client = client
        self.url = galaxy.url_of(galaxy.root / name, port=proxy.port)
        self.place = Memory()
        self.partial = Partial(self.place)
        self.bookmarks: list[str] = []

    def go(self, most_bytes: int = 0) -> str:
        """One try; how it was checked."""
        known = self.bookmarks[-1] if self.bookmarks else ""
        done = self.client.fetch(
            self.url,
            self.partial,
            Interrupt(),
            bookmark=known,
            most_bytes=most_bytes,
            on_begin=self.bookmarks.append,
        )
        assert (done.size_bytes, done.wasted_bytes) == (len(self.place.data), self.partial.wasted_bytes)
        assert done.sha256 == hashlib.sha256(self.place.data).digest()
        return done.checked


@pytest.fixture
def download(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> Download:
    return Download(client, galaxy, proxy)


def target(name: str, galaxy: JobFilesServer, proxy: FaultProxy) -> str:
    return galaxy.url_of(galaxy.root / name, "output", port=proxy.port)


# -- fetching ----------------------------------------------------------------------------------------------------------


def test_a_file_of_galaxy(download: Download) -> None:
    assert download.go() == "framing"  # Galaxy's answers are chunked, and have no digest
    assert download.place.data == CONTENT


def test_an_empty_file(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    (galaxy.root / "in.dat").write_bytes(b"")
    download.go()
    download.client.close()
    proxy.plan.append(with_length(b""))
    assert Download(download.client, galaxy, proxy).go() == "size"


def test_connections_are_kept(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    download.go()
    assert download.client.size(download.url, Interrupt()) == len(CONTENT)
    with open_file(galaxy.root / "in.dat") as source:
        download.client.deliver(target("out.dat", galaxy, proxy), source, "out.dat", Interrupt())
    Download(download.client, galaxy, proxy).go()
    assert len(proxy.lines) == 1


def test_a_file_cut_ten_times_moves_once(download: Download, proxy: FaultProxy) -> None:
    proxy.plan.extend(Fault(cut_down_bytes=300_000 + 1000 * number) for number in range(10))
    errors = tries(download.go)
    assert len(errors) == 10
    assert download.place.data == CONTENT
    assert proxy.down_bytes < len(CONTENT) + 10 * PIECE
    # Of what a line carried before it was closed, nothing was lost but headers and frames.
    assert proxy.down_bytes < len(CONTENT) + 11 * 2000
    assert download.partial.wasted_bytes == 0


def test_a_reset_is_a_cut_too(download: Download, proxy: FaultProxy) -> None:
    proxy.plan.extend(Fault(cut_down_bytes=400_000, reset=True) for _ in range(3))
    assert tries(download.go)
    assert download.place.data == CONTENT
    assert proxy.down_bytes < len(CONTENT) + 3 * PIECE


def test_a_new_process_goes_on_as_well(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_down_bytes=1_000_000))
    with pytest.raises(BadTransfer):
        download.go()
    came = download.partial.size_bytes
    later = Download(download.client, galaxy, proxy)
    later.partial, later.bookmarks = Partial(download.place), download.bookmarks
    later.place = download.place
    assert later.go() == "size"
    assert later.place.data == CONTENT
    assert galaxy.requests[-1].sent_bytes == len(CONTENT) - came


def test_without_its_bookmark_it_begins_anew(download: Download, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_down_bytes=1_000_000))
    with pytest.raises(BadTransfer):
        download.go()
    download.bookmarks.clear()
    download.go()
    assert download.place.data == CONTENT
    assert download.partial.wasted_bytes > 900_000


def test_a_changed_file_begins_anew(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(Fault(cut_down_bytes=1_000_000))
    with pytest.raises(BadTransfer):
        download.go()
    came = download.partial.size_bytes
    (galaxy.root / "in.dat").write_bytes(CONTENT[::-1])
    galaxy.etag_salt = "new"
    download.go()
    assert download.place.data == CONTENT[::-1]
    assert download.partial.wasted_bytes == came


def test_without_a_tag_the_size_tells_versions_apart(
    download: Download, galaxy: JobFilesServer, proxy: FaultProxy
) -> None:
    """Galaxy tells neither a size nor a version with a download; asked for behind a cut, it tells the size."""
    galaxy.etags = False
    proxy.plan.append(Fault(cut_down_bytes=400_000))
    tries(download.go)
    assert download.place.data == CONTENT
    assert download.partial.wasted_bytes == 0
    assert proxy.down_bytes < len(CONTENT) + PIECE


def test_a_file_of_another_size_is_not_mixed_in(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    galaxy.etags = False
    proxy.plan.append(Fault(cut_down_bytes=400_000))
    with pytest.raises(BadTransfer):
        download.go()
    changed = CONTENT[::-1] + b"longer"
    (galaxy.root / "in.dat").write_bytes(changed)
    proxy.plan.clear()
    tries(download.go)
    assert download.place.data == changed


def test_a_server_without_ranges_sends_all_again(download: Download, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    galaxy.ranges = False
    proxy.plan.append(Fault(cut_down_bytes=1_000_000))
    with pytest.raises(BadTransfer):
        download.go()
    download.go()
    assert download.place.data == CONTENT


def test_nothing_is_missing_any_more(download: Download, galaxy: JobFilesServer) -> None:
    download.go()
    assert download.go() == "size"
    assert galaxy.requests[-1].status == 416
    assert download.place.data == CONTENT
    assert galaxy.counts()["GET", "files"] == 2


def test_a_file_that_became_shorter(download: Download, galaxy: JobFilesServer) -> None:
    galaxy.etags = False
    download.go()
    (galaxy.root / "in.dat").write_bytes(b"short")
    download.go()
    assert download.place.data == b"short"


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Range: bytes 3-9/10"],
        ["Content-Range: bytes 5-9/11"],
        ["Content-Range: bytes 5-9/10", 'ETag: "other"'],
        ["Content-Range: nonsense"],
        [],
    ],
)
def test_a_part_that_does_not_fit_is_not_used(client: Web, proxy: FaultProxy, headers: list[str]) -> None:
    place, marks = Memory(), list[str]()
    partial = Partial(place)
    proxy.plan.append(raw("200 OK", "Content-Length: 10", 'ETag: "one"', body=b"01234"))
    proxy.plan.append(with_length(b"WRONG", *headers, status="206 Partial Content"))
    proxy.plan.append(with_length(b"0123456789", 'ETag: "one"'))
    with pytest.raises(BadTransfer):
        client.fetch(proxy.url("/x"), partial, Interrupt(), on_begin=marks.append)
    assert (place.data, marks) == (b"01234", ['10 "one"'])
    client.fetch(proxy.url("/x"), partial, Interrupt(), bookmark=marks[0], on_begin=marks.append)
    assert place.data == b"0123456789"


def test_a_digest_tells_changed_bytes(client: Web, proxy: FaultProxy) -> None:
    field = f"Repr-Digest: {digest_field(hashlib.sha256(b'good bytes').digest())}"
    proxy.plan.extend((with_length(b"bad! bytes", field), with_length(b"good bytes", field)))
    place = Memory()
    with pytest.raises(BadTransfer, match="SHA-256"):
        client.fetch(proxy.url("/x"), Partial(place), Interrupt())
    assert place.data == b""
    assert client.fetch(proxy.url("/x"), Partial(place), Interrupt()).checked == "sha-256"


@pytest.mark.parametrize(
    "answer",
    [
        raw("200 OK", "Content-Length: 10", body=b"01234"),
        raw("200 OK", "Transfer-Encoding: chunked", body=b"5\r\n01234\r\n"),
        raw("200 OK", "Transfer-Encoding: chunked", body=b"a\r\n01234"),
        raw("200 OK", "Transfer-Encoding: chunked", body=b"5\r\n01234\r\nnonsense\r\n"),
    ],
)
def test_a_short_body_is_no_file_but_is_kept(client: Web, proxy: FaultProxy, answer: Fault) -> None:
    proxy.plan.append(answer)
    place = Memory()
    with pytest.raises(BadTransfer) as caught:
        client.fetch(proxy.url("/x"), Partial(place), Interrupt())
    assert caught.value.transient
    assert place.data == b"01234"


def test_without_a_length_the_size_is_asked_for(download: Download, proxy: FaultProxy) -> None:
    """A proxy that drops Content-Length: the end of the line is no proof."""
    proxy.plan.extend((raw("200 OK", body=CONTENT[:1_000_000]), HARMLESS))
    with pytest.raises(BadTransfer, match=f"1000000 of {len(CONTENT)} bytes"):
        download.go()
    assert download.go() == "size"
    assert download.place.data == CONTENT
    assert download.partial.wasted_bytes == 0
    proxy.plan.append(raw("200 OK", body=CONTENT))
    download.partial.restart()
    download.client.close()
    assert download.go() == "size"


def test_a_length_that_nobody_knows(client: Web, proxy: FaultProxy) -> None:
    proxy.plan.extend((raw("200 OK", body=b"all of it?"), raw("405 Method Not Allowed", "Content-Length: 0")))
    with pytest.raises(BadTransfer, match="how long"):
        client.fetch(proxy.url("/x"), Partial(Memory()), Interrupt())


HTML = "Content-Type: text/html; charset=utf-8"


def test_a_login_page_is_no_file(download: Download, galaxy: JobFilesServer) -> None:
    galaxy.answers_html(1)
    with pytest.raises(BadTransfer, match="web page") as caught:
        download.go()
    assert caught.value.transient
    assert download.place.data == b""
    download.go()
    assert download.place.data == CONTENT


def test_a_data_set_that_is_html_passes(download: Download, galaxy: JobFilesServer) -> None:
    (galaxy.root / "in.dat").write_bytes(LOGIN_PAGE)
    download.go()
    assert download.place.data == LOGIN_PAGE


@pytest.mark.parametrize("path", ["/api/jobs/7/files?path=%2Fdata%2Fin.dat", "/_job_files?path=in", "/x?job_key=k"])
def test_a_static_page_in_front_of_galaxy_is_no_file(client: Web, proxy: FaultProxy, path: str) -> None:
    """It looks like a file, but Galaxy never calls one HTML."""
    proxy.plan.append(with_length(LOGIN_PAGE, HTML, "Accept-Ranges: bytes", 'ETag: "61cf-22"'))
    with pytest.raises(BadTransfer, match="web page"):
        client.fetch(proxy.url(path), Partial(Memory()), Interrupt())


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/x", ["Accept-Ranges: bytes"]),
        ("/x", ["Last-Modified: Sun, 22 Nov 2026 10:10:52 GMT"]),
        ("/x", ['ETag: "one"']),
        ("/report.html", []),
        ("/files?path=%2Fdata%2Freport.HTML", []),
    ],
)
def test_html_from_a_server_of_files_passes(client: Web, proxy: FaultProxy, path: str, headers: list[str]) -> None:
    proxy.plan.append(with_length(LOGIN_PAGE, HTML, *headers))
    place = Memory()
    client.fetch(proxy.url(path), Partial(place), Interrupt())
    assert place.data == LOGIN_PAGE


@pytest.mark.parametrize("answer", [with_length(b"x", "Content-Encoding: gzip"), with_length(b"x", status="206 Part")])
def test_answers_that_were_not_asked_for(client: Web, proxy: FaultProxy, answer: Fault) -> None:
    proxy.plan.append(answer)
    place = Memory()
    with pytest.raises((BadTransfer, PeerRefused)):
        client.fetch(proxy.url("/x"), Partial(place), Interrupt())
    assert place.data == b""


def test_too_large_for_the_lane_goes_on_elsewhere(download: Download, galaxy: JobFilesServer) -> None:
    with pytest.raises(TooLargeForLane):
        download.go(most_bytes=PIECE)
    came = download.partial.size_bytes
    assert PIECE < came < len(CONTENT)
    download.go()
    assert download.place.data == CONTENT
    assert galaxy.requests[-1].sent_bytes == len(CONTENT) - came
    download.go(most_bytes=len(CONTENT))


def test_a_length_that_is_too_large_is_not_begun(client: Web, proxy: FaultProxy) -> None:
    proxy.plan.append(with_length(b"0123456789"))
    place = Memory()
    with pytest.raises(TooLargeForLane):
        client.fetch(proxy.url("/x"), Partial(place), Interrupt(), most_bytes=9)
    assert place.data == b""


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_statuses_that_may_pass(download: Download, galaxy: JobFilesServer, status: int) -> None:
    galaxy.fail_next(status, retry_after="17")
    with pytest.raises(PeerRefused, match="scripted") as caught:
        download.go()
    assert (caught.value.transient, caught.value.status, caught.value.retry_after_s) == (True, status, 17.0)
    assert len(galaxy.requests) == 1
    download.go()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 413, 501, 507])
def test_statuses_that_do_not(download: Download, galaxy: JobFilesServer, status: int) -> None:
    galaxy.fail_next(status)
    with pytest.raises(PeerRefused) as caught:
        download.go()
    assert (caught.value.transient, caught.value.status) == (False, status)
    assert len(galaxy.requests) == 1


def test_what_galaxy_says_is_passed_on(download: Download, galaxy: JobFilesServer) -> None:
    galaxy.active = False
    with pytest.raises(PeerRefused, match="The job is over") as caught:
        download.go()
    assert caught.value.peer_code == "403002"


def test_a_wait_may_be_a_date(client: Web, proxy: FaultProxy) -> None:
    proxy.plan.append(raw("503 Busy", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT", "Content-Length: 0"))
    with pytest.raises(PeerRefused) as caught:
        client.size(proxy.url("/x"), Interrupt())
    assert caught.value.retry_after_s > 3600


def test_nobody_there(galaxy: JobFilesServer, client: Web) -> None:
    galaxy.__exit__(None, None, None)
    with pytest.raises(PeerUnreachable, match="Connection refused") as caught:
        client.size(galaxy.url_of("/x"), Interrupt())
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_up_bytes=0),
        Fault(cut_up_bytes=10),
        Fault(cut_down_bytes=0),
        Fault(cut_down_bytes=100_000),
        Fault(cut_down_bytes=100_000, reset=True),
        raw("302 Found", "Location: http://[geheim", "Content-Length: 0"),
        with_length(b'{"detail": "%s"}' % KEY.encode(), status="403 No"),
        raw("200 OK", "Content-Length: 3", "Content-Encoding: gzip"),
        raw("nonsense"),
        raw("200 OK", HTML, "Content-Length: 0"),
    ],
)
def test_no_secret_in_any_message(download: Download, proxy: FaultProxy, fault: Fault) -> None:
    proxy.plan.append(fault)
    with pytest.raises(LwrError) as caught:
        download.go()
    assert KEY not in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert "in.dat" in str(caught.value) or "URL" in str(caught.value)


# -- the size ----------------------------------------------------------------------------------------------------------


def test_the_size_is_asked_for(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    interrupt = Interrupt()
    assert client.size(galaxy.url_of(galaxy.root / "in.dat"), interrupt) == len(CONTENT)
    assert client.size(galaxy.url_of(galaxy.root / "not-there"), interrupt) is None
    galaxy.answers_html(1)
    assert client.size(galaxy.url_of(galaxy.root / "in.dat"), interrupt) is None
    with pytest.raises(PeerRefused):
        client.size(galaxy.url_of("/etc/passwd"), interrupt)


# -- delivering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.dat", 'odd "name" ü.dat', "ends with \\"])
def test_a_form_brings_the_file(
    client: Web, galaxy: JobFilesServer, proxy: FaultProxy, tmp_path: Path, name: str
) -> None:
    seen: list[int] = []
    with open_file(galaxy.root / "in.dat") as source:
        done = client.deliver(target("out.dat", galaxy, proxy), source, name, Interrupt(), seen.append)
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT
    assert (done.size_bytes, done.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).digest())
    assert seen[-1] == len(CONTENT)
    request = galaxy.requests[-1]
    assert request.header("Content-Length") is not None
    assert f"job_key={KEY}" in request.target
    assert "file_type=output" in request.target


def test_a_cut_form_starts_again(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.extend((Fault(cut_up_bytes=1_000_000), Fault(cut_up_bytes=2_000_000, reset=True)))
    with open_file(galaxy.root / "in.dat") as source:
        url = target("out.dat", galaxy, proxy)
        assert len(tries(lambda: client.deliver(url, source, "out.dat", Interrupt()))) == 2
    assert (galaxy.root / "out.dat").read_bytes() == CONTENT


def test_a_page_for_an_answer_means_that_nobody_took_it(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    galaxy.answers_html(1)
    with open_file(galaxy.root / "in.dat") as source:
        with pytest.raises(BadTransfer, match="web page"):
            client.deliver(target("out.dat", galaxy, proxy), source, "out.dat", Interrupt())
        proxy.plan.append(with_length(b'{"message": "ok"}', HTML))
        client.close()
        client.deliver(target("out.dat", galaxy, proxy), source, "out.dat", Interrupt())


def test_a_digest_in_the_answer_is_compared(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    right, wrong = (digest_field(hashlib.sha256(data).digest()) for data in (CONTENT, b"other"))
    proxy.plan.extend(with_length(b"ok", f"Repr-Digest: {field}") for field in (right, wrong))
    with open_file(galaxy.root / "in.dat") as source:
        assert client.deliver(proxy.url("/out"), source, "out.dat", Interrupt()).checked == "sha-256"
        with pytest.raises(BadTransfer, match="SHA-256"):
            client.deliver(proxy.url("/out"), source, "out.dat", Interrupt())


def test_a_refusal_of_a_form_is_heard(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    galaxy.active = False
    with open_file(galaxy.root / "in.dat") as source, pytest.raises(PeerRefused) as caught:
        client.deliver(target("out.dat", galaxy, proxy), source, "out.dat", Interrupt())
    assert (caught.value.status, caught.value.transient) == (403, False)


def test_a_file_that_grows_is_not_delivered(client: Web, galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    with open_file(galaxy.root / "in.dat") as source:
        with (galaxy.root / "in.dat").open("ab") as more:
            more.write(b"!")
        with pytest.raises(BadTransfer, match="changed its size"):
            client.deliver(target("out.dat", galaxy, proxy), source, "out.dat", Interrupt())
    assert not (galaxy.root / "out.dat").exists()


@pytest.mark.parametrize("stream", ["tool_stdout", "tool_stderr"])
def test_where_galaxy_appends_only_the_rest_is_sent(
    client: Web, galaxy: JobFilesServer, proxy: FaultProxy, tmp_path: Path, stream: str
) -> None:
    (tmp_path / "said").write_bytes(b"first line\nsecond line\n")
    (galaxy.root / stream).write_bytes(b"first line\n")
    url = target(stream, galaxy, proxy)
    with open_file(tmp_path / "said") as source:
        done = client.deliver(url, source, stream, Interrupt())
        assert (galaxy.root / stream).read_bytes() == b"first line\nsecond line\n"
        assert done.sha256 == hashlib.sha256(b"first line\nsecond line\n").digest()
        client.deliver(url, source, stream, Interrupt())
    assert (galaxy.root / stream).read_bytes() == b"first line\nsecond line\n"
    assert galaxy.received_bytes(galaxy.root / stream) == len(b"second line\n")


def test_an_answer_that_was_lost_doubles_nothing(
    client: Web, galaxy: JobFilesServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    (tmp_path / "said").write_bytes(b"a line\n")
    url = target("tool_stdout", galaxy, proxy)
    with open_file(tmp_path / "said") as source:
        assert client.size(url, Interrupt()) is None
        proxy.plan.extend((HARMLESS, HARMLESS))
        client.close()
        galaxy.requests.clear()

        def deliver() -> None:
            if not galaxy.requests:
                galaxy.lose_answers(2)  # of the question and of the form
            client.deliver(url, source, "tool_stdout", Interrupt())

        assert len(tries(deliver)) == 2
    assert (galaxy.root / "tool_stdout").read_bytes() == b"a line\n"
    assert galaxy.counts()["POST", "files"] == 1


# -- ending it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["before headers", "in the body", "while sending"])
def test_an_interrupt_ends_what_hangs(galaxy: JobFilesServer, proxy: FaultProxy, how: str) -> None:
    interrupt = Interrupt()
    hangs = threading.Event()
    ended: list[LwrError] = []
    proxy.plan.append(Fault(delay_s=10_000) if how == "before headers" else Fault(down_bytes_per_s=2000))
    big = galaxy.root / "big"
    with big.open("wb") as file:
        file.truncate(200 << 20)

    def told(_: object) -> None:
        hangs.set()

    def move(client: Web) -> None:
        url = galaxy.url_of(galaxy.root / "in.dat", port=proxy.port)
        try:
            if how == "while sending":
                with open_file(big) as source:
                    client.deliver(galaxy.url_of(galaxy.root / "out"), source, "big", interrupt, told)
            else:
                client.fetch(url, Partial(Memory()), interrupt, on_begin=told)
        except LwrError as error:
            ended.append(error)

    with web(read_timeout_s=10_000) as client:
        thread = threading.Thread(target=move, args=(client,))
        thread.start()
        if how == "before headers":
            while not proxy.up_bytes:
                hangs.wait(0.01)
        else:
            assert hangs.wait(30)
        interrupt.set()
        thread.join(30)
        assert not thread.is_alive()
    assert [error.code for error in ended] == ["interrupted"]
