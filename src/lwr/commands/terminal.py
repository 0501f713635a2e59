"""What the client's commands share: finding the server, and telling people and programs things.

Whatever a server says is shown without its control characters: it must not drive the terminal.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from rich.console import Console

from lwr.client import RemoteServer
from lwr.errors import BadRequest

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
    file = token_file or os.environ.get("LWR_TOKEN_FILE")
    if not token and file:
        token = _secret(Path(file))
    if manager:
        base = f"{base.rstrip('/')}/managers/{manager}/"
    return RemoteServer(base, token, memory=memory)


def _secret(path: Path) -> str:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadRequest(f"The token file {path} cannot be read: {reason}.", "Correct --token-file.") from error
    if not secret:
        raise BadRequest(f"The token file {path} is empty.", "Write the server's private_key into it.")
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
