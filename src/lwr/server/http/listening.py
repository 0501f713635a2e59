"""Where the server can be reached: a TCP port, or a Unix socket in its own directory where no port is to be open.

Must not know what is served there.
"""

from __future__ import annotations

import os
import socket
import ssl
import stat
from pathlib import Path

from aiohttp import web

from lwr.errors import ConfigError

SOCKET_NAME = "lwr.sock"

_BACKLOG_CONNECTIONS = 1024
#: What every system can keep of a socket's path: Linux 107 bytes, BSD and macOS 103.
_LONGEST_PATH_BYTES = 103


async def open_port(
    runner: web.BaseRunner, host: str, port: int, tls: ssl.SSLContext | None
) -> tuple[web.BaseSite, str]:
    """Listen on a port (0: a free one); returns the site and the server's URL. Raises ConfigError."""
    site = web.TCPSite(runner, host.strip("[]"), port, ssl_context=tls, backlog=_BACKLOG_CONNECTIONS)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"Port {port} of {host} cannot be listened on: {error.strerror or error}.",
            "Another server may run there; set `port` or `host` in [server:main].",
        ) from error
    bound = runner.addresses[0][1]
    shown = f"[{host.strip('[]')}]" if ":" in host else host
    return site, f"{'https' if tls else 'http'}://{shown}:{bound}/"


async def open_socket(runner: web.BaseRunner, directory: Path) -> tuple[web.BaseSite, str]:
    """Listen on the socket `lwr.sock` in `directory`, which only this user may connect to; returns the site and the
    URL. One that a server left there which was killed is replaced: `directory` must be this server's alone.

    Raises:
        ConfigError: the path is too long, is something else, or the platform has no such sockets.
    """
    path = directory / SOCKET_NAME
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("host = none needs Unix sockets, which this platform lacks.", "Set host = localhost.")
    if len(os.fsencode(path)) > _LONGEST_PATH_BYTES:
        raise ConfigError(
            f"The path of the socket {path} is longer than {_LONGEST_PATH_BYTES} bytes, which systems cannot keep.",
            "Give persistence_directory a shorter path, or set host = localhost.",
        )
    # A socket has its mode only after it is there, and the umask is of all threads. So it is made behind a door that is
    # shut to others, and gets its name when it has its mode and listens. This path is no longer than the last one.
    room = directory / ".new"
    made = room / "s"
    listener = socket.socket(socket.AF_UNIX)
    try:
        if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(0, "something else has this name")
        _clear(room)
        room.mkdir(mode=0o700)
        listener.bind(os.fspath(made))
        made.chmod(0o600)
        site = web.SockSite(runner, listener, backlog=_BACKLOG_CONNECTIONS)
        await site.start()
        made.replace(path)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"The socket {path} cannot be made: {error.strerror or error}.",
            "Move away what is there, or check the directory's owner and disk.",
        ) from error
    finally:
        _clear(room)
    return site, f"unix:{path}"


def remove_socket(directory: Path) -> None:
    """Take the socket's name away, if there is one. May be called twice."""
    path = directory / SOCKET_NAME
    if os.path.lexists(path) and stat.S_ISSOCK(path.lstat().st_mode):
        path.unlink()


def _clear(room: Path) -> None:
    """Remove what a server that was killed in the middle left of its new socket."""
    if room.is_dir() and not room.is_symlink():
        (room / "s").unlink(missing_ok=True)
        room.rmdir()
