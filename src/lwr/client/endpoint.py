"""Where a server is and with which secret it is asked, from what people write. Knows no connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lwr.errors import BadRequest

#: The first part of the path that ends with `.sock` is the socket; what stands behind it is the server's own.
_UNIX = re.compile(r"unix:(/.*?\.sock)(?:/.*)?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and its secret (which `repr` does not show).

    Args:
        url: http or https, as people write it: `http://` may be missing, a path such as `/managers/NAME` is kept, and
            a secret in it (`https://SECRET@host/`, as old configurations have it) is taken out and used. Or the
            socket of a server that opens no port, `unix:/srv/lwr/lwr.sock`, with such a path behind it or not.

    Raises:
        BadRequest: the URL cannot be one of a server.
    """

    url: str
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        clean, inside = (self.url, "") if socket_of(self.url) else _without_secret(self.url)
        if any(not character.isprintable() for character in self.token or inside):
            raise BadRequest("The secret holds characters that cannot be sent.", "It is one line of printable text.")
        object.__setattr__(self, "url", clean.rstrip("/") + "/")
        object.__setattr__(self, "token", self.token or inside)


def socket_of(url: str) -> str:
    """The path of the Unix socket that a URL names; empty when it names none."""
    found = _UNIX.fullmatch(url)
    return found[1] if found else ""


def _without_secret(url: str) -> tuple[str, str]:
    """An http or https URL as it is used, and the secret that stood in it."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text.removeprefix("lwr://"))
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host or url.startswith("unix:/"):
        shown = url.rpartition("@")[2][:80]
        raise BadRequest(
            f"{shown!r} is not the URL of a server.", "It looks like http://host:8913/ or unix:/srv/lwr/lwr.sock."
        )
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return clean.geturl(), unquote(parts.username or "")
