"""`lwr config check` and `lwr config show`. Changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lwr.commands.surroundings import find_ini, surroundings
from lwr.config import Config, Setting, load
from lwr.config import options as o
from lwr.config.option import APP, SERVER
from lwr.transfer.brokerfaults import check_files


def run(args: argparse.Namespace) -> int:
    """Check or show. Raises ConfigError for a configuration with which no server would start."""
    ini = find_ini(args.ini)
    config = load(ini, surroundings(ini, os.environ))
    _check(config)
    if args.json:
        lines = [json.dumps(_document(config, args.what, ini), indent=2)]
    else:
        lines = [f"! {notice}" for notice in config.notices]
        lines += _table(config) if args.what == "show" else [_verdict(config, ini)]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _check(config: Config) -> None:
    """What only those can judge who use the values, such as a program or a certificate that is not there."""
    for manager in config.managers.values():
        manager.build().stop()
    if config.ssl_pem not in ("", "*"):  # `*` would make a file
        from lwr.server.tls import ssl_context

        ssl_context(config.ssl_pem, config.directory)
    for place in config.queue.broker.places if config.queue else ():
        check_files(place.tls or {})


def _verdict(config: Config, ini: Path | None) -> str:
    ways = [f"{'https' if config.ssl_pem else 'http'}://{config.host}:{config.port}/"] if config.serves_http else []
    ways += [f"message queue at {config.queue.broker.shown}"] if config.queue else []
    managers = ", ".join(f"{manager.name} ({manager.type})" for manager in config.managers.values())
    source = str(ini) if ini else "The defaults (there is no server.ini here)"
    return f"✓ {source}: good. {', '.join(ways)}, managers: {managers}."


def _document(config: Config, what: str, ini: Path | None) -> dict[str, Any]:
    document: dict[str, Any] = {"ok": True, "file": str(ini) if ini else None, "notices": list(config.notices)}
    if what == "show":
        document["settings"] = [
            {"section": line.section, "name": line.name, "value": line.shown, "origin": line.origin}
            for line in _ordered(config.settings)
        ]
    return document


def _table(config: Config) -> Iterable[str]:
    """`name = value  (origin)` in columns, section by section."""
    name_width = max(len(line.name) for line in config.settings)
    value_width = min(40, max(len(line.shown) for line in config.settings))
    section = ""
    for line in _ordered(config.settings):
        if line.section != section:
            section = line.section
            yield f"[{section}]"
        yield f"{line.name:<{name_width}} = {line.shown:<{value_width}}  ({line.origin})"


def _ordered(settings: Sequence[Setting]) -> list[Setting]:
    """As the samples have them; what only one kind of manager takes comes last in its section."""
    sections = list(dict.fromkeys([SERVER, APP, *(line.section for line in settings)]))
    server = [option.name for option in o.SERVER_OPTIONS]
    manager = [option.name for option in o.MANAGER_OPTIONS]

    def place(line: Setting) -> tuple[int, int]:
        names = server if line.section in (SERVER, APP) else manager
        return sections.index(line.section), names.index(line.name) if line.name in names else len(names)

    return sorted(settings, key=place)
