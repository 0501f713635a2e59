"""What the client's commands share: finding the server, and telling people and programs things.

Whatever a server says is shown without its control characters: it must not drive the terminal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rich.console import Console

from lwr.client import RemoteServer
from lwr.errors import BadRequest

if TYPE_CHECKING:
    from lwr.client.mq import QueueServer

DEFAULT_URL = "http://localhost:8913/"

#: States and the colour they are shown in.
COLOURS = {"complete": "green", "running": "cyan", "failed": "red", "lost": "red", "cancelled": "yellow"}


def connect(
    url: str | None,
    token_file: str | None,
    *,
    manager: str | None = None,
    token: str = "",
    memory: Path | None = None,
) -> RemoteServer:
    """The server that the options name, else the environment (LWR_URL, LWR_TOKEN_FILE), else this machine's.

    `memory` is as `RemoteServer` has it.

    Raises:
        BadRequest: the file with the secret cannot be read or is empty, or the URL is none.
    """
    base = url or os.environ.get("LWR_URL") or DEFAULT_URL
    token = token or _given_secret(token_file)
    if manager:
        base = f"{base.rstrip('/')}/managers/{manager}/"
    return RemoteServer(base, token, memory=memory)


def named_broker(url: str | None) -> str:
    """The URL of the broker, if the option or else LWR_URL is one of a broker; empty if it is one of a server."""
    base = url or os.environ.get("LWR_URL") or ""
    scheme, slashes, _ = base.lower().partition("://")
    if not slashes or scheme in ("http", "https"):
        return ""
    from lwr.config.queue_options import BROKER_SCHEMES  # not for those who speak HTTP: it takes a moment

    return base if scheme in BROKER_SCHEMES else ""


def connect_queue(
    url: str, token_file: str | None, options: Sequence[str], *, job_id: str, manager: str | None
) -> QueueServer:
    """The server behind a broker, for one job, told on a queue of the job's own.

    Args:
        token_file: holds the password of a URL that has a user and none (default: LWR_TOKEN_FILE).
        options: `NAME=VALUE`, `amqp_*` options as in server.ini.

    Raises:
        BadRequest, ConfigError: one of them cannot be used, or kombu is not installed.
    """
    from lwr.config.queue import broker_options

    values = dict(_setting(text) for text in options)
    broker = broker_options(_with_password(url, token_file), values, directory=Path.cwd())
    from lwr.client.mq import QueueServer, reply_name  # needs kombu, which only now is known to be there

    return QueueServer(broker, manager=manager or "_default_", reply=reply_name(job_id))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadRequest(f"--amqp {name[:40]!r} is not NAME=VALUE.", "For example connect_ssl_ca_certs=ca.pem.")
    return name, value


def _with_password(url: str, token_file: str | None) -> str:
    scheme, slashes, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    if not at or ":" in user or ";" in url:
        return url  # it has its password, or nobody logs in, or who is meant is not clear
    password = quote(_given_secret(token_file), safe="")
    return f"{scheme}{slashes}{user}:{password}@{place}" if password else url


def _given_secret(token_file: str | None) -> str:
    """What is in the file that the option names, else the environment; empty when neither does."""
    file = token_file or os.environ.get("LWR_TOKEN_FILE")
    return _secret(Path(file)) if file else ""


def _secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRequest(f"The token file {path} cannot be read: {reason}.", "Correct --token-file.") from error
    if not secret:
        raise BadRequest(
            f"The token file {path} is empty.",
            "Write the secret into it: the server's private_key, or the broker's password.",
        )
    return secret


def for_people() -> Console:
    """Where progress and remarks go: stderr, so that stdout stays the command's own."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """Text of another machine without control characters (line ends and tabs become blanks)."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "?" for c in text)


def size(count_bytes: int) -> str:
    """A size for people: `17 bytes`, `1.2 MB`."""
    if count_bytes < 1000:
        return f"{count_bytes} bytes"
    power = min(4, (len(str(count_bytes)) - 1) // 3)
    return f"{count_bytes / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def duration(seconds: float) -> str:
    """A duration for people: `4 ms`, `3.2 s`, `2 min 5 s`, `3 h 20 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def moment(at: float | None, now: float) -> str:
    """A time (seconds since the epoch) for people: how long ago, or the date when that is days."""
    if at is None:
        return "-"
    ago = max(0.0, now - at)
    for limit_s, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (48 * 3600, 3600, "h")):
        if ago < limit_s:
            return f"{ago / unit_s:.0f} {unit} ago"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))
