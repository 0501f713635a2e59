"""Connections: only LWR's errors come out, many threads share them, and whatever hangs can be ended at once."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Iterator

import pytest
from urllib3 import exceptions

from lwr.client.lines import Lines, foreign
from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.interrupt import Interrupt, Interrupted
from tests.client.scripted import Answer, scripted
from tests.support import DEADLINE_S

ASKED = "Could not do it: "
NEVER = Interrupt()
ALL = [
    error
    for error in vars(exceptions).values()
    if inspect.isclass(error) and issubclass(error, exceptions.HTTPError) and not issubclass(error, Warning)
]
MAY_PASS = {"PoolError", "RequestError", "ProxyError", "ProtocolError", "TimeoutError", "ReadTimeoutError",
            "ConnectTimeoutError", "NewConnectionError", "NameResolutionError", "EmptyPoolError", "FullPoolError",
            "ClosedPoolError", "MaxRetryError", "HostChangedError", "ResponseNotChunked"}  # fmt: skip
OURS = {"LocationValueError", "LocationParseError", "URLSchemeUnknown", "InvalidHeader", "ProxySchemeUnknown"}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.__name__))
def test_every_error_of_urllib3_is_one_of_ours(kind: type[exceptions.HTTPError]) -> None:
    raised = kind.__new__(kind)
    expected: type[LwrError] = PeerRefused
    if kind.__name__ in MAY_PASS:
        expected = PeerUnreachable
    elif kind.__name__ in OURS:
        expected = BadRequest
    error = foreign(raised, "do it", "http://h/")
    assert type(error) is expected
    assert error.transient == (kind.__name__ in MAY_PASS)
    assert error.message.startswith(ASKED)


def test_the_reason_is_the_innermost_one() -> None:
    raised = exceptions.ProtocolError("long and ugly")
    raised.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert "(Connection reset by peer)" in foreign(raised, "do it", "http://h/").message


def test_a_certificate_that_nobody_vouches_for_is_not_tried_again() -> None:
    error = foreign(exceptions.SSLError("self-signed certificate"), "do it", "https://h/")
    assert not error.transient
    assert "REQUESTS_CA_BUNDLE" in error.hint


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
