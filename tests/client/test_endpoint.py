"""URLs of servers as people write them, and secrets that can be sent."""

from __future__ import annotations

import pytest

from lwr.client.endpoint import Endpoint, socket_of
from lwr.errors import BadRequest


@pytest.mark.parametrize(
    ("typed", "url", "token"),
    [
        ("host:8913", "http://host:8913/", ""),
        ("https://host/managers/long", "https://host/managers/long/", ""),
        ("http://host/?x=1#y", "http://host/", ""),
        ("lwr://http://host:8913/", "http://host:8913/", ""),
        ("https://s%20e@host:1/x/", "https://host:1/x/", "s e"),
        ("unix:/srv/lwr.sock", "unix:/srv/lwr.sock/", ""),
        ("unix:/a.socks/b %41?.sock/managers/long/", "unix:/a.socks/b %41?.sock/managers/long/", ""),
    ],
)
def test_urls_as_people_write_them(typed: str, url: str, token: str) -> None:
    endpoint = Endpoint(typed)
    assert (endpoint.url, endpoint.token) == (url, token)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "http://",
        "ftp://host/",
        "http://host:port/",
        "http://secret@:1/",
        "file:///etc/passwd",
        "unix:lwr.sock",
        "unix:/srv/lwr",
        "unix:/srv/lwr.socket/x",
    ],
)
def test_what_is_no_url_of_a_server(typed: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Endpoint(typed)
    assert "secret" not in str(caught.value)


def test_a_secret_of_two_lines_is_refused() -> None:
    with pytest.raises(BadRequest) as caught:
        Endpoint("http://host/", "geheim\nzwei")
    assert "geheim" not in str(caught.value)


def test_a_secret_is_not_shown() -> None:
    assert "geheim" not in repr(Endpoint("http://geheim@host/"))


def test_the_socket_in_a_url() -> None:
    assert socket_of("unix:/a.socks/b %41?.sock/managers/x.sock/") == "/a.socks/b %41?.sock"
    assert socket_of("http://host/lwr.sock") == ""
