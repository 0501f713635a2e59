"""`lwr config check` and `lwr config show`. Changes nothing."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lwr.commands.surroundings import find_ini, surroundings
from lwr.config import Config, Setting, load
from lwr.config import options as o


def run(args: argparse.Namespace) -> int:
    """Check or show. Raises ConfigError for a configuration with which no server would start."""
    ini = find_ini(args.ini)
    config = load(ini, surroundings(ini, os.environ))
    # What only a manager itself can judge, such as a program that is not installed.
    for manager in config.managers.values():
        manager.build()
    console = Console(soft_wrap=True)
    if args.json:
        console.print_json(json.dumps(_document(config, args.what, ini)))
    elif args.what == "show":
        console.print(_table(config))
    if not args.json:
        for notice in config.notices:
            console.print(f"[yellow]![/] {escape(notice)}")
        if args.what == "check":
            console.print(f"[green]✓[/] {escape(_verdict(config, ini))}")
    return 0


def _verdict(config: Config, ini: Path | None) -> str:
    scheme = "https" if config.ssl_pem else "http"
    managers = ", ".join(f"{manager.name} ({manager.type})" for manager in config.managers.values())
    source = str(ini) if ini else "The defaults (there is no server.ini here)"
    return f"{source}: good. {scheme}://{config.host}:{config.port}/, managers: {managers}."


def _document(config: Config, what: str, ini: Path | None) -> dict[str, Any]:
    document: dict[str, Any] = {"ok": True, "file": str(ini) if ini else None, "notices": list(config.notices)}
    if what == "show":
        document["settings"] = [
            {"section": line.section, "name": line.name, "value": line.shown, "origin": line.origin}
            for line in _ordered(config.settings)
        ]
    return document


def _table(config: Config) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("option")
    table.add_column("value", overflow="fold")
    table.add_column("from")
    section = ""
    for line in _ordered(config.settings):
        if line.section != section:
            section = line.section
            table.add_row(f"[bold]{escape(f'[{section}]')}[/]", "", "")
        origin = "[dim]default[/]" if line.origin == "default" else f"[cyan]{escape(line.origin)}[/]"
        table.add_row(f"  {escape(line.name)}", escape(line.shown) or "[dim]-[/]", origin)
    return table


def _ordered(settings: Sequence[Setting]) -> list[Setting]:
    """Section by section, and as the samples have the options; what a section has of its own comes last."""
    names = [option.name for option in (*o.SERVER_OPTIONS, *o.MANAGER_OPTIONS)]
    sections = list(dict.fromkeys([o.SERVER, o.APP, *(line.section for line in settings)]))
    return sorted(
        settings,
        key=lambda line: (
            sections.index(line.section),
            names.index(line.name) if line.name in names else len(names),
        ),
    )
