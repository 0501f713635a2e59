"""What the edge answers with: JSON, `OK`, and errors as problem+json (RFC 9457), in every dialect alike.

One table maps LWR's errors to statuses. Must not know routes or the engine.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from lwr import errors

#: Tus has a status of its own, in no other standard.
CHECKSUM_MISMATCH = 460

#: By class; the nearest base counts.
STATUS: dict[type[errors.LwrError], HTTPStatus] = {
    errors.RequestError: HTTPStatus.BAD_REQUEST,
    errors.NotAuthorized: HTTPStatus.UNAUTHORIZED,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.DigestMismatch: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.LwrError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class Refused(Exception):
    """An answer that says no, ready to be sent: what every error becomes, and what handlers raise where LWR's error
    tree has no word for it.

    Args:
        code: stable, for programs. detail: a sentence. hint: what to do now.
        headers: go with it.
        members: more of the document, for programs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    @classmethod
    def by(cls, error: errors.LwrError) -> Refused:
        """What an error of LWR's means over HTTP; a full disk has a status of its own."""
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            status: int = HTTPStatus.INSUFFICIENT_STORAGE
        else:
            status = next(STATUS[base] for base in type(error).__mro__ if base in STATUS)
        return cls(status, error.code, error.message, error.hint)

    @classmethod
    def no_cache(cls) -> Refused:
        """What is said to everybody who speaks of cached files."""
        return cls(
            HTTPStatus.NOT_FOUND,
            "cache-not-configured",
            "This server keeps no cache of input files.",
            "Switch the client's cache off: it then uploads each file to its job.",
        )

    def problem(self, request_id: str) -> web.Response:
        """The answer as problem+json."""
        title = "Checksum Mismatch" if self.status == CHECKSUM_MISMATCH else HTTPStatus(self.status).phrase
        answer = web.Response(
            body=json.dumps(
                {
                    "type": "about:blank",
                    "title": title,
                    "status": int(self.status),
                    "code": self.code,
                    "detail": self.detail,
                    "hint": self.hint,
                    "request_id": request_id,
                    **self.members,
                }
            ).encode(),
            status=self.status,
            reason=title,
            headers=self.headers,
            content_type="application/problem+json",
        )
        if self.status == HTTPStatus.UNAUTHORIZED:
            answer.headers["WWW-Authenticate"] = 'Bearer realm="LWR"'
        return answer


def json_answer(value: object, *, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(value).encode(), status=status, content_type="application/json")


def ok() -> web.Response:
    """The two bytes that old clients know."""
    return web.Response(body=b"OK", content_type="text/plain")
