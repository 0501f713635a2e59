"""`lwr serve`: a server in the foreground, or one in the background and what becomes of it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from lwr.commands.surroundings import find_ini, surroundings
from lwr.config import ENVIRONMENT_PREFIX, Config, load
from lwr.errors import ConfigError

#: What a stopping server may need beyond the grace for requests in flight, before we say that it hangs.
_STOP_MARGIN_S = 30.0
EXIT_NOT_RUNNING = 3


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop, or start, stop or look for a server in the background.

    Raises:
        ConfigError: the server cannot start; nothing was left running.
        Unavailable: the server to be stopped did not end in time.
    """
    ini = find_ini(args.ini)
    pid_file = _absolute(args.pid_file) or (ini.parent if ini else Path.cwd()) / "lwr.pid"
    if args.status:
        return _status(args, pid_file)
    if args.stop_daemon:
        return _stop(args, pid_file, _stop_deadline_s(ini))
    config = _configure(args, ini)
    if args.daemon:
        return _start(args, pid_file, config)
    with _daemon().pid_file(pid_file) if args.pid_file else contextlib.nullcontext():
        return _serve(config, config.log_file, lambda url: _say(args, _answers(url), {"url": url}))


def _configure(args: argparse.Namespace, ini: Path | None) -> Config:
    """Read the configuration, and make `local_env.sh` part of this process's environment."""
    environ = surroundings(ini, os.environ)
    log_file = _absolute(args.log_file)
    arguments = {"host": args.host, "port": args.port, "log_file": str(log_file) if log_file else None}
    config = load(ini, environ, arguments={name: text for name, text in arguments.items() if text is not None})
    os.environ.clear()
    # Whatever this process starts inherits these, and should not inherit our secret.
    os.environ.update({name: text for name, text in environ.items() if not name.startswith(ENVIRONMENT_PREFIX)})
    return config


def _stop_deadline_s(ini: Path | None) -> float:
    # A configuration that has become wrong must not keep a server from being stopped.
    with contextlib.suppress(ConfigError):
        return load(ini, os.environ).shutdown_grace_s + _STOP_MARGIN_S
    return _STOP_MARGIN_S


def _serve(config: Config, log_file: str, on_ready: Callable[[str], None]) -> int:
    import structlog

    from lwr.server import logs
    from lwr.server.app import serve

    output = logs.configure(config.log_format, config.log_level, log_file, secrets=config.secrets)
    with contextlib.closing(output):
        for notice in config.notices:
            structlog.get_logger("lwr").warning(notice)
        _make_directories(config)
        return serve(config, on_ready)


def _make_directories(config: Config) -> None:
    """Where jobs and their records go; raises ConfigError where that cannot be."""
    staging = {manager.staging_directory for manager in config.managers.values()}
    for directory in (config.persistence_directory, *staging):
        try:
            Path(directory).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The directory {directory} cannot be made: {error.strerror}.",
                "Make it, or name another in server.ini.",
            ) from error
        if not os.access(directory, os.W_OK | os.X_OK):
            raise ConfigError(f"The directory {directory} cannot be written to.", "`chown` it to the server's user.")


def _start(args: argparse.Namespace, pid_file: Path, config: Config) -> int:
    daemon = _daemon()
    log_file = Path(config.log_file or config.directory / "lwr.log")
    pid, url = daemon.start(pid_file, log_file, lambda on_ready: _serve(config, str(log_file), on_ready))
    _say(
        args,
        f"{_answers(url)} (process {pid}, log in {log_file})",
        {"url": url, "pid": pid, "log_file": str(log_file)},
    )
    return 0


def _answers(url: str) -> str:
    if url.startswith("unix:"):
        return f"LWR opens no port; `lwr status --url {url}` shows how it is"
    return f"LWR answers at {url}"


def _stop(args: argparse.Namespace, pid_file: Path, deadline_s: float) -> int:
    pid = _daemon().stop(pid_file, deadline_s)
    if pid is None:
        _say(args, f"No server runs with the pid file {pid_file}.", {"stopped": False})
        return EXIT_NOT_RUNNING
    _say(args, f"Stopped the server (process {pid}). Its jobs go on.", {"stopped": True, "pid": pid})
    return 0


def _status(args: argparse.Namespace, pid_file: Path) -> int:
    pid = _daemon().running(pid_file)
    if pid is None:
        _say(args, f"No server runs with the pid file {pid_file}.", {"running": False})
        return EXIT_NOT_RUNNING
    _say(args, f"A server runs (process {pid}).", {"running": True, "pid": pid})
    return 0


def _daemon() -> ModuleType:
    if os.name != "posix":
        raise ConfigError(
            "Servers in the background and pid files are for POSIX systems.", "Run `lwr serve` as a Windows service."
        )
    from lwr.commands import daemon

    return daemon


def _absolute(path: str | None) -> Path | None:
    return Path(path).absolute() if path is not None else None


def _say(args: argparse.Namespace, sentence: str, facts: Mapping[str, object]) -> None:
    sys.stdout.write(f"{json.dumps(facts) if args.json else sentence}\n")
    sys.stdout.flush()
