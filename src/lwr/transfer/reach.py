"""What a job may make this server reach: URLs, the addresses behind them, and paths on this machine.

A value made from the configuration; without rules of the admin it allows http and https to anywhere and any path, as
a job that runs here could go there itself. Looks at names and addresses only: who connects asks about the host and
about the very address that is connected to (`lwr.transfer.lines`). Must not resolve, connect or open anything.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from lwr.core.receipt import without_secrets
from lwr.errors import BadRequest, ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BLANK_OR_BACKSLASH = re.compile(r"[\s\\]")
_END_OF_HOST = re.compile(r"[/?#]")
#: What this server can speak, whatever is allowed.
_SPOKEN = frozenset({"http", "https"})


class Reach:
    """Never changes; for any number of threads.

    Args:
        schemes, hosts, networks, roots: as in server.ini: `staging_url_schemes`, `staging_url_hosts`,
            `staging_url_networks` and `remote_copy_roots`. Empty: no such rule.

    Raises:
        ConfigError: a network that is none.
    """

    __slots__ = ("_hosts", "_networks", "_roots", "_schemes")

    def __init__(
        self,
        schemes: Iterable[str] = ("http", "https"),
        hosts: Iterable[str] = (),
        networks: Iterable[str] = (),
        roots: Iterable[str] = (),
    ) -> None:
        self._schemes = frozenset(scheme.lower() for scheme in schemes)
        self._hosts = tuple(_plain_host(host) for host in hosts)
        self._networks = tuple(_network(text) for text in networks)
        self._roots = tuple(os.path.realpath(root) for root in roots)

    @property
    def judges_addresses(self) -> bool:
        """Whether addresses are limited. Then nobody else may resolve names for us: no proxy."""
        return bool(self._networks)

    def check_url(self, url: str) -> Url:
        """What the URL is made of, if its scheme and host are allowed. The same parser makes the connection.

        Raises:
            BadRequest: it is not allowed, or is no URL.
        """
        # urllib3 would quote control characters; no two programs read blanks and backslashes in a host alike.
        scheme, _, rest = url.partition("://")
        if _CONTROL.search(url) or _BLANK_OR_BACKSLASH.search(_END_OF_HOST.split(rest, maxsplit=1)[0]):
            raise BadRequest("The URL of a file holds characters that no URL may hold.", "Percent-encode them.")
        scheme = scheme.lower()
        if scheme not in self._schemes & _SPOKEN:
            raise BadRequest(
                f"This server moves no files by {shown(url)}: its scheme is not one of those that are allowed.",
                f"Its admin may add it to {_line('staging_url_schemes')}."
                if scheme in _SPOKEN
                else "Give it an http or https URL.",
            )
        try:
            parts = parse_url(url)
        except LocationParseError:
            parts = Url()
        if not parts.host:
            raise BadRequest("The URL of a file has no host, or one that cannot be read.", "Write scheme://host/path.")
        self.check_host(parts.host)
        return parts

    def check_host(self, host: str) -> None:
        """Raises BadRequest when no file may be fetched from or delivered to this host, given by name or address."""
        plain = _plain_host(host)
        if self._hosts and not any(fnmatchcase(plain, allowed) for allowed in self._hosts):
            raise BadRequest(
                f"This server may not move files from or to the host {plain}.",
                f"Its admin may add it to {_line('staging_url_hosts')}.",
            )

    def check_address(self, host: str, address: str) -> None:
        """The same for the address (as text) that a connection to `host` is made to."""
        if not self._networks:
            return
        found = ipaddress.ip_address(address.partition("%")[0])
        # That is what a connection to it reaches.
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        if not any((mapped or found) in network for network in self._networks):
            raise BadRequest(
                f"This server may not move files from or to {_plain_host(host)}: its address {address} is in none of "
                "the networks that are allowed.",
                f"Its admin may add one to {_line('staging_url_networks')}.",
            )

    def check_path(self, path: str, writing: bool) -> str:
        """The real path of a file on this machine, if it lies below a root that is allowed.

        Links in it are followed, but for the last name of one that is written: that will be replaced. What is not
        there yet stays as it is. Who can change directories below a root can lead elsewhere afterwards.

        Raises:
            BadRequest: it is not allowed, or not absolute.
        """
        if not os.path.isabs(path) or "\0" in path:
            raise BadRequest(f"{path[:200]!r} is no absolute path, so it names no file of this machine.")
        above, name = os.path.split(path.rstrip("/"))
        real = os.path.join(os.path.realpath(above), name) if writing and name not in ("", ".", "..") else None
        real = real or os.path.realpath(path)
        if self._roots and not any(os.path.commonpath((root, real)) == root for root in self._roots):
            raise BadRequest(
                f"This server may not copy from or to {path[:200]!r}.",
                f"Its admin may add a directory above it to {_line('remote_copy_roots')}.",
            )
        return real


def shown(url: str) -> str:
    """A URL as it may be shown: without secrets, and not at length."""
    try:
        return without_secrets(url)[:300]
    except ValueError:
        return "a URL that cannot be read"


def _plain_host(host: str) -> str:
    return host.lower().rstrip(".").removeprefix("[").removesuffix("]")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} in `staging_url_networks` is no network: {error}.", "Write it like 10.0.0.0/8."
        ) from error


def _line(option: str) -> str:
    return f"`{option}` in [app:main] of server.ini"
