"""Who may ask this server for anything: the one secret, and the names it goes by in a browser.

Compares digests of equal length in constant time, so that neither a secret's length nor its beginning shows. Must not
know routes, and never puts a secret into a message.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256

from lwr.config import is_loopback
from lwr.errors import NotAuthorized

#: LWR's and Pulsar's name for the secret in the query.
QUERY_NAMES = ("private_key", "private_token")


#: What browsers say of requests that no other page made: a page of this server, or whoever typed the address.
_OWN_SITES = ("same-origin", "none")


class Guard:
    """Knows the secret; an empty one lets everybody in.

    Args:
        secret: `private_key` of the configuration.
        query_secret: whether the secret is also taken from the query, as stock clients send it.
        browsers: whether a browser can reach this server at all; none can speak to a Unix socket.
    """

    def __init__(self, secret: str, *, query_secret: bool = True, browsers: bool = True) -> None:
        self._expected = _digest(secret) if secret else b""
        self._wary = browsers and not secret
        self._query_names = QUERY_NAMES if query_secret else ()

    def check(self, authorization: Iterable[str], query: Mapping[str, str]) -> None:
        """Return if the request may go on. Every secret that it carries must be the right one.

        Args:
            authorization: all `Authorization` fields; other schemes than Bearer are somebody else's.
            query: the decoded parameters.

        Raises:
            NotAuthorized: no secret, a wrong one, or two that differ.
        """
        if not self._expected:
            return
        carried = [secret for field in authorization if (secret := bearer(field)) is not None]
        carried += [query[name] for name in self._query_names if name in query]
        if not carried:
            raise NotAuthorized(
                "This server wants a secret, and the request carries none.",
                "Send `Authorization: Bearer SECRET` with the server's private_key.",
            )
        if not all(hmac.compare_digest(_digest(secret), self._expected) for secret in carried):
            raise NotAuthorized(
                "The secret is not this server's.", "Compare it with private_key in the server's server.ini."
            )

    def knows_host(self, host: str | None) -> bool:
        """Whether a request that names this host may be answered.

        Without a secret only this machine is served, and a web page that was opened here must not reach the server
        through a name of its own that resolves to loopback. No `Host` at all (HTTP/1.0): not a browser.
        """
        if not self._wary or host is None:
            return True
        name = host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        return is_loopback(name.removesuffix("."))

    def is_cross_site(self, host: str | None, fetch_sites: Iterable[str], origins: Iterable[str]) -> bool:
        """Whether a web page of somebody else made a browser send this, to a server that wants no secret.

        A page cannot read such an answer, but the request alone could run a command. Clients that are no browsers
        send neither header.

        Args:
            host: the `Host` field; fetch_sites, origins: all `Sec-Fetch-Site` and `Origin` fields.
        """
        if not self._wary:
            return False
        own = (host or "").lower()
        return any(site.lower() not in _OWN_SITES for site in fetch_sites) or any(
            # `null` has no host: a sandboxed page or a file is a stranger too.
            origin.lower().partition("://")[2] != own or not own
            for origin in origins
        )


def bearer(field: str) -> str | None:
    """The secret in an `Authorization` field; None when it is of another scheme."""
    scheme, _, secret = field.strip().partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
