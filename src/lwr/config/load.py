"""Putting the configuration together: server.ini, then `LWR_CONFIG_*`, then the command line; the later wins.

Reads files and makes none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lwr.config import options as o
from lwr.config.ini import Entry, IniFile
from lwr.config.managers import ManagerDefaults, default_manager, read_managers
from lwr.config.model import Config, ManagerConfig, is_loopback
from lwr.config.option import APP, SERVER, Option, nearest
from lwr.config.queue import queue_config
from lwr.config.queue_options import QUEUE_URL
from lwr.config.values import Setting, Values, claim
from lwr.errors import ConfigError
from lwr.managers.manager import ManagerKind, manager_kinds

ENVIRONMENT_PREFIX = "LWR_CONFIG_"
_SECTIONS = (SERVER, APP)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    arguments: Mapping[str, str] | None = None,
    kinds: Mapping[str, ManagerKind] | None = None,
) -> Config:
    """Read and check everything. Opens nothing that it describes; may be called again.

    Args:
        path: server.ini; None for none, then paths are relative to the working directory.
        environ: where `LWR_CONFIG_*` and GALAXY_HOME are looked up.
        arguments: options from the command line, by name.
        kinds: the kinds of managers; those that are installed if not given.

    Raises:
        ConfigError: an unknown or unserved name, a value or a combination that cannot work, an unreadable file.
    """
    notices: list[str] = []
    given: dict[str, Entry] = {}
    if path is not None:
        given = claim(_from_file(IniFile(path.absolute()), notices))
    secrets = [name for name in (o.PRIVATE_KEY.name, QUEUE_URL.name) if name in given]
    given |= claim(_from_environment(environ, notices))
    given |= claim((_option(name), Entry(name, text, "command line")) for name, text in (arguments or {}).items())
    directory = path.absolute().parent if path else Path.cwd()
    if path and secrets and _others_read(path):
        exposed = " and the ".join(secrets)
        notices.append(f"Others on this machine can read the {exposed} in {path}: `chmod 600 {path}`.")
    settings: list[Setting] = []
    server = Values(SERVER, directory, given, settings)
    app = Values(APP, directory, given, settings)
    config = _build(server, app, environ, manager_kinds() if kinds is None else kinds, notices)
    _check(config)
    return config


def _build(
    server: Values, app: Values, environ: Mapping[str, str], kinds: Mapping[str, ManagerKind], notices: list[str]
) -> Config:
    app.get(o.ASSIGN_IDS)
    staging_directory = app.path(o.STAGING_DIRECTORY)
    debug = app.get(o.DEBUG)
    host = server.get(o.HOST).strip("[]")
    ssl_pem = server.get(o.SSL_PEM) if server.is_set(o.SSL_PEM, "*") else server.path(o.SSL_PEM)
    managers = _managers(app, ManagerDefaults(staging_directory, debug, environ.get("GALAXY_HOME", "")), kinds)
    return Config(
        directory=app.directory,
        host="" if host.lower() == "none" else host,
        port=server.get(o.PORT),
        ssl_pem=ssl_pem,
        private_key=app.get(o.PRIVATE_KEY),
        query_secret=app.get(o.QUERY_SECRET),
        staging_directory=staging_directory,
        persistence_directory=app.path(o.PERSISTENCE_DIRECTORY),
        debug=debug,
        log_format=app.get(o.LOG_FORMAT),
        log_level=app.get(o.LOG_LEVEL),
        log_file=app.path(o.LOG_FILE),
        shutdown_grace_s=app.get(o.SHUTDOWN_GRACE),
        failed_job_retention_s=app.get(o.FAILED_JOB_RETENTION),
        delivered_job_retention_s=app.get(o.DELIVERED_RETENTION),
        record_retention_s=app.get(o.RECORD_RETENTION),
        staging_threads_count=app.get(o.STAGING_THREADS),
        staging_slots_count=app.get(o.STAGING_SLOTS),
        staging_slots_per_host_count=app.get(o.STAGING_SLOTS_PER_HOST),
        staging_timeout_s=app.get(o.STAGING_TIMEOUT),
        staging_url_schemes=app.get(o.STAGING_SCHEMES),
        staging_url_hosts=app.get(o.STAGING_HOSTS),
        staging_url_networks=app.get(o.STAGING_NETWORKS),
        remote_copy_roots=app.get(o.REMOTE_COPY_ROOTS),
        file_cache_dir=app.path(o.FILE_CACHE_DIR),
        file_cache_max_bytes=app.get(o.FILE_CACHE_SIZE),
        maximum_upload_bytes=app.get(o.MAXIMUM_UPLOAD),
        managers=managers,
        queue=queue_config(app, managers, notices),
        settings=tuple(app.settings),
        notices=tuple(dict.fromkeys(notices)),
    )


def _managers(app: Values, defaults: ManagerDefaults, kinds: Mapping[str, ManagerKind]) -> Mapping[str, ManagerConfig]:
    path = app.path(o.JOB_MANAGERS_CONFIG)
    if not path:
        return default_manager(defaults, kinds, app.settings)
    return read_managers(IniFile(Path(path)), defaults, kinds, app.settings)


def _check(config: Config) -> None:
    """What no option can say of itself. Raises ConfigError."""
    if not config.serves_http and not (config.queue and config.queue.consume):
        raise ConfigError(
            "host = none opens no port, and no message_queue_url says where jobs come from instead.",
            "Set message_queue_url in [app:main] (and leave message_queue_consume on), or set host = localhost.",
        )
    if config.serves_http and not config.private_key and not is_loopback(config.host):
        raise ConfigError(
            f"host = {config.host} lets other machines in, and there is no private_key: anybody who reaches port "
            f"{config.port} could run commands here.",
            "Set private_key in [app:main] (and ssl_pem, so that nobody can overhear it), or set host = localhost.",
        )
    persistence = Path(config.persistence_directory)
    for staging in {config.staging_directory, *(manager.staging_directory for manager in config.managers.values())}:
        if persistence.is_relative_to(staging):
            raise ConfigError(
                f"persistence_directory ({persistence}) is inside a staging_directory ({staging}), where a job of "
                "that name would overwrite the database.",
                "Put the two side by side.",
            )


def _from_file(ini: IniFile, notices: list[str]) -> Iterable[tuple[Option[Any], Entry]]:
    for section in ini.sections:
        if section not in _SECTIONS:
            _check_section(ini, section, notices)
    for section in _SECTIONS:
        for entry in ini.defaults(section):
            option = o.known(entry.name, section)
            if option:
                yield option, entry
            elif not ini.only_referenced(entry.name) and not o.known(entry.name):
                _refuse_or_notice(entry, "DEFAULT", notices)
        for entry in ini.own(section):
            option = o.known(entry.name, section)
            if option:
                yield option, entry
            else:
                _refuse_or_notice(entry, section, notices)


def _from_environment(environ: Mapping[str, str], notices: list[str]) -> Iterable[tuple[Option[Any], Entry]]:
    for variable, text in sorted(environ.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            entry = Entry(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), text.strip(), variable)
            option = o.known(entry.name)
            if option:
                yield option, entry
            else:
                _refuse_or_notice(entry, "", notices)


def _option(name: str) -> Option[Any]:
    option = o.known(name)
    if option is None:
        raise ConfigError(f"There is no option {name}.", _hint(name))
    return option


def _refuse_or_notice(entry: Entry, section: str, notices: list[str]) -> None:
    """Deal with a name that is no option here: a notice when it is retired. Raises ConfigError otherwise."""
    elsewhere = o.known(entry.name)
    if elsewhere:
        raise ConfigError(
            f"{entry.name} ({entry.origin}) stands in [{section}].", f"It belongs in [{elsewhere.section}]."
        )
    for unserved in o.UNSERVED_OPTIONS:
        if unserved.covers(entry.name):
            if unserved.later and entry.text:
                raise ConfigError(
                    f"{entry.name} ({entry.origin}): {unserved.what} is not in this version of LWR.",
                    "Remove the line, or stay with the version that serves it.",
                )
            if not unserved.later:
                notices.append(f"{entry.name} ({entry.origin}) does nothing any more: {unserved.what}")
            return
    raise ConfigError(f"{entry.name} ({entry.origin}) is not an option.", _hint(entry.name))


def _hint(name: str) -> str:
    near = nearest(name, (known for option in o.SERVER_OPTIONS for known in option.names))
    return near or "`lwr config show` lists all options."


def _check_section(ini: IniFile, section: str, notices: list[str]) -> None:
    for unserved in o.UNSERVED_SECTIONS:
        if unserved.covers(section):
            notices.append(f"[{section}] ({ini.path.name}) does nothing any more: {unserved.what}")
            return
    raise ConfigError(
        f"[{section}] ({ini.path.name}) is not a section of LWR.",
        nearest(section, _SECTIONS) or "The sections are [server:main] and [app:main].",
    )


def _others_read(path: Path) -> bool:
    return os.name == "posix" and bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
