"""From a request's target to a route and its parameters."""

from __future__ import annotations

import pytest
from aiohttp import web

from lwr.errors import BadName, BadRequest, NotFound
from lwr.server.http.answers import Refused
from lwr.server.http.routing import Call, Route, Router, decode_query, route


async def _nothing(_: Call) -> web.StreamResponse:
    return web.Response()


ROUTER = Router(
    [
        route("GET", "/jobs", _nothing),
        route("POST", "/jobs", _nothing),
        route("GET", "/jobs/{job_id}/files/path", _nothing),
        Route("/setup", _nothing, classic=True),
    ]
)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2", {"a": "2"}),
        ("a=x;b=y&c", {"a": "x;b=y", "c": ""}),
        ("a=x+y%2Bz%20", {"a": "x y+z "}),
        ("a=b=c&&d=", {"a": "b=c", "d": ""}),
        ("na%6De=%C3%BC%00", {"name": "ü\0"}),
        ("a=%", {"a": "%"}),
        ("a=%zz%41", {"a": "%zzA"}),
        ("a=ü", {"a": "ü"}),
    ],
)
def test_parameters_are_split_at_ampersands_and_decoded(query: str, parameters: dict[str, str]) -> None:
    assert decode_query(query) == parameters


@pytest.mark.parametrize("query", ["a=%ff", "%c3=1", "a=%ed%a0%80", "a=\udcff", "a=%c0%ae", "a=\udcff%41"])
def test_what_is_not_utf_8_is_refused(query: str) -> None:
    with pytest.raises(BadRequest):
        decode_query(query)


def test_each_route_is_there_for_the_default_manager_and_below_managers() -> None:
    assert ROUTER.find("GET", "/jobs")[1:] == ("_default_", {})
    assert ROUTER.find("GET", "/managers/long/jobs")[1:] == ("long", {})
    found, manager, in_path = ROUTER.find("GET", "/managers/a%2Eb/jobs/1%2B+/files/path")
    assert (found.path, manager, in_path) == ("/jobs/{job_id}/files/path", "a.b", {"job_id": "1++"})


@pytest.mark.parametrize(
    "path", ["/", "", "/job", "/jobs/", "/jobs//files/path", "/setup/", "//jobs", "/managers/x", "/managers/x/", "*"]
)
def test_other_paths_are_not_there(path: str) -> None:
    with pytest.raises(NotFound):
        ROUTER.find("GET", path)


def test_a_name_that_no_manager_can_have() -> None:
    for name in ("%2e%2e", "a%2Fb", "%00", "x" * 65):
        with pytest.raises(BadName):
            ROUTER.find("GET", f"/managers/{name}/jobs")


def test_other_methods_are_told_which_there_are() -> None:
    with pytest.raises(Refused) as refused:
        ROUTER.find("DELETE", "/jobs")
    assert (refused.value.status, refused.value.headers) == (405, {"Allow": "GET, HEAD, POST"})
    assert ROUTER.find("HEAD", "/jobs")[0].methods == {"GET", "HEAD"}
    for method in ("GET", "PUT", "TRACE", "WHATEVER"):
        assert ROUTER.find(method, "/setup")[0].classic
