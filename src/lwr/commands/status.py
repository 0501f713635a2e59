"""`lwr status`: how a server is, on one screen, or as JSON for programs. Exits with 0 when it takes jobs, else 1."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lwr.client import RemoteServer
from lwr.commands.terminal import COLOURS, connect, duration, plain, size
from lwr.core.job import JobState
from lwr.errors import LwrError

EXIT_READY, EXIT_NOT_READY = 0, 1
_PAUSE_S = 2.0
_PIPE_COLUMNS = 200
#: With less of it left, a disk is shown in yellow.
_LITTLE_ROOM = 0.1

Show = Callable[[RenderableType], object]


def run(args: argparse.Namespace) -> int:
    """Raises LwrError when the server cannot be asked; with `--watch` that is shown, and asked again."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    with connect(args.url, args.token_file) as server:
        if args.watch:
            return _watch(server, args, console)
        told = server.server_status()
        _show(told, server.url, args, console.print)
        return _code(told)


def _code(told: Mapping[str, Any]) -> int:
    return EXIT_READY if told["ready"] else EXIT_NOT_READY


def _show(told: Mapping[str, Any], url: str, args: argparse.Namespace, show: Show) -> None:
    if args.json:
        sys.stdout.write(json.dumps(told, indent=None if args.watch else 2) + "\n")
        sys.stdout.flush()
    else:
        show(screen(told, url))


def _watch(server: RemoteServer, args: argparse.Namespace, console: Console) -> int:
    """Look again and again until Ctrl-C; returns what the last look came to."""
    code = EXIT_NOT_READY
    with contextlib.suppress(KeyboardInterrupt), _shown(console, args) as show:
        while True:
            try:
                told = server.server_status()
                code = _code(told)
                _show(told, server.url, args, show)
            except LwrError as error:
                if not error.transient:
                    raise
                code = EXIT_NOT_READY
                _tell(error, args, show)
            time.sleep(_PAUSE_S)
    return code


def _tell(error: LwrError, args: argparse.Namespace, show: Show) -> None:
    if args.json:
        sys.stdout.write(json.dumps({"error": error.code, "message": error.message, "hint": error.hint}) + "\n")
        sys.stdout.flush()
    else:
        show(Text.from_markup(f"[red]✗[/] {escape(plain(str(error)))}"))


@contextlib.contextmanager
def _shown(console: Console, args: argparse.Namespace) -> Iterator[Show]:
    """How screens follow each other: in place on a terminal, one below the other elsewhere."""
    if args.json or not console.is_terminal:
        yield console.print
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda screen: live.update(screen, refresh=True)


def screen(told: Mapping[str, Any], url: str) -> RenderableType:
    """All that a server tells of itself (its `/status`), for a terminal."""
    now = _number(told, "at") or time.time()
    ready = "[green]● ready[/]" if told.get("ready") else "[red]● not ready[/]"
    up = f"up {_since(told, 'started_at', now)}" if _number(told, "started_at") is not None else ""
    head = f"[bold]LWR {_text(told, 'version')}[/]  {ready}  [dim]{up}  {escape(plain(url))}[/]"
    rows = Table.grid(padding=(0, 2))
    for number, manager in enumerate(_items(told, "managers")):
        rows.add_row(
            "" if number else "[dim]managers[/]", _text(manager, "name"), _text(manager, "type"), _jobs(manager)
        )
    _add_transfers(rows, told)
    _add_queue(rows, told, now)
    for number, disk in enumerate(_items(told, "disks")):
        rows.add_row("" if number else "[dim]disks[/]", _text(disk, "directory"), "", _room(disk))
    problems = [f"[red]![/] {escape(plain(str(problem)))}" for problem in told.get("problems") or []]
    return Group(head, rows, *problems)


def _jobs(manager: Mapping[str, Any]) -> str:
    jobs = manager.get("jobs")
    if not isinstance(jobs, dict):
        return "[yellow]unknown[/]"
    counts = [(state, jobs[state]) for state in JobState if isinstance(jobs.get(state), int)]
    shown = [f"{count} [{COLOURS.get(state, 'default')}]{state}[/]" for state, count in counts]
    return ", ".join(shown) or "[dim]no jobs[/]"


def _add_transfers(rows: Table, told: Mapping[str, Any]) -> None:
    staging = told.get("staging")
    if isinstance(staging, dict) and any(staging.values()):
        moved = f"{_text(staging, 'running')} under way, {_text(staging, 'waiting')} waiting"
        rows.add_row("[dim]files[/]", "moved by the server", "", moved)


def _add_queue(rows: Table, told: Mapping[str, Any], now: float) -> None:
    queue = told.get("queue")
    if not isinstance(queue, dict):
        return
    rows.add_row("[dim]queue[/]", _text(queue, "broker"), "", "")
    for name in ("consumer", "publisher"):
        link = queue.get(name)
        if not isinstance(link, dict):
            rows.add_row("", name, "", "[dim]not configured[/]")
            continue
        since = f"for {_since(link, 'since', now)}"
        connected = f"[green]connected[/] {since}"
        rows.add_row(
            "", name, "", connected if link.get("connected") else f"[red]away[/] {since}: {_text(link, 'reason')}"
        )
    oldest = f", the oldest for {_since(queue, 'oldest_at', now)}" if _number(queue, "oldest_at") is not None else ""
    rows.add_row("", "updates to be sent", "", f"{_text(queue, 'waiting')}{oldest}")


def _room(disk: Mapping[str, Any]) -> str:
    free_bytes, total_bytes = _number(disk, "free_bytes"), _number(disk, "total_bytes")
    if free_bytes is None or not total_bytes:
        return "[red]cannot be used[/]"
    share = free_bytes / total_bytes
    colour = "yellow" if share < _LITTLE_ROOM else "default"
    return f"[{colour}]{size(int(free_bytes))} free[/] of {size(int(total_bytes))} ({share:.0%})"


def _since(values: Mapping[str, Any], key: str, now: float) -> str:
    return duration(max(0, int(now - (_number(values, key) or now))))


def _items(values: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = values.get(key)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    return "-" if value is None or value == "" else escape(plain(str(value)))


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
