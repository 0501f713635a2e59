"""`lwr serve`: a server in the foreground, or one in the background and what becomes of it."""

from __future__ import annotations

import argparse
import os

from lwr.commands.surroundings import find_ini, surroundings
from lwr.config import ENVIRONMENT_PREFIX, Config, load


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop. Raises ConfigError when the server cannot start."""
    ini = find_ini(args.ini)
    environ = surroundings(ini, os.environ)
    os.environ.clear()
    os.environ.update(environ)
    arguments = {"host": args.host, "port": args.port, "log_file": args.log_file}
    config = load(ini, environ, arguments={name: text for name, text in arguments.items() if text is not None})
    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        del os.environ[name]  # jobs inherit the rest, and these may hold the secret
    return _serve(config)


def _serve(config: Config) -> int:
    from lwr.server.app import serve

    return serve(config, lambda url: print(url, flush=True))  # noqa: T201
