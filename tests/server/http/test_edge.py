"""What holds for every request: secrets, hosts, limits, errors in one shape, log lines without secrets."""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from lwr import errors
from lwr.server import logs
from lwr.server.http.answers import STATUS, Refused
from lwr.server.http.edge import MAX_LINE_BYTES
from lwr.server.http.routing import Call, route
from tests.server.http.served import Served, edge_with, served
from tests.support import DEADLINE_S

SECRET = "open sesame/ü"
SENT = {"private_key": SECRET}
HEADER = {"Authorization": b"Bearer " + SECRET.encode()}


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, most of all at the level that says most."""
    stream = io.StringIO()
    before = structlog.get_config()
    logs.configure("json", "debug", stream=stream)
    yield stream
    structlog.configure(**before)


def test_the_secret_in_each_of_its_forms(locked: Served) -> None:
    for name in ("private_key", "private_token"):
        assert locked.ask("GET", "/jobs", query={name: SECRET}).status == 200
        assert locked.ask("GET", "/healthz", query={name: SECRET}).status == 200
    heard = locked.say(
        b"GET /jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nauthorization: bearer " + SECRET.encode() + b"\r\n\r\n"
    )
    assert heard.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/jobs"),
        ("GET", "/healthz"),
        ("POST", "/jobs?job_id=1"),
        ("GET", "/setup?job_id=1"),
        ("GET", "/managers/second/jobs/1/status"),
        ("GET", "/managers/nowhere/jobs/1/status"),
        ("GET", "/jobs/..%2f/status"),
        ("DELETE", "/jobs/1"),
        ("POST", "/jobs/1/files?name=x&type=input"),
        ("GET", "/jobs/1/files?name=x"),
        ("PUT", "/cache"),
    ],
)
def test_without_the_secret_nothing_is_told(locked: Served, method: str, target: str) -> None:
    before = sorted(locked.staging.rglob("*"))
    separator = "&" if "?" in target else "?"
    for extra in ("", f"{separator}private_key=", f"{separator}private_token=wrong"):
        answer = locked.ask(method, target + extra)
        answer.problem(401, "not-authorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert b"sesame" not in answer.body
    assert sorted(locked.staging.rglob("*")) == before


def test_what_needs_no_secret(locked: Served) -> None:
    assert locked.ask("GET", "/livez").json() == {"status": "ok"}
    assert locked.ask("GET", "/readyz").json() == {"status": "ok"}
    locked.ask("GET", "/nothing").problem(404, "not-found")
    locked.ask("PATCH", "/jobs").problem(405, "method-not-allowed")


def test_other_methods_of_rest_routes(server: Served) -> None:
    for method, path, allowed in [
        ("GET", "/jobs/1/submit", "POST"),
        ("POST", "/jobs/1/cancel", "PUT"),
        ("TRACE", "/jobs/1", "DELETE, GET, HEAD"),
        ("TRACE", "/jobs/1/files", "GET, HEAD, OPTIONS, POST, PUT"),
        ("PUT", "/managers/second/jobs", "GET, HEAD, POST"),
    ]:
        answer = server.ask(method, path, headers={"X-HTTP-Method-Override": "POST"})
        answer.problem(405, "method-not-allowed")
        assert answer.headers["Allow"] == allowed
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_names_that_a_web_page_could_give_this_server(server: Served, locked: Served) -> None:
    server.ask("GET", "/jobs", headers={"Host": "evil.example"}).problem(421, "foreign-host")
    assert server.ask("GET", "/jobs", headers={"Host": "localhost:1"}).status == 200
    assert locked.ask("GET", "/jobs", headers={"Host": "lwr.example"}, query=SENT).status == 200


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}]
)
def test_a_web_page_cannot_run_anything_through_a_browser(
    server: Served, locked: Served, job_id: str, headers: dict[str, str]
) -> None:
    before = sorted(server.staging.rglob("*"))
    query = {"job_id": job_id, "command_line": "echo"}
    for target in ("/setup", "/launch", "/jobs"):
        server.ask("GET", target, headers=headers, query=query).problem(403, "cross-site")
    server.ask("POST", "/jobs", headers=headers, query=query).problem(403, "cross-site")
    assert sorted(server.staging.rglob("*")) == before
    assert locked.ask("GET", "/jobs", headers=headers, query=SENT).status == 200


def test_this_server_in_a_browser(server: Served) -> None:
    own = "http://{}:{}".format(*server.address)
    assert server.ask("GET", "/jobs", headers={"Sec-Fetch-Site": "none"}).status == 200
    assert server.ask("GET", "/jobs", headers={"Sec-Fetch-Site": "same-origin", "Origin": own}).status == 200


def test_log_lines_name_the_job(tmp_path: Path, log: io.StringIO) -> None:
    with served(tmp_path) as server:
        server.ask("GET", "/jobs/17/status")
        server.ask("POST", "/managers/second/jobs/17/submit?command_line=x")
        server.ask("GET", "/check_complete?job_id=18")
        server.ask("GET", "/jobs/..%0aodd/status")
        server.ask("GET", "/livez")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    named = [line.get("job") for line in lines if line["event"].startswith("request")]
    assert named == ["17", "second/17", "18", None, None]


def test_no_secret_in_the_log_or_in_an_answer(tmp_path: Path, log: io.StringIO) -> None:
    with served(tmp_path, secret="sesame-sesame") as locked:
        query = {"private_key": "sesame-sesame", "job_id": "1"}
        bodies = [
            locked.ask("GET", path, query=query).body
            for path in ("/jobs", "/setup", "/nothing", "/jobs/2", "/cache_required", "/jobs/1/submit", "/launch")
        ]
        wrong = locked.ask("GET", "/jobs", query={"private_token": "sesame-almost"})
        header = locked.ask("GET", "/jobs/1", headers={"Authorization": "Bearer sesame-header"})
        assert (wrong.status, header.status) == (401, 401)
        assert not any(b"sesame" in body for body in [*bodies, wrong.body, header.body])
    assert "sesame" not in log.getvalue()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    refused = [line for line in lines if line["event"] == "request refused"]
    assert {(line["status"], line["code"]) for line in refused} >= {(401, "not-authorized"), (404, "not-found")}
    assert all(line["request"] and line["path"].startswith("/") for line in refused)


def test_a_log_line_cannot_be_forged(tmp_path: Path, log: io.StringIO) -> None:
    with served(tmp_path) as server:
        server.setup("1")
        server.ask("GET", "/jobs/%0a%1b[31mforged/status")
        server.ask("GET", "/jobs/1/files", query={"name": "a\n\x1b[31mforged"}, headers={"Range": "bytes=0-"})
    lines = log.getvalue().splitlines()
    assert sum("forged" in line for line in lines) == 2
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "\x1b" not in log.getvalue()


def test_request_lines_and_headers_that_are_too_long(server: Served) -> None:
    close = b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    fits = server.say(b"GET /nothing?" + b"x" * 2 * 1024 * 1024 + close + b"\r\n")
    assert fits.startswith(b"HTTP/1.1 404 ")
    long = server.say(b"GET /nothing?" + b"x" * (MAX_LINE_BYTES + 1) + close + b"\r\n")
    assert b"too-large" in long
    assert long.split(b" ")[1] == b"414"
    header = server.say(b"GET /livez" + close + b"X: " + b"y" * 100_000 + b"\r\n\r\n")
    assert header.split(b" ")[1] == b"414"
    many = server.say(b"GET /livez" + close + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n")
    assert many.split(b" ")[1] == b"400"


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00" * 50, b"\0\r\n\r\n"]
)
def test_what_is_no_http(server: Served, data: bytes) -> None:
    assert b'"code": "bad-request"' in server.say(data)
    assert server.ask("GET", "/livez").status == 200


@given(
    st.binary(min_size=1, max_size=60).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b"").replace(b" ", b""))
)
def test_any_target_gets_an_answer(server: Served, target: bytes) -> None:
    heard = server.say(b"GET /" + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert heard.split(b" ")[1] in (b"200", b"400", b"404", b"405"), heard


def test_200_slow_connections_do_not_stop_the_probe(server: Served) -> None:
    server.setup("slow")
    head = b"POST /jobs/slow/files?name=x%d&type=input HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"
    with ExitStack() as sockets:
        for number in range(200):
            raw = sockets.enter_context(socket.create_connection(server.address, timeout=DEADLINE_S))
            raw.sendall(head % number if number % 2 else b"GET /live")
        assert server.ask("GET", "/livez").status == 200
        assert server.ask("GET", "/readyz").status == 200
        assert server.ask("POST", "/jobs/slow/files?name=quick&type=input", b"quick").status == 200
    server.ask("DELETE", "/jobs/slow")


def test_each_error_of_lwr_has_a_status() -> None:
    pending = [errors.LwrError]
    while pending:
        kind = pending.pop()
        pending += kind.__subclasses__()
        refused = Refused.by(kind("It went wrong.", "Mend it."))
        assert 400 <= refused.status < 600
        assert issubclass(kind, errors.RequestError) <= (refused.status < 500), kind
        assert (refused.detail, refused.hint) == ("It went wrong.", "Mend it.")
    assert set(STATUS) <= {errors.LwrError, *_all_below(errors.LwrError)}


def _all_below(kind: type[errors.LwrError]) -> set[type[errors.LwrError]]:
    return {each for below in kind.__subclasses__() for each in {below, *_all_below(below)}}


def test_a_full_disk_has_its_own_status() -> None:
    error = errors.Unavailable("The disk is full.")
    error.__cause__ = OSError(28, "No space left on device")
    assert Refused.by(error).status == 507


def test_a_defect_is_told_by_its_number_and_logged_with_its_trace(log: io.StringIO) -> None:
    async def broken(_: Call) -> web.StreamResponse:
        raise ZeroDivisionError("details for the log only")

    async def ask() -> tuple[int, bytes]:
        async with edge_with(lambda _: [route("GET", "/broken/{job_id}", broken)]) as (_, get):
            return await get("/broken/17")

    status, body = asyncio.run(ask())
    told = json.loads(body)
    assert (status, told["code"]) == (500, "internal-error")
    assert b"details" not in body
    logged = [json.loads(line) for line in log.getvalue().splitlines()]
    failed = next(line for line in logged if line["event"] == "request failed")
    assert (failed["request"], failed["job"]) == (told["request_id"], "17")
    assert "ZeroDivisionError" in failed["exception"]
