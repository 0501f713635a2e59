"""One exchange between a test and Galaxy's test server: what was seen of it, and how it can end other than well."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

Kind = Literal["files", "tus", "other"]


@dataclass
class Seen:
    """One request as it came, and what became of it so far. `target` is path and query as they stood on the wire.

    `path` is the Galaxy path that it is about, decoded. The bytes are those of the file: no headers, no framing; sent
    ones may still lie in a buffer when the line is cut, and of a form that is cut the last piece is not counted.
    `status` is 0 until the answer began.
    """

    method: str
    target: str
    kind: Kind
    path: str
    headers: tuple[tuple[str, str], ...]
    status: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class RefusedError(Exception):
    """An answer other than the wanted one, in Galaxy's form."""

    def __init__(self, status: int, err_code: int, err_msg: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(err_msg)
        self.status = status
        self.told = {"err_msg": err_msg, "err_code": err_code}
        self.headers = dict(headers or {})


Handler = Callable[[web.BaseRequest, Seen], Awaitable[web.StreamResponse]]
