"""The secret: which requests it lets in, in which forms, and that it is never repeated."""

from __future__ import annotations

import pytest

from lwr.errors import NotAuthorized
from lwr.server.guard import Guard

SECRET = "s3cret-ü"

ADMITTED: list[tuple[list[str], dict[str, str]]] = [
    ([f"Bearer {SECRET}"], {}),
    ([f"bEARER   {SECRET} "], {}),
    ([], {"private_key": SECRET}),
    ([], {"private_token": SECRET}),
    ([f"Bearer {SECRET}"], {"private_key": SECRET, "private_token": SECRET}),
    (["Basic YTpi"], {"private_key": SECRET}),
]
REFUSED: list[tuple[list[str], dict[str, str]]] = [
    ([], {}),
    ([], {"key": SECRET, "Private_Key": SECRET, "private_key ": SECRET}),
    ([], {"private_key": ""}),
    ([], {"private_key": SECRET[:-1]}),
    ([], {"private_key": SECRET + "\0"}),
    ([], {"private_key": SECRET.upper()}),
    ([], {"private_key": "s3cret-u\u0308"}),
    ([], {"private_key": "x" * 1_000_000}),
    ([], {"private_key": "\ud800"}),
    ([SECRET], {}),
    (["Bearer"], {}),
    (["Bearer "], {}),
    ([f"Basic {SECRET}"], {}),
    (["Bearer wrong"], {"private_key": SECRET}),
    ([f"Bearer {SECRET}"], {"private_key": "wrong"}),
    ([], {"private_key": SECRET, "private_token": "wrong"}),
    ([f"Bearer {SECRET}", "Bearer wrong"], {}),
]


@pytest.mark.parametrize(("authorization", "query"), ADMITTED)
def test_the_secret_lets_in(authorization: list[str], query: dict[str, str]) -> None:
    Guard(SECRET).check(authorization, query)


@pytest.mark.parametrize(("authorization", "query"), REFUSED)
def test_everything_else_is_refused_without_an_echo(authorization: list[str], query: dict[str, str]) -> None:
    with pytest.raises(NotAuthorized) as refused:
        Guard(SECRET).check(authorization, query)
    told = str(refused.value)
    assert SECRET not in told
    assert "wrong" not in told
    assert refused.value.hint


def test_the_query_can_be_switched_off() -> None:
    guard = Guard(SECRET, query_secret=False)
    guard.check([f"Bearer {SECRET}"], {"private_key": "ignored then"})
    with pytest.raises(NotAuthorized):
        guard.check([], {"private_key": SECRET})


def test_without_a_secret_everybody_is_let_in() -> None:
    Guard("").check(["Bearer whatever"], {"private_key": "whatever"})


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:8913", True),
        ("LocalHost.:8913", True),
        ("127.0.0.1:8913", True),
        ("127.8.9.10", True),
        ("[::1]:8913", True),
        (None, True),
        ("", False),
        ("evil.example", False),
        ("evil.example:8913", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("192.168.1.1:8913", False),
        ("[2001:db8::1]", False),
        ("0.0.0.0:8913", False),
    ],
)
def test_names_that_lead_here_without_a_secret(host: str | None, known: bool) -> None:
    assert Guard("").knows_host(host) is known
    assert Guard(SECRET).knows_host(host)


@pytest.mark.parametrize(
    ("host", "sites", "origins", "foreign"),
    [
        ("localhost:8913", [], [], False),
        (None, [], [], False),
        ("localhost:8913", ["none"], [], False),
        ("localhost:8913", ["same-origin"], ["http://localhost:8913"], False),
        ("LocalHost:8913", [], ["https://localhost:8913"], False),
        ("[::1]:8913", [], ["http://[::1]:8913"], False),
        ("localhost:8913", ["cross-site"], [], True),
        ("localhost:8913", ["same-site"], [], True),
        ("localhost:8913", ["Cross-Site"], [], True),
        ("localhost:8913", ["same-origin", "cross-site"], [], True),
        ("localhost:8913", ["odd"], [], True),
        ("localhost:8913", [], ["http://evil.example"], True),
        ("localhost:8913", [], ["http://localhost:8000"], True),
        ("localhost:8913", [], ["http://localhost"], True),
        ("localhost:8913", [], ["http://127.0.0.1:8913"], True),
        ("localhost:8913", [], ["http://localhost:8913.evil.example"], True),
        ("localhost:8913", [], ["http://localhost:8913", "http://evil.example"], True),
        ("localhost:8913", ["same-origin"], ["null"], True),
        ("localhost:8913", [], [""], True),
        (None, [], ["null"], True),
        (None, [], ["http://localhost:8913"], True),
    ],
)
def test_requests_that_web_pages_make_without_a_secret(
    host: str | None, sites: list[str], origins: list[str], foreign: bool
) -> None:
    assert Guard("").is_cross_site(host, sites, origins) is foreign
    assert not Guard(SECRET).is_cross_site(host, sites, origins)
