"""Where a server is and with which secret it is asked, from what people write. Knows no connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lwr.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server is, and its secret (which `repr` does not show).

    Args:
        url: http or https, as people write it: `http://` may be missing, a path such as `/managers/NAME` is kept, and
            a secret in it (`https://SECRET@host/`, as old configurations have it) is taken out and used.

    Raises:
        BadRequest: the URL cannot be one of a server.
    """

    url: str
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        text = self.url if "://" in self.url else f"http://{self.url}"
        try:
            parts = urlsplit(text.removeprefix("lwr://"))
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not host:
            shown = self.url.rpartition("@")[2][:80]
            raise BadRequest(f"{shown!r} is not the URL of a server.", "It looks like http://host:8913/.")
        inside = unquote(parts.username or "")
        if any(not character.isprintable() for character in self.token or inside):
            raise BadRequest("The secret holds characters that cannot be sent.", "It is one line of printable text.")
        clean = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
        object.__setattr__(self, "url", clean.geturl().rstrip("/") + "/")
        object.__setattr__(self, "token", self.token or inside)
