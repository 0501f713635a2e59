"""Where requests by URL go, and where they and their secrets do not."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from lwr.errors import BadRequest, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.http import Web
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.partial import Partial
from lwr.transfer.reach import Reach
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.job_files import JobFilesServer
from tests.transfer.web_parts import Memory, open_file, raw, web, with_length

KEY = "geheim-7f3a"
CONTENT = b"some content"


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    (tmp_path / "in.dat").write_bytes(CONTENT)
    with JobFilesServer(tmp_path, KEY) as server:
        yield server


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Answers by itself, what it is told to, and otherwise cuts the line."""
    with FaultProxy(9, otherwise=Fault(cut_up_bytes=0)) as answering:
        yield answering


def fetch(client: Web, url: str) -> bytes:
    place = Memory()
    client.fetch(url, Partial(place), Interrupt())
    return place.data


def url_of(galaxy: JobFilesServer, host: str = "127.0.0.1") -> str:
    return galaxy.url_of(galaxy.root / "in.dat").replace("127.0.0.1", host)


def to(url: str, *headers: str) -> Fault:
    return raw("302 Found", f"Location: {url}", "Content-Length: 0", *headers)


# -- redirects ---------------------------------------------------------------------------------------------------------


def test_redirects_are_followed_without_traces(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.extend(to("/again", "Set-Cookie: a=b") for _ in range(4))
    proxy.plan.append(to(url_of(galaxy)))
    with web() as client:
        assert fetch(client, proxy.url("/first")) == CONTENT
    assert galaxy.requests[0].header("Referer") is None
    assert galaxy.requests[0].header("Cookie") is None


@pytest.mark.parametrize("many", [6, 50])
def test_but_not_for_ever(proxy: FaultProxy, many: int) -> None:
    proxy.plan.extend(to("/again") for _ in range(many))
    with web() as client, pytest.raises(PeerRefused, match="more than 5 times") as caught:
        fetch(client, proxy.url("/first"))
    assert not caught.value.transient
    assert len(proxy.lines) == 6


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "//other.example.com/x", "http://[", "http://127.0.0.1:99999/"],
)
def test_nor_anywhere(proxy: FaultProxy, target: str) -> None:
    proxy.plan.append(to(target))
    with web(Reach(hosts=("127.0.0.1",))) as client, pytest.raises((BadRequest, PeerRefused)) as caught:
        fetch(client, proxy.url("/first"))
    assert not caught.value.transient
    assert len(proxy.lines) == 1


def test_an_endless_body_of_a_redirect_is_not_read(galaxy: JobFilesServer) -> None:
    done = threading.Event()
    head = f"HTTP/1.1 302 Found\r\nLocation: {url_of(galaxy)}\r\nContent-Length: {1 << 50}\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            line, _ = listening.accept()
            with line:
                line.recv(1)
                line.sendall(head.encode())
                done.wait(30)

        thread = threading.Thread(target=speak)
        thread.start()
        try:
            with web(read_timeout_s=1) as client:
                assert fetch(client, f"http://127.0.0.1:{listening.getsockname()[1]}/first") == CONTENT
        finally:
            done.set()
            thread.join(30)


def test_a_job_key_does_not_go_to_another_host(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    for target in (url_of(galaxy, "localhost"), f"http://localhost:{galaxy.port}/%67eheim-7f3a"):
        proxy.plan.append(to(target))
        with web() as client, pytest.raises(PeerRefused, match="secret") as caught:
            fetch(client, proxy.url(f"/first?job_key={KEY}"))
        assert KEY not in str(caught.value)
    assert not galaxy.requests


def test_nor_a_password(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(to(f"http://localhost:{galaxy.port}/x?was=pass%3Aword"))
    with web() as client, pytest.raises(PeerRefused, match="secret"):
        fetch(client, proxy.url("/first").replace("//", "//me:pass%3Aword@"))
    proxy.plan.append(to(url_of(galaxy)))
    with web() as client:
        fetch(client, proxy.url("/first").replace("//", "//me:pass%3Aword@"))
    assert [request.header("Authorization") for request in galaxy.requests] == [None]


def test_a_password_goes_to_its_own_host(galaxy: JobFilesServer) -> None:
    with web() as client:
        fetch(client, url_of(galaxy, "me:pass@127.0.0.1"))
    assert galaxy.requests[0].header("Authorization") == "Basic bWU6cGFzcw=="


def test_deliveries_do_not_follow(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(to(url_of(galaxy)))
    with (
        web() as client,
        open_file(galaxy.root / "in.dat") as source,
        pytest.raises(PeerRefused, match="not followed") as caught,
    ):
        client.deliver(proxy.url("/out"), source, "out", Interrupt())
    assert not caught.value.transient
    assert not galaxy.requests


# -- addresses ---------------------------------------------------------------------------------------------------------

FAR = Reach(networks=("192.0.2.0/24",))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "127.1",
        "0x7f.1",
        "2130706433",
        "0",
        "[::ffff:127.0.0.1]",
        "017700000001",
    ],
)
def test_however_it_is_spelt_the_address_counts(galaxy: JobFilesServer, host: str) -> None:
    with web(FAR) as client, pytest.raises(BadRequest, match="networks") as caught:
        fetch(client, url_of(galaxy, host))
    assert "staging_url_networks" in caught.value.hint
    assert KEY not in str(caught.value)
    assert not galaxy.requests
    with web(Reach(networks=("127.0.0.0/8", "0.0.0.0/32", "::1/128"))) as client:
        assert fetch(client, url_of(galaxy, "127.1")) == CONTENT


class Names:
    """A resolver whose answers change."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0)


def test_each_look_up_is_judged(galaxy: JobFilesServer) -> None:
    """A name that is public at first and private then."""
    names = Names(["127.0.0.1"], ["10.1.2.3"], ["::1"])
    with web(Reach(networks=("127.0.0.0/8",)), resolve=names) as client:
        url = url_of(galaxy, "galaxy.test.")
        assert fetch(client, url) == CONTENT
        assert fetch(client, url) == CONTENT
        assert len(names.asked) == 1  # the same connection
        for _ in range(2):
            client.close()
            with pytest.raises(BadRequest, match="networks"):
                fetch(client, url)
    assert len(galaxy.requests) == 2


def test_the_address_that_was_judged_is_connected_to(galaxy: JobFilesServer) -> None:
    names = Names(["10.1.2.3", "::1", "127.0.0.1"])
    with web(Reach(networks=("127.0.0.0/8",)), resolve=names) as client:
        assert fetch(client, url_of(galaxy, "galaxy.test")) == CONTENT
    assert names.asked == ["galaxy.test"]


def test_the_next_address_is_tried(galaxy: JobFilesServer) -> None:
    with web(resolve=Names(["127.0.0.2", "127.0.0.1"])) as client:
        assert fetch(client, url_of(galaxy, "galaxy.test")) == CONTENT


def test_a_redirect_is_looked_up_and_judged_as_well(galaxy: JobFilesServer, proxy: FaultProxy) -> None:
    proxy.plan.append(to(f"http://inside.test:{galaxy.port}/x"))
    with (
        web(Reach(networks=("127.0.0.0/30",)), resolve=Names(["127.0.0.1"], ["127.0.0.100"])) as client,
        pytest.raises(BadRequest, match=r"inside\.test"),
    ):
        fetch(client, proxy.url("/first"))
    assert not galaxy.requests


def test_a_name_that_nobody_knows_may_be_known_later() -> None:
    with web() as client, pytest.raises(PeerUnreachable):
        fetch(client, "http://galaxy.invalid/x")


# -- surroundings ------------------------------------------------------------------------------------------------------


def test_a_proxy_of_the_environment_is_used(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url(""))
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    proxy.plan.append(with_length(CONTENT))
    with web() as client:
        assert fetch(client, "http://galaxy.invalid/x") == CONTENT
    with web(Reach(networks=("127.0.0.0/8",))) as client, pytest.raises(LwrError):
        fetch(client, "http://galaxy.invalid/x")
    with web(Reach(hosts=("other.invalid",))) as client, pytest.raises(BadRequest):
        fetch(client, "http://galaxy.invalid/x")
    assert len(proxy.lines) == 1


def test_netrc_is_not_read(galaxy: JobFilesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with web() as client:
        fetch(client, url_of(galaxy))
    assert galaxy.requests[0].header("Authorization") is None


class _File(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/down":
            self.send_response(302)
            self.send_header("Location", "http://galaxy.test/x")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class calls it so
        return


@contextmanager
def https(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with a certificate for `name`, from an authority that the environment trusts; its port."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _File)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


def test_certificates_are_checked_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with https(tmp_path, "galaxy.test", monkeypatch) as port, web(resolve=here) as client:
        assert fetch(client, f"https://galaxy.test:{port}/x") == CONTENT
        with pytest.raises(PeerRefused, match="secure"):
            fetch(client, f"https://other.test:{port}/x")
        with pytest.raises(PeerRefused, match="from https"):
            fetch(client, f"https://galaxy.test:{port}/down")


def test_a_bundle_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with web(resolve=here) as client, pytest.raises(BadRequest, match="formed"):
        fetch(client, "https://galaxy.test/x")


def test_tls_that_hangs_ends_when_it_is_interrupted(tmp_path: Path) -> None:
    """While it is opened a connection has no socket that could be found by its name."""
    interrupt = Interrupt()
    ended: list[LwrError] = []
    with socket.create_server(("127.0.0.1", 0)) as silent, web(read_timeout_s=10_000) as client:

        def move() -> None:
            try:
                client.size(f"https://127.0.0.1:{silent.getsockname()[1]}/x", interrupt)
            except LwrError as error:
                ended.append(error)

        thread = threading.Thread(target=move)
        thread.start()
        accepted, _ = silent.accept()
        with accepted:
            assert accepted.recv(1)  # TLS has begun
            interrupt.set()
            thread.join(30)
    assert [error.code for error in ended] == ["interrupted"]
