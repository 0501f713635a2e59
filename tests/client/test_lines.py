"""Connections: only LWR's errors come out, many threads share them, and whatever hangs can be ended at once."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.client.lines import Lines, foreign
from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.server.tls import ssl_context
from lwr.transfer.interrupt import Interrupt, Interrupted
from tests.client.scripted import Answer, scripted
from tests.support import DEADLINE_S, wait_until

NEVER = Interrupt()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *[(kind("text"), PeerUnreachable) for kind in (
            http.client.HTTPException, http.client.BadStatusLine, http.client.RemoteDisconnected,
            http.client.LineTooLong, http.client.ResponseNotReady, OSError, TimeoutError, ConnectionResetError,
            socket.gaierror, ssl.SSLEOFError, ssl.SSLZeroReturnError,
        )],
        *[(kind("text"), PeerRefused) for kind in (ssl.SSLError, ssl.SSLCertVerificationError)],
        *[(kind("text"), BadRequest) for kind in (ValueError, UnicodeError, http.client.InvalidURL)],
        (http.client.IncompleteRead(b"", 5), BadTransfer),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_every_error_is_one_of_ours(
    error: http.client.HTTPException | OSError | ValueError, expected: type[LwrError]
) -> None:
    ours = foreign(error, "do it", "http://h/")
    assert type(ours) is expected
    assert ours.transient == (expected in (PeerUnreachable, BadTransfer))
    assert ours.message.startswith("Could not do it: ")


def test_the_reason_is_told() -> None:
    raised = ConnectionResetError(104, "Connection reset by peer")
    assert "(Connection reset by peer)" in foreign(raised, "do it", "http://h/").message


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused for good, unless the environment vouches for it."""
    context = ssl_context("*", tmp_path)
    with scripted(Answer(body=b"safe"), tls=context) as server:
        with pytest.raises(PeerRefused, match="no secure connection") as caught:
            ask(server.url)
        assert "REQUESTS_CA_BUNDLE" in caught.value.hint
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "host.pem"))
        assert ask(server.url) == b"safe"


def ask(url: str) -> bytes:
    lines = Lines(url, connect_timeout_s=5, read_timeout_s=5)
    try:
        with lines.request("GET", f"{url}x", "do it", headers={}, body=b"", interrupt=NEVER) as answer:
            return answer.body()
    finally:
        lines.close()


def test_connections_are_used_again_unless_the_server_closed_them() -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                accepted.append(connection)
                for _ in range(2):
                    assert connection.recv(65536)
                    connection.sendall(reply)
                connection.close()

        peer = threading.Thread(target=serve)
        peer.start()
        lines = Lines(url, connect_timeout_s=5, read_timeout_s=DEADLINE_S)
        for number in range(4):
            if number == 2:
                wait_until(lambda: accepted[0].fileno() == -1, "the server to close the first one")
            with lines.request("GET", url, "do it", headers={}, body=b"", interrupt=NEVER) as answer:
                assert answer.status == 200  # and its body is left
        lines.close()
        peer.join(DEADLINE_S)
    assert len(accepted) == 2


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(Answer(body=b"from the proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:pass%21word@"))
        monkeypatch.delenv("no_proxy", raising=False)
        lines = Lines("http://far.example/", connect_timeout_s=5, read_timeout_s=5)
        with lines.request("GET", "http://far.example/x", "do it", headers={}, body=b"", interrupt=NEVER) as answer:
            assert answer.body() == b"from the proxy"
        lines.close()
    assert proxy.asked[0].target == "http://far.example/x"
    assert {name.lower(): value for name, value in proxy.asked[0].headers.items()}["proxy-authorization"] == (
        "Basic bWU6cGFzcyF3b3Jk"
    )


@pytest.mark.parametrize("url", ["http://far.example/", "http://10.1.2.3/"])
def test_no_proxy_where_the_environment_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "no://such-proxy/")
    monkeypatch.setenv("no_proxy", ".example,10.0.0.0/8")
    Lines(url, connect_timeout_s=5, read_timeout_s=5).close()
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(BadRequest, match="proxy"):
        Lines(url, connect_timeout_s=5, read_timeout_s=5)


def says_nothing(server: socket.socket, told: threading.Event) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        told.set()
        while connection.recv(65536):
            pass


def end_when(told: threading.Event, interrupt: Interrupt) -> None:
    assert told.wait(DEADLINE_S)
    interrupt.set()


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 20)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_hangs_is_ended_at_once(method: str) -> None:
    """Waiting for an answer, or sending to somebody who reads no more."""
    interrupt, told = Interrupt(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = threading.Thread(target=says_nothing, args=(silent, told))
        peer.start()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        lines = Lines(url, connect_timeout_s=5, read_timeout_s=10 * DEADLINE_S)
        ender = threading.Thread(target=end_when, args=(told, interrupt))
        ender.start()
        body, headers = (endless(), {"Content-Length": str(1 << 60)}) if method == "POST" else (b"", {})
        with (
            pytest.raises(Interrupted),
            lines.request(method, url, "do it", headers=headers, body=body, interrupt=interrupt),
        ):
            pytest.fail("there is no answer")
        lines.close()
        for thread in (peer, ender):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


def test_a_cut_answer_is_told_from_a_line_that_was_never_there() -> None:
    with scripted(Answer(body=b"hal", announced_bytes=5)) as server:
        lines = Lines(server.url, connect_timeout_s=5, read_timeout_s=5)
        with (
            pytest.raises(BadTransfer, match="cut short"),
            lines.request("GET", server.url, "do it", headers={}, body=b"", interrupt=NEVER) as answer,
        ):
            answer.body()
        lines.close()


def test_a_server_behind_a_unix_socket(tmp_path: Path) -> None:
    """It is asked for the path behind its own, as `localhost`, and no proxy comes in between."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "lwr.sock"))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

        peer = threading.Thread(target=serve)
        peer.start()
        assert ask(f"unix:{tmp_path}/lwr.sock/managers/long/") == b"OK"
        peer.join(DEADLINE_S)
    assert heard[0].startswith(b"GET /managers/long/x HTTP/1.1\r\nHost: localhost\r\n")


def test_a_socket_without_a_server(tmp_path: Path) -> None:
    url = f"unix:{tmp_path}/lwr.sock/"
    with pytest.raises(PeerUnreachable, match=r"lwr\.sock.*No such file"):
        ask(url)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "lwr.sock"))
        with pytest.raises(PeerUnreachable, match="Connection refused"):
            ask(url)
