"""Routes, and what a handler is given: `Route`, `Router`, `Call`. Decodes the request's target, and nothing else.

Every route is there twice: as it stands (the manager `_default_`) and below `/managers/NAME`. Parameters come from
the query only and are split at `&` only; the last of a name wins, and what stands in the path wins over the query.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

from aiohttp import web

from lwr.core.job import DEFAULT_MANAGER, JobKey, check_job_id, check_manager_name
from lwr.core.places import Area, resolve
from lwr.core.wire import FileKind
from lwr.errors import BadRequest, NotFound, RequestError
from lwr.server.guard import bearer
from lwr.server.http.answers import Refused

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]

_VARIABLES = ("{job_id}", "{upload}")


@dataclass(frozen=True, slots=True)
class Route:
    """A path and what answers there.

    Args:
        path: `{job_id}` may stand for its second segment, `{upload}` for its fourth.
        methods: those it takes; empty for any.
        classic: whether its readers know the words of LWR's classic routes only.
        open: answers without the secret.
        file: answers with a file's bytes, so that a stock client could take an error's page for the file.
    """

    path: str
    handler: Handler
    methods: frozenset[str] = frozenset()
    classic: bool = False
    open: bool = False
    file: bool = False


def route(methods: str, path: str, handler: Handler, *, open: bool = False, file: bool = False) -> Route:  # noqa: A002
    """A route for some methods, named with spaces between them; `GET` takes `HEAD` along."""
    taken = frozenset(methods.split())
    return Route(path, handler, taken | {"HEAD"} if "GET" in taken else taken, open=open, file=file)


@dataclass(frozen=True, slots=True)
class Call:
    """One admitted request: what a handler works with."""

    request: web.BaseRequest
    route: Route
    manager: str
    values: Mapping[str, str]  # decoded parameters, the path's among them

    def need(self, name: str) -> str:
        """A parameter that must be there; raises BadRequest."""
        try:
            return self.values[name]
        except KeyError:
            raise BadRequest(f"The parameter `{name}` is missing.", "Parameters are read from the query.") from None

    def count(self, name: str, default: int, most: int) -> int:
        """A parameter that is a whole number from 1 to `most`; raises BadRequest."""
        text = self.values.get(name, str(default))
        if not (text.isascii() and text.isdigit() and len(text) <= 18 and 1 <= int(text) <= most):
            raise BadRequest(f"The parameter `{name}` must be a whole number from 1 to {most}.")
        return int(text)

    @property
    def key(self) -> JobKey:
        """The job that is asked for; raises BadName or BadRequest."""
        return JobKey(self.manager, check_job_id(self.need("job_id")))

    @property
    def job(self) -> str | None:
        """The job that is asked for, as log lines name it; None without one, or with an id that cannot be one."""
        try:
            return str(self.key)
        except RequestError:
            return None

    def components(self, kind: FileKind, *, windows: bool) -> tuple[str, ...]:
        """The place that `name` means for that kind of file; raises BadName or BadRequest."""
        return resolve(kind.area, self.need("name"), nested=kind.nested, windows=windows)

    def is_glob(self, kind: FileKind) -> bool:
        return kind.area is Area.WORKING and not {"*", "?"}.isdisjoint(self.need("name"))

    @property
    def careful(self) -> bool:
        """Whether this reader can judge lengths, digests and errors: LWR's own clients and people with curl, not
        the stock clients (who take a short body for a whole one, or an error's page for the file)."""
        headers = self.request.headers
        return (
            self.request.method == "HEAD"
            or "Range" in headers
            or "Want-Repr-Digest" in headers
            or bearer(headers.get("Authorization", "")) is not None
        )


class Router:
    """Finds routes by path and method."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: dict[tuple[str, ...], list[Route]] = {}
        for each in routes:
            shape = tuple("{}" if part in _VARIABLES else part for part in each.path.strip("/").split("/"))
            self._routes.setdefault(shape, []).append(each)

    def find(self, method: str, path: str) -> tuple[Route, str, dict[str, str]]:
        """(route, manager, what stands in the path) for a path as it was sent, still encoded.

        Raises:
            NotFound: no such route. BadName: the manager's name cannot be one.
            Refused: the route is there, for other methods only.
        """
        segments = [decoded(part, plus=False) for part in path.split("/")[1:]]
        manager = DEFAULT_MANAGER
        if len(segments) > 2 and segments[0] == "managers":
            manager, segments = segments[1], segments[2:]
        found = self._routes.get(tuple(segments))
        in_path: dict[str, str] = {}
        if found is None and len(segments) > 1 and segments[1]:
            found = self._routes.get((segments[0], "{}", *segments[2:]))
            in_path = {"job_id": segments[1]}
            if found is None and len(segments) == 4 and segments[3]:
                found = self._routes.get((segments[0], "{}", segments[2], "{}"))
                in_path["upload"] = segments[3]
        if found is None:
            raise NotFound("There is nothing at this path.", "The routes stand in LWR's documentation.")
        check_manager_name(manager)
        for each in found:
            if not each.methods or method in each.methods:
                return each, manager, in_path
        allowed = ", ".join(sorted(frozenset[str]().union(*(each.methods for each in found))))
        raise Refused(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "method-not-allowed",
            f"This path takes {allowed} only.",
            headers={"Allow": allowed},
        )


def decode_query(query: str) -> dict[str, str]:
    """The parameters of a raw query. Raises BadRequest for what is not UTF-8."""
    parameters = {}
    for pair in query.split("&"):
        if pair:
            name, _, value = pair.partition("=")
            parameters[decoded(name)] = decoded(value)
    return parameters


def decoded(text: str, *, plus: bool = True) -> str:
    """Undo percent-encoding, and `+` for a blank unless told otherwise. Raises BadRequest for what is not UTF-8."""
    if plus:
        text = text.replace("+", " ")
    try:
        if "%" not in text:
            text.encode()
            return text
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        raise BadRequest("The request's path or query is not UTF-8.", "Percent-encode the UTF-8 of names.") from None
